// Standardization: its primitives against plain definitions, and the steps that are stored against what they stand for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "core/half.h"
#include "methods/standardize.h"
}

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(3));
    return one;
}

const qem_backend *backend()
{
    return &qem_cpu_backend;
}

struct Steps {
    Steps() = default;
    Steps(const Steps &) = delete;
    ~Steps() { qem_standardize_release(context(), step, &count); }
    qem_affine step[QEM_MOST_AFFINE] = {};
    uint32_t count = 0;
};

struct Axis {
    qem_axis axis;
    uint64_t block;
};

const Axis kAxes[] = { { QEM_AXIS_TENSOR, 0 }, { QEM_AXIS_ROW, 0 },    { QEM_AXIS_COLUMN, 0 },
                       { QEM_AXIS_BLOCK, 2 },  { QEM_AXIS_BLOCK, 16 }, { QEM_AXIS_BLOCK, 65535 } };
const std::pair<uint64_t, uint64_t> kShapes[] = { { 1, 1 },  { 1, 70 },    { 70, 1 },    { 5, 7 },
                                                  { 33, 64 }, { 2500, 3 }, { 1100, 530 }, { 3, 33000 } };

uint64_t unit_of(const Axis &a, uint64_t cols, uint64_t i, uint64_t j)
{
    switch (a.axis) {
    case QEM_AXIS_ROW: return i;
    case QEM_AXIS_COLUMN: return j;
    case QEM_AXIS_BLOCK: return i * ((cols + a.block - 1) / a.block) + j / a.block;
    default: return 0;
    }
}

uint64_t units_of(const Axis &a, uint64_t rows, uint64_t cols)
{
    return unit_of(a, cols, rows - 1, cols - 1) + 1;
}

struct Stats {
    explicit Stats(uint64_t units) : least(units), greatest(units), mean(units), square(units) {}
    std::vector<float> least, greatest;
    std::vector<double> mean, square;
    bool operator==(const Stats &o) const
    {
        return least == o.least && greatest == o.greatest && mean == o.mean && square == o.square;
    }
};

Stats stats_of(const Context &c, const Matrix &m, const Axis &a)
{
    Stats s(units_of(a, m.rows, m.cols));
    c.must(backend()->unit_stats(c, m.x.data(), m.rows, m.cols, a.axis, a.block, s.least.data(), s.greatest.data(),
                                 s.mean.data(), s.square.data()));
    return s;
}

TEST(UnitStats, AreThoseOfTheDefinition)
{
    for (int kind : { 0, 1, 5, 6, 7, 8 })
        for (const auto &[rows, cols] : kShapes)
            for (const Axis &a : kAxes) {
                if (kind && rows * cols > 10000) continue;
                const Matrix m = any_matrix(kind, rows, cols, 4);
                SCOPED_TRACE(std::to_string(kind) + ": " + std::to_string(rows) + " x " + std::to_string(cols) + ", axis " +
                             std::to_string(a.axis) + ", block " + std::to_string(a.block));
                const uint64_t units = units_of(a, rows, cols);
                std::vector<long double> sum(units), square(units), magnitude(units);
                std::vector<uint64_t> count(units);
                std::vector<float> least(units, INFINITY), greatest(units, -INFINITY);
                for (uint64_t i = 0; i < rows; i++)
                    for (uint64_t j = 0; j < cols; j++) {
                        const uint64_t u = unit_of(a, cols, i, j);
                        const float x = m.at(i, j);
                        sum[u] += x, magnitude[u] += std::fabs(x), square[u] += static_cast<long double>(x) * x, count[u]++;
                        least[u] = std::min(least[u], x), greatest[u] = std::max(greatest[u], x);
                    }
                const Stats s = stats_of(context(), m, a);
                for (uint64_t u = 0; u < units; u++) {
                    ASSERT_EQ(s.least[u], least[u]);
                    ASSERT_EQ(s.greatest[u], greatest[u]);
                    ASSERT_NEAR(s.mean[u], static_cast<double>(sum[u] / count[u]),
                                1e-12 * static_cast<double>(magnitude[u] / count[u]));
                    ASSERT_NEAR(s.square[u], static_cast<double>(square[u] / count[u]),
                                1e-12 * static_cast<double>(square[u] / count[u]));
                }
            }
}

