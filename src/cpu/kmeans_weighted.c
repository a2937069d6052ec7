/*
 * What weights change in a Lloyd pass. A centroid's component goes to sum(w x) / sum(w) over its members, both sums of int64 under
 * one power of two that follows the largest weight of that component in that cluster, so that light clusters beside heavy ones keep
 * their digits. Weights below some 2^-100 of the largest of their problem lose digits, those below
 * 2^-149 of it count as 0.
 */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "kmeans.h"
#include "parallel.h"
#include "problem.h"
#include "weighted.h"

/* ---- the weights of a problem ---- */

qem_weighting qem_weighting_of(const qem_kmeans_args *args, const qem_problem *problem, double *common)
{
    const float *weights = args->element_weight ? args->element_weight : args->point_weight;
    *common = 1.0;
    if (!weights || problem->count == 0) return QEM_WEIGHT_NONE;
    qem_subvectors v = args->points;
    v.x = weights;
    float first = 0.0f;
    for (uint64_t t = 0; t < problem->count; t++) {
        const uint32_t id = qem_problem_id(problem, t), width = args->element_weight ? qem_subvector_width(&v, id) : 1;
        const float *w = args->element_weight ? qem_subvector(&v, id) : weights + id;
        if (t == 0) first = w[0];
        for (uint32_t p = 0; p < width; p++)
            if (w[p] != first) return args->element_weight ? QEM_WEIGHT_ELEMENT : QEM_WEIGHT_POINT;
    }
    if (first > 0.0f) *common = first;
    return QEM_WEIGHT_NONE;
}

static uint32_t rows_of(const qem_segment *segment)
{
    return segment->w_ld ? segment->dim : 1;
}

void qem_weights_scale(qem_work *work)
{
    float largest = 0.0f;
    for (int s = 0; s < 2; s++)
        for (uint32_t p = 0; p < rows_of(&work->segment[s]) && work->segment[s].count; p++) {
            float low, high;
            work->kernels->extremes(work->segment[s].w + p * work->segment[s].w_ld, (size_t)work->segment[s].count, &low, &high);
            largest = high > largest ? high : largest;
        }
    const int exponent = qem_exponent_above(largest) - 1;
    work->weight_unit = ldexp(1.0, exponent);
    for (int s = 0; s < 2; s++)
        for (uint32_t p = 0; p < rows_of(&work->segment[s]); p++) {
            const qem_segment *segment = &work->segment[s];
            float *w = segment->w + p * segment->w_ld;
            work->kernels->scale_points(w, (size_t)segment->count, 0.0, ldexp(1.0, -exponent));
            memset(w + segment->count, 0, (segment->padded - segment->count) * sizeof(float));
        }
}

void qem_weights_order(qem_work *work)
{
    qem_segment *segment = &work->segment[0];
    float *ordered = segment->d2; /* free before the seeding */
    for (uint64_t i = 0; i < segment->count; i++) ordered[i] = segment->w[work->order[i]];
    memcpy(segment->w, ordered, (size_t)segment->count * sizeof(float));
    work->tiles.weight = segment->w;
}

/* ---- search ---- */

void qem_weights_centroids(qem_work *work)
{
    const size_t used = qem_round_up(work->k, QEM_CENTROID_PAD);
    qem_centroid_features(work->c, work->ldc, (size_t)work->k, used, work->width, work->feature_c, work->feature_h);
}

void qem_weights_nearest(const qem_work *work, const qem_segment *segment, uint64_t begin, uint64_t end, uint32_t thread)
{
    const size_t ld = work->feature_points, n = (size_t)(end - begin);
    float *features = work->features + (uint64_t)thread * ld * 2 * work->width;
    qem_point_features(segment->x + begin, segment->w + begin, segment->padded, n, segment->dim, features, ld);
    work->kernels->nearest(features, ld, n, 2 * segment->dim, work->feature_c, work->feature_h, work->ldc,
                           qem_round_up(work->k, QEM_CENTROID_PAD), segment->labels + begin);
}

/* ---- update ---- */

typedef struct weights_job {
    const qem_work *work;
    const qem_segment *segment;
} weights_job;

