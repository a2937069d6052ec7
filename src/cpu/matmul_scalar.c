/* The definition of the kernels of products.h, in portable C. */
#include <math.h>
#include <string.h>

#include "products.h"

static float lane_sum(const float *lanes)
{
    float sum[QEM_SUM_LANES];
    memcpy(sum, lanes, sizeof sum);
    for (int half = QEM_SUM_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

static float dot_row(const float *w, const float *x, size_t n)
{
    float lanes[QEM_SUM_LANES] = { 0 };
    for (size_t j = 0; j < n; j++) lanes[j % QEM_SUM_LANES] = fmaf(w[j], x[j], lanes[j % QEM_SUM_LANES]);
    return lane_sum(lanes);
}

static void dot(const float *w, size_t ldw, size_t rows, const float *x, size_t ldx, size_t batch, size_t n, float *totals,
                size_t ldt)
{
    for (size_t b = 0; b < batch; b++)
        for (size_t r = 0; r < rows; r++) totals[b * ldt + r] += dot_row(w + r * ldw, x + b * ldx, n);
}

static uint32_t narrow_code(const uint8_t *codes, uint32_t bits, size_t j)
{
    const size_t bit = j * bits;
    const uint32_t word = (uint32_t)codes[bit / 8] | (uint32_t)codes[bit / 8 + 1] << 8;
    return (word >> (bit % 8)) & ((1u << bits) - 1u);
}

static uint32_t wide_code(const uint8_t *codes, size_t i)
{
    uint32_t code;
    memcpy(&code, codes + i * sizeof code, sizeof code);
    return code;
}

static float coded_weight(const qem_coded *w, const uint8_t *codes, size_t j)
{
    switch (w->kind) {
    case QEM_CODED_TABLE: return w->table[narrow_code(codes, w->bits, j)];
    case QEM_CODED_TABLE8: return w->table[codes[j]];
    case QEM_CODED_UNIFORM8: return fmaf((float)codes[j], w->scale, w->mean);
    case QEM_CODED_QUADS: return w->table[(size_t)wide_code(codes, j / 4) * 4 + j % 4];
    case QEM_CODED_NONE: break;
    }
    return 0.0f;
}

static void dot_coded(const qem_coded *w, size_t rows, const float *x, size_t ldx, size_t batch, size_t n, float *totals,
                      size_t ldt)
{
    float row[QEM_SUM_BLOCK];
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < n; j++) row[j] = coded_weight(w, w->codes + r * w->row_bytes, j);
        for (size_t b = 0; b < batch; b++) totals[b * ldt + r] += dot_row(row, x + b * ldx, n);
    }
}

static void build_table(const float *x, const float *entries, uint32_t width, size_t k, float *table)
{
    for (size_t j = 0; j < k; j++) {
        float sum = 0.0f;
        for (uint32_t p = 0; p < width; p++) sum = fmaf(x[p], entries[j * width + p], sum);
        table[j] = sum;
    }
}

static void table_sums(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                       size_t groups, float *lanes)
{
    for (size_t r = 0; r < rows; r++, codes += row_bytes, lanes += QEM_SUM_LANES)
        for (size_t g = 0; g < groups; g++) {
            const uint32_t code = bits == 32 ? wide_code(codes, g) : bits == 8 ? codes[g] : narrow_code(codes, bits, g);
            lanes[g % QEM_SUM_LANES] += tables[g * ld + code];
        }
}

static void add_lanes(const float *lanes, size_t rows, float *totals)
{
    for (size_t r = 0; r < rows; r++) totals[r] += lane_sum(lanes + r * QEM_SUM_LANES);
}

void qem_product_kernels_scalar(qem_product_kernels *kernels)
{
    *kernels = (qem_product_kernels){ dot, dot_coded, build_table, table_sums, add_lanes };
}
