/* Loading cuBLAS, and its one product. */
#include "blas.cuh"

#include <dlfcn.h>

static const char *const libraries[] = { "libcublas.so.13", "libcublas.so.12" };

static qem_status fail(qem_context *context, int status, const char *what)
{
    qem_status reported = QEM_ERR_INTERNAL;
    if (status == QEM_CUBLAS_NOT_INITIALIZED) reported = QEM_ERR_NO_DEVICE;
    if (status == QEM_CUBLAS_ALLOC_FAILED) reported = QEM_ERR_MEMORY;
    (void)cudaGetLastError(); /* reported here */
    return qem_fail(context, reported, "%s: cuBLAS status %d", what, status);
}

#define TRY_CUBLAS(context, status, what)                                      \
    do {                                                                       \
        const int status_ = (status);                                          \
        if (status_ != QEM_CUBLAS_SUCCESS) return fail(context, status_, what); \
    } while (0)

/* ---- the library ---- */

/* The library that a caller's handle is of: one that the process has loaded. With several one cannot know. */
static qem_status find_loaded(qem_context *context, void **library)
{
    *library = NULL;
    for (const char *name : libraries) {
        void *const found = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
        if (found && *library) {
            dlclose(found);
            dlclose(*library);
            *library = NULL;
            return qem_fail(context, QEM_ERR_UNSUPPORTED, "several versions of cuBLAS are loaded: whose handle it is cannot "
                            "be told");
        }
        if (found) *library = found;
    }
    if (*library) return QEM_OK;
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "neither %s nor %s is loaded, of which the handle would have to be",
                    libraries[0], libraries[1]);
}

/* One that is loaded, or else can be; for good: its kernels may still run when the object ends. */
static qem_status open_library(qem_context *context, void **library)
{
    for (int flags : { RTLD_LAZY | RTLD_NOLOAD, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE })
        for (const char *name : libraries) {
            *library = dlopen(name, flags);
            if (*library) return QEM_OK;
        }
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "cuBLAS (%s or %s) cannot be loaded", libraries[0], libraries[1]);
}

static qem_status find_functions(qem_context *context, qem_cuda_blas *blas)
{
    const struct {
        void *to;
        const char *name;
    } functions[] = {
#define FUNCTION(field, symbol) { &blas->call.field, symbol },
        QEM_CUBLAS_FUNCTIONS(FUNCTION)
#undef FUNCTION
    };
    for (const auto &function : functions) {
        void *const found = dlsym(blas->library, function.name);
        if (!found) return qem_fail(context, QEM_ERR_UNSUPPORTED, "this cuBLAS has no %s", function.name);
        *(void **)function.to = found;
    }
    return QEM_OK;
}

/* ---- the object ---- */

/* What NVIDIA recommends for cublasSetWorkspace: 32 MiB since Hopper, 4 MiB before. */
static qem_status choose_workspace(qem_context *context, qem_cuda_blas *blas)
{
    int major = 0;
    QEM_CUDA_TRY(context, cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, blas->device),
                 "attributes of the GPU");
    blas->workspace_bytes = (uint64_t)(major >= 9 ? 32 : 4) << 20;
    return QEM_OK;
}

static void end(qem_context *context, qem_cuda_blas *blas)
{
    if (blas->owns_handle && blas->handle) (void)blas->call.destroy(blas->handle);
    if (blas->library) (void)dlclose(blas->library);
    qem_release(context, blas);
}

static qem_status make(qem_context *context, qem_cuda_blas *blas)
{
    QEM_TRY(blas->handle ? find_loaded(context, &blas->library) : open_library(context, &blas->library));
    QEM_TRY(find_functions(context, blas));
    QEM_TRY(choose_workspace(context, blas));
    if (blas->handle) return QEM_OK;
    blas->owns_handle = 1;
    const int status = blas->call.create(&blas->handle);
    if (status == QEM_CUBLAS_SUCCESS) return QEM_OK;
    blas->handle = NULL;
    return fail(context, status, "making a cuBLAS handle");
}

qem_status qem_cuda_blas_create(qem_context *context, int device, void *handle, qem_cuda_blas **created)
{
    int before;
    void *memory;
    if (created) *created = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!created) return qem_fail(context, QEM_ERR_ARGUMENT, "blas: the pointer is NULL");
    QEM_TRY(qem_cuda_enter(context, device, &before));
    qem_status status = qem_allocate_zero(context, sizeof(qem_cuda_blas), 1, &memory);
    if (status == QEM_OK) {
        qem_cuda_blas *const blas = (qem_cuda_blas *)memory;
        blas->allocator = context->allocator;
        blas->device = device;
        blas->handle = handle;
        status = make(context, blas);
        if (status == QEM_OK)
            *created = blas;
        else
            end(context, blas);
    }
    qem_cuda_leave(device, before);
    return status;
}

