// Products by kernels of the library's own, bit for bit in the documented order, with whatever an artifact can hold.
#include <thread>

#include "artifacts.h"
#include "cuda/product.cuh"
#include "product.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

enum class Way { codes, groups, floats };

Way way_of(const qem_device_artifact *artifact)
{
    const qem_cuda_host_stage &stage = *artifact->segments[0].stage[0];
    if (artifact->layer_count > 1 || artifact->outliers.count) return Way::floats;
    if (qem_cuda_multiplies_scalars(stage, artifact->cols) || qem_cuda_multiplies_vectors(stage, artifact->cols))
        return Way::codes;
    return qem_cuda_multiplies_groups(stage, artifact->cols) ? Way::groups : Way::floats;
}

// Every kernel's batch, each with its own types and places.
const DeviceProduct places[] = {
    { 1 },
    { 2, QEM_DTYPE_F16, QEM_DTYPE_F16 },
    { 3, QEM_DTYPE_BF16, QEM_DTYPE_F32, 4, 3, 4, 1 },
    { 7, QEM_DTYPE_F32, QEM_DTYPE_BF16, 1, 0, 1, 1 },
};

void check(const Layers &layers, Way way, const std::vector<DeviceProduct> &more = {})
{
    const Matrix w = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context(), layers.get());
    ASSERT_EQ(int(way_of(artifact.get())), int(way));
    if (way == Way::codes) {
        ASSERT_EQ(qem_cuda_matmul_workspace_size(artifact.get(), nullptr, 8, QEM_DTYPE_F16, QEM_DTYPE_F16), 0u);
    }
    for (const DeviceProduct &p : places) ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, p));
    for (const DeviceProduct &p : more) ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, p));
}

// ---- codes of one codebook ----

const std::vector<std::vector<AffineSpec>> step_lists = {
    {},
    { { QEM_AXIS_TENSOR } },
    { { QEM_AXIS_ROW } },
    { { QEM_AXIS_COLUMN } },
    { { QEM_AXIS_BLOCK, 4, true, false } },
    { { QEM_AXIS_BLOCK, 32 } },
    { { QEM_AXIS_BLOCK, 128, false, true } },
    { { QEM_AXIS_BLOCK, 24, false, true }, { QEM_AXIS_COLUMN, 0, true, false } },
    { { QEM_AXIS_ROW, 0, true, false }, { QEM_AXIS_COLUMN, 0, false, true } },
};

TEST(CudaMatmul, ScalarsOfEveryWidth)
{
    size_t next = 0;
    for (uint32_t bits = 1; bits <= 8; bits++)
        for (uint64_t cols : { 4, 60, 64, 516, 712 }) {
            SCOPED_TRACE("bits " + std::to_string(bits) + ", cols " + std::to_string(cols));
            Layers layers(37, cols, bits + cols);
            layers.add_layer(scalar(bits % 2 ? QEM_CODEBOOK_UNIFORM : QEM_CODEBOOK_SHARED, uint64_t(1) << bits),
                             step_lists[next++ % step_lists.size()]);
            ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
        }
}

TEST(CudaMatmul, EveryStep)
{
    for (const std::vector<AffineSpec> &steps : step_lists)
        for (uint32_t kind = 0; kind < 4; kind++) {
            Layers layers(9, 584, kind);
            if (kind < 2)
                layers.add_layer(scalar(QEM_CODEBOOK_TABLE, kind ? 11 : 256), steps);
            else
                layers.add_layer(shared(kind == 2 ? 4 : 2, kind == 2 ? 256 : 77, 0, kind == 2), steps);
            ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
        }
}

TEST(CudaMatmul, SharedCodebooks)
{
    for (uint32_t dim : { 2, 4, 8 })
        for (uint64_t k : { 1, 3, 200, 256, 1000, 5000 })
            for (uint64_t cols : { 8, 64, 72, 608 }) {
                SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k) + ", cols " + std::to_string(cols));
                Layers layers(33, cols, dim + k + cols);
                layers.add_layer(shared(dim, k, 0, cols != 72), {});
                ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
            }
}

