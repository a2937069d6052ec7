/* seed_tiles() and nearest_tiles() for one instruction set: the pruned forms of seed_step() and nearest(). */
#include "kernels.h"
#include "simd_kernels.h"
#include "tiles.h"

#define SUPERS_AT_ONCE 256 /* super-tiles that the seeding looks through before it goes into those that are near */

/* Squared distance from a box (broadcast, or one a lane) to a vector of boxes: 0 where they touch. */
QEM_INLINE vf box_gap(uint32_t dim, const vf *low, const vf *high, const float *box_low, const float *box_high, size_t ld)
{
    vf s = vf_set1(0.0f);
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) {
        const vf below = vf_sub(vf_load(box_low + p * ld), high[p]), above = vf_sub(low[p], vf_load(box_high + p * ld));
        const vf d = vf_max(vf_max(below, above), vf_set1(0.0f));
        s = vf_fmadd(d, d, s);
    }
    return s;
}

/* ---- seeding ---- */

typedef struct seed_args {
    const qem_tiles *tiles;
    const float *x;
    size_t ld;
    uint32_t dim, label;
    float *d2;
    uint32_t *labels;
    const uint32_t *order;
    qem_seed_sums *sums;
} seed_args;

/* Products of two floats and a power of two are exact in double. */
QEM_INLINE void weigh(const seed_args *a, size_t first, const float *d2, int64_t *sums)
{
    const float *weight = a->tiles->weight + first;
    for (size_t i = 0; i < LANES; i++) sums[i] = llrint((double)d2[i] * (double)weight[i] * a->sums->scale);
}

/* The sums of D^2 go by the points' former places, so that the draw does not depend on the order of the tiles. */
QEM_INLINE void move_sums(const seed_args *a, size_t first, uint32_t bits, const float *before, const float *after)
{
    int64_t old[LANES], now[LANES];
    const vd8 scale = vd8_set1(a->sums->scale);
    int64_t total = 0;
    if (a->tiles->weight) {
        weigh(a, first, before, old);
        weigh(a, first, after, now);
    } else {
        QEM_UNROLL
        for (size_t i = 0; i < LANES; i += 8) {
            vd8_store_scaled(old + i, before + i, scale);
            vd8_store_scaled(now + i, after + i, scale);
        }
    }
    for (; bits; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        const size_t block = a->order[first + (size_t)lane] / QEM_SEED_BLOCK;
        const int64_t change = now[lane] - old[lane];
        a->sums->block[block] += change;
        a->sums->run[block / QEM_SEED_RUN] += change;
        total += change;
    }
    a->sums->total += total;
}

QEM_INLINE void seed_tile(const seed_args *a, uint32_t dim, size_t tile, const vf *center)
{
    const size_t first = tile * LANES;
    float before[LANES];
    vf t = vf_set1(0.0f);
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) {
        const vf d = vf_sub(vf_load(a->x + p * a->ld + first), center[p]);
        t = vf_fmadd(d, d, t);
    }
    const vf old = vf_load(a->d2 + first);
    const vm nearer = vf_lt(t, old);
    const uint32_t bits = vm_bits(nearer);
    if (!bits) return;
    const vf now = vf_select(nearer, t, old);
    vf_store(before, old);
    vf_store(a->d2 + first, now);
    vi_store(a->labels + first, vi_select(nearer, vi_set1(a->label), vi_load(a->labels + first)));
    a->tiles->most[tile] = vf_reduce_max(now);
    move_sums(a, first, bits, before, a->d2 + first);
}

/* The tiles of super-tile s that the centre may be nearer to than what their points have. */
QEM_INLINE void seed_super(const seed_args *a, uint32_t dim, size_t super, const vf *center)
{
    const qem_tiles *tiles = a->tiles;
    const size_t base = super * LANES;
    const vf gap = box_gap(dim, center, center, tiles->box.low + base, tiles->box.high + base, tiles->box.ld);
    uint32_t bits = vm_bits(vf_lt(gap, vf_load(tiles->most + base)));
    for (; bits; bits &= bits - 1) seed_tile(a, dim, base + (size_t)__builtin_ctz(bits), center);
    tiles->super_most[super] = vf_reduce_max(vf_load(tiles->most + base));
}

