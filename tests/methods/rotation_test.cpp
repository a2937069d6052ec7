// opq and lopq on their own: a fit is filled by hand, and what it holds is decoded by the definition.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "methods/registry.h"
#include "methods/rotation.h"
}

using namespace qem_test;

namespace {

// A fit with its memory, as the pipeline sets it up.
struct Fit {
    Fit(const Context &context, const Matrix &m, const qem_recipe &recipe) : rows(m.rows), cols(m.cols), context_(context)
    {
        qem_context *c = context;
        ops = qem_method_find(recipe.method);
        std::memset(&fit, 0, sizeof fit);
        fit.context = c;
        fit.backend = c->backend;
        fit.kind = ops->kind;
        fit.recipe = recipe;
        fit.recipe.levels = 0;
        if (recipe.dim == 0) fit.recipe.dim = 4;
        if (recipe.method == QEM_METHOD_LOPQ && recipe.cells == 0) fit.recipe.cells = 2;
        fit.points = qem_cut(m.x.data(), m.rows, m.cols, fit.recipe.dim);
        fit.point_count = m.rows * fit.points.groups;
        fit.k = recipe.k;
    }
    ~Fit()
    {
        qem_release(fit.context, fit.problems);
        fit.backend->release(fit.context, fit.rotation);
        fit.backend->release(fit.context, fit.coarse);
        fit.backend->release(fit.context, fit.row_cells);
    }
    uint64_t cells() const { return fit.recipe.method == QEM_METHOD_LOPQ ? fit.recipe.cells : 1; }
    void allocate()
    {
        codebook.assign(cells() * fit.k * cols, NAN);
        labels.assign(fit.point_count, UINT32_MAX);
        fit.codebook = codebook.data();
        fit.labels = labels.data();
    }
    qem_status run()
    {
        const qem_status status = ops->partition(&fit);
        if (status != QEM_OK) return status;
        allocate();
        return ops->fit(&fit);
    }
    std::vector<float> rotation() const
    {
        return std::vector<float>(fit.rotation, fit.rotation + fit.cells_of_rows * cols * cols);
    }

    // Sum of squared errors, every row decoded as artifact.h says.
    double error(const Matrix &m) const
    {
        double sum = 0.0;
        std::vector<float> y(cols);
        for (uint64_t i = 0; i < rows; i++) {
            const uint64_t cell = fit.row_cells ? fit.row_cells[i] : 0;
            for (uint64_t j = 0; j < cols; j++) {
                const uint64_t g = j / fit.points.dim, width = g + 1 == fit.points.groups ? fit.points.tail_dim : fit.points.dim;
                const uint64_t label = labels[i * fit.points.groups + g];
                EXPECT_LT(label, fit.k);
                y[j] = codebook[(cell * cols + g * fit.points.dim) * fit.k + label * width + j % fit.points.dim];
            }
            for (uint64_t j = 0; j < cols; j++) {
                float value = fit.coarse ? fit.coarse[cell * cols + j] : 0.0f;
                for (uint64_t p = 0; p < cols && fit.rotation; p++)
                    value = std::fmaf(y[p], fit.rotation[(cell * cols + p) * cols + j], value);
                if (!fit.rotation) value = y[j];
                const double e = static_cast<double>(m.at(i, j)) - value;
                sum += e * e;
            }
        }
        return sum;
    }

    uint64_t rows, cols;
    qem_fit fit;
    const qem_method_ops *ops;
    std::vector<float> codebook;
    std::vector<uint32_t> labels;

private:
    const Context &context_;
};

qem_recipe recipe_for(qem_method method, uint64_t k, uint32_t dim, qem_rotation_start start = QEM_ROTATION_IDENTITY)
{
    qem_recipe recipe = recipe_k(method, k);
    recipe.dim = dim;
    recipe.rotation_start = start;
    return recipe;
}

double error_of(const Context &context, const Matrix &m, const qem_recipe &recipe)
{
    Fit fit(context, m, recipe);
    context.must(fit.run());
    return fit.error(m);
}

// Columns that are mixtures of few sources of falling strength.
Matrix correlated(uint64_t rows, uint64_t cols, uint64_t seed)
{
    const Matrix source = gaussian(rows, cols, seed), mix = gaussian(cols, cols, seed + 1);
    Matrix m(rows, cols);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t p = 0; p < cols; p++)
            for (uint64_t j = 0; j < cols; j++)
                m.at(i, j) += source.at(i, p) * mix.at(p, j) * static_cast<float>(std::pow(0.8, static_cast<double>(p)));
    return m;
}

