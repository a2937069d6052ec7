/* Primitives that have no kernels yet. */
#include "backend.cuh"

qem_status qem_cuda_load(qem_context *context, const qem_view *, const char *, qem_matrix *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "load is not there on the GPU");
}

qem_status qem_cuda_extremes(qem_context *context, const float *, uint64_t , float *, float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "extremes is not there on the GPU");
}

qem_status qem_cuda_mean(qem_context *context, const float *, uint64_t , double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "mean is not there on the GPU");
}

qem_status qem_cuda_scalar_histogram(qem_context *context, const float *, uint64_t , double , uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scalar_histogram is not there on the GPU");
}

qem_status qem_cuda_scalar_step(qem_context *context, const float *, uint64_t , const float *, uint64_t , double , int , uint64_t *, int64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scalar_step is not there on the GPU");
}

qem_status qem_cuda_scalar_weighted_histogram(qem_context *context, const float *, const float *, uint64_t , double , int , uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scalar_weighted_histogram is not there on the GPU");
}

qem_status qem_cuda_scalar_weighted_step(qem_context *context, const float *, const float *, uint64_t , const float *, uint64_t , double , int , int , uint64_t *, int64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scalar_weighted_step is not there on the GPU");
}

qem_status qem_cuda_weighted_moments(qem_context *context, const float *, const float *, uint64_t , double , double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "weighted_moments is not there on the GPU");
}

qem_status qem_cuda_scalar_assign(qem_context *context, const float *, uint64_t , const float *, uint64_t , uint32_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scalar_assign is not there on the GPU");
}

qem_status qem_cuda_quantiles(qem_context *context, qem_subvectors , uint32_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "quantiles is not there on the GPU");
}

qem_status qem_cuda_cell_ids(qem_context *context, qem_subvectors , uint32_t , const float *, uint32_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "cell_ids is not there on the GPU");
}

qem_status qem_cuda_group_by_key(qem_context *context, const uint32_t *, uint64_t , uint64_t , uint32_t *, uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "group_by_key is not there on the GPU");
}

qem_status qem_cuda_count_distinct(qem_context *context, qem_subvectors , const qem_problem *, uint64_t , uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "count_distinct is not there on the GPU");
}

qem_status qem_cuda_distinct_values(qem_context *context, const float *, uint64_t , uint64_t , float *, uint64_t *, uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "distinct_values is not there on the GPU");
}

qem_status qem_cuda_swap_forward(qem_context *context, const float *, uint64_t , uint64_t , uint32_t , float *, uint8_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "swap_forward is not there on the GPU");
}

qem_status qem_cuda_swap_inverse(qem_context *context, const float *, const uint8_t *, uint64_t , uint64_t , uint32_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "swap_inverse is not there on the GPU");
}

qem_status qem_cuda_swap_by_map(qem_context *context, const float *, const uint8_t *, uint64_t , uint64_t , uint32_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "swap_by_map is not there on the GPU");
}

qem_status qem_cuda_unit_stats(qem_context *context, const float *, uint64_t , uint64_t , qem_axis , uint64_t , float *, float *, double *, double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "unit_stats is not there on the GPU");
}

qem_status qem_cuda_standardized_stats(qem_context *context, const float *, uint64_t , uint64_t , const qem_decode_affine *, uint32_t , qem_axis , uint64_t , float *, float *, double *, double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "standardized_stats is not there on the GPU");
}

qem_status qem_cuda_standardize(qem_context *context, const float *, uint64_t , uint64_t , const qem_decode_affine *, uint32_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "standardize is not there on the GPU");
}

qem_status qem_cuda_element_weights(qem_context *context, uint64_t , uint64_t , const qem_decode_affine *, uint32_t , const float *, uint64_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "element_weights is not there on the GPU");
}

qem_status qem_cuda_search_block_scales(qem_context *context, const float *, const float *, uint64_t , uint64_t , uint64_t , uint32_t , uint64_t , const float *, const float *, uint64_t , uint8_t *, double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "search_block_scales is not there on the GPU");
}

qem_status qem_cuda_pool_weights(qem_context *context, qem_subvectors , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "pool_weights is not there on the GPU");
}

qem_status qem_cuda_fit_block_scales(qem_context *context, const float *, const float *, const float *, uint64_t , uint64_t , uint64_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "fit_block_scales is not there on the GPU");
}

qem_status qem_cuda_select_outliers(qem_context *context, const float *, uint64_t , uint64_t , const float *, const float *, uint64_t , float , uint64_t *, uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "select_outliers is not there on the GPU");
}

qem_status qem_cuda_scatter(qem_context *context, float *, const uint64_t *, const float *, uint64_t )
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "scatter is not there on the GPU");
}

qem_status qem_cuda_gather(qem_context *context, const float *, const uint64_t *, uint64_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "gather is not there on the GPU");
}

qem_status qem_cuda_subtract(qem_context *context, float *, const float *, uint64_t )
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "subtract is not there on the GPU");
}

qem_status qem_cuda_rotate(qem_context *context, const float *, uint64_t , uint64_t , const float *, const float *, const float *, float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "rotate is not there on the GPU");
}

qem_status qem_cuda_cross_product(qem_context *context, const float *, const float *, uint64_t , uint64_t , uint64_t , double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "cross_product is not there on the GPU");
}

qem_status qem_cuda_pack(qem_context *context, const uint32_t *, uint64_t , uint32_t , uint8_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "pack is not there on the GPU");
}

qem_status qem_cuda_decode(qem_context *context, const qem_decode_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "decode is not there on the GPU");
}

qem_status qem_cuda_error_sums(qem_context *context, const float *, const float *, uint64_t , qem_error_sums *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "error_sums is not there on the GPU");
}

qem_status qem_cuda_sum(qem_context *context, const float *, uint64_t , double , double *, double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "sum is not there on the GPU");
}
