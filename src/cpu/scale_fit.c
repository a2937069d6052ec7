/* The scale of each block that fits what its codes stand for best, by least squares. */
#include <string.h>

#include "cpu.h"
#include "parallel.h"

#define PIECE 16384 /* elements handed to a thread at once */

typedef struct fit_job {
    const float *x, *coded, *weight;
    uint64_t cols, block, of_row;
    float *scale;
} fit_job;

static void fit_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const fit_job *job = argument;
    (void)thread;
    for (uint64_t i = begin; i < end; i++)
        for (uint64_t b = 0; b < job->of_row; b++) {
            const uint64_t first = b * job->block, last = job->cols - first < job->block ? job->cols : first + job->block;
            double across = 0.0, square = 0.0;
            for (uint64_t j = first; j < last; j++) {
                const uint64_t at = i * job->cols + j;
                const double w = job->weight ? (double)job->weight[at] : 1.0, c = (double)job->coded[at];
                across += w * c * (double)job->x[at];
                square += w * c * c;
            }
            job->scale[i * job->of_row + b] = across > 0.0 && square > 0.0 ? (float)(across / square) : 0.0f;
        }
}

qem_status qem_cpu_fit_block_scales(qem_context *context, const float *x, const float *coded, const float *weight, uint64_t rows,
                                    uint64_t cols, uint64_t block, float *scale)
{
    fit_job job = { .x = x, .coded = coded, .weight = weight, .cols = cols, .block = block, .scale = scale };
    job.of_row = (cols - 1) / block + 1;
    qem_parallel_for(context->threads, rows, cols >= PIECE ? 1 : PIECE / cols, fit_rows, &job);
    return QEM_OK;
}
