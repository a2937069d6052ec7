/* Between the two files of lloydmax: its start, and its passes. */
#ifndef QEM_METHODS_LLOYDMAX_H
#define QEM_METHODS_LLOYDMAX_H

#include "method.h"

/*
 * How elements count. Weights are rounded to integers in units of 2^-shift, the finest in which their sum stays below 2^62: with n
 * elements to n * 2^-62 of the largest, so below half of that they are 0. Sums of w * (x - center) are in units of 2^-sum_shift.
 */
typedef struct qem_scalar_weights {
    const float *weight; /* device; NULL: 1 each */
    double center;       /* (weighted) mean of the elements */
    int shift, sum_shift;
    double unit;         /* 2^-shift; 1 without weights, whose counts are integers as they are */
} qem_scalar_weights;

/* fit->k levels relative to the center, ascending; *exact: each value that counts has a level of its own. */
qem_status qem_lloydmax_start(qem_fit *fit, const qem_scalar_weights *weights, double *levels, int *exact);

#endif
