// Products with quantized matrices: values, identity over threads and instruction sets, types, strides, bad arguments.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(2));
    return one;
}

std::vector<float> multiply(const Context &by, const Artifact &artifact, const Matrix &x)
{
    std::vector<float> y(x.rows * query(artifact).rows);
    by.must(qem_matmul(by, artifact.get(), x.rows, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, y.data(), 0, nullptr, 0));
    return y;
}

// Each sum in double, within the bound that qem.h gives.
void expect_products(const Artifact &artifact, const Matrix &x, const std::vector<float> &y)
{
    const qem_artifact_info info = query(artifact);
    const std::vector<float> w = decode(context(), artifact);
    const double dot = 69.0 + static_cast<double>(info.cols) / 1024.0;
    const double table = info.dim + 12.0 + static_cast<double>(info.groups) / 32.0;
    const std::vector<Product> expected = products_reference(x, w);
    ASSERT_EQ(y.size(), expected.size());
    for (size_t at = 0; at < expected.size(); at++) {
        const double bound = std::max(dot, table) * 0x1p-24 * expected[at].size + info.cols * 0x1p-149;
        ASSERT_NEAR(y[at], expected[at].sum, bound) << "row " << at % info.rows << " of W, " << at / info.rows << " of x";
    }
}

void expect_all(const Artifact &artifact, uint64_t cols, std::initializer_list<uint64_t> batches)
{
    for (uint64_t batch : batches) {
        const Matrix x = gaussian(batch, cols, batch + 17);
        const std::vector<float> y = multiply(context(), artifact, x);
        SCOPED_TRACE("batch " + std::to_string(batch));
        ASSERT_NO_FATAL_FAILURE(expect_products(artifact, x, y));
        for (qem_isa isa : available_isas())
            for (uint32_t threads : thread_counts({ 1, 3, 5 }))
                if (isa != QEM_ISA_SCALAR || threads == 3) {
                    const Context other(with_threads(threads, isa));
                    ASSERT_EQ(multiply(other, artifact, x), y) << qem_isa_name(isa) << ", threads " << threads;
                }
    }
}

class Matmul : public ::testing::TestWithParam<qem_method> {};
INSTANTIATE_TEST_SUITE_P(All, Matmul, ::testing::ValuesIn(kMethods),
                         [](const auto &info) { return qem_method_name(info.param); });

TEST_P(Matmul, EveryShapeLevelAndBatch)
{
    struct {
        uint64_t rows, cols;
    } const shapes[] = { { 1, 1 }, { 33, 5 }, { 70, 64 }, { 41, 67 }, { 129, 32 } };
    for (const auto &shape : shapes)
        for (uint32_t levels : { 0, 1, 3 })
            for (uint64_t k : { 1, 2, 16, 33 }) {
                const uint64_t most = is_scalar(GetParam()) ? shape.rows * shape.cols
                                      : is_per_group(GetParam()) ? shape.rows
                                                                 : shape.rows * ((shape.cols + 3) / 4);
                if (k > most || (GetParam() == QEM_METHOD_RTN && (k & (k - 1)))) continue;
                SCOPED_TRACE(std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + ", k " + std::to_string(k) +
                             ", levels " + std::to_string(levels));
                qem_recipe recipe = recipe_k(GetParam(), k);
                recipe.levels = levels;
                recipe.iterations = 2;
                if (GetParam() != QEM_METHOD_RTN && k == 16) recipe.codebook = QEM_DTYPE_F16;
                const Artifact artifact = quantize(context(), gaussian(shape.rows, shape.cols, k).view(), recipe);
                ASSERT_NO_FATAL_FAILURE(expect_all(artifact, shape.cols, { 1, 2, 3, 4, 6, 17 }));
            }
}

// Every batch up to 40, on a matrix of more than one block of columns, large enough for threads.
TEST_P(Matmul, EveryBatch)
{
    const Matrix m = gaussian(270, 1040, 4);
    qem_recipe recipe = recipe_k(GetParam(), 16);
    recipe.iterations = 1;
    const Artifact artifact = quantize(context(), m.view(), recipe);
    const Context one(with_threads(1)), five(with_threads(5));
    for (uint64_t batch = 1; batch <= 40; batch++) {
        const Matrix x = gaussian(batch, m.cols, batch);
        const std::vector<float> y = multiply(one, artifact, x);
        ASSERT_EQ(multiply(five, artifact, x), y) << "batch " << batch;
        ASSERT_NO_FATAL_FAILURE(expect_products(artifact, x, y)) << "batch " << batch;
        if (batch <= 3 || batch % 13 == 0) {
            const Context scalar(with_threads(2, QEM_ISA_SCALAR)), avx2(with_threads(2, qem_isa_available(QEM_ISA_AVX2)
                                                                                            ? QEM_ISA_AVX2
                                                                                            : QEM_ISA_SCALAR));
            ASSERT_EQ(multiply(scalar, artifact, x), y) << "batch " << batch;
            ASSERT_EQ(multiply(avx2, artifact, x), y) << "batch " << batch;
        }
    }
}

