/* From a fit to a stage of the artifact: packed codes, the codebook in the type it is stored in, maps, rotations. */
#include <string.h>

#include "../core/half.h"
#include "layer.h"

static qem_status host_stream(qem_context *context, const void *device, uint64_t bytes, uint8_t **host)
{
    void *memory;
    QEM_TRY(qem_allocate(context, bytes + QEM_STREAM_SLACK, 1, &memory));
    *host = memory;
    memset(*host + bytes, 0, QEM_STREAM_SLACK);
    return context->backend->to_host(context, memory, device, bytes);
}

static qem_status host_floats(qem_context *context, const float *device, uint64_t count, float **host)
{
    void *memory;
    QEM_TRY(qem_allocate(context, count, sizeof(float), &memory));
    *host = memory;
    return context->backend->to_host(context, memory, device, count * sizeof(float));
}

static qem_status pack(qem_context *context, const uint32_t *labels, uint64_t count, uint32_t bits, uint64_t bytes, uint8_t **stream)
{
    void *device;
    QEM_TRY(context->backend->alloc(context, bytes, 1, &device));
    qem_status status = context->backend->pack(context, labels, count, bits, device);
    if (status == QEM_OK) status = host_stream(context, device, bytes, stream);
    context->backend->release(context, device);
    return status;
}

#define CODES_AT_ONCE ((uint64_t)1 << 20) /* in rows by eights, so that each chunk begins with a byte */

/* Labels of rows begin .. end-1, where the fit has none. */
static qem_status label_rows(qem_context *context, const qem_fit *fit, uint64_t begin, uint64_t end, uint32_t *labels)
{
    const uint64_t cols = fit->points.cols;
    if (!fit->thresholds) return qem_fit_label_rows(fit, begin, end, labels);
    return context->backend->scalar_assign(context, fit->points.x + begin * cols, (end - begin) * cols, fit->thresholds, fit->k,
                                           labels);
}

/* Labels made and packed some rows at a time: all of them would take as much memory as the matrix. */
static qem_status pack_rows(qem_context *context, const qem_fit *fit, uint32_t bits, uint64_t step, uint32_t *labels,
                            uint8_t *packed, uint8_t *stream)
{
    const uint64_t rows = fit->points.rows, groups = fit->points.groups;
    for (uint64_t row = 0; row < rows; row += step) {
        const uint64_t end = rows - row < step ? rows : row + step, count = (end - row) * groups;
        QEM_TRY(label_rows(context, fit, row, end, labels));
        QEM_TRY(context->backend->pack(context, labels, count, bits, packed));
        QEM_TRY(context->backend->to_host(context, stream + row * groups / 8 * bits, packed, qem_bit_stream_bytes(count, bits)));
    }
    return QEM_OK;
}

static qem_status take_late_codes(qem_context *context, const qem_fit *fit, qem_stage *stage)
{
    const uint64_t groups = stage->groups, rows = fit->points.rows, many = CODES_AT_ONCE / groups / 8 * 8;
    const uint64_t least = rows < 8 ? rows : 8, most = many > least ? many : least, step = most < rows ? most : rows;
    void *memory, *packed;
    QEM_TRY(qem_allocate_zero(context, stage->codes_bytes + QEM_STREAM_SLACK, 1, &memory));
    stage->codes = memory;
    if (stage->code_bits == 0) return QEM_OK;
    QEM_TRY(context->backend->alloc(context, step * groups, sizeof(uint32_t), &memory));
    qem_status status = context->backend->alloc(context, qem_bit_stream_bytes(step * groups, stage->code_bits), 1, &packed);
    if (status == QEM_OK) {
        status = pack_rows(context, fit, stage->code_bits, step, memory, packed, stage->codes);
        context->backend->release(context, packed);
    }
    context->backend->release(context, memory);
    return status;
}

/* Codes of widths that differ by group, on the host, some rows at once. */
static qem_status pack_groups(qem_context *context, const qem_fit *fit, qem_stage *stage)
{
    const uint64_t groups = stage->groups, rows = fit->point_count / groups;
    const uint64_t most = groups >= CODES_AT_ONCE ? 1 : CODES_AT_ONCE / groups, step = most < rows ? most : rows;
    uint64_t bit = 0;
    void *memory, *words;
    QEM_TRY(qem_allocate_zero(context, stage->codes_bytes + QEM_STREAM_SLACK, 1, &memory));
    stage->codes = memory;
    QEM_TRY(qem_allocate(context, step * groups, sizeof(uint32_t), &words));
    qem_status status = QEM_OK;
    for (uint64_t row = 0; row < rows && status == QEM_OK; row += step) {
        const uint64_t count = (rows - row < step ? rows - row : step) * groups;
        status = context->backend->to_host(context, words, fit->labels + row * groups, count * sizeof(uint32_t));
        if (status == QEM_OK) bit = qem_pack_groups(words, count, stage->group_bits, groups, bit, stage->codes);
    }
    qem_release(context, words);
    return status;
}

