/* The pipeline: load -> outliers -> layer by layer (standardize, swap, fit, pack; what is left goes on) -> metrics. */
#include <math.h>
#include <string.h>

#include "../methods/outliers.h"
#include "layer.h"

/* The matrix on its way through the layers. */
typedef struct pipeline {
    qem_context *context;
    const qem_recipe *recipe;    /* the first of the chain */
    const qem_view *view;        /* the original */
    qem_matrix matrix;           /* the same loaded; its own memory may be put to another use */
    int borrowed;                /* the matrix lies in the view's memory */
    float *left;                 /* device: what the layers so far leave over; NULL: the original */
    qem_matrix importance;
    uint64_t importance_rows;
    qem_outliers outliers;       /* the artifact's from take_outliers on */
    qem_outliers taken;          /* the same, borrowed, as long as the artifact is there */
    float *replaced;             /* host, [cols], what stands in their places in `left` */
    uint64_t outlier_bytes;
    const qem_layer_plan *planned; /* ranges and k of the only layer, or NULL */
} pipeline;

static qem_status load_importance(pipeline *p)
{
    const qem_view *view = p->recipe->importance;
    float least, greatest;
    if (!view) return QEM_OK;
    QEM_TRY(p->context->backend->load(p->context, view, "importance", &p->importance));
    QEM_TRY(p->context->backend->extremes(p->context, p->importance.x, view->rows * view->cols, &least, &greatest));
    if (least < 0.0f || greatest == 0.0f)
        return qem_fail(p->context, QEM_ERR_DATA, "importance: weights lie between %g and %g; they must not be negative, nor all 0",
                        (double)least, (double)greatest);
    p->importance_rows = view->rows;
    return QEM_OK;
}

/* A copy to take outliers or layers out of, where there will be any; the matrix itself where it has memory of its own. */
static qem_status copy_matrix(pipeline *p)
{
    const qem_backend *backend = p->context->backend;
    const uint64_t count = p->matrix.rows * p->matrix.cols;
    void *memory;
    if (!p->recipe->residual && p->recipe->outliers == 0.0 && p->recipe->outlier_sigma == 0.0) return QEM_OK;
    if (p->matrix.owned) {
        p->left = p->matrix.owned;
        p->matrix.owned = NULL;
        return QEM_OK;
    }
    QEM_TRY(backend->alloc(p->context, count, sizeof(float), &memory));
    p->left = memory;
    return backend->copy(p->context, memory, p->matrix.x, count * sizeof(float));
}

static qem_status allocate_replaced(pipeline *p)
{
    void *memory;
    QEM_TRY(qem_allocate(p->context, p->view->cols, sizeof(float), &memory));
    p->replaced = memory;
    return QEM_OK;
}

static qem_status begin(qem_context *context, const qem_view *view, const qem_recipe *recipe, pipeline *p)
{
    memset(p, 0, sizeof *p);
    p->context = context;
    p->recipe = recipe;
    p->view = view;
    QEM_TRY(context->backend->load(context, view, "matrix", &p->matrix));
    p->borrowed = p->matrix.owned == NULL;
    QEM_TRY(load_importance(p));
    QEM_TRY(copy_matrix(p));
    if (p->left || p->matrix.owned) qem_view_discard(view);
    if (recipe->outliers == 0.0 && recipe->outlier_sigma == 0.0) return QEM_OK;
    QEM_TRY(allocate_replaced(p));
    QEM_TRY(qem_outliers_take(context, context->backend, p->left, view->rows, view->cols, recipe, view->dtype, p->left,
                              p->replaced, &p->outliers));
    p->taken = p->outliers;
    p->outlier_bytes = qem_outliers_bytes(&p->outliers);
    return QEM_OK;
}

static void end(pipeline *p)
{
    p->context->backend->release(p->context, p->left);
    p->context->backend->release(p->context, p->matrix.owned);
    p->context->backend->release(p->context, p->importance.owned);
    qem_outliers_release(p->context, &p->outliers);
    qem_release(p->context, p->replaced);
}

static qem_status layer_of(pipeline *p, const qem_recipe *recipe, qem_layer_fit *layer)
{
    memset(layer, 0, sizeof *layer);
    layer->source = (qem_source){ p->view, p->left ? p->left : p->matrix.x, p->replaced ? &p->taken : NULL, p->replaced };
    layer->spare = p->recipe->residual ? NULL : p->left ? &p->left : &p->matrix.owned;
    layer->rows = p->matrix.rows;
    layer->cols = p->matrix.cols;
    layer->importance = p->importance.x;
    layer->importance_rows = p->importance_rows;
    return qem_resolve_layer(p->context, recipe, layer->rows, layer->cols, &layer->ops, &layer->recipe);
}

static qem_status begin_layer(pipeline *p, const qem_recipe *recipe, double left, qem_layer_fit *layer, qem_layer_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    QEM_TRY(layer_of(p, recipe, layer));
    plan->chain = p->recipe;
    plan->chain_outliers = p->outlier_bytes;
    plan->outlier_bytes = recipe == p->recipe ? p->outlier_bytes : 0;
    return qem_layer_begin(p->context, layer, plan, qem_layer_budget(&layer->recipe, left));
}

