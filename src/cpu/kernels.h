/*
 * The CPU's inner loops, one function pointer each, in scalar C, AVX2 and AVX-512. All variants give the same bits: each
 * float operation that decides a result is an explicit fma chain in one order, and the scalar file is the definition.
 *
 * Layout of points and centroids: structure of arrays, component p of point i at x[p * ld + i]. The number of points is
 * padded to a multiple of QEM_POINT_PAD (zeros), that of centroids to a multiple of QEM_CENTROID_PAD (components 0, h = +inf),
 * and the arrays are 64-byte aligned, so the kernels work on whole vectors.
 */
#ifndef QEM_CPU_KERNELS_H
#define QEM_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include <qem/qem.h>

#include "../core/context.h"
#include "affine_tile.h"
#include "code_tile.h"
#include "products.h"
#include "scale_search.h"
#include "tiles.h"

#define QEM_POINT_PAD 64
#define QEM_CENTROID_PAD 32
#define QEM_CLAMP 1125899906842624.0f /* 2^50: bound of scaled values that a stored codebook may have far from its points */

typedef struct qem_cpu_kernels {
    /* labels[i] = the j < count with the least score, ties to the lowest j; i in 0 .. points-1 (a multiple of
     * QEM_POINT_PAD). score = fmaf(-x_p, c_p, score) for p = 0 .. dim-1 from h_j. c[p * ldc + j], h[j]; count is a multiple of
     * QEM_CENTROID_PAD. Entries with h = +inf are never chosen unless all are. */
    void (*nearest)(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, const float *h, size_t ldc,
                    size_t count, uint32_t *labels);

    /* One k-means++ step: t = chain d = x_p - center_p; s = fmaf(d, d, s) from 0; where t < d2[i]: d2[i] = t and
     * labels[i] = label. Returns the largest d2 of all `points` (a multiple of QEM_POINT_PAD; padding holds d2 = 0). */
    float (*seed_step)(const float *x, size_t ld, size_t points, uint32_t dim, const float *center, uint32_t label,
                       float *d2, uint32_t *labels);

    /* Sum of llrint((double)d2[i] * scale) over `points` (a multiple of QEM_POINT_PAD). */
    int64_t (*fixed_sum)(const float *d2, size_t points, double scale);

    /* d2[i] = squared distance of point i to centroid labels[i], the chain of seed_step. c[p * ldc + j]. */
    void (*own_distance)(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,
                         const uint32_t *labels, float *d2);

    /* seed_step and own_distance where each component has a weight w[p * ld + i]: s = fmaf(w * d, d, s), the product w * d
     * rounded. */
    float (*weighted_step)(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *center,
                           uint32_t label, float *d2, uint32_t *labels);
    void (*weighted_distance)(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,
                              const uint32_t *labels, float *d2);

    /* h[j] = half of the squared norm of centroid j < count (a multiple of QEM_CENTROID_PAD), a double fma chain rounded once. */
    void (*half_norms)(const float *c, size_t ldc, size_t count, uint32_t dim, float *h);

    /* out[p * ld + i] = x[ids[i] * stride + p] for i < n, p < dim; any n. */
    void (*gather_points)(const float *x, const uint32_t *ids, size_t n, size_t stride, uint32_t dim, float *out, size_t ld);

    /* x[i] = ((double)x[i] - mean) * scale rounded to f32, within -QEM_CLAMP .. QEM_CLAMP; any n. */
    void (*scale_points)(float *x, size_t n, double mean, double scale);

    /* sums[labels[i] * width + p] += llrint((double)x[p * ld + i] * scale) for i < n, p < dim; any n. */
    void (*sum_points)(const float *x, size_t ld, size_t n, uint32_t dim, const uint32_t *labels, double scale, int64_t *sums,
                       size_t width);

    /* Number of codes equal to `number of thresholds <= x`, thresholds ascending, count k-1; any n, any alignment. */
    void (*scalar_codes)(const float *x, size_t n, const float *thresholds, size_t threshold_count, uint32_t *codes);

    /* sums[c] = chain over i < n of fmaf(w_i * e, e, sum) from 0 with e = fmaf(-level, scale[c], x_i), level that of the highest j with
     * threshold[j] <= x_i * inverse[c], for candidates c < count (a multiple of QEM_SCALE_PAD); weight NULL: w_i = 1. */
    void (*scale_errors)(const qem_level_table *table, const float *x, const float *weight, size_t n, const float *scale,
                         const float *inverse, size_t count, float *sums);

    /* codes[i] = bits first_bit + i*bits .. of the stream, least significant bit first; bits 1 .. 24; any n. At least 16
     * readable bytes follow the stream. */
    void (*unpack)(const uint8_t *stream, uint64_t first_bit, size_t n, uint32_t bits, uint32_t *codes);

    /* The floats of a rectangle of codes (code_tile.h). */
    void (*decode_tile)(const qem_code_tile *tile);

    /* Swap of one row of one matrix: pair j = (x[2j], x[2j+1]); bit j of bits[] = left strictly smaller; the smaller goes to
     * small[j], the larger to large[j]; equal (also +0 and -0): bit 0, small = right. bits[] has ceil(pairs/64) words, the
     * rest of the last one 0. merge is the inverse: x[2j] = bit ? small : large. No overlap of in and out. */
    void (*pair_split)(const float *x, size_t pairs, float *small, float *large, uint64_t *bits);
    void (*pair_merge)(const float *small, const float *large, const uint64_t *bits, size_t pairs, float *x);

    /* One step of de-standardization (affine_tile.h). */
    void (*affine)(const qem_affine_tile *tile);

    /* out[r * ldo + j] = chain fmaf(x[r * ldx + p], rotation[p * cols + j], .) over p ascending from after[j], or from +0 where
     * after is NULL; j, p < cols, r < rows. No overlap of x and out. */
    void (*rotate_rows)(const float *x, size_t ldx, size_t rows, size_t cols, const float *rotation, const float *after,
                        float *out, size_t ldo);

    /* y[i] += x[i] */
    void (*add)(const float *x, size_t n, float *y);

    /* Conversions, round to nearest even; 1 if a finite value became infinite. Any alignment of the element. */
    int (*f32_to_f16)(const float *x, size_t n, uint16_t *out);
    int (*f32_to_bf16)(const float *x, size_t n, uint16_t *out);
    void (*f16_to_f32)(const uint16_t *x, size_t n, float *out);
    void (*bf16_to_f32)(const uint16_t *x, size_t n, float *out);

    /* out[row * row_stride + i] = x[row * x_stride + i] as F32, F16 or BF16, i < n; strides in elements. streaming: whole
     * lines of 64 bytes go past the caches. 1 if a finite value became infinite. */
    int (*store_rows)(const float *x, size_t x_stride, size_t rows, size_t n, qem_dtype dtype, void *out, size_t row_stride,
                      int streaming);

    /* Orders this thread's streaming stores before all it stores later; due before another thread may read them. */
    void (*end_streaming)(void);

    /* Index of the first element that is NaN or infinite, or n. */
    size_t (*find_nonfinite)(const float *x, size_t n);

    /* Extremes of n >= 1 finite elements; which zero is returned of -0 and +0: always +0 (x + 0.0f). */
    void (*extremes)(const float *x, size_t n, float *min, float *max);

    /* One chunk (n <= QEM_ERROR_CHUNK) of backend.h's error sums: element i adds to lane i % 8. sums[0] |e|, [1] e*e,
     * [2] |e|/|x| over x != 0 -- each the lanes added in the fixed order; *max |e|; *zeros count of x == 0. */
    void (*error_chunk)(const float *x, const float *y, size_t n, double sums[3], double *max, uint64_t *zeros);

    /* One chunk of sums of x - center and (x - center)^2 in the same lanes: d = (double)x - center; s += d; q += d*d. */
    void (*sum_chunk)(const float *x, size_t n, double center, double *sum, double *squared);

    /* sums[i * QEM_CROSS_B + j] = the chain fma(a[r * QEM_CROSS_A + i], b[r * QEM_CROSS_B + j], sums) for r = 0 .. n-1, for all
     * columns i, j of two panels (cross.h). */
    void (*cross_tile)(const double *a, const double *b, size_t n, double *sums);

    /* Pruned seed_step and nearest on points in k-d order, dim <= QEM_MOST_PRUNED_DIM; same results to the bit (tiles.h says
     * why). `lanes` points make a tile; 0 and NULL where there is none (scalar). */
    uint32_t lanes;

    /* One node of the k-d order: permutes index[0 .. n-1] so that along the dimension of the largest extent no point of the
     * first `half` lies above one of the rest (half a multiple of `lanes`, 0 < half < n). scratch: 2 * n words, n rounded up
     * to lanes. */
    void (*kd_split)(const float *x, size_t ld, uint32_t dim, uint32_t *index, size_t n, size_t half, uint32_t *scratch);

    /* seed_step for all tiles; the sums follow the changes of d2[i], which counts for point order[i]. */
    float (*seed_tiles)(const qem_tiles *tiles, const float *x, size_t ld, uint32_t dim, const float *center, uint32_t label,
                        float *d2, uint32_t *labels, const uint32_t *order, qem_seed_sums *sums);

    /* A centroid near each tile, for all its points: where nearest_tiles may start. previous[i] for tiles 0 .. count-1. */
    void (*near_tiles)(const qem_centroid_tree *tree, const qem_tiles *tiles, uint32_t dim, size_t count, uint32_t *previous);

    /* nearest for tiles first, first + step, ... < last; previous[] holds any valid labels, good ones make it fast; c, ldc as in
     * nearest, the tree holds the same centroids. candidates: qem_candidate_words of scratch. Returns the number of
     * candidates that were looked at, by tile. */
    uint64_t (*nearest_tiles)(const qem_centroid_tree *tree, const qem_tiles *tiles, const float *x, size_t ld, uint32_t dim,
                              const float *c, size_t ldc, const uint32_t *previous, uint32_t *labels, size_t first, size_t last,
                              size_t step, uint32_t *candidates);

    qem_product_kernels product;
} qem_cpu_kernels;

/* Each file fills in what it does better; scalar first, then upward. */
void qem_kernels_scalar(qem_cpu_kernels *kernels);
void qem_kernels_avx2(qem_cpu_kernels *kernels);
void qem_kernels_avx512(qem_cpu_kernels *kernels);

/* The table for a level (never AUTO); the level must be available. Built once, thread-safe. */
const qem_cpu_kernels *qem_cpu_kernels_for(qem_isa isa);

static inline const qem_cpu_kernels *qem_kernels(const qem_context *context)
{
    return (const qem_cpu_kernels *)context->kernels;
}

#endif
