/*
 * QET (also HERA, HETA): neighbours are swapped into ordered halves, level by level, then each column group gets its own
 * codebook. The swap is a block of the pipeline (api/quantize.c), so what is left is pq on the ordered matrix.
 */
#include "registry.h"

static qem_status partition(qem_fit *fit)
{
    return qem_method_find(QEM_METHOD_PQ)->partition(fit);
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    return qem_method_find(QEM_METHOD_PQ)->encode(fit, base);
}

const qem_method_ops qem_qet_ops = {
    .id = QEM_METHOD_QET,
    .name = "qet",
    .kind = QEM_CODEBOOK_PER_GROUP,
    .default_dim = 4,
    .most_k = 1u << 24,
    .allocates = 1,
    .default_levels = 1,
    .partition = partition,
    .fit = qem_fit_kmeans,
    .encode = encode,
};
