/*
 * What a method is: a row of functions over the primitives of backend.h. A method never sees a device's memory from inside,
 * never includes another method's file (registry.h finds it), and needs no decoder of its own.
 */
#ifndef QEM_METHODS_METHOD_H
#define QEM_METHODS_METHOD_H

#include "../backend.h"

/* A fit under way. Made by api/quantize.c, which also packs the labels and builds the artifact. */
typedef struct qem_fit {
    qem_context *context;
    const qem_backend *backend;
    qem_codebook_kind kind;
    qem_recipe recipe;      /* resolved: every default filled in */
    qem_subvectors points;  /* the matrix as the blocks before leave it (standardized, swapped), cut by recipe.dim */
    uint64_t point_count;   /* rows * groups */
    /* Weights of the squared error, at most one of both; NULL: 1. See qem_kmeans_args. */
    const float *element_weight, *point_weight; /* device */
    uint64_t k;             /* centroids per codebook that the budget allows; partition lowers it to what is needed */
    double spare_bits;      /* that the budget has left over, for widths that differ by group */

    /* set by partition (vector methods) */
    qem_problem *problems;  /* host */
    uint64_t problem_count;
    uint8_t *group_bits;    /* host, [groups], or NULL; k is then that of the widest group */
    uint32_t *order;        /* device: sub-vector ids grouped by cell, or NULL */
    qem_cells cells;        /* host; intervals 0 or 1: none */

    /* set by fit */
    float *codebook;        /* device, as stored (rounded to the stored type) in the layout of qem_stage */
    uint32_t *labels;       /* device, [point_count]; NULL with thresholds, and where labels are late (training.c) */
    uint64_t *used;         /* host, or NULL: how many entries of its codebook a single problem has set */
    float *thresholds;      /* host, [k - 1] ascending; scalar methods: labels are made from them as the codes are packed */
    uint16_t *codebook_codes; /* host; recipe.codebook_bits: the integers of the codebook, */
    float *codebook_scale;    /* host: and step and least value of each component (qem_stage) */
    float scale, mean;      /* uniform grids */
    qem_table table;        /* QEM_CODEBOOK_TABLE */
    uint32_t cells_of_rows; /* rotations: 0 none, 1 opq, more lopq */
    float *rotation;        /* device, [cells_of_rows][cols][cols] */
    float *coarse;          /* device, [cells_of_rows][cols], lopq */
    uint32_t *row_cells;    /* device, [rows], lopq */
} qem_fit;

typedef struct qem_method_ops {
    qem_method id;
    const char *name;
    qem_codebook_kind kind;
    qem_table table;        /* QEM_CODEBOOK_TABLE */
    uint32_t default_dim;
    int scalar;             /* 1: dim must be 1 */
    int power_of_two;       /* 1: k is rounded down to a power of two (a grid has no codebook that could be shorter) */
    uint64_t least_k, most_k;
    uint32_t default_levels;
    int intervals;          /* 1: recipe.intervals has a meaning */
    int rotates;            /* 1: the columns are rotated: no swaps, no weights of elements, no mixed rates */
    int allocates;          /* 1: recipe.allocation has a meaning */

    /* Vector methods: cuts the points into problems and lowers fit->k to the distinct sub-vectors there are. */
    qem_status (*partition)(qem_fit *fit);
    /* Methods with units of their own (grid, nf): the scale and mean of each, written to the affine step's f32 tables (its sizes
     * are set; has_scale and has_mean say which tables are there). x: device, [rows, cols], the matrix before that step. */
    int units_have_means;
    qem_status (*units)(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                        qem_affine *affine);
    /* Codebook and labels for fit->k. */
    qem_status (*fit)(qem_fit *fit);
    /* Labels of new rows: the points are theirs, the codebook that of stage 0 of `base` in device memory. */
    qem_status (*encode)(qem_fit *fit, const qem_artifact *base);
} qem_method_ops;

/* ---- what methods share (common.c) ---- */

/* Problem list on the host, released with the fit. */
qem_status qem_fit_problems(qem_fit *fit, uint64_t count);
/* k-means over fit->problems into fit->codebook and fit->labels (training.c): the fit of every vector method; the second rounds
 * the codebook to recipe.codebook_bits too. */
qem_status qem_fit_kmeans_exact(qem_fit *fit);
qem_status qem_fit_kmeans(qem_fit *fit);
/* recipe.refine further passes over fit->problems from the codebook and labels that are there. */
qem_status qem_fit_refine_warm(qem_fit *fit);
/* Are the sub-vectors so many that only some are trained on, and labels made as the codes are packed? Then fit->labels may be
 * NULL, and qem_fit_label_rows gives those of rows begin .. end-1. */
int qem_fit_labels_are_late(const qem_fit *fit);
qem_status qem_fit_label_rows(const qem_fit *fit, uint64_t begin, uint64_t end, uint32_t *labels);
/* The mean of each sub-vector's element_weight, by id; to be released whatever is returned. */
qem_status qem_fit_pool_weights(const qem_fit *fit, float **pooled);
/* Rounds fit->codebook to integers of recipe.codebook_bits; nothing to do when that is 0. The labels are stale then. */
qem_status qem_fit_round_codebook(qem_fit *fit);
/* The arguments of these, to be changed by who needs other points. */
qem_kmeans_args qem_fit_kmeans_args(const qem_fit *fit);
/* Labels for fit->problems against fit->codebook. */
qem_status qem_fit_assign(qem_fit *fit);
/* Thresholds between k ascending levels: the nearest one, a tie goes up. `levels` is host memory. */
qem_status qem_fit_scalar_levels(qem_fit *fit, const float *levels, uint64_t k);
/* The same for the levels of a fixed table, which fit->table then names. */
qem_status qem_fit_table(qem_fit *fit, qem_table table);
/* Encodes new rows against a scalar codebook or grid. */
qem_status qem_encode_scalar(qem_fit *fit, const qem_artifact *base);
/* k-means problem number g = column group g, for every group: k entries each, or as fit->group_bits say. */
qem_status qem_fit_group_problems(qem_fit *fit, uint64_t k);
/* Do groups have codes of their own widths by the recipe? */
int qem_fit_widths_vary(const qem_fit *fit);
/* Entries of a group's codebook where fit->k is the most of any. */
uint64_t qem_fit_group_k(const qem_fit *fit, uint64_t group);
/* Host memory: labels [count] of whole rows as a stream of the groups' widths in turn, from `bit` on; `stream` is zeroed there and
 * has slack. Returns the bit behind them. */
uint64_t qem_pack_groups(const uint32_t *labels, uint64_t count, const uint8_t *bits, uint64_t groups, uint64_t bit,
                         uint8_t *stream);

#endif
