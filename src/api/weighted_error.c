/* The weighted error of an artifact, by which recipes are compared where weights are given. */
#include "api.h"

typedef struct weighing {
    qem_matrix matrix, importance;
    void *weight, *error; /* device: of each element */
} weighing;

static qem_status load_both(qem_context *context, const qem_view *view, const qem_view *importance, weighing *w)
{
    const uint64_t count = view->rows * view->cols;
    QEM_TRY(context->backend->load(context, view, "matrix", &w->matrix));
    QEM_TRY(context->backend->load(context, importance, "importance", &w->importance));
    QEM_TRY(context->backend->alloc(context, count, sizeof(float), &w->weight));
    QEM_TRY(context->backend->alloc(context, count, sizeof(float), &w->error));
    return context->backend->element_weights(context, view->rows, view->cols, NULL, 0, w->importance.x, importance->rows, w->weight);
}

static qem_status weigh(qem_context *context, const qem_artifact *artifact, const weighing *w, double *mse)
{
    const uint64_t count = artifact->rows * artifact->cols;
    double moments[3]; /* sums of w, w * e, w * e * e */
    int overflow;
    QEM_TRY(qem_decode_rows(context, artifact, 0, artifact->rows, QEM_DTYPE_F32, w->error, artifact->cols, &overflow));
    QEM_TRY(context->backend->subtract(context, w->error, w->matrix.x, count));
    QEM_TRY(context->backend->weighted_moments(context, w->error, w->weight, count, 0.0, moments));
    *mse = moments[2] / moments[0];
    return QEM_OK;
}

qem_status qem_measure_weighted(qem_context *context, const qem_view *view, const qem_view *importance,
                                const qem_artifact *artifact, double *mse)
{
    weighing w = { 0 };
    qem_status status = load_both(context, view, importance, &w);
    if (status == QEM_OK) status = weigh(context, artifact, &w, mse);
    context->backend->release(context, w.error);
    context->backend->release(context, w.weight);
    context->backend->release(context, w.importance.owned);
    context->backend->release(context, w.matrix.owned);
    return status;
}
