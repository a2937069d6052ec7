/* Fixed point: sums of int64 commute, so they do not depend on threads, instruction sets or devices. */
#ifndef QEM_CORE_FIXED_H
#define QEM_CORE_FIXED_H

#include <math.h>
#include <stdint.h>

#include "anywhere.h"

/* ceil(log2 n) for n >= 1. */
QEM_ANYWHERE static inline int qem_ceil_log2(uint64_t n)
{
    int bits = 0;
    while (bits < 63 && ((uint64_t)1 << bits) < n) bits++;
    return bits;
}

/* Least e with largest < 2^e (largest > 0), so values scaled by 2^-e stay below 1. */
QEM_ANYWHERE static inline int qem_exponent_above(double largest)
{
    int e;
    (void)frexp(largest, &e); /* largest = f * 2^e, f in [0.5, 1) */
    return e;
}

/* Shift s such that `count` values of at most `largest`, each times 2^s, sum to at most 2^62. */
QEM_ANYWHERE static inline int qem_fixed_shift(uint64_t count, double largest)
{
    return 62 - qem_ceil_log2(count) - (largest > 0.0 ? qem_exponent_above(largest) : 0);
}

/* x > 0 rounded down to six digits, so that a limit printed by %.6g is never above the real one. */
static inline double qem_six_digits_below(double x)
{
    const double unit = pow(10.0, floor(log10(x)) - 5.0);
    return floor(x * (1.0 - 1e-12) / unit) * unit;
}

#endif
