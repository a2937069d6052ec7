// qem_kmeans against direct computations of what it promises.
#include <gtest/gtest.h>

#include <set>

#include "support/reference.h"

using namespace qem_test;

namespace {

struct Result {
    std::vector<float> centroids;
    std::vector<uint32_t> labels;
    uint64_t used = 0;
    double objective = 0.0;
};

Result kmeans(const Context &context, const Matrix &m, uint64_t k, const qem_kmeans_params &params)
{
    Result r;
    r.centroids.assign(k * m.cols + 1, 9.0f);
    r.labels.assign(m.rows + 1, 999);
    const qem_view view = m.view();
    context.must(qem_kmeans(context, &view, k, &params, r.centroids.data(), r.labels.data(), &r.used, &r.objective));
    EXPECT_EQ(r.centroids.back(), 9.0f);
    EXPECT_EQ(r.labels.back(), 999u);
    r.centroids.pop_back();
    r.labels.pop_back();
    return r;
}

Result kmeans(const Matrix &m, uint64_t k, uint64_t seed = 0)
{
    const qem_kmeans_params params = QEM_KMEANS_PARAMS_INIT;
    return kmeans(Context(with_seed(seed)), m, k, params);
}

uint64_t distinct_rows(const Matrix &m)
{
    std::set<std::vector<float>> rows;
    for (uint64_t i = 0; i < m.rows; i++) {
        std::vector<float> row;
        for (uint64_t j = 0; j < m.cols; j++) row.push_back(m.at(i, j) + 0.0f);
        rows.insert(row);
    }
    return rows.size();
}

// What is true of every result: nearest labels, the objective is the sum of the distances, unused entries repeat
// the first.
void check(const Matrix &m, uint64_t k, const Result &r)
{
    const uint32_t dim = static_cast<uint32_t>(m.cols);
    double radius = 0.0; // of the points about their mean
    for (uint64_t j = 0; j < m.cols; j++) {
        double sum = 0.0;
        for (uint64_t i = 0; i < m.rows; i++) sum += m.at(i, j);
        for (uint64_t i = 0; i < m.rows; i++)
            radius = std::max(radius, std::fabs(m.at(i, j) - sum / static_cast<double>(m.rows)));
    }
    const double slack = 2e-6 * dim * radius * radius; // rounding of an f32 score of centred points
    ASSERT_EQ(r.used, std::min(k, distinct_rows(m)));
    double sum = 0.0;
    for (uint64_t i = 0; i < m.rows; i++) {
        ASSERT_LT(r.labels[i], r.used);
        const double own = distance(&m.x[i * dim], &r.centroids[r.labels[i] * dim], dim);
        ASSERT_LE(own, least_distance(&m.x[i * dim], r.centroids.data(), r.used, dim, dim) + slack);
        sum += own;
    }
    // rounding of the stored centroids can add as much as the square of their last digit
    double largest = 0.0;
    for (float x : m.x) largest = std::max(largest, std::fabs(static_cast<double>(x)));
    ASSERT_NEAR(r.objective, sum, 1e-5 * sum + static_cast<double>(m.x.size()) * std::pow(2e-7 * largest, 2.0));
    for (uint64_t at = r.used * dim; at < r.centroids.size(); at++) ASSERT_EQ(r.centroids[at], r.centroids[at % dim]);
}

TEST(Kmeans, LabelsAndObjectiveOnEveryKindOfMatrix)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint64_t dim : { 1, 2, 3, 4, 8, 19 })
            for (uint64_t k : { 1, 2, 7, 16, 33 })
                for (uint64_t n : { 33, 200 }) {
                    SCOPED_TRACE("kind " + std::to_string(kind) + ", " + std::to_string(n) + " x " +
                                 std::to_string(dim) + ", k " + std::to_string(k));
                    const Matrix m = any_matrix(kind, n, dim, dim);
                    check(m, k, kmeans(m, k));
                    if (HasFatalFailure()) return;
                }
}

TEST(Kmeans, OneCentroidIsTheMean)
{
    for (double offset : { 0.0, 1e4, -3e7 }) {
        const Matrix m = gaussian(1000, 3, 1, 1.0, offset);
        const Result r = kmeans(m, 1);
        for (uint64_t j = 0; j < 3; j++) {
            double sum = 0.0;
            for (uint64_t i = 0; i < m.rows; i++) sum += m.at(i, j);
            EXPECT_NEAR(r.centroids[j], sum / 1000.0, 1e-6 + 1e-7 * std::fabs(offset));
        }
    }
}

TEST(Kmeans, AsManyCentroidsAsPointsLeaveNoError)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        const Matrix m = gaussian(64, 4, seed);
        const Result r = kmeans(m, 64, seed);
        EXPECT_EQ(r.used, 64u);
        EXPECT_LT(r.objective, 1e-9);
        EXPECT_EQ(std::set<uint32_t>(r.labels.begin(), r.labels.end()).size(), 64u);
    }
}

