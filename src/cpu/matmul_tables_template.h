/* Tables of partial sums (products.h) for one instruction set. */
#include "products.h"

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
