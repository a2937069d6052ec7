#include "codebook.h"

#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "kdorder.h"
#include "problem.h"
#include "tree.h"

#define LEAST_CENTROIDS(dim) ((uint64_t)128 << (dim)) /* below it brute force takes less time than ordering the points */
#define LEAST_POINTS 1024
#define SAMPLE_STEP 61      /* one tile of so many is tried before the choice */

/* ---- codebook ---- */

void qem_codebook_layout(qem_search_codebook *codebook, const qem_cpu_kernels *kernels, uint32_t width, uint32_t tail_dim,
                         uint64_t k, uint64_t count, qem_arena *arena)
{
    codebook->kernels = kernels;
    codebook->width = width;
    codebook->tail_dim = tail_dim;
    codebook->k = k;
    codebook->padded = codebook->ldc = qem_round_up(k, QEM_CENTROID_PAD);
    codebook->c = qem_take(arena, (uint64_t)codebook->ldc * width, sizeof(float));
    for (int part = 0; part < (tail_dim ? 2 : 1); part++) codebook->h[part] = qem_take(arena, codebook->ldc, sizeof(float));
    codebook->mean = qem_take(arena, width, sizeof(double));
    codebook->pruned = kernels->lanes && width <= QEM_MOST_PRUNED_DIM && k >= LEAST_CENTROIDS(width) && count >= LEAST_POINTS;
    if (codebook->pruned) qem_tree_layout(&codebook->tree, k, width, kernels->lanes, arena);
}

void qem_codebook_own_frame(qem_search_codebook *codebook, const float *stored)
{
    const uint32_t width = codebook->width;
    double largest = 0.0;
    for (uint32_t p = 0; p < width; p++) {
        double sum = 0.0;
        for (uint64_t j = 0; j < codebook->k; j++) sum += stored[j * width + p];
        codebook->mean[p] = sum / (double)codebook->k;
        for (uint64_t j = 0; j < codebook->k; j++) {
            const double d = fabs((double)stored[j * width + p] - codebook->mean[p]);
            largest = d > largest ? d : largest;
        }
    }
    const int exponent = largest > 0.0 ? qem_exponent_above(largest) - 1 : -1;
    codebook->scale = ldexp(1.0, -exponent);
    codebook->unit = ldexp(1.0, exponent);
}

void qem_codebook_set(qem_search_codebook *codebook, const float *stored)
{
    for (uint32_t p = 0; p < codebook->width; p++) {
        float *c = codebook->c + p * codebook->ldc;
        for (uint64_t j = 0; j < codebook->k; j++) c[j] = stored[j * codebook->width + p];
        codebook->kernels->scale_points(c, (size_t)codebook->k, codebook->mean[p], codebook->scale);
    }
}

uint64_t qem_codebook_scratch_words(const qem_search_codebook *codebook)
{
    return codebook->pruned ? qem_kd_scratch_words(codebook->k) : 0;
}

void qem_codebook_ready(qem_search_codebook *codebook, uint32_t threads, int order, uint32_t *scratch)
{
    const qem_cpu_kernels *kernels = codebook->kernels;
    const size_t k = (size_t)codebook->k;
    for (uint32_t p = 0; p < codebook->width; p++)
        for (size_t j = k; j < codebook->padded; j++) codebook->c[p * codebook->ldc + j] = 0.0f;
    for (int part = 0; part < (codebook->tail_dim ? 2 : 1); part++) {
        kernels->half_norms(codebook->c, codebook->ldc, codebook->padded, part ? codebook->tail_dim : codebook->width,
                            codebook->h[part]);
        for (size_t j = k; j < codebook->padded; j++) codebook->h[part][j] = INFINITY;
    }
    if (!codebook->pruned) return;
    if (order) qem_tree_order(kernels, threads, &codebook->tree, codebook->c, codebook->ldc, k, codebook->width, scratch);
    qem_tree_refit(&codebook->tree, codebook->c, codebook->ldc, codebook->h[0], k, codebook->width, kernels->lanes);
}

/* ---- chunk ---- */

void qem_chunk_layout(qem_chunk *chunk, const qem_search_codebook *largest, size_t capacity, qem_arena *arena)
{
    chunk->lanes = largest->pruned ? largest->kernels->lanes : 0;
    for (int part = 0; part < (largest->tail_dim ? 2 : 1); part++) {
        chunk->x[part] = qem_take(arena, (uint64_t)capacity * (part ? largest->tail_dim : largest->width), sizeof(float));
        chunk->ids[part] = qem_take(arena, capacity, sizeof(uint32_t));
    }
    chunk->labels = qem_take(arena, capacity, sizeof(uint32_t));
    if (!chunk->lanes) return;
    chunk->previous = qem_take(arena, capacity, sizeof(uint32_t));
    chunk->order = qem_take(arena, capacity, sizeof(uint32_t));
    chunk->scratch = qem_take(arena, qem_kd_scratch_words(capacity), sizeof(uint32_t));
    const uint32_t dim = largest->width < QEM_MOST_PRUNED_DIM ? largest->width : QEM_MOST_PRUNED_DIM; /* wider: brute force */
    qem_boxes_layout(&chunk->tiles.box, capacity, dim, chunk->lanes, arena);
    chunk->tiles.square = qem_take(arena, chunk->tiles.box.ld, sizeof(float));
    chunk->candidates = qem_take(arena, qem_candidate_words(&largest->tree, chunk->lanes), sizeof(uint32_t));
}

