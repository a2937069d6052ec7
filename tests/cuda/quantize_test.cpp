// Whole fits on the GPU (the kernel host runner): every artifact is that of the CPU to the last byte, its metrics too, and
// so is what it decodes to. The runner ends the program where host code touches device memory on the way.
#include <gtest/gtest.h>

#include <cstring>

#include "cuda/device.h"
#include "cuda/runner.h"
#include "support/context.h"
#include "support/matrices.h"

using namespace qem_test;

namespace {

struct Case {
    std::string name;
    Matrix matrix;
    qem_recipe recipe;
};

qem_recipe with(qem_method method, double bits, void (*change)(qem_recipe &) = nullptr)
{
    qem_recipe recipe = recipe_of(method);
    recipe.bits = bits;
    recipe.iterations = 4;
    if (change) change(recipe);
    return recipe;
}

std::vector<unsigned char> bytes_of(const qem_metrics &m)
{
    std::vector<unsigned char> bytes(sizeof m);
    std::memcpy(bytes.data(), &m, sizeof m);
    return bytes;
}

const Context &on(qem_device device)
{
    static const Context cpu(on_device(QEM_DEVICE_CPU, 7)), gpu(on_device(QEM_DEVICE_CUDA, 7));
    return device == QEM_DEVICE_CPU ? cpu : gpu;
}

void expect_same_artifacts(const Artifact &cpu, const Artifact &gpu)
{
    const qem_artifact_info a = query(cpu), b = query(gpu);
    EXPECT_EQ(a.k, b.k);
    EXPECT_EQ(a.cells, b.cells);
    EXPECT_EQ(a.stored_bytes, b.stored_bytes);
    EXPECT_EQ(bytes_of(a.metrics), bytes_of(b.metrics))
        << a.metrics.mse << " on the CPU, " << b.metrics.mse << " on the GPU";
    const auto parts = parts_of(cpu), others = parts_of(gpu);
    ASSERT_EQ(parts.size(), others.size());
    for (const auto &[name, bytes] : parts) {
        ASSERT_EQ(others.count(name), 1u) << name;
        EXPECT_TRUE(bytes == others.at(name)) << name;
    }
}

// Fits, decodes in all types, measures, and encodes more rows.
void check(const Case &c)
{
    const testing::ScopedTrace trace(__FILE__, __LINE__, c.name);
    const qem_view view = c.matrix.view();
    const Artifact cpu = quantize(on(QEM_DEVICE_CPU), view, c.recipe), gpu = quantize(on(QEM_DEVICE_CUDA), view, c.recipe);
    expect_same_artifacts(cpu, gpu);
    const std::vector<float> x = decode(on(QEM_DEVICE_CPU), cpu), y = decode(on(QEM_DEVICE_CUDA), cpu);
    EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)), 0);
    const Matrix more = gaussian(9, c.matrix.cols, 99);
    expect_same_artifacts(encode(on(QEM_DEVICE_CPU), cpu, more.view()), encode(on(QEM_DEVICE_CUDA), cpu, more.view()));
}

// ---- scalar codebooks ----

TEST(CudaQuantize, ScalarMethods)
{
    const Matrix plain = heavy_tails(40, 50, 1), few = integers(30, 33, 2, 9), mixed = gaussian(31, 64, 3, 0.1, 0.02);
    const Case cases[] = {
        { "rtn", plain, with(QEM_METHOD_RTN, 4.1) },
        { "rtn, integers", few, with(QEM_METHOD_RTN, 3.0) },
        { "rtn, one element", gaussian(1, 1, 4), recipe_k(QEM_METHOD_RTN, 1) },
        { "grid by tensor", plain, with(QEM_METHOD_GRID, 4.1) },
        { "grid by rows", plain, with(QEM_METHOD_GRID, 5.0, [](qem_recipe &r) { r.grid_axis = QEM_AXIS_ROW; }) },
        { "grid by blocks", mixed,
          with(QEM_METHOD_GRID, 5.0, [](qem_recipe &r) { r.grid_axis = QEM_AXIS_BLOCK, r.grid_block = 16; }) },
        { "nf by blocks", mixed,
          with(QEM_METHOD_NF, 4.6, [](qem_recipe &r) { r.grid_axis = QEM_AXIS_BLOCK, r.grid_block = 32; }) },
        { "nf by blocks, small scales", mixed,
          with(QEM_METHOD_NF, 4.6, [](qem_recipe &r) { r.grid_axis = QEM_AXIS_BLOCK, r.grid_block = 16, r.params = 6; }) },
        { "lloydmax", plain, with(QEM_METHOD_LLOYDMAX, 4.2) },
        { "lloydmax, integers", few, with(QEM_METHOD_LLOYDMAX, 3.3) },
        { "lloydmax, codebook f16", plain,
          with(QEM_METHOD_LLOYDMAX, 3.2, [](qem_recipe &r) { r.codebook = QEM_DTYPE_F16; }) },
        { "lloydmax, standardized blocks", mixed,
          with(QEM_METHOD_LLOYDMAX, 4.8,
               [](qem_recipe &r) { r.standardize = QEM_STANDARDIZE_BLOCK, r.standardize_block = 16, r.params = 6; }) },
        { "lloydmax, standardized rows and columns", mixed,
          with(QEM_METHOD_LLOYDMAX, 6.0,
               [](qem_recipe &r) { r.standardize = QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN; }) },
        { "lloydmax, outliers", plain, with(QEM_METHOD_LLOYDMAX, 4.5, [](qem_recipe &r) { r.outliers = 0.01; }) },
        { "grid, outliers by deviation", plain,
          with(QEM_METHOD_GRID, 6.5, [](qem_recipe &r) { r.outlier_sigma = 3.0, r.grid_axis = QEM_AXIS_ROW; }) },
        { "rtn, swaps", plain, with(QEM_METHOD_RTN, 6.0, [](qem_recipe &r) { r.levels = 2; }) },
    };
    for (const Case &c : cases) check(c);
}

