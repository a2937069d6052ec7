/* Decoding to memory of the host and of the device. */
#include <math.h>
#include <string.h>

#include "api.h"
#include "decoder.h"
#include "source.h"

static qem_decode_stage decode_stage(const qem_stage *s, const qem_layer *layer)
{
    qem_decode_stage d = {
        .kind = s->kind,
        .dim = s->dim,
        .code_bits = s->code_bits,
        .levels = s->levels,
        .groups = s->groups,
        .k = s->k,
        .row_begin = s->row_begin,
        .row_end = s->row_end,
        .codes = s->codes,
        .codes_bytes = s->codes_bytes,
        .group_bits = s->group_bits,
        .codebook = s->codebook,
        .codebook_half = s->codebook_dtype == QEM_DTYPE_F16 ? s->codebook_stored : NULL,
        .swap_map = s->swap_map,
        .swap_map_bytes = s->swap_map_bytes,
        .scale = s->scale,
        .mean = s->mean,
        .cells = s->cells,
        .rotation = s->rotation,
        .coarse = s->coarse,
        .row_cells = s->row_cells,
        .affine_count = layer->affine_count,
    };
    for (uint32_t i = 0; i < layer->affine_count; i++)
        d.affine[i] = (qem_decode_affine){ layer->affine[i].axis, layer->affine[i].block, layer->affine[i].scale,
                                           layer->affine[i].mean };
    return d;
}

uint64_t qem_decode_stages(const qem_artifact *artifact, uint64_t row, qem_decode_stage *stages, qem_decode_outliers *outliers)
{
    uint64_t end = artifact->rows;
    for (uint32_t i = 0; i < artifact->layer_count; i++) {
        const qem_layer *layer = &artifact->layers[i];
        const qem_stage *stage = &artifact->stages[layer->stage_first];
        while (row >= stage->row_end) stage++;
        stages[i] = decode_stage(stage, layer);
        end = stage->row_end < end ? stage->row_end : end;
    }
    *outliers = (qem_decode_outliers){ artifact->outliers.count, artifact->outliers.index_size, artifact->outliers.index,
                                       artifact->outliers.value };
    return end;
}

qem_status qem_decoder_open(qem_context *context, const qem_artifact *artifact, qem_decoder *d)
{
    *d = (qem_decoder){ context, artifact, NULL };
    return context->backend->open_artifact ? context->backend->open_artifact(context, artifact, &d->opened) : QEM_OK;
}

void qem_decoder_close(qem_decoder *d)
{
    if (d->opened) d->context->backend->close_artifact(d->context, d->opened);
}

/* The backend's memory is the host's. */
static qem_status decode_in_place(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                                  qem_dtype dtype, void *out, uint64_t row_stride, int *overflow)
{
    qem_decode_stage stages[QEM_MOST_STAGES];
    *overflow = 0;
    for (uint64_t row = row_begin, end; row < row_end; row = end) {
        int here = 0;
        qem_decode_args args = { .rows = artifact->rows, .cols = artifact->cols, .row_begin = row,
                                 .stage_count = artifact->layer_count, .stages = stages, .dtype = dtype,
                                 .row_stride = row_stride, .overflow = &here };
        end = qem_decode_stages(artifact, row, stages, &args.outliers);
        if (end > row_end) end = row_end;
        args.row_end = end;
        args.out = (char *)out + (row - row_begin) * row_stride * qem_dtype_size(dtype);
        QEM_TRY(context->backend->decode(context, &args));
        *overflow |= here;
    }
    return QEM_OK;
}

qem_status qem_decoder_rows(const qem_decoder *d, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, void *out,
                            uint64_t row_stride, int *overflow)
{
    if (!d->opened)
        return decode_in_place(d->context, d->artifact, row_begin, row_end, dtype, out, row_stride, overflow);
    return d->context->backend->decode_artifact(d->context, d->opened, row_begin, row_end, dtype, out, row_stride, overflow);
}

qem_status qem_decode_rows(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                           qem_dtype dtype, void *out, uint64_t row_stride, int *overflow)
{
    qem_decoder d;
    QEM_TRY(qem_decoder_open(context, artifact, &d));
    const qem_status status = qem_decoder_rows(&d, row_begin, row_end, dtype, out, row_stride, overflow);
    qem_decoder_close(&d);
    return status;
}

/* Rows from `device`, side by side, to host memory, by way of `packed` where they have gaps there. */
static qem_status fetch_rows(qem_context *context, const void *device, uint64_t rows, uint64_t row_bytes, unsigned char *packed,
                             unsigned char *out, uint64_t pitch)
{
    if (pitch == row_bytes) return context->backend->to_host(context, out, device, rows * row_bytes);
    QEM_TRY(context->backend->to_host(context, packed, device, rows * row_bytes));
    for (uint64_t i = 0; i < rows; i++) memcpy(out + i * pitch, packed + i * row_bytes, (size_t)row_bytes);
    return QEM_OK;
}

