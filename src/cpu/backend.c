/* The CPU's table of primitives. */
#include <string.h>

#include "cpu.h"

qem_status qem_cpu_alloc(qem_context *context, uint64_t count, uint64_t size, void **device)
{
    return qem_allocate(context, count, size, device);
}

static qem_status copy(qem_context *context, void *to, const void *from, uint64_t bytes)
{
    (void)context;
    if (bytes) memcpy(to, from, (size_t)bytes);
    return QEM_OK;
}

static qem_status zero(qem_context *context, void *device, uint64_t bytes)
{
    (void)context;
    if (bytes) memset(device, 0, (size_t)bytes);
    return QEM_OK;
}

const qem_backend qem_cpu_backend = {
    .name = "cpu",
    .alloc = qem_cpu_alloc,
    .release = qem_release,
    .to_device = copy,
    .to_host = copy,
    .copy = copy,
    .zero = zero,
    .load = qem_cpu_load,
    .extremes = qem_cpu_extremes,
    .mean = qem_cpu_mean,
    .scalar_histogram = qem_cpu_scalar_histogram,
    .scalar_step = qem_cpu_scalar_step,
    .scalar_weighted_histogram = qem_cpu_scalar_weighted_histogram,
    .scalar_weighted_step = qem_cpu_scalar_weighted_step,
    .weighted_moments = qem_cpu_weighted_moments,
    .scalar_assign = qem_cpu_scalar_assign,
    .quantiles = qem_cpu_quantiles,
    .cell_ids = qem_cpu_cell_ids,
    .group_by_key = qem_cpu_group_by_key,
    .count_distinct = qem_cpu_count_distinct,
    .distinct_values = qem_cpu_distinct_values,
    .kmeans = qem_cpu_kmeans,
    .assign = qem_cpu_assign,
    .refine = qem_cpu_refine,
    .swap_forward = qem_cpu_swap_forward,
    .swap_inverse = qem_cpu_swap_inverse,
    .swap_by_map = qem_cpu_swap_by_map,
    .unit_stats = qem_cpu_unit_stats,
    .standardized_stats = qem_cpu_standardized_stats,
    .standardize = qem_cpu_standardize,
    .element_weights = qem_cpu_element_weights,
    .cross_product = qem_cpu_cross_product,
    .rotate = qem_cpu_rotate,
    .pool_weights = qem_cpu_pool_weights,
    .fit_block_scales = qem_cpu_fit_block_scales,
    .search_block_scales = qem_cpu_search_block_scales,
    .select_outliers = qem_cpu_select_outliers,
    .scatter = qem_cpu_scatter,
    .gather = qem_cpu_gather,
    .subtract = qem_cpu_subtract,
    .pack = qem_cpu_pack,
    .decode = qem_cpu_decode,
    .matmul_workspace = qem_cpu_matmul_workspace,
    .matmul = qem_cpu_matmul,
    .error_sums = qem_cpu_error_sums,
    .sum = qem_cpu_sum,
};
