/* A device artifact as kernels and host code see it: pointers of the structs here are to device memory where nothing else
 * is said, all of it inside one arena. */
#ifndef QEM_CUDA_ARTIFACT_CUH
#define QEM_CUDA_ARTIFACT_CUH

#include "device.cuh"

extern "C" {
#include "../core/artifact.h"
#include "../core/context.h"
#include <qem/cuda.h>
}

/* Where a group's codes and entries lie, for codes whose width differs by group. */
struct __align__(16) qem_cuda_group {
    uint64_t bit;   /* its code's first bit, counted from the row's first */
    uint64_t entry; /* its codebook's first float, counted from that of the row's cell; the width of its codes << 56 */
};

#define QEM_CUDA_ENTRY_MASK (((uint64_t)1 << 56) - 1)

/* x = fmaf(x, scale[unit], mean[unit]); a missing scale is 1, a missing mean 0. */
struct qem_cuda_step {
    const float *scale, *mean;
    uint64_t block_reciprocal, units_per_row; /* QEM_AXIS_BLOCK */
    uint32_t axis, block;
};

/* qem_stage in device memory, with the steps of its layer. Streams have QEM_STREAM_SLACK readable bytes after their end and
 * end at a multiple of 16 bytes; they begin at one. UNIFORM and TABLE codebooks are shared ones of dimension 1 here. */
struct qem_cuda_stage {
    const uint32_t *codes;
    const qem_cuda_group *group; /* [groups], or NULL: codes of one width */
    const float *book;           /* NULL where book_half is not */
    const uint16_t *book_half;   /* the codebook as stored in f16 */
    const uint32_t *map;
    const uint64_t *node_bit; /* [2^levels - 1]: where the map of each node of the swaps' tree begins; NULL: map_row_bits */
    const float *rotation, *coarse;
    const uint32_t *row_cells;   /* bit stream; NULL where cells <= 1 */
    const uint32_t *cell_rows;   /* rows of the stage by cells, ascending in each; NULL where cells <= 1 */
    const uint32_t *cell_starts; /* [cells + 1] */
    uint64_t row_begin, row_end, row_bits;
    uint64_t groups, group_stride; /* floats from a group's codebook to the next, for codes of one width; 0: shared */
    uint64_t cell_floats;          /* from a cell's codebooks to the next */
    uint64_t dim_reciprocal;
    uint64_t map_row_bits; /* not 0: codes and map are laid out for decode_swapped.cu (swapped.cuh) */
    uint32_t dim, code_bits, levels;
    uint32_t cells, cell_bits;
    uint32_t step_count;
    qem_cuda_step step[QEM_MOST_AFFINE];
};

/* Elements that are kept as they are. */
struct qem_cuda_outliers {
    uint64_t count;
    uint32_t index_size;
    const void *index; /* row-major, ascending */
    const float *value;
};

/* Rows of the output of one launch, or f32 rows in the workspace. */
struct qem_cuda_rows {
    uint64_t cols;
    uint64_t row_begin, rows; /* row_begin counts from the artifact's first row; out and sum begin with it */
    void *out;
    uint64_t row_stride;        /* elements */
    uint32_t dtype;             /* qem_dtype: F32, F16, BF16 */
    const float *sum;           /* [rows, cols]: the layers before; NULL where there are none. May be out itself */
    uint32_t *overflow;         /* or NULL */
    qem_cuda_outliers outliers; /* what overflows below one of them does not count */
};

/* Columns (below 2^48) are divided by numbers below 2^16 as the upper half of a product with this, which is exact; 0 stands
 * for the divisor 1. */
static inline uint64_t qem_cuda_reciprocal(uint64_t divisor)
{
    return divisor == 1 ? 0 : UINT64_MAX / divisor + 1;
}

/* ---- what the host keeps ---- */

/* Groups first .. first + groups - 1 of a stage whose codebooks fit in shared memory together; with swaps they are of the
 * first leaf, and as many of each other leaf belong to them. */
