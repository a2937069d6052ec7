// Products of many rows, by cuBLAS: a stand-in that checks how it is called, reached as the real one is.
#include <thread>

#if __has_include(<cublas_api.h>)
#include <cublas_api.h>
#endif

#include "artifacts.h"
#include "cuda/blas.cuh"
#include "product.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

#ifdef CUBLAS_VER_MAJOR
// What the library writes out, since it is built without cuBLAS's headers.
static_assert(int(QEM_CUBLAS_SUCCESS) == CUBLAS_STATUS_SUCCESS && int(QEM_CUBLAS_ALLOC_FAILED) == CUBLAS_STATUS_ALLOC_FAILED &&
              int(QEM_CUBLAS_NOT_INITIALIZED) == CUBLAS_STATUS_NOT_INITIALIZED && int(QEM_CUBLAS_OP_N) == CUBLAS_OP_N &&
              int(QEM_CUBLAS_OP_T) == CUBLAS_OP_T && int(QEM_CUBLAS_POINTER_MODE_HOST) == CUBLAS_POINTER_MODE_HOST &&
              int(QEM_CUBLAS_ATOMICS_NOT_ALLOWED) == CUBLAS_ATOMICS_NOT_ALLOWED &&
              int(QEM_CUBLAS_DISALLOW_REDUCED_PRECISION_REDUCTION) ==
                  (CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) &&
              int(QEM_CUBLAS_COMPUTE_32F) == CUBLAS_COMPUTE_32F && int(QEM_CUBLAS_GEMM_DEFAULT) == CUBLAS_GEMM_DEFAULT);
static_assert(std::is_same_v<decltype(&cublasGemmEx_64),
                             cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int64_t, int64_t,
                                                int64_t, const void *, const void *, cudaDataType, int64_t, const void *,
                                                cudaDataType, int64_t, const void *, void *, cudaDataType, int64_t,
                                                cublasComputeType_t, cublasGemmAlgo_t)>);
static_assert(sizeof(cublasOperation_t) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int) &&
              sizeof(cublasMath_t) == sizeof(int) && sizeof(cudaDataType) == sizeof(int));
#endif

std::vector<std::unique_ptr<Layers>> artifacts()
{
    std::vector<std::unique_ptr<Layers>> all;
    for (uint64_t cols : { 72, 61 }) {
        all.emplace_back(new Layers(300, cols, cols)); /* several tiles of rows */
        all.back()->add_layer(shared(4, 256, 0, true), { { QEM_AXIS_ROW } });
        all.emplace_back(new Layers(50, cols, cols + 1));
        all.back()->add_layer(by_group(4, 16, 0, 2), {}, { 20 });
        all.back()->add_layer(shared(1, 40, 1), {});
        all.back()->add_outliers({ 3, 2000 }, 4);
    }
    return all;
}

TEST(CudaBlas, EveryTypeAndBatch)
{
    const Blas blas = make_blas(context());
    for (const std::unique_ptr<Layers> &layers : artifacts()) {
        const Matrix w = decode_definition(layers->get());
        const DeviceArtifact artifact = upload(context(), layers->get());
        for (uint64_t batch : { 0, 1, 16, 17, 33 })
            for (qem_dtype x : product_types)
                for (qem_dtype y : product_types) {
                    if (batch < 33 && x != y) continue;
                    ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, { batch, x, y }, blas.get()));
                    ASSERT_NO_FATAL_FAILURE(
                        check_product(context(), artifact.get(), w, { batch, x, y, 3, 1, 1, 1 }, blas.get()));
                }
    }
}

// More rows of x than sums fit in the workspace at once.
TEST(CudaBlas, ManyRowsOfX)
{
    Layers layers(130, 8, 1);
    layers.add_layer(shared(4, 16), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Blas blas = make_blas(context());
    for (qem_dtype y : { QEM_DTYPE_F32, QEM_DTYPE_F16 })
        ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), decode_definition(layers.get()),
                                              { 700, QEM_DTYPE_F16, y }, blas.get()));
}