TEST(MatmulCodes, EveryWidthOfCode)
{
    const Matrix m = gaussian(1201, 24, 5), odd = gaussian(1201, 23, 6);
    for (const Matrix *matrix : { &m, &odd }) // rows of whole bytes, and rows that begin inside one
        for (uint32_t bits = 0; bits <= 12; bits++)
            for (qem_method method : { QEM_METHOD_LLOYDMAX, QEM_METHOD_RTN, QEM_METHOD_VQ, QEM_METHOD_PQ }) {
                uint64_t k = uint64_t(1) << bits;
                if (method == QEM_METHOD_PQ && k > 1201) continue;
                if (method != QEM_METHOD_RTN && bits > 1) k -= 1;
                qem_recipe recipe = recipe_k(method, k);
                recipe.iterations = 1;
                const Artifact artifact = quantize(context(), matrix->view(), recipe);
                ASSERT_EQ(query(artifact).code_bits, bits);
                SCOPED_TRACE(std::string(qem_method_name(method)) + ", " + std::to_string(bits) + " bits");
                ASSERT_NO_FATAL_FAILURE(expect_all(artifact, matrix->cols, { 1, 5 }));
            }
}

TEST(MatmulCodes, EveryDim)
{
    for (uint32_t dim : { 1, 2, 3, 5, 7, 8, 11, 16, 64, 65, 300 })
        for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR })
            for (uint64_t cols : { 301, 1111, 2100 }) {
                qem_recipe recipe = recipe_k(method, 8);
                recipe.dim = dim;
                recipe.iterations = 1;
                recipe.intervals = method == QEM_METHOD_HYPERCHR ? 1 : 0;
                const Artifact artifact = quantize(context(), gaussian(64, cols, dim).view(), recipe);
                SCOPED_TRACE(std::string(qem_method_name(method)) + ", dim " + std::to_string(dim));
                ASSERT_NO_FATAL_FAILURE(expect_all(artifact, cols, { 1, 2, 9 }));
            }
}

// More rows of x than are taken at once.
TEST(MatmulCodes, LargeBatchesAreTheirParts)
{
    const Matrix m = gaussian(40, 48, 1), x = gaussian(523, 48, 2);
    for (qem_method method : kMethods) {
        const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 16));
        const std::vector<float> y = multiply(context(), artifact, x);
        ASSERT_NO_FATAL_FAILURE(expect_products(artifact, x, y));
        Matrix part(3, 48);
        for (uint64_t first = 0; first + 3 <= x.rows; first += 130) {
            std::copy_n(x.x.begin() + static_cast<long>(first * 48), part.x.size(), part.x.begin());
            const std::vector<float> got = multiply(context(), artifact, part);
            ASSERT_TRUE(std::equal(got.begin(), got.end(), y.begin() + static_cast<long>(first * 40)))
                << "a row of y depends on the batch around it";
        }
    }
}

// Enough rows and work for several pieces in several threads, by each way through the library.
TEST(MatmulCodes, SeveralThreads)
{
    const Matrix m = gaussian(1300, 212, 9);
    for (qem_method method : { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET })
        for (uint64_t k : { 16, 150 }) {
            qem_recipe recipe = recipe_k(method, k);
            recipe.iterations = 1;
            const Artifact artifact = quantize(context(), m.view(), recipe);
            SCOPED_TRACE(std::string(qem_method_name(method)) + ", k " + std::to_string(k));
            ASSERT_NO_FATAL_FAILURE(expect_all(artifact, m.cols, { 1, 2, 5, 18 }));
        }
}

// ---- types ----