struct qem_cuda_slab {
    uint32_t first, groups;
};

struct qem_cuda_slabs {
    uint32_t count;
    uint32_t floats; /* of the codebooks of the largest; 0: they are read where they are */
};

struct qem_cuda_host_stage {
    qem_cuda_stage on_device; /* a copy of what lies in the arena */
    uint64_t k;
    const uint16_t *rounded[2];   /* shared codebooks that are the decoded values: as f16, as bf16; else NULL */
    const qem_cuda_slab *slab[2]; /* for outputs of 2 and of 4 bytes; device; NULL where there are none */
    qem_cuda_slabs slabs[2];
    int mixed;      /* codes and codebooks are of a width by group */
    int halves;     /* the codebook is stored as f16: that holds it without loss */
    double largest; /* no decoded value of its layer is larger; infinite: unknown */
};

/* Rows that the same stages decode. */
struct qem_cuda_segment {
    uint64_t row_begin, row_end;
    const qem_cuda_stage *stages; /* device, [layer_count] */
    const qem_cuda_host_stage *stage[QEM_MOST_STAGES];
};

#define QEM_CUDA_OUTLIER_STARTS 1024 /* places in the index that the host knows */

struct qem_device_artifact {
    qem_allocator allocator;
    int device;
    int owns_memory;
    void *memory; /* device */
    uint64_t bytes;
    uint64_t rows, cols;
    uint32_t layer_count, stage_count, segment_count;
    uint32_t rotated;    /* 1 if any stage is */
    uint32_t processors; /* multiprocessors of the device */
    uint32_t threads_per_processor;
    qem_cuda_host_stage *stages;
    qem_cuda_segment *segments;
    qem_cuda_outliers outliers;
    uint64_t outlier_starts[QEM_CUDA_OUTLIER_STARTS + 1]; /* how many lie before row qem_cuda_outlier_row(rows, i) */
};

/* Rows below 2^48. */
static inline uint64_t qem_cuda_outlier_row(uint64_t rows, uint64_t i)
{
    return rows * i / QEM_CUDA_OUTLIER_STARTS;
}

/* The least power of two that is not below n, at most `most`, itself a power of two. */
static inline uint32_t qem_cuda_power(uint64_t n, uint32_t most)
{
    uint32_t power = 1;
    while (power < most && power < n) power *= 2;
    return power;
}

/* ---- launches, each in the file of its kernels; all only enqueue ---- */

/* Layers first .. last - 1, none of them rotated, added to rows.sum. raw: the codes of layer `first` are looked up, nothing
 * more: no swaps, no steps, no sum (what a rotation begins with). */
cudaError_t qem_cuda_decode_any(const qem_cuda_stage *stages, uint32_t first, uint32_t last, int raw,
                                const qem_cuda_rows &rows, cudaStream_t stream);
/* y: [rows.rows, cols], looked up. out = sum + steps(coarse + y * rotation). */
cudaError_t qem_cuda_decode_rotated(const qem_cuda_host_stage &stage, const qem_cuda_stage *on_device, const float *y,
                            const qem_cuda_rows &rows, cudaStream_t stream);
/* Outliers first .. last - 1 of the index, as far as they lie in the rows, over what is there. */
cudaError_t qem_cuda_write_outliers(uint64_t first, uint64_t last, const qem_cuda_rows &rows, cudaStream_t stream);

/* qem_cuda_dequantize without its checks; rows may be none. */
cudaError_t qem_cuda_decode_rows(const qem_device_artifact *artifact, uint64_t row_begin, uint64_t row_end, uint32_t dtype,
                                 void *out, uint64_t row_stride, uint32_t *overflow, void *workspace, cudaStream_t stream);

/* The kernels of each file are loaded, so that no launch has to. */
cudaError_t qem_cuda_load_any(void);
cudaError_t qem_cuda_load_rotate(void);
cudaError_t qem_cuda_load_outliers(void);

#endif
