// Fixed tables of levels, and the methods whose codebooks they are: grid and nf.
#include <gtest/gtest.h>

#include "fit_case.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

std::vector<float> table_of(qem_table table, uint64_t k)
{
    std::vector<float> levels(k);
    for (uint64_t j = 0; j < k; j++) levels[j] = qem_table_level(table, k, static_cast<uint32_t>(j));
    return levels;
}

// Extremes of rows, columns or all: what the methods need of the backend, with the call looked at.
qem_status plain_stats(qem_context *, const float *x, uint64_t rows, uint64_t cols, qem_axis axis, uint64_t block, float *least,
                       float *greatest, double *mean, double *square)
{
    EXPECT_EQ(mean, nullptr);
    EXPECT_EQ(square, nullptr);
    const uint64_t blocks = block ? (cols + block - 1) / block : 0;
    const uint64_t units = axis == QEM_AXIS_TENSOR ? 1 : axis == QEM_AXIS_ROW ? rows : axis == QEM_AXIS_COLUMN ? cols : rows * blocks;
    std::fill_n(least, units, INFINITY);
    std::fill_n(greatest, units, -INFINITY);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) {
            const uint64_t u = axis == QEM_AXIS_TENSOR ? 0
                               : axis == QEM_AXIS_ROW  ? i
                               : axis == QEM_AXIS_COLUMN ? j
                                                         : i * blocks + j / block;
            least[u] = std::min(least[u], x[i * cols + j]);
            greatest[u] = std::max(greatest[u], x[i * cols + j]);
        }
    return QEM_OK;
}

const qem_backend *backend_with_stats()
{
    static const qem_backend backend = [] {
        qem_backend b = qem_cpu_backend;
        b.unit_stats = plain_stats;
        return b;
    }();
    return &backend;
}

struct Units {
    Units(const qem_method_ops &ops_, qem_axis axis, uint64_t block, const Matrix &matrix) : ops(ops_), m(matrix)
    {
        std::memset(&affine, 0, sizeof affine);
        affine.axis = axis;
        affine.block = block;
        affine.params = 32;
        affine.has_scale = 1;
        affine.has_mean = ops.units_have_means;
        qem_affine_sizes(&affine, m.rows, m.cols);
        scale.assign(affine.units, 9.0f);
        mean.assign(affine.units, 9.0f);
        affine.scale = scale.data();
        affine.mean = affine.has_mean ? mean.data() : nullptr;
    }
    qem_status run() { return ops.units(context(), backend_with_stats(), m.x.data(), m.rows, m.cols, &affine); }

    const qem_method_ops &ops;
    const Matrix &m;
    qem_affine affine;
    std::vector<float> scale, mean;
};

TEST(Tables, NormalFloatsAreAsPublished)
{
    EXPECT_EQ(table_of(QEM_TABLE_NF, 8), std::vector<float>({ -1.0f, -0.445704479f, -0.200834254f, 0.0f, 0.148743007f, 0.313254168f,
                                                              0.526023086f, 1.0f }));
    EXPECT_EQ(table_of(QEM_TABLE_NF, 16),
              std::vector<float>({ -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
                                   -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
                                   0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                                   0.7229568362236023f, 1.0f }));
}

// By the normal distribution function: each half stands at evenly spaced probabilities from the offset to 1/2.
TEST(Tables, NormalFloatsAreQuantiles)
{
    const auto below = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
    for (uint64_t k = 4; k <= 256; k *= 2) {
        const std::vector<float> levels = table_of(QEM_TABLE_NF, k);
        const double n = static_cast<double>(k);
        const double offset = k == 8 ? 0.98 : 0.5 * ((1.0 - 1.0 / (2.0 * n - 2.0)) + (1.0 - 1.0 / (2.0 * n)));
        double low = 0.0, high = 10.0; // the quantile at the offset
        while (high - low > 1e-14) (below(0.5 * (low + high)) < offset ? low : high) = 0.5 * (low + high);
        const int64_t negative = static_cast<int64_t>(k / 2) - 1, positive = static_cast<int64_t>(k / 2);
        EXPECT_EQ(levels[k / 2 - 1], 0.0f);
        EXPECT_EQ(levels[0], -1.0f);
        EXPECT_EQ(levels[k - 1], 1.0f);
        for (int64_t j = 0; j < static_cast<int64_t>(k); j++) {
            const int64_t step = j - negative; // from the zero
            const double expected = 0.5 + (offset - 0.5) * static_cast<double>(step) / static_cast<double>(step < 0 ? negative : positive);
            EXPECT_NEAR(below(levels[static_cast<size_t>(j)] * low), expected, 2e-7) << "k " << k << ", level " << j;
            if (j) {
                EXPECT_LT(levels[static_cast<size_t>(j - 1)], levels[static_cast<size_t>(j)]);
            }
        }
    }
    for (uint64_t k : { 1, 2, 3, 5, 512 }) EXPECT_EQ(qem_table_level(QEM_TABLE_NF, k, 0), 0.0f);
    EXPECT_EQ(qem_table_level(QEM_TABLE_NF, 256, 256), 0.0f);
}

