/* HyperChr's split of the centroids over the cells. */
#ifndef QEM_METHODS_HYPERCHR_ALLOCATE_H
#define QEM_METHODS_HYPERCHR_ALLOCATE_H

#include "../core/context.h"

/*
 * Splits `total` centroids over `cells` cells in proportion to counts[] (each >= 1, their sum below 2^38): at least 1, at most
 * most[] (each >= 1), largest remainder, ties to the lower cell; the sum is min(total, sum of most). total >= cells.
 * share[] receives the result. Errors: MEMORY.
 */
qem_status qem_allocate_centroids(qem_context *context, uint64_t total, uint64_t cells, const uint64_t *counts,
                                  const uint64_t *most, uint64_t *share);

#endif
