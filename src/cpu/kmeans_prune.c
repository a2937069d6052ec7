/* Exact pruning of one problem: order and boxes of the points, order and boxes of the centroids, and when it pays. */
#include <stdatomic.h>
#include <string.h>

#include "kdorder.h"
#include "kmeans.h"
#include "parallel.h"
#include "tree.h"

#define LEAST_POINTS 256
#define LEAST_CENTROIDS 64    /* fewer: ordering the points takes longer than it saves */
#define MOST_POINTS INT32_MAX /* the k-d order gathers by signed indices */
#define SAMPLE_STEP 61      /* one tile of so many is tried before the choice */
#define PIECE 256           /* tiles a thread takes at once */

int qem_prune_wanted(const qem_cpu_kernels *kernels, uint32_t dim, uint64_t count, uint64_t k)
{
    if (count < LEAST_POINTS || count > MOST_POINTS || k < LEAST_CENTROIDS) return 0;
    return kernels->lanes && dim <= QEM_MOST_PRUNED_DIM;
}

void qem_prune_points(qem_work *work, uint32_t *scratch)
{
    qem_segment *segment = &work->segment[0];
    qem_kd_order(work->kernels, work->threads, segment->x, segment->padded, segment->count, segment->dim, work->order, scratch);
    qem_boxes_fit(&work->tiles.box, segment->x, segment->padded, segment->count, segment->dim, work->lanes);
    qem_tiles_squares(&work->tiles, segment->x, segment->padded, segment->count, segment->dim, work->lanes);
}

void qem_prune_inverse(const qem_work *work, uint32_t *inverse)
{
    for (uint64_t i = 0; i < work->count; i++) inverse[work->order[i]] = (uint32_t)i;
}

static float largest_of(const float *x, size_t first, size_t last)
{
    float largest = 0.0f;
    for (size_t i = first; i < last; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

void qem_prune_seed_begin(qem_work *work)
{
    const qem_segment *segment = &work->segment[0];
    qem_tiles *tiles = &work->tiles;
    const size_t lanes = work->lanes;
    for (size_t t = 0; t < tiles->box.ld; t++) {
        const size_t first = t * lanes, last = first + lanes < segment->count ? first + lanes : segment->count;
        tiles->most[t] = largest_of(segment->d2, first, last);
    }
    for (size_t s = 0; s < tiles->box.super_ld; s++) {
        const size_t first = s * lanes, last = first + lanes < tiles->box.ld ? first + lanes : tiles->box.ld;
        tiles->super_most[s] = largest_of(tiles->most, first, last);
    }
}

void qem_prune_centroids(qem_work *work)
{
    qem_tree_order(work->kernels, work->threads, &work->tree, work->c, work->ldc, (size_t)work->k, work->width,
                   (uint32_t *)work->sums); /* free between the passes */
    work->brute = 0;
}

typedef struct prune_job {
    qem_work *work;
    size_t step;
    _Atomic uint64_t candidates;
} prune_job;

static void prune_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    prune_job *job = argument;
    qem_work *work = job->work;
    const qem_segment *segment = &work->segment[0];
    const uint64_t found = work->kernels->nearest_tiles(
        &work->tree, &work->tiles, segment->x, segment->padded, segment->dim, work->c, work->ldc, segment->previous,
        segment->labels, (size_t)begin, (size_t)end, job->step,
        work->candidates + thread * qem_candidate_words(&work->tree, work->lanes));
    atomic_fetch_add_explicit(&job->candidates, found, memory_order_relaxed);
}

int qem_prune_assign(qem_work *work)
{
    const uint64_t tiles = (work->count + work->lanes - 1) / work->lanes;
    prune_job job = { .work = work, .step = SAMPLE_STEP };
    if (work->brute) return 0;
    qem_tree_refit(&work->tree, work->c, work->ldc, work->h[0], (size_t)work->k, work->width, work->lanes);
    prune_piece(&job, 0, tiles, 0);
    const uint64_t sampled = (tiles + SAMPLE_STEP - 1) / SAMPLE_STEP;
    if (!qem_tree_pays(&work->tree, (size_t)work->k, work->width, work->lanes, (double)job.candidates / (double)sampled)) {
        work->brute = 1;
        return 0;
    }
    job.step = 1;
    qem_parallel_for(work->threads, tiles, PIECE, prune_piece, &job);
    return 1;
}
