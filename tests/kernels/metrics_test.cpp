// find_nonfinite(), extremes(), error_chunk(), sum_chunk().
#include "kernels_test.h"

#include <cmath>

#include "backend.h"

using namespace qem_test;

namespace {

class Metrics : public KernelTest {};

TEST_P(Metrics, FindNonfinite)
{
    for (size_t n = 0; n < 300; n++) {
        std::vector<float> x(n + 1);
        fill(random, Pattern::huge, x.data(), x.size());
        ASSERT_EQ(n, simd->find_nonfinite(x.data() + 1, n));
        for (int round = 0; n > 0 && round < 4; round++) {
            x[1 + below(random, n)] = round % 2 ? -INFINITY : std::nanf("");
            ASSERT_EQ(scalar->find_nonfinite(x.data() + 1, n), simd->find_nonfinite(x.data() + 1, n));
        }
    }
}

TEST_P(Metrics, Extremes)
{
    for (size_t n : metrics_sizes)
        for (Pattern pattern : all_patterns)
            for (int sign : { -1, 1 }) {
                std::vector<float> x(n + 1);
                fill(random, pattern, x.data(), x.size());
                for (float &v : x) v *= static_cast<float>(sign);
                float expected[2], actual[2];
                scalar->extremes(x.data() + 1, n, &expected[0], &expected[1]);
                simd->extremes(x.data() + 1, n, &actual[0], &actual[1]);
                ASSERT_TRUE(same_bits(expected, actual, 2)) << name_of(pattern) << ", n " << n;
            }
}

struct Errors {
    double sums[3], max;
    uint64_t zeros;
};

TEST_P(Metrics, ErrorChunk)
{
    for (size_t n : metrics_sizes)
        for (Pattern pattern : all_patterns)
            for (Pattern other : { pattern, Pattern::normal, Pattern::zeros }) {
                std::vector<float> x(n + 1), y(n + 2);
                fill(random, pattern, x.data(), x.size());
                fill(random, other, y.data(), y.size());
                for (size_t i = 0; i < n; i++)
                    if (below(random, 5) == 0) x[1 + i] = below(random, 2) ? 0.0f : -0.0f;
                Errors expected, actual;
                scalar->error_chunk(x.data() + 1, y.data() + 2, n, expected.sums, &expected.max, &expected.zeros);
                simd->error_chunk(x.data() + 1, y.data() + 2, n, actual.sums, &actual.max, &actual.zeros);
                ASSERT_TRUE(same_bits(expected.sums, actual.sums, 3)) << name_of(pattern) << ", n " << n;
                ASSERT_TRUE(same_bits(&expected.max, &actual.max, 1)) << name_of(pattern) << ", n " << n;
                ASSERT_EQ(expected.zeros, actual.zeros);
                simd->error_chunk(x.data() + 1, x.data() + 1, n, actual.sums, &actual.max, &actual.zeros);
                ASSERT_EQ(0.0, actual.sums[0] + actual.sums[1] + actual.sums[2] + actual.max) << "a matrix against itself";
            }
}

TEST_P(Metrics, SumChunk)
{
    for (size_t n : metrics_sizes)
        for (Pattern pattern : all_patterns)
            for (double center : { 0.0, -0.0, 0.1, -1.0e30 }) {
                std::vector<float> x(n + 1);
                fill(random, pattern, x.data(), x.size());
                double expected[2], actual[2];
                scalar->sum_chunk(x.data() + 1, n, center, &expected[0], &expected[1]);
                simd->sum_chunk(x.data() + 1, n, center, &actual[0], &actual[1]);
                ASSERT_TRUE(same_bits(expected, actual, 2)) << name_of(pattern) << ", n " << n << ", center " << center;
            }
}

QEM_KERNEL_TESTS(Metrics);

} // namespace
