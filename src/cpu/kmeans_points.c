/* The points of one problem: scratch layout, gathering, centring and scaling, labels back. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "kmeans.h"
#include "parallel.h"
#include "problem.h"
#include "weighted.h"

static int has_tail(const qem_subvectors *v, const qem_problem *problem)
{
    return problem->width == v->dim && v->tail_dim != v->dim;
}

static uint64_t count_tail(const qem_subvectors *v, const qem_problem *problem)
{
    uint64_t count = 0;
    if (!has_tail(v, problem)) return 0;
    for (uint64_t t = 0; t < problem->count; t++)
        count += qem_subvector_group(v, qem_problem_id(problem, t)) + 1 == v->groups;
    return count;
}

static void layout_pruning(qem_work *work, qem_arena *a)
{
    const uint64_t k = work->problem->k;
    const uint32_t lanes = work->lanes, dim = work->width;
    qem_tiles *tiles = &work->tiles;
    qem_centroid_tree *tree = &work->tree;
    work->order = qem_take(a, work->count, sizeof(uint32_t));
    qem_boxes_layout(&tiles->box, work->count, dim, lanes, a);
    tiles->most = qem_take(a, tiles->box.ld, sizeof(float));
    tiles->super_most = qem_take(a, tiles->box.super_ld, sizeof(float));
    tiles->square = qem_take(a, tiles->box.ld, sizeof(float));
    qem_tree_layout(tree, k, dim, lanes, a);
    work->candidates = qem_take(a, work->threads * qem_candidate_words(tree, lanes), sizeof(uint32_t));
}

static void layout_weights(qem_work *work, qem_arena *a)
{
    const uint64_t entries = work->problem->k * work->width;
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        segment->w_ld = work->weighting == QEM_WEIGHT_ELEMENT ? segment->padded : 0;
        segment->w = qem_take(a, (uint64_t)segment->padded * (segment->w_ld ? segment->dim : 1), sizeof(float));
    }
    work->heaviest = qem_take(a, work->sum_threads * entries, sizeof(float));
    work->weight_scale = qem_take(a, entries, sizeof(double));
    work->weight_sums = qem_take(a, work->sum_threads * entries, sizeof(int64_t));
    if (work->weighting != QEM_WEIGHT_ELEMENT) return;
    work->feature_points = qem_feature_points(work->width);
    work->features = qem_take(a, (uint64_t)work->threads * work->feature_points * 2 * work->width, sizeof(float));
    work->feature_c = qem_take(a, (uint64_t)work->ldc * 2 * work->width, sizeof(float));
    work->feature_h = qem_take(a, work->ldc, sizeof(float));
}

static void layout(qem_work *work, qem_arena *a)
{
    const qem_problem *problem = work->problem;
    const uint64_t k = problem->k;
    uint64_t blocks = 0;
    for (int s = 0; s < 2; s++) {
        qem_segment *segment = &work->segment[s];
        segment->padded = qem_round_up(segment->count, QEM_POINT_PAD);
        segment->x = qem_take(a, (uint64_t)segment->padded * segment->dim, sizeof(float));
        segment->d2 = qem_take(a, segment->padded, sizeof(float)); /* d2 and labels, side by side, are the scratch of the k-d order */
        segment->labels = qem_take(a, segment->padded, sizeof(uint32_t));
        segment->previous = qem_take(a, segment->padded, sizeof(uint32_t));
        blocks += (segment->padded + QEM_SEED_BLOCK - 1) / QEM_SEED_BLOCK;
    }
    work->ldc = qem_round_up(k, QEM_CENTROID_PAD);
    work->c = qem_take(a, (uint64_t)work->ldc * work->width, sizeof(float));
    work->h[0] = qem_take(a, work->ldc, sizeof(float));
    work->h[1] = qem_take(a, work->ldc, sizeof(float));
    work->only_tail = qem_take(a, work->ldc, 1);
    work->sums = qem_take(a, work->sum_threads * k * work->width + QEM_POINT_PAD, sizeof(int64_t)); /* the padding: kd scratch */
    work->counts[0] = qem_take(a, work->sum_threads * k, sizeof(uint64_t));
    work->counts[1] = qem_take(a, work->sum_threads * k, sizeof(uint64_t));
    work->seed_sums.block = qem_take(a, blocks, sizeof(int64_t));
    work->seed_sums.run = qem_take(a, (blocks + QEM_SEED_RUN - 1) / QEM_SEED_RUN, sizeof(int64_t));
    work->block_max = qem_take(a, blocks, sizeof(float));
    work->mean = qem_take(a, work->width, sizeof(double));
    work->center = qem_take(a, work->width, sizeof(float));
    if (work->lanes) layout_pruning(work, a);
    if (work->weighting) layout_weights(work, a);
}

