/*
 * Times decoding, products and quantizing on a GPU, and writes one JSON object a line: see usage(). Decoding is compared
 * with a copy within the device's memory, products with cuBLAS on the decoded matrix in f16 (where it is installed),
 * quantizing with the CPU. What is timed is checked too: decoded rows are those of the CPU to the last bit, products are
 * near those in double.
 */
#include <qem/cuda.h>
#include <qem/qem.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "dense.h"
#include "timing.h"

namespace {

template <auto End> struct EndByPointer {
    template <typename T> void operator()(T *object) const { End(&object); }
};
using Context = std::unique_ptr<qem_context, EndByPointer<qem_context_destroy>>;
using Artifact = std::unique_ptr<qem_artifact, EndByPointer<qem_artifact_destroy>>;
using Uploaded = std::unique_ptr<qem_device_artifact, EndByPointer<qem_device_artifact_destroy>>;
using Blas = std::unique_ptr<qem_cuda_blas, EndByPointer<qem_cuda_blas_destroy>>;
using Clock = std::chrono::steady_clock;

void must(const qem_context *context, qem_status status)
{
    if (status != QEM_OK) throw std::runtime_error(std::string(qem_status_string(status)) + ": " + qem_last_error(context));
}

double seconds_since(Clock::time_point begin)
{
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Shape {
    uint64_t rows, cols;
    uint64_t elements() const { return rows * cols; }
};

struct Settings {
    std::string part; // empty: all
    int turns = 30, quantizations = 3;
    double seconds = 450.0; // after so many no case is begun
    uint64_t copy_bytes = uint64_t(1) << 29, cache_bytes = uint64_t(1) << 28;
    std::vector<Shape> shapes = { { 4096, 4096 }, { 11008, 4096 }, { 28672, 8192 } };
    Shape to_quantize = { 4096, 4096 };
    uint64_t most_k = 256; // where quantizing is timed
    std::vector<uint64_t> batches = { 1, 2, 4, 8, 16, 64 };
    Clock::time_point begin = Clock::now();

    bool asks_for(const char *name) const { return part.empty() || part == name; }
    bool has_time() const { return seconds_since(begin) < seconds; }
};

// Shapes for which a GPU that is played by the CPU takes seconds.
void make_tiny(Settings &settings)
{
    settings.turns = 3;
    settings.quantizations = 1;
    settings.copy_bytes = settings.cache_bytes = 1 << 16;
    settings.shapes = { { 264, 64 }, { 256, 72 } };
    settings.to_quantize = { 40, 32 };
    settings.most_k = 16;
    settings.batches = { 1, 3, 20 };
}

// ---- what is measured ----

struct Recipe {
    const char *name;
    double bits; // of a code, for one element
    qem_method method;
    uint64_t k;
    bool block_scales;
};
const Recipe recipes[] = { { "vq", 2, QEM_METHOD_VQ, 256, false },
                           { "pq", 2, QEM_METHOD_PQ, 256, false },
                           { "lloydmax3", 3, QEM_METHOD_LLOYDMAX, 8, true },
                           { "lloydmax4", 4, QEM_METHOD_LLOYDMAX, 16, true },
                           { "grid8", 8, QEM_METHOD_GRID, 256, false } };
const Recipe fits[] = { { "vq", 2, QEM_METHOD_VQ, 256, false },       { "pq", 2, QEM_METHOD_PQ, 256, false },
                        { "qet", 2, QEM_METHOD_QET, 256, false },     { "hyperchr", 2, QEM_METHOD_HYPERCHR, 256, false },
                        { "lloydmax4", 4, QEM_METHOD_LLOYDMAX, 16, true }, { "grid8", 8, QEM_METHOD_GRID, 256, false } };

qem_recipe recipe_of(const Recipe &from, uint32_t iterations)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.method = from.method;
    recipe.k = from.k;
    recipe.iterations = iterations;
    if (from.bits == 2) recipe.dim = 4;
    if (from.method == QEM_METHOD_GRID) recipe.grid_axis = QEM_AXIS_ROW;
    if (from.block_scales) {
        recipe.standardize = QEM_STANDARDIZE_BLOCK;
        recipe.standardize_block = 64;
    }
    return recipe;
}

// Sums of four uniform numbers, nearly normal, with the deviation of a layer's weights.
std::vector<float> weights(uint64_t count)
{
    std::vector<float> values(count);
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (float &value : values) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        int64_t sum = 0;
        for (int i = 0; i < 4; i++) sum += static_cast<int64_t>(state >> (16 * i) & 0xffff) - 0x8000;
        value = static_cast<float>(sum) * (0.02f / 37837.0f);
    }
    return values;
}

