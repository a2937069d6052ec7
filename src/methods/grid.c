/*
 * A uniform grid of k = 2^b levels for each unit (the tensor, a row, a column, a block) from its minimum to its maximum: the levels
 * are 0 .. k-1, x = fmaf(level, scale, mean) with mean = minimum, scale = (maximum - minimum) / (k - 1).
 */
#include <math.h>

#include "registry.h"

static qem_status grid_of(qem_fit *fit, uint64_t unit, float least, float greatest, qem_affine *affine)
{
    const double steps = (double)fit->k - 1.0;
    const float scale = fit->k > 1 ? (float)(((double)greatest - (double)least) / steps) : 0.0f;
    if (!isfinite(scale) || !isfinite(fmaf((float)steps, scale, least)))
        return qem_fail(fit->context, QEM_ERR_RANGE, "grid: the range %g .. %g of unit %llu in %llu levels is beyond f32",
                        (double)least, (double)greatest, (unsigned long long)unit, (unsigned long long)fit->k);
    if (affine->has_scale) affine->scale[unit] = scale;
    if (affine->has_mean) affine->mean[unit] = least;
    return QEM_OK;
}

static qem_status units(qem_fit *fit, const float *x, qem_affine *affine)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, affine->units, 2 * sizeof(float), &memory));
    float *least = memory, *greatest = least + affine->units;
    qem_status status = fit->backend->unit_stats(fit->context, x, fit->points.rows, fit->points.cols, affine->axis, affine->block,
                                                 least, greatest, NULL, NULL);
    for (uint64_t u = 0; u < affine->units && status == QEM_OK; u++) status = grid_of(fit, u, least[u], greatest[u], affine);
    qem_release(fit->context, memory);
    return status;
}

static qem_status fit(qem_fit *fit)
{
    return qem_fit_table(fit, QEM_TABLE_INTEGERS);
}

const qem_method_ops qem_grid_ops = {
    .id = QEM_METHOD_GRID,
    .name = "grid",
    .kind = QEM_CODEBOOK_TABLE,
    .default_dim = 1,
    .scalar = 1,
    .power_of_two = 1,
    .most_k = 65536,
    .units = units,
    .fit = fit,
    .encode = qem_encode_scalar,
};
