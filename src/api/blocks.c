/* Building blocks as calls of their own: k-means, quantiles, pair swap. */
#include <math.h>
#include <string.h>

#include "api.h"

/* Host results of device work: copies, then releases the device memory. */
static qem_status fetch(qem_context *context, void *host, void *device, uint64_t bytes, qem_status status)
{
    if (status == QEM_OK && host) status = context->backend->to_host(context, host, device, bytes);
    context->backend->release(context, device);
    return status;
}

static qem_status check_kmeans(qem_context *context, const qem_view *points, uint64_t k, const qem_kmeans_params *params,
                               const float *centroids)
{
    QEM_TRY(qem_check_view(context, points, "points", 1));
    QEM_CHECK_STRUCT(context, params, qem_kmeans_params);
    if (!centroids) return qem_fail(context, QEM_ERR_ARGUMENT, "centroids: the pointer is NULL");
    if (points->rows > UINT32_MAX || points->cols > 65535)
        return qem_fail(context, QEM_ERR_ARGUMENT, "points: %llu x %llu; at most 2^32 - 1 rows and 65535 columns",
                        (unsigned long long)points->rows, (unsigned long long)points->cols);
    if (k < 1 || k > points->rows || k > (1u << 24))
        return qem_fail(context, QEM_ERR_ARGUMENT, "k %llu is outside 1 .. min(%llu points, 2^24)", (unsigned long long)k,
                        (unsigned long long)points->rows);
    if (params->restarts < 1 || params->restarts > 1000 || !(params->tolerance >= 0.0 && params->tolerance < 1.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "restarts %u is outside 1 .. 1000 or tolerance %g outside [0, 1)",
                        params->restarts, params->tolerance);
    return QEM_OK;
}

static qem_status run_kmeans(qem_context *context, const qem_matrix *m, uint64_t k, const qem_kmeans_params *params,
                             float *centroids, uint32_t *labels, uint64_t *used, double *objective)
{
    const qem_backend *backend = context->backend;
    const qem_problem problem = { .key = params->problem, .step = 1, .count = m->rows, .k = k, .width = (uint32_t)m->cols };
    qem_kmeans_args args;
    uint64_t used_here;
    double objective_here;
    void *codebook, *codes;
    QEM_TRY(backend->alloc(context, k * m->cols, sizeof(float), &codebook));
    qem_status status = backend->alloc(context, m->rows, sizeof(uint32_t), &codes);
    if (status != QEM_OK) {
        backend->release(context, codebook);
        return status;
    }
    memset(&args, 0, sizeof args);
    args.points = qem_cut(m->x, m->rows, m->cols, (uint32_t)m->cols);
    args.problems = &problem;
    args.problem_count = 1;
    args.codebook_dtype = QEM_DTYPE_F32;
    args.iterations = params->iterations;
    args.restarts = params->restarts;
    args.tolerance = params->tolerance;
    args.seed = context->seed;
    args.codebook = codebook;
    args.labels = codes;
    args.used = &used_here;
    args.objective = objective ? &objective_here : NULL;
    status = backend->kmeans(context, &args);
    if (status == QEM_OK && used) *used = used_here;
    if (status == QEM_OK && objective) *objective = objective_here;
    status = fetch(context, labels, codes, m->rows * sizeof(uint32_t), status);
    return fetch(context, centroids, codebook, k * m->cols * sizeof(float), status);
}

qem_status qem_kmeans(qem_context *context, const qem_view *points, uint64_t k, const qem_kmeans_params *params,
                      float *centroids, uint32_t *labels, uint64_t *used, double *objective)
{
    const qem_kmeans_params defaults = QEM_KMEANS_PARAMS_INIT;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!params) params = &defaults;
    QEM_TRY(check_kmeans(context, points, k, params, centroids));
    qem_matrix matrix;
    QEM_TRY(context->backend->load(context, points, "points", &matrix));
    const qem_status status = run_kmeans(context, &matrix, k, params, centroids, labels, used, objective);
    context->backend->release(context, matrix.owned);
    return status;
}

static qem_status run_nearest(qem_context *context, const qem_matrix *m, uint64_t k, const qem_matrix *centroids,
                              uint32_t *labels)
{
    const qem_problem problem = { .step = 1, .count = m->rows, .k = k, .width = (uint32_t)m->cols };
    qem_kmeans_args args;
    void *codes;
    QEM_TRY(context->backend->alloc(context, m->rows, sizeof(uint32_t), &codes));
    memset(&args, 0, sizeof args);
    args.points = qem_cut(m->x, m->rows, m->cols, (uint32_t)m->cols);
    args.problems = &problem;
    args.problem_count = 1;
    args.codebook = (float *)centroids->x; /* read only */
    args.labels = codes;
    const qem_status status = context->backend->assign(context, &args);
    return fetch(context, labels, codes, m->rows * sizeof(uint32_t), status);
}

