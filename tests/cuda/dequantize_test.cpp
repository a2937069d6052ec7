// Decoding on the device of whatever an artifact can hold, bit for bit what the plain definition says (support/layers.h)
// and what the CPU decodes.
#include <filesystem>
#include <memory>

#include "artifacts.h"
#include "device.h"

using namespace qem_test;

namespace {

constexpr qem_dtype kTypes[] = { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 };

const Context &context()
{
    static const Context one;
    return one;
}

// Every test begins with no kernel loaded, so that uploading has to load all that decoding launches.
class ResetRunner : public ::testing::EmptyTestEventListener {
    void OnTestStart(const ::testing::TestInfo &) override { qem_runner::reset(); }
};
const bool resets = (::testing::UnitTest::GetInstance()->listeners().Append(new ResetRunner), true);

// Whole and in parts, aligned and not, with gaps and without.
void check(const Layers &layers)
{
    const qem_artifact *a = layers.get();
    const Matrix expected = decode_definition(a);
    const DeviceArtifact artifact = upload(context(), a);
    for (qem_dtype dtype : kTypes) {
        const uint64_t third = a->rows / 3, most = a->rows - a->rows / 5;
        ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, { 0, a->rows, dtype }));
        ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, { third, most, dtype, 5, 1 }));
        ASSERT_NO_FATAL_FAILURE(
            check_place(context(), artifact.get(), expected, { a->rows / 2, a->rows / 2 + 1, dtype, 0, 3 }));
    }
}

TEST(CudaDequantize, EveryWidthOfCodes)
{
    for (uint64_t k : { 1, 2, 3, 5, 16, 17, 64, 65, 200, 256, 257, 1000, 4096, 4097, 10000, 65536 })
        for (uint32_t dim : { 1, 2, 3, 4, 7, 8, 13 }) {
            SCOPED_TRACE("k " + std::to_string(k) + ", dim " + std::to_string(dim));
            Layers layers(5, 53, k + dim);
            layers.add_layer(shared(dim, k, 0, dim % 2), {});
            ASSERT_NO_FATAL_FAILURE(check(layers));
        }
    for (uint64_t k : { (uint64_t(1) << 20) + 1, uint64_t(1) << 24 }) {
        Layers layers(3, 19, k);
        layers.add_layer(shared(1, k), {});
        ASSERT_NO_FATAL_FAILURE(check(layers));
    }
}

TEST(CudaDequantize, ScalarKinds)
{
    for (qem_codebook_kind kind : { QEM_CODEBOOK_UNIFORM, QEM_CODEBOOK_TABLE, QEM_CODEBOOK_SHARED })
        for (uint64_t k : { 1, 4, 16, 31, 256, 5000 })
            for (uint64_t cols : { 1, 2, 31, 300 }) {
                Layers layers(7, cols, k + cols);
                layers.add_layer(scalar(kind, k, cols % 3), {});
                ASSERT_NO_FATAL_FAILURE(check(layers));
            }
}

TEST(CudaDequantize, CodebooksByGroup)
{
    for (uint32_t dim : { 1, 2, 4, 5, 8, 20 })
        for (uint64_t cols : { 1, 7, 40, 61 })
            for (int variant = 0; variant < 4; variant++) {
                SCOPED_TRACE("dim " + std::to_string(dim) + ", cols " + std::to_string(cols) + ", variant " +
                             std::to_string(variant));
                Layers layers(9, cols, dim * 100 + cols);
                StageSpec spec = by_group(dim, variant & 1 ? 64 : 11, 0, 0, variant & 1);
                spec.half = variant & 2;
                layers.add_layer(spec, {});
                ASSERT_NO_FATAL_FAILURE(check(layers));
            }
}

TEST(CudaDequantize, EveryLevelOfSwaps)
{
    for (uint32_t levels = 1; levels <= 8; levels++)
        for (uint64_t cols : { 1, 2, 3, 5, 16, 31, 64, 300, 515 }) {
            SCOPED_TRACE("levels " + std::to_string(levels) + ", cols " + std::to_string(cols));
            Layers layers(6, cols, levels * 1000 + cols);
            layers.add_layer(cols % 2 ? shared(4, 30, levels) : by_group(4, 8, levels, 0, cols % 3 == 0), {});
            ASSERT_NO_FATAL_FAILURE(check(layers));
        }
}

