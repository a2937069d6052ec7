/*
 * What exact pruning knows of the points and the centroids of one problem: boxes. A tile is a vector of points that lie
 * together, a super-tile a vector of tiles; centroids have blocks and super-blocks in the same way. A box distance is computed
 * by the chain that computes a distance; rounding is monotone, so it is never above the computed distance to any point in the
 * box, and what is skipped by it could not have changed the result.
 */
#ifndef QEM_CPU_TILES_H
#define QEM_CPU_TILES_H

#include <stddef.h>
#include <stdint.h>

#include "arena.h"

#define QEM_MOST_PRUNED_DIM 8 /* above it boxes hardly ever exclude anything */

/* Boxes of runs of `lanes` items, and of runs of `lanes` boxes. Padding boxes are empty (low = +inf, high = -inf). */
typedef struct qem_boxes {
    size_t ld, super_ld;          /* strides: boxes, super-boxes, each padded to lanes */
    float *low, *high;            /* [dim][ld] */
    float *super_low, *super_high; /* [dim][super_ld] */
} qem_boxes;

typedef struct qem_tiles {
    qem_boxes box;
    float *most, *super_most;     /* [ld], [super_ld] seeding: largest D^2 inside; 0 in the padding */
    float *square;                /* [ld] largest |x|^2 inside, rounded up */
    const float *weight;          /* seeding: weights of the points in k-d order, by which D^2 counts; NULL: 1 */
} qem_tiles;

typedef struct qem_centroid_tree {
    qem_boxes box;
    size_t ld;                    /* places: lanes for each box */
    float *c;                     /* [dim][ld] in k-d order; +inf in the padding */
    float *h;                     /* [ld] */
    uint32_t *index;              /* [ld] number of the centroid at a place */
} qem_centroid_tree;

/*
 * Sums of D^2 for the draws of k-means++: of blocks of points that are neighbours in the order of the problem, which decides a
 * draw, and of runs of such blocks.
 */
#define QEM_SEED_BLOCK 128 /* points; multiple of 64 */
#define QEM_SEED_RUN 64    /* blocks */
typedef struct qem_seed_sums {
    int64_t *block, *run;
    int64_t total;
    double scale;           /* what is summed is llrint(D^2 * scale), with weights llrint(D^2 * weight * scale) */
} qem_seed_sums;

/* Words of `candidates` of nearest_tiles: places, super-blocks and blocks, each with room for a vector more. */
static inline size_t qem_candidate_words(const qem_centroid_tree *tree, uint32_t lanes)
{
    return tree->ld + tree->box.super_ld + tree->box.ld + 3 * (size_t)lanes;
}

/* Boxes for `count` items, and a tree for k centroids, from the arena. */
void qem_boxes_layout(qem_boxes *box, uint64_t count, uint32_t dim, uint32_t lanes, qem_arena *arena);
void qem_tree_layout(qem_centroid_tree *tree, uint64_t k, uint32_t dim, uint32_t lanes, qem_arena *arena);
/* Boxes of the items x[p * ld + i], i < count. */
void qem_boxes_fit(qem_boxes *box, const float *x, size_t ld, size_t count, uint32_t dim, uint32_t lanes);
/* square[] of tiles. */
void qem_tiles_squares(qem_tiles *tiles, const float *x, size_t ld, size_t count, uint32_t dim, uint32_t lanes);

#endif
