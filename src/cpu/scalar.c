/* Passes over all elements for scalar codebooks: extremes, mean, histogram, Lloyd step, codes. */
#include <math.h>
#include <string.h>

#include "../core/ordered_key.h"
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define PIECE 65536 /* elements handed to a thread at once */
#define BLOCK 1024  /* elements whose codes are kept while they are counted */
#define BINS 65536

typedef struct scalar_job {
    const qem_cpu_kernels *kernels;
    const float *x;
    uint64_t count;
    float (*range)[2]; /* one a piece */
    double *sums;      /* one a piece */
    const float *thresholds;
    uint64_t k;
    double center, scale;
    uint64_t *counts;  /* one table a thread */
    int64_t *fixed;    /* one table a thread */
    uint32_t *labels;
} scalar_job;

static void range_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const scalar_job *job = argument;
    (void)thread;
    float *range = job->range[begin / PIECE];
    job->kernels->extremes(job->x + begin, (size_t)(end - begin), &range[0], &range[1]);
}

qem_status qem_cpu_extremes(qem_context *context, const float *x, uint64_t count, float *min, float *max)
{
    const uint64_t pieces = (count + PIECE - 1) / PIECE;
    void *memory;
    QEM_TRY(qem_allocate(context, pieces, sizeof(float[2]), &memory));
    scalar_job job = { .kernels = qem_kernels(context), .x = x, .count = count, .range = memory };
    qem_parallel_for(context->threads, count, PIECE, range_piece, &job);
    *min = job.range[0][0];
    *max = job.range[0][1];
    for (uint64_t i = 1; i < pieces; i++) {
        *min = job.range[i][0] < *min ? job.range[i][0] : *min;
        *max = job.range[i][1] > *max ? job.range[i][1] : *max;
    }
    qem_release(context, memory);
    return QEM_OK;
}

qem_status qem_cpu_mean(qem_context *context, const float *x, uint64_t count, double *mean)
{
    double sum, squared;
    QEM_TRY(qem_cpu_sum(context, x, count, 0.0, &sum, &squared));
    *mean = sum / (double)count;
    return QEM_OK;
}

static void histogram_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const scalar_job *job = argument;
    uint64_t *counts = job->counts + (uint64_t)thread * BINS;
    for (uint64_t i = begin; i < end; i++) counts[qem_ordered_key((float)((double)job->x[i] - job->center)) >> 16]++;
}

/* Adds the tables of all threads into the first. */
static void fold_counts(uint64_t *tables, uint64_t size, uint32_t threads)
{
    for (uint32_t t = 1; t < threads; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * size + i];
}

qem_status qem_cpu_scalar_histogram(qem_context *context, const float *x, uint64_t count, double center, uint64_t *counts)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, (uint64_t)context->threads * BINS, sizeof(uint64_t), &memory));
    scalar_job job = { .kernels = qem_kernels(context), .x = x, .count = count, .center = center, .counts = memory };
    qem_parallel_for(context->threads, count, PIECE, histogram_piece, &job);
    fold_counts(job.counts, BINS, context->threads);
    memcpy(counts, job.counts, BINS * sizeof(uint64_t));
    qem_release(context, memory);
    return QEM_OK;
}

static void step_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const scalar_job *job = argument;
    uint64_t *counts = job->counts + thread * job->k;
    int64_t *sums = job->fixed + thread * job->k;
    uint32_t codes[BLOCK];
    for (uint64_t i = begin; i < end; i += BLOCK) {
        const size_t n = end - i < BLOCK ? (size_t)(end - i) : BLOCK;
        job->kernels->scalar_codes(job->x + i, n, job->thresholds, (size_t)job->k - 1, codes);
        for (size_t b = 0; b < n; b++) {
            counts[codes[b]]++;
            sums[codes[b]] += llrint(((double)job->x[i + b] - job->center) * job->scale);
        }
    }
}

qem_status qem_cpu_scalar_step(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                               double center, int shift, uint64_t *counts, int64_t *sums)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, 2 * k * context->threads, sizeof(uint64_t), &memory));
    scalar_job job = { .kernels = qem_kernels(context), .x = x, .count = count, .thresholds = thresholds, .k = k };
    job.center = center;
    job.scale = ldexp(1.0, shift);
    job.counts = memory;
    job.fixed = (int64_t *)memory + k * context->threads;
    qem_parallel_for(context->threads, count, PIECE, step_piece, &job);
    fold_counts(job.counts, k, context->threads);
    memcpy(counts, job.counts, (size_t)k * sizeof(uint64_t));
    memset(sums, 0, (size_t)k * sizeof(int64_t));
    for (uint32_t t = 0; t < context->threads; t++)
        for (uint64_t j = 0; j < k; j++) sums[j] += job.fixed[t * k + j];
    qem_release(context, memory);
    return QEM_OK;
}

static void assign_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const scalar_job *job = argument;
    (void)thread;
    job->kernels->scalar_codes(job->x + begin, (size_t)(end - begin), job->thresholds, (size_t)job->k - 1,
                               job->labels + begin);
}

qem_status qem_cpu_scalar_assign(qem_context *context, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                 uint32_t *labels)
{
    scalar_job job = { .kernels = qem_kernels(context), .x = x, .count = count, .thresholds = thresholds, .k = k };
    job.labels = labels;
    qem_parallel_for(context->threads, count, PIECE, assign_piece, &job);
    return QEM_OK;
}
