/* Outliers: elements that are kept as they are, and taken out of what is fitted. */
#ifndef QEM_METHODS_OUTLIERS_H
#define QEM_METHODS_OUTLIERS_H

#include "../backend.h"

/* Elements that a fraction of a matrix is: round(fraction * rows * cols), a half up. */
uint64_t qem_outliers_count(uint64_t rows, uint64_t cols, double fraction);

/* An empty list for so many outliers of a matrix: the sizes that follow from shape, recipe and the type of the source. Their
 * values are f16 where the source is, or where recipe->params is 16 as the caller wrote it; else f32. */
qem_outliers qem_outliers_shape(uint64_t rows, uint64_t cols, uint64_t count, const qem_recipe *recipe,
                                qem_dtype source_dtype);
uint64_t qem_outliers_bytes(const qem_outliers *outliers);

/* Outliers that recipe takes from x (device): by its fraction without a look at the data, by its sigma counted. */
qem_status qem_outliers_expected(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows,
                                 uint64_t cols, const qem_recipe *recipe, uint64_t *count);

/*
 * Takes the outliers of x (device): recipe->outliers of them, those of the largest |x - column mean| / column deviation, or
 * all beyond recipe->outlier_sigma deviations, mean and deviation being those of all elements of the column. A column that
 * is constant has score 0 everywhere: its elements come last, and never by sigma. `cleaned` (device) comes in as a copy of
 * x and goes out with each outlier replaced by the mean of its column's other elements (of all, if there is no other). On
 * success *out is the artifact's; with no outlier its count is 0 and it holds no memory. `cleaned` may be x. replaced: host, [cols],
 * what stands in each column's outliers' places (undefined where there is none). Errors: RANGE (a value does not
 * fit in f16), MEMORY; nothing is left then but a half-changed `cleaned`.
 */
qem_status qem_outliers_take(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                             const qem_recipe *recipe, qem_dtype source_dtype, float *cleaned, float *replaced, qem_outliers *out);

/* Ends a list that no artifact owns. */
void qem_outliers_release(qem_context *context, qem_outliers *outliers);

#endif