std::vector<uint16_t> narrow(const std::vector<float> &x, qem_dtype dtype)
{
    std::vector<uint16_t> out(x.size());
    for (size_t i = 0; i < x.size(); i++) { // values that the type holds exactly
        uint32_t bits;
        std::memcpy(&bits, &x[i], 4);
        if (dtype == QEM_DTYPE_BF16)
            out[i] = static_cast<uint16_t>(bits >> 16);
        else
            out[i] = f16_of(x[i]);
    }
    return out;
}

TEST(MatmulTypes, NarrowXIsItsValueAndNarrowYIsRounded)
{
    const Matrix m = gaussian(35, 20, 1);
    Matrix x = integers(7, 20, 2, 9);
    for (float &value : x.x) value *= 0.375f;
    for (qem_method method : kMethods)
        for (uint64_t batch : { 1, 2, 7 }) {
            const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 16));
            Matrix some(batch, 20);
            std::copy_n(x.x.begin(), some.x.size(), some.x.begin());
            const std::vector<float> expected = multiply(context(), artifact, some);
            for (qem_dtype from : { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 })
                for (qem_dtype to : { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 }) {
                    const std::vector<uint16_t> half = from == QEM_DTYPE_F32 ? std::vector<uint16_t>() : narrow(some.x, from);
                    const void *input = from == QEM_DTYPE_F32 ? static_cast<const void *>(some.x.data()) : half.data();
                    std::vector<uint32_t> out(batch * 35);
                    context().must(qem_matmul(context(), artifact.get(), batch, from, input, 0, to, out.data(), 0, nullptr, 0));
                    for (size_t i = 0; i < expected.size(); i++) {
                        const uint16_t *narrow_out = reinterpret_cast<const uint16_t *>(out.data());
                        if (to == QEM_DTYPE_F32) {
                            ASSERT_EQ(std::memcmp(&out[i], &expected[i], 4), 0);
                        } else if (to == QEM_DTYPE_F16) {
                            ASSERT_EQ(value_of_f16(narrow_out[i]), round_to_f16(expected[i]));
                        } else {
                            ASSERT_EQ(value_of_bf16(narrow_out[i]), round_to_bf16(expected[i]));
                        }
                    }
                }
        }
}

TEST(MatmulTypes, BeyondTheTypeIsARangeErrorAfterAllIsWritten)
{
    Matrix m(3, 8, 1.0f), x(2, 8, 1.0f);
    for (uint64_t j = 0; j < 8; j++) m.at(1, j) = 70000.0f;
    for (qem_isa isa : available_isas()) {
        const Context one(with_threads(2, isa));
        const Artifact artifact = quantize(one, m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 2));
        std::vector<uint16_t> y(6, 7);
        EXPECT_EQ(qem_matmul(one, artifact.get(), 2, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F16, y.data(), 0, nullptr, 0),
                  QEM_ERR_RANGE);
        EXPECT_NE(one.error().find("f16"), std::string::npos);
        EXPECT_EQ(y, std::vector<uint16_t>({ 0x4800, 0x7c00, 0x4800, 0x4800, 0x7c00, 0x4800 }));
        one.must(qem_matmul(one, artifact.get(), 2, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_BF16, y.data(), 0, nullptr, 0));
    }
}

TEST(MatmulTypes, NanAndInfinityGoThrough)
{
    Matrix m = gaussian(90, 40, 3);
    for (qem_method method : kMethods) {
        const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 8));
        const std::vector<float> w = decode(context(), artifact);
        for (uint64_t batch : { 2, 6 }) {
            Matrix x = gaussian(batch, 40, 4);
            const float payload = std::nanf("17");
            x.at(0, 13) = std::copysign(payload, -1.0f);
            x.at(1, 39) = INFINITY; // in the tail of a block of 16
            const std::vector<float> y = multiply(context(), artifact, x);
            for (uint64_t i = 0; i < 90; i++) {
                const uint32_t *bits = reinterpret_cast<const uint32_t *>(y.data());
                ASSERT_EQ(bits[i], 0x7fc00000u);
                const float weight = w[i * 40 + 39];
                if (weight == 0.0f) {
                    ASSERT_EQ(bits[90 + i], 0x7fc00000u);
                } else {
                    ASSERT_EQ(y[90 + i], weight > 0.0f ? INFINITY : -INFINITY);
                }
                if (batch > 2) {
                    ASSERT_TRUE(std::isfinite(y[180 + i]));
                }
            }
            for (qem_isa isa : available_isas()) {
                const Context other(with_threads(3, isa));
                const std::vector<float> got = multiply(other, artifact, x);
                ASSERT_EQ(std::memcmp(got.data(), y.data(), y.size() * 4), 0) << qem_isa_name(isa);
            }
        }
    }
}

