/*
 * The vocabulary in which the SIMD templates are written, here for AVX-512 (F, BW, DQ, VL): 16 lanes of f32 or of 32-bit
 * integers, masks in mask registers. simd_avx2.h has the same names for 8 lanes.
 */
#ifndef QEM_CPU_SIMD_AVX512_H
#define QEM_CPU_SIMD_AVX512_H

#include <immintrin.h>

#include "simd_common.h"

#define QEM_SIMD(name) qem_##name##_avx512
#define LANES 16

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

QEM_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
QEM_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
QEM_INLINE void vf_stream(float *p, vf a) { _mm512_stream_ps(p, a); } /* past the caches; p aligned to the vector */
QEM_INLINE vf vf_halves(const float *p) /* p[0] in the lower half of the lanes, p[1] in the upper */
{
    return _mm512_insertf32x8(_mm512_set1_ps(p[0]), _mm256_set1_ps(p[1]), 1);
}
QEM_INLINE vf vf_set1(float a) { return _mm512_set1_ps(a); }
QEM_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
QEM_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
QEM_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
QEM_INLINE vf vf_fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
QEM_INLINE vf vf_fnmadd(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
QEM_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); } /* a < b ? a : b */
QEM_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
QEM_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
QEM_INLINE vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
QEM_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
QEM_INLINE vf vf_select(vm m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
QEM_INLINE float vf_reduce_min(vf a) { return _mm512_reduce_min_ps(a); }
QEM_INLINE float vf_reduce_max(vf a) { return _mm512_reduce_max_ps(a); }

QEM_INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
QEM_INLINE void vi_store(void *p, vi a) { _mm512_storeu_si512(p, a); }
QEM_INLINE void vi_stream(void *p, vi a) { _mm512_stream_si512(p, a); }
QEM_INLINE vi vi_load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
QEM_INLINE vi vi_set1(uint32_t a) { return _mm512_set1_epi32((int)a); }
QEM_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
QEM_INLINE vi vi_add_where(vm m, vi a, vi b) { return _mm512_mask_add_epi32(a, m, a, b); }
QEM_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
QEM_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
QEM_INLINE vi vi_shift_right(vi a, int count) { return _mm512_srli_epi32(a, (unsigned)count); }
QEM_INLINE vi vi_shift_right_each(vi a, vi counts) { return _mm512_srlv_epi32(a, counts); }
QEM_INLINE vi vi_shift_left(vi a, int count) { return _mm512_slli_epi32(a, (unsigned)count); }
QEM_INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
QEM_INLINE vi vi_sign(vi a) { return _mm512_srai_epi32(a, 31); } /* all bits of negative lanes */
QEM_INLINE vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
QEM_INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
QEM_INLINE int32_t vi_reduce_min(vi a) { return _mm512_reduce_min_epi32(a); }
QEM_INLINE int32_t vi_reduce_max(vi a) { return _mm512_reduce_max_epi32(a); }
QEM_INLINE int32_t vi_reduce_add(vi a) { return _mm512_reduce_add_epi32(a); }
QEM_INLINE vm vi_gt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); } /* signed */
QEM_INLINE vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
QEM_INLINE vi vi_select(vm m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
QEM_INLINE vi vi_shuffle_bytes(vi a, vi index) { return _mm512_shuffle_epi8(a, index); } /* in each 16 bytes */
QEM_INLINE vi vf_bits(vf a) { return _mm512_castps_si512(a); }
QEM_INLINE vf vi_float(vi a) { return _mm512_castsi512_ps(a); }

QEM_INLINE uint32_t vm_bits(vm m) { return m; } /* bit i = lane i */
QEM_INLINE vm vm_from_bits(uint32_t bits) { return (vm)bits; }
QEM_INLINE vm vm_and(vm a, vm b) { return (vm)(a & b); }
QEM_INLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }

QEM_INLINE vf vf_gather(const float *base, vi index) { return _mm512_i32gather_ps(index, base, 4); }
QEM_INLINE vf vf_gather_where(vm m, vf otherwise, const float *base, vi index)
{
    return _mm512_mask_i32gather_ps(otherwise, m, index, base, 4);
}

