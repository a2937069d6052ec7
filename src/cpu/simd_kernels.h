/* The SIMD variants of the kernels, one declaration each, for the tables in kernels_avx2.c and kernels_avx512.c. */
#ifndef QEM_CPU_SIMD_KERNELS_H
#define QEM_CPU_SIMD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include <qem/qem.h>

#include "affine_tile.h"
#include "code_tile.h"
#include "scale_search.h"
#include "tiles.h"

#define QEM_DECLARE_SIMD_KERNELS(isa)                                                                                     \
    void qem_nearest_##isa(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, const float *h,        \
                           size_t ldc, size_t count, uint32_t *labels);                                                   \
    float qem_seed_step_##isa(const float *x, size_t ld, size_t points, uint32_t dim, const float *center,                \
                              uint32_t label, float *d2, uint32_t *labels);                                               \
    int64_t qem_fixed_sum_##isa(const float *d2, size_t points, double scale);                                            \
    void qem_own_distance_##isa(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,       \
                                const uint32_t *labels, float *d2);                                                       \
    float qem_weighted_step_##isa(const float *x, const float *w, size_t ld, size_t points, uint32_t dim,                 \
                                  const float *center, uint32_t label, float *d2, uint32_t *labels);                      \
    void qem_weighted_distance_##isa(const float *x, const float *w, size_t ld, size_t points, uint32_t dim,              \
                                     const float *c, size_t ldc, const uint32_t *labels, float *d2);                      \
    void qem_half_norms_##isa(const float *c, size_t ldc, size_t count, uint32_t dim, float *h);                          \
    void qem_gather_points_##isa(const float *x, const uint32_t *ids, size_t n, size_t stride, uint32_t dim, float *out,  \
                                 size_t ld);                                                                              \
    void qem_scale_points_##isa(float *x, size_t n, double mean, double scale);                                           \
    void qem_sum_points_##isa(const float *x, size_t ld, size_t n, uint32_t dim, const uint32_t *labels, double scale,    \
                              int64_t *sums, size_t width);                                                               \
    void qem_scalar_codes_##isa(const float *x, size_t n, const float *thresholds, size_t threshold_count,                \
                                uint32_t *codes);                                                                         \
    void qem_scale_errors_##isa(const qem_level_table *table, const float *x, const float *weight, size_t n,              \
                                const float *scale, const float *inverse, size_t count, float *sums);                     \
    void qem_unpack_##isa(const uint8_t *stream, uint64_t first_bit, size_t n, uint32_t bits, uint32_t *codes);           \
    void qem_decode_tile_##isa(const qem_code_tile *tile);                                                                \
    int qem_store_rows_##isa(const float *x, size_t x_stride, size_t rows, size_t n, qem_dtype dtype, void *out,          \
                             size_t row_stride, int streaming);                                                           \
    void qem_end_streaming_##isa(void);                                                                                   \
    void qem_pair_split_##isa(const float *x, size_t pairs, float *small, float *large, uint64_t *bits);                  \
    void qem_pair_merge_##isa(const float *small, const float *large, const uint64_t *bits, size_t pairs, float *x);      \
    void qem_affine_##isa(const qem_affine_tile *tile);                                                                   \
    void qem_rotate_rows_##isa(const float *x, size_t ldx, size_t rows, size_t cols, const float *rotation,               \
                               const float *after, float *out, size_t ldo);                                               \
    void qem_add_##isa(const float *x, size_t n, float *y);                                                               \
    int qem_f32_to_f16_##isa(const float *x, size_t n, uint16_t *out);                                                    \
    int qem_f32_to_bf16_##isa(const float *x, size_t n, uint16_t *out);                                                   \
    void qem_f16_to_f32_##isa(const uint16_t *x, size_t n, float *out);                                                   \
    void qem_bf16_to_f32_##isa(const uint16_t *x, size_t n, float *out);                                                  \
    size_t qem_find_nonfinite_##isa(const float *x, size_t n);                                                            \
    void qem_extremes_##isa(const float *x, size_t n, float *min, float *max);                                            \
    void qem_error_chunk_##isa(const float *x, const float *y, size_t n, double sums[3], double *max, uint64_t *zeros);   \
    void qem_sum_chunk_##isa(const float *x, size_t n, double center, double *sum, double *squared);                      \
    void qem_cross_tile_##isa(const double *a, const double *b, size_t n, double *sums);                                  \
    void qem_kd_split_##isa(const float *x, size_t ld, uint32_t dim, uint32_t *index, size_t n, size_t half,               \
                            uint32_t *scratch);                                                                           \
    float qem_seed_tiles_##isa(const qem_tiles *tiles, const float *x, size_t ld, uint32_t dim, const float *center,      \
                               uint32_t label, float *d2, uint32_t *labels, const uint32_t *order, qem_seed_sums *sums);  \
    void qem_near_tiles_##isa(const qem_centroid_tree *tree, const qem_tiles *tiles, uint32_t dim, size_t count,          \
                              uint32_t *previous);                                                                        \
    uint64_t qem_nearest_tiles_##isa(const qem_centroid_tree *tree, const qem_tiles *tiles, const float *x, size_t ld,    \
                                     uint32_t dim, const float *c, size_t ldc, const uint32_t *previous,                  \
                                     uint32_t *labels, size_t first, size_t last, size_t step, uint32_t *candidates);

QEM_DECLARE_SIMD_KERNELS(avx2)
QEM_DECLARE_SIMD_KERNELS(avx512)

#endif
