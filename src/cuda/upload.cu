/* Artifacts into device memory: the one step of the GPU decode path that allocates and blocks. */
#include "arena.cuh"
#include "chunks.cuh"
#include "product.cuh"

#include <string.h>

/* Limits that recipes and files keep; kernels count on them. */
static qem_status check_artifact(qem_context *context, const qem_artifact *artifact)
{
    const char *beyond = NULL;
    if (artifact->layer_count > QEM_MOST_STAGES) beyond = "layers";
    if (artifact->rows >> 32 || artifact->cols >> 47) beyond = "rows or columns";
    for (uint32_t i = 0; i < artifact->stage_count; i++) {
        const qem_stage *s = &artifact->stages[i];
        if (s->dim > 65535 || s->code_bits > 24) beyond = "columns of a sub-vector, or bits of a code";
        if (s->levels > 8 || s->cells > 256) beyond = "levels of swaps, or cells";
    }
    for (uint32_t l = 0; l < artifact->layer_count; l++)
        for (uint32_t i = 0; i < artifact->layers[l].affine_count; i++)
            if (artifact->layers[l].affine[i].block > 65535) beyond = "columns of a block";
    if (!beyond) return QEM_OK;
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "%s: the GPU decoder does not take so many %s",
                    artifact->name ? artifact->name : "artifact", beyond);
}

static qem_status check_call(qem_context *context, const qem_artifact *artifact, void *stream)
{
    cudaStreamCaptureStatus capture;
    QEM_TRY(check_artifact(context, artifact));
    QEM_CUDA_TRY(context, cudaStreamIsCapturing((cudaStream_t)stream, &capture), "stream");
    if (capture == cudaStreamCaptureStatusNone) return QEM_OK;
    return qem_fail(context, QEM_ERR_ARGUMENT, "stream is being captured; an artifact is uploaded before");
}

uint64_t qem_device_artifact_size(const qem_artifact *artifact)
{
    qem_cuda_arena arena = qem_cuda_arena();
    if (!artifact) return 0;
    qem_cuda_place(&arena, artifact, NULL);
    return arena.used;
}

/* ---- the host's part ---- */

static qem_status make_artifact(qem_context *context, const qem_artifact *artifact, int device, qem_device_artifact **made)
{
    const uint32_t segments = qem_cuda_segment_count(artifact);
    const uint64_t before_segments = sizeof(qem_device_artifact) + artifact->stage_count * sizeof(qem_cuda_host_stage);
    void *memory;
    int number = 0;
    QEM_TRY(qem_allocate_zero(context, before_segments + segments * sizeof(qem_cuda_segment), 1, &memory));
    qem_device_artifact *d = (qem_device_artifact *)memory;
    d->allocator = context->allocator;
    d->device = device;
    d->rows = artifact->rows;
    d->cols = artifact->cols;
    d->layer_count = artifact->layer_count;
    d->stage_count = artifact->stage_count;
    d->segment_count = segments;
    d->stages = (qem_cuda_host_stage *)(d + 1);
    d->segments = (qem_cuda_segment *)((char *)memory + before_segments);
    cudaError_t error = cudaDeviceGetAttribute(&number, cudaDevAttrMultiProcessorCount, device);
    d->processors = number > 0 ? (uint32_t)number : 1;
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&number, cudaDevAttrMaxThreadsPerMultiProcessor, device);
    d->threads_per_processor = number > 0 ? (uint32_t)number : 1024;
    *made = d;
    if (error == cudaSuccess) return QEM_OK;
    qem_release(context, memory);
    *made = NULL;
    return qem_cuda_fail(context, error, "attributes of the GPU");
}

static qem_status load_kernels(qem_context *context)
{
    cudaError_t (*const loads[])(void) = { qem_cuda_load_any,     qem_cuda_load_rotate,  qem_cuda_load_outliers,
                                           qem_cuda_load_vectors, qem_cuda_load_scalars, qem_cuda_load_stepped,
                                           qem_cuda_load_slabs,   qem_cuda_load_swapped,
                                           qem_cuda_load_scalar_products, qem_cuda_load_vector_products,
                                           qem_cuda_load_group_products, qem_cuda_load_float_products };
    for (uint32_t i = 0; i < sizeof loads / sizeof *loads; i++)
        QEM_CUDA_TRY(context, loads[i](), "loading the GPU's kernels");
    return QEM_OK;
}

