/*
 * The scales of blocks: the best integer scale of every block against a scalar codebook, where all candidates are tried,
 * and the scale that fits what codes stand for by least squares. As in cpu/scale_search.c, each block is brought to a
 * largest magnitude below 1 by a power of two, and so are its weights, so that f32 is enough whatever the size of the data.
 */
#include "lanes.cuh"

#include <math.h>

#include "../core/threshold.h"

#define MOST_CANDIDATES 256
#define RUN             256 /* elements of a block that are summed in f32; runs are added in double */
#define SHARED_LEVELS   1024
#define NOTHING         INT32_MIN /* exponent of a block of zeros */

struct search_job {
    const float *x, *weight; /* weight may be NULL */
    uint64_t cols, block, of_row, units, per_super;
    uint32_t steps; /* candidates are 0 .. steps */
    uint32_t team;  /* threads of a unit, a power of two that is not below steps + 1 */
    const float *supers;
    const float *threshold, *level; /* [size]: z at or above threshold[i] takes level i or a higher one */
    uint32_t size;                  /* a power of two */
    int32_t *exponent, *weight_exponent;
    uint8_t *q;
    double *error;
};

/* Columns of a unit. */
struct block_range {
    uint64_t at;
    uint32_t width;
};

static __device__ __forceinline__ block_range range_of(const search_job &job, uint64_t unit)
{
    const uint64_t row = unit / job.of_row, col = (unit - row * job.of_row) * job.block, left = job.cols - col;
    const block_range r = { row * job.cols + col, (uint32_t)(left < job.block ? left : job.block) };
    return r;
}

/* ilogbf(x) + 1 of a finite x > 0, given by its bits. */
static __device__ __forceinline__ int32_t exponent_of(uint32_t bits)
{
    return bits >> 23 ? (int32_t)(bits >> 23) - 126 : 32 - __clz((int)bits) - 149;
}

static __device__ __forceinline__ uint32_t team_greatest(uint32_t value)
{
    for (int by = 1; by < 8; by *= 2) value = max(value, __shfl_xor_sync(QEM_ALL_LANES, value, by));
    return value;
}

/* A team of 8 threads finds the exponents of a unit. Bytes: the matrix and the weights once, 8 written a unit. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) find_exponents(search_job job)
{
    for (uint64_t round = 0; round < qem_team_rounds(job.units); round++) {
        const uint64_t unit = qem_team(round);
        const bool is_there = unit < job.units;
        const block_range r = range_of(job, is_there ? unit : 0);
        uint32_t x = 0, weight = 0;
        for (uint32_t i = threadIdx.x % QEM_LANES; is_there && i < r.width; i += QEM_LANES) {
            x = max(x, __float_as_uint(__ldg(job.x + r.at + i)) & 0x7fffffffu);
            if (job.weight) weight = max(weight, __float_as_uint(__ldg(job.weight + r.at + i)) & 0x7fffffffu);
        }
        x = team_greatest(x);
        weight = team_greatest(weight);
        if (!is_there || threadIdx.x % QEM_LANES != 0) continue;
        job.exponent[unit] = x ? exponent_of(x) : NOTHING;
        job.weight_exponent[unit] = weight ? exponent_of(weight) : NOTHING;
    }
}

/* 2^e, -1022 <= e <= 1023 */
static __device__ __forceinline__ double power_of_two(int32_t e)
{
    return __longlong_as_double((long long)(e + 1023) << 52);
}

/* x * 2^-e, rounded once: by a factor that f32 has, or two whose first product is exact because it grows. */
struct scaling {
    float first, second;
};

static __device__ __forceinline__ scaling scaling_of(int32_t e)
{
    const int32_t first = -e > 100 ? 100 : -e;
    const scaling s = { (float)power_of_two(first), (float)power_of_two(-e - first) };
    return s;
}

static __device__ __forceinline__ float scaled(const scaling &s, float x)
{
    return x * s.first * s.second;
}

static __device__ __forceinline__ float level_of(const float *thresholds, const float *levels, uint32_t size, float z)
{
    uint32_t index = 0;
    for (uint32_t half = size / 2; half > 0; half /= 2) index += thresholds[index + half] <= z ? half : 0;
    return levels[index];
}