TEST(UnitStats, TablesMayBeLeftOut)
{
    const Matrix m = gaussian(40, 50, 1);
    for (const Axis &a : kAxes) {
        const Stats all = stats_of(context(), m, a);
        Stats some(all.mean.size());
        context().must(backend()->unit_stats(context(), m.x.data(), m.rows, m.cols, a.axis, a.block, nullptr, nullptr,
                                             nullptr, some.square.data()));
        EXPECT_EQ(some.square, all.square);
    }
}

// What the steps of a test are made of: tables for every axis, some scales 0.
struct Tables {
    Tables(uint64_t rows, uint64_t cols, uint64_t block, uint64_t seed)
    {
        Random random(seed);
        const uint64_t blocks = rows * ((cols + block - 1) / block);
        for (uint64_t units : { blocks, rows, cols }) {
            std::vector<float> s(units), m(units);
            for (float &v : s) v = random.below(9) ? static_cast<float>(0.01 + 3.0 * random.unit()) : 0.0f;
            for (float &v : m) v = static_cast<float>(random.normal());
            scale.push_back(s);
            mean.push_back(m);
        }
        steps[0] = { QEM_AXIS_BLOCK, block, scale[0].data(), nullptr };
        steps[1] = { QEM_AXIS_ROW, 0, scale[1].data(), mean[1].data() };
        steps[2] = { QEM_AXIS_COLUMN, 0, scale[2].data(), mean[2].data() };
    }
    std::vector<std::vector<float>> scale, mean;
    qem_decode_affine steps[3];
};

Axis axis_of(const qem_decode_affine &step)
{
    return { step.axis, step.block };
}

float standardized(const Matrix &m, uint64_t i, uint64_t j, const qem_decode_affine *steps, uint32_t count)
{
    float z = m.at(i, j);
    for (uint32_t s = count; s-- > 0;) {
        const uint64_t u = unit_of(axis_of(steps[s]), m.cols, i, j);
        if (steps[s].mean) z = z - steps[s].mean[u];
        if (steps[s].scale) z = steps[s].scale[u] == 0.0f ? 0.0f : z / steps[s].scale[u];
    }
    return z;
}

TEST(Standardize, IsTheDefinitionToTheBit)
{
    for (const auto &[rows, cols] : kShapes)
        for (uint64_t block : { 2, 5, 16, 4000 })
            for (uint32_t first : { 0, 1, 2, 3 }) {
                const Matrix m = any_matrix(first ? 0 : 6, rows, cols, 3);
                const Tables t(rows, cols, block, 5);
                std::vector<float> z(rows * cols, -1.0f), same = m.x;
                const qem_decode_affine *steps = t.steps + first;
                context().must(backend()->standardize(context(), m.x.data(), rows, cols, steps, 3 - first, z.data()));
                for (uint64_t i = 0; i < rows; i++)
                    for (uint64_t j = 0; j < cols; j++) {
                        const float expected = standardized(m, i, j, steps, 3 - first);
                        ASSERT_EQ(z[i * cols + j], expected) << i << ", " << j;
                        if (expected == 0.0f && first < 3) {
                            ASSERT_FALSE(std::signbit(z[i * cols + j]));
                        }
                    }
                context().must(backend()->standardize(context(), same.data(), rows, cols, steps, 3 - first, same.data()));
                ASSERT_EQ(std::memcmp(same.data(), z.data(), z.size() * sizeof(float)), 0) << "in place";
            }
}

