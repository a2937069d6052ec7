/*
 * The scalar codebook of least mean squared error (Lloyd 1982, Max 1960), for the whole tensor. The start comes from the
 * distinct values where they are few, else from a histogram whose bins are fine near the mean and coarse far out: exact
 * dynamic programming on it for up to 256 levels, the high-rate density^(1/3) (Panter and Dite 1951) above. Exact Lloyd
 * passes over all elements follow. Weighted, every sum is one of weights; the codes are those of the nearest levels as ever.
 */
#include "lloydmax.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/fixed.h"
#include "../core/half.h"
#include "../core/threshold.h"
#include "registry.h"

static qem_status partition(qem_fit *fit)
{
    uint64_t distinct;
    QEM_TRY(qem_fit_problems(fit, 1));
    fit->problems[0] = (qem_problem){ .step = 1, .count = fit->point_count, .k = fit->k, .width = 1 };
    QEM_TRY(fit->backend->count_distinct(fit->context, fit->points, fit->problems, 1, &distinct));
    fit->k = distinct;
    return QEM_OK;
}

/* ---- Lloyd ---- */

typedef struct lloyd_state {
    qem_scalar_weights weights; /* levels are relative to its center */
    int plain_shift;   /* of sums without weights */
    double total;      /* sum of (weighted) (x - center)^2, for the tolerance */
    double low, high;  /* extremes of the data */
    double *levels;    /* [k], ascending */
    double *best;      /* [k], those of the least error so far */
    float *thresholds; /* [k - 1], absolute */
    uint64_t *counts;  /* of elements; weighted, sums of weights in their unit */
    uint64_t *members; /* of elements; only while empty levels are repaired */
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
        if (state->members[j] < 2 || !state->counts[j] || !(high > low)) continue;
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
    if (state->weights.weight)
        QEM_TRY(fit->backend->scalar_step(fit->context, fit->points.x, fit->point_count, state->thresholds, fit->k,
                                          state->weights.center, state->plain_shift, state->members, state->sums));
    QEM_TRY(qem_allocate(fit->context, fit->k, sizeof(candidate), &memory));
    *moved |= split_intervals(state, fit->k, memory);
    qem_release(fit->context, memory);
    return QEM_OK;
}

/* counts and sums of every level under the thresholds. */
static qem_status sum_levels(qem_fit *fit, const lloyd_state *state)
{
    const qem_scalar_weights *w = &state->weights;
    if (w->weight)
        return fit->backend->scalar_weighted_step(fit->context, fit->points.x, w->weight, fit->point_count, state->thresholds, fit->k,
                                                  w->center, w->shift, w->sum_shift, state->counts, state->sums);
    return fit->backend->scalar_step(fit->context, fit->points.x, fit->point_count, state->thresholds, fit->k, w->center,
                                     w->sum_shift, state->counts, state->sums);
}

/* Weights near their unit round coarsely, which can take a mean out of its cell; levels must stay in order. */
static double within_cell(const lloyd_state *state, uint64_t k, uint64_t j, double mean)
{
    const double low = (j ? state->thresholds[j - 1] : state->low) - state->weights.center;
    const double high = (j + 1 < k ? state->thresholds[j] : state->high) - state->weights.center;
    return fmin(fmax(mean, low), high);
}

static qem_status lloyd(qem_fit *fit, lloyd_state *state)
{
    const qem_scalar_weights *w = &state->weights;
    const uint64_t k = fit->k;
    double before = INFINITY, least = INFINITY;
    for (uint32_t pass = 0; pass < fit->recipe.iterations; pass++) {
        QEM_TRY(qem_report_progress(fit->context, "Lloyd-Max", (double)pass / fit->recipe.iterations));
        for (uint64_t j = 0; j + 1 < k; j++)
            state->thresholds[j] = qem_threshold(w->center + 0.5 * (state->levels[j] + state->levels[j + 1]));
        QEM_TRY(sum_levels(fit, state));
        int moved = 0, empty = 0;
        double explained = 0.0;
        for (uint64_t j = 0; j < k; j++) {
            empty |= state->counts[j] == 0;
            if (!state->counts[j]) continue;
            const double mean = ldexp((double)state->sums[j] / (double)state->counts[j], w->shift - w->sum_shift);
            const double level = w->weight ? within_cell(state, k, j, mean) : mean;
            moved |= level != state->levels[j];
            state->levels[j] = level;
            explained += level * level * (double)state->counts[j] * w->unit;
        }
        const double now = state->total - explained;
        if (now < least) { /* splitting intervals can cost more than it gives */
            least = now;
            memcpy(state->best, state->levels, (size_t)k * sizeof *state->best);
        }
        if (empty && pass + 1 < fit->recipe.iterations) {
            QEM_TRY(repair_empty(fit, state, &moved));
            if (moved) continue;
        }
        if (!moved || before - now < fit->recipe.tolerance * before) break;
        before = now;
    }
    if (least < INFINITY) memcpy(state->levels, state->best, (size_t)k * sizeof *state->best);
    return qem_report_progress(fit->context, "Lloyd-Max", 1.0);
}

