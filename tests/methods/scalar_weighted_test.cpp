// Weighted Lloyd-Max and the passes it is made of, against plain sums and an exact search.
#include <gtest/gtest.h>

#include <map>

#include "fit_case.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

constexpr int kWeightKinds = 5;
std::vector<float> any_weights(int kind, uint64_t count, uint64_t seed)
{
    std::vector<float> w(count);
    Random random(seed);
    for (float &value : w) {
        const double u = random.unit();
        switch (kind) {
        case 0: value = static_cast<float>(0.1 + u); break;
        case 1: value = random.below(3) ? static_cast<float>(u) : 0.0f; break;
        case 2: value = static_cast<float>(std::exp2(100.0 * u - 50.0)); break; // a ratio of 1e30
        case 3: value = static_cast<float>(u * 1e-41); break;
        default: value = static_cast<float>(3e38 * u); break;
        }
    }
    return w;
}

double error_of(const Matrix &m, const std::vector<float> &w, const ScalarFit &f)
{
    double sum = 0.0;
    for (size_t i = 0; i < m.x.size(); i++) {
        const double d = static_cast<double>(m.x[i]) - f.codebook[f.labels[i]];
        sum += static_cast<double>(w[i]) * d * d;
    }
    return sum;
}

// ---- passes over all elements ----

TEST(ScalarWeighted, SumsAreThoseOfTheDefinition)
{
    for (int matrix : { 0, 1, 2, 6, 7 })
        for (int kind = 0; kind < kWeightKinds; kind++) {
            SCOPED_TRACE("matrix " + std::to_string(matrix) + ", weights " + std::to_string(kind));
            const Matrix m = any_matrix(matrix, 331, 211, 2); // more than one piece
            const uint64_t count = m.x.size();
            const std::vector<float> w = any_weights(kind, count, 3);
            const double center = m.x[0];
            const double heavy = *std::max_element(w.begin(), w.end());
            double reach = 0.0;
            for (float x : m.x) reach = std::max(reach, std::fabs(x - center));
            const int weight_shift = 62 - 17 - std::ilogb(heavy) - 1, shift = 62 - 17 - std::ilogb(heavy * reach) - 1;
            std::vector<float> thresholds = { m.x[5], m.x[6], m.x[7], m.x[8] };
            std::sort(thresholds.begin(), thresholds.end());
            std::vector<uint64_t> expected_weights(5), expected_bins(65536);
            std::vector<int64_t> expected_sums(5);
            for (uint64_t i = 0; i < count; i++) {
                const auto code = std::upper_bound(thresholds.begin(), thresholds.end(), m.x[i]) - thresholds.begin();
                const double product = static_cast<double>(w[i]) * (m.x[i] - center);
                const uint64_t weight = static_cast<uint64_t>(std::llrint(std::ldexp(w[i], weight_shift)));
                expected_weights[static_cast<size_t>(code)] += weight;
                expected_sums[static_cast<size_t>(code)] += std::llrint(std::ldexp(product, shift));
                const float d = static_cast<float>(m.x[i] - center);
                uint32_t key;
                std::memcpy(&key, &d, sizeof key);
                key = key >> 31 ? ~key : key | 0x80000000u;
                expected_bins[key >> 16] += weight;
            }
            for (qem_isa isa : available_isas())
                for (uint32_t threads : { 1, 3 }) {
                    const Context other(with_threads(threads, isa));
                    std::vector<uint64_t> weights(5, 7), bins(65536, 7);
                    std::vector<int64_t> sums(5, 7);
                    other.must(qem_cpu_backend.scalar_weighted_step(other, m.x.data(), w.data(), count, thresholds.data(), 5, center,
                                                                    weight_shift, shift, weights.data(), sums.data()));
                    other.must(qem_cpu_backend.scalar_weighted_histogram(other, m.x.data(), w.data(), count, center, weight_shift,
                                                                         bins.data()));
                    ASSERT_EQ(weights, expected_weights);
                    ASSERT_EQ(sums, expected_sums);
                    ASSERT_EQ(bins, expected_bins);
                }
        }
}

