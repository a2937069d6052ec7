// Widths of codes by variance: the model, the budget, and what the pipeline makes of them.
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "methods/allocate_bits.h"
#include "methods/registry.h"
}

using namespace qem_test;

namespace {

// Column j has the standard deviation 2^(-slope*j) times that of the first; mixed: by a fixed orthogonal matrix.
Matrix falling(uint64_t rows, uint64_t cols, uint64_t seed, bool mixed, double slope = 1.0)
{
    Matrix m = gaussian(rows, cols, seed);
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) *= static_cast<float>(std::exp2(-slope * static_cast<double>(j)));
        if (!mixed) continue;
        double sum = 0.0; // Householder: x - 2 v v^T x with v = 1/sqrt(cols)
        for (uint64_t j = 0; j < cols; j++) sum += m.at(i, j);
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) -= static_cast<float>(2.0 * sum / static_cast<double>(cols));
    }
    return m;
}

struct Fit {
    Fit(const Context &context, const Matrix &m, uint32_t dim, uint64_t k)
    {
        qem_context *c = context;
        std::memset(&fit, 0, sizeof fit);
        fit.context = c;
        fit.backend = c->backend;
        fit.kind = QEM_CODEBOOK_PER_GROUP;
        fit.recipe = recipe_k(QEM_METHOD_PQ, k);
        fit.recipe.dim = dim;
        fit.recipe.allocation = QEM_ALLOCATION_VARIANCE;
        fit.points = qem_cut(m.x.data(), m.rows, m.cols, dim);
        fit.point_count = m.rows * fit.points.groups;
        fit.k = k;
    }
    ~Fit()
    {
        qem_release(fit.context, fit.problems);
        qem_release(fit.context, fit.group_bits);
    }
    Fit(const Fit &) = delete;
    Fit &operator=(const Fit &) = delete;
    uint64_t width(uint64_t g) const { return g + 1 == fit.points.groups ? fit.points.tail_dim : fit.points.dim; }
    uint64_t bytes(const std::vector<uint32_t> &bits, uint64_t entry_bits) const
    {
        uint64_t codes = 0, books = 0;
        for (uint64_t g = 0; g < fit.points.groups; g++) {
            codes += fit.points.rows * bits[g];
            books += (entry_bits * width(g)) << bits[g];
        }
        return (codes + 7) / 8 + (books + 7) / 8;
    }
    std::vector<uint32_t> bits() const { return std::vector<uint32_t>(fit.group_bits, fit.group_bits + fit.points.groups); }
    qem_fit fit;
};

// ---- the model ----

// Reverse water-filling by bisection of the level.
double filled(const std::vector<double> &variance, double bits)
{
    double low = 0.0, high = variance[0];
    for (int step = 0; step < 200; step++) {
        const double level = 0.5 * (low + high);
        double rate = 0.0;
        for (double v : variance) rate += v > level ? 0.5 * std::log2(v / level) : 0.0;
        (rate > bits ? low : high) = level;
    }
    double error = 0.0;
    for (double v : variance) error += std::min(v, high);
    return error;
}

TEST(AllocateBits, ErrorsFollowReverseWaterFilling)
{
    Random random(1);
    for (int round = 0; round < 300; round++) {
        std::vector<double> variance(2 + random.below(6));
        for (double &v : variance) v = std::exp2(12.0 * random.unit() - 6.0);
        std::sort(variance.begin(), variance.end(), std::greater<double>());
        double before = INFINITY;
        for (uint32_t bits = 0; bits <= 16; bits++) {
            const double error = qem_expected_error(variance.data(), variance.size(), bits);
            ASSERT_NEAR(error, filled(variance, bits), 1e-9 * error) << bits;
            ASSERT_LT(error, before);
            before = error;
        }
    }
    const double none[] = { 0.0, 0.0 }, one[] = { 3.0, 0.0 }, scalar = 2.0;
    EXPECT_EQ(qem_expected_error(none, 2, 0), 0.0);
    EXPECT_EQ(qem_expected_error(none, 2, 3), 0.0);
    EXPECT_DOUBLE_EQ(qem_expected_error(one, 2, 2), 3.0 / 16.0); // a sub-vector that varies along one axis
    EXPECT_DOUBLE_EQ(qem_expected_error(&scalar, 1, 1), 2.0 * 0.3634); // two levels at +-sqrt(2/pi): 1 - 2/pi
    EXPECT_NEAR(qem_expected_error(&scalar, 1, 1), 2.0 * (1.0 - 2.0 / M_PI), 1e-4);
    for (uint32_t bits = 0; bits < 16; bits++)
        EXPECT_LT(qem_expected_error(&scalar, 1, bits + 1), qem_expected_error(&scalar, 1, bits));
}

