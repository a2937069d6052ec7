/* Passes over all elements for scalar codebooks where each element has a weight. */
#include <math.h>
#include <string.h>

#include "../core/ordered_key.h"
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define PIECE 65536 /* elements handed to a thread at once */
#define BLOCK 1024  /* elements whose codes are kept while they are added */
#define BINS 65536

typedef struct weighted_job {
    const qem_cpu_kernels *kernels;
    const float *x, *weight, *thresholds;
    uint64_t k;
    double center, weight_scale, scale;
    uint64_t *weights;    /* one table a thread */
    int64_t *sums;        /* one table a thread */
    double (*moments)[3]; /* one a chunk */
} weighted_job;

static void fold(uint64_t *tables, uint64_t size, uint32_t threads)
{
    for (uint32_t t = 1; t < threads; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * size + i];
}

static void histogram_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weighted_job *job = argument;
    uint64_t *weights = job->weights + (uint64_t)thread * BINS;
    for (uint64_t i = begin; i < end; i++)
        weights[qem_ordered_key((float)((double)job->x[i] - job->center)) >> 16] +=
            (uint64_t)llrint((double)job->weight[i] * job->weight_scale);
}

qem_status qem_cpu_scalar_weighted_histogram(qem_context *context, const float *x, const float *weight, uint64_t count,
                                             double center, int weight_shift, uint64_t *weights)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, (uint64_t)context->threads * BINS, sizeof(uint64_t), &memory));
    weighted_job job = { .x = x, .weight = weight, .center = center, .weights = memory };
    job.weight_scale = ldexp(1.0, weight_shift);
    qem_parallel_for(context->threads, count, PIECE, histogram_piece, &job);
    fold(job.weights, BINS, context->threads);
    memcpy(weights, job.weights, BINS * sizeof(uint64_t));
    qem_release(context, memory);
    return QEM_OK;
}

static void step_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weighted_job *job = argument;
    uint64_t *weights = job->weights + thread * job->k;
    int64_t *sums = job->sums + thread * job->k;
    uint32_t codes[BLOCK];
    for (uint64_t i = begin; i < end; i += BLOCK) {
        const size_t n = end - i < BLOCK ? (size_t)(end - i) : BLOCK;
        job->kernels->scalar_codes(job->x + i, n, job->thresholds, (size_t)job->k - 1, codes);
        for (size_t b = 0; b < n; b++) {
            const double w = (double)job->weight[i + b];
            weights[codes[b]] += (uint64_t)llrint(w * job->weight_scale);
            sums[codes[b]] += llrint(w * ((double)job->x[i + b] - job->center) * job->scale);
        }
    }
}

qem_status qem_cpu_scalar_weighted_step(qem_context *context, const float *x, const float *weight, uint64_t count,
                                        const float *thresholds, uint64_t k, double center, int weight_shift, int shift,
                                        uint64_t *weights, int64_t *sums)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, 2 * k * context->threads, sizeof(uint64_t), &memory));
    weighted_job job = { .kernels = qem_kernels(context), .x = x, .weight = weight, .thresholds = thresholds, .k = k };
    job.center = center;
    job.weight_scale = ldexp(1.0, weight_shift);
    job.scale = ldexp(1.0, shift);
    job.weights = memory;
    job.sums = (int64_t *)memory + k * context->threads;
    qem_parallel_for(context->threads, count, PIECE, step_piece, &job);
    fold(job.weights, k, context->threads);
    fold((uint64_t *)job.sums, k, context->threads); /* modulo 2^64, as the sum of signed ones is */
    memcpy(weights, job.weights, (size_t)k * sizeof(uint64_t));
    memcpy(sums, job.sums, (size_t)k * sizeof(int64_t));
    qem_release(context, memory);
    return QEM_OK;
}

static void moments_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weighted_job *job = argument;
    double *moments = job->moments[begin / QEM_ERROR_CHUNK];
    double weight = 0.0, first = 0.0, second = 0.0;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) {
        const double w = (double)job->weight[i], d = (double)job->x[i] - job->center, product = w * d;
        weight += w;
        first += product;
        second += product * d;
    }
    moments[0] = weight;
    moments[1] = first;
    moments[2] = second;
}

qem_status qem_cpu_weighted_moments(qem_context *context, const float *x, const float *weight, uint64_t count, double center,
                                    double moments[3])
{
    const uint64_t chunks = (count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK;
    void *memory;
    QEM_TRY(qem_allocate(context, chunks, sizeof(double[3]), &memory));
    weighted_job job = { .x = x, .weight = weight, .center = center, .moments = memory };
    qem_parallel_for(context->threads, count, QEM_ERROR_CHUNK, moments_piece, &job);
    moments[0] = moments[1] = moments[2] = 0.0;
    for (uint64_t c = 0; c < chunks; c++)
        for (int m = 0; m < 3; m++) moments[m] += job.moments[c][m];
    qem_release(context, memory);
    return QEM_OK;
}