qem_status qem_nearest(qem_context *context, const qem_view *points, uint64_t k, const float *centroids, uint32_t *labels)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_TRY(qem_check_view(context, points, "points", 1));
    if (!centroids || !labels) return qem_fail(context, QEM_ERR_ARGUMENT, "centroids or labels: the pointer is NULL");
    if (points->rows > UINT32_MAX || points->cols > 65535)
        return qem_fail(context, QEM_ERR_ARGUMENT, "points: %llu x %llu; at most 2^32 - 1 rows and 65535 columns",
                        (unsigned long long)points->rows, (unsigned long long)points->cols);
    if (k < 1 || k > (1u << 24))
        return qem_fail(context, QEM_ERR_ARGUMENT, "k %llu is outside 1 .. 2^24", (unsigned long long)k);
    qem_view view = QEM_VIEW_INIT;
    view.data = centroids;
    view.rows = k;
    view.cols = points->cols;
    qem_matrix matrix, codebook;
    QEM_TRY(context->backend->load(context, points, "points", &matrix));
    qem_status status = context->backend->load(context, &view, "centroids", &codebook);
    if (status == QEM_OK) {
        status = run_nearest(context, &matrix, k, &codebook, labels);
        context->backend->release(context, codebook.owned);
    }
    context->backend->release(context, matrix.owned);
    return status;
}

qem_status qem_quantiles(qem_context *context, const qem_view *view, uint32_t dim, uint32_t intervals, float *cuts)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_TRY(qem_check_view(context, view, "view", 1));
    if (!cuts) return qem_fail(context, QEM_ERR_ARGUMENT, "cuts: the pointer is NULL");
    if (dim < 1 || dim > 65535 || dim > view->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "dim %u is outside 1 .. min(65535, %llu columns)", dim,
                        (unsigned long long)view->cols);
    if (intervals < 2 || intervals > 255)
        return qem_fail(context, QEM_ERR_ARGUMENT, "intervals %u are outside 2 .. 255", intervals);
    if (view->rows * ((view->cols + dim - 1) / dim) > UINT32_MAX)
        return qem_fail(context, QEM_ERR_ARGUMENT, "view: 2^32 or more elements at one position");
    qem_matrix matrix;
    QEM_TRY(context->backend->load(context, view, "view", &matrix));
    const qem_status status =
        context->backend->quantiles(context, qem_cut(matrix.x, matrix.rows, matrix.cols, dim), intervals, cuts);
    context->backend->release(context, matrix.owned);
    return status;
}

static qem_status check_swap(qem_context *context, uint32_t levels, const void *a, const void *b)
{
    if (levels < 1 || levels > 8) return qem_fail(context, QEM_ERR_ARGUMENT, "%u swap levels are outside 1 .. 8", levels);
    if (!a || !b) return qem_fail(context, QEM_ERR_ARGUMENT, "an output or input pointer of the swap is NULL");
    return QEM_OK;
}

static qem_status swap_loaded(qem_context *context, const qem_matrix *m, uint32_t levels, float *ordered, uint8_t *map)
{
    const qem_backend *backend = context->backend;
    const uint64_t bytes = qem_swap_map_bytes(m->rows, m->cols, levels), count = m->rows * m->cols;
    void *x, *bits;
    QEM_TRY(backend->alloc(context, count, sizeof(float), &x));
    qem_status status = backend->alloc(context, bytes, 1, &bits);
    if (status != QEM_OK) {
        backend->release(context, x);
        return status;
    }
    status = backend->swap_forward(context, m->x, m->rows, m->cols, levels, x, bits);
    status = fetch(context, map, bits, bytes, status);
    return fetch(context, ordered, x, count * sizeof(float), status);
}

qem_status qem_to_f32(qem_context *context, const qem_view *view, float *out)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_TRY(qem_check_view(context, view, "view", 1));
    if (!out) return qem_fail(context, QEM_ERR_ARGUMENT, "qem_to_f32: out must not be NULL");
    qem_matrix matrix;
    QEM_TRY(context->backend->load(context, view, "view", &matrix));
    const qem_status status = context->backend->to_host(context, out, matrix.x, matrix.rows * matrix.cols * sizeof(float));
    context->backend->release(context, matrix.owned);
    return status;
}

qem_status qem_swap_forward(qem_context *context, const qem_view *view, uint32_t levels, float *ordered, uint8_t *map)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_TRY(qem_check_view(context, view, "view", 1));
    QEM_TRY(check_swap(context, levels, ordered, map));
    qem_matrix matrix;
    QEM_TRY(context->backend->load(context, view, "view", &matrix));
    const qem_status status = swap_loaded(context, &matrix, levels, ordered, map);
    context->backend->release(context, matrix.owned);
    return status;
}

qem_status qem_swap_inverse(qem_context *context, const float *ordered, const uint8_t *map, uint64_t rows, uint64_t cols,
                            uint32_t levels, float *restored)
{
    if (!context) return QEM_ERR_ARGUMENT;
    qem_view view = QEM_VIEW_INIT;
    view.data = ordered;
    view.rows = rows;
    view.cols = cols;
    QEM_TRY(qem_check_view(context, &view, "ordered", 1));
    QEM_TRY(check_swap(context, levels, map, restored));
    const qem_backend *backend = context->backend;
    const uint64_t bytes = qem_swap_map_bytes(rows, cols, levels), count = rows * cols;
    void *x, *bits;
    QEM_TRY(backend->alloc(context, count, sizeof(float), &x));
    qem_status status = backend->alloc(context, bytes, 1, &bits);
    if (status != QEM_OK) {
        backend->release(context, x);
        return status;
    }
    status = backend->to_device(context, x, ordered, count * sizeof(float));
    if (status == QEM_OK) status = backend->to_device(context, bits, map, bytes);
    if (status == QEM_OK) status = backend->swap_inverse(context, x, bits, rows, cols, levels, x);
    backend->release(context, bits);
    return fetch(context, restored, x, count * sizeof(float), status);
}
