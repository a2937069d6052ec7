// Quantizing and decoding by method through the public API: synthetic data, 1024 x 128, dim 4, ratio 8.
#include <qem/qem.h>

#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

namespace {

constexpr uint64_t rows = 1024, cols = 128;

struct end_context {
    void operator()(qem_context *context) const { qem_context_destroy(&context); }
};
struct end_artifact {
    void operator()(qem_artifact *artifact) const { qem_artifact_destroy(&artifact); }
};
using context_pointer = std::unique_ptr<qem_context, end_context>;
using artifact_pointer = std::unique_ptr<qem_artifact, end_artifact>;

context_pointer make_context(uint32_t threads)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = nullptr;

    params.threads = threads;
    qem_context_create(&params, &context);
    return context_pointer(context);
}

qem_view view_of(const std::vector<float> &data)
{
    qem_view view = QEM_VIEW_INIT;

    view.data = data.data();
    view.rows = rows;
    view.cols = cols;
    return view;
}

artifact_pointer quantize(qem_context *context, const qem_view &view, qem_method method)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    qem_artifact *artifact = nullptr;

    recipe.method = method;
    recipe.ratio = 7.9; // an integer ratio would cost the scalar grid a whole bit
    qem_quantize(context, &view, "x", &recipe, &artifact);
    return artifact_pointer(artifact);
}

void bench_quantize(benchmark::State &state, qem_method method)
{
    const auto context = make_context(static_cast<uint32_t>(state.range(0)));
    std::vector<float> data(rows * cols);

    qem_generate_synthetic(context.get(), rows, cols, 1e-4, data.data());
    const qem_view view = view_of(data);
    for (auto _ : state) {
        if (!quantize(context.get(), view, method)) {
            state.SkipWithError(qem_last_error(context.get()));
            return;
        }
    }
    state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(rows * cols));
}

void bench_dequantize(benchmark::State &state, qem_method method)
{
    const auto context = make_context(static_cast<uint32_t>(state.range(0)));
    std::vector<float> data(rows * cols), out(rows * cols);

    qem_generate_synthetic(context.get(), rows, cols, 1e-4, data.data());
    const auto artifact = quantize(context.get(), view_of(data), method);
    for (auto _ : state) {
        if (qem_dequantize(context.get(), artifact.get(), 0, rows, QEM_DTYPE_F32, out.data(), 0) != QEM_OK) {
            state.SkipWithError(qem_last_error(context.get()));
            return;
        }
        benchmark::DoNotOptimize(out.data());
    }
    state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(rows * cols * sizeof(float)));
}

void add(const std::string &name, void (*function)(benchmark::State &, qem_method), qem_method method)
{
    benchmark::RegisterBenchmark(name.c_str(), function, method)
        ->ArgName("threads")
        ->Arg(1)
        ->Arg(2)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
}

const bool added = [] {
    for (int m = QEM_METHOD_RTN; m <= QEM_METHOD_QET; m++) {
        const auto method = static_cast<qem_method>(m);
        const std::string name = qem_method_name(method);
        add("quantize/" + name, bench_quantize, method);
        add("dequantize/" + name, bench_dequantize, method);
    }
    return true;
}();

} // namespace
