/*
 * A counter-based generator: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). A draw is a
 * function of (seed, problem, step, stream) alone, so it does not matter which thread or device makes it, or in what order.
 */
#ifndef QEM_CORE_RANDOM_H
#define QEM_CORE_RANDOM_H

#include <stdint.h>

#include "anywhere.h"

typedef struct qem_random128 {
    uint32_t v[4];
} qem_random128;

QEM_ANYWHERE static inline qem_random128 qem_random(uint64_t seed, uint64_t problem, uint32_t step, uint32_t stream)
{
    uint32_t c0 = (uint32_t)problem, c1 = (uint32_t)(problem >> 32), c2 = step, c3 = stream;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c0;
        const uint64_t b = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    qem_random128 r = { { c0, c1, c2, c3 } };
    return r;
}

/* 64 random bits. */
QEM_ANYWHERE static inline uint64_t qem_random_u64(uint64_t seed, uint64_t problem, uint32_t step, uint32_t stream)
{
    const qem_random128 r = qem_random(seed, problem, step, stream);
    return (uint64_t)r.v[1] << 32 | r.v[0];
}

/* floor(random / 2^64 * bound): 0 .. bound-1 for bound >= 1. */
QEM_ANYWHERE static inline uint64_t qem_random_below(uint64_t random, uint64_t bound)
{
#if defined(__SIZEOF_INT128__)
    return (uint64_t)(((unsigned __int128)random * bound) >> 64);
#else
    const uint64_t a = random >> 32, b = random & 0xffffffffu, c = bound >> 32, d = bound & 0xffffffffu;
    const uint64_t middle = ((b * d) >> 32) + ((a * d) & 0xffffffffu) + ((b * c) & 0xffffffffu);
    return a * c + ((a * d) >> 32) + ((b * c) >> 32) + (middle >> 32);
#endif
}

/* Uniform in (0,1), 52 bits, never 0 or 1. */
static inline double qem_random_unit(uint64_t random)
{
    return ((double)(random >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

#endif
