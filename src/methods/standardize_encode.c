#include "standardize_encode.h"

#include <math.h>
#include <string.h>

static qem_status duplicate(qem_context *context, const void *from, uint64_t bytes, uint64_t slack, void **to)
{
    if (!from) return QEM_OK;
    QEM_TRY(qem_allocate_zero(context, bytes + slack, 1, to));
    memcpy(*to, from, (size_t)bytes);
    return QEM_OK;
}

qem_status qem_affine_copy(qem_context *context, const qem_affine *base, qem_affine *step)
{
    const uint64_t stored = base->params < 16 ? qem_bit_stream_bytes(base->units, base->params) : base->units * (base->params / 8);
    const uint64_t supers = base->supers * sizeof(uint16_t);
    void *super;
    *step = *base;
    step->scale_stored = step->mean_stored = NULL;
    step->scale_super = step->mean_super = NULL;
    step->scale = step->mean = NULL;
    QEM_TRY(duplicate(context, base->scale_stored, stored, QEM_STREAM_SLACK, &step->scale_stored));
    QEM_TRY(duplicate(context, base->mean_stored, stored, QEM_STREAM_SLACK, &step->mean_stored));
    super = NULL;
    QEM_TRY(duplicate(context, base->scale_super, supers, 0, &super));
    step->scale_super = super;
    super = NULL;
    QEM_TRY(duplicate(context, base->mean_super, supers, 0, &super));
    step->mean_super = super;
    return qem_affine_expand(context, step);
}

/* Of blocks, as the fit begins: the largest magnitude. */
static qem_status fit_blocks(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                             qem_affine *a)
{
    void *memory;
    QEM_TRY(qem_affine_alloc(context, a));
    QEM_TRY(qem_allocate(context, a->units, 2 * sizeof(float), &memory));
    float *least = memory, *greatest = least + a->units;
    const qem_status status = backend->unit_stats(context, x, rows, cols, a->axis, a->block, least, greatest, NULL, NULL);
    for (uint64_t u = 0; u < a->units && status == QEM_OK; u++) a->scale[u] = fmaxf(-least[u], greatest[u]);
    qem_release(context, memory);
    return status == QEM_OK ? qem_affine_store(context, a) : status;
}

/* Of rows: the root mean square about the mean, if there is one; means are stored first. */
static qem_status fit_rows(qem_context *context, const double *mean, const double *square, qem_affine *a)
{
    const int has_mean = a->has_mean;
    if (has_mean) {
        a->has_scale = 0;
        QEM_TRY(qem_affine_alloc(context, a));
        for (uint64_t u = 0; u < a->units; u++) a->mean[u] = (float)mean[u];
        QEM_TRY(qem_affine_store(context, a));
        a->has_scale = 1;
    }
    QEM_TRY(qem_affine_alloc(context, a));
    for (uint64_t u = 0; u < a->units; u++) {
        const double m = has_mean ? (double)a->mean[u] : 0.0, variance = square[u] - 2.0 * m * mean[u] + m * m;
        a->scale[u] = (float)sqrt(variance > 0.0 ? variance : 0.0);
        if (!isfinite(a->scale[u])) return qem_fail(context, QEM_ERR_RANGE, "a scale of the new rows is %g, beyond f32", sqrt(variance));
    }
    return qem_affine_store(context, a);
}

qem_status qem_standardize_like(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                                const qem_affine *base, qem_affine *step)
{
    void *memory;
    *step = qem_affine_make(base->axis, base->block, base->params, rows, cols);
    step->has_scale = base->has_scale;
    step->has_mean = base->has_mean;
    if (step->axis == QEM_AXIS_BLOCK) return fit_blocks(context, backend, x, rows, cols, step);
    QEM_TRY(qem_allocate(context, step->units, 2 * sizeof(double), &memory));
    double *mean = memory, *square = mean + step->units;
    qem_status status = backend->unit_stats(context, x, rows, cols, step->axis, step->block, NULL, NULL, mean, square);
    if (status == QEM_OK) status = fit_rows(context, mean, square, step);
    qem_release(context, memory);
    return status;
}
