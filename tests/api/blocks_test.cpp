// Thousands of random recipes of all methods and blocks on small odd shapes: whatever the library accepts comes back from a
// file as it was, costs what it says, errs as it says, and is the same for every thread count and instruction set.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cmath>
#include <cstring>

#include "support/reference.h"

using namespace qem_test;

namespace {

struct Case {
    Matrix m;
    Matrix importance;
    qem_view importance_view = QEM_VIEW_INIT;
    std::vector<qem_recipe> chain; // chain[0].residual == &chain[1] ...
    std::string name;
    bool rotated = false;
};

constexpr qem_method kAll[] = { QEM_METHOD_RTN, QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR,
                                QEM_METHOD_QET, QEM_METHOD_GRID,     QEM_METHOD_NF, QEM_METHOD_OPQ, QEM_METHOD_LOPQ };

bool scalar(qem_method method)
{
    return is_scalar(method) || method == QEM_METHOD_GRID || method == QEM_METHOD_NF;
}

bool rotates(qem_method method)
{
    return method == QEM_METHOD_OPQ || method == QEM_METHOD_LOPQ;
}

uint32_t pick(Random &random, uint64_t n)
{
    return static_cast<uint32_t>(random.below(n));
}

void add_standardization(Random &random, qem_recipe &r)
{
    static const uint32_t sets[] = { 1, 2, 3, 4, 5 };
    static const uint32_t params[] = { 0, 16, 32, 4, 6, 8 };
    r.standardize = sets[random.below(5)];
    if (r.standardize & QEM_STANDARDIZE_BLOCK) r.standardize_block = 2 + pick(random, 20);
    r.params = params[random.below(6)];
    r.means = static_cast<qem_means>(random.below(3));
}

// One link of a chain, without a budget.
qem_recipe random_layer(Random &random)
{
    qem_recipe r = recipe_of(kAll[random.below(10)]);
    if (!scalar(r.method)) r.dim = pick(random, 7);
    if (!rotates(r.method) && random.below(3) == 0) r.levels = pick(random, 4);
    if (r.method == QEM_METHOD_HYPERCHR) {
        r.intervals = pick(random, 4);
        if (random.below(3) == 0) r.assign = QEM_ASSIGN_GLOBAL;
        if (random.below(3) == 0) r.refine = pick(random, 3);
    }
    if (r.method == QEM_METHOD_HYPERCHR || r.method == QEM_METHOD_PQ || r.method == QEM_METHOD_QET || r.method == QEM_METHOD_OPQ)
        r.allocation = static_cast<qem_allocation>(random.below(2));
    if (r.method == QEM_METHOD_LOPQ) r.cells = random.below(2) ? 0 : 3;
    if (rotates(r.method)) r.rotation_start = static_cast<qem_rotation_start>(random.below(3));
    if (r.method == QEM_METHOD_GRID || r.method == QEM_METHOD_NF) {
        r.grid_axis = static_cast<qem_axis>(random.below(4));
        if (r.grid_axis == QEM_AXIS_BLOCK) r.grid_block = 2 + pick(random, 12);
    }
    if (random.below(3) == 0) r.codebook = QEM_DTYPE_F16;
    if (random.below(3) == 0) r.codebook_bits = 4 + pick(random, 9);
    if (random.below(2)) add_standardization(random, r);
    const uint32_t steps_of_axes[] = { 0, QEM_STANDARDIZE_ROW, QEM_STANDARDIZE_COLUMN, QEM_STANDARDIZE_BLOCK };
    if (r.standardize & steps_of_axes[r.grid_axis]) r.grid_axis = QEM_AXIS_TENSOR, r.grid_block = 0; // both is refused
    r.iterations = pick(random, 5);
    return r;
}

Case random_case(uint64_t seed)
{
    Random random(seed);
    Case c;
    const int kind = static_cast<int>(random.below(kKinds));
    c.m = any_matrix(kind, 1 + random.below(40), 1 + random.below(20), seed);
    const uint64_t layers = random.below(3) ? 1 : 2 + random.below(2);
    for (uint64_t i = 0; i < layers; i++) c.chain.push_back(random_layer(random));
    for (uint64_t i = 0; i + 1 < layers; i++) {
        c.chain[i].residual = &c.chain[i + 1];
        if (random.below(2)) c.chain[i].share = 0.2 + 0.6 * random.unit();
    }
    qem_recipe &r = c.chain[0];
    if (random.below(8) == 0)
        for (qem_recipe &link : c.chain) link.k = link.method == QEM_METHOD_NF ? 4 : 1 + random.below(3);
    else
        r.bits = 1.0 + 30.0 * random.unit();
    for (qem_recipe &link : c.chain)
        if (!r.k && !rotates(link.method) && random.below(3) == 0) link.mixed = 1;
    if (random.below(3) == 0) (random.below(2) ? r.outliers : r.outlier_sigma) = random.below(2) ? 0.02 : 0.3;
    for (const qem_recipe &link : c.chain) c.rotated |= rotates(link.method);
    if (!c.rotated && random.below(4) == 0) {
        c.importance = Matrix(random.below(2) ? 1 : c.m.rows, c.m.cols);
        for (float &w : c.importance.x) w = static_cast<float>(random.unit());
        c.importance.x[0] = 1.0f;
    }
    c.name = "seed " + std::to_string(seed) + ": " + std::to_string(c.m.rows) + " x " + std::to_string(c.m.cols) + " of kind " +
             std::to_string(kind);
    for (const qem_recipe &link : c.chain)
        c.name += std::string(", ") + qem_method_name(link.method) + " dim " + std::to_string(link.dim) + " levels " +
                  std::to_string(link.levels) + " std " + std::to_string(link.standardize) + "/" + std::to_string(link.params) +
                  " cb " + std::to_string(link.codebook_bits) + " alloc " + std::to_string(link.allocation);
    return c;
}

// The recipe with its pointers set, which copies of a Case would leave dangling.
const qem_recipe &recipe_of_case(Case &c)
{
    for (size_t i = 0; i + 1 < c.chain.size(); i++) c.chain[i].residual = &c.chain[i + 1];
    if (!c.importance.x.empty()) {
        c.importance_view = c.importance.view();
        c.chain[0].importance = &c.importance_view;
    }
    return c.chain[0];
}

uint64_t sum_of(const qem_parts &p)
{
    return p.codes + p.codebook + p.codebook_scale + p.swap_map + p.scale + p.mean + p.rotation + p.coarse + p.outlier_index +
           p.outlier_value + p.group_bits;
}

void check_sizes(const Case &c, const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    uint64_t bytes = 0;
    for (const auto &part : parts_of(artifact)) bytes += part.second.size();
    EXPECT_EQ(info.stored_bytes, bytes);
    EXPECT_EQ(info.stored_bytes, sum_of(info.parts));
    EXPECT_LE(info.stored_bytes, info.budget_bytes);
    if (c.chain[0].bits > 0) {
        EXPECT_LE(8.0 * static_cast<double>(info.stored_bytes), c.chain[0].bits * static_cast<double>(c.m.x.size()));
    }
}

void check_decoding(const Context &context, const Case &c, const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    const qem_view view = c.m.view();
    qem_metrics again = QEM_METRICS_INIT;
    context.must(qem_evaluate(context, &view, artifact.get(), &again));
    EXPECT_EQ(std::memcmp(&again, &info.metrics, sizeof again), 0) << "evaluate must say what quantize said";
    const std::vector<float> decoded = decode(context, artifact);
    for (float x : decoded) ASSERT_TRUE(std::isfinite(x));
    const Errors direct = errors_of(c.m.x, decoded);
    EXPECT_NEAR(info.metrics.mse, direct.mse, 1e-12 * direct.mse);
    const uint64_t begin = c.m.rows / 3, end = c.m.rows - c.m.rows / 4;
    std::vector<float> part((end - begin) * c.m.cols);
    context.must(qem_dequantize(context, artifact.get(), begin, end, QEM_DTYPE_F32, part.data(), 0));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), decoded.begin() + static_cast<long>(begin * c.m.cols)));
    const Matrix x = gaussian(2, c.m.cols, 7);
    std::vector<float> y(2 * c.m.rows);
    context.must(qem_matmul(context, artifact.get(), 2, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, y.data(), 0, nullptr, 0));
    for (uint64_t b = 0; b < 2; b++)
        for (uint64_t i = 0; i < c.m.rows; i++) {
            double sum = 0.0, size = 0.0;
            for (uint64_t j = 0; j < c.m.cols; j++) {
                sum += static_cast<double>(x.at(b, j)) * decoded[i * c.m.cols + j];
                size += std::fabs(static_cast<double>(x.at(b, j)) * decoded[i * c.m.cols + j]);
            }
            ASSERT_NEAR(y[b * c.m.rows + i], sum, 80.0 * 0x1p-24 * size + 1e-37);
        }
}