QEM_INLINE float seed_tiles(const seed_args *a, uint32_t dim, const float *center_of)
{
    const qem_tiles *tiles = a->tiles;
    uint32_t supers[SUPERS_AT_ONCE + LANES];
    vf center[QEM_MOST_PRUNED_DIM], largest = vf_set1(0.0f);
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) center[p] = vf_set1(center_of[p]);
    for (size_t begin = 0; begin < tiles->box.super_ld; begin += SUPERS_AT_ONCE) {
        const size_t end = begin + SUPERS_AT_ONCE < tiles->box.super_ld ? begin + SUPERS_AT_ONCE : tiles->box.super_ld;
        size_t count = 0;
        for (size_t s = begin; s < end; s += LANES) {
            const vf gap = box_gap(dim, center, center, tiles->box.super_low + s, tiles->box.super_high + s, tiles->box.super_ld);
            const vm near = vf_lt(gap, vf_load(tiles->super_most + s));
            count += vi_compress_store(supers + count, near, vi_add(vi_set1((uint32_t)s), vi_iota()));
        }
        for (size_t i = 0; i < count; i++) seed_super(a, dim, supers[i], center);
        for (size_t s = begin; s < end; s += LANES) largest = vf_max(vf_load(tiles->super_most + s), largest);
    }
    return vf_reduce_max(largest);
}

float QEM_SIMD(seed_tiles)(const qem_tiles *tiles, const float *x, size_t ld, uint32_t dim, const float *center, uint32_t label,
                           float *d2, uint32_t *labels, const uint32_t *order, qem_seed_sums *sums)
{
    const seed_args a = { tiles, x, ld, dim, label, d2, labels, order, sums };
    switch (dim) {
    case 1: return seed_tiles(&a, 1, center);
    case 2: return seed_tiles(&a, 2, center);
    case 3: return seed_tiles(&a, 3, center);
    case 4: return seed_tiles(&a, 4, center);
    case 5: return seed_tiles(&a, 5, center);
    case 6: return seed_tiles(&a, 6, center);
    case 7: return seed_tiles(&a, 7, center);
    default: return seed_tiles(&a, 8, center);
    }
}

/* ---- assignment ---- */

/* The first of `count` boxes (a multiple of LANES) that is nearest to a point. */
QEM_INLINE size_t nearest_box(uint32_t dim, const vf *x, const float *low, const float *high, size_t ld, size_t count)
{
    vf best = vf_set1(INFINITY);
    vi place = vi_set1(0);
    for (size_t i = 0; i < count; i += LANES) {
        const vf gap = box_gap(dim, x, x, low + i, high + i, ld);
        place = vi_select(vf_lt(gap, best), vi_add(vi_set1((uint32_t)i), vi_iota()), place);
        best = vf_min(gap, best);
    }
    uint32_t places[LANES];
    vi_store(places, place);
    return places[__builtin_ctz(vm_bits(vf_eq(best, vf_set1(vf_reduce_min(best)))))];
}

/* From the nearest super-block to its nearest block to its nearest centroid: any centroid will do, a near one saves work. */
QEM_INLINE void near_tiles(const qem_centroid_tree *tree, const qem_tiles *tiles, uint32_t dim, size_t count, uint32_t *previous)
{
    for (size_t tile = 0; tile < count; tile++) {
        vf x[QEM_MOST_PRUNED_DIM];
        QEM_UNROLL
        for (uint32_t p = 0; p < dim; p++) {
            const size_t at = p * tiles->box.ld + tile;
            x[p] = vf_set1(0.5f * tiles->box.low[at] + 0.5f * tiles->box.high[at]);
        }
        size_t at = nearest_box(dim, x, tree->box.super_low, tree->box.super_high, tree->box.super_ld, tree->box.super_ld) * LANES;
        at = (at + nearest_box(dim, x, tree->box.low + at, tree->box.high + at, tree->box.ld, LANES)) * LANES;
        at += nearest_box(dim, x, tree->c + at, tree->c + at, tree->ld, LANES);
        vi_store(previous + tile * LANES, vi_set1(tree->index[at]));
    }
}