TEST(CudaBlas, OverflowOfSumsAndOfWeights)
{
    Layers layers(20, 8, 1);
    layers.add_layer(shared(1, 4), { { QEM_AXIS_ROW } });
    const DeviceProduct p = { 20, QEM_DTYPE_F16, QEM_DTYPE_F16 };
    for (float mean : { 1.0f, 40000.0f, 1e6f }) { /* none, of sums, of weights */
        for (uint64_t i = 0; i < 20; i++) layers.step(0, 0).scale[i] = layers.step(0, 0).mean[i] = 0.0f;
        layers.step(0, 0).mean[7] = mean;
        const DeviceArtifact artifact = upload(context(), layers.get());
        const Blas blas = make_blas(context());
        Matrix x(20, 8);
        x.at(19, 0) = mean == 1e6f ? 0.0f : 2.0f; /* a sum of infinity * 0 is no number, but no overflow either */
        const Stream stream;
        const ProductMemory memory(artifact.get(), blas.get(), x, p);
        context().must(memory.multiply(context(), artifact.get(), blas.get(), p, stream));
        stream.wait();
        EXPECT_EQ(memory.flag(), mean > 1.0f ? 1u : 0u) << mean;
    }
}

TEST(CudaBlas, NotFiniteValuesGoThrough)
{
    Layers layers(20, 8, 1);
    layers.add_layer(shared(1, 4), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Blas blas = make_blas(context());
    const DeviceProduct p = { 17, QEM_DTYPE_BF16, QEM_DTYPE_F16 };
    Matrix x = rows_of_x(p, 8, 1);
    x.at(0, 1) = std::numeric_limits<float>::infinity();
    x.at(2, 1) = -std::nanf("5");
    ASSERT_NO_FATAL_FAILURE(
        check_product(context(), artifact.get(), decode_definition(layers.get()), x, p, blas.get()));
}

// ---- handles of an engine ----

class Handle {
public:
    Handle() : handle_(qem_runner::make_blas_handle()) { qem_runner::machine().cublas13_loaded = true; }
    ~Handle() { qem_runner::end_blas_handle(handle_); }
    qem_runner::BlasHandle *operator->() const { return handle_; }
    qem_runner::BlasHandle *get() const { return handle_; }

private:
    qem_runner::BlasHandle *handle_;
};

TEST(CudaBlas, ACallersHandleIsPutBack)
{
    Layers layers(20, 8, 1);
    layers.add_layer(shared(4, 16), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Handle handle;
    const Stream own;
    handle->stream = own;
    handle->math_mode = 3;
    handle->pointer_mode = handle->atomics_mode = 1;
    const size_t handles = qem_runner::blas_handles();
    Blas blas = make_blas(context(), handle.get());
    ASSERT_NO_FATAL_FAILURE(
        check_product(context(), artifact.get(), decode_definition(layers.get()), { 20 }, blas.get()));
    EXPECT_EQ(handle->products, 1u);
    EXPECT_EQ(handle->stream, own);
    EXPECT_EQ(handle->math_mode, 3);
    EXPECT_EQ(handle->pointer_mode, 1);
    EXPECT_EQ(handle->atomics_mode, 1);
    EXPECT_EQ(handle->workspace, nullptr) << "no pointer of ours stays in it";
    blas.reset();
    EXPECT_EQ(qem_runner::blas_handles(), handles) << "it is the caller's";
}

TEST(CudaBlas, AHandleIsPutBackAfterErrorsToo)
{
    Layers layers(20, 8, 1);
    layers.add_layer(shared(4, 16), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Handle handle;
    const Stream own, stream;
    handle->stream = own;
    const Blas blas = make_blas(context(), handle.get());
    const DeviceProduct p = { 20 };
    const ProductMemory memory(artifact.get(), blas.get(), Matrix(20, 8), p);
    qem_runner::machine().cublas_product_fails = true;
    EXPECT_EQ(memory.multiply(context(), artifact.get(), blas.get(), p, stream), QEM_ERR_INTERNAL);
    EXPECT_NE(context().error().find("cuBLAS status 13"), std::string::npos) << context().error();
    EXPECT_EQ(handle->stream, own);
    qem_runner::reset();
}

// ---- making one ----

qem_status create(void *handle = nullptr, int device = 0)
{
    qem_cuda_blas *blas = reinterpret_cast<qem_cuda_blas *>(1);
    const size_t handles = qem_runner::blas_handles();
    const qem_status status = qem_cuda_blas_create(context(), device, handle, &blas);
    EXPECT_EQ(blas == nullptr, status != QEM_OK);
    qem_cuda_blas_destroy(&blas);
    EXPECT_EQ(blas, nullptr);
    EXPECT_EQ(qem_runner::blas_handles(), handles) << "a handle was left";
    return status;
}

TEST(CudaBlas, WhatCannotBeMadeIsTold)
{
    const Handle handle;
    qem_runner::Machine &machine = qem_runner::machine();
    qem_runner::reset();
    EXPECT_EQ(create(), QEM_OK);
    qem_runner::reset();
    machine.cublas13 = false;
    EXPECT_EQ(create(), QEM_ERR_UNSUPPORTED);
    EXPECT_NE(context().error().find("libcublas.so.13"), std::string::npos) << context().error();
    machine.cublas12 = true;
    EXPECT_EQ(create(), QEM_OK);
    EXPECT_TRUE(machine.cublas12_loaded);
    qem_runner::reset();
    machine.cublas_lacks = "cublasGemmEx_64";
    EXPECT_EQ(create(), QEM_ERR_UNSUPPORTED);
    EXPECT_NE(context().error().find("cublasGemmEx_64"), std::string::npos) << context().error();
    qem_runner::reset();
    machine.cublas_create_fails = 1;
    EXPECT_EQ(create(), QEM_ERR_NO_DEVICE);
    machine.cublas_create_fails = 3;
    EXPECT_EQ(create(), QEM_ERR_MEMORY);
    machine.cublas_create_fails = 14;
    EXPECT_EQ(create(), QEM_ERR_INTERNAL);
    qem_runner::reset();
    EXPECT_EQ(create(nullptr, 1), QEM_ERR_NO_DEVICE);
    machine.devices = 0;
    EXPECT_EQ(create(), QEM_ERR_NO_DEVICE);
    qem_runner::reset();
    EXPECT_EQ(create(handle.get()), QEM_ERR_UNSUPPORTED) << "no library is loaded that it could be of";
    machine.cublas13_loaded = machine.cublas12_loaded = true;
    EXPECT_EQ(create(handle.get()), QEM_ERR_UNSUPPORTED);
    EXPECT_NE(context().error().find("several"), std::string::npos) << context().error();
    machine.cublas13_loaded = false;
    EXPECT_EQ(create(handle.get()), QEM_OK);
    qem_runner::reset();
    EXPECT_EQ(qem_cuda_blas_create(context(), 0, nullptr, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_cuda_blas_create(nullptr, 0, nullptr, nullptr), QEM_ERR_ARGUMENT);
    qem_cuda_blas_destroy(nullptr);
}

// One that the process has comes before one that would have to be loaded.
TEST(CudaBlas, WhatIsLoadedComesFirst)
{
    qem_runner::machine().cublas12_loaded = true;
    EXPECT_EQ(create(), QEM_OK);
    EXPECT_FALSE(qem_runner::machine().cublas13_loaded);
    qem_runner::reset();
}

TEST(CudaBlas, OfAnotherDeviceOrWithTooLittleWorkspace)
{
    qem_runner::machine().devices = 2;
    Layers layers(20, 8, 1);
    layers.add_layer(shared(4, 16), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    qem_cuda_blas *other = nullptr;
    context().must(qem_cuda_blas_create(context(), 1, nullptr, &other));
    const Blas end(other), blas = make_blas(context());
    const Stream stream;
    const DeviceProduct p = { 20 };
    ProductMemory memory(artifact.get(), blas.get(), Matrix(20, 8), p);
    EXPECT_EQ(memory.multiply(context(), artifact.get(), other, p, stream), QEM_ERR_ARGUMENT);
    EXPECT_NE(context().error().find("GPU 1"), std::string::npos) << context().error();
    memory.workspace_bytes--;
    EXPECT_EQ(memory.multiply(context(), artifact.get(), blas.get(), p, stream), QEM_ERR_ARGUMENT);
    EXPECT_NE(context().error().find("workspace"), std::string::npos) << context().error();
    EXPECT_GE(memory.workspace_bytes, uint64_t(4) << 20);
    uint64_t before = 0;
    for (uint64_t batch = 1; batch < 600; batch += 7) {
        const uint64_t now = qem_cuda_matmul_workspace_size(artifact.get(), blas.get(), batch, QEM_DTYPE_F16, QEM_DTYPE_F16);
        EXPECT_GE(now, before);
        before = now;
    }
    qem_runner::reset();
}

TEST(CudaBlas, HopperGetsMoreWorkspace)
{
    Layers layers(20, 8, 1);
    layers.add_layer(shared(4, 16), {});
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Blas before = make_blas(context());
    qem_runner::machine().major = 9;
    const Blas hopper = make_blas(context());
    const auto size = [&](const Blas &blas) {
        return qem_cuda_matmul_workspace_size(artifact.get(), blas.get(), 100, QEM_DTYPE_F32, QEM_DTYPE_F32);
    };
    EXPECT_EQ(size(hopper) - size(before), uint64_t(28) << 20);
    qem_runner::reset();
}

// ---- graphs and threads ----

TEST(CudaBlas, InACapturedGraph)
{
    Layers layers(30, 24, 4);
    layers.add_layer(by_group(4, 16, 0, 2), { { QEM_AXIS_ROW } });
    const DeviceProduct p = { 19, QEM_DTYPE_F16, QEM_DTYPE_BF16 };
    const Matrix w = decode_definition(layers.get()), x = rows_of_x(p, 24, 1);
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Blas blas = make_blas(context());
    const ProductMemory memory(artifact.get(), blas.get(), x, p);
    const std::vector<unsigned char> untouched = memory.y_memory.read();
    const Stream stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    must_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    context().must(memory.multiply(context(), artifact.get(), blas.get(), p, stream));
    must_cuda(cudaStreamEndCapture(stream, &graph));
    EXPECT_EQ(memory.y_memory.read(), untouched) << "captured, not run";
    must_cuda(cudaGraphInstantiate(&executable, graph, 0));
    for (int run = 0; run < 2; run++) {
        must_cuda(cudaMemset(memory.y_memory.get(), device_fill, untouched.size()));
        must_cuda(cudaGraphLaunch(executable, stream));
        stream.wait();
        EXPECT_EQ(memory.y_memory.read(), expected_product(w, x, p, true).bytes);
    }
    must_cuda(cudaGraphExecDestroy(executable));
    must_cuda(cudaGraphDestroy(graph));
}

TEST(CudaBlas, AThreadEach)
{
    Layers layers(40, 24, 1);
    layers.add_layer(shared(4, 256, 0, true), {});
    const Matrix w = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context(), layers.get());
    std::vector<std::thread> threads;
    std::vector<std::string> failures(3);
    for (size_t t = 0; t < failures.size(); t++)
        threads.emplace_back([&, t] {
            const Context own;
            const Stream stream;
            const Blas blas = make_blas(own);
            const DeviceProduct p = { 17 + t, QEM_DTYPE_F16 };
            const Matrix x = rows_of_x(p, w.cols, t);
            const ProductMemory memory(artifact.get(), blas.get(), x, p);
            for (int run = 0; run < 5; run++)
                if (memory.multiply(own, artifact.get(), blas.get(), p, stream) != QEM_OK) failures[t] = own.error();
            stream.wait();
            if (memory.y_memory.read() != expected_product(w, x, p, true).bytes) failures[t] += " other bytes";
        });
    for (std::thread &thread : threads) thread.join();
    for (const std::string &failure : failures) EXPECT_EQ(failure, "");
}

} // namespace
