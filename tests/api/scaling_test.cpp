// Shifted and scaled data: what f32 can hold must not cost accuracy.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

constexpr qem_method kFitted[] = { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR,
                                   QEM_METHOD_QET };

class Scaling : public ::testing::TestWithParam<qem_method> {};
INSTANTIATE_TEST_SUITE_P(All, Scaling, ::testing::ValuesIn(kFitted),
                         [](const auto &info) { return qem_method_name(info.param); });

// Rounding moves points, and k-means answers a moved point with another local minimum: restarts take that luck away.
double nmse(const Matrix &m, const qem_method method)
{
    const Context context(with_threads(2));
    qem_recipe recipe = recipe_k(method, 16);
    recipe.restarts = 4;
    recipe.iterations = 40;
    const Artifact artifact = quantize(context, m.view(), recipe);
    const double reported = query(artifact).metrics.nmse, direct = errors_of(m.x, decode(context, artifact)).nmse;
    EXPECT_NEAR(reported, direct, 1e-9 * direct);
    return reported;
}

Matrix changed(const Matrix &m, double scale, double offset)
{
    Matrix result = m;
    for (float &x : result.x) x = static_cast<float>(offset + scale * static_cast<double>(x));
    return result;
}

TEST_P(Scaling, ShiftAndScaleKeepTheNormalizedError)
{
    const Matrix plain = gaussian(1000, 16, 1);
    const double expected = nmse(plain, GetParam());
    ASSERT_GT(expected, 1e-3);
    for (const auto &[scale, offset] : { std::pair<double, double>(1.0, 1e4), // mean 10^4 standard deviations
                                         { 1.0, -1e4 },
                                         { 1e30, 0.0 },
                                         { 1e33, 1e37 }, // 10^4 deviations near the end of the range
                                         { 1e-33, 0.0 },
                                         { 1e-33, 1e-29 },
                                         { 0x1p-100, 0.0 },
                                         { 1e19, 0.0 } }) // squares beyond f32
        EXPECT_NEAR(nmse(changed(plain, scale, offset), GetParam()), expected, 0.01 * expected)
            << qem_method_name(GetParam()) << ", x * " << scale << " + " << offset;
}

// A power of two changes no rounding at all, so the codes are the same.
TEST_P(Scaling, PowersOfTwoKeepEveryCode)
{
    const Matrix plain = gaussian(300, 12, 2);
    const Context context;
    const auto codes = parts_of(quantize(context, plain.view(), recipe_k(GetParam(), 16)))["codes"];
    for (int exponent : { -90, -20, 1, 100 })
        EXPECT_EQ(parts_of(quantize(context, changed(plain, std::ldexp(1.0, exponent), 0.0).view(),
                                    recipe_k(GetParam(), 16)))["codes"],
                  codes)
            << "2^" << exponent;
}

TEST_P(Scaling, TinyColumnsBesideOthersDoNoHarm)
{
    Matrix with_tiny = gaussian(1000, 16, 3), with_zero = with_tiny;
    for (uint64_t i = 0; i < with_tiny.rows; i++)
        for (uint64_t j = 4; j < 8; j++) {
            with_tiny.at(i, j) *= 1e-33f;
            with_zero.at(i, j) = 0.0f;
        }
    const double expected = nmse(with_zero, GetParam());
    EXPECT_NEAR(nmse(with_tiny, GetParam()), expected, 0.01 * expected);
}

// With a codebook of its own a group of tiny columns is coded as well as any other.
TEST(ScalingGroups, TinyGroupsAreCodedAsWellAsOthers)
{
    const Matrix plain = gaussian(2000, 8, 4);
    Matrix m = plain;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 4; j < 8; j++) m.at(i, j) = static_cast<float>(m.at(i, j) * 1e-33);
    const Context context;
    const std::vector<float> a = decode(context, quantize(context, plain.view(), recipe_k(QEM_METHOD_PQ, 16)));
    const std::vector<float> b = decode(context, quantize(context, m.view(), recipe_k(QEM_METHOD_PQ, 16)));
    double expected = 0.0, tiny = 0.0;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 4; j < 8; j++) {
            expected += std::pow(static_cast<double>(plain.at(i, j)) - a[i * 8 + j], 2.0);
            tiny += std::pow((static_cast<double>(m.at(i, j)) - b[i * 8 + j]) / 1e-33, 2.0);
        }
    EXPECT_NEAR(tiny, expected, 0.01 * expected);
}

} // namespace
