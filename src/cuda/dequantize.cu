/* Decoding on the device: checks, and which kernels are enqueued. Nothing here allocates, waits, or asks the device. */
#include "chunks.cuh"
#include "runtime.cuh"

#define MOST_ELEMENTS ((uint64_t)1 << 56)
#define WORKSPACE_ALIGNMENT 16

struct job {
    const qem_device_artifact *artifact;
    uint64_t row_begin, row_end;
    qem_dtype dtype;
    void *out;
    uint64_t row_stride;
    uint32_t *overflow;
    float *workspace;
    cudaStream_t stream;
};

uint64_t qem_cuda_dequantize_workspace_size(const qem_device_artifact *artifact, uint64_t rows)
{
    if (!artifact || !artifact->rotated) return 0;
    const uint64_t row = artifact->cols * sizeof(float) * (artifact->layer_count > 1 ? 2 : 1);
    return rows > UINT64_MAX / row ? UINT64_MAX : rows * row;
}

/* ---- checks ---- */

static qem_status check_numbers(qem_context *context, const job &job, uint64_t workspace_bytes)
{
    const qem_device_artifact *a = job.artifact;
    if (job.row_begin > job.row_end || job.row_end > a->rows)
        return qem_fail(context, QEM_ERR_ARGUMENT, "rows %llu .. %llu lie outside 0 .. %llu",
                        (unsigned long long)job.row_begin, (unsigned long long)job.row_end, (unsigned long long)a->rows);
    if (job.dtype != QEM_DTYPE_F32 && job.dtype != QEM_DTYPE_F16 && job.dtype != QEM_DTYPE_BF16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "output type %s; it is f32, f16 or bf16", qem_dtype_name(job.dtype));
    if (job.row_stride < a->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "row stride %llu is below the %llu columns",
                        (unsigned long long)job.row_stride, (unsigned long long)a->cols);
    const uint64_t rows = job.row_end - job.row_begin, needed = qem_cuda_dequantize_workspace_size(a, rows);
    if (rows > 0 && job.row_stride > MOST_ELEMENTS / rows)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%llu rows at a stride of %llu elements are more than 2^56 elements",
                        (unsigned long long)rows, (unsigned long long)job.row_stride);
    if (needed > 0 && (!job.workspace || workspace_bytes < needed))
        return qem_fail(context, QEM_ERR_ARGUMENT, "workspace of %llu bytes; these rows need %llu",
                        (unsigned long long)(job.workspace ? workspace_bytes : 0), (unsigned long long)needed);
    return QEM_OK;
}

static qem_status check_pointers(qem_context *context, const job &job)
{
    const int device = job.artifact->device;
    QEM_TRY(qem_cuda_check_pointer(context, job.out, qem_dtype_size(job.dtype), device, "out"));
    if (job.overflow) QEM_TRY(qem_cuda_check_pointer(context, job.overflow, sizeof *job.overflow, device, "overflow"));
    if (qem_cuda_dequantize_workspace_size(job.artifact, job.row_end - job.row_begin) == 0) return QEM_OK;
    return qem_cuda_check_pointer(context, job.workspace, WORKSPACE_ALIGNMENT, device, "workspace");
}

/* ---- launches ---- */

/* The job's rows of one segment, as the last kernel writes them. */
static qem_cuda_rows rows_of(const job &job, uint64_t begin, uint64_t end)
{
    qem_cuda_rows rows = qem_cuda_rows();
    rows.cols = job.artifact->cols;
    rows.row_begin = begin;
    rows.rows = end - begin;
    rows.out = (char *)job.out + (begin - job.row_begin) * job.row_stride * qem_dtype_size(job.dtype);
    rows.row_stride = job.row_stride;
    rows.dtype = (uint32_t)job.dtype;
    rows.overflow = job.overflow;
    rows.outliers = job.artifact->outliers;
    return rows;
}

/* The same rows as f32 in a part of the workspace. */
static qem_cuda_rows rows_in(float *workspace, const qem_cuda_rows &rows)
{
    qem_cuda_rows to = rows;
    to.out = workspace;
    to.row_stride = rows.cols;
    to.dtype = QEM_DTYPE_F32;
    to.sum = NULL;
    to.overflow = NULL;
    return to;
}

