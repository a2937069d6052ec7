/*
 * A linear layer y = x * W^T whose W is kept quantized on the GPU: each step decodes W into a buffer that all layers could
 * share, and multiplies by cuBLAS. Both are captured into one CUDA graph, which is then launched as often as wanted.
 */
#include <qem/cuda.h>
#include <qem/qem.h>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 1024, COLS = 512, BATCH = 4, WORKSPACE = 4 << 20 };

/* Everything that has to be given back, whatever failed. */
typedef struct state {
    qem_context *context;
    qem_artifact *artifact;
    qem_device_artifact *uploaded;
    cudaStream_t stream;
    cublasHandle_t blas;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    void *w, *x, *y, *scratch, *blas_workspace;
    uint32_t *overflow;
    uint64_t scratch_bytes;
} state;

static int qem_ok(const state *s, const char *step, qem_status status)
{
    if (status == QEM_OK) return 1;
    fprintf(stderr, "%s: %s (%s)\n", step, qem_status_string(status), s->context ? qem_last_error(s->context) : "");
    return 0;
}

static int cuda_ok(const char *step, cudaError_t error)
{
    if (error == cudaSuccess) return 1;
    fprintf(stderr, "%s: %s\n", step, cudaGetErrorString(error));
    return 0;
}

static int blas_ok(const char *step, cublasStatus_t status)
{
    if (status == CUBLAS_STATUS_SUCCESS) return 1;
    fprintf(stderr, "%s: cuBLAS status %d\n", step, (int)status);
    return 0;
}

/* On the CPU, as files are made. */
static int quantize(state *s)
{
    qem_view view = QEM_VIEW_INIT;
    qem_recipe recipe = QEM_RECIPE_INIT;
    float *matrix = malloc(sizeof(float) * ROWS * COLS);
    int ok = 0;
    if (!matrix) return 0;
    for (int i = 0; i < ROWS * COLS; i++)
        matrix[i] = 0.1f * sinf(0.37f * (float)i) + 0.01f * cosf(0.011f * (float)(i % 977));
    view.data = matrix;
    view.rows = ROWS;
    view.cols = COLS;
    recipe.method = QEM_METHOD_VQ;
    recipe.k = 256; /* with dim 4: codes of 8 bits, two bits an element */
    ok = qem_ok(s, "context", qem_context_create(NULL, &s->context)) &&
         qem_ok(s, "quantize", qem_quantize(s->context, &view, "weights", &recipe, &s->artifact));
    free(matrix);
    return ok;
}

static int upload(state *s)
{
    if (!cuda_ok("stream", cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)) ||
        !qem_ok(s, "upload", qem_artifact_upload(s->context, s->artifact, 0, s->stream, &s->uploaded)))
        return 0;
    s->scratch_bytes = qem_cuda_dequantize_workspace_size(s->uploaded, ROWS); /* 0 but for rotations */
    return s->scratch_bytes == 0 || cuda_ok("scratch", cudaMalloc(&s->scratch, s->scratch_bytes));
}

/* All memory that the steps use; nothing is allocated later. */
static int prepare(state *s)
{
    static uint16_t ones[BATCH * COLS];
    for (int i = 0; i < BATCH * COLS; i++) ones[i] = 0x3c00; /* 1 as f16 */
    return cuda_ok("W", cudaMalloc(&s->w, sizeof(uint16_t) * ROWS * COLS)) &&
           cuda_ok("x", cudaMalloc(&s->x, sizeof ones)) && cuda_ok("y", cudaMalloc(&s->y, sizeof(float) * BATCH * ROWS)) &&
           cuda_ok("overflow", cudaMalloc((void **)&s->overflow, sizeof *s->overflow)) &&
           cuda_ok("overflow", cudaMemsetAsync(s->overflow, 0, sizeof *s->overflow, s->stream)) &&
           cuda_ok("x", cudaMemcpyAsync(s->x, ones, sizeof ones, cudaMemcpyHostToDevice, s->stream)) &&
           cuda_ok("workspace", cudaMalloc(&s->blas_workspace, WORKSPACE)) && blas_ok("cuBLAS", cublasCreate(&s->blas)) &&
           blas_ok("stream",
                   cublasSetStream(s->blas, s->stream)) && /* which forgets the workspace: so that comes after it */
           blas_ok("workspace", cublasSetWorkspace(s->blas, s->blas_workspace, WORKSPACE));
}