// Wide codes lie across words and halves of the stream.
TEST(CudaMatmul, WideCodes)
{
    for (uint64_t k : { uint64_t(65536), (uint64_t(1) << 20) + 1 }) {
        Layers layers(5, 136, k);
        layers.add_layer(shared(2, k), { { QEM_AXIS_ROW } });
        ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
    }
}

TEST(CudaMatmul, RangesOfRows)
{
    Layers layers(70, 128, 1);
    layers.add_layer(shared(4, 256, 0, true), { { QEM_AXIS_ROW } }, { 13, 41 });
    ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
}

// The same bits whoever shares the spans.
TEST(CudaMatmul, OnSmallAndLargeDevices)
{
    QEM_NEEDS_RUNNER();
    for (int multiprocessors : { 1, 3, 200 }) {
        qem_runner::machine().multiprocessors = multiprocessors;
        Layers layers(130, 4808, 1);
        layers.add_layer(shared(8, 256, 0, true), {});
        ASSERT_NO_FATAL_FAILURE(check(layers, Way::codes));
        Layers groups(600, 192, 1);
        groups.add_layer(by_group(4, 16), {});
        ASSERT_NO_FATAL_FAILURE(check(groups, Way::groups));
    }
    qem_runner::reset();
}

// ---- codebooks by group ----

TEST(CudaMatmul, CodebooksByGroup)
{
    for (uint32_t dim : { 2, 4, 8 })
        for (uint64_t k : { 1, 11, 256, 512 })
            for (uint64_t cols : { 8, 64, 136, 576 })
                for (int variant = 0; variant < 4; variant++) {
                    if (variant & 1 && k == 11) continue;
                    SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k) + ", cols " +
                                 std::to_string(cols) + ", variant " + std::to_string(variant));
                    Layers layers(cols == 576 ? 19 : 7, cols, dim + k + cols);
                    StageSpec spec = by_group(dim, k, 0, 0, variant & 1);
                    spec.half = variant & 2;
                    layers.add_layer(spec, {});
                    ASSERT_NO_FATAL_FAILURE(check(layers, Way::groups));
                }
}

// More rows than a block has threads, and than sums fit in the workspace at once.
TEST(CudaMatmul, ManyRowsByGroup)
{
    Layers layers(1100, 200, 1);
    StageSpec spec = by_group(8, 256);
    spec.half = true;
    layers.add_layer(spec, {}, { 300 });
    ASSERT_NO_FATAL_FAILURE(check(layers, Way::groups, { { 8 }, { 9 } }));
}

// ---- everything else ----

TEST(CudaMatmul, WhatIsDecodedFirst)
{
    for (uint64_t cols : { 1, 3, 7, 66, 129, 515 }) { /* no whole fours */
        Layers layers(40, cols, cols);
        layers.add_layer(scalar(QEM_CODEBOOK_UNIFORM, 16), { { QEM_AXIS_ROW } });
        ASSERT_NO_FATAL_FAILURE(check(layers, Way::floats));
    }
    for (uint32_t dim : { 1, 3, 16 }) {
        Layers layers(35, 96, dim);
        layers.add_layer(shared(dim, dim == 1 ? 300 : 40), {});
        ASSERT_NO_FATAL_FAILURE(check(layers, Way::floats));
    }
    Layers swapped(50, 136, 1);
    swapped.add_layer(shared(4, 256, 2), {});
    ASSERT_NO_FATAL_FAILURE(check(swapped, Way::floats));
    Layers by_groups_and_rows(50, 136, 1);
    by_groups_and_rows.add_layer(by_group(4, 16), { { QEM_AXIS_ROW } });
    ASSERT_NO_FATAL_FAILURE(check(by_groups_and_rows, Way::floats));
    Layers outliers(50, 136, 1);
    outliers.add_layer(shared(4, 16), {});
    outliers.add_outliers({ 3, 500, 50 * 136 - 1 }, 4);
    ASSERT_NO_FATAL_FAILURE(check(outliers, Way::floats));
    Layers units(20, 72, 1);
    units.add_layer(scalar(QEM_CODEBOOK_UNIFORM, 16), { { QEM_AXIS_BLOCK, 6 } });
    ASSERT_NO_FATAL_FAILURE(check(units, Way::floats));
}

