/* gather_points(), scale_points(), sum_points() and half_norms() for one instruction set. */
#include "kernels.h"
#include "simd_kernels.h"

#define FETCH_AHEAD 32 /* points of a group lie a row apart, too far for the hardware to fetch ahead */

/* Components 0 .. 3 of LANES points: vector j holds points j, j + 4, ... in its quarters, which are transposed in place. */
QEM_INLINE void gather_fours(const float *x, const uint32_t *ids, size_t stride, float *out, size_t ld)
{
    vf row[4], component[4];
    QEM_UNROLL
    for (int j = 0; j < 4; j++) {
        const float *from[LANES / 4];
        QEM_UNROLL
        for (int q = 0; q < LANES / 4; q++) from[q] = x + ids[4 * q + j] * stride;
        row[j] = vf_load_fours(from);
    }
    vf_transpose_fours(row, component);
    QEM_UNROLL
    for (int p = 0; p < 4; p++) vf_store(out + (size_t)p * ld, component[p]);
}

static void gather_rest(const float *x, const uint32_t *ids, size_t n, size_t stride, uint32_t dim, float *out, size_t ld)
{
    for (size_t i = 0; i < n; i++) {
        if (i + FETCH_AHEAD < n) __builtin_prefetch(x + ids[i + FETCH_AHEAD] * stride);
        for (uint32_t p = 0; p < dim; p++) out[p * ld + i] = x[ids[i] * stride + p];
    }
}

void QEM_SIMD(gather_points)(const float *x, const uint32_t *ids, size_t n, size_t stride, uint32_t dim, float *out, size_t ld)
{
    size_t i = 0;
    if (dim % 4 == 0)
        for (; i + LANES <= n; i += LANES) {
            for (size_t a = i + FETCH_AHEAD; a < i + FETCH_AHEAD + LANES && a < n; a++) __builtin_prefetch(x + ids[a] * stride);
            for (uint32_t p = 0; p < dim; p += 4) gather_fours(x + p, ids + i, stride, out + p * ld + i, ld);
        }
    gather_rest(x, ids + i, n - i, stride, dim, out + i, ld);
}

void QEM_SIMD(half_norms)(const float *c, size_t ldc, size_t count, uint32_t dim, float *h)
{
    for (size_t j = 0; j < count; j += 8) {
        vd8 sum = vd8_set1(0.0);
        for (uint32_t p = 0; p < dim; p++) {
            const vd8 v = vd8_from_floats(c + p * ldc + j);
            sum = vd8_fmadd(v, v, sum);
        }
        vd8_store_floats(h + j, vd8_mul(vd8_set1(0.5), sum));
    }
}

static void scale_rest(float *x, size_t n, double mean, double scale)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)(((double)x[i] - mean) * scale);
        x[i] = value > QEM_CLAMP ? QEM_CLAMP : value < -QEM_CLAMP ? -QEM_CLAMP : value;
    }
}

void QEM_SIMD(scale_points)(float *x, size_t n, double mean, double scale)
{
    const vd8 center = vd8_set1(mean), factor = vd8_set1(scale);
    const vd8 most = vd8_set1(QEM_CLAMP), least = vd8_set1(-QEM_CLAMP);
    const size_t whole = n / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        const vd8 value = vd8_mul(vd8_sub(vd8_from_floats(x + i), center), factor);
        vd8_store_floats(x + i, vd8_max(vd8_min(value, most), least)); /* the bounds are floats: rounding does not cross them */
    }
    scale_rest(x + whole, n - whole, mean, scale);
}

#define SUM_DIMS 8 /* components that are converted together */

/* Components first .. first+dim-1 of 8 points. */
QEM_INLINE void sum_eight(const float *x, size_t ld, uint32_t dim, const uint32_t *labels, vd8 scale, int64_t *sums, size_t width)
{
    int64_t fixed[SUM_DIMS][8];
    for (uint32_t p = 0; p < dim; p++) vd8_store_scaled(fixed[p], x + p * ld, scale);
    for (size_t i = 0; i < 8; i++) {
        int64_t *sum = sums + labels[i] * width;
        for (uint32_t p = 0; p < dim; p++) sum[p] += fixed[p][i];
    }
}

static void sum_rest(const float *x, size_t ld, size_t n, uint32_t dim, const uint32_t *labels, double scale, int64_t *sums,
                     size_t width)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t p = 0; p < dim; p++) sums[labels[i] * width + p] += llrint((double)x[p * ld + i] * scale);
}

void QEM_SIMD(sum_points)(const float *x, size_t ld, size_t n, uint32_t dim, const uint32_t *labels, double scale, int64_t *sums,
                          size_t width)
{
    const vd8 factor = vd8_set1(scale);
    const size_t whole = n / 8 * 8;
    for (uint32_t p = 0; p < dim; p += SUM_DIMS) {
        const uint32_t here = dim - p < SUM_DIMS ? dim - p : SUM_DIMS;
        for (size_t i = 0; i < whole; i += 8) {
            if (here == 4) /* the usual one, unrolled */
                sum_eight(x + p * ld + i, ld, 4, labels + i, factor, sums + p, width);
            else
                sum_eight(x + p * ld + i, ld, here, labels + i, factor, sums + p, width);
        }
    }
    sum_rest(x + whole, ld, n - whole, dim, labels + whole, scale, sums, width);
}