void expect_orthogonal(const float *r, uint64_t n, double tolerance)
{
    for (uint64_t a = 0; a < n; a++)
        for (uint64_t b = 0; b < n; b++) {
            double dot = 0.0;
            for (uint64_t p = 0; p < n; p++) dot += static_cast<double>(r[a * n + p]) * r[b * n + p];
            ASSERT_NEAR(dot, a == b ? 1.0 : 0.0, tolerance) << a << ", " << b;
        }
}

// ---- the parts ----

TEST(Rotation, ProcrustesFindsTheRotationThatWasApplied)
{
    const Context context;
    for (uint64_t n : { 1, 2, 7, 40 }) {
        // an orthogonal matrix: the nearest one to noise
        const Matrix noise = gaussian(n, n, n);
        std::vector<double> product(noise.x.begin(), noise.x.end()), q(n * n), r(n * n, 7.0);
        int found = 0;
        context.must(qem_rotation_procrustes(context, n, product.data(), q.data(), &found));
        ASSERT_EQ(found, 1);
        const Matrix x = gaussian(3 * n, n, n + 1);
        std::fill(product.begin(), product.end(), 0.0); // X^T (X Q)
        for (uint64_t i = 0; i < x.rows; i++)
            for (uint64_t b = 0; b < n; b++) {
                double y = 0.0;
                for (uint64_t p = 0; p < n; p++) y += static_cast<double>(x.at(i, p)) * q[p * n + b];
                for (uint64_t a = 0; a < n; a++) product[a * n + b] += x.at(i, a) * y;
            }
        context.must(qem_rotation_procrustes(context, n, product.data(), r.data(), &found));
        ASSERT_EQ(found, 1);
        for (uint64_t i = 0; i < n * n; i++) ASSERT_NEAR(r[i], q[i], 1e-9);
    }
}

TEST(Rotation, ProcrustesOfZerosIsOrthogonal)
{
    const Context context;
    const uint64_t n = 9;
    std::vector<double> product(n * n), r(n * n);
    int found = 0;
    context.must(qem_rotation_procrustes(context, n, product.data(), r.data(), &found));
    ASSERT_EQ(found, 1);
    const std::vector<float> rounded(r.begin(), r.end());
    expect_orthogonal(rounded.data(), n, 1e-6);
}

// Variances 2^0 .. 2^7 in groups of 2: pairs of the same product, 2^7.
TEST(Rotation, PrincipalAxesBalanceTheGroups)
{
    const Context context;
    const uint64_t n = 8;
    std::vector<double> covariance(n * n), r(n * n);
    for (uint64_t i = 0; i < n; i++) covariance[i * n + i] = std::ldexp(1.0, static_cast<int>(i * 3 % n)); // a permutation
    const std::vector<double> before = covariance;
    int found = 0;
    context.must(qem_rotation_principal(context, n, 2, covariance.data(), r.data(), &found));
    ASSERT_EQ(found, 1);
    for (uint64_t g = 0; g < n / 2; g++) {
        double product = 1.0;
        for (uint64_t j = 2 * g; j < 2 * g + 2; j++) {
            double variance = 0.0;
            for (uint64_t i = 0; i < n; i++) variance += r[i * n + j] * r[i * n + j] * before[i * n + i];
            product *= variance;
        }
        EXPECT_NEAR(product, 128.0, 1e-9) << "group " << g;
    }
}

TEST(Rotation, TooManyColumnsAreAnError)
{
    const Context context;
    double unused = 0.0;
    int found = 0;
    EXPECT_EQ(qem_rotation_procrustes(context, QEM_MOST_ROTATED_COLS + 1, &unused, &unused, &found), QEM_ERR_UNSUPPORTED);
    EXPECT_NE(context.error().find("16385"), std::string::npos) << context.error();
}

