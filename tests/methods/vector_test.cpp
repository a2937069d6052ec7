// vq, pq and qet by their definitions: codes, codebooks, tails, caps, and what the knobs of the k-means do.
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

double mse_of(const Matrix &m, const qem_recipe &recipe)
{
    return query(quantize(context(), m.view(), recipe)).metrics.mse;
}

// Every code is the entry nearest to its sub-vector, up to the rounding of f32 scores of centred points: their error is
// some 2^-22 of the squared radius.
void expect_nearest(const Matrix &points, const Unpacked &u)
{
    for (uint64_t g = 0; g < u.groups; g++) {
        double low = INFINITY, high = -INFINITY;
        for (uint64_t i = 0; i < u.rows; i++)
            for (uint64_t j = u.per_group ? g * u.dim : 0; j < (u.per_group ? g * u.dim + u.width(g) : u.cols); j++) {
                low = std::min(low, static_cast<double>(points.at(i, j)));
                high = std::max(high, static_cast<double>(points.at(i, j)));
            }
        const double slack = 2e-6 * u.dim * (high - low) * (high - low);
        for (uint64_t i = 0; i < u.rows; i++) {
            const float *x = &points.x[i * u.cols + g * u.dim];
            const double least = least_distance(x, u.entry(g, 0), u.k, u.stride(g), u.width(g));
            ASSERT_LE(distance(x, u.entry(g, u.code(i, g)), u.width(g)), least + slack)
                << "row " << i << ", group " << g;
        }
    }
}

TEST(Vector, CodesAreNearestUnderTheStoredCodebook)
{
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET })
        for (qem_dtype stored : { QEM_DTYPE_F32, QEM_DTYPE_F16 })
            for (uint32_t dim : { 1, 2, 3, 4, 7, 16 })
                for (int kind : { 0, 1, 2, 3 }) {
                    SCOPED_TRACE(std::string(qem_method_name(method)) + ", dim " + std::to_string(dim) + ", kind " +
                                 std::to_string(kind));
                    const Matrix m = any_matrix(kind, 60, 17, dim);
                    qem_recipe recipe = recipe_k(method, 9);
                    recipe.dim = dim;
                    recipe.codebook = stored;
                    const Artifact artifact = quantize(context(), m.view(), recipe);
                    const Unpacked u = unpack(artifact);
                    expect_nearest(u.levels ? swap_reference(m, u.levels).ordered : m, u);
                    if (HasFatalFailure()) return;
                    ASSERT_EQ(decode(context(), artifact), decode_reference(artifact).x);
                }
}

TEST(Vector, QetIsPqOnTheSwappedMatrix)
{
    for (uint32_t levels : { 1, 2, 3, 8 })
        for (uint64_t cols : { 1, 2, 7, 16, 21 }) {
            const Matrix m = integers(50, cols, levels, 9);
            const Swapped swapped = swap_reference(m, levels);
            qem_recipe qet = recipe_k(QEM_METHOD_QET, 6), pq = recipe_k(QEM_METHOD_PQ, 6);
            qet.levels = levels;
            auto parts = parts_of(quantize(context(), m.view(), qet));
            EXPECT_EQ(parts["swap_map"], bits_to_bytes(swapped.bits)) << cols << " columns, levels " << levels;
            parts.erase("swap_map");
            EXPECT_EQ(parts, parts_of(quantize(context(), swapped.ordered.view(), pq)));
            pq.levels = levels; // and qet is no more than a name for this
            EXPECT_EQ(parts_of(quantize(context(), m.view(), qet)), parts_of(quantize(context(), m.view(), pq)));
        }
}

// A tail group is as good as the same columns in a matrix of their own.
TEST(Vector, TailGroupIsAProblemOfItsOwn)
{
    const Matrix m = gaussian(80, 10, 4); // groups of 4, 4, 2
    Matrix tail(80, 2);
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < 2; j++) tail.at(i, j) = m.at(i, 8 + j);
    const Artifact artifact = quantize(context(), m.view(), recipe_k(QEM_METHOD_PQ, 5));
    EXPECT_EQ(query(artifact).parts.codebook, 4u * 5 * 10); // no bytes for positions that are not there
    const Unpacked u = unpack(artifact);
    const std::vector<float> decoded = decode(context(), artifact);
    double error = 0.0;
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 8; j < 10; j++) error += std::pow(static_cast<double>(m.at(i, j)) - decoded[i * 10 + j], 2.0);
    qem_recipe alone = recipe_k(QEM_METHOD_PQ, 5);
    alone.dim = 2;
    EXPECT_NEAR(error, mse_of(tail, alone) * 160.0, 0.15 * error); // other draws, so equal up to luck
}

// In a shared codebook a component that only tail sub-vectors could fill is 0.
TEST(Vector, SharedComponentWithoutMembersIsZero)
{
    Matrix m(40, 6); // groups of 4 and 2; the tail lies far from everything else
    Random random(2);
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++)
            m.at(i, j) = static_cast<float>(random.normal() + (j >= 4 ? 1000.0 : 10.0));
    const Unpacked u = unpack(quantize(context(), m.view(), recipe_k(QEM_METHOD_VQ, 8)));
    std::set<uint32_t> full, tail;
    for (uint64_t i = 0; i < m.rows; i++) {
        full.insert(u.code(i, 0));
        tail.insert(u.code(i, 1));
    }
    int seen = 0;
    for (uint32_t code : tail)
        if (!full.count(code)) {
            seen++;
            EXPECT_EQ(u.entry(1, code)[2], 0.0f);
            EXPECT_EQ(u.entry(1, code)[3], 0.0f);
            EXPECT_NEAR(u.entry(1, code)[0], 1000.0f, 10.0f);
        }
    EXPECT_GT(seen, 0);
}

