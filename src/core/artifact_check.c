/* Sanity of an artifact that came from a file: no number of it may lead a decoder astray. */
#include <math.h>

#include "artifact.h"
#include "context.h"

#define MOST_K ((uint64_t)1 << 24)

static uint32_t read_bits(const uint8_t *stream, uint64_t bit, uint32_t bits)
{
    uint64_t word = 0;
    for (int b = 0; b < 5; b++) word |= (uint64_t)stream[bit / 8 + (uint64_t)b] << (8 * b); /* the slack is readable */
    return (uint32_t)(word >> (bit % 8)) & (uint32_t)(((uint64_t)1 << bits) - 1u);
}

static qem_status check_numbers(qem_context *context, const qem_artifact *artifact, uint32_t index, const char *what)
{
    const qem_stage *s = &artifact->stages[index];
    const int scalar = s->kind == QEM_CODEBOOK_UNIFORM || s->kind == QEM_CODEBOOK_TABLE;
    const int formats = s->codebook_dtype == QEM_DTYPE_U8 ? s->codebook_bits >= 4 && s->codebook_bits <= 12 && !scalar
                                                          : s->codebook_bits == 0;
    if (s->dim < 1 || s->dim > 65535 || s->k < 1 || s->k > MOST_K || s->levels > 8 ||
        s->groups != (artifact->cols + s->dim - 1) / s->dim || s->code_bits != qem_code_bits(s->k) ||
        (scalar && (s->dim != 1 || s->k > 65536)) || !formats || (s->group_bits && s->kind != QEM_CODEBOOK_PER_GROUP) ||
        (s->cells > 0 && s->levels > 0) || (s->cells > 1 && s->kind != QEM_CODEBOOK_PER_GROUP) ||
        s->row_begin >= s->row_end || s->row_end > artifact->rows)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: dim %u, k %llu, groups %llu, %u bits and %u levels do not fit "
                        "a matrix of %llu columns", what, index, s->dim, (unsigned long long)s->k,
                        (unsigned long long)s->groups, s->code_bits, s->levels, (unsigned long long)artifact->cols);
    for (uint64_t g = 0; s->group_bits && g < s->groups; g++)
        if (s->group_bits[g] > s->code_bits)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: group %llu has codes of %u bits, more than %u", what, index,
                            (unsigned long long)g, s->group_bits[g], s->code_bits);
    return QEM_OK;
}

/* Group widths are powers of two: those codes cannot be too large. */
static qem_status check_codes(qem_context *context, const qem_stage *s, uint32_t index, const char *what)
{
    const uint64_t count = (s->row_end - s->row_begin) * s->groups;
    if (s->group_bits || s->k == (uint64_t)1 << s->code_bits) return QEM_OK;
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t code = read_bits(s->codes, i * s->code_bits, s->code_bits);
        if (code >= s->k)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: code %llu is %u, but the codebook has %llu entries", what,
                            index, (unsigned long long)i, code, (unsigned long long)s->k);
    }
    return QEM_OK;
}

static qem_status check_row_cells(qem_context *context, const qem_stage *s, uint32_t index, const char *what)
{
    const uint32_t bits = qem_code_bits(s->cells);
    if (!s->row_cells || s->cells == (uint32_t)1 << bits) return QEM_OK;
    for (uint64_t i = 0; i < s->row_end - s->row_begin; i++)
        if (read_bits(s->row_cells, i * bits, bits) >= s->cells)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: row %llu is in cell %u of %u", what, index,
                            (unsigned long long)i, read_bits(s->row_cells, i * bits, bits), s->cells);
    return QEM_OK;
}

static qem_status check_finite(qem_context *context, const float *values, uint64_t count, uint32_t index, const char *part,
                               const char *what)
{
    for (uint64_t j = 0; values && j < count; j++)
        if (!isfinite(values[j]))
            return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: %s element %llu is not finite", what, index, part,
                            (unsigned long long)j);
    return QEM_OK;
}

static qem_status check_stage(qem_context *context, const qem_artifact *artifact, uint32_t index, const char *what)
{
    const qem_stage *s = &artifact->stages[index];
    qem_stage sized = *s;
    QEM_TRY(check_numbers(context, artifact, index, what));
    qem_stage_sizes(&sized, artifact->cols);
    if (s->codes_bytes != sized.codes_bytes || s->codebook_bytes != sized.codebook_bytes ||
        s->swap_map_bytes != sized.swap_map_bytes)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: stage %u: codes, codebook or swap map have the wrong size", what, index);
    QEM_TRY(check_codes(context, s, index, what));
    QEM_TRY(check_row_cells(context, s, index, what));
    const int formula = s->kind == QEM_CODEBOOK_UNIFORM || s->kind == QEM_CODEBOOK_TABLE;
    QEM_TRY(check_finite(context, s->codebook, formula ? s->k : qem_stage_codebook_floats(s, artifact->cols), index, "codebook",
                         what));
    QEM_TRY(check_finite(context, s->rotation, s->cells * artifact->cols * artifact->cols, index, "rotation", what));
    return check_finite(context, s->coarse, s->cells * artifact->cols, index, "coarse", what);
}

/* Layers follow each other; the stages of each cover all rows, in their order. */
static qem_status check_layers(qem_context *context, const qem_artifact *artifact, const char *what)
{
    uint32_t next = 0;
    int good = 1;
    for (uint32_t i = 0; good && i < artifact->layer_count; i++) {
        const qem_layer *layer = &artifact->layers[i];
        uint64_t row = 0;
        good = layer->stage_first == next && layer->stage_count >= 1 && layer->affine_count <= QEM_MOST_AFFINE &&
               layer->stage_count <= artifact->stage_count - next;
        for (uint32_t s = 0; good && s < layer->stage_count; s++) {
            good = artifact->stages[next + s].row_begin == row;
            row = artifact->stages[next + s].row_end;
        }
        good = good && row == artifact->rows;
        next += layer->stage_count;
        for (uint32_t a = 0; good && a < layer->affine_count; a++) {
            QEM_TRY(check_finite(context, layer->affine[a].scale, layer->affine[a].units, layer->stage_first, "scale", what));
            QEM_TRY(check_finite(context, layer->affine[a].mean, layer->affine[a].units, layer->stage_first, "mean", what));
        }
    }
    return good && next == artifact->stage_count
               ? QEM_OK
               : qem_fail(context, QEM_ERR_FORMAT, "%s: its stages do not cover its %llu rows", what,
                          (unsigned long long)artifact->rows);
}

static qem_status check_outliers(qem_context *context, const qem_artifact *artifact, const char *what)
{
    const qem_outliers *o = &artifact->outliers;
    const uint64_t elements = artifact->rows * artifact->cols;
    for (uint64_t i = 0; i < o->count; i++)
        if (qem_outlier_index(o, i) >= elements || (i && qem_outlier_index(o, i) <= qem_outlier_index(o, i - 1)))
            return qem_fail(context, QEM_ERR_FORMAT, "%s: outlier %llu has index %llu, which does not ascend within %llu elements",
                            what, (unsigned long long)i, (unsigned long long)qem_outlier_index(o, i),
                            (unsigned long long)elements);
    return check_finite(context, o->value, o->count, 0, "outlier_value", what);
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
    QEM_TRY(check_layers(context, artifact, what));
    QEM_TRY(check_outliers(context, artifact, what));
    return check_cells(context, artifact, what);
}
