/* Where the levels of lloydmax start. */
#include "lloydmax.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../core/ordered_key.h"

#define BINS 65536
#define MOST_DP_LEVELS 256
#define MOST_EXACT_VALUES 8192 /* distinct values that stand for themselves in the start */

/* The occupied bins, relative to the mean: where each stands, its width, and prefix sums of count, count*x and count*x^2.
 * Weights take the place of counts where there are any. */
typedef struct histogram {
    uint64_t bins;
    int values;                     /* 1: each bin is one value */
    double *at, *width;             /* [bins] */
    double *count, *first, *second; /* prefix sums, [bins + 1] */
} histogram;

static double key_value(uint32_t key)
{
    const float x = qem_from_ordered_key(key);
    if (isfinite(x)) return x;
    return key >> 31 ? FLT_MAX : -FLT_MAX;
}

static void add_bin(histogram *h, double at, double width, double n)
{
    const uint64_t i = h->bins++;
    h->at[i] = at;
    h->width[i] = width;
    h->count[i + 1] = h->count[i] + n;
    h->first[i + 1] = h->first[i] + n * at;
    h->second[i + 1] = h->second[i] + n * at * at;
}

static qem_status make_histogram(qem_context *context, uint64_t most, histogram *h)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, most + 1, 5 * sizeof(double), &memory));
    h->bins = 0;
    h->values = 0;
    h->at = memory;
    h->width = h->at + most + 1;
    h->count = h->width + most + 1;
    h->first = h->count + most + 1;
    h->second = h->first + most + 1;
    return QEM_OK;
}

/* ---- start by dynamic programming ---- */

/* Squared error of bins i .. j-1 about their mean. */
static double interval_cost(const histogram *h, uint64_t i, uint64_t j)
{
    const double n = h->count[j] - h->count[i], s = h->first[j] - h->first[i], q = h->second[j] - h->second[i];
    const double cost = q - s * s / n;
    return cost > 0.0 ? cost : 0.0;
}

typedef struct dp_row {
    const histogram *h;
    const double *before; /* before[j]: least cost of the first j bins with one level less */
    double *now;
    uint16_t *cut;        /* where the last interval begins */
    uint32_t least;       /* intervals before: no fewer bins can be used */
} dp_row;

/* now[j] for j in low .. high; the best cut grows with j, so it is searched between those of the neighbours. */
static void solve(const dp_row *row, uint32_t low, uint32_t high, uint32_t cut_low, uint32_t cut_high)
{
    const uint32_t j = low + (high - low) / 2;
    double best = INFINITY;
    uint32_t best_cut = cut_low;
    const uint32_t last = cut_high < j - 1 ? cut_high : j - 1;
    for (uint32_t i = cut_low > row->least ? cut_low : row->least; i <= last; i++) {
        const double cost = row->before[i] + interval_cost(row->h, i, j);
        if (cost < best) {
            best = cost;
            best_cut = i;
        }
    }
    row->now[j] = best;
    row->cut[j] = (uint16_t)best_cut;
    if (j > low) solve(row, low, j - 1, cut_low, best_cut);
    if (j < high) solve(row, j + 1, high, best_cut, cut_high);
}

/* The means of the k intervals of least cost; k <= bins. */
static qem_status start_by_dp(qem_context *context, const histogram *h, uint32_t k, double *levels)
{
    void *memory;
    const uint64_t width = (uint64_t)h->bins + 1;
    QEM_TRY(qem_allocate(context, width, 2 * sizeof(double) + k * sizeof(uint16_t), &memory));
    double *before = memory, *now = before + width;
    uint16_t *cuts = (uint16_t *)(now + width);
    for (uint32_t j = 1; j <= h->bins; j++) before[j] = interval_cost(h, 0, j);
    before[0] = 0.0;
    for (uint32_t level = 1; level < k; level++) {
        const dp_row row = { h, before, now, cuts + level * width, level };
        solve(&row, level + 1, h->bins, level, h->bins - 1);
        double *swap = before;
        before = now;
        now = swap;
    }
    uint32_t end = h->bins;
    for (uint32_t level = k; level-- > 0;) {
        const uint32_t begin = level ? cuts[level * width + end] : 0;
        levels[level] = (h->first[end] - h->first[begin]) / (h->count[end] - h->count[begin]);
        end = begin;
    }
    qem_release(context, memory);
    return QEM_OK;
}

/* ---- start by companding ---- */

/* x^(1/3) for x > 0 by Newton's iteration: IEEE operations only, so that libraries of mathematics make no difference. */
static double cube_root(double x)
{
    int exponent;
    double m = frexp(x, &exponent);
    while (exponent % 3) {
        m *= 0.5;
        exponent++;
    }
    double y = 0.5 * m + 0.5; /* m lies in [1/8, 1) */
    for (int i = 0; i < 8; i++) y = (2.0 * y + m / (y * y)) / 3.0;
    return ldexp(y, exponent / 3);
}

