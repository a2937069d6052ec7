/*
 * Recursive halving along the widest dimension, on the numbers of the points; the points themselves move once, at the end.
 * Results of the search do not depend on this order, only its speed does, so ties may fall as they like.
 */
#include "kdorder.h"

#include <string.h>

#include "parallel.h"

#define CHUNK 8192      /* points of a subtree that a thread takes at once: lanes * 2^i */
#define PIECE 16384

typedef struct order_job {
    const qem_cpu_kernels *kernels;
    const float *x;
    size_t ld, count;
    uint32_t dim;
    uint32_t *order, *scratch;
} order_job;

/* Orders places begin .. end-1 down to runs of `leaf`. Halves are leaf * 2^i long, so runs of such lengths stay together. */
static void split(const order_job *job, size_t begin, size_t end, size_t leaf)
{
    while (end - begin > leaf) {
        size_t half = leaf;
        while (2 * half < end - begin) half *= 2;
        job->kernels->kd_split(job->x, job->ld, job->dim, job->order + begin, end - begin, half, job->scratch + 2 * begin);
        split(job, begin + half, end, leaf);
        end = begin + half;
    }
}

static void split_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const order_job *job = argument;
    (void)thread;
    for (uint64_t c = begin; c < end; c++) {
        const size_t first = (size_t)c * CHUNK, last = first + CHUNK < job->count ? first + CHUNK : job->count;
        split(job, first, last, job->kernels->lanes);
    }
}

typedef struct move_job {
    const float *from;
    const uint32_t *order;
    float *to;
} move_job;

static void move_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const move_job *job = argument;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) job->to[i] = job->from[job->order[i]];
}

void qem_kd_order(const qem_cpu_kernels *kernels, uint32_t threads, float *x, size_t ld, size_t count, uint32_t dim,
                  uint32_t *order, uint32_t *scratch)
{
    const order_job job = { kernels, x, ld, count, dim, order, scratch };
    for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
    split(&job, 0, count, CHUNK);
    qem_parallel_for(threads, (count + CHUNK - 1) / CHUNK, 1, split_chunks, (void *)&job);
    for (uint32_t p = 0; p < dim; p++) {
        move_job move = { x + p * ld, order, (float *)scratch };
        qem_parallel_for(threads, count, PIECE, move_piece, &move);
        memcpy(x + p * ld, scratch, count * sizeof(float));
    }
}
