// Outliers: the selection against a full sort, and what is kept and what is left behind against plain definitions.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "core/half.h"
#include "methods/outliers.h"
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

const std::pair<uint64_t, uint64_t> kShapes[] = { { 1, 1 },   { 1, 700 },  { 700, 1 },   { 5, 7 },
                                                  { 64, 513 }, { 2500, 3 }, { 400, 700 }, { 2, 70000 } };

struct Columns {
    Columns(const Matrix &m, uint64_t seed) : mean(m.cols), inverse(m.cols)
    {
        Random random(seed);
        for (uint64_t j = 0; j < m.cols; j++) {
            mean[j] = static_cast<float>(0.3 * random.normal());
            inverse[j] = random.below(5) ? static_cast<float>(std::exp(random.normal())) : 0.0f;
        }
    }
    std::vector<float> mean, inverse;
};

std::vector<float> scores_of(const Matrix &m, const std::vector<float> &mean, const std::vector<float> &inverse)
{
    std::vector<float> score(m.x.size());
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++) score[i * m.cols + j] = std::fabs(m.at(i, j) - mean[j]) * inverse[j];
    for (float &s : score)
        if (std::isnan(s)) s = 0.0f;
    return score;
}

// By sorting everything: larger scores first, then lower indices.
std::vector<uint64_t> largest_of(const std::vector<float> &score, uint64_t count)
{
    std::vector<uint64_t> order(score.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) { return score[a] > score[b]; });
    order.resize(count);
    std::sort(order.begin(), order.end());
    return order;
}

std::vector<uint64_t> selected(const Context &c, const Matrix &m, const Columns &t, uint64_t count, float threshold)
{
    uint64_t room = 0, found = 0;
    c.must(backend()->select_outliers(c, m.x.data(), m.rows, m.cols, t.mean.data(), t.inverse.data(), count, threshold,
                                      nullptr, &room));
    std::vector<uint64_t> index(room + 1, UINT64_MAX); // one more as a guard
    c.must(backend()->select_outliers(c, m.x.data(), m.rows, m.cols, t.mean.data(), t.inverse.data(), count, threshold,
                                      index.data(), &found));
    EXPECT_EQ(found, room);
    EXPECT_EQ(index.back(), UINT64_MAX);
    index.pop_back();
    return index;
}

TEST(SelectOutliers, AreThoseOfAFullSort)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (const auto &[rows, cols] : kShapes) {
            if (kind > 2 && rows * cols > 10000) continue;
            const Matrix m = any_matrix(kind, rows, cols, 3);
            const Columns t(m, 4);
            const std::vector<float> score = scores_of(m, t.mean, t.inverse);
            const uint64_t n = rows * cols;
            for (uint64_t count : { uint64_t{ 0 }, uint64_t{ 1 }, n / 100, n / 2, n - 1, n }) {
                SCOPED_TRACE(std::to_string(kind) + ": " + std::to_string(rows) + " x " + std::to_string(cols) + ", " +
                             std::to_string(count));
                ASSERT_EQ(selected(context(), m, t, count, 0.0f), largest_of(score, count));
            }
            for (float threshold : { 0.0f, 0.5f, 2.0f, 1e38f }) {
                std::vector<uint64_t> above;
                for (uint64_t i = 0; i < n; i++)
                    if (score[i] > threshold) above.push_back(i);
                ASSERT_EQ(selected(context(), m, t, UINT64_MAX, threshold), above);
            }
        }
}

TEST(SelectOutliers, TakesTiesFromTheFrontAndNeverNaN)
{
    Matrix m(300, 700, 1.0f); // all scores the same, over several chunks
    Columns t(m, 1);
    std::fill(t.mean.begin(), t.mean.end(), 0.0f);
    std::fill(t.inverse.begin(), t.inverse.end(), 1.0f);
    for (uint64_t count : { 1, 699, 70000, 209999 }) {
        std::vector<uint64_t> first(count);
        std::iota(first.begin(), first.end(), 0);
        ASSERT_EQ(selected(context(), m, t, count, 0.0f), first);
    }
    m.at(250, 3) = 3e38f;
    t.mean[3] = -3e38f;
    t.inverse[3] = 0.0f; // infinity * 0
    m.at(299, 699) = 1.5f;
    EXPECT_EQ(selected(context(), m, t, 1, 0.0f), std::vector<uint64_t>({ 299 * 700 + 699 }));
}

