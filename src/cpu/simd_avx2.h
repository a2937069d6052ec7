/*
 * The vocabulary in which the SIMD templates are written, here for AVX2 with FMA and F16C: 8 lanes of f32 or of 32-bit
 * integers, masks as whole lanes. simd_avx512.h has the same names for 16 lanes; what is said there is not repeated.
 */
#ifndef QEM_CPU_SIMD_AVX2_H
#define QEM_CPU_SIMD_AVX2_H

#include <immintrin.h>

#include "simd_common.h"

#define QEM_SIMD(name) qem_##name##_avx2
#define LANES 8

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

QEM_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
QEM_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
QEM_INLINE void vf_stream(float *p, vf a) { _mm256_stream_ps(p, a); }
QEM_INLINE vf vf_halves(const float *p) { return _mm256_setr_m128(_mm_set1_ps(p[0]), _mm_set1_ps(p[1])); }
QEM_INLINE vf vf_set1(float a) { return _mm256_set1_ps(a); }
QEM_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
QEM_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
QEM_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
QEM_INLINE vf vf_fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
QEM_INLINE vf vf_fnmadd(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
QEM_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
QEM_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
QEM_INLINE vm vf_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
QEM_INLINE vm vf_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
QEM_INLINE vm vf_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
QEM_INLINE vf vf_select(vm m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }

QEM_INLINE vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
QEM_INLINE void vi_store(void *p, vi a) { _mm256_storeu_si256(p, a); }
QEM_INLINE void vi_stream(void *p, vi a) { _mm256_stream_si256(p, a); }
QEM_INLINE vi vi_load_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)); }
QEM_INLINE vi vi_set1(uint32_t a) { return _mm256_set1_epi32((int)a); }
QEM_INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
QEM_INLINE vi vi_add_where(vm m, vi a, vi b) { return _mm256_add_epi32(a, _mm256_and_si256(_mm256_castps_si256(m), b)); }
QEM_INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
QEM_INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
QEM_INLINE vi vi_shift_right(vi a, int count) { return _mm256_srli_epi32(a, count); }
QEM_INLINE vi vi_shift_right_each(vi a, vi counts) { return _mm256_srlv_epi32(a, counts); }
QEM_INLINE vi vi_shift_left(vi a, int count) { return _mm256_slli_epi32(a, count); }
QEM_INLINE vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
QEM_INLINE vi vi_sign(vi a) { return _mm256_srai_epi32(a, 31); }
QEM_INLINE vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
QEM_INLINE vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
QEM_INLINE vi vf_bits(vf a) { return _mm256_castps_si256(a); }
QEM_INLINE vf vi_float(vi a) { return _mm256_castsi256_ps(a); }
QEM_INLINE vm vi_gt(vi a, vi b) { return vi_float(_mm256_cmpgt_epi32(a, b)); }
QEM_INLINE vm vi_eq(vi a, vi b) { return vi_float(_mm256_cmpeq_epi32(a, b)); }
QEM_INLINE vi vi_select(vm m, vi yes, vi no) { return vf_bits(vf_select(m, vi_float(yes), vi_float(no))); }
QEM_INLINE vi vi_shuffle_bytes(vi a, vi index) { return _mm256_shuffle_epi8(a, index); }

QEM_INLINE uint32_t vm_bits(vm m) { return (uint32_t)_mm256_movemask_ps(m); }
QEM_INLINE vm vm_from_bits(uint32_t bits)
{
    const vi lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return vi_eq(vi_and(vi_set1(bits), lane), lane);
}
QEM_INLINE vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
QEM_INLINE vm vm_or(vm a, vm b) { return _mm256_or_ps(a, b); }