// ---- memory ----

TEST(MatmulMemory, StridesAlignmentAndWorkspace)
{
    const Matrix m = gaussian(37, 22, 5);
    for (qem_method method : kMethods)
        for (uint64_t batch : { 1, 2, 5, 19 }) {
            const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 16));
            const Matrix x = gaussian(batch, 22, 6);
            const std::vector<float> expected = multiply(context(), artifact, x);
            for (uint64_t x_stride : { 22, 23, 40 })
                for (uint64_t y_stride : { 37, 38, 64 })
                    for (size_t shift : { 0, 1, 3 }) {
                        // x ends where its allocation ends; its gaps are NaN
                        std::vector<float> from((batch - 1) * x_stride + 22 + shift, NAN);
                        for (uint64_t b = 0; b < batch; b++)
                            std::copy_n(&x.x[b * 22], 22, &from[shift + b * x_stride]);
                        std::vector<float> to(shift + batch * y_stride + 9, 5.0f);
                        const uint64_t bytes = qem_matmul_workspace_size(context(), artifact.get(), batch);
                        std::vector<uint8_t> workspace(shift + bytes + 16, 0xa5);
                        context().must(qem_matmul(context(), artifact.get(), batch, QEM_DTYPE_F32, from.data() + shift, x_stride,
                                                  QEM_DTYPE_F32, to.data() + shift, y_stride, workspace.data() + shift, bytes));
                        for (size_t at = 0; at < to.size(); at++) {
                            const size_t b = at < shift ? batch : (at - shift) / y_stride,
                                         i = at < shift ? 0 : (at - shift) % y_stride;
                            ASSERT_EQ(to[at], b < batch && i < 37 ? expected[b * 37 + i] : 5.0f) << "at " << at;
                        }
                        for (size_t at = 0; at < 16; at++) ASSERT_EQ(workspace[shift + bytes + at], 0xa5);
                        for (size_t at = 0; at < shift; at++) ASSERT_EQ(workspace[at], 0xa5);
                    }
        }
}

struct Counter {
    uint64_t calls = 0, alive = 0, fail_at = UINT64_MAX;
    qem_allocator allocator()
    {
        return { [](void *user, size_t bytes) -> void * {
                    Counter *c = static_cast<Counter *>(user);
                    if (++c->calls >= c->fail_at) return nullptr;
                    c->alive++;
                    void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
                    std::memset(memory, 0xa5, bytes); // nobody may count on zeros
                    return memory;
                },
                 [](void *user, void *memory) {
                     static_cast<Counter *>(user)->alive--;
                     std::free(memory);
                 },
                 this };
    }
};

TEST(MatmulMemory, RunsOutWithoutHarm)
{
    const Matrix m = gaussian(30, 20, 7), x = gaussian(3, 20, 8);
    for (qem_method method : kMethods) {
        const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 8));
        Counter counter;
        Options options = with_threads(3);
        options.allocator = counter.allocator();
        const Context by(options);
        std::vector<float> y(90, 3.0f);
        const auto call = [&](void *workspace, uint64_t bytes) {
            return qem_matmul(by, artifact.get(), 3, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, y.data(), 0, workspace, bytes);
        };
        const uint64_t alive = counter.alive;
        uint64_t failures = 0;
        for (;; failures++) {
            counter.calls = 0;
            counter.fail_at = failures + 1;
            const qem_status status = call(nullptr, 0);
            ASSERT_EQ(counter.alive, alive);
            if (status == QEM_OK) break;
            ASSERT_EQ(status, QEM_ERR_MEMORY);
            ASSERT_NE(by.error().find("memory"), std::string::npos);
            ASSERT_EQ(y, std::vector<float>(90, 3.0f)) << "written before the memory was there";
            ASSERT_LT(failures, 50u);
        }
        EXPECT_GT(failures, 0u);
        EXPECT_EQ(y, multiply(context(), artifact, x));
        counter.fail_at = 0; // with a workspace nothing is allocated
        std::vector<uint8_t> workspace(qem_matmul_workspace_size(by, artifact.get(), 3));
        std::fill(y.begin(), y.end(), 3.0f);
        counter.calls = 0;
        EXPECT_EQ(call(workspace.data(), workspace.size()), QEM_OK) << by.error();
        EXPECT_EQ(counter.calls, 0u);
        EXPECT_EQ(y, multiply(context(), artifact, x));
    }
}