static void split_ids(qem_chunk *chunk, const qem_search_codebook *codebook, const qem_subvectors *points,
                      const qem_problem *problem, uint64_t begin, uint64_t end)
{
    chunk->count[0] = chunk->count[1] = 0;
    for (uint64_t t = begin; t < end; t++) {
        const uint32_t id = qem_problem_id(problem, t);
        const int part = codebook->tail_dim && qem_subvector_group(points, id) + 1 == points->groups;
        chunk->ids[part][chunk->count[part]++] = id;
    }
}

static void read_points(const qem_cpu_kernels *kernels, const qem_subvectors *points, const uint32_t *ids, size_t count,
                        uint32_t dim, float *x, size_t ld)
{
    if (qem_are_dense(points)) {
        kernels->gather_points(points->x, ids, count, dim, dim, x, ld);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const float *from = qem_subvector(points, ids[i]);
        for (uint32_t p = 0; p < dim; p++) x[p * ld + i] = from[p];
    }
}

/* Scales gathered points; the padding becomes 0. Returns the padded count. */
static size_t scale(const qem_search_codebook *codebook, float *x, size_t ld, size_t count, uint32_t dim)
{
    const size_t padded = qem_round_up(count, QEM_POINT_PAD);
    for (uint32_t p = 0; p < dim; p++) {
        codebook->kernels->scale_points(x + p * ld, count, codebook->mean[p], codebook->scale);
        memset(x + p * ld + count, 0, (padded - count) * sizeof(float));
    }
    return padded;
}

void qem_chunk_gather(qem_chunk *chunk, const qem_search_codebook *codebook, const qem_subvectors *points,
                      const qem_problem *problem, uint64_t begin, uint64_t end)
{
    split_ids(chunk, codebook, points, problem, begin, end);
    for (int part = 0; part < 2; part++) {
        const size_t n = chunk->count[part], padded = qem_round_up(n, QEM_POINT_PAD);
        const uint32_t dim = part ? codebook->tail_dim : codebook->width;
        chunk->padded[part] = padded;
        if (n == 0) continue; /* there may be no room for tail points */
        read_points(codebook->kernels, points, chunk->ids[part], n, dim, chunk->x[part], padded);
        (void)scale(codebook, chunk->x[part], padded, n, dim);
    }
}

void qem_chunk_order(qem_chunk *chunk, const qem_search_codebook *codebook)
{
    const size_t n = chunk->count[0];
    qem_kd_order(codebook->kernels, 1, chunk->x[0], chunk->padded[0], n, codebook->width, chunk->order, chunk->scratch);
    for (size_t i = 0; i < n; i++) chunk->scratch[i] = chunk->ids[0][chunk->order[i]];
    memcpy(chunk->ids[0], chunk->scratch, n * sizeof(uint32_t));
}

void qem_chunk_boxes(qem_chunk *chunk, const qem_search_codebook *codebook)
{
    qem_boxes_fit(&chunk->tiles.box, chunk->x[0], chunk->padded[0], chunk->count[0], codebook->width, chunk->lanes);
    qem_tiles_squares(&chunk->tiles, chunk->x[0], chunk->padded[0], chunk->count[0], codebook->width, chunk->lanes);
}

int qem_chunk_tiles(qem_chunk *chunk, qem_search_codebook *codebook)
{
    const qem_cpu_kernels *kernels = codebook->kernels;
    const size_t tiles = (chunk->count[0] + chunk->lanes - 1) / chunk->lanes;
    for (size_t step = SAMPLE_STEP;; step = 1) {
        const uint64_t found = kernels->nearest_tiles(&codebook->tree, &chunk->tiles, chunk->x[0], chunk->padded[0],
                                                      codebook->width, codebook->c, codebook->ldc, chunk->previous,
                                                      chunk->labels, 0, tiles, step, chunk->candidates);
        if (step == 1) return 1;
        const double sampled = (double)((tiles + step - 1) / step);
        if (!qem_tree_pays(&codebook->tree, (size_t)codebook->k, codebook->width, chunk->lanes, (double)found / sampled)) {
            atomic_store_explicit(&codebook->brute, 1, memory_order_relaxed);
            return 0;
        }
    }
}

void qem_chunk_brute(qem_chunk *chunk, const qem_search_codebook *codebook, int part)
{
    if (chunk->count[part] == 0) return;
    codebook->kernels->nearest(chunk->x[part], chunk->padded[part], chunk->padded[part],
                               part ? codebook->tail_dim : codebook->width, codebook->c, codebook->h[part], codebook->ldc,
                               codebook->padded, chunk->labels);
}

void qem_codebook_search(const qem_search_codebook *codebook, float *x, size_t ld, size_t count, uint32_t *labels)
{
    const size_t padded = scale(codebook, x, ld, count, codebook->width);
    codebook->kernels->nearest(x, ld, padded, codebook->width, codebook->c, codebook->h[0], codebook->ldc, codebook->padded, labels);
}
