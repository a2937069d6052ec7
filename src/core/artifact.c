/* Birth and end of artifacts, and what their decoders read of them. */
#include "artifact.h"

#include <math.h>
#include <string.h>

#include "context.h"
#include "half.h"

qem_status qem_artifact_new(qem_context *context, const char *name, uint64_t rows, uint64_t cols, uint32_t stage_count,
                            uint32_t layer_count, qem_artifact **artifact)
{
    *artifact = NULL;
    void *memory, *text, *stages, *layers = NULL;
    QEM_TRY(qem_allocate_zero(context, 1, sizeof(qem_artifact), &memory));
    qem_artifact *a = memory;
    a->allocator = context->allocator;
    a->rows = rows;
    a->cols = cols;
    a->quantize_seconds = NAN;
    qem_status status = qem_allocate_zero(context, strlen(name) + 1, 1, &text);
    if (status == QEM_OK) {
        a->name = text;
        memcpy(text, name, strlen(name));
        status = qem_allocate_zero(context, stage_count, sizeof(qem_stage), &stages);
    }
    if (status == QEM_OK) {
        a->stages = stages;
        a->stage_count = stage_count;
        status = qem_allocate_zero(context, layer_count, sizeof(qem_layer), &layers);
    }
    if (status != QEM_OK) {
        qem_artifact_destroy(&a);
        return status;
    }
    a->layers = layers;
    a->layer_count = layer_count;
    for (uint32_t i = 0; i < layer_count; i++) a->layers[i].stage_first = i, a->layers[i].stage_count = 1;
    for (uint32_t i = 0; i < stage_count; i++) a->stages[i].row_end = rows;
    *artifact = a;
    return QEM_OK;
}

void qem_artifact_set_recipe(qem_artifact *artifact, const qem_recipe *recipe)
{
    qem_recipe *copy = &artifact->recipe;
    *copy = *recipe;
    copy->importance = NULL;
    for (uint32_t i = 0; copy->residual && i < QEM_MOST_STAGES; i++) {
        artifact->residuals[i] = *copy->residual;
        copy->residual = &artifact->residuals[i];
        copy = &artifact->residuals[i];
        copy->importance = NULL;
    }
    copy->residual = NULL;
}

static void release(const qem_allocator *allocator, void *pointer)
{
    if (pointer) allocator->release(allocator->user, pointer);
}

static void release_stage(const qem_allocator *allocator, qem_stage *stage)
{
    if (stage->codebook != stage->codebook_stored) release(allocator, stage->codebook);
    release(allocator, stage->codebook_stored);
    release(allocator, stage->codebook_scale);
    release(allocator, stage->codes);
    release(allocator, stage->group_bits);
    release(allocator, stage->swap_map);
    release(allocator, stage->rotation);
    release(allocator, stage->coarse);
    release(allocator, stage->rotation_half);
    release(allocator, stage->coarse_half);
    release(allocator, stage->row_cells);
}

static void release_affine(const qem_allocator *allocator, qem_affine *affine)
{
    if (affine->scale != affine->scale_stored) release(allocator, affine->scale);
    if (affine->mean != affine->mean_stored) release(allocator, affine->mean);
    release(allocator, affine->scale_stored);
    release(allocator, affine->mean_stored);
    release(allocator, affine->scale_super);
    release(allocator, affine->mean_super);
}

void qem_artifact_destroy(qem_artifact **artifact)
{
    if (!artifact || !*artifact) return;
    qem_artifact *a = *artifact;
    const qem_allocator allocator = a->allocator;
    for (uint32_t i = 0; i < a->stage_count; i++) release_stage(&allocator, &a->stages[i]);
    for (uint32_t i = 0; i < a->layer_count; i++)
        for (uint32_t step = 0; step < QEM_MOST_AFFINE; step++) release_affine(&allocator, &a->layers[i].affine[step]);
    if (a->outliers.value != a->outliers.value_stored) release(&allocator, a->outliers.value);
    release(&allocator, a->outliers.value_stored);
    release(&allocator, a->outliers.index);
    release(&allocator, a->stages);
    release(&allocator, a->layers);
    release(&allocator, a->cells.cuts);
    release(&allocator, a->cells.id);
    release(&allocator, a->cells.first);
    release(&allocator, a->name);
    release(&allocator, a);
    *artifact = NULL;
}

/* ---- from what is stored to what decoders read ---- */

static uint32_t stream_word(const uint8_t *stream, uint64_t index, uint32_t bits)
{
    const uint64_t bit = index * bits, byte = bit / 8;
    const uint32_t word = (uint32_t)stream[byte] | (uint32_t)stream[byte + 1] << 8 | (uint32_t)stream[byte + 2] << 16;
    return word >> (bit % 8) & (((uint32_t)1 << bits) - 1u);
}