void check_file(const Context &context, const Artifact &artifact)
{
    const std::string path = ::testing::TempDir() + "qem_blocks_" + std::to_string(getpid()) + ".safetensors";
    context.must(qem_save(context, artifact.get(), path.c_str()));
    qem_artifact *loaded = nullptr;
    const qem_status status = qem_load(context, path.c_str(), &loaded);
    const Artifact back(loaded);
    std::remove(path.c_str());
    context.must(status);
    EXPECT_EQ(parts_of(back), parts_of(artifact));
    EXPECT_EQ(decode(context, back), decode(context, artifact));
}

// New rows take the codebooks as they are; whether their scales fit into their type is their own affair.
void check_encoding(const Context &context, const Case &c, const Artifact &artifact)
{
    const qem_view view = c.m.view();
    qem_artifact *made = nullptr;
    const qem_status status = qem_encode(context, artifact.get(), &view, "again", &made);
    const Artifact again(made);
    ASSERT_TRUE(status == QEM_OK || status == QEM_ERR_RANGE) << context.error();
    if (status != QEM_OK) return;
    for (float x : decode(context, again)) ASSERT_TRUE(std::isfinite(x));
}

void check_identity(Case &c, const Artifact &artifact, uint64_t seed)
{
    const qem_view view = c.m.view();
    for (qem_isa isa : { QEM_ISA_SCALAR, QEM_ISA_AVX2 }) {
        if (!qem_isa_available(isa)) continue;
        Options options = with_threads(3, isa);
        options.seed = seed;
        const Context other(options);
        EXPECT_EQ(parts_of(quantize(other, view, recipe_of_case(c))), parts_of(artifact));
    }
}

