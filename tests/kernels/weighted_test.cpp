// k-means and labels with weights, by the backend's primitives: against plain sums, and the same bits everywhere.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "support/reference.h"

extern "C" {
#include "backend.h"
}

using namespace qem_test;

namespace {

enum class Mode { point, element };
constexpr Mode kModes[] = { Mode::point, Mode::element };

struct Weighted {
    std::vector<float> codebook;
    std::vector<uint32_t> labels;
    uint64_t used = 0;
    double objective = 0.0;

    bool operator==(const Weighted &other) const
    {
        return codebook.size() == other.codebook.size() &&
               std::memcmp(codebook.data(), other.codebook.data(), codebook.size() * sizeof(float)) == 0 &&
               labels == other.labels && used == other.used && objective == other.objective;
    }
};

struct Case {
    const Matrix &m;
    uint32_t dim;
    uint64_t k;
    uint32_t iterations = 10;
    qem_dtype dtype = QEM_DTYPE_F32;
    uint32_t restarts = 1;
};

qem_kmeans_args arguments(const Case &c, const qem_problem &problem, const float *weights, Mode mode, Weighted &out)
{
    qem_kmeans_args args;
    std::memset(&args, 0, sizeof args);
    args.points = qem_cut(c.m.x.data(), c.m.rows, c.m.cols, c.dim);
    args.problems = &problem;
    args.problem_count = 1;
    args.codebook_dtype = c.dtype;
    args.iterations = c.iterations;
    args.restarts = c.restarts;
    args.seed = 5;
    (mode == Mode::point ? args.point_weight : args.element_weight) = weights;
    args.codebook = out.codebook.data();
    args.labels = out.labels.data();
    args.used = &out.used;
    args.objective = &out.objective;
    return args;
}

qem_problem one_problem(const Case &c)
{
    qem_problem problem;
    std::memset(&problem, 0, sizeof problem);
    problem.step = 1;
    problem.count = c.m.rows * ((c.m.cols + c.dim - 1) / c.dim);
    problem.k = c.k;
    problem.width = c.dim;
    return problem;
}

Weighted kmeans(const Context &context, const Case &c, const float *weights, Mode mode)
{
    const qem_problem problem = one_problem(c);
    Weighted out;
    out.codebook.assign(c.k * c.dim, 9.0f);
    out.labels.assign(problem.count, 999);
    const qem_kmeans_args args = arguments(c, problem, weights, mode, out);
    context.must(qem_cpu_backend.kmeans(context, &args));
    return out;
}

std::vector<uint32_t> assign(const Context &context, const Case &c, const float *weights, Mode mode, std::vector<float> codebook)
{
    const qem_problem problem = one_problem(c);
    Weighted out;
    out.codebook = std::move(codebook);
    out.labels.assign(problem.count, 999);
    const qem_kmeans_args args = arguments(c, problem, weights, mode, out);
    context.must(qem_cpu_backend.assign(context, &args));
    return out.labels;
}

// Weights of one kind, as many as a mode needs.
constexpr int kWeightKinds = 6;
std::vector<float> any_weights(int kind, const Case &c, Mode mode, uint64_t seed)
{
    std::vector<float> w(mode == Mode::element ? c.m.x.size() : one_problem(c).count);
    Random random(seed);
    for (float &value : w) {
        const double u = random.unit();
        switch (kind) {
        case 0: value = static_cast<float>(0.1 + u); break;
        case 1: value = random.below(3) ? static_cast<float>(u) : 0.0f; break;
        case 2: value = static_cast<float>(std::exp2(100.0 * u - 50.0)); break; // a ratio of 1e30
        case 3: value = static_cast<float>(u * 1e-41); break;
        case 4: value = random.below(w.size()) ? 0.0f : 1.0f; break; // hardly any
        default: value = static_cast<float>(3e38 * u); break;
        }
    }
    if (kind == 4) w[w.size() / 2] = 1.0f;
    return w;
}

// Walks over the sub-vectors: values, weights by position, width.
struct Items {
    const Case &c;
    const std::vector<float> &w;
    Mode mode;
    uint64_t groups = (c.m.cols + c.dim - 1) / c.dim;

