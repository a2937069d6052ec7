/*
 * k-means++ (Arthur and Vassilvitskii 2007). D^2 is summed as integers, under a power-of-two scale that follows the largest
 * D^2 of the step, so a draw does not depend on the order of the sum, and a huge outlier does not hide the others once it is
 * a centre itself. The draw is the first point whose prefix sum exceeds u * total.
 */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "../core/random.h"
#include "kmeans.h"
#include "parallel.h"

/* Points a thread takes at once. A step is short, and there is one for each centre: only many points are worth the threads'
 * waiting for each other. Multiple of QEM_SEED_BLOCK. */
#define PIECE 131072

typedef struct seed_job {
    qem_work *work;
    qem_segment *segment;
    uint64_t first_block;
    uint32_t label;
} seed_job;

static void step_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const seed_job *job = argument;
    qem_segment *segment = job->segment;
    (void)thread;
    job->work->block_max[job->first_block + begin / QEM_SEED_BLOCK] =
        job->work->kernels->seed_step(segment->x + begin, segment->padded, (size_t)(end - begin), segment->dim,
                                      job->work->center, job->label, segment->d2 + begin, segment->labels + begin);
}

static void sum_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const seed_job *job = argument;
    (void)thread;
    for (uint64_t i = begin; i < end; i += QEM_SEED_BLOCK) {
        const uint64_t n = end - i < QEM_SEED_BLOCK ? end - i : QEM_SEED_BLOCK;
        job->work->seed_sums.block[job->first_block + i / QEM_SEED_BLOCK] =
            job->work->kernels->fixed_sum(job->segment->d2 + i, (size_t)n, job->work->seed_sums.scale);
    }
}

static uint64_t block_count(const qem_segment *segment)
{
    return (segment->padded + QEM_SEED_BLOCK - 1) / QEM_SEED_BLOCK;
}

/* D^2 and labels against the new centre; returns the largest D^2. */
static float step(qem_work *work, uint32_t label)
{
    seed_job job = { .work = work, .label = label };
    float largest = 0.0f;
    for (int s = 0; s < 2; s++) {
        job.segment = &work->segment[s];
        qem_parallel_for(work->threads, job.segment->padded, PIECE, step_piece, &job);
        for (uint64_t i = 0; i < job.segment->padded; i += PIECE) {
            const float here = work->block_max[job.first_block + i / QEM_SEED_BLOCK];
            largest = here > largest ? here : largest;
        }
        job.first_block += block_count(job.segment);
    }
    return largest;
}

/* Sums of the runs and the total from those of the blocks. */
static void sum_runs(qem_work *work)
{
    qem_seed_sums *sums = &work->seed_sums;
    const uint64_t blocks = block_count(&work->segment[0]) + block_count(&work->segment[1]);
    sums->total = 0;
    for (uint64_t first = 0; first < blocks; first += QEM_SEED_RUN) {
        int64_t run = 0;
        for (uint64_t b = first; b < first + QEM_SEED_RUN && b < blocks; b++) run += sums->block[b];
        sums->run[first / QEM_SEED_RUN] = run;
        sums->total += run;
    }
}

static void sum_blocks(qem_work *work)
{
    seed_job job = { .work = work };
    for (int s = 0; s < 2; s++) {
        job.segment = &work->segment[s];
        qem_parallel_for(work->threads, job.segment->padded, PIECE, sum_piece, &job);
        job.first_block += block_count(job.segment);
    }
}

/* The same for points in k-d order, which count at their former places. */
static void sum_blocks_by_order(qem_work *work)
{
    const qem_segment *segment = &work->segment[0];
    memset(work->seed_sums.block, 0, (size_t)block_count(segment) * sizeof(int64_t));
    for (uint64_t i = 0; i < segment->count; i++)
        work->seed_sums.block[work->order[i] / QEM_SEED_BLOCK] += llrint((double)segment->d2[i] * work->seed_sums.scale);
}

/* Place of point number `index` of a segment; with pruning `previous` holds the places while the seeding lasts. */
static uint64_t place_of(const qem_work *work, int s, uint64_t index)
{
    return work->lanes ? work->segment[s].previous[index] : index;
}

