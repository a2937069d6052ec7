/* A stand-in for cuBLAS and for the dynamic linker that finds it: the library under test is linked so that its dlopen, dlsym
 * and dlclose come here (--wrap). A product is a chain of fma for each element, with k ascending. */
#include <dlfcn.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "core/half.h"
#include "cuda/blas.cuh"
#include "cuda_host/internal.h"

extern "C" void *__real_dlopen(const char *name, int flags);
extern "C" void *__real_dlsym(void *library, const char *name);
extern "C" int __real_dlclose(void *library);

namespace qem_runner {
namespace {

constexpr int kInvalidValue = 7, kExecutionFailed = 13;

std::map<void *, std::unique_ptr<BlasHandle>> handles;
char libraries[2]; /* their addresses: 12, 13 */

BlasHandle *find(void *handle)
{
    const auto at = handles.find(handle);
    return at == handles.end() ? nullptr : at->second.get();
}

int create(void **handle)
{
    const Call call("cublasCreate", kAllocates);
    if (call.error) return call.error == cudaErrorStreamCaptureUnsupported ? kExecutionFailed : QEM_CUBLAS_NOT_INITIALIZED;
    if (machine().cublas_create_fails) return machine().cublas_create_fails;
    *handle = make_blas_handle();
    return QEM_CUBLAS_SUCCESS;
}

int destroy(void *handle)
{
    const Call call("cublasDestroy", kSynchronizes);
    return handles.erase(handle) ? QEM_CUBLAS_SUCCESS : QEM_CUBLAS_NOT_INITIALIZED;
}

/* Calls that only look at the handle or change it. */
template <typename Use> int with(void *handle, const char *name, Use use)
{
    const Call call(name);
    BlasHandle *const h = find(handle);
    if (!h) return QEM_CUBLAS_NOT_INITIALIZED;
    use(*h);
    return QEM_CUBLAS_SUCCESS;
}

int set_stream(void *handle, cudaStream_t stream)
{
    return with(handle, "cublasSetStream", [&](BlasHandle &h) {
        h.stream = stream;
        h.workspace = nullptr; /* as cuBLAS does */
        h.workspace_bytes = 0;
    });
}

int get_stream(void *handle, cudaStream_t *stream)
{
    return with(handle, "cublasGetStream", [&](BlasHandle &h) { *stream = h.stream; });
}

int set_workspace(void *handle, void *workspace, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return kInvalidValue;
    return with(handle, "cublasSetWorkspace", [&](BlasHandle &h) {
        h.workspace = workspace;
        h.workspace_bytes = bytes;
    });
}

template <int BlasHandle::*MODE> int set_mode(void *handle, int mode)
{
    return with(handle, "setting a mode of cuBLAS", [&](BlasHandle &h) { h.*MODE = mode; });
}

template <int BlasHandle::*MODE> int get_mode(void *handle, int *mode)
{
    return with(handle, "asking for a mode of cuBLAS", [&](BlasHandle &h) { *mode = h.*MODE; });
}

float element(const void *from, int type, int64_t at)
{
    if (type == CUDA_R_32F) return static_cast<const float *>(from)[at];
    const uint16_t bits = static_cast<const uint16_t *>(from)[at];
    return type == CUDA_R_16F ? qem_f16_to_f32(bits) : qem_bf16_to_f32(bits);
}

bool is_type(int type)
{
    return type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

struct Product {
    int64_t m, n, k;
    const void *a, *b;
    float *c;
    int type;
    int64_t lda, ldb, ldc;
    void *workspace;
    size_t workspace_bytes;
};

/* c = a^T * b, all by columns. */
void run(const Product &p)
{
    memset(p.workspace, 0xff, p.workspace_bytes); /* cuBLAS may write anything there */
    for (int64_t j = 0; j < p.n; j++)
        for (int64_t i = 0; i < p.m; i++) {
            float sum = 0.0f;
            for (int64_t l = 0; l < p.k; l++)
                sum = std::fma(element(p.a, p.type, i * p.lda + l), element(p.b, p.type, j * p.ldb + l), sum);
            p.c[j * p.ldc + i] = sum;
        }
}

/* What this stand-in is asked for is all that it takes: a row-major product with transposed weights, in f32. */
int gemm(void *handle, int op_a, int op_b, int64_t m, int64_t n, int64_t k, const void *alpha, const void *a, int a_type,
         int64_t lda, const void *b, int b_type, int64_t ldb, const void *beta, void *c, int c_type, int64_t ldc,
         int compute_type, int algorithm)
{
    BlasHandle *const h = find(handle);
    const Call call("cublasGemmEx without a workspace of the caller", h && h->workspace ? kNone : kAllocates);
    if (!h) return QEM_CUBLAS_NOT_INITIALIZED;
    if (call.error || machine().cublas_product_fails) return kExecutionFailed;
    if (h->pointer_mode != QEM_CUBLAS_POINTER_MODE_HOST) fail("cublasGemmEx: host scalars, but the mode of device ones");
    if (h->atomics_mode != QEM_CUBLAS_ATOMICS_NOT_ALLOWED) fail("cublasGemmEx may use atomics: its sums are in no fixed order");
    if (h->math_mode != QEM_CUBLAS_DISALLOW_REDUCED_PRECISION_REDUCTION) fail("cublasGemmEx in a math mode that is not exact");
    if (h->device != device_of_thread()) fail("cublasGemmEx with a handle of another device");
    if (op_a != QEM_CUBLAS_OP_T || op_b != QEM_CUBLAS_OP_N || compute_type != QEM_CUBLAS_COMPUTE_32F ||
        algorithm != QEM_CUBLAS_GEMM_DEFAULT || a_type != b_type || !is_type(a_type) || c_type != CUDA_R_32F)
        return kInvalidValue;
    if (m <= 0 || n <= 0 || k <= 0 || lda < k || ldb < k || ldc < m) return kInvalidValue;
    if (*static_cast<const float *>(alpha) != 1.0f || *static_cast<const float *>(beta) != 0.0f) return kInvalidValue;
    const Product p = {m, n, k, a, b, static_cast<float *>(c), a_type, lda, ldb, ldc, h->workspace, h->workspace_bytes};
    h->products++;
    return enqueue("cublasGemmEx", h->stream, [p] { run(p); }) ? kExecutionFailed : QEM_CUBLAS_SUCCESS;
}

const qem_cublas functions = {create,
                              destroy,
                              set_stream,
                              get_stream,
                              set_workspace,
                              set_mode<&BlasHandle::math_mode>,
                              get_mode<&BlasHandle::math_mode>,
                              set_mode<&BlasHandle::pointer_mode>,
                              get_mode<&BlasHandle::pointer_mode>,
                              set_mode<&BlasHandle::atomics_mode>,
                              get_mode<&BlasHandle::atomics_mode>,
                              gemm};

void *function(const std::string &name)
{
    void *found = nullptr;
    if (machine().cublas_lacks && name == machine().cublas_lacks) return nullptr;
#define FUNCTION(field, symbol) \
    if (name == symbol) memcpy(&found, &functions.field, sizeof found);
    QEM_CUBLAS_FUNCTIONS(FUNCTION)
#undef FUNCTION
    return found;
}

} // namespace

BlasHandle *make_blas_handle()
{
    auto handle = std::make_unique<BlasHandle>();
    handle->device = device_of_thread();
    BlasHandle *const made = handle.get();
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    handles[made] = std::move(handle);
    return made;
}

void end_blas_handle(BlasHandle *handle)
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    handles.erase(handle);
}

size_t blas_handles()
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    return handles.size();
}

} // namespace qem_runner

using namespace qem_runner;

extern "C" void *__wrap_dlopen(const char *name, int flags)
{
    const std::string text = name ? name : "";
    if (text.rfind("libcublas.so", 0) != 0) return __real_dlopen(name, flags);
    const int which = text == "libcublas.so.13";
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    Machine &m = machine();
    bool &loaded = which ? m.cublas13_loaded : m.cublas12_loaded;
    if (!(which ? m.cublas13 : m.cublas12) && !loaded) return nullptr;
    if (!loaded && (flags & RTLD_NOLOAD)) return nullptr;
    loaded = true;
    return &libraries[which];
}

extern "C" void *__wrap_dlsym(void *library, const char *name)
{
    if (library != &libraries[0] && library != &libraries[1]) return __real_dlsym(library, name);
    return function(name);
}

extern "C" int __wrap_dlclose(void *library)
{
    return library == &libraries[0] || library == &libraries[1] ? 0 : __real_dlclose(library);
}
