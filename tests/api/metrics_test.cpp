// Metrics of examples small enough to compute by hand.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

qem_metrics evaluate(const std::vector<float> &x, const std::vector<float> &y)
{
    const Context context;
    Matrix a(1, x.size()), b(1, y.size());
    a.x = x;
    b.x = y;
    const qem_view original = a.view(), decoded = b.view();
    qem_metrics metrics = QEM_METRICS_INIT;
    context.must(qem_evaluate_matrix(context, &original, &decoded, &metrics));
    EXPECT_EQ(metrics.count, x.size());
    EXPECT_EQ(metrics.size, sizeof metrics);
    return metrics;
}

TEST(Metrics, ByHand)
{
    const qem_metrics m = evaluate({ 1.0f, -2.0f, 0.0f, 5.0f }, { 1.5f, -1.0f, 0.25f, 5.0f });
    EXPECT_DOUBLE_EQ(m.mae, (0.5 + 1.0 + 0.25) / 4);
    EXPECT_DOUBLE_EQ(m.mse, (0.25 + 1.0 + 0.0625) / 4);
    EXPECT_DOUBLE_EQ(m.mre, (0.5 + 0.5 + 0.0) / 3) << "x = 0 is left out";
    EXPECT_DOUBLE_EQ(m.nmse, (0.25 + 1.0 + 0.0625) / 26.0) << "the squared distances to the mean 1 sum to 26";
    EXPECT_DOUBLE_EQ(m.max_error, 1.0);
    EXPECT_EQ(m.zeros, 1u);
}

TEST(Metrics, ZerosHaveNoRelativeError)
{
    const qem_metrics m = evaluate({ 0.0f, -0.0f, 0.0f }, { 1.0f, 0.0f, -3.0f });
    EXPECT_EQ(m.zeros, 3u);
    EXPECT_TRUE(std::isnan(m.mre));
    EXPECT_TRUE(std::isnan(m.nmse));
    EXPECT_DOUBLE_EQ(m.mse, 10.0 / 3);
    EXPECT_DOUBLE_EQ(m.max_error, 3.0);
}

TEST(Metrics, ConstantHasNoNormalizedError)
{
    for (float value : { 0.1f, -7.3f, 1e30f, 1e-40f }) {
        const qem_metrics m = evaluate(std::vector<float>(10007, value), std::vector<float>(10007, 0.0f));
        EXPECT_TRUE(std::isnan(m.nmse)) << value;
        EXPECT_DOUBLE_EQ(m.mre, 1.0);
        EXPECT_NEAR(m.mse, static_cast<double>(value) * value, 1e-12 * static_cast<double>(value) * value);
    }
}

TEST(Metrics, EqualMatricesHaveNoError)
{
    const Matrix m = heavy_tails(1, 5000, 1);
    const qem_metrics e = evaluate(m.x, m.x);
    EXPECT_EQ(e.mae, 0.0);
    EXPECT_EQ(e.mse, 0.0);
    EXPECT_EQ(e.mre, 0.0);
    EXPECT_EQ(e.nmse, 0.0);
    EXPECT_EQ(e.max_error, 0.0);
}

// Accumulated in double: the largest f32 values square without overflow, the smallest without vanishing.
TEST(Metrics, ExtremesOfF32)
{
    const qem_metrics large = evaluate({ 3e38f, -3e38f }, { -3e38f, 3e38f });
    EXPECT_NEAR(large.mse / 3.6e77, 1.0, 1e-6);
    EXPECT_NEAR(large.max_error / 6e38, 1.0, 1e-6);
    const qem_metrics tiny = evaluate({ 1e-45f, -1e-45f }, { 0.0f, 0.0f });
    EXPECT_DOUBLE_EQ(tiny.nmse, 1.0);
    EXPECT_GT(tiny.mse, 0.0);
}

// Longer than the chunks and blocks that the sums are cut into.
TEST(Metrics, LongMatricesAgreeWithALongDoubleSum)
{
    for (uint64_t n : { 1, 7, 8, 9, 4095, 4096, 4097, 100003, 1500000 }) {
        const Matrix x = gaussian(1, n, n, 1.0, 50.0);
        Matrix y = x;
        Random random(n);
        for (float &value : y.x) value += static_cast<float>(0.1 * random.normal());
        const qem_metrics m = evaluate(x.x, y.x);
        const Errors e = errors_of(x.x, y.x);
        EXPECT_NEAR(m.mae, e.mae, 1e-12 * e.mae) << n;
        EXPECT_NEAR(m.mse, e.mse, 1e-12 * e.mse) << n;
        EXPECT_NEAR(m.mre, e.mre, 1e-12 * e.mre) << n;
        EXPECT_EQ(m.max_error, e.max_error) << n;
        if (n > 1) {
            EXPECT_NEAR(m.nmse, e.nmse, 1e-11 * e.nmse) << n;
        }
    }
}

// The metrics of an artifact are summed in blocks of rows: whole matrix, artifact and quantize agree to the last bit.
TEST(Metrics, ArtifactAndMatrixAgreeBitForBit)
{
    const Context context(with_threads(2));
    const Matrix m = gaussian(3000, 700, 3);
    const Artifact artifact = quantize(context, m.view(), recipe_k(QEM_METHOD_RTN, 16));
    Matrix decoded(m.rows, m.cols);
    decoded.x = decode(context, artifact);
    qem_metrics a = QEM_METRICS_INIT, b = QEM_METRICS_INIT;
    const qem_view original = m.view(), view = decoded.view();
    context.must(qem_evaluate(context, &original, artifact.get(), &a));
    context.must(qem_evaluate_matrix(context, &original, &view, &b));
    const qem_metrics c = query(artifact).metrics;
    EXPECT_EQ(std::memcmp(&a, &b, sizeof a), 0);
    EXPECT_EQ(std::memcmp(&a, &c, sizeof a), 0);
}

} // namespace
