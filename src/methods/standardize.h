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
 * The steps of recipe->standardize for matrix x (device), in the order of decoding, computed, stored and expanded, each on
 * the matrix as the outer steps leave it as stored:
 *   columns, rows: mean (as recipe->means says) and the root mean square about it; both together: column means, then
 *                  scales of columns and rows in turn until they settle, the scale of a line being the root mean square
 *                  of what the scales of the others leave, and the rows' scales with mean square 1
 *   blocks:        the largest magnitude of the block, which leaves levels between -1 and 1 (searches better it)
 * A line that is constant has scale 0, unless integers of 4..8 bits or f16's range keep its mean from being stored well:
 * then the scale codes the difference. Errors: RANGE (qem_affine_store says when; also a line whose values lie further from
 * their mean than f32 reaches), MEMORY. On an error *count is 0 and nothing is left.
 */
qem_status qem_standardize_begin(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows,
                                 uint64_t cols, const qem_recipe *recipe, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count);

/*
 * Better scales for the block step `a` (stored already) against a scalar codebook of k ascending levels: for each block
 * those of the least sum of weight * error^2, the elements being coded by their nearest levels. x (device): the matrix as
 * the outer steps leave it; weight (device, or NULL for 1): of its errors, so importance * the outer scales squared.
 * Super-scales are chosen anew from the best unrounded scales where that is better for their blocks; f16 and f32 scales are
 * searched from 0 to twice what they were. No block under one super-scale together, and with f16 and f32 no block, is worse
 * than before. The codes that this presumes are those of a matrix standardized again. *error (may be NULL): the sum over
 * all blocks.
 */
qem_status qem_standardize_search(qem_context *context, const qem_backend *backend, const float *x, const float *weight,
                                  uint64_t rows, uint64_t cols, const float *levels, uint64_t k, qem_affine *a, double *error);

/* Ends steps that no artifact owns, and sets *count to 0. */
void qem_standardize_release(qem_context *context, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count);

#endif
