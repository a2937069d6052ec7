// nearest(): every dimension has its own code up to 8, packs to 128 and goes by slabs above; the number of centroids decides
// between keeping indices and resolving grains of 16 or 32.
#include "kernels_test.h"

#include <cmath>

#include "support/kernel_problems.h"

using namespace qem_test;

namespace {

class Nearest : public KernelTest {
protected:
    void check(NearestProblem &problem)
    {
        const NearestCase &shape = problem.shape;
        Output<uint32_t> expected(shape.points), actual(shape.points);
        for (const qem_cpu_kernels *kernels : { scalar, simd })
            kernels->nearest(problem.x.data(), problem.ld, shape.points, shape.dim, problem.c.data(), problem.h.data(),
                             problem.ldc, shape.count, (kernels == scalar ? expected : actual).data());
        ASSERT_TRUE(same_output(expected, actual))
            << "points " << shape.points << ", centroids " << shape.count << ", dim " << shape.dim;
    }
};

size_t work(const NearestCase &shape)
{
    return shape.points * shape.count * shape.dim;
}

constexpr size_t large = 400000; // where some cases are left out, so that sanitizers take minutes, not hours

TEST_P(Nearest, PatternsOfPointsAndCentroids)
{
    for (const NearestCase &shape : nearest_cases)
        for (Pattern pattern : all_patterns) {
            if (work(shape) > large && pattern != Pattern::normal && pattern != Pattern::few) continue;
            SCOPED_TRACE(name_of(pattern));
            NearestProblem same(random, shape, pattern, pattern);
            ASSERT_NO_FATAL_FAILURE(check(same));
            NearestProblem mixed(random, shape, Pattern::normal, pattern);
            ASSERT_NO_FATAL_FAILURE(check(mixed));
        }
}

TEST_P(Nearest, EqualCentroidsGiveTheLowestIndex)
{
    for (const NearestCase &shape : nearest_cases) {
        if (work(shape) > large) continue;
        NearestProblem problem(random, shape, Pattern::normal, Pattern::normal);
        for (size_t j = 1; j < shape.count; j++) problem.copy_centroid(below(random, j), j);
        ASSERT_NO_FATAL_FAILURE(check(problem));
        for (size_t j = 1; j < shape.count; j++) problem.copy_centroid(0, j);
        ASSERT_NO_FATAL_FAILURE(check(problem));
    }
}

TEST_P(Nearest, PointsThatAreCentroids)
{
    for (const NearestCase &shape : nearest_cases) {
        if (work(shape) > large) continue;
        NearestProblem problem(random, shape, Pattern::normal, Pattern::normal);
        for (size_t i = 0; i < shape.points; i++) {
            const size_t j = below(random, shape.count);
            for (uint32_t p = 0; p < shape.dim; p++) problem.x[p * problem.ld + i] = problem.c[p * problem.ldc + j];
        }
        ASSERT_NO_FATAL_FAILURE(check(problem));
    }
}

TEST_P(Nearest, PaddingIsChosenOnlyIfAllIsPadding)
{
    for (const NearestCase &shape : nearest_cases) {
        if (work(shape) > large) continue;
        for (size_t used : { size_t(0), size_t(1), below(random, shape.count), shape.count - 1 }) {
            NearestProblem problem(random, shape, Pattern::normal, Pattern::normal);
            for (size_t j = used; j < shape.count; j++) {
                for (uint32_t p = 0; p < shape.dim; p++) problem.c[p * problem.ldc + j] = 0.0f;
                problem.h[j] = INFINITY;
            }
            ASSERT_NO_FATAL_FAILURE(check(problem));
            std::vector<uint32_t> labels(shape.points);
            simd->nearest(problem.x.data(), problem.ld, shape.points, shape.dim, problem.c.data(), problem.h.data(),
                          problem.ldc, shape.count, labels.data());
            for (uint32_t label : labels) ASSERT_TRUE(used == 0 ? label == 0 : label < used);
        }
    }
}

// Only the last centroid, only the first, one in the middle below +inf; scores of -inf that tie.
TEST_P(Nearest, InfiniteScores)
{
    for (const NearestCase &shape : nearest_cases) {
        if (work(shape) > large) continue;
        for (size_t finite : { size_t(0), shape.count / 2, shape.count - 1 }) {
            NearestProblem problem(random, shape, Pattern::normal, Pattern::normal);
            for (size_t j = 0; j < shape.count; j++)
                if (j != finite) problem.h[j] = INFINITY;
            ASSERT_NO_FATAL_FAILURE(check(problem));
            for (size_t j = 0; j < shape.count; j++) problem.h[j] = below(random, 3) ? 1.0f : -INFINITY;
            ASSERT_NO_FATAL_FAILURE(check(problem));
        }
    }
}

QEM_KERNEL_TESTS(Nearest);

} // namespace
