/* The pipeline: load -> plan -> swap -> partition -> fit -> pack -> artifact -> metrics. */
#include <math.h>
#include <string.h>

#include "../core/half.h"
#include "api.h"

/* ---- begin and end of a fit ---- */

static qem_status swap_points(qem_context *context, qem_fit_state *state)
{
    const uint64_t rows = state->matrix.rows, cols = state->matrix.cols;
    void *memory;
    state->swap_map_bytes = qem_swap_map_bytes(rows, cols, state->fit.recipe.levels);
    QEM_TRY(context->backend->alloc(context, rows * cols, sizeof(float), &memory));
    state->ordered = memory;
    QEM_TRY(context->backend->alloc(context, state->swap_map_bytes, 1, &memory));
    state->swap_map = memory;
    return context->backend->swap_forward(context, state->matrix.x, rows, cols, state->fit.recipe.levels, state->ordered,
                                          state->swap_map);
}

static qem_status load_points(qem_context *context, const qem_view *view, qem_fit_state *state)
{
    QEM_TRY(context->backend->load(context, view, "matrix", &state->matrix));
    const float *x = state->matrix.x;
    if (state->fit.recipe.levels) {
        QEM_TRY(swap_points(context, state));
        x = state->ordered;
    }
    state->fit.context = context;
    state->fit.backend = context->backend;
    state->fit.points = qem_cut(x, view->rows, view->cols, state->fit.recipe.dim);
    state->fit.point_count = view->rows * state->fit.points.groups;
    return QEM_OK;
}

qem_status qem_fit_begin(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_fit_state *state)
{
    memset(state, 0, sizeof *state);
    QEM_TRY(qem_resolve_recipe(context, recipe, view->rows, view->cols, &state->ops, &state->fit.recipe));
    QEM_TRY(qem_plan_shape(context, state->ops, &state->fit.recipe, view->rows, view->cols, &state->plan));
    QEM_TRY(load_points(context, view, state));
    state->fit.k = state->plan.k;
    if (state->ops->partition) QEM_TRY(state->ops->partition(&state->fit));
    state->plan.k = state->fit.k;
    state->plan.cells = state->fit.cells.count;
    qem_plan_parts(state->ops, &state->fit.recipe, &state->plan);
    return QEM_OK;
}

void qem_fit_end(qem_context *context, qem_fit_state *state)
{
    const qem_backend *backend = context->backend;
    qem_fit *fit = &state->fit;
    qem_release(context, fit->problems);
    qem_release(context, fit->cells.cuts);
    qem_release(context, fit->cells.id);
    qem_release(context, fit->cells.first);
    backend->release(context, fit->order);
    backend->release(context, fit->codebook);
    backend->release(context, fit->labels);
    backend->release(context, state->ordered);
    backend->release(context, state->swap_map);
    backend->release(context, state->matrix.owned);
    memset(state, 0, sizeof *state);
}

/* ---- from the fit to the artifact ---- */

static qem_status host_stream(qem_context *context, const void *device, uint64_t bytes, uint8_t **host)
{
    void *memory;
    QEM_TRY(qem_allocate(context, bytes + QEM_STREAM_SLACK, 1, &memory));
    *host = memory;
    memset(*host + bytes, 0, QEM_STREAM_SLACK);
    return context->backend->to_host(context, memory, device, bytes);
}

static qem_status pack_codes(qem_context *context, const qem_fit *fit, qem_stage *stage)
{
    void *device;
    stage->codes_bytes = qem_bit_stream_bytes(fit->point_count, stage->code_bits);
    QEM_TRY(context->backend->alloc(context, stage->codes_bytes, 1, &device));
    qem_status status = context->backend->pack(context, fit->labels, fit->point_count, stage->code_bits, device);
    if (status == QEM_OK) status = host_stream(context, device, stage->codes_bytes, &stage->codes);
    context->backend->release(context, device);
    return status;
}

static qem_status take_codebook(qem_context *context, const qem_fit *fit, uint64_t cols, qem_stage *stage)
{
    const uint64_t floats = qem_codebook_floats(stage->kind, cols, stage->dim, stage->k);
    void *memory;
    if (stage->kind == QEM_CODEBOOK_UNIFORM) {
        stage->scale = fit->scale;
        stage->mean = fit->mean;
        return qem_stage_expand_codebook(context, stage, cols);
    }
    QEM_TRY(qem_allocate(context, floats, sizeof(float), &memory));
    stage->codebook_stored = memory;
    QEM_TRY(context->backend->to_host(context, memory, fit->codebook, floats * sizeof(float)));
    stage->codebook_bytes = floats * sizeof(float);
    if (stage->codebook_dtype == QEM_DTYPE_F16) { /* the values are f16 already: keep both forms */
        stage->codebook = memory;
        stage->codebook_stored = NULL;
        stage->codebook_bytes = 0;
        QEM_TRY(qem_allocate(context, floats, sizeof(uint16_t), &memory));
        stage->codebook_stored = memory;
        stage->codebook_bytes = floats * sizeof(uint16_t);
        for (uint64_t j = 0; j < floats; j++) ((uint16_t *)memory)[j] = qem_f32_to_f16(stage->codebook[j]);
        return QEM_OK;
    }
    return qem_stage_expand_codebook(context, stage, cols);
}

