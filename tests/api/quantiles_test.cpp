// Quantiles against sorting and numpy's linear rule.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

std::vector<float> reference(const Matrix &m, uint32_t dim, uint32_t intervals)
{
    std::vector<float> cuts;
    for (uint32_t p = 0; p < dim; p++) {
        std::vector<float> pool;
        for (uint64_t i = 0; i < m.rows; i++)
            for (uint64_t j = p; j < m.cols; j += dim) pool.push_back(m.at(i, j));
        std::sort(pool.begin(), pool.end());
        for (uint32_t c = 1; c < intervals; c++) {
            const double at = static_cast<double>(pool.size() - 1) * c / intervals;
            const size_t below = static_cast<size_t>(at);
            const long double low = pool[below], high = pool[std::min(below + 1, pool.size() - 1)];
            cuts.push_back(
                static_cast<float>(low + (high - low) * static_cast<long double>(at - static_cast<double>(below))));
        }
    }
    return cuts;
}

void check(const Context &context, const Matrix &m, uint32_t dim, uint32_t intervals)
{
    std::vector<float> cuts(dim * (intervals - 1) + 1, 9.0f);
    const qem_view view = m.view();
    context.must(qem_quantiles(context, &view, dim, intervals, cuts.data()));
    ASSERT_EQ(cuts.back(), 9.0f);
    cuts.pop_back();
    const std::vector<float> expected = reference(m, dim, intervals);
    for (size_t i = 0; i < cuts.size(); i++) {
        // one rounding of the interpolation may differ; where no interpolation is needed the value is exact
        const float up = std::nextafter(expected[i], INFINITY), down = std::nextafter(expected[i], -INFINITY);
        ASSERT_TRUE(cuts[i] >= down && cuts[i] <= up) << m.rows << " x " << m.cols << ", dim " << dim << ", intervals "
                                                      << intervals << ": " << cuts[i] << " for " << expected[i];
    }
    for (uint32_t p = 0; p < dim; p++)
        ASSERT_TRUE(std::is_sorted(cuts.begin() + p * (intervals - 1), cuts.begin() + (p + 1) * (intervals - 1)));
}

TEST(Quantiles, EqualSortingOnEveryKindOfMatrix)
{
    for (qem_isa isa : available_isas()) {
        const Context context(with_threads(2, isa));
        for (int kind = 0; kind < kKinds; kind++)
            for (const auto &[rows, cols] : { std::pair<uint64_t, uint64_t>(1, 1), { 1, 4 }, { 7, 1 }, { 50, 9 } })
                for (uint32_t dim : { 1, 3, 4 })
                    for (uint32_t intervals : { 2, 7 })
                        if (dim <= cols) {
                            check(context, any_matrix(kind, rows, cols, 3), dim, intervals);
                            if (HasFatalFailure()) return;
                        }
    }
}

TEST(Quantiles, ManyIntervalsAndPositions)
{
    const Context context(with_threads(2));
    check(context, gaussian(400, 20, 1), 10, 255);
    check(context, heavy_tails(400, 20, 2), 17, 20);
    check(context, integers(100, 30, 3, 5), 11, 255);
}

// Enough elements at a position that they are counted in tables and not sorted, in several rounds for many intervals.
TEST(Quantiles, TablesEqualSortingOnEveryKindOfMatrix)
{
    const Context context(with_threads(2));
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t intervals : { 2, 7, 60 }) {
            SCOPED_TRACE("kind " + std::to_string(kind));
            check(context, any_matrix(kind, 9001, 4, 3), 1, intervals);
            if (HasFatalFailure()) return;
        }
}

// More elements than a piece of work, so that several threads count.
TEST(Quantiles, LargeMatrixOnSeveralThreads)
{
    const Matrix m = gaussian(100000, 4, 1, 3.0, -100.0);
    for (uint32_t threads : thread_counts({ 1, 2, 3 })) check(Context(with_threads(threads)), m, 2, 7);
}

// Rows that are cut into stretches, the last one shorter, with and without a tail group.
TEST(Quantiles, LongRowsOnSeveralThreads)
{
    const Context context(with_threads(3));
    check(context, gaussian(1, 2200001, 7), 1, 17);
    check(context, gaussian(2, 70000, 8), 3, 4);
    check(context, heavy_tails(3, 65537, 9), 4, 3);
}

TEST(Quantiles, ByHand)
{
    const Context context;
    Matrix m(5, 2);
    m.x = { 5, -1, 1, -2, 3, -3, 2, -4, 4, -5 };
    std::vector<float> cuts(6);
    const qem_view view = m.view();
    context.must(qem_quantiles(context, &view, 2, 4, cuts.data()));
    EXPECT_EQ(cuts, std::vector<float>({ 2, 3, 4, -4, -3, -2 }));
    context.must(qem_quantiles(context, &view, 1, 2, cuts.data()));
    EXPECT_EQ(cuts[0], 0.0f); // between -1 and 1
    context.must(qem_quantiles(context, &view, 2, 3, cuts.data()));
    EXPECT_FLOAT_EQ(cuts[0], 1 + 4.0f / 3);
}

TEST(Quantiles, ZerosOfBothSignsAreOneValue)
{
    const Context context;
    Matrix m(1, 6);
    m.x = { -0.0f, 0.0f, -0.0f, 0.0f, -1.0f, 1.0f };
    float cut = 5.0f;
    const qem_view view = m.view();
    context.must(qem_quantiles(context, &view, 1, 2, &cut));
    EXPECT_EQ(cut, 0.0f);
    EXPECT_FALSE(std::signbit(cut));
}

} // namespace
