// cuBLAS as the peer of products: y (f32) = x * W^T, x and W f16 row by row. It is looked for at run
// time, as the library does.
#ifndef QEM_BENCH_GPU_DENSE_H
#define QEM_BENCH_GPU_DENSE_H

#include <dlfcn.h>
#include <library_types.h>

#include "timing.h"

class Dense {
public:
    explicit Dense(cudaStream_t stream) : workspace_(32 << 20)
    {
        for (const char *name : { "libcublas.so.13", "libcublas.so.12" })
            if (!library_) library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!library_ || !find(create_, "cublasCreate_v2") || !find(destroy_, "cublasDestroy_v2") ||
            !find(set_stream_, "cublasSetStream_v2") || !find(set_workspace_, "cublasSetWorkspace_v2") ||
            !find(set_math_mode_, "cublasSetMathMode") || !find(gemm_, "cublasGemmEx_64"))
            return;
        if (create_(&handle_) != 0) handle_ = nullptr;
        if (!handle_) return;
        succeed(set_stream_(handle_, stream));
        succeed(set_workspace_(handle_, workspace_.get(), workspace_.bytes()));
        succeed(set_math_mode_(handle_, no_reduced_precision_reduction));
    }
    ~Dense()
    {
        if (handle_) destroy_(handle_);
    }
    Dense(const Dense &) = delete;
    Dense &operator=(const Dense &) = delete;
    explicit operator bool() const { return handle_ != nullptr; }

    void multiply(uint64_t batch, uint64_t rows, uint64_t cols, const Memory &x, const Memory &w, const Memory &y) const
    {
        const float one = 1.0f, zero = 0.0f;
        const auto m = static_cast<int64_t>(rows), n = static_cast<int64_t>(batch), k = static_cast<int64_t>(cols);
        succeed(gemm_(handle_, transposed, as_it_is, m, n, k, &one, w.get(), CUDA_R_16F, k, x.get(), CUDA_R_16F, k, &zero,
                      y.get(), CUDA_R_32F, m, sums_in_f32, any_algorithm));
    }

private:
    // Numbers of cublas_api.h.
    static constexpr int as_it_is = 0, transposed = 1, no_reduced_precision_reduction = 16, sums_in_f32 = 68,
                         any_algorithm = -1;

    template <typename Function> bool find(Function *&function, const char *name)
    {
        function = reinterpret_cast<Function *>(dlsym(library_, name));
        return function != nullptr;
    }
    static void succeed(int status)
    {
        if (status != 0) throw std::runtime_error("cuBLAS: status " + std::to_string(status));
    }

    Memory workspace_;
    void *library_ = nullptr, *handle_ = nullptr; // the library stays loaded
    int (*create_)(void **) = nullptr;
    int (*destroy_)(void *) = nullptr;
    int (*set_stream_)(void *, cudaStream_t) = nullptr;
    int (*set_workspace_)(void *, void *, size_t) = nullptr;
    int (*set_math_mode_)(void *, int) = nullptr;
    int (*gemm_)(void *, int, int, int64_t, int64_t, int64_t, const void *, const void *, int, int64_t, const void *, int,
                 int64_t, const void *, void *, int, int64_t, int, int) = nullptr;
};

#endif
