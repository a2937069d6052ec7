/* The box tree of the centroids: laid out, ordered once, fitted again whenever they have moved. */
#ifndef QEM_CPU_TREE_H
#define QEM_CPU_TREE_H

#include "kernels.h"

/* Puts the k centroids c[p * ldc + j] in k-d order. scratch: qem_kd_scratch_words(k). */
void qem_tree_order(const qem_cpu_kernels *kernels, uint32_t threads, qem_centroid_tree *tree, const float *c, size_t ldc,
                    size_t k, uint32_t dim, uint32_t *scratch);

/* The centroids and half norms of now, in the order found before, and their boxes. */
void qem_tree_refit(qem_centroid_tree *tree, const float *c, size_t ldc, const float *h, size_t k, uint32_t dim,
                    uint32_t lanes);

/* Is pruning cheaper than brute force, with so many candidates a tile? */
int qem_tree_pays(const qem_centroid_tree *tree, size_t k, uint32_t dim, uint32_t lanes, double candidates);

#endif
