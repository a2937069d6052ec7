// Decoding through the public API beside a fill of the same output by streaming stores, the fastest that memory is written.
// of_fill is the median time of the fill over that of the decoder, both measured in turns in the same run.
#include <qem/qem.h>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

extern "C" {
#include "core/artifact.h"
}

namespace {

struct Case {
    const char *name;
    qem_method method;
    uint64_t rows, cols, k;
    uint32_t levels;
    qem_dtype codebook, output;
    uint64_t rows_a_call; // 0: all at once; else every call writes to the same place
    uint64_t block = 0;   // columns of a block with a scale of its own, 0: none
    bool means = false;   // and a mean
    bool columns = false; // and a scale of each column
};

const Case cases[] = {
    { "pq/100000x128/k256", QEM_METHOD_PQ, 100000, 128, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "pq/11008x4096/k256", QEM_METHOD_PQ, 11008, 4096, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "pq/11008x4096/k256/f16-codebook", QEM_METHOD_PQ, 11008, 4096, 256, 0, QEM_DTYPE_F16, QEM_DTYPE_F32, 0 },
    { "pq/11008x4096/k256/f16-output", QEM_METHOD_PQ, 11008, 4096, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F16, 0 },
    { "pq/11008x4096/k256/64-rows-a-call", QEM_METHOD_PQ, 11008, 4096, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 64 },
    { "pq/100000x128/k4096", QEM_METHOD_PQ, 100000, 128, 4096, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "pq/100000x128/k4096/f16-codebook", QEM_METHOD_PQ, 100000, 128, 4096, 0, QEM_DTYPE_F16, QEM_DTYPE_F32, 0 },
    { "vq/100000x128/k256", QEM_METHOD_VQ, 100000, 128, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "vq/100000x128/k4096", QEM_METHOD_VQ, 100000, 128, 4096, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "vq/100000x128/k4096/f16-codebook", QEM_METHOD_VQ, 100000, 128, 4096, 0, QEM_DTYPE_F16, QEM_DTYPE_F32, 0 },
    { "vq/100000x128/k4096/bf16-output", QEM_METHOD_VQ, 100000, 128, 4096, 0, QEM_DTYPE_F32, QEM_DTYPE_BF16, 0 },
    { "lloydmax/11008x4096/k16", QEM_METHOD_LLOYDMAX, 11008, 4096, 16, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "lloydmax/11008x4096/k16/block16", QEM_METHOD_LLOYDMAX, 11008, 4096, 16, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0, 16 },
    { "lloydmax/11008x4096/k16/block16/means", QEM_METHOD_LLOYDMAX, 11008, 4096, 16, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0, 16,
      true },
    { "lloydmax/11008x4096/k16/block32/columns", QEM_METHOD_LLOYDMAX, 11008, 4096, 16, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0, 32,
      false, true },
    { "lloydmax/11008x4096/k16/block16/bf16-output", QEM_METHOD_LLOYDMAX, 11008, 4096, 16, 0, QEM_DTYPE_F32, QEM_DTYPE_BF16, 0,
      16 },
    { "lloydmax/11008x4096/k64/block32", QEM_METHOD_LLOYDMAX, 11008, 4096, 64, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0, 32 },
    { "rtn/11008x4096/k256", QEM_METHOD_RTN, 11008, 4096, 256, 0, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "qet/11008x4096/k256/1-level", QEM_METHOD_QET, 11008, 4096, 256, 1, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
    { "qet/11008x4096/k256/3-levels", QEM_METHOD_QET, 11008, 4096, 256, 3, QEM_DTYPE_F32, QEM_DTYPE_F32, 0 },
};

struct EndContext {
    void operator()(qem_context *context) const { qem_context_destroy(&context); }
};
struct EndArtifact {
    void operator()(qem_artifact *artifact) const { qem_artifact_destroy(&artifact); }
};
struct EndMemory {
    void operator()(void *memory) const { std::free(memory); }
};
using ContextPointer = std::unique_ptr<qem_context, EndContext>;
using ArtifactPointer = std::unique_ptr<qem_artifact, EndArtifact>;

ContextPointer make_context(uint32_t threads)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = nullptr;
    params.threads = threads;
    qem_context_create(&params, &context);
    return ContextPointer(context);
}

// A step of ones, in memory that the artifact's default allocator can release.
void add_step(qem_artifact &artifact, qem_axis axis, uint64_t block, bool means)
{
    qem_affine &step = artifact.layers[0].affine[artifact.layers[0].affine_count++];
    step.axis = axis;
    step.block = block;
    step.params = 32;
    step.has_scale = 1;
    step.has_mean = means;
    qem_affine_sizes(&step, artifact.rows, artifact.cols);
    const size_t bytes = (step.units * sizeof(float) + 63) / 64 * 64;
    step.scale_stored = step.scale = static_cast<float *>(std::aligned_alloc(64, bytes));
    std::fill_n(step.scale, step.units, 1.0f);
    if (!means) return;
    step.mean_stored = step.mean = static_cast<float *>(std::aligned_alloc(64, bytes));
    std::fill_n(step.mean, step.units, 0.5f);
}

// Random numbers and seeds without Lloyd passes: what is decoded does not matter, only that codes are spread over all
// entries.
ArtifactPointer make_artifact(const Case &c)
{
    const ContextPointer context = make_context(std::max(1u, std::thread::hardware_concurrency()));
    std::vector<float> data(c.rows * c.cols);
    std::mt19937 random(1);
    for (float &x : data) x = static_cast<float>(random()) * 0x1p-32f;
    qem_view view = QEM_VIEW_INIT;
    qem_recipe recipe = QEM_RECIPE_INIT;
    qem_artifact *artifact = nullptr;
    view.data = data.data();
    view.rows = c.rows;
    view.cols = c.cols;
    recipe.method = c.method;
    recipe.k = c.k;
    recipe.levels = c.levels;
    recipe.codebook = c.codebook;
    recipe.iterations = 0;
    qem_quantize(context.get(), &view, "x", &recipe, &artifact);
    if (artifact && c.block) add_step(*artifact, QEM_AXIS_BLOCK, c.block, c.means);
    if (artifact && c.columns) add_step(*artifact, QEM_AXIS_COLUMN, 0, false);
    return ArtifactPointer(artifact);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) void fill_by_64(unsigned char *out, size_t bytes)
{
    const __m512 ones = _mm512_set1_ps(1.0f);
    for (size_t at = 0; at + 64 <= bytes; at += 64) _mm512_stream_ps(reinterpret_cast<float *>(out + at), ones);
    _mm_sfence();
}
void fill_by_16(unsigned char *out, size_t bytes)
{
    for (size_t at = 0; at + 16 <= bytes; at += 16) _mm_stream_ps(reinterpret_cast<float *>(out + at), _mm_set1_ps(1.0f));
    _mm_sfence();
}
void fill(unsigned char *out, size_t bytes)
{
    (__builtin_cpu_supports("avx512f") ? fill_by_64 : fill_by_16)(out, bytes);
}
#else
void fill(unsigned char *out, size_t bytes)
{
    std::fill(out, out + bytes, static_cast<unsigned char>(1));
}
#endif

void fill_by_threads(unsigned char *out, size_t bytes, uint32_t threads)
{
    const size_t part = (bytes / threads + 63) / 64 * 64;
    std::vector<std::thread> others;
    for (uint32_t t = 1; t < threads; t++)
        others.emplace_back([=] { fill(out + t * part, std::min(part, bytes - t * part)); });
    fill(out, std::min(part, bytes));
    for (std::thread &other : others) other.join();
}

double seconds()
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> &times)
{
    std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
    return times[times.size() / 2];
}

