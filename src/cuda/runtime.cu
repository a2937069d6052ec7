#include "runtime.cuh"

qem_status qem_cuda_fail(qem_context *context, cudaError_t error, const char *what)
{
    qem_status status = QEM_ERR_INTERNAL;
    (void)cudaGetLastError(); /* reported here: the caller's next check of its own launches must not find it */
    switch (error) {
    case cudaErrorMemoryAllocation: status = QEM_ERR_MEMORY; break;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary:
    case cudaErrorSystemDriverMismatch: status = QEM_ERR_NO_DEVICE; break;
    default: break;
    }
    return qem_fail(context, status, "%s: %s (CUDA error %d)", what, cudaGetErrorString(error), (int)error);
}

qem_status qem_cuda_enter(qem_context *context, int device, int *before)
{
    int count = 0;
    QEM_CUDA_TRY(context, cudaGetDeviceCount(&count), "no GPU can be used");
    if (device < 0 || device >= count)
        return qem_fail(context, QEM_ERR_NO_DEVICE, "there is no GPU %d; this machine has %d", device, count);
    QEM_CUDA_TRY(context, cudaGetDevice(before), "the current GPU");
    if (*before != device) QEM_CUDA_TRY(context, cudaSetDevice(device), "the GPU cannot be used");
    return QEM_OK;
}

void qem_cuda_leave(int device, int before)
{
    if (before != device) (void)cudaSetDevice(before);
}

qem_status qem_cuda_check_pointer(qem_context *context, const void *pointer, uint64_t alignment, int device,
                                  const char *what)
{
    cudaPointerAttributes attributes;
    if ((uintptr_t)pointer % alignment)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s is not aligned to %llu bytes", what, (unsigned long long)alignment);
    QEM_CUDA_TRY(context, cudaPointerGetAttributes(&attributes, pointer), what);
    if (attributes.type == cudaMemoryTypeManaged) return QEM_OK;
    if (attributes.type != cudaMemoryTypeDevice)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s is host memory; it has to lie on GPU %d", what, device);
    if (attributes.device != device)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s lies on GPU %d, the artifact on GPU %d", what, attributes.device,
                        device);
    return QEM_OK;
}
