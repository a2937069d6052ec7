/* Steps of de-standardization as their inverse uses them, in device memory. */
#ifndef QEM_CUDA_UNDO_CUH
#define QEM_CUDA_UNDO_CUH

#include "backend.cuh"

struct qem_undo_step {
    uint32_t axis;
    uint64_t block, units_per_row; /* QEM_AXIS_BLOCK */
    const float *scale, *mean;     /* either may be NULL */
};

struct qem_undo_steps {
    uint32_t count;
    qem_undo_step step[QEM_MOST_AFFINE];
};

__device__ __forceinline__ uint64_t qem_undo_unit(const qem_undo_step &step, uint64_t row, uint64_t col)
{
    switch (step.axis) {
    case QEM_AXIS_ROW: return row;
    case QEM_AXIS_COLUMN: return col;
    case QEM_AXIS_BLOCK: return row * step.units_per_row + col / step.block;
    default: return 0;
    }
}

/* Units that an axis has. */
static inline uint64_t qem_undo_units(qem_axis axis, uint64_t block, uint64_t rows, uint64_t cols)
{
    qem_affine sizes = qem_affine();
    sizes.axis = axis;
    sizes.block = block;
    sizes.params = 32;
    qem_affine_sizes(&sizes, rows, cols);
    return sizes.units;
}

/* Copies the steps' tables, host memory, into scratch of the call. */
static inline qem_status qem_put_steps(qem_cuda_call &call, const qem_decode_affine *steps, uint32_t count, uint64_t rows,
                                       uint64_t cols, qem_undo_steps *to)
{
    *to = qem_undo_steps();
    to->count = count;
    for (uint32_t i = 0; i < count; i++) {
        const qem_decode_affine &from = steps[i];
        qem_undo_step &step = to->step[i];
        const uint64_t units = qem_undo_units(from.axis, from.block, rows, cols);
        float *scale = nullptr, *mean = nullptr;
        if (from.scale) QEM_TRY(call.put(from.scale, units, &scale));
        if (from.mean) QEM_TRY(call.put(from.mean, units, &mean));
        step.axis = (uint32_t)from.axis;
        step.block = from.block;
        step.units_per_row = from.axis == QEM_AXIS_BLOCK ? (cols - 1) / from.block + 1 : 0;
        step.scale = scale;
        step.mean = mean;
    }
    return QEM_OK;
}

#endif
