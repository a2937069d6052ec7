/* Products with the rows of an artifact: checks, which kernels are enqueued, and what lies where in the workspace. Nothing
 * here allocates, waits, or asks the device. */
#include "blas.cuh"
#include "product.cuh"

#define MOST_ELEMENTS ((uint64_t)1 << 56)
#ifndef QEM_CUDA_PIECE_BYTES /* smaller in tests */
#define QEM_CUDA_PIECE_BYTES ((uint64_t)16 << 20)
#endif
#define FLOAT_BYTES QEM_CUDA_PIECE_BYTES      /* of rows decoded to f32 at once: they stay in a large L2 */
#define SUM_BYTES QEM_CUDA_PIECE_BYTES        /* of sums of runs at once */
#define TILE_BYTES (2 * QEM_CUDA_PIECE_BYTES) /* of rows decoded for cuBLAS at once: so many make a product worth its launch */
#define LEAST_ROWS 32                         /* of W in any of those, however wide they are, */
#define LEAST_BATCH 256                       /* and of x in sums of cuBLAS */

struct matmul_job {
    const qem_device_artifact *artifact;
    qem_cuda_blas *blas;
    uint64_t batch;
    qem_dtype x_dtype, y_dtype;
    const void *x;
    void *y;
    uint64_t x_stride, y_stride;
    uint32_t *overflow;
    void *workspace;
    uint64_t workspace_bytes;
    cudaStream_t stream;
};

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + QEM_CUDA_ALIGNMENT - 1) / QEM_CUDA_ALIGNMENT * QEM_CUDA_ALIGNMENT;
}

/* ---- which kernels ---- */

enum product_way { BY_FLOATS, BY_SCALARS, BY_VECTORS, BY_GROUPS };

static product_way way_of(const qem_device_artifact *a, const qem_cuda_segment &segment)
{
    const qem_cuda_host_stage &stage = *segment.stage[0];
    if (a->layer_count > 1 || a->outliers.count) return BY_FLOATS;
    if (qem_cuda_multiplies_scalars(stage, a->cols)) return BY_SCALARS;
    if (qem_cuda_multiplies_vectors(stage, a->cols)) return BY_VECTORS;
    return qem_cuda_multiplies_groups(stage, a->cols) ? BY_GROUPS : BY_FLOATS;
}

static int takes_blas(const qem_cuda_blas *blas, uint64_t batch) { return blas && batch >= QEM_CUDA_MATMUL_BLAS_BATCH; }

/* ---- the workspace ---- */

/* So many rows that what each needs fits. */
static uint64_t rows_that_fit(uint64_t rows, uint64_t row_bytes, uint64_t bytes)
{
    const uint64_t fit = bytes / row_bytes;
    return least(rows, fit < LEAST_ROWS ? LEAST_ROWS : fit);
}

static uint64_t float_rows(const qem_device_artifact *a)
{
    return rows_that_fit(a->rows, qem_cuda_float_stride(a->cols) * sizeof(float), FLOAT_BYTES);
}

/* Sums of runs for a row of W. */
static uint64_t sum_row_bytes(const qem_device_artifact *a, uint64_t batch)
{
    return qem_cuda_group_sums(a->cols, (uint32_t)least(batch, QEM_PRODUCT_BATCH)) * sizeof(float);
}

static uint64_t sum_rows(const qem_device_artifact *a, uint64_t batch)
{
    return rows_that_fit(a->rows, sum_row_bytes(a, batch), SUM_BYTES);
}

/* Whatever the rounding of sum_rows() is: never less for a larger batch. */
static uint64_t sum_bytes(const qem_device_artifact *a, uint64_t batch)
{
    const uint64_t row = sum_row_bytes(a, batch), some = LEAST_ROWS * row, most = some > SUM_BYTES ? some : SUM_BYTES;
    return a->rows > most / row ? most : a->rows * row;
}

