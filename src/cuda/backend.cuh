/*
 * The primitives of backend.h on a GPU, and what they share: the state of a context, scratch, launches. Each primitive
 * lives in the file of its kernels; backend.cu lists them in the table. All work goes into the context's own stream, in
 * order; what is launched is only waited for where host memory is written. A primitive begins with a qem_cuda_call.
 *
 * Results are those of the CPU's primitives to the last bit: integers, fixed point, and float operations in the order that
 * backend.h and src/cpu give.
 */
#ifndef QEM_CUDA_BACKEND_CUH
#define QEM_CUDA_BACKEND_CUH

#include "runtime.cuh"

extern "C" {
#include "../backend.h"
extern const qem_backend qem_cuda_backend;
}

#define QEM_CUDA_THREADS     256 /* of a block, where nothing else decides */
#define QEM_CUDA_MOST_BLOCKS 32

/* Device memory that is handed out from its beginning on. */
struct qem_cuda_block {
    unsigned char *memory;
    uint64_t bytes, used;
};

/* device_state of a context. */
struct qem_cuda_state {
    int device;
    cudaStream_t stream;
    uint32_t processors, threads_per_processor;
    uint32_t most_shared;                       /* bytes of shared memory that a block may ask for */
    qem_cuda_block block[QEM_CUDA_MOST_BLOCKS]; /* scratch; the first one is kept between calls, if it is small */
    uint32_t block_count;
    uint64_t wanted; /* bytes the first block should have */
    uint32_t depth;  /* calls, one in the other */
};

/*
 * One call of a primitive: the context's device is current while it lives, and scratch taken from it ends with it. Scratch
 * may be used again by the next call at once, because all work is in one stream. Calls nest.
 *
 *     qem_cuda_call call(context);
 *     float *sums;
 *     QEM_TRY(call.status);
 *     QEM_TRY(call.take(n, &sums));
 *     QEM_TRY(call.launch(QEM_LAUNCH(kernel, grid, block, 0, call.stream, sums)));
 *     return call.to_host(host, sums, n * sizeof *sums);
 */
class qem_cuda_call {
public:
    explicit qem_cuda_call(qem_context *context);
    ~qem_cuda_call();
    qem_cuda_call(const qem_cuda_call &) = delete;
    qem_cuda_call &operator=(const qem_cuda_call &) = delete;

    qem_context *const context;
    qem_cuda_state *const state;
    const cudaStream_t stream;
    qem_status status; /* of entering */

    /* Room for `count` elements, aligned to QEM_CUDA_ALIGNMENT; their content is not defined. */
    template <typename T> qem_status take(uint64_t count, T **memory)
    {
        void *bytes;
        *memory = nullptr;
        const qem_status taken = take_bytes(count, sizeof(T), &bytes);
        *memory = static_cast<T *>(bytes);
        return taken;
    }
    template <typename T> qem_status take_zero(uint64_t count, T **memory)
    {
        QEM_TRY(take(count, memory));
        return zero(*memory, count * sizeof(T));
    }
    /* A copy of host memory, which may change as soon as this returns. */
    template <typename T> qem_status put(const T *host, uint64_t count, T **memory)
    {
        QEM_TRY(take(count, memory));
        return to_device(*memory, host, count * sizeof(T));
    }
    qem_status to_device(void *device, const void *host, uint64_t bytes);
    qem_status to_host(void *host, const void *device, uint64_t bytes); /* waits */
    qem_status copy(void *device, const void *other_device, uint64_t bytes);
    qem_status zero(void *device, uint64_t bytes);
    qem_status wait(); /* for all work of the context */
    qem_status launch(cudaError_t error);

    /* Blocks for `items`, `per_block` each, but not more than the device runs at once of QEM_CUDA_THREADS threads. */
    uint32_t blocks(uint64_t items, uint64_t per_block = QEM_CUDA_THREADS) const;

private:
    qem_status take_bytes(uint64_t count, uint64_t size, void **memory);
    int device_before_;
    uint32_t count_before_;
    uint64_t used_before_;
};