/* The first point whose prefix sum exceeds `target` < total: segment and index. */
static void find_draw(const qem_work *work, int64_t target, int *segment_out, uint64_t *index)
{
    const qem_seed_sums *sums = &work->seed_sums;
    const uint64_t full_blocks = block_count(&work->segment[0]);
    uint64_t run = 0;
    while (target >= sums->run[run]) target -= sums->run[run++];
    uint64_t block = run * QEM_SEED_RUN;
    while (target >= sums->block[block]) target -= sums->block[block++];
    const int s = block >= full_blocks;
    uint64_t i = (s ? block - full_blocks : block) * QEM_SEED_BLOCK;
    for (;; i++) {
        const int64_t d2 = llrint((double)work->segment[s].d2[place_of(work, s, i)] * sums->scale);
        if (target < d2) break;
        target -= d2;
    }
    *segment_out = s;
    *index = i;
}

/* Makes point `index` of a segment centroid number j. */
static void take_center(qem_work *work, uint64_t j, int s, uint64_t index)
{
    const qem_segment *segment = &work->segment[s];
    const uint64_t place = place_of(work, s, index);
    for (uint32_t p = 0; p < work->width; p++) {
        work->center[p] = p < segment->dim ? segment->x[p * segment->padded + place] : qem_work_scaled(work, p, 0.0f);
        work->c[p * work->ldc + j] = work->center[p];
    }
    work->only_tail[j] = segment->dim < work->width;
}

static void start(qem_work *work)
{
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        for (uint64_t i = 0; i < segment->count; i++) segment->d2[i] = INFINITY;
        for (uint64_t i = segment->count; i < segment->padded; i++) segment->d2[i] = 0.0f;
        memset(segment->labels, 0, segment->padded * sizeof(uint32_t)); /* the padding is looked up too */
        memset(segment->previous, 0, segment->padded * sizeof(uint32_t));
    }
}

/* The D^2 of one more centre and their sums. Returns the total, 0 when every point is a centre; *shift is that of the sums. */
static int64_t advance(qem_work *work, uint32_t label, int *shift)
{
    qem_segment *segment = &work->segment[0];
    qem_seed_sums *sums = &work->seed_sums;
    const int pruned = work->lanes && label > 0;
    float largest;
    if (pruned)
        largest = work->kernels->seed_tiles(&work->tiles, segment->x, segment->padded, segment->dim, work->center, label,
                                            segment->d2, segment->labels, work->order, sums);
    else
        largest = step(work, label);
    if (work->lanes && label == 0) qem_prune_seed_begin(work);
    if (!(largest > 0.0f)) return 0; /* every point is a centre already */
    const int now = qem_fixed_shift(work->count, largest);
    if (pruned && now == *shift) return sums->total;
    *shift = now;
    sums->scale = ldexp(1.0, now);
    if (work->lanes)
        sum_blocks_by_order(work);
    else
        sum_blocks(work);
    sum_runs(work);
    return sums->total;
}

void qem_work_seed(qem_work *work, uint64_t seed, uint32_t restart)
{
    const uint64_t key = work->problem->key;
    int shift = 0;
    start(work);
    if (work->lanes) qem_prune_inverse(work, work->segment[0].previous);
    uint64_t first = qem_random_below(qem_random_u64(seed, key, 0, restart), work->count);
    int s = first >= work->segment[0].count;
    take_center(work, 0, s, s ? first - work->segment[0].count : first);
    work->k = 1;
    for (uint64_t j = 1; j < work->problem->k; j++) {
        const int64_t total = advance(work, (uint32_t)(j - 1), &shift);
        if (total == 0) return;
        const uint64_t random = qem_random_u64(seed, key, (uint32_t)j, restart);
        uint64_t index = 0;
        find_draw(work, (int64_t)qem_random_below(random, (uint64_t)total), &s, &index);
        take_center(work, j, s, index);
        work->k = j + 1;
    }
    (void)advance(work, (uint32_t)(work->k - 1), &shift);
}
