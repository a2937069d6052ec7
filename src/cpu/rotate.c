/* Rotations of rows: pieces of rows, each by the blocked kernel; what is to be subtracted first goes through scratch. */
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define PIECE_BYTES ((uint64_t)512 << 10) /* rows of x, so that they stay in the second-level cache for all panels */
#define LEAST_ROWS 24                     /* of a piece: the rotation is read once for so many */
#define MOST_ROWS 192

typedef struct rotate_job {
    const qem_cpu_kernels *kernels;
    const float *x;
    uint64_t cols, piece;
    const float *rotation, *before, *after;
    float *out;
    float *scratch; /* of each thread: a piece of rows */
} rotate_job;

static void rotate_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const rotate_job *job = argument;
    const uint64_t cols = job->cols;
    const float *x = job->x + begin * cols;
    if (job->before) {
        float *scratch = job->scratch + thread * job->piece * cols;
        for (uint64_t i = 0; i < end - begin; i++)
            for (uint64_t j = 0; j < cols; j++) scratch[i * cols + j] = x[i * cols + j] - job->before[j];
        x = scratch;
    }
    job->kernels->rotate_rows(x, (size_t)cols, (size_t)(end - begin), (size_t)cols, job->rotation, job->after,
                              job->out + begin * cols, (size_t)cols);
}

qem_status qem_cpu_rotate(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *rotation,
                          const float *before, const float *after, float *out)
{
    rotate_job job = { .kernels = qem_kernels(context), .x = x, .cols = cols, .rotation = rotation, .before = before,
                       .after = after, .out = out };
    const uint64_t fit = PIECE_BYTES / (cols * sizeof(float)), share = rows / context->threads + 1;
    void *scratch = NULL;
    job.piece = fit > MOST_ROWS ? MOST_ROWS : fit < LEAST_ROWS ? LEAST_ROWS : fit / 6 * 6;
    if (job.piece > share) job.piece = share;
    if (before) QEM_TRY(qem_allocate(context, context->threads * job.piece, cols * sizeof(float), &scratch));
    job.scratch = scratch;
    qem_parallel_for(context->threads, rows, job.piece, rotate_piece, &job);
    qem_release(context, scratch);
    return QEM_OK;
}