/* Item of a thread in a loop over all of them: for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) */
__device__ __forceinline__ uint64_t qem_cuda_first()
{
    return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ uint64_t qem_cuda_stride()
{
    return (uint64_t)gridDim.x * blockDim.x;
}

/* ---- the primitives ---- */

qem_status qem_cuda_alloc(qem_context *context, uint64_t count, uint64_t size, void **device);
void qem_cuda_release(qem_context *context, void *device);
qem_status qem_cuda_to_device(qem_context *context, void *device, const void *host, uint64_t bytes);
qem_status qem_cuda_to_host(qem_context *context, void *host, const void *device, uint64_t bytes);
qem_status qem_cuda_copy(qem_context *context, void *device, const void *other_device, uint64_t bytes);
qem_status qem_cuda_zero(qem_context *context, void *device, uint64_t bytes);
qem_status qem_cuda_load(qem_context *context, const qem_view *view, const char *what, qem_matrix *matrix);
qem_status qem_cuda_extremes(qem_context *context, const float *x, uint64_t count, float *min, float *max);
qem_status qem_cuda_mean(qem_context *context, const float *x, uint64_t count, double *mean);
qem_status qem_cuda_scalar_histogram(qem_context *context, const float *x, uint64_t count, double center, uint64_t *counts);
qem_status qem_cuda_scalar_step(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                double center, int shift, uint64_t *counts, int64_t *sums);
qem_status qem_cuda_scalar_weighted_histogram(qem_context *context, const float *x, const float *weight, uint64_t count,
                                              double center, int weight_shift, uint64_t *weights);
qem_status qem_cuda_scalar_weighted_step(qem_context *context, const float *x, const float *weight, uint64_t count,
                                         const float *thresholds, uint64_t k, double center, int weight_shift, int shift,
                                         uint64_t *weights, int64_t *sums);
qem_status qem_cuda_weighted_moments(qem_context *context, const float *x, const float *weight, uint64_t count,
                                     double center, double moments[3]);
qem_status qem_cuda_scalar_assign(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                  uint32_t *labels);
qem_status qem_cuda_quantiles(qem_context *context, qem_subvectors points, uint32_t intervals, float *cuts);
qem_status qem_cuda_cell_ids(qem_context *context, qem_subvectors points, uint32_t intervals, const float *cuts,
                             uint32_t *ids);
qem_status qem_cuda_group_by_key(qem_context *context, const uint32_t *keys, uint64_t count, uint64_t key_count,
                                 uint32_t *order, uint64_t *offsets);
qem_status qem_cuda_count_distinct(qem_context *context, qem_subvectors points, const qem_problem *problems,
                                   uint64_t problem_count, uint64_t *distinct);
qem_status qem_cuda_distinct_values(qem_context *context, const float *x, uint64_t count, uint64_t limit, float *values,
                                    uint64_t *counts, uint64_t *found);
qem_status qem_cuda_kmeans(qem_context *context, const qem_kmeans_args *args);
qem_status qem_cuda_assign(qem_context *context, const qem_kmeans_args *args);
qem_status qem_cuda_refine(qem_context *context, const qem_refine_args *args);
qem_status qem_cuda_swap_forward(qem_context *context, const float *x, uint64_t rows, uint64_t cols, uint32_t levels,
                                 float *ordered, uint8_t *map);
qem_status qem_cuda_swap_inverse(qem_context *context, const float *ordered, const uint8_t *map, uint64_t rows,
                                 uint64_t cols, uint32_t levels, float *restored);
qem_status qem_cuda_swap_by_map(qem_context *context, const float *x, const uint8_t *map, uint64_t rows, uint64_t cols,
                                uint32_t levels, float *ordered);
qem_status qem_cuda_unit_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols, qem_axis axis,
                               uint64_t block, float *least, float *greatest, double *mean, double *square);
qem_status qem_cuda_standardized_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                                       const qem_decode_affine *steps, uint32_t count, qem_axis axis, uint64_t block,
                                       float *least, float *greatest, double *mean, double *square);
qem_status qem_cuda_standardize(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                                const qem_decode_affine *steps, uint32_t count, float *z);
qem_status qem_cuda_element_weights(qem_context *context, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                                    uint32_t count, const float *importance, uint64_t importance_rows, float *weight);
qem_status qem_cuda_search_block_scales(qem_context *context, const float *x, const float *weight, uint64_t rows,
                                        uint64_t cols, uint64_t block, uint32_t bits, uint64_t per_super,
                                        const float *supers, const float *levels, uint64_t k, uint8_t *q, double *error);
qem_status qem_cuda_pool_weights(qem_context *context, qem_subvectors weights, float *pooled);
qem_status qem_cuda_fit_block_scales(qem_context *context, const float *x, const float *coded, const float *weight,
                                     uint64_t rows, uint64_t cols, uint64_t block, float *scale);
qem_status qem_cuda_select_outliers(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *mean,
                                    const float *inverse, uint64_t count, float threshold, uint64_t *index,
                                    uint64_t *found);
qem_status qem_cuda_scatter(qem_context *context, float *x, const uint64_t *index, const float *value, uint64_t count);
qem_status qem_cuda_gather(qem_context *context, const float *x, const uint64_t *index, uint64_t count, float *value);
qem_status qem_cuda_subtract(qem_context *context, float *x, const float *y, uint64_t count);
qem_status qem_cuda_rotate(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *rotation,
                           const float *before, const float *after, float *out);
qem_status qem_cuda_cross_product(qem_context *context, const float *a, const float *b, uint64_t rows, uint64_t cols_a,
                                  uint64_t cols_b, double *product);
qem_status qem_cuda_pack(qem_context *context, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream);
qem_status qem_cuda_decode(qem_context *context, const qem_decode_args *args);
qem_status qem_cuda_open_artifact(qem_context *context, const qem_artifact *artifact, void **opened);
qem_status qem_cuda_decode_artifact(qem_context *context, void *opened, uint64_t row_begin, uint64_t row_end,
                                    qem_dtype dtype, void *out, uint64_t row_stride, int *overflow);
void qem_cuda_close_artifact(qem_context *context, void *opened);
qem_status qem_cuda_error_sums(qem_context *context, const float *x, const float *y, uint64_t count, qem_error_sums *sums);
qem_status qem_cuda_sum(qem_context *context, const float *x, uint64_t count, double center, double *sum, double *squared);

#endif
