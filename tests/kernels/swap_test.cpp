// pair_split() and pair_merge().
#include "kernels_test.h"

using namespace qem_test;

namespace {

class Swap : public KernelTest {
protected:
    void check(const std::vector<float> &x, size_t pairs)
    {
        const size_t words = (pairs + 63) / 64;
        Output<float> small_expected(pairs, 1), large_expected(pairs, 3), small(pairs, 1), large(pairs, 3);
        Output<uint64_t> bits_expected(words), bits(words);
        scalar->pair_split(x.data() + 1, pairs, small_expected.data(), large_expected.data(), bits_expected.data());
        simd->pair_split(x.data() + 1, pairs, small.data(), large.data(), bits.data());
        ASSERT_TRUE(same_output(small_expected, small));
        ASSERT_TRUE(same_output(large_expected, large));
        ASSERT_TRUE(same_output(bits_expected, bits));
        Output<float> merged(2 * pairs, 1);
        simd->pair_merge(small.data(), large.data(), bits.data(), pairs, merged.data());
        ASSERT_TRUE(merged.intact());
        ASSERT_TRUE(same_bits(x.data() + 1, merged.data(), 2 * pairs)) << "merge is not the inverse of split";
    }
};

TEST_P(Swap, SplitAndBack)
{
    for (size_t pairs : swap_sizes)
        for (Pattern pattern : all_patterns) {
            SCOPED_TRACE(name_of(pattern));
            std::vector<float> x(2 * pairs + 1);
            fill(random, pattern, x.data(), x.size());
            ASSERT_NO_FATAL_FAILURE(check(x, pairs)) << pairs << " pairs";
        }
}

TEST_P(Swap, MergeOfAnyBits)
{
    for (size_t pairs : swap_sizes) {
        std::vector<float> small(pairs), large(pairs);
        std::vector<uint64_t> bits((pairs + 63) / 64);
        fill_bits(random, small.data(), pairs);
        fill_bits(random, large.data(), pairs);
        for (uint64_t &word : bits) word = random();
        Output<float> expected(2 * pairs, 1), actual(2 * pairs, 1);
        scalar->pair_merge(small.data(), large.data(), bits.data(), pairs, expected.data());
        simd->pair_merge(small.data(), large.data(), bits.data(), pairs, actual.data());
        ASSERT_TRUE(same_output(expected, actual)) << pairs << " pairs";
    }
}

QEM_KERNEL_TESTS(Swap);

} // namespace