/* By kernels of our own. Columns are below 2^47: no number here overflows. */
static uint64_t own_bytes(const qem_device_artifact *a, uint64_t batch)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < a->segment_count; i++) {
        const product_way way = way_of(a, a->segments[i]);
        uint64_t bytes = 0;
        if (way == BY_GROUPS) bytes = sum_bytes(a, batch);
        if (way == BY_FLOATS)
            bytes = aligned(float_rows(a) * qem_cuda_float_stride(a->cols) * sizeof(float)) +
                    qem_cuda_dequantize_workspace_size(a, float_rows(a));
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* What lies in the workspace of a product by cuBLAS: rows of W in the type of x, their sums where y is not f32, the
 * decoder's part, cuBLAS's. */
struct blas_plan {
    uint64_t rows, stride, batch; /* of W at once; elements; rows of x at once */
    uint64_t sums, decoder, blas, bytes; /* where they begin, and all */
};

static blas_plan plan_blas(const qem_device_artifact *a, const qem_cuda_blas *blas, uint64_t batch, qem_dtype x_dtype,
                           qem_dtype y_dtype)
{
    const uint64_t size = qem_dtype_size(x_dtype), chunk = 16 / size;
    blas_plan plan;
    plan.stride = (a->cols + chunk - 1) / chunk * chunk; /* the decoder's faster kernels want that, and so does cuBLAS */
    plan.rows = rows_that_fit(a->rows, plan.stride * size, TILE_BYTES);
    if (y_dtype != QEM_DTYPE_F32) plan.rows = least(plan.rows, TILE_BYTES / (LEAST_BATCH * sizeof(float)));
    const uint64_t fit = TILE_BYTES / (plan.rows * sizeof(float));
    plan.batch = least(batch, fit < LEAST_BATCH ? LEAST_BATCH : fit);
    plan.sums = aligned(plan.rows * plan.stride * size);
    plan.decoder = plan.sums + (y_dtype == QEM_DTYPE_F32 ? 0 : aligned(plan.rows * plan.batch * sizeof(float)));
    plan.blas = aligned(plan.decoder + qem_cuda_dequantize_workspace_size(a, plan.rows));
    plan.bytes = plan.blas + blas->workspace_bytes;
    return plan;
}

uint64_t qem_cuda_matmul_workspace_size(const qem_device_artifact *artifact, const qem_cuda_blas *blas, uint64_t batch,
                                        qem_dtype x_dtype, qem_dtype y_dtype)
{
    if (!artifact || batch == 0 || batch > UINT32_MAX || !qem_dtype_size(x_dtype) || !qem_dtype_size(y_dtype)) return 0;
    const uint64_t own = own_bytes(artifact, batch);
    if (!takes_blas(blas, batch)) return own;
    const uint64_t by_blas = plan_blas(artifact, blas, batch, x_dtype, y_dtype).bytes;
    return own > by_blas ? own : by_blas; /* never less for a larger batch */
}

/* ---- checks ---- */

static qem_status check_matrix(qem_context *context, const char *what, qem_dtype dtype, uint64_t batch, uint64_t width,
                               uint64_t stride)
{
    if (dtype != QEM_DTYPE_F32 && dtype != QEM_DTYPE_F16 && dtype != QEM_DTYPE_BF16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: type %s; it is f32, f16 or bf16", what, qem_dtype_name(dtype));
    if (stride < width)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: the stride %llu is below the width %llu of its rows", what,
                        (unsigned long long)stride, (unsigned long long)width);
    if (batch > 0 && stride > MOST_ELEMENTS / batch)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu rows with a stride of %llu elements are beyond 2^56 elements",
                        what, (unsigned long long)batch, (unsigned long long)stride);
    return QEM_OK;
}

static qem_status check_numbers(qem_context *context, const matmul_job &job)
{
    const qem_device_artifact *a = job.artifact;
    if (job.batch > UINT32_MAX)
        return qem_fail(context, QEM_ERR_ARGUMENT, "batch %llu is beyond 2^32 - 1", (unsigned long long)job.batch);
    QEM_TRY(check_matrix(context, "x", job.x_dtype, job.batch, a->cols, job.x_stride));
    QEM_TRY(check_matrix(context, "y", job.y_dtype, job.batch, a->rows, job.y_stride));
    if (job.blas && job.blas->device != a->device)
        return qem_fail(context, QEM_ERR_ARGUMENT, "blas is of GPU %d, the artifact on GPU %d", job.blas->device, a->device);
    const uint64_t needed = qem_cuda_matmul_workspace_size(a, job.blas, job.batch, job.x_dtype, job.y_dtype);
    if (needed > 0 && (!job.workspace || job.workspace_bytes < needed))
        return qem_fail(context, QEM_ERR_ARGUMENT, "workspace of %llu bytes; this product needs %llu",
                        (unsigned long long)(job.workspace ? job.workspace_bytes : 0), (unsigned long long)needed);
    return QEM_OK;
}

