/*
 * k-means++ (Arthur and Vassilvitskii 2007). D^2 is summed as integers, under a power-of-two scale that follows the largest
 * D^2 of the step, so a draw does not depend on the order of the sum, and a huge outlier does not hide the others once it is
 * a centre itself. The draw is the first point whose prefix sum exceeds u * total. A weighted point counts with weight * D^2,
 * for the first draw with its weight.
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
#define LEAST_TOTAL ((int64_t)1 << 40) /* sums of weighted D^2 below it are made again under a finer scale */

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
    const qem_work *work = job->work;
    float *largest = &work->block_max[job->first_block + begin / QEM_SEED_BLOCK];
    (void)thread;
    if (work->weighting == QEM_WEIGHT_ELEMENT)
        *largest = work->kernels->weighted_step(segment->x + begin, segment->w + begin, segment->padded, (size_t)(end - begin),
                                                segment->dim, work->center, job->label, segment->d2 + begin,
                                                segment->labels + begin);
    else
        *largest = work->kernels->seed_step(segment->x + begin, segment->padded, (size_t)(end - begin), segment->dim,
                                            work->center, job->label, segment->d2 + begin, segment->labels + begin);
}

/* What the point at a place adds to the sums. */
static int64_t fixed_error(const qem_work *work, const qem_segment *segment, uint64_t place)
{
    double error = (double)segment->d2[place];
    if (work->weighting == QEM_WEIGHT_POINT) error *= (double)segment->w[place]; /* exact */
    return llrint(error * work->seed_sums.scale);
}

static int64_t sum_errors(const qem_work *work, const qem_segment *segment, uint64_t begin, uint64_t end)
{
    int64_t sum = 0;
    if (work->weighting != QEM_WEIGHT_POINT)
        return work->kernels->fixed_sum(segment->d2 + begin, (size_t)(end - begin), work->seed_sums.scale);
    for (uint64_t i = begin; i < end; i++) sum += fixed_error(work, segment, i);
    return sum;
}

static void sum_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const seed_job *job = argument;
    (void)thread;
    for (uint64_t i = begin; i < end; i += QEM_SEED_BLOCK) {
        const uint64_t n = end - i < QEM_SEED_BLOCK ? end - i : QEM_SEED_BLOCK;
        job->work->seed_sums.block[job->first_block + i / QEM_SEED_BLOCK] = sum_errors(job->work, job->segment, i, i + n);
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
        work->seed_sums.block[work->order[i] / QEM_SEED_BLOCK] += fixed_error(work, segment, i);
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
        const int64_t error = fixed_error(work, &work->segment[s], place_of(work, s, i));
        if (target < error) break;
        target -= error;
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
        memset(segment->labels, 0, segment->padded * sizeof(uint32_t)); /* the padding is looked up too */
        memset(segment->previous, 0, segment->padded * sizeof(uint32_t));
    }
    if (work->lanes) qem_prune_inverse(work, work->segment[0].previous);
}

static void fill_d2(qem_work *work, float value)
{
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        for (uint64_t i = 0; i < segment->count; i++) segment->d2[i] = value;
        for (uint64_t i = segment->count; i < segment->padded; i++) segment->d2[i] = 0.0f;
    }
}

/* All sums under the shift that suits the largest weighted D^2; 0 when there is no error left. */
static int64_t sum_anew(qem_work *work, double largest, int *shift)
{
    if (!(largest > 0.0)) return 0;
    *shift = qem_fixed_shift(work->count, largest);
    work->seed_sums.scale = ldexp(1.0, *shift);
    if (work->lanes)
        sum_blocks_by_order(work);
    else
        sum_blocks(work);
    sum_runs(work);
    return work->seed_sums.total;
}

static double largest_error(const qem_work *work)
{
    double largest = 0.0;
    for (int s = 0; s < 2; s++) {
        const qem_segment *segment = &work->segment[s];
        for (uint64_t i = 0; i < segment->count; i++) {
            const double error = (double)segment->d2[i] * (work->weighting == QEM_WEIGHT_POINT ? (double)segment->w[i] : 1.0);
            largest = error > largest ? error : largest;
        }
    }
    return largest;
}

/* The first centre, drawn by the points' weights. */
static void draw_by_weight(qem_work *work, uint64_t random, int *s, uint64_t *index)
{
    int shift;
    fill_d2(work, 1.0f);
    for (int part = 0; part < 2 && work->weighting == QEM_WEIGHT_ELEMENT; part++) {
        const qem_segment *segment = &work->segment[part];
        memset(segment->d2, 0, segment->padded * sizeof(float));
        for (uint32_t p = 0; p < segment->dim; p++) work->kernels->add(segment->w + p * segment->w_ld, (size_t)segment->count, segment->d2);
    }
    const int64_t total = sum_anew(work, largest_error(work), &shift); /* weights that are all 0 are none */
    find_draw(work, (int64_t)qem_random_below(random, (uint64_t)total), s, index);
}

static void draw_first(qem_work *work, uint64_t random, int *s, uint64_t *index)
{
    if (work->weighting) {
        draw_by_weight(work, random, s, index);
        return;
    }
    *index = qem_random_below(random, work->count);
    *s = *index >= work->segment[0].count;
    if (*s) *index -= work->segment[0].count;
}

/* The largest weight * D^2 takes a pass to find, so the scale stays until the total has become small. */
static int64_t sum_weighted(qem_work *work, uint32_t label, int pruned, int *shift)
{
    if (label > 0 && !pruned) {
        sum_blocks(work);
        sum_runs(work);
    }
    if (label > 0 && work->seed_sums.total >= LEAST_TOTAL) return work->seed_sums.total;
    return sum_anew(work, largest_error(work), shift);
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
    if (work->weighting == QEM_WEIGHT_POINT) return sum_weighted(work, label, pruned, shift);
    if (!(largest > 0.0f)) return 0; /* every point is a centre already */
    if (pruned && qem_fixed_shift(work->count, largest) == *shift) return sums->total;
    return sum_anew(work, largest, shift);
}

void qem_work_seed(qem_work *work, uint64_t seed, uint32_t restart)
{
    const uint64_t key = work->problem->key;
    int shift = 0, s;
    uint64_t first;
    start(work);
    draw_first(work, qem_random_u64(seed, key, 0, restart), &s, &first);
    fill_d2(work, INFINITY);
    take_center(work, 0, s, first);
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