TEST(CudaDequantize, Steps)
{
    const std::vector<std::vector<AffineSpec>> lists = {
        { { QEM_AXIS_TENSOR } },
        { { QEM_AXIS_ROW, 0, true, false } },
        { { QEM_AXIS_COLUMN, 0, false, true } },
        { { QEM_AXIS_BLOCK, 7 } },
        { { QEM_AXIS_BLOCK, 16, true, false } },
        { { QEM_AXIS_BLOCK, 1 } },
        { { QEM_AXIS_BLOCK, 65535 } },
        { { QEM_AXIS_TENSOR }, { QEM_AXIS_ROW }, { QEM_AXIS_COLUMN } },
        { { QEM_AXIS_BLOCK, 8 }, { QEM_AXIS_COLUMN, 0, true, false } },
        { { QEM_AXIS_COLUMN }, { QEM_AXIS_ROW, 0, false, true } },
    };
    for (const std::vector<AffineSpec> &steps : lists)
        for (uint64_t cols : { 1, 24, 67 })
            for (uint32_t dim : { 1, 4 }) {
                Layers layers(11, cols, cols + dim);
                layers.add_layer(shared(dim, 16, dim == 4 && cols == 67 ? 2 : 0), steps);
                ASSERT_NO_FATAL_FAILURE(check(layers));
            }
}

TEST(CudaDequantize, Rotations)
{
    for (uint64_t cols : { 1, 15, 16, 17, 64, 65, 130 })
        for (uint32_t cells : { 1, 2, 3, 9 }) {
            SCOPED_TRACE("cols " + std::to_string(cols) + ", cells " + std::to_string(cells));
            Layers layers(cells == 3 ? 150 : 20, cols, cols + cells);
            const std::vector<AffineSpec> steps = { { QEM_AXIS_ROW }, { QEM_AXIS_COLUMN } };
            layers.add_layer(by_group(4, 16, 0, cells, cells == 2), cols % 2 ? steps : std::vector<AffineSpec>());
            ASSERT_NO_FATAL_FAILURE(check(layers));
        }
}

TEST(CudaDequantize, ManyCells)
{
    Layers layers(400, 12, 3);
    layers.add_layer(by_group(4, 4, 0, 256), {});
    ASSERT_NO_FATAL_FAILURE(check(layers));
}

TEST(CudaDequantize, LayersRangesOfRowsAndOutliers)
{
    Layers layers(40, 37, 5);
    layers.add_layer(by_group(4, 16, 1), { { QEM_AXIS_ROW } }, { 13 });
    layers.add_layer(by_group(5, 8, 0, 3), {}, {});
    layers.add_layer(scalar(QEM_CODEBOOK_UNIFORM, 9), { { QEM_AXIS_COLUMN } }, { 7, 21 });
    layers.add_layer(by_group(2, 4, 0, 1), { { QEM_AXIS_BLOCK, 6 } }, { 20 });
    layers.add_layer(shared(3, 40), {});
    layers.add_outliers({ 0, 1, 36, 37, 500, 501, 502, 777, 40 * 37 - 1 }, 4);
    ASSERT_NO_FATAL_FAILURE(check(layers));
}

TEST(CudaDequantize, RotatedFirstThenNot)
{
    for (bool last : { false, true }) {
        Layers layers(30, 20, 9);
        if (last) layers.add_layer(shared(4, 30, 2), { { QEM_AXIS_TENSOR } });
        layers.add_layer(by_group(4, 16, 0, 2), { { QEM_AXIS_ROW } });
        if (!last) layers.add_layer(shared(4, 30, 2), { { QEM_AXIS_TENSOR } });
        ASSERT_NO_FATAL_FAILURE(check(layers));
    }
}

TEST(CudaDequantize, OutliersInEveryRange)
{
    std::vector<uint64_t> elements;
    for (uint64_t e = 0; e < 1500 * 3; e += 1 + e % 7) elements.push_back(e);
    for (uint32_t index_size : { 4, 8 }) {
        Layers layers(1500, 3, index_size);
        layers.add_layer(shared(1, 4), {});
        layers.add_outliers(elements, index_size);
        const Matrix expected = decode_definition(layers.get());
        const DeviceArtifact artifact = upload(context(), layers.get());
        for (uint64_t begin : { 0, 1, 2, 700, 1023, 1024, 1025, 1498, 1499, 1500 })
            for (uint64_t end : { begin, begin + 1, begin + 2, begin + 300, uint64_t(1500) }) {
                if (end > 1500) continue;
                ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, { begin, end, QEM_DTYPE_F32, 2 }));
            }
    }
}

// ---- random artifacts ----

TEST(CudaDequantize, RandomLayers)
{
    const uint64_t seed = test_seed();
    for (uint64_t i = 0; i < 150; i++) {
        SCOPED_TRACE("QEM_TEST_SEED=" + std::to_string(seed) + ", artifact " + std::to_string(i));
        const std::unique_ptr<Layers> layers = random_layers(seed + i);
        ASSERT_NO_FATAL_FAILURE(check(*layers));
    }
}

// ---- what files hold ----