static qem_status fill_stage(qem_context *context, const qem_fit_state *state, qem_stage *stage)
{
    stage->kind = state->ops->kind;
    stage->dim = state->plan.dim;
    stage->groups = state->plan.groups;
    stage->k = state->plan.k;
    stage->code_bits = state->plan.code_bits;
    stage->levels = state->plan.levels;
    stage->codebook_dtype = stage->kind == QEM_CODEBOOK_UNIFORM ? QEM_DTYPE_F32 : state->plan.codebook;
    QEM_TRY(pack_codes(context, &state->fit, stage));
    QEM_TRY(take_codebook(context, &state->fit, state->plan.cols, stage));
    if (stage->levels == 0) return QEM_OK;
    stage->swap_map_bytes = state->swap_map_bytes;
    return host_stream(context, state->swap_map, stage->swap_map_bytes, &stage->swap_map);
}

static qem_status allocate_outputs(qem_fit_state *state)
{
    qem_context *context = state->fit.context;
    const qem_backend *backend = state->fit.backend;
    void *memory;
    QEM_TRY(backend->alloc(context, state->fit.point_count, sizeof(uint32_t), &memory));
    state->fit.labels = memory;
    const uint64_t floats = qem_codebook_floats(state->ops->kind, state->plan.cols, state->plan.dim, state->fit.k);
    QEM_TRY(backend->alloc(context, floats, sizeof(float), &memory));
    state->fit.codebook = memory;
    return QEM_OK;
}

/* The artifact without metrics; the cells pass from the fit to it. */
static qem_status build(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                        qem_fit_state *state, qem_artifact **artifact)
{
    QEM_TRY(qem_artifact_new(context, name, view->rows, view->cols, 1, 1, artifact));
    qem_artifact *a = *artifact;
    a->source_dtype = view->dtype;
    qem_artifact_set_recipe(a, recipe);
    a->seed = context->seed;
    a->budget_bytes = state->plan.budget_bytes;
    a->cells = state->fit.cells;
    memset(&state->fit.cells, 0, sizeof state->fit.cells);
    return fill_stage(context, state, &a->stages[0]);
}

static qem_status check_name(qem_context *context, const char **name)
{
    if (!*name) *name = "tensor";
    const size_t length = strlen(*name);
    if (length < 1 || length > 255)
        return qem_fail(context, QEM_ERR_ARGUMENT, "name: %llu bytes are outside 1 .. 255", (unsigned long long)length);
    return QEM_OK;
}

static qem_status fit_and_build(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                                qem_fit_state *state, qem_artifact **artifact)
{
    QEM_TRY(qem_fit_begin(context, view, recipe, state));
    QEM_TRY(allocate_outputs(state));
    QEM_TRY(state->ops->fit(&state->fit));
    return build(context, view, name, recipe, state, artifact);
}

static qem_status add_metrics(qem_context *context, const qem_matrix *matrix, qem_artifact *artifact)
{
    artifact->metrics = (qem_metrics)QEM_METRICS_INIT;
    QEM_TRY(qem_measure(context, matrix, artifact, &artifact->metrics));
    artifact->has_metrics = 1;
    return QEM_OK;
}

qem_status qem_quantize(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                        qem_artifact **artifact)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact: the pointer is NULL");
    *artifact = NULL;
    QEM_TRY(check_name(context, &name));
    QEM_TRY(qem_check_view(context, view, name, 1));
    const double begin = qem_seconds();
    qem_fit_state state;
    qem_artifact *made = NULL;
    qem_status status = fit_and_build(context, view, name, recipe, &state, &made);
    if (status == QEM_OK) {
        made->quantize_seconds = qem_seconds() - begin;
        status = add_metrics(context, &state.matrix, made);
    }
    qem_fit_end(context, &state);
    if (status != QEM_OK) {
        qem_artifact_destroy(&made);
        return status;
    }
    *artifact = made;
    return QEM_OK;
}

/* ---- new rows against an existing artifact ---- */