/* Layers first .. last - 1: one that is rotated, or such that are not. */
static cudaError_t add_layers(const job &job, const qem_cuda_segment &segment, uint32_t first, uint32_t last,
                              const qem_cuda_rows &to)
{
    const qem_cuda_host_stage &stage = *segment.stage[first];
    if (stage.on_device.cells == 0) return qem_cuda_decode_any(segment.stages, first, last, 0, to, job.stream);
    const qem_cuda_rows looked_up = rows_in(job.workspace, to);
    const cudaError_t error = qem_cuda_decode_any(segment.stages, first, last, 1, looked_up, job.stream);
    if (error != cudaSuccess) return error;
    return qem_cuda_decode_rotated(stage, segment.stages + first, job.workspace, to, job.stream);
}

/* Layers in runs; the sum of those before lies in the second half of the workspace. */
static cudaError_t decode_segment(const job &job, const qem_cuda_segment &segment, const qem_cuda_rows &rows)
{
    const uint32_t layers = job.artifact->layer_count;
    int taken;
    const cudaError_t error = qem_cuda_decode_fast(job.artifact, segment, rows, job.stream, &taken);
    if (taken) return error;
    float *const sum = job.workspace ? job.workspace + (job.row_end - job.row_begin) * rows.cols : NULL;
    for (uint32_t first = 0, last; first < layers; first = last) {
        last = first + 1;
        while (!segment.stage[first]->on_device.cells && last < layers && !segment.stage[last]->on_device.cells) last++;
        qem_cuda_rows to = last < layers ? rows_in(sum, rows) : rows;
        to.sum = first > 0 ? sum : NULL;
        const cudaError_t error = add_layers(job, segment, first, last, to);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

static cudaError_t write_outliers(const job &job)
{
    const qem_device_artifact *a = job.artifact;
    uint64_t low = 0, high = QEM_CUDA_OUTLIER_STARTS;
    if (a->outliers.count == 0) return cudaSuccess;
    while (low < QEM_CUDA_OUTLIER_STARTS && qem_cuda_outlier_row(a->rows, low + 1) <= job.row_begin) low++;
    while (high > 0 && qem_cuda_outlier_row(a->rows, high - 1) >= job.row_end) high--;
    return qem_cuda_write_outliers(a->outlier_starts[low], a->outlier_starts[high],
                                   rows_of(job, job.row_begin, job.row_end), job.stream);
}

static cudaError_t enqueue(const job &job)
{
    const qem_device_artifact *a = job.artifact;
    if (job.row_begin == job.row_end) return cudaSuccess;
    for (uint32_t i = 0; i < a->segment_count; i++) {
        const qem_cuda_segment &segment = a->segments[i];
        const uint64_t begin = segment.row_begin > job.row_begin ? segment.row_begin : job.row_begin;
        const uint64_t end = segment.row_end < job.row_end ? segment.row_end : job.row_end;
        if (begin >= end) continue;
        const cudaError_t error = decode_segment(job, segment, rows_of(job, begin, end));
        if (error != cudaSuccess) return error;
    }
    return write_outliers(job);
}

qem_status qem_cuda_dequantize(qem_context *context, const qem_device_artifact *artifact, uint64_t row_begin,
                               uint64_t row_end, qem_dtype dtype, void *out, uint64_t row_stride, uint32_t *overflow,
                               void *workspace, uint64_t workspace_bytes, void *stream)
{
    int before;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !out) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact or out: the pointer is NULL");
    const job job = {
        artifact,           row_begin,           row_end, dtype, out, row_stride ? row_stride : artifact->cols, overflow,
        (float *)workspace, (cudaStream_t)stream
    };
    QEM_TRY(check_numbers(context, job, workspace_bytes));
    QEM_TRY(qem_cuda_enter(context, artifact->device, &before));
    qem_status status = check_pointers(context, job);
    if (status == QEM_OK) {
        const cudaError_t error = enqueue(job);
        if (error != cudaSuccess) status = qem_cuda_fail(context, error, "decoding could not be enqueued");
    }
    qem_cuda_leave(artifact->device, before);
    return status;
}
