// HyperChr's split of the centroids over the cells.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "methods/hyperchr_allocate.h"
}

using namespace qem_test;

namespace {

using Numbers = std::vector<uint64_t>;

Numbers allocate(uint64_t total, const Numbers &counts, const Numbers &most)
{
    static const Context context;
    Numbers share(counts.size() + 1, 777); // one guard at the end
    context.must(qem_allocate_centroids(context, total, counts.size(), counts.data(), most.data(), share.data()));
    EXPECT_EQ(share.back(), 777u);
    share.pop_back();
    return share;
}

uint64_t sum(const Numbers &numbers)
{
    return std::accumulate(numbers.begin(), numbers.end(), uint64_t(0));
}

// Hamilton's method: quotas rounded down, the rest by the largest remainder, ties to the lower cell.
Numbers largest_remainder(uint64_t total, const Numbers &counts)
{
    const uint64_t points = sum(counts);
    Numbers share, order(counts.size());
    for (uint64_t count : counts) share.push_back(total * count / points);
    std::iota(order.begin(), order.end(), uint64_t(0));
    std::stable_sort(order.begin(), order.end(),
                     [&](uint64_t a, uint64_t b) { return total * counts[a] % points > total * counts[b] % points; });
    const uint64_t rest = total - sum(share);
    for (uint64_t i = 0; i < rest; i++) share[order[i]]++;
    return share;
}

TEST(Allocate, HandMade)
{
    EXPECT_EQ(allocate(10, { 50, 30, 20 }, { 50, 30, 20 }), Numbers({ 5, 3, 2 }));
    EXPECT_EQ(allocate(3, { 7, 7, 7 }, { 7, 7, 7 }), Numbers({ 1, 1, 1 }));
    EXPECT_EQ(allocate(5, { 7, 7, 7 }, { 7, 7, 7 }), Numbers({ 2, 2, 1 })) << "ties go to the lower cell";
    EXPECT_EQ(allocate(4, { 1000, 1, 1 }, { 1000, 1, 1 }), Numbers({ 2, 1, 1 })) << "every cell has one";
    EXPECT_EQ(allocate(10, { 90, 10 }, { 2, 10 }), Numbers({ 2, 8 })) << "what a limit leaves goes to the others";
    EXPECT_EQ(allocate(100, { 90, 10 }, { 2, 3 }), Numbers({ 2, 3 })) << "the sum of the limits is the most there is";
    EXPECT_EQ(allocate(1, { 5 }, { 5 }), Numbers({ 1 }));
}

TEST(Allocate, IsTheLargestRemainderWhereNoLimitBinds)
{
    Random random(1);
    for (int round = 0; round < 500; round++) {
        const uint64_t cells = 1 + random.below(30), total = 2 * cells + random.below(1000);
        Numbers counts;
        // counts between 1x and 2x of each other: every quota is above 1, and the limits are out of reach
        for (uint64_t c = 0; c < cells; c++) counts.push_back(10000 + random.below(10000));
        ASSERT_EQ(allocate(total, counts, counts), largest_remainder(total, counts)) << "round " << round;
    }
}

struct Case {
    Numbers counts, most;
    uint64_t total;
};

Case random_case(Random &random)
{
    Case c;
    const uint64_t cells = 1 + random.below(60), spread = 1 + random.below(14);
    for (uint64_t i = 0; i < cells; i++) {
        c.counts.push_back(1 + random.below(uint64_t(1) << (1 + random.below(spread))));
        c.most.push_back(random.below(2) ? c.counts.back() : 1 + random.below(c.counts.back()));
    }
    c.total = cells + random.below(sum(c.counts) + 5);
    return c;
}

TEST(Allocate, KeepsSumAndBounds)
{
    Random random(2);
    for (int round = 0; round < 3000; round++) {
        const Case c = random_case(random);
        const Numbers share = allocate(c.total, c.counts, c.most);
        ASSERT_EQ(sum(share), std::min(c.total, sum(c.most))) << "round " << round;
        for (size_t i = 0; i < share.size(); i++) {
            ASSERT_GE(share[i], 1u) << "round " << round;
            ASSERT_LE(share[i], c.most[i]) << "round " << round;
        }
    }
}

// Two cells that no bound holds have shares in the proportion of their counts, to one centroid each.
TEST(Allocate, IsProportionalBetweenTheBounds)
{
    Random random(3);
    for (int round = 0; round < 3000; round++) {
        const Case c = random_case(random);
        const Numbers share = allocate(c.total, c.counts, c.most);
        for (size_t a = 0; a < share.size(); a++)
            for (size_t b = 0; b < share.size(); b++) {
                // a could give one away and b could take one: then a must not be richer by more than that
                if (share[a] == 1 || share[b] == c.most[b]) continue;
                ASSERT_LE((share[a] - 1) * c.counts[b], (share[b] + 1) * c.counts[a])
                    << "round " << round << ": " << share[a] << " for " << c.counts[a] << " points, " << share[b]
                    << " for " << c.counts[b];
            }
    }
}

TEST(Allocate, ManySmallCellsLeaveTheRestInProportion)
{
    Numbers counts(511, 1);
    counts[0] = 1000;
    for (int i = 1; i <= 10; i++) counts[i] = 100;
    const Numbers share = allocate(700, counts, counts); // 500 cells take 500; 200 are left for 2000 points
    EXPECT_NEAR(static_cast<double>(share[0]), 100.0, 1.0);
    for (int i = 1; i <= 10; i++) EXPECT_NEAR(static_cast<double>(share[i]), 10.0, 1.0);
}

TEST(Allocate, EqualCellsDifferByOneAtMostAndTheLowerHasMore)
{
    Random random(4);
    for (int round = 0; round < 300; round++) {
        const uint64_t cells = 1 + random.below(40), each = 1 + random.below(50),
                       total = cells + random.below(cells * each);
        const Numbers share = allocate(total, Numbers(cells, each), Numbers(cells, each));
        ASSERT_TRUE(std::is_sorted(share.rbegin(), share.rend())) << "round " << round;
        ASSERT_LE(share.front() - share.back(), 1u) << "round " << round;
    }
}

} // namespace