/* Levels at the middle of k equal parts of the integral of density^(1/3). */
static void start_by_density(const histogram *h, uint64_t k, double *levels)
{
    double total = 0.0;
    for (uint64_t b = 0; b < h->bins; b++) total += cube_root((h->count[b + 1] - h->count[b]) * h->width[b] * h->width[b]);
    double sum = 0.0;
    uint64_t j = 0;
    for (uint64_t b = 0; b < h->bins; b++) {
        const double weight = cube_root((h->count[b + 1] - h->count[b]) * h->width[b] * h->width[b]);
        for (; j < k && ((double)j + 0.5) * total / (double)k <= sum + weight; j++)
            levels[j] = h->at[b] + h->width[b] * ((((double)j + 0.5) * total / (double)k - sum) / weight - 0.5);
        sum += weight;
    }
    for (; j < k; j++) levels[j] = h->at[h->bins - 1]; /* what rounding left over */
}

/* ---- bins ---- */

static qem_status start_from(qem_fit *fit, const histogram *h, double *levels)
{
    if (fit->k == h->bins || (fit->k > h->bins && h->values)) { /* more levels than values that count: the rest repeats the last */
        for (uint64_t j = 0; j < fit->k; j++) levels[j] = h->at[j < h->bins ? j : h->bins - 1];
        return QEM_OK;
    }
    if (fit->k <= MOST_DP_LEVELS && fit->k < h->bins) return start_by_dp(fit->context, h, (uint32_t)fit->k, levels);
    start_by_density(h, fit->k, levels);
    return QEM_OK;
}

/* Bins by the top 16 bits of x - center. */
static qem_status bin_by_key(qem_fit *fit, const qem_scalar_weights *weights, histogram *h)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, BINS, sizeof(uint64_t), &memory));
    const uint64_t *counts = memory;
    const qem_backend *backend = fit->backend;
    const qem_status status =
        weights->weight ? backend->scalar_weighted_histogram(fit->context, fit->points.x, weights->weight, fit->point_count,
                                                             weights->center, weights->shift, memory)
                        : backend->scalar_histogram(fit->context, fit->points.x, fit->point_count, weights->center, memory);
    for (uint32_t b = 0; b < BINS && status == QEM_OK; b++) {
        const double low = key_value(b << 16), high = key_value(b << 16 | 0xffffu);
        if (counts[b])
            add_bin(h, 0.5 * (low + high), high - low > DBL_MIN ? high - low : DBL_MIN, (double)counts[b] * weights->unit);
    }
    qem_release(fit->context, memory);
    return status;
}

/* Weights of the distinct values instead of their counts. */
static qem_status weigh_values(qem_fit *fit, const qem_scalar_weights *weights, const float *values, uint64_t found,
                               uint64_t *counts)
{
    void *sums;
    QEM_TRY(qem_allocate(fit->context, found, sizeof(int64_t), &sums));
    const qem_status status =
        fit->backend->scalar_weighted_step(fit->context, fit->points.x, weights->weight, fit->point_count, values + 1, found,
                                           weights->center, weights->shift, weights->sum_shift, counts, sums);
    qem_release(fit->context, sums);
    return status;
}

/* A bin for each distinct value, if there are few; its width reaches half-way to its neighbours. Values without weight are left
 * out unless there is a level for every value. */
static qem_status bin_by_value(qem_fit *fit, const qem_scalar_weights *weights, uint64_t limit, histogram *h)
{
    void *memory;
    uint64_t found = 0;
    QEM_TRY(qem_allocate(fit->context, limit, sizeof(float) + sizeof(uint64_t), &memory));
    uint64_t *counts = memory;
    float *values = (float *)(counts + limit);
    qem_status status =
        fit->backend->distinct_values(fit->context, fit->points.x, fit->point_count, limit, values, counts, &found);
    h->values = found <= limit;
    if (status == QEM_OK && h->values && weights->weight) status = weigh_values(fit, weights, values, found, counts);
    for (uint64_t i = 0; i < found && h->values && status == QEM_OK; i++) {
        const double low = values[i > 0 ? i - 1 : 0], high = values[i + 1 < found ? i + 1 : i];
        if (counts[i] || found <= fit->k)
            add_bin(h, (double)values[i] - weights->center, high > low ? 0.5 * (high - low) : DBL_MIN,
                    (double)counts[i] * weights->unit);
    }
    qem_release(fit->context, memory);
    return status;
}

qem_status qem_lloydmax_start(qem_fit *fit, const qem_scalar_weights *weights, double *levels, int *exact)
{
    const uint64_t limit = fit->k > MOST_EXACT_VALUES ? fit->k : MOST_EXACT_VALUES;
    histogram h;
    QEM_TRY(make_histogram(fit->context, limit > BINS ? limit : BINS, &h));
    qem_status status = bin_by_value(fit, weights, limit, &h);
    if (status == QEM_OK && !h.values) status = bin_by_key(fit, weights, &h);
    if (status == QEM_OK) status = start_from(fit, &h, levels);
    *exact = h.values && fit->k >= h.bins;
    qem_release(fit->context, h.at);
    return status;
}
