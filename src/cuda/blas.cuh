/* cuBLAS as products use it, reached by names at run time: neither its headers nor its library are needed to build, link or
 * load qem. */
#ifndef QEM_CUDA_BLAS_CUH
#define QEM_CUDA_BLAS_CUH

#include "runtime.cuh"

/* Numbers of cublas_api.h, the same in all its versions. */
enum {
    QEM_CUBLAS_SUCCESS = 0,
    QEM_CUBLAS_NOT_INITIALIZED = 1,
    QEM_CUBLAS_ALLOC_FAILED = 3,
    QEM_CUBLAS_OP_N = 0,
    QEM_CUBLAS_OP_T = 1,
    QEM_CUBLAS_POINTER_MODE_HOST = 0,
    QEM_CUBLAS_ATOMICS_NOT_ALLOWED = 0,
    QEM_CUBLAS_DISALLOW_REDUCED_PRECISION_REDUCTION = 16, /* with the default mode, which is 0 */
    QEM_CUBLAS_COMPUTE_32F = 68,
    QEM_CUBLAS_GEMM_DEFAULT = -1
};

/* The functions used; enumerations are int, handles void *. QEM_CUBLAS_FUNCTIONS(F) is F(field, symbol) for each. */
struct qem_cublas {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*get_stream)(void *handle, cudaStream_t *stream);
    int (*set_workspace)(void *handle, void *workspace, size_t bytes);
    int (*set_math_mode)(void *handle, int mode);
    int (*get_math_mode)(void *handle, int *mode);
    int (*set_pointer_mode)(void *handle, int mode);
    int (*get_pointer_mode)(void *handle, int *mode);
    int (*set_atomics_mode)(void *handle, int mode);
    int (*get_atomics_mode)(void *handle, int *mode);
    int (*gemm)(void *handle, int op_a, int op_b, int64_t m, int64_t n, int64_t k, const void *alpha, const void *a,
                int a_type, int64_t lda, const void *b, int b_type, int64_t ldb, const void *beta, void *c, int c_type,
                int64_t ldc, int compute_type, int algorithm);
};

#define QEM_CUBLAS_FUNCTIONS(F)                    \
    F(create, "cublasCreate_v2")                   \
    F(destroy, "cublasDestroy_v2")                 \
    F(set_stream, "cublasSetStream_v2")            \
    F(get_stream, "cublasGetStream_v2")            \
    F(set_workspace, "cublasSetWorkspace_v2")      \
    F(set_math_mode, "cublasSetMathMode")          \
    F(get_math_mode, "cublasGetMathMode")          \
    F(set_pointer_mode, "cublasSetPointerMode_v2") \
    F(get_pointer_mode, "cublasGetPointerMode_v2") \
    F(set_atomics_mode, "cublasSetAtomicsMode")    \
    F(get_atomics_mode, "cublasGetAtomicsMode")    \
    F(gemm, "cublasGemmEx_64")

struct qem_cuda_blas {
    qem_allocator allocator;
    void *library;
    qem_cublas call;
    void *handle;
    int owns_handle;
    int device;
    uint64_t workspace_bytes; /* that cuBLAS is given */
};

/* y = x * W^T for rows of W in the type of x: y [batch, rows] f32. All of them device memory. */
struct qem_cuda_gemm {
    uint64_t batch, rows, cols;
    uint32_t dtype; /* of x and w */
    const void *x, *w;
    float *y;
    uint64_t x_stride, w_stride, y_stride; /* elements */
};

/* What a caller's handle is put back to. */
struct qem_cuda_blas_state {
    cudaStream_t stream;
    int math_mode, pointer_mode, atomics_mode;
};

/* Between begin and end the handle works on `stream` with that workspace, of blas->workspace_bytes. End: also after errors. */
qem_status qem_cuda_blas_begin(qem_context *context, const qem_cuda_blas *blas, void *workspace, cudaStream_t stream,
                               qem_cuda_blas_state *before);
qem_status qem_cuda_blas_multiply(qem_context *context, const qem_cuda_blas *blas, const qem_cuda_gemm &gemm);
qem_status qem_cuda_blas_end(qem_context *context, const qem_cuda_blas *blas, const qem_cuda_blas_state &before);

#endif
