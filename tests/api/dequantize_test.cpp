// Decoding: ranges of rows, strides, f16 and bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(2));
    return one;
}

TEST(Dequantize, RangesOfRowsAreRowsOfTheWhole)
{
    for (qem_method method : kMethods)
        for (uint64_t cols : { 1, 5, 16, 33 }) {
            const Matrix m = gaussian(29, cols, 1);
            qem_recipe recipe = recipe_k(method, 8);
            recipe.levels = cols == 16 ? 0 : 2;
            const Artifact artifact = quantize(context(), m.view(), recipe);
            const std::vector<float> whole = decode(context(), artifact);
            for (uint64_t begin = 0; begin <= 29; begin++)
                for (uint64_t end : { begin, begin + 1, begin + 7, uint64_t(29) }) {
                    if (end > 29) continue;
                    std::vector<float> out((end - begin) * cols + 1, 5.0f);
                    context().must(qem_dequantize(context(), artifact.get(), begin, end, QEM_DTYPE_F32, out.data(), 0));
                    ASSERT_EQ(out.back(), 5.0f) << "written beyond the end";
                    out.pop_back();
                    ASSERT_EQ(out, std::vector<float>(whole.begin() + begin * cols, whole.begin() + end * cols));
                }
        }
}

template <typename T> void expect_gaps_untouched(qem_dtype dtype)
{
    const Matrix m = gaussian(17, 13, 2);
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_RTN }) {
        const Artifact artifact = quantize(context(), m.view(), recipe_k(method, 8));
        std::vector<T> packed(17 * 13);
        context().must(qem_dequantize(context(), artifact.get(), 0, 17, dtype, packed.data(), 0));
        for (uint64_t stride : { 13, 14, 16, 40 })
            for (size_t shift : { 0, 1, 3 }) { // aligned to the element only
                std::vector<T> out(shift + 17 * stride + 64, T(77));
                context().must(qem_dequantize(context(), artifact.get(), 0, 17, dtype, out.data() + shift, stride));
                for (size_t at = 0; at < out.size(); at++) {
                    const size_t row = at < shift ? 17 : (at - shift) / stride,
                                 col = at < shift ? 0 : (at - shift) % stride;
                    if (row < 17 && col < 13)
                        ASSERT_EQ(out[at], packed[row * 13 + col]);
                    else
                        ASSERT_EQ(out[at], T(77)) << "stride " << stride << ", a gap was written at " << at;
                }
            }
    }
}

TEST(Dequantize, GapsAreNotWritten)
{
    expect_gaps_untouched<float>(QEM_DTYPE_F32);
    expect_gaps_untouched<uint16_t>(QEM_DTYPE_F16);
    expect_gaps_untouched<uint16_t>(QEM_DTYPE_BF16);
}

// Values whose rounding is delicate: halfway cases of both types, subnormals, the largest that still fit.
Matrix delicate()
{
    std::vector<float> x = { 0.0f,        -0.0f,           1.0f,      65504.0f,   65519.996f,      -65519.0f,
                             0x1p-14f,    0x1p-24f,        0x1p-25f,  0x1.8p-25f, 0x1.000002p-25f, 0x1.002p0f,
                             0x1.006p0f,  0x1.00200002p0f, 0x1.01p0f, 0x1.03p0f,  0x1.010002p0f,   0x1.ffep-15f,
                             0x1.ffcp-15f };
    Random random(3);
    while (x.size() < 240) {
        const int exponent = static_cast<int>(random.below(40)) - 26;
        const float value = static_cast<float>(std::ldexp(1.0 + random.unit(), exponent));
        if (value < 65000.0f) x.push_back(random.below(2) ? value : -value);
    }
    Matrix m(8, 30);
    m.x = x;
    return m;
}

TEST(Dequantize, F16AndBf16RoundToNearestEven)
{
    const Matrix m = delicate();
    for (qem_isa isa : available_isas()) {
        const Context one(with_threads(1, isa));
        const Artifact artifact = quantize(one, m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 240));
        const std::vector<float> wide = decode(one, artifact);
        std::vector<uint16_t> half(wide.size()), brain(wide.size());
        one.must(qem_dequantize(one, artifact.get(), 0, m.rows, QEM_DTYPE_F16, half.data(), 0));
        one.must(qem_dequantize(one, artifact.get(), 0, m.rows, QEM_DTYPE_BF16, brain.data(), 0));
        for (size_t i = 0; i < wide.size(); i++) {
            EXPECT_EQ(value_of_f16(half[i]), round_to_f16(wide[i])) << wide[i];
            EXPECT_EQ(half[i] >> 15, std::signbit(wide[i]));
            EXPECT_EQ(value_of_bf16(brain[i]), round_to_bf16(wide[i])) << wide[i];
            EXPECT_EQ(brain[i] >> 15, std::signbit(wide[i]));
        }
    }
}