QEM_INLINE float vf_reduce_min(vf a)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_shuffle_ps(m, m, 1)));
}
QEM_INLINE float vf_reduce_max(vf a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

QEM_INLINE int32_t vi_reduce_min(vi a)
{
    __m128i m = _mm_min_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_min_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_min_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
QEM_INLINE int32_t vi_reduce_max(vi a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
QEM_INLINE int32_t vi_reduce_add(vi a)
{
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

QEM_INLINE vi vi_iota(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

/* The numbers of the bits set in an 8-bit mask, one a byte, from the low end; AVX2 has no compress of its own. */
#define LANE_OF(m, i) ((uint64_t)((m) >> (i)&1) * (uint64_t)(i) << 8 * __builtin_popcount((m) & ((1 << (i)) - 1)))
#define LANES_OF(m)                                                                                                        \
    (LANE_OF(m, 0) | LANE_OF(m, 1) | LANE_OF(m, 2) | LANE_OF(m, 3) | LANE_OF(m, 4) | LANE_OF(m, 5) | LANE_OF(m, 6) |       \
     LANE_OF(m, 7))
#define FOUR_MASKS(m) LANES_OF(m), LANES_OF((m) + 1), LANES_OF((m) + 2), LANES_OF((m) + 3)
#define SIXTEEN_MASKS(m) FOUR_MASKS(m), FOUR_MASKS((m) + 4), FOUR_MASKS((m) + 8), FOUR_MASKS((m) + 12)
#define MASKS_64(m) SIXTEEN_MASKS(m), SIXTEEN_MASKS((m) + 16), SIXTEEN_MASKS((m) + 32), SIXTEEN_MASKS((m) + 48)
static const uint64_t lanes_of_mask[256] = { MASKS_64(0), MASKS_64(64), MASKS_64(128), MASKS_64(192) };

/* The lanes of the mask to p, side by side; up to LANES elements may be written. Returns how many count. */
QEM_INLINE size_t vi_compress_store(uint32_t *p, vm m, vi a)
{
    const uint32_t bits = vm_bits(m);
    const vi lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)lanes_of_mask[bits]));
    _mm256_storeu_si256((void *)p, _mm256_permutevar8x32_epi32(a, lanes));
    return (size_t)__builtin_popcount(bits);
}

QEM_INLINE vf vf_gather(const float *base, vi index) { return _mm256_i32gather_ps(base, index, 4); }
QEM_INLINE vf vf_gather_where(vm m, vf otherwise, const float *base, vi index)
{
    return _mm256_mask_i32gather_ps(otherwise, base, index, m, 4);
}

QEM_INLINE vf vf_entries2(const float *base, const uint32_t *index)
{
    return _mm256_castpd_ps(_mm256_i32gather_pd((const void *)base, _mm_loadu_si128((const void *)index), 4));
}
QEM_INLINE vf vf_half_entries2(const uint16_t *base, const uint32_t *index)
{
    return _mm256_cvtph_ps(_mm_i32gather_epi32((const void *)base, _mm_loadu_si128((const void *)index), 2));
}

/* Here "quarters" are the two halves. */
QEM_INLINE vi vi_load_quarters(const uint8_t *base, const size_t *offset)
{
    const __m128i low = _mm_loadu_si128((const void *)(base + offset[0]));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_loadu_si128((const void *)(base + offset[1])), 1);
}

QEM_INLINE vf vf_load_fours(const float *const *from)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[0])), _mm_loadu_ps(from[1]), 1);
}
QEM_INLINE vf vf_load_eights(const float *const *from) { return _mm256_loadu_ps(from[0]); }
QEM_INLINE vf vf_load_half_fours(const uint16_t *const *from)
{
    const __m128 low = _mm_castsi128_ps(_mm_loadl_epi64((const void *)from[0]));
    return _mm256_cvtph_ps(_mm_castps_si128(_mm_loadh_pi(low, (const void *)from[1])));
}
QEM_INLINE vf vf_load_half_eights(const uint16_t *const *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)from[0]));
}
QEM_INLINE void vf_transpose_fours(const vf *row, vf *column)
{
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(row[0], row[1])), b = _mm256_castps_pd(_mm256_unpackhi_ps(row[0], row[1]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(row[2], row[3])), d = _mm256_castps_pd(_mm256_unpackhi_ps(row[2], row[3]));
    column[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    column[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    column[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    column[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}

#define TABLE_LEVELS 3
typedef vf vtable;
QEM_INLINE vtable vtable_load(const float *p) { return vf_load(p); }
QEM_INLINE vf vtable_lookup(vtable table, vi index) { return _mm256_permutevar8x32_ps(table, index); }

typedef struct vtable16 {
    vf low, high;
} vtable16;
QEM_INLINE vtable16 vtable16_load(const float *p)
{
    const vtable16 table = { vf_load(p), vf_load(p + 8) };
    return table;
}
QEM_INLINE vf vtable16_lookup(vtable16 table, vi index)
{
    const vf low = _mm256_permutevar8x32_ps(table.low, index), high = _mm256_permutevar8x32_ps(table.high, index);
    return _mm256_blendv_ps(low, high, vi_float(_mm256_slli_epi32(index, 28))); /* by bit 3, brought to the sign */
}

/* 64 floats: in memory, for there are too few registers. */
typedef const float *vtable64;
QEM_INLINE vtable64 vtable64_load(const float *p) { return p; }
QEM_INLINE vf vtable64_lookup(vtable64 table, vi index) { return vf_gather(table, index); }

QEM_INLINE void vf_unzip(vf a, vf b, vf *left, vf *right)
{
    const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), odd = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
    *left = _mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xd8));
    *right = _mm256_castpd_ps(_mm256_permute4x64_pd(odd, 0xd8));
}
QEM_INLINE void vf_zip(vf left, vf right, vf *a, vf *b)
{
    const vf low = _mm256_unpacklo_ps(left, right), high = _mm256_unpackhi_ps(left, right);
    *a = _mm256_permute2f128_ps(low, high, 0x20);
    *b = _mm256_permute2f128_ps(low, high, 0x31);
}

QEM_INLINE vi vi_load_u16(const uint16_t *p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)); }
QEM_INLINE void vi_store_u16(uint16_t *p, vi a) /* values below 65536 */
{
    const vi packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, a), 0x08);
    _mm_storeu_si128((void *)p, _mm256_castsi256_si128(packed));
}
QEM_INLINE vf vf_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
QEM_INLINE void vf_store_f16(uint16_t *p, vf a)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