class Blocks : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Block, Blocks, ::testing::Range(0, 8));

TEST_P(Blocks, EveryCombinationKeepsItsWord)
{
    const uint64_t cases = 400, first = cases * static_cast<uint64_t>(GetParam());
    const Context context(with_seed(5));
    int made = 0, refused = 0;
    for (uint64_t seed = first; seed < first + cases; seed++) {
        Case c = random_case(seed);
        SCOPED_TRACE(c.name);
        const qem_view view = c.m.view();
        qem_artifact *artifact = nullptr;
        const qem_status status = qem_quantize(context, &view, nullptr, &recipe_of_case(c), &artifact);
        const Artifact owner(artifact);
        if (status != QEM_OK) {
            refused++;
            // too small a budget, values beyond f16, a k above the points: nothing else can be wrong here
            ASSERT_TRUE(status == QEM_ERR_BUDGET || status == QEM_ERR_RANGE || (status == QEM_ERR_ARGUMENT && c.chain[0].k) ||
                        (status == QEM_ERR_ARGUMENT && c.chain.size() * 2 > 2 && context.error().find("stages") != std::string::npos) ||
                        context.error().find("cells") != std::string::npos)
                << qem_status_string(status) << ": " << context.error();
            ASSERT_EQ(artifact, nullptr);
            ASSERT_FALSE(context.error().empty());
            continue;
        }
        made++;
        check_sizes(c, owner);
        check_decoding(context, c, owner);
        check_file(context, owner);
        check_encoding(context, c, owner);
        if (seed % 4 == 0) check_identity(c, owner, 5);
        if (HasFailure()) return; // one is enough to look at
    }
    EXPECT_GT(made, 150);
    EXPECT_GT(refused, 10);
}