static void heaviest_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weights_job *job = argument;
    const qem_segment *segment = job->segment;
    const uint32_t width = job->work->width;
    float *table = job->work->heaviest + thread * job->work->problem->k * width;
    for (uint64_t i = begin; i < end; i++) {
        float *heaviest = table + (uint64_t)segment->labels[i] * width;
        for (uint32_t p = 0; p < segment->dim; p++) {
            const float w = segment->w[p * segment->w_ld + i];
            heaviest[p] = w > heaviest[p] ? w : heaviest[p];
        }
    }
}

void qem_weights_heaviest(qem_work *work)
{
    const uint64_t size = work->problem->k * work->width;
    weights_job job = { .work = work };
    memset(work->heaviest, 0, (size_t)(work->sum_threads * size) * sizeof(float));
    for (int s = 0; s < 2; s++) {
        job.segment = &work->segment[s];
        qem_parallel_for(work->sum_threads, job.segment->count, QEM_PIECE, heaviest_piece, &job);
    }
    for (uint32_t t = 1; t < work->sum_threads; t++)
        for (uint64_t i = 0; i < size; i++) {
            const float w = work->heaviest[t * size + i];
            work->heaviest[i] = w > work->heaviest[i] ? w : work->heaviest[i];
        }
}

int qem_weights_any(const qem_work *work, uint64_t j)
{
    for (uint32_t p = 0; p < work->width; p++)
        if (work->heaviest[j * work->width + p] > 0.0f) return 1;
    return 0;
}

static void sum_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weights_job *job = argument;
    const qem_work *work = job->work;
    const qem_segment *segment = job->segment;
    const uint64_t table = thread * work->problem->k * work->width;
    for (uint64_t i = begin; i < end; i++) {
        const uint64_t first = (uint64_t)segment->labels[i] * work->width;
        for (uint32_t p = 0; p < segment->dim; p++) {
            const double w = (double)segment->w[p * segment->w_ld + i] * work->weight_scale[first + p];
            work->weight_sums[table + first + p] += llrint(w);
            work->sums[table + first + p] += llrint((double)segment->x[p * segment->padded + i] * w);
        }
    }
}

static void fold(int64_t *tables, uint32_t count, uint64_t size)
{
    for (uint32_t t = 1; t < count; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * size + i];
}

/* sum(w x) and sum(w) of every component of every cluster. */
static void sum_members(qem_work *work)
{
    const uint64_t size = work->problem->k * work->width;
    weights_job job = { .work = work };
    for (uint64_t j = 0; j < work->k; j++)
        for (uint32_t p = 0; p < work->width; p++) {
            const double largest = 2.0 * (double)work->heaviest[j * work->width + p]; /* scaled points lie in [-2, 2] */
            const uint64_t members = work->counts[0][j] + work->counts[1][j];
            work->weight_scale[j * work->width + p] = largest > 0.0 ? ldexp(1.0, qem_fixed_shift(members, largest)) : 0.0;
        }
    memset(work->sums, 0, (size_t)(work->sum_threads * size) * sizeof(int64_t));
    memset(work->weight_sums, 0, (size_t)(work->sum_threads * size) * sizeof(int64_t));
    for (int s = 0; s < 2; s++) {
        job.segment = &work->segment[s];
        qem_parallel_for(work->sum_threads, job.segment->count, QEM_PIECE, sum_piece, &job);
    }
    fold(work->sums, work->sum_threads, size);
    fold(work->weight_sums, work->sum_threads, size);
}

void qem_weights_update(qem_work *work)
{
    sum_members(work);
    for (uint64_t j = 0; j < work->k; j++) {
        const uint64_t full = work->counts[0][j];
        if (full + work->counts[1][j] == 0) continue; /* stays where it is */
        work->only_tail[j] = full == 0;
        for (uint32_t p = 0; p < work->width; p++) {
            const uint64_t at = j * work->width + p;
            float *c = &work->c[p * work->ldc + j];
            if (full == 0 && p >= work->segment[1].dim)
                *c = qem_work_scaled(work, p, 0.0f);
            else if (work->weight_sums[at] > 0) /* else no member cares where it is */
                *c = (float)((double)work->sums[at] / (double)work->weight_sums[at]);
        }
    }
}
