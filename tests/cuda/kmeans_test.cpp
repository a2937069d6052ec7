// k-means on the GPU against that on the CPU, bit for bit.
#include "cuda/kmeans_calls.h"

using namespace qem_test;

namespace {

std::vector<float> weights_of(size_t count, uint64_t seed, int kind)
{
    Random random(seed);
    std::vector<float> w(count);
    for (float &value : w) {
        const double u = random.unit();
        if (kind == 0) value = static_cast<float>(u + 0.01);
        if (kind == 1) value = u < 0.6 ? 0.0f : static_cast<float>(random.below(3));
        if (kind == 2) value = static_cast<float>(std::ldexp(1.0 + u, static_cast<int>(random.below(200)) - 130));
        if (kind == 3) value = 3.5f; // as if there were none
        if (kind == 4) value = 0.0f;
    }
    return w;
}

TEST(CudaKmeans, EveryKindAndDimension)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t dim : { 1, 2, 3, 4, 5, 6, 7, 8, 9, 16 }) {
            Calls calls(any_matrix(kind, 61 + 13 * dim, dim, dim), dim);
            calls.add_all(3 + 2 * dim);
            calls.check("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaKmeans, SizesFromOneOn)
{
    const uint64_t sizes[][2] = { { 1, 1 },  { 1, 4 },   { 2, 1 },   { 5, 5 },   { 9, 12 },
                                  { 31, 2 }, { 33, 33 }, { 513, 5 }, { 1030, 2 } };
    for (const auto &[n, k] : sizes) {
        Calls calls(gaussian(n, 2, n), 2);
        calls.add_all(k);
        calls.check(std::to_string(n) + " points, k " + std::to_string(k));
        if (HasFatalFailure()) return;
    }
}

TEST(CudaKmeans, ManyCentroidsPassThroughSharedMemory)
{
    Calls calls(heavy_tails(700, 2, 5), 2);
    calls.add_all(290);
    calls.iterations = 2;
    calls.check();
    Calls wide(gaussian(90, 70, 5), 70);
    wide.add_all(19);
    wide.check("70 positions");
}

// Many tiles, in larger blocks where one works on a problem alone; few centroids, so that the sums go through shared memory.
TEST(CudaKmeans, ManyPoints)
{
    Calls calls(gaussian(66000, 1, 3), 1);
    calls.add_all(3);
    calls.iterations = 2;
    calls.check();
}

TEST(CudaKmeans, ExtremeValues)
{
    Matrix outlier = gaussian(120, 3, 8), denormal = gaussian(120, 3, 9), large = gaussian(120, 3, 10), zeros(50, 3);
    outlier.at(17, 1) = 3.3e38f;
    for (float &x : denormal.x) x *= 1e-42f;
    for (float &x : large.x) x *= 1e38f;
    zeros.at(3, 2) = -0.0f;
    Matrix offset = gaussian(120, 3, 11, 1.0, 1e6), least(40, 3);
    for (size_t i = 0; i < least.x.size(); i += 7) least.x[i] = 1.4e-45f;
    for (const Matrix &m : { outlier, denormal, large, zeros, offset, least })
        for (double tolerance : { 0.0, 0.05 }) {
            Calls calls(m, 3);
            calls.add_all(9);
            calls.tolerance = tolerance;
            calls.check();
            if (HasFatalFailure()) return;
        }
}

TEST(CudaKmeans, TiesAndRepeatedPoints)
{
    for (uint64_t seed = 0; seed < 6; seed++) {
        Calls ties(integers(150, 2, seed, 4), 2), repeated(repeated_rows(150, 2, seed, 7), 2);
        ties.seed = repeated.seed = seed;
        ties.add_all(12);
        repeated.add_all(11); // more than there are
        ties.check("ties");
        repeated.check("repeated");
        if (HasFatalFailure()) return;
    }
}

// The last group of columns is narrower: a codebook of its own, or points without the last positions in a shared one.
TEST(CudaKmeans, TailGroups)
{
    for (uint64_t cols : { 7, 2, 9 })
        for (int kind : { 0, 1, 3 }) {
            Calls groups(any_matrix(kind, 90, cols, cols), 4), shared(any_matrix(kind, 90, cols, cols), 4);
            groups.add_groups(6);
            shared.add_all(14);
            shared.restarts = 2;
            groups.check("groups");
            shared.check("shared");
            if (HasFatalFailure()) return;
        }
}

// Cells of a grid: lists of different lengths, one of them empty, one with tail points alone, one without centroids.
Calls ragged(uint64_t cols, uint64_t seed)
{
    Calls calls(heavy_tails(200, cols, seed), 3);
    Random random(seed);
    std::vector<std::vector<uint32_t>> lists(7);
    for (uint32_t id = 0; id < calls.labels.size(); id++) {
        const bool tail = cols % 3 && id % calls.cut.groups + 1 == calls.cut.groups;
        lists[tail && random.below(2) ? 5 : random.below(5)].push_back(id);
    }
    uint32_t base = 0;
    for (size_t i = 0; i < lists.size(); i++) {
        const uint64_t k = i == 2 ? 0 : 1 + 3 * i;
        calls.add_list(lists[i], k, base);
        base += static_cast<uint32_t>(k);
    }
    return calls;
}

TEST(CudaKmeans, RaggedLists)
{
    for (uint64_t cols : { 6, 8 }) {
        Calls calls = ragged(cols, cols);
        calls.check(std::to_string(cols) + " columns");
        calls.most_bytes = 1; // one problem at a time
        calls.check("alone");
        calls.most_bytes = 60000;
        calls.check("in batches");
        if (HasFatalFailure()) return;
    }
}

TEST(CudaKmeans, PassesAndStoppingRules)
{
    for (uint32_t iterations : { 0, 1, 2, 40 })
        for (double tolerance : { 0.0, 0.02, 0.5 }) {
            if (iterations < 2 && tolerance > 0.0) continue;
            Calls calls(gaussian(140, 4, 21), 2);
            calls.add_groups(5);
            calls.iterations = iterations;
            calls.tolerance = tolerance;
            calls.check(std::to_string(iterations) + " passes, tolerance " + std::to_string(tolerance));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaKmeans, RestartsKeepTheBest)
{
    for (uint64_t seed = 0; seed < 3; seed++)
        for (bool objectives : { false, true }) {
            Calls calls(heavy_tails(100, 4, seed), 2);
            calls.add_groups(7);
            calls.restarts = 4;
            calls.seed = seed;
            calls.objectives = objectives;
            calls.check("seed " + std::to_string(seed));
            if (HasFatalFailure()) return;
        }
}

// Clusters that lose all their points: cases found by search (tests/api/kmeans_test.cpp).
TEST(CudaKmeans, EmptyClusters)
{
    struct {
        int kind;
        uint64_t n, dim, seed, k;
    } const cases[] = { { 0, 100, 1, 84, 36 }, { 1, 40, 1, 2059, 21 }, { 1, 100, 2, 580, 32 }, { 1, 100, 2, 2347, 49 } };
    for (const auto &c : cases) {
        Calls calls(any_matrix(c.kind, c.n, c.dim, c.seed), static_cast<uint32_t>(c.dim));
        calls.add_all(c.k);
        calls.problems[0].key = 0;
        calls.seed = c.seed;
        calls.iterations = 10;
        calls.check();
        if (HasFatalFailure()) return;
    }
}

// A warm start from any codebook: entries that repeat the first one, or lie far from all points, have no members at first,
// and there may be more of them than points with an error.
Calls warm_start(const Matrix &m, uint32_t dim, uint64_t k, uint64_t seed, int kind)
{
    Calls calls(m, dim);
    Random random(seed);
    calls.add_all(k);
    calls.warm = 1;
    for (uint64_t j = 0; j < k; j++)
        for (uint64_t p = 0; p < dim; p++) {
            const float value = m.x[(j * 5 % m.rows) * m.cols + p % m.cols];
            const float other = kind == 1 ? calls.codebook[p] : 1e30f * static_cast<float>(j);
            calls.codebook[j * dim + p] = kind == 0 || j < 3 ? value : other;
        }
    for (uint32_t &label : calls.labels) label = static_cast<uint32_t>(random.below(kind == 2 ? 2 : k));
    return calls;
}

TEST(CudaKmeans, WarmStarts)
{
    for (int kind : { 0, 1, 2 })
        for (uint64_t cols : { 3, 5 })
            for (uint64_t k : { 4, 40, 90 }) {
                Calls calls = warm_start(integers(20, cols, k, 5), 3, k, k + cols, kind);
                calls.restarts = 3; // there is nothing to start anew from
                calls.check("kind " + std::to_string(kind) + ", " + std::to_string(cols) + " columns, k " +
                            std::to_string(k));
                if (HasFatalFailure()) return;
            }
}

TEST(CudaKmeans, HalfPrecisionCodebooks)
{
    Calls calls(gaussian(100, 3, 2, 1e-3, 40.0), 3);
    calls.add_all(12);
    calls.dtype = QEM_DTYPE_F16;
    calls.check();
    Calls beyond(gaussian(50, 3, 2, 1e6), 3);
    beyond.add_all(4);
    beyond.dtype = QEM_DTYPE_F16;
    beyond.check();
    EXPECT_EQ(beyond.on_gpu().status, QEM_ERR_RANGE);
}

TEST(CudaKmeans, WeightsOfPointsAndElements)
{
    for (Weights kind : { Weights::points, Weights::elements })
        for (uint32_t dim : { 1, 2, 4, 5 })
            for (int which : { 0, 1, 2, 3, 4 }) {
                Calls calls(heavy_tails(110, 9, dim), dim);
                calls.weigh(kind, weights_of(kind == Weights::points ? calls.labels.size() : calls.m.x.size(), dim, which));
                if (dim % 2)
                    calls.add_groups(5);
                else
                    calls.add_all(21);
                calls.tolerance = which == 0 ? 0.01 : 0.0;
                calls.restarts = which == 1 ? 2 : 1;
                calls.check("weights " + std::to_string(which) + ", dim " + std::to_string(dim));
                if (HasFatalFailure()) return;
            }
}

// Every third row of a matrix, where it lies: as if these rows were a matrix of their own.
TEST(CudaKmeans, RowsWithGaps)
{
    const Matrix all = heavy_tails(150, 9, 3);
    Matrix third(50, 9);
    for (uint64_t i = 0; i < third.rows; i++) std::copy_n(&all.x[3 * i * 9], 9, &third.x[i * 9]);
    for (Weights kind : { Weights::none, Weights::points, Weights::elements })
        for (uint32_t dim : { 1, 2, 3, 4 }) {
            Calls gaps(all, dim), dense(third, dim);
            gaps.take_rows(3);
            const std::vector<float> weight = weights_of(kind == Weights::points ? dense.labels.size() : all.x.size(), dim, 0);
            std::vector<float> dense_weight = weight;
            for (uint64_t i = 0; kind == Weights::elements && i < third.rows; i++)
                std::copy_n(&weight[3 * i * 9], 9, &dense_weight[i * 9]);
            gaps.weigh(kind, weight);
            dense.weigh(kind, dense_weight);
            gaps.add_all(12);
            dense.add_all(12);
            expect_same(gaps.on_cpu(), dense.on_cpu());
            gaps.check("dim " + std::to_string(dim));
            if (HasFatalFailure()) return;
        }
}

// The sums of the draws keep their scale until they have become small. Points whose distances shrink by the same factor
// again and again make that happen, on the way through sums of few digits.
TEST(CudaKmeans, DrawsByWeightUnderAFinerScale)
{
    Matrix m(120, 1);
    for (uint64_t i = 0; i < m.rows; i++) {
        const int exponent = 40 - 3 * static_cast<int>(i / 6);
        m.at(i, 0) = static_cast<float>(std::ldexp(1.0 + 0.37 * static_cast<double>(i % 6), exponent));
    }
    for (uint64_t seed = 0; seed < 4; seed++) {
        Calls calls(m, 1);
        calls.weigh(Weights::points, weights_of(m.rows, seed, 0));
        calls.add_all(90);
        calls.seed = seed;
        calls.iterations = 1;
        calls.check();
        if (HasFatalFailure()) return;
    }
}

TEST(CudaKmeans, WarmStartsWithWeights)
{
    for (Weights kind : { Weights::points, Weights::elements })
        for (uint64_t k : { 4, 40 }) {
            Calls calls = warm_start(integers(30, 5, k, 5), 3, k, k, 1);
            calls.weigh(kind, weights_of(kind == Weights::points ? calls.labels.size() : calls.m.x.size(), k, 1));
            calls.check();
            if (HasFatalFailure()) return;
        }
}

TEST(CudaKmeans, OrderOfThreadsAndBlocksDoesNotMatter)
{
    Calls calls = ragged(8, 3);
    const Outcome wanted = calls.on_cpu();
    for (uint64_t seed = 1; seed < 5; seed++) {
        qem_runner::seed(seed);
        expect_same(calls.on_gpu(), wanted);
        if (HasFatalFailure()) break;
    }
    qem_runner::reset();
}

int stop(void *user, const char *, double fraction)
{
    return fraction > *static_cast<double *>(user);
}

TEST(CudaKmeans, StopsWhenAsked)
{
    Options options;
    double limit = -1.0;
    options.progress = stop;
    options.progress_user = &limit;
    Calls calls(gaussian(100, 3, 2), 3);
    calls.add_all(4);
    EXPECT_EQ(calls.on_gpu(options).status, QEM_ERR_CANCELLED);
    limit = 2.0;
    EXPECT_EQ(calls.on_gpu(options).status, QEM_OK);
}

TEST(CudaKmeans, NoProblems)
{
    Calls calls(gaussian(10, 3, 2), 3);
    calls.check();
    calls.only_labels = true;
    calls.check();
}

TEST(CudaKmeans, OutOfDeviceMemory)
{
    QEM_NEEDS_RUNNER();
    Calls calls(gaussian(4000, 3, 2), 3);
    calls.add_all(4);
    qem_runner::machine().memory = 100000;
    const Outcome out = [&] {
        const Context gpu(qem_test::on_gpu());
        qem_kmeans_args args = {};
        args.points = calls.cut;
        args.problems = calls.problems.data();
        args.problem_count = 1;
        Outcome result;
        result.status = qem_cuda_kmeans(gpu, &args);
        return result;
    }();
    qem_runner::reset();
    EXPECT_EQ(out.status, QEM_ERR_MEMORY);
}

} // namespace