static qem_status take_codes(qem_context *context, const qem_fit *fit, qem_stage *stage)
{
    if (!fit->labels) return take_late_codes(context, fit, stage);
    if (stage->group_bits) return pack_groups(context, fit, stage);
    return pack(context, fit->labels, fit->point_count, stage->code_bits, stage->codes_bytes, &stage->codes);
}

/* Integers of codebook_bits bits, least significant bit first. */
static qem_status pack_codebook(qem_context *context, qem_fit *fit, qem_stage *stage, uint64_t floats)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, stage->codebook_bytes + QEM_STREAM_SLACK, 1, &memory));
    stage->codebook_stored = memory;
    uint8_t *stream = memory;
    for (uint64_t i = 0; i < floats; i++) {
        const uint64_t bit = i * stage->codebook_bits;
        const uint32_t word = (uint32_t)fit->codebook_codes[i] << (bit % 8);
        for (int b = 0; b < 3; b++) stream[bit / 8 + (uint64_t)b] |= (uint8_t)(word >> (8 * b));
    }
    stage->codebook_scale = fit->codebook_scale;
    fit->codebook_scale = NULL;
    return QEM_OK;
}

/* Values that are f16 already. */
static qem_status halves(qem_context *context, const float *values, uint64_t count, uint16_t **stored)
{
    void *memory;
    QEM_TRY(qem_allocate(context, count, sizeof(uint16_t), &memory));
    *stored = memory;
    for (uint64_t i = 0; i < count; i++) (*stored)[i] = qem_f32_to_f16(values[i]);
    return QEM_OK;
}

static qem_status take_codebook(qem_context *context, qem_fit *fit, uint64_t cols, qem_stage *stage)
{
    const uint64_t floats = qem_stage_codebook_floats(stage, cols);
    stage->scale = fit->scale;
    stage->mean = fit->mean;
    stage->table = fit->table;
    if (stage->kind == QEM_CODEBOOK_UNIFORM || stage->kind == QEM_CODEBOOK_TABLE)
        return qem_stage_expand_codebook(context, stage, cols);
    if (stage->codebook_dtype == QEM_DTYPE_U8) {
        QEM_TRY(pack_codebook(context, fit, stage, floats));
        return qem_stage_expand_codebook(context, stage, cols);
    }
    if (stage->codebook_dtype == QEM_DTYPE_F32) {
        float *codebook;
        QEM_TRY(host_floats(context, fit->codebook, floats, &codebook));
        stage->codebook = stage->codebook_stored = codebook;
        return QEM_OK;
    }
    QEM_TRY(host_floats(context, fit->codebook, floats, &stage->codebook)); /* the values are f16 already: keep both forms */
    uint16_t *stored = NULL;
    const qem_status status = halves(context, stage->codebook, floats, &stored);
    stage->codebook_stored = stored;
    return status;
}

static qem_status take_rotation(qem_context *context, const qem_fit *fit, uint64_t rows, uint64_t cols, qem_stage *stage)
{
    if (!stage->cells) return QEM_OK;
    QEM_TRY(host_floats(context, fit->rotation, stage->cells * cols * cols, &stage->rotation));
    if (stage->half_rotation) QEM_TRY(halves(context, stage->rotation, stage->cells * cols * cols, &stage->rotation_half));
    if (stage->cells == 1) return QEM_OK;
    QEM_TRY(host_floats(context, fit->coarse, stage->cells * cols, &stage->coarse));
    if (stage->half_rotation) QEM_TRY(halves(context, stage->coarse, stage->cells * cols, &stage->coarse_half));
    const uint32_t bits = qem_code_bits(stage->cells);
    return pack(context, fit->row_cells, rows, bits, qem_bit_stream_bytes(rows, bits), &stage->row_cells);
}

qem_status qem_store_stage(qem_context *context, qem_range_fit *range, qem_stage *stage)
{
    qem_fit *fit = &range->fit;
    const uint64_t cols = fit->points.cols;
    stage->kind = fit->kind;
    stage->row_begin = range->row_begin;
    stage->row_end = range->row_end;
    stage->dim = fit->recipe.dim;
    stage->groups = fit->points.groups;
    stage->k = fit->k;
    stage->code_bits = qem_code_bits(fit->k);
    stage->levels = fit->recipe.levels;
    stage->cells = fit->cells_of_rows;
    stage->half_rotation = stage->cells && qem_recipe_halves_rotation(&fit->recipe);
    stage->group_bits = fit->group_bits;
    fit->group_bits = NULL;
    const int formula = fit->kind == QEM_CODEBOOK_UNIFORM || fit->kind == QEM_CODEBOOK_TABLE;
    stage->codebook_bits = formula ? 0 : fit->recipe.codebook_bits;
    stage->codebook_dtype = formula ? QEM_DTYPE_F32 : stage->codebook_bits ? QEM_DTYPE_U8 : fit->recipe.codebook;
    qem_stage_sizes(stage, cols);
    QEM_TRY(take_codes(context, fit, stage));
    QEM_TRY(take_codebook(context, fit, cols, stage));
    QEM_TRY(take_rotation(context, fit, range->row_end - range->row_begin, cols, stage));
    if (stage->levels == 0) return QEM_OK;
    return host_stream(context, range->swap_map, stage->swap_map_bytes, &stage->swap_map);
}
