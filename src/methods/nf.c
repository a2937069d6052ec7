/*
 * NormalFloat (Dettmers et al. 2023): k = 4 .. 256 levels at quantiles of the normal distribution between -1 and 1 (core/tables.c),
 * for each unit (the tensor, a row, a column, a block) times its largest magnitude.
 */
#include "registry.h"

static qem_status units(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                        qem_affine *affine)
{
    void *memory;
    QEM_TRY(qem_allocate(context, affine->units, 2 * sizeof(float), &memory));
    float *least = memory, *greatest = least + affine->units;
    const qem_status status = backend->unit_stats(context, x, rows, cols, affine->axis, affine->block, least, greatest, NULL, NULL);
    for (uint64_t u = 0; u < affine->units && status == QEM_OK; u++)
        affine->scale[u] = -least[u] > greatest[u] ? -least[u] : greatest[u];
    qem_release(context, memory);
    return status;
}

static qem_status fit(qem_fit *fit)
{
    return qem_fit_table(fit, QEM_TABLE_NF);
}

const qem_method_ops qem_nf_ops = {
    .id = QEM_METHOD_NF,
    .name = "nf",
    .kind = QEM_CODEBOOK_TABLE,
    .default_dim = 1,
    .scalar = 1,
    .power_of_two = 1,
    .least_k = 4,
    .most_k = 256,
    .table = QEM_TABLE_NF,
    .units = units,
    .fit = fit,
    .encode = qem_encode_scalar,
};
