/* Products of rows of x with a quantized matrix: argument checks and the workspace. */
#include "api.h"

#define ALIGNMENT 64
#define MOST_BATCH UINT32_MAX
#define MOST_SPAN ((uint64_t)1 << 56) /* elements from the first to past the last, so that no size overflows */

static qem_status check_matrix(qem_context *context, const char *what, qem_dtype dtype, const void *data, uint64_t batch,
                               uint64_t width, uint64_t stride)
{
    if (dtype != QEM_DTYPE_F32 && dtype != QEM_DTYPE_F16 && dtype != QEM_DTYPE_BF16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: type %s; it is f32, f16 or bf16", what, qem_dtype_name(dtype));
    if (stride < width)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: the stride %llu is below the width %llu of its rows", what,
                        (unsigned long long)stride, (unsigned long long)width);
    if (batch > 0 && stride > MOST_SPAN / batch)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu rows with a stride of %llu elements are beyond 2^56 elements", what,
                        (unsigned long long)batch, (unsigned long long)stride);
    if ((uintptr_t)data % qem_dtype_size(dtype))
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s is not aligned to its element of %zu bytes", what, qem_dtype_size(dtype));
    return QEM_OK;
}

/* The product with the rows from row_begin on that have the same stages. */
static uint64_t set_range(const qem_artifact *artifact, uint64_t row_begin, qem_decode_stage *stages, qem_matmul_args *args)
{
    args->row_begin = row_begin;
    args->row_end = qem_decode_stages(artifact, row_begin, stages, &args->outliers);
    return args->row_end;
}

/* The most that a range of rows needs. Of the type of x only its being f32 matters: f32 rows are read where they lie. */
static uint64_t bytes_needed(const qem_context *context, const qem_artifact *artifact, uint64_t batch, qem_dtype x_dtype)
{
    qem_decode_stage stages[QEM_MOST_STAGES];
    qem_matmul_args args = { .rows = artifact->rows, .cols = artifact->cols, .stage_count = artifact->layer_count,
                             .stages = stages, .batch = batch, .x_dtype = x_dtype };
    uint64_t most = 0;
    for (uint64_t row = 0; row < artifact->rows;) {
        row = set_range(artifact, row, stages, &args);
        const uint64_t bytes = context->backend->matmul_workspace(context, &args);
        if (bytes > most) most = bytes;
    }
    return most + ALIGNMENT; /* to align a pointer that is not */
}

uint64_t qem_matmul_workspace_size(const qem_context *context, const qem_artifact *artifact, uint64_t batch)
{
    if (!context || !artifact || batch == 0 || batch > MOST_BATCH || !context->backend->matmul) return 0;
    return bytes_needed(context, artifact, batch, QEM_DTYPE_F16);
}

/* The caller's workspace if it is large enough, or one that *owned holds. */
static qem_status take_workspace(qem_context *context, const qem_artifact *artifact, qem_matmul_args *args, void *given,
                                 uint64_t given_bytes, void **owned)
{
    *owned = NULL;
    if (!given) {
        if (given_bytes > 0)
            return qem_fail(context, QEM_ERR_ARGUMENT, "workspace: the pointer is NULL, but its size is %llu bytes; NULL and 0 "
                            "ask for one to be allocated", (unsigned long long)given_bytes);
        const uint64_t bytes = bytes_needed(context, artifact, args->batch, args->x_dtype);
        QEM_TRY(context->backend->alloc(context, bytes, 1, owned));
        given = *owned;
    } else {
        const uint64_t needed = bytes_needed(context, artifact, args->batch, QEM_DTYPE_F16);
        if (given_bytes < needed)
            return qem_fail(context, QEM_ERR_ARGUMENT, "workspace: %llu bytes are too few, qem_matmul_workspace_size says %llu",
                            (unsigned long long)given_bytes, (unsigned long long)needed);
    }
    args->workspace = (unsigned char *)given + (ALIGNMENT - (uintptr_t)given % ALIGNMENT) % ALIGNMENT;
    return QEM_OK;
}

qem_status qem_matmul(qem_context *context, const qem_artifact *artifact, uint64_t batch, qem_dtype x_dtype, const void *x,
                      uint64_t x_stride, qem_dtype y_dtype, void *y, uint64_t y_stride, void *workspace,
                      uint64_t workspace_bytes)
{
    qem_decode_stage stages[QEM_MOST_STAGES];
    int overflow = 0;
    void *owned;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !x || !y) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact, x or y: the pointer is NULL");
    if (batch > MOST_BATCH)
        return qem_fail(context, QEM_ERR_ARGUMENT, "batch %llu is beyond 2^32 - 1", (unsigned long long)batch);
    qem_matmul_args args = { .rows = artifact->rows, .cols = artifact->cols, .stage_count = artifact->layer_count,
                             .stages = stages, .batch = batch, .x_dtype = x_dtype, .y_dtype = y_dtype, .x = x, .x_stride = x_stride ? x_stride : artifact->cols,
                             .y_stride = y_stride ? y_stride : artifact->rows };
    QEM_TRY(check_matrix(context, "x", x_dtype, x, batch, args.cols, args.x_stride));
    QEM_TRY(check_matrix(context, "y", y_dtype, y, batch, args.rows, args.y_stride));
    if (!context->backend->matmul)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "products on codes are made by contexts of the CPU; on a GPU decode the matrix "
                        "first (qem_cuda_dequantize)");
    if (batch == 0) return QEM_OK;
    QEM_TRY(take_workspace(context, artifact, &args, workspace, workspace_bytes, &owned));
    for (uint64_t row = 0; row < artifact->rows;) {
        int here = 0;
        args.overflow = &here;
        args.y = (unsigned char *)y + row * qem_dtype_size(y_dtype);
        row = set_range(artifact, row, stages, &args);
        context->backend->matmul(context, &args);
        overflow |= here;
    }
    context->backend->release(context, owned);
    if (overflow)
        return qem_fail(context, QEM_ERR_RANGE, "%s: values of y are beyond the range of %s", artifact->name,
                        qem_dtype_name(y_dtype));
    return QEM_OK;
}
