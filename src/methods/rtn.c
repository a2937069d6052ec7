/*
 * Round to nearest: k = 2^b levels, evenly spaced from the tensor's minimum to its maximum. Level j = fmaf(j, scale, mean)
 * with mean = minimum; only scale and mean are stored, as f32. The code is the nearest level as the decoder computes it, a
 * tie goes up.
 */
#include <math.h>

#include "registry.h"

static qem_status fit(qem_fit *fit)
{
    float min, max;
    QEM_TRY(fit->backend->extremes(fit->context, fit->points.x, fit->point_count, &min, &max));
    const double step = fit->k > 1 ? ((double)max - (double)min) / (double)(fit->k - 1) : 0.0;
    fit->scale = (float)step;
    fit->mean = min;
    if (!isfinite(fit->scale))
        return qem_fail(fit->context, QEM_ERR_RANGE, "rtn: the range %g .. %g in %llu levels needs a step beyond f32", (double)min,
                        (double)max, (unsigned long long)fit->k);
    void *memory;
    QEM_TRY(qem_allocate(fit->context, fit->k, sizeof(float), &memory));
    float *levels = memory;
    qem_status status = QEM_OK;
    for (uint64_t j = 0; j < fit->k; j++) {
        levels[j] = fmaf((float)j, fit->scale, fit->mean);
        if (!isfinite(levels[j]) && status == QEM_OK)
            status = qem_fail(fit->context, QEM_ERR_RANGE, "rtn: the maximum %g is too near the limit of f32 for a grid",
                              (double)max);
    }
    if (status == QEM_OK) status = qem_fit_scalar_levels(fit, levels, fit->k);
    qem_release(fit->context, memory);
    return status;
}

const qem_method_ops qem_rtn_ops = {
    .id = QEM_METHOD_RTN,
    .name = "rtn",
    .kind = QEM_CODEBOOK_UNIFORM,
    .default_dim = 1,
    .scalar = 1,
    .power_of_two = 1,
    .most_k = 65536,
    .fit = fit,
    .encode = qem_encode_scalar,
};