TEST(CrossProduct, IsThatOfTheDefinitionForEveryThreadCountAndInstructionSet)
{
    const struct { uint64_t rows, a, b; } shapes[] = { { 1, 1, 1 }, { 3, 5, 1 }, { 300, 17, 9 }, { 513, 130, 260 }, { 9000, 11, 20 } };
    for (const auto &shape : shapes) {
        const Matrix a = gaussian(shape.rows, shape.a, 1, 1.0, 3.0), b = heavy_tails(shape.rows, shape.b, 2);
        std::vector<double> first;
        for (qem_isa isa : available_isas())
            for (uint32_t threads : { 1, 3 }) {
                const Context context(with_threads(threads, isa));
                qem_context *c = context;
                std::vector<double> product(shape.a * shape.b + 1, 77.0);
                context.must(c->backend->cross_product(c, a.x.data(), b.x.data(), shape.rows, shape.a, shape.b, product.data()));
                ASSERT_EQ(product.back(), 77.0);
                if (first.empty()) first = product;
                ASSERT_EQ(product, first) << qem_isa_name(isa) << ", " << threads << " threads";
            }
        for (uint64_t i = 0; i < shape.a; i++)
            for (uint64_t j = 0; j < shape.b; j++) {
                double sum = 0.0, size = 0.0;
                for (uint64_t r = 0; r < shape.rows; r++) {
                    sum += static_cast<double>(a.at(r, i)) * b.at(r, j);
                    size += std::fabs(static_cast<double>(a.at(r, i)) * b.at(r, j));
                }
                ASSERT_NEAR(first[i * shape.b + j], sum, 1e-12 * size);
            }
    }
}

// Passes that go on from where others ended are worth as much as if they had not been interrupted.
TEST(WarmKmeans, GoesOnFromLabelsAndCodebook)
{
    for (uint64_t cols : { 4, 11, 40 })
        for (uint64_t k : { 1, 5, 80 }) {
            const Context context;
            const Matrix m = gaussian(1500, cols, cols + k, 1.0, 2.0);
            const auto passes = [&](Fit &fit, uint32_t count, uint32_t warm) {
                qem_kmeans_args args = qem_fit_kmeans_args(&fit.fit);
                std::vector<double> objective(args.problem_count);
                args.iterations = count;
                args.warm = warm;
                args.restarts = warm ? 3 : 1; // without effect
                args.objective = objective.data();
                context.must(fit.fit.backend->kmeans(context, &args));
                double sum = 0.0;
                for (double part : objective) sum += part;
                return sum;
            };
            Fit whole(context, m, recipe_for(QEM_METHOD_PQ, k, 4)), parts(context, m, recipe_for(QEM_METHOD_PQ, k, 4));
            for (Fit *fit : { &whole, &parts }) {
                context.must(fit->ops->partition(&fit->fit));
                fit->allocate();
            }
            const double at_once = passes(whole, 8, 0), before = passes(parts, 3, 0), none = passes(parts, 0, 1);
            ASSERT_NEAR(none, before, 1e-6 * before);
            const double after = passes(parts, 5, 1);
            ASSERT_LE(after, before * (1.0 + 1e-6));
            ASSERT_NEAR(after, at_once, 2e-3 * at_once) << "cols " << cols << ", k " << k;
            ASSERT_NEAR(after, parts.error(m), 1e-4 * after + 1e-9);
        }
}

// ---- opq ----

TEST(Opq, IsNeverWorseThanPq)
{
    const struct { uint64_t rows, cols; uint32_t dim; } shapes[] = { { 1, 1, 1 }, { 1, 9, 4 }, { 40, 1, 4 }, { 70, 10, 4 }, { 200, 16, 2 },
                                                                     { 33, 7, 9 } };
    for (int kind = 0; kind < kKinds; kind++)
        for (const auto &shape : shapes)
            for (uint64_t k : { 1, 3, 16 }) {
                const Context context;
                if (k > shape.rows * ((shape.cols + shape.dim - 1) / shape.dim)) continue;
                const Matrix m = any_matrix(kind, shape.rows, shape.cols, 5);
                const double pq = error_of(context, m, recipe_for(QEM_METHOD_PQ, k, shape.dim));
                for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_BEST }) {
                    const double opq = error_of(context, m, recipe_for(QEM_METHOD_OPQ, k, shape.dim, start));
                    ASSERT_LE(opq, pq) << "kind " << kind << ", " << shape.rows << " x " << shape.cols << ", k " << k;
                }
            }
}

