// The planner: the largest k that fits, honest and papers' accounting, and a clear no with a ratio that works.
#include <gtest/gtest.h>

#include "support/context.h"
#include "support/matrices.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one;
    return one;
}

qem_plan plan_of(const qem_view &view, const qem_recipe &recipe)
{
    qem_plan plan = QEM_PLAN_INIT;
    context().must(qem_make_plan(context(), &view, &recipe, &plan));
    return plan;
}

qem_view shape(uint64_t rows, uint64_t cols)
{
    qem_view view = QEM_VIEW_INIT;
    view.rows = rows;
    view.cols = cols;
    return view;
}

uint32_t bits_for(uint64_t k)
{
    uint32_t bits = 0;
    while ((uint64_t(1) << bits) < k) bits++;
    return bits;
}

// Bytes of a recipe with k centroids, by spec section 2.
uint64_t bytes_for(const qem_recipe &r, uint64_t rows, uint64_t cols, uint32_t dim, uint32_t levels, uint64_t k)
{
    const uint64_t groups = (cols + dim - 1) / dim;
    uint64_t map_bits = 0;
    std::vector<uint64_t> widths = { cols };
    for (uint32_t level = 0; level < levels; level++) {
        std::vector<uint64_t> next;
        for (uint64_t w : widths) {
            map_bits += rows * (w / 2);
            next.push_back((w + 1) / 2);
            next.push_back(w / 2);
        }
        widths = next;
    }
    uint64_t bytes = (rows * groups * bits_for(k) + 7) / 8 + (map_bits + 7) / 8;
    if (r.method == QEM_METHOD_RTN) return bytes + 8;
    return bytes + (is_per_group(r.method) ? k * cols : k * dim) * (r.codebook == QEM_DTYPE_F16 ? 2 : 4);
}

TEST(Plan, TakesTheLargestKThatFits)
{
    Random random(1);
    int planned = 0;
    for (int round = 0; round < 3000; round++) {
        const uint64_t rows = 1 + random.below(300), cols = 1 + random.below(200);
        qem_recipe r = recipe_of(kMethods[random.below(6)]);
        const uint32_t dim = is_scalar(r.method) ? 1 : 1 + static_cast<uint32_t>(random.below(9));
        const uint32_t levels = static_cast<uint32_t>(random.below(4));
        r.dim = dim;
        r.levels = levels;
        r.codebook = random.below(2) ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
        if (random.below(2))
            r.ratio = 0.5 + 20.0 * random.unit();
        else
            r.bits = 0.5 + 20.0 * random.unit();
        const double elements = static_cast<double>(rows * cols);
        const double budget = r.ratio > 0 ? elements * 32.0 / r.ratio : elements * r.bits;
        const qem_view view = shape(rows, cols);
        qem_plan p = QEM_PLAN_INIT;
        const qem_status status = qem_make_plan(context(), &view, &r, &p);
        SCOPED_TRACE("round " + std::to_string(round));
        if (status == QEM_ERR_BUDGET) {
            ASSERT_GT(8.0 * static_cast<double>(bytes_for(r, rows, cols, dim, levels, 1)), budget);
            continue;
        }
        ASSERT_EQ(status, QEM_OK) << context().error();
        planned++;
        ASSERT_EQ(p.stored_bytes, bytes_for(r, rows, cols, dim, levels, p.k));
        ASSERT_LE(8.0 * static_cast<double>(p.stored_bytes), budget);
        ASSERT_EQ(p.budget_bytes, static_cast<uint64_t>(budget / 8.0));
        ASSERT_EQ(p.stored_bytes, p.parts.codes + p.parts.codebook + p.parts.swap_map + p.parts.scale + p.parts.mean);
        const uint64_t most = r.method == QEM_METHOD_RTN ? 65536
                              : is_per_group(r.method)   ? rows
                                                         : rows * ((cols + dim - 1) / dim);
        const uint64_t next = r.method == QEM_METHOD_RTN ? 2 * p.k : p.k + 1;
        ASSERT_LE(p.k, most);
        if (next <= most) {
            ASSERT_GT(8.0 * static_cast<double>(bytes_for(r, rows, cols, dim, levels, next)), budget);
        }
        ASSERT_EQ(p.code_bits, bits_for(p.k));
        ASSERT_EQ(p.groups, (cols + dim - 1) / dim);
        ASSERT_EQ(p.levels, levels);
        ASSERT_DOUBLE_EQ(p.bits_per_element, 8.0 * static_cast<double>(p.stored_bytes) / elements);
        ASSERT_DOUBLE_EQ(p.ratio, 32.0 / p.bits_per_element);
    }
    EXPECT_GT(planned, 1000);
}

