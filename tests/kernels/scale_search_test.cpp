// scale_errors().
#include "kernels_test.h"

#include <algorithm>
#include <cmath>

using namespace qem_test;

namespace {

class ScaleSearch : public KernelTest {};

// Tables of k levels, padded as the contract says, in memory that ends where they do.
struct Levels {
    Levels(Random &random, uint32_t k)
    {
        table.size = 2;
        while (table.size < k) table.size *= 2;
        const uint32_t entries = std::max<uint32_t>(table.size, QEM_LEVEL_PAD);
        std::vector<float> level(k);
        fill(random, Pattern::normal, level.data(), k);
        std::sort(level.begin(), level.end());
        for (uint32_t i = 0; i < entries; i++) {
            levels.push_back(level[std::min(i, k - 1)]);
            thresholds.push_back(i == 0 ? -INFINITY : i < k ? (level[i - 1] + level[i]) * 0.5f : INFINITY);
        }
        table.threshold = thresholds.data();
        table.level = levels.data();
    }
    std::vector<float> levels, thresholds;
    qem_level_table table;
};

TEST_P(ScaleSearch, SumsAreThoseOfTheScalarKernel)
{
    for (uint32_t k : { 1, 2, 3, 8, 15, 16, 17, 64, 255, 4096 })
        for (size_t n : { size_t(0), size_t(1), size_t(16), size_t(31), 1 + below(random, 256) })
            for (size_t count : { size_t(16), size_t(32), size_t(64), size_t(80), size_t(256) })
                for (bool weighted : { false, true }) {
                    const Levels levels(random, k);
                    std::vector<float> x(n), weight(n), scale(count), inverse(count);
                    fill(random, Pattern::normal, x.data(), n);
                    fill(random, Pattern::normal, weight.data(), n);
                    for (size_t i = 0; i < n; i++) {
                        if (below(random, 8) == 0) x[i] = 0.0f;
                        weight[i] = below(random, 8) ? std::fabs(weight[i]) : 0.0f;
                    }
                    for (size_t c = 0; c < count; c++) {
                        scale[c] = 0.07f * static_cast<float>(c);
                        inverse[c] = c ? 1.0f / scale[c] : 0.0f;
                    }
                    for (size_t i = 0; i < n && i < levels.thresholds.size(); i += 5) // ties: z is a threshold exactly
                        if (std::isfinite(levels.thresholds[i])) x[i] = levels.thresholds[i] * scale[1 + i % 3];
                    Output<float> expected(count, 1), actual(count, 1);
                    const float *w = weighted ? weight.data() : nullptr;
                    scalar->scale_errors(&levels.table, x.data(), w, n, scale.data(), inverse.data(), count,
                                         expected.data());
                    simd->scale_errors(&levels.table, x.data(), w, n, scale.data(), inverse.data(), count, actual.data());
                    ASSERT_TRUE(same_output(expected, actual)) << k << " levels, n " << n << ", count " << count;
                }
}

// Scales so small that their inverse is infinite: x = 0 makes NaN of z, which is above no threshold.
TEST_P(ScaleSearch, AnInfiniteInverseIsTheSameForAll)
{
    const Levels levels(random, 9);
    std::vector<float> x = { 0.0f, -0.0f, 1.0f, -0.5f, 0.0f }, scale(16, 1e-44f), inverse(16, INFINITY);
    Output<float> expected(16, 1), actual(16, 1);
    scalar->scale_errors(&levels.table, x.data(), nullptr, x.size(), scale.data(), inverse.data(), 16, expected.data());
    simd->scale_errors(&levels.table, x.data(), nullptr, x.size(), scale.data(), inverse.data(), 16, actual.data());
    ASSERT_TRUE(same_output(expected, actual));
}

QEM_KERNEL_TESTS(ScaleSearch);

} // namespace
