/* One Lloyd pass: exact assignment by the fixed fma chain, empty clusters, and the mean by fixed-point sums. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "../core/fixed.h"
#include "../core/half.h"
#include "far_heap.h"
#include "kmeans.h"
#include "parallel.h"

#define ASSIGN_PIECE 4096 /* points; multiple of QEM_POINT_PAD */

void qem_work_half_norms(qem_work *work)
{
    const size_t used = (size_t)(work->k + QEM_CENTROID_PAD - 1) / QEM_CENTROID_PAD * QEM_CENTROID_PAD;
    for (uint32_t p = 0; p < work->width; p++)
        for (size_t j = (size_t)work->k; j < used; j++) work->c[p * work->ldc + j] = 0.0f;
    for (int s = 0; s < 2; s++) {
        work->kernels->half_norms(work->c, work->ldc, used, work->segment[s].dim, work->h[s]);
        for (size_t j = (size_t)work->k; j < used; j++) work->h[s][j] = INFINITY;
    }
}

typedef struct pass_job {
    qem_work *work;
    qem_segment *segment;
    int which;
    double scale;
    _Atomic int changed;
} pass_job;

static void assign_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    pass_job *job = argument;
    const qem_work *work = job->work;
    qem_segment *segment = job->segment;
    const size_t used = (size_t)(work->k + QEM_CENTROID_PAD - 1) / QEM_CENTROID_PAD * QEM_CENTROID_PAD;
    if (work->weighting == QEM_WEIGHT_ELEMENT)
        qem_weights_nearest(work, segment, begin, end, thread);
    else
        work->kernels->nearest(segment->x + begin, segment->padded, (size_t)(end - begin), segment->dim, work->c,
                               work->h[job->which], work->ldc, used, segment->labels + begin);
    const uint64_t real = end < segment->count ? end : segment->count;
    if (real > begin && memcmp(segment->labels + begin, segment->previous + begin, (size_t)(real - begin) * sizeof(uint32_t)))
        atomic_store_explicit(&job->changed, 1, memory_order_relaxed);
}

int qem_work_assign(qem_work *work)
{
    pass_job job = { .work = work, .changed = 0 };
    const int features = work->weighting == QEM_WEIGHT_ELEMENT;
    qem_work_half_norms(work);
    if (features) qem_weights_centroids(work);
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        uint32_t *previous = segment->labels;
        segment->labels = segment->previous;
        segment->previous = previous;
        job.segment = segment;
        job.which = s;
        if (s == 0 && work->lanes && qem_prune_assign(work)) {
            job.changed |= memcmp(segment->labels, segment->previous, (size_t)segment->count * sizeof(uint32_t)) != 0;
            continue;
        }
        qem_parallel_for(work->threads, segment->padded, features ? work->feature_points : ASSIGN_PIECE, assign_piece, &job);
    }
    return job.changed;
}

static void distance_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const pass_job *job = argument;
    const qem_work *work = job->work;
    qem_segment *segment = job->segment;
    (void)thread;
    if (work->weighting == QEM_WEIGHT_ELEMENT) {
        work->kernels->weighted_distance(segment->x + begin, segment->w + begin, segment->padded, (size_t)(end - begin),
                                         segment->dim, work->c, work->ldc, segment->labels + begin, segment->d2 + begin);
        return;
    }
    work->kernels->own_distance(segment->x + begin, segment->padded, (size_t)(end - begin), segment->dim, work->c, work->ldc,
                                segment->labels + begin, segment->d2 + begin);
    if (work->weighting == QEM_WEIGHT_POINT)
        for (uint64_t i = begin; i < end; i++) segment->d2[i] *= segment->w[i];
}

/* d2 = (weighted) squared distance of every point to its own centroid, 0 in the padding; returns the largest. */
static float own_distances(qem_work *work)
{
    pass_job job = { .work = work };
    float largest = 0.0f;
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        job.segment = segment;
        qem_parallel_for(work->threads, segment->padded, QEM_PIECE, distance_piece, &job);
        for (uint64_t i = segment->count; i < segment->padded; i++) segment->d2[i] = 0.0f;
        for (uint64_t i = 0; i < segment->count; i++) largest = segment->d2[i] > largest ? segment->d2[i] : largest;
    }
    return largest;
}

double qem_work_objective(qem_work *work)
{
    const float largest = own_distances(work);
    if (!(largest > 0.0f)) return 0.0;
    const int shift = qem_fixed_shift(work->count, largest);
    int64_t sum = 0;
    for (int s = 0; s < 2; s++)
        sum += work->kernels->fixed_sum(work->segment[s].d2, work->segment[s].padded, ldexp(1.0, shift));
    return ldexp((double)sum, 2 * work->exponent - shift) * work->weight_unit;
}

/* ---- empty clusters ---- */

