// The pruned search gives the labels and distances of the brute-force kernels, whatever the points are like.
#include "kernels_test.h"

#include <algorithm>
#include <cmath>

#include "support/kernel_problems.h"

extern "C" {
#include "cpu/kmeans.h"
}

using namespace qem_test;

namespace {

class Prune : public KernelTest {};

TEST_P(Prune, OrderIsAPermutationThatCarriesThePoints)
{
    for (Pattern pattern : all_patterns)
        for (size_t count : { 1, 15, 16, 17, 300, 1000, 8192, 20011 }) {
            const uint32_t dim = 1 + static_cast<uint32_t>(below(random, 8));
            Aligned<float> x(count * dim), before;
            Aligned<uint32_t> order(count), scratch(qem_kd_scratch_words(count));
            fill(random, pattern, x.data(), x.size());
            before = x;
            qem_kd_order(simd, 1 + count % 3, x.data(), count, count, dim, order.data(), scratch.data());
            std::vector<bool> seen(count);
            for (size_t i = 0; i < count; i++) {
                ASSERT_LT(order[i], count);
                ASSERT_FALSE(seen[order[i]]);
                seen[order[i]] = true;
                for (uint32_t p = 0; p < dim; p++)
                    ASSERT_EQ(std::memcmp(&x[p * count + i], &before[p * count + order[i]], sizeof(float)), 0);
            }
        }
}

// One node: the lower part is not above the upper one, and nothing is lost; with many equal values, too.
TEST_P(Prune, SplitParts)
{
    for (Pattern pattern : all_patterns)
        for (size_t n : { 17, 32, 33, 100, 128, 515, 4099 })
            for (size_t half = simd->lanes; half < n; half = half * 2 + (n > 1000 ? 1024 : 0)) {
                const uint32_t dim = 1 + static_cast<uint32_t>(below(random, 4));
                Aligned<float> x(n * dim);
                Aligned<uint32_t> index(n), scratch(qem_kd_scratch_words(n));
                fill(random, pattern, x.data(), x.size());
                for (size_t i = 0; i < n; i++) index[i] = static_cast<uint32_t>(i);
                std::shuffle(index.begin(), index.end(), random);
                simd->kd_split(x.data(), n, dim, index.data(), n, half, scratch.data());
                bool split = false; // along one of the dimensions
                for (uint32_t p = 0; p < dim; p++) {
                    float most = -INFINITY, least = INFINITY;
                    for (size_t i = 0; i < half; i++) most = std::max(most, x[p * n + index[i]]);
                    for (size_t i = half; i < n; i++) least = std::min(least, x[p * n + index[i]]);
                    split = split || most <= least;
                }
                ASSERT_TRUE(split) << name_of(pattern) << ", " << half << " of " << n;
                std::sort(index.begin(), index.end());
                for (size_t i = 0; i < n; i++) ASSERT_EQ(index[i], i);
            }
}

void add_sums(const Points &points, const Aligned<float> &d2, qem_seed_sums &sums)
{
    for (size_t i = 0; i < points.count; i++) {
        const int64_t fixed = std::llrint(static_cast<double>(d2[i]) * sums.scale);
        sums.block[points.order[i] / QEM_SEED_BLOCK] += fixed;
        sums.run[points.order[i] / QEM_SEED_BLOCK / QEM_SEED_RUN] += fixed;
        sums.total += fixed;
    }
}

// d2, labels, block sums and the largest D^2 after many centres.
TEST_P(Prune, SeedingEqualsSeedStep)
{
    for (Pattern pattern : all_patterns)
        for (uint32_t dim = 1; dim <= QEM_MOST_PRUNED_DIM; dim++) {
            SCOPED_TRACE(std::string(name_of(pattern)) + ", dim " + std::to_string(dim));
            Points points(simd, random, pattern, 1200 + below(random, 300), dim);
            Aligned<float> d2(points.padded), slow_d2(points.padded);
            Aligned<uint32_t> labels(points.padded), slow_labels(points.padded);
            const double scale = std::ldexp(1.0, 40);
            std::vector<int64_t> sums(points.padded / QEM_SEED_BLOCK + 1), runs(sums.size() / QEM_SEED_RUN + 1);
            qem_seed_sums seed_sums = { sums.data(), runs.data(), 0, scale };
            std::vector<float> center(dim);
            for (size_t i = 0; i < points.count; i++) d2[i] = INFINITY;
            slow_d2 = d2;
            for (uint32_t label = 0; label < 60; label++) {
                const size_t chosen = below(random, points.count);
                for (uint32_t p = 0; p < dim; p++) center[p] = points.x[p * points.padded + chosen];
                const float slow = scalar->seed_step(points.x.data(), points.padded, points.padded, dim, center.data(), label,
                                                     slow_d2.data(), slow_labels.data());
                if (label == 0) { // the first step is brute force; the tables start from it
                    d2 = slow_d2;
                    for (size_t t = 0; t < points.most.size(); t++)
                        for (size_t i = t * simd->lanes; i < std::min(points.count, (t + 1) * simd->lanes); i++)
                            points.most[t] = std::max(points.most[t], d2[i]);
                    for (size_t t = 0; t < points.most.size(); t++)
                        points.super_most[t / simd->lanes] = std::max(points.super_most[t / simd->lanes], points.most[t]);
                    add_sums(points, d2, seed_sums);
                    continue;
                }
                const float fast = simd->seed_tiles(&points.tiles, points.x.data(), points.padded, dim, center.data(), label,
                                                    d2.data(), labels.data(), points.order.data(), &seed_sums);
                ASSERT_EQ(fast, slow) << "label " << label;
            }
            ASSERT_TRUE(same_bits(slow_d2.data(), d2.data(), points.padded));
            ASSERT_TRUE(same_bits(slow_labels.data(), labels.data(), points.padded));
            std::vector<int64_t> expected(sums.size()), expected_runs(runs.size());
            qem_seed_sums expected_sums = { expected.data(), expected_runs.data(), 0, scale };
            add_sums(points, d2, expected_sums);
            ASSERT_EQ(sums, expected);
            ASSERT_EQ(runs, expected_runs);
            ASSERT_EQ(seed_sums.total, expected_sums.total);
        }
}

TEST_P(Prune, LabelsEqualBruteForce)
{
    for (Pattern pattern : all_patterns)
        for (uint32_t dim = 1; dim <= QEM_MOST_PRUNED_DIM; dim++)
            for (size_t count : pruned_counts) {
                SCOPED_TRACE(std::string(name_of(pattern)) + ", dim " + std::to_string(dim) + ", k " + std::to_string(count));
                const Points points(simd, random, pattern, 500 + below(random, 200), dim);
                const Centroids centroids(simd, random, points, count);
                Aligned<uint32_t> expected(points.padded), labels(points.padded), previous(points.padded);
                scalar->nearest(points.x.data(), points.padded, points.padded, dim, centroids.c.data(), centroids.h.data(),
                                centroids.ldc, centroids.ldc, expected.data());
                const size_t tiles = (points.count + simd->lanes - 1) / simd->lanes;
                Aligned<uint32_t> candidates(qem_candidate_words(&centroids.tree, simd->lanes));
                for (int start = 0; start < 3; start++) { // from labels that say nothing, the right ones, and near ones
                    for (size_t i = 0; i < points.padded; i++)
                        previous[i] = start ? expected[i] : static_cast<uint32_t>(below(random, count));
                    if (start == 2) {
                        simd->near_tiles(&centroids.tree, &points.tiles, dim, tiles, previous.data());
                        for (size_t i = 0; i < points.count; i++) ASSERT_LT(previous[i], count);
                    }
                    simd->nearest_tiles(&centroids.tree, &points.tiles, points.x.data(), points.padded, dim, centroids.c.data(),
                                        centroids.ldc, previous.data(), labels.data(), 0, tiles, 1, candidates.data());
                    ASSERT_TRUE(same_bits(expected.data(), labels.data(), points.count)) << "start " << start;
                }
            }
}

// Points are gathered by signed 32-bit indices while they are ordered.
TEST_P(Prune, NotForMorePointsThanIndicesReach)
{
    EXPECT_TRUE(qem_prune_wanted(simd, 4, INT32_MAX, 256));
    EXPECT_FALSE(qem_prune_wanted(simd, 4, uint64_t{ 1 } << 31, 256));
    EXPECT_FALSE(qem_prune_wanted(simd, QEM_MOST_PRUNED_DIM + 1, 100000, 256));
    EXPECT_FALSE(qem_prune_wanted(scalar, 4, 100000, 256));
}

QEM_KERNEL_TESTS(Prune);

} // namespace
