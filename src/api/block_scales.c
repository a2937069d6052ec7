/*
 * The scales of blocks, bettered before the fit that counts: a provisional codebook is fitted for all rows, then each block
 * takes the scale of least error against it. Scalar codebooks: all candidates are tried, codes follow. Vectors: by least
 * squares, for the codes as they are.
 */
#include <string.h>

#include "../methods/standardize.h"
#include "layer.h"

#define ROUNDS 2            /* fits and searches */
#define VECTOR_ITERATIONS 8 /* passes of a provisional codebook of vectors, at most */

/* Number of the block step, or affine_count where there is none to search; grids have units of their own instead. */
static uint32_t searched_step(const qem_layer_fit *layer)
{
    if (layer->ops->units) return layer->affine_count;
    for (uint32_t i = 0; i < layer->affine_count; i++)
        if (layer->affine[i].axis == QEM_AXIS_BLOCK) return i;
    return layer->affine_count;
}

/* Weights of the errors before the block step: importance times the outer scales squared; *weight NULL: all 1. */
static qem_status outer_weights(qem_context *context, const qem_layer_fit *layer, uint32_t step, float **weight)
{
    qem_decode_affine outer[QEM_MOST_AFFINE];
    const uint32_t count = layer->affine_count - step - 1;
    void *memory;
    *weight = NULL;
    if (count == 0 && !layer->importance) return QEM_OK;
    QEM_TRY(context->backend->alloc(context, layer->rows * layer->cols, sizeof(float), &memory));
    *weight = memory;
    qem_affine_views(layer->affine + step + 1, count, outer);
    return context->backend->element_weights(context, layer->rows, layer->cols, outer, count, layer->importance,
                                             layer->importance_rows, *weight);
}

/* ---- scalars ---- */

static qem_status search_levels(qem_context *context, qem_layer_fit *layer, uint32_t step, const float *levels, uint64_t k)
{
    float *weight;
    QEM_TRY(qem_layer_apply_steps(context, layer, step + 1));
    qem_status status = outer_weights(context, layer, step, &weight);
    if (status == QEM_OK)
        status = qem_standardize_search(context, context->backend, layer->z, weight, layer->rows, layer->cols, levels, k,
                                        &layer->affine[step], NULL);
    context->backend->release(context, weight);
    return status == QEM_OK ? qem_layer_apply_steps(context, layer, 0) : status;
}

/* ---- vectors ---- */

static void replace_step(qem_context *context, qem_affine *step, qem_affine *fresh)
{
    qem_affine_release(context, step);
    *step = *fresh;
}

/* The step with scales that fit `coded` best, stored as the step's are. */
static qem_status fit_scales(qem_context *context, const qem_layer_fit *layer, uint32_t number, const float *coded, qem_affine *fresh)
{
    const qem_affine *step = &layer->affine[number];
    float *weight;
    *fresh = qem_affine_make(step->axis, step->block, step->params, layer->rows, layer->cols);
    fresh->has_scale = 1;
    QEM_TRY(qem_affine_alloc(context, fresh));
    qem_status status = outer_weights(context, layer, number, &weight);
    if (status == QEM_OK)
        status = context->backend->fit_block_scales(context, layer->z, coded, weight, layer->rows, layer->cols, step->block,
                                                    fresh->scale);
    context->backend->release(context, weight);
    return status == QEM_OK ? qem_affine_store(context, fresh) : status;
}

/* What the codes of a stage stand for, without any step. */
static qem_status decode_alone(qem_context *context, const qem_layer_fit *layer, const qem_stage *stage, float *coded)
{
    qem_layer plain = { .stage_count = 1 };
    qem_stage copy = *stage;
    int overflow;
    const qem_artifact artifact = { .rows = layer->rows, .cols = layer->cols, .stage_count = 1, .stages = &copy,
                                    .layer_count = 1, .layers = &plain };
    return qem_decode_rows(context, &artifact, 0, layer->rows, QEM_DTYPE_F32, coded, layer->cols, &overflow);
}

