// Thousands of small random recipes on random matrices: budget kept, parts add up, decode and metrics by the
// definition.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

struct Case {
    Matrix m;
    qem_recipe recipe;
    std::string name;
};

Case random_case(uint64_t seed)
{
    Random random(seed);
    Case c;
    const int kind = static_cast<int>(random.below(kKinds));
    c.m = any_matrix(kind, 1 + random.below(random.below(4) ? 30 : 150), 1 + random.below(30), seed);
    c.recipe = recipe_of(kMethods[random.below(6)]);
    if (random.below(3))
        c.recipe.ratio = 0.3 + 12.0 * random.unit() * random.unit();
    else
        c.recipe.bits = 0.5 + 20.0 * random.unit();
    if (!is_scalar(c.recipe.method)) c.recipe.dim = static_cast<uint32_t>(random.below(8)); // 0: the default
    if (random.below(2)) c.recipe.levels = static_cast<uint32_t>(random.below(5));
    if (c.recipe.method == QEM_METHOD_HYPERCHR) {
        c.recipe.intervals = static_cast<uint32_t>(random.below(4));
        if (random.below(2)) c.recipe.assign = QEM_ASSIGN_GLOBAL;
        if (random.below(2)) c.recipe.refine = static_cast<uint32_t>(random.below(4));
    }
    if (random.below(3) == 0) c.recipe.codebook = QEM_DTYPE_F16;
    c.recipe.iterations = static_cast<uint32_t>(random.below(6));
    if (random.below(5) == 0) c.recipe.restarts = 2;
    if (random.below(5) == 0) c.recipe.tolerance = 0.1 * random.unit();
    c.name = "seed " + std::to_string(seed) + ": " + qem_method_name(c.recipe.method) + ", " +
             std::to_string(c.m.rows) + " x " + std::to_string(c.m.cols) + " of kind " + std::to_string(kind);
    return c;
}

void check_metrics(const qem_metrics &reported, const Errors &direct, uint64_t count)
{
    const auto near = [](double a, double b) {
        return (std::isnan(a) && std::isnan(b)) || std::fabs(a - b) <= 1e-12 * std::fabs(b);
    };
    EXPECT_TRUE(near(reported.mae, direct.mae)) << reported.mae << " " << direct.mae;
    EXPECT_TRUE(near(reported.mse, direct.mse)) << reported.mse << " " << direct.mse;
    EXPECT_TRUE(near(reported.mre, direct.mre)) << reported.mre << " " << direct.mre;
    EXPECT_TRUE(near(reported.nmse, direct.nmse)) << reported.nmse << " " << direct.nmse;
    EXPECT_EQ(reported.max_error, direct.max_error);
    EXPECT_EQ(reported.zeros, direct.zeros);
    EXPECT_EQ(reported.count, count);
}

void check_artifact(const Context &context, const Case &c, const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    const double elements = static_cast<double>(c.m.x.size());
    const double budget = c.recipe.ratio > 0 ? elements * 32.0 / c.recipe.ratio : elements * c.recipe.bits;
    EXPECT_LE(8.0 * static_cast<double>(info.stored_bytes), budget);
    EXPECT_LE(info.stored_bytes, info.budget_bytes);
    uint64_t bytes = 0;
    for (const auto &part : parts_of(artifact)) bytes += part.second.size();
    EXPECT_EQ(info.stored_bytes, bytes);
    EXPECT_EQ(info.stored_bytes,
              info.parts.codes + info.parts.codebook + info.parts.swap_map + info.parts.scale + info.parts.mean);
    const std::vector<float> decoded = decode(context, artifact);
    EXPECT_EQ(decoded, decode_reference(artifact).x);
    for (float x : decoded) ASSERT_TRUE(std::isfinite(x));
    ASSERT_EQ(info.has_metrics, 1);
    check_metrics(info.metrics, errors_of(c.m.x, decoded), c.m.x.size());
    qem_metrics again = QEM_METRICS_INIT;
    const qem_view view = c.m.view();
    context.must(qem_evaluate(context, &view, artifact.get(), &again));
    EXPECT_EQ(std::memcmp(&again, &info.metrics, sizeof again), 0) << "evaluate must say what quantize said";
}

class Property : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Block, Property, ::testing::Range(0, 8));

TEST_P(Property, BudgetPartsDecodeAndMetrics)
{
    const Context context(with_seed(static_cast<uint64_t>(GetParam())));
    int made = 0, refused = 0;
    for (uint64_t seed = 500 * static_cast<uint64_t>(GetParam()); seed < 500 * (static_cast<uint64_t>(GetParam()) + 1);
         seed++) {
        const Case c = random_case(seed);
        SCOPED_TRACE(c.name);
        const qem_view view = c.m.view();
        qem_artifact *artifact = nullptr;
        const qem_status status = qem_quantize(context, &view, nullptr, &c.recipe, &artifact);
        const Artifact owner(artifact);
        if (status == QEM_OK) {
            made++;
            check_artifact(context, c, owner);
        } else {
            refused++;
            // a budget too small, a value beyond f16, a grid beyond f32: nothing else can be wrong here
            ASSERT_TRUE(status == QEM_ERR_BUDGET || status == QEM_ERR_RANGE) << context.error();
            ASSERT_EQ(artifact, nullptr);
            ASSERT_FALSE(context.error().empty());
        }
        if (HasFailure()) return; // one is enough to look at
    }
    EXPECT_GT(made, 200);
    EXPECT_GT(refused, 10);
}

} // namespace