/* Row-major y = x * W^T is, to cuBLAS, the column-major y^T = W * x^T. */
static int enqueue(state *s)
{
    const float one = 1.0f, zero = 0.0f;
    return qem_ok(s, "decode",
                  qem_cuda_dequantize(s->context, s->uploaded, 0, ROWS, QEM_DTYPE_F16, s->w, 0, s->overflow, s->scratch,
                                      s->scratch_bytes, s->stream)) &&
           blas_ok("multiply",
                   cublasGemmEx(s->blas, CUBLAS_OP_T, CUBLAS_OP_N, ROWS, BATCH, COLS, &one, s->w, CUDA_R_16F, COLS, s->x,
                                CUDA_R_16F, COLS, &zero, s->y, CUDA_R_32F, ROWS, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

static int capture(state *s)
{
    if (!cuda_ok("capture", cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal))) return 0;
    const int enqueued = enqueue(s);
    return cuda_ok("capture", cudaStreamEndCapture(s->stream, &s->graph)) && enqueued &&
           cuda_ok("graph", cudaGraphInstantiate(&s->executable, s->graph, 0));
}

/* x is all ones: an element of y is the sum of a row of W. */
static int check(state *s)
{
    static float y[BATCH * ROWS], w[ROWS * COLS];
    uint32_t overflow = 0;
    double worst = 0.0;
    if (!cuda_ok("y", cudaMemcpyAsync(y, s->y, sizeof y, cudaMemcpyDeviceToHost, s->stream)) ||
        !cuda_ok("overflow", cudaMemcpyAsync(&overflow, s->overflow, sizeof overflow, cudaMemcpyDeviceToHost, s->stream)) ||
        !cuda_ok("steps", cudaStreamSynchronize(s->stream)) ||
        !qem_ok(s, "decode on the CPU", qem_dequantize(s->context, s->artifact, 0, ROWS, QEM_DTYPE_F32, w, 0)))
        return 0;
    for (int b = 0; b < BATCH; b++)
        for (int i = 0; i < ROWS; i++) {
            double sum = 0.0;
            for (int j = 0; j < COLS; j++) sum += w[i * COLS + j];
            worst = fmax(worst, fabs(sum - y[b * ROWS + i]));
        }
    printf("y[0] = %.5f; largest difference to sums of the rows decoded on the CPU: %.2g; beyond f16: %s\n", (double)y[0],
           worst, overflow ? "yes" : "no");
    return worst < 0.05 && !overflow; /* W was rounded to f16 for the product */
}

static void give_back(state *s)
{
    if (s->executable) (void)cudaGraphExecDestroy(s->executable);
    if (s->graph) (void)cudaGraphDestroy(s->graph);
    if (s->blas) (void)cublasDestroy(s->blas);
    void *const blocks[] = { s->w, s->x, s->y, s->scratch, s->blas_workspace, s->overflow };
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) (void)cudaFree(blocks[i]);
    qem_device_artifact_destroy(&s->uploaded);
    if (s->stream) (void)cudaStreamDestroy(s->stream);
    qem_artifact_destroy(&s->artifact);
    qem_context_destroy(&s->context);
}

int main(void)
{
    state s;
    memset(&s, 0, sizeof s);
    int ok = quantize(&s) && upload(&s) && prepare(&s) && capture(&s);
    for (int step = 0; step < 3 && ok; step++) ok = cuda_ok("launch", cudaGraphLaunch(s.executable, s.stream));
    ok = ok && check(&s);
    give_back(&s);
    return ok ? 0 : 1;
}
