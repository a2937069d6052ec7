// New rows against the codebooks of an artifact.
#include <gtest/gtest.h>

#include <set>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(2));
    return one;
}

void expect_same_codebook(const Artifact &a, const Artifact &b)
{
    auto x = parts_of(a), y = parts_of(b);
    for (const char *part : { "codebook", "scale", "mean" }) EXPECT_EQ(x[part], y[part]) << part;
}

TEST(Encode, TheSameRowsAgainGiveTheSameError)
{
    for (qem_method method : kMethods)
        for (uint32_t levels : { 0, 2 })
            for (qem_dtype stored : { QEM_DTYPE_F32, QEM_DTYPE_F16 })
                for (int kind : { 0, 1, 2, 3 })
                    for (uint64_t cols : { 12, 15 }) {
                        const Matrix m = any_matrix(kind, 70, cols, 1);
                        qem_recipe recipe = recipe_k(method, 16);
                        recipe.levels = levels;
                        recipe.codebook = stored;
                        SCOPED_TRACE(std::string(qem_method_name(method)) + ", kind " + std::to_string(kind));
                        const Artifact base = quantize(context(), m.view(), recipe);
                        const Artifact again = encode(context(), base, m.view());
                        const double first = query(base).metrics.mse, second = query(again).metrics.mse;
                        EXPECT_NEAR(second, first, 1e-6 * first + 1e-14);
                        expect_same_codebook(base, again);
                        EXPECT_EQ(decode(context(), again), decode_reference(again).x);
                    }
}

TEST(Encode, ResultDescribesItself)
{
    const Matrix m = gaussian(60, 10, 1), more = gaussian(7, 10, 2);
    for (qem_method method : kMethods) {
        const Artifact base = quantize(context(), m.view(), recipe_ratio(method, 3.0));
        const Artifact artifact = encode(context(), base, more.view());
        const qem_artifact_info a = query(artifact), b = query(base);
        EXPECT_STREQ(a.name, "more");
        EXPECT_EQ(a.method, method);
        EXPECT_EQ(a.rows, 7u);
        EXPECT_EQ(a.cols, 10u);
        EXPECT_EQ(a.k, b.k);
        EXPECT_EQ(a.dim, b.dim);
        EXPECT_EQ(a.levels, b.levels);
        EXPECT_EQ(a.intervals, b.intervals);
        EXPECT_EQ(a.code_bits, b.code_bits);
        uint64_t bytes = 0;
        for (const auto &part : parts_of(artifact)) bytes += part.second.size();
        EXPECT_EQ(a.stored_bytes, bytes);
        const Errors e = errors_of(more.x, decode(context(), artifact));
        EXPECT_NEAR(a.metrics.mse, e.mse, 1e-12 * e.mse);
        // and can be a base itself
        EXPECT_EQ(parts_of(encode(context(), artifact, more.view())), parts_of(artifact));
    }
}

TEST(Encode, NewRowsOfTheSameKindDecodeSensibly)
{
    const Matrix m = gaussian(2000, 16, 1), more = gaussian(500, 16, 2);
    for (qem_method method : kMethods) {
        const Artifact base = quantize(context(), m.view(), recipe_k(method, 16));
        const double fitted = query(base).metrics.nmse,
                     fresh = query(encode(context(), base, more.view())).metrics.nmse;
        EXPECT_LT(fresh, 1.15 * fitted) << qem_method_name(method);
    }
}

// A code does not depend on the other rows that are encoded with it, nor on threads or instruction sets.
TEST(Encode, RowsAreIndependent)
{
    const Matrix m = gaussian(300, 14, 1);
    Matrix more = gaussian(50, 14, 2);
    more.at(49, 3) = 1e30f; // a wild row must not disturb the others
    for (qem_method method : kMethods) {
        const Artifact base = quantize(context(), m.view(), recipe_k(method, 32));
        const std::vector<float> all = decode(context(), encode(context(), base, more.view()));
        for (uint64_t i = 0; i < more.rows; i += 7) {
            Matrix one(1, 14);
            one.x.assign(more.x.begin() + i * 14, more.x.begin() + (i + 1) * 14);
            EXPECT_EQ(decode(context(), encode(context(), base, one.view())),
                      std::vector<float>(all.begin() + i * 14, all.begin() + (i + 1) * 14))
                << qem_method_name(method) << ", row " << i;
        }
        const auto expected = parts_of(encode(context(), base, more.view()));
        for (qem_isa isa : available_isas())
            for (uint32_t threads : thread_counts({ 1, 3 })) {
                const Context other(with_threads(threads, isa));
                EXPECT_EQ(parts_of(encode(other, base, more.view())), expected) << qem_isa_name(isa);
            }
    }
}

