/* The CUDA runtime as the host code of this room uses it: errors, the current device, pointers. */
#ifndef QEM_CUDA_RUNTIME_CUH
#define QEM_CUDA_RUNTIME_CUH

#include "artifact.cuh"

/* The status of a failed call of the runtime; `what` says of what. */
qem_status qem_cuda_fail(qem_context *context, cudaError_t error, const char *what);

/* Makes `device` current; *before is for qem_cuda_leave. NO_DEVICE where there is none. */
qem_status qem_cuda_enter(qem_context *context, int device, int *before);
void qem_cuda_leave(int device, int before);

/* ARGUMENT where `pointer` is no memory of the device, or not aligned to `alignment` bytes. `what` names it. */
qem_status qem_cuda_check_pointer(qem_context *context, const void *pointer, uint64_t alignment, int device,
                                  const char *what);

#define QEM_CUDA_TRY(context, call, what)                                               \
    do {                                                                                \
        const cudaError_t qem_error_ = (call);                                          \
        if (qem_error_ != cudaSuccess) return qem_cuda_fail(context, qem_error_, what); \
    } while (0)

#endif
