/* What opq and lopq share: rows that are rotated by one matrix before their column groups are coded. */
#ifndef QEM_METHODS_ROTATED_H
#define QEM_METHODS_ROTATED_H

#include "method.h"

typedef struct qem_rotated_rows {
    const float *x;       /* device, [rows][cols] */
    float *y;             /* device, [rows][cols]: x R after the call */
    uint64_t rows;
    uint64_t cell;        /* 0 .. cells-1: key of the draws */
    float *encoder;       /* device, [cols][cols]: R */
    float *decoder;       /* device, [cols][cols]: its transpose, as stored */
    float *codebook;      /* device, the cell's own */
    uint32_t *labels;     /* device, [rows * groups] */
    const float *weight;  /* device, [rows * groups]: of the squared error of each sub-vector, or NULL */
} qem_rotated_rows;

/* Is f32 wide enough for `growth` times the rows in any rotation? */
qem_status qem_rotated_fits(const qem_fit *fit, const float *x, uint64_t rows, double growth, int *fits);
/* fit->problems become the column groups of the cell's rows: fit->k entries each, from the cell's codebook on. */
void qem_rotated_problems(qem_fit *fit, const qem_rotated_rows *part);
/* Rotation, codebook and labels; fit->problems: as many as there are groups, overwritten. */
qem_status qem_rotated_fit(qem_fit *fit, qem_rotated_rows *part);
/* Variances of fit->points along their principal axes, descending: [cols]; those of the columns that the rotation starts with
 * where groups have their own widths. */
qem_status qem_rotated_variances(const qem_fit *fit, double *variance, int *found);
/* Labels of y, as the calls here leave it, against the codebook. */
qem_status qem_rotated_assign(qem_fit *fit, const qem_rotated_rows *part);
/* y = (x - before) R and its labels against the codebook, R from the decoder (host memory here); before: device, [cols], or NULL. */
qem_status qem_rotated_encode(qem_fit *fit, const qem_rotated_rows *part, const float *decoder, const float *before);

#endif