/* The error of one candidate over a unit. */
static __device__ __forceinline__ double error_of(const search_job &job, uint64_t unit, uint32_t candidate,
                                                  const float *thresholds, const float *levels)
{
    const block_range r = range_of(job, unit);
    const int32_t exponent = job.exponent[unit], weight_exponent = job.weight_exponent[unit];
    const float super_step = __ldg(job.supers + unit / job.per_super) / (float)job.steps;
    const float scale = (float)((double)((float)candidate * super_step) * power_of_two(-exponent));
    const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
    const scaling of_x = scaling_of(exponent), of_weight = scaling_of(weight_exponent == NOTHING ? 0 : weight_exponent);
    const float *const weight = weight_exponent == NOTHING ? nullptr : job.weight + r.at;
    double total = 0.0;
    for (uint32_t i = 0; i < r.width; i += RUN) {
        const uint32_t end = r.width - i < RUN ? r.width : i + RUN;
        float sum = 0.0f;
        for (uint32_t n = i; n < end; n++) {
            const float x = scaled(of_x, __ldg(job.x + r.at + n));
            const float e = fmaf(-level_of(thresholds, levels, job.size, x * inverse), scale, x);
            sum = fmaf((weight ? scaled(of_weight, __ldg(weight + n)) : 1.0f) * e, e, sum);
        }
        total += (double)sum;
    }
    return total == total ? total : (double)INFINITY; /* of a scale beyond f32: never the least */
}

/* Threads of a team are the candidates of a unit, and all read the same element at once: from L1, after the first. The
 * least error, and of equal ones the first, is found in shared memory. Bytes: the matrix and the weights once, 9 to 17 a
 * unit; (2 + 2 log2 of the levels) instructions an element and candidate. */
static __global__ void __launch_bounds__(MOST_CANDIDATES) search(search_job job)
{
    QEM_SHARED(double, total, [MOST_CANDIDATES]);
    QEM_SHARED(uint32_t, index, [MOST_CANDIDATES]);
    QEM_SHARED(float, table, [2 * SHARED_LEVELS]);
    const float *thresholds = job.threshold, *levels = job.level;
    if (job.size <= SHARED_LEVELS) {
        for (uint32_t i = threadIdx.x; i < job.size; i += blockDim.x) {
            table[i] = __ldg(thresholds + i);
            table[SHARED_LEVELS + i] = __ldg(levels + i);
        }
        thresholds = table;
        levels = table + SHARED_LEVELS;
    }
    __syncthreads();
    const uint32_t candidate = threadIdx.x & (job.team - 1), teams = blockDim.x / job.team;
    for (uint64_t first = (uint64_t)blockIdx.x * teams; first < job.units; first += (uint64_t)gridDim.x * teams) {
        const uint64_t unit = first + threadIdx.x / job.team;
        const bool is_searched = unit < job.units && job.exponent[unit] != NOTHING;
        total[threadIdx.x] =
            is_searched && candidate <= job.steps ? error_of(job, unit, candidate, thresholds, levels) : (double)INFINITY;
        index[threadIdx.x] = candidate;
        for (uint32_t by = job.team / 2; by > 0; by /= 2) {
            __syncthreads();
            if (candidate >= by) continue;
            const double other = total[threadIdx.x + by], own = total[threadIdx.x];
            const uint32_t other_index = index[threadIdx.x + by];
            if (!(other < own || (other == own && other_index < index[threadIdx.x]))) continue;
            total[threadIdx.x] = other;
            index[threadIdx.x] = other_index;
        }
        if (candidate == 0 && unit < job.units) {
            const int32_t exponent = job.exponent[unit], weight_exponent = job.weight_exponent[unit];
            const bool is_told = is_searched && !(job.weight && weight_exponent == NOTHING);
            job.q[unit] = is_searched ? (uint8_t)index[threadIdx.x] : 0;
            job.error[unit] = is_told ? ldexp(total[threadIdx.x], 2 * exponent + (job.weight ? weight_exponent : 0)) : 0.0;
        }
        __syncthreads();
    }
}

/* ---- host ---- */