TEST(Tables, UniformLevelsAreFractions)
{
    EXPECT_EQ(table_of(QEM_TABLE_UNIFORM, 1), std::vector<float>({ 0.0f }));
    EXPECT_EQ(table_of(QEM_TABLE_UNIFORM, 2), std::vector<float>({ 0.0f, 1.0f }));
    EXPECT_EQ(table_of(QEM_TABLE_UNIFORM, 5), std::vector<float>({ 0.0f, 0.25f, 0.5f, 0.75f, 1.0f }));
    for (uint64_t k : { 3, 8, 65536 })
        for (uint64_t j = 0; j < k; j++)
            ASSERT_EQ(qem_table_level(QEM_TABLE_UNIFORM, k, static_cast<uint32_t>(j)),
                      static_cast<float>(static_cast<double>(j) / static_cast<double>(k - 1))) << j << " of " << k;
}

const std::vector<float> note = { 3.2f, -1.4f, 2.5f, -0.9f, 1.8f, -3.7f, 0.0f, 4.0f, 2.2f, -1.3f };

// The matrix by the one unit that it has.
Matrix by_its_unit(const Matrix &m, const Units &units)
{
    Matrix z(m.rows, m.cols);
    for (size_t i = 0; i < m.x.size(); i++)
        z.x[i] = static_cast<float>((static_cast<double>(m.x[i]) - (units.affine.mean ? units.mean[0] : 0.0f)) / units.scale[0]);
    return z;
}

TEST(Grid, CodesOfTheNote)
{
    Matrix m(1, 10);
    m.x = note;
    Units units(qem_grid_ops, QEM_AXIS_TENSOR, 0, m);
    context().must(units.run());
    EXPECT_EQ(units.scale[0], 4.0f - -3.7f);
    EXPECT_EQ(units.mean[0], -3.7f);
    m.x[5] = -4.0f; // on [-4, 4] in steps of 8/7; 0 lies in the middle of two levels and goes up
    context().must(units.run());
    const Matrix z = by_its_unit(m, units);
    ScalarFit f(context(), qem_grid_ops, z, 8);
    context().must(f.run());
    EXPECT_EQ(f.labels, std::vector<uint32_t>({ 6, 2, 6, 3, 5, 0, 4, 7, 5, 2 }));
    EXPECT_EQ(f.fit.table, QEM_TABLE_UNIFORM);
}

TEST(NormalFloat, CodesOfTheNote)
{
    Matrix m(1, 10);
    m.x = note;
    Units units(qem_nf_ops, QEM_AXIS_TENSOR, 0, m);
    context().must(units.run());
    EXPECT_EQ(units.scale[0], 4.0f);
    const Matrix z = by_its_unit(m, units);
    ScalarFit f(context(), qem_nf_ops, z, 8);
    context().must(f.run());
    EXPECT_EQ(f.labels, std::vector<uint32_t>({ 7, 1, 6, 2, 6, 0, 3, 7, 6, 1 }));
    EXPECT_EQ(f.fit.table, QEM_TABLE_NF);
}

const std::pair<qem_axis, uint64_t> axes[] = { { QEM_AXIS_TENSOR, 0 }, { QEM_AXIS_ROW, 0 }, { QEM_AXIS_COLUMN, 0 }, { QEM_AXIS_BLOCK, 4 } };

TEST(Grid, UnitsSpanTheirExtremes)
{
    const Matrix m = heavy_tails(13, 10, 3);
    for (const auto &axis : axes) {
        Units units(qem_grid_ops, axis.first, axis.second, m);
        context().must(units.run());
        std::vector<float> least(units.affine.units), greatest(units.affine.units);
        plain_stats(context(), m.x.data(), m.rows, m.cols, axis.first, axis.second, least.data(), greatest.data(), nullptr, nullptr);
        for (size_t u = 0; u < least.size(); u++) {
            EXPECT_EQ(units.mean[u], least[u]);
            EXPECT_EQ(units.scale[u], static_cast<float>(static_cast<double>(greatest[u]) - least[u]));
        }
    }
}

