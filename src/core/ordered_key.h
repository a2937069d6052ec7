/* The order of floats as the order of unsigned integers; -0 and +0 get the same key. */
#ifndef QEM_CORE_ORDERED_KEY_H
#define QEM_CORE_ORDERED_KEY_H

#include "half.h"

static inline uint32_t qem_ordered_key(float x)
{
    const uint32_t u = qem_float_bits(x + 0.0f);
    return u ^ ((u >> 31) ? 0xffffffffu : 0x80000000u);
}

static inline float qem_from_ordered_key(uint32_t key)
{
    return qem_bits_float(key ^ ((key >> 31) ? 0x80000000u : 0xffffffffu));
}

#endif