TEST(Plan, DefaultsAreFilledIn)
{
    for (qem_method method : kMethods) {
        const qem_plan p = plan_of(shape(1000, 64), recipe_ratio(method, 4.0));
        EXPECT_EQ(p.method, method);
        EXPECT_EQ(p.dim, is_scalar(method) ? 1u : 4u);
        EXPECT_EQ(p.levels, method == QEM_METHOD_QET ? 1u : 0u);
        EXPECT_EQ(p.codebook, QEM_DTYPE_F32);
        EXPECT_EQ(p.intervals, 0u);
    }
    // the 64 header bits push four bits just over theta 8
    EXPECT_EQ(plan_of(shape(1000, 64), recipe_ratio(QEM_METHOD_RTN, 8.0)).code_bits, 3u);
}

TEST(Plan, WithDataIsWhatQuantizeStores)
{
    for (int kind : { 0, 2, 3, 4, 5 })
        for (qem_method method : kMethods)
            for (double ratio : { 1.0, 3.0, 8.0 }) {
                const Matrix m = any_matrix(kind, 200, 14, 2);
                const qem_recipe recipe = recipe_ratio(method, ratio);
                const qem_plan p = plan_of(m.view(), recipe);
                const qem_artifact_info info = query(quantize(context(), m.view(), recipe));
                EXPECT_EQ(p.k, info.k);
                EXPECT_EQ(p.stored_bytes, info.stored_bytes);
                EXPECT_EQ(p.budget_bytes, info.budget_bytes);
                EXPECT_EQ(p.cells, info.cells);
                EXPECT_EQ(p.intervals, info.intervals);
                EXPECT_EQ(p.code_bits, info.code_bits);
                EXPECT_EQ(p.parts.codes, info.parts.codes);
                EXPECT_EQ(p.parts.codebook, info.parts.codebook);
                EXPECT_EQ(p.parts.swap_map, info.parts.swap_map);
                EXPECT_EQ(p.bits_per_element, info.bits_per_element);
                EXPECT_EQ(p.ratio, info.ratio);
                qem_view by_shape = m.view();
                by_shape.data = nullptr;
                EXPECT_GE(plan_of(by_shape, recipe).k, p.k); // data can only add caps
            }
}

// The number that follows "largest ratio that fits is" in the text of a BUDGET error.
double ratio_in(const std::string &text)
{
    const std::string before = "largest ratio that fits is ";
    if (text.find(before) == std::string::npos) throw std::runtime_error("no ratio in: " + text);
    return std::stod(text.substr(text.find(before) + before.size()));
}

TEST(Plan, NothingFitsNamesThePartAndARatioThatWorks)
{
    Random random(2);
    int refused = 0;
    for (int round = 0; round < 3000; round++) {
        const qem_view view = shape(1 + random.below(400), 1 + random.below(100));
        qem_recipe r = recipe_ratio(kMethods[random.below(6)], 1000.0 * random.unit());
        r.levels = static_cast<uint32_t>(random.below(9));
        if (!is_scalar(r.method)) r.dim = 1 + static_cast<uint32_t>(random.below(40));
        qem_plan p = QEM_PLAN_INIT;
        if (qem_make_plan(context(), &view, &r, &p) == QEM_OK) continue;
        refused++;
        const std::string text = context().error();
        SCOPED_TRACE(text + "; asked for " + std::to_string(r.ratio));
        const bool large_map = qem_swap_map_bytes(view.rows, view.cols, r.levels) >= 2 * sizeof(float);
        const bool large_map = qem_swap_map_bytes(view.rows, view.cols, r.levels) >= 2 * sizeof(float); // the first of equals
        const std::string part = r.method == QEM_METHOD_RTN && large_map ? "swap_map"
                                 : r.method == QEM_METHOD_RTN              ? "scale and mean"
                                 : r.levels == 0 || view.cols == 1                    ? "codebook"
                                                                                      : "";
        EXPECT_NE(text.find(part), std::string::npos);
        r.ratio = ratio_in(text);
        ASSERT_EQ(qem_make_plan(context(), &view, &r, &p), QEM_OK) << context().error();
        EXPECT_EQ(p.k, 1u);
        r.ratio *= 1.0001; // and it is the largest
        ASSERT_EQ(qem_make_plan(context(), &view, &r, &p), QEM_ERR_BUDGET);
    }
    EXPECT_GT(refused, 500);
}

