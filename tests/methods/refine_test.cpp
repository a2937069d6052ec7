// HyperChr beyond its cells: global assignment, and Lloyd passes over all centroids together.
#include <gtest/gtest.h>

#include <set>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_seed(11));
    return one;
}

qem_recipe refined(uint64_t k, uint32_t refine, uint32_t intervals = 3, uint32_t dim = 4)
{
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, k);
    recipe.intervals = intervals;
    recipe.dim = dim;
    recipe.iterations = 3;
    recipe.assign = QEM_ASSIGN_GLOBAL;
    recipe.refine = refine;
    return recipe;
}

double mse_of(const Matrix &m, const qem_recipe &recipe)
{
    return query(quantize(context(), m.view(), recipe)).metrics.mse;
}

// Every code is that of a nearest centroid, up to the rounding of f32 scores.
void expect_nearest(const Matrix &m, const Unpacked &u)
{
    const uint64_t groups = (m.cols + u.dim - 1) / u.dim;
    double largest = 0.0;
    for (float x : m.x) largest = std::max(largest, static_cast<double>(std::fabs(x)));
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t g = 0; g < groups; g++) {
            const uint32_t width = static_cast<uint32_t>(std::min<uint64_t>(u.dim, m.cols - g * u.dim));
            const float *x = &m.x[i * m.cols + g * u.dim];
            const double best = least_distance(x, u.codebook.data(), u.k, u.dim, width);
            const double own = distance(x, &u.codebook[u.codes[i * groups + g] * u.dim], width);
            ASSERT_LE(own, best + 1e-5 * largest * largest) << "row " << i << ", group " << g;
        }
}

TEST(Refine, EveryCodeIsThatOfTheNearestCentroid)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t refine : { 0, 2 })
            for (uint32_t dim : { 1, 3, 4, 9 }) { // 61 columns: with and without a tail group
                SCOPED_TRACE("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
                const Matrix m = any_matrix(kind, 150, 61, 3);
                qem_artifact *artifact = nullptr;
                const qem_view view = m.view();
                const qem_recipe recipe = refined(600, refine, dim > 4 ? 1 : 2, dim);
                const qem_status status = qem_quantize(context(), &view, nullptr, &recipe, &artifact);
                const Artifact owner(artifact);
                ASSERT_EQ(status, QEM_OK) << context().error();
                expect_nearest(m, unpack(owner));
            }
}

// One pass from the codes and centroids of refine 0, in double: means of the members, the others on far points.
TEST(Refine, OnePassMovesEveryCentroidToTheMeanOfItsMembers)
{
    for (uint64_t cols : { 32, 30 }) { // 30: the tail group has two positions
        const Matrix m = heavy_tails(400, cols, 5);
        const Unpacked before = unpack(quantize(context(), m.view(), refined(500, 0)));
        const Unpacked after = unpack(quantize(context(), m.view(), refined(500, 1)));
        const uint64_t groups = (cols + 3) / 4;
        std::vector<double> sums(before.k * 4);
        std::vector<uint64_t> full(before.k), all(before.k);
        std::vector<std::pair<double, uint64_t>> errors; // of each sub-vector, and its cluster
        for (uint64_t i = 0; i < m.rows; i++)
            for (uint64_t g = 0; g < groups; g++) {
                const uint64_t width = std::min<uint64_t>(4, cols - 4 * g), code = before.codes[i * groups + g];
                for (uint64_t p = 0; p < width; p++) sums[code * 4 + p] += m.at(i, g * 4 + p);
                all[code]++;
                full[code] += width == 4;
                errors.emplace_back(distance(&m.x[i * cols + g * 4], &before.codebook[code * 4], static_cast<uint32_t>(width)), code);
            }
        // as many of the farthest as there are empty clusters go there: their former clusters' means are others then
        std::sort(errors.rbegin(), errors.rend());
        std::set<uint64_t> robbed;
        for (uint64_t e = 0; e < static_cast<uint64_t>(std::count(all.begin(), all.end(), 0u)) + 3; e++) robbed.insert(errors[e].second);
        uint64_t checked = 0;
        for (uint64_t j = 0; j < before.k; j++) {
            if (all[j] == 0 || robbed.count(j)) continue;
            for (uint64_t p = 0; p < 4; p++) {
                const uint64_t count = p < cols % 4 || cols % 4 == 0 ? all[j] : full[j];
                const double mean = count ? sums[j * 4 + p] / static_cast<double>(count) : 0.0;
                EXPECT_NEAR(after.codebook[j * 4 + p], mean, 1e-4 * std::max(1.0, std::fabs(mean))) << j << " " << p;
            }
            checked++;
        }
        EXPECT_GT(checked, 200u);
        if (HasFailure()) return;
    }
}