static void farthest_points(const qem_work *work, qem_far_heap *heap)
{
    uint64_t index = 0;
    for (int s = 0; s < 2; s++)
        for (uint64_t i = 0; i < work->segment[s].count; i++, index++)
            qem_far_add(heap, qem_far_key(work->segment[s].d2[i], work->lanes ? work->order[i] : index));
}

static uint64_t members(const qem_work *work, uint64_t j)
{
    return work->counts[0][j] + work->counts[1][j];
}

static int is_empty(const qem_work *work, uint64_t j)
{
    return work->weighting ? !qem_weights_any(work, j) : members(work, j) == 0;
}

/* Gives each empty cluster, in ascending order, the point with the largest error; a point without error is left. Returns
 * whether there was an empty one. */
static int repair_empty(qem_work *work)
{
    uint64_t empty = 0;
    for (uint64_t j = 0; j < work->k; j++) empty += is_empty(work, j);
    if (empty == 0) return 0;
    (void)own_distances(work);
    qem_far_heap heap = { (uint64_t *)work->sums, 0, empty }; /* free at this time, and k*width entries long */
    farthest_points(work, &heap);
    qem_far_sort(&heap);
    uint32_t *place = work->segment[0].previous; /* free until the next assignment */
    if (work->lanes) qem_prune_inverse(work, place);
    uint64_t next = 0;
    for (uint64_t j = 0; j < work->k && next < heap.size; j++) {
        if (!is_empty(work, j)) continue;
        const uint64_t key = heap.key[next++];
        if (key >> 32 == 0) break;
        uint64_t index = qem_far_index(key);
        const int s = index >= work->segment[0].count;
        if (s) index -= work->segment[0].count;
        if (work->lanes) index = place[index];
        uint32_t *label = &work->segment[s].labels[index];
        work->counts[s][*label]--;
        work->counts[s][j]++;
        *label = (uint32_t)j;
    }
    return 1;
}

/* ---- update ---- */

static void count_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const pass_job *job = argument;
    uint64_t *counts = job->work->counts[job->which] + thread * job->work->problem->k;
    for (uint64_t i = begin; i < end; i++) counts[job->segment->labels[i]]++;
}

static void sum_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const pass_job *job = argument;
    const qem_segment *segment = job->segment;
    const uint32_t width = job->work->width;
    int64_t *sums = job->work->sums + thread * job->work->problem->k * width;
    job->work->kernels->sum_points(segment->x + begin, segment->padded, (size_t)(end - begin), segment->dim,
                                   segment->labels + begin, job->scale, sums, width);
}

static void fold_tables(qem_work *work, int64_t *tables, uint64_t stride, uint64_t size)
{
    for (uint32_t t = 1; t < work->sum_threads; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * stride + i];
}

static void count_members(qem_work *work)
{
    pass_job job = { .work = work };
    for (int s = 0; s < 2; s++) {
        memset(work->counts[s], 0, (size_t)(work->sum_threads * work->problem->k) * sizeof(uint64_t));
        job.segment = &work->segment[s];
        job.which = s;
        qem_parallel_for(work->sum_threads, job.segment->count, QEM_PIECE, count_piece, &job);
        fold_tables(work, (int64_t *)work->counts[s], work->problem->k, work->k);
    }
}

static void sum_members(qem_work *work, double scale)
{
    pass_job job = { .work = work, .scale = scale };
    const uint64_t size = work->problem->k * work->width;
    memset(work->sums, 0, (size_t)(work->sum_threads * size) * sizeof(int64_t));
    for (int s = 0; s < 2; s++) {
        job.segment = &work->segment[s];
        qem_parallel_for(work->sum_threads, job.segment->count, QEM_PIECE, sum_piece, &job);
    }
    fold_tables(work, work->sums, size, work->k * work->width);
}

/* A cluster without weight counts as empty. */
static void update_weighted(qem_work *work)
{
    count_members(work);
    qem_weights_heaviest(work);
    if (repair_empty(work)) {
        count_members(work);
        qem_weights_heaviest(work);
    }
    qem_weights_update(work);
}

void qem_work_update(qem_work *work)
{
    const int shift = qem_fixed_shift(work->count, 2.0); /* scaled points lie in [-2, 2] */
    if (work->weighting) {
        update_weighted(work);
        return;
    }
    count_members(work);
    (void)repair_empty(work);
    sum_members(work, ldexp(1.0, shift));
    const double unit = ldexp(1.0, -shift);
    for (uint64_t j = 0; j < work->k; j++) {
        const uint64_t full = work->counts[0][j], all = members(work, j);
        if (all == 0) continue; /* stays where it is */
        work->only_tail[j] = full == 0;
        for (uint32_t p = 0; p < work->width; p++) {
            const uint64_t count = p < work->segment[1].dim || full == 0 ? all : full;
            float *c = &work->c[p * work->ldc + j];
            if (full == 0 && p >= work->segment[1].dim)
                *c = qem_work_scaled(work, p, 0.0f);
            else
                *c = (float)((double)work->sums[j * work->width + p] / (double)count * unit);
        }
    }
}