void qem_cuda_blas_destroy(qem_cuda_blas **created)
{
    int before;
    if (!created || !*created) return;
    qem_cuda_blas *const blas = *created;
    const qem_allocator allocator = blas->allocator;
    *created = NULL;
    if (blas->owns_handle && cudaGetDevice(&before) == cudaSuccess) {
        if (before == blas->device || cudaSetDevice(blas->device) == cudaSuccess) (void)blas->call.destroy(blas->handle);
        qem_cuda_leave(blas->device, before);
    }
    (void)dlclose(blas->library);
    allocator.release(allocator.user, blas);
}

/* ---- the product ---- */

/* The stream comes before the workspace: setting it takes the handle back to the workspace that is cuBLAS's own. */
qem_status qem_cuda_blas_begin(qem_context *context, const qem_cuda_blas *blas, void *workspace, cudaStream_t stream,
                               qem_cuda_blas_state *before)
{
    const qem_cublas &call = blas->call;
    const char *const what = "setting up cuBLAS";
    TRY_CUBLAS(context, call.get_stream(blas->handle, &before->stream), what);
    TRY_CUBLAS(context, call.get_math_mode(blas->handle, &before->math_mode), what);
    TRY_CUBLAS(context, call.get_pointer_mode(blas->handle, &before->pointer_mode), what);
    TRY_CUBLAS(context, call.get_atomics_mode(blas->handle, &before->atomics_mode), what);
    int status = call.set_stream(blas->handle, stream);
    if (!status) status = call.set_workspace(blas->handle, workspace, blas->workspace_bytes);
    if (!status) status = call.set_math_mode(blas->handle, QEM_CUBLAS_DISALLOW_REDUCED_PRECISION_REDUCTION);
    if (!status) status = call.set_pointer_mode(blas->handle, QEM_CUBLAS_POINTER_MODE_HOST);
    if (!status) status = call.set_atomics_mode(blas->handle, QEM_CUBLAS_ATOMICS_NOT_ALLOWED);
    if (!status) return QEM_OK;
    (void)qem_cuda_blas_end(context, blas, *before);
    return fail(context, status, what);
}

/* A matrix by rows is its transpose by columns: y^T = W x^T, of which cuBLAS sees W^T transposed, x^T, and y^T. */
qem_status qem_cuda_blas_multiply(qem_context *context, const qem_cuda_blas *blas, const qem_cuda_gemm &gemm)
{
    const float one = 1.0f, zero = 0.0f;
    const int type = gemm.dtype == QEM_DTYPE_F32 ? CUDA_R_32F : gemm.dtype == QEM_DTYPE_F16 ? CUDA_R_16F : CUDA_R_16BF;
    TRY_CUBLAS(context,
               blas->call.gemm(blas->handle, QEM_CUBLAS_OP_T, QEM_CUBLAS_OP_N, (int64_t)gemm.rows, (int64_t)gemm.batch,
                               (int64_t)gemm.cols, &one, gemm.w, type, (int64_t)gemm.w_stride, gemm.x, type,
                               (int64_t)gemm.x_stride, &zero, gemm.y, CUDA_R_32F, (int64_t)gemm.y_stride,
                               QEM_CUBLAS_COMPUTE_32F, QEM_CUBLAS_GEMM_DEFAULT),
               "the product of cuBLAS could not be enqueued");
    return QEM_OK;
}

qem_status qem_cuda_blas_end(qem_context *context, const qem_cuda_blas *blas, const qem_cuda_blas_state &before)
{
    const qem_cublas &call = blas->call;
    if (blas->owns_handle) return QEM_OK; /* nobody else looks at it */
    int status = call.set_stream(blas->handle, before.stream);
    if (!status) status = call.set_math_mode(blas->handle, before.math_mode);
    if (!status) status = call.set_pointer_mode(blas->handle, before.pointer_mode);
    if (!status) status = call.set_atomics_mode(blas->handle, before.atomics_mode);
    if (status) return fail(context, status, "putting the cuBLAS handle back");
    return QEM_OK;
}