TEST(Opq, RotatesCorrelatedColumnsApart)
{
    const Context context;
    const Matrix m = correlated(2000, 18, 3); // a tail group of 2
    const double pq = error_of(context, m, recipe_for(QEM_METHOD_PQ, 32, 4));
    EXPECT_LT(error_of(context, m, recipe_for(QEM_METHOD_OPQ, 32, 4)), 0.8 * pq);
    const double axes = error_of(context, m, recipe_for(QEM_METHOD_OPQ, 32, 4, QEM_ROTATION_PCA));
    EXPECT_LT(axes, 0.5 * pq);
    EXPECT_LE(error_of(context, m, recipe_for(QEM_METHOD_OPQ, 32, 4, QEM_ROTATION_BEST)), axes * (1.0 + 1e-12));
}

// Above 2 * 32768 rows the rotation is learnt from some of them.
TEST(Opq, LearnsFromASample)
{
    const Matrix m = correlated(66000, 7, 12);
    for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_PCA, QEM_ROTATION_BEST }) {
        std::vector<uint32_t> labels;
        for (uint32_t threads : { 1, 2 }) {
            const Context context(with_threads(threads));
            qem_recipe opq = recipe_for(QEM_METHOD_OPQ, 16, 4, start), pq = recipe_for(QEM_METHOD_PQ, 16, 4);
            opq.iterations = pq.iterations = 5;
            Fit fit(context, m, opq);
            context.must(fit.run());
            expect_orthogonal(fit.fit.rotation, 7, 1e-6);
            if (labels.empty()) {
                EXPECT_LT(fit.error(m), 0.9 * error_of(context, m, pq));
                labels = fit.labels;
            }
            ASSERT_EQ(labels, fit.labels);
        }
    }
}

TEST(Opq, RotationIsOrthogonal)
{
    const Context context;
    for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_PCA }) {
        const Matrix m = correlated(500, 30, 4);
        Fit fit(context, m, recipe_for(QEM_METHOD_OPQ, 16, 4, start));
        context.must(fit.run());
        ASSERT_EQ(fit.fit.cells_of_rows, 1u);
        expect_orthogonal(fit.fit.rotation, 30, 1e-6);
    }
}

TEST(Opq, WithoutPassesKeepsTheSeeds)
{
    const Context context;
    const Matrix m = correlated(300, 12, 4);
    qem_recipe pq = recipe_for(QEM_METHOD_PQ, 16, 4), opq = recipe_for(QEM_METHOD_OPQ, 16, 4);
    pq.iterations = opq.iterations = 0;
    Fit plain(context, m, pq), rotated(context, m, opq);
    context.must(plain.run());
    context.must(rotated.run());
    EXPECT_EQ(plain.codebook, rotated.codebook);
    EXPECT_EQ(plain.labels, rotated.labels);
}

TEST(Opq, ExactWherePqIs)
{
    const Context context;
    const Matrix m = repeated_rows(100, 10, 6, 3);
    for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_BEST })
        EXPECT_EQ(error_of(context, m, recipe_for(QEM_METHOD_OPQ, 8, 4, start)), error_of(context, m, recipe_for(QEM_METHOD_PQ, 8, 4)));
}

TEST(Opq, PrincipalStartTakesAnyMatrix)
{
    const Context context;
    for (int kind = 0; kind < kKinds; kind++)
        for (uint64_t rows : { 1, 2, 90 }) {
            const Matrix m = any_matrix(kind, rows, 11, 8);
            double size = 0.0;
            for (float x : m.x) size += static_cast<double>(x) * x;
            const double error = error_of(context, m, recipe_for(QEM_METHOD_OPQ, 2, 4, QEM_ROTATION_PCA));
            ASSERT_LE(error, size * (1.0 + 1e-6)) << "kind " << kind << ", " << rows << " rows";
        }
}

TEST(Opq, ValuesNearTheEndOfF32StayUnrotated)
{
    const Context context;
    const Matrix m = gaussian(60, 12, 9, 6e37);
    Fit fit(context, m, recipe_for(QEM_METHOD_OPQ, 8, 4));
    context.must(fit.run());
    for (uint64_t i = 0; i < 12 * 12; i++) ASSERT_EQ(fit.fit.rotation[i], i % 13 == 0 ? 1.0f : 0.0f);
    ASSERT_EQ(fit.error(m), error_of(context, m, recipe_for(QEM_METHOD_PQ, 8, 4)));
}