QEM_INLINE vi vf_pair_to_f16(vf a, vf b)
{
    const __m256i low = _mm256_castsi128_si256(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
    return _mm256_inserti128_si256(low, _mm256_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT), 1);
}
QEM_INLINE vi vi_pair_to_u16(vi a, vi b) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8); }
QEM_INLINE vf vi_to_float(vi a) { return _mm256_cvtepi32_ps(a); }
QEM_INLINE vm vm_first(size_t n) { return vi_gt(vi_set1((uint32_t)n), vi_iota()); }
QEM_INLINE vf vf_load_where(vm m, const float *p) { return _mm256_maskload_ps(p, _mm256_castps_si256(m)); }
QEM_INLINE vi vi_spread(const uint8_t *p, size_t step)
{
    uint32_t word;
    (void)step;
    memcpy(&word, p, sizeof word);
    return vi_set1(word);
}
/* a[0] lanes 0 .. 7, a[1] lanes 8 .. 15 */
QEM_INLINE __m128 vf_fold(const vf *a)
{
    const vf half = _mm256_add_ps(a[0], a[1]);
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

typedef struct vd8 {
    __m256d low, high;
} vd8;
QEM_INLINE vd8 vd8_make(__m256d low, __m256d high)
{
    const vd8 a = { low, high };
    return a;
}
QEM_INLINE vd8 vd8_from_floats(const float *p)
{
    return vd8_make(_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4)));
}
QEM_INLINE vd8 vd8_set1(double a) { return vd8_make(_mm256_set1_pd(a), _mm256_set1_pd(a)); }
QEM_INLINE vd8 vd8_load(const double *p) { return vd8_make(_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)); }
QEM_INLINE void vd8_store(double *p, vd8 a)
{
    _mm256_storeu_pd(p, a.low);
    _mm256_storeu_pd(p + 4, a.high);
}
QEM_INLINE vd8 vd8_add(vd8 a, vd8 b) { return vd8_make(_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)); }
QEM_INLINE vd8 vd8_sub(vd8 a, vd8 b) { return vd8_make(_mm256_sub_pd(a.low, b.low), _mm256_sub_pd(a.high, b.high)); }
QEM_INLINE vd8 vd8_mul(vd8 a, vd8 b) { return vd8_make(_mm256_mul_pd(a.low, b.low), _mm256_mul_pd(a.high, b.high)); }
QEM_INLINE vd8 vd8_fmadd(vd8 a, vd8 b, vd8 c)
{
    return vd8_make(_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high));
}
QEM_INLINE void vd8_store_floats(float *p, vd8 a)
{
    _mm_storeu_ps(p, _mm256_cvtpd_ps(a.low));
    _mm_storeu_ps(p + 4, _mm256_cvtpd_ps(a.high));
}
QEM_INLINE vd8 vd8_min(vd8 a, vd8 b) { return vd8_make(_mm256_min_pd(a.low, b.low), _mm256_min_pd(a.high, b.high)); }
QEM_INLINE vd8 vd8_max(vd8 a, vd8 b) { return vd8_make(_mm256_max_pd(a.low, b.low), _mm256_max_pd(a.high, b.high)); }
QEM_INLINE vd8 vd8_abs(vd8 a)
{
    const __m256d sign = _mm256_set1_pd(-0.0);
    return vd8_make(_mm256_andnot_pd(sign, a.low), _mm256_andnot_pd(sign, a.high));
}
QEM_INLINE __m256d add_ratio4(__m256d sum, __m256d a, __m256d b, uint64_t *zeros)
{
    const __m256d usable = _mm256_cmp_pd(b, _mm256_setzero_pd(), _CMP_NEQ_OQ);
    *zeros += 4u - (unsigned)__builtin_popcount((unsigned)_mm256_movemask_pd(usable));
    const __m256d divisor = _mm256_blendv_pd(_mm256_set1_pd(1.0), b, usable); /* no division by 0: the host may trap it */
    return _mm256_add_pd(sum, _mm256_and_pd(usable, _mm256_div_pd(a, divisor))); /* sum is never -0: + 0 keeps its bits */
}
QEM_INLINE vd8 vd8_add_ratio(vd8 sum, vd8 a, vd8 b, uint64_t *zeros)
{
    return vd8_make(add_ratio4(sum.low, a.low, b.low, zeros), add_ratio4(sum.high, a.high, b.high, zeros));
}

