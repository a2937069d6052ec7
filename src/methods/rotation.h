/* Orthogonal matrices by LAPACK, on the host, in double. All matrices are [n][n], row-major. */
#ifndef QEM_METHODS_ROTATION_H
#define QEM_METHODS_ROTATION_H

#include "../core/context.h"

#define QEM_MOST_ROTATED_COLS 16384 /* LAPACK counts its workspace, about 4 n^2 numbers, in 32 bits */

/*
 * The orthogonal R of least |X R - Y| (Procrustes; Schoenemann 1966) from product = X^T Y, which is overwritten. *found is 0,
 * and R untouched, in the rare case that the singular values do not converge.
 */
qem_status qem_rotation_procrustes(qem_context *context, uint64_t n, double *product, double *rotation, int *found);

/*
 * R with the principal axes as columns, from the covariance, which is overwritten: axes are dealt to groups of dim columns (the
 * last may have fewer) so that the products of their variances balance (Ge, He, Ke, Sun 2013: eigenvalue allocation). dim 0: the
 * variances descend from column to column.
 */
qem_status qem_rotation_principal(qem_context *context, uint64_t n, uint32_t dim, double *covariance, double *rotation,
                                  int *found);

/* The variances along the principal axes alone, ascending; the covariance is overwritten. */
qem_status qem_rotation_variances(qem_context *context, uint64_t n, double *covariance, double *variance, int *found);

#endif