TEST(AllocateBits, VariancesArePrincipalOnes)
{
    const Context context;
    const Matrix m = falling(700, 10, 2, true);
    Matrix weight(m.rows, m.cols);
    Random random(3);
    for (float &w : weight.x) w = static_cast<float>(random.unit());
    for (const bool weighted : { false, true })
        for (uint32_t dim : { 1u, 3u, 4u, 40u }) {
            Fit f(context, m, dim, 4);
            if (weighted) f.fit.element_weight = weight.x.data();
            std::vector<double> variance(m.cols, NAN), mean(m.cols, 0.0);
            context.must(qem_group_variances(&f.fit, variance.data()));
            auto weight_at = [&](uint64_t i, uint64_t j) { return weighted ? static_cast<double>(weight.at(i, j)) : 1.0; };
            for (uint64_t j = 0; j < m.cols; j++) {
                double sum = 0.0, count = 0.0;
                for (uint64_t i = 0; i < m.rows; i++) {
                    sum += weight_at(i, j) * m.at(i, j);
                    count += weight_at(i, j);
                }
                mean[j] = sum / count;
            }
            for (uint64_t g = 0; g < f.fit.points.groups; g++) { // trace and Frobenius norm do not depend on the axes
                double trace = 0.0, norm = 0.0, sum = 0.0, squares = 0.0;
                for (uint64_t a = g * dim; a < g * dim + f.width(g); a++) {
                    for (uint64_t b = g * dim; b < g * dim + f.width(g); b++) {
                        double c = 0.0;
                        for (uint64_t i = 0; i < m.rows; i++)
                            c += std::sqrt(weight_at(i, a) * weight_at(i, b)) * (m.at(i, a) - mean[a]) * (m.at(i, b) - mean[b]);
                        trace += a == b ? c : 0.0;
                        norm += c * c;
                    }
                    sum += variance[a];
                    squares += variance[a] * variance[a];
                    ASSERT_GE(variance[a], 0.0);
                    ASSERT_TRUE(a == g * dim || variance[a] <= variance[a - 1]);
                }
                ASSERT_NEAR(sum, trace, 1e-9 * trace) << "dim " << dim << ", group " << g;
                if (dim > 32) continue; // such groups have the variances of their columns
                ASSERT_NEAR(squares, norm, 1e-9 * norm) << "dim " << dim << ", group " << g;
            }
        }
}

// ---- the budget ----

TEST(AllocateBits, TakesNoMoreThanThereIsAndLeavesNoBitThatFits)
{
    const Context context;
    Random random(4);
    for (int round = 0; round < 400; round++) {
        const Matrix m = gaussian(1 + random.below(300), 1 + random.below(40), 5 + static_cast<uint64_t>(round));
        const uint32_t dim = 1 + static_cast<uint32_t>(random.below(5));
        Fit f(context, m, dim, 1 + random.below(m.rows));
        f.fit.recipe.codebook_bits = random.below(2) ? 8 : 0;
        f.fit.spare_bits = random.below(2) ? 1000.0 * random.unit() : 0.0;
        const uint64_t entry = f.fit.recipe.codebook_bits ? 8 : 32, k = f.fit.k, groups = f.fit.points.groups;
        std::vector<double> variance(m.cols);
        for (double &v : variance) v = random.below(5) ? std::exp2(10.0 * random.unit()) : 0.0;
        for (uint64_t g = 0; g < groups; g++)
            std::sort(variance.begin() + static_cast<long>(g * dim), variance.begin() + static_cast<long>(g * dim + f.width(g)),
                      std::greater<double>());
        context.must(qem_fit_allocate_bits(&f.fit, variance.data(), nullptr));
        const uint64_t there = (m.rows * groups * qem_code_bits(k) + 7) / 8 + (entry * m.cols * k + 7) / 8 +
                               static_cast<uint64_t>(f.fit.spare_bits / 8.0);
        const std::vector<uint32_t> bits = f.bits();
        const uint32_t most = std::min<uint32_t>(QEM_MOST_GROUP_BITS, qem_code_bits(m.rows));
        ASSERT_LE(f.bytes(bits, entry), there);
        ASSERT_EQ(f.fit.k, uint64_t{ 1 } << *std::max_element(bits.begin(), bits.end()));
        for (uint64_t g = 0; g < groups; g++) {
            ASSERT_LE(bits[g], most);
            if (variance[g * dim] == 0.0) {
                ASSERT_EQ(bits[g], 0u);
                continue;
            }
            std::vector<uint32_t> more = bits;
            more[g]++;
            ASSERT_TRUE(bits[g] == most || f.bytes(more, entry) > there) << "group " << g;
        }
    }
}