/* A vector of codebook entries of 2 floats side by side; `index` is where each begins, in elements. */
QEM_INLINE vf vf_entries2(const float *base, const uint32_t *index)
{
    const __m256i at = _mm256_loadu_si256((const void *)index);
    return _mm512_castpd_ps(_mm512_i32gather_pd(at, (const void *)base, 4));
}
/* The same of f16 entries, made f32. */
QEM_INLINE vf vf_half_entries2(const uint16_t *base, const uint32_t *index)
{
    return _mm512_cvtph_ps(_mm256_i32gather_epi32((const void *)base, _mm256_loadu_si256((const void *)index), 2));
}

QEM_INLINE vi vi_iota(void) { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
/* The lanes of the mask to p, side by side; up to LANES elements may be written. Returns how many count. */
QEM_INLINE size_t vi_compress_store(uint32_t *p, vm m, vi a)
{
    _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(m, a));
    return (size_t)__builtin_popcount(m);
}

/* Each 16-byte quarter from an address of its own: base + offset[quarter]. */
QEM_INLINE vi vi_load_quarters(const uint8_t *base, const size_t *offset)
{
    __m512i a = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(base + offset[0])));
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const void *)(base + offset[1])), 1);
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const void *)(base + offset[2])), 2);
    return _mm512_inserti32x4(a, _mm_loadu_si128((const void *)(base + offset[3])), 3);
}

/* Vectors of 4 or 8 floats side by side, each from an address of its own, and the same of f16, made f32. */
QEM_INLINE vf vf_load_fours(const float *const *from)
{
    vf a = _mm512_castps128_ps512(_mm_loadu_ps(from[0]));
    a = _mm512_insertf32x4(a, _mm_loadu_ps(from[1]), 1);
    a = _mm512_insertf32x4(a, _mm_loadu_ps(from[2]), 2);
    return _mm512_insertf32x4(a, _mm_loadu_ps(from[3]), 3);
}
QEM_INLINE vf vf_load_eights(const float *const *from)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(from[0])), _mm256_loadu_ps(from[1]), 1);
}
QEM_INLINE __m128i two_half_fours(const uint16_t *const *from)
{
    const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64((const void *)from[0]));
    return _mm_castps_si128(_mm_loadh_pi(low, (const void *)from[1]));
}
QEM_INLINE vf vf_load_half_fours(const uint16_t *const *from)
{
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(two_half_fours(from)), two_half_fours(from + 2), 1));
}
QEM_INLINE vf vf_load_half_eights(const uint16_t *const *from)
{
    const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const void *)from[0]));
    return _mm512_cvtph_ps(_mm256_inserti128_si256(low, _mm_loadu_si128((const void *)from[1]), 1));
}
/* The 4 x 4 matrices that the same quarter of 4 vectors makes, transposed. */
QEM_INLINE void vf_transpose_fours(const vf *row, vf *column)
{
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1])), b = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3])), d = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    column[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    column[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    column[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    column[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

/* A table of 2^TABLE_LEVELS floats in registers, looked up by lane. */
#define TABLE_LEVELS 5
typedef struct vtable {
    vf low, high;
} vtable;
QEM_INLINE vtable vtable_load(const float *p)
{
    const vtable table = { vf_load(p), vf_load(p + 16) };
    return table;
}
QEM_INLINE vf vtable_lookup(vtable table, vi index) { return _mm512_permutex2var_ps(table.low, index, table.high); }

/* 16 floats in registers; bits 0 .. 3 of each lane are the index. */
typedef vf vtable16;
QEM_INLINE vtable16 vtable16_load(const float *p) { return vf_load(p); }
QEM_INLINE vf vtable16_lookup(vtable16 table, vi index) { return _mm512_permutexvar_ps(index, table); }

/* 64 floats, which stay where they are as long as the table is in use; bits 0 .. 5 of each lane are the index, the rest 0. */
typedef struct vtable64 {
    vtable low, high;
} vtable64;
QEM_INLINE vtable64 vtable64_load(const float *p)
{
    const vtable64 table = { vtable_load(p), vtable_load(p + 32) };
    return table;
}
QEM_INLINE vf vtable64_lookup(vtable64 table, vi index)
{
    return vf_select(vi_gt(index, vi_set1(31)), vtable_lookup(table.high, index), vtable_lookup(table.low, index));
}

/* 2 x 16 floats that alternate (left, right) <-> 16 left and 16 right ones. */
QEM_INLINE void vf_unzip(vf a, vf b, vf *left, vf *right)
{
    const vi even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    *left = _mm512_permutex2var_ps(a, even, b);
    *right = _mm512_permutex2var_ps(a, vi_add(even, vi_set1(1)), b);
}
QEM_INLINE void vf_zip(vf left, vf right, vf *a, vf *b)
{
    const vi low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *a = _mm512_permutex2var_ps(left, low, right);
    *b = _mm512_permutex2var_ps(left, vi_add(low, vi_set1(8)), right);
}

/* 16-bit elements in memory <-> lanes; f16 conversions round to nearest even. */
QEM_INLINE vi vi_load_u16(const uint16_t *p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)); }
QEM_INLINE void vi_store_u16(uint16_t *p, vi a) { _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(a)); }
QEM_INLINE vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
QEM_INLINE void vf_store_f16(uint16_t *p, vf a)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Two vectors as 2 * LANES elements of 16 bits: rounded to f16, or integers below 65536. */
QEM_INLINE vi vf_pair_to_f16(vf a, vf b)
{
    const __m256i low = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm512_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), 1);
}
QEM_INLINE vi vi_pair_to_u16(vi a, vi b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)), _mm512_cvtepi32_epi16(b), 1);
}

