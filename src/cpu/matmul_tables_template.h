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
    size_t j = 0;
    for (; j + LANES <= k; j += LANES) {
        vf c[WIDEST_UNZIPPED], sum = vf_set1(0.0f);
        load_components(entries + (j << steps), steps, c);
        QEM_UNROLL
        for (int p = 0; p < 1 << steps; p++) sum = vf_fmadd(vf_set1(x[p]), c[place[steps][p]], sum);
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

/* LANES codes from code g on, a multiple of LANES. */
QEM_INLINE vi codes_at(const uint8_t *codes, size_t g, uint32_t bits, vi shift, vi mask, const int form)
{
    if (form == 32) return vi_load(codes + g * 4);
    if (form == 8) return vi_load_u8(codes + g);
    return vi_and(vi_shift_right_each(vi_spread(codes + g / 8 * bits, bits), shift), mask);
}

QEM_INLINE void sums_of_row(const float *tables, const uint32_t ld, const uint8_t *codes, uint32_t bits, vi shift, vi mask,
                            size_t groups, float *lanes, const int form)
{
    lanes16 sum = lanes16_load(lanes);
    const vi lane = vi_multiply(vi_iota(), vi_set1(ld));
    size_t g = 0;
    for (; g + QEM_SUM_LANES <= groups; g += QEM_SUM_LANES) {
        EACH_PART
        {
            const size_t at = g + (size_t)part * LANES;
            const vi index = vi_add(codes_at(codes, at, bits, shift, mask, form), lane);
            sum.part[part] = vf_add(sum.part[part], vf_gather(tables + at * ld, index));
        }
    }
    if (g < groups)
        EACH_PART
        {
            const size_t at = g + (size_t)part * LANES, count = first_of_part(groups - g, part);
            if (count == 0) break;
            const vm there = vm_first(count);
            const vi index = vi_add(codes_at(codes, at, bits, shift, mask, form), lane);
            const vf entry = vf_gather_where(there, vf_set1(0.0f), tables + at * ld, index);
            sum.part[part] = vf_select(there, vf_add(sum.part[part], entry), sum.part[part]);
        }
    lanes16_store(lanes, sum);
}

#define SUMS_OF_ROWS(form)                                                                                                \
    for (size_t r = 0; r < rows; r++)                                                                                     \
        sums_of_row(tables, (uint32_t)ld, codes + r * row_bytes, bits, shift, mask, groups, lanes + r * QEM_SUM_LANES, form)

static void QEM_SIMD(table_sums)(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                          size_t groups, float *lanes)
{
    uint32_t shifts[LANES];
    for (uint32_t lane = 0; lane < LANES; lane++) shifts[lane] = lane % 8 * bits;
    const vi shift = vi_load(shifts), mask = vi_set1(bits < 32 ? (1u << bits) - 1u : UINT32_MAX);
    if (bits == 8)
        SUMS_OF_ROWS(8);
    else if (bits == 32)
        SUMS_OF_ROWS(32);
    else
        SUMS_OF_ROWS(0);
}

static void QEM_SIMD(add_lanes)(const float *lanes, size_t rows, float *totals)
{
    for (size_t r = 0; r < rows; r += 4) {
        const size_t count = rows - r < 4 ? rows - r : 4;
        lanes16 a[4];
        float sums[4];
        for (size_t i = 0; i < 4; i++) a[i] = lanes16_load(lanes + (r + (i < count ? i : 0)) * QEM_SUM_LANES);
        _mm_storeu_ps(sums, lanes16_sum4(a[0], a[1], a[2], a[3]));
        for (size_t i = 0; i < count; i++) totals[r + i] += sums[i];
    }
}