TEST(CudaMatmul, RotationsAndLayers)
{
    Layers layers(90, 68, 5);
    layers.add_layer(by_group(4, 16, 0, 3), { { QEM_AXIS_ROW } }, { 29 });
    layers.add_layer(shared(4, 40, 1), {}, { 50 });
    layers.add_outliers({ 0, 67, 68, 4000 }, 8);
    ASSERT_NO_FATAL_FAILURE(check(layers, Way::floats, { { 9 }, { 33, QEM_DTYPE_F16, QEM_DTYPE_F16 } }));
}

TEST(CudaMatmul, RandomLayers)
{
    const uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 60; i++) {
        SCOPED_TRACE("QEM_TEST_SEED=" + std::to_string(seed) + ", artifact " + std::to_string(i));
        const std::unique_ptr<Layers> layers = random_layers(seed + 1000 + i);
        const Matrix w = decode_definition(layers->get());
        const DeviceArtifact artifact = upload(context(), layers->get());
        Random random(i);
        for (uint64_t batch : { uint64_t(1), 2 + random.below(9) }) {
            const DeviceProduct p = { batch, product_types[random.below(3)], product_types[random.below(3)], random.below(3),
                                random.below(3), random.below(5), random.below(3) };
            ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, p));
        }
    }
}

// ---- batches, types, places ----

TEST(CudaMatmul, EveryBatchAndType)
{
    Layers codes(41, 200, 1), groups(41, 200, 2), floats(41, 201, 3);
    codes.add_layer(shared(4, 256, 0, true), {});
    groups.add_layer(by_group(4, 16), {});
    floats.add_layer(shared(3, 40), {});
    for (const Layers *layers : { &codes, &groups, &floats }) {
        const Matrix w = decode_definition(layers->get());
        const DeviceArtifact artifact = upload(context(), layers->get());
        for (uint64_t batch : { 0, 1, 2, 3, 7, 8, 9, 33 }) {
            for (qem_dtype x : product_types)
                for (qem_dtype y : product_types) {
                    if (batch >= 9 && x != y) continue;
                    ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, { batch, x, y }));
                }
            ASSERT_NO_FATAL_FAILURE(
                check_product(context(), artifact.get(), w, { batch, QEM_DTYPE_F16, QEM_DTYPE_F16, 2, 1, 2, 1 }));
            ASSERT_NO_FATAL_FAILURE(
                check_product(context(), artifact.get(), w, { batch, QEM_DTYPE_F32, QEM_DTYPE_F32, 3, 5, 1, 1 }));
        }
    }
}

// qem_dequantize's values multiplied in double, and the CPU's product, within the sum of both bounds.
TEST(CudaMatmul, NearTheProductOfTheCpu)
{
    Layers layers(60, 1100, 1);
    layers.add_layer(shared(4, 256, 0, true), { { QEM_AXIS_ROW } });
    const DeviceArtifact artifact = upload(context(), layers.get());
    Matrix w(60, 1100);
    context().must(qem_dequantize(context(), layers.get(), 0, 60, QEM_DTYPE_F32, w.x.data(), 0));
    const DeviceProduct p = { 5 };
    const Matrix x = rows_of_x(p, 1100, 3);
    std::vector<float> host(5 * 60), got(5 * 60);
    context().must(qem_matmul(context(), layers.get(), 5, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, host.data(), 0, nullptr,
                              0));
    const Stream stream;
    const ProductMemory memory(artifact.get(), nullptr, x, p);
    context().must(memory.multiply(context(), artifact.get(), nullptr, p, stream));
    stream.wait();
    std::memcpy(got.data(), memory.y_memory.read().data() + memory.of_y.first, got.size() * 4);
    for (uint64_t e = 0; e < got.size(); e++) {
        const float *row = &w.x[e % 60 * 1100], *of_x = &x.x[e / 60 * 1100];
        ASSERT_NO_FATAL_FAILURE(check_bound(of_x, row, 1100, got[e]));
        EXPECT_NEAR(got[e], host[e], 1e-5 * 1100);
    }
}

// ---- what is not finite ----

