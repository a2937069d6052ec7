/* kd_split() for one instruction set: one node of the k-d order. */
#include "kernels.h"
#include "simd_kernels.h"

#define SAMPLE 128 /* points whose extents choose the dimension */
#define COUNT_BATCH 4

typedef struct split_args {
    const float *x;
    size_t ld;
    uint32_t dim;
    uint32_t *index;
    size_t n;
    int32_t *keys;    /* [n rounded up to LANES] */
    uint32_t *right;  /* [n rounded up to LANES] */
} split_args;

/* LANES indices from place i on; past the end the last one again. */
QEM_INLINE vi load_index(const split_args *a, size_t i)
{
    uint32_t last[LANES];
    if (i + LANES <= a->n) return vi_load(a->index + i);
    for (size_t lane = 0; lane < LANES; lane++) last[lane] = a->index[i + lane < a->n ? i + lane : a->n - 1];
    return vi_load(last);
}

static uint32_t widest(const split_args *a)
{
    const size_t vectors = (a->n + LANES - 1) / LANES, most = SAMPLE / LANES;
    const size_t step = vectors > most ? vectors / most : 1;
    uint32_t best = 0;
    float best_width = -1.0f;
    for (uint32_t p = 0; p < a->dim; p++) {
        vf low = vf_set1(INFINITY), high = vf_set1(-INFINITY);
        for (size_t v = 0; v < vectors; v += step) {
            const vf x = vf_gather(a->x + p * a->ld, load_index(a, v * LANES));
            low = vf_min(x, low);
            high = vf_max(x, high);
        }
        const float width = vf_reduce_max(high) - vf_reduce_min(low);
        if (width > best_width) {
            best_width = width;
            best = p;
        }
    }
    return best;
}

/* Integers in the order of the floats; past the end the largest. Returns the extremes. */
static void make_keys(const split_args *a, uint32_t p, int32_t *least, int32_t *most)
{
    vi low = vi_set1(0x7fffffffu), high = vi_set1(0x80000000u);
    for (size_t i = 0; i < a->n; i += LANES) {
        const vi bits = vf_bits(vf_gather(a->x + p * a->ld, load_index(a, i)));
        const vi key = vi_xor(bits, vi_shift_right(vi_sign(bits), 1));
        low = vi_min(key, low);
        high = vi_max(key, high);
        vi_store(a->keys + i, key);
    }
    for (size_t i = a->n; i % LANES; i++) a->keys[i] = INT32_MAX;
    *least = vi_reduce_min(low);
    *most = vi_reduce_max(high);
}

/* How many of the keys are above `pivot`; the padding is, or is among those not asked for. */
QEM_INLINE size_t count_above(const int32_t *keys, size_t n, int32_t pivot)
{
    const vi limit = vi_set1((uint32_t)pivot), one = vi_set1(1);
    vi above[COUNT_BATCH];
    size_t i = 0;
    QEM_UNROLL
    for (int v = 0; v < COUNT_BATCH; v++) above[v] = vi_set1(0);
    for (; i + COUNT_BATCH * LANES <= n; i += COUNT_BATCH * LANES) {
        QEM_UNROLL
        for (int v = 0; v < COUNT_BATCH; v++)
            above[v] = vi_add_where(vi_gt(vi_load(keys + i + (size_t)v * LANES), limit), above[v], one);
    }
    for (; i < n; i += LANES) above[0] = vi_add_where(vi_gt(vi_load(keys + i), limit), above[0], one);
    for (int v = 1; v < COUNT_BATCH; v++) above[0] = vi_add(above[0], above[v]);
    return (size_t)vi_reduce_add(above[0]);
}

/*
 * The pivot by bisection: counting keys takes no branches, and any value between the middle two will do. Keys below the
 * result go left, and *equal of those that equal it.
 */
static int64_t find_pivot(const split_args *a, size_t half, int32_t least, int32_t most, size_t *equal)
{
    const size_t padded = (a->n + LANES - 1) / LANES * LANES;
    int64_t low = least, high = most; /* at most `half` keys are below low, at least `half` are at most high */
    size_t below_low = 0;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2; /* < INT32_MAX: the padding is above it */
        const size_t at_most = padded - count_above(a->keys, a->n, (int32_t)middle);
        if (at_most == half) {
            *equal = 0;
            return middle + 1;
        }
        if (at_most < half) {
            low = middle + 1;
            below_low = at_most;
        } else {
            high = middle;
        }
    }
    *equal = half - below_low;
    return low;
}

/* The lowest `wanted` bits that are set. */
QEM_INLINE uint32_t lowest_bits(uint32_t bits, size_t wanted)
{
    uint32_t rest = bits;
    while (wanted-- && rest) rest &= rest - 1;
    return bits & ~rest;
}

static void partition(const split_args *a, size_t half, int64_t pivot, size_t equal)
{
    const vi limit = vi_set1((uint32_t)pivot);
    size_t left = 0, right = 0, i = 0;
    for (; i + LANES <= a->n; i += LANES) {
        const vi key = vi_load(a->keys + i), index = vi_load(a->index + i);
        vm take = vi_gt(limit, key);
        if (equal) {
            const uint32_t ties = lowest_bits(vm_bits(vi_eq(key, limit)), equal);
            equal -= (size_t)__builtin_popcount(ties);
            take = vm_or(take, vm_from_bits(ties));
        }
        left += vi_compress_store(a->index + left, take, index); /* never past what has been read */
        right += vi_compress_store(a->right + right, vm_from_bits(~vm_bits(take) & ((1u << LANES) - 1u)), index);
    }
    for (; i < a->n; i++) {
        const int tie = a->keys[i] == pivot && equal > 0;
        const uint32_t index = a->index[i];
        equal -= (size_t)tie;
        if (a->keys[i] < pivot || tie)
            a->index[left++] = index;
        else
            a->right[right++] = index;
    }
    memcpy(a->index + half, a->right, right * sizeof *a->index);
}

void QEM_SIMD(kd_split)(const float *x, size_t ld, uint32_t dim, uint32_t *index, size_t n, size_t half, uint32_t *scratch)
{
    const size_t padded = (n + LANES - 1) / LANES * LANES;
    const split_args a = { x, ld, dim, index, n, (int32_t *)scratch, scratch + padded };
    int32_t least, most;
    size_t equal;
    make_keys(&a, widest(&a), &least, &most);
    const int64_t pivot = find_pivot(&a, half, least, most, &equal);
    partition(&a, half, pivot, equal);
}