TEST(Standardize, StatisticsOfTheResultAreThoseOfTheMatrixItGives)
{
    for (const auto &[rows, cols] : kShapes)
        for (const Axis &a : kAxes) {
            const Matrix m = gaussian(rows, cols, 2);
            const Tables t(rows, cols, 7, 8);
            Matrix z(rows, cols);
            context().must(backend()->standardize(context(), m.x.data(), rows, cols, t.steps, 3, z.x.data()));
            const Stats expected = stats_of(context(), z, a);
            Stats s(expected.mean.size());
            context().must(backend()->standardized_stats(context(), m.x.data(), rows, cols, t.steps, 3, a.axis, a.block,
                                                         s.least.data(), s.greatest.data(), s.mean.data(), s.square.data()));
            for (size_t u = 0; u < s.mean.size(); u++) {
                const double size = std::max(std::fabs(expected.least[u]), std::fabs(expected.greatest[u]));
                ASSERT_NEAR(s.mean[u], expected.mean[u], 1e-3 * size + 1e-5);
                ASSERT_NEAR(s.square[u], expected.square[u], 1e-3 * size * size + 1e-9);
                ASSERT_NEAR(s.least[u], expected.least[u], 1e-3 * size + 1e-5);
                ASSERT_NEAR(s.greatest[u], expected.greatest[u], 1e-3 * size + 1e-5);
            }
        }
}

TEST(ElementWeights, AreSquaredScalesTimesImportanceUpToAPowerOfTwo)
{
    for (const auto &[rows, cols] : kShapes)
        for (double size : { 1.0, 1e30, 1e-33 })
            for (uint64_t importance_rows : { uint64_t{ 0 }, uint64_t{ 1 }, rows }) {
                Tables t(rows, cols, 5, 9);
                for (auto &table : t.scale)
                    for (float &v : table) v = static_cast<float>(v * size);
                Matrix importance = gaussian(importance_rows, cols, 1, size);
                for (float &v : importance.x) v = std::fabs(v);
                std::vector<float> weight(rows * cols, -1.0f);
                context().must(backend()->element_weights(context(), rows, cols, t.steps, 3,
                                                          importance_rows ? importance.x.data() : nullptr, importance_rows,
                                                          weight.data()));
                long double unit = 0;
                for (uint64_t i = 0; i < rows; i++)
                    for (uint64_t j = 0; j < cols; j++) {
                        long double w = importance_rows ? importance.at(importance_rows == 1 ? 0 : i, j) : 1.0L;
                        for (const qem_decode_affine &s : t.steps) {
                            const long double v = s.scale[unit_of(axis_of(s), cols, i, j)];
                            w *= v * v;
                        }
                        const float got = weight[i * cols + j];
                        ASSERT_GE(got, 0.0f);
                        ASSERT_LE(got, 1.0f);
                        if (w == 0) {
                            ASSERT_EQ(got, 0.0f);
                        }
                        if (w == 0 || got < 1e-30f) continue;
                        if (unit == 0) {
                            unit = exp2l(roundl(log2l(got / w)));
                        }
                        ASSERT_NEAR(static_cast<double>(got / (w * unit)), 1.0, 1e-6);
                    }
            }
}

TEST(Standardization, IsTheSameForEveryNumberOfThreadsAndInstructionSet)
{
    for (const auto &[rows, cols] : kShapes) {
        const Matrix m = any_matrix(1, rows, cols, 6);
        const Tables t(rows, cols, 16, 7);
        for (const Axis &a : kAxes) {
            const Stats one = stats_of(Context(with_threads(1, QEM_ISA_SCALAR)), m, a);
            for (qem_isa isa : available_isas()) EXPECT_TRUE(stats_of(Context(with_threads(4, isa)), m, a) == one);
        }
        std::vector<float> z(m.x.size()), other(m.x.size());
        const Context one(with_threads(1, QEM_ISA_SCALAR));
        one.must(backend()->standardize(one, m.x.data(), rows, cols, t.steps, 3, z.data()));
        for (qem_isa isa : available_isas()) {
            const Context many(with_threads(4, isa));
            many.must(backend()->standardize(many, m.x.data(), rows, cols, t.steps, 3, other.data()));
            EXPECT_EQ(std::memcmp(z.data(), other.data(), z.size() * sizeof(float)), 0);
        }
    }
}

