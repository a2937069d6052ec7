/* The definition of every kernel, in portable C. The other instruction sets must give the same bits. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "../backend.h"
#include "../core/half.h"
#include "cross.h"
#include "kernels.h"

static void nearest(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, const float *h, size_t ldc,
                    size_t count, uint32_t *labels)
{
    for (size_t i = 0; i < points; i++) {
        float best = INFINITY;
        uint32_t label = 0;
        for (size_t j = 0; j < count; j++) {
            float score = h[j];
            for (uint32_t p = 0; p < dim; p++) score = fmaf(-x[p * ld + i], c[p * ldc + j], score);
            if (score < best) {
                best = score;
                label = (uint32_t)j;
            }
        }
        labels[i] = label;
    }
}

static float squared_distance(const float *x, size_t ld, size_t i, uint32_t dim, const float *c, size_t ldc)
{
    float s = 0.0f;
    for (uint32_t p = 0; p < dim; p++) {
        const float d = x[p * ld + i] - c[p * ldc];
        s = fmaf(d, d, s);
    }
    return s;
}

static float seed_step(const float *x, size_t ld, size_t points, uint32_t dim, const float *center, uint32_t label,
                       float *d2, uint32_t *labels)
{
    float largest = 0.0f;
    for (size_t i = 0; i < points; i++) {
        const float t = squared_distance(x, ld, i, dim, center, 1);
        if (t < d2[i]) {
            d2[i] = t;
            labels[i] = label;
        }
        if (d2[i] > largest) largest = d2[i];
    }
    return largest;
}

static int64_t fixed_sum(const float *d2, size_t points, double scale)
{
    int64_t sum = 0;
    for (size_t i = 0; i < points; i++) sum += llrint((double)d2[i] * scale);
    return sum;
}

static void own_distance(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,
                         const uint32_t *labels, float *d2)
{
    for (size_t i = 0; i < points; i++) d2[i] = squared_distance(x, ld, i, dim, c + labels[i], ldc);
}

static float weighted_squares(const float *x, const float *w, size_t ld, size_t i, uint32_t dim, const float *c, size_t ldc)
{
    float s = 0.0f;
    for (uint32_t p = 0; p < dim; p++) {
        const float d = x[p * ld + i] - c[p * ldc];
        s = fmaf(w[p * ld + i] * d, d, s);
    }
    return s;
}

static float weighted_step(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *center,
                           uint32_t label, float *d2, uint32_t *labels)
{
    float largest = 0.0f;
    for (size_t i = 0; i < points; i++) {
        const float t = weighted_squares(x, w, ld, i, dim, center, 1);
        if (t < d2[i]) {
            d2[i] = t;
            labels[i] = label;
        }
        if (d2[i] > largest) largest = d2[i];
    }
    return largest;
}

static void weighted_distance(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,
                              const uint32_t *labels, float *d2)
{
    for (size_t i = 0; i < points; i++) d2[i] = weighted_squares(x, w, ld, i, dim, c + labels[i], ldc);
}

static void half_norms(const float *c, size_t ldc, size_t count, uint32_t dim, float *h)
{
    for (size_t j = 0; j < count; j++) {
        double sum = 0.0;
        for (uint32_t p = 0; p < dim; p++) sum = fma((double)c[p * ldc + j], (double)c[p * ldc + j], sum);
        h[j] = (float)(0.5 * sum);
    }
}

static void gather_points(const float *x, const uint32_t *ids, size_t n, size_t stride, uint32_t dim, float *out,
                          size_t ld)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t p = 0; p < dim; p++) out[p * ld + i] = x[ids[i] * stride + p];
}

static void scale_points(float *x, size_t n, double mean, double scale)
{
    for (size_t i = 0; i < n; i++) {
        const float value = (float)(((double)x[i] - mean) * scale);
        x[i] = value > QEM_CLAMP ? QEM_CLAMP : value < -QEM_CLAMP ? -QEM_CLAMP : value;
    }
}

static void sum_points(const float *x, size_t ld, size_t n, uint32_t dim, const uint32_t *labels, double scale, int64_t *sums,
                       size_t width)
{
    for (size_t i = 0; i < n; i++)
        for (uint32_t p = 0; p < dim; p++) sums[labels[i] * width + p] += llrint((double)x[p * ld + i] * scale);
}

static uint32_t highest_threshold(const qem_level_table *table, float z)
{
    uint32_t index = 0;
    for (uint32_t half = table->size / 2; half > 0; half /= 2) index += table->threshold[index + half] <= z ? half : 0;
    return index;
}

static void scale_errors(const qem_level_table *table, const float *x, const float *weight, size_t n, const float *scale,
                         const float *inverse, size_t count, float *sums)
{
    for (size_t c = 0; c < count; c++) {
        float sum = 0.0f;
        for (size_t i = 0; i < n; i++) {
            const float level = table->level[highest_threshold(table, x[i] * inverse[c])];
            const float e = fmaf(-level, scale[c], x[i]);
            sum = fmaf((weight ? weight[i] : 1.0f) * e, e, sum);
        }
        sums[c] = sum;
    }
}

static void scalar_codes(const float *x, size_t n, const float *thresholds, size_t threshold_count, uint32_t *codes)
{
    for (size_t i = 0; i < n; i++) {
        /* branch-free upper bound: halve the range, keep the upper half while its first threshold is <= x */
        size_t base = 0, length = threshold_count;
        while (length > 0) {
            const size_t half = (length + 1) / 2;
            base += thresholds[base + half - 1] <= x[i] ? half : 0;
            length -= half;
        }
        codes[i] = (uint32_t)base;
    }
}

