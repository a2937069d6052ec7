// add() and the conversions to and from f16 and bf16.
#include "kernels_test.h"

using namespace qem_test;

namespace {

class Convert : public KernelTest {
protected:
    using Narrow = int (*)(const float *, size_t, uint16_t *);
    void check_narrow(Narrow expected_kernel, Narrow actual_kernel, const std::vector<float> &x)
    {
        const size_t n = x.size() - 1;
        Output<uint16_t> expected(n, 1), actual(n, 1);
        const int expected_overflow = expected_kernel(x.data() + 1, n, expected.data());
        const int actual_overflow = actual_kernel(x.data() + 1, n, actual.data());
        ASSERT_TRUE(same_output(expected, actual));
        ASSERT_EQ(expected_overflow, actual_overflow);
    }
    void check_both(const std::vector<float> &x)
    {
        ASSERT_NO_FATAL_FAILURE(check_narrow(scalar->f32_to_f16, simd->f32_to_f16, x));
        ASSERT_NO_FATAL_FAILURE(check_narrow(scalar->f32_to_bf16, simd->f32_to_bf16, x));
    }
};

TEST_P(Convert, AnyBits)
{
    for (size_t n : convert_sizes)
        for (int round = 0; round < 50; round++) {
            std::vector<float> x(n + 1);
            fill_bits(random, x.data(), x.size());
            ASSERT_NO_FATAL_FAILURE(check_both(x)) << "n " << n;
        }
}

TEST_P(Convert, Patterns)
{
    for (size_t n : convert_sizes)
        for (Pattern pattern : all_patterns) {
            std::vector<float> x(n + 1);
            fill(random, pattern, x.data(), x.size());
            ASSERT_NO_FATAL_FAILURE(check_both(x)) << name_of(pattern) << ", n " << n;
        }
}

// Around every f16 and bf16 value, the overflow alone among small values.
TEST_P(Convert, RoundingBoundaries)
{
    for (uint32_t high = 0; high < 0x10000; high++) {
        std::vector<float> x(17, 1.0f);
        const uint32_t low[] = { 0,      1,      0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x3001,
                                 0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xf001, 0xffff };
        for (size_t i = 0; i < 15; i++) {
            const uint32_t bits = high << 16 | low[i];
            std::memcpy(&x[1 + i], &bits, sizeof bits);
        }
        ASSERT_NO_FATAL_FAILURE(check_both(x)) << "top bits " << std::hex << high;
    }
    for (size_t at = 0; at < 40; at++)
        for (float value : { 65519.996f, 65520.0f, -65520.0f, 0x1.fefffep127f, 0x1.ffp127f, -0x1.fefffep127f, -0x1.ffp127f,
                             3.4028235e38f }) {
            std::vector<float> x(41, 0.5f);
            x[1 + at] = value;
            ASSERT_NO_FATAL_FAILURE(check_both(x));
        }
}

TEST_P(Convert, EveryHalfToFloat)
{
    std::vector<uint16_t> x(65536 + 1);
    for (size_t i = 0; i < x.size(); i++) x[i] = static_cast<uint16_t>(i);
    for (size_t n : { size_t(0), size_t(1), size_t(13), size_t(31), size_t(65536) }) {
        Output<float> expected(n, 1), actual(n, 1);
        scalar->f16_to_f32(x.data() + 1, n, expected.data());
        simd->f16_to_f32(x.data() + 1, n, actual.data());
        ASSERT_TRUE(same_output(expected, actual));
        scalar->bf16_to_f32(x.data() + 1, n, expected.data());
        simd->bf16_to_f32(x.data() + 1, n, actual.data());
        ASSERT_TRUE(same_output(expected, actual));
    }
}

TEST_P(Convert, Add)
{
    for (size_t n : convert_sizes)
        for (Pattern pattern : all_patterns) {
            std::vector<float> x(n + 1);
            fill(random, pattern, x.data(), x.size());
            Output<float> expected(n, 3), actual(n, 3);
            fill(random, pattern, expected.data(), n);
            std::memcpy(actual.data(), expected.data(), n * sizeof(float));
            scalar->add(x.data() + 1, n, expected.data());
            simd->add(x.data() + 1, n, actual.data());
            ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << ", n " << n;
        }
}

QEM_KERNEL_TESTS(Convert);

} // namespace
