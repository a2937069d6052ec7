/* One layer of an artifact in the making: a recipe without its residual, applied to one matrix. */
#ifndef QEM_API_LAYER_H
#define QEM_API_LAYER_H

#include "api.h"

/* Rows with a codebook of their own; a layer has one such range, or two with mixed rates. */
typedef struct qem_range_fit {
    qem_fit fit;
    uint64_t row_begin, row_end;
    float *ordered, *ordered_weight; /* device, swapped */
    uint8_t *swap_map;               /* device */
    uint64_t swap_map_bytes;
} qem_range_fit;

typedef struct qem_layer_fit {
    const qem_method_ops *ops;
    qem_recipe recipe;           /* resolved */
    qem_source source;           /* the matrix of this layer, [rows, cols] */
    float **spare;               /* memory of the matrix that becomes z when there are steps: the source is then loaded again;
                                    or NULL */
    uint64_t rows, cols;
    const float *importance;     /* device, [importance_rows, cols], or NULL */
    uint64_t importance_rows;
    uint32_t affine_count;
    qem_affine affine[QEM_MOST_AFFINE];
    float *z;                    /* device, standardized, or NULL: x is used */
    float *element_weight, *point_weight; /* device */
    uint32_t range_count;
    qem_range_fit range[2];
} qem_layer_fit;

/*
 * Standardizes, shares the budget out, swaps and partitions: all up to the fits, so that k and sizes are final in *plan (whose
 * chain and bytes of outliers are set). budget: bits for the whole layer (ignored with an explicit k). The caller has set
 * ops, recipe, source, spare, rows, cols and importance; qem_layer_end releases the rest in any case.
 */
qem_status qem_layer_begin(qem_context *context, qem_layer_fit *layer, qem_layer_plan *plan, double budget);
/* The same with ranges and k as *plan has them, whatever the budget. */
qem_status qem_layer_begin_as_planned(qem_context *context, qem_layer_fit *layer, qem_layer_plan *plan);
/* Fits, and fills layer `index` of the artifact, whose stages from artifact->stage_count on are free. */
qem_status qem_layer_finish(qem_context *context, qem_layer_fit *layer, qem_artifact *artifact, uint32_t index);
/* The same against layer `index` of `base`, whose codebooks, rotations and column parameters are taken. */
qem_status qem_layer_encode(qem_context *context, qem_layer_fit *layer, const qem_artifact *base, uint32_t index,
                            qem_artifact *artifact);
void qem_layer_end(qem_context *context, qem_layer_fit *layer);

/* RANGE, naming `what`, unless all elements of a matrix of the layer's shape are finite. */
qem_status qem_layer_check_range(qem_context *context, const qem_layer_fit *layer, const float *x, const char *what);

/* ---- steps of a layer, for layer.c and block_scales.c ---- */

/* layer->z = the matrix by all steps from number `first` on; the weights that go with the steps. */
qem_status qem_layer_apply_steps(qem_context *context, qem_layer_fit *layer, uint32_t first);
qem_status qem_layer_add_weights(qem_context *context, qem_layer_fit *layer);
/* A range up to its partition; memory for labels and codebook; the end. */
qem_status qem_range_begin(qem_context *context, const qem_layer_fit *layer, const qem_range_plan *plan, qem_range_fit *range);
qem_status qem_range_allocate(qem_context *context, const qem_layer_fit *layer, qem_fit *fit);
void qem_range_end(qem_context *context, qem_range_fit *range);

/* All rows encoded against stage 0 of `base`. */
qem_status qem_range_encode(qem_context *context, const qem_layer_fit *layer, const qem_artifact *base, qem_range_fit *range);

/* Betters the scales of blocks against codebooks fitted for the purpose, or against that of stage 0 of `base`. */
qem_status qem_layer_search_scales(qem_context *context, qem_layer_fit *layer, const qem_layer_plan *plan);
qem_status qem_layer_search_like(qem_context *context, qem_layer_fit *layer, const qem_artifact *base);

/* Moves what a fit made into a stage (store.c). */
qem_status qem_store_stage(qem_context *context, qem_range_fit *range, qem_stage *stage);

#endif
