// Memory, loading, sums over all elements and the passes of scalar codebooks.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/primitives.h"
#include "core/half.h"
#include "core/threshold.h"

using namespace qem_test;

namespace {

constexpr size_t sizes[] = {
    1, 2, 7, 8, 9, 31, 100, 1000, QEM_ERROR_CHUNK - 1, QEM_ERROR_CHUNK, QEM_ERROR_CHUNK + 1, 9001
};

std::string label(Pattern pattern, size_t n)
{
    return std::string(name_of(pattern)) + ", " + std::to_string(n) + " elements";
}

// Every pattern at every size, each with its own numbers.
template <typename Check> void for_all(uint64_t seed, Check check)
{
    Random random(seed);
    for (const Pattern pattern : all_patterns)
        for (const size_t n : sizes) check(random, pattern, values(random, pattern, n));
}

TEST(CudaPrimitives, ExtremesAndSums)
{
    for_all(1, [](Random &random, Pattern pattern, const std::vector<float> &x) {
        const std::vector<float> y = values(random, below(random, 2) ? pattern : Pattern::normal, x.size());
        both(label(pattern, x.size()), [&](const Primitives &p) -> std::vector<unsigned char> {
            const Floats a(p, x), b(p, y);
            float least, greatest;
            double mean, sum, squared, plain, plain_squared;
            qem_error_sums errors;
            std::memset(&errors, 0, sizeof errors);
            p.must(p->extremes(p, a.get(), x.size(), &least, &greatest));
            p.must(p->mean(p, a.get(), x.size(), &mean));
            p.must(p->sum(p, a.get(), x.size(), mean, &sum, &squared));
            p.must(p->sum(p, a.get(), x.size(), 0.0, &plain, &plain_squared));
            p.must(p->error_sums(p, a.get(), b.get(), x.size(), &errors));
            return Bytes()
                .add(least)
                .add(greatest)
                .add(mean)
                .add(sum)
                .add(squared)
                .add(plain)
                .add(plain_squared)
                .add(errors);
        });
    });
}

TEST(CudaPrimitives, WeightedMoments)
{
    for_all(2, [](Random &random, Pattern pattern, const std::vector<float> &x) {
        const std::vector<float> w = weights(random, x.size());
        both(label(pattern, x.size()), [&](const Primitives &p) -> std::vector<unsigned char> {
            const Floats a(p, x), b(p, w);
            double moments[3], centered[3];
            p.must(p->weighted_moments(p, a.get(), b.get(), x.size(), 0.0, moments));
            p.must(p->weighted_moments(p, a.get(), b.get(), x.size(), 0.375, centered));
            return Bytes().add(std::vector<double>(moments, moments + 3)).add(std::vector<double>(centered, centered + 3));
        });
    });
}

TEST(CudaPrimitives, ScalarHistograms)
{
    Random random(3);
    for (const Pattern pattern : all_patterns) {
        const std::vector<float> x = values(random, pattern, 3001), w = weights(random, x.size());
        both(label(pattern, x.size()), [&](const Primitives &p) -> std::vector<uint64_t> {
            const Floats a(p, x), b(p, w);
            std::vector<uint64_t> counts(65536), weighted(65536);
            p.must(p->scalar_histogram(p, a.get(), x.size(), 0.125, counts.data()));
            p.must(p->scalar_weighted_histogram(p, a.get(), b.get(), x.size(), -0.5, 40, weighted.data()));
            counts.insert(counts.end(), weighted.begin(), weighted.end());
            return counts;
        });
    }
}

// k - 1 thresholds among the values, ascending, some of them equal to values and to each other.
std::vector<float> thresholds_of(Random &random, const std::vector<float> &x, size_t k)
{
    std::vector<float> t(k - 1);
    for (float &value : t) {
        const float a = x[below(random, x.size())], b = x[below(random, x.size())];
        value = below(random, 2) ? a : qem_threshold((static_cast<double>(a) + static_cast<double>(b)) * 0.5);
    }
    std::sort(t.begin(), t.end());
    return t;
}

TEST(CudaPrimitives, ScalarStepsAndCodes)
{
    Random random(4);
    for (const Pattern pattern : all_patterns)
        for (const size_t k : { 1, 2, 3, 16, 17, 255, 256, 2000, 2458, 5000 }) {
            const size_t n = below(random, 2) ? 3001 : 513;
            const std::vector<float> x = values(random, pattern, n), w = weights(random, n),
                                     t = thresholds_of(random, x, k);
            const double largest = pattern == Pattern::huge || pattern == Pattern::outlier ? 4e38 : 64.0;
            const int shift = 62 - 13 - (std::ilogb(largest) + 1);
            both(label(pattern, n) + ", k " + std::to_string(k), [&](const Primitives &p) -> std::vector<unsigned char> {
                const Floats a(p, x), b(p, w);
                const DeviceArray<uint32_t> labels(p, n);
                std::vector<uint64_t> counts(k), weighted(k);
                std::vector<int64_t> sums(k), weighted_sums(k);
                p.must(p->scalar_step(p, a.get(), n, t.data(), k, 0.25, shift, counts.data(), sums.data()));
                p.must(p->scalar_weighted_step(p, a.get(), b.get(), n, t.data(), k, -1.5, 45, shift, weighted.data(),
                                               weighted_sums.data()));
                p.must(p->scalar_assign(p, a.get(), n, t.data(), k, labels.get()));
                return Bytes().add(counts).add(sums).add(weighted).add(weighted_sums).add(labels.read());
            });
        }
}

// ---- loading ----

struct Layout {
    qem_dtype dtype;
    uint64_t rows, cols, row_stride, col_stride, shift; // shift: bytes
};

// Bits of a view's elements: `bad` puts one that is not finite at `at`.
std::vector<unsigned char> memory_of(Random &random, const Layout &l, const float *bad, uint64_t at)
{
    const uint64_t size = qem_dtype_size(l.dtype);
    std::vector<unsigned char> bytes(l.shift + ((l.rows - 1) * l.row_stride + (l.cols - 1) * l.col_stride + 1) * size,
                                     0x7f);
    for (uint64_t i = 0; i < l.rows; i++)
        for (uint64_t j = 0; j < l.cols; j++) {
            unsigned char *to = bytes.data() + l.shift + (i * l.row_stride + j * l.col_stride) * size;
            float x = values(random, below(random, 4) ? Pattern::normal : Pattern::denormal, 1)[0];
            if (bad && i * l.cols + j >= at && (i * l.cols + j - at) % 7 == 0) x = *bad;
            const double d = bad && std::isinf(*bad) && x == *bad ? 1e39 : x;
            const uint16_t half = l.dtype == QEM_DTYPE_F16 ? qem_f32_to_f16(x) : qem_f32_to_bf16(x);
            const unsigned char byte = static_cast<unsigned char>(below(random, 256));
            const void *from = l.dtype == QEM_DTYPE_F32   ? static_cast<const void *>(&x)
                               : l.dtype == QEM_DTYPE_F64 ? static_cast<const void *>(&d)
                               : l.dtype == QEM_DTYPE_U8  ? static_cast<const void *>(&byte)
                                                          : static_cast<const void *>(&half);
            std::memcpy(to, from, size);
        }
    return bytes;
}

qem_view view_of(const Layout &l, const void *memory)
{
    qem_view view = QEM_VIEW_INIT;
    view.data = static_cast<const unsigned char *>(memory) + l.shift;
    view.dtype = l.dtype;
    view.rows = l.rows;
    view.cols = l.cols;
    view.row_stride = l.row_stride;
    view.col_stride = l.col_stride;
    return view;
}

const Layout layouts[] = {
    { QEM_DTYPE_F32, 13, 37, 37, 1, 0 }, { QEM_DTYPE_F32, 13, 37, 37, 1, 1 },  { QEM_DTYPE_F32, 5, 40, 64, 1, 0 },
    { QEM_DTYPE_F32, 9, 11, 1, 9, 0 },   { QEM_DTYPE_F16, 13, 37, 37, 1, 0 },  { QEM_DTYPE_F16, 7, 30, 41, 1, 1 },
    { QEM_DTYPE_F16, 9, 11, 1, 9, 0 },   { QEM_DTYPE_BF16, 13, 37, 37, 1, 0 }, { QEM_DTYPE_BF16, 1, 300, 300, 1, 0 },
    { QEM_DTYPE_BF16, 6, 10, 60, 3, 0 }, { QEM_DTYPE_F64, 13, 37, 37, 1, 0 },  { QEM_DTYPE_F64, 8, 9, 20, 2, 3 },
    { QEM_DTYPE_U8, 21, 19, 19, 1, 0 },  { QEM_DTYPE_U8, 21, 19, 57, 3, 1 },   { QEM_DTYPE_F32, 1, 1, 1, 1, 0 },
};

TEST(CudaPrimitives, Load)
{
    Random random(5);
    for (const Layout &l : layouts) {
        const std::vector<unsigned char> memory = memory_of(random, l, nullptr, 0);
        both(std::string(qem_dtype_name(l.dtype)), [&](const Primitives &p) -> std::vector<float> {
            const qem_view view = view_of(l, memory.data());
            qem_matrix matrix;
            std::vector<float> x(l.rows * l.cols);
            p.must(p->load(p, &view, "matrix", &matrix));
            EXPECT_EQ(matrix.rows, l.rows);
            EXPECT_EQ(matrix.cols, l.cols);
            p.must(p->to_host(p, x.data(), matrix.x, x.size() * sizeof(float)));
            p->release(p, matrix.owned);
            return x;
        });
    }
}

TEST(CudaPrimitives, LoadNamesTheFirstElementThatIsNotFinite)
{
    Random random(6);
    for (const Layout &l : layouts) {
        if (l.dtype == QEM_DTYPE_U8) continue;
        for (const float bad : { std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity() }) {
            const std::vector<unsigned char> memory = memory_of(random, l, &bad, below(random, l.rows * l.cols));
            both(std::string(qem_dtype_name(l.dtype)), [&](const Primitives &p) {
                const qem_view view = view_of(l, memory.data());
                qem_matrix matrix;
                EXPECT_EQ(p->load(p, &view, "matrix", &matrix), QEM_ERR_DATA);
                EXPECT_EQ(matrix.owned, nullptr);
                const std::string text = p.error();
                return std::vector<char>(text.begin(), text.end());
            });
        }
    }
}

TEST(CudaPrimitives, LoadTakesDeviceMemory)
{
    Random random(7);
    const Primitives gpu(QEM_DEVICE_CUDA);
    for (const Layout &l : layouts) {
        if (l.shift) continue;
        const std::vector<unsigned char> memory = memory_of(random, l, nullptr, 0);
        const DeviceArray<unsigned char> on_device(gpu, memory);
        const qem_view here = view_of(l, memory.data()), there = view_of(l, on_device.get());
        qem_matrix a, b;
        std::vector<float> x(l.rows * l.cols), y(x.size());
        gpu.must(gpu->load(gpu, &here, "matrix", &a));
        gpu.must(gpu->load(gpu, &there, "matrix", &b));
        gpu.must(gpu->to_host(gpu, x.data(), a.x, x.size() * sizeof(float)));
        gpu.must(gpu->to_host(gpu, y.data(), b.x, y.size() * sizeof(float)));
        expect_same(x, y, qem_dtype_name(l.dtype));
        const bool plain = l.dtype == QEM_DTYPE_F32 && l.col_stride == 1 && l.row_stride == l.cols;
        EXPECT_EQ(b.owned == nullptr, plain) << qem_dtype_name(l.dtype);
        gpu->release(gpu, a.owned);
        gpu->release(gpu, b.owned);
    }
    const std::vector<unsigned char> bytes(64);
    const DeviceArray<unsigned char> on_device(gpu, bytes);
    const qem_view view = view_of({ QEM_DTYPE_F32, 2, 2, 2, 1, 2 }, on_device.get());
    qem_matrix matrix;
    EXPECT_EQ(gpu->load(gpu, &view, "matrix", &matrix), QEM_ERR_ARGUMENT);
}

// ---- contexts ----

TEST(CudaContext, SaysWhereItIs)
{
    QEM_NEEDS_RUNNER();
    const Context context(on_device(QEM_DEVICE_CUDA));
    qem_context_info info = QEM_CONTEXT_INFO_INIT;
    context.must(qem_context_query(context, &info));
    EXPECT_EQ(info.device, QEM_DEVICE_CUDA);
    EXPECT_STREQ(info.device_name, "kernel host runner");
}

TEST(CudaContext, NeedsADriverAndADevice)
{
    QEM_NEEDS_RUNNER();
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = reinterpret_cast<qem_context *>(1);
    params.device = QEM_DEVICE_CUDA;
    qem_runner::machine().devices = 0;
    EXPECT_EQ(qem_context_create(&params, &context), QEM_ERR_NO_DEVICE);
    EXPECT_EQ(context, nullptr);
    qem_runner::machine().devices = 1;
    qem_runner::machine().driver = false;
    EXPECT_EQ(qem_context_create(&params, &context), QEM_ERR_NO_DEVICE);
    qem_runner::machine().driver = true;
}

TEST(CudaContext, ReleasesAllMemory)
{
    QEM_NEEDS_RUNNER();
    const size_t before = qem_runner::allocated_bytes();
    {
        Random random(8);
        const Primitives gpu(QEM_DEVICE_CUDA);
        const std::vector<float> x = values(random, Pattern::normal, 100);
        const Floats a(gpu, x);
        double sum, squared;
        gpu.must(gpu->sum(gpu, a.get(), x.size(), 0.0, &sum, &squared));
        EXPECT_GT(qem_runner::allocated_bytes(), before);
    }
    EXPECT_EQ(qem_runner::allocated_bytes(), before);
}

TEST(CudaContext, OutOfMemory)
{
    const Primitives gpu(QEM_DEVICE_CUDA);
    void *memory = reinterpret_cast<void *>(1);
    EXPECT_EQ(gpu->alloc(gpu, uint64_t(1) << 40, 4, &memory), QEM_ERR_MEMORY);
    EXPECT_EQ(memory, nullptr);
    EXPECT_NE(gpu.error().find("4398046511104 bytes of device memory"), std::string::npos) << gpu.error();
    EXPECT_EQ(gpu->alloc(gpu, UINT64_MAX / 2, 4, &memory), QEM_ERR_MEMORY);
}

} // namespace
