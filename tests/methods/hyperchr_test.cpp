// HyperChr: cells by quantiles, codes inside their cell, the default number of intervals.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "support/reference.h"

extern "C" {
#include "core/artifact.h"
}

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_seed(5));
    return one;
}

// numpy's default quantile of the pooled columns p, p + dim, ...
std::vector<float> cuts_of(const Matrix &m, uint32_t dim, uint32_t p, uint32_t intervals)
{
    std::vector<float> pool, cuts;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = p; j < m.cols; j += dim) pool.push_back(m.at(i, j));
    std::sort(pool.begin(), pool.end());
    for (uint32_t c = 1; c < intervals && !pool.empty(); c++) {
        const double at = static_cast<double>(pool.size() - 1) * c / intervals;
        const size_t below = static_cast<size_t>(at);
        const double low = pool[below], high = pool[std::min(below + 1, pool.size() - 1)];
        cuts.push_back(static_cast<float>(low + (high - low) * (at - static_cast<double>(below))));
    }
    return cuts;
}

// Cell id of every sub-vector, [row][group].
std::vector<uint32_t> cells_of(const Matrix &m, uint32_t dim, uint32_t intervals)
{
    std::vector<uint32_t> ids;
    std::vector<std::vector<float>> cuts;
    for (uint32_t p = 0; p < dim; p++) cuts.push_back(cuts_of(m, dim, p, intervals));
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t first = 0; first < m.cols; first += dim) {
            uint32_t id = 0, weight = 1;
            for (uint32_t p = 0; p < dim; p++, weight *= intervals) {
                if (first + p >= m.cols) continue; // the tail's missing positions have index 0
                for (float cut : cuts[p]) id += m.at(i, first + p) >= cut ? weight : 0;
            }
            ids.push_back(id);
        }
    return ids;
}

using Key = std::vector<float>;

Key key_of(const Matrix &m, uint64_t i, uint64_t first, uint32_t dim)
{
    Key key;
    for (uint64_t j = first; j < std::min<uint64_t>(first + dim, m.cols); j++) key.push_back(m.at(i, j) + 0.0f);
    return key;
}

// Checks every code of an artifact against cells found anew.
void check_cells(const Matrix &m, const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    const qem_cells &cells = artifact->cells;
    const Unpacked u = unpack(artifact);
    const std::vector<uint32_t> ids = cells_of(m, info.dim, info.intervals);
    const std::set<uint32_t> occupied(ids.begin(), ids.end());
    ASSERT_EQ(cells.count, occupied.size());
    ASSERT_EQ(info.cells, occupied.size());
    ASSERT_EQ(std::vector<uint32_t>(cells.id, cells.id + cells.count),
              std::vector<uint32_t>(occupied.begin(), occupied.end()));
    ASSERT_EQ(cells.first[0], 0u);
    ASSERT_EQ(cells.first[cells.count], info.k);
    std::map<uint32_t, std::set<Key>> distinct;
    std::map<uint32_t, uint64_t> number;
    for (uint64_t c = 0; c < cells.count; c++) number[cells.id[c]] = c;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t g = 0; g < info.groups; g++) {
            const uint32_t id = ids[i * info.groups + g];
            const uint64_t c = number.at(id);
            ASSERT_GE(u.code(i, g), cells.first[c]);
            ASSERT_LT(u.code(i, g), cells.first[c + 1]);
            distinct[id].insert(key_of(m, i, g * info.dim, info.dim));
            // the best inside the cell
            const float *x = &m.x[i * m.cols + g * info.dim];
            const double least = least_distance(x, u.entry(g, cells.first[c]), cells.first[c + 1] - cells.first[c],
                                                u.stride(g), u.width(g));
            ASSERT_LE(distance(x, u.entry(g, u.code(i, g)), u.width(g)), least * 1.001 + 1e-5);
        }
    for (uint64_t c = 0; c < cells.count; c++) {
        ASSERT_GE(cells.first[c + 1], cells.first[c] + 1);
        ASSERT_LE(cells.first[c + 1] - cells.first[c], distinct.at(cells.id[c]).size());
    }
}

TEST(Hyperchr, EveryCodeLiesInItsOwnCell)
{
    for (uint32_t intervals : { 2, 3, 5 })
        for (uint32_t dim : { 1, 2, 3, 4 })
            for (uint64_t cols : { 4, 7, 12 })
                for (int kind : { 0, 2, 3, 4 }) { // continuous, ties, few rows, one row
                    SCOPED_TRACE("l " + std::to_string(intervals) + ", dim " + std::to_string(dim) + ", cols " +
                                 std::to_string(cols) + ", kind " + std::to_string(kind));
                    const Matrix m = any_matrix(kind, 120, cols, 3);
                    const uint64_t points = m.rows * ((cols + dim - 1) / dim);
                    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, points);
                    recipe.dim = dim;
                    recipe.intervals = intervals;
                    check_cells(m, quantize(context(), m.view(), recipe)); // as many centroids as vectors
                    const std::vector<uint32_t> ids = cells_of(m, dim, intervals);
                    recipe.k = std::min<uint64_t>(points, std::set<uint32_t>(ids.begin(), ids.end()).size() + 10);
                    const Artifact artifact = quantize(context(), m.view(), recipe);
                    check_cells(m, artifact);
                    ASSERT_EQ(decode(context(), artifact), decode_reference(artifact).x);
                    if (HasFatalFailure()) return;
                }
}