static qem_status expand_halves(qem_context *context, const void *stored, uint64_t count, float **values)
{
    void *memory;
    QEM_TRY(qem_allocate(context, count, sizeof(float), &memory));
    *values = memory;
    for (uint64_t i = 0; i < count; i++) (*values)[i] = qem_f16_to_f32(((const uint16_t *)stored)[i]);
    return QEM_OK;
}

/* Entry e of the codebook belongs to which component: shared by position; else the group's (and cell's) own. */
static void expand_rtn_group(const qem_stage *stage, uint64_t *entry, uint64_t component, uint64_t k, uint64_t width)
{
    for (uint64_t j = 0; j < k; j++)
        for (uint64_t p = 0; p < width; p++, ++*entry) {
            const float *scale = stage->codebook_scale + 2 * (component + p);
            stage->codebook[*entry] =
                fmaf((float)stream_word(stage->codebook_stored, *entry, stage->codebook_bits), scale[0], scale[1]);
        }
}

static void expand_rtn(qem_stage *stage, uint64_t cols)
{
    uint64_t entry = 0;
    if (stage->kind == QEM_CODEBOOK_SHARED) {
        expand_rtn_group(stage, &entry, 0, stage->k, stage->dim);
        return;
    }
    for (uint32_t c = 0; c < (stage->cells ? stage->cells : 1); c++)
        for (uint64_t g = 0, at = 0; g < stage->groups; g++, at += stage->dim) {
            const uint64_t width = cols - at < stage->dim ? cols - at : stage->dim;
            const uint64_t k = stage->group_bits ? (uint64_t)1 << stage->group_bits[g] : stage->k;
            expand_rtn_group(stage, &entry, c * cols + at, k, width);
        }
}

qem_status qem_stage_expand_codebook(qem_context *context, qem_stage *stage, uint64_t cols)
{
    const int formula = stage->kind == QEM_CODEBOOK_UNIFORM || stage->kind == QEM_CODEBOOK_TABLE;
    const uint64_t floats = formula ? stage->k : qem_stage_codebook_floats(stage, cols);
    void *memory;
    if (!formula && stage->codebook_dtype == QEM_DTYPE_F32) {
        stage->codebook = stage->codebook_stored;
        return QEM_OK;
    }
    if (!formula && stage->codebook_dtype == QEM_DTYPE_F16)
        return expand_halves(context, stage->codebook_stored, floats, &stage->codebook);
    QEM_TRY(qem_allocate(context, floats, sizeof(float), &memory));
    stage->codebook = memory;
    if (stage->kind == QEM_CODEBOOK_UNIFORM)
        for (uint64_t j = 0; j < floats; j++) stage->codebook[j] = fmaf((float)j, stage->scale, stage->mean);
    else if (stage->kind == QEM_CODEBOOK_TABLE)
        for (uint64_t j = 0; j < floats; j++) stage->codebook[j] = qem_table_level(stage->table, stage->k, (uint32_t)j);
    else
        expand_rtn(stage, cols);
    return QEM_OK;
}

qem_status qem_stage_expand_rotation(qem_context *context, qem_stage *stage, uint64_t cols)
{
    if (!stage->half_rotation) return QEM_OK;
    QEM_TRY(expand_halves(context, stage->rotation_half, stage->cells * cols * cols, &stage->rotation));
    return stage->cells > 1 ? expand_halves(context, stage->coarse_half, stage->cells * cols, &stage->coarse) : QEM_OK;
}

/* offset 0: scales, q * super / (2^bits - 1); else means, (q - offset) * super / (offset - 1) */
static qem_status expand_params(qem_context *context, const qem_affine *affine, void *stored, const uint16_t *supers,
                                uint32_t offset, float **values)
{
    void *memory;
    if (affine->params == 32) {
        *values = stored;
        return QEM_OK;
    }
    if (affine->params == 16) return expand_halves(context, stored, affine->units, values);
    QEM_TRY(qem_allocate(context, affine->units, sizeof(float), &memory));
    *values = memory;
    const float steps = (float)(offset ? offset - 1 : ((uint32_t)1 << affine->params) - 1);
    for (uint64_t u = 0; u < affine->units; u++) {
        const int32_t q = (int32_t)stream_word(stored, u, affine->params) - (int32_t)offset;
        (*values)[u] = (float)q * (qem_f16_to_f32(supers[u / affine->per_super]) / steps);
    }
    return QEM_OK;
}

qem_status qem_affine_expand(qem_context *context, qem_affine *a)
{
    if (a->has_scale) QEM_TRY(expand_params(context, a, a->scale_stored, a->scale_super, 0, &a->scale));
    if (!a->has_mean) return QEM_OK;
    return expand_params(context, a, a->mean_stored, a->mean_super, a->params < 16 ? (uint32_t)1 << (a->params - 1) : 0, &a->mean);
}

qem_status qem_outliers_expand(qem_context *context, qem_outliers *outliers)
{
    if (outliers->value_dtype == QEM_DTYPE_F16)
        return expand_halves(context, outliers->value_stored, outliers->count, &outliers->value);
    outliers->value = outliers->value_stored;
    return QEM_OK;
}