Artifact quantize(qem_context *context, const std::vector<float> &matrix, const Shape &shape, const qem_recipe &recipe)
{
    qem_view view = QEM_VIEW_INIT;
    view.data = matrix.data();
    view.rows = shape.rows;
    view.cols = shape.cols;
    qem_artifact *artifact = nullptr;
    must(context, qem_quantize(context, &view, "w", &recipe, &artifact));
    return Artifact(artifact);
}

qem_artifact_info query(const Artifact &artifact)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    if (qem_artifact_query(artifact.get(), &info) != QEM_OK) throw std::runtime_error("an artifact cannot be queried");
    return info;
}

Context make_context(qem_device device)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = nullptr;
    params.device = device;
    const qem_status status = qem_context_create(&params, &context);
    if (status != QEM_OK) throw std::runtime_error(std::string("a context: ") + qem_status_string(status));
    return Context(context);
}

// ---- the lines that are written ----

void say_device(const Settings &settings)
{
    cudaDeviceProp properties;
    must_cuda(cudaGetDeviceProperties(&properties, 0));
    std::printf("{\"what\":\"device\",\"name\":\"%s\",\"capability\":\"%d.%d\",\"turns\":%d}\n", properties.name,
                properties.major, properties.minor, settings.turns);
}

void say_skipped(const char *what, const std::string &name, const Shape &shape, const std::string &why)
{
    std::printf("{\"what\":\"skipped\",\"part\":\"%s\",\"case\":\"%s\",\"rows\":%llu,\"cols\":%llu,\"why\":\"%s\"}\n", what,
                name.c_str(), static_cast<unsigned long long>(shape.rows), static_cast<unsigned long long>(shape.cols),
                why.c_str());
    std::fflush(stdout);
}

void begin_line(const char *what, const char *name, const Shape &shape)
{
    std::printf("{\"what\":\"%s\",\"case\":\"%s\",\"rows\":%llu,\"cols\":%llu", what, name,
                static_cast<unsigned long long>(shape.rows), static_cast<unsigned long long>(shape.cols));
}

void end_line()
{
    std::printf("}\n");
    std::fflush(stdout);
}

double gigabytes_per_second(uint64_t bytes, double microseconds)
{
    return static_cast<double>(bytes) / microseconds / 1e3;
}

// Bytes read and written by a copy within the device's memory, in GB/s.
double copy_speed(const Settings &settings, const Timer &timer)
{
    const Memory from(settings.copy_bytes), to(settings.copy_bytes);
    must_cuda(cudaMemset(from.get(), 1, from.bytes()));
    const double us = timer.time([&] {
        must_cuda(cudaMemcpyAsync(to.get(), from.get(), to.bytes(), cudaMemcpyDeviceToDevice, timer.stream()));
    });
    const double speed = gigabytes_per_second(2 * to.bytes(), us);
    std::printf("{\"what\":\"copy\",\"bytes\":%llu,\"us\":%.2f,\"gbs\":%.1f",
                static_cast<unsigned long long>(2 * to.bytes()), us, speed);
    end_line();
    return speed;
}

// ---- an artifact on the GPU, decoded to f16 and checked ----