qem_status decode(qem_context *context, const qem_artifact *artifact, const Case &c, unsigned char *out)
{
    const uint64_t step = c.rows_a_call ? c.rows_a_call : c.rows;
    for (uint64_t row = 0; row < c.rows; row += step) {
        const qem_status status = qem_dequantize(context, artifact, row, std::min(row + step, c.rows), c.output, out, 0);
        if (status != QEM_OK) return status;
    }
    return QEM_OK;
}

void bench_decode(benchmark::State &state, const Case &c)
{
    static const Case *made_for = nullptr; // the same artifact serves all numbers of threads
    static ArtifactPointer artifact;
    if (made_for != &c) artifact = make_artifact(c);
    made_for = &c;
    const auto threads = static_cast<uint32_t>(state.range(0));
    const ContextPointer context = make_context(threads);
    const size_t bytes = c.rows * c.cols * (c.output == QEM_DTYPE_F32 ? 4 : 2);
    void *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    const std::unique_ptr<unsigned char, EndMemory> out(static_cast<unsigned char *>(memory));
    std::vector<double> decode_times, fill_times;
    if (!artifact || !out) {
        state.SkipWithError("no artifact or no memory");
        return;
    }
    fill_by_threads(out.get(), bytes, threads); // no page is touched for the first time below
    for (auto _ : state) {
        const double begin = seconds();
        if (decode(context.get(), artifact.get(), c, out.get()) != QEM_OK) {
            state.SkipWithError(qem_last_error(context.get()));
            return;
        }
        const double middle = seconds();
        fill_by_threads(out.get(), bytes, threads);
        decode_times.push_back(middle - begin);
        fill_times.push_back(seconds() - middle);
        state.SetIterationTime(decode_times.back());
    }
    const double decode_time = median(decode_times), fill_time = median(fill_times);
    state.counters["GB/s"] = static_cast<double>(bytes) / decode_time * 1e-9;
    state.counters["fill GB/s"] = static_cast<double>(bytes) / fill_time * 1e-9;
    state.counters["of_fill"] = fill_time / decode_time;
}

const bool added = [] {
    for (const Case &c : cases)
        benchmark::RegisterBenchmark((std::string("decode/") + c.name).c_str(), bench_decode, c)
            ->ArgName("threads")
            ->Arg(1)
            ->Arg(2)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    return true;
}();

} // namespace