/* Bits for all layers. */
static double bits_for_layers(const pipeline *p)
{
    return qem_budget_bits(p->recipe, p->matrix.rows, p->matrix.cols) - 8.0 * (double)p->outlier_bytes;
}

/* ---- the plan ---- */

static qem_status plan_layers(pipeline *p, qem_plan *plan)
{
    qem_layer_fit layer;
    qem_layer_plan first;
    const double left = bits_for_layers(p);
    qem_plan_begin(p->recipe, p->matrix.rows, p->matrix.cols, plan);
    qem_plan_add_outliers(&p->outliers, plan);
    const uint64_t before = qem_parts_sum(&plan->parts);
    qem_status status = begin_layer(p, p->recipe, left, &layer, &first);
    if (status == QEM_OK) {
        qem_plan_add_layer(layer.ops, &layer.recipe, &first, plan);
        plan->cells = layer.range[0].fit.cells.count;
    }
    qem_layer_end(p->context, &layer);
    QEM_TRY(status);
    return qem_plan_rest(p->context, p->recipe, p->recipe->residual, left - 8.0 * (double)(qem_parts_sum(&plan->parts) - before), plan);
}

qem_status qem_plan_data(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan)
{
    pipeline p;
    qem_status status = begin(context, view, recipe, &p);
    if (status == QEM_OK) status = plan_layers(&p, plan);
    end(&p);
    return status;
}

/* ---- the artifact ---- */

static qem_status new_artifact(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                               qem_artifact **artifact)
{
    QEM_TRY(qem_artifact_new(context, name, view->rows, view->cols, QEM_MOST_STAGES, QEM_MOST_STAGES, artifact));
    (*artifact)->stage_count = (*artifact)->layer_count = 0; /* the room is there; layers are added one by one */
    (*artifact)->source_dtype = view->dtype;
    qem_artifact_set_recipe(*artifact, recipe);
    (*artifact)->seed = context->seed;
    return QEM_OK;
}

static void take_outliers(pipeline *p, qem_artifact *artifact)
{
    artifact->outliers = p->outliers;
    memset(&p->outliers, 0, sizeof p->outliers);
}

/* Bytes of what stands so far. */
static uint64_t bytes_so_far(const qem_artifact *artifact)
{
    qem_parts parts;
    uint64_t bytes;
    qem_artifact_parts(artifact, &parts, &bytes);
    return bytes;
}

static qem_status add_layer(pipeline *p, const qem_recipe *recipe, const qem_artifact *base, double left, qem_artifact *artifact)
{
    const uint32_t index = artifact->layer_count;
    qem_layer_fit layer;
    qem_layer_plan plan;
    qem_status status;
    if (p->planned) {
        status = layer_of(p, recipe, &layer);
        plan = *p->planned;
        if (status == QEM_OK) status = qem_layer_begin_as_planned(p->context, &layer, &plan);
        if (status == QEM_OK) status = qem_layer_finish(p->context, &layer, artifact, index);
    } else if (base) {
        status = layer_of(p, recipe, &layer);
        if (status == QEM_OK) status = qem_layer_encode(p->context, &layer, base, index, artifact);
    } else {
        status = begin_layer(p, recipe, left, &layer, &plan);
        if (status == QEM_OK) status = qem_layer_finish(p->context, &layer, artifact, index);
    }
    if (status == QEM_OK && recipe->residual) status = qem_subtract_layer(p->context, artifact, index, p->left);
    if (status == QEM_OK && recipe->residual)
        status = qem_layer_check_range(p->context, &layer, p->left, "the values that a layer leaves for the next");
    qem_layer_end(p->context, &layer);
    return status;
}

static qem_status add_layers(pipeline *p, const qem_artifact *base, qem_artifact *artifact)
{
    const double left = base ? 0.0 : bits_for_layers(p);
    take_outliers(p, artifact);
    for (const qem_recipe *recipe = p->recipe; recipe; recipe = recipe->residual) {
        const uint64_t taken = artifact->stage_count ? bytes_so_far(artifact) - qem_outliers_bytes(&artifact->outliers) : 0;
        QEM_TRY(add_layer(p, recipe, base, left - 8.0 * (double)taken, artifact));
    }
    artifact->budget_bytes = bytes_so_far(artifact);
    if (!base && !p->recipe->k)
        artifact->budget_bytes = (uint64_t)(qem_budget_bits(p->recipe, p->matrix.rows, p->matrix.cols) / 8.0);
    return QEM_OK;
}

qem_status qem_check_name(qem_context *context, const char **name)
{
    if (!*name) *name = "tensor";
    const size_t length = strlen(*name);
    if (length < 1 || length > 255)
        return qem_fail(context, QEM_ERR_ARGUMENT, "name: %llu bytes are outside 1 .. 255", (unsigned long long)length);
    return QEM_OK;
}