TEST(Vector, FewDistinctSubvectorsCapKAndAreExact)
{
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_HYPERCHR })
        for (uint64_t distinct : { 1, 2, 5 }) {
            const Matrix m = repeated_rows(100, 8, distinct, distinct);
            SCOPED_TRACE(qem_method_name(method));
            for (const qem_recipe &recipe : { recipe_k(method, 64), recipe_ratio(method, 0.5) }) {
                const Artifact artifact = quantize(context(), m.view(), recipe);
                const uint64_t expected = is_per_group(method) ? distinct : 2 * distinct; // two groups of 4
                EXPECT_EQ(query(artifact).k, expected);
                EXPECT_LT(query(artifact).metrics.max_error, 1e-6); // centring rounds
            }
        }
}

TEST(Vector, ExplicitKIsObeyed)
{
    const Matrix m = gaussian(100, 12, 6);
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_HYPERCHR, QEM_METHOD_LLOYDMAX })
        for (uint64_t k : { 1, 2, 3, 17, 64, 100 }) {
            const qem_artifact_info info = query(quantize(context(), m.view(), recipe_k(method, k)));
            EXPECT_EQ(info.k, k) << qem_method_name(method);
            EXPECT_EQ(info.budget_bytes, info.stored_bytes);
            uint32_t bits = 0;
            while ((uint64_t(1) << bits) < k) bits++;
            EXPECT_EQ(info.code_bits, bits);
        }
}

// ---- knobs ----

TEST(Vector, RestartsAreNeverWorse)
{
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR })
        for (uint64_t seed = 0; seed < 5; seed++) {
            const Matrix m = heavy_tails(200, 8, seed);
            qem_recipe recipe = recipe_k(method, 24);
            double before = INFINITY;
            for (uint32_t restarts : { 1, 2, 3, 7 }) {
                recipe.restarts = restarts;
                const double mse = mse_of(m, recipe);
                ASSERT_LE(mse, before * (1.0 + 1e-6)) << qem_method_name(method) << ", seed " << seed;
                before = mse;
            }
        }
}

TEST(Vector, IterationsAreNeverWorse)
{
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_QET }) {
        const Matrix m = gaussian(300, 8, 21);
        qem_recipe recipe = recipe_k(method, 16);
        double before = INFINITY;
        for (uint32_t iterations : { 0, 1, 2, 5, 20, 200 }) {
            recipe.iterations = iterations;
            const double mse = mse_of(m, recipe);
            EXPECT_LE(mse, before * (1.0 + 1e-6)) << qem_method_name(method) << ", iterations " << iterations;
            before = mse;
        }
    }
}

TEST(Vector, WithoutIterationsTheCentroidsAreSubvectors)
{
    const Matrix m = gaussian(100, 8, 22);
    qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 10);
    recipe.iterations = 0;
    const Unpacked u = unpack(quantize(context(), m.view(), recipe));
    for (uint64_t g = 0; g < u.groups; g++)
        for (uint64_t c = 0; c < u.k; c++) {
            double least = INFINITY;
            for (uint64_t i = 0; i < m.rows; i++)
                least = std::min(least, distance(&m.x[i * 8 + g * 4], u.entry(g, c), 4));
            EXPECT_LT(least, 1e-12);
        }
}

TEST(Vector, ToleranceStopsEarlier)
{
    const Matrix m = gaussian(500, 8, 23);
    qem_recipe recipe = recipe_k(QEM_METHOD_VQ, 32);
    recipe.iterations = 100;
    const double full = mse_of(m, recipe);
    recipe.tolerance = 0.02;
    const double early = mse_of(m, recipe);
    recipe.tolerance = 0.0;
    recipe.iterations = 1;
    EXPECT_GT(early, full);
    EXPECT_LT(early, mse_of(m, recipe));
}

// ---- codebooks in f16 ----

TEST(Vector, F16CodebookHalvesItsBytesAndCostsLittle)
{
    const Matrix m = gaussian(200, 16, 24);
    for (qem_method method :
         { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET }) {
        qem_recipe recipe = recipe_k(method, 32);
        const qem_artifact_info wide = query(quantize(context(), m.view(), recipe));
        recipe.codebook = QEM_DTYPE_F16;
        const Artifact artifact = quantize(context(), m.view(), recipe);
        const qem_artifact_info narrow = query(artifact);
        EXPECT_EQ(2 * narrow.parts.codebook, wide.parts.codebook);
        EXPECT_EQ(narrow.codebook, QEM_DTYPE_F16);
        EXPECT_LT(narrow.metrics.mse, wide.metrics.mse * 1.02);
        EXPECT_EQ(decode(context(), artifact), decode_reference(artifact).x);
    }
}

TEST(Vector, F16OverflowIsAnErrorNotAnInfinity)
{
    const Matrix m = gaussian(50, 8, 25, 1e5);
    for (qem_method method :
         { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET }) {
        qem_recipe recipe = recipe_k(method, 16);
        recipe.codebook = QEM_DTYPE_F16;
        qem_artifact *artifact = nullptr;
        const qem_view view = m.view();
        EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_RANGE)
            << qem_method_name(method);
        EXPECT_EQ(artifact, nullptr);
        EXPECT_NE(context().error().find("f16"), std::string::npos);
    }
}

} // namespace