/* To host memory that is not the device's, some rows at a time. */
static qem_status decode_to_host(const qem_decoder *d, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, unsigned char *out,
                                 uint64_t row_stride, int *overflow)
{
    qem_context *context = d->context;
    const uint64_t cols = d->artifact->cols, size = qem_dtype_size(dtype), all = row_end - row_begin;
    const uint64_t step = qem_rows_at_once(cols) < all ? qem_rows_at_once(cols) : all;
    void *device, *packed = NULL;
    QEM_TRY(context->backend->alloc(context, step * cols, size, &device));
    qem_status status = row_stride == cols ? QEM_OK : qem_allocate(context, step * cols, size, &packed);
    for (uint64_t row = row_begin; row < row_end && status == QEM_OK; row += step) {
        const uint64_t end = row_end - row < step ? row_end : row + step;
        int here = 0;
        status = qem_decoder_rows(d, row, end, dtype, device, cols, &here);
        if (status == QEM_OK)
            status = fetch_rows(context, device, end - row, cols * size, packed, out + (row - row_begin) * row_stride * size,
                                row_stride * size);
        *overflow |= here;
    }
    qem_release(context, packed);
    context->backend->release(context, device);
    return status;
}

static qem_status dequantize(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                             qem_dtype dtype, void *out, uint64_t row_stride, int *overflow)
{
    qem_decoder d;
    QEM_TRY(qem_decoder_open(context, artifact, &d));
    const qem_status status = d.opened ? decode_to_host(&d, row_begin, row_end, dtype, out, row_stride, overflow)
                                       : qem_decoder_rows(&d, row_begin, row_end, dtype, out, row_stride, overflow);
    qem_decoder_close(&d);
    return status;
}

qem_status qem_dequantize(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                          qem_dtype dtype, void *out, uint64_t row_stride)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !out) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact or out: the pointer is NULL");
    if (row_begin > row_end || row_end > artifact->rows)
        return qem_fail(context, QEM_ERR_ARGUMENT, "rows %llu .. %llu lie outside 0 .. %llu", (unsigned long long)row_begin,
                        (unsigned long long)row_end, (unsigned long long)artifact->rows);
    if (dtype != QEM_DTYPE_F32 && dtype != QEM_DTYPE_F16 && dtype != QEM_DTYPE_BF16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "output type %s; it is f32, f16 or bf16", qem_dtype_name(dtype));
    if (row_stride == 0) row_stride = artifact->cols;
    if (row_stride < artifact->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "row stride %llu is below the %llu columns", (unsigned long long)row_stride,
                        (unsigned long long)artifact->cols);
    if ((uintptr_t)out % qem_dtype_size(dtype))
        return qem_fail(context, QEM_ERR_ARGUMENT, "out is not aligned to its element of %zu bytes", qem_dtype_size(dtype));
    if (row_begin == row_end) return QEM_OK;
    int overflow = 0;
    QEM_TRY(dequantize(context, artifact, row_begin, row_end, dtype, out, row_stride, &overflow));
    if (overflow)
        return qem_fail(context, QEM_ERR_RANGE, "%s: decoded values are beyond the range of %s", artifact->name,
                        qem_dtype_name(dtype));
    return QEM_OK;
}

/* ---- what a layer leaves over ---- */

qem_status qem_subtract_layer(qem_context *context, const qem_artifact *artifact, uint32_t index, float *x)
{
    qem_artifact alone = *artifact;
    const uint64_t cols = artifact->cols, step = qem_rows_at_once(cols);
    void *decoded;
    alone.layers = &artifact->layers[index];
    alone.layer_count = 1;
    memset(&alone.outliers, 0, sizeof alone.outliers);
    qem_decoder d;
    QEM_TRY(context->backend->alloc(context, (step < artifact->rows ? step : artifact->rows) * cols, sizeof(float), &decoded));
    qem_status status = qem_decoder_open(context, &alone, &d);
    for (uint64_t row = 0; row < artifact->rows && status == QEM_OK; row += step) {
        const uint64_t end = artifact->rows - row < step ? artifact->rows : row + step;
        int overflow;
        status = qem_decoder_rows(&d, row, end, QEM_DTYPE_F32, decoded, cols, &overflow);
        if (status == QEM_OK) status = context->backend->subtract(context, x + row * cols, decoded, (end - row) * cols);
    }
    qem_decoder_close(&d);
    context->backend->release(context, decoded);
    return status;
}
