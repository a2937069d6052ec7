// scalar_codes(), unpack().
#include "kernels_test.h"

#include <algorithm>
#include <cmath>
#include <memory>

using namespace qem_test;

namespace {

class Codes : public KernelTest {};

TEST_P(Codes, ScalarCodesAreTheNumberOfThresholdsNotAbove)
{
    for (size_t count : threshold_counts)
        for (Pattern pattern : all_patterns)
            for (size_t n : { size_t(0), size_t(1), size_t(15), size_t(33), 100 + below(random, 64) }) {
                std::vector<float> thresholds(count), x(n + 1);
                fill(random, pattern, thresholds.data(), count);
                std::sort(thresholds.begin(), thresholds.end());
                fill(random, below(random, 2) ? pattern : Pattern::normal, x.data(), x.size());
                for (size_t i = 0; i < n && count > 0; i += 3) x[1 + i] = thresholds[below(random, count)]; // hits one exactly
                if (n > 1) x[1 + below(random, n)] = below(random, 2) ? INFINITY : -INFINITY;
                Output<uint32_t> expected(n, 1), actual(n, 1);
                for (size_t i = 0; i < n; i++)
                    expected[i] = static_cast<uint32_t>(std::upper_bound(thresholds.begin(), thresholds.end(), x[1 + i]) -
                                                        thresholds.begin());
                simd->scalar_codes(x.data() + 1, n, thresholds.data(), count, actual.data());
                ASSERT_TRUE(same_output(expected, actual)) << name_of(pattern) << ", " << count << " thresholds, n " << n;
                scalar->scalar_codes(x.data() + 1, n, thresholds.data(), count, actual.data());
                ASSERT_TRUE(same_output(expected, actual)) << "scalar, " << name_of(pattern) << ", " << count << ", n " << n;
            }
}

TEST_P(Codes, UnpackReadsAtMost16BytesPastTheStream)
{
    for (uint32_t bits = 1; bits <= most_code_bits; bits++)
        for (int round = 0; round < 40; round++) {
            const size_t n = round < 20 ? static_cast<size_t>(round) : below(random, 300);
            const uint64_t first_bit = below(random, 100);
            std::vector<uint8_t> stream((first_bit + n * bits + 7) / 8 + 16);
            for (uint8_t &byte : stream) byte = static_cast<uint8_t>(random());
            Output<uint32_t> expected(n, 1), actual(n, 1);
            scalar->unpack(stream.data(), first_bit, n, bits, expected.data());
            simd->unpack(stream.data(), first_bit, n, bits, actual.data());
            ASSERT_TRUE(same_output(expected, actual)) << bits << " bits, first " << first_bit << ", n " << n;
        }
}

TEST_P(Codes, UnpackFarInALongStream)
{
    const uint64_t first_bit = (uint64_t(1) << 32) + 5;
    const size_t bytes = first_bit / 8 + 200;
    const std::unique_ptr<uint8_t[]> stream(new uint8_t[bytes]); // not filled: only its end is read
    for (size_t i = bytes - 250; i < bytes; i++) stream[i] = static_cast<uint8_t>(random());
    Output<uint32_t> expected(70), actual(70);
    scalar->unpack(stream.get(), first_bit, 70, 17, expected.data());
    simd->unpack(stream.get(), first_bit, 70, 17, actual.data());
    ASSERT_TRUE(same_output(expected, actual));
}

QEM_KERNEL_TESTS(Codes);

} // namespace