TEST(SelectOutliers, IsTheSameForEveryNumberOfThreadsAndInstructionSet)
{
    const Matrix m = integers(3000, 97, 4, 9);
    const Columns t(m, 2);
    const std::vector<uint64_t> expected = selected(Context(with_threads(1, QEM_ISA_SCALAR)), m, t, 3333, 0.0f);
    for (qem_isa isa : available_isas())
        for (uint32_t threads : { 1, 2, 7 })
            EXPECT_EQ(selected(Context(with_threads(threads, isa)), m, t, 3333, 0.0f), expected);
}

TEST(SingleElements, AreMovedAndMatricesSubtracted)
{
    Matrix m = gaussian(300, 500, 1), other = gaussian(300, 500, 2);
    const std::vector<uint64_t> index = { 0, 7, 149998, 149999 };
    std::vector<float> value(4), fresh = { 1, 2, 3, 4 };
    Matrix x = m;
    context().must(backend()->gather(context(), x.x.data(), index.data(), 4, value.data()));
    context().must(backend()->scatter(context(), x.x.data(), index.data(), fresh.data(), 4));
    for (size_t i = 0; i < 4; i++) {
        EXPECT_EQ(value[i], m.x[index[i]]);
        EXPECT_EQ(x.x[index[i]], fresh[i]);
        x.x[index[i]] = value[i];
    }
    EXPECT_EQ(x.x, m.x);
    context().must(backend()->subtract(context(), x.x.data(), other.x.data(), x.x.size()));
    for (size_t i = 0; i < x.x.size(); i++) ASSERT_EQ(x.x[i], m.x[i] - other.x[i]);
}

// ---- what a recipe takes ----

struct Outliers {
    Outliers() = default;
    Outliers(const Outliers &) = delete;
    ~Outliers() { qem_outliers_release(context(), &list); }
    qem_outliers list = {};
};

qem_recipe recipe_for(double fraction, double sigma = 0.0, uint32_t params = 0)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.outliers = fraction;
    recipe.outlier_sigma = sigma;
    recipe.params = params;
    return recipe;
}

void take(const Matrix &m, const qem_recipe &recipe, qem_dtype source, Matrix *cleaned, Outliers *out)
{
    *cleaned = m;
    std::vector<float> replaced(m.cols);
    context().must(qem_outliers_take(context(), backend(), m.x.data(), m.rows, m.cols, &recipe, source, cleaned->x.data(),
                                     replaced.data(), &out->list));
    for (uint64_t i = 0; i < out->list.count; i++) {
        const uint64_t at = qem_outlier_index(&out->list, i);
        ASSERT_EQ(cleaned->x[at], replaced[at % m.cols]);
    }
}

// Columns of other offsets and sizes, so that one score for all would pick others.
Matrix spread_columns(uint64_t rows, uint64_t cols, uint64_t seed)
{
    Matrix m = heavy_tails(rows, cols, seed);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++)
            m.at(i, j) = static_cast<float>(m.at(i, j) * std::exp(0.3 * static_cast<double>(j % 11)) +
                                            static_cast<double>(j % 7));
    return m;
}

struct Deviations {
    explicit Deviations(const Matrix &m) : mean(m.cols), deviation(m.cols)
    {
        for (uint64_t j = 0; j < m.cols; j++) {
            long double sum = 0, square = 0;
            for (uint64_t i = 0; i < m.rows; i++) sum += m.at(i, j);
            const long double center = sum / m.rows;
            for (uint64_t i = 0; i < m.rows; i++) square += (m.at(i, j) - center) * (m.at(i, j) - center);
            mean[j] = static_cast<double>(center);
            deviation[j] = static_cast<double>(sqrtl(square / m.rows));
        }
    }
    double score(const Matrix &m, uint64_t index) const
    {
        const uint64_t j = index % m.cols;
        return deviation[j] == 0.0 ? 0.0 : std::fabs(m.x[index] - mean[j]) / deviation[j];
    }
    std::vector<double> mean, deviation;
};