TEST(Dequantize, BeyondTheTypeIsARangeErrorAfterAllIsWritten)
{
    Matrix m(3, 40);
    for (uint64_t i = 0; i < m.x.size(); i++) m.x[i] = static_cast<float>(i % 4);
    for (uint64_t j = 0; j < 40; j++) m.at(1, j) = j % 2 ? 70000.0f : -1e6f;
    for (qem_isa isa : available_isas()) {
        const Context one(with_threads(2, isa));
        const Artifact artifact = quantize(one, m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 8));
        const std::vector<float> wide = decode(one, artifact);
        std::vector<uint16_t> out(m.x.size(), 7);
        EXPECT_EQ(qem_dequantize(one, artifact.get(), 0, 3, QEM_DTYPE_F16, out.data(), 0), QEM_ERR_RANGE);
        EXPECT_NE(one.error().find("f16"), std::string::npos);
        for (uint64_t j = 0; j < 40; j++) EXPECT_EQ(out[40 + j], j % 2 ? 0x7c00 : 0xfc00);
        for (size_t i = 0; i < wide.size(); i++) EXPECT_EQ(value_of_f16(out[i]), round_to_f16(wide[i]));
        EXPECT_EQ(qem_dequantize(one, artifact.get(), 0, 1, QEM_DTYPE_F16, out.data(), 0), QEM_OK) << "these rows fit";
        EXPECT_EQ(qem_dequantize(one, artifact.get(), 0, 3, QEM_DTYPE_BF16, out.data(), 0), QEM_OK);
    }
    Matrix edge(1, 2); // 65520 is the least that rounds to infinity
    edge.x = { std::nextafter(65520.0f, 0.0f), 65520.0f };
    const Artifact two = quantize(context(), edge.view(), recipe_k(QEM_METHOD_RTN, 2));
    ASSERT_EQ(decode(context(), two), edge.x);
    std::vector<uint16_t> pair(2);
    EXPECT_EQ(qem_dequantize(context(), two.get(), 0, 1, QEM_DTYPE_F16, pair.data(), 0), QEM_ERR_RANGE);
    EXPECT_EQ(pair, std::vector<uint16_t>({ 0x7bff, 0x7c00 }));
    Matrix large(2, 2, 3.4e38f);
    const Artifact artifact = quantize(context(), large.view(), recipe_k(QEM_METHOD_VQ, 1));
    std::vector<uint16_t> out(4);
    EXPECT_EQ(qem_dequantize(context(), artifact.get(), 0, 2, QEM_DTYPE_BF16, out.data(), 0), QEM_ERR_RANGE);
    EXPECT_EQ(out, std::vector<uint16_t>(4, 0x7f80));
}

TEST(Dequantize, NoRowsWriteNothing)
{
    const Matrix m = gaussian(4, 4, 1);
    const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_PQ, 2));
    float guard = 3.0f;
    for (uint64_t row : { 0, 2, 4 })
        EXPECT_EQ(qem_dequantize(context(), artifact.get(), row, row, QEM_DTYPE_F32, &guard, 0), QEM_OK);
    EXPECT_EQ(guard, 3.0f);
}

// Every width of code from 0 to 13 bits, rows that begin inside a byte.
TEST(Dequantize, EveryCodeWidth)
{
    const Matrix m = gaussian(701, 13, 5);
    for (uint32_t bits = 0; bits <= 13; bits++)
        for (qem_isa isa : available_isas()) {
            const Context one(with_threads(1, isa));
            qem_recipe recipe = recipe_k(QEM_METHOD_LLOYDMAX, bits ? (uint64_t(1) << bits) - (bits > 1) : 1);
            recipe.iterations = 2;
            const Artifact artifact = quantize(one, m.view(), recipe);
            ASSERT_EQ(query(artifact).code_bits, bits);
            ASSERT_EQ(decode(one, artifact), decode_reference(artifact).x) << bits << " bits, " << qem_isa_name(isa);
        }
}

// ---- large outputs, which are streamed past the caches and walked in tiles ----

