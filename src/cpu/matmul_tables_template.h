/* Tables of partial sums (products.h) for one instruction set. */
#include "product_lanes.h"

#define WIDEST_UNZIPPED 8

/* Components of LANES entries of 2^steps floats, one vector each; component p lies at the place whose bits are those of p in
 * reverse order. */
QEM_INLINE void load_components(const float *entries, const int steps, vf *c)
{
    const int width = 1 << steps;
    vf next[WIDEST_UNZIPPED];
    QEM_UNROLL
    for (int i = 0; i < width; i++) c[i] = vf_load(entries + i * LANES);
    QEM_UNROLL
    for (int run = width; run > 1; run /= 2) { /* each run holds entries of `run` components: split by even and odd ones */
        QEM_UNROLL
        for (int first = 0; first < width; first += run) {
            QEM_UNROLL
            for (int i = 0; i < run / 2; i++)
                vf_unzip(c[first + 2 * i], c[first + 2 * i + 1], &next[first + i], &next[first + run / 2 + i]);
        }
        QEM_UNROLL
        for (int i = 0; i < width; i++) c[i] = next[i];
    }
}

QEM_INLINE size_t build_unzipped(const float *x, const float *entries, const int steps, size_t k, float *table)
{
    static const int place[4][WIDEST_UNZIPPED] = { { 0 }, { 0, 1 }, { 0, 2, 1, 3 }, { 0, 4, 2, 6, 1, 5, 3, 7 } };
    const int width = 1 << steps;
    size_t j = 0;
    for (; j + LANES <= k; j += LANES) {
        vf c[WIDEST_UNZIPPED], sum = vf_set1(0.0f);
        load_components(entries + (j << steps), steps, c);
        QEM_UNROLL
        for (int p = 0; p < width; p++) sum = vf_fmadd(vf_set1(x[p]), c[place[steps][p]], sum);
        vf_store(table + j, sum);
    }
    return j;
}

static size_t build_gathered(const float *x, const float *entries, uint32_t width, size_t k, float *table)
{
    uint32_t offset[LANES];
    size_t j = 0;
    for (uint32_t lane = 0; lane < LANES; lane++) offset[lane] = lane * width;
    const vi lanes = vi_load(offset);
    for (; j + LANES <= k; j += LANES) {
        vf sum = vf_set1(0.0f);
        for (uint32_t p = 0; p < width; p++) sum = vf_fmadd(vf_set1(x[p]), vf_gather(entries + j * width + p, lanes), sum);
        vf_store(table + j, sum);
    }
    return j;
}

static void QEM_SIMD(build_table)(const float *x, const float *entries, uint32_t width, size_t k, float *table)
{
    size_t j = 0;
    switch (width) {
    case 1: j = build_unzipped(x, entries, 0, k, table); break;
    case 2: j = build_unzipped(x, entries, 1, k, table); break;
    case 4: j = build_unzipped(x, entries, 2, k, table); break;
    case 8: j = build_unzipped(x, entries, 3, k, table); break;
    default: j = build_gathered(x, entries, width, k, table); break;
    }
    for (; j < k; j++) {
        float sum = 0.0f;
        for (uint32_t p = 0; p < width; p++) sum = fmaf(x[p], entries[j * width + p], sum);
        table[j] = sum;
    }
}

/* ---- 16 rows of x at a time: an entry is a row of 16 ---- */

static void QEM_SIMD(build_table16)(const float *x16, const float *entries, uint32_t width, size_t k, float *table)
{
    for (size_t j = 0; j < k; j++) {
        lanes16 sum = lanes16_zero();
        for (uint32_t p = 0; p < width; p++) {
            lanes16 entry;
            EACH_PART entry.part[part] = vf_set1(entries[j * width + p]);
            sum = lanes16_fmadd(lanes16_load(x16 + p * 16), entry, sum);
        }
        lanes16_store(table + j * 16, sum);
    }
}

#define ROWS_AHEAD 16

/* Eight codes from code g on, a multiple of 8. */
QEM_INLINE size_t code_of(const uint8_t *codes, uint64_t word, size_t g, size_t i, uint32_t bits)
{
    uint32_t code;
    if (bits < 32) return (size_t)(word >> (i * bits)) & ((1u << bits) - 1u);
    memcpy(&code, codes + (g + i) * 4, sizeof code);
    return code;
}

QEM_INLINE lanes16 block16(const float *tables, size_t ld, const uint8_t *codes, size_t groups, const uint32_t bits)
{
    lanes16 lane[QEM_TABLE_LANES];
    QEM_UNROLL
    for (int l = 0; l < QEM_TABLE_LANES; l++) lane[l] = lanes16_zero();
    for (size_t g = 0; g < groups; g += 8) {
        uint64_t word = 0;
        if (bits < 32) memcpy(&word, codes + g / 8 * bits, sizeof word);
        QEM_UNROLL
        for (size_t i = 0; i < 8; i++) {
            if (g + i < groups) {
                const float *entry = tables + ((g + i) * ld + code_of(codes, word, g, i, bits)) * 16;
                lane[i % QEM_TABLE_LANES] = lanes16_add(lane[i % QEM_TABLE_LANES], lanes16_load(entry));
            }
        }
    }
    return lanes16_add(lanes16_add(lane[0], lane[2]), lanes16_add(lane[1], lane[3]));
}

QEM_INLINE void rows16(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, const uint32_t bits,
                       size_t rows, size_t groups, float *totals)
{
    for (size_t r = 0; r < rows; r++, codes += row_bytes, totals += 16) {
        lanes16 total = lanes16_load(totals);
        if (r + ROWS_AHEAD < rows) _mm_prefetch((const char *)codes + ROWS_AHEAD * row_bytes, _MM_HINT_T0);
        for (size_t g = 0; g < groups; g += QEM_TABLE_BLOCK) {
            const size_t left = groups - g;
            const float *first = tables + g * ld * 16;
            const uint8_t *from = codes + g / 8 * bits;
            total = lanes16_add(total, left < QEM_TABLE_BLOCK ? block16(first, ld, from, left, bits)
                                                              : block16(first, ld, from, QEM_TABLE_BLOCK, bits));
        }
        lanes16_store(totals, total);
    }
}

static void QEM_SIMD(table_sums16)(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits,
                                   size_t rows, size_t groups, float *totals)
{
    switch (bits) {
    case 4: rows16(tables, ld, codes, row_bytes, 4, rows, groups, totals); break;
    case 8: rows16(tables, ld, codes, row_bytes, 8, rows, groups, totals); break;
    case 32: rows16(tables, ld, codes, row_bytes, 32, rows, groups, totals); break;
    default: rows16(tables, ld, codes, row_bytes, bits, rows, groups, totals); break;
    }
}
