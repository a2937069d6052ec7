/* Decoding, and the errors of what was decoded. */
#include <math.h>
#include <string.h>

#include "api.h"

#define MEASURE_ELEMENTS ((uint64_t)1 << 20) /* decoded at once for the metrics, so no whole copy is needed */

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

/* An artifact whose rows are decoded to device memory, some at a time. */
typedef struct decoder {
    qem_context *context;
    const qem_artifact *artifact;
    void *opened; /* what the backend made of it; NULL where it reads the artifact itself */
} decoder;

static qem_status open_decoder(qem_context *context, const qem_artifact *artifact, decoder *d)
{
    *d = (decoder){ context, artifact, NULL };
    return context->backend->open_artifact ? context->backend->open_artifact(context, artifact, &d->opened) : QEM_OK;
}

static void close_decoder(decoder *d)
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

static qem_status decode_some(const decoder *d, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, void *out,
                              uint64_t row_stride, int *overflow)
{
    if (!d->opened)
        return decode_in_place(d->context, d->artifact, row_begin, row_end, dtype, out, row_stride, overflow);
    return d->context->backend->decode_artifact(d->context, d->opened, row_begin, row_end, dtype, out, row_stride, overflow);
}

qem_status qem_decode_rows(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                           qem_dtype dtype, void *out, uint64_t row_stride, int *overflow)
{
    decoder d;
    QEM_TRY(open_decoder(context, artifact, &d));
    const qem_status status = decode_some(&d, row_begin, row_end, dtype, out, row_stride, overflow);
    close_decoder(&d);
    return status;
}

