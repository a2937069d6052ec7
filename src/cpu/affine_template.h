/*
 * affine() for one instruction set. Each element is one fma; what differs is how the scales and means of a vector come to its
 * lanes: one for all, side by side, two halves, or looked up lane by lane.
 */
#include "kernels.h"
#include "simd_kernels.h"

/* The scales or the means of a tile, or the number that stands for those that are not there. */
typedef struct operand {
    const float *at; /* NULL: `missing` in every lane */
    float missing;
} operand;

QEM_INLINE float one_of(operand o, size_t unit) { return o.at ? o.at[unit] : o.missing; }
QEM_INLINE vf same_of(operand o, size_t unit) { return vf_set1(one_of(o, unit)); }
QEM_INLINE vf run_of(operand o, size_t unit) { return o.at ? vf_load(o.at + unit) : vf_set1(o.missing); }
QEM_INLINE vf pair_of(operand o, size_t unit) { return o.at ? vf_halves(o.at + unit) : vf_set1(o.missing); }
QEM_INLINE vf each_of(operand o, vi unit) { return o.at ? vf_gather(o.at, unit) : vf_set1(o.missing); }

QEM_INLINE void step(float *x, vf scale, vf mean)
{
    vf_store(x, vf_fmadd(vf_load(x), scale, mean));
}

QEM_INLINE void one_unit(float *x, size_t n, operand scale, operand mean, size_t unit)
{
    const vf s = same_of(scale, unit), m = same_of(mean, unit);
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) step(x + j, s, m);
    for (; j < n; j++) x[j] = fmaf(x[j], one_of(scale, unit), one_of(mean, unit));
}

/* Blocks of whole vectors that begin with the row: their number of vectors is a constant where it is common. */
QEM_INLINE size_t whole_blocks(float *x, size_t n, size_t block, operand scale, operand mean)
{
    size_t unit = 0;
    for (; (unit + 1) * block <= n; unit++, x += block) {
        const vf s = same_of(scale, unit), m = same_of(mean, unit);
        for (size_t j = 0; j < block; j += LANES) step(x + j, s, m);
    }
    return unit;
}

QEM_INLINE void blocks(float *x, size_t n, size_t block, operand scale, operand mean)
{
    const size_t units = block == LANES       ? whole_blocks(x, n, LANES, scale, mean)
                         : block == 2 * LANES ? whole_blocks(x, n, 2 * LANES, scale, mean)
                         : block == 4 * LANES ? whole_blocks(x, n, 4 * LANES, scale, mean)
                                              : whole_blocks(x, n, block, scale, mean);
    if (units * block < n) one_unit(x + units * block, n - units * block, scale, mean, units);
}

/* A unit for each column. */
QEM_INLINE void columns(float *x, size_t n, operand scale, operand mean)
{
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) step(x + j, run_of(scale, j), run_of(mean, j));
    for (; j < n; j++) x[j] = fmaf(x[j], one_of(scale, j), one_of(mean, j));
}

/* Blocks of half a vector. */
QEM_INLINE void half_blocks(float *x, size_t n, operand scale, operand mean)
{
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) step(x + j, pair_of(scale, j / (LANES / 2)), pair_of(mean, j / (LANES / 2)));
    for (; j < n; j++) x[j] = fmaf(x[j], one_of(scale, j / (LANES / 2)), one_of(mean, j / (LANES / 2)));
}

/* Blocks of any size from any place in the first one: each lane counts for itself. */
QEM_INLINE void any_blocks(float *x, size_t n, size_t block, size_t phase, operand scale, operand mean)
{
    uint32_t units[LANES], rests[LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        units[i] = (uint32_t)((phase + i) / block);
        rests[i] = (uint32_t)((phase + i) % block);
    }
    const vi most = vi_set1((uint32_t)block - 1), whole = vi_set1((uint32_t)(LANES / block)), one = vi_set1(1);
    const vi less = vi_set1(0u - (uint32_t)block), more = vi_set1((uint32_t)(LANES % block));
    vi unit = vi_load(units), rest = vi_load(rests);
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        step(x + j, each_of(scale, unit), each_of(mean, unit));
        unit = vi_add(unit, whole);
        rest = vi_add(rest, more);
        const vm over = vi_gt(rest, most);
        unit = vi_add_where(over, unit, one);
        rest = vi_add_where(over, rest, less);
    }
    for (; j < n; j++) {
        const size_t u = (phase + j) / block;
        x[j] = fmaf(x[j], one_of(scale, u), one_of(mean, u));
    }
}

/* A block that was begun: up to its end. Returns how many elements. */
QEM_INLINE size_t begun_block(float *x, size_t n, size_t block, size_t phase, operand scale, operand mean)
{
    const size_t left = block - phase < n ? block - phase : n;
    one_unit(x, left, scale, mean, 0);
    return left;
}

QEM_INLINE operand from(operand o, size_t unit)
{
    if (o.at) o.at += unit;
    return o;
}

QEM_INLINE void affine_row(const qem_affine_tile *tile, float *x, operand scale, operand mean)
{
    size_t n = tile->width;
    if (tile->block == 0 || tile->block - tile->phase >= n) {
        one_unit(x, n, scale, mean, 0);
    } else if (tile->block == 1) {
        columns(x, n, scale, mean);
    } else if (tile->block % LANES == 0 || tile->block == LANES / 2) {
        if (tile->phase) {
            const size_t begun = begun_block(x, n, tile->block, tile->phase, scale, mean);
            x += begun;
            n -= begun;
            scale = from(scale, 1);
            mean = from(mean, 1);
        }
        if (tile->block == LANES / 2)
            half_blocks(x, n, scale, mean);
        else
            blocks(x, n, tile->block, scale, mean);
    } else {
        any_blocks(x, n, tile->block, tile->phase, scale, mean);
    }
}

QEM_INLINE void affine_rows(const qem_affine_tile *tile, operand scale, operand mean)
{
    for (size_t row = 0; row < tile->rows; row++)
        affine_row(tile, tile->x + row * tile->stride, from(scale, row * tile->unit_stride), from(mean, row * tile->unit_stride));
}

void QEM_SIMD(affine)(const qem_affine_tile *tile)
{
    const operand scale = { tile->scale, 1.0f }, mean = { tile->mean, 0.0f };
    const operand no_scale = { NULL, 1.0f }, no_mean = { NULL, 0.0f };
    if (!tile->mean)
        affine_rows(tile, scale, no_mean);
    else if (!tile->scale)
        affine_rows(tile, no_scale, mean);
    else
        affine_rows(tile, scale, mean);
}