// The kept ones are the largest, up to the rounding of a score; the rest is as it was; outliers became means of what is left.
void expect_taken(const Matrix &m, const Matrix &cleaned, const qem_outliers &o)
{
    const Deviations d(m);
    std::vector<bool> taken(m.x.size());
    double least = INFINITY, greatest = 0.0;
    for (uint64_t i = 0; i < o.count; i++) {
        const uint64_t index = qem_outlier_index(&o, i);
        ASSERT_LT(index, m.x.size());
        ASSERT_TRUE(i == 0 || index > qem_outlier_index(&o, i - 1));
        taken[index] = true;
        least = std::min(least, d.score(m, index));
        ASSERT_EQ(o.value[i], m.x[index]);
    }
    for (uint64_t i = 0; i < m.x.size(); i++) {
        if (taken[i]) continue;
        greatest = std::max(greatest, d.score(m, i));
        ASSERT_EQ(cleaned.x[i], m.x[i]);
    }
    ASSERT_GE(least, greatest * (1 - 1e-6));
    for (uint64_t j = 0; j < m.cols; j++) {
        long double sum = 0, magnitude = 0;
        uint64_t count = 0;
        for (uint64_t i = 0; i < m.rows; i++)
            if (!taken[i * m.cols + j]) sum += m.at(i, j), magnitude += std::fabs(m.at(i, j)), count++;
        const double mean = count ? static_cast<double>(sum / count) : d.mean[j];
        for (uint64_t i = 0; i < m.rows; i++)
            if (taken[i * m.cols + j]) {
                ASSERT_NEAR(cleaned.at(i, j), mean,
                            1e-6 * (count ? static_cast<double>(magnitude / count) : std::fabs(mean)));
            }
    }
}

TEST(Outliers, OfAFractionAreTheLargest)
{
    for (const auto &[rows, cols] : kShapes)
        for (double fraction : { 0.0, 0.001, 0.07, 0.5 }) {
            SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", " + std::to_string(fraction));
            const Matrix m = spread_columns(rows, cols, 3);
            const qem_recipe recipe = recipe_for(fraction);
            Matrix cleaned;
            Outliers o;
            take(m, recipe, QEM_DTYPE_F32, &cleaned, &o);
            const uint64_t n = rows * cols;
            ASSERT_EQ(o.list.count, static_cast<uint64_t>(std::llround(fraction * static_cast<double>(n))));
            ASSERT_EQ(o.list.count, qem_outliers_count(rows, cols, fraction));
            uint64_t expected = 0;
            context().must(qem_outliers_expected(context(), backend(), m.x.data(), rows, cols, &recipe, &expected));
            EXPECT_EQ(expected, o.list.count);
            if (o.list.count == 0) {
                EXPECT_EQ(o.list.index, nullptr);
                EXPECT_EQ(cleaned.x, m.x);
                continue;
            }
            EXPECT_EQ(o.list.index_size, 4u);
            EXPECT_EQ(qem_outliers_bytes(&o.list), 8 * o.list.count);
            expect_taken(m, cleaned, o.list);
        }
}

TEST(Outliers, OfASigmaAreAllBeyondIt)
{
    const Matrix m = spread_columns(900, 40, 5);
    const Deviations d(m);
    for (double sigma : { 1.0, 3.0, 8.0, 1000.0 }) {
        const qem_recipe recipe = recipe_for(0.0, sigma);
        Matrix cleaned;
        Outliers o;
        take(m, recipe, QEM_DTYPE_F32, &cleaned, &o);
        uint64_t beyond = 0, expected = 0;
        for (uint64_t i = 0; i < m.x.size(); i++) beyond += d.score(m, i) > sigma;
        EXPECT_EQ(o.list.count, beyond);
        context().must(qem_outliers_expected(context(), backend(), m.x.data(), m.rows, m.cols, &recipe, &expected));
        EXPECT_EQ(expected, beyond);
        if (beyond) expect_taken(m, cleaned, o.list);
    }
}

TEST(Outliers, AConstantColumnHasNoneBySigmaAndTheLastByFraction)
{
    Matrix m = gaussian(50, 3, 2);
    for (uint64_t i = 0; i < 50; i++) m.at(i, 1) = 0.1f;
    Matrix cleaned;
    Outliers sigma, fraction;
    take(m, recipe_for(0.0, 1e-3), QEM_DTYPE_F32, &cleaned, &sigma);
    for (uint64_t i = 0; i < sigma.list.count; i++) ASSERT_NE(qem_outlier_index(&sigma.list, i) % 3, 1u);
    take(m, recipe_for(0.5), QEM_DTYPE_F32, &cleaned, &fraction);
    ASSERT_EQ(fraction.list.count, 75u);
    for (uint64_t i = 0; i < 75; i++) ASSERT_NE(qem_outlier_index(&fraction.list, i) % 3, 1u);
    expect_taken(m, cleaned, fraction.list);
    const Matrix constant(6, 4, 7.5f);
    Outliers all;
    take(constant, recipe_for(0.25), QEM_DTYPE_F32, &cleaned, &all);
    ASSERT_EQ(all.list.count, 6u);
    for (uint64_t i = 0; i < 6; i++) EXPECT_EQ(qem_outlier_index(&all.list, i), i);
    EXPECT_EQ(cleaned.x, constant.x);
}

