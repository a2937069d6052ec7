/* add() and the conversions to and from f16 and bf16 for one instruction set. */
#include "../core/half.h"
#include "kernels.h"
#include "simd_kernels.h"

#define MAGNITUDE 0x7fffffffu
#define F32_INFINITY 0x7f800000u
#define LEAST_INFINITE_F16 0x477ff000u  /* 65520: from here on f16 is infinite */
#define LEAST_INFINITE_BF16 0x7f7f8000u

void QEM_SIMD(add)(const float *x, size_t n, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_store(y + i, vf_add(vf_load(y + i), vf_load(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

/* Lanes whose value is finite and at least `limit` in magnitude. */
QEM_INLINE vm overflows(vi u, uint32_t limit)
{
    const vi magnitude = vi_and(u, vi_set1(MAGNITUDE));
    return vm_and(vi_gt(magnitude, vi_set1(limit - 1)), vi_gt(vi_set1(F32_INFINITY), magnitude));
}

QEM_INLINE int overflows_one(float x, uint32_t limit)
{
    const uint32_t magnitude = qem_float_bits(x) & MAGNITUDE;
    return magnitude >= limit && magnitude < F32_INFINITY;
}

int QEM_SIMD(f32_to_f16)(const float *x, size_t n, uint16_t *out)
{
    vm overflow = vm_from_bits(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vf v = vf_load(x + i);
        overflow = vm_or(overflow, overflows(vf_bits(v), LEAST_INFINITE_F16));
        vf_store_f16(out + i, v);
    }
    int any = vm_bits(overflow) != 0;
    for (; i < n; i++) {
        any |= overflows_one(x[i], LEAST_INFINITE_F16);
        out[i] = qem_f32_to_f16(x[i]);
    }
    return any;
}

/* As qem_f32_to_bf16: round to nearest even by an addition; NaN keeps its top bits and becomes quiet. */
QEM_INLINE vi to_bf16(vi u)
{
    const vi odd = vi_and(vi_shift_right(u, 16), vi_set1(1));
    const vi rounded = vi_add(u, vi_add(odd, vi_set1(0x7fff)));
    const vi quiet = vi_or(u, vi_set1(0x400000));
    const vm nan = vi_gt(vi_and(u, vi_set1(MAGNITUDE)), vi_set1(F32_INFINITY));
    return vi_shift_right(vi_select(nan, quiet, rounded), 16);
}

int QEM_SIMD(f32_to_bf16)(const float *x, size_t n, uint16_t *out)
{
    vm overflow = vm_from_bits(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vi u = vi_load(x + i);
        overflow = vm_or(overflow, overflows(u, LEAST_INFINITE_BF16));
        vi_store_u16(out + i, to_bf16(u));
    }
    int any = vm_bits(overflow) != 0;
    for (; i < n; i++) {
        any |= overflows_one(x[i], LEAST_INFINITE_BF16);
        out[i] = qem_f32_to_bf16(x[i]);
    }
    return any;
}

void QEM_SIMD(f16_to_f32)(const uint16_t *x, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vf_store(out + i, vf_load_f16(x + i));
    for (; i < n; i++) out[i] = qem_f16_to_f32(x[i]);
}

void QEM_SIMD(bf16_to_f32)(const uint16_t *x, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vi_store(out + i, vi_shift_left(vi_load_u16(x + i), 16));
    for (; i < n; i++) out[i] = qem_bf16_to_f32(x[i]);
}