/* A file may say one thing of its recipe and another of its stage: what the encoder takes from both must agree. */
static qem_status check_base(qem_context *context, const qem_artifact *base, const qem_method_ops *ops, const qem_recipe *resolved)
{
    const qem_stage *stage = &base->stages[0];
    if (ops->kind == stage->kind && resolved->dim == stage->dim && resolved->levels == stage->levels &&
        (stage->kind == QEM_CODEBOOK_UNIFORM || resolved->codebook == stage->codebook_dtype))
        return QEM_OK;
    return qem_fail(context, QEM_ERR_FORMAT, "artifact '%s': its recipe (%s, dim %u, %u levels) is not that of its codes", base->name,
                    ops->name, resolved->dim, resolved->levels);
}

/* The state of a fit whose codebook is the base's. */
static qem_status encode_begin(qem_context *context, const qem_view *view, const qem_artifact *base, qem_fit_state *state)
{
    const qem_stage *stage = &base->stages[0];
    memset(state, 0, sizeof *state);
    QEM_TRY(qem_resolve_recipe(context, &base->recipe, view->rows, view->cols, &state->ops, &state->fit.recipe));
    QEM_TRY(check_base(context, base, state->ops, &state->fit.recipe));
    QEM_TRY(load_points(context, view, state));
    state->fit.k = stage->k;
    state->fit.scale = stage->scale;
    state->fit.mean = stage->mean;
    state->plan = (qem_plan)QEM_PLAN_INIT;
    state->plan.rows = view->rows;
    state->plan.cols = view->cols;
    state->plan.k = stage->k;
    state->plan.dim = stage->dim;
    state->plan.groups = stage->groups;
    state->plan.levels = stage->levels;
    state->plan.codebook = stage->codebook_dtype;
    qem_plan_parts(state->ops, &state->fit.recipe, &state->plan);
    state->plan.budget_bytes = state->plan.stored_bytes;
    QEM_TRY(allocate_outputs(state));
    const uint64_t floats = qem_codebook_floats(stage->kind, base->cols, stage->dim, stage->k);
    return context->backend->to_device(context, state->fit.codebook, stage->codebook, floats * sizeof(float));
}

static qem_status copy_cells(qem_context *context, const qem_artifact *base, qem_cells *cells)
{
    const uint64_t cuts = (uint64_t)base->stages[0].dim * (base->cells.intervals - 1);
    void *memory;
    qem_release(context, cells->cuts);
    memset(cells, 0, sizeof *cells);
    if (base->cells.intervals <= 1) return QEM_OK;
    cells->intervals = base->cells.intervals;
    cells->count = base->cells.count;
    QEM_TRY(qem_allocate(context, cuts, sizeof(float), &memory));
    cells->cuts = memcpy(memory, base->cells.cuts, (size_t)cuts * sizeof(float));
    QEM_TRY(qem_allocate(context, cells->count, sizeof(uint32_t), &memory));
    cells->id = memcpy(memory, base->cells.id, (size_t)cells->count * sizeof(uint32_t));
    QEM_TRY(qem_allocate(context, cells->count + 1, sizeof(uint32_t), &memory));
    cells->first = memcpy(memory, base->cells.first, (size_t)(cells->count + 1) * sizeof(uint32_t));
    return QEM_OK;
}

static qem_status encode_and_build(qem_context *context, const qem_view *view, const char *name, const qem_artifact *base,
                                   qem_fit_state *state, qem_artifact **artifact)
{
    QEM_TRY(encode_begin(context, view, base, state));
    QEM_TRY(state->ops->encode(&state->fit, base));
    QEM_TRY(copy_cells(context, base, &state->fit.cells));
    return build(context, view, name, &base->recipe, state, artifact);
}

qem_status qem_encode(qem_context *context, const qem_artifact *base, const qem_view *view, const char *name,
                      qem_artifact **artifact)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!artifact) return qem_fail(context, QEM_ERR_ARGUMENT, "artifact: the pointer is NULL");
    *artifact = NULL;
    if (!base) return qem_fail(context, QEM_ERR_ARGUMENT, "base: the pointer is NULL");
    QEM_TRY(check_name(context, &name));
    QEM_TRY(qem_check_view(context, view, name, 1));
    if (view->cols != base->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu columns, but the artifact '%s' has %llu", name,
                        (unsigned long long)view->cols, base->name, (unsigned long long)base->cols);
    if (base->stage_count != 1)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "encoding against residual stages is not in this version");
    const double begin = qem_seconds();
    qem_fit_state state;
    qem_artifact *made = NULL;
    qem_status status = encode_and_build(context, view, name, base, &state, &made);
    if (status == QEM_OK) {
        made->quantize_seconds = qem_seconds() - begin;
        status = add_metrics(context, &state.matrix, made);
    }
    qem_fit_end(context, &state);
    if (status != QEM_OK) {
        qem_artifact_destroy(&made);
        return status;
    }
    *artifact = made;
    return QEM_OK;
}
