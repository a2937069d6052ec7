/* Error sums in the fixed order that backend.h gives: lanes, chunks, then chunks in ascending order. */
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

typedef struct chunk_sums {
    double sums[3], max;
    uint64_t zeros;
} chunk_sums;

typedef struct sums_job {
    const qem_cpu_kernels *kernels;
    const float *x, *y;
    uint64_t count;
    double center;
    chunk_sums *chunks;
} sums_job;

static void sum_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const sums_job *job = argument;
    (void)thread;
    for (uint64_t c = begin; c < end; c++) {
        const uint64_t first = c * QEM_ERROR_CHUNK, left = job->count - first;
        const size_t n = left < QEM_ERROR_CHUNK ? (size_t)left : QEM_ERROR_CHUNK;
        chunk_sums *out = &job->chunks[c];
        if (job->y)
            job->kernels->error_chunk(job->x + first, job->y + first, n, out->sums, &out->max, &out->zeros);
        else
            job->kernels->sum_chunk(job->x + first, n, job->center, &out->sums[0], &out->sums[1]);
    }
}

static qem_status run(qem_context *context, sums_job *job, uint64_t *chunk_count)
{
    void *memory;
    *chunk_count = (job->count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK;
    QEM_TRY(qem_allocate(context, *chunk_count, sizeof(chunk_sums), &memory));
    job->chunks = memory;
    qem_parallel_for(context->threads, *chunk_count, 16, sum_chunks, job);
    return QEM_OK;
}

qem_status qem_cpu_error_sums(qem_context *context, const float *x, const float *y, uint64_t count, qem_error_sums *sums)
{
    sums_job job = { qem_kernels(context), x, y, count, 0.0, NULL };
    uint64_t chunk_count;
    QEM_TRY(run(context, &job, &chunk_count));
    *sums = (qem_error_sums){ 0 };
    for (uint64_t c = 0; c < chunk_count; c++) {
        const chunk_sums *chunk = &job.chunks[c];
        sums->abs_error += chunk->sums[0];
        sums->squared_error += chunk->sums[1];
        sums->relative_error += chunk->sums[2];
        if (chunk->max > sums->max_error) sums->max_error = chunk->max;
        sums->zeros += chunk->zeros;
    }
    qem_release(context, job.chunks);
    return QEM_OK;
}

qem_status qem_cpu_sum(qem_context *context, const float *x, uint64_t count, double center, double *sum, double *squared)
{
    sums_job job = { qem_kernels(context), x, NULL, count, center, NULL };
    uint64_t chunk_count;
    QEM_TRY(run(context, &job, &chunk_count));
    *sum = *squared = 0.0;
    for (uint64_t c = 0; c < chunk_count; c++) {
        *sum += job.chunks[c].sums[0];
        *squared += job.chunks[c].sums[1];
    }
    qem_release(context, job.chunks);
    return QEM_OK;
}
