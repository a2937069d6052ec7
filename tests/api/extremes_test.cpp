// Requests at the edge of what numbers hold: budgets beyond any artifact, shapes beyond any memory, samples that say nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/reference.h"

using namespace qem_test;

namespace {

qem_view shape(uint64_t rows, uint64_t cols)
{
    qem_view view = QEM_VIEW_INIT;
    view.rows = rows;
    view.cols = cols;
    return view;
}

TEST(Extremes, ABudgetWithoutEndBuysEverything)
{
    const Context context;
    const Matrix m = gaussian(30, 8, 1);
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_OPQ, QEM_METHOD_VQ, QEM_METHOD_LLOYDMAX })
        for (double bits : { 1e6, 1e300, 0.0 }) {
            qem_recipe recipe = recipe_of(method);
            recipe.bits = bits;
            recipe.ratio = bits > 0.0 ? 0.0 : std::numeric_limits<double>::denorm_min();
            if (method == QEM_METHOD_PQ || method == QEM_METHOD_OPQ) recipe.allocation = QEM_ALLOCATION_VARIANCE;
            SCOPED_TRACE(std::string(qem_method_name(method)) + " " + std::to_string(bits));
            const qem_artifact_info info = query(quantize(context, m.view(), recipe));
            EXPECT_LE(info.stored_bytes, info.budget_bytes);
            EXPECT_LT(info.metrics.mse, 1e-9);
            const qem_view view = m.view(), no_data = shape(30, 8);
            qem_plan plan = QEM_PLAN_INIT;
            context.must(qem_make_plan(context, &view, &recipe, &plan));
            EXPECT_EQ(plan.budget_bytes, info.budget_bytes);
            context.must(qem_make_plan(context, &no_data, &recipe, &plan));
            EXPECT_EQ(plan.budget_bytes, info.budget_bytes);
        }
}

// A rotation has the square of the columns: its size must not wrap round to one that fits.
TEST(Extremes, RotationsOfTooManyColumnsAreRefusedByTheirShape)
{
    const Context context;
    for (qem_method method : { QEM_METHOD_OPQ, QEM_METHOD_LOPQ })
        for (uint64_t cols : { uint64_t{ 16385 }, uint64_t{ 1 } << 31, uint64_t{ 1 } << 32, (uint64_t{ 1 } << 47) - 1 }) {
            qem_recipe recipe = recipe_of(method);
            recipe.bits = 8.0;
            recipe.dim = 65535;
            const qem_view view = shape(1, cols);
            qem_plan plan = QEM_PLAN_INIT;
            EXPECT_EQ(qem_make_plan(context, &view, &recipe, &plan), QEM_ERR_UNSUPPORTED);
            EXPECT_NE(context.error().find("columns"), std::string::npos) << context.error();
            EXPECT_EQ(plan.k, 0u);
        }
}

// What a plan by the shape says holds for every shape: no product of the largest numbers wraps.
TEST(Extremes, PlansOfHugeShapesAreNoSmallerThanTheirCodes)
{
    const Context context;
    for (const qem_view &view : { shape(65536, 65535), shape((uint64_t{ 1 } << 32) - 1, 65535), shape(1, (uint64_t{ 1 } << 47) - 1) })
        for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_HYPERCHR }) {
            qem_recipe recipe = recipe_k(method, view.rows == 1 && method != QEM_METHOD_VQ && method != QEM_METHOD_HYPERCHR
                                                     ? 1
                                                     : view.rows < 65537 ? 65536 : uint64_t{ 1 } << 24);
            recipe.dim = 65535;
            recipe.outliers = 0.5;
            recipe.standardize = QEM_STANDARDIZE_BLOCK | QEM_STANDARDIZE_COLUMN;
            recipe.standardize_block = 65535;
            recipe.params = 32;
            SCOPED_TRACE(std::string(qem_method_name(method)) + " of " + std::to_string(view.rows) + " x " + std::to_string(view.cols));
            qem_plan plan = QEM_PLAN_INIT;
            context.must(qem_make_plan(context, &view, &recipe, &plan));
            const double elements = static_cast<double>(view.rows) * static_cast<double>(view.cols);
            const double index = elements < 0x1p32 ? 4.0 : 8.0;
            EXPECT_GE(static_cast<double>(plan.parts.outlier_index), 0.49 * elements * index);
            EXPECT_GE(static_cast<double>(plan.parts.codebook), 4.0 * static_cast<double>(recipe.k) * 65535.0 * 0.99);
            EXPECT_GE(static_cast<double>(plan.stored_bytes), 0.49 * elements * (index + 4.0));
        }
}

qem_recipe automatic(double bits)
{
    qem_recipe recipe = recipe_of(QEM_METHOD_AUTO);
    recipe.bits = bits;
    recipe.effort = 0;
    recipe.iterations = 2;
    return recipe;
}

// The samples that trials look at may miss all elements that count.
TEST(Extremes, AutoTakesWeightsThatItsSamplesDoNotHave)
{
    const Context context;
    const Matrix m = gaussian(700, 100, 3);
    Matrix importance(700, 100);
    importance.at(690, 95) = 1.0f; // behind the last row and column of the samples
    const qem_view view = m.view(), weights = importance.view();
    qem_recipe recipe = automatic(1.6);
    recipe.importance = &weights;
    qem_artifact *artifact = nullptr;
    const qem_status status = qem_quantize(context, &view, nullptr, &recipe, &artifact);
    const Artifact owner(artifact);
    EXPECT_EQ(status, QEM_OK) << context.error();
    for (float &w : importance.x) w = 0.0f; // but not all of them may be 0
    EXPECT_EQ(qem_quantize(context, &view, nullptr, &recipe, &artifact), QEM_ERR_DATA);
}

