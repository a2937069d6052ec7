/*
 * Any view -> f32 row-major on the GPU, every element checked. Host memory goes over as it is, packed on the host where its
 * elements do not lie side by side, and is converted on the GPU; device memory is read where it lies.
 *
 * Bytes: an element of the view read and 4 bytes written, once each; f32 that lies side by side is copied and then read
 * once, and f32 in device memory that lies side by side is only read.
 */
#include "backend.cuh"

#include <math.h>
#include <string.h>

#define PIECE_BYTES ((uint64_t)8 << 20) /* of host memory that goes over at once */

/* Elements of a view in device memory; steps in bytes. */
struct raw_view {
    const unsigned char *data;
    uint64_t rows, cols, row_step, col_step;
    uint32_t dtype;
};

static __device__ __forceinline__ float read_element(const unsigned char *p, uint32_t dtype)
{
    switch (dtype) {
    case QEM_DTYPE_F32: return *(const float *)p;
    case QEM_DTYPE_F16: return qem_f16_value(*(const uint16_t *)p);
    case QEM_DTYPE_BF16: return qem_bf16_value(*(const uint16_t *)p);
    case QEM_DTYPE_F64: return (float)*(const double *)p;
    default: return (float)*p;
    }
}

/* x NULL: they are only checked. first: number of the view's first element; bad: the least number of one that is not
 * finite. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    convert(raw_view view, uint64_t first, float *x, unsigned long long *bad)
{
    const uint64_t count = view.rows * view.cols;
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) {
        const uint64_t row = i / view.cols, col = i - row * view.cols;
        const float value = read_element(view.data + row * view.row_step + col * view.col_step, view.dtype);
        if (x) x[i] = value;
        if ((__float_as_uint(value) & 0x7f800000u) == 0x7f800000u) atomicMin(bad, (unsigned long long)(first + i));
    }
}

/* One view to be loaded. */
struct load_job {
    qem_cuda_call &call;
    const qem_view *view;
    uint64_t element, row_step, col_step;
    float *x; /* device */
    unsigned long long *bad;
};

static qem_status launch(const load_job &job, const void *data, uint64_t first_row, uint64_t rows, uint64_t row_step,
                         uint64_t col_step, float *x)
{
    const uint64_t cols = job.view->cols;
    const raw_view raw = { (const unsigned char *)data, rows, cols, row_step, col_step, (uint32_t)job.view->dtype };
    return job.call.launch(QEM_LAUNCH(convert, job.call.blocks(rows * cols), QEM_CUDA_THREADS, 0, job.call.stream, raw,
                                      first_row * cols, x, job.bad));
}

/* Rows side by side, in host memory of their own. */
static void pack_rows(const load_job &job, uint64_t first, uint64_t rows, unsigned char *to)
{
    const uint64_t cols = job.view->cols, element = job.element;
    for (uint64_t i = 0; i < rows; i++) {
        const unsigned char *from = (const unsigned char *)job.view->data + (first + i) * job.row_step;
        unsigned char *const row = to + i * cols * element;
        if (job.col_step == element)
            memcpy(row, from, cols * element);
        else
            for (uint64_t j = 0; j < cols; j++) memcpy(row + j * element, from + j * job.col_step, element);
    }
}

static qem_status load_piece(const load_job &job, uint64_t first, uint64_t rows, void *packed, void *raw)
{
    const uint64_t cols = job.view->cols, bytes = rows * cols * job.element;
    const void *from = (const unsigned char *)job.view->data + first * job.row_step;
    float *const x = job.x + first * cols;
    void *const to = job.view->dtype == QEM_DTYPE_F32 ? (void *)x : raw;
    if (packed) {
        pack_rows(job, first, rows, (unsigned char *)packed);
        from = packed;
    }
    QEM_TRY(job.call.to_device(to, from, bytes));
    return launch(job, to, first, rows, cols * job.element, job.element, x == to ? nullptr : x);
}