struct Layer {
    Layer(qem_context *maker, const std::vector<float> &matrix, const Shape &of_matrix, const Recipe &recipe,
          const Timer &on)
        : shape(of_matrix), context(maker), timer(on), artifact(quantize(maker, matrix, shape, recipe_of(recipe, 1))),
          stored_bytes(query(artifact).stored_bytes), uploaded(upload()), decoded(shape.elements() * 2),
          workspace(qem_cuda_dequantize_workspace_size(uploaded.get(), shape.rows))
    {
    }
    Uploaded upload() const
    {
        qem_device_artifact *made = nullptr;
        must(context, qem_artifact_upload(context, artifact.get(), 0, timer.stream(), &made));
        return Uploaded(made);
    }
    void decode() const
    {
        must(context, qem_cuda_dequantize(context, uploaded.get(), 0, shape.rows, QEM_DTYPE_F16, decoded.get(), 0, nullptr,
                                          workspace.get(), workspace.bytes(), timer.stream()));
    }
    std::vector<float> row(uint64_t i) const
    {
        std::vector<float> values(shape.cols);
        must(context, qem_dequantize(context, artifact.get(), i, i + 1, QEM_DTYPE_F32, values.data(), 0));
        return values;
    }
    // First, middle and last row are those of the CPU.
    void check_decoded() const
    {
        decode();
        must_cuda(cudaStreamSynchronize(timer.stream()));
        std::vector<uint16_t> got(shape.cols), wanted(shape.cols);
        for (uint64_t i : { uint64_t(0), shape.rows / 2, shape.rows - 1 }) {
            decoded.read_to(got.data(), i * shape.cols * 2, shape.cols * 2);
            must(context, qem_dequantize(context, artifact.get(), i, i + 1, QEM_DTYPE_F16, wanted.data(), 0));
            if (got != wanted) throw std::runtime_error("row " + std::to_string(i) + " is not what the CPU decodes");
        }
    }

    const Shape shape;
    qem_context *const context;
    const Timer &timer;
    const Artifact artifact;
    const uint64_t stored_bytes; // all that decoding reads: codes, scales, codebooks
    const Uploaded uploaded;
    const Memory decoded, workspace;
};

void bench_decode(const Settings &settings, qem_context *context, const Timer &timer)
{
    const double copy = copy_speed(settings, timer);
    for (const Shape &shape : settings.shapes) {
        const std::vector<float> matrix = weights(shape.elements());
        for (const Recipe &recipe : recipes) {
            if (!settings.has_time()) {
                say_skipped("dequantize", recipe.name, shape, "out of time");
                continue;
            }
            const Layer layer(context, matrix, shape, recipe, timer);
            layer.check_decoded();
            const double us = timer.time([&] { layer.decode(); });
            const uint64_t bytes = layer.stored_bytes + layer.decoded.bytes();
            const double speed = gigabytes_per_second(bytes, us);
            begin_line("dequantize", recipe.name, shape);
            std::printf(",\"bits\":%g,\"bytes\":%llu,\"us\":%.2f,\"gbs\":%.1f,\"percent_of_copy\":%.1f", recipe.bits,
                        static_cast<unsigned long long>(bytes), us, speed, 100.0 * speed / copy);
            end_line();
        }
    }
}

// ---- products ----

// f16 of k/64 for whole k from -64 to 63, which takes no rounding.
uint16_t sixty_fourths(int k)
{
    if (k == 0) return 0;
    int bits = std::abs(k), exponent = 19; // of 2^10 times 2^-6
    for (; bits < 1024; bits *= 2) exponent--;
    return static_cast<uint16_t>((k < 0 ? 0x8000 : 0) | exponent << 10 | (bits & 1023));
}

int x_of(uint64_t i)
{
    return static_cast<int>(i * 2654435761u >> 7 & 127) - 64;
}

