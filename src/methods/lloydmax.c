/*
 * The scalar codebook of least mean squared error (Lloyd 1982, Max 1960), for the whole tensor. The start comes from the
 * distinct values where they are few, else from a histogram whose bins are fine near the mean and coarse far out: exact
 * dynamic programming on it for up to 256 levels, the high-rate density^(1/3) (Panter and Dite 1951) above. Exact Lloyd
 * passes over all elements follow.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/fixed.h"
#include "../core/half.h"
#include "../core/ordered_key.h"
#include "../core/threshold.h"
#include "registry.h"

#define BINS 65536
#define MOST_DP_LEVELS 256
#define MOST_EXACT_VALUES 8192 /* distinct values that stand for themselves in the start */

static qem_status partition(qem_fit *fit)
{
    uint64_t distinct;
    QEM_TRY(qem_fit_problems(fit, 1));
    fit->problems[0] = (qem_problem){ .step = 1, .count = fit->point_count, .k = fit->k, .width = 1 };
    QEM_TRY(fit->backend->count_distinct(fit->context, fit->points, fit->problems, 1, &distinct));
    fit->k = distinct;
    return QEM_OK;
}

/* The occupied bins, relative to the mean: where each stands, its width, and prefix sums of count, count*x and count*x^2. */
typedef struct histogram {
    uint64_t bins;
    double *at, *width;             /* [bins] */
    double *count, *first, *second; /* prefix sums, [bins + 1] */
} histogram;

static double key_value(uint32_t key)
{
    const float x = qem_from_ordered_key(key);
    if (isfinite(x)) return x;
    return key >> 31 ? FLT_MAX : -FLT_MAX;
}

static void add_bin(histogram *h, double at, double width, uint64_t count)
{
    const uint64_t i = h->bins++;
    const double n = (double)count;
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

/* ---- Lloyd ---- */

typedef struct lloyd_state {
    double center;     /* levels are relative to it */
    int shift;
    double total;      /* sum of (x - center)^2, for the tolerance */
    double low, high;  /* extremes of the data */
    double *levels;    /* [k], ascending */
    float *thresholds; /* [k - 1], absolute */
    uint64_t *counts;
    int64_t *sums;
} lloyd_state;

static int by_value(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

typedef struct candidate {
    double weight; /* count * width^2 */
    double width;
    uint64_t level;
} candidate;

static int by_weight(const void *left, const void *right)
{
    const candidate *a = left, *b = right;
    if (a->weight != b->weight) return a->weight > b->weight ? -1 : 1;
    return a->level < b->level ? -1 : 1;
}

/* Empty levels go, in ascending order, where count * width^2 is largest: those intervals are split in two, each once. Returns
 * whether one was moved. */
static int split_intervals(const lloyd_state *state, uint64_t k, candidate *candidates)
{
    uint64_t found = 0, next = 0;
    for (uint64_t j = 0; j < k; j++) {
        const double low = j ? state->thresholds[j - 1] : state->low, high = j + 1 < k ? state->thresholds[j] : state->high;
        if (state->counts[j] < 2 || !(high > low)) continue;
        candidates[found++] = (candidate){ (double)state->counts[j] * (high - low) * (high - low), high - low, j };
    }
    qsort(candidates, found, sizeof *candidates, by_weight);
    for (uint64_t e = 0; e < k && next < found; e++) {
        if (state->counts[e]) continue;
        const candidate *c = &candidates[next++];
        state->levels[e] = state->levels[c->level] + 0.25 * c->width;
        state->levels[c->level] -= 0.25 * c->width;
    }
    qsort(state->levels, k, sizeof *state->levels, by_value);
    return next > 0;
}

static qem_status repair_empty(qem_fit *fit, const lloyd_state *state, int *moved)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, fit->k, sizeof(candidate), &memory));
    *moved |= split_intervals(state, fit->k, memory);
    qem_release(fit->context, memory);
    return QEM_OK;
}

static qem_status lloyd(qem_fit *fit, lloyd_state *state)
{
    const uint64_t k = fit->k;
    double before = INFINITY;
    for (uint32_t pass = 0; pass < fit->recipe.iterations; pass++) {
        QEM_TRY(qem_report_progress(fit->context, "Lloyd-Max", (double)pass / fit->recipe.iterations));
        for (uint64_t j = 0; j + 1 < k; j++)
            state->thresholds[j] = qem_threshold(state->center + 0.5 * (state->levels[j] + state->levels[j + 1]));
        QEM_TRY(fit->backend->scalar_step(fit->context, fit->points.x, fit->point_count, state->thresholds, k, state->center,
                                          state->shift, state->counts, state->sums));
        int moved = 0, empty = 0;
        double explained = 0.0;
        for (uint64_t j = 0; j < k; j++) {
            empty |= state->counts[j] == 0;
            if (!state->counts[j]) continue;
            const double level = ldexp((double)state->sums[j] / (double)state->counts[j], -state->shift);
            moved |= level != state->levels[j];
            state->levels[j] = level;
            explained += level * level * (double)state->counts[j];
        }
        if (empty && pass + 1 < fit->recipe.iterations) {
            QEM_TRY(repair_empty(fit, state, &moved));
            if (moved) continue;
        }
        const double now = state->total - explained;
        if (!moved || before - now < fit->recipe.tolerance * before) break;
        before = now;
    }
    return qem_report_progress(fit->context, "Lloyd-Max", 1.0);
}