// ---- the steps of a recipe ----

qem_recipe recipe_for(uint32_t standardize, uint32_t params, uint32_t block = 0, qem_means means = QEM_MEANS_AUTO)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.standardize = standardize;
    recipe.params = params;
    recipe.standardize_block = block;
    recipe.means = means;
    return recipe;
}

const uint32_t kBoth = QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN;
const uint32_t kParams[] = { 0, 32, 16, 8, 6, 4 };

// Decodes z as the artifact's decoder does.
float decoded(const qem_affine *steps, uint32_t count, uint64_t cols, uint64_t i, uint64_t j, float z)
{
    for (uint32_t s = 0; s < count; s++) {
        const uint64_t u = unit_of({ steps[s].axis, steps[s].block }, cols, i, j);
        z = std::fma(z, steps[s].has_scale ? steps[s].scale[u] : 1.0f, steps[s].has_mean ? steps[s].mean[u] : 0.0f);
    }
    return z;
}

Matrix standardized_by(const Matrix &m, const Steps &steps)
{
    qem_decode_affine views[QEM_MOST_AFFINE];
    qem_affine_views(steps.step, steps.count, views);
    Matrix z(m.rows, m.cols);
    context().must(backend()->standardize(context(), m.x.data(), m.rows, m.cols, views, steps.count, z.x.data()));
    return z;
}

void begin(const Matrix &m, const qem_recipe &recipe, Steps *steps)
{
    context().must(qem_standardize_begin(context(), backend(), m.x.data(), m.rows, m.cols, &recipe, steps->step,
                                         &steps->count));
}

// Stored tables give the expanded ones by the decoder's own formulas.
void expect_expanded(const qem_affine &a)
{
    qem_affine again = a;
    again.scale = again.mean = nullptr;
    context().must(qem_affine_expand(context(), &again));
    if (a.has_scale) {
        EXPECT_EQ(std::memcmp(again.scale, a.scale, a.units * sizeof(float)), 0);
    }
    if (a.has_mean) {
        EXPECT_EQ(std::memcmp(again.mean, a.mean, a.units * sizeof(float)), 0);
    }
    if (again.scale != again.scale_stored) qem_release(context(), again.scale);
    if (again.mean != again.mean_stored) qem_release(context(), again.mean);
}

// What standardization aims at: blocks reach 1, other units have the mean square 1.
void expect_unit_scale(const Matrix &z, uint32_t set, uint64_t block, bool dense)
{
    double square = 0.0;
    for (float v : z.x) square += static_cast<double>(v) * v / static_cast<double>(z.x.size());
    if (!(set & QEM_STANDARDIZE_BLOCK)) {
        EXPECT_LE(square, 1.01);
        if (dense) {
            EXPECT_GE(square, 0.9);
        }
        return;
    }
    for (uint64_t i = 0; i < z.rows; i++)
        for (uint64_t first = 0; first < z.cols; first += block) {
            float largest = 0.0f;
            for (uint64_t j = first; j < std::min(z.cols, first + block); j++) largest = std::max(largest, std::fabs(z.at(i, j)));
            if (largest != 0.0f) {
                ASSERT_NEAR(largest, 1.0f, 0.001) << "row " << i << ", column " << first;
            }
            ASSERT_TRUE(!dense || largest != 0.0f) << "row " << i << ", column " << first;
        }
}