// Cells whose centroids all the others' sub-vectors would rather have: clusters run empty and are given far points.
TEST(Refine, EmptyClustersTakeFarPoints)
{
    Matrix m = integers(300, 16, 7, 3); // 81 different sub-vectors, and a few that are alone
    for (uint64_t i = 0; i < 12; i++) m.x[i * 16] = 50.0f + static_cast<float>(i) * 10.0f;
    qem_recipe recipe = refined(90, 0, 2);
    recipe.iterations = 0;
    const double before = mse_of(m, recipe);
    recipe.refine = 6;
    const Artifact artifact = quantize(context(), m.view(), recipe);
    const Unpacked u = unpack(artifact);
    const std::set<uint32_t> used(u.codes.begin(), u.codes.end());
    EXPECT_LE(query(artifact).metrics.mse, before);
    EXPECT_GE(used.size(), 85u) << "of 90 centroids; 93 different sub-vectors are there";
}

TEST(Refine, MorePassesNeverCostError)
{
    for (int kind : { 0, 1, 8 }) {
        const Matrix m = any_matrix(kind, 300, 48, 9);
        qem_recipe recipe = refined(700, 0, 2);
        recipe.assign = QEM_ASSIGN_CELL;
        double last = mse_of(m, recipe);
        for (uint32_t refine : { 0, 1, 2, 5, 10 }) {
            const double now = mse_of(m, refined(700, refine, 2));
            EXPECT_LE(now, last * (1.0 + 1e-6)) << "kind " << kind << ", passes " << refine;
            last = now;
        }
    }
}

// l = 1 has one cell: its passes go on.
TEST(Refine, OneIntervalIsPlainLloyd)
{
    const Matrix m = gaussian(200, 24, 1);
    qem_recipe longer = recipe_k(QEM_METHOD_VQ, 64);
    longer.iterations = 7;
    EXPECT_EQ(parts_of(quantize(context(), m.view(), refined(64, 4, 1))), parts_of(quantize(context(), m.view(), longer)));
}

TEST(Refine, SameBytesOnAnyInstructionSetAndThreads)
{
    for (uint64_t cols : { 40, 43 })
        for (uint64_t k : { 100, 900 }) { // the second: sums in one table that the threads share
            const Matrix m = heavy_tails(300, cols, 2);
            qem_recipe recipe = refined(k, 3, 2);
            if (k == 100) recipe.codebook = QEM_DTYPE_F16;
            const Context one(with_threads(1, QEM_ISA_SCALAR));
            const Artifact expected = quantize(one, m.view(), recipe);
            for (qem_isa isa : available_isas())
                for (uint32_t threads : thread_counts({ 1, 2, 7 })) {
                    if (isa == QEM_ISA_SCALAR && threads == 1) continue; // what is expected
                    const Context other(with_threads(threads, isa));
                    const Artifact got = quantize(other, m.view(), recipe);
                    EXPECT_EQ(parts_of(got), parts_of(expected)) << qem_isa_name(isa) << ", threads " << threads;
                    EXPECT_EQ(query(got).metrics.mse, query(expected).metrics.mse);
                }
        }
}

// Enough sub-vectors for several chunks and for the pruned search.
TEST(Refine, LargeMatrixIsCutIntoChunks)
{
    const Matrix m = gaussian(600, 65, 4);
    const qem_recipe recipe = refined(700, 2, 2, 2);
    const Context fast(with_threads(2)), slow(with_threads(1, QEM_ISA_SCALAR));
    EXPECT_EQ(parts_of(quantize(fast, m.view(), recipe)), parts_of(quantize(slow, m.view(), recipe)));
}

// New rows may take any centroid, too; rows that the fit has seen get their codes again.
TEST(Refine, EncodeIsGlobal)
{
    const Matrix m = gaussian(300, 32, 6);
    const Artifact artifact = quantize(context(), m.view(), refined(400, 2, 2));
    EXPECT_EQ(unpack(encode(context(), artifact, m.view())).codes, unpack(artifact).codes);
}

TEST(Refine, RecipeIsCheckedAndKept)
{
    const Matrix m = gaussian(64, 16, 1);
    const qem_view view = m.view();
    qem_artifact *artifact = nullptr;
    qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 4);
    recipe.refine = 1;
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_NE(context().error().find("pq"), std::string::npos) << context().error();
    recipe.refine = 0;
    recipe.assign = QEM_ASSIGN_GLOBAL;
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_ARGUMENT);
    recipe = recipe_k(QEM_METHOD_HYPERCHR, 16);
    recipe.assign = static_cast<qem_assignment>(7);
    EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_NE(context().error().find('7'), std::string::npos) << context().error();

    const Artifact made = quantize(context(), m.view(), refined(40, 2, 2));
    const qem_artifact_info info = query(made);
    EXPECT_EQ(info.recipe.assign, QEM_ASSIGN_GLOBAL);
    EXPECT_EQ(info.recipe.refine, 2u);
    EXPECT_EQ(info.intervals, 2u);
    qem_plan plan = QEM_PLAN_INIT;
    const qem_recipe asked = refined(40, 2, 2);
    context().must(qem_make_plan(context(), &view, &asked, &plan));
    EXPECT_EQ(plan.stored_bytes, info.stored_bytes);
}

} // namespace