TEST(CudaMatmul, NotFiniteValuesGoThrough)
{
    const float inf = std::numeric_limits<float>::infinity();
    Layers codes(33, 72, 1), groups(33, 72, 2), floats(33, 73, 3);
    codes.add_layer(shared(2, 256, 0, true), {});
    groups.add_layer(by_group(4, 16), {});
    floats.add_layer(shared(1, 40), {});
    for (const Layers *layers : { &codes, &groups, &floats }) {
        const Matrix w = decode_definition(layers->get());
        const DeviceArtifact artifact = upload(context(), layers->get());
        for (qem_dtype dtype : product_types) {
            const DeviceProduct p = { 6, dtype, dtype };
            Matrix x = rows_of_x(p, w.cols, 1);
            x.at(0, 3) = inf;
            x.at(1, 70) = -inf;
            x.at(2, 5) = std::nanf("");
            x.at(3, 6) = -std::nanf("123");
            x.at(4, 0) = inf, x.at(4, 9) = inf;
            for (uint64_t j = 0; j < w.cols; j++) x.at(5, j) = j % 2 ? -0.0f : round_to(1e-7f, dtype);
            ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, x, p));
        }
    }
}

TEST(CudaMatmul, OverflowIsTold)
{
    Layers layers(33, 8, 1);
    layers.add_layer(shared(1, 4), { { QEM_AXIS_ROW } });
    for (uint64_t i = 0; i < 33; i++) layers.step(0, 0).scale[i] = layers.step(0, 0).mean[i] = 0.0f;
    layers.step(0, 0).mean[20] = 1.0f;
    const Matrix w = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context(), layers.get());
    Matrix x(2, 8);
    for (qem_dtype dtype : product_types)
        for (float largest : { 65504.0f, 65519.0f, 65520.0f, 0x1.fefp127f, 0x1.ffp127f }) {
            x.at(1, 3) = largest;
            ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, x, { 2, QEM_DTYPE_F32, dtype }));
        }
    x.at(1, 3) = std::numeric_limits<float>::infinity(); /* no finite sum became infinite */
    layers.step(0, 0).scale[0] = 0.0f;
    ASSERT_NO_FATAL_FAILURE(check_product(context(), artifact.get(), w, x, { 2, QEM_DTYPE_F32, QEM_DTYPE_F16 }));
}

TEST(CudaMatmul, OverflowNeedsNoWordAndIsNeverCleared)
{
    Layers layers(3, 8, 1);
    layers.add_layer(shared(1, 4), { { QEM_AXIS_ROW } });
    layers.step(0, 0).mean[1] = 1e30f;
    const DeviceArtifact artifact = upload(context(), layers.get());
    const DeviceProduct p = { 1, QEM_DTYPE_F32, QEM_DTYPE_F16 };
    const Matrix x(1, 8, 1.0f);
    const ProductMemory memory(artifact.get(), nullptr, x, p);
    const Stream stream;
    context().must(qem_cuda_matmul(context(), artifact.get(), nullptr, 1, QEM_DTYPE_F32, memory.x(), 0, QEM_DTYPE_F16,
                                   memory.y(), 0, nullptr, nullptr, 0, stream));
    stream.wait();
    EXPECT_EQ(memory.flag(), 0u);
    must_cuda(cudaMemset(memory.word.get(), 6, 4));
    context().must(memory.multiply(context(), artifact.get(), nullptr, { 1 }, stream));
    stream.wait();
    EXPECT_EQ(memory.flag(), 0x06060606u);
}

// ---- errors ----