TEST(StandardizeBegin, UndoesToTheMatrixAndLeavesUnitScale)
{
    for (int kind : { 0, 1, 2, 3, 4, 5 })
        for (const auto &[rows, cols] : kShapes)
            for (uint32_t params : kParams)
                for (uint32_t set : { 1u, 2u, kBoth, 4u, 5u }) {
                    if (rows * cols > 10000 && (kind || params != 6)) continue;
                    const Matrix m = any_matrix(kind, rows, cols, 4);
                    SCOPED_TRACE(std::to_string(kind) + ": " + std::to_string(rows) + " x " + std::to_string(cols) +
                                 ", params " +
                                 std::to_string(params) + ", set " + std::to_string(set));
                    Steps steps;
                    const qem_recipe recipe = recipe_for(set, params, set & 4 ? 16 : 0);
                    begin(m, recipe, &steps);
                    ASSERT_EQ(steps.count, static_cast<uint32_t>(__builtin_popcount(set)));
                    uint64_t bytes = 0;
                    for (uint32_t s = 0; s < steps.count; s++) {
                        expect_expanded(steps.step[s]);
                        bytes += qem_affine_bytes(&steps.step[s]);
                        ASSERT_TRUE(s == 0 || steps.step[s].axis != QEM_AXIS_BLOCK) << "blocks come first";
                    }
                    ASSERT_LE(bytes, qem_standardize_bytes(rows, cols, &recipe));
                    double largest_mean = 0.0;
                    for (uint32_t s = 0; s < steps.count; s++)
                        for (uint64_t u = 0; steps.step[s].has_mean && u < steps.step[s].units; u++)
                            largest_mean = std::max<double>(largest_mean, std::fabs(steps.step[s].mean[u]));
                    const Matrix z = standardized_by(m, steps);
                    for (uint64_t i = 0; i < rows; i++)
                        for (uint64_t j = 0; j < cols; j++) {
                            const double largest = std::fabs(m.at(i, j)) + largest_mean;
                            const float back = decoded(steps.step, steps.count, cols, i, j, z.at(i, j));
                            if (z.at(i, j) != 0.0f) {
                                ASSERT_NEAR(back, m.at(i, j), 4e-6 * largest) << i << ", " << j;
                            }
                        }
                    if (params != 0 && params < 16) continue; // integers are coarse
                    ASSERT_NO_FATAL_FAILURE(expect_unit_scale(z, set, 16, kind < 2 && rows * cols > 100));
                }
}

TEST(StandardizeBegin, StoredValuesAreWithinHalfAStep)
{
    for (uint32_t params : { 4u, 5u, 6u, 7u, 8u, 16u, 32u }) {
        const uint64_t rows = 1000, cols = 7;
        Matrix m = gaussian(rows, cols, 3);
        Random random(1);
        for (uint64_t i = 0; i < rows; i++) {
            const double scale = std::exp(random.normal()), offset = random.normal();
            for (uint64_t j = 0; j < cols; j++) m.at(i, j) = static_cast<float>(offset + scale * m.at(i, j));
        }
        Steps exact, steps;
        begin(m, recipe_for(QEM_STANDARDIZE_ROW, 32, 0, QEM_MEANS_ALWAYS), &exact);
        begin(m, recipe_for(QEM_STANDARDIZE_ROW, params, 0, QEM_MEANS_ALWAYS), &steps);
        const qem_affine &a = steps.step[0], &e = exact.step[0];
        for (uint64_t u = 0; u < rows; u++) {
            const double steps_of_scale = params < 16 ? static_cast<double>((1u << params) - 1) : 0;
            const double steps_of_mean = params < 16 ? static_cast<double>((1u << (params - 1)) - 1) : 0;
            const float super = params < 16 ? qem_f16_to_f32(a.mean_super[u / 256]) : 0.0f;
            const double rounding = std::fabs(e.mean[u]) * (params == 16 ? 0.0005 : 0.0);
            const double allowed = params < 16 ? super / steps_of_mean * 0.5001 : rounding;
            ASSERT_NEAR(a.mean[u], e.mean[u], allowed) << "params " << params;
            // the scale is that about the stored mean
            double square = 0.0;
            for (uint64_t j = 0; j < cols; j++) square += std::pow(static_cast<double>(m.at(u, j)) - a.mean[u], 2);
            const double scale = std::sqrt(square / cols);
            if (params >= 16) {
                ASSERT_NEAR(a.scale[u], scale, scale * (params == 16 ? 0.0005 : 1e-6));
                continue;
            }
            const double unit = qem_f16_to_f32(a.scale_super[u / 256]) / steps_of_scale;
            ASSERT_GT(a.scale[u], 0.0f);
            ASSERT_NEAR(a.scale[u], std::max(scale, unit), unit * 0.5001);
        }
        if (params >= 16) continue;
        for (uint64_t s = 0; s < a.supers; s++) { // the least f16 that is not below the largest
            float largest = 0.0f;
            for (uint64_t u = s * 256; u < std::min<uint64_t>(rows, s * 256 + 256); u++)
                largest = std::max(largest, std::fabs(e.mean[u]));
            EXPECT_GE(qem_f16_to_f32(a.mean_super[s]), largest);
            EXPECT_LT(qem_f16_to_f32(static_cast<uint16_t>(a.mean_super[s] - 1)), largest);
        }
    }
}

