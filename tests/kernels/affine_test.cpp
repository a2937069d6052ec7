// affine(): steps of de-standardization.
#include "kernels_test.h"

using namespace qem_test;

namespace {

class Affine : public KernelTest {
protected:
    // Scales and means end where their allocation ends.
    void check(size_t rows, size_t width, size_t block, size_t phase, int parts, Pattern pattern, size_t shift, size_t gap)
    {
        const size_t units = block ? (phase + width - 1) / block + 1 : 1, unit_stride = below(random, 2) ? units : 0;
        const size_t stride = width + gap, n = (rows - 1) * stride + width;
        std::vector<float> x(n), scale((rows - 1) * unit_stride + units), mean(scale.size());
        fill(random, pattern, x.data(), n);
        fill(random, Pattern::normal, scale.data(), scale.size());
        fill(random, pattern, mean.data(), mean.size());
        Output<float> expected(n, shift), actual(n, shift);
        std::memcpy(expected.data(), x.data(), n * sizeof(float));
        std::memcpy(actual.data(), x.data(), n * sizeof(float));
        qem_affine_tile tile = { expected.data(), stride, rows, width, block, phase, parts & 1 ? scale.data() : nullptr,
                                 parts & 2 ? mean.data() : nullptr, unit_stride };
        scalar->affine(&tile);
        tile.x = actual.data();
        simd->affine(&tile);
        ASSERT_TRUE(same_output(expected, actual)) << rows << " x " << width << ", block " << block << " from " << phase
                                                   << ", parts " << parts << ", " << name_of(pattern);
    }
};

TEST_P(Affine, EveryBlockFromEveryPlace)
{
    for (size_t block : { 0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100, 128, 1000 })
        for (size_t width : { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129, 300 })
            for (int parts : { 1, 2, 3 }) {
                const size_t phase = block && below(random, 2) ? below(random, block) : 0;
                ASSERT_NO_FATAL_FAILURE(check(1 + below(random, 3), width, block, phase, parts, Pattern::normal,
                                              below(random, 17), below(random, 4)));
            }
}

TEST_P(Affine, EveryKindOfNumber)
{
    for (Pattern pattern : all_patterns)
        for (size_t block : { 0, 1, 8, 10, 16, 32 })
            for (int parts : { 1, 2, 3 }) ASSERT_NO_FATAL_FAILURE(check(2, 75, block, block / 3, parts, pattern, 1, 0));
}

TEST(AffineScalar, ByHand)
{
    const qem_cpu_kernels *scalar = qem_cpu_kernels_for(QEM_ISA_SCALAR);
    const float scale[] = { 2, 3, -1, 10, 100, 1000 }, mean[] = { 1, 0, 5, -1, -2, -3 };
    float x[] = { 1, 2, 3, 4, 77, 5, 6, 7, -0.0f };
    const qem_affine_tile tile = { x, 5, 2, 4, 2, 1, scale, mean, 3 };
    scalar->affine(&tile);
    const float expected[] = { 3, 6, 9, 1, 77, 49, 598, 698, -3 };
    EXPECT_TRUE(same_bits(expected, x, 9));
    float zero[] = { -0.0f, -0.0f }; // a missing mean is +0, and still added
    const qem_affine_tile rest = { zero, 2, 1, 2, 0, 0, scale, nullptr, 0 };
    scalar->affine(&rest);
    const float positive[] = { 0.0f, 0.0f };
    EXPECT_TRUE(same_bits(positive, zero, 2));
}

QEM_KERNEL_TESTS(Affine);

} // namespace