static void describe(qem_work *work, const qem_cpu_kernels *kernels, const qem_kmeans_args *args, const qem_problem *problem,
                     uint32_t threads)
{
    const qem_subvectors *points = &args->points;
    memset(work, 0, sizeof *work);
    work->weighting = qem_weighting_of(args, problem, &work->weight_unit);
    work->weights = args->element_weight ? args->element_weight : args->point_weight;
    work->points = points;
    work->problem = problem;
    work->threads = threads;
    work->width = problem->width;
    /* a table of sums a thread, but together no more than a few times the points */
    work->sum_threads = threads;
    while (work->sum_threads > 1 && work->sum_threads * problem->k * (work->width + 2) > problem->count * (work->width + 2))
        work->sum_threads--;
    work->count = problem->count;
    work->segment[1].count = count_tail(points, problem);
    work->segment[0].count = problem->count - work->segment[1].count;
    work->segment[0].dim = problem->width;
    work->segment[1].dim = points->tail_dim;
    work->kernels = kernels;
    if (work->weighting != QEM_WEIGHT_ELEMENT && work->segment[1].count == 0 &&
        qem_prune_wanted(kernels, work->width, work->count, problem->k))
        work->lanes = kernels->lanes;
}

uint64_t qem_work_bytes(const qem_cpu_kernels *kernels, const qem_kmeans_args *args, const qem_problem *problem,
                        uint32_t threads)
{
    qem_work work;
    qem_arena a = { NULL, 0 };
    describe(&work, kernels, args, problem, threads);
    layout(&work, &a);
    return a.used;
}

void qem_work_init(qem_work *work, const qem_cpu_kernels *kernels, const qem_kmeans_args *args, const qem_problem *problem,
                   uint32_t threads, void *memory)
{
    qem_arena a = { memory, 0 };
    describe(work, kernels, args, problem, threads);
    layout(work, &a);
}

/* ---- gathering ---- */

typedef struct gather_job {
    const qem_work *work;
    qem_subvectors from; /* the points, or the weights in their places */
    uint32_t dim;
    size_t padded;
    float *to;           /* [dim][padded] */
} gather_job;

#define IDS_AT_ONCE 1024

static void gather_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const gather_job *job = argument;
    const qem_work *work = job->work;
    uint32_t ids[IDS_AT_ONCE];
    (void)thread;
    for (uint64_t t = begin; t < end;) {
        size_t n = 0;
        for (; n < IDS_AT_ONCE && t + n < end; n++) ids[n] = qem_problem_id(work->problem, t + n);
        if (qem_are_dense(&job->from)) {
            work->kernels->gather_points(job->from.x, ids, n, job->dim, job->dim, job->to + t, job->padded);
        } else { /* rows that have a tail elsewhere, or gaps */
            for (size_t i = 0; i < n; i++) {
                const float *x = qem_subvector(&job->from, ids[i]);
                for (uint32_t p = 0; p < job->dim; p++) job->to[p * job->padded + t + i] = x[p];
            }
        }
        t += n;
    }
}

static void gather_both(const qem_work *work, qem_subvectors from, float *const to[2])
{
    uint64_t filled[2] = { 0, 0 };
    for (uint64_t t = 0; t < work->problem->count; t++) {
        const uint32_t id = qem_problem_id(work->problem, t);
        const int s = qem_subvector_group(&from, id) + 1 == from.groups;
        const float *x = qem_subvector(&from, id);
        const uint64_t i = filled[s]++;
        for (uint32_t p = 0; p < work->segment[s].dim; p++) to[s][p * work->segment[s].padded + i] = x[p];
    }
}

static float largest_magnitude(const qem_work *work, const float *x, uint64_t count)
{
    float min, max;
    if (count == 0) return 0.0f;
    work->kernels->extremes(x, (size_t)count, &min, &max);
    return -min > max ? -min : max;
}

/* Mean of each component by a fixed-point sum under one shift for all. */
static void find_means(qem_work *work)
{
    float largest = 0.0f;
    for (int s = 0; s < 2; s++)
        for (uint32_t p = 0; p < work->segment[s].dim; p++) {
            const float here = largest_magnitude(work, work->segment[s].x + p * work->segment[s].padded, work->segment[s].count);
            if (here > largest) largest = here;
        }
    const int shift = qem_fixed_shift(work->count, largest);
    const double scale = ldexp(1.0, shift);
    for (uint32_t p = 0; p < work->width; p++) {
        int64_t sum = 0;
        uint64_t count = 0;
        for (int s = 0; s < 2; s++) {
            const qem_segment *segment = &work->segment[s];
            if (p >= segment->dim || segment->count == 0) continue;
            const float *x = segment->x + p * segment->padded;
            for (uint64_t i = 0; i < segment->count; i++) sum += llrint((double)x[i] * scale);
            count += segment->count;
        }
        work->mean[p] = count ? ldexp((double)sum / (double)count, -shift) : 0.0;
    }
}

static double largest_deviation(const float *x, uint64_t count, double mean)
{
    double largest = 0.0;
    for (uint64_t i = 0; i < count; i++) {
        const double d = fabs((double)x[i] - mean);
        largest = d > largest ? d : largest;
    }
    return largest;
}