TEST(NormalFloat, UnitsReachTheirLargestMagnitude)
{
    const Matrix m = heavy_tails(13, 10, 4);
    for (const auto &axis : axes) {
        Units units(qem_nf_ops, axis.first, axis.second, m);
        context().must(units.run());
        std::vector<float> least(units.affine.units), greatest(units.affine.units);
        plain_stats(context(), m.x.data(), m.rows, m.cols, axis.first, axis.second, least.data(), greatest.data(), nullptr, nullptr);
        for (size_t u = 0; u < least.size(); u++) {
            EXPECT_EQ(units.scale[u], std::max(-least[u], greatest[u]));
            EXPECT_EQ(units.mean[u], 9.0f); // there are none
        }
    }
}

TEST(Grid, LabelsAreNearestWithinTheGrid)
{
    Matrix z(1, 9);
    z.x = { -3.0f, 0.12499999f, 0.125f, 0.375f, 0.625f, 0.75f, 9.0f, -0.0f, 0.37499997f };
    ScalarFit f(context(), qem_grid_ops, z, 5);
    context().must(f.run());
    EXPECT_EQ(f.labels, std::vector<uint32_t>({ 0, 0, 1, 2, 3, 3, 4, 0, 1 }));
    z.x = { 0.5f, std::nextafterf(0.5f, 0.0f) }; // levels 3/7 and 4/7, which are no numbers of f32
    qem_stage stage = {};
    stage.kind = QEM_CODEBOOK_TABLE;
    stage.k = 8;
    qem_artifact base = {};
    base.stages = &stage;
    z.rows = 2, z.cols = 1;
    ScalarFit fitted(context(), qem_grid_ops, z, 8), encoded(context(), qem_grid_ops, z, 8);
    context().must(fitted.run());
    context().must(qem_grid_ops.encode(&encoded.fit, &base));
    context().must(encoded.label());
    EXPECT_EQ(fitted.labels, std::vector<uint32_t>({ 4, 3 }));
    EXPECT_EQ(encoded.labels, fitted.labels);
}

TEST(Grid, RangeBeyondF32IsRefused)
{
    Matrix m(1, 3);
    m.x = { -3.4e38f, 0.0f, 3.4e38f };
    Units units(qem_grid_ops, QEM_AXIS_TENSOR, 0, m);
    EXPECT_EQ(units.run(), QEM_ERR_RANGE);
    EXPECT_NE(context().error().find("grid: the range"), std::string::npos);
}

// There are tables of 4 levels and more alone, and the planner goes by what the methods say of themselves.
TEST(NormalFloat, FewerThanFourLevelsAreRefused)
{
    const Matrix m = heavy_tails(40, 10, 5);
    const qem_view view = m.view();
    qem_plan plan = QEM_PLAN_INIT;
    for (uint64_t k : { 1, 2, 3, 512 }) {
        const qem_recipe recipe = recipe_k(QEM_METHOD_NF, k);
        EXPECT_EQ(qem_make_plan(context(), &view, &recipe, &plan), QEM_ERR_ARGUMENT) << "k " << k;
    }
    const qem_recipe least = recipe_k(QEM_METHOD_NF, 4);
    context().must(qem_make_plan(context(), &view, &least, &plan));
    EXPECT_EQ(plan.k, 4u);
    qem_recipe tight = recipe_k(QEM_METHOD_NF, 0);
    tight.bits = 1.5; // the budget's choice: a bit an element
    EXPECT_EQ(qem_make_plan(context(), &view, &tight, &plan), QEM_ERR_BUDGET);
    EXPECT_NE(context().error().find("smallest table takes 102"), std::string::npos) << context().error();
    tight.bits = 2.5;
    context().must(qem_make_plan(context(), &view, &tight, &plan));
    EXPECT_EQ(plan.k, 4u);
}

TEST(Methods, GridAndNfAreInTheRegistry)
{
    EXPECT_EQ(qem_method_find(QEM_METHOD_GRID), &qem_grid_ops);
    EXPECT_EQ(qem_method_find(QEM_METHOD_NF), &qem_nf_ops);
    EXPECT_EQ(qem_method_from_name("nf"), QEM_METHOD_NF);
}

} // namespace
