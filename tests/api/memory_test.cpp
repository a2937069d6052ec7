// Memory that calls take while they work, and codebooks that are trained on a part of the matrix to take less.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>

#include "support/reference.h"

using namespace qem_test;

namespace {

// The most bytes that were alive at once.
struct Meter {
    std::map<void *, size_t> alive;
    size_t now = 0, most = 0;

    qem_allocator allocator()
    {
        return { [](void *user, size_t bytes) -> void * {
                    Meter *m = static_cast<Meter *>(user);
                    void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
                    m->alive[memory] = bytes;
                    m->now += bytes;
                    m->most = std::max(m->most, m->now);
                    return memory;
                },
                 [](void *user, void *memory) {
                     Meter *m = static_cast<Meter *>(user);
                     m->now -= m->alive[memory];
                     m->alive.erase(memory);
                     std::free(memory);
                 },
                 this };
    }
};

size_t most_memory(uint32_t threads, const std::function<void(const Context &)> &call)
{
    Meter meter;
    Options options = with_threads(threads);
    options.allocator = meter.allocator();
    const Context context(options);
    meter.most = meter.now;
    call(context);
    return meter.most;
}

// A machine of many cores, and a matrix that is work for a few of them.
TEST(Memory, ThreadsWithoutWorkTakeNone)
{
    const Matrix m = gaussian(250, 64, 1);
    qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 3000);
    recipe.intervals = 2;
    recipe.iterations = 1;
    recipe.refine = 1;
    const auto fit = [&](const Context &context) { (void)quantize(context, m.view(), recipe); };
    EXPECT_LT(most_memory(64, fit), 8 * most_memory(1, fit));
    const Artifact base = quantize(Context(), m.view(), recipe);
    const auto again = [&](const Context &context) { (void)encode(context, base, m.view()); };
    EXPECT_LT(most_memory(64, again), 8 * most_memory(1, again));
}

// What a search adds to its codebooks (half norms, boxes, padding) is a few times their size.
TEST(Memory, PreparedCodebooksStayInProportion)
{
    const Matrix m = gaussian(1100, 100, 1);
    qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 256);
    recipe.dim = 1;
    recipe.iterations = 1;
    const Artifact base = quantize(Context(), m.view(), recipe);
    const size_t matrix = m.x.size() * sizeof(float), codebooks = 100 * 256 * sizeof(float);
    EXPECT_LT(most_memory(1, [&](const Context &context) { (void)encode(context, base, m.view()); }), 4 * matrix + 12 * codebooks);
}

// Copies of the matrix as f32 that a recipe may take beside it, codes and codebooks included.
struct Allowed {
    const char *name;
    qem_recipe recipe;
    double copies;
};

qem_recipe recipe_with(qem_method method, double bits, uint32_t standardize, uint32_t dim = 0, double outliers = 0.0)
{
    qem_recipe recipe = recipe_of(method);
    recipe.bits = bits;
    recipe.dim = dim;
    recipe.standardize = standardize;
    recipe.standardize_block = standardize & QEM_STANDARDIZE_BLOCK ? 64 : 0;
    recipe.outliers = outliers;
    recipe.iterations = 2;
    return recipe;
}

std::vector<Allowed> allowed()
{
    qem_recipe nf = recipe_with(QEM_METHOD_NF, 4.25, QEM_STANDARDIZE_NONE);
    nf.grid_axis = QEM_AXIS_BLOCK;
    nf.grid_block = 64;
    qem_recipe mixed = recipe_with(QEM_METHOD_LLOYDMAX, 4.3, QEM_STANDARDIZE_BLOCK);
    mixed.mixed = 1;
    mixed.params = 6;
    // What is not a whole copy: codes of 4 bits .125, labels of a million codes .25, of sub-vectors 1/dim.
    return {
        { "rtn", recipe_with(QEM_METHOD_RTN, 4, QEM_STANDARDIZE_NONE), 0.5 },
        { "lloydmax", recipe_with(QEM_METHOD_LLOYDMAX, 4.1, QEM_STANDARDIZE_NONE), 0.5 },
        { "nf in blocks", nf, 1.5 },
        { "lloydmax, blocks, mixed", mixed, 2.5 },
        { "lloydmax, blocks, outliers", recipe_with(QEM_METHOD_LLOYDMAX, 4.6, QEM_STANDARDIZE_BLOCK, 0, 0.005), 2.5 },
        { "pq", recipe_with(QEM_METHOD_PQ, 4, QEM_STANDARDIZE_NONE), 1.0 },
        { "pq, columns", recipe_with(QEM_METHOD_PQ, 4, QEM_STANDARDIZE_COLUMN), 2.9 },
        { "qet", recipe_with(QEM_METHOD_QET, 4, QEM_STANDARDIZE_NONE), 1.7 },
        { "hyperchr", recipe_with(QEM_METHOD_HYPERCHR, 2, QEM_STANDARDIZE_NONE), 1.5 },
    };
}

