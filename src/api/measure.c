/* The errors of decoded matrices. All go through the rows in the same pieces, so all give the same sums to the last bit. */
#include <math.h>

#include "api.h"
#include "decoder.h"
#include "source.h"

static void add_sums(qem_error_sums *total, const qem_error_sums *part)
{
    total->abs_error += part->abs_error;
    total->squared_error += part->squared_error;
    total->relative_error += part->relative_error;
    if (part->max_error > total->max_error) total->max_error = part->max_error;
    total->zeros += part->zeros;
}

/* *sum: of the original's elements. */
static qem_status add_rows(qem_context *context, const qem_source *original, uint64_t row, uint64_t end, const float *decoded,
                           qem_error_sums *total, double *sum)
{
    qem_matrix rows;
    qem_error_sums sums;
    double here, unused;
    QEM_TRY(qem_source_rows(context, original, row, end, &rows));
    const uint64_t count = (end - row) * rows.cols;
    qem_status status = context->backend->error_sums(context, rows.x, decoded, count, &sums);
    if (status == QEM_OK) status = context->backend->sum(context, rows.x, count, 0.0, &here, &unused);
    context->backend->release(context, rows.owned);
    QEM_TRY(status);
    add_sums(total, &sums);
    *sum += here;
    return QEM_OK;
}

/* Sum of (x - center)^2. */
static qem_status sum_squares(qem_context *context, const qem_source *source, double center, double *squared)
{
    const uint64_t rows = source->view->rows, cols = source->view->cols, step = qem_rows_at_once(cols);
    *squared = 0.0;
    for (uint64_t row = 0; row < rows; row += step) {
        const uint64_t end = rows - row < step ? rows : row + step;
        qem_matrix part;
        double unused, squares;
        QEM_TRY(qem_source_rows(context, source, row, end, &part));
        const qem_status status = context->backend->sum(context, part.x, (end - row) * cols, center, &unused, &squares);
        context->backend->release(context, part.owned);
        QEM_TRY(status);
        qem_view_discard(source->view);
        *squared += squares;
    }
    return QEM_OK;
}

static qem_status finish(qem_context *context, const qem_source *original, const qem_error_sums *sums, double sum,
                         qem_metrics *metrics)
{
    const uint64_t count = original->view->rows * original->view->cols;
    double squared;
    QEM_TRY(sum_squares(context, original, sum / (double)count, &squared));
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

qem_status qem_measure(qem_context *context, const qem_source *original, const qem_artifact *artifact, qem_metrics *metrics)
{
    const uint64_t rows = original->view->rows, cols = original->view->cols, step = qem_rows_at_once(cols);
    qem_error_sums total = { 0 };
    double sum = 0.0;
    void *decoded;
    qem_decoder d;
    QEM_TRY(context->backend->alloc(context, (step < rows ? step : rows) * cols, sizeof(float), &decoded));
    qem_status status = qem_decoder_open(context, artifact, &d);
    for (uint64_t row = 0; row < rows && status == QEM_OK; row += step) {
        const uint64_t end = rows - row < step ? rows : row + step;
        int overflow;
        status = qem_decoder_rows(&d, row, end, QEM_DTYPE_F32, decoded, cols, &overflow);
        if (status == QEM_OK) status = add_rows(context, original, row, end, decoded, &total, &sum);
        qem_view_discard(original->view);
    }
    qem_decoder_close(&d);
    context->backend->release(context, decoded);
    QEM_TRY(status);
    return finish(context, original, &total, sum, metrics);
}

static qem_status measure_matrix(qem_context *context, const qem_source *original, const qem_matrix *decoded,
                                 qem_metrics *metrics)
{
    const uint64_t rows = decoded->rows, cols = decoded->cols, step = qem_rows_at_once(cols);
    qem_error_sums total = { 0 };
    double sum = 0.0;
    for (uint64_t row = 0; row < rows; row += step) {
        const uint64_t end = rows - row < step ? rows : row + step;
        QEM_TRY(add_rows(context, original, row, end, decoded->x + row * cols, &total, &sum));
    }
    return finish(context, original, &total, sum, metrics);
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
    const qem_source source = { original, matrix.x, NULL, NULL };
    const qem_status status = qem_measure(context, &source, artifact, metrics);
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
        const qem_source source = { original, a.x, NULL, NULL };
        status = measure_matrix(context, &source, &b, metrics);
        context->backend->release(context, b.owned);
    }
    context->backend->release(context, a.owned);
    return status;
}