void QEM_SIMD(near_tiles)(const qem_centroid_tree *tree, const qem_tiles *tiles, uint32_t dim, size_t count, uint32_t *previous)
{
    switch (dim) {
    case 1: near_tiles(tree, tiles, 1, count, previous); break;
    case 2: near_tiles(tree, tiles, 2, count, previous); break;
    case 3: near_tiles(tree, tiles, 3, count, previous); break;
    case 4: near_tiles(tree, tiles, 4, count, previous); break;
    case 5: near_tiles(tree, tiles, 5, count, previous); break;
    case 6: near_tiles(tree, tiles, 6, count, previous); break;
    case 7: near_tiles(tree, tiles, 7, count, previous); break;
    default: near_tiles(tree, tiles, 8, count, previous); break;
    }
}

typedef struct tile_args {
    const qem_centroid_tree *tree;
    const qem_tiles *tiles;
    const float *x, *c;
    size_t ld, ldc;
    const uint32_t *previous;
    uint32_t *labels, *candidates;
} tile_args;

/*
 * Squared reach of a tile: a centroid farther than it from the tile's box has a computed score above that of the centroid
 * each point had before. With g = (dim + 8) * 2^-22, far above the rounding of any chain here: the scores of centroids at
 * d_j and d_own differ by half of d_j^2 - d_own^2, each with an error of at most g/2 * (|x|^2 + d^2), and TINY where those
 * are denormal.
 */
#define TINY 1e-36f

QEM_INLINE float reach_of(const tile_args *a, uint32_t dim, size_t tile, const vf *x)
{
    const vi own = vi_load(a->previous + tile * LANES);
    vf s = vf_set1(0.0f);
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) {
        const vf d = vf_sub(x[p], vf_gather(a->c + p * a->ldc, own));
        s = vf_fmadd(d, d, s);
    }
    const float g = (float)(dim + 8) * 2.3841858e-7f;
    return vf_reduce_max(s) * (1.0f + 16.0f * g) + 16.0f * g * a->tiles->square[tile] + TINY;
}

/*
 * Places of the centroids within reach of the tile's box, in three rounds: super-blocks, their blocks, their centroids. What a
 * round leaves goes into a list for the next one, so that no branch depends on a distance.
 */
QEM_INLINE size_t collect(const tile_args *a, uint32_t dim, size_t tile, float reach)
{
    const qem_centroid_tree *tree = a->tree;
    uint32_t *supers = a->candidates + tree->ld + LANES, *blocks = supers + tree->box.super_ld + LANES;
    const vf limit = vf_set1(reach);
    vf low[QEM_MOST_PRUNED_DIM], high[QEM_MOST_PRUNED_DIM];
    size_t super_count = 0, block_count = 0, found = 0;
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) {
        low[p] = vf_set1(a->tiles->box.low[p * a->tiles->box.ld + tile]);
        high[p] = vf_set1(a->tiles->box.high[p * a->tiles->box.ld + tile]);
    }
    for (size_t s = 0; s < tree->box.super_ld; s += LANES) {
        const vf gap = box_gap(dim, low, high, tree->box.super_low + s, tree->box.super_high + s, tree->box.super_ld);
        super_count += vi_compress_store(supers + super_count, vf_le(gap, limit), vi_add(vi_set1((uint32_t)s), vi_iota()));
    }
    for (size_t i = 0; i < super_count; i++) {
        const size_t first = (size_t)supers[i] * LANES;
        const vf gap = box_gap(dim, low, high, tree->box.low + first, tree->box.high + first, tree->box.ld);
        block_count += vi_compress_store(blocks + block_count, vf_le(gap, limit), vi_add(vi_set1((uint32_t)first), vi_iota()));
    }
    for (size_t i = 0; i < block_count; i++) {
        const size_t place = (size_t)blocks[i] * LANES;
        const vf gap = box_gap(dim, low, high, tree->c + place, tree->c + place, tree->ld);
        found += vi_compress_store(a->candidates + found, vf_le(gap, limit), vi_add(vi_set1((uint32_t)place), vi_iota()));
    }
    return found;
}

