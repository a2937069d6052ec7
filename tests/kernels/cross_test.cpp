// cross_tile().
#include "kernels_test.h"

extern "C" {
#include "cpu/cross.h"
}

using namespace qem_test;

namespace {

class Cross : public KernelTest {};

TEST_P(Cross, Tile)
{
    for (size_t n : { 0, 1, 2, 7, 64, 256 })
        for (Pattern pattern : all_patterns) {
            std::vector<float> values(n * (QEM_CROSS_A + QEM_CROSS_B) + QEM_CROSS_A * QEM_CROSS_B);
            fill(random, pattern, values.data(), values.size());
            std::vector<double> a(values.begin(), values.begin() + n * QEM_CROSS_A);
            std::vector<double> b(values.begin() + a.size(), values.begin() + a.size() + n * QEM_CROSS_B);
            Output<double> expected(QEM_CROSS_A * QEM_CROSS_B), actual(QEM_CROSS_A * QEM_CROSS_B, 1);
            for (size_t i = 0; i < expected.size(); i++) expected[i] = actual[i] = values[a.size() + b.size() + i];
            scalar->cross_tile(a.data(), b.data(), n, expected.data());
            simd->cross_tile(a.data(), b.data(), n, actual.data());
            ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << ", n " << n;
        }
}

QEM_KERNEL_TESTS(Cross);

} // namespace