static void centre_and_scale(qem_work *work)
{
    double largest = 0.0;
    for (int s = 0; s < 2; s++)
        for (uint32_t p = 0; p < work->segment[s].dim; p++) {
            const qem_segment *segment = &work->segment[s];
            const double here = largest_deviation(segment->x + p * segment->padded, segment->count, work->mean[p]);
            largest = here > largest ? here : largest;
        }
    work->exponent = largest > 0.0 ? qem_exponent_above(largest) - 1 : 0;
    work->scale = ldexp(1.0, -work->exponent);
    work->unit = ldexp(1.0, work->exponent);
    for (int s = 0; s < 2; s++)
        for (uint32_t p = 0; p < work->segment[s].dim; p++) {
            qem_segment *segment = &work->segment[s];
            float *x = segment->x + p * segment->padded;
            work->kernels->scale_points(x, (size_t)segment->count, work->mean[p], work->scale);
            memset(x + segment->count, 0, (segment->padded - segment->count) * sizeof(float));
        }
}

static void gather(const qem_work *work, const float *x, float *full, float *tail)
{
    float *const to[2] = { full, tail };
    gather_job job = { .work = work, .from = *work->points, .dim = work->segment[0].dim, .padded = work->segment[0].padded };
    job.from.x = x;
    job.to = full;
    if (work->segment[1].count)
        gather_both(work, job.from, to);
    else
        qem_parallel_for(work->threads, work->count, QEM_PIECE, gather_piece, &job);
}

static void gather_point_weights(const qem_work *work)
{
    uint64_t filled[2] = { 0, 0 };
    const int both = work->segment[1].count > 0;
    for (uint64_t t = 0; t < work->problem->count; t++) {
        const uint32_t id = qem_problem_id(work->problem, t);
        const int s = both && qem_subvector_group(work->points, id) + 1 == work->points->groups;
        work->segment[s].w[filled[s]++] = work->weights[id];
    }
}

void qem_work_gather(qem_work *work)
{
    gather(work, work->points->x, work->segment[0].x, work->segment[1].x);
    find_means(work);
    centre_and_scale(work);
    if (work->lanes) qem_prune_points(work, (uint32_t *)work->segment[0].d2);
    if (!work->weighting) return;
    if (work->weighting == QEM_WEIGHT_ELEMENT)
        gather(work, work->weights, work->segment[0].w, work->segment[1].w);
    else
        gather_point_weights(work);
    qem_weights_scale(work);
    if (work->lanes) qem_weights_order(work);
}

void qem_work_scatter(const qem_work *work, uint32_t *labels)
{
    uint64_t read[2] = { 0, 0 };
    if (work->lanes) { /* no tail: point t of the problem is point t of the segment */
        for (uint64_t i = 0; i < work->count; i++)
            labels[qem_problem_id(work->problem, work->order[i])] = work->problem->label_base + work->segment[0].labels[i];
        return;
    }
    const int both = work->segment[1].count > 0;
    for (uint64_t t = 0; t < work->problem->count; t++) {
        const uint32_t id = qem_problem_id(work->problem, t);
        const int s = both && qem_subvector_group(work->points, id) + 1 == work->points->groups;
        labels[id] = work->problem->label_base + work->segment[s].labels[read[s]++];
    }
}

void qem_work_warm(qem_work *work, const float *codebook, const uint32_t *labels)
{
    const qem_problem *problem = work->problem;
    const float *stored = codebook + problem->codebook_offset;
    uint64_t read[2] = { 0, 0 };
    work->k = problem->k;
    for (uint64_t j = 0; j < work->k; j++) {
        for (uint32_t p = 0; p < work->width; p++)
            work->c[p * work->ldc + j] = qem_work_scaled(work, p, stored[j * work->width + p]);
        work->only_tail[j] = 0; /* the next update knows */
    }
    for (int s = 0; s < 2; s++) {
        memset(work->segment[s].labels, 0, work->segment[s].padded * sizeof(uint32_t)); /* the padding is looked up too */
        memset(work->segment[s].previous, 0, work->segment[s].padded * sizeof(uint32_t));
    }
    for (uint64_t i = 0; i < work->count; i++) {
        const uint32_t id = qem_problem_id(problem, work->lanes ? work->order[i] : i);
        const int s = work->segment[1].count > 0 && qem_subvector_group(work->points, id) + 1 == work->points->groups;
        work->segment[s].labels[read[s]++] = labels[id] - problem->label_base;
    }
}

float qem_work_scaled(const qem_work *work, uint32_t p, float stored)
{
    const float value = (float)(((double)stored - work->mean[p]) * work->scale);
    if (value > QEM_CLAMP) return QEM_CLAMP;
    return value < -QEM_CLAMP ? -QEM_CLAMP : value;
}

float qem_work_stored(const qem_work *work, uint32_t p, float scaled)
{
    /* a centroid lies among its points; rounding near the limit of f32 must not carry it beyond */
    const double value = (double)scaled * work->unit + work->mean[p];
    return (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value) + 0.0f;
}