static qem_status put_levels(qem_cuda_call &call, const float *levels, uint64_t k, search_job *job)
{
    void *memory;
    float *on_device;
    job->size = 2;
    while (job->size < k) job->size *= 2;
    QEM_TRY(qem_allocate(call.context, job->size, 2 * sizeof(float), &memory));
    float *const threshold = (float *)memory, *const level = threshold + job->size;
    threshold[0] = -INFINITY;
    for (uint32_t i = 0; i < job->size; i++) level[i] = levels[i < k ? i : k - 1];
    for (uint32_t i = 1; i < job->size; i++)
        threshold[i] = i < k ? qem_threshold(((double)levels[i - 1] + (double)levels[i]) * 0.5) : INFINITY;
    const qem_status status = call.put(threshold, 2 * (uint64_t)job->size, &on_device);
    job->threshold = on_device;
    job->level = on_device + job->size;
    qem_release(call.context, memory);
    return status;
}

static qem_status take_units(qem_cuda_call &call, const float *supers, search_job *job)
{
    float *on_device;
    QEM_TRY(call.put(supers, (job->units - 1) / job->per_super + 1, &on_device));
    job->supers = on_device;
    QEM_TRY(call.take(job->units, &job->exponent));
    QEM_TRY(call.take(job->units, &job->weight_exponent));
    QEM_TRY(call.take(job->units, &job->q));
    return call.take(job->units, &job->error);
}

qem_status qem_cuda_search_block_scales(qem_context *context, const float *x, const float *weight, uint64_t rows,
                                        uint64_t cols, uint64_t block, uint32_t bits, uint64_t per_super,
                                        const float *supers, const float *levels, uint64_t k, uint8_t *q, double *error)
{
    qem_cuda_call call(context);
    search_job job = search_job();
    QEM_TRY(call.status);
    job.x = x;
    job.weight = weight;
    job.cols = cols;
    job.block = block;
    job.of_row = (cols - 1) / block + 1;
    job.units = rows * job.of_row;
    job.per_super = per_super;
    job.team = 1u << bits;
    job.steps = job.team - 1;
    QEM_TRY(put_levels(call, levels, k, &job));
    QEM_TRY(take_units(call, supers, &job));
    QEM_TRY(call.launch(QEM_LAUNCH(find_exponents, call.blocks(job.units, QEM_CUDA_THREADS / QEM_LANES), QEM_CUDA_THREADS,
                                   0, call.stream, job)));
    QEM_TRY(call.launch(
        QEM_LAUNCH(search, call.blocks(job.units, MOST_CANDIDATES / job.team), MOST_CANDIDATES, 0, call.stream, job)));
    QEM_TRY(call.to_host(q, job.q, job.units));
    return error ? call.to_host(error, job.error, job.units * sizeof *error) : QEM_OK;
}

/* ---- least squares ---- */

/* A thread makes the scale of a block, whose elements it adds in order; lines stay in L1 from one element to the next.
 * Bytes: 8 to 12 an element, 4 a block: the minimum. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    fit(const float *x, const float *coded, const float *weight, uint64_t cols, uint64_t block, uint64_t of_row,
        uint64_t units, float *scale)
{
    for (uint64_t unit = qem_cuda_first(); unit < units; unit += qem_cuda_stride()) {
        const uint64_t row = unit / of_row, first = (unit - row * of_row) * block;
        const uint64_t last = cols - first < block ? cols : first + block;
        double across = 0.0, square = 0.0;
        for (uint64_t at = row * cols + first; at < row * cols + last; at++) {
            const double w = weight ? (double)__ldg(weight + at) : 1.0, c = (double)__ldg(coded + at);
            across += w * c * (double)__ldg(x + at);
            square += w * c * c;
        }
        scale[unit] = across > 0.0 && square > 0.0 ? (float)(across / square) : 0.0f;
    }
}

qem_status qem_cuda_fit_block_scales(qem_context *context, const float *x, const float *coded, const float *weight,
                                     uint64_t rows, uint64_t cols, uint64_t block, float *scale)
{
    qem_cuda_call call(context);
    const uint64_t of_row = (cols - 1) / block + 1, units = rows * of_row;
    float *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.take(units, &on_device));
    QEM_TRY(call.launch(QEM_LAUNCH(fit, call.blocks(units), QEM_CUDA_THREADS, 0, call.stream, x, coded, weight, cols, block,
                                   of_row, units, on_device)));
    return call.to_host(scale, on_device, units * sizeof *scale);
}
