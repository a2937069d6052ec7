/* scale_errors() for one instruction set: lanes are candidates, so that each sum runs over the elements in their order. */
#include "kernels.h"
#include "simd_kernels.h"

#define BATCH 4 /* vectors of candidates whose searches run side by side */

typedef struct level_search {
    uint32_t half; /* of the table */
    const float *thresholds, *levels;
    vtable16 threshold_table, level_table;
} level_search;

/* `small`: at most 16 levels, which are looked up in registers. */
QEM_INLINE vf threshold_at(const level_search *search, vi index, int small)
{
    return small ? vtable16_lookup(search->threshold_table, index) : vf_gather(search->thresholds, index);
}

QEM_INLINE vf level_at(const level_search *search, vi index, int small)
{
    return small ? vtable16_lookup(search->level_table, index) : vf_gather(search->levels, index);
}

QEM_INLINE void search_batch(const level_search *search, const float *x, const float *weight, size_t n, const float *scale,
                             const float *inverse, float *sums, int vectors, int small)
{
    const vf zero = vf_set1(0.0f);
    vf sum[BATCH], factor[BATCH];
    for (int v = 0; v < vectors; v++) sum[v] = zero, factor[v] = vf_load(inverse + v * LANES);
    for (size_t i = 0; i < n; i++) {
        const vf value = vf_set1(x[i]), importance = vf_set1(weight ? weight[i] : 1.0f);
        vf z[BATCH];
        vi index[BATCH];
        QEM_UNROLL
        for (int v = 0; v < vectors; v++) {
            z[v] = vf_fmadd(value, factor[v], zero);
            index[v] = vi_set1(0);
        }
        for (uint32_t half = search->half; half > 0; half >>= 1) {
            const vi step = vi_set1(half);
            QEM_UNROLL
            for (int v = 0; v < vectors; v++) {
                const vm above = vf_le(threshold_at(search, vi_add(index[v], step), small), z[v]);
                index[v] = vi_add_where(above, index[v], step);
            }
        }
        QEM_UNROLL
        for (int v = 0; v < vectors; v++) {
            const vf e = vf_fnmadd(level_at(search, index[v], small), vf_load(scale + v * LANES), value);
            sum[v] = vf_fmadd(vf_fmadd(importance, e, zero), e, sum[v]);
        }
    }
    for (int v = 0; v < vectors; v++) vf_store(sums + v * LANES, sum[v]);
}

QEM_INLINE void search_all(const level_search *search, const float *x, const float *weight, size_t n, const float *scale,
                           const float *inverse, size_t count, float *sums, int small)
{
    size_t c = 0;
    for (; c + BATCH * LANES <= count; c += BATCH * LANES)
        search_batch(search, x, weight, n, scale + c, inverse + c, sums + c, BATCH, small);
    for (; c < count; c += LANES) search_batch(search, x, weight, n, scale + c, inverse + c, sums + c, 1, small);
}

void QEM_SIMD(scale_errors)(const qem_level_table *table, const float *x, const float *weight, size_t n, const float *scale,
                            const float *inverse, size_t count, float *sums)
{
    level_search search;
    search.half = table->size / 2;
    search.thresholds = table->threshold;
    search.levels = table->level;
    search.threshold_table = vtable16_load(table->threshold);
    search.level_table = vtable16_load(table->level);
    if (table->size <= QEM_LEVEL_PAD)
        search_all(&search, x, weight, n, scale, inverse, count, sums, 1);
    else
        search_all(&search, x, weight, n, scale, inverse, count, sums, 0);
}