TEST(StandardizeBegin, FindsTheScalesOfRowsAndColumns)
{
    const uint64_t rows = 400, cols = 300;
    Matrix m = gaussian(rows, cols, 5);
    Random random(2);
    std::vector<double> r(rows), c(cols);
    for (double &v : r) v = std::exp(random.normal());
    for (double &v : c) v = std::exp(2.0 * random.normal());
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) = static_cast<float>(m.at(i, j) * r[i] * c[j] + 3.0 * c[j]);
    Steps steps;
    begin(m, recipe_for(kBoth, 32), &steps);
    ASSERT_EQ(steps.step[0].axis, QEM_AXIS_ROW);
    ASSERT_EQ(steps.step[1].axis, QEM_AXIS_COLUMN);
    EXPECT_FALSE(steps.step[0].has_mean);
    EXPECT_TRUE(steps.step[1].has_mean); // 3 deviations are worth 1.66 bits for each of 400 elements
    const Matrix z = standardized_by(m, steps);
    for (const Axis &a : { Axis{ QEM_AXIS_ROW, 0 }, Axis{ QEM_AXIS_COLUMN, 0 } })
        for (double square : stats_of(context(), z, a).square) ASSERT_NEAR(square, 1.0, 0.01);
    double mean_square = 0.0;
    for (uint64_t i = 0; i < rows; i++) mean_square += std::pow(steps.step[0].scale[i], 2.0) / rows;
    EXPECT_NEAR(mean_square, 1.0, 0.01);
}

TEST(StandardizeBegin, StoresMeansOnlyWhereTheyPay)
{
    for (double offset : { 0.0, 0.1, 0.5, 2.0 }) // saves 0, 0.007, 0.16, 1.16 bits an element
        for (uint64_t rows : { 10, 200, 4000 })
            for (uint32_t params : { 16u, 32u }) {
                Matrix m = gaussian(rows, 16, 3, 1.0, offset);
                Steps steps;
                begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, params), &steps);
                double bits = 0.0;
                for (uint64_t j = 0; j < 16; j++) {
                    double sum = 0.0, square = 0.0;
                    for (uint64_t i = 0; i < rows; i++) {
                        sum += m.at(i, j);
                        square += static_cast<double>(m.at(i, j)) * m.at(i, j);
                    }
                    bits += 0.5 * rows * std::log2(square / (square - sum * sum / rows));
                }
                if (std::fabs(bits - 16 * params) < 8) continue; // rounding of the means may decide
                EXPECT_EQ(steps.step[0].has_mean, bits > 16 * params) << offset << ", " << rows << ", " << params;
            }
    const Matrix m = gaussian(50, 5, 1, 1.0, 10.0);
    Steps always, never;
    begin(gaussian(50, 5, 1), recipe_for(QEM_STANDARDIZE_ROW, 16, 0, QEM_MEANS_ALWAYS), &always);
    begin(m, recipe_for(QEM_STANDARDIZE_ROW, 16, 0, QEM_MEANS_NEVER), &never);
    EXPECT_TRUE(always.step[0].has_mean);
    EXPECT_FALSE(never.step[0].has_mean);
}