/*
 * llrint without a conversion to 64-bit integers: v = high * 2^32 + low with |low| <= 2^31, both exact; high is an integer
 * and high * 2^32 even, so v rounds as low does. Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
 * Exact for |v| < 2^62.
 */
QEM_INLINE __m256i llrint4(__m256d v)
{
    const __m256d magic = _mm256_set1_pd(6755399441055744.0), two32 = _mm256_set1_pd(4294967296.0);
    const __m256d high = _mm256_add_pd(_mm256_mul_pd(v, _mm256_set1_pd(1.0 / 4294967296.0)), magic);
    const __m256d low = _mm256_sub_pd(v, _mm256_mul_pd(_mm256_sub_pd(high, magic), two32));
    const __m256i bias = _mm256_castpd_si256(magic);
    const __m256i high_bits = _mm256_sub_epi64(_mm256_castpd_si256(high), bias);
    const __m256i low_bits = _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(low, magic)), bias);
    return _mm256_add_epi64(_mm256_slli_epi64(high_bits, 32), low_bits);
}

typedef __m256i vsum;
QEM_INLINE vsum vsum_zero(void) { return _mm256_setzero_si256(); }
QEM_INLINE vsum vsum_add_scaled(vsum sum, const float *p, vd8 scale)
{
    const vd8 v = vd8_mul(vd8_from_floats(p), scale);
    return _mm256_add_epi64(sum, _mm256_add_epi64(llrint4(v.low), llrint4(v.high)));
}
QEM_INLINE void vd8_store_scaled(int64_t *out, const float *p, vd8 scale)
{
    const vd8 v = vd8_mul(vd8_from_floats(p), scale);
    _mm256_storeu_si256((void *)out, llrint4(v.low));
    _mm256_storeu_si256((void *)(out + 4), llrint4(v.high));
}
QEM_INLINE int64_t vsum_total(vsum sum)
{
    uint64_t part[4]; /* unsigned: a partial sum may wrap */
    _mm256_storeu_si256((void *)part, sum);
    return (int64_t)(part[0] + part[1] + part[2] + part[3]);
}

#endif
