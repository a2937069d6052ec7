/* Standardization of a matrix before any codebook: the steps that its decoder undoes, with what is stored of them. */
#ifndef QEM_METHODS_STANDARDIZE_H
#define QEM_METHODS_STANDARDIZE_H

#include "affine.h"

/* Whether the recipe stores means of that axis. AUTO counts as yes here: only the data can say no. */
int qem_standardize_may_have_means(const qem_recipe *recipe, qem_axis axis);

/* The empty steps of a recipe in the order of decoding: blocks, rows, columns; means as above. Returns their number. */
uint32_t qem_standardize_shape(uint64_t rows, uint64_t cols, const qem_recipe *recipe, qem_affine steps[QEM_MOST_AFFINE]);

/* Stored bytes of these steps, at most: by shape alone, all means that there may be counted. */
uint64_t qem_standardize_bytes(uint64_t rows, uint64_t cols, const qem_recipe *recipe);

/*
 * The steps of recipe->standardize for matrix x (device), in the order of decoding, computed, stored and expanded, each on the
 * matrix as the outer steps leave it as stored:
 *   columns, rows: mean (as recipe->means says) and the root mean square about it; both together: column means, then scales of
 *                  columns and rows in turn until they settle, the scale of a line being the root mean square of what the
 *                  scales of the others leave, and the rows' scales with mean square 1
 *   blocks:        the root mean square of the block (qem_standardize_search betters it)
 * A line that is constant has scale 0, unless integers of 4..8 bits or f16's range keep its mean from being stored well: then
 * the scale codes the difference. Errors: RANGE (qem_affine_store says when; also a line whose values lie further from their
 * mean than f32 reaches), MEMORY. On an error *count is 0 and nothing is left.
 */
qem_status qem_standardize_begin(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                                 const qem_recipe *recipe, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count);

/* Ends steps that no artifact owns, and sets *count to 0. */
void qem_standardize_release(qem_context *context, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count);

#endif
qem_status qem_standardize_search(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols, qem_affine *steps, uint32_t count, const float *levels, uint64_t k);
