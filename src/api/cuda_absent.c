/* The functions of qem/cuda.h, and what contexts need of a GPU, in a build without CUDA. */
#include <qem/cuda.h>

#include "../backend.h"

static qem_status absent(qem_context *context)
{
    if (!context) return QEM_ERR_ARGUMENT;
    return qem_fail(context, QEM_ERR_NO_DEVICE, "this build of qem has no CUDA; configure it with QEM_CUDA=ON");
}

qem_status qem_artifact_upload(qem_context *context, const qem_artifact *artifact, int device, void *stream,
                               qem_device_artifact **uploaded)
{
    (void)artifact, (void)device, (void)stream;
    if (uploaded) *uploaded = NULL;
    return absent(context);
}

uint64_t qem_device_artifact_size(const qem_artifact *artifact)
{
    (void)artifact;
    return 0;
}

qem_status qem_artifact_upload_to(qem_context *context, const qem_artifact *artifact, int device, void *memory,
                                  uint64_t bytes, void *stream, qem_device_artifact **uploaded)
{
    (void)artifact, (void)device, (void)memory, (void)bytes, (void)stream;
    if (uploaded) *uploaded = NULL;
    return absent(context);
}

void qem_device_artifact_destroy(qem_device_artifact **artifact)
{
    if (artifact) *artifact = NULL; /* none was ever made */
}

qem_status qem_device_artifact_query(const qem_device_artifact *artifact, qem_device_artifact_info *info)
{
    (void)artifact, (void)info;
    return QEM_ERR_ARGUMENT;
}

uint64_t qem_cuda_dequantize_workspace_size(const qem_device_artifact *artifact, uint64_t rows)
{
    (void)artifact, (void)rows;
    return 0;
}

qem_status qem_cuda_dequantize(qem_context *context, const qem_device_artifact *artifact, uint64_t row_begin,
                               uint64_t row_end, qem_dtype dtype, void *out, uint64_t row_stride, uint32_t *overflow,
                               void *workspace, uint64_t workspace_bytes, void *stream)
{
    (void)artifact, (void)row_begin, (void)row_end, (void)dtype, (void)out, (void)row_stride, (void)overflow,
        (void)workspace;
    (void)workspace_bytes, (void)stream;
    return absent(context);
}

qem_status qem_cuda_context_begin(qem_context *context, int device)
{
    (void)device;
    return absent(context);
}

void qem_cuda_context_end(qem_context *context)
{
    (void)context;
}

void qem_cuda_context_name(const qem_context *context, char *name, size_t size)
{
    (void)context;
    if (size > 0) *name = '\0';
}