static void unpack(const uint8_t *stream, uint64_t first_bit, size_t n, uint32_t bits, uint32_t *codes)
{
    const uint32_t mask = (1u << bits) - 1u;
    for (size_t i = 0; i < n; i++) {
        const uint64_t bit = first_bit + (uint64_t)i * bits;
        const uint8_t *s = stream + (bit >> 3);
        const uint32_t word = (uint32_t)s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
        codes[i] = (word >> (bit & 7)) & mask;
    }
}

static void decode_tile(const qem_code_tile *tile)
{
    for (size_t row = 0; row < tile->rows; row++)
        for (size_t group = 0; group < tile->groups; group++) {
            uint32_t code = 0;
            if (tile->bits)
                unpack(tile->stream, tile->first_bit + row * tile->row_bits + group * tile->bits, 1, tile->bits, &code);
            const size_t entry = group * tile->group_stride + (size_t)code * tile->dim;
            float *out = tile->out + row * tile->row_stride + group * tile->dim;
            for (uint32_t p = 0; p < tile->dim; p++)
                out[p] = tile->half ? qem_f16_to_f32(tile->half[entry + p]) : tile->codebook[entry + p];
        }
}

static void pair_split(const float *x, size_t pairs, float *small, float *large, uint64_t *bits)
{
    uint64_t word = 0;
    for (size_t j = 0; j < pairs; j++) {
        const float left = x[2 * j], right = x[2 * j + 1];
        const int smaller = left < right;
        small[j] = smaller ? left : right;
        large[j] = smaller ? right : left;
        word |= (uint64_t)smaller << (j % 64);
        if (j % 64 == 63 || j + 1 == pairs) {
            bits[j / 64] = word;
            word = 0;
        }
    }
}

static void pair_merge(const float *small, const float *large, const uint64_t *bits, size_t pairs, float *x)
{
    for (size_t j = 0; j < pairs; j++) {
        const int smaller = (bits[j / 64] >> (j % 64)) & 1;
        x[2 * j] = smaller ? small[j] : large[j];
        x[2 * j + 1] = smaller ? large[j] : small[j];
    }
}

static void affine(const qem_affine_tile *tile)
{
    for (size_t row = 0; row < tile->rows; row++)
        for (size_t j = 0; j < tile->width; j++) {
            const size_t unit = row * tile->unit_stride + (tile->block ? (tile->phase + j) / tile->block : 0);
            float *x = tile->x + row * tile->stride + j;
            *x = fmaf(*x, tile->scale ? tile->scale[unit] : 1.0f, tile->mean ? tile->mean[unit] : 0.0f);
        }
}

static void rotate_rows(const float *x, size_t ldx, size_t rows, size_t cols, const float *rotation, const float *after,
                        float *out, size_t ldo)
{
    for (size_t r = 0; r < rows; r++) {
        float *row = out + r * ldo;
        for (size_t j = 0; j < cols; j++) row[j] = after ? after[j] : 0.0f;
        for (size_t p = 0; p < cols; p++)
            for (size_t j = 0; j < cols; j++) row[j] = fmaf(x[r * ldx + p], rotation[p * cols + j], row[j]);
    }
}

static void add(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

static int is_finite_bits(uint32_t u)
{
    return (u & 0x7f800000u) != 0x7f800000u;
}

static int f32_to_f16(const float *x, size_t n, uint16_t *out)
{
    int overflow = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = qem_f32_to_f16(x[i]);
        overflow |= is_finite_bits(qem_float_bits(x[i])) && (out[i] & 0x7c00u) == 0x7c00u;
    }
    return overflow;
}