static qem_status check_pointers(qem_context *context, const matmul_job &job)
{
    const int device = job.artifact->device;
    QEM_TRY(qem_cuda_check_pointer(context, job.x, qem_dtype_size(job.x_dtype), device, "x"));
    QEM_TRY(qem_cuda_check_pointer(context, job.y, qem_dtype_size(job.y_dtype), device, "y"));
    if (job.overflow) QEM_TRY(qem_cuda_check_pointer(context, job.overflow, sizeof *job.overflow, device, "overflow"));
    if (qem_cuda_matmul_workspace_size(job.artifact, job.blas, job.batch, job.x_dtype, job.y_dtype) == 0) return QEM_OK;
    return qem_cuda_check_pointer(context, job.workspace, QEM_CUDA_ALIGNMENT, device, "workspace");
}

/* ---- by kernels of our own ---- */

/* Rows row .. row + rows - 1 of W with rows b .. of x, as many as a launch takes. */
static qem_cuda_product product_of(const matmul_job &job, uint64_t row, uint64_t rows, uint64_t b)
{
    const uint64_t size = qem_dtype_size(job.x_dtype);
    qem_cuda_product p = qem_cuda_product();
    p.x = (const char *)job.x + b * job.x_stride * size;
    p.y = (char *)job.y + (b * job.y_stride + row) * qem_dtype_size(job.y_dtype);
    p.x_stride = job.x_stride;
    p.y_stride = job.y_stride;
    p.overflow = job.overflow;
    p.cols = job.artifact->cols;
    p.row = row;
    p.rows = rows;
    p.x_dtype = (uint32_t)job.x_dtype;
    p.y_dtype = (uint32_t)job.y_dtype;
    p.batch = (uint32_t)least(job.batch - b, QEM_PRODUCT_BATCH);
    p.x_quads = (uintptr_t)p.x % (4 * size) == 0 && (p.batch == 1 || p.x_stride % 4 == 0);
    return p;
}

static cudaError_t multiply_codes(const matmul_job &job, const qem_cuda_host_stage &stage, product_way way,
                                  const qem_cuda_product &p)
{
    const uint32_t processors = job.artifact->processors;
    if (way == BY_SCALARS) return qem_cuda_multiply_scalars(stage, p, processors, job.stream);
    if (way == BY_VECTORS) return qem_cuda_multiply_vectors(stage, p, processors, job.stream);
    return qem_cuda_multiply_groups(stage, p, (float *)job.workspace, processors, job.stream);
}