QEM_INLINE vf vi_to_float(vi a) { return _mm512_cvtepi32_ps(a); }
QEM_INLINE vm vm_first(size_t n) { return (vm)((1u << n) - 1u); } /* n <= LANES */
QEM_INLINE vf vf_load_where(vm m, const float *p) { return _mm512_maskz_loadu_ps(m, p); } /* the others are 0, not read */

/* Each run of 8 lanes holds one 32-bit word: run i that of the bytes from p + i * step on. */
QEM_INLINE vi vi_spread(const uint8_t *p, size_t step)
{
    uint32_t first, second;
    memcpy(&first, p, sizeof first);
    memcpy(&second, p + step, sizeof second);
    return _mm512_mask_set1_epi32(vi_set1(first), 0xff00, (int)second);
}

/* 16 lanes become 4: lane l + lane l+8, then l + l+4. */
QEM_INLINE __m128 vf_fold(const vf *a)
{
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(*a), _mm512_extractf32x8_ps(*a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* Eight doubles: the lanes of the error sums (backend.h). */
typedef __m512d vd8;
QEM_INLINE vd8 vd8_from_floats(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
QEM_INLINE vd8 vd8_set1(double a) { return _mm512_set1_pd(a); }
QEM_INLINE vd8 vd8_load(const double *p) { return _mm512_loadu_pd(p); }
QEM_INLINE void vd8_store(double *p, vd8 a) { _mm512_storeu_pd(p, a); }
QEM_INLINE vd8 vd8_add(vd8 a, vd8 b) { return _mm512_add_pd(a, b); }
QEM_INLINE vd8 vd8_sub(vd8 a, vd8 b) { return _mm512_sub_pd(a, b); }
QEM_INLINE vd8 vd8_mul(vd8 a, vd8 b) { return _mm512_mul_pd(a, b); }
QEM_INLINE vd8 vd8_fmadd(vd8 a, vd8 b, vd8 c) { return _mm512_fmadd_pd(a, b, c); }
QEM_INLINE void vd8_store_floats(float *p, vd8 a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
QEM_INLINE vd8 vd8_abs(vd8 a) { return _mm512_abs_pd(a); }
QEM_INLINE vd8 vd8_min(vd8 a, vd8 b) { return _mm512_min_pd(a, b); }
QEM_INLINE vd8 vd8_max(vd8 a, vd8 b) { return _mm512_max_pd(a, b); }
/* sum + a / b where b is not 0; *zeros counts the lanes where it is */
QEM_INLINE vd8 vd8_add_ratio(vd8 sum, vd8 a, vd8 b, uint64_t *zeros)
{
    const __mmask8 usable = _mm512_cmp_pd_mask(b, _mm512_setzero_pd(), _CMP_NEQ_OQ);
    *zeros += 8u - (unsigned)__builtin_popcount(usable);
    return _mm512_mask_add_pd(sum, usable, sum, _mm512_maskz_div_pd(usable, a, b));
}

/* sums + llrint of 8 floats times scale, as 64-bit integers: lanes are added as they like. */
typedef __m512i vsum;
QEM_INLINE vsum vsum_zero(void) { return _mm512_setzero_si512(); }
QEM_INLINE vsum vsum_add_scaled(vsum sum, const float *p, vd8 scale)
{
    return _mm512_add_epi64(sum, _mm512_cvtpd_epi64(_mm512_mul_pd(vd8_from_floats(p), scale)));
}
/* out[i] = llrint(p[i] * scale) for 8 floats */
QEM_INLINE void vd8_store_scaled(int64_t *out, const float *p, vd8 scale)
{
    _mm512_storeu_si512(out, _mm512_cvtpd_epi64(_mm512_mul_pd(vd8_from_floats(p), scale)));
}
QEM_INLINE int64_t vsum_total(vsum sum) { return _mm512_reduce_add_epi64(sum); }

#if defined(__AVX512VBMI__)
/* 64 bytes, looked up and cut out of bits by VBMI: not a part of the level avx512, so only in files that are compiled for it
 * and taken where the CPU has it. Names say what happens in each of the four quarters of 16 bytes. */
typedef __m512i vb;
typedef __mmask64 vbm;
QEM_INLINE vb vb_load(const void *p) { return _mm512_loadu_si512(p); }
QEM_INLINE void vb_store(void *p, vb a) { _mm512_storeu_si512(p, a); }
QEM_INLINE vbm vbm_first(size_t n) { return n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX; }
QEM_INLINE vb vb_load_where(vbm m, const uint8_t *p) { return _mm512_maskz_loadu_epi8(m, p); } /* the others are 0, not read */
QEM_INLINE void vb_store_quarters(uint8_t *p, size_t step, vb a) /* quarter q to p + q * step */
{
    _mm_storeu_si128((void *)p, _mm512_castsi512_si128(a));
    _mm_storeu_si128((void *)(p + step), _mm512_extracti32x4_epi32(a, 1));
    _mm_storeu_si128((void *)(p + 2 * step), _mm512_extracti32x4_epi32(a, 2));
    _mm_storeu_si128((void *)(p + 3 * step), _mm512_extracti32x4_epi32(a, 3));
}
QEM_INLINE vb vb_set1(uint8_t a) { return _mm512_set1_epi8((char)a); }
QEM_INLINE vb vb_add(vb a, vb b) { return _mm512_add_epi8(a, b); }
QEM_INLINE vb vb_and(vb a, vb b) { return _mm512_and_si512(a, b); }

QEM_INLINE vbm vb_top_bits(vb a) { return _mm512_movepi8_mask(a); }
QEM_INLINE vbm vbm_and(vbm a, vbm b) { return _kand_mask64(a, b); }
/* table[index % 64] for each byte of index; where m is not set, `otherwise` */
QEM_INLINE vb vb_lookup(vb table, vb index) { return _mm512_permutexvar_epi8(index, table); }
QEM_INLINE vb vb_lookup_where(vbm m, vb otherwise, vb table, vb index)
{
    return _mm512_mask_permutexvar_epi8(otherwise, m, index, table);
}
/* Byte i: the 8 bits from bit at[i] on, of the run of 8 bytes that it is in. */
QEM_INLINE vb vb_bits_from(vb a, vb at) { return _mm512_multishift_epi64_epi8(at, a); }
/* Bytes of a and b that alternate: those at even places, those at odd ones. */
QEM_INLINE vb vb_bytes_even(vb a, vb b) { return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, a, _mm512_slli_epi16(b, 8)); }
QEM_INLINE vb vb_bytes_odd(vb a, vb b) { return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaau, _mm512_srli_epi16(a, 8), b); }
/* The same, and of pairs of bytes, those of the lower and those of the upper halves of the quarters. */
QEM_INLINE vb vb_zip_low(vb a, vb b) { return _mm512_unpacklo_epi8(a, b); }
QEM_INLINE vb vb_zip_high(vb a, vb b) { return _mm512_unpackhi_epi8(a, b); }
QEM_INLINE vb vb_zip_pairs_low(vb a, vb b) { return _mm512_unpacklo_epi16(a, b); }
QEM_INLINE vb vb_zip_pairs_high(vb a, vb b) { return _mm512_unpackhi_epi16(a, b); }
#endif

#endif