TEST(StandardizeBegin, ConstantLinesDecodeToTheirMean)
{
    Matrix m = gaussian(64, 6, 3, 1.0, 5.0);
    for (uint64_t i = 0; i < 64; i++) m.at(i, 2) = 0.7f, m.at(i, 4) = 0.0f;
    for (uint32_t params : { 16u, 32u }) {
        Steps steps;
        begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, params, 0, QEM_MEANS_ALWAYS), &steps);
        const Matrix z = standardized_by(m, steps);
        const float half = qem_f16_to_f32(qem_f32_to_f16(0.7f));
        EXPECT_EQ(steps.step[0].scale[2], 0.0f);
        EXPECT_EQ(steps.step[0].scale[4], 0.0f);
        for (uint64_t i = 0; i < 64; i++) {
            EXPECT_EQ(z.at(i, 2), 0.0f);
            EXPECT_EQ(decoded(steps.step, 1, 6, i, 2, 0.83f), params == 32 ? 0.7f : half); // whatever the code
            EXPECT_EQ(decoded(steps.step, 1, 6, i, 4, 0.83f), 0.0f);
        }
    }
}

// Magnitudes that f16 does not have.
TEST(StandardizeBegin, SaysWhatF16CannotHold)
{
    const struct {
        double size;
        bool small;
    } cases[] = { { 1e30, false }, { 1e-33, true } };
    for (const auto &one : cases)
        for (uint32_t set : { 1u, 2u, kBoth, 4u, 5u })
            for (uint32_t params : { 32u, 16u, 6u }) {
                const Matrix m = gaussian(40, 48, 3, one.size);
                const qem_recipe recipe = recipe_for(set, params, set & 4 ? 16 : 0);
                Steps steps;
                const qem_status status = qem_standardize_begin(context(), backend(), m.x.data(), 40, 48, &recipe,
                                                                steps.step, &steps.count);
                SCOPED_TRACE(std::to_string(one.size) + ", set " + std::to_string(set) + ", params " +
                             std::to_string(params));
                if (params == 32) {
                    ASSERT_EQ(status, QEM_OK);
                    ASSERT_NO_FATAL_FAILURE(expect_unit_scale(standardized_by(m, steps), set, 16, true));
                    continue;
                }
                ASSERT_EQ(status, QEM_ERR_RANGE);
                EXPECT_EQ(steps.count, 0u);
                const char *expected = one.small ? "too small" : "too large";
                EXPECT_NE(context().error().find(expected), std::string::npos) << context().error();
                EXPECT_NE(context().error().find("f32"), std::string::npos);
            }
}

TEST(StandardizeBegin, ALineThatIsNothingBesideTheOthersMayVanish)
{
    Matrix m = gaussian(100, 8, 3);
    for (uint64_t i = 0; i < 100; i++) m.at(i, 3) *= 1e-33f;
    for (uint32_t params : { 16u, 8u, 4u }) {
        Steps steps;
        begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, params), &steps);
        EXPECT_EQ(steps.step[0].scale[3], 0.0f);
        EXPECT_GT(steps.step[0].scale[2], 0.0f);
    }
    for (uint64_t i = 0; i < 100; i++) m.at(i, 3) *= 1e27f; // 1e-6 beside 1: f16 has it, as do 4 bits, coarsely
    for (uint32_t params : { 16u, 8u, 4u }) {
        Steps steps;
        begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, params), &steps);
        EXPECT_GT(steps.step[0].scale[3], 0.0f);
    }
}

TEST(StandardizeBegin, AnOffsetOfManyDeviationsIsTakenOff)
{
    const Matrix m = gaussian(1000, 4, 3, 1.0, 1e5);
    Steps steps;
    begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, 32), &steps);
    for (uint64_t j = 0; j < 4; j++) EXPECT_NEAR(steps.step[0].scale[j], 1.0, 0.1);
}