/* Places the artifact and waits for the copies. */
static qem_status fill(qem_context *context, const qem_artifact *artifact, qem_device_artifact *d, cudaStream_t stream)
{
    qem_cuda_arena arena = qem_cuda_arena();
    arena.context = context;
    arena.memory = (unsigned char *)d->memory;
    arena.bytes = d->bytes;
    arena.stream = stream;
    qem_cuda_place(&arena, artifact, d);
    const cudaError_t error = cudaStreamSynchronize(stream); /* after a failure too: copies may be under way */
    qem_cuda_arena_end(&arena);
    QEM_TRY(arena.status);
    if (error != cudaSuccess) return qem_cuda_fail(context, error, "copying to the GPU");
    return QEM_OK;
}

/* On the artifact's device. memory NULL: it is allocated. */
static qem_status upload(qem_context *context, const qem_artifact *artifact, int device, void *memory, cudaStream_t stream,
                         qem_device_artifact **uploaded)
{
    qem_device_artifact *d;
    QEM_TRY(check_call(context, artifact, stream));
    QEM_TRY(load_kernels(context));
    QEM_TRY(make_artifact(context, artifact, device, &d));
    d->bytes = qem_device_artifact_size(artifact);
    d->memory = memory;
    d->owns_memory = !memory;
    qem_status status = QEM_OK;
    if (!memory) {
        const cudaError_t error = cudaMalloc(&d->memory, d->bytes);
        if (error != cudaSuccess) status = qem_cuda_fail(context, error, "device memory for the artifact");
        if (error != cudaSuccess) d->memory = NULL;
    }
    if (status == QEM_OK) status = fill(context, artifact, d, stream);
    if (status == QEM_OK) {
        *uploaded = d;
        return QEM_OK;
    }
    if (d->owns_memory && d->memory) (void)cudaFree(d->memory);
    qem_release(context, d);
    return status;
}

qem_status qem_artifact_upload(qem_context *context, const qem_artifact *artifact, int device, void *stream,
                               qem_device_artifact **uploaded)
{
    int before;
    if (uploaded) *uploaded = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !uploaded) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact or uploaded: the pointer is NULL");
    QEM_TRY(qem_cuda_enter(context, device, &before));
    const qem_status status = upload(context, artifact, device, NULL, (cudaStream_t)stream, uploaded);
    qem_cuda_leave(device, before);
    return status;
}

qem_status qem_artifact_upload_to(qem_context *context, const qem_artifact *artifact, int device, void *memory,
                                  uint64_t bytes, void *stream, qem_device_artifact **uploaded)
{
    int before;
    if (uploaded) *uploaded = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !memory || !uploaded)
        return qem_fail(context, QEM_ERR_ARGUMENT, "artifact, memory or uploaded: the pointer is NULL");
    const uint64_t needed = qem_device_artifact_size(artifact);
    if (bytes < needed)
        return qem_fail(context, QEM_ERR_ARGUMENT, "memory of %llu bytes; the artifact takes %llu",
                        (unsigned long long)bytes, (unsigned long long)needed);
    QEM_TRY(qem_cuda_enter(context, device, &before));
    qem_status status = qem_cuda_check_pointer(context, memory, QEM_CUDA_ALIGNMENT, device, "memory");
    if (status == QEM_OK) status = upload(context, artifact, device, memory, (cudaStream_t)stream, uploaded);
    qem_cuda_leave(device, before);
    return status;
}

void qem_device_artifact_destroy(qem_device_artifact **artifact)
{
    int before;
    if (!artifact || !*artifact) return;
    qem_device_artifact *d = *artifact;
    *artifact = NULL;
    if (d->owns_memory && cudaGetDevice(&before) == cudaSuccess) { /* a driver that is shutting down has freed it */
        if (before == d->device || cudaSetDevice(d->device) == cudaSuccess) (void)cudaFree(d->memory);
        qem_cuda_leave(d->device, before);
    }
    const qem_allocator allocator = d->allocator;
    allocator.release(allocator.user, d);
}

qem_status qem_device_artifact_query(const qem_device_artifact *artifact, qem_device_artifact_info *info)
{
    if (!artifact || !info || info->size != sizeof *info || info->version != 1) return QEM_ERR_ARGUMENT;
    const qem_device_artifact_info none = QEM_DEVICE_ARTIFACT_INFO_INIT;
    *info = none;
    info->device = artifact->device;
    info->rows = artifact->rows;
    info->cols = artifact->cols;
    info->bytes = artifact->bytes;
    info->memory = artifact->memory;
    return QEM_OK;
}
