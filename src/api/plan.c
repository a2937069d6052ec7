/* The planner: recipe + budget -> the largest k that fits, bytes by part, or a clear no. */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "../methods/outliers.h"
#include "../methods/standardize.h"
#include "layer.h"

#define MOST_BUDGET_BITS 0x1p62

/* ---- what a recipe is charged ---- */

static int varies(const qem_method_ops *ops, const qem_recipe *r)
{
    return r->allocation == QEM_ALLOCATION_VARIANCE && ops->kind == QEM_CODEBOOK_PER_GROUP;
}

/* Bits that the codes, codebook, maps and rotations of some rows are charged for k centroids under the recipe's accounting. */
static double charged_bits(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, uint64_t k)
{
    const uint64_t groups = (cols + r->dim - 1) / r->dim;
    const double widths = varies(ops, r) ? 8.0 * (double)groups : 0.0;
    if (r->accounting == QEM_ACCOUNTING_HONEST) return widths + 8.0 * (double)qem_recipe_bytes(ops->kind, rows, cols, r, k);
    const double codes = (double)rows * (double)groups, fixed = 8.0 * (double)qem_recipe_bytes(ops->kind, rows, cols, r, 1);
    const double books = (double)qem_codebook_floats(ops->kind, cols, r->dim, k) * (double)(r->cells > 1 ? r->cells : 1);
    const double book = (double)qem_codebook_floats(ops->kind, cols, r->dim, 1) * (double)(r->cells > 1 ? r->cells : 1);
    return widths + codes * log2((double)k) + 32.0 * (books - book) + fixed;
}

/* The largest k <= most with charged_bits <= budget, or 0; the charge grows with k. */
static uint64_t largest_k(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, uint64_t most,
                          double budget)
{
    uint64_t low = 0, high = most;
    while (low < high) {
        const uint64_t middle = low + (high - low + 1) / 2;
        if (charged_bits(ops, r, rows, cols, middle) <= budget)
            low = middle;
        else
            high = middle - 1;
    }
    if (ops->power_of_two && low > 0) {
        uint64_t power = 1;
        while (power * 2 <= low) power *= 2;
        return power;
    }
    return low;
}

static uint64_t most_centroids(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols)
{
    const uint64_t points = ops->kind == QEM_CODEBOOK_PER_GROUP ? rows : rows * ((cols + r->dim - 1) / r->dim);
    return ops->power_of_two || points > ops->most_k ? ops->most_k : points;
}

/* ---- mixed rates ---- */

/* Mean squared error at a high rate is proportional to k^(-2/dim). */
static double expected_error(const qem_recipe *r, double k)
{
    return pow(k, -2.0 / (double)r->dim);
}

/* The most rows that can take k_high where the rest takes k_low; 0 if even k_low alone does not fit. */
static uint64_t most_high_rows(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, uint64_t k_low,
                               uint64_t k_high, double budget)
{
    uint64_t low = 0, high = rows - 1;
    while (low < high) {
        const uint64_t middle = low + (high - low + 1) / 2;
        if (charged_bits(ops, r, middle, cols, k_high) + charged_bits(ops, r, rows - middle, cols, k_low) <= budget)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Two neighbouring widths of codes, where they are expected to beat one k for all rows. */
static void mix_rates(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, double budget,
                      qem_layer_plan *plan)
{
    double best = plan->range[0].k ? expected_error(r, (double)plan->range[0].k) : INFINITY;
    for (uint32_t bits = 0; bits < 24 && ((uint64_t)2 << bits) <= ops->most_k; bits++) {
        const uint64_t k_low = (uint64_t)1 << bits, k_high = k_low * 2;
        const uint64_t high = most_high_rows(ops, r, rows, cols, k_low, k_high, budget);
        if (high == 0 || k_high > most_centroids(ops, r, high, cols) || k_low > most_centroids(ops, r, rows - high, cols)) continue;
        const double share = (double)high / (double)rows;
        const double error = share * expected_error(r, (double)k_high) + (1.0 - share) * expected_error(r, (double)k_low);
        if (error >= best) continue;
        best = error;
        plan->range_count = 2;
        plan->range[0] = (qem_range_plan){ 0, high, k_high, 0.0, NULL };
        plan->range[1] = (qem_range_plan){ high, rows, k_low, 0.0, NULL };
    }
}

/* ---- a layer ---- */

void qem_plan_steps(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, qem_layer_plan *plan)
{
    memset(plan->affine, 0, sizeof plan->affine);
    plan->affine_count = 0;
    if (ops->units) {
        qem_affine *a = &plan->affine[plan->affine_count++];
        *a = qem_affine_make(r->grid_axis, r->grid_block, r->params, rows, cols);
        a->has_scale = 1;
        a->has_mean = ops->units_have_means;
    }
    plan->affine_count += qem_standardize_shape(rows, cols, r, plan->affine + plan->affine_count);
}

static uint64_t step_bytes(const qem_layer_plan *plan)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < plan->affine_count; i++) bytes += qem_affine_bytes(&plan->affine[i]);
    return bytes;
}