TEST(StandardizeBegin, ValuesTooFarFromTheirMeanKeepItOut)
{
    Matrix m(400, 1, -3e38f);
    m.x[7] = 3e38f;
    Steps automatic;
    begin(m, recipe_for(QEM_STANDARDIZE_COLUMN, 32), &automatic);
    EXPECT_FALSE(automatic.step[0].has_mean);
    Steps always;
    const qem_recipe recipe = recipe_for(QEM_STANDARDIZE_COLUMN, 32, 0, QEM_MEANS_ALWAYS);
    EXPECT_EQ(qem_standardize_begin(context(), backend(), m.x.data(), 400, 1, &recipe, always.step, &always.count),
              QEM_ERR_RANGE);
    EXPECT_NE(context().error().find("column 0"), std::string::npos) << context().error();
}

TEST(StandardizeBegin, IsTheSameForEveryNumberOfThreadsAndInstructionSet)
{
    const Matrix m = any_matrix(1, 700, 90, 6);
    for (uint32_t set : { 1u, 2u, kBoth, 4u, 5u }) {
        const qem_recipe recipe = recipe_for(set, 6, set & 4 ? 32 : 0);
        Steps expected;
        begin(m, recipe, &expected);
        for (qem_isa isa : available_isas())
            for (uint32_t threads : { 1, 2, 5 }) {
                const Context other(with_threads(threads, isa));
                Steps steps;
                other.must(qem_standardize_begin(other, backend(), m.x.data(), m.rows, m.cols, &recipe, steps.step,
                                                 &steps.count));
                for (uint32_t s = 0; s < steps.count; s++) {
                    const qem_affine &a = steps.step[s], &e = expected.step[s];
                    ASSERT_EQ(a.has_mean, e.has_mean);
                    EXPECT_EQ(std::memcmp(a.scale_stored, e.scale_stored, qem_bit_stream_bytes(a.units, 6)), 0);
                    EXPECT_EQ(std::memcmp(a.scale_super, e.scale_super, a.supers * 2), 0);
                }
            }
    }
}

TEST(AffineStore, KeepsATensorsValueAndItsMean)
{
    for (uint32_t params : { 32u, 16u, 8u }) {
        qem_affine a = qem_affine_make(QEM_AXIS_TENSOR, 0, params, 10, 10);
        a.has_scale = a.has_mean = 1;
        context().must(qem_affine_alloc(context(), &a));
        a.scale[0] = 0.3f;
        a.mean[0] = -7.1f;
        context().must(qem_affine_store(context(), &a));
        EXPECT_NEAR(a.scale[0], 0.3f, 3e-4);
        EXPECT_NEAR(a.mean[0], -7.1f, 4e-3 * 2);
        qem_affine_release(context(), &a);
    }
}

// A failed allocation leaves nothing behind, whichever it is (AddressSanitizer looks).
TEST(StandardizeBegin, LeavesNothingWhereMemoryEnds)
{
    struct Few {
        int left;
    } few = { 0 };
    Options options;
    options.allocator.user = &few;
    options.allocator.allocate = [](void *user, size_t bytes) -> void * {
        return static_cast<Few *>(user)->left-- > 0 ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    };
    options.allocator.release = [](void *, void *pointer) { std::free(pointer); };
    few.left = 100;
    const Context limited(options);
    const Matrix m = gaussian(30, 40, 2, 1.0, 4.0);
    for (uint32_t set : { kBoth, 5u })
        for (uint32_t params : { 6u, 16u, 32u }) {
            qem_status status = QEM_ERR_MEMORY;
            for (int allowed = 0; status != QEM_OK; allowed++) {
                ASSERT_LT(allowed, 200);
                few.left = allowed;
                qem_affine steps[QEM_MOST_AFFINE];
                uint32_t count;
                const qem_recipe recipe = recipe_for(set, params, set & 4 ? 8 : 0);
                status = qem_standardize_begin(limited, backend(), m.x.data(), 30, 40, &recipe, steps, &count);
                if (status != QEM_OK) {
                    ASSERT_EQ(status, QEM_ERR_MEMORY);
                    ASSERT_EQ(count, 0u);
                }
                qem_standardize_release(limited, steps, &count);
            }
        }
}

} // namespace
