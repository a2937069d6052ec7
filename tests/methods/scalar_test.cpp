// Scalar codebooks: rtn by its definition, lloydmax against an exact search.
#include <gtest/gtest.h>

#include <map>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

// Distance of x to the nearest level; the level that a tie upward gives.
void expect_nearest_level(const std::vector<float> &levels, float x, float chosen)
{
    double least = INFINITY;
    float best = 0.0f;
    for (float level : levels) {
        const double d = std::fabs(static_cast<double>(x) - level);
        if (d < least || (d == least && level > best)) best = level;
        least = std::min(least, d);
    }
    ASSERT_EQ(chosen, best) << "x = " << x;
}

TEST(Rtn, IsTheGridOfItsDefinition)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint64_t k : { 1, 2, 4, 16, 256 }) {
            const Matrix m = any_matrix(kind, 37, 11, 5);
            SCOPED_TRACE("kind " + std::to_string(kind) + ", k " + std::to_string(k));
            const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_RTN, k));
            const auto parts = parts_of(artifact);
            const auto range = std::minmax_element(m.x.begin(), m.x.end());
            float scale, mean;
            std::memcpy(&scale, parts.at("scale").data(), sizeof scale);
            std::memcpy(&mean, parts.at("mean").data(), sizeof mean);
            EXPECT_EQ(mean, *range.first);
            EXPECT_EQ(scale, k == 1 ? 0.0f
                                    : static_cast<float>((static_cast<double>(*range.second) - *range.first) /
                                                         static_cast<double>(k - 1)));
            const Unpacked u = unpack(artifact);
            const std::vector<float> decoded = decode(context(), artifact);
            for (size_t i = 0; i < m.x.size(); i++) expect_nearest_level(u.codebook, m.x[i], decoded[i]);
            if (HasFatalFailure()) return;
        }
}

TEST(Rtn, TiesGoUp)
{
    Matrix m(1, 8);
    m.x = { 0.0f, 0.5f, 1.5f, 2.5f, 3.0f, -0.0f, 1.0f, 0.49999997f };
    const Unpacked u = unpack(quantize(context(), m.view(), recipe_k(QEM_METHOD_RTN, 4)));
    EXPECT_EQ(u.codes, std::vector<uint32_t>({ 0, 1, 2, 3, 3, 0, 1, 0 }));
}

// Levels so close that their middle is no float: the code is still the nearest level.
TEST(Rtn, IsNearestWhereTheMiddleOfTwoLevelsIsNoFloat)
{
    Random random(1);
    for (int round = 0; round < 200; round++) {
        Matrix m(4, 16);
        for (float &x : m.x) x = 16777216.0f + 2.0f * static_cast<float>(random.below(40));
        const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_RTN, 8));
        const Unpacked u = unpack(artifact);
        const std::vector<float> decoded = decode(context(), artifact);
        for (size_t i = 0; i < m.x.size(); i++) {
            double least = INFINITY;
            for (float level : u.codebook) least = std::min(least, std::fabs(static_cast<double>(m.x[i]) - level));
            ASSERT_EQ(std::fabs(static_cast<double>(m.x[i]) - decoded[i]), least)
                << "round " << round << ", x " << m.x[i];
        }
    }
}

TEST(Rtn, ConstantMatrixIsExact)
{
    for (float value : { 0.0f, -3.25f, 0.1f, 1e-42f, 3e38f }) {
        const Matrix m(7, 5, value);
        const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_RTN, 16));
        EXPECT_EQ(decode(context(), artifact), m.x);
        const qem_artifact_info info = query(artifact);
        EXPECT_EQ(info.metrics.mse, 0.0);
        EXPECT_TRUE(std::isnan(info.metrics.nmse));
    }
}

TEST(Rtn, RangeBeyondF32IsRefused)
{
    Matrix m(1, 3);
    m.x = { -3.4e38f, 0.0f, 3.4e38f };
    qem_artifact *artifact = nullptr;
    const qem_view view = m.view();
    const qem_recipe recipe = recipe_k(QEM_METHOD_RTN, 2);
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_RANGE);
    EXPECT_EQ(artifact, nullptr);
    const qem_recipe finer = recipe_k(QEM_METHOD_RTN, 4); // this step does fit
    context().must(qem_quantize(context(), &view, nullptr, &finer, &artifact));
    qem_artifact_destroy(&artifact);
}

// ---- lloydmax ----

// Least sum of squared errors of k levels, by dynamic programming over the sorted distinct values.
double least_error(const std::vector<float> &x, uint64_t k)
{
    std::map<float, double> weight;
    for (float value : x) weight[value] += 1.0;
    std::vector<std::pair<long double, long double>> values(weight.begin(), weight.end());
    const size_t n = values.size();
    const auto cost = [&](size_t i, size_t j) { // of values i .. j-1
        long double count = 0, sum = 0, error = 0;
        for (size_t v = i; v < j; v++) {
            count += values[v].second;
            sum += values[v].second * values[v].first;
        }
        for (size_t v = i; v < j; v++)
            error += values[v].second * (values[v].first - sum / count) * (values[v].first - sum / count);
        return error;
    };
    std::vector<long double> best(n + 1, INFINITY);
    best[0] = 0;
    for (uint64_t level = 0; level < k; level++) {
        std::vector<long double> next = best;
        for (size_t j = 1; j <= n; j++)
            for (size_t i = 0; i < j; i++) next[j] = std::min(next[j], best[i] + cost(i, j));
        best = next;
    }
    return static_cast<double>(best[n]);
}