static int f32_to_bf16(const float *x, size_t n, uint16_t *out)
{
    int overflow = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = qem_f32_to_bf16(x[i]);
        overflow |= is_finite_bits(qem_float_bits(x[i])) && (out[i] & 0x7f80u) == 0x7f80u;
    }
    return overflow;
}

static void f16_to_f32(const uint16_t *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = qem_f16_to_f32(x[i]);
}

static void bf16_to_f32(const uint16_t *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = qem_bf16_to_f32(x[i]);
}

static int store_rows(const float *x, size_t x_stride, size_t rows, size_t n, qem_dtype dtype, void *out, size_t row_stride,
                      int streaming)
{
    int overflow = 0;
    (void)streaming;
    for (size_t row = 0; row < rows; row++) {
        if (dtype == QEM_DTYPE_F32)
            memcpy((float *)out + row * row_stride, x + row * x_stride, n * sizeof *x);
        else
            overflow |= (dtype == QEM_DTYPE_F16 ? f32_to_f16 : f32_to_bf16)(x + row * x_stride, n,
                                                                            (uint16_t *)out + row * row_stride);
    }
    return overflow;
}

static void end_streaming(void)
{
}

static size_t find_nonfinite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_finite_bits(qem_float_bits(x[i]))) return i;
    return n;
}

static void extremes(const float *x, size_t n, float *min, float *max)
{
    float lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    *min = lo + 0.0f;
    *max = hi + 0.0f;
}

static double lane_total(const double lane[8])
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static void error_chunk(const float *x, const float *y, size_t n, double sums[3], double *max, uint64_t *zeros)
{
    double absolute[8] = { 0 }, squared[8] = { 0 }, relative[8] = { 0 };
    double largest = 0.0;
    uint64_t zero_count = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs((double)x[i] - (double)y[i]);
        const double size = fabs((double)x[i]);
        absolute[i % 8] += e;
        squared[i % 8] += e * e;
        if (size != 0.0)
            relative[i % 8] += e / size;
        else
            zero_count++;
        largest = e > largest ? e : largest;
    }
    sums[0] = lane_total(absolute);
    sums[1] = lane_total(squared);
    sums[2] = lane_total(relative);
    *max = largest;
    *zeros = zero_count;
}

static void cross_tile(const double *a, const double *b, size_t n, double *sums)
{
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < QEM_CROSS_A; i++)
            for (size_t j = 0; j < QEM_CROSS_B; j++)
                sums[i * QEM_CROSS_B + j] = fma(a[r * QEM_CROSS_A + i], b[r * QEM_CROSS_B + j], sums[i * QEM_CROSS_B + j]);
}

static void sum_chunk(const float *x, size_t n, double center, double *sum, double *squared)
{
    double s[8] = { 0 }, q[8] = { 0 };
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - center;
        s[i % 8] += d;
        q[i % 8] += d * d;
    }
    *sum = lane_total(s);
    *squared = lane_total(q);
}

void qem_kernels_scalar(qem_cpu_kernels *kernels)
{
    *kernels = (qem_cpu_kernels){
        .nearest = nearest,
        .seed_step = seed_step,
        .fixed_sum = fixed_sum,
        .own_distance = own_distance,
        .weighted_step = weighted_step,
        .weighted_distance = weighted_distance,
        .half_norms = half_norms,
        .gather_points = gather_points,
        .scale_points = scale_points,
        .sum_points = sum_points,
        .scalar_codes = scalar_codes,
        .scale_errors = scale_errors,
        .unpack = unpack,
        .decode_tile = decode_tile,
        .pair_split = pair_split,
        .pair_merge = pair_merge,
        .affine = affine,
        .rotate_rows = rotate_rows,
        .add = add,
        .f32_to_f16 = f32_to_f16,
        .f32_to_bf16 = f32_to_bf16,
        .f16_to_f32 = f16_to_f32,
        .bf16_to_f32 = bf16_to_f32,
        .store_rows = store_rows,
        .end_streaming = end_streaming,
        .find_nonfinite = find_nonfinite,
        .extremes = extremes,
        .error_chunk = error_chunk,
        .sum_chunk = sum_chunk,
        .cross_tile = cross_tile,
        .lanes = 0, /* no pruning: the definition is brute force */
    };
    qem_product_kernels_scalar(&kernels->product);
}