// ---- lopq ----

// Clouds of rows that lie far apart, each with correlations of its own.
Matrix clouds(uint64_t rows, uint64_t cols, uint64_t seed)
{
    const Matrix one = correlated(rows, cols, seed), two = correlated(rows, cols, seed + 10);
    Matrix m(rows, cols);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) = i % 3 == 0 ? two.at(i, j) + 60.0f : one.at(i, j);
    return m;
}

TEST(Lopq, FollowsEachCloud)
{
    const Context context;
    const Matrix m = clouds(1800, 16, 5);
    for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_PCA }) {
        Fit fit(context, m, recipe_for(QEM_METHOD_LOPQ, 16, 4, start));
        context.must(fit.run());
        ASSERT_EQ(fit.fit.cells_of_rows, 2u);
        for (uint64_t i = 0; i < m.rows; i++) ASSERT_EQ(fit.fit.row_cells[i] == fit.fit.row_cells[0], i % 3 == 0) << "row " << i;
        for (uint64_t c = 0; c < 2; c++) expect_orthogonal(fit.fit.rotation + c * 256, 16, 1e-6);
        EXPECT_LT(fit.error(m), 0.8 * error_of(context, m, recipe_for(QEM_METHOD_OPQ, 16, 4, start)));
    }
}

TEST(Lopq, TakesAnyMatrixAndShape)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t cells : { 2, 5 })
            for (uint64_t rows : { 5, 61 })
                for (uint64_t cols : { 1, 10 }) {
                    const Context context(with_threads(2));
                    const Matrix m = any_matrix(kind, rows, cols, 7);
                    qem_recipe recipe = recipe_for(QEM_METHOD_LOPQ, 4, 4);
                    recipe.cells = cells;
                    Fit fit(context, m, recipe);
                    const qem_status status = fit.run();
                    if (status == QEM_ERR_RANGE && kind == 7) continue; // huge
                    context.must(status);
                    double size = 0.0;
                    for (float x : m.x) size += static_cast<double>(x) * x;
                    ASSERT_LE(fit.error(m), size * (1.0 + 1e-6)) << "kind " << kind << ", " << cells << " cells, " << rows << " x " << cols;
                    for (float x : fit.codebook) ASSERT_TRUE(std::isfinite(x));
                    for (uint64_t i = 0; i < rows; i++) ASSERT_LT(fit.fit.row_cells[i], cells);
                }
}

TEST(Lopq, MoreCellsThanRowsAreAnError)
{
    const Context context;
    qem_recipe recipe = recipe_for(QEM_METHOD_LOPQ, 1, 4);
    recipe.cells = 8;
    const Matrix m = gaussian(7, 8, 1);
    Fit fit(context, m, recipe);
    EXPECT_EQ(fit.run(), QEM_ERR_ARGUMENT);
    EXPECT_NE(context.error().find("cells: 8"), std::string::npos) << context.error();
}

// ---- both ----

TEST(Rotations, SameForEveryThreadCountAndInstructionSet)
{
    for (qem_method method : { QEM_METHOD_OPQ, QEM_METHOD_LOPQ })
        for (qem_rotation_start start : { QEM_ROTATION_IDENTITY, QEM_ROTATION_PCA, QEM_ROTATION_BEST }) {
            const Matrix m = clouds(1200, 22, 6);
            std::vector<float> codebook, rotation;
            std::vector<uint32_t> labels;
            for (qem_isa isa : available_isas())
                for (uint32_t threads : { 1, 3 }) {
                    const Context context(with_threads(threads, isa));
                    qem_recipe recipe = recipe_for(method, 16, 4, start);
                    recipe.iterations = 3;
                    Fit fit(context, m, recipe);
                    context.must(fit.run());
                    if (labels.empty()) {
                        codebook = fit.codebook;
                        rotation = fit.rotation();
                        labels = fit.labels;
                    }
                    ASSERT_EQ(rotation, fit.rotation()) << qem_isa_name(isa) << ", " << threads << " threads";
                    ASSERT_EQ(codebook, fit.codebook);
                    ASSERT_EQ(labels, fit.labels);
                }
        }
}

