/*
 * Scalar codebooks: histogram, Lloyd step and codes of all elements, with and without weights. All sums are integers, so
 * that neither blocks nor atomic operations have an order that shows.
 *
 * Bytes: the elements (and weights) once, 4 bytes each, and 4 bytes for each code that is asked for: the minimum, apart
 * from the tables.
 */
#include "lanes.cuh"

#include <math.h>

#define BINS         65536
#define MOST_COPIES  8      /* of a table in shared memory, so that the threads of a warp seldom add to one place */
#define SHARED_BYTES 49152u /* for tables of a block */

typedef unsigned long long wide;

/* Number of ascending thresholds <= x. */
static __device__ __forceinline__ uint32_t code_of(const float *thresholds, uint32_t count, float x)
{
    uint32_t base = 0;
    while (count > 0) {
        const uint32_t half = (count + 1) / 2;
        base += thresholds[base + half - 1] <= x ? half : 0;
        count -= half;
    }
    return base;
}

/* ---- histogram ---- */

/* weight NULL: elements are counted, else weights added, in units of 1 / weight_scale. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    add_to_bins(const float *x, const float *weight, uint64_t count, double center, double weight_scale, wide *bins)
{
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) {
        const uint32_t bin = qem_cuda_key((float)((double)__ldg(x + i) - center)) >> 16;
        const wide amount = weight ? (wide)llrint((double)__ldg(weight + i) * weight_scale) : 1;
        if (amount) atomicAdd(bins + bin, amount);
    }
}

static qem_status histogram(qem_context *context, const float *x, const float *weight, uint64_t count, double center,
                            int weight_shift, uint64_t *bins)
{
    qem_cuda_call call(context);
    wide *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.take_zero(BINS, &on_device));
    QEM_TRY(call.launch(QEM_LAUNCH(add_to_bins, call.blocks(count), QEM_CUDA_THREADS, 0, call.stream, x, weight, count,
                                   center, ldexp(1.0, weight_shift), on_device)));
    return call.to_host(bins, on_device, BINS * sizeof *bins);
}

qem_status qem_cuda_scalar_histogram(qem_context *context, const float *x, uint64_t count, double center, uint64_t *counts)
{
    return histogram(context, x, nullptr, count, center, 0, counts);
}

qem_status qem_cuda_scalar_weighted_histogram(qem_context *context, const float *x, const float *weight, uint64_t count,
                                              double center, int weight_shift, uint64_t *weights)
{
    return histogram(context, x, weight, count, center, weight_shift, weights);
}

/* ---- Lloyd steps ---- */

struct step_job {
    const float *x, *weight; /* weight NULL: 1, in units of 1 */
    uint64_t count;
    const float *thresholds;
    uint32_t k, copies; /* copies 0: no tables in shared memory */
    double center, weight_scale, scale;
    wide *weights, *sums; /* [k] */
};

/* A sum of 64 bits by two atomic additions of 32, which shared memory has: the one that overflows the lower word carries.
 */
static __device__ __forceinline__ void add_wide(uint32_t *low, uint32_t *high, wide amount)
{
    const uint32_t before = atomicAdd(low, (uint32_t)amount);
    const uint32_t carry = (uint32_t)(before + (uint32_t)amount < before);
    const uint32_t upper = (uint32_t)(amount >> 32) + carry;
    if (upper) atomicAdd(high, upper);
}

struct step_terms {
    uint32_t code;
    wide weight, product;
};

static __device__ __forceinline__ step_terms terms_of(const step_job &job, const float *thresholds, uint64_t i)
{
    const float x = __ldg(job.x + i);
    const double d = (double)x - job.center, w = job.weight ? (double)__ldg(job.weight + i) : 1.0;
    step_terms t;
    t.code = code_of(thresholds, job.k - 1, x);
    t.weight = job.weight ? (wide)llrint(w * job.weight_scale) : 1;
    t.product = (wide)llrint((job.weight ? w * d : d) * job.scale); /* modulo 2^64, as the sum of signed ones is */
    return t;
}