static void add_parts(const qem_parts *more, qem_parts *parts)
{
    const uint64_t *from = (const uint64_t *)more;
    uint64_t *to = (uint64_t *)parts;
    for (size_t i = 0; i < sizeof *parts / sizeof *to; i++) to[i] += from[i];
}

static void plan_layer_parts(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, const qem_layer_plan *plan,
                             qem_parts *parts)
{
    qem_layer layer = { .stage_count = plan->range_count, .affine_count = plan->affine_count };
    qem_stage stages[2];
    memcpy(layer.affine, plan->affine, sizeof layer.affine);
    for (uint32_t i = 0; i < plan->range_count; i++) {
        stages[i] = qem_recipe_stage(ops->kind, cols, r, plan->range[i].k);
        stages[i].row_begin = plan->range[i].row_begin;
        stages[i].row_end = plan->range[i].row_end;
        stages[i].group_bits = (uint8_t *)plan->range[i].group_bits; /* only read */
        qem_stage_sizes(&stages[i], cols);
    }
    qem_artifact artifact = { .rows = rows, .cols = cols, .stage_count = plan->range_count, .stages = stages, .layer_count = 1,
                              .layers = &layer };
    qem_parts made;
    uint64_t bytes;
    qem_artifact_parts(&artifact, &made, &bytes);
    for (uint32_t i = 0; i < plan->range_count && varies(ops, r); i++)
        if (!stages[i].group_bits) made.group_bits += stages[i].groups; /* widths that are yet to be found take room too */
    add_parts(&made, parts);
}

/* The part of most bytes. */
static const char *largest_part(const qem_parts *parts, uint64_t *bytes)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } list[] = { { "codes", parts->codes },
                 { "codebook", parts->codebook + parts->codebook_scale },
                 { "swap_map", parts->swap_map },
                 { "rotation", parts->rotation + parts->coarse },
                 { "scale and mean", parts->scale + parts->mean },
                 { "outliers", parts->outlier_index + parts->outlier_value },
                 { "widths of groups", parts->group_bits } };
    size_t most = 0;
    for (size_t i = 1; i < sizeof list / sizeof list[0]; i++)
        if (list[i].bytes > list[most].bytes) most = i;
    *bytes = list[most].bytes;
    return list[most].name;
}

static uint64_t least_k(const qem_method_ops *ops)
{
    return ops->least_k > 1 ? ops->least_k : 1;
}

/* Ranges and k of the most that fits; range_count 0 if nothing does. */
static void fill_budget(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, double budget,
                        qem_layer_plan *plan)
{
    const double left = budget - 8.0 * (double)step_bytes(plan);
    plan->range_count = 1;
    plan->range[0] = (qem_range_plan){ 0, rows, largest_k(ops, r, rows, cols, most_centroids(ops, r, rows, cols), left), 0.0, NULL };
    if (varies(ops, r) && plan->range[0].k) /* the widths take what is left over */
        plan->range[0].spare_bits = left - charged_bits(ops, r, rows, cols, plan->range[0].k);
    else if (r->mixed && rows > 1)
        mix_rates(ops, r, rows, cols, left, plan);
    for (uint32_t i = 0; i < plan->range_count; i++)
        if (plan->range[i].k < least_k(ops)) plan->range_count = 0;
}

/* Bits that a layer takes at least. */
static double least_bits(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, const qem_layer_plan *plan)
{
    return charged_bits(ops, r, rows, cols, least_k(ops)) + 8.0 * (double)step_bytes(plan);
}

/* `budget` where all layers of the chain fit in it by their shape; else what the first one that does not would take, with all
 * that lies before it. */
static double chain_needs(qem_context *context, const qem_recipe *chain, uint64_t rows, uint64_t cols, double outliers, double budget)
{
    double taken = outliers;
    for (const qem_recipe *next = chain; next; next = next->residual) {
        const qem_method_ops *ops;
        qem_recipe r;
        qem_layer_plan layer;
        qem_parts parts;
        memset(&layer, 0, sizeof layer);
        memset(&parts, 0, sizeof parts);
        if (qem_resolve_layer(context, next, rows, cols, &ops, &r) != QEM_OK) return budget; /* it was checked before */
        qem_plan_steps(ops, &r, rows, cols, &layer);
        const double share = next->residual ? r.share : 1.0;
        fill_budget(ops, &r, rows, cols, (budget - taken) * share, &layer);
        if (layer.range_count == 0) return taken + least_bits(ops, &r, rows, cols, &layer) / share;
        plan_layer_parts(ops, &r, rows, cols, &layer, &parts);
        taken += 8.0 * (double)qem_parts_sum(&parts);
    }
    return budget;
}

