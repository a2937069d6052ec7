// Products y = x * W^T on codes, by method, size and batch; "dense" is the plain loop over W as f32, as a compiler makes it.
#include <qem/qem.h>

#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

namespace {

struct end_context {
    void operator()(qem_context *context) const { qem_context_destroy(&context); }
};
struct end_artifact {
    void operator()(qem_artifact *artifact) const { qem_artifact_destroy(&artifact); }
};
using context_pointer = std::unique_ptr<qem_context, end_context>;
using artifact_pointer = std::unique_ptr<qem_artifact, end_artifact>;

struct shape {
    uint64_t rows, cols;
};
constexpr shape shapes[] = { { 64, 64 }, { 1024, 1024 }, { 4096, 4096 } };

struct recipe_case {
    const char *name;
    qem_method method;
    uint64_t k;
};
constexpr recipe_case recipes[] = {
    { "lloydmax4", QEM_METHOD_LLOYDMAX, 16 }, { "rtn8", QEM_METHOD_RTN, 256 }, { "vq4x4096", QEM_METHOD_VQ, 4096 },
    { "pq4x256", QEM_METHOD_PQ, 256 },        { "qet4x256", QEM_METHOD_QET, 256 },
};

context_pointer make_context(uint32_t threads)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = nullptr;

    params.threads = threads;
    qem_context_create(&params, &context);
    return context_pointer(context);
}

std::vector<float> synthetic(qem_context *context, uint64_t rows, uint64_t cols)
{
    std::vector<float> data(rows * cols);

    qem_generate_synthetic(context, rows, cols, 0.0, data.data());
    return data;
}

// The fit matters little here: one pass. k is lowered to what the shape allows.
artifact_pointer quantize(qem_context *context, const shape &s, const recipe_case &from)
{
    const std::vector<float> w = synthetic(context, s.rows, s.cols);
    qem_view view = QEM_VIEW_INIT;
    qem_recipe recipe = QEM_RECIPE_INIT;
    qem_artifact *artifact = nullptr;
    const bool per_group = from.method == QEM_METHOD_PQ || from.method == QEM_METHOD_QET;
    const uint64_t most = per_group ? s.rows : s.rows * s.cols / 4;

    view.data = w.data();
    view.rows = s.rows;
    view.cols = s.cols;
    recipe.method = from.method;
    recipe.k = from.k < most ? from.k : most;
    recipe.iterations = 1;
    qem_quantize(context, &view, "w", &recipe, &artifact);
    return artifact_pointer(artifact);
}

void count(benchmark::State &state, const shape &s, uint64_t batch)
{
    state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(s.rows * s.cols * batch));
}

void bench_matmul(benchmark::State &state, shape s, recipe_case from)
{
    const auto context = make_context(static_cast<uint32_t>(state.range(0)));
    const auto batch = static_cast<uint64_t>(state.range(1));
    const auto artifact = quantize(context.get(), s, from);

    if (!artifact) {
        state.SkipWithError(qem_last_error(context.get()));
        return;
    }
    const std::vector<float> x = synthetic(context.get(), batch, s.cols);
    std::vector<float> y(batch * s.rows);
    std::vector<uint8_t> workspace(qem_matmul_workspace_size(context.get(), artifact.get(), batch));
    for (auto _ : state) {
        if (qem_matmul(context.get(), artifact.get(), batch, QEM_DTYPE_F32, x.data(), 0, QEM_DTYPE_F32, y.data(), 0,
                       workspace.data(), workspace.size()) != QEM_OK) {
            state.SkipWithError(qem_last_error(context.get()));
            return;
        }
        benchmark::DoNotOptimize(y.data());
    }
    count(state, s, batch);
}

void bench_dense(benchmark::State &state, shape s)
{
    const auto context = make_context(1);
    const std::vector<float> w = synthetic(context.get(), s.rows, s.cols), x = synthetic(context.get(), 1, s.cols);
    std::vector<float> y(s.rows);

    for (auto _ : state) {
        for (uint64_t i = 0; i < s.rows; i++) {
            const float *row = w.data() + i * s.cols;
            float lane[16] = { 0 };
            for (uint64_t j = 0; j + 16 <= s.cols; j += 16)
                for (uint64_t l = 0; l < 16; l++) lane[l] += row[j + l] * x[j + l];
            y[i] = 0.0f;
            for (float part : lane) y[i] += part;
        }
        benchmark::DoNotOptimize(y.data());
    }
    count(state, s, 1);
}

std::string name_of(const char *what, const shape &s)
{
    return std::string(what) + "/" + std::to_string(s.rows) + "x" + std::to_string(s.cols);
}

const bool added = [] {
    for (const shape &s : shapes) {
        benchmark::RegisterBenchmark(name_of("dense", s).c_str(), bench_dense, s)
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
        for (const recipe_case &r : recipes)
            benchmark::RegisterBenchmark(name_of(r.name, s).c_str(), bench_matmul, s, r)
                ->ArgNames({ "threads", "batch" })
                ->ArgsProduct({ { 1, 2 }, { 1, 4, 16, 64 } })
                ->UseRealTime()
                ->Unit(benchmark::kMicrosecond);
    }
    return true;
}();

} // namespace
