/*
 * A uniform grid of k = 2^b levels for each unit (the tensor, a row, a column, a block) from its minimum to its maximum: the
 * levels are j / (k-1), x = fmaf(level, scale, mean) with mean = minimum, scale = maximum - minimum, whatever k is.
 */
#include <math.h>

#include "registry.h"

static qem_status grid_of(qem_context *context, uint64_t unit, float least, float greatest, qem_affine *affine)
{
    const float range = (float)((double)greatest - (double)least);
    if (!isfinite(range) || !isfinite(least + range))
        return qem_fail(context, QEM_ERR_RANGE, "grid: the range %g .. %g of unit %llu is beyond f32", (double)least,
                        (double)greatest, (unsigned long long)unit);
    if (affine->has_scale) affine->scale[unit] = range;
    if (affine->has_mean) affine->mean[unit] = least;
    return QEM_OK;
}

static qem_status units(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                        qem_affine *affine)
{
    void *memory;
    QEM_TRY(qem_allocate(context, affine->units, 2 * sizeof(float), &memory));
    float *least = memory, *greatest = least + affine->units;
    qem_status status = backend->unit_stats(context, x, rows, cols, affine->axis, affine->block, least, greatest, NULL, NULL);
    for (uint64_t u = 0; u < affine->units && status == QEM_OK; u++) status = grid_of(context, u, least[u], greatest[u], affine);
    qem_release(context, memory);
    return status;
}

static qem_status fit(qem_fit *fit)
{
    return qem_fit_table(fit, QEM_TABLE_UNIFORM);
}

const qem_method_ops qem_grid_ops = {
    .id = QEM_METHOD_GRID,
    .name = "grid",
    .kind = QEM_CODEBOOK_TABLE,
    .default_dim = 1,
    .scalar = 1,
    .power_of_two = 1,
    .most_k = 65536,
    .table = QEM_TABLE_UNIFORM,
    .units_have_means = 1,
    .units = units,
    .fit = fit,
    .encode = qem_encode_scalar,
};
