/* Primitives that have no kernels yet. */
#include "backend.cuh"

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

qem_status qem_cuda_search_block_scales(qem_context *context, const float *, const float *, uint64_t , uint64_t , uint64_t , uint32_t , uint64_t , const float *, const float *, uint64_t , uint8_t *, double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "search_block_scales is not there on the GPU");
}

qem_status qem_cuda_fit_block_scales(qem_context *context, const float *, const float *, const float *, uint64_t , uint64_t , uint64_t , float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "fit_block_scales is not there on the GPU");
}

qem_status qem_cuda_select_outliers(qem_context *context, const float *, uint64_t , uint64_t , const float *, const float *, uint64_t , float , uint64_t *, uint64_t *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "select_outliers is not there on the GPU");
}

qem_status qem_cuda_rotate(qem_context *context, const float *, uint64_t , uint64_t , const float *, const float *, const float *, float *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "rotate is not there on the GPU");
}

qem_status qem_cuda_cross_product(qem_context *context, const float *, const float *, uint64_t , uint64_t , uint64_t , double *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "cross_product is not there on the GPU");
}

qem_status qem_cuda_decode(qem_context *context, const qem_decode_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "decode is not there on the GPU");
}