// Matrices that every primitive cuts into pieces for its threads: the cases above are too small for that.
std::vector<std::pair<std::string, qem_recipe>> recipes_of_all_blocks()
{
    std::vector<std::pair<std::string, qem_recipe>> list;
    const auto add = [&list](const char *name, qem_method method, double bits) -> qem_recipe & {
        list.emplace_back(name, recipe_of(method));
        list.back().second.bits = bits;
        list.back().second.iterations = 2;
        return list.back().second;
    };
    qem_recipe *r = &add("scaled blocks of scalars", QEM_METHOD_LLOYDMAX, 4.0);
    r->standardize = QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_BLOCK;
    r->standardize_block = 16;
    r->params = 6;
    r->mixed = 1;
    r->outliers = 0.001;
    r = &add("scaled blocks of vectors", QEM_METHOD_VQ, 3.0);
    r->standardize = QEM_STANDARDIZE_BLOCK;
    r->standardize_block = 16;
    r = &add("rows and columns", QEM_METHOD_VQ, 2.0);
    r->standardize = QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_ROW;
    r->params = 8;
    r->codebook_bits = 8;
    r->levels = 1;
    r = &add("grid", QEM_METHOD_GRID, 5.0);
    r->grid_axis = QEM_AXIS_BLOCK;
    r->grid_block = 32;
    add("nf", QEM_METHOD_NF, 5.0).grid_axis = QEM_AXIS_ROW;
    r = &add("weighted cells", QEM_METHOD_HYPERCHR, 2.5);
    r->intervals = 2;
    r->refine = 1;
    r->allocation = QEM_ALLOCATION_VARIANCE;
    r->standardize = QEM_STANDARDIZE_COLUMN;
    r = &add("widths by variance", QEM_METHOD_PQ, 4.0);
    r->dim = 1;
    r->allocation = QEM_ALLOCATION_VARIANCE;
    r = &add("rotation", QEM_METHOD_OPQ, 0.0);
    r->k = 16;
    r->params = 16;
    r = &add("rotations of cells", QEM_METHOD_LOPQ, 0.0);
    r->k = 8;
    r->codebook_bits = 6;
    return list;
}

TEST(BlocksOnThreads, SameBytesAsOnOne)
{
    Matrix m = heavy_tails(1401, 160, 21);
    for (size_t i = 0; i < m.x.size(); i++) m.x[i] *= static_cast<float>(1 + i % m.cols % 7);
    const Context one(with_threads(1)), several(with_threads(3));
    const qem_view view = m.view();
    for (const auto &entry : recipes_of_all_blocks()) {
        SCOPED_TRACE(entry.first);
        qem_recipe recipe = entry.second, rest = recipe_of(QEM_METHOD_VQ);
        rest.iterations = 1;
        if (entry.first == "grid") recipe.residual = &rest;
        const Artifact artifact = quantize(several, view, recipe);
        EXPECT_EQ(parts_of(artifact), parts_of(quantize(one, view, recipe)));
        EXPECT_EQ(parts_of(encode(several, artifact, view)), parts_of(encode(one, artifact, view)));
        EXPECT_EQ(decode(several, artifact), decode(one, artifact));
    }
}

} // namespace