/* The largest ratio of six digits at which nothing is too large. Where a layer finds no room, no smaller budget has room for it
 * beside the first layer: what that takes only grows with the budget. */
static double largest_ratio(qem_context *context, const qem_layer_plan *plan, uint64_t rows, uint64_t cols, double least)
{
    const double elements = (double)rows * (double)cols * 32.0, outliers = 8.0 * (double)plan->chain_outliers;
    const int chain = plan->chain && plan->chain->residual;
    double need = chain ? outliers : least, budget = 0.0, ratio = 0.0;
    if (chain) need = chain_needs(context, plan->chain, rows, cols, outliers, need);
    while (need > budget) {
        ratio = qem_six_digits_below(elements / need);
        budget = elements / ratio;
        if (chain) need = chain_needs(context, plan->chain, rows, cols, outliers, budget);
    }
    return ratio;
}

static qem_status nothing_fits(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols,
                               const qem_layer_plan *plan, double budget)
{
    qem_layer_plan one = *plan;
    qem_parts parts;
    uint64_t bytes;
    memset(&parts, 0, sizeof parts);
    one.range_count = 1;
    one.range[0] = (qem_range_plan){ 0, rows, least_k(ops), 0.0, NULL };
    plan_layer_parts(ops, r, rows, cols, &one, &parts);
    parts.outlier_index += plan->outlier_bytes;
    const char *part = largest_part(&parts, &bytes);
    const double least = least_bits(ops, r, rows, cols, plan) + 8.0 * (double)plan->outlier_bytes;
    const double ratio = largest_ratio(context, plan, rows, cols, least);
    return qem_fail(context, QEM_ERR_BUDGET,
                    "%s: the budget%s is %.0f bytes, but %s %.0f, %llu of them for the %s; the largest ratio that fits is %.6g",
                    ops->name, plan->chain && plan->chain->residual ? " of this layer" : "", floor(budget > 0.0 ? budget / 8.0 : 0.0),
                    least_k(ops) > 1 ? "its smallest table takes" : "one centroid takes", ceil(least / 8.0),
                    (unsigned long long)bytes, part, ratio);
}

static qem_status explicit_k(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t groups)
{
    if (r->k > ops->most_k)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: k %llu is above the %llu of %s", (unsigned long long)r->k,
                        (unsigned long long)ops->most_k, ops->name);
    if (ops->power_of_two) {
        if (r->k & (r->k - 1))
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s has 2^b levels, k %llu is no power of two", ops->name,
                            (unsigned long long)r->k);
    } else {
        const uint64_t most = ops->kind == QEM_CODEBOOK_PER_GROUP ? rows : rows * groups;
        if (r->k > most)
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: k %llu is above the %llu sub-vectors of %s", (unsigned long long)r->k,
                            (unsigned long long)most, ops->kind == QEM_CODEBOOK_PER_GROUP ? "a group" : "the matrix");
    }
    if (r->k < ops->least_k)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: k %llu is below the %llu of %s", (unsigned long long)r->k,
                        (unsigned long long)ops->least_k, ops->name);
    return QEM_OK;
}

qem_status qem_plan_layer(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols,
                          double budget, qem_layer_plan *plan)
{
    plan->range_count = 1;
    plan->range[0] = (qem_range_plan){ 0, rows, r->k, 0.0, NULL };
    if (r->k) return explicit_k(context, ops, r, rows, (cols + r->dim - 1) / r->dim);
    fill_budget(ops, r, rows, cols, budget, plan);
    if (plan->range_count > 0) return QEM_OK;
    return nothing_fits(context, ops, r, rows, cols, plan, budget + 8.0 * (double)plan->outlier_bytes);
}

/* ---- the whole ---- */

/* No artifact takes more than the most bits, and their bytes fit into 64 bits, whatever ratio or bits say. */
double qem_budget_bits(const qem_recipe *r, uint64_t rows, uint64_t cols)
{
    const double elements = (double)rows * (double)cols;
    return fmin(r->ratio > 0.0 ? elements * 32.0 / r->ratio : elements * r->bits, MOST_BUDGET_BITS);
}