// What outliers take is part of the budget that the sentence names, not a budget below 0.
// With weights the search compares weighted errors: what it reports is that of the artifact, and it loses to no other trial.
TEST(Extremes, AutoJudgesByTheWeightsGiven)
{
    const Context context(with_threads(2));
    const Matrix m = gaussian(200, 24, 5);
    Matrix importance(200, 24);
    for (uint64_t i = 0; i < importance.x.size(); i++) importance.x[i] = i % 24 < 3 ? 100.0f : i % 7 == 0 ? 0.0f : 0.5f;
    const qem_view view = m.view(), weights = importance.view();
    qem_recipe recipe = automatic(4.0), best;
    recipe.importance = &weights;
    recipe.effort = 3;
    std::vector<qem_trial> trials(QEM_MOST_TRIALS);
    uint32_t count = 0;
    qem_artifact *made = nullptr;
    context.must(qem_search(context, &view, "w", &recipe, &best, trials.data(), &count, &made));
    const Artifact artifact(made);
    std::vector<float> decoded(m.x.size());
    context.must(qem_dequantize(context, artifact.get(), 0, 200, QEM_DTYPE_F32, decoded.data(), 0));
    double sum = 0, weight = 0;
    for (uint64_t i = 0; i < m.x.size(); i++) {
        const double e = static_cast<double>(decoded[i]) - m.x[i];
        sum += importance.x[i] * e * e;
        weight += importance.x[i];
    }
    EXPECT_NEAR(trials[0].final_mse, sum / weight, 1e-5 * sum / weight);
    for (uint32_t i = 1; i < count; i++)
        if (!std::isnan(trials[i].final_mse)) {
            EXPECT_LE(trials[0].final_mse, trials[i].final_mse);
        }
}

TEST(Extremes, TheBudgetOfAnErrorCountsOutliers)
{
    const Context context;
    const Matrix m = gaussian(10, 10, 4);
    qem_recipe recipe = recipe_of(QEM_METHOD_PQ);
    recipe.bits = 8.0;
    recipe.outliers = 0.5;
    const qem_view view = m.view();
    qem_artifact *artifact = nullptr;
    EXPECT_EQ(qem_quantize(context, &view, nullptr, &recipe, &artifact), QEM_ERR_BUDGET);
    EXPECT_NE(context.error().find("the budget is 100 bytes"), std::string::npos) << context.error();
    const std::string fitted = context.error();
    qem_plan plan = QEM_PLAN_INIT;
    EXPECT_EQ(qem_make_plan(context, &view, &recipe, &plan), QEM_ERR_BUDGET);
    EXPECT_EQ(context.error(), fitted);
}

// Rows that the scales of the base take beyond f32 are an error, not codes of infinities.
TEST(Extremes, NewRowsBeyondTheScalesOfTheBaseAreRefused)
{
    const Context context;
    const Matrix m = gaussian(40, 8, 5, 1e-20), large(3, 8, 1e30f);
    for (int standardize : { int{ QEM_STANDARDIZE_COLUMN }, QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_BLOCK,
                             QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_ROW })
        for (qem_method method : { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ }) {
            qem_recipe recipe = recipe_k(method, 4);
            recipe.standardize = static_cast<uint32_t>(standardize);
            recipe.standardize_block = standardize & QEM_STANDARDIZE_BLOCK ? 4 : 0;
            recipe.params = 32;
            const Artifact base = quantize(context, m.view(), recipe);
            const qem_view view = large.view();
            qem_artifact *artifact = nullptr;
            EXPECT_EQ(qem_encode(context, base.get(), &view, nullptr, &artifact), QEM_ERR_RANGE);
            EXPECT_EQ(artifact, nullptr);
        }
}

// Weights of which many are nearly nothing beside the largest: the levels stay in order, so every instruction set agrees.
TEST(Extremes, WeightsOfAnySizeGiveOneCodebook)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        Random random(seed);
        const Matrix m = gaussian(60, 11, seed);
        Matrix weights(60, 11);
        for (float &w : weights.x) w = std::ldexp(1.0f, -static_cast<int>(random.below(80)));
        const qem_view view = weights.view();
        qem_recipe recipe = recipe_k(QEM_METHOD_LLOYDMAX, 300);
        recipe.iterations = 1 + static_cast<uint32_t>(seed % 3);
        recipe.importance = &view;
        const auto expected = parts_of(quantize(Context(with_threads(1, QEM_ISA_SCALAR)), m.view(), recipe));
        for (qem_isa isa : available_isas())
            EXPECT_EQ(parts_of(quantize(Context(with_threads(3, isa)), m.view(), recipe)), expected) << "seed " << seed;
    }
}

TEST(Extremes, AutoNamesTheElementOfTheMatrixThatIsNotFinite)
{
    const Context context;
    Matrix m = gaussian(1200, 128, 3);
    m.x[777 * 128 + 65] = std::numeric_limits<float>::quiet_NaN();
    const qem_view view = m.view();
    qem_recipe best = QEM_RECIPE_INIT;
    const qem_recipe recipe = automatic(3.0);
    EXPECT_EQ(qem_search(context, &view, nullptr, &recipe, &best, nullptr, nullptr, nullptr), QEM_ERR_DATA);
    EXPECT_NE(context.error().find("777"), std::string::npos) << context.error();
    EXPECT_NE(context.error().find("65"), std::string::npos) << context.error();
}

} // namespace