TEST(CudaDequantize, GoldenFilesAsOnTheCpu)
{
    int files = 0;
    for (const auto &entry : std::filesystem::directory_iterator(QEM_GOLDEN)) {
        if (entry.path().extension() != ".safetensors") continue;
        SCOPED_TRACE(entry.path().filename().string());
        files++;
        qem_artifact *loaded = nullptr;
        context().must(qem_load(context(), entry.path().c_str(), &loaded));
        Artifact host(loaded);
        Matrix expected(loaded->rows, loaded->cols);
        expected.x = decode(context(), host);
        const DeviceArtifact artifact = upload(context(), host.get());
        host.reset(); /* nothing of it is used any more */
        for (qem_dtype dtype : kTypes)
            for (uint64_t shift : { 0, 1 })
                ASSERT_NO_FATAL_FAILURE(
                    check_place(context(), artifact.get(), expected, { 0, expected.rows, dtype, 0, shift }));
    }
    EXPECT_GE(files, 24);
}

// ---- overflow ----

uint32_t flag_after(const Layers &layers, qem_dtype dtype, uint64_t shift, uint32_t before = 0)
{
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Stream stream;
    const DeviceMemory out(layers->rows * layers->cols * 4 + 16), word(4, 0);
    must_cuda(cudaMemcpy(word.get(), &before, 4, cudaMemcpyHostToDevice));
    context().must(qem_cuda_dequantize(context(), artifact.get(), 0, layers->rows, dtype,
                                       out.get() + shift * qem_dtype_size(dtype), 0,
                                       reinterpret_cast<uint32_t *>(word.get()), nullptr, 0, stream));
    stream.wait();
    uint32_t flag;
    std::memcpy(&flag, word.read().data(), 4);
    return flag;
}

TEST(CudaDequantize, OverflowIsTold)
{
    for (uint64_t shift : { 0, 1 })
        for (int where = 0; where < 3; where++) {
            Layers layers(4, 16, 1);
            layers.add_layer(shared(1, 4), { { QEM_AXIS_ROW, 0, true, false } });
            if (where == 1) layers.add_outliers({ 3, 40 }, 4);
            if (where == 0) layers.step(0, 0).scale[2] = 3e38f;
            if (where == 1) layers.outlier_values()[1] = 65520.0f;
            EXPECT_EQ(flag_after(layers, QEM_DTYPE_F16, shift), where < 2 ? 1u : 0u);
            EXPECT_EQ(flag_after(layers, QEM_DTYPE_F32, shift), 0u);
            EXPECT_EQ(flag_after(layers, QEM_DTYPE_F32, shift, 7), 7u) << "the word is never cleared";
        }
    Layers layers(4, 16, 1);
    layers.add_layer(shared(1, 4), { { QEM_AXIS_TENSOR } });
    layers.step(0, 0).scale[0] = 0.0f;
    layers.step(0, 0).mean[0] = 0x1.ffp127f; // halfway to the next power of two in bf16, which is even
    EXPECT_EQ(flag_after(layers, QEM_DTYPE_BF16, 0), 1u);
    layers.step(0, 0).mean[0] = 0x1.fefp127f; // to the largest number
    EXPECT_EQ(flag_after(layers, QEM_DTYPE_BF16, 0), 0u);
    layers.step(0, 0).mean[0] = 65519.0f;
    EXPECT_EQ(flag_after(layers, QEM_DTYPE_F16, 0), 0u);
    layers.step(0, 0).mean[0] = 65520.0f;
    EXPECT_EQ(flag_after(layers, QEM_DTYPE_F16, 0), 1u);
}

// What outliers are written over does not count, as on the CPU.
TEST(CudaDequantize, OverflowBelowAnOutlierIsNone)
{
    for (uint32_t index_size : { 4, 8 })
        for (uint64_t cols : { 16, 15 }) {
            std::vector<uint64_t> row;
            Layers layers(4, cols, 1);
            layers.add_layer(shared(1, 4), { { QEM_AXIS_ROW, 0, true, false } });
            layers.step(0, 0).scale[2] = 3e38f;
            for (uint64_t j = 0; j < cols; j++) row.push_back(2 * cols + j);
            layers.add_outliers(row, index_size);
            EXPECT_EQ(flag_after(layers, QEM_DTYPE_F16, 0), 0u);
            EXPECT_EQ(flag_after(layers, QEM_DTYPE_F16, 1), 0u);
            ASSERT_NO_FATAL_FAILURE(check(layers));
        }
}

TEST(CudaDequantize, OverflowNeedsNoWord)
{
    Layers layers(2, 8, 1);
    layers.add_layer(shared(1, 4), { { QEM_AXIS_TENSOR } });
    layers.step(0, 0).mean[0] = 1e30f;
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Stream stream;
    const DeviceMemory out(32);
    context().must(
        qem_cuda_dequantize(context(), artifact.get(), 0, 2, QEM_DTYPE_F16, out.get(), 0, nullptr, nullptr, 0, stream));
    stream.wait();
    const std::vector<unsigned char> bytes = out.read();
    for (size_t i = 0; i < 16; i++) EXPECT_EQ(bytes[2 * i] | bytes[2 * i + 1] << 8, 0x7c00);
}