/* Rows begin .. end - 1, decoded in pieces. */
static cudaError_t multiply_decoded(const matmul_job &job, uint64_t begin, uint64_t end)
{
    const qem_device_artifact *a = job.artifact;
    const uint64_t most = float_rows(a), stride = qem_cuda_float_stride(a->cols);
    void *const decoder = (char *)job.workspace + aligned(most * stride * sizeof(float));
    for (uint64_t row = begin; row < end; row += most) {
        const uint64_t rows = least(most, end - row);
        cudaError_t error =
            qem_cuda_decode_rows(a, row, row + rows, QEM_DTYPE_F32, job.workspace, stride, NULL, decoder, job.stream);
        for (uint64_t b = 0; error == cudaSuccess && b < job.batch; b += QEM_PRODUCT_BATCH)
            error = qem_cuda_multiply_floats((const float *)job.workspace, product_of(job, row, rows, b), a->processors,
                                             job.stream);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

static cudaError_t multiply_own(const matmul_job &job)
{
    const qem_device_artifact *a = job.artifact;
    for (uint32_t i = 0; i < a->segment_count; i++) {
        const qem_cuda_segment &segment = a->segments[i];
        const product_way way = way_of(a, segment);
        const uint64_t most = way == BY_GROUPS ? sum_rows(a, job.batch) : segment.row_end;
        cudaError_t error = way == BY_FLOATS ? multiply_decoded(job, segment.row_begin, segment.row_end) : cudaSuccess;
        for (uint64_t row = segment.row_begin; way != BY_FLOATS && row < segment.row_end; row += most)
            for (uint64_t b = 0; error == cudaSuccess && b < job.batch; b += QEM_PRODUCT_BATCH)
                error = multiply_codes(job, *segment.stage[0], way,
                                       product_of(job, row, least(most, segment.row_end - row), b));
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

/* ---- by cuBLAS ---- */

/* `rows` rows of W that lie decoded in the workspace, with all rows of x. */
static qem_status multiply_tile(qem_context *context, const matmul_job &job, const blas_plan &plan, uint64_t row,
                                uint64_t rows)
{
    const uint64_t x_size = qem_dtype_size(job.x_dtype), y_size = qem_dtype_size(job.y_dtype);
    float *const sums = (float *)((char *)job.workspace + plan.sums);
    for (uint64_t b = 0; b < job.batch; b += plan.batch) {
        const uint64_t batch = least(plan.batch, job.batch - b);
        qem_cuda_product p = product_of(job, row, rows, b);
        const int direct = job.y_dtype == QEM_DTYPE_F32;
        const qem_cuda_gemm gemm = { batch, rows, job.artifact->cols, (uint32_t)job.x_dtype,
                                     (const char *)job.x + b * job.x_stride * x_size, job.workspace,
                                     direct ? (float *)job.y + b * job.y_stride + row : sums, job.x_stride, plan.stride,
                                     direct ? job.y_stride : rows };
        QEM_TRY(qem_cuda_blas_multiply(context, job.blas, gemm));
        p.batch = (uint32_t)batch;
        p.y = (char *)job.y + (b * job.y_stride + row) * y_size;
        if (!direct) QEM_CUDA_TRY(context, qem_cuda_store_sums(sums, p, job.stream), "storing sums could not be enqueued");
    }
    return QEM_OK;
}

static qem_status multiply_tiles(qem_context *context, const matmul_job &job, const blas_plan &plan)
{
    const qem_device_artifact *a = job.artifact;
    for (uint64_t row = 0; row < a->rows; row += plan.rows) {
        const uint64_t rows = least(plan.rows, a->rows - row);
        QEM_CUDA_TRY(context,
                     qem_cuda_decode_rows(a, row, row + rows, (uint32_t)job.x_dtype, job.workspace, plan.stride,
                                          job.overflow, (char *)job.workspace + plan.decoder, job.stream),
                     "decoding could not be enqueued");
        QEM_TRY(multiply_tile(context, job, plan, row, rows));
    }
    return QEM_OK;
}

static qem_status multiply_by_blas(qem_context *context, const matmul_job &job)
{
    const blas_plan plan = plan_blas(job.artifact, job.blas, job.batch, job.x_dtype, job.y_dtype);
    qem_cuda_blas_state before;
    QEM_TRY(qem_cuda_blas_begin(context, job.blas, (char *)job.workspace + plan.blas, job.stream, &before));
    const qem_status status = multiply_tiles(context, job, plan);
    const qem_status ended = qem_cuda_blas_end(context, job.blas, before);
    return status == QEM_OK ? ended : status;
}

/* ---- the call ---- */

static qem_status enqueue(qem_context *context, const matmul_job &job)
{
    if (job.batch == 0) return QEM_OK;
    if (takes_blas(job.blas, job.batch)) return multiply_by_blas(context, job);
    QEM_CUDA_TRY(context, multiply_own(job), "the product could not be enqueued");
    return QEM_OK;
}

qem_status qem_cuda_matmul(qem_context *context, const qem_device_artifact *artifact, qem_cuda_blas *blas, uint64_t batch,
                           qem_dtype x_dtype, const void *x, uint64_t x_stride, qem_dtype y_dtype, void *y,
                           uint64_t y_stride, uint32_t *overflow, void *workspace, uint64_t workspace_bytes, void *stream)
{
    int before;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact || !x || !y) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact, x or y: the pointer is NULL");
    const matmul_job job = { artifact,
                             blas,
                             batch,
                             x_dtype,
                             y_dtype,
                             x,
                             y,
                             x_stride ? x_stride : artifact->cols,
                             y_stride ? y_stride : artifact->rows,
                             overflow,
                             workspace,
                             workspace_bytes,
                             (cudaStream_t)stream };
    QEM_TRY(check_numbers(context, job));
    QEM_TRY(qem_cuda_enter(context, artifact->device, &before));
    qem_status status = check_pointers(context, job);
    if (status == QEM_OK) status = enqueue(context, job);
    qem_cuda_leave(artifact->device, before);
    return status;
}
