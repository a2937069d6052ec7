/* f16 and bf16 against f32, by integer arithmetic, round to nearest even: the definition that SIMD variants must meet. */
#ifndef QEM_CORE_HALF_H
#define QEM_CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t qem_float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float qem_bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint16_t qem_f32_to_f16(float value)
{
    const uint32_t u = qem_float_bits(value);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu)); /* NaN, made quiet */
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);                       /* rounds to infinity */
    if (a >= 0x38800000u) {                                                        /* normal in f16 */
        const uint32_t rounded = a + 0x0fffu + ((a >> 13) & 1u);
        return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
    }
    if (a < 0x33000000u) return (uint16_t)sign; /* below half of the least subnormal */
    const uint32_t exponent = a >> 23;          /* subnormal: shift the mantissa with its hidden bit into place */
    const uint32_t mantissa = (a & 0x7fffffu) | 0x800000u;
    const uint32_t shift = 126u - exponent;
    const uint32_t half = 1u << (shift - 1u);
    const uint32_t rest = mantissa & ((1u << shift) - 1u);
    uint32_t result = mantissa >> shift;
    if (rest > half || (rest == half && (result & 1u))) result++;
    return (uint16_t)(sign | result);
}

static inline float qem_f16_to_f32(uint16_t value)
{
    const uint32_t sign = (uint32_t)(value & 0x8000u) << 16;
    const uint32_t exponent = (value >> 10) & 0x1fu;
    uint32_t mantissa = value & 0x3ffu;
    if (exponent == 31) return qem_bits_float(sign | 0x7f800000u | (mantissa ? 0x400000u : 0u) | (mantissa << 13));
    if (exponent) return qem_bits_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    if (!mantissa) return qem_bits_float(sign);
    uint32_t e = 113u; /* subnormal: normalise */
    while (!(mantissa & 0x400u)) {
        mantissa <<= 1;
        e--;
    }
    return qem_bits_float(sign | (e << 23) | ((mantissa & 0x3ffu) << 13));
}

static inline uint16_t qem_f32_to_bf16(float value)
{
    const uint32_t u = qem_float_bits(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float qem_bf16_to_f32(uint16_t value)
{
    return qem_bits_float((uint32_t)value << 16);
}

#endif