static qem_status search_codes(qem_context *context, qem_layer_fit *layer, uint32_t step, const qem_stage *stage)
{
    void *coded;
    qem_affine fresh;
    memset(&fresh, 0, sizeof fresh);
    QEM_TRY(context->backend->alloc(context, layer->rows * layer->cols, sizeof(float), &coded));
    qem_status status = decode_alone(context, layer, stage, coded);
    if (status == QEM_OK) status = qem_layer_apply_steps(context, layer, step + 1);
    if (status == QEM_OK) status = fit_scales(context, layer, step, coded, &fresh);
    context->backend->release(context, coded);
    if (status != QEM_OK) {
        qem_affine_release(context, &fresh);
        return status;
    }
    replace_step(context, &layer->affine[step], &fresh);
    return qem_layer_apply_steps(context, layer, 0);
}

/* ---- rounds ---- */

static qem_status search_against(qem_context *context, qem_layer_fit *layer, uint32_t step, const qem_stage *stage)
{
    return layer->ops->scalar ? search_levels(context, layer, step, stage->codebook, stage->k)
                              : search_codes(context, layer, step, stage);
}

/* A stage of all rows, stored in an artifact of its own. */
static qem_status fit_provisional(qem_context *context, const qem_layer_fit *layer, uint64_t k, qem_range_fit *range,
                                  qem_artifact *artifact)
{
    const qem_range_plan all = { 0, layer->rows, k, 0.0, NULL };
    QEM_TRY(qem_range_begin(context, layer, &all, range));
    if (!layer->ops->scalar && range->fit.recipe.iterations > VECTOR_ITERATIONS) range->fit.recipe.iterations = VECTOR_ITERATIONS;
    QEM_TRY(qem_range_allocate(context, layer, &range->fit));
    QEM_TRY(layer->ops->fit(&range->fit));
    return qem_store_stage(context, range, &artifact->stages[0]);
}

static qem_status search_once(qem_context *context, qem_layer_fit *layer, uint32_t step, uint64_t k)
{
    qem_artifact *artifact;
    qem_range_fit range;
    memset(&range, 0, sizeof range);
    QEM_TRY(qem_artifact_new(context, "provisional", layer->rows, layer->cols, 1, 1, &artifact));
    qem_status status = fit_provisional(context, layer, k, &range, artifact);
    qem_range_end(context, &range);
    if (status == QEM_OK) status = search_against(context, layer, step, &artifact->stages[0]);
    qem_artifact_destroy(&artifact);
    return status == QEM_OK ? qem_layer_add_weights(context, layer) : status;
}

qem_status qem_layer_search_scales(qem_context *context, qem_layer_fit *layer, const qem_layer_plan *plan)
{
    const uint32_t step = searched_step(layer);
    const qem_range_plan *range = &plan->range[0]; /* the one of most rows: one set of scales serves both */
    if (plan->range_count == 2 && plan->range[1].row_end - plan->range[1].row_begin > range->row_end - range->row_begin) range++;
    for (int round = 0; round < ROUNDS && step < layer->affine_count; round++)
        QEM_TRY(search_once(context, layer, step, range->k));
    return QEM_OK;
}

/* Codes of new rows against the base's codebook, as its fit found scales for those that it had. */
static qem_status encode_provisional(qem_context *context, const qem_layer_fit *layer, const qem_artifact *base,
                                     qem_range_fit *range, qem_artifact *artifact)
{
    QEM_TRY(qem_range_encode(context, layer, base, range));
    return qem_store_stage(context, range, &artifact->stages[0]);
}

qem_status qem_layer_search_like(qem_context *context, qem_layer_fit *layer, const qem_artifact *base)
{
    const uint32_t step = searched_step(layer);
    qem_artifact *artifact;
    qem_range_fit range;
    memset(&range, 0, sizeof range);
    if (step == layer->affine_count) return QEM_OK;
    if (layer->ops->scalar) return search_levels(context, layer, step, base->stages[0].codebook, base->stages[0].k);
    QEM_TRY(qem_layer_add_weights(context, layer));
    for (int round = 0; round < ROUNDS; round++) {
        QEM_TRY(qem_artifact_new(context, "provisional", layer->rows, layer->cols, 1, 1, &artifact));
        qem_status status = encode_provisional(context, layer, base, &range, artifact);
        qem_range_end(context, &range);
        if (status == QEM_OK) status = search_codes(context, layer, step, &artifact->stages[0]);
        qem_artifact_destroy(&artifact);
        QEM_TRY(status);
    }
    return QEM_OK;
}
