/* Product quantization (Jegou, Douze, Schmid 2011): one k-means and one codebook per column group. */
#include "allocate_bits.h"
#include "registry.h"

/* k need not exceed the distinct sub-vectors of the richest group. */
static void limit_k(qem_fit *fit, const uint64_t *distinct)
{
    uint64_t most = 1;
    for (uint64_t g = 0; g < fit->problem_count; g++) most = distinct[g] > most ? distinct[g] : most;
    if (most < fit->k) fit->k = most;
}

static qem_status share_bits(qem_fit *fit, const uint64_t *distinct)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, fit->points.cols, sizeof(double), &memory));
    qem_status status = qem_group_variances(fit, memory);
    if (status == QEM_OK) status = qem_fit_allocate_bits(fit, memory, distinct);
    qem_release(fit->context, memory);
    return status;
}

static qem_status partition(qem_fit *fit)
{
    void *memory;
    const int vary = qem_fit_widths_vary(fit);
    QEM_TRY(qem_fit_group_problems(fit, vary ? (uint64_t)1 << QEM_MOST_GROUP_BITS : fit->k)); /* no more are counted */
    QEM_TRY(qem_allocate(fit->context, fit->problem_count, sizeof(uint64_t), &memory));
    qem_status status = fit->backend->count_distinct(fit->context, fit->points, fit->problems, fit->problem_count, memory);
    if (status == QEM_OK && vary) status = share_bits(fit, memory);
    if (status == QEM_OK && !vary) limit_k(fit, memory);
    qem_release(fit->context, memory);
    return status == QEM_OK ? qem_fit_group_problems(fit, fit->k) : status;
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    QEM_TRY(qem_fit_group_problems(fit, base->stages[0].k));
    return qem_fit_assign(fit);
}

const qem_method_ops qem_pq_ops = {
    .id = QEM_METHOD_PQ,
    .name = "pq",
    .kind = QEM_CODEBOOK_PER_GROUP,
    .default_dim = 4,
    .most_k = 1u << 24,
    .allocates = 1,
    .partition = partition,
    .fit = qem_fit_kmeans,
    .encode = encode,
};