double qem_layer_budget(const qem_recipe *r, double left)
{
    return r->residual ? left * r->share : left;
}

void qem_plan_begin(const qem_recipe *r, uint64_t rows, uint64_t cols, qem_plan *plan)
{
    *plan = (qem_plan)QEM_PLAN_INIT;
    plan->method = r->method;
    plan->rows = rows;
    plan->cols = cols;
    if (!r->k) plan->budget_bytes = (uint64_t)floor(qem_budget_bits(r, rows, cols) / 8.0);
}

void qem_plan_add_outliers(const qem_outliers *o, qem_plan *plan)
{
    if (o->count == 0) return;
    plan->parts.outlier_index += o->count * o->index_size;
    plan->parts.outlier_value += o->count * qem_dtype_size(o->value_dtype);
}

void qem_plan_add_layer(const qem_method_ops *ops, const qem_recipe *r, const qem_layer_plan *layer, qem_plan *plan)
{
    if (plan->stages == 0) { /* the first layer's first stage stands for all where there is one number */
        plan->k = layer->range[0].k;
        plan->dim = r->dim;
        plan->groups = (plan->cols + r->dim - 1) / r->dim;
        plan->levels = r->levels;
        plan->codebook = r->codebook;
        plan->code_bits = qem_code_bits(plan->k);
        plan->intervals = ops->intervals ? r->intervals : 0;
    }
    plan->stages += layer->range_count;
    plan_layer_parts(ops, r, plan->rows, plan->cols, layer, &plan->parts);
    plan->stored_bytes = qem_parts_sum(&plan->parts);
    if (r->k) plan->budget_bytes = plan->stored_bytes;
    const double elements = (double)plan->rows * (double)plan->cols;
    plan->bits_per_element = 8.0 * (double)plan->stored_bytes / elements;
    plan->ratio = 4.0 * elements / (double)plan->stored_bytes;
}

/* Layers from `recipe` on by the shape alone. left: bits of the budget for them. */
qem_status qem_plan_rest(qem_context *context, const qem_recipe *chain, const qem_recipe *recipe, double left, qem_plan *plan)
{
    const uint64_t outliers = plan->parts.outlier_index + plan->parts.outlier_value;
    for (const qem_recipe *next = recipe; next; next = next->residual) {
        const qem_method_ops *ops;
        qem_recipe r;
        qem_layer_plan layer;
        memset(&layer, 0, sizeof layer);
        const uint64_t before = qem_parts_sum(&plan->parts);
        QEM_TRY(qem_resolve_layer(context, next, plan->rows, plan->cols, &ops, &r));
        qem_plan_steps(ops, &r, plan->rows, plan->cols, &layer);
        layer.chain = chain;
        layer.chain_outliers = outliers;
        layer.outlier_bytes = plan->stages == 0 ? outliers : 0;
        QEM_TRY(qem_plan_layer(context, ops, &r, plan->rows, plan->cols, qem_layer_budget(&r, left), &layer));
        qem_plan_add_layer(ops, &r, &layer, plan);
        left -= 8.0 * (double)(qem_parts_sum(&plan->parts) - before);
    }
    return QEM_OK;
}

static qem_status plan_shape(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan)
{
    if (recipe->outlier_sigma > 0.0)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: how many outliers lie beyond %g standard deviations takes the data to say",
                        recipe->outlier_sigma);
    qem_plan_begin(recipe, view->rows, view->cols, plan);
    const qem_outliers o = qem_outliers_shape(view->rows, view->cols, qem_outliers_count(view->rows, view->cols, recipe->outliers),
                                              recipe, view->dtype);
    qem_plan_add_outliers(&o, plan);
    return qem_plan_rest(context, recipe, recipe,
                         qem_budget_bits(recipe, view->rows, view->cols) - 8.0 * (double)qem_parts_sum(&plan->parts), plan);
}

qem_status qem_make_plan(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan)
{
    qem_plan made;
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_CHECK_STRUCT(context, plan, qem_plan);
    QEM_TRY(qem_check_view(context, view, "view", 0));
    qem_recipe best;
    if (recipe && recipe->method == QEM_METHOD_AUTO) {
        if (!view->data) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: auto takes the data to plan");
        QEM_TRY(qem_search(context, view, NULL, recipe, &best, NULL, NULL, NULL));
        recipe = &best;
    }
    QEM_TRY(qem_check_recipe(context, recipe, view->rows, view->cols));
    if (view->data)
        QEM_TRY(qem_plan_data(context, view, recipe, &made));
    else
        QEM_TRY(plan_shape(context, view, recipe, &made));
    *plan = made;
    return QEM_OK;
}
