/* Steps of de-standardization as their inverse uses them: rows are worked on in strips that stay in the nearest cache. */
#ifndef QEM_CPU_STANDARDIZE_H
#define QEM_CPU_STANDARDIZE_H

#include "../backend.h"

#define QEM_STRIP 512 /* columns worked on at once; a multiple of the 8 lanes of sums */

/* Unit of a step that holds element (row, col); not for columns, whose units change with every element. */
static inline uint64_t qem_unit_of(const qem_decode_affine *step, uint64_t cols, uint64_t row, uint64_t col)
{
    switch (step->axis) {
    case QEM_AXIS_ROW: return row;
    case QEM_AXIS_BLOCK: return row * ((cols - 1) / step->block + 1) + col / step->block;
    default: return 0;
    }
}

/* Columns from col on, at most n, that lie in one unit of the step (columns: n). */
static inline uint64_t qem_unit_run(const qem_decode_affine *step, uint64_t col, uint64_t n)
{
    if (step->axis != QEM_AXIS_BLOCK) return n;
    const uint64_t left = step->block - col % step->block;
    return left < n ? left : n;
}

#endif