TEST(Hyperchr, KIsTheBudgetOrAllDistinctVectors)
{
    const Matrix m = integers(100, 8, 7, 3); // at most 3^4 = 81 vectors
    std::set<Key> distinct;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t first : { 0, 4 }) distinct.insert(key_of(m, i, first, 4));
    for (uint64_t k : { 30, 60, 150 }) {
        qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, k);
        recipe.intervals = 2;
        const qem_artifact_info info = query(quantize(context(), m.view(), recipe));
        EXPECT_EQ(info.k, std::min<uint64_t>(k, distinct.size()));
        if (k == 150) {
            EXPECT_LT(info.metrics.max_error, 1e-6);
        }
    }
}

TEST(Hyperchr, OneIntervalIsVq)
{
    for (uint32_t levels : { 0, 2 })
        for (uint64_t cols : { 8, 11 }) {
            const Matrix m = gaussian(150, cols, 8);
            qem_recipe hyperchr = recipe_ratio(QEM_METHOD_HYPERCHR, 5.0), vq = recipe_ratio(QEM_METHOD_VQ, 5.0);
            hyperchr.intervals = 1;
            hyperchr.levels = vq.levels = levels;
            const Artifact a = quantize(context(), m.view(), hyperchr), b = quantize(context(), m.view(), vq);
            EXPECT_EQ(parts_of(a), parts_of(b));
            EXPECT_EQ(query(a).intervals, 1u);
            EXPECT_EQ(query(b).intervals, 0u);
        }
}

TEST(Hyperchr, DefaultIntervalsFollowTheRule)
{
    std::set<uint32_t> seen;
    for (uint64_t seed = 0; seed < 8; seed++)
        for (double ratio : { 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0 }) {
            const Matrix m = seed % 2 ? heavy_tails(400, 16, seed) : gaussian(400, 16, seed);
            const qem_recipe recipe = recipe_ratio(QEM_METHOD_HYPERCHR, ratio);
            qem_plan by_shape = QEM_PLAN_INIT, plan = QEM_PLAN_INIT;
            qem_view view = m.view();
            context().must(qem_make_plan(context(), &view, &recipe, &plan));
            view.data = nullptr;
            context().must(qem_make_plan(context(), &view, &recipe, &by_shape));
            EXPECT_EQ(by_shape.intervals, 0u); // open without data
            uint32_t expected = 1;
            for (uint32_t l : { 2u, 3u }) {
                const std::vector<uint32_t> ids = cells_of(m, 4, l);
                if (by_shape.k >= 8 * std::set<uint32_t>(ids.begin(), ids.end()).size()) expected = l;
            }
            EXPECT_EQ(plan.intervals, expected) << "ratio " << ratio;
            EXPECT_EQ(query(quantize(context(), m.view(), recipe)).intervals, expected);
            seen.insert(expected);
        }
    EXPECT_EQ(seen, std::set<uint32_t>({ 1, 2, 3 })) << "the cases have to cover all three";
}

TEST(Hyperchr, MoreCellsThanCentroidsAreRefused)
{
    const Matrix m = gaussian(400, 16, 9);
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 20);
    recipe.intervals = 3; // 81 cells
    const qem_view view = m.view();
    qem_artifact *artifact = nullptr;
    // an explicit k contradicts the intervals; a budget is too small for them
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_EQ(artifact, nullptr);
    EXPECT_NE(context().error().find("81"), std::string::npos) << context().error();
    // the ratio that the text names does work
    recipe.k = 0;
    recipe.ratio = 30.0;
    ASSERT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_BUDGET);
    const std::string text = context().error(), before = "largest ratio with one centroid a cell is ";
    ASSERT_NE(text.find(before), std::string::npos) << text;
    recipe.ratio = std::stod(text.substr(text.find(before) + before.size()));
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_OK) << context().error();
    qem_artifact_destroy(&artifact);
}

TEST(Hyperchr, TooManyCellsAreRefused)
{
    const Matrix m = gaussian(20, 8, 10);
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 4);
    const qem_view view = m.view();
    qem_artifact *artifact = nullptr;
    for (auto [intervals, dim] : { std::pair<uint32_t, uint32_t>(255, 4), { 65, 4 }, { 2, 25 }, { 256, 1 } }) {
        recipe.intervals = intervals;
        recipe.dim = dim;
        EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_ARGUMENT)
            << intervals << "^" << dim;
    }
    recipe.intervals = 0; // by default no grid is tried that has too many
    recipe.dim = 30;
    context().must(qem_quantize(context(), &view, nullptr, &recipe, &artifact));
    qem_artifact_destroy(&artifact);
}

} // namespace