struct Product {
    Product(const Layer &layer, const qem_cuda_blas *blas, uint64_t batch)
        : batch(batch), x(batch * layer.shape.cols * 2), y(batch * layer.shape.rows * 4),
          workspace(qem_cuda_matmul_workspace_size(layer.uploaded.get(), blas, batch, QEM_DTYPE_F16, QEM_DTYPE_F32))
    {
        std::vector<uint16_t> values(batch * layer.shape.cols);
        for (uint64_t i = 0; i < values.size(); i++) values[i] = sixty_fourths(x_of(i));
        x.fill_from(values.data());
    }
    // The last row of y in a few columns, by either side, against the product in double with the row of W in f32.
    void check(const Layer &layer, const char *who) const
    {
        const Shape &shape = layer.shape;
        for (uint64_t i : { uint64_t(0), shape.rows / 2, shape.rows - 1 }) {
            const std::vector<float> w = layer.row(i);
            double sum = 0.0, size = 0.0;
            for (uint64_t j = 0; j < shape.cols; j++) {
                const double term = w[j] * (x_of((batch - 1) * shape.cols + j) / 64.0);
                sum += term;
                size += std::abs(term);
            }
            float got = 0.0f;
            y.read_to(&got, ((batch - 1) * shape.rows + i) * 4, 4);
            if (!(std::abs(got - sum) <= 1e-3 * size)) // rounding W to f16 takes 2^-11 of it
                throw std::runtime_error(std::string(who) + ": row " + std::to_string(i) + " of y is " +
                                         std::to_string(got) + ", not " + std::to_string(sum));
        }
    }
    const uint64_t batch;
    const Memory x, y, workspace;
};

double time_product(qem_context *context, const Timer &timer, const Layer &layer, qem_cuda_blas *blas, const Product &p)
{
    const double us = timer.time([&] {
        must(context, qem_cuda_matmul(context, layer.uploaded.get(), blas, p.batch, QEM_DTYPE_F16, p.x.get(), 0,
                                      QEM_DTYPE_F32, p.y.get(), 0, nullptr, p.workspace.get(), p.workspace.bytes(),
                                      timer.stream()));
    });
    p.check(layer, "qem_cuda_matmul");
    return us;
}

double time_dense(const Timer &timer, const Layer &layer, const Dense &dense, const Product &p)
{
    const double us = timer.time(
        [&] { dense.multiply(p.batch, layer.shape.rows, layer.shape.cols, p.x, layer.decoded, p.y); });
    p.check(layer, "cuBLAS");
    return us;
}

void bench_products_of(const Settings &settings, qem_context *context, const Timer &timer, const Recipe &recipe,
                       const Layer &layer, qem_cuda_blas *blas, const Dense &dense)
{
    layer.check_decoded(); // cuBLAS multiplies what was decoded
    for (uint64_t batch : settings.batches) {
        const Product product(layer, blas, batch);
        const double us = time_product(context, timer, layer, blas, product);
        begin_line("matmul", recipe.name, layer.shape);
        std::printf(",\"bits\":%g,\"batch\":%llu,\"us\":%.2f,\"gbs\":%.1f", recipe.bits,
                    static_cast<unsigned long long>(batch), us, gigabytes_per_second(layer.stored_bytes, us));
        if (dense) {
            const double other = time_dense(timer, layer, dense, product);
            std::printf(",\"cublas_us\":%.2f,\"times_cublas\":%.3f", other, other / us);
        }
        end_line();
    }
}

void bench_matmul(const Settings &settings, qem_context *context, const Timer &timer)
{
    const Dense dense(timer.stream());
    qem_cuda_blas *raw = nullptr;
    if (!dense) say_skipped("matmul", "cublas", { 0, 0 }, "no cuBLAS can be loaded");
    else must(context, qem_cuda_blas_create(context, 0, nullptr, &raw));
    const Blas blas(raw);
    for (const Shape &shape : settings.shapes) {
        const std::vector<float> matrix = weights(shape.elements());
        for (const Recipe &recipe : recipes) {
            if (!settings.has_time()) {
                say_skipped("matmul", recipe.name, shape, "out of time");
                continue;
            }
            const Layer layer(context, matrix, shape, recipe, timer);
            bench_products_of(settings, context, timer, recipe, layer, blas.get(), dense);
        }
    }
}

// ---- quantizing ----