TEST(AllocateBits, DistinctSubVectorsBoundTheWidths)
{
    const Context context;
    const Matrix m = gaussian(500, 4, 6);
    Fit f(context, m, 1, 128);
    const double variance[] = { 8.0, 4.0, 2.0, 1.0 };
    const uint64_t distinct[] = { 1, 2, 5, 500 };
    context.must(qem_fit_allocate_bits(&f.fit, variance, distinct));
    EXPECT_EQ(f.bits(), (std::vector<uint32_t>{ 0, 1, 3, 9 })); // the rest goes to who has use for it
}

TEST(AllocateBits, PackedCodesFollowTheWidths)
{
    Random random(7);
    const uint8_t bits[] = { 3, 0, 16, 1, 7 };
    std::vector<uint32_t> labels(5 * 37);
    uint64_t total = 0;
    for (size_t i = 0; i < labels.size(); i++) {
        labels[i] = static_cast<uint32_t>(random.below(uint64_t{ 1 } << bits[i % 5]));
        total += bits[i % 5];
    }
    std::vector<uint8_t> stream((total + 7) / 8 + QEM_STREAM_SLACK, 0);
    qem_pack_groups(labels.data(), labels.size(), bits, 5, 0, stream.data());
    uint64_t bit = 0;
    for (size_t i = 0; i < labels.size(); i++)
        for (uint32_t b = 0; b < bits[i % 5]; b++, bit++) ASSERT_EQ(stream[bit / 8] >> (bit % 8) & 1, labels[i] >> b & 1);
    for (size_t i = (total + 7) / 8; i < stream.size(); i++) ASSERT_EQ(stream[i], 0);
}

// ---- the pipeline ----

struct Made {
    Made(const Context &context, const Matrix &m, const qem_recipe &recipe) : context_(context)
    {
        const qem_view view = m.view();
        qem_plan plan = QEM_PLAN_INIT;
        context.must(qem_make_plan(context, &view, &recipe, &plan));
        context.must(qem_quantize(context, &view, "m", &recipe, &artifact));
        context.must(qem_artifact_query(artifact, &info));
        EXPECT_EQ(plan.stored_bytes, info.stored_bytes);
        EXPECT_EQ(plan.k, info.k);
        EXPECT_LE(info.stored_bytes, info.budget_bytes);
    }
    ~Made() { qem_artifact_destroy(&artifact); }
    Made(const Made &) = delete;
    Made &operator=(const Made &) = delete;
    std::vector<float> decoded(const qem_artifact *a) const
    {
        std::vector<float> out(info.rows * info.cols);
        context_.must(qem_dequantize(context_, a, 0, info.rows, QEM_DTYPE_F32, out.data(), 0));
        return out;
    }
    // The same after a file, and the rows of the fit encoded again err no more.
    void expect_round_trip(const Matrix &m) const
    {
        const std::string path = "/tmp/qem_allocate_bits_" + std::to_string(getpid()) + ".safetensors";
        const qem_view view = m.view();
        qem_artifact *loaded = nullptr, *again = nullptr;
        qem_artifact_info query = QEM_ARTIFACT_INFO_INIT;
        context_.must(qem_save(context_, artifact, path.c_str()));
        context_.must(qem_load(context_, path.c_str(), &loaded));
        unlink(path.c_str());
        EXPECT_EQ(decoded(loaded), decoded(artifact));
        context_.must(qem_encode(context_, loaded, &view, "again", &again));
        context_.must(qem_artifact_query(again, &query));
        EXPECT_LE(query.metrics.mse, info.metrics.mse * (1.0 + 1e-5) + 1e-30);
        EXPECT_EQ(query.stored_bytes, info.stored_bytes);
        qem_artifact_destroy(&loaded);
        qem_artifact_destroy(&again);
    }

    qem_artifact *artifact = nullptr;
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;

private:
    const Context &context_;
};

qem_recipe recipe_for(qem_method method, uint32_t dim, double bits, qem_allocation allocation)
{
    qem_recipe recipe = recipe_of(method);
    recipe.dim = dim;
    recipe.bits = bits;
    recipe.codebook_bits = 8;
    recipe.allocation = allocation;
    return recipe;
}

