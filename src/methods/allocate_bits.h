/* Widths of the codes of column groups under one budget: a bit goes where it takes most off the error. */
#ifndef QEM_METHODS_ALLOCATE_BITS_H
#define QEM_METHODS_ALLOCATE_BITS_H

#include "method.h"

#define QEM_MOST_GROUP_BITS 16

/*
 * Variances along the principal axes of each column group's sub-vectors, descending, group after group: [cols]. They are those
 * of sqrt(weight) * (x - mean) where elements or points have weights, and all of one unknown factor. Groups of more than 32
 * columns: variances of the columns.
 */
qem_status qem_group_variances(const qem_fit *fit, double *variance);

/* The squared error that codes of `bits` bits are expected to leave of a sub-vector of these variances, descending: reverse
 * water-filling; of scalars that of Lloyd and Max for normal ones. */
double qem_expected_error(const double *variance, uint64_t width, uint32_t bits);

/*
 * Sets fit->group_bits, and fit->k to what the widest needs: codes and codebooks take no more bytes than fit->k entries for
 * every group and fit->spare_bits would. variance: as above, [cols]; distinct: the sub-vectors of each group that differ (2^16
 * stands for more), or NULL where only the number of rows bounds them.
 */
qem_status qem_fit_allocate_bits(qem_fit *fit, const double *variance, const uint64_t *distinct);

#endif
