/*
 * Two linear layers y = (x * A^T) * B^T whose matrices stay quantized on the GPU, captured into CUDA graphs: one for a single
 * row of x, as when a token is generated, and one for a prompt of many rows, which goes through cuBLAS where that is installed.
 * Nothing is allocated once the graphs are there; what is put into x before a launch is what the launch multiplies.
 */
#include <qem/cuda.h>
#include <qem/qem.h>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr uint64_t kHidden = 256, kInner = 640, kPrompt = 32;

void must(const qem_context *context, qem_status status)
{
    if (status != QEM_OK) throw std::runtime_error(std::string(qem_status_string(status)) + ": " + qem_last_error(context));
}

void must(cudaError_t error)
{
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// What the library and CUDA hand out, ended in the opposite order.
template <auto End> struct EndBy {
    template <typename T> void operator()(T *object) const { (void)End(object); }
};
template <auto End> struct EndByPointer {
    template <typename T> void operator()(T *object) const { End(&object); }
};
using Context = std::unique_ptr<qem_context, EndByPointer<qem_context_destroy>>;
using Artifact = std::unique_ptr<qem_artifact, EndByPointer<qem_artifact_destroy>>;
using Uploaded = std::unique_ptr<qem_device_artifact, EndByPointer<qem_device_artifact_destroy>>;
using Blas = std::unique_ptr<qem_cuda_blas, EndByPointer<qem_cuda_blas_destroy>>;
using Stream = std::unique_ptr<CUstream_st, EndBy<cudaStreamDestroy>>;
using Graph = std::unique_ptr<CUgraph_st, EndBy<cudaGraphDestroy>>;
using Executable = std::unique_ptr<CUgraphExec_st, EndBy<cudaGraphExecDestroy>>;
using DeviceMemory = std::unique_ptr<void, EndBy<cudaFree>>;

DeviceMemory allocate(uint64_t bytes)
{
    void *memory = nullptr;
    must(cudaMalloc(&memory, std::max<uint64_t>(bytes, 1)));
    return DeviceMemory(memory);
}

// ---- on the CPU, as files are made ----

Artifact quantize(qem_context *context, uint64_t rows, uint64_t cols)
{
    std::vector<float> matrix(rows * cols);
    must(context, qem_generate_synthetic(context, rows, cols, 0.0, matrix.data()));
    for (float &value : matrix) value -= 0.5f;
    qem_view view = QEM_VIEW_INIT;
    view.data = matrix.data();
    view.rows = rows;
    view.cols = cols;
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.method = QEM_METHOD_VQ;
    recipe.dim = 4;
    recipe.k = 256;
    qem_artifact *artifact = nullptr;
    must(context, qem_quantize(context, &view, "layer", &recipe, &artifact));
    return Artifact(artifact);
}

// ---- on the GPU ----

struct Layer {
    Artifact artifact; // for the comparison at the end
    Uploaded uploaded;
    uint64_t rows, cols;
};

Layer make_layer(qem_context *context, uint64_t rows, uint64_t cols, cudaStream_t stream)
{
    Layer layer = { quantize(context, rows, cols), nullptr, rows, cols };
    qem_device_artifact *uploaded = nullptr;
    must(context, qem_artifact_upload(context, layer.artifact.get(), 0, stream, &uploaded));
    layer.uploaded.reset(uploaded);
    return layer;
}

// Memory and a graph for products of `batch` rows, f16 between the layers.
struct Step {
    uint64_t batch, scratch_bytes;
    DeviceMemory x, between, y, scratch;
    Executable executable;
};

void enqueue(qem_context *context, const Layer &a, const Layer &b, qem_cuda_blas *blas, const Step &step, cudaStream_t stream)
{
    must(context, qem_cuda_matmul(context, a.uploaded.get(), blas, step.batch, QEM_DTYPE_F16, step.x.get(), 0, QEM_DTYPE_F16,
                                  step.between.get(), 0, nullptr, step.scratch.get(), step.scratch_bytes, stream));
    must(context, qem_cuda_matmul(context, b.uploaded.get(), blas, step.batch, QEM_DTYPE_F16, step.between.get(), 0,
                                  QEM_DTYPE_F32, step.y.get(), 0, nullptr, step.scratch.get(), step.scratch_bytes, stream));
}

Step make_step(qem_context *context, const Layer &a, const Layer &b, qem_cuda_blas *blas, uint64_t batch,
               cudaStream_t stream)
{
    // One layer after the other: the same scratch serves both.
    const uint64_t scratch_bytes = std::max(
        qem_cuda_matmul_workspace_size(a.uploaded.get(), blas, batch, QEM_DTYPE_F16, QEM_DTYPE_F16),
        qem_cuda_matmul_workspace_size(b.uploaded.get(), blas, batch, QEM_DTYPE_F16, QEM_DTYPE_F32));
    Step step = { batch,
                  scratch_bytes,
                  allocate(batch * a.cols * 2),
                  allocate(batch * a.rows * 2),
                  allocate(batch * b.rows * 4),
                  allocate(scratch_bytes),
                  nullptr };
    must(cudaMemsetAsync(step.x.get(), 0, batch * a.cols * 2, stream));
    enqueue(context, a, b, blas, step, stream); // once before: cuBLAS may have to load its kernels
    must(cudaStreamSynchronize(stream));
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue(context, a, b, blas, step, stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    must(cudaStreamEndCapture(stream, &graph));
    const Graph captured(graph);
    must(cudaGraphInstantiate(&executable, graph, 0));
    step.executable.reset(executable);
    return step;
}

// k/8 in f16, for whole k from -8 to 8: a normal number of 11 bits times 2^(exponent - 25).
uint16_t eighths(int k)
{
    int bits = std::abs(k), exponent = 22;
    if (bits == 0) return 0;
    for (; bits < 1024; bits *= 2) exponent--;
    return static_cast<uint16_t>((k < 0 ? 0x8000 : 0) | exponent << 10 | (bits & 1023));
}

// Launches the graph with an x of its own and compares with the CPU, which keeps f32 between the layers. The largest
// difference, in parts of the largest result.
double run(qem_context *context, const Layer &a, const Layer &b, const Step &step, int seed, cudaStream_t stream)
{
    std::vector<uint16_t> x(step.batch * a.cols);
    for (uint64_t i = 0; i < x.size(); i++) x[i] = eighths(static_cast<int>((i * 37 + static_cast<uint64_t>(seed)) % 17) - 8);
    std::vector<float> between(step.batch * a.rows), expected(step.batch * b.rows), y(expected.size());
    must(cudaMemcpyAsync(step.x.get(), x.data(), x.size() * 2, cudaMemcpyHostToDevice, stream));
    must(cudaGraphLaunch(step.executable.get(), stream));
    must(cudaMemcpyAsync(y.data(), step.y.get(), y.size() * 4, cudaMemcpyDeviceToHost, stream));
    must(cudaStreamSynchronize(stream));
    must(context, qem_matmul(context, a.artifact.get(), step.batch, QEM_DTYPE_F16, x.data(), 0, QEM_DTYPE_F32, between.data(),
                             0, nullptr, 0));
    must(context, qem_matmul(context, b.artifact.get(), step.batch, QEM_DTYPE_F32, between.data(), 0, QEM_DTYPE_F32,
                             expected.data(), 0, nullptr, 0));
    double worst = 0.0, largest = 0.0;
    for (uint64_t i = 0; i < y.size(); i++) {
        worst = std::max(worst, std::abs(static_cast<double>(y[i]) - expected[i]));
        largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    }
    return worst / largest;
}

Blas make_blas(qem_context *context)
{
    qem_cuda_blas *blas = nullptr;
    const qem_status status = qem_cuda_blas_create(context, 0, nullptr, &blas);
    if (status == QEM_ERR_UNSUPPORTED)
        std::printf("without cuBLAS: %s\n", qem_last_error(context));
    else
        must(context, status);
    return Blas(blas);
}

bool run_all()
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *made = nullptr;
    must(nullptr, qem_context_create(&params, &made));
    const Context context(made);
    const Blas blas = make_blas(context.get());
    cudaStream_t created = nullptr;
    must(cudaStreamCreate(&created));
    const Stream stream(created);
    const Layer a = make_layer(context.get(), kInner, kHidden, stream.get()),
                b = make_layer(context.get(), kHidden, kInner, stream.get());
    bool fits = true;
    for (uint64_t batch : { uint64_t(1), kPrompt }) {
        const Step step = make_step(context.get(), a, b, blas.get(), batch, stream.get());
        for (int token = 0; token < 3; token++) {
            const double difference = run(context.get(), a, b, step, token, stream.get());
            std::printf("%llu rows: the largest difference from the CPU is %.2g of the largest result\n",
                        static_cast<unsigned long long>(batch), difference);
            fits = fits && difference < 0.01; // f16 lies between the layers
        }
    }
    return fits;
}

} // namespace

int main()
{
    try {
        return run_all() ? 0 : 1;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "cuda_graph: %s\n", error.what());
        return 1;
    }
}
