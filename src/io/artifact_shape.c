/*
 * The numbers of an artifact's metadata that sizes follow from. Nobody vouches for them: each has limits, and together they
 * must not overflow, before core/artifact_parts.c computes with them.
 */
#include <string.h>

#include "io/io.h"

#define MAX_K ((uint64_t)1 << 24)
#define MAX_LEVELS_K 65536 /* of scalar grids and tables */
#define MAX_DIM 65535
#define MAX_CELLS 256
#define MAX_GROUP_BITS 16

static qem_status read_kind(const qem_io_reader *reader, const json_t *object, qem_stage *stage)
{
    const char *word = NULL;
    QEM_TRY(qem_read_string(reader, object, "kind", &word));
    for (int i = 0; i < QEM_IO_KINDS; i++) {
        if (strcmp(word, qem_io_kind_words[i]) != 0) continue;
        stage->kind = (qem_codebook_kind)i;
        if (i != QEM_CODEBOOK_TABLE) return QEM_OK;
        return qem_read_word(reader, object, "table", qem_io_table_words, QEM_IO_TABLES, &stage->table);
    }
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "unknown kind of codebook '%s'", qem_show(word).text);
}

static int is_scalar(const qem_stage *stage)
{
    return stage->kind == QEM_CODEBOOK_UNIFORM || stage->kind == QEM_CODEBOOK_TABLE;
}

static qem_status read_codes_shape(const qem_io_reader *reader, const json_t *object, qem_stage *stage, int has_group_bits)
{
    const int nf = stage->kind == QEM_CODEBOOK_TABLE && stage->table == QEM_TABLE_NF;
    QEM_TRY(qem_read_u32(reader, object, "dim", 1, is_scalar(stage) ? 1 : MAX_DIM, &stage->dim));
    QEM_TRY(qem_read_u64(reader, object, "k", 1, is_scalar(stage) ? MAX_LEVELS_K : MAX_K, &stage->k));
    QEM_TRY(qem_read_u32(reader, object, "code_bits", 0, 24, &stage->code_bits));
    QEM_TRY(qem_read_u32(reader, object, "levels", 0, 8, &stage->levels));
    if (stage->code_bits != qem_code_bits(stage->k))
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "codes of %u bits do not fit k = %llu", (unsigned)stage->code_bits,
                               (unsigned long long)stage->k);
    if (nf && (stage->k < 4 || stage->k > 256 || stage->k != (uint64_t)1 << stage->code_bits))
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "NormalFloat has no table of %llu levels", (unsigned long long)stage->k);
    if (has_group_bits && (stage->kind != QEM_CODEBOOK_PER_GROUP || stage->code_bits > MAX_GROUP_BITS ||
                           stage->k != (uint64_t)1 << stage->code_bits))
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its codebook of k = %llu cannot have codes of different widths",
                               (unsigned long long)stage->k);
    return QEM_OK;
}

static qem_status read_codebook_shape(const qem_io_reader *reader, const json_t *object, qem_stage *stage)
{
    QEM_TRY(qem_read_dtype(reader, object, "codebook", &stage->codebook_dtype));
    QEM_TRY(qem_read_optional_u32(reader, object, "codebook_bits", 4, 12, &stage->codebook_bits));
    const int floats = stage->codebook_dtype == QEM_DTYPE_F32 || (stage->codebook_dtype == QEM_DTYPE_F16 && !is_scalar(stage));
    const int integers = stage->codebook_dtype == QEM_DTYPE_U8 && !is_scalar(stage);
    if (stage->codebook_bits ? integers : floats) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "a codebook of this kind cannot be of type %s",
                           qem_dtype_name(stage->codebook_dtype));
}

/* f32 where nothing is said. */
static qem_status read_rotation_type(const qem_io_reader *reader, const json_t *object, qem_stage *stage)
{
    qem_dtype dtype = QEM_DTYPE_F32;
    if (!json_object_get(object, "rotation")) return QEM_OK;
    QEM_TRY(qem_read_dtype(reader, object, "rotation", &dtype));
    if (dtype != QEM_DTYPE_F16 || !stage->cells)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "a rotation of %u cells cannot be of type %s", (unsigned)stage->cells,
                               qem_dtype_name(dtype));
    stage->half_rotation = 1;
    return QEM_OK;
}

static qem_status read_rows(const qem_io_reader *reader, const json_t *object, uint64_t rows, qem_stage *stage)
{
    stage->row_begin = 0;
    stage->row_end = rows;
    if (!json_object_get(object, "row_begin") && !json_object_get(object, "row_end")) return QEM_OK;
    QEM_TRY(qem_read_u64(reader, object, "row_begin", 0, rows - 1, &stage->row_begin));
    return qem_read_u64(reader, object, "row_end", stage->row_begin + 1, rows, &stage->row_end);
}

/* A file of few bytes can claim any shape: no product may wrap round to the few bytes that are there. */
static qem_status check_products(const qem_io_reader *reader, uint64_t cols, const qem_stage *stage)
{
    const uint64_t copies = stage->cells > 1 ? stage->cells : 1;
    uint64_t codebook, rotation;
    if (__builtin_mul_overflow(cols + stage->dim, stage->k * 16, &codebook) ||
        __builtin_mul_overflow(codebook, copies, &codebook))
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "the size of its codebook overflows 64 bits");
    if (stage->cells && (__builtin_mul_overflow(cols, cols, &rotation) ||
                         __builtin_mul_overflow(rotation, stage->cells * sizeof(float), &rotation)))
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "the size of its rotation overflows 64 bits");
    return QEM_OK;
}

