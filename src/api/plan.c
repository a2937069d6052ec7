/* The planner: recipe + budget -> the largest k that fits, bytes by part, or a clear no. */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "api.h"

#define MOST_DIM 65535
#define MOST_INTERVALS 255
#define MOST_RESTARTS 1000
#define MOST_ELEMENTS ((uint64_t)1 << 48)
#define MOST_SUBVECTORS ((uint64_t)1 << 32)

qem_status qem_check_view(qem_context *context, const qem_view *view, const char *what, int data_needed)
{
    QEM_CHECK_STRUCT(context, view, qem_view);
    if (view->rows < 1 || view->cols < 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu x %llu is empty; at least one row and one column are needed", what,
                        (unsigned long long)view->rows, (unsigned long long)view->cols);
    if (view->rows >= MOST_ELEMENTS || view->cols >= MOST_ELEMENTS || view->rows > (MOST_ELEMENTS - 1) / view->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu x %llu exceeds 2^48 elements", what,
                        (unsigned long long)view->rows, (unsigned long long)view->cols);
    if (data_needed && !view->data) return qem_fail(context, QEM_ERR_ARGUMENT, "%s: data is NULL", what);
    if (view->dtype < QEM_DTYPE_F32 || view->dtype > QEM_DTYPE_U8)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: elements of type %s; a matrix has f32, f16, bf16, f64 or u8", what,
                        qem_dtype_name(view->dtype));
    return QEM_OK;
}

