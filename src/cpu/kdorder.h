/* An order in which neighbours in space are neighbours in memory: the k-d order that exact pruning works on. */
#ifndef QEM_CPU_KDORDER_H
#define QEM_CPU_KDORDER_H

#include <stddef.h>
#include <stdint.h>

/*
 * Reorders `count` points (component p of point i at x[p*ld + i]) so that each run of `leaf` points, and each run of
 * leaf * 2^i, lies in a small box. order[i] = former place of the point now at i. scratch: count * (dim + 1) 32-bit words.
 */
void qem_kd_order(float *x, size_t ld, size_t count, uint32_t dim, uint32_t leaf, uint32_t *order, uint32_t *scratch);

#endif
