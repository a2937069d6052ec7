/* One weight for each sub-vector from those of its elements. */
#include "cpu.h"
#include "parallel.h"
#include "problem.h"

#define PIECE 16384 /* sub-vectors a thread takes at once */

typedef struct pool_job {
    const qem_subvectors *weights;
    float *pooled;
} pool_job;

static void pool_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const pool_job *job = argument;
    (void)thread;
    for (uint64_t id = begin; id < end; id++) {
        const float *w = qem_subvector(job->weights, (uint32_t)id);
        const uint32_t width = qem_subvector_width(job->weights, (uint32_t)id);
        double sum = 0.0;
        for (uint32_t p = 0; p < width; p++) sum += (double)w[p];
        job->pooled[id] = (float)(sum / (double)width);
    }
}

qem_status qem_cpu_pool_weights(qem_context *context, qem_subvectors weights, float *pooled)
{
    pool_job job = { &weights, pooled };
    qem_parallel_for(context->threads, weights.rows * weights.groups, PIECE, pool_piece, &job);
    return QEM_OK;
}
