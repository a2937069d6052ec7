/* scalar_codes() and unpack() for one instruction set; the includer sets COUNT_LIMIT, up to which comparisons beat a search. */
#include "kernels.h"
#include "simd_kernels.h"
#include "unpack_template.h"

/*
 * Binary search by descending powers of two: with `base` thresholds known to be <= x, test the last of the next `step`. The
 * first TABLE_LEVELS tests find their thresholds in registers, the rest gathers. A threshold past the end counts as +inf;
 * only an x of +inf reaches those, and the minimum puts it right.
 */
typedef struct threshold_search {
    const float *thresholds;
    size_t count;
    uint32_t levels, table_levels;
    vtable table; /* entry i: threshold (i + 1) * 2^(levels - table_levels) - 1 */
} threshold_search;

static void prepare_search(threshold_search *search, const float *thresholds, size_t count)
{
    float pivots[1 << TABLE_LEVELS];
    search->thresholds = thresholds;
    search->count = count;
    search->levels = 0;
    while (count >> search->levels) search->levels++;
    search->table_levels = search->levels < TABLE_LEVELS ? search->levels : TABLE_LEVELS;
    for (size_t i = 0; i < 1u << TABLE_LEVELS; i++) {
        const size_t at = ((i + 1) << (search->levels - search->table_levels)) - 1;
        pivots[i] = at < count ? thresholds[at] : INFINITY;
    }
    search->table = vtable_load(pivots);
}

/* Elements are taken by BATCH vectors, so that what is the same for all (a step, a threshold) is broadcast once. */
#define BATCH 4

/* base + step where the last of the next `step` thresholds is <= x */
QEM_INLINE void search_batch(const threshold_search *search, const float *x, uint32_t *codes)
{
    const vi count = vi_set1((uint32_t)search->count);
    const uint32_t rest = search->levels - search->table_levels;
    vf value[BATCH];
    vi base[BATCH];
    QEM_UNROLL
    for (int v = 0; v < BATCH; v++) {
        value[v] = vf_load(x + v * LANES);
        base[v] = vi_set1(0);
    }
    for (uint32_t step = 1u << search->table_levels >> 1; step > 0; step >>= 1) {
        QEM_UNROLL
        for (int v = 0; v < BATCH; v++) {
            const vf pivot = vtable_lookup(search->table, vi_add(base[v], vi_set1(step - 1)));
            base[v] = vi_add_where(vf_le(pivot, value[v]), base[v], vi_set1(step));
        }
    }
    QEM_UNROLL
    for (int v = 0; v < BATCH; v++) base[v] = vi_shift_left(base[v], (int)rest);
    for (uint32_t step = 1u << rest >> 1; step > 0; step >>= 1) {
        QEM_UNROLL
        for (int v = 0; v < BATCH; v++) {
            const vi last = vi_add(base[v], vi_set1(step - 1));
            const vf threshold = vf_gather_where(vi_gt(count, last), vf_set1(INFINITY), search->thresholds, last);
            base[v] = vi_add_where(vf_le(threshold, value[v]), base[v], vi_set1(step));
        }
    }
    QEM_UNROLL
    for (int v = 0; v < BATCH; v++) vi_store(codes + v * LANES, vi_min(base[v], count));
}

/* A few thresholds: one comparison each. */
QEM_INLINE void count_batch(const threshold_search *search, const float *x, uint32_t *codes)
{
    vi below[BATCH];
    QEM_UNROLL
    for (int v = 0; v < BATCH; v++) below[v] = vi_set1(0);
    for (size_t t = 0; t < search->count; t++) {
        const vf threshold = vf_set1(search->thresholds[t]);
        QEM_UNROLL
        for (int v = 0; v < BATCH; v++) below[v] = vi_add_where(vf_le(threshold, vf_load(x + v * LANES)), below[v], vi_set1(1));
    }
    QEM_UNROLL
    for (int v = 0; v < BATCH; v++) vi_store(codes + v * LANES, below[v]);
}

QEM_INLINE void code_batch(const threshold_search *search, const float *x, uint32_t *codes)
{
    if (search->count <= COUNT_LIMIT)
        count_batch(search, x, codes);
    else
        search_batch(search, x, codes);
}

void QEM_SIMD(scalar_codes)(const float *x, size_t n, const float *thresholds, size_t threshold_count, uint32_t *codes)
{
    threshold_search search;
    size_t i = 0;
    prepare_search(&search, thresholds, threshold_count);
    for (; i + BATCH * LANES <= n; i += BATCH * LANES) code_batch(&search, x + i, codes + i);
    if (i < n) {
        float last[BATCH * LANES] = { 0 };
        uint32_t last_codes[BATCH * LANES];
        memcpy(last, x + i, (n - i) * sizeof *x);
        code_batch(&search, last, last_codes);
        memcpy(codes + i, last_codes, (n - i) * sizeof *codes);
    }
}

static void unpack_rest(const uint8_t *stream, uint64_t first_bit, size_t n, uint32_t bits, uint32_t *codes)
{
    for (size_t i = 0; i < n; i++) {
        const uint64_t bit = first_bit + (uint64_t)i * bits;
        uint32_t word;
        memcpy(&word, stream + bit / 8, sizeof word);
        codes[i] = (word >> (bit % 8)) & ((1u << bits) - 1u);
    }
}

void QEM_SIMD(unpack)(const uint8_t *stream, uint64_t first_bit, size_t n, uint32_t bits, uint32_t *codes)
{
    unpack_plan plan;
    if (n == 0) return; /* the pointers may be NULL then */
    const uint8_t *from = stream + first_bit / 8;
    const size_t whole = n / LANES * LANES;
    plan_unpack(&plan, first_bit % 8, bits);
    for (size_t i = 0; i < whole; i += LANES) {
        vi_store(codes + i, unpack_vector(&plan, from));
        from += LANES / 8 * bits;
    }
    unpack_rest(from, first_bit % 8, n - whole, bits, codes + whole);
}