struct Large {
    qem_method method;
    uint64_t rows, cols, k;
    uint32_t dim, levels;
    qem_dtype codebook;
};

Artifact make(const Large &large)
{
    const Matrix m = gaussian(large.rows, large.cols, 7);
    qem_recipe recipe = recipe_k(large.method, large.k);
    recipe.dim = large.dim;
    recipe.levels = large.levels;
    recipe.codebook = large.codebook;
    recipe.iterations = 0;
    return quantize(context(), m.view(), recipe);
}

// Every instruction set and number of threads against the plain reference: places in a line, gaps, all types.
void expect_reference(const Large &large)
{
    const Artifact artifact = make(large);
    const std::vector<float> expected = decode_reference(artifact).x;
    const uint64_t rows = large.rows, cols = large.cols, whole_lines = 16 - cols % 16;
    std::vector<uint16_t> first_half, first_brain;
    for (qem_isa isa : available_isas())
        for (uint32_t threads : thread_counts({ 1, 3 })) {
            SCOPED_TRACE(std::string(qem_isa_name(isa)) + ", " + std::to_string(threads) + " threads");
            const Context one(with_threads(threads, isa));
            const struct {
                uint64_t gap;
                size_t shift;
            } places[] = { { 0, 0 }, { 0, 4 }, { 1, 1 }, { 16, 4 }, { whole_lines, 0 }, { whole_lines, 4 } };
            for (const auto &place : places) {
                const uint64_t stride = cols + place.gap;
                const auto untouched = [](float x) { return x == 77.0f; };
                SCOPED_TRACE("gap " + std::to_string(place.gap) + ", shift " + std::to_string(place.shift));
                std::vector<float> out(place.shift + rows * stride + 32, 77.0f);
                const size_t to_line = (64 - reinterpret_cast<uintptr_t>(out.data()) % 64) % 64 / sizeof(float);
                float *begin = out.data() + to_line + place.shift; // places are those in a line
                one.must(qem_dequantize(one, artifact.get(), 0, rows, QEM_DTYPE_F32, begin, stride));
                for (uint64_t i = 0; i < rows; i++) {
                    const float *row = begin + i * stride;
                    ASSERT_EQ(std::memcmp(row, expected.data() + i * cols, cols * sizeof *row), 0) << "row " << i;
                    ASSERT_TRUE(std::all_of(row + cols, row + stride, untouched)) << "the gap after row " << i;
                }
                ASSERT_TRUE(std::all_of(out.data(), begin, untouched));
                ASSERT_TRUE(std::all_of(out.end() - 16, out.end(), untouched));
            }
            std::vector<uint16_t> half(rows * cols + 1), brain(rows * cols + 1);
            one.must(qem_dequantize(one, artifact.get(), 0, rows, QEM_DTYPE_F16, half.data() + 1, 0));
            one.must(qem_dequantize(one, artifact.get(), 0, rows, QEM_DTYPE_BF16, brain.data() + 1, 0));
            if (!first_half.empty()) { // the values were looked at once, in the first turn
                ASSERT_EQ(half, first_half);
                ASSERT_EQ(brain, first_brain);
                continue;
            }
            const size_t count = expected.size();
            ASSERT_EQ(first_not_rounded(half.data() + 1, expected.data(), count, QEM_DTYPE_F16), count);
            ASSERT_EQ(first_not_rounded(brain.data() + 1, expected.data(), count, QEM_DTYPE_BF16), count);
            first_half = half;
            first_brain = brain;
        }
}

