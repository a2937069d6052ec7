/* The CPU's primitives, one file an operation; backend.c puts them into the table. Contracts: backend.h. */
#ifndef QEM_CPU_CPU_H
#define QEM_CPU_CPU_H

#include "../backend.h"

qem_status qem_cpu_alloc(qem_context *, uint64_t count, uint64_t size, void **device);
qem_status qem_cpu_load(qem_context *, const qem_view *view, const char *what, qem_matrix *matrix);

qem_status qem_cpu_extremes(qem_context *, const float *x, uint64_t count, float *min, float *max);
qem_status qem_cpu_mean(qem_context *, const float *x, uint64_t count, double *mean);
qem_status qem_cpu_scalar_histogram(qem_context *, const float *x, uint64_t count, double center, uint64_t *counts);
qem_status qem_cpu_scalar_step(qem_context *, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                               double center, int shift, uint64_t *counts, int64_t *sums);
qem_status qem_cpu_scalar_weighted_histogram(qem_context *, const float *x, const float *weight, uint64_t count,
                                             double center, int weight_shift, uint64_t *weights);
qem_status qem_cpu_scalar_weighted_step(qem_context *, const float *x, const float *weight, uint64_t count,
                                        const float *thresholds, uint64_t k, double center, int weight_shift, int shift,
                                        uint64_t *weights, int64_t *sums);
qem_status qem_cpu_weighted_moments(qem_context *, const float *x, const float *weight, uint64_t count, double center,
                                    double moments[3]);
qem_status qem_cpu_scalar_assign(qem_context *, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                 uint32_t *labels);

qem_status qem_cpu_quantiles(qem_context *, qem_subvectors points, uint32_t intervals, float *cuts);
qem_status qem_cpu_cell_ids(qem_context *, qem_subvectors points, uint32_t intervals, const float *cuts, uint32_t *ids);
qem_status qem_cpu_group_by_key(qem_context *, const uint32_t *keys, uint64_t count, uint64_t key_count, uint32_t *order,
                                uint64_t *offsets);
qem_status qem_cpu_count_distinct(qem_context *, qem_subvectors points, const qem_problem *problems,
                                  uint64_t problem_count, uint64_t *distinct);

qem_status qem_cpu_distinct_values(qem_context *, const float *x, uint64_t count, uint64_t limit, float *values,
                                   uint64_t *counts, uint64_t *found);

qem_status qem_cpu_kmeans(qem_context *, const qem_kmeans_args *args);
qem_status qem_cpu_assign(qem_context *, const qem_kmeans_args *args);
qem_status qem_cpu_assign_weighted(qem_context *, const qem_kmeans_args *args); /* element_weight is there */
qem_status qem_cpu_refine(qem_context *, const qem_refine_args *args);

qem_status qem_cpu_swap_forward(qem_context *, const float *x, uint64_t rows, uint64_t cols, uint32_t levels,
                                float *ordered, uint8_t *map);
qem_status qem_cpu_swap_inverse(qem_context *, const float *ordered, const uint8_t *map, uint64_t rows, uint64_t cols,
                                uint32_t levels, float *restored);
qem_status qem_cpu_swap_by_map(qem_context *, const float *x, const uint8_t *map, uint64_t rows, uint64_t cols, uint32_t levels,
                               float *ordered);

qem_status qem_cpu_unit_stats(qem_context *, const float *x, uint64_t rows, uint64_t cols, qem_axis axis, uint64_t block,
                              float *least, float *greatest, double *mean, double *square);
qem_status qem_cpu_standardized_stats(qem_context *, const float *x, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                                      uint32_t count, qem_axis axis, uint64_t block, float *least, float *greatest, double *mean,
                                      double *square);
qem_status qem_cpu_standardize(qem_context *, const float *x, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                               uint32_t count, float *z);
qem_status qem_cpu_element_weights(qem_context *, uint64_t rows, uint64_t cols, const qem_decode_affine *steps, uint32_t count,
                                   const float *importance, uint64_t importance_rows, float *weight);
qem_status qem_cpu_cross_product(qem_context *, const float *a, const float *b, uint64_t rows, uint64_t cols_a,
                                 uint64_t cols_b, double *product);
qem_status qem_cpu_pool_weights(qem_context *, qem_subvectors weights, float *pooled);
qem_status qem_cpu_fit_block_scales(qem_context *, const float *x, const float *coded, const float *weight, uint64_t rows,
                                    uint64_t cols, uint64_t block, float *scale);
qem_status qem_cpu_rotate(qem_context *, const float *x, uint64_t rows, uint64_t cols, const float *rotation,
                          const float *before, const float *after, float *out);

qem_status qem_cpu_search_block_scales(qem_context *, const float *x, const float *weight, uint64_t rows, uint64_t cols,
                                       uint64_t block, uint32_t bits, uint64_t per_super, const float *supers,
                                       const float *levels, uint64_t k, uint8_t *q, double *error);
qem_status qem_cpu_select_outliers(qem_context *, const float *x, uint64_t rows, uint64_t cols, const float *mean,
                                   const float *inverse, uint64_t count, float threshold, uint64_t *index, uint64_t *found);
qem_status qem_cpu_scatter(qem_context *, float *x, const uint64_t *index, const float *value, uint64_t count);
qem_status qem_cpu_gather(qem_context *, const float *x, const uint64_t *index, uint64_t count, float *value);
qem_status qem_cpu_subtract(qem_context *, float *x, const float *y, uint64_t count);

qem_status qem_cpu_pack(qem_context *, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream);
qem_status qem_cpu_decode(qem_context *, const qem_decode_args *args);

uint64_t qem_cpu_matmul_workspace(const qem_context *, const qem_matmul_args *args);
void qem_cpu_matmul(qem_context *, const qem_matmul_args *args);

qem_status qem_cpu_error_sums(qem_context *, const float *x, const float *y, uint64_t count, qem_error_sums *sums);
qem_status qem_cpu_sum(qem_context *, const float *x, uint64_t count, double center, double *sum, double *squared);

#endif