qem_status qem_read_stage(const qem_io_reader *reader, const json_t *object, const qem_artifact *artifact, qem_stage *stage,
                          int *has_group_bits)
{
    *has_group_bits = 0;
    QEM_TRY(qem_read_flag(reader, object, "group_bits", has_group_bits));
    QEM_TRY(read_kind(reader, object, stage));
    QEM_TRY(read_codes_shape(reader, object, stage, *has_group_bits));
    QEM_TRY(read_codebook_shape(reader, object, stage));
    QEM_TRY(qem_read_optional_u32(reader, object, "cells", 0, MAX_CELLS, &stage->cells));
    QEM_TRY(read_rotation_type(reader, object, stage));
    QEM_TRY(read_rows(reader, object, artifact->rows, stage));
    stage->groups = (artifact->cols - 1) / stage->dim + 1;
    return check_products(reader, artifact->cols, stage);
}

/* ------------------------------------------------------------------------------------------------- layers ------- */

static qem_status read_step(const qem_io_reader *reader, const json_t *object, const qem_artifact *artifact, qem_affine *step)
{
    uint32_t axis = 0, block = 0;
    if (!json_is_object(object)) return qem_reader_fail(reader, QEM_ERR_FORMAT, "a step of a layer is no object");
    QEM_TRY(qem_read_word(reader, object, "axis", qem_io_axis_words, QEM_IO_AXES, &axis));
    step->axis = (qem_axis)axis;
    if (step->axis == QEM_AXIS_BLOCK) QEM_TRY(qem_read_u32(reader, object, "block", 1, MAX_DIM, &block));
    step->block = block;
    QEM_TRY(qem_read_u32(reader, object, "params", 4, 32, &step->params));
    if (step->params > 8 && step->params != 16 && step->params != 32)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its scales and means have %u bits, not 4 .. 8, 16 or 32",
                               (unsigned)step->params);
    QEM_TRY(qem_read_flag(reader, object, "scale", &step->has_scale));
    QEM_TRY(qem_read_flag(reader, object, "mean", &step->has_mean));
    if (!step->has_scale && !step->has_mean)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "a step of a layer has neither scale nor mean");
    qem_affine_sizes(step, artifact->rows, artifact->cols);
    return QEM_OK;
}

static qem_status read_steps(const qem_io_reader *reader, const json_t *object, const qem_artifact *artifact, qem_layer *layer)
{
    json_t *list = NULL;
    if (!json_object_get(object, "steps")) return QEM_OK;
    QEM_TRY(qem_read_array(reader, object, "steps", &list));
    if (json_array_size(list) > QEM_MOST_AFFINE)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "a layer has %zu steps, more than %d", json_array_size(list),
                               QEM_MOST_AFFINE);
    for (uint32_t i = 0; i < json_array_size(list); i++) {
        QEM_TRY(read_step(reader, json_array_get(list, i), artifact, &layer->affine[i]));
        for (uint32_t before = 0; before < i; before++) /* parts go by the names of axes */
            if (layer->affine[before].axis == layer->affine[i].axis)
                return qem_reader_fail(reader, QEM_ERR_FORMAT, "a layer has two steps of axis %s",
                                       qem_io_axis_words[layer->affine[i].axis]);
        layer->affine_count = i + 1;
    }
    return QEM_OK;
}

/* The layers were made before, as many as the list has; without a list each has one stage and no steps. */
qem_status qem_read_layers(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact)
{
    const json_t *list = json_object_get(root, "layers");
    uint32_t next = 0;
    for (uint32_t i = 0; list && i < artifact->layer_count; i++) {
        const json_t *object = json_array_get(list, i);
        qem_layer *layer = &artifact->layers[i];
        if (!json_is_object(object)) return qem_reader_fail(reader, QEM_ERR_FORMAT, "layer %u is no object", (unsigned)i);
        QEM_TRY(qem_read_u32(reader, object, "stage_first", next, next, &layer->stage_first));
        QEM_TRY(qem_read_u32(reader, object, "stage_count", 1, artifact->stage_count, &layer->stage_count));
        if (layer->stage_count > artifact->stage_count - next)
            return qem_reader_fail(reader, QEM_ERR_FORMAT, "its layers have more stages than the %u there are",
                                   (unsigned)artifact->stage_count);
        QEM_TRY(read_steps(reader, object, artifact, layer));
        next += layer->stage_count;
    }
    if (!list || next == artifact->stage_count) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "its layers have %u stages, not the %u there are", (unsigned)next,
                           (unsigned)artifact->stage_count);
}

qem_status qem_read_outliers(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact)
{
    const uint64_t elements = artifact->rows * artifact->cols;
    qem_outliers *outliers = &artifact->outliers;
    json_t *object = NULL;
    if (!json_object_get(root, "outliers")) return QEM_OK;
    QEM_TRY(qem_read_object(reader, root, "outliers", &object));
    QEM_TRY(qem_read_u64(reader, object, "count", 1, elements, &outliers->count));
    QEM_TRY(qem_read_dtype(reader, object, "value_dtype", &outliers->value_dtype));
    outliers->index_size = elements >> 32 ? 8 : 4;
    if (outliers->value_dtype == QEM_DTYPE_F32 || outliers->value_dtype == QEM_DTYPE_F16) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "outliers cannot be of type %s", qem_dtype_name(outliers->value_dtype));
}