// ---- large ----

// More rows than a grid is high.
TEST(CudaDequantize, ManyRows)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the rows after the first grid's are what counts here";
#endif
    Layers wide(65535 + 6, 129, 1);
    wide.add_layer(shared(1, 2), {});
    ASSERT_NO_FATAL_FAILURE(check_place(context(), upload(context(), wide.get()).get(), decode_definition(wide.get()),
                                        { 0, wide->rows, QEM_DTYPE_F32 }));
    Layers rotated(32768 * 64 + 70, 1, 2);
    rotated.add_layer(by_group(1, 2, 0, 2), {});
    ASSERT_NO_FATAL_FAILURE(check_place(context(), upload(context(), rotated.get()).get(), decode_definition(rotated.get()),
                                        { 0, rotated->rows, QEM_DTYPE_F32 }));
}

// Codes beyond bit 2^32 of their stream, of every fast kernel that takes them and of the general one.
TEST(CudaDequantize, CodesBeyond32Bits)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "half a gigabyte of codes takes too long here";
#endif
    const uint64_t cols = 4096, rows = 65536 + 12, bytes = rows * cols * 2;
    const std::unique_ptr<uint8_t, void (*)(void *)> codes(static_cast<uint8_t *>(std::calloc(bytes + QEM_STREAM_SLACK, 1)),
                                                           std::free);
    ASSERT_NE(codes, nullptr);
    Random random(1);
    for (uint64_t i = (rows - 8) * cols * 2; i < bytes; i++) codes.get()[i] = static_cast<uint8_t>(random.below(256));
    Layers layers(1, cols, 1); // its one row of codes gives way to many
    layers.add_layer(shared(1, 65536), {});
    qem_artifact *a = const_cast<qem_artifact *>(layers.get());
    a->rows = a->stages[0].row_end = rows;
    a->stages[0].codes = codes.get();
    a->stages[0].codes_bytes = bytes;
    std::vector<float> expected(8 * cols);
    for (uint64_t e = 0; e < 8 * cols; e++) {
        uint16_t code;
        std::memcpy(&code, codes.get() + ((rows - 8) * cols + e) * 2, 2);
        expected[e] = a->stages[0].codebook[code];
    }
    const DeviceArtifact artifact = upload(context(), a);
    const Stream stream;
    for (uint64_t shift : { 0, 1 }) {
        const DeviceMemory out(8 * cols * 4 + 4);
        context().must(qem_cuda_dequantize(context(), artifact.get(), rows - 8, rows, QEM_DTYPE_F32, out.get() + 4 * shift,
                                           0, nullptr, nullptr, 0, stream));
        stream.wait();
        EXPECT_EQ(std::memcmp(out.read().data() + 4 * shift, expected.data(), 8 * cols * 4), 0);
    }
}

// ---- graphs ----

TEST(CudaDequantize, InACapturedGraph)
{
    Layers layers(30, 24, 4);
    layers.add_layer(by_group(4, 16, 0, 2), { { QEM_AXIS_ROW } });
    layers.add_layer(shared(4, 30), {}, { 11 });
    layers.add_outliers({ 5, 100, 700 }, 4);
    const Matrix expected = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context(), layers.get());
    const Stream stream;
    const DeviceMemory out(30 * 24 * 2, 0), workspace(qem_cuda_dequantize_workspace_size(artifact.get(), 30));
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    must_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    context().must(qem_cuda_dequantize(context(), artifact.get(), 0, 30, QEM_DTYPE_F16, out.get(), 0, nullptr,
                                       workspace.get(), qem_cuda_dequantize_workspace_size(artifact.get(), 30), stream));
    must_cuda(cudaStreamEndCapture(stream, &graph));
    EXPECT_EQ(out.read(), std::vector<unsigned char>(30 * 24 * 2)) << "captured, not run";
    must_cuda(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<unsigned char> wanted(30 * 24 * 2);
    for (size_t e = 0; e < expected.x.size(); e++) put_element(expected.x[e], QEM_DTYPE_F16, &wanted[2 * e]);
    for (int run = 0; run < 2; run++) {
        must_cuda(cudaMemset(out.get(), run, 30 * 24 * 2));
        must_cuda(cudaGraphLaunch(executable, stream));
        stream.wait();
        EXPECT_EQ(out.read(), wanted);
    }
    must_cuda(cudaGraphExecDestroy(executable));
    must_cuda(cudaGraphDestroy(graph));
}

} // namespace
