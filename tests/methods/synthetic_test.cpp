// The tables of mean squared errors on the papers' synthetic data: 1024 x 128, seeds 0..3, defaults, honest bytes, s
// = 4.
#include <gtest/gtest.h>

#include <map>

#include "support/context.h"
#include "support/matrices.h"

using namespace qem_test;

namespace {

constexpr uint64_t kRows = 1024, kCols = 128, kSeeds = 4;
constexpr double kSlack = 1.03; // k-means++ depends on luck; the tables are means over four seeds

const std::map<int, double> kPq = { { 2, 6.0e-4 },   { 4, 1.66e-3 },  { 6, 2.55e-3 },  { 8, 3.50e-3 },
                                    { 10, 4.19e-3 }, { 12, 5.21e-3 }, { 14, 5.64e-3 }, { 16, 6.58e-3 } };
const std::map<int, double> kHyperchr3 = { { 2, 1.49e-4 },  { 4, 4.4e-4 },   { 6, 7.5e-4 },  { 8, 1.13e-3 },
                                           { 10, 1.58e-3 }, { 12, 2.11e-3 }, { 14, 2.99e-3 } };
const std::map<int, double> kQet = { { 2, 4.38e-4 },  { 4, 1.23e-3 },  { 6, 1.94e-3 },  { 8, 2.57e-3 },
                                     { 10, 3.49e-3 }, { 12, 4.07e-3 }, { 14, 5.37e-3 }, { 16, 5.56e-3 } };

// Mean over the seeds of the total MSE, outliers included; checks the budget on the way.
double mean_mse(const qem_recipe &recipe)
{
    double sum = 0.0;
    for (uint64_t seed = 0; seed < kSeeds; seed++) {
        const Context context(with_seed(seed));
        Matrix m(kRows, kCols);
        context.must(qem_generate_synthetic(context, kRows, kCols, 1e-4, m.x.data()));
        const Artifact artifact = quantize(context, m.view(), recipe);
        const qem_artifact_info info = query(artifact);
        EXPECT_LE(8.0 * static_cast<double>(info.stored_bytes), 32.0 * kRows * kCols / recipe.ratio);
        EXPECT_EQ(info.dim, 4u);
        sum += info.metrics.mse;
    }
    return sum / kSeeds;
}

class Synthetic : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Theta, Synthetic, ::testing::Values(2, 4, 6, 8, 10, 12, 14, 16));

TEST_P(Synthetic, PqMeetsTable)
{
    const double mse = mean_mse(recipe_ratio(QEM_METHOD_PQ, GetParam()));
    RecordProperty("mse", std::to_string(mse));
    EXPECT_LE(mse, kSlack * kPq.at(GetParam()));
}

TEST_P(Synthetic, QetMeetsTable)
{
    const double mse = mean_mse(recipe_ratio(QEM_METHOD_QET, GetParam()));
    EXPECT_LE(mse, kSlack * kQet.at(GetParam()));
}

// The default number of intervals may never lose against three; where three leave a cell one or two centroids the
// published method falls apart (2e-1 at theta 16), and the default has to stay below pq there.
TEST_P(Synthetic, HyperchrMeetsTable)
{
    const double by_default = mean_mse(recipe_ratio(QEM_METHOD_HYPERCHR, GetParam()));
    if (GetParam() == 16) {
        EXPECT_LT(by_default, kPq.at(16));
        return;
    }
    qem_recipe three = recipe_ratio(QEM_METHOD_HYPERCHR, GetParam());
    three.intervals = 3;
    EXPECT_LE(by_default, kSlack * kHyperchr3.at(GetParam()));
    EXPECT_LE(mean_mse(three), kSlack * kHyperchr3.at(GetParam()));
}

// The data themselves: truncated to [0,1] except for the outliers, of which there is an exact number.
TEST(SyntheticData, HasItsDistribution)
{
    const Context context(with_seed(3));
    Matrix m(kRows, kCols);
    for (double rate : { 0.0, 1e-4, 0.3, 0.9, 1.0 }) {
        context.must(qem_generate_synthetic(context, kRows, kCols, rate, m.x.data()));
        uint64_t outside = 0, inside = 0;
        double sum = 0.0, squared = 0.0;
        for (float x : m.x) {
            ASSERT_TRUE(x >= -100.0f && x <= 100.0f);
            if (x < 0.0f || x > 1.0f) {
                outside++;
                continue;
            }
            inside++;
            sum += x;
            squared += (x - 0.5) * (x - 0.5);
        }
        const double outliers = std::round(kRows * kCols * rate);
        EXPECT_LE(static_cast<double>(outside), outliers);
        EXPECT_GE(static_cast<double>(outside), 0.98 * outliers - 3.0); // one in 200 outliers falls into [0,1]
        if (rate <= 0.3) {
            EXPECT_NEAR(sum / static_cast<double>(inside), 0.5, 0.002);
            EXPECT_NEAR(std::sqrt(squared / static_cast<double>(inside)), 0.1595,
                        0.002); // 0.16 less what truncation takes
        }
    }
}

TEST(SyntheticData, FollowsTheSeedAlone)
{
    Matrix a(64, 8), b(64, 8), c(64, 8);
    const Context one(with_seed(7)), other(with_seed(8));
    Options options = with_seed(7);
    options.threads = 3;
    options.isa = QEM_ISA_SCALAR;
    const Context same(options);
    one.must(qem_generate_synthetic(one, 64, 8, 0.01, a.x.data()));
    same.must(qem_generate_synthetic(same, 64, 8, 0.01, b.x.data()));
    other.must(qem_generate_synthetic(other, 64, 8, 0.01, c.x.data()));
    EXPECT_EQ(a.x, b.x);
    EXPECT_NE(a.x, c.x);
}

} // namespace