// ---- arguments ----

TEST(MatmulArguments, EachHasItsSentence)
{
    const Context one;
    const Artifact artifact = quantize(one, gaussian(6, 10, 1).view(), recipe_k(QEM_METHOD_PQ, 4));
    const qem_artifact *a = artifact.get();
    std::vector<float> x(100, 1.0f), y(100, 7.0f);
    std::vector<uint8_t> w(qem_matmul_workspace_size(one, a, 2));
    char *odd_x = reinterpret_cast<char *>(x.data()) + 1, *odd_y = reinterpret_cast<char *>(y.data()) + 2;
    const qem_dtype f32 = QEM_DTYPE_F32;
    const uint64_t far = UINT64_MAX / 2;
    const auto expect = [&](qem_status status, const char *text) {
        EXPECT_EQ(status, QEM_ERR_ARGUMENT) << text;
        EXPECT_NE(one.error().find(text), std::string::npos) << "'" << text << "' is not in: " << one.error();
        EXPECT_EQ(y, std::vector<float>(100, 7.0f)) << text;
    };
    expect(qem_matmul(one, nullptr, 2, f32, x.data(), 0, f32, y.data(), 0, nullptr, 0), "NULL");
    expect(qem_matmul(one, a, 2, f32, nullptr, 0, f32, y.data(), 0, nullptr, 0), "NULL");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, nullptr, 0, nullptr, 0), "NULL");
    expect(qem_matmul(one, a, 2, QEM_DTYPE_F64, x.data(), 0, f32, y.data(), 0, nullptr, 0), "x: type f64");
    expect(qem_matmul(one, a, 2, QEM_DTYPE_NONE, x.data(), 0, f32, y.data(), 0, nullptr, 0), "x: type");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, QEM_DTYPE_U8, y.data(), 0, nullptr, 0), "y: type u8");
    expect(qem_matmul(one, a, 2, f32, x.data(), 9, f32, y.data(), 0, nullptr, 0), "x: the stride 9");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), 5, nullptr, 0), "y: the stride 5");
    expect(qem_matmul(one, a, 2, f32, x.data(), far, f32, y.data(), 0, nullptr, 0), "2^56");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), far, nullptr, 0), "2^56");
    expect(qem_matmul(one, a, 2, f32, odd_x, 0, f32, y.data(), 0, nullptr, 0), "x is not aligned");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, odd_y, 0, nullptr, 0), "y is not aligned");
    expect(qem_matmul(one, a, uint64_t(1) << 32, f32, x.data(), 0, f32, y.data(), 0, nullptr, 0), "batch");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), 0, nullptr, 1), "workspace: the pointer is NULL");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), 0, w.data(), w.size() - 1), "too few");
    expect(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), 0, w.data(), 0), "too few");
    EXPECT_EQ(qem_matmul(nullptr, a, 2, f32, x.data(), 0, f32, y.data(), 0, nullptr, 0), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_matmul(one, a, 0, f32, x.data(), 0, f32, y.data(), 0, nullptr, 0), QEM_OK);
    EXPECT_EQ(y, std::vector<float>(100, 7.0f)) << "no rows write nothing";
    EXPECT_EQ(qem_matmul(one, a, 2, f32, x.data(), 0, f32, y.data(), 0, w.data(), w.size()), QEM_OK) << one.error();
}

TEST(MatmulArguments, WorkspaceSize)
{
    const Context one;
    const Artifact artifact = quantize(one, gaussian(6, 10, 1).view(), recipe_k(QEM_METHOD_PQ, 4));
    EXPECT_EQ(qem_matmul_workspace_size(nullptr, artifact.get(), 2), 0u);
    EXPECT_EQ(qem_matmul_workspace_size(one, nullptr, 2), 0u);
    EXPECT_EQ(qem_matmul_workspace_size(one, artifact.get(), 0), 0u);
    EXPECT_EQ(qem_matmul_workspace_size(one, artifact.get(), uint64_t(1) << 32), 0u);
    EXPECT_GT(qem_matmul_workspace_size(one, artifact.get(), 1), 0u);
    // bounded: the whole batch is not held
    EXPECT_EQ(qem_matmul_workspace_size(one, artifact.get(), 100000), qem_matmul_workspace_size(one, artifact.get(), 256));
}

} // namespace