// Fitted on values near two corners, then asked for the corners that had no cell.
TEST(Encode, RowsInAnEmptyCellMayTakeAnyCentroid)
{
    Matrix m(400, 4);
    Random random(1);
    for (uint64_t i = 0; i < m.rows; i++) {
        const double centre = i % 2 ? 10.0 : -10.0; // all four positions together: two of the 16 cells
        for (uint64_t j = 0; j < 4; j++) m.at(i, j) = static_cast<float>(centre + random.normal());
    }
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 40);
    recipe.intervals = 2;
    const Artifact base = quantize(context(), m.view(), recipe);
    ASSERT_LT(query(base).cells, 16u);
    Matrix more(3, 4);
    more.x = { 10, -10, 10, -10, -9, 9, -9, 9.5, 10, 10, 10, -2 };
    const Unpacked u = unpack(encode(context(), base, more.view()));
    for (uint64_t i = 0; i < more.rows; i++) {
        double least = INFINITY;
        for (uint64_t c = 0; c < u.k; c++) least = std::min(least, distance(&more.x[i * 4], u.entry(0, c), 4));
        EXPECT_LE(distance(&more.x[i * 4], u.entry(0, u.code(i, 0)), 4), least * 1.00001) << "row " << i;
    }
}

// More cells than codebooks are made ready at once: a row's codes do not depend on the rows beside it.
TEST(Encode, RowsOfVeryManyCells)
{
    const uint32_t intervals = 100;
    const uint64_t groups = 10, rows = 9000, width = groups * 3;
    const Matrix m = gaussian(4, width, 4), more = gaussian(rows, width, 5);
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 40);
    recipe.dim = 3;
    recipe.intervals = intervals;
    recipe.iterations = 1;
    const uint64_t inner = intervals - 1;
    std::vector<float> cuts(3 * inner);
    const qem_view view = m.view();
    context().must(qem_quantiles(context(), &view, 3, intervals, cuts.data()));
    std::set<uint64_t> cells;
    for (uint64_t i = 0; i < more.x.size(); i += 3) {
        uint64_t id = 0;
        for (uint64_t p = 0; p < 3; p++) {
            const float *first = &cuts[p * inner];
            id = id * intervals + static_cast<uint64_t>(std::upper_bound(first, first + inner, more.x[i + p]) - first);
        }
        cells.insert(id);
    }
    ASSERT_GT(cells.size(), 65536u);
    const Artifact base = quantize(context(), m.view(), recipe);
    const Unpacked whole = unpack(encode(context(), base, more.view()));
    for (uint64_t first = 0; first < rows; first += 4500) {
        Matrix part(4500, width);
        std::copy_n(&more.x[first * width], part.x.size(), part.x.begin());
        const Unpacked u = unpack(encode(context(), base, part.view()));
        ASSERT_TRUE(std::equal(u.codes.begin(), u.codes.end(), whole.codes.begin() + static_cast<ptrdiff_t>(first * groups)));
    }
}

// Codebooks whose tail group alone, being narrower, is searched in tiles.
TEST(Encode, PrunedTailGroupBesideWiderGroups)
{
    for (uint32_t dim : { 4, 12 }) {
        const Matrix m = gaussian(1500, dim + 2, 8), more = heavy_tails(1300, dim + 2, 9);
        qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 600);
        recipe.dim = dim;
        recipe.iterations = 1;
        const Artifact base = quantize(context(), m.view(), recipe);
        const Context slow(with_threads(1, QEM_ISA_SCALAR));
        const auto expected = parts_of(encode(slow, base, more.view()));
        for (qem_isa isa : available_isas())
            EXPECT_EQ(parts_of(encode(Context(with_threads(2, isa)), base, more.view())), expected) << qem_isa_name(isa);
    }
}

// A group with fewer distinct sub-vectors than k has entries that were never set: they must not spoil its codes.
TEST(Encode, GroupsWithUnusedEntriesAreExact)
{
    Matrix m = gaussian(64, 8, 1);
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < 4; j++) m.at(i, j) = 10000.0f + static_cast<float>(i % 2) * 0.01f; // two sub-vectors
    const Artifact base = quantize(context(), m.view(), recipe_k(QEM_METHOD_PQ, 16));
    const std::vector<float> fitted = decode(context(), base),
                             again = decode(context(), encode(context(), base, m.view()));
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < 4; j++) {
            ASSERT_EQ(fitted[i * 8 + j], m.at(i, j));
            ASSERT_EQ(again[i * 8 + j], m.at(i, j)) << "row " << i;
        }
}

TEST(Encode, ShiftedDataKeepTheirError)
{
    const Matrix m = gaussian(500, 8, 1, 1.0, 10000.0);
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_VQ, QEM_METHOD_HYPERCHR, QEM_METHOD_LLOYDMAX }) {
        const Artifact base = quantize(context(), m.view(), recipe_k(method, 16));
        EXPECT_NEAR(query(encode(context(), base, m.view())).metrics.mse, query(base).metrics.mse,
                    1e-4 * query(base).metrics.mse)
            << qem_method_name(method);
    }
}

} // namespace