static qem_status check_budget(qem_context *context, const qem_recipe *r)
{
    const int set = (r->ratio != 0.0) + (r->bits != 0.0) + (r->k != 0);
    if (set != 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: exactly one of ratio, bits and k is to be set, %d are", set);
    if (!(r->ratio >= 0.0) || isinf(r->ratio) || !(r->bits >= 0.0) || isinf(r->bits))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: ratio %g and bits %g must be positive and finite", r->ratio, r->bits);
    return QEM_OK;
}

static qem_status check_numbers(qem_context *context, const qem_recipe *r)
{
    if (r->codebook != QEM_DTYPE_F32 && r->codebook != QEM_DTYPE_F16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: a codebook is stored as f32 or f16, not as %s",
                        qem_dtype_name(r->codebook));
    if (r->restarts < 1 || r->restarts > MOST_RESTARTS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: restarts %u is outside 1 .. %d", r->restarts, MOST_RESTARTS);
    if (!(r->tolerance >= 0.0 && r->tolerance < 1.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: tolerance %g is outside [0, 1)", r->tolerance);
    if (r->accounting != QEM_ACCOUNTING_HONEST && r->accounting != QEM_ACCOUNTING_PAPER)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: accounting %d is unknown", (int)r->accounting);
    if (r->accounting == QEM_ACCOUNTING_PAPER && r->codebook != QEM_DTYPE_F32)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: the papers' accounting counts f32 codebooks; codebook f16 contradicts it");
    for (size_t i = 0; i < sizeof r->reserved / sizeof r->reserved[0]; i++)
        if (r->reserved[i] || r->reserved32)
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: a reserved field is set; this version knows no use of it");
    return QEM_OK;
}

static qem_status resolve_dim(qem_context *context, const qem_method_ops *ops, qem_recipe *r, uint64_t rows, uint64_t cols)
{
    if (r->dim == 0) r->dim = ops->default_dim;
    if (ops->scalar && r->dim != 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s is scalar, dim %u is not 1", ops->name, r->dim);
    if (r->dim > MOST_DIM) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: dim %u is above %d", r->dim, MOST_DIM);
    if (rows * ((cols + r->dim - 1) / r->dim) >= MOST_SUBVECTORS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %llu rows of %llu sub-vectors are 2^32 or more",
                        (unsigned long long)rows, (unsigned long long)((cols + r->dim - 1) / r->dim));
    return QEM_OK;
}

static qem_status resolve_blocks(qem_context *context, const qem_method_ops *ops, qem_recipe *r)
{
    if (r->levels == QEM_LEVELS_DEFAULT) r->levels = ops->default_levels;
    if (r->levels > 8) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %u swap levels are more than 8", r->levels);
    if (r->intervals && !ops->intervals)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: intervals have no meaning for %s", ops->name);
    if ((r->assign || r->refine) && !ops->intervals)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s have no meaning for %s, which has no cells",
                        r->refine ? "refining passes" : "assignments", ops->name);
    if (r->assign != QEM_ASSIGN_CELL && r->assign != QEM_ASSIGN_GLOBAL)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: assignment %d is unknown", (int)r->assign);
    if (r->intervals > MOST_INTERVALS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %u intervals are more than %d", r->intervals, MOST_INTERVALS);
    return QEM_OK;
}

qem_status qem_resolve_recipe(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols,
                              const qem_method_ops **ops, qem_recipe *resolved)
{
    QEM_CHECK_STRUCT(context, recipe, qem_recipe);
    *ops = qem_method_find(recipe->method);
    if (!*ops) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: method %d is unknown", (int)recipe->method);
    *resolved = *recipe;
    QEM_TRY(check_budget(context, recipe));
    QEM_TRY(check_numbers(context, recipe));
    QEM_TRY(resolve_dim(context, *ops, resolved, rows, cols));
    return resolve_blocks(context, *ops, resolved);
}

/* ---- bytes ---- */

/* Bits that a recipe is charged for k centroids under its accounting. */
static double charged_bits(const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols, uint64_t k)
{
    if (r->accounting == QEM_ACCOUNTING_HONEST) return 8.0 * (double)qem_recipe_bytes(ops->kind, rows, cols, r, k);
    const double codes = (double)rows * (double)((cols + r->dim - 1) / r->dim);
    return codes * log2((double)k) + 32.0 * (double)qem_codebook_floats(ops->kind, cols, r->dim, k) +
           8.0 * (double)qem_swap_map_bytes(rows, cols, r->levels) + (ops->kind == QEM_CODEBOOK_UNIFORM ? 64.0 : 0.0);
}

static double budget_bits(const qem_recipe *r, uint64_t rows, uint64_t cols)
{
    const double elements = (double)rows * (double)cols;
    return r->ratio > 0.0 ? elements * 32.0 / r->ratio : elements * r->bits;
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

static qem_status nothing_fits(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows,
                               uint64_t cols, double budget)
{
    const uint64_t map = qem_swap_map_bytes(rows, cols, r->levels);
    const uint64_t codebook = (r->codebook == QEM_DTYPE_F16 ? 2 : 4) * qem_codebook_floats(ops->kind, cols, r->dim, 1);
    const double least = charged_bits(ops, r, rows, cols, 1);
    const char *part = map > codebook ? "swap_map" : codebook ? "codebook" : "scale and mean";
    const uint64_t bytes = map > codebook ? map : codebook ? codebook : 2 * sizeof(float);
    return qem_fail(context, QEM_ERR_BUDGET,
                    "%s: the budget is %.0f bytes, but one centroid takes %.0f, %llu of them for the %s; the largest ratio that "
                    "fits is %.6g", ops->name, floor(budget / 8.0), ceil(least / 8.0), (unsigned long long)bytes, part,
                    qem_six_digits_below((double)rows * (double)cols * 32.0 / least));
}

void qem_plan_parts(const qem_method_ops *ops, const qem_recipe *r, qem_plan *plan)
{
    memset(&plan->parts, 0, sizeof plan->parts);
    plan->code_bits = qem_code_bits(plan->k);
    plan->intervals = ops->intervals ? r->intervals : 0;
    plan->parts.codes = qem_bit_stream_bytes(plan->rows * plan->groups, plan->code_bits);
    plan->parts.codebook = (r->codebook == QEM_DTYPE_F16 ? 2 : 4) * qem_codebook_floats(ops->kind, plan->cols, r->dim, plan->k);
    plan->parts.swap_map = qem_swap_map_bytes(plan->rows, plan->cols, r->levels);
    if (ops->kind == QEM_CODEBOOK_UNIFORM) plan->parts.scale = plan->parts.mean = sizeof(float);
    plan->stored_bytes = plan->parts.codes + plan->parts.codebook + plan->parts.swap_map + plan->parts.scale + plan->parts.mean;
    if (r->k) plan->budget_bytes = plan->stored_bytes;
    const double elements = (double)plan->rows * (double)plan->cols;
    plan->bits_per_element = 8.0 * (double)plan->stored_bytes / elements;
    plan->ratio = 4.0 * elements / (double)plan->stored_bytes;
}

static qem_status explicit_k(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows,
                             uint64_t groups)
{
    if (r->k > ops->most_k)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: k %llu is above the %llu of %s", (unsigned long long)r->k,
                        (unsigned long long)ops->most_k, ops->name);
    if (ops->power_of_two) {
        if (r->k & (r->k - 1))
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s has 2^b levels, k %llu is no power of two", ops->name,
                            (unsigned long long)r->k);
        return QEM_OK;
    }
    const uint64_t most = ops->kind == QEM_CODEBOOK_PER_GROUP ? rows : rows * groups;
    if (r->k > most)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: k %llu is above the %llu sub-vectors of %s", (unsigned long long)r->k,
                        (unsigned long long)most, ops->kind == QEM_CODEBOOK_PER_GROUP ? "a group" : "the matrix");
    return QEM_OK;
}

qem_status qem_plan_shape(qem_context *context, const qem_method_ops *ops, const qem_recipe *r, uint64_t rows, uint64_t cols,
                          qem_plan *plan)
{
    *plan = (qem_plan)QEM_PLAN_INIT;
    plan->method = r->method;
    plan->rows = rows;
    plan->cols = cols;
    plan->dim = r->dim;
    plan->groups = (cols + r->dim - 1) / r->dim;
    plan->levels = r->levels;
    plan->codebook = r->codebook;
    if (r->k) {
        QEM_TRY(explicit_k(context, ops, r, rows, plan->groups));
        plan->k = r->k;
    } else {
        const double budget = budget_bits(r, rows, cols);
        uint64_t most = ops->kind == QEM_CODEBOOK_PER_GROUP ? rows : rows * plan->groups;
        if (ops->power_of_two || most > ops->most_k) most = ops->most_k;
        plan->k = largest_k(ops, r, rows, cols, most, budget);
        if (plan->k == 0) return nothing_fits(context, ops, r, rows, cols, budget);
        plan->budget_bytes = (uint64_t)floor(budget / 8.0);
    }
    qem_plan_parts(ops, r, plan);
    return QEM_OK;
}

qem_status qem_make_plan(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_CHECK_STRUCT(context, plan, qem_plan);
    QEM_TRY(qem_check_view(context, view, "view", 0));
    if (view->data) {
        qem_fit_state state;
        const qem_status status = qem_fit_begin(context, view, recipe, &state);
        if (status == QEM_OK) *plan = state.plan;
        qem_fit_end(context, &state);
        return status;
    }
    const qem_method_ops *ops;
    qem_recipe resolved;
    qem_plan made;
    QEM_TRY(qem_resolve_recipe(context, recipe, view->rows, view->cols, &ops, &resolved));
    QEM_TRY(qem_plan_shape(context, ops, &resolved, view->rows, view->cols, &made));
    *plan = made;
    return QEM_OK;
}