// ---- codebooks of sub-vectors ----

TEST(CudaQuantize, VectorMethods)
{
    const Matrix plain = gaussian(60, 24, 5), few = repeated_rows(50, 16, 6, 7), narrow = heavy_tails(70, 10, 7);
    const Case cases[] = {
        { "vq", plain, recipe_k(QEM_METHOD_VQ, 12) },
        { "vq, fewer distinct rows", few, with(QEM_METHOD_VQ, 9.0) },
        { "pq", plain, recipe_k(QEM_METHOD_PQ, 9) },
        { "pq, a narrow last group", narrow, with(QEM_METHOD_PQ, 6.0) },
        { "pq, codebook f16", plain, with(QEM_METHOD_PQ, 5.0, [](qem_recipe &r) { r.codebook = QEM_DTYPE_F16; }) },
        { "pq, small codebooks", plain, with(QEM_METHOD_PQ, 5.0, [](qem_recipe &r) { r.codebook_bits = 8; }) },
        { "pq, widths by group", narrow,
          with(QEM_METHOD_PQ, 6.0, [](qem_recipe &r) { r.allocation = QEM_ALLOCATION_VARIANCE; }) },
        { "hyperchr", plain, with(QEM_METHOD_HYPERCHR, 4.0) },
        { "hyperchr, three intervals", plain,
          with(QEM_METHOD_HYPERCHR, 6.0, [](qem_recipe &r) { r.intervals = 3, r.dim = 2; }) },
        { "hyperchr, refined", narrow,
          with(QEM_METHOD_HYPERCHR, 6.0, [](qem_recipe &r) { r.intervals = 2, r.refine = 2; }) },
        { "qet", plain, with(QEM_METHOD_QET, 6.5) },
        { "qet, two levels", narrow, with(QEM_METHOD_QET, 7.5, [](qem_recipe &r) { r.levels = 2, r.dim = 2; }) },
        { "two layers", plain,
          with(QEM_METHOD_HYPERCHR, 5.0,
               [](qem_recipe &r) {
                   static qem_recipe second = with(QEM_METHOD_PQ, 0.0);
                   r.residual = &second;
               }) },
        { "mixed rates", narrow, with(QEM_METHOD_HYPERCHR, 3.6, [](qem_recipe &r) { r.intervals = 1, r.mixed = 1; }) },
        { "hyperchr, standardized and outliers", mixed_columns(50, 24, 8),
          with(QEM_METHOD_HYPERCHR, 10.0,
               [](qem_recipe &r) {
                   r.params = 32;
                   r.standardize = QEM_STANDARDIZE_COLUMN;
                   r.outliers = 0.01;
               }) },
    };
    for (const Case &c : cases) check(c);
}

TEST(CudaQuantize, Rotations)
{
    const Matrix plain = mixed_columns(70, 8, 9), wide = gaussian(90, 12, 10);
    const Case cases[] = {
        { "opq", plain, recipe_k(QEM_METHOD_OPQ, 6) },
        { "opq, widths by group", wide,
          with(QEM_METHOD_OPQ, 9.0, [](qem_recipe &r) { r.allocation = QEM_ALLOCATION_VARIANCE; }) },
        { "lopq", plain, recipe_k(QEM_METHOD_LOPQ, 4) },
        { "opq, standardized rows", wide,
          with(QEM_METHOD_OPQ, 10.0, [](qem_recipe &r) { r.standardize = QEM_STANDARDIZE_ROW; }) },
    };
    for (Case c : cases) {
        c.recipe.iterations = 3;
        check(c);
    }
}