TEST(Outliers, HugeOnesLeaveTheMeanOfTheOthersAlone)
{
    Matrix m = gaussian(1000, 4, 7, 1.0, 2.0);
    m.at(3, 1) = 3e38f;
    m.at(900, 1) = -2e38f;
    m.at(17, 2) = 1e30f;
    Matrix cleaned;
    Outliers o;
    take(m, recipe_for(3.0 / 4000), QEM_DTYPE_F32, &cleaned, &o);
    ASSERT_EQ(o.list.count, 3u);
    expect_taken(m, cleaned, o.list);
    EXPECT_NEAR(cleaned.at(3, 1), 2.0f, 0.2f);
    EXPECT_NEAR(cleaned.at(17, 2), 2.0f, 0.2f);
}

TEST(Outliers, TinyAndOffsetColumnsAreJudgedByTheirOwnDeviation)
{
    Matrix m = gaussian(500, 3, 7);
    for (uint64_t i = 0; i < 500; i++) {
        m.at(i, 0) *= 1e-33f;
        m.at(i, 1) = 1e6f + m.at(i, 1);
    }
    m.at(7, 0) = 2e-31f;
    m.at(9, 1) = 1e6f + 100.0f;
    m.at(11, 2) = 50.0f;
    Matrix cleaned;
    Outliers o;
    take(m, recipe_for(0.002), QEM_DTYPE_F32, &cleaned, &o);
    ASSERT_EQ(o.list.count, 3u);
    EXPECT_EQ(qem_outlier_index(&o.list, 0), 21u);
    EXPECT_EQ(qem_outlier_index(&o.list, 1), 28u);
    EXPECT_EQ(qem_outlier_index(&o.list, 2), 35u);
}

TEST(Outliers, AreHalvesForHalvesAndWhereParamsSaySo)
{
    Matrix m = gaussian(100, 10, 3), cleaned;
    for (qem_dtype source : { QEM_DTYPE_F32, QEM_DTYPE_F16 })
        for (uint32_t params : { 0u, 16u, 32u }) {
            Outliers o;
            take(m, recipe_for(0.01, 0.0, params), source, &cleaned, &o);
            const bool halves = source == QEM_DTYPE_F16 || params == 16;
            ASSERT_EQ(o.list.value_dtype, halves ? QEM_DTYPE_F16 : QEM_DTYPE_F32);
            EXPECT_EQ(qem_outliers_bytes(&o.list), 10u * (halves ? 6 : 8));
            for (uint64_t i = 0; i < o.list.count; i++) {
                const float x = m.x[qem_outlier_index(&o.list, i)];
                EXPECT_EQ(o.list.value[i], halves ? qem_f16_to_f32(qem_f32_to_f16(x)) : x);
            }
        }
    m.at(5, 5) = 70000.0f;
    const qem_recipe recipe = recipe_for(0.01, 0.0, 16);
    Outliers o;
    std::vector<float> replaced(10);
    EXPECT_EQ(qem_outliers_take(context(), backend(), m.x.data(), 100, 10, &recipe, QEM_DTYPE_F32, cleaned.x.data(),
                                replaced.data(), &o.list), QEM_ERR_RANGE);
    EXPECT_NE(context().error().find("(5, 5)"), std::string::npos) << context().error();
    EXPECT_EQ(o.list.count, 0u);
}

TEST(Outliers, LeaveNothingWhereMemoryEnds)
{
    int left = 100;
    Options options;
    options.allocator.user = &left;
    options.allocator.allocate = [](void *user, size_t bytes) -> void * {
        return (*static_cast<int *>(user))-- > 0 ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    };
    options.allocator.release = [](void *, void *pointer) { std::free(pointer); };
    const Context limited(options);
    const Matrix m = gaussian(30, 40, 2);
    std::vector<float> replaced(40);
    for (const qem_recipe &recipe : { recipe_for(0.1), recipe_for(0.1, 0.0, 16), recipe_for(0.0, 1.0) }) {
        qem_status status = QEM_ERR_MEMORY;
        for (int allowed = 0; status != QEM_OK; allowed++) {
            ASSERT_LT(allowed, 100);
            Matrix cleaned = m;
            qem_outliers o;
            left = allowed;
            status = qem_outliers_take(limited, backend(), m.x.data(), 30, 40, &recipe, QEM_DTYPE_F32, cleaned.x.data(),
                                       replaced.data(), &o);
            if (status != QEM_OK) {
                ASSERT_EQ(status, QEM_ERR_MEMORY);
            }
            qem_outliers_release(limited, &o);
        }
    }
}

} // namespace