    uint64_t at(uint64_t id) const { return id / groups * c.m.cols + id % groups * c.dim; }
    uint32_t width(uint64_t id) const
    {
        return static_cast<uint32_t>(std::min<uint64_t>(c.dim, c.m.cols - id % groups * c.dim));
    }
    float x(uint64_t id, uint32_t p) const { return c.m.x[at(id) + p]; }
    double weight(uint64_t id, uint32_t p) const { return mode == Mode::point ? w[id] : w[at(id) + p]; }
    double error(uint64_t id, const float *centroid) const
    {
        double sum = 0.0;
        for (uint32_t p = 0; p < width(id); p++)
            sum += weight(id, p) * (static_cast<double>(x(id, p)) - centroid[p]) * (static_cast<double>(x(id, p)) - centroid[p]);
        return sum;
    }
    // What rounding of f32 scores may add to an error; radius: of the points about their mean.
    double slack(uint64_t id, double radius) const
    {
        double sum = 0.0;
        for (uint32_t p = 0; p < width(id); p++) sum += weight(id, p);
        return 4e-6 * c.dim * sum * radius * radius;
    }
};

double radius_of(const Matrix &m)
{
    const auto range = std::minmax_element(m.x.begin(), m.x.end());
    return static_cast<double>(*range.second) - *range.first;
}

const Context &context()
{
    static const Context one;
    return one;
}

TEST(Weighted, WeightsThatAreAllTheSameChangeNothing)
{
    for (Mode mode : kModes)
        for (uint64_t cols : { 8, 10 })
            for (uint32_t dim : { 1, 4, 9 })
                for (float value : { 0.0f, 1.0f, 3.7f, 1e-42f, 2e38f }) {
                    const Matrix m = heavy_tails(300, cols, 3);
                    const Case c = { m, dim, 70 };
                    const Weighted plain = kmeans(context(), c, nullptr, mode);
                    Weighted same = kmeans(context(), c, std::vector<float>(m.x.size(), value).data(), mode);
                    EXPECT_EQ(same.objective, plain.objective * (value > 0.0f ? value : 1.0));
                    same.objective = plain.objective;
                    EXPECT_TRUE(same == plain) << "dim " << dim << ", weight " << value;
                }
}

TEST(Weighted, TheSameBitsForEveryThreadCountAndInstructionSet)
{
    for (Mode mode : kModes)
        for (int kind = 0; kind < kWeightKinds; kind++)
            for (uint32_t dim : { 1, 3, 4, 9 }) { // 32: no tail for 4, so that pruning is tried; a tail for 3 and 9
                const Matrix m = any_matrix(dim % 3, 500, 32, dim);
                const Case c = { m, dim, 90, 6 };
                const std::vector<float> w = any_weights(kind, c, mode, 7);
                const Weighted expected = kmeans(Context(with_threads(1, QEM_ISA_SCALAR)), c, w.data(), mode);
                const std::vector<uint32_t> labels =
                    assign(Context(with_threads(1, QEM_ISA_SCALAR)), c, w.data(), mode, expected.codebook);
                for (qem_isa isa : available_isas())
                    for (uint32_t threads : { 1, 3 }) {
                        const Context other(with_threads(threads, isa));
                        ASSERT_TRUE(kmeans(other, c, w.data(), mode) == expected)
                            << qem_isa_name(isa) << ", " << threads << " threads, dim " << dim << ", kind " << kind;
                        ASSERT_EQ(assign(other, c, w.data(), mode, expected.codebook), labels);
                    }
            }
}

// Labels, objective, and unused entries, on matrices and weights of all kinds.
TEST(Weighted, LabelsAreNearestByTheWeightedError)
{
    for (Mode mode : kModes)
        for (int matrix = 0; matrix < kKinds; matrix++)
            for (int kind = 0; kind < kWeightKinds; kind++)
                for (uint32_t dim : { 1, 4, 5 }) {
                    if (matrix == 7 && kind == 5) continue; // errors of 1e112 are right, but the sums below are not meant for them
                    SCOPED_TRACE("matrix " + std::to_string(matrix) + ", weights " + std::to_string(kind) + ", dim " +
                                 std::to_string(dim));
                    const Matrix m = any_matrix(matrix, 60, 12, 3);
                    const Case c = { m, dim, 13 };
                    const std::vector<float> w = any_weights(kind, c, mode, 1);
                    const Weighted r = kmeans(context(), c, w.data(), mode);
                    const Items items = { c, w, mode };
                    const double radius = radius_of(m);
                    double sum = 0.0, slack = 0.0;
                    ASSERT_GE(r.used, 1u);
                    for (uint64_t id = 0; id < r.labels.size(); id++) {
                        ASSERT_LT(r.labels[id], r.used);
                        const double own = items.error(id, &r.codebook[r.labels[id] * dim]);
                        for (uint64_t j = 0; j < r.used; j++)
                            ASSERT_LE(own, items.error(id, &r.codebook[j * dim]) + items.slack(id, radius));
                        sum += own;
                        slack += items.slack(id, radius);
                    }
                    if (matrix != 6) { // rounding of denormal centroids is of their own size
                        ASSERT_NEAR(r.objective, sum, 1e-4 * sum + slack);
                    }
                    for (uint64_t at = r.used * dim; at < r.codebook.size(); at++)
                        ASSERT_EQ(r.codebook[at], r.codebook[at % dim]);
                }
}

// From the seeds (no iteration) one pass goes to the weighted means of their members, in long double here.
TEST(Weighted, OnePassMovesCentroidsToTheWeightedMeans)
{
    for (Mode mode : kModes)
        for (int kind : { 0, 1, 2, 3, 5 })
            for (uint64_t cols : { 8, 11 })
                for (uint32_t dim : { 1, 4, 6 }) {
                    SCOPED_TRACE("weights " + std::to_string(kind) + ", " + std::to_string(cols) + " columns, dim " +
                                 std::to_string(dim));
                    const Matrix m = gaussian(400, cols, 8, 1.0, 2.0);
                    const Case seeds = { m, dim, 8, 0 }, pass = { m, dim, 8, 1 };
                    const std::vector<float> w = any_weights(kind, seeds, mode, 2);
                    const Weighted before = kmeans(context(), seeds, w.data(), mode), after = kmeans(context(), pass, w.data(), mode);
                    const Items items = { seeds, w, mode };
                    std::vector<long double> sums(8 * dim), weights(8 * dim);
                    for (uint64_t id = 0; id < before.labels.size(); id++)
                        for (uint32_t p = 0; p < items.width(id); p++) {
                            sums[before.labels[id] * dim + p] += static_cast<long double>(items.weight(id, p)) * items.x(id, p);
                            weights[before.labels[id] * dim + p] += items.weight(id, p);
                        }
                    for (size_t i = 0; i < sums.size(); i++) {
                        if (weights[i] == 0) continue;
                        const double mean = static_cast<double>(sums[i] / weights[i]);
                        ASSERT_NEAR(after.codebook[i], mean, 2e-6 * (1.0 + std::fabs(mean))) << "component " << i;
                    }
                }
}

TEST(Weighted, PointsWithoutWeightAttractNoCentroid)
{
    for (Mode mode : kModes)
        for (uint32_t dim : { 2, 5 }) {
            Matrix m = gaussian(400, 10, 4);
            const Case c = { m, dim, 80 };
            const uint64_t groups = 10 / dim;
            std::vector<float> w(mode == Mode::element ? m.x.size() : m.rows * groups, 0.7f);
            for (uint64_t i = 0; i < m.rows; i += 3) // every third row lies far out and counts nothing
                for (uint64_t j = 0; j < m.cols; j++) {
                    m.at(i, j) += 1000.0f;
                    w[mode == Mode::element ? i * 10 + j : i * groups + j / dim] = 0.0f;
                }
            w[mode == Mode::element ? 11 : groups + 1] = 0.5f;
            const Weighted r = kmeans(context(), c, w.data(), mode);
            ASSERT_EQ(r.used, 80u);
            for (float value : r.codebook) ASSERT_LT(std::fabs(value), 10.0f);
        }
}

TEST(Weighted, NoMoreCentroidsThanPointsThatCount)
{
    for (Mode mode : kModes) {
        const Matrix m = gaussian(100, 4, 4);
        const Case c = { m, 4, 20 };
        std::vector<float> w(mode == Mode::element ? 400 : 100, 0.0f);
        for (uint64_t i = 0; i < 5; i++)
            for (uint64_t p = 0; p < 4; p++) w[mode == Mode::element ? i * 80 + p : i * 20] = static_cast<float>(i + 1);
        const Weighted r = kmeans(context(), c, w.data(), mode);
        EXPECT_EQ(r.used, 5u);
        EXPECT_EQ(r.objective, 0.0);
    }
}

// A light cluster beside a heavy one: no digits are lost under the weights of the other.
TEST(Weighted, LightClustersKeepTheirDigits)
{
    for (Mode mode : kModes) {
        Matrix m(200, 2, 1.0f);
        const Case c = { m, 2, 2 };
        std::vector<float> w(mode == Mode::element ? 400 : 200, 1e15f);
        Random random(3);
        long double sums[2] = { 0, 0 }, weights[2] = { 0, 0 };
        for (uint64_t i = 0; i < 100; i++)
            for (uint64_t p = 0; p < 2; p++) {
                m.at(i, p) = static_cast<float>(100.0 + random.normal());
                float &weight = w[mode == Mode::element ? 2 * i + p : i];
                if (mode == Mode::element || p == 0) weight = static_cast<float>(1e-15 * (0.1 + random.unit()));
                sums[p] += static_cast<long double>(weight) * m.at(i, p);
                weights[p] += weight;
            }
        const Weighted r = kmeans(context(), c, w.data(), mode);
        ASSERT_EQ(r.used, 2u);
        const float *light = &r.codebook[2 * r.labels[0]];
        for (int p = 0; p < 2; p++) EXPECT_NEAR(light[p], static_cast<double>(sums[p] / weights[p]), 2e-5);
        EXPECT_NEAR(r.codebook[2 * r.labels[150]], 1.0, 1e-5);
    }
}

TEST(Weighted, EmptyClustersMoveToTheLargestWeightedError)
{
    for (Mode mode : kModes)
        for (uint64_t seed = 0; seed < 30; seed++) {
            const Matrix m = heavy_tails(200, 4, seed);
            const Case c = { m, 4, 40, 20 };
            const std::vector<float> w = any_weights(0, c, mode, seed);
            const Weighted r = kmeans(context(), c, w.data(), mode);
            std::vector<int> members(40);
            for (uint32_t label : r.labels) members[label]++;
            EXPECT_EQ(r.used, 40u);
            EXPECT_EQ(std::count(members.begin(), members.end(), 0), 0) << "seed " << seed;
        }
}

TEST(Weighted, MorePassesAndRestartsNeverHurt)
{
    for (Mode mode : kModes) {
        const Matrix m = gaussian(500, 8, 6);
        const std::vector<float> w = any_weights(0, Case{ m, 4, 30 }, mode, 6);
        double before = INFINITY;
        for (uint32_t iterations : { 0, 1, 2, 5, 20 }) {
            const double now = kmeans(context(), Case{ m, 4, 30, iterations }, w.data(), mode).objective;
            EXPECT_LE(now, before * 1.0001);
            before = now;
        }
        Case restarted = { m, 4, 30, 20 };
        restarted.restarts = 5;
        EXPECT_LE(kmeans(context(), restarted, w.data(), mode).objective, before);
    }
}

TEST(Weighted, CodebooksAreRoundedToF16)
{
    for (Mode mode : kModes) {
        const Matrix m = gaussian(300, 8, 6);
        Case c = { m, 4, 20 };
        c.dtype = QEM_DTYPE_F16;
        const std::vector<float> w = any_weights(0, c, mode, 6);
        for (float value : kmeans(context(), c, w.data(), mode).codebook) EXPECT_EQ(value, round_to_f16(value));
    }
}

// ---- labels against fixed codebooks ----

TEST(WeightedAssign, LabelsAreNearestAndDependOnTheOwnWeightsAlone)
{
    for (int matrix : { 0, 1, 2, 8 })
        for (int kind = 0; kind < kWeightKinds; kind++)
            for (uint32_t dim : { 1, 4, 5, 70 }) {
                SCOPED_TRACE("matrix " + std::to_string(matrix) + ", weights " + std::to_string(kind) + ", dim " +
                             std::to_string(dim));
                const Matrix m = any_matrix(matrix, 90, dim == 70 ? 150 : 12, 3);
                const Case c = { m, dim, 33 };
                const std::vector<float> w = any_weights(kind, c, Mode::element, 1);
                std::vector<float> codebook(33 * dim);
                for (uint64_t j = 0; j < 33; j++) std::copy_n(&m.x[j * m.cols], dim, &codebook[j * dim]);
                const std::vector<uint32_t> labels = assign(context(), c, w.data(), Mode::element, codebook);
                const Items items = { c, w, Mode::element };
                const double radius = radius_of(m);
                for (uint64_t id = 0; id < labels.size(); id++) {
                    const double own = items.error(id, &codebook[labels[id] * dim]);
                    for (uint64_t j = 0; j < 33; j++)
                        ASSERT_LE(own, items.error(id, &codebook[j * dim]) + items.slack(id, radius)) << "point " << id;
                }
                Matrix rows(7, m.cols); // some rows alone, their weights by another factor
                std::copy_n(&m.x[20 * m.cols], rows.x.size(), rows.x.begin());
                std::vector<float> part(w.begin() + static_cast<ptrdiff_t>(20 * m.cols),
                                        w.begin() + static_cast<ptrdiff_t>(27 * m.cols));
                for (float &value : part) value *= kind == 3 ? 8.0f : 0.25f;
                const Case few = { rows, dim, 33 };
                const std::vector<uint32_t> alone = assign(context(), few, part.data(), Mode::element, codebook);
                for (uint64_t i = 0; i < alone.size(); i++) ASSERT_EQ(alone[i], labels[20 * items.groups + i]);
            }
}

TEST(WeightedAssign, EqualWeightsOfAPointAreNone)
{
    for (uint32_t dim : { 1, 3, 4, 9 }) {
        const Matrix m = heavy_tails(300, 10, 2);
        const Case c = { m, dim, 50 };
        std::vector<float> codebook(50 * dim);
        for (uint64_t j = 0; j < 50; j++) std::copy_n(&m.x[j * 10], dim, &codebook[j * dim]);
        std::vector<float> w(m.x.size());
        for (uint64_t i = 0; i < m.x.size(); i++) w[i] = static_cast<float>(i / 10 % 7) * 0.3f;
        EXPECT_EQ(assign(context(), c, w.data(), Mode::element, codebook), assign(context(), c, nullptr, Mode::element, codebook));
        const std::vector<float> points = any_weights(2, c, Mode::point, 1); // do not matter to labels
        EXPECT_EQ(assign(context(), c, points.data(), Mode::point, codebook), assign(context(), c, nullptr, Mode::point, codebook));
    }
}

} // namespace
