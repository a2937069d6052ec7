/* Single elements: bits of a stream, steps, storing. What every kernel shares. */
#ifndef QEM_CUDA_ELEMENT_CUH
#define QEM_CUDA_ELEMENT_CUH

#include "artifact.cuh"

/* `bits` bits (0 .. 24) from `bit` on; two words are read, of which the second may lie in the slack. */
__device__ __forceinline__ uint32_t qem_bits_at(const uint32_t *stream, uint64_t bit, uint32_t bits)
{
    const uint32_t *word = stream + (bit >> 5);
    return __funnelshift_r(__ldg(word), __ldg(word + 1), (uint32_t)bit & 31u) & ((1u << bits) - 1u);
}

/* column / divisor, without a division. */
__device__ __forceinline__ uint64_t qem_column_quotient(uint64_t column, uint64_t reciprocal)
{
    return reciprocal ? __umul64hi(column, reciprocal) : column;
}

__device__ __forceinline__ float qem_apply_steps(const qem_cuda_stage &stage, uint64_t row, uint64_t col, float x)
{
    for (uint32_t i = 0; i < stage.step_count; i++) {
        const qem_cuda_step &step = stage.step[i];
        uint64_t unit = 0;
        if (step.axis == QEM_AXIS_ROW) unit = row;
        if (step.axis == QEM_AXIS_COLUMN) unit = col;
        if (step.axis == QEM_AXIS_BLOCK) unit = row * step.units_per_row + qem_column_quotient(col, step.block_reciprocal);
        x = fmaf(x, step.scale ? __ldg(step.scale + unit) : 1.0f, step.mean ? __ldg(step.mean + unit) : 0.0f);
    }
    return x;
}

__device__ __forceinline__ uint64_t qem_cuda_outlier(const qem_cuda_outliers &o, uint64_t i)
{
    return o.index_size == 8 ? __ldg((const unsigned long long *)o.index + i) : __ldg((const uint32_t *)o.index + i);
}

__device__ inline bool qem_is_outlier(const qem_cuda_outliers &o, uint64_t element)
{
    uint64_t low = 0, high = o.count;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (qem_cuda_outlier(o, middle) < element)
            low = middle + 1;
        else
            high = middle;
    }
    return low < o.count && qem_cuda_outlier(o, low) == element;
}

__device__ __forceinline__ bool qem_is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* Row `row` of the rows of the launch. covered: an outlier is written there later if its index says so. */
__device__ __forceinline__ void qem_store_element(const qem_cuda_rows &to, uint64_t row, uint64_t col, float x,
                                                  bool covered)
{
    const uint64_t at = row * to.row_stride + col;
    if (to.dtype == QEM_DTYPE_F32) {
        ((float *)to.out)[at] = x;
        return;
    }
    const uint32_t infinity = to.dtype == QEM_DTYPE_F16 ? 0x7c00u : 0x7f80u;
    const uint32_t bits = to.dtype == QEM_DTYPE_F16 ? qem_f16_bits(x) : qem_bf16_bits(x);
    ((uint16_t *)to.out)[at] = (uint16_t)bits;
    if ((bits & 0x7fffu) == infinity && qem_is_finite(x) && to.overflow &&
        !(covered && qem_is_outlier(to.outliers, (to.row_begin + row) * to.cols + col)))
        atomicOr(to.overflow, 1u);
}

#endif
