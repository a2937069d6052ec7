#include "source.h"

#define ELEMENTS_AT_ONCE ((uint64_t)1 << 20)

uint64_t qem_rows_at_once(uint64_t cols)
{
    return cols >= ELEMENTS_AT_ONCE ? 1 : ELEMENTS_AT_ONCE / cols;
}

qem_view qem_view_rows(const qem_view *view, uint64_t begin, uint64_t end)
{
    qem_view rows = *view;
    const uint64_t stride = view->row_stride ? view->row_stride : view->cols;
    const uint64_t pitch = view->row_pitch_bytes ? view->row_pitch_bytes : stride * qem_dtype_size(view->dtype);
    rows.data = (const char *)view->data + begin * pitch;
    rows.rows = end - begin;
    return rows;
}

void qem_view_discard(const qem_view *view)
{
    const int by_rows = view->col_stride <= 1; /* else each row lies in all pages */
    if (view->file && by_rows) qem_file_discard(view->file);
}

/* First outlier at or behind an element. */
static uint64_t outlier_from(const qem_outliers *outliers, uint64_t element)
{
    uint64_t low = 0, high = outliers->count;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (qem_outlier_index(outliers, middle) < element)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static qem_status replace_outliers(qem_context *context, const qem_source *source, uint64_t begin, uint64_t end, float *rows)
{
    const uint64_t cols = source->view->cols, first = outlier_from(source->outliers, begin * cols);
    const uint64_t count = outlier_from(source->outliers, end * cols) - first;
    void *memory;
    if (count == 0) return QEM_OK;
    QEM_TRY(qem_allocate(context, count, sizeof(uint64_t) + sizeof(float), &memory));
    uint64_t *index = memory;
    float *value = (float *)(index + count);
    for (uint64_t i = 0; i < count; i++) {
        index[i] = qem_outlier_index(source->outliers, first + i) - begin * cols;
        value[i] = source->replaced[index[i] % cols];
    }
    const qem_status status = context->backend->scatter(context, rows, index, value, count);
    qem_release(context, memory);
    return status;
}

/* Memory of their own for rows that lie in the view's. */
static qem_status own(qem_context *context, qem_matrix *rows)
{
    const uint64_t count = rows->rows * rows->cols;
    void *memory;
    if (rows->owned) return QEM_OK;
    QEM_TRY(context->backend->alloc(context, count, sizeof(float), &memory));
    const qem_status status = context->backend->copy(context, memory, rows->x, count * sizeof(float));
    rows->x = rows->owned = memory;
    return status;
}

qem_status qem_source_rows(qem_context *context, const qem_source *source, uint64_t begin, uint64_t end, qem_matrix *rows)
{
    const uint64_t cols = source->view->cols;
    if (source->x) {
        *rows = (qem_matrix){ source->x + begin * cols, end - begin, cols, NULL };
        return QEM_OK;
    }
    const qem_view part = qem_view_rows(source->view, begin, end);
    QEM_TRY(context->backend->load(context, &part, "matrix", rows));
    if (!source->outliers) return QEM_OK;
    qem_status status = own(context, rows);
    if (status == QEM_OK) status = replace_outliers(context, source, begin, end, rows->owned);
    if (status != QEM_OK) context->backend->release(context, rows->owned);
    return status;
}