TEST(ScalarWeighted, MomentsAreSumsAndTheSameForEveryThreadCount)
{
    for (uint64_t rows : { 1, 63, 300 }) {
        const Matrix m = gaussian(rows, 65, 4, 2.0, 3.0);
        const std::vector<float> w = any_weights(0, m.x.size(), 3);
        long double expected[3] = { 0, 0, 0 };
        for (size_t i = 0; i < m.x.size(); i++) {
            const long double d = static_cast<long double>(m.x[i]) - 2.5L;
            expected[0] += w[i];
            expected[1] += w[i] * d;
            expected[2] += w[i] * d * d;
        }
        double one[3], three[3];
        const Context more(with_threads(3));
        context().must(qem_cpu_backend.weighted_moments(context(), m.x.data(), w.data(), m.x.size(), 2.5, one));
        more.must(qem_cpu_backend.weighted_moments(more, m.x.data(), w.data(), m.x.size(), 2.5, three));
        for (int i = 0; i < 3; i++) {
            EXPECT_EQ(one[i], three[i]);
            EXPECT_NEAR(one[i], static_cast<double>(expected[i]), 1e-10 * static_cast<double>(expected[2]));
        }
    }
}

// ---- lloydmax ----

// Least weighted squared error of k levels, by dynamic programming over the distinct values.
double least_error(const Matrix &m, const std::vector<float> &w, uint64_t k)
{
    std::map<float, long double> weight;
    for (size_t i = 0; i < m.x.size(); i++) weight[m.x[i]] += w[i];
    const std::vector<std::pair<long double, long double>> values(weight.begin(), weight.end());
    const size_t n = values.size();
    std::vector<long double> best(n + 1, INFINITY);
    best[0] = 0;
    for (uint64_t level = 0; level < k; level++) {
        std::vector<long double> next = best;
        for (size_t i = 0; i < n; i++) {
            long double total = 0, mean = 0, error = 0; // of values i .. j-1 (West 1979)
            for (size_t j = i + 1; j <= n; j++) {
                const long double added = values[j - 1].second, d = values[j - 1].first - mean;
                total += added;
                if (added > 0) {
                    mean += d * added / total;
                    error += added * d * (values[j - 1].first - mean);
                }
                next[j] = std::min(next[j], best[i] + error);
            }
        }
        best = next;
    }
    return static_cast<double>(best[n]);
}

TEST(ScalarWeighted, LloydmaxIsOptimalOnFewDistinctValues)
{
    for (int kind = 0; kind < kWeightKinds; kind++)
        for (uint64_t seed = 0; seed < 10; seed++)
            for (uint64_t k = 1; k <= 8; k++) {
                Matrix m = gaussian(10, 20, seed, 1.0, seed % 2 ? 50.0 : 0.0);
                Random random(seed);
                for (size_t i = 14; i < m.x.size(); i++) m.x[i] = m.x[random.below(14)];
                const std::vector<float> w = any_weights(kind, m.x.size(), seed);
                const double heavy = *std::max_element(w.begin(), w.end());
                ScalarFit f(context(), qem_lloydmax_ops, m, k, w.data());
                context().must(f.run());
                ASSERT_LE(error_of(m, w, f), least_error(m, w, k) * 1.0001 + 1e-9 * heavy) << "weights " << kind << ", seed " << seed
                                                                                           << ", k " << k;
            }
}

