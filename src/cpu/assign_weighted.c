/*
 * Labels against fixed codebooks where elements have weights (weighted.h). The label of a sub-vector depends on its own weights
 * and no others: they are scaled by their own largest one, and where all of them are the same the search is the one without.
 */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "codebook.h"
#include "cpu.h"
#include "parallel.h"
#include "problem.h"
#include "weighted.h"

typedef struct weighted_job {
    const qem_kmeans_args *args;
    qem_subvectors weights;       /* in the places of the points */
    const qem_problem *problem;
    qem_search_codebook codebook; /* that of the problem */
    float *features, *h;          /* of its centroids */
    size_t points;                /* of a chunk */
    unsigned char *scratch;
    uint64_t scratch_bytes;       /* a thread */
} weighted_job;

/* ---- codebook ---- */

static void layout_codebook(weighted_job *job, qem_arena *arena)
{
    const qem_subvectors *v = &job->args->points;
    const qem_problem *problem = job->problem;
    const uint32_t tail_dim = problem->width == v->dim && v->tail_dim != v->dim ? v->tail_dim : 0;
    qem_search_codebook *codebook = &job->codebook;
    qem_codebook_layout(codebook, codebook->kernels, problem->width, tail_dim, problem->k, 0, arena); /* no points: no tree */
    job->features = qem_take(arena, (uint64_t)codebook->ldc * 2 * codebook->width, sizeof(float));
    job->h = qem_take(arena, codebook->ldc, sizeof(float));
}

static void prepare_codebook(weighted_job *job)
{
    qem_search_codebook *codebook = &job->codebook;
    const float *stored = job->args->codebook + job->problem->codebook_offset;
    qem_codebook_own_frame(codebook, stored);
    qem_codebook_set(codebook, stored);
    qem_codebook_ready(codebook, 1, 0, NULL);
    qem_centroid_features(codebook->c, codebook->ldc, (size_t)codebook->k, codebook->padded, codebook->width, job->features,
                          job->h);
}

/* ---- chunks ---- */

typedef struct weighted_chunk {
    uint32_t *ids, *labels; /* [points] */
    float *x, *w;           /* [dim][points] */
    float *features;        /* [2 * dim][points] */
} weighted_chunk;

static void layout_chunk(const weighted_job *job, weighted_chunk *chunk, qem_arena *arena)
{
    const uint64_t floats = job->points * (uint64_t)job->args->points.dim;
    chunk->ids = qem_take(arena, job->points, sizeof(uint32_t));
    chunk->labels = qem_take(arena, job->points, sizeof(uint32_t));
    chunk->x = qem_take(arena, floats, sizeof(float));
    chunk->w = qem_take(arena, floats, sizeof(float));
    chunk->features = qem_take(arena, 2 * floats, sizeof(float));
}

static int is_uniform(const float *w, uint32_t width)
{
    for (uint32_t p = 1; p < width; p++)
        if (w[p] != w[0]) return 0;
    return 1;
}

/* Those of points begin .. end-1 that have `width` positions and, or do not, all the same weight. */
static size_t select_points(const weighted_job *job, uint64_t begin, uint64_t end, uint32_t width, int uniform, uint32_t *ids)
{
    size_t n = 0;
    for (uint64_t t = begin; t < end; t++) {
        const uint32_t id = qem_problem_id(job->problem, t);
        if (qem_subvector_width(&job->args->points, id) != width) continue;
        if (is_uniform(qem_subvector(&job->weights, id), width) == uniform) ids[n++] = id;
    }
    return n;
}

static void read_floats(const qem_subvectors *v, const weighted_chunk *chunk, size_t n, uint32_t width, size_t ld, float *out)
{
    for (size_t i = 0; i < n; i++) {
        const float *from = qem_subvector(v, chunk->ids[i]);
        for (uint32_t p = 0; p < width; p++) out[p * ld + i] = from[p];
    }
    for (uint32_t p = 0; p < width; p++)
        for (size_t i = n; i < qem_round_up(n, QEM_POINT_PAD); i++) out[p * ld + i] = 0.0f;
}

