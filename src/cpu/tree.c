#include "tree.h"

#include <math.h>
#include <string.h>

#include "kdorder.h"

void qem_tree_order(const qem_cpu_kernels *kernels, uint32_t threads, qem_centroid_tree *tree, const float *c, size_t ldc,
                    size_t k, uint32_t dim, uint32_t *scratch)
{
    for (uint32_t p = 0; p < dim; p++) memcpy(tree->c + p * tree->ld, c + p * ldc, k * sizeof(float));
    qem_kd_order(kernels, threads, tree->c, tree->ld, k, dim, tree->index, scratch);
    for (size_t i = k; i < tree->ld; i++) tree->index[i] = 0;
}

void qem_tree_refit(qem_centroid_tree *tree, const float *c, size_t ldc, const float *h, size_t k, uint32_t dim, uint32_t lanes)
{
    for (uint32_t p = 0; p < dim; p++) {
        float *to = tree->c + p * tree->ld;
        for (size_t i = 0; i < k; i++) to[i] = c[p * ldc + tree->index[i]];
        for (size_t i = k; i < tree->ld; i++) to[i] = INFINITY;
    }
    for (size_t i = 0; i < k; i++) tree->h[i] = h[tree->index[i]];
    for (size_t i = k; i < tree->ld; i++) tree->h[i] = INFINITY;
    qem_boxes_fit(&tree->box, tree->c, tree->ld, k, dim, lanes);
}

/* In instructions a tile, roughly: pruning walks boxes and looks at its candidates, brute force at every centroid. */
int qem_tree_pays(const qem_centroid_tree *tree, size_t k, uint32_t dim, uint32_t lanes, double candidates)
{
    const double boxes = (double)tree->box.super_ld / lanes * (3.0 * dim + 3.0);
    const double pruned = 60.0 + boxes + 3.0 * candidates * (dim + 6.0);
    return pruned < (double)k * (dim + 1.3);
}
