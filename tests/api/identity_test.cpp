// Same input, recipe and seed give the same bytes for any number of threads and any instruction set.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

using Everything = std::tuple<std::map<std::string, std::vector<uint8_t>>, std::vector<float>, std::vector<uint64_t>>;

Everything run(const Matrix &m, const qem_recipe &recipe, const Options &options)
{
    const Context context(options);
    const Artifact artifact = quantize(context, m.view(), recipe);
    const qem_metrics e = query(artifact).metrics;
    std::vector<uint64_t> errors(5); // as bits: NaN is equal to itself then
    const double values[] = { e.mae, e.mse, e.mre, e.nmse, e.max_error };
    std::memcpy(errors.data(), values, sizeof values);
    return { parts_of(artifact), decode(context, artifact), errors };
}

void expect_identical(const Matrix &m, const qem_recipe &recipe, bool small = false)
{
    const Everything expected = run(m, recipe, with_threads(1, QEM_ISA_SCALAR));
    for (qem_isa isa : available_isas())
        for (uint32_t threads : thread_counts({ 1, 2, 3 })) {
            if (isa == QEM_ISA_SCALAR && (threads != 3 || small)) continue; // slow, and small ones are not split anyway
            const Everything got = run(m, recipe, with_threads(threads, isa));
            EXPECT_EQ(std::get<0>(got), std::get<0>(expected)) << qem_isa_name(isa) << ", threads " << threads;
            EXPECT_EQ(std::get<1>(got), std::get<1>(expected)) << qem_isa_name(isa) << ", threads " << threads;
            EXPECT_EQ(std::get<2>(got), std::get<2>(expected)) << qem_isa_name(isa) << ", threads " << threads;
        }
}

class Identity : public ::testing::TestWithParam<qem_method> {};
INSTANTIATE_TEST_SUITE_P(All, Identity, ::testing::ValuesIn(kMethods),
                         [](const auto &info) { return qem_method_name(info.param); });

TEST_P(Identity, SmallMatrices)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t dim : is_scalar(GetParam()) ? std::vector<uint32_t>{ 1 } : std::vector<uint32_t>{ 1, 3, 4, 11 }) {
            SCOPED_TRACE("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
            qem_recipe recipe = recipe_k(GetParam(), kind % 2 ? 32 : 8);
            recipe.levels = static_cast<uint32_t>(kind) % 3;
            recipe.dim = dim;
            recipe.iterations = 4;
            expect_identical(any_matrix(kind, 67, 29, 1), recipe, true);
            if (HasFailure()) return;
        }
}

TEST_P(Identity, RestartsToleranceAndF16)
{
    qem_recipe recipe = recipe_k(GetParam(), 16);
    recipe.restarts = 3;
    recipe.tolerance = 0.01;
    if (GetParam() != QEM_METHOD_RTN) recipe.codebook = QEM_DTYPE_F16;
    expect_identical(gaussian(257, 33, 2), recipe);
}

// Many elements: the passes over the matrix are cut into several pieces.
TEST_P(Identity, WideMatrix)
{
    qem_recipe recipe = recipe_k(GetParam(), 16);
    recipe.iterations = 2;
    expect_identical(heavy_tails(500, 321, 3), recipe);
}

// One problem so large that it is split over the threads inside.
TEST(IdentityLarge, OneProblemOnSeveralThreads)
{
    const Matrix m = gaussian(70000, 4, 4);
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_HYPERCHR }) {
        qem_recipe recipe = recipe_k(method, 18);
        recipe.intervals = method == QEM_METHOD_HYPERCHR ? 2 : 0;
        recipe.iterations = 2;
        expect_identical(m, recipe);
    }
}

TEST(IdentityLarge, TailSubvectorsOfASharedCodebook)
{
    qem_recipe recipe = recipe_k(QEM_METHOD_VQ, 6);
    recipe.iterations = 2;
    expect_identical(gaussian(20000, 6, 5), recipe); // two segments of 20000
}

TEST(IdentityLarge, Blocks)
{
    const Matrix m = heavy_tails(18000, 5, 6);
    const qem_view view = m.view();
    qem_kmeans_params params = QEM_KMEANS_PARAMS_INIT;
    params.iterations = 2;
    params.restarts = 2;
    std::vector<float> centroids, cuts, ordered;
    std::vector<uint32_t> labels;
    std::vector<uint8_t> map;
    double objective = 0.0;
    for (qem_isa isa : available_isas())
        for (uint32_t threads : thread_counts({ 1, 2, 3 })) {
            const Context c(with_threads(threads, isa));
            std::vector<float> a(8 * 5), b(2 * 6), o(m.x.size());
            if (isa == QEM_ISA_SCALAR && threads != 2) continue; // slow
            std::vector<uint32_t> l(m.rows);
            std::vector<uint8_t> p(qem_swap_map_bytes(m.rows, m.cols, 2));
            uint64_t used;
            double sum;
            c.must(qem_kmeans(c, &view, 8, &params, a.data(), l.data(), &used, &sum));
            c.must(qem_quantiles(c, &view, 2, 7, b.data()));
            c.must(qem_swap_forward(c, &view, 2, o.data(), p.data()));
            if (centroids.empty()) {
                centroids = a;
                labels = l;
                cuts = b;
                ordered = o;
                map = p;
                objective = sum;
            }
            EXPECT_EQ(a, centroids) << qem_isa_name(isa) << ", threads " << threads;
            EXPECT_EQ(l, labels);
            EXPECT_EQ(b, cuts);
            EXPECT_EQ(o, ordered);
            EXPECT_EQ(p, map);
            EXPECT_EQ(sum, objective);
        }
}

TEST(IdentityLarge, AnotherSeedGivesOtherBytes)
{
    const Matrix m = gaussian(200, 8, 7);
    const qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 16);
    EXPECT_NE(std::get<0>(run(m, recipe, with_seed(1))), std::get<0>(run(m, recipe, with_seed(2))));
    EXPECT_EQ(std::get<0>(run(m, recipe, with_seed(1))), std::get<0>(run(m, recipe, with_seed(1))));
}

} // namespace