double squared_error(const Matrix &m, uint64_t k)
{
    return query(quantize(context(), m.view(), recipe_k(QEM_METHOD_LLOYDMAX, k))).metrics.mse *
           static_cast<double>(m.x.size());
}

Matrix from_few_values(uint64_t distinct, uint64_t seed, double scale, double offset)
{
    const Matrix values = gaussian(1, distinct, seed, scale, offset);
    Matrix m(20, 10);
    Random random(seed);
    for (size_t i = 0; i < m.x.size(); i++) m.x[i] = values.x[i < distinct ? i : random.below(distinct)];
    return m;
}

TEST(Lloydmax, IsOptimalOnFewDistinctValues)
{
    for (uint64_t seed = 0; seed < 40; seed++)
        for (uint64_t k = 1; k <= 8; k++) {
            const Matrix m = from_few_values(12, seed, 1.0, seed % 2 ? 100.0 : 0.0);
            const double best = least_error(m.x, k);
            ASSERT_LE(squared_error(m, k), best * 1.0001 + 1e-9) << "seed " << seed << ", k " << k;
        }
}

TEST(Lloydmax, IsOptimalOnIntegersAndTails)
{
    for (uint64_t k = 1; k <= 8; k++) {
        const Matrix a = integers(30, 10, k, 15), b = heavy_tails(10, 6, k);
        EXPECT_LE(squared_error(a, k), least_error(a.x, k) * 1.0001 + 1e-9) << "k " << k;
        EXPECT_LE(squared_error(b, k), least_error(b.x, k) * 1.005) << "k " << k;
    }
}

TEST(Lloydmax, AsManyLevelsAsValuesIsExact)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        const Matrix m = from_few_values(12, seed, 1.0, 0.0);
        ASSERT_EQ(squared_error(m, 12), 0.0) << "seed " << seed;
        const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 100));
        ASSERT_EQ(query(artifact).k, 12u);
    }
}

TEST(Lloydmax, NeighbouringFloatsAreKeptApart)
{
    Matrix two(1, 4);
    two.x = { 1.0f, std::nextafter(1.0f, 2.0f), 1.0f, 1.0f };
    EXPECT_EQ(squared_error(two, 2), 0.0);
    // values in one bin of the histogram, far from the mean
    Matrix m(1, 9);
    m.x = { -50.0f,  100.0f, std::nextafter(100.0f, 101.0f), std::nextafter(100.0f, 99.0f), 0.0f, 1.0f, -50.0f,
            100.01f, 99.99f };
    EXPECT_EQ(squared_error(m, 8), 0.0);
}

// The distortions that Max (1960) and Lloyd (1982) give for the normal distribution.
TEST(Lloydmax, MeetsTheKnownDistortionsOfTheNormal)
{
    const Matrix m = gaussian(2000, 100, 9);
    const std::map<uint64_t, double> known = { { 1, 1.0 },     { 2, 0.3634 },    { 4, 0.1175 },
                                               { 8, 0.03454 }, { 16, 0.009497 }, { 32, 0.002499 } };
    for (const auto &entry : known) {
        const double mse = query(quantize(context(), m.view(), recipe_k(QEM_METHOD_LLOYDMAX, entry.first))).metrics.mse;
        EXPECT_NEAR(mse, entry.second, 0.015 * entry.second) << "k " << entry.first;
    }
    for (uint64_t k : { 256, 257, 1024 }) { // Panter and Dite: sqrt(3) pi / (2 k^2) at high rate
        const double mse = query(quantize(context(), m.view(), recipe_k(QEM_METHOD_LLOYDMAX, k))).metrics.mse;
        EXPECT_LT(mse, 1.05 * 2.7207 / static_cast<double>(k * k)) << "k " << k;
    }
}

TEST(Lloydmax, CodesAreNearestAndLevelsAscend)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (qem_dtype stored : { QEM_DTYPE_F32, QEM_DTYPE_F16 }) {
            if (kind == 7 && stored == QEM_DTYPE_F16) continue; // 1e37 is beyond f16
            const Matrix m = any_matrix(kind, 40, 9, 3);
            SCOPED_TRACE("kind " + std::to_string(kind));
            qem_recipe recipe = recipe_k(QEM_METHOD_LLOYDMAX, 13);
            if (kind == 8 && stored == QEM_DTYPE_F16) continue; // as above: 1e5
            recipe.codebook = stored;
            const Artifact artifact = quantize(context(), m.view(), recipe);
            const Unpacked u = unpack(artifact);
            EXPECT_TRUE(std::is_sorted(u.codebook.begin(), u.codebook.end()));
            const std::vector<float> decoded = decode(context(), artifact);
            for (size_t i = 0; i < m.x.size(); i++) expect_nearest_level(u.codebook, m.x[i], decoded[i]);
            if (HasFatalFailure()) return;
        }
}

} // namespace