/* Each point's weights, of which one is not 0, to a largest of [1,2). */
static void scale_weights(const weighted_chunk *chunk, size_t n, uint32_t width, size_t ld)
{
    for (size_t i = 0; i < n; i++) {
        float largest = 0.0f;
        for (uint32_t p = 0; p < width; p++) largest = chunk->w[p * ld + i] > largest ? chunk->w[p * ld + i] : largest;
        const double scale = ldexp(1.0, 1 - qem_exponent_above(largest));
        for (uint32_t p = 0; p < width; p++) chunk->w[p * ld + i] = (float)((double)chunk->w[p * ld + i] * scale);
    }
}

static void label_points(const weighted_job *job, const weighted_chunk *chunk, size_t n, uint32_t width, int uniform)
{
    const qem_search_codebook *codebook = &job->codebook;
    const size_t ld = job->points, padded = qem_round_up(n, QEM_POINT_PAD);
    read_floats(&job->args->points, chunk, n, width, ld, chunk->x);
    for (uint32_t p = 0; p < width; p++)
        codebook->kernels->scale_points(chunk->x + p * ld, n, codebook->mean[p], codebook->scale);
    if (uniform) {
        codebook->kernels->nearest(chunk->x, ld, padded, width, codebook->c, codebook->h[width != codebook->width],
                                   codebook->ldc, codebook->padded, chunk->labels);
    } else {
        read_floats(&job->weights, chunk, n, width, ld, chunk->w);
        scale_weights(chunk, n, width, ld);
        qem_point_features(chunk->x, chunk->w, ld, padded, width, chunk->features, ld);
        codebook->kernels->nearest(chunk->features, ld, padded, 2 * width, job->features, job->h, codebook->ldc,
                                   codebook->padded, chunk->labels);
    }
    for (size_t i = 0; i < n; i++) job->args->labels[chunk->ids[i]] = job->problem->label_base + chunk->labels[i];
}

static void label_chunk(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weighted_job *job = argument;
    const uint32_t widths[2] = { job->codebook.width, job->codebook.tail_dim };
    qem_arena arena = { job->scratch + thread * job->scratch_bytes, 0 };
    weighted_chunk chunk;
    layout_chunk(job, &chunk, &arena);
    for (int part = 0; part < 2 && widths[part]; part++)
        for (int uniform = 0; uniform < 2; uniform++) {
            const size_t n = select_points(job, begin, end, widths[part], uniform, chunk.ids);
            if (n) label_points(job, &chunk, n, widths[part], uniform);
        }
}

/* ---- the call ---- */

static int same_codebook(const qem_problem *a, const qem_problem *b)
{
    return a->codebook_offset == b->codebook_offset && a->k == b->k && a->width == b->width;
}

static uint64_t largest_codebook(weighted_job *job)
{
    uint64_t largest = 0;
    for (uint64_t i = 0; i < job->args->problem_count; i++) {
        qem_arena sizes = { NULL, 0 };
        job->problem = &job->args->problems[i];
        layout_codebook(job, &sizes);
        largest = sizes.used > largest ? sizes.used : largest;
    }
    return largest;
}

qem_status qem_cpu_assign_weighted(qem_context *context, const qem_kmeans_args *args)
{
    weighted_job job = { .args = args, .weights = args->points, .points = qem_feature_points(args->points.dim) };
    qem_arena sizes = { NULL, 0 };
    weighted_chunk chunk;
    void *memory;
    job.weights.x = args->element_weight;
    job.codebook.kernels = qem_kernels(context);
    const uint64_t codebook_bytes = largest_codebook(&job);
    layout_chunk(&job, &chunk, &sizes);
    job.scratch_bytes = qem_round_up(sizes.used, 64);
    QEM_TRY(qem_allocate(context, codebook_bytes + context->threads * job.scratch_bytes, 1, &memory));
    job.scratch = (unsigned char *)memory + codebook_bytes;
    for (uint64_t i = 0; i < args->problem_count; i++) {
        const int ready = i > 0 && same_codebook(&args->problems[i], &args->problems[i - 1]);
        qem_arena arena = { memory, 0 };
        job.problem = &args->problems[i];
        if (!ready) {
            layout_codebook(&job, &arena);
            prepare_codebook(&job);
        }
        qem_parallel_for(context->threads, job.problem->count, job.points, label_chunk, &job);
    }
    qem_release(context, memory);
    return QEM_OK;
}