// A recipe of blocks; the bytes of nothing in it depend on the data.
qem_recipe any_blocks(Random &random, int block, uint64_t cols)
{
    static const qem_method vectors[] = { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_LLOYDMAX, QEM_METHOD_HYPERCHR };
    qem_recipe r = recipe_of(vectors[random.below(4)]);
    r.codebook_bits = random.below(2) && r.method != QEM_METHOD_LLOYDMAX ? 4 + static_cast<uint32_t>(random.below(9)) : 0;
    const uint32_t params[] = { 0, 16, 32, 4, 6, 8 };
    r.params = params[random.below(6)];
    r.means = random.below(2) ? QEM_MEANS_ALWAYS : QEM_MEANS_NEVER;
    if (block == 0) r.method = random.below(2) ? QEM_METHOD_OPQ : QEM_METHOD_LOPQ;
    if (block == 0 && r.method == QEM_METHOD_LOPQ) r.cells = 2 + static_cast<uint32_t>(random.below(5));
    if (block == 1) r.outliers = 0.3 * random.unit();
    if (block == 2) r.standardize = 1 + static_cast<uint32_t>(random.below(5));
    if (block == 3) r.mixed = 1;
    if (block == 4) r.method = random.below(2) ? QEM_METHOD_GRID : QEM_METHOD_NF;
    if (r.standardize & QEM_STANDARDIZE_BLOCK || block == 4) {
        const uint32_t width = 2 + static_cast<uint32_t>(random.below(cols));
        if (block == 4) r.grid_axis = static_cast<qem_axis>(random.below(4));
        if (r.standardize) r.standardize_block = width;
        else if (r.grid_axis == QEM_AXIS_BLOCK) r.grid_block = width;
    }
    if (block == 4) r.codebook_bits = 0;
    return r;
}

TEST(Plan, RefusedBlocksNameTheirPartAndTheLargestRatio)
{
    Random random(7);
    const char *parts[] = { "rotation", "outliers", "scale and mean", "codebook", "scale and mean" };
    int named[5] = { 0 }, refused[5] = { 0 };
    for (int round = 0; round < 4000; round++) {
        const int block = round % 5;
        const qem_view view = shape(2 + random.below(300), 1 + random.below(60));
        qem_recipe r = any_blocks(random, block, view.cols);
        r.ratio = 3000.0 * random.unit() + 1.0;
        qem_plan p = QEM_PLAN_INIT;
        const qem_status status = qem_make_plan(context(), &view, &r, &p);
        SCOPED_TRACE(std::to_string(round) + ": " + context().error() + "; asked for " + std::to_string(r.ratio));
        if (status == QEM_OK) continue;
        ASSERT_EQ(status, QEM_ERR_BUDGET);
        refused[block]++;
        named[block] += context().error().find(parts[block]) != std::string::npos;
        r.ratio = ratio_in(context().error());
        ASSERT_EQ(qem_make_plan(context(), &view, &r, &p), QEM_OK) << context().error();
        r.ratio *= 1.0001;
        ASSERT_EQ(qem_make_plan(context(), &view, &r, &p), QEM_ERR_BUDGET);
    }
    for (int block = 0; block < 5; block++) {
        EXPECT_GT(refused[block], 200) << parts[block];
        EXPECT_GT(named[block], refused[block] / 4) << parts[block];
    }
}