TEST(AllocateBits, LessErrorWhereColumnsDiffer)
{
    const Context context;
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_OPQ })
        for (uint32_t dim : { 1u, 2u, 3u }) {
            const Matrix m = falling(3000, 10, 8, method == QEM_METHOD_OPQ, dim == 1 ? 1.0 : 0.3);
            const Made even(context, m, recipe_for(method, dim, 4.0, QEM_ALLOCATION_COUNT));
            const Made by_variance(context, m, recipe_for(method, dim, 4.0, QEM_ALLOCATION_VARIANCE));
            if (method != QEM_METHOD_OPQ || dim == 1) { // vectors of balanced axes may do as well
                EXPECT_LT(by_variance.info.metrics.mse, (dim == 1 ? 0.2 : 0.9) * even.info.metrics.mse)
                    << qem_method_name(method) << " dim " << dim;
            }
            const qem_stage &stage = by_variance.artifact->stages[0];
            ASSERT_NE(stage.group_bits, nullptr);
            EXPECT_GT(by_variance.info.parts.group_bits, 0u);
            by_variance.expect_round_trip(m);
        }
}

TEST(AllocateBits, AnExplicitKIsTheBudget)
{
    const Context context;
    const Matrix m = falling(600, 12, 9, true);
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_OPQ })
        for (uint64_t k : { 1, 2, 5, 16, 600 }) {
            qem_recipe recipe = recipe_k(method, k);
            recipe.dim = 2;
            qem_recipe by_variance = recipe;
            by_variance.allocation = QEM_ALLOCATION_VARIANCE;
            const Made even(context, m, recipe), widths(context, m, by_variance);
            EXPECT_LE(widths.info.stored_bytes, even.info.stored_bytes + 6) << k; // a byte for each group
        }
}

TEST(AllocateBits, TheSameForEveryThreadCount)
{
    const Matrix m = falling(900, 9, 10, true);
    for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_OPQ }) {
        std::vector<float> first;
        for (uint32_t threads : { 1, 2 }) {
            const Context context(with_threads(threads));
            const Made made(context, m, recipe_for(method, 2, 5.0, QEM_ALLOCATION_VARIANCE));
            if (first.empty()) first = made.decoded(made.artifact);
            EXPECT_EQ(first, made.decoded(made.artifact));
        }
    }
}

TEST(AllocateBits, PathologicalMatrices)
{
    const Context context;
    const struct { uint64_t rows, cols; uint32_t dim; } shapes[] = { { 1, 1, 1 }, { 1, 9, 4 }, { 40, 1, 4 }, { 70, 10, 3 }, { 33, 50, 40 } };
    for (int kind = 0; kind < kKinds; kind++)
        for (const auto &shape : shapes)
            for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_QET, QEM_METHOD_OPQ }) {
                const Matrix m = any_matrix(kind, shape.rows, shape.cols, 11);
                qem_recipe recipe = recipe_k(method, std::min<uint64_t>(5, shape.rows));
                recipe.dim = shape.dim;
                recipe.allocation = QEM_ALLOCATION_VARIANCE;
                SCOPED_TRACE(std::to_string(kind) + " " + qem_method_name(method) + " " + std::to_string(shape.cols));
                const Made made(context, m, recipe);
                made.expect_round_trip(m);
            }
}

// ---- rotations as f16 ----

TEST(HalfRotation, TakesHalfTheBytesAndComesBack)
{
    const Context context;
    const Matrix m = falling(1200, 12, 12, true);
    for (qem_method method : { QEM_METHOD_OPQ, QEM_METHOD_LOPQ })
        for (uint32_t codebook_bits : { 0u, 8u }) {
            qem_recipe recipe = recipe_k(method, 16);
            recipe.dim = 3;
            recipe.codebook_bits = codebook_bits;
            const Made whole(context, m, recipe);
            recipe.params = 16;
            const Made half(context, m, recipe);
            EXPECT_EQ(2 * half.info.parts.rotation, whole.info.parts.rotation);
            EXPECT_LT(half.info.metrics.mse, 1.05 * whole.info.metrics.mse);
            for (uint64_t i = 0; i < half.artifact->stages[0].cells * m.cols * m.cols; i++) { // as decoders read it
                const float value = half.artifact->stages[0].rotation[i];
                ASSERT_LE(std::fabs(value), 1.0f);
                ASSERT_EQ(value, static_cast<float>(static_cast<_Float16>(value)));
            }
            half.expect_round_trip(m);
            whole.expect_round_trip(m);
        }
}

TEST(HalfRotation, CentroidsBeyondF16AreAnError)
{
    const Context context;
    Matrix m = gaussian(50, 4, 13, 1.0, 1e5);
    qem_recipe recipe = recipe_k(QEM_METHOD_LOPQ, 2);
    const qem_view view = m.view();
    qem_artifact *artifact = nullptr;
    recipe.params = 16;
    EXPECT_EQ(qem_quantize(context, &view, "m", &recipe, &artifact), QEM_ERR_RANGE);
    recipe.params = 32;
    EXPECT_EQ(qem_quantize(context, &view, "m", &recipe, &artifact), QEM_OK);
    qem_artifact_destroy(&artifact);
}

} // namespace