TEST(ScalarWeighted, LloydmaxBeatsTheCodebookWithoutWeights)
{
    const Matrix m = gaussian(300, 100, 5);
    std::vector<float> w(m.x.size());
    for (size_t i = 0; i < w.size(); i++) w[i] = m.x[i] > 0.5f ? 100.0f : 1.0f;
    for (uint64_t k : { 8, 256, 300, 1000 }) { // by dynamic programming and by companding
        ScalarFit weighted(context(), qem_lloydmax_ops, m, k, w.data()), plain(context(), qem_lloydmax_ops, m, k);
        context().must(weighted.run());
        context().must(plain.run());
        EXPECT_LT(error_of(m, w, weighted), 0.75 * error_of(m, w, plain)) << "k " << k;
        for (size_t i = 0; i < m.x.size(); i++) { // labels are those of the nearest level
            const double own = std::fabs(static_cast<double>(m.x[i]) - weighted.codebook[weighted.labels[i]]);
            const auto at = std::lower_bound(weighted.codebook.begin(), weighted.codebook.end(), m.x[i]);
            const float above = at == weighted.codebook.end() ? *(at - 1) : *at, under = at == weighted.codebook.begin() ? *at : *(at - 1);
            ASSERT_LE(own, std::fabs(static_cast<double>(m.x[i]) - above));
            ASSERT_LE(own, std::fabs(static_cast<double>(m.x[i]) - under));
        }
    }
}

TEST(ScalarWeighted, WeightsThatAreAllTheSameChangeNothing)
{
    for (float value : { 0.0f, 1.0f, 3.7f, 1e-42f, 3e38f })
        for (uint64_t k : { 5, 300 }) {
            const Matrix m = heavy_tails(120, 100, 3);
            const std::vector<float> w(m.x.size(), value);
            ScalarFit weighted(context(), qem_lloydmax_ops, m, k, w.data()), plain(context(), qem_lloydmax_ops, m, k);
            context().must(weighted.run());
            context().must(plain.run());
            EXPECT_EQ(weighted.codebook, plain.codebook);
            EXPECT_EQ(weighted.labels, plain.labels);
        }
}

TEST(ScalarWeighted, LloydmaxGivesTheSameBitsEverywhere)
{
    for (int matrix = 0; matrix < kKinds; matrix++)
        for (int kind = 0; kind < kWeightKinds; kind++)
            for (uint64_t k : { 7, 300 }) {
                const Matrix m = any_matrix(matrix, 173, 97, 2);
                const std::vector<float> w = any_weights(kind, m.x.size(), 9);
                const Context scalar(with_threads(1, QEM_ISA_SCALAR));
                ScalarFit expected(scalar, qem_lloydmax_ops, m, k, w.data());
                scalar.must(expected.run());
                for (uint64_t j = 0; j + 1 < expected.fit.k; j++) ASSERT_LE(expected.codebook[j], expected.codebook[j + 1]);
                const Context other(with_threads(3));
                ScalarFit actual(other, qem_lloydmax_ops, m, k, w.data());
                other.must(actual.run());
                ASSERT_EQ(actual.codebook, expected.codebook) << "matrix " << matrix << ", weights " << kind;
                ASSERT_EQ(actual.labels, expected.labels);
            }
}

// Elements without weight far from the others attract no level; as many levels as values are exact all the same.
TEST(ScalarWeighted, ElementsWithoutWeightAttractNoLevel)
{
    Matrix m = gaussian(200, 100, 5);
    std::vector<float> w(m.x.size(), 1.0f);
    w[1] = 2.0f;
    for (size_t i = 0; i < m.x.size(); i += 10) {
        m.x[i] = 1000.0f + static_cast<float>(i % 3);
        w[i] = 0.0f;
    }
    for (uint64_t k : { 4, 64, 400 }) {
        ScalarFit f(context(), qem_lloydmax_ops, m, k, w.data());
        context().must(f.run());
        for (float level : f.codebook) EXPECT_LT(level, 10.0f) << "k " << k;
    }
    const Matrix few = integers(20, 10, 3, 7);
    std::vector<float> light(few.x.size(), 0.0f);
    light[3] = 1.0f;
    ScalarFit f(context(), qem_lloydmax_ops, few, 7, light.data());
    context().must(f.run());
    for (size_t i = 0; i < few.x.size(); i++) ASSERT_EQ(f.codebook[f.labels[i]], few.x[i]);
}

} // namespace