/* The levels as stored, and the codes against them. */
static qem_status store(qem_fit *fit, const lloyd_state *state)
{
    float *stored = (float *)state->sums; /* done with; 8 bytes a level */
    for (uint64_t j = 0; j < fit->k; j++) {
        float level = (float)(state->weights.center + state->levels[j]) + 0.0f;
        if (fit->recipe.codebook == QEM_DTYPE_F16) level = qem_f16_to_f32(qem_f32_to_f16(level));
        if (!isfinite(level))
            return qem_fail(fit->context, QEM_ERR_RANGE, "lloydmax: level %g is beyond the range of %s",
                            state->weights.center + state->levels[j], qem_dtype_name(fit->recipe.codebook));
        stored[j] = level;
    }
    QEM_TRY(fit->backend->to_device(fit->context, fit->codebook, stored, fit->k * sizeof(float)));
    if (fit->recipe.codebook_bits) {
        QEM_TRY(qem_fit_round_codebook(fit));
        QEM_TRY(fit->backend->to_host(fit->context, stored, fit->codebook, fit->k * sizeof(float)));
    }
    return qem_fit_scalar_levels(fit, stored, fit->k);
}

/* Center, shifts and total. */
static qem_status weigh(qem_fit *fit, lloyd_state *state)
{
    const qem_backend *backend = fit->backend;
    const float *x = fit->points.x, *weight = fit->element_weight ? fit->element_weight : fit->point_weight;
    const uint64_t count = fit->point_count;
    qem_scalar_weights *w = &state->weights;
    float least = 1.0f, largest = 1.0f;
    double unused, moments[3];
    if (weight) QEM_TRY(backend->extremes(fit->context, weight, count, &least, &largest));
    w->weight = least < largest ? weight : NULL; /* all the same: as if there were none */
    w->unit = 1.0;
    if (w->weight) {
        QEM_TRY(backend->weighted_moments(fit->context, x, weight, count, 0.0, moments));
        w->center = moments[1] / moments[0];
        QEM_TRY(backend->weighted_moments(fit->context, x, weight, count, w->center, moments));
        state->total = moments[2];
        w->shift = qem_fixed_shift(count, largest);
        w->unit = ldexp(1.0, -w->shift);
    } else {
        QEM_TRY(backend->mean(fit->context, x, count, &w->center));
        QEM_TRY(backend->sum(fit->context, x, count, w->center, &unused, &state->total));
    }
    const double reach = fmax(state->high - w->center, w->center - state->low);
    state->plain_shift = qem_fixed_shift(count, reach);
    w->sum_shift = w->weight ? qem_fixed_shift(count, reach * (double)largest) : state->plain_shift;
    return QEM_OK;
}

static qem_status fit_levels(qem_fit *fit)
{
    lloyd_state state;
    float min, max;
    void *memory;
    int exact = 0;
    memset(&state, 0, sizeof state);
    QEM_TRY(fit->backend->extremes(fit->context, fit->points.x, fit->point_count, &min, &max));
    state.low = min;
    state.high = max;
    QEM_TRY(weigh(fit, &state));
    QEM_TRY(qem_allocate(fit->context, fit->k, 6 * sizeof(double), &memory));
    state.levels = memory;
    state.counts = (uint64_t *)memory + fit->k;
    state.sums = (int64_t *)memory + 2 * fit->k;
    state.thresholds = (float *)((double *)memory + 3 * fit->k);
    state.members = state.weights.weight ? (uint64_t *)memory + 4 * fit->k : state.counts;
    state.best = (double *)memory + 5 * fit->k;
    qem_status status = qem_lloydmax_start(fit, &state.weights, state.levels, &exact);
    if (status == QEM_OK) /* bins of values at uneven distances overlap */
        qsort(state.levels, (size_t)fit->k, sizeof *state.levels, by_value);
    if (status == QEM_OK && !(exact && state.weights.weight)) status = lloyd(fit, &state); /* it would move what has no weight */
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