// A matrix in f32 is read where it lies; one of another type is converted, and the converted one becomes the standardized one.
TEST(Memory, CopiesOfTheMatrix)
{
    const Matrix m = gaussian(2048, 2048, 3);
    std::vector<uint16_t> halves(m.x.size());
    for (size_t i = 0; i < halves.size(); i++) {
        uint32_t bits;
        std::memcpy(&bits, &m.x[i], sizeof bits);
        halves[i] = static_cast<uint16_t>(bits >> 16);
    }
    qem_view half = m.view();
    half.data = halves.data();
    half.dtype = QEM_DTYPE_BF16;
    const double matrix = static_cast<double>(m.x.size() * sizeof(float));
    for (const Allowed &a : allowed()) {
        const bool steps = a.recipe.standardize || a.recipe.grid_axis == QEM_AXIS_BLOCK || a.recipe.outliers > 0.0;
        const auto fit = [&](const qem_view &view) {
            const auto call = [&](const Context &context) { (void)quantize(context, view, a.recipe); };
            return static_cast<double>(most_memory(2, call)) / matrix;
        };
        EXPECT_LT(fit(m.view()), a.copies) << a.name;
        EXPECT_LT(fit(half), a.copies + (steps ? 0.0 : 1.0)) << a.name << ", bf16";
    }
}

// ---- training on a part ----

// 7.2 million sub-vectors, of which those of every fifth row are trained on.
class ManySubVectors : public testing::TestWithParam<uint32_t> {};

TEST_P(ManySubVectors, AreTrainedOnInPart)
{
    const Matrix m = gaussian(14000, 512, 5);
    qem_recipe recipe = recipe_with(QEM_METHOD_VQ, 0, GetParam(), 1);
    recipe.k = 4;
    recipe.iterations = 12;
    Matrix few(1600, 512);
    std::copy_n(m.x.begin(), few.x.size(), few.x.begin());
    const Context one(with_threads(1)), two(with_threads(2));
    const Artifact whole = quantize(two, m.view(), recipe);
    EXPECT_EQ(parts_of(whole), parts_of(quantize(one, m.view(), recipe))) << "threads";
    EXPECT_NEAR(query(whole).metrics.mse / query(quantize(two, few.view(), recipe)).metrics.mse, 1.0, 0.03)
        << "as good as where all are trained on";
    if (GetParam() == QEM_STANDARDIZE_BLOCK) return; // whose scales new rows look for themselves
    EXPECT_EQ(parts_of(encode(two, whole, m.view()))["codes"], parts_of(whole)["codes"]) << "every label is the nearest";
}

INSTANTIATE_TEST_SUITE_P(Weights, ManySubVectors,
                         testing::Values(QEM_STANDARDIZE_NONE, QEM_STANDARDIZE_COLUMN, QEM_STANDARDIZE_BLOCK));

// The rows that no training has seen count, too: a value in one of them alone.
TEST(ManySubVectors, RowsThatAreNotTrainedOnAreCoded)
{
    Matrix m(14000, 512);
    for (size_t i = 0; i < m.x.size(); i++) m.x[i] = static_cast<float>(i % 3);
    m.x[512 * 1001 + 7] = 2.4f; // a row that is not trained on
    const qem_recipe recipe = recipe_k(QEM_METHOD_VQ, 3);
    qem_recipe scalar = recipe;
    scalar.dim = 1;
    const Context context;
    const std::vector<float> back = decode(context, quantize(context, m.view(), scalar));
    for (size_t i = 0; i < back.size(); i++) ASSERT_NEAR(back[i], i == 512 * 1001 + 7 ? 2.0f : m.x[i], 1e-6) << i;
}

// As many centroids as there are distinct values, some of them in rows that are not trained on: still nothing is lost.
TEST(ManySubVectors, RareValuesAreFound)
{
    Matrix m(14000, 512);
    for (size_t i = 0; i < m.x.size(); i++) m.x[i] = static_cast<float>(i % 3);
    m.x[512 * 1001 + 7] = 100.0f;
    qem_recipe recipe = recipe_k(QEM_METHOD_VQ, 4);
    recipe.dim = 1;
    const Context context;
    EXPECT_LT(query(quantize(context, m.view(), recipe)).metrics.max_error, 1e-5);
}

// One group alone is a single problem too, whatever the method makes of it.
TEST(ManySubVectors, OfOneGroup)
{
    const Matrix m = gaussian(6400000, 2, 9);
    qem_recipe recipe = recipe_k(QEM_METHOD_OPQ, 4);
    recipe.dim = 2;
    recipe.iterations = 1;
    const Context context;
    EXPECT_LT(query(quantize(context, m.view(), recipe)).metrics.nmse, 0.5);
}

} // namespace
