/*
 * One k-means problem at work. Its points are gathered into structure-of-arrays form, centred by their mean and scaled by a
 * power of two so that max|x| lies in [1,2): x' = (x - mean_p) * 2^-exponent. Points of the tail group, which have fewer
 * positions, form a second segment.
 *
 * A problem is worked on by `threads` threads: 1 when many problems run side by side, all of them for a large one. Every sum
 * is of integers, so the result is the same.
 */
#ifndef QEM_CPU_KMEANS_H
#define QEM_CPU_KMEANS_H

#include "../backend.h"
#include "kernels.h"

#define QEM_PIECE 16384       /* points a thread takes at once; multiple of QEM_SEED_BLOCK */

/* What makes one error count more than another (kmeans_weighted.c). */
typedef enum qem_weighting {
    QEM_WEIGHT_NONE = 0,
    QEM_WEIGHT_POINT = 1,  /* D^2 of a point, times its weight: the nearest centroid is the nearest without weights */
    QEM_WEIGHT_ELEMENT = 2 /* D^2 = sum of w_p * (x_p - c_p)^2 */
} qem_weighting;

typedef struct qem_segment {
    uint32_t dim;
    uint64_t count;
    size_t padded;      /* count rounded up to QEM_POINT_PAD; also the stride of x */
    float *x;           /* [dim][padded], zeros in the padding */
    float *w;           /* weights scaled so that the largest lies in [1,2), zeros in the padding: w[p * w_ld + i] */
    size_t w_ld;        /* padded for elements, 0 for points */
    float *d2;          /* [padded] */
    uint32_t *labels;   /* [padded] */
    uint32_t *previous; /* [padded], labels of the pass before */
} qem_segment;

typedef struct qem_work {
    const qem_cpu_kernels *kernels;
    const qem_subvectors *points;
    const qem_problem *problem;
    uint32_t threads;
    uint32_t sum_threads;    /* threads that sum, each in tables of its own */
    uint32_t width;          /* components of a centroid */
    qem_segment segment[2];  /* full sub-vectors, tail ones (dim < width; may be empty) */
    uint64_t count;          /* points of both */
    uint64_t k;              /* centroids in use */
    size_t ldc;              /* stride of c: the problem's k rounded up to QEM_CENTROID_PAD */
    float *c;                /* [width][ldc] */
    float *h[2];             /* [ldc] half norms over the dim of each segment */
    unsigned char *only_tail; /* [ldc] 1: the centroid has no full member, its further components are 0 as stored */
    int64_t *sums;           /* [sum_threads][k][width] */
    uint64_t *counts[2];     /* [sum_threads][k] members of each segment */
    qem_seed_sums seed_sums; /* of D^2; the blocks of the tail points follow those of the full ones */
    float *block_max;        /* [blocks] */
    double *mean;            /* [width] */
    float *center;           /* [width], the seed just drawn */
    int exponent;
    double scale, unit;      /* 2^-exponent, 2^exponent */

    /* weights (kmeans_weighted.c) */
    qem_weighting weighting; /* NONE also where all weights are the same */
    const float *weights;    /* those of the arguments */
    double weight_unit;      /* what a weight of 1 stands for */
    uint32_t feature_points; /* points whose features are made at once */
    float *features;         /* [threads][2 * width][feature_points] */
    float *feature_c;        /* [2 * width][ldc] */
    float *feature_h;        /* [ldc] */
    float *heaviest;         /* [sum_threads][k][width] largest weight of the members */
    double *weight_scale;    /* [k][width] */
    int64_t *weight_sums;    /* [sum_threads][k][width] */

    /* exact pruning (kmeans_prune.c); only without tail points */
    uint32_t lanes;          /* 0: brute force */
    uint32_t *order;         /* [count] point at a place of segment 0, which is in k-d order */
    qem_tiles tiles;
    qem_centroid_tree tree;
    uint32_t *candidates;    /* [threads][qem_candidate_words] */
    int brute;               /* 1: pruning has been found not to pay in this problem's assignments */
} qem_work;

/* Bytes of scratch for a problem, and the pointers into it (memory aligned to 64). */
uint64_t qem_work_bytes(const qem_cpu_kernels *kernels, const qem_kmeans_args *args, const qem_problem *problem,
                        uint32_t threads);
void qem_work_init(qem_work *work, const qem_cpu_kernels *kernels, const qem_kmeans_args *args, const qem_problem *problem,
                   uint32_t threads, void *memory);

/* Gathers, centres and scales the points. */
void qem_work_gather(qem_work *work);
/* Labels of both segments -> labels[id] = label_base + label. */
void qem_work_scatter(const qem_work *work, uint32_t *labels);

/* Scaled value of a stored component, and back. */
float qem_work_scaled(const qem_work *work, uint32_t p, float stored);
float qem_work_stored(const qem_work *work, uint32_t p, float scaled);

/* Is it worth while to order the points of such a problem? */
int qem_prune_wanted(const qem_cpu_kernels *kernels, uint32_t dim, uint64_t count, uint64_t k);
/* Puts the points in k-d order and fits the boxes. scratch: qem_kd_scratch_words. */
void qem_prune_points(qem_work *work, uint32_t *scratch);
/* inverse[t] = place of point t. */
void qem_prune_inverse(const qem_work *work, uint32_t *inverse);
/* Largest D^2 of every tile, after the first step of the seeding. */
void qem_prune_seed_begin(qem_work *work);
/* Orders the centroids; once after the seeding. */
void qem_prune_centroids(qem_work *work);
/* The labels of segment 0 from `previous`, or 0 if brute force is cheaper. c and h are those of now. */
int qem_prune_assign(qem_work *work);

/* k-means++; sets work->k to the centroids really drawn, c, only_tail, and labels by nearest seed. */
void qem_work_seed(qem_work *work, uint64_t seed, uint32_t restart);

/* Instead of seeds: centroids as stored in the problem's codebook, and the labels that an earlier run left. */
void qem_work_warm(qem_work *work, const float *codebook, const uint32_t *labels);

/* Half norms of the first work->k centroids; pads the rest. */
void qem_work_half_norms(qem_work *work);
/* Labels from c and h; returns 1 if one differs from before. */
int qem_work_assign(qem_work *work);
/* Repairs empty clusters and moves every centroid to the mean of its members. */
void qem_work_update(qem_work *work);
/* Sum of the (weighted) squared distances to the own centroid, in the units of the data. */
double qem_work_objective(qem_work *work);

/* ---- weights (kmeans_weighted.c) ---- */

/* Reads, from the problem's weights, whether they make a difference; if not, *common is what they all are, 1 for 0. */
qem_weighting qem_weighting_of(const qem_kmeans_args *args, const qem_problem *problem, double *common);
/* Scales the weights as gathered. */
void qem_weights_scale(qem_work *work);
/* Weights of points, in their order, to the k-d order of the points. */
void qem_weights_order(qem_work *work);
/* Features of the centroids, from c. */
void qem_weights_centroids(qem_work *work);
/* Labels of points begin .. end-1 of a segment against those; at most feature_points, by thread number `thread`. */
void qem_weights_nearest(const qem_work *work, const qem_segment *segment, uint64_t begin, uint64_t end, uint32_t thread);
/* The largest weight of each component of each cluster. */
void qem_weights_heaviest(qem_work *work);
/* Does a cluster have a member that counts? */
int qem_weights_any(const qem_work *work, uint64_t j);
/* Every centroid to the weighted mean of its members. */
void qem_weights_update(qem_work *work);

#endif