class CudaMatmulErrors : public ::testing::Test {
protected:
    void SetUp() override // not in a constructor: without a device the test is skipped before
    {
        layers_.add_layer(shared(3, 16), {});
        stream_ = std::make_unique<Stream>();
        artifact_ = upload(context(), layers_.get());
        memory_.reset(new ProductMemory(artifact_.get(), nullptr, Matrix(3, 12), { 3 }));
        y_before_ = memory_->y_memory.read();
    }
    struct Call {
        uint64_t batch = 3;
        qem_dtype x_dtype = QEM_DTYPE_F32;
        const void *x = nullptr;
        uint64_t x_stride = 0;
        qem_dtype y_dtype = QEM_DTYPE_F32;
        void *y = nullptr;
        uint64_t y_stride = 0;
        void *overflow = nullptr, *workspace = nullptr;
        uint64_t workspace_bytes = 0;
    };
    Call good() const
    {
        Call call;
        call.x = memory_->x();
        call.y = memory_->y();
        call.workspace = memory_->workspace.get();
        call.workspace_bytes = memory_->workspace_bytes;
        return call;
    }
    qem_status multiply(const Call &c)
    {
        return qem_cuda_matmul(context(), artifact_.get(), nullptr, c.batch, c.x_dtype, c.x, c.x_stride, c.y_dtype, c.y,
                               c.y_stride, static_cast<uint32_t *>(c.overflow), c.workspace, c.workspace_bytes, *stream_);
    }
    // Refused, with the word in its text, and nothing written.
    void refuses(const Call &call, const std::string &word)
    {
        EXPECT_EQ(multiply(call), QEM_ERR_ARGUMENT) << word;
        EXPECT_NE(context().error().find(word), std::string::npos) << context().error();
        stream_->wait();
        EXPECT_EQ(memory_->y_memory.read(), y_before_) << word;
    }
    Layers layers_{ 20, 12, 1 };
    DeviceArtifact artifact_;
    std::unique_ptr<ProductMemory> memory_;
    std::vector<unsigned char> y_before_;
    std::unique_ptr<Stream> stream_;
};

TEST_F(CudaMatmulErrors, AreToldAndNothingIsWritten)
{
    const auto with = [&](auto change) {
        Call call = good();
        change(call);
        return call;
    };
    float on_host[64] = {};
    refuses(with([](Call &c) { c.x = nullptr; }), "NULL");
    refuses(with([](Call &c) { c.y = nullptr; }), "NULL");
    refuses(with([&](Call &c) { c.x = on_host; }), "x is host memory");
    refuses(with([&](Call &c) { c.y = on_host; }), "y is host memory");
    refuses(with([&](Call &c) { c.overflow = on_host; }), "overflow is host memory");
    refuses(with([&](Call &c) { c.overflow = memory_->word.get() + 2; }), "overflow is not aligned");
    refuses(with([&](Call &c) { c.workspace = on_host; }), "workspace is");
    refuses(with([](Call &c) { c.workspace = nullptr; }), "workspace of 0 bytes");
    refuses(with([](Call &c) { c.workspace_bytes--; }), "workspace of");
    refuses(with([](Call &c) { c.workspace = static_cast<char *>(c.workspace) + 16; }), "workspace is not aligned");
    refuses(with([](Call &c) { c.x = static_cast<const char *>(c.x) + 2; }), "x is not aligned");
    refuses(with([](Call &c) { c.y = static_cast<char *>(c.y) + 1; }), "y is not aligned");
    refuses(with([](Call &c) { c.x_stride = 11; }), "x: the stride");
    refuses(with([](Call &c) { c.y_stride = 19; }), "y: the stride");
    refuses(with([](Call &c) { c.x_stride = uint64_t(1) << 56; }), "2^56");
    refuses(with([](Call &c) { c.y_stride = UINT64_MAX; }), "2^56");
    refuses(with([](Call &c) { c.x_dtype = QEM_DTYPE_U8; }), "x: type");
    refuses(with([](Call &c) { c.y_dtype = QEM_DTYPE_F64; }), "y: type");
    refuses(with([](Call &c) { c.batch = uint64_t(1) << 32; }), "batch");
    EXPECT_EQ(qem_cuda_matmul(nullptr, artifact_.get(), nullptr, 1, QEM_DTYPE_F32, memory_->x(), 0, QEM_DTYPE_F32,
                              memory_->y(), 0, nullptr, nullptr, 0, *stream_),
              QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_cuda_matmul(context(), nullptr, nullptr, 1, QEM_DTYPE_F32, memory_->x(), 0, QEM_DTYPE_F32, memory_->y(), 0,
                              nullptr, nullptr, 0, *stream_),
              QEM_ERR_ARGUMENT);
    EXPECT_EQ(multiply(with([](Call &c) { c.batch = 0, c.workspace = nullptr, c.workspace_bytes = 0; })), QEM_OK);
    EXPECT_EQ(memory_->y_memory.read(), y_before_);
}

TEST_F(CudaMatmulErrors, NoDevice)
{
    QEM_NEEDS_RUNNER();
    qem_runner::machine().devices = 0;
    EXPECT_EQ(multiply(good()), QEM_ERR_NO_DEVICE);
    qem_runner::reset();
    EXPECT_EQ(memory_->y_memory.read(), y_before_);
}

