/* A rectangle of decoded floats that one step of de-standardization goes over. */
#ifndef QEM_CPU_AFFINE_TILE_H
#define QEM_CPU_AFFINE_TILE_H

#include <stddef.h>

/*
 * x[row * stride + j] = fmaf(x, scale[u], mean[u]) with u = row * unit_stride + (phase + j) / block, or u = row * unit_stride
 * for block 0 (one unit a row). scale NULL is 1, mean NULL is +0.
 */
typedef struct qem_affine_tile {
    float *x;
    size_t stride, rows, width;
    size_t block, phase; /* phase < block, or both 0 */
    const float *scale, *mean;
    size_t unit_stride;
} qem_affine_tile;

#endif