// The codes that rows get when they come again are as good as those of the fit.
TEST(Rotations, EncodeTheRowsOfTheFit)
{
    for (qem_method method : { QEM_METHOD_OPQ, QEM_METHOD_LOPQ })
        for (uint64_t cols : { 16, 19 }) {
            const Context context;
            const Matrix m = clouds(900, cols, 8);
            const qem_recipe recipe = recipe_for(method, 16, 4, QEM_ROTATION_PCA);
            Fit fit(context, m, recipe), again(context, m, recipe);
            context.must(fit.run());
            qem_stage stage = {};
            stage.k = fit.fit.k;
            stage.cells = fit.fit.cells_of_rows;
            stage.rotation = fit.fit.rotation;
            stage.coarse = fit.fit.coarse;
            qem_artifact base = {};
            base.stages = &stage;
            again.fit.k = fit.fit.k;
            again.allocate();
            again.codebook = fit.codebook;
            again.fit.codebook = again.codebook.data();
            context.must(again.ops->encode(&again.fit, &base));
            uint64_t other = 0;
            for (size_t i = 0; i < fit.labels.size(); i++) other += fit.labels[i] != again.labels[i];
            EXPECT_LE(other, fit.labels.size() / 1000); // ties
            EXPECT_NEAR(again.error(m), fit.error(m), 1e-6 * fit.error(m));
            EXPECT_EQ(again.rotation(), fit.rotation());
            for (uint64_t i = 0; i < m.rows && method == QEM_METHOD_LOPQ; i++)
                ASSERT_EQ(fit.fit.row_cells[i], again.fit.row_cells[i]);
        }
}

// Integers for the codebook: every entry is fmaf(q, step, least) of its component, and no other entry is nearer than a row's.
TEST(Rotations, RoundTheCodebookToIntegers)
{
    for (qem_method method : { QEM_METHOD_OPQ, QEM_METHOD_LOPQ }) {
        const Context context;
        const Matrix m = clouds(700, 11, 9);
        qem_recipe recipe = recipe_for(method, 8, 4, QEM_ROTATION_PCA), exact = recipe;
        recipe.codebook_bits = 8;
        Fit fit(context, m, recipe), floats(context, m, exact);
        context.must(fit.run());
        context.must(floats.run());
        ASSERT_NE(fit.fit.codebook_codes, nullptr);
        uint64_t at = 0;
        for (uint64_t c = 0; c < fit.cells(); c++)
            for (uint64_t g = 0; g < fit.fit.points.groups; g++) {
                const uint64_t width = g + 1 == fit.fit.points.groups ? fit.fit.points.tail_dim : 4;
                for (uint64_t j = 0; j < fit.fit.k; j++)
                    for (uint64_t p = 0; p < width; p++, at++) {
                        const float *scale = fit.fit.codebook_scale + 2 * (c * m.cols + g * 4 + p);
                        ASSERT_LT(fit.fit.codebook_codes[at], 256);
                        ASSERT_EQ(fit.codebook[at], std::fmaf(fit.fit.codebook_codes[at], scale[0], scale[1]));
                    }
            }
        EXPECT_EQ(at, fit.codebook.size());
        EXPECT_LT(fit.error(m), 1.1 * floats.error(m) + 1e-9);
        const std::vector<uint32_t> labels = fit.labels; // stale ones would err more than those of the rounded codebook
        fit.labels = floats.labels;
        const double stale = fit.error(m);
        fit.labels = labels;
        EXPECT_LE(fit.error(m), stale * (1.0 + 1e-6));
        qem_release(fit.fit.context, fit.fit.codebook_codes);
        qem_release(fit.fit.context, fit.fit.codebook_scale);
    }
}

TEST(Rotations, BytesOfTheRecipe)
{
    for (uint32_t cells : { 0, 2, 5 }) {
        qem_recipe recipe = recipe_for(cells ? QEM_METHOD_LOPQ : QEM_METHOD_OPQ, 16, 4);
        recipe.cells = cells;
        recipe.levels = 0;
        const uint64_t rows = 101, cols = 10, v = cells ? cells : 1;
        uint64_t bytes = (rows * 3 * 4 + 7) / 8 + v * 16 * cols * 4 + v * cols * cols * 4;
        if (cells) bytes += v * cols * 4 + (rows * qem_code_bits(cells) + 7) / 8;
        EXPECT_EQ(qem_recipe_bytes(QEM_CODEBOOK_PER_GROUP, rows, cols, &recipe, 16), bytes);
    }
}

} // namespace
