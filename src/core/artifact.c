/* Birth, sizes, sanity and end of artifacts. */
#include "artifact.h"

#include <math.h>
#include <string.h>

#include "context.h"
#include "half.h"

uint32_t qem_code_bits(uint64_t k)
{
    uint32_t bits = 0;
    while (((uint64_t)1 << bits) < k) bits++;
    return bits;
}

uint64_t qem_bit_stream_bytes(uint64_t count, uint32_t bits)
{
    return (count / 8) * bits + ((count % 8) * bits + 7) / 8;
}

uint64_t qem_codebook_floats(qem_codebook_kind kind, uint64_t cols, uint32_t dim, uint64_t k)
{
    switch (kind) {
    case QEM_CODEBOOK_SHARED: return k * dim;
    case QEM_CODEBOOK_PER_GROUP: return k * cols; /* the groups' widths add up to the columns */
    case QEM_CODEBOOK_UNIFORM: return 0;
    }
    return 0;
}

uint64_t qem_recipe_bytes(qem_codebook_kind kind, uint64_t rows, uint64_t cols, const qem_recipe *recipe, uint64_t k)
{
    const uint64_t groups = (cols + recipe->dim - 1) / recipe->dim;
    const uint64_t element = recipe->codebook == QEM_DTYPE_F16 ? 2 : 4;
    return qem_bit_stream_bytes(rows * groups, qem_code_bits(k)) +
           element * qem_codebook_floats(kind, cols, recipe->dim, k) + qem_swap_map_bytes(rows, cols, recipe->levels) +
           (kind == QEM_CODEBOOK_UNIFORM ? 2 * sizeof(float) : 0);
}

qem_status qem_artifact_new(qem_context *context, const char *name, uint64_t rows, uint64_t cols, uint32_t stage_count,
                            qem_artifact **artifact)
{
    *artifact = NULL;
    void *memory, *text, *stages;
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
    if (status != QEM_OK) {
        qem_artifact_destroy(&a);
        return status;
    }
    a->stages = stages;
    a->stage_count = stage_count;
    *artifact = a;
    return QEM_OK;
}

static void release(const qem_allocator *allocator, void *pointer)
{
    if (pointer) allocator->release(allocator->user, pointer);
}

void qem_artifact_destroy(qem_artifact **artifact)
{
    if (!artifact || !*artifact) return;
    qem_artifact *a = *artifact;
    const qem_allocator allocator = a->allocator;
    for (uint32_t i = 0; i < a->stage_count; i++) {
        qem_stage *stage = &a->stages[i];
        if (stage->codebook != stage->codebook_stored) release(&allocator, stage->codebook);
        release(&allocator, stage->codebook_stored);
        release(&allocator, stage->codes);
        release(&allocator, stage->swap_map);
    }
    release(&allocator, a->stages);
    release(&allocator, a->cells.cuts);
    release(&allocator, a->cells.id);
    release(&allocator, a->cells.first);
    release(&allocator, a->name);
    release(&allocator, a);
    *artifact = NULL;
}

void qem_artifact_parts(const qem_artifact *artifact, qem_parts *parts, uint64_t *stored_bytes)
{
    memset(parts, 0, sizeof *parts);
    for (uint32_t i = 0; i < artifact->stage_count; i++) {
        const qem_stage *stage = &artifact->stages[i];
        parts->codes += stage->codes_bytes;
        parts->codebook += stage->codebook_bytes;
        parts->swap_map += stage->swap_map_bytes;
        if (stage->kind == QEM_CODEBOOK_UNIFORM) {
            parts->scale += sizeof(float);
            parts->mean += sizeof(float);
        }
    }
    *stored_bytes = parts->codes + parts->codebook + parts->swap_map + parts->scale + parts->mean;
}

qem_status qem_stage_expand_codebook(qem_context *context, qem_stage *stage, uint64_t cols)
{
    const uint64_t floats = stage->kind == QEM_CODEBOOK_UNIFORM
                                ? stage->k
                                : qem_codebook_floats(stage->kind, cols, stage->dim, stage->k);
    if (stage->kind != QEM_CODEBOOK_UNIFORM && stage->codebook_dtype == QEM_DTYPE_F32) {
        stage->codebook = stage->codebook_stored;
        return QEM_OK;
    }
    void *memory;
    QEM_TRY(qem_allocate(context, floats, sizeof(float), &memory));
    stage->codebook = memory;
    if (stage->kind == QEM_CODEBOOK_UNIFORM) {
        for (uint64_t j = 0; j < floats; j++) stage->codebook[j] = fmaf((float)j, stage->scale, stage->mean);
    } else {
        const uint16_t *half = stage->codebook_stored;
        for (uint64_t j = 0; j < floats; j++) stage->codebook[j] = qem_f16_to_f32(half[j]);
    }
    return QEM_OK;
}

