// qem_nearest: the nearest of fixed centroids.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

std::vector<uint32_t> nearest(const Context &context, const Matrix &points, const Matrix &centroids)
{
    std::vector<uint32_t> labels(points.rows);
    const qem_view view = points.view();
    context.must(qem_nearest(context, &view, centroids.rows, centroids.x.data(), labels.data()));
    return labels;
}

// Brute force on one thread, pruned on several: the same labels; and no centroid is nearer than the one found.
TEST(Nearest, SameAsBruteForce)
{
    const Context slow(with_threads(1, QEM_ISA_SCALAR));
    for (int kind = 0; kind < kKinds; kind++)
        for (uint64_t dim : { 1, 2, 4, 8, 11 }) {
            SCOPED_TRACE("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
            const Matrix points = any_matrix(kind, 2100, dim, 1), centroids = any_matrix(kind, dim == 2 ? 1500 : 300, dim, 2);
            const std::vector<uint32_t> expected = nearest(slow, points, centroids);
            for (qem_isa isa : available_isas())
                EXPECT_EQ(nearest(Context(with_threads(3, isa)), points, centroids), expected) << qem_isa_name(isa);
            double size = 0.0;
            for (float c : centroids.x) size = std::max(size, static_cast<double>(std::fabs(c)));
            for (uint64_t i = 0; i < points.rows; i += 97) {
                const float *x = &points.x[i * dim];
                const double own = distance(x, &centroids.x[expected[i] * dim], static_cast<uint32_t>(dim));
                const double least =
                    least_distance(x, centroids.x.data(), centroids.rows, dim, static_cast<uint32_t>(dim));
                ASSERT_LE(own, least + 1e-4 * size * size);
            }
            if (HasFailure()) return;
        }
}

TEST(Nearest, TiesGoToTheLowestIndex)
{
    Matrix points(300, 3, 1.0f), centroids(700, 3, 1.0f);
    for (uint32_t label : nearest(Context(with_threads(2)), points, centroids)) ASSERT_EQ(label, 0u);
}

// A few points, fewer than centroids.
TEST(Nearest, AnyNumberOfPoints)
{
    const Context slow(with_threads(1, QEM_ISA_SCALAR)), fast(with_threads(2));
    const Matrix centroids = gaussian(5000, 2, 3);
    for (uint64_t rows : { 1, 2, 63, 65, 1025 }) {
        const Matrix points = gaussian(rows, 2, rows);
        EXPECT_EQ(nearest(fast, points, centroids), nearest(slow, points, centroids)) << rows;
    }
}

TEST(Nearest, Arguments)
{
    const Context context(with_threads(1));
    const Matrix m = gaussian(10, 4, 1);
    const qem_view view = m.view();
    uint32_t labels[10];
    EXPECT_EQ(qem_nearest(nullptr, &view, 2, m.x.data(), labels), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_nearest(context, nullptr, 2, m.x.data(), labels), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_nearest(context, &view, 2, nullptr, labels), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_nearest(context, &view, 2, m.x.data(), nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_nearest(context, &view, 0, m.x.data(), labels), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_nearest(context, &view, (1u << 24) + 1, m.x.data(), labels), QEM_ERR_ARGUMENT);
    std::vector<float> bad(m.x.begin(), m.x.begin() + 8);
    bad[5] = NAN;
    EXPECT_EQ(qem_nearest(context, &view, 2, bad.data(), labels), QEM_ERR_DATA);
    EXPECT_NE(context.error().find("centroids"), std::string::npos) << context.error();
}

} // namespace