/* base: NULL, or the artifact whose codebooks are taken. */
static qem_status run(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                      const qem_artifact *base, const qem_layer_plan *planned, qem_artifact **artifact)
{
    const double started = qem_seconds();
    pipeline p;
    qem_artifact *made = NULL;
    qem_status status = begin(context, view, recipe, &p);
    p.planned = planned;
    if (status == QEM_OK) status = new_artifact(context, view, name, recipe, &made);
    if (status == QEM_OK) status = add_layers(&p, base, made);
    if (status == QEM_OK) {
        made->quantize_seconds = qem_seconds() - started;
        made->metrics = (qem_metrics)QEM_METRICS_INIT;
        const qem_source original = { view, p.borrowed || p.matrix.owned ? p.matrix.x : NULL, NULL, NULL };
        status = qem_measure(context, &original, made, &made->metrics);
        made->has_metrics = 1;
        if (status == QEM_OK && !isfinite(made->metrics.mse)) /* data near the limit of f32: infinities, or NaN of two of them */
            status = qem_fail(context, QEM_ERR_RANGE, "%s: decoded values are beyond the range of f32", name);
    }
    end(&p);
    if (status != QEM_OK) qem_artifact_destroy(&made);
    *artifact = made;
    return status;
}

qem_status qem_quantize(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                        qem_artifact **artifact)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact: the pointer is NULL");
    *artifact = NULL;
    QEM_TRY(qem_check_name(context, &name));
    QEM_TRY(qem_check_view(context, view, name, 1));
    qem_recipe best;
    if (recipe && recipe->method == QEM_METHOD_AUTO)
        return qem_search(context, view, name, recipe, &best, NULL, NULL, artifact);
    QEM_TRY(qem_check_recipe(context, recipe, view->rows, view->cols));
    return run(context, view, name, recipe, NULL, NULL, artifact);
}

qem_status qem_quantize_as_planned(qem_context *context, const qem_view *view, const qem_recipe *recipe,
                                   const qem_layer_plan *plan, qem_artifact **artifact)
{
    return run(context, view, "trial", recipe, NULL, plan, artifact);
}

/* ---- new rows against an existing artifact ---- */

/* A file may say one thing of its recipe and another of its stages: what the encoder takes from both must agree. */
static qem_status check_base(qem_context *context, const qem_artifact *base)
{
    const qem_recipe *recipe = &base->recipe;
    for (uint32_t i = 0; i < base->layer_count; i++, recipe = recipe->residual) {
        const qem_stage *stage = &base->stages[base->layers[i].stage_first];
        const qem_method_ops *ops;
        qem_recipe r;
        qem_layer_plan plan;
        if (!recipe) return qem_fail(context, QEM_ERR_FORMAT, "artifact '%s': it has more layers than its recipe", base->name);
        QEM_TRY(qem_resolve_layer(context, recipe, base->rows, base->cols, &ops, &r));
        qem_plan_steps(ops, &r, base->rows, base->cols, &plan);
        const int formula = stage->kind == QEM_CODEBOOK_UNIFORM || stage->kind == QEM_CODEBOOK_TABLE;
        int same = ops->kind == stage->kind && r.dim == stage->dim && r.levels == stage->levels &&
                   (formula || (r.codebook_bits == stage->codebook_bits && (r.codebook_bits || r.codebook == stage->codebook_dtype))) &&
                   plan.affine_count == base->layers[i].affine_count && (stage->cells > 0) == (ops->rotates != 0) &&
                   (!stage->group_bits || ops->allocates) && stage->half_rotation == qem_recipe_halves_rotation(&r) &&
                   (stage->cells > 1) == (r.cells > 1) && (stage->kind != QEM_CODEBOOK_TABLE || stage->table == (uint32_t)ops->table);
        for (uint32_t a = 0; same && a < plan.affine_count; a++)
            same = plan.affine[a].axis == base->layers[i].affine[a].axis && plan.affine[a].block == base->layers[i].affine[a].block &&
                   base->layers[i].affine[a].has_scale; /* every step that is fitted has scales */
        if (!same)
            return qem_fail(context, QEM_ERR_FORMAT, "artifact '%s': its recipe (%s, dim %u, %u levels) is not that of its codes",
                            base->name, ops->name, r.dim, r.levels);
    }
    if (recipe) return qem_fail(context, QEM_ERR_FORMAT, "artifact '%s': its recipe has more layers than it", base->name);
    return QEM_OK;
}

qem_status qem_encode(qem_context *context, const qem_artifact *base, const qem_view *view, const char *name,
                      qem_artifact **artifact)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact: the pointer is NULL");
    *artifact = NULL;
    if (!base) return qem_fail(context, QEM_ERR_ARGUMENT, "base: the pointer is NULL");
    QEM_TRY(qem_check_name(context, &name));
    QEM_TRY(qem_check_view(context, view, name, 1));
    if (view->cols != base->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu columns, but the artifact '%s' has %llu", name,
                        (unsigned long long)view->cols, base->name, (unsigned long long)base->cols);
    QEM_TRY(check_base(context, base));
    return run(context, view, name, &base->recipe, base, NULL, artifact);
}
