/* An order in which neighbours in space are neighbours in memory: the k-d order that exact pruning works on. */
#ifndef QEM_CPU_KDORDER_H
#define QEM_CPU_KDORDER_H

#include "kernels.h"

/* 32-bit words of scratch for `count` points. */
static inline uint64_t qem_kd_scratch_words(uint64_t count)
{
    return 2 * ((count + QEM_POINT_PAD - 1) / QEM_POINT_PAD * QEM_POINT_PAD);
}

/*
 * Reorders `count` points (component p of point i at x[p*ld + i]) so that each run of kernels->lanes points, and each run of
 * lanes * 2^i, lies in a small box. order[i] = former place of the point now at i.
 */
void qem_kd_order(const qem_cpu_kernels *kernels, uint32_t threads, float *x, size_t ld, size_t count, uint32_t dim,
                  uint32_t *order, uint32_t *scratch);

#endif