/* The least score of each lane and its centroid. */
typedef struct best_of {
    vf score;
    vi label;
} best_of;

/* Ties go to the lowest number. */
QEM_INLINE best_of better_of(best_of best, vf score, vi label)
{
    const vm tie = vm_and(vf_eq(score, best.score), vi_gt(best.label, label));
    best.label = vi_select(vm_or(vf_lt(score, best.score), tie), label, best.label);
    best.score = vf_min(score, best.score);
    return best;
}

QEM_INLINE best_of try_candidate(const qem_centroid_tree *tree, uint32_t dim, size_t place, const vf *x, best_of best)
{
    vf score = vf_set1(tree->h[place]);
    QEM_UNROLL
    for (uint32_t p = 0; p < dim; p++) score = vf_fnmadd(x[p], vf_set1(tree->c[p * tree->ld + place]), score);
    return better_of(best, score, vi_set1(tree->index[place]));
}

/* Two candidates at a time, so that one need not wait for the comparison with the other. */
QEM_INLINE void scan(const tile_args *a, uint32_t dim, size_t found, const vf *x, uint32_t *labels)
{
    best_of even = { vf_set1(INFINITY), vi_set1(0x7fffffffu) }, odd = even;
    a->candidates[found] = a->candidates[0]; /* there is one at least: a point's centroid of before */
    for (size_t i = 0; i < found; i += 2) {
        even = try_candidate(a->tree, dim, a->candidates[i], x, even);
        odd = try_candidate(a->tree, dim, a->candidates[i + 1], x, odd);
    }
    vi_store(labels, better_of(even, odd.score, odd.label).label);
}

QEM_INLINE uint64_t nearest_tiles(const tile_args *a, uint32_t dim, size_t first, size_t last, size_t step)
{
    uint64_t total = 0;
    for (size_t tile = first; tile < last; tile += step) {
        vf x[QEM_MOST_PRUNED_DIM];
        QEM_UNROLL
        for (uint32_t p = 0; p < dim; p++) x[p] = vf_load(a->x + p * a->ld + tile * LANES);
        const size_t found = collect(a, dim, tile, reach_of(a, dim, tile, x));
        scan(a, dim, found, x, a->labels + tile * LANES);
        total += found;
    }
    return total;
}

uint64_t QEM_SIMD(nearest_tiles)(const qem_centroid_tree *tree, const qem_tiles *tiles, const float *x, size_t ld, uint32_t dim,
                                 const float *c, size_t ldc, const uint32_t *previous, uint32_t *labels, size_t first,
                                 size_t last, size_t step, uint32_t *candidates)
{
    const tile_args a = { tree, tiles, x, c, ld, ldc, previous, labels, candidates };
    switch (dim) {
    case 1: return nearest_tiles(&a, 1, first, last, step);
    case 2: return nearest_tiles(&a, 2, first, last, step);
    case 3: return nearest_tiles(&a, 3, first, last, step);
    case 4: return nearest_tiles(&a, 4, first, last, step);
    case 5: return nearest_tiles(&a, 5, first, last, step);
    case 6: return nearest_tiles(&a, 6, first, last, step);
    case 7: return nearest_tiles(&a, 7, first, last, step);
    default: return nearest_tiles(&a, 8, first, last, step);
    }
}
