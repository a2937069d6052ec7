// seed_step(), fixed_sum(), own_distance().
#include "kernels_test.h"

#include <algorithm>
#include <cmath>

using namespace qem_test;

namespace {

class Seed : public KernelTest {};

TEST_P(Seed, StepsOfOneSeeding)
{
    for (uint32_t dim : seed_dims)
        for (size_t points : seed_sizes)
            for (Pattern pattern : all_patterns) {
                const size_t ld = points + 64;
                const size_t used = points - below(random, 64);
                Aligned<float> x(ld * dim);
                fill(random, pattern, x.data(), x.size());
                Output<float> d2_expected(points), d2(points);
                Output<uint32_t> labels_expected(points), labels(points);
                for (size_t i = 0; i < points; i++) {
                    d2_expected[i] = d2[i] = i < used ? INFINITY : 0.0f;
                    labels_expected[i] = labels[i] = 7;
                }
                for (uint32_t label = 0; label < 6; label++) {
                    std::vector<float> center(dim);
                    for (uint32_t p = 0; p < dim; p++) center[p] = x[p * ld + below(random, used)];
                    const float expected = scalar->seed_step(x.data(), ld, points, dim, center.data(), label,
                                                             d2_expected.data(), labels_expected.data());
                    const float actual =
                        simd->seed_step(x.data(), ld, points, dim, center.data(), label, d2.data(), labels.data());
                    ASSERT_TRUE(same_bits(&expected, &actual, 1)) << name_of(pattern) << " dim " << dim;
                    ASSERT_TRUE(same_output(d2_expected, d2)) << name_of(pattern) << " dim " << dim;
                    ASSERT_TRUE(same_output(labels_expected, labels)) << name_of(pattern) << " dim " << dim;
                }
            }
}

TEST_P(Seed, OwnDistance)
{
    for (uint32_t dim : seed_dims)
        for (size_t points : seed_sizes)
            for (Pattern pattern : all_patterns) {
                const size_t count = 32 * (1 + below(random, 9)), ld = points, ldc = count + 32;
                Aligned<float> x(ld * dim), c(ldc * dim);
                Aligned<uint32_t> labels(points);
                fill(random, pattern, x.data(), x.size());
                fill(random, pattern, c.data(), c.size());
                for (uint32_t &label : labels) label = static_cast<uint32_t>(below(random, count));
                Output<float> expected(points), actual(points);
                for (const qem_cpu_kernels *kernels : { scalar, simd })
                    kernels->own_distance(x.data(), ld, points, dim, c.data(), ldc, labels.data(),
                                          (kernels == scalar ? expected : actual).data());
                ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << " dim " << dim;
            }
}

TEST_P(Seed, WeightedStepsAndDistances)
{
    for (uint32_t dim : seed_dims)
        for (size_t points : seed_sizes)
            for (Pattern pattern : all_patterns) {
                const size_t ld = points + 64, ldc = 64;
                Aligned<float> x(ld * dim), w(ld * dim), c(ldc * dim);
                fill(random, pattern, x.data(), x.size());
                fill(random, pattern, w.data(), w.size());
                fill(random, pattern, c.data(), c.size());
                for (float &weight : w) weight = std::fabs(weight);
                Output<float> d2_expected(points), d2(points);
                Output<uint32_t> labels_expected(points), labels(points);
                for (size_t i = 0; i < points; i++) {
                    d2_expected[i] = d2[i] = INFINITY;
                    labels_expected[i] = labels[i] = 7;
                }
                for (uint32_t label = 0; label < 5; label++) {
                    std::vector<float> center(dim);
                    for (uint32_t p = 0; p < dim; p++) center[p] = c[p * ldc + label];
                    const float expected = scalar->weighted_step(x.data(), w.data(), ld, points, dim, center.data(), label,
                                                                 d2_expected.data(), labels_expected.data());
                    const float actual = simd->weighted_step(x.data(), w.data(), ld, points, dim, center.data(), label, d2.data(),
                                                             labels.data());
                    ASSERT_TRUE(same_bits(&expected, &actual, 1)) << name_of(pattern) << " dim " << dim;
                    ASSERT_TRUE(same_output(d2_expected, d2)) << name_of(pattern) << " dim " << dim;
                    ASSERT_TRUE(same_output(labels_expected, labels)) << name_of(pattern) << " dim " << dim;
                }
                scalar->weighted_distance(x.data(), w.data(), ld, points, dim, c.data(), ldc, labels.data(), d2_expected.data());
                simd->weighted_distance(x.data(), w.data(), ld, points, dim, c.data(), ldc, labels.data(), d2.data());
                ASSERT_TRUE(same_output(d2_expected, d2)) << name_of(pattern) << " dim " << dim;
            }
}

TEST_P(Seed, HalfNorms)
{
    for (uint32_t dim : seed_dims)
        for (Pattern pattern : all_patterns) {
            const size_t count = 32 * (1 + below(random, 9)), ldc = count + 32;
            Aligned<float> c(ldc * dim);
            fill(random, pattern, c.data(), c.size());
            Output<float> expected(count), actual(count);
            scalar->half_norms(c.data(), ldc, count, dim, expected.data());
            simd->half_norms(c.data(), ldc, count, dim, actual.data());
            ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << " dim " << dim;
        }
}

TEST_P(Seed, GatherPoints)
{
    for (uint32_t dim : seed_dims)
        for (size_t n : { 1, 7, 16, 33, 100, 131 }) {
            const size_t stride = dim + below(random, 40), items = 200, ld = n + below(random, 9);
            std::vector<float> x((items - 1) * stride + dim); // ends with the last item
            fill_bits(random, x.data(), x.size());
            std::vector<uint32_t> ids(n);
            for (uint32_t &id : ids) id = static_cast<uint32_t>(below(random, items));
            ids[n - 1] = items - 1;
            Output<float> expected(dim * ld), actual(dim * ld);
            for (size_t i = 0; i < dim * ld; i++) expected[i] = actual[i] = 3.0f; // between the components nothing is written
            scalar->gather_points(x.data(), ids.data(), n, stride, dim, expected.data(), ld);
            simd->gather_points(x.data(), ids.data(), n, stride, dim, actual.data(), ld);
            ASSERT_TRUE(same_output(expected, actual)) << "dim " << dim << ", " << n << " points";
        }
}

TEST_P(Seed, ScalePoints)
{
    for (Pattern pattern : all_patterns)
        for (size_t n : { 1, 7, 8, 9, 100 })
            for (double scale : { 1.0, 0x1p-130, 0x1p100, 0x1p60 })
                for (double mean : { 0.0, 0.3, -1e30 }) {
                    Output<float> expected(n), actual(n);
                    fill(random, pattern, expected.data(), n);
                    std::memcpy(actual.data(), expected.data(), n * sizeof(float));
                    scalar->scale_points(expected.data(), n, mean, scale);
                    simd->scale_points(actual.data(), n, mean, scale);
                    ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << " scale " << scale << " mean " << mean;
                    for (size_t i = 0; i < n; i++) ASSERT_LE(std::fabs(expected[i]), QEM_CLAMP);
                }
}

TEST_P(Seed, SumPoints)
{
    for (uint32_t dim : seed_dims)
        for (size_t n : { 1, 7, 8, 9, 100, 131 }) {
            const size_t k = 1 + below(random, 20), width = dim + below(random, 2), ld = n + below(random, 9);
            std::vector<float> x(ld * dim);
            std::vector<uint32_t> labels(n);
            fill(random, Pattern::normal, x.data(), x.size());
            for (float &v : x) v = std::max(-2.0f, std::min(2.0f, v));
            for (uint32_t &label : labels) label = static_cast<uint32_t>(below(random, k));
            Output<int64_t> expected(k * width), actual(k * width);
            for (size_t i = 0; i < k * width; i++) expected[i] = actual[i] = static_cast<int64_t>(i) - 5;
            for (const qem_cpu_kernels *kernels : { scalar, simd })
                kernels->sum_points(x.data(), ld, n, dim, labels.data(), 0x1p50, (kernels == scalar ? expected : actual).data(),
                                    width);
            ASSERT_TRUE(same_output(expected, actual)) << "dim " << dim << ", " << n << " points";
        }
}

// Every magnitude that the fixed point reaches, below 2^62, with halves that tie to even.
TEST_P(Seed, FixedSum)
{
    for (int exponent = -40; exponent <= 61; exponent++)
        for (int round = 0; round < 20; round++) {
            Aligned<float> d2(64, 0.0f);
            const bool one = round % 2; // one alone shows an error of the last bit that others may cancel
            for (size_t i = 0; i < (one ? 1 : d2.size()); i++)
                d2[i] = std::min(1.0f + static_cast<float>(below(random, 1 << 23)) * 0x1p-23f, one ? 1.99f : 1.0f + 0x1p-6f);
            const double scale = std::ldexp(1.0, exponent - (one ? 0 : 6));
            ASSERT_EQ(scalar->fixed_sum(d2.data(), d2.size(), scale), simd->fixed_sum(d2.data(), d2.size(), scale))
                << "exponent " << exponent;
        }
    Aligned<float> halves(192);
    for (size_t i = 0; i < halves.size(); i++) halves[i] = static_cast<float>(i) * 0.5f;
    for (double scale : { 1.0, 0.5, 3.0, 0x1p31, 0x1p32, 0x1p33 + 1.0, 0x1p50, 0x1p51, 0x1.8p51, 0x1.23456789abcdep40 }) {
        if (scale < 0x1p40) {
            ASSERT_EQ(scalar->fixed_sum(halves.data(), halves.size(), scale),
                      simd->fixed_sum(halves.data(), halves.size(), scale));
        }
        for (size_t i = 0; i < 64; i++) {
            Aligned<float> alone(64, 0.0f);
            alone[i] = halves[2 * i + 1];
            ASSERT_EQ(std::llrint(static_cast<double>(alone[i]) * scale), simd->fixed_sum(alone.data(), 64, scale));
        }
    }
}

QEM_KERNEL_TESTS(Seed);

} // namespace