/* Shared: the thresholds, then [code][copy] words of the weights' lower and upper halves and of the sums'. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) step_in_shared(step_job job)
{
    QEM_DYNAMIC_SHARED(uint32_t, words);
    const uint32_t size = job.k * job.copies, copy = threadIdx.x % job.copies;
    uint32_t *const tables = words + job.k;
    float *const thresholds = (float *)words;
    for (uint32_t j = threadIdx.x; j + 1 < job.k; j += blockDim.x) thresholds[j] = __ldg(job.thresholds + j);
    for (uint32_t j = threadIdx.x; j < 4 * size; j += blockDim.x) tables[j] = 0;
    __syncthreads();
    for (uint64_t i = qem_cuda_first(); i < job.count; i += qem_cuda_stride()) {
        const step_terms t = terms_of(job, thresholds, i);
        uint32_t *const at = tables + t.code * job.copies + copy;
        add_wide(at, at + size, t.weight);
        add_wide(at + 2 * size, at + 3 * size, t.product);
    }
    __syncthreads();
    for (uint32_t j = threadIdx.x; j < size; j += blockDim.x) {
        const wide weight = (wide)tables[j + size] << 32 | tables[j],
                   sum = (wide)tables[j + 3 * size] << 32 | tables[j + 2 * size];
        if (weight) atomicAdd(job.weights + j / job.copies, weight);
        if (sum) atomicAdd(job.sums + j / job.copies, sum);
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) step_in_global(step_job job)
{
    for (uint64_t i = qem_cuda_first(); i < job.count; i += qem_cuda_stride()) {
        const step_terms t = terms_of(job, job.thresholds, i);
        atomicAdd(job.weights + t.code, t.weight);
        atomicAdd(job.sums + t.code, t.product);
    }
}

static uint32_t step_bytes(uint32_t k, uint32_t copies)
{
    return 4 * k + 16 * k * copies;
}

static qem_status launch_step(qem_cuda_call &call, step_job &job)
{
    const uint32_t blocks = call.blocks(job.count, 16 * QEM_CUDA_THREADS); /* elements enough to pay for the tables */
    job.copies = job.k <= SHARED_BYTES / 20 ? 1 : 0;
    while (job.copies && job.copies < MOST_COPIES && step_bytes(job.k, 2 * job.copies) <= SHARED_BYTES / 4) job.copies *= 2;
    if (job.copies)
        return call.launch(
            QEM_LAUNCH(step_in_shared, blocks, QEM_CUDA_THREADS, step_bytes(job.k, job.copies), call.stream, job));
    return call.launch(QEM_LAUNCH(step_in_global, blocks, QEM_CUDA_THREADS, 0, call.stream, job));
}

static qem_status step(qem_context *context, step_job &job, const float *thresholds, uint64_t k, uint64_t *weights,
                       int64_t *sums)
{
    qem_cuda_call call(context);
    float *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.put(thresholds, k - 1, &on_device));
    QEM_TRY(call.take_zero(2 * k, &job.weights));
    job.thresholds = on_device;
    job.k = (uint32_t)k;
    job.sums = job.weights + k;
    QEM_TRY(launch_step(call, job));
    QEM_TRY(call.to_host(weights, job.weights, k * sizeof *weights));
    return call.to_host(sums, job.sums, k * sizeof *sums);
}

qem_status qem_cuda_scalar_step(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                double center, int shift, uint64_t *counts, int64_t *sums)
{
    step_job job = step_job();
    job.x = x;
    job.count = count;
    job.center = center;
    job.scale = ldexp(1.0, shift);
    return step(context, job, thresholds, k, counts, sums);
}

qem_status qem_cuda_scalar_weighted_step(qem_context *context, const float *x, const float *weight, uint64_t count,
                                         const float *thresholds, uint64_t k, double center, int weight_shift, int shift,
                                         uint64_t *weights, int64_t *sums)
{
    step_job job = step_job();
    job.x = x;
    job.weight = weight;
    job.count = count;
    job.center = center;
    job.weight_scale = ldexp(1.0, weight_shift);
    job.scale = ldexp(1.0, shift);
    return step(context, job, thresholds, k, weights, sums);
}

/* ---- codes ---- */

/* Shared: the thresholds, where they are few enough. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    assign(const float *x, uint64_t count, const float *thresholds, uint32_t k, uint32_t shared, uint32_t *labels)
{
    QEM_DYNAMIC_SHARED(float, staged);
    if (shared) {
        for (uint32_t j = threadIdx.x; j + 1 < k; j += blockDim.x) staged[j] = __ldg(thresholds + j);
        __syncthreads();
    }
    const float *const from = shared ? staged : thresholds;
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) labels[i] = code_of(from, k - 1, __ldg(x + i));
}

qem_status qem_cuda_scalar_assign(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                  uint32_t *labels)
{
    qem_cuda_call call(context);
    float *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.put(thresholds, k - 1, &on_device));
    const uint32_t shared = k <= SHARED_BYTES / 4 / sizeof(float) ? 1 : 0;
    return call.launch(QEM_LAUNCH(assign, call.blocks(count, 4 * QEM_CUDA_THREADS), QEM_CUDA_THREADS,
                                  shared ? k * sizeof(float) : 0, call.stream, x, count, on_device, (uint32_t)k, shared,
                                  labels));
}