TEST(CudaQuantize, Importance)
{
    const Matrix matrix = gaussian(40, 20, 11);
    Matrix each(40, 20), columns(1, 20);
    Random random(12);
    for (float &w : each.x) w = static_cast<float>(random.below(5)) * 0.25f;
    for (float &w : columns.x) w = 0.1f + static_cast<float>(random.unit());
    for (const qem_method method :
         { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET })
        for (const Matrix *weight : { &each, &columns }) {
            const qem_view view = weight->view();
            qem_recipe recipe = recipe_k(method, 6);
            recipe.iterations = 3;
            recipe.importance = &view;
            check({ "importance with method " + std::to_string(method), matrix, recipe });
        }
}

// ---- what is around a fit ----

TEST(CudaQuantize, ViewsOfAllTypes)
{
    const Matrix matrix = gaussian(20, 36, 13);
    std::vector<double> wide(matrix.x.begin(), matrix.x.end());
    std::vector<uint8_t> bytes(matrix.x.size());
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i * 37);
    qem_view view = matrix.view();
    const qem_recipe recipe = with(QEM_METHOD_LLOYDMAX, 4.5);
    view.col_stride = 2;
    view.row_stride = 36;
    view.cols = 18;
    expect_same_artifacts(quantize(on(QEM_DEVICE_CPU), view, recipe), quantize(on(QEM_DEVICE_CUDA), view, recipe));
    view = matrix.view();
    view.data = wide.data();
    view.dtype = QEM_DTYPE_F64;
    expect_same_artifacts(quantize(on(QEM_DEVICE_CPU), view, recipe), quantize(on(QEM_DEVICE_CUDA), view, recipe));
    view.data = bytes.data();
    view.dtype = QEM_DTYPE_U8;
    expect_same_artifacts(quantize(on(QEM_DEVICE_CPU), view, recipe), quantize(on(QEM_DEVICE_CUDA), view, recipe));
}

TEST(CudaQuantize, MatrixInDeviceMemory)
{
    const Matrix matrix = gaussian(20, 36, 21), weight(1, 36, 0.5f);
    const DeviceMemory x(matrix.x.size() * sizeof(float)), w(weight.x.size() * sizeof(float));
    must_cuda(cudaMemcpy(x.get(), matrix.x.data(), matrix.x.size() * sizeof(float), cudaMemcpyHostToDevice));
    must_cuda(cudaMemcpy(w.get(), weight.x.data(), weight.x.size() * sizeof(float), cudaMemcpyHostToDevice));
    qem_view here = matrix.view(), there = here, weight_here = weight.view(), weight_there = weight_here;
    there.data = x.get();
    weight_there.data = w.get();
    qem_recipe recipe = with(QEM_METHOD_HYPERCHR, 5.0);
    recipe.importance = &weight_here;
    const Artifact cpu = quantize(on(QEM_DEVICE_CPU), here, recipe);
    recipe.importance = &weight_there;
    expect_same_artifacts(cpu, quantize(on(QEM_DEVICE_CUDA), there, recipe));
}

// An allocator may give pinned memory, from which copies are made later than they are asked for.
TEST(CudaQuantize, PinnedMemoryOfTheAllocator)
{
    Options options = on_device(QEM_DEVICE_CUDA, 7);
    options.allocator.allocate = [](void *, size_t bytes) -> void * {
        void *memory = nullptr;
        return cudaMallocHost(&memory, bytes) == cudaSuccess ? memory : nullptr;
    };
    options.allocator.release = [](void *, void *memory) { (void)cudaFreeHost(memory); };
    const Context pinned(options);
    const Matrix matrix = heavy_tails(40, 24, 22);
    for (const qem_method method : { QEM_METHOD_LLOYDMAX, QEM_METHOD_HYPERCHR, QEM_METHOD_QET }) {
        const qem_recipe recipe = with(method, 5.5);
        const Artifact artifact = quantize(pinned, matrix.view(), recipe);
        expect_same_artifacts(quantize(on(QEM_DEVICE_CPU), matrix.view(), recipe), artifact);
    }
}

TEST(CudaQuantize, DequantizeToRowsWithGaps)
{
    const Matrix matrix = gaussian(30, 21, 14);
    const Artifact artifact = quantize(on(QEM_DEVICE_CPU), matrix.view(), with(QEM_METHOD_PQ, 6.0));
    for (const qem_dtype dtype : { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 })
        for (const uint64_t stride : { 0, 21, 25 }) {
            std::vector<unsigned char> cpu(30 * 25 * 4, 0x5a), gpu(cpu);
            for (auto [context, out] : { std::pair(&on(QEM_DEVICE_CPU), &cpu), std::pair(&on(QEM_DEVICE_CUDA), &gpu) })
                context->must(qem_dequantize(*context, artifact.get(), 3, 28, dtype, out->data(), stride));
            EXPECT_EQ(cpu, gpu) << qem_dtype_name(dtype) << ", stride " << stride;
        }
}