static uint64_t rows_at_once(uint64_t cols)
{
    return cols >= MEASURE_ELEMENTS ? 1 : MEASURE_ELEMENTS / cols;
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
static qem_status decode_to_host(const decoder *d, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, unsigned char *out,
                                 uint64_t row_stride, int *overflow)
{
    qem_context *context = d->context;
    const uint64_t cols = d->artifact->cols, size = qem_dtype_size(dtype), all = row_end - row_begin;
    const uint64_t step = rows_at_once(cols) < all ? rows_at_once(cols) : all;
    void *device, *packed = NULL;
    QEM_TRY(context->backend->alloc(context, step * cols, size, &device));
    qem_status status = row_stride == cols ? QEM_OK : qem_allocate(context, step * cols, size, &packed);
    for (uint64_t row = row_begin; row < row_end && status == QEM_OK; row += step) {
        const uint64_t end = row_end - row < step ? row_end : row + step;
        int here = 0;
        status = decode_some(d, row, end, dtype, device, cols, &here);
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
    decoder d;
    QEM_TRY(open_decoder(context, artifact, &d));
    const qem_status status = d.opened ? decode_to_host(&d, row_begin, row_end, dtype, out, row_stride, overflow)
                                       : decode_some(&d, row_begin, row_end, dtype, out, row_stride, overflow);
    close_decoder(&d);
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
    const uint64_t cols = artifact->cols, step = rows_at_once(cols);
    void *decoded;
    alone.layers = &artifact->layers[index];
    alone.layer_count = 1;
    memset(&alone.outliers, 0, sizeof alone.outliers);
    decoder d;
    QEM_TRY(context->backend->alloc(context, (step < artifact->rows ? step : artifact->rows) * cols, sizeof(float), &decoded));
    qem_status status = open_decoder(context, &alone, &d);
    for (uint64_t row = 0; row < artifact->rows && status == QEM_OK; row += step) {
        const uint64_t end = artifact->rows - row < step ? artifact->rows : row + step;
        int overflow;
        status = decode_some(&d, row, end, QEM_DTYPE_F32, decoded, cols, &overflow);
        if (status == QEM_OK) status = context->backend->subtract(context, x + row * cols, decoded, (end - row) * cols);
    }
    close_decoder(&d);
    context->backend->release(context, decoded);
    return status;
}

/* ---- metrics ---- */

static void add_sums(qem_error_sums *total, const qem_error_sums *part)
{
    total->abs_error += part->abs_error;
    total->squared_error += part->squared_error;
    total->relative_error += part->relative_error;
    if (part->max_error > total->max_error) total->max_error = part->max_error;
    total->zeros += part->zeros;
}

static qem_status finish(qem_context *context, const qem_matrix *original, const qem_error_sums *sums, qem_metrics *metrics)
{
    const uint64_t count = original->rows * original->cols;
    double sum, squared, unused;
    QEM_TRY(context->backend->sum(context, original->x, count, 0.0, &sum, &unused));
    QEM_TRY(context->backend->sum(context, original->x, count, sum / (double)count, &unused, &squared));
    *metrics = (qem_metrics)QEM_METRICS_INIT;
    metrics->count = count;
    metrics->zeros = sums->zeros;
    metrics->mae = sums->abs_error / (double)count;
    metrics->mse = sums->squared_error / (double)count;
    metrics->mre = sums->zeros < count ? sums->relative_error / (double)(count - sums->zeros) : NAN;
    metrics->nmse = squared > 0.0 ? sums->squared_error / squared : NAN;
    metrics->max_error = sums->max_error;
    return QEM_OK;
}

/* Row blocks of one size for artifacts and matrices, so both give the same sums to the last bit. */
qem_status qem_measure(qem_context *context, const qem_matrix *original, const qem_artifact *artifact, qem_metrics *metrics)
{
    const uint64_t cols = original->cols, step = rows_at_once(cols);
    qem_error_sums total = { 0 };
    void *decoded;
    decoder d;
    QEM_TRY(context->backend->alloc(context, (step < original->rows ? step : original->rows) * cols, sizeof(float), &decoded));
    qem_status status = open_decoder(context, artifact, &d);
    for (uint64_t row = 0; row < original->rows && status == QEM_OK; row += step) {
        const uint64_t end = original->rows - row < step ? original->rows : row + step;
        int overflow;
        qem_error_sums sums;
        status = decode_some(&d, row, end, QEM_DTYPE_F32, decoded, cols, &overflow);
        if (status == QEM_OK)
            status = context->backend->error_sums(context, original->x + row * cols, decoded, (end - row) * cols, &sums);
        if (status == QEM_OK) add_sums(&total, &sums);
    }
    close_decoder(&d);
    context->backend->release(context, decoded);
    QEM_TRY(status);
    return finish(context, original, &total, metrics);
}

static qem_status measure_matrix(qem_context *context, const qem_matrix *original, const qem_matrix *decoded,
                                 qem_metrics *metrics)
{
    const uint64_t cols = original->cols, step = rows_at_once(cols);
    qem_error_sums total = { 0 };
    for (uint64_t row = 0; row < original->rows; row += step) {
        const uint64_t end = original->rows - row < step ? original->rows : row + step;
        qem_error_sums sums;
        QEM_TRY(context->backend->error_sums(context, original->x + row * cols, decoded->x + row * cols, (end - row) * cols,
                                             &sums));
        add_sums(&total, &sums);
    }
    return finish(context, original, &total, metrics);
}

static qem_status check_shapes(qem_context *context, const qem_view *original, uint64_t rows, uint64_t cols)
{
    if (original->rows == rows && original->cols == cols) return QEM_OK;
    return qem_fail(context, QEM_ERR_ARGUMENT, "the original is %llu x %llu, the decoded matrix %llu x %llu",
                    (unsigned long long)original->rows, (unsigned long long)original->cols, (unsigned long long)rows,
                    (unsigned long long)cols);
}

qem_status qem_evaluate(qem_context *context, const qem_view *original, const qem_artifact *artifact, qem_metrics *metrics)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_CHECK_STRUCT(context, metrics, qem_metrics);
    QEM_TRY(qem_check_view(context, original, "original", 1));
    if (!artifact) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact: the pointer is NULL");
    QEM_TRY(check_shapes(context, original, artifact->rows, artifact->cols));
    qem_matrix matrix;
    QEM_TRY(context->backend->load(context, original, "original", &matrix));
    const qem_status status = qem_measure(context, &matrix, artifact, metrics);
    context->backend->release(context, matrix.owned);
    return status;
}

qem_status qem_evaluate_matrix(qem_context *context, const qem_view *original, const qem_view *decoded, qem_metrics *metrics)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_CHECK_STRUCT(context, metrics, qem_metrics);
    QEM_TRY(qem_check_view(context, original, "original", 1));
    QEM_TRY(qem_check_view(context, decoded, "decoded", 1));
    QEM_TRY(check_shapes(context, original, decoded->rows, decoded->cols));
    qem_matrix a, b;
    QEM_TRY(context->backend->load(context, original, "original", &a));
    qem_status status = context->backend->load(context, decoded, "decoded", &b);
    if (status == QEM_OK) {
        status = measure_matrix(context, &a, &b, metrics);
        context->backend->release(context, b.owned);
    }
    context->backend->release(context, a.owned);
    return status;
}