// The median over the turns in milliseconds, by the host's clock, since the call blocks.
double time_fit(const Settings &settings, qem_context *context, const std::vector<float> &matrix, const qem_recipe &recipe,
                Artifact &artifact)
{
    std::vector<double> times;
    const int warm_up = settings.quantizations > 1;
    for (int turn = -warm_up; turn < settings.quantizations; turn++) {
        const Clock::time_point begin = Clock::now();
        artifact = quantize(context, matrix, settings.to_quantize, recipe);
        if (turn >= 0) times.push_back(1e3 * seconds_since(begin));
    }
    return median(times);
}

void bench_quantize(const Settings &settings, qem_context *cpu)
{
    const Context gpu = make_context(QEM_DEVICE_CUDA);
    const std::vector<float> matrix = weights(settings.to_quantize.elements());
    for (const Recipe &fit : fits) {
        if (!settings.has_time()) {
            say_skipped("quantize", fit.name, settings.to_quantize, "out of time");
            continue;
        }
        qem_recipe recipe = recipe_of(fit, 5);
        recipe.k = std::min(recipe.k, settings.most_k);
        Artifact by_cpu, by_gpu;
        const double cpu_ms = time_fit(settings, cpu, matrix, recipe, by_cpu);
        const double gpu_ms = time_fit(settings, gpu.get(), matrix, recipe, by_gpu);
        const qem_artifact_info a = query(by_cpu), b = query(by_gpu);
        const bool same = a.stored_bytes == b.stored_bytes && a.metrics.mse == b.metrics.mse;
        begin_line("quantize", fit.name, settings.to_quantize);
        std::printf(",\"cpu_ms\":%.2f,\"gpu_ms\":%.2f,\"times_cpu\":%.3f,\"mse\":%.9g,\"same\":%s", cpu_ms, gpu_ms,
                    cpu_ms / gpu_ms, a.metrics.mse, same ? "true" : "false");
        end_line();
        if (!same) throw std::runtime_error(std::string(fit.name) + ": the GPU's artifact is not the CPU's");
    }
}

void usage()
{
    std::fputs("usage: gpu_bench [--part decode|matmul|quantize] [--seconds N] [--turns N] [--tiny]\n"
               "  --part     one part instead of all\n"
               "  --seconds  begin no case after so many (450)\n"
               "  --turns    the median is over so many (30)\n"
               "  --tiny     small shapes and few turns, to see that it works\n",
               stderr);
}

bool read_options(int count, char **words, Settings &settings)
{
    for (int i = 1; i < count; i++) {
        const std::string word = words[i];
        if (word == "--tiny") {
            make_tiny(settings);
            continue;
        }
        if (i + 1 == count) return false;
        const std::string value = words[++i];
        if (word == "--part" && (value == "decode" || value == "matmul" || value == "quantize")) settings.part = value;
        else if (word == "--seconds" && std::atof(value.c_str()) > 0.0) settings.seconds = std::atof(value.c_str());
        else if (word == "--turns" && std::atoi(value.c_str()) > 0) settings.turns = std::atoi(value.c_str());
        else return false;
    }
    return true;
}

} // namespace

int main(int count, char **words)
{
    Settings settings;
    if (!read_options(count, words, settings)) {
        usage();
        return 2;
    }
    try {
        int devices = 0;
        const cudaError_t error = cudaGetDeviceCount(&devices);
        if (error != cudaSuccess || devices == 0) {
            std::fprintf(stderr, "gpu_bench: no GPU can be used: %s\n", cudaGetErrorString(error));
            return 3;
        }
        const Context context = make_context(QEM_DEVICE_CPU);
        const Timer timer(settings.cache_bytes, settings.turns);
        say_device(settings);
        if (settings.asks_for("decode")) bench_decode(settings, context.get(), timer);
        if (settings.asks_for("matmul")) bench_matmul(settings, context.get(), timer);
        if (settings.asks_for("quantize")) bench_quantize(settings, context.get());
    } catch (const std::exception &error) {
        std::fflush(stdout);
        std::fprintf(stderr, "gpu_bench: %s\n", error.what());
        return 1;
    }
    return 0;
}
