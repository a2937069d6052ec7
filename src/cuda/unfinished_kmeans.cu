/* Primitives that have no kernels yet. */
#include "backend.cuh"

qem_status qem_cuda_kmeans(qem_context *context, const qem_kmeans_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "kmeans is not there on the GPU");
}

qem_status qem_cuda_assign(qem_context *context, const qem_kmeans_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "assign is not there on the GPU");
}

qem_status qem_cuda_refine(qem_context *context, const qem_refine_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "refine is not there on the GPU");
}
