// The pruned search gives the labels and distances of the brute-force kernels, whatever the points are like.
#include "kernels_test.h"

#include <algorithm>
#include <cmath>

#include "support/kernel_problems.h"

using namespace qem_test;

namespace {

class Prune : public KernelTest {};

TEST_P(Prune, OrderIsAPermutationThatCarriesThePoints)
{
    for (Pattern pattern : all_patterns)
        for (size_t count : { 1, 15, 16, 17, 300, 1000 }) {
            const uint32_t dim = 1 + static_cast<uint32_t>(below(random, 8));
            Aligned<float> x(count * dim), before;
            Aligned<uint32_t> order(count), scratch(count * (dim + 1));
            fill(random, pattern, x.data(), x.size());
            before = x;
            qem_kd_order(x.data(), count, count, dim, simd->lanes, order.data(), scratch.data());
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

// d2, labels, block sums and the largest D^2 after many centres.
TEST_P(Prune, SeedingEqualsSeedStep)
{
    for (Pattern pattern : all_patterns)
        for (uint32_t dim = 1; dim <= QEM_MOST_PRUNED_DIM; dim++) {
            SCOPED_TRACE(std::string(name_of(pattern)) + ", dim " + std::to_string(dim));
            Points points(random, pattern, 1200 + below(random, 300), dim, simd->lanes);
            Aligned<float> d2(points.padded), slow_d2(points.padded);
            Aligned<uint32_t> labels(points.padded), slow_labels(points.padded);
            std::vector<int64_t> sums(points.padded / QEM_SEED_BLOCK + 1);
            const double scale = std::ldexp(1.0, 40);
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
                    for (size_t i = 0; i < points.count; i++)
                        sums[points.order[i] / QEM_SEED_BLOCK] += std::llrint(static_cast<double>(d2[i]) * scale);
                    continue;
                }
                const float fast = simd->seed_tiles(&points.tiles, points.x.data(), points.padded, dim, center.data(), label,
                                                    d2.data(), labels.data(), points.order.data(), sums.data(), scale);
                ASSERT_EQ(fast, slow) << "label " << label;
            }
            ASSERT_TRUE(same_bits(slow_d2.data(), d2.data(), points.padded));
            ASSERT_TRUE(same_bits(slow_labels.data(), labels.data(), points.padded));
            std::vector<int64_t> expected(sums.size());
            for (size_t i = 0; i < points.count; i++)
                expected[points.order[i] / QEM_SEED_BLOCK] += std::llrint(static_cast<double>(d2[i]) * scale);
            ASSERT_EQ(sums, expected);
        }
}

TEST_P(Prune, LabelsEqualBruteForce)
{
    for (Pattern pattern : all_patterns)
        for (uint32_t dim = 1; dim <= QEM_MOST_PRUNED_DIM; dim++)
            for (size_t count : pruned_counts) {
                SCOPED_TRACE(std::string(name_of(pattern)) + ", dim " + std::to_string(dim) + ", k " + std::to_string(count));
                const Points points(random, pattern, 500 + below(random, 200), dim, simd->lanes);
                const Centroids centroids(random, points, count);
                Aligned<uint32_t> expected(points.padded), labels(points.padded), previous(points.padded);
                scalar->nearest(points.x.data(), points.padded, points.padded, dim, centroids.c.data(), centroids.h.data(),
                                centroids.ldc, centroids.ldc, expected.data());
                const size_t tiles = (points.count + simd->lanes - 1) / simd->lanes;
                Aligned<uint32_t> candidates(count + 2 * simd->lanes);
                for (int start = 0; start < 2; start++) { // from labels that say nothing, and from the right ones
                    for (size_t i = 0; i < points.padded; i++)
                        previous[i] = start ? expected[i] : static_cast<uint32_t>(below(random, count));
                    simd->nearest_tiles(&centroids.tree, &points.tiles, points.x.data(), points.padded, dim, centroids.c.data(),
                                        centroids.ldc, previous.data(), labels.data(), 0, tiles, 1, candidates.data());
                    ASSERT_TRUE(same_bits(expected.data(), labels.data(), points.count)) << "start " << start;
                }
            }
}

QEM_KERNEL_TESTS(Prune);

} // namespace