// With residual layers the ratio is that of the whole, whichever layer finds no room.
TEST(Plan, RefusedResidualsNameARatioThatWorksForAllLayers)
{
    Random random(8);
    int first = 0, later = 0;
    for (int round = 0; round < 3000; round++) {
        const qem_view view = shape(2 + random.below(300), 1 + random.below(60));
        qem_recipe chain[3];
        const int layers = 2 + static_cast<int>(random.below(2));
        for (int i = 0; i < layers; i++) {
            chain[i] = any_blocks(random, i == 0 ? static_cast<int>(random.below(5)) : 2 + 2 * static_cast<int>(random.below(2)), view.cols);
            if (i + 1 < layers) chain[i].residual = &chain[i + 1];
            if (i + 1 < layers && random.below(2)) chain[i].share = 0.05 + 0.9 * random.unit();
        }
        chain[0].ratio = 300.0 * random.unit() + 1.0;
        qem_plan p = QEM_PLAN_INIT;
        const qem_status status = qem_make_plan(context(), &view, chain, &p);
        SCOPED_TRACE(std::to_string(round) + ": " + context().error() + "; asked for " + std::to_string(chain[0].ratio));
        if (status == QEM_OK) continue;
        ASSERT_EQ(status, QEM_ERR_BUDGET);
        (context().error().find(qem_method_name(chain[0].method)) == 0 ? first : later)++;
        ASSERT_NE(context().error().find("the budget of this layer"), std::string::npos);
        chain[0].ratio = ratio_in(context().error());
        ASSERT_EQ(qem_make_plan(context(), &view, chain, &p), QEM_OK) << context().error();
        ASSERT_LE(p.stored_bytes, p.budget_bytes);
        for (double more : { 1.0001, 1.01, 1.3 }) {
            qem_recipe beyond = chain[0];
            beyond.ratio *= more;
            if (layers == 2 && !chain[0].mixed) {
                ASSERT_EQ(qem_make_plan(context(), &view, &beyond, &p), QEM_ERR_BUDGET) << more;
            }
        }
    }
    EXPECT_GT(first, 500);
    EXPECT_GT(later, 100);
}

TEST(Plan, QuantizeRefusesWhatThePlanRefuses)
{
    const Matrix m = gaussian(10, 10, 3);
    for (qem_method method : kMethods) {
        const qem_recipe recipe = recipe_ratio(method, 1e6);
        const qem_view view = m.view();
        qem_artifact *artifact = nullptr;
        EXPECT_EQ(qem_quantize(context(), &view, nullptr, &recipe, &artifact), QEM_ERR_BUDGET);
        EXPECT_EQ(artifact, nullptr);
        EXPECT_NE(context().error().find(qem_method_name(method)), std::string::npos) << context().error();
    }
}

// Fractional bits and f32 codebooks: the largest k with N log2 k + 32 * floats + map bits within the budget.
TEST(Plan, PapersAccounting)
{
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET, QEM_METHOD_LLOYDMAX })
        for (double ratio : { 2.0, 3.7, 8.0, 13.0 }) {
            qem_recipe recipe = recipe_ratio(method, ratio);
            const uint64_t honest = plan_of(shape(1024, 128), recipe).k;
            recipe.accounting = QEM_ACCOUNTING_PAPER;
            const qem_plan p = plan_of(shape(1024, 128), recipe);
            const double elements = 1024.0 * 128.0, codes = elements / p.dim;
            const auto charge = [&](double k) {
                return codes * std::log2(k) + 32.0 * k * (is_per_group(method) ? 128.0 : p.dim) +
                       (method == QEM_METHOD_QET ? elements / 2.0 : 0.0);
            };
            EXPECT_LE(charge(static_cast<double>(p.k)), elements * 32.0 / ratio) << qem_method_name(method);
            EXPECT_GT(charge(static_cast<double>(p.k + 1)), elements * 32.0 / ratio) << qem_method_name(method);
            EXPECT_GE(p.k, honest);
            // what is reported stays what is stored
            EXPECT_EQ(p.stored_bytes, bytes_for(recipe, 1024, 128, p.dim, p.levels, p.k));
        }
}

TEST(Plan, ExplicitKCostsWhatItCosts)
{
    for (qem_method method : kMethods)
        for (uint64_t k : { 1, 2, 8, 64 }) {
            const qem_recipe recipe = recipe_k(method, k);
            const qem_plan p = plan_of(shape(100, 30), recipe);
            EXPECT_EQ(p.k, k);
            EXPECT_EQ(p.stored_bytes, bytes_for(recipe, 100, 30, p.dim, p.levels, k));
            EXPECT_EQ(p.budget_bytes, p.stored_bytes);
        }
}

} // namespace