/* The levels as stored, and the codes against them. */
static qem_status store(qem_fit *fit, const lloyd_state *state)
{
    float *stored = (float *)state->sums; /* done with; 8 bytes a level */
    for (uint64_t j = 0; j < fit->k; j++) {
        float level = (float)(state->center + state->levels[j]) + 0.0f;
        if (fit->recipe.codebook == QEM_DTYPE_F16) level = qem_f16_to_f32(qem_f32_to_f16(level));
        if (!isfinite(level))
            return qem_fail(fit->context, QEM_ERR_RANGE, "lloydmax: level %g is beyond the range of %s", state->center + state->levels[j],
                            qem_dtype_name(fit->recipe.codebook));
        stored[j] = level;
    }
    QEM_TRY(fit->backend->to_device(fit->context, fit->codebook, stored, fit->k * sizeof(float)));
    if (fit->recipe.codebook_bits) {
        QEM_TRY(qem_fit_round_codebook(fit));
        QEM_TRY(fit->backend->to_host(fit->context, stored, fit->codebook, fit->k * sizeof(float)));
    }
    return qem_fit_scalar_labels(fit, stored, fit->k);
}

static qem_status start_from(qem_fit *fit, const histogram *h, double *levels)
{
    if (fit->k == h->bins) {
        memcpy(levels, h->at, (size_t)fit->k * sizeof(double));
        return QEM_OK;
    }
    if (fit->k <= MOST_DP_LEVELS && fit->k < h->bins) return start_by_dp(fit->context, h, (uint32_t)fit->k, levels);
    start_by_density(h, fit->k, levels);
    return QEM_OK;
}

/* Bins by the top 16 bits of x - center. */
static qem_status bin_by_key(qem_fit *fit, double center, histogram *h)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, BINS, sizeof(uint64_t), &memory));
    const uint64_t *counts = memory;
    const qem_status status = fit->backend->scalar_histogram(fit->context, fit->points.x, fit->point_count, center, memory);
    for (uint32_t b = 0; b < BINS && status == QEM_OK; b++) {
        const double low = key_value(b << 16), high = key_value(b << 16 | 0xffffu);
        if (counts[b]) add_bin(h, 0.5 * (low + high), high - low > DBL_MIN ? high - low : DBL_MIN, counts[b]);
    }
    qem_release(fit->context, memory);
    return status;
}

/* A bin for each distinct value, if there are few; its width reaches half-way to its neighbours. */
static qem_status bin_by_value(qem_fit *fit, double center, uint64_t limit, histogram *h)
{
    void *memory;
    uint64_t found;
    QEM_TRY(qem_allocate(fit->context, limit, sizeof(float) + sizeof(uint64_t), &memory));
    uint64_t *counts = memory;
    float *values = (float *)(counts + limit);
    const qem_status status =
        fit->backend->distinct_values(fit->context, fit->points.x, fit->point_count, limit, values, counts, &found);
    for (uint64_t i = 0; i < found && found <= limit && status == QEM_OK; i++) {
        const double low = values[i > 0 ? i - 1 : 0], high = values[i + 1 < found ? i + 1 : i];
        add_bin(h, (double)values[i] - center, high > low ? 0.5 * (high - low) : DBL_MIN, counts[i]);
    }
    qem_release(fit->context, memory);
    return status;
}

static qem_status start(qem_fit *fit, lloyd_state *state)
{
    const uint64_t limit = fit->k > MOST_EXACT_VALUES ? fit->k : MOST_EXACT_VALUES;
    histogram h;
    QEM_TRY(make_histogram(fit->context, limit > BINS ? limit : BINS, &h));
    qem_status status = bin_by_value(fit, state->center, limit, &h);
    if (status == QEM_OK && h.bins == 0) status = bin_by_key(fit, state->center, &h);
    if (status == QEM_OK) status = start_from(fit, &h, state->levels);
    qem_release(fit->context, h.at);
    return status;
}

static qem_status fit_levels(qem_fit *fit)
{
    lloyd_state state;
    float min, max;
    double sum;
    void *memory;
    memset(&state, 0, sizeof state);
    const qem_backend *backend = fit->backend;
    QEM_TRY(backend->extremes(fit->context, fit->points.x, fit->point_count, &min, &max));
    QEM_TRY(backend->mean(fit->context, fit->points.x, fit->point_count, &state.center));
    QEM_TRY(backend->sum(fit->context, fit->points.x, fit->point_count, state.center, &sum, &state.total));
    state.low = min;
    state.high = max;
    const double reach = fmax((double)max - state.center, state.center - (double)min);
    state.shift = qem_fixed_shift(fit->point_count, reach);
    QEM_TRY(qem_allocate(fit->context, fit->k, 4 * sizeof(double), &memory));
    state.levels = memory;
    state.counts = (uint64_t *)memory + fit->k;
    state.sums = (int64_t *)memory + 2 * fit->k;
    state.thresholds = (float *)((double *)memory + 3 * fit->k);
    qem_status status = start(fit, &state);
    if (status == QEM_OK) status = lloyd(fit, &state);
    if (status == QEM_OK) status = store(fit, &state);
    qem_release(fit->context, memory);
    return status;
}

const qem_method_ops qem_lloydmax_ops = {
    .id = QEM_METHOD_LLOYDMAX,
    .name = "lloydmax",
    .kind = QEM_CODEBOOK_SHARED,
    .default_dim = 1,
    .scalar = 1,
    .most_k = 1u << 24,
    .partition = partition,
    .fit = fit_levels,
    .encode = qem_encode_scalar,
};