TEST(CudaQuantize, ValuesBeyondTheTypeAreTold)
{
    Matrix matrix = gaussian(8, 8, 15, 1e20);
    const Artifact artifact = quantize(on(QEM_DEVICE_CUDA), matrix.view(), with(QEM_METHOD_RTN, 6.0));
    std::vector<uint16_t> out(64);
    EXPECT_EQ(qem_dequantize(on(QEM_DEVICE_CUDA), artifact.get(), 0, 8, QEM_DTYPE_F16, out.data(), 0), QEM_ERR_RANGE);
}

TEST(CudaQuantize, EvaluateAndPlan)
{
    const Matrix matrix = heavy_tails(40, 28, 16), other = gaussian(40, 28, 17);
    const Artifact artifact = quantize(on(QEM_DEVICE_CPU), matrix.view(), with(QEM_METHOD_HYPERCHR, 4.0));
    const qem_view a = matrix.view(), b = other.view();
    const qem_recipe recipe = with(QEM_METHOD_HYPERCHR, 5.0);
    std::vector<unsigned char> of[2];
    for (const qem_device device : { QEM_DEVICE_CPU, QEM_DEVICE_CUDA }) {
        qem_metrics first = QEM_METRICS_INIT, second = QEM_METRICS_INIT;
        qem_plan plan = QEM_PLAN_INIT;
        on(device).must(qem_evaluate(on(device), &a, artifact.get(), &first));
        on(device).must(qem_evaluate_matrix(on(device), &a, &b, &second));
        on(device).must(qem_make_plan(on(device), &a, &recipe, &plan));
        of[device] = bytes_of(first);
        const std::vector<unsigned char> more = bytes_of(second);
        of[device].insert(of[device].end(), more.begin(), more.end());
        of[device].push_back(static_cast<unsigned char>(plan.k));
        of[device].push_back(static_cast<unsigned char>(plan.cells));
    }
    EXPECT_EQ(of[0], of[1]);
}

TEST(CudaQuantize, Search)
{
    const Matrix matrix = gaussian(48, 16, 18);
    const qem_view view = matrix.view();
    qem_recipe recipe = with(QEM_METHOD_AUTO, 5.0);
    recipe.effort = 0;
    recipe.iterations = 2;
    Artifact found[2];
    for (const qem_device device : { QEM_DEVICE_CPU, QEM_DEVICE_CUDA }) {
        qem_recipe best = QEM_RECIPE_INIT;
        qem_artifact *artifact = nullptr;
        on(device).must(qem_search(on(device), &view, "w", &recipe, &best, nullptr, nullptr, &artifact));
        found[device].reset(artifact);
    }
    expect_same_artifacts(found[0], found[1]);
}

TEST(CudaQuantize, ProductsOnCodesAreNotThere)
{
    const Matrix matrix = gaussian(8, 8, 19);
    const Artifact artifact = quantize(on(QEM_DEVICE_CUDA), matrix.view(), with(QEM_METHOD_RTN, 6.0));
    std::vector<float> x(8), y(8);
    EXPECT_EQ(qem_matmul(on(QEM_DEVICE_CUDA), artifact.get(), 1, QEM_DTYPE_F32, x.data(), 0, QEM_DTYPE_F32, y.data(), 0,
                         nullptr, 0),
              QEM_ERR_UNSUPPORTED);
    EXPECT_EQ(qem_matmul_workspace_size(on(QEM_DEVICE_CUDA), artifact.get(), 1), 0u);
}

// A fit that fails half way, or that is stopped, leaves no device memory behind.
TEST(CudaQuantize, FailuresReleaseAllMemory)
{
    QEM_NEEDS_RUNNER();
    const Matrix matrix = gaussian(60, 24, 20);
    const qem_view view = matrix.view();
    const size_t before = qem_runner::allocated_bytes();
    for (const size_t memory : { 1000, 100000, 200000, 300000, 400000 }) {
        const Context context(on_device(QEM_DEVICE_CUDA));
        const qem_recipe recipe = recipe_k(QEM_METHOD_QET, 8);
        qem_artifact *artifact = nullptr;
        qem_runner::machine().memory = before + memory;
        const qem_status status = qem_quantize(context, &view, "w", &recipe, &artifact);
        qem_runner::machine().memory = (size_t)1 << 30;
        EXPECT_TRUE(status == QEM_ERR_MEMORY || status == QEM_OK) << context.error();
        EXPECT_EQ(artifact == nullptr, status != QEM_OK);
        qem_artifact_destroy(&artifact);
    }
    EXPECT_EQ(qem_runner::allocated_bytes(), before);
}

} // namespace