TEST(CudaMatmul, WorkspaceSizes)
{
    Layers floats(5000, 200, 1), few(7, 1000, 2), many(5000, 1000, 2);
    floats.add_layer(by_group(8, 16, 1), {});
    few.add_layer(by_group(8, 16), {});
    many.add_layer(by_group(8, 16), {});
    for (const Layers *layers : { &floats, &few, &many }) {
        const DeviceArtifact artifact = upload(context(), layers->get());
        const auto size = [&](uint64_t batch) {
            return qem_cuda_matmul_workspace_size(artifact.get(), nullptr, batch, QEM_DTYPE_F16, QEM_DTYPE_BF16);
        };
        EXPECT_GT(size(1), 0u);
        uint64_t before = 0;
        for (uint64_t batch : { 0, 1, 2, 3, 5, 8, 9, 100, 5000 }) {
            EXPECT_GE(size(batch), before);
            before = size(batch);
        }
        EXPECT_EQ(size(0), 0u);
        EXPECT_EQ(size(uint64_t(1) << 32), 0u);
    }
    EXPECT_EQ(qem_cuda_matmul_workspace_size(nullptr, nullptr, 1, QEM_DTYPE_F32, QEM_DTYPE_F32), 0u);
}

// ---- graphs and threads ----

TEST(CudaMatmul, InACapturedGraph)
{
    Layers codes(30, 72, 1), groups(30, 72, 2), floats(30, 73, 3);
    codes.add_layer(shared(4, 256, 0, true), {});
    groups.add_layer(by_group(4, 16), {});
    floats.add_layer(by_group(4, 16, 0, 2), { { QEM_AXIS_ROW } });
    for (const Layers *layers : { &codes, &groups, &floats }) {
        const DeviceProduct p = { 3, QEM_DTYPE_F16, QEM_DTYPE_F16 };
        const Matrix w = decode_definition(layers->get()), x = rows_of_x(p, w.cols, 1);
        const DeviceArtifact artifact = upload(context(), layers->get());
        const ProductMemory memory(artifact.get(), nullptr, x, p);
        const std::vector<unsigned char> untouched = memory.y_memory.read();
        const Stream stream;
        cudaGraph_t graph;
        cudaGraphExec_t executable;
        must_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        context().must(memory.multiply(context(), artifact.get(), nullptr, p, stream));
        must_cuda(cudaStreamEndCapture(stream, &graph));
        EXPECT_EQ(memory.y_memory.read(), untouched) << "captured, not run";
        must_cuda(cudaGraphInstantiate(&executable, graph, 0));
        for (int run = 0; run < 2; run++) {
            must_cuda(cudaMemset(memory.y_memory.get(), device_fill, untouched.size()));
            must_cuda(cudaGraphLaunch(executable, stream));
            stream.wait();
            EXPECT_EQ(memory.y_memory.read(), expected_product(w, x, p, false).bytes);
        }
        must_cuda(cudaGraphExecDestroy(executable));
        must_cuda(cudaGraphDestroy(graph));
    }
}

TEST(CudaMatmul, ThreadsShareAnArtifact)
{
    Layers layers(40, 136, 1);
    layers.add_layer(by_group(4, 16), {});
    const Matrix w = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context(), layers.get());
    std::vector<std::thread> threads;
    std::vector<std::string> failures(3);
    for (size_t t = 0; t < failures.size(); t++)
        threads.emplace_back([&, t] {
            const Context own;
            const Stream stream;
            const DeviceProduct p = { 1 + t };
            const Matrix x = rows_of_x(p, w.cols, t);
            const ProductMemory memory(artifact.get(), nullptr, x, p);
            for (int run = 0; run < 5; run++)
                if (memory.multiply(own, artifact.get(), nullptr, p, stream) != QEM_OK) failures[t] = own.error();
            stream.wait();
            if (memory.y_memory.read() != expected_product(w, x, p, false).bytes) failures[t] += " other bytes";
        });
    for (std::thread &thread : threads) thread.join();
    for (const std::string &failure : failures) EXPECT_EQ(failure, "");
}

} // namespace
