// Odd shapes and odd contents for every method, swap level and dim: right result, right sizes, exact where it can be.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

using Parameters = std::tuple<qem_method, uint32_t>;
class Shapes : public ::testing::TestWithParam<Parameters> {};
INSTANTIATE_TEST_SUITE_P(All, Shapes, ::testing::Combine(::testing::ValuesIn(kMethods), ::testing::Range(0u, 4u)),
                         [](const auto &info) {
                             return std::string(qem_method_name(std::get<0>(info.param))) + "_levels" +
                                    std::to_string(std::get<1>(info.param));
                         });

constexpr std::pair<uint64_t, uint64_t> kShapes[] = { { 1, 1 },   { 1, 2 },   { 1, 13 }, { 13, 1 }, { 2, 2 },
                                                      { 3, 5 },   { 5, 3 },   { 7, 8 },  { 4, 17 }, { 65, 4 },
                                                      { 129, 7 }, { 33, 31 }, { 2, 129 } };

qem_recipe recipe_for(uint64_t rows, uint64_t cols, uint32_t dim, uint64_t k)
{
    const qem_method method = std::get<0>(Shapes::GetParam());
    const uint64_t points = is_per_group(method) ? rows : rows * ((cols + dim - 1) / dim);
    qem_recipe recipe = recipe_k(method, k);
    if (method != QEM_METHOD_RTN) recipe.k = std::min(k, points);
    recipe.dim = dim;
    recipe.levels = std::get<1>(Shapes::GetParam());
    return recipe;
}

void check(const Context &context, const Matrix &m, const qem_recipe &recipe, bool exact)
{
    const Artifact artifact = quantize(context, m.view(), recipe);
    const qem_artifact_info info = query(artifact);
    EXPECT_EQ(info.rows, m.rows);
    EXPECT_EQ(info.cols, m.cols);
    EXPECT_EQ(info.dim, recipe.dim);
    EXPECT_EQ(info.groups, (m.cols + recipe.dim - 1) / recipe.dim);
    EXPECT_EQ(info.levels, recipe.levels);
    EXPECT_STREQ(info.name, "w");
    EXPECT_EQ(info.stages, 1u);
    EXPECT_GE(info.quantize_seconds, 0.0);
    EXPECT_LE(info.k, std::max<uint64_t>(recipe.k, 1));
    const auto parts = parts_of(artifact);
    EXPECT_EQ(parts.count("swap_map"), recipe.levels ? 1u : 0u);
    EXPECT_EQ(parts.count("codes"), info.k > 1 ? 1u : 0u);
    if (recipe.levels) {
        EXPECT_EQ(parts.at("swap_map").size(), qem_swap_map_bytes(m.rows, m.cols, recipe.levels));
    }
    const std::vector<float> decoded = decode(context, artifact);
    EXPECT_EQ(decoded, decode_reference(artifact).x);
    const Errors direct = errors_of(m.x, decoded);
    EXPECT_EQ(info.metrics.max_error, direct.max_error);
    EXPECT_NEAR(info.metrics.mse, direct.mse, 1e-12 * direct.mse);
    if (exact) {
        EXPECT_EQ(decoded, m.x);
        EXPECT_EQ(info.metrics.mse, 0.0);
        EXPECT_TRUE(std::isnan(info.metrics.nmse));
    }
}

TEST_P(Shapes, RoundTrip)
{
    const Context context;
    const bool scalar = is_scalar(std::get<0>(GetParam()));
    for (const auto &[rows, cols] : kShapes)
        for (uint32_t dim : scalar ? std::vector<uint32_t>{ 1 } : std::vector<uint32_t>{ 1, 4, 5, 40 })
            for (uint64_t k : { 1, 4, 64 })
                for (int kind : { 0, 3, 4, 5 }) {
                    if (k == 1 && kind != 0) continue;
                    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", dim " + std::to_string(dim) +
                                 ", k " + std::to_string(k) + ", kind " + std::to_string(kind));
                    check(context, any_matrix(kind, rows, cols, 7), recipe_for(rows, cols, dim, k), kind == 5);
                    if (HasFailure()) return;
                }
}

// As many centroids as sub-vectors: nothing is left of the error but what an f32 score cannot tell apart.
TEST_P(Shapes, AsManyCentroidsAsVectorsLeaveNoError)
{
    const Context context;
    const qem_method method = std::get<0>(GetParam());
    if (method == QEM_METHOD_RTN) GTEST_SKIP() << "a grid has no codebook";
    for (const auto &[rows, cols] : kShapes) {
        const uint32_t dim = is_scalar(method) ? 1 : 3;
        const Matrix m = gaussian(rows, cols, 3);
        const qem_artifact_info info =
            query(quantize(context, m.view(), recipe_for(rows, cols, dim, uint64_t(1) << 20)));
        EXPECT_LT(info.metrics.max_error, 5e-3) << rows << " x " << cols;
        EXPECT_LT(info.metrics.mse, 1e-7) << rows << " x " << cols;
    }
}

TEST(ShapesOnce, NamesAreKept)
{
    const Context context;
    const Matrix m = gaussian(4, 4, 1);
    const qem_view view = m.view();
    const qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 2);
    for (const std::string &name : { std::string("layers.0.\xc3\xa9"), std::string(255, 'n') }) {
        qem_artifact *artifact = nullptr;
        context.must(qem_quantize(context, &view, name.c_str(), &recipe, &artifact));
        const Artifact owner(artifact);
        EXPECT_EQ(query(owner).name, name);
    }
    qem_artifact *artifact = nullptr;
    context.must(qem_quantize(context, &view, nullptr, &recipe, &artifact));
    const Artifact owner(artifact);
    EXPECT_STREQ(query(owner).name, "tensor");
    EXPECT_EQ(query(owner).recipe.k, 2u);
    EXPECT_EQ(query(owner).recipe.dim, 0u) << "as asked, defaults not filled in";
}

TEST(ShapesOnce, PartsHaveTheShapesOfTheContract)
{
    const Context context;
    const auto shape_of = [&](qem_method method, uint64_t cols) {
        const Matrix m = gaussian(30, cols, 2);
        const Artifact artifact = quantize(context, m.view(), recipe_k(method, 5));
        for (uint32_t i = 0; i < qem_artifact_part_count(artifact.get()); i++) {
            qem_part part = QEM_PART_INIT;
            EXPECT_EQ(qem_artifact_part(artifact.get(), i, &part), QEM_OK);
            uint64_t bytes = qem_dtype_size(part.dtype);
            for (uint32_t r = 0; r < part.rank; r++) bytes *= part.shape[r];
            EXPECT_EQ(bytes, part.bytes) << part.name;
            if (std::string(part.name) == "codebook") return std::vector<uint64_t>(part.shape, part.shape + part.rank);
        }
        return std::vector<uint64_t>();
    };
    EXPECT_EQ(shape_of(QEM_METHOD_PQ, 12), std::vector<uint64_t>({ 3, 5, 4 }));
    EXPECT_EQ(shape_of(QEM_METHOD_PQ, 14), std::vector<uint64_t>({ 70 })); // the tail's entries are shorter
    EXPECT_EQ(shape_of(QEM_METHOD_VQ, 14), std::vector<uint64_t>({ 5, 4 }));
    EXPECT_EQ(shape_of(QEM_METHOD_HYPERCHR, 12), std::vector<uint64_t>({ 5, 4 }));
    EXPECT_EQ(shape_of(QEM_METHOD_LLOYDMAX, 12), std::vector<uint64_t>({ 5, 1 }));
}

} // namespace