static qem_status load_host(const load_job &job)
{
    const uint64_t cols = job.view->cols, rows = job.view->rows, row_bytes = cols * job.element;
    const uint64_t most = row_bytes >= PIECE_BYTES ? 1 : PIECE_BYTES / row_bytes, step = most < rows ? most : rows;
    const int side_by_side = job.col_step == job.element && (job.row_step == row_bytes || rows == 1);
    unsigned char *raw = nullptr;
    void *packed = nullptr;
    if (job.view->dtype != QEM_DTYPE_F32) QEM_TRY(job.call.take(step * row_bytes, &raw));
    if (!side_by_side) QEM_TRY(qem_allocate(job.call.context, step, row_bytes, &packed));
    qem_status status = QEM_OK;
    for (uint64_t row = 0; row < rows && status == QEM_OK; row += step)
        status = load_piece(job, row, rows - row < step ? rows - row : step, packed, raw);
    qem_release(job.call.context, packed);
    return status;
}

/* DATA where an element is not finite. */
static qem_status check(const load_job &job, const char *what, const float *x)
{
    unsigned long long bad;
    float value;
    QEM_TRY(job.call.to_host(&bad, job.bad, sizeof bad));
    if (bad == UINT64_MAX) return QEM_OK;
    QEM_TRY(job.call.to_host(&value, x + bad, sizeof value));
    return qem_fail(job.call.context, QEM_ERR_DATA, "%s: element (%llu, %llu) is %s; every element must be a finite f32",
                    what, bad / job.view->cols, bad % job.view->cols,
                    isnan(value)                       ? "NaN"
                    : job.view->dtype == QEM_DTYPE_F64 ? "infinite or beyond the range of f32"
                                                       : "infinite");
}

static qem_status is_on_device(qem_cuda_call &call, const qem_view *view, const char *what, int *on_device)
{
    cudaPointerAttributes attributes;
    *on_device = 0;
    QEM_CUDA_TRY(call.context, cudaPointerGetAttributes(&attributes, view->data), what);
    if (attributes.type != cudaMemoryTypeDevice) return QEM_OK;
    if (attributes.device != call.state->device)
        return qem_fail(call.context, QEM_ERR_ARGUMENT, "%s lies on GPU %d, the context on GPU %d", what, attributes.device,
                        call.state->device);
    *on_device = 1;
    return QEM_OK;
}

static qem_status run(load_job &job, const char *what, int on_device, int borrowed, qem_matrix *matrix)
{
    const unsigned long long none = UINT64_MAX;
    const qem_view *const view = job.view;
    QEM_TRY(job.call.put(&none, 1, &job.bad));
    QEM_TRY(on_device ? launch(job, view->data, 0, view->rows, job.row_step, job.col_step, job.x) : load_host(job));
    matrix->x = borrowed ? (const float *)view->data : job.x;
    return check(job, what, matrix->x);
}

qem_status qem_cuda_load(qem_context *context, const qem_view *view, const char *what, qem_matrix *matrix)
{
    qem_cuda_call call(context);
    load_job job = { call, view, qem_dtype_size(view->dtype), 0, 0, nullptr, nullptr };
    int on_device;
    *matrix = { nullptr, view->rows, view->cols, nullptr };
    QEM_TRY(call.status);
    job.col_step = (view->col_stride ? view->col_stride : 1) * job.element;
    job.row_step =
        view->row_pitch_bytes ? view->row_pitch_bytes : (view->row_stride ? view->row_stride : view->cols) * job.element;
    QEM_TRY(is_on_device(call, view, what, &on_device));
    if (on_device && ((uintptr_t)view->data % job.element || job.row_step % job.element))
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: the rows are not aligned to their element of %llu bytes", what,
                        (unsigned long long)job.element);
    const int borrowed = on_device && view->dtype == QEM_DTYPE_F32 && job.col_step == job.element &&
                         (job.row_step == view->cols * job.element || view->rows == 1);
    void *memory = nullptr;
    if (!borrowed) QEM_TRY(qem_cuda_alloc(context, view->rows * view->cols, sizeof(float), &memory));
    matrix->owned = job.x = (float *)memory;
    const qem_status status = run(job, what, on_device, borrowed, matrix);
    if (status != QEM_OK) {
        (void)call.wait();
        qem_cuda_release(context, memory);
        *matrix = { nullptr, view->rows, view->cols, nullptr };
    }
    return status;
}