constexpr Large kLarge[] = {
    { QEM_METHOD_PQ, 2100, 1040, 16, 4, 0, QEM_DTYPE_F32 },  // tiles of groups
    { QEM_METHOD_PQ, 1300, 1640, 200, 4, 0, QEM_DTYPE_F32 }, // narrow tiles inside wide ones
    { QEM_METHOD_PQ, 1300, 1642, 200, 4, 0, QEM_DTYPE_F16 }, // with a tail group
    { QEM_METHOD_PQ, 1100, 2080, 100, 8, 0, QEM_DTYPE_F16 },
    { QEM_METHOD_PQ, 1100, 2080, 250, 2, 0, QEM_DTYPE_F32 },
    { QEM_METHOD_PQ, 2100, 1056, 256, 4, 0, QEM_DTYPE_F32 },  // gathered codes, the last inner tile in part
    { QEM_METHOD_PQ, 4200, 288, 1100, 4, 0, QEM_DTYPE_F32 },  // tall tiles
    { QEM_METHOD_PQ, 2300, 512, 2000, 8, 0, QEM_DTYPE_F16 },
    { QEM_METHOD_PQ, 1000, 2100, 60, 3, 0, QEM_DTYPE_F32 },
    { QEM_METHOD_PQ, 300000, 8, 4, 4, 0, QEM_DTYPE_F32 }, // rows shorter than a line
    { QEM_METHOD_PQ, 3, 800001, 3, 4, 0, QEM_DTYPE_F32 }, // rows far too long for a tile
    { QEM_METHOD_VQ, 2000, 1100, 500, 4, 0, QEM_DTYPE_F16 },
    { QEM_METHOD_VQ, 2000, 1101, 500, 4, 0, QEM_DTYPE_F32 },
    { QEM_METHOD_LLOYDMAX, 1500, 1501, 16, 1, 0, QEM_DTYPE_F32 },
    { QEM_METHOD_RTN, 1500, 1501, 256, 1, 0, QEM_DTYPE_F32 },
    { QEM_METHOD_QET, 900, 1501, 32, 4, 2, QEM_DTYPE_F16 }, // leaves of several widths, by rows
    { QEM_METHOD_QET, 700, 1536, 32, 4, 2, QEM_DTYPE_F16 }, // strips
    { QEM_METHOD_QET, 300, 4096, 100, 4, 3, QEM_DTYPE_F32 },
};

std::string name_of(const Large &large)
{
    return std::string(qem_method_name(large.method)) + "_" + std::to_string(large.rows) + "x" +
           std::to_string(large.cols) + "_dim" + std::to_string(large.dim) + "_k" + std::to_string(large.k);
}

void PrintTo(const Large &large, std::ostream *out)
{
    *out << name_of(large);
}

// A test for each, so that they run side by side.
class DequantizeLarge : public ::testing::TestWithParam<Large> {};
INSTANTIATE_TEST_SUITE_P(All, DequantizeLarge, ::testing::ValuesIn(kLarge),
                         [](const auto &info) { return name_of(info.param); });

TEST_P(DequantizeLarge, OutputsEqualTheReference)
{
    ASSERT_NO_FATAL_FAILURE(expect_reference(GetParam()));
}

TEST(Dequantize, LargeRangesOfRows)
{
    for (const Large &large : { Large{ QEM_METHOD_PQ, 2601, 1039, 50, 4, 0, QEM_DTYPE_F32 },
                                Large{ QEM_METHOD_VQ, 2601, 1036, 50, 4, 0, QEM_DTYPE_F16 },
                                Large{ QEM_METHOD_QET, 2601, 1040, 50, 4, 1, QEM_DTYPE_F32 },
                                Large{ QEM_METHOD_LLOYDMAX, 2601, 1039, 13, 1, 0, QEM_DTYPE_F32 } }) {
        const Artifact artifact = make(large);
        const std::vector<float> expected = decode_reference(artifact).x;
        for (uint64_t begin : { 0, 1, 7, 513 })
            for (uint64_t end : { begin + 64, begin + 1100, large.rows }) {
                std::vector<float> out((end - begin) * large.cols);
                context().must(qem_dequantize(context(), artifact.get(), begin, end, QEM_DTYPE_F32, out.data(), 0));
                ASSERT_EQ(std::memcmp(out.data(), expected.data() + begin * large.cols, out.size() * sizeof(float)), 0)
                    << qem_method_name(large.method) << ", rows " << begin << " .. " << end;
            }
    }
}

TEST(Dequantize, LargeOutputsBeyondTheTypeAreRangeErrors)
{
    Matrix m(2200, 1024);
    for (size_t i = 0; i < m.x.size(); i++) m.x[i] = static_cast<float>(i % 4);
    m.at(2199, 1023) = 70000.0f; // the last element alone
    const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 8));
    std::vector<uint16_t> out(m.x.size());
    EXPECT_EQ(qem_dequantize(context(), artifact.get(), 0, m.rows, QEM_DTYPE_F16, out.data(), 0), QEM_ERR_RANGE);
    EXPECT_EQ(out.back(), 0x7c00);
    EXPECT_EQ(qem_dequantize(context(), artifact.get(), 0, m.rows, QEM_DTYPE_BF16, out.data(), 0), QEM_OK);
    EXPECT_EQ(qem_dequantize(context(), artifact.get(), 0, m.rows - 1, QEM_DTYPE_F16, out.data(), 0), QEM_OK);
}

} // namespace
