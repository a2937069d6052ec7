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

/* ---- table sums: the definition and the fast code in one ---- */

static inline uint64_t load_word(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 | (uint64_t)p[7] << 56;
}

/* Eight codes from code g on, a multiple of 8. */
#define CODE(i) (form == 32 ? wide_code(codes, g + (i)) : (word >> ((i) * bits)) & mask)

static inline __attribute__((always_inline)) float table_block(const float *tables, size_t ld, const uint8_t *codes,
                                                               const uint32_t bits, size_t groups, const int form)
{
    const uint64_t mask = form == 32 ? 0 : ((uint64_t)1 << bits) - 1;
    float lane0 = 0.0f, lane1 = 0.0f, lane2 = 0.0f, lane3 = 0.0f;
    size_t g = 0;
    for (; g + 8 <= groups; g += 8, tables += 8 * ld) {
        const uint64_t word = form == 32 ? 0 : load_word(codes + g / 8 * bits);
        lane0 += tables[CODE(0)];
        lane1 += tables[ld + CODE(1)];
        lane2 += tables[2 * ld + CODE(2)];
        lane3 += tables[3 * ld + CODE(3)];
        lane0 += tables[4 * ld + CODE(4)];
        lane1 += tables[5 * ld + CODE(5)];
        lane2 += tables[6 * ld + CODE(6)];
        lane3 += tables[7 * ld + CODE(7)];
    }
    if (g < groups) {
        const uint64_t word = form == 32 ? 0 : load_word(codes + g / 8 * bits);
        for (size_t i = 0; g + i < groups; i++) {
            const float entry = tables[i * ld + CODE(i)];
            switch (i % QEM_TABLE_LANES) {
            case 0: lane0 += entry; break;
            case 1: lane1 += entry; break;
            case 2: lane2 += entry; break;
            default: lane3 += entry; break;
            }
        }
    }
    return (lane0 + lane2) + (lane1 + lane3);
}

static inline __attribute__((always_inline)) void table_rows(const float *tables, size_t ld, const uint8_t *codes,
                                                             size_t row_bytes, const uint32_t bits, size_t rows, size_t groups,
                                                             float *totals, const uint8_t *ahead, const int form)
{
    const size_t ahead_step = groups * bits / 8;
    for (size_t r = 0; r < rows; r++, codes += row_bytes) {
        float total = totals[r];
        if (ahead) __builtin_prefetch(ahead + r * ahead_step, 0, 2);
        for (size_t g = 0; g < groups; g += QEM_TABLE_BLOCK)
            total += table_block(tables + g * ld, ld, codes + g / 8 * bits, bits,
                                 groups - g < QEM_TABLE_BLOCK ? groups - g : QEM_TABLE_BLOCK, form);
        totals[r] = total;
    }
}

/* The usual shapes get loops of their own: 256 entries and bytes, 16 entries and half bytes. */
static void table_sums(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                       size_t groups, float *totals, const uint8_t *ahead)
{
    if (bits == 8 && ld == 256 && groups == QEM_TABLE_BLOCK)
        table_rows(tables, 256, codes, row_bytes, 8, rows, QEM_TABLE_BLOCK, totals, ahead, 0);
    else if (bits == 8)
        table_rows(tables, ld, codes, row_bytes, 8, rows, groups, totals, ahead, 0);
    else if (bits == 4 && ld == 16)
        table_rows(tables, 16, codes, row_bytes, 4, rows, groups, totals, ahead, 0);
    else if (bits < 8)
        table_rows(tables, ld, codes, row_bytes, bits, rows, groups, totals, ahead, 0);
    else
        table_rows(tables, ld, codes, row_bytes, 32, rows, groups, totals, ahead, 32);
}

static void build_table16(const float *x16, const float *entries, uint32_t width, size_t k, float *table)
{
    for (size_t j = 0; j < k; j++)
        for (size_t b = 0; b < 16; b++) {
            float sum = 0.0f;
            for (uint32_t p = 0; p < width; p++) sum = fmaf(x16[p * 16 + b], entries[j * width + p], sum);
            table[j * 16 + b] = sum;
        }
}

static uint32_t any_code(const uint8_t *codes, uint32_t bits, size_t g)
{
    if (bits == 32) return wide_code(codes, g);
    return (uint32_t)(load_word(codes + g / 8 * bits) >> (g % 8 * bits)) & ((1u << bits) - 1u);
}

static void table_sums16(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                         size_t groups, float *totals)
{
    for (size_t r = 0; r < rows; r++, codes += row_bytes, totals += 16)
        for (size_t first = 0; first < groups; first += QEM_TABLE_BLOCK) {
            float lane[QEM_TABLE_LANES][16] = { { 0 } };
            const size_t last = groups - first < QEM_TABLE_BLOCK ? groups : first + QEM_TABLE_BLOCK;
            for (size_t g = first; g < last; g++) {
                const float *entry = tables + (g * ld + any_code(codes, bits, g)) * 16;
                for (size_t b = 0; b < 16; b++) lane[g % QEM_TABLE_LANES][b] += entry[b];
            }
            for (size_t b = 0; b < 16; b++) totals[b] += (lane[0][b] + lane[2][b]) + (lane[1][b] + lane[3][b]);
        }
}

void qem_product_kernels_scalar(qem_product_kernels *kernels)
{
    *kernels = (qem_product_kernels){ dot, dot_coded, build_table, table_sums, NULL, NULL, NULL, build_table16, table_sums16 };
}
