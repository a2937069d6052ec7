/* Product quantization (Jegou, Douze, Schmid 2011): one k-means and one codebook per column group. */
#include "registry.h"

/* k need not exceed the distinct sub-vectors of the richest group. */
static qem_status partition(qem_fit *fit)
{
    void *memory;
    QEM_TRY(qem_fit_group_problems(fit, fit->k));
    QEM_TRY(qem_allocate(fit->context, fit->problem_count, sizeof(uint64_t), &memory));
    uint64_t *distinct = memory;
    const qem_status status =
        fit->backend->count_distinct(fit->context, fit->points, fit->problems, fit->problem_count, distinct);
    uint64_t most = 1;
    for (uint64_t g = 0; status == QEM_OK && g < fit->problem_count; g++) most = distinct[g] > most ? distinct[g] : most;
    qem_release(fit->context, memory);
    QEM_TRY(status);
    if (most >= fit->k) return QEM_OK;
    fit->k = most;
    return qem_fit_group_problems(fit, most);
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
    .partition = partition,
    .fit = qem_fit_kmeans,
    .encode = encode,
};
