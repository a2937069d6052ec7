/* Quantized matrices on a GPU: uploaded once, multiplied by their codes there; activations go there and back. */
#include <cuda_runtime_api.h>

#include "llama.h"

#include <stdlib.h>

/* Device memory that grows. */
typedef struct device_buffer {
    void *memory;
    uint64_t bytes;
} device_buffer;

struct llama_device {
    qem_context *context;
    qem_cuda_blas *blas; /* NULL: products of many positions go by qem's own kernels too */
    cudaStream_t stream;
    device_buffer x, y, workspace;
};

static bool cuda_ok(cudaError_t error, const char *what)
{
    return error == cudaSuccess ? true : fail("--device cuda: %s: %s", what, cudaGetErrorString(error));
}

static bool grow(device_buffer *buffer, uint64_t bytes, const char *what)
{
    if (bytes <= buffer->bytes) return true;
    (void)cudaFree(buffer->memory); /* which waits for the work that uses it */
    *buffer = (device_buffer){ 0 };
    if (!cuda_ok(cudaMalloc(&buffer->memory, bytes), what)) return false;
    buffer->bytes = bytes;
    return true;
}

bool device_open(qem_context *context, llama_device **opened)
{
    llama_device *d = *opened = allocate(1, sizeof *d);
    if (!d) return false;
    d->context = context;
    qem_status status = qem_cuda_blas_create(context, 0, NULL, &d->blas);
    if (status != QEM_OK && status != QEM_ERR_UNSUPPORTED) return fail_library(context, status, "--device cuda");
    return cuda_ok(cudaStreamCreate(&d->stream), "stream"); /* without cuBLAS: slower, but as good */
}

void device_close(llama_device **opened)
{
    llama_device *d = *opened;
    if (!d) return;
    qem_cuda_blas_destroy(&d->blas);
    (void)cudaFree(d->x.memory);
    (void)cudaFree(d->y.memory);
    (void)cudaFree(d->workspace.memory);
    if (d->stream) (void)cudaStreamDestroy(d->stream);
    free(d);
    *opened = NULL;
}

bool device_upload(llama_device *d, weight *matrix)
{
    qem_status status = qem_artifact_upload(d->context, matrix->codes, 0, d->stream, &matrix->uploaded);
    return status == QEM_OK ? true : fail_library(d->context, status, "--device cuda");
}

bool device_apply(llama_device *d, const weight *matrix, const float *x, uint64_t batch, float *y)
{
    const uint64_t x_bytes = batch * matrix->cols * sizeof *x, y_bytes = batch * matrix->rows * sizeof *y;
    const uint64_t scratch =
        qem_cuda_matmul_workspace_size(matrix->uploaded, d->blas, batch, QEM_DTYPE_F32, QEM_DTYPE_F32);
    if (!grow(&d->x, x_bytes, "x") || !grow(&d->y, y_bytes, "y") || !grow(&d->workspace, scratch, "workspace")) return false;
    if (!cuda_ok(cudaMemcpyAsync(d->x.memory, x, x_bytes, cudaMemcpyHostToDevice, d->stream), "x")) return false;
    qem_status status =
        qem_cuda_matmul(d->context, matrix->uploaded, d->blas, batch, QEM_DTYPE_F32, d->x.memory, 0, QEM_DTYPE_F32,
                        d->y.memory, 0, NULL, d->workspace.memory, d->workspace.bytes, d->stream);
    if (status != QEM_OK) return fail_library(d->context, status, "product");
    return cuda_ok(cudaMemcpyAsync(y, d->y.memory, y_bytes, cudaMemcpyDeviceToHost, d->stream), "y") &&
           cuda_ok(cudaStreamSynchronize(d->stream), "product");
}
