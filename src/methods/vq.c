/* Vector quantization: one codebook for all sub-vectors of the matrix. */
#include "registry.h"

static qem_status one_problem(qem_fit *fit, uint64_t k)
{
    QEM_TRY(qem_fit_problems(fit, 1));
    fit->problems[0] = (qem_problem){ .step = 1, .count = fit->point_count, .k = k, .width = fit->points.dim };
    return QEM_OK;
}

static qem_status partition(qem_fit *fit)
{
    uint64_t distinct;
    QEM_TRY(one_problem(fit, fit->k));
    QEM_TRY(fit->backend->count_distinct(fit->context, fit->points, fit->problems, 1, &distinct));
    fit->k = distinct;
    fit->problems[0].k = distinct;
    return QEM_OK;
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    QEM_TRY(one_problem(fit, base->stages[0].k));
    return qem_fit_assign(fit);
}

const qem_method_ops qem_vq_ops = {
    .id = QEM_METHOD_VQ,
    .name = "vq",
    .kind = QEM_CODEBOOK_SHARED,
    .default_dim = 4,
    .most_k = 1u << 24,
    .partition = partition,
    .fit = qem_fit_kmeans,
    .encode = encode,
};
