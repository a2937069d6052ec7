/* Primitives that have no kernels yet. */
#include "backend.cuh"

qem_status qem_cuda_decode(qem_context *context, const qem_decode_args *)
{
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "decode is not there on the GPU");
}