TEST(Kmeans, NoClusterIsEmptyWhereThereAreEnoughPoints)
{
    for (uint64_t seed = 0; seed < 60; seed++) {
        // clusters of very different size and density, and outliers: seeds that fall together lose their members
        Matrix m = heavy_tails(300, 2, seed);
        for (uint64_t i = 0; i < 200; i++)
            for (uint64_t j = 0; j < 2; j++) m.at(i, j) = m.at(i, j) * 1e-3f + static_cast<float>(i % 5);
        const uint64_t k = 5 + 5 * (seed % 10);
        const Result r = kmeans(m, k, seed);
        ASSERT_EQ(r.used, k);
        ASSERT_EQ(std::set<uint32_t>(r.labels.begin(), r.labels.end()).size(), k) << "seed " << seed << ", k " << k;
    }
}

// Cases found by search in which a cluster does lose all its points on the way and would stay empty.
TEST(Kmeans, ClustersThatLoseTheirPointsGetNewOnes)
{
    struct {
        int kind;
        uint64_t n, dim, seed, k;
    } const cases[] = { { 0, 100, 1, 84, 36 },   { 0, 100, 1, 1597, 49 }, { 0, 100, 1, 2529, 31 },
                        { 1, 40, 1, 2059, 21 },  { 1, 100, 1, 1366, 18 }, { 1, 100, 2, 580, 32 },
                        { 1, 100, 2, 1343, 45 }, { 1, 100, 2, 2347, 49 } };
    for (const auto &c : cases) {
        const Result r = kmeans(any_matrix(c.kind, c.n, c.dim, c.seed), c.k, c.seed);
        ASSERT_EQ(r.used, c.k);
        EXPECT_EQ(std::set<uint32_t>(r.labels.begin(), r.labels.end()).size(), c.k) << "seed " << c.seed;
    }
}

TEST(Kmeans, FindsSeparatedClusters)
{
    Matrix m(600, 3);
    Random random(1);
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < 3; j++)
            m.at(i, j) = static_cast<float>(100.0 * static_cast<double>((i % 6) * (j + 1) % 7) + random.normal());
    qem_kmeans_params params = QEM_KMEANS_PARAMS_INIT;
    params.restarts = 5;
    const Context context;
    const Result r = kmeans(context, m, 6, params);
    for (uint64_t i = 6; i < m.rows; i++) ASSERT_EQ(r.labels[i], r.labels[i % 6]);
    EXPECT_LT(r.objective, 600 * 3 * 1.2);
}

TEST(Kmeans, KnobsDoWhatTheySay)
{
    const Matrix m = gaussian(500, 4, 1);
    const Context context;
    qem_kmeans_params params = QEM_KMEANS_PARAMS_INIT;
    params.iterations = 0;
    const Result seeds = kmeans(context, m, 20, params);
    check(m, 20, seeds);
    for (uint64_t c = 0; c < 20; c++) { // seeds are points
        double least = INFINITY;
        for (uint64_t i = 0; i < m.rows; i++)
            least = std::min(least, distance(&m.x[i * 4], &seeds.centroids[c * 4], 4));
        EXPECT_LT(least, 1e-12);
    }
    double before = seeds.objective;
    for (uint32_t iterations : { 1, 2, 5, 20, 300 }) {
        params.iterations = iterations;
        const double now = kmeans(context, m, 20, params).objective;
        EXPECT_LE(now, before * (1 + 1e-6)) << iterations;
        before = now;
    }
    double best = before;
    for (uint32_t restarts : { 2, 3, 10 }) {
        params.restarts = restarts;
        const Result r = kmeans(context, m, 20, params);
        check(m, 20, r);
        EXPECT_LE(r.objective, best) << restarts;
        best = r.objective;
    }
    params = QEM_KMEANS_PARAMS_INIT;
    const Result a = kmeans(context, m, 20, params);
    params.problem = 1;
    EXPECT_NE(kmeans(context, m, 20, params).centroids, a.centroids) << "another problem draws other seeds";
    params.problem = 0;
    EXPECT_EQ(kmeans(context, m, 20, params).centroids, a.centroids);
    EXPECT_NE(kmeans(m, 20, 99).centroids, a.centroids) << "so does another seed";
}

// A fixed point: after many passes every centroid is the mean of its members.
TEST(Kmeans, ConvergesToMeans)
{
    const Matrix m = gaussian(300, 3, 5);
    qem_kmeans_params params = QEM_KMEANS_PARAMS_INIT;
    params.iterations = 1000;
    const Context context;
    const Result r = kmeans(context, m, 8, params);
    for (uint32_t c = 0; c < 8; c++)
        for (uint64_t j = 0; j < 3; j++) {
            double sum = 0.0, count = 0.0;
            for (uint64_t i = 0; i < m.rows; i++)
                if (r.labels[i] == c) {
                    sum += m.at(i, j);
                    count += 1.0;
                }
            EXPECT_NEAR(r.centroids[c * 3 + j], sum / count, 1e-6);
        }
}

TEST(Kmeans, OptionalOutputsMayBeNull)
{
    const Matrix m = gaussian(50, 2, 1);
    const Context context;
    const qem_view view = m.view();
    std::vector<float> centroids(8);
    context.must(qem_kmeans(context, &view, 4, nullptr, centroids.data(), nullptr, nullptr, nullptr));
    EXPECT_EQ(centroids, kmeans(m, 4).centroids);
}

} // namespace
