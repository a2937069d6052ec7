/* The weighted error of an artifact, by which recipes are compared where weights are given. */
#include "api.h"
#include "decoder.h"

typedef struct weighing {
    qem_context *context;
    const qem_view *view, *importance;
    qem_decoder decoder;
    float *error, *weight; /* device: of some rows; no weight where the importance has one for each element */
    double weights, errors; /* sums of w and of w * e * e */
} weighing;

static qem_status weight_rows(const weighing *w, uint64_t row, uint64_t end, qem_matrix *weight)
{
    const qem_backend *backend = w->context->backend;
    const int each = w->importance->rows > 1;
    const qem_view part = each ? qem_view_rows(w->importance, row, end) : *w->importance;
    QEM_TRY(backend->load(w->context, &part, "importance", weight));
    if (each || w->view->rows == 1) return QEM_OK;
    const qem_status status = backend->element_weights(w->context, end - row, w->view->cols, NULL, 0, weight->x, 1, w->weight);
    weight->x = w->weight;
    return status;
}

static qem_status add_rows(weighing *w, uint64_t row, uint64_t end)
{
    const qem_backend *backend = w->context->backend;
    const uint64_t cols = w->view->cols, count = (end - row) * cols;
    const qem_view part = qem_view_rows(w->view, row, end);
    qem_matrix original = { 0 }, weight = { 0 };
    double moments[3]; /* sums of w, w * e, w * e * e */
    int overflow;
    QEM_TRY(qem_decoder_rows(&w->decoder, row, end, QEM_DTYPE_F32, w->error, cols, &overflow));
    qem_status status = backend->load(w->context, &part, "matrix", &original);
    if (status == QEM_OK) status = backend->subtract(w->context, w->error, original.x, count);
    if (status == QEM_OK) status = weight_rows(w, row, end, &weight);
    if (status == QEM_OK) status = backend->weighted_moments(w->context, w->error, weight.x, count, 0.0, moments);
    backend->release(w->context, weight.owned);
    backend->release(w->context, original.owned);
    QEM_TRY(status);
    w->weights += moments[0];
    w->errors += moments[2];
    qem_view_discard(w->view);
    qem_view_discard(w->importance);
    return QEM_OK;
}

qem_status qem_measure_weighted(qem_context *context, const qem_view *view, const qem_view *importance,
                                const qem_artifact *artifact, double *mse)
{
    const uint64_t cols = view->cols, most = qem_rows_at_once(cols), step = most < view->rows ? most : view->rows;
    weighing w = { .context = context, .view = view, .importance = importance };
    void *memory;
    QEM_TRY(context->backend->alloc(context, 2 * step * cols, sizeof(float), &memory));
    w.error = memory;
    w.weight = w.error + step * cols;
    qem_status status = qem_decoder_open(context, artifact, &w.decoder);
    for (uint64_t row = 0; row < view->rows && status == QEM_OK; row += step)
        status = add_rows(&w, row, view->rows - row < step ? view->rows : row + step);
    qem_decoder_close(&w.decoder);
    context->backend->release(context, memory);
    *mse = w.errors / w.weights;
    return status;
}