static uint32_t read_code(const uint8_t *codes, uint64_t codes_bytes, uint64_t index, uint32_t bits)
{
    const uint64_t bit = index * bits, byte = bit / 8;
    uint64_t word = 0;
    for (uint64_t b = 0; b < 5 && byte + b < codes_bytes; b++) word |= (uint64_t)codes[byte + b] << (8 * b);
    return (uint32_t)(word >> (bit % 8)) & (((uint32_t)1 << bits) - 1u);
}

static qem_status check_stage(qem_context *context, const qem_artifact *artifact, uint32_t index, const char *what)
{
    const qem_stage *s = &artifact->stages[index];
    if (s->dim < 1 || s->dim > 65535 || s->k < 1 || s->k > (1u << 24) || s->levels > 8 ||
        s->groups != (artifact->cols + s->dim - 1) / s->dim || s->code_bits != qem_code_bits(s->k) ||
        (s->kind == QEM_CODEBOOK_UNIFORM && (s->dim != 1 || s->k > 65536)))
        return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: dim %u, k %llu, groups %llu, %u bits and %u levels do not fit "
                        "a matrix of %llu columns", what, index, s->dim, (unsigned long long)s->k,
                        (unsigned long long)s->groups, s->code_bits, s->levels, (unsigned long long)artifact->cols);
    const uint64_t count = artifact->rows * s->groups;
    const uint64_t element = s->codebook_dtype == QEM_DTYPE_F16 ? 2 : 4;
    if (s->codes_bytes != qem_bit_stream_bytes(count, s->code_bits) ||
        s->codebook_bytes != element * qem_codebook_floats(s->kind, artifact->cols, s->dim, s->k) ||
        s->swap_map_bytes != qem_swap_map_bytes(artifact->rows, artifact->cols, s->levels))
        return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: codes, codebook or swap map have the wrong size", what, index);
    if (s->k != ((uint64_t)1 << s->code_bits))
        for (uint64_t i = 0; i < count; i++) {
            const uint32_t code = read_code(s->codes, s->codes_bytes, i, s->code_bits);
            if (code >= s->k)
                return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: code %llu is %u, but the codebook has %llu entries",
                                what, index, (unsigned long long)i, code, (unsigned long long)s->k);
        }
    const uint64_t floats = s->kind == QEM_CODEBOOK_UNIFORM ? s->k : s->codebook_bytes / element;
    for (uint64_t j = 0; j < floats; j++)
        if (!isfinite(s->codebook[j]))
            return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: codebook element %llu is not finite", what, index,
                            (unsigned long long)j);
    return QEM_OK;
}

static qem_status check_cells(qem_context *context, const qem_artifact *artifact, const char *what)
{
    const qem_cells *cells = &artifact->cells;
    if (cells->intervals <= 1) return QEM_OK;
    const qem_stage *s = &artifact->stages[0];
    uint64_t ids = 1;
    for (uint32_t p = 0; p < s->dim && ids <= (1u << 24); p++) ids *= cells->intervals;
    int good = s->kind == QEM_CODEBOOK_SHARED && cells->intervals <= 255 && ids <= (1u << 24) && cells->count >= 1 &&
               cells->count <= ids && cells->first[0] == 0 && cells->first[cells->count] == s->k;
    for (uint64_t i = 0; good && i < cells->count; i++)
        good = cells->id[i] < ids && (i == 0 || cells->id[i] > cells->id[i - 1]) && cells->first[i] < cells->first[i + 1];
    for (uint32_t p = 0; good && p < s->dim; p++)
        for (uint32_t c = 0; good && c + 1 < cells->intervals; c++) {
            const float *cut = &cells->cuts[(uint64_t)p * (cells->intervals - 1) + c];
            good = isfinite(*cut) && (c == 0 || cut[0] >= cut[-1]);
        }
    return good ? QEM_OK : qem_fail(context, QEM_ERR_FORMAT, "%s: the cells do not fit the codebook", what);
}

qem_status qem_artifact_check(qem_context *context, const qem_artifact *artifact, const char *what)
{
    if (artifact->rows < 1 || artifact->cols < 1 || artifact->stage_count < 1)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: an artifact needs at least one row, column and stage", what);
    for (uint32_t i = 0; i < artifact->stage_count; i++) QEM_TRY(check_stage(context, artifact, i, what));
    return check_cells(context, artifact, what);
}
