// nearest(): every dimension has its own code up to 8, packs to 128 and goes by slabs above; the number of centroids decides
// between keeping indices and resolving grains of 16 or 32.
#include "kernels_test.h"

#include <cmath>

using namespace qem_test;

namespace {

struct Case {
    size_t points, count;
    uint32_t dim;
};

struct Problem {
    Case shape;
    size_t ld, ldc;
    Aligned<float> x, c, h;

    Problem(Random &random, Case shape_, Pattern points, Pattern centroids)
        : shape(shape_), ld(shape.points + 64 * below(random, 2)), ldc(shape.count + 32 * below(random, 2)), x(ld * shape.dim),
          c(ldc * shape.dim), h(ldc)
    {
        fill(random, points, x.data(), x.size());
        fill(random, centroids, c.data(), c.size());
        for (size_t j = 0; j < shape.count; j++) set_h(j);
    }
    void set_h(size_t j)
    {
        float sum = 0.0f;
        for (uint32_t p = 0; p < shape.dim; p++) sum = std::fmaf(c[p * ldc + j], c[p * ldc + j], sum);
        h[j] = 0.5f * sum;
    }
    void copy_centroid(size_t from, size_t to)
    {
        for (uint32_t p = 0; p < shape.dim; p++) c[p * ldc + to] = c[p * ldc + from];
        h[to] = h[from];
    }
};

class Nearest : public KernelTest {
protected:
    void check(Problem &problem)
    {
        const Case &shape = problem.shape;
        Output<uint32_t> expected(shape.points), actual(shape.points);
        for (const qem_cpu_kernels *kernels : { scalar, simd })
            kernels->nearest(problem.x.data(), problem.ld, shape.points, shape.dim, problem.c.data(), problem.h.data(),
                             problem.ldc, shape.count, (kernels == scalar ? expected : actual).data());
        ASSERT_TRUE(same_output(expected, actual))
            << "points " << shape.points << ", centroids " << shape.count << ", dim " << shape.dim;
    }
};

// Around the limits of nearest_template.h: groups of 1024 points, chunks of centroids, grains by 12 (8) and 64 times dim + 4
// up to dim 8 and 48 (32) times above.
const Case shapes[] = {
    { 64, 32, 1 }, { 192, 96, 1 }, { 1088, 352, 1 }, { 64, 3200, 1 }, { 1216, 32, 2 },
    { 128, 160, 2 }, { 64, 4128, 2 }, { 64, 64, 3 }, { 192, 448, 3 }, { 64, 1632, 3 },
    { 64, 32, 4 }, { 320, 128, 4 }, { 1088, 256, 4 }, { 64, 544, 4 }, { 64, 2464, 4 },
    { 64, 96, 5 }, { 128, 128, 5 }, { 64, 1184, 5 }, { 64, 96, 6 }, { 64, 160, 6 },
    { 64, 928, 6 }, { 64, 128, 7 }, { 64, 192, 7 }, { 64, 832, 7 }, { 64, 32, 8 },
    { 128, 160, 8 }, { 64, 800, 8 }, { 64, 32, 9 }, { 1088, 64, 9 }, { 64, 640, 9 },
    { 64, 64, 10 }, { 64, 96, 11 }, { 64, 800, 12 }, { 64, 96, 13 }, { 64, 32, 14 },
    { 64, 64, 15 }, { 64, 32, 16 }, { 576, 64, 16 }, { 64, 992, 16 }, { 64, 64, 17 },
    { 64, 96, 18 }, { 64, 32, 19 }, { 192, 64, 20 }, { 64, 1184, 20 }, { 192, 32, 63 },
    { 192, 32, 64 }, { 192, 32, 65 }, { 64, 1792, 33 }, { 64, 64, 127 }, { 128, 64, 128 },
    { 64, 64, 129 }, { 128, 32, 150 }, { 64, 64, 300 },
};

size_t work(const Case &shape)
{
    return shape.points * shape.count * shape.dim;
}

constexpr size_t large = 400000; // where some cases are left out, so that sanitizers take minutes, not hours

TEST_P(Nearest, PatternsOfPointsAndCentroids)
{
    for (const Case &shape : shapes)
        for (Pattern pattern : all_patterns) {
            if (work(shape) > large && pattern != Pattern::normal && pattern != Pattern::few) continue;
            SCOPED_TRACE(name_of(pattern));
            Problem same(random, shape, pattern, pattern);
            ASSERT_NO_FATAL_FAILURE(check(same));
            Problem mixed(random, shape, Pattern::normal, pattern);
            ASSERT_NO_FATAL_FAILURE(check(mixed));
        }
}

TEST_P(Nearest, EqualCentroidsGiveTheLowestIndex)
{
    for (const Case &shape : shapes) {
        if (work(shape) > large) continue;
        Problem problem(random, shape, Pattern::normal, Pattern::normal);
        for (size_t j = 1; j < shape.count; j++) problem.copy_centroid(below(random, j), j);
        ASSERT_NO_FATAL_FAILURE(check(problem));
        for (size_t j = 1; j < shape.count; j++) problem.copy_centroid(0, j);
        ASSERT_NO_FATAL_FAILURE(check(problem));
    }
}

TEST_P(Nearest, PointsThatAreCentroids)
{
    for (const Case &shape : shapes) {
        if (work(shape) > large) continue;
        Problem problem(random, shape, Pattern::normal, Pattern::normal);
        for (size_t i = 0; i < shape.points; i++) {
            const size_t j = below(random, shape.count);
            for (uint32_t p = 0; p < shape.dim; p++) problem.x[p * problem.ld + i] = problem.c[p * problem.ldc + j];
        }
        ASSERT_NO_FATAL_FAILURE(check(problem));
    }
}

TEST_P(Nearest, PaddingIsChosenOnlyIfAllIsPadding)
{
    for (const Case &shape : shapes) {
        if (work(shape) > large) continue;
        for (size_t used : { size_t(0), size_t(1), below(random, shape.count), shape.count - 1 }) {
            Problem problem(random, shape, Pattern::normal, Pattern::normal);
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
    for (const Case &shape : shapes) {
        if (work(shape) > large) continue;
        for (size_t finite : { size_t(0), shape.count / 2, shape.count - 1 }) {
            Problem problem(random, shape, Pattern::normal, Pattern::normal);
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
