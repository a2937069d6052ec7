/* add(), store_rows() and the conversions to and from f16 and bf16 for one instruction set. */
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

/* As qem_f32_to_bf16: round to nearest even by an addition; NaN keeps its top bits and becomes quiet. */
QEM_INLINE vi to_bf16(vi u)
{
    const vi odd = vi_and(vi_shift_right(u, 16), vi_set1(1));
    const vi rounded = vi_add(u, vi_add(odd, vi_set1(0x7fff)));
    const vi quiet = vi_or(u, vi_set1(0x400000));
    const vm nan = vi_gt(vi_and(u, vi_set1(MAGNITUDE)), vi_set1(F32_INFINITY));
    return vi_shift_right(vi_select(nan, quiet, rounded), 16);
}

/* 2 * LANES elements of 16 bits; `brain`: bf16, else f16. */
QEM_INLINE vi to_16_bits(vf low, vf high, int brain)
{
    return brain ? vi_pair_to_u16(to_bf16(vf_bits(low)), to_bf16(vf_bits(high))) : vf_pair_to_f16(low, high);
}

QEM_INLINE int convert_ones(const float *x, size_t n, uint16_t *out, int brain, uint32_t limit)
{
    int overflow = 0;
    for (size_t i = 0; i < n; i++) {
        overflow |= overflows_one(x[i], limit);
        out[i] = brain ? qem_f32_to_bf16(x[i]) : qem_f32_to_f16(x[i]);
    }
    return overflow;
}

QEM_INLINE int convert(const float *x, size_t n, uint16_t *out, int brain, int streaming)
{
    const uint32_t limit = brain ? LEAST_INFINITE_BF16 : LEAST_INFINITE_F16;
    const size_t to_line = streaming ? qem_bytes_to_line(out) / sizeof *out : 0;
    size_t i = to_line < n ? to_line : n;
    vm overflow = vm_from_bits(0);
    int any = convert_ones(x, i, out, brain, limit);
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const vf low = vf_load(x + i), high = vf_load(x + i + LANES);
        overflow = vm_or(overflow, vm_or(overflows(vf_bits(low), limit), overflows(vf_bits(high), limit)));
        if (streaming)
            vi_stream(out + i, to_16_bits(low, high, brain));
        else
            vi_store(out + i, to_16_bits(low, high, brain));
    }
    if (i + LANES <= n) {
        const vf v = vf_load(x + i);
        overflow = vm_or(overflow, overflows(vf_bits(v), limit));
        if (brain)
            vi_store_u16(out + i, to_bf16(vf_bits(v)));
        else
            vf_store_f16(out + i, v);
        i += LANES;
    }
    any |= convert_ones(x + i, n - i, out + i, brain, limit);
    return any | (vm_bits(overflow) != 0);
}

int QEM_SIMD(f32_to_f16)(const float *x, size_t n, uint16_t *out)
{
    return convert(x, n, out, 0, 0);
}

int QEM_SIMD(f32_to_bf16)(const float *x, size_t n, uint16_t *out)
{
    return convert(x, n, out, 1, 0);
}

/* Bits move as they are. */
static void copy_row(const float *x, size_t n, float *out, int streaming)
{
    const size_t to_line = qem_bytes_to_line(out) / sizeof *out;
    if (!streaming || n < to_line + LANES) {
        memcpy(out, x, n * sizeof *out);
        return;
    }
    size_t i = to_line;
    memcpy(out, x, i * sizeof *out);
    for (; i + LANES <= n; i += LANES) vf_stream(out + i, vf_load(x + i));
    memcpy(out + i, x + i, (n - i) * sizeof *out);
}

int QEM_SIMD(store_rows)(const float *x, size_t x_stride, size_t rows, size_t n, qem_dtype dtype, void *out,
                         size_t row_stride, int streaming)
{
    int overflow = 0;
    for (size_t row = 0; row < rows; row++, x += x_stride) {
        if (dtype == QEM_DTYPE_F32)
            copy_row(x, n, (float *)out + row * row_stride, streaming);
        else if (dtype == QEM_DTYPE_F16)
            overflow |= streaming ? convert(x, n, (uint16_t *)out + row * row_stride, 0, 1)
                                  : convert(x, n, (uint16_t *)out + row * row_stride, 0, 0);
        else
            overflow |= streaming ? convert(x, n, (uint16_t *)out + row * row_stride, 1, 1)
                                  : convert(x, n, (uint16_t *)out + row * row_stride, 1, 0);
    }
    return overflow;
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
