/* Steps of standardization for new rows: what belongs to columns is the base's, rows and blocks get scales of their own. */
#ifndef QEM_METHODS_STANDARDIZE_ENCODE_H
#define QEM_METHODS_STANDARDIZE_ENCODE_H

#include "affine.h"

/* A step with the same tables. Ended by qem_affine_release. */
qem_status qem_affine_copy(qem_context *context, const qem_affine *base, qem_affine *step);

/* A step of rows or blocks like `base`, for x (device): the matrix as the outer steps leave it. Errors: RANGE, MEMORY. */
qem_status qem_standardize_like(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                                const qem_affine *base, qem_affine *step);

#endif
