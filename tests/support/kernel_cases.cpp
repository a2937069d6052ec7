#include "kernel_cases.h"

namespace qem_test {

namespace {

float from_bits(uint32_t bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

float one_value(Random &random, Pattern pattern)
{
    std::normal_distribution<float> normal;
    switch (pattern) {
    case Pattern::few: return 0.25f * static_cast<float>(below(random, 3)) - 0.25f;
    case Pattern::zeros: return below(random, 2) ? 0.0f : -0.0f;
    case Pattern::denormal: return from_bits(static_cast<uint32_t>(random()) & 0x807fffffu);
    case Pattern::huge: return from_bits((static_cast<uint32_t>(random()) & 0x80ffffffu) | 0x7e000000u);
    case Pattern::integers: return static_cast<float>(below(random, 41)) - 20.0f;
    default: return normal(random);
    }
}

} // namespace

void fill(Random &random, Pattern pattern, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = one_value(random, pattern);
    if (pattern == Pattern::equal)
        for (size_t i = 1; i < n; i++) x[i] = x[0];
    if (pattern == Pattern::outlier && n > 0) x[below(random, n)] = 3.0e38f;
}

void fill_bits(Random &random, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = static_cast<uint32_t>(random());
        if (below(random, 4) == 0) bits |= 0x7f800000u; // NaN
        if (below(random, 8) == 0) bits = (bits & 0x80000000u) | 0x7f800000u; // infinite
        std::memcpy(x + i, &bits, sizeof bits); // not as a float: that could make a NaN quiet
    }
}

} // namespace qem_test
