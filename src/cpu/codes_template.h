/* scalar_codes() and unpack() for one instruction set; the includer sets COUNT_LIMIT, up to which comparisons beat a search. */
#include "kernels.h"
#include "simd_kernels.h"

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

/*
 * Four codes of at most 24 bits, wherever they start in a byte, lie in 13 bytes: each 16-byte quarter of a vector is loaded
 * from the byte of its first code, a byte shuffle brings the 4 bytes of each code to its lane, and shifts do the rest. LANES
 * codes are a whole number of bytes, so shuffle and shifts are the same for every vector. A quarter starts at a byte of the
 * stream and so reads at most 15 bytes past the end.
 */
typedef struct unpack_plan {
    size_t quarter[LANES / 4];
    vi shuffle, shift, mask;
} unpack_plan;

static void plan_unpack(unpack_plan *plan, uint32_t first_bit, uint32_t bits)
{
    uint8_t shuffle[LANES * 4];
    uint32_t shift[LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        const uint32_t bit = first_bit + i * bits;
        if (i % 4 == 0) plan->quarter[i / 4] = bit / 8;
        for (uint32_t b = 0; b < 4; b++) shuffle[i * 4 + b] = (uint8_t)(bit / 8 - plan->quarter[i / 4] + b);
        shift[i] = bit % 8;
    }
    plan->shuffle = vi_load(shuffle);
    plan->shift = vi_load(shift);
    plan->mask = vi_set1((1u << bits) - 1u);
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
        const vi bytes = vi_shuffle_bytes(vi_load_quarters(from, plan.quarter), plan.shuffle);
        vi_store(codes + i, vi_and(vi_shift_right_each(bytes, plan.shift), plan.mask));
        from += LANES / 8 * bits;
    }
    unpack_rest(from, first_bit % 8, n - whole, bits, codes + whole);
}
