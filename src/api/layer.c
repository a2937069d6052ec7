/* One layer: standardize -> swap -> partition -> fit -> stages. */
#include "layer.h"

#include <math.h>
#include <string.h>

#include "../methods/standardize.h"
#include "../methods/standardize_encode.h"

/* ---- steps of standardization ---- */

static const float *standardized(const qem_layer_fit *layer)
{
    return layer->z ? layer->z : layer->source.x;
}

/* Memory for z: that of the matrix itself, which is loaded again should it be asked for, or new. */
static qem_status take_z(qem_context *context, qem_layer_fit *layer, int *loaded)
{
    void *memory;
    *loaded = layer->spare && *layer->spare;
    if (*loaded) {
        layer->z = *layer->spare;
        *layer->spare = NULL;
        layer->source.x = NULL;
        return QEM_OK;
    }
    QEM_TRY(context->backend->alloc(context, layer->rows * layer->cols, sizeof(float), &memory));
    layer->z = memory;
    return QEM_OK;
}

/* Rows begin .. end-1 of z by steps whose tables are those of all rows. */
static qem_status standardize_rows(qem_context *context, const qem_layer_fit *layer, const qem_decode_affine *all, uint32_t count,
                                   const float *x, uint64_t begin, uint64_t end)
{
    qem_decode_affine steps[QEM_MOST_AFFINE];
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t blocks = all[i].axis == QEM_AXIS_BLOCK ? (layer->cols - 1) / all[i].block + 1 : 0;
        const uint64_t units = all[i].axis == QEM_AXIS_ROW ? 1 : blocks; /* of each row */
        steps[i] = all[i];
        if (steps[i].scale) steps[i].scale += begin * units;
        if (steps[i].mean) steps[i].mean += begin * units;
    }
    return context->backend->standardize(context, x, end - begin, layer->cols, steps, count, layer->z + begin * layer->cols);
}

qem_status qem_layer_apply_steps(qem_context *context, qem_layer_fit *layer, uint32_t first)
{
    qem_decode_affine steps[QEM_MOST_AFFINE];
    const uint32_t count = layer->affine_count - first;
    const uint64_t step = qem_rows_at_once(layer->cols);
    int loaded = 0;
    if (!layer->z) QEM_TRY(take_z(context, layer, &loaded));
    qem_affine_views(layer->affine + first, count, steps);
    if (loaded) return standardize_rows(context, layer, steps, count, layer->z, 0, layer->rows);
    for (uint64_t row = 0; row < layer->rows; row += step) {
        const uint64_t end = layer->rows - row < step ? layer->rows : row + step;
        qem_matrix part;
        QEM_TRY(qem_source_rows(context, &layer->source, row, end, &part));
        const qem_status status = standardize_rows(context, layer, steps, count, part.x, row, end);
        context->backend->release(context, part.owned);
        QEM_TRY(status);
        qem_view_discard(layer->source.view);
    }
    return QEM_OK;
}

/* What fits and encoders get must be finite: scales of other rows, or those of few bits, may take it beyond f32. */
qem_status qem_layer_check_range(qem_context *context, const qem_layer_fit *layer, const float *x, const char *what)
{
    double sum, squared;
    QEM_TRY(context->backend->sum(context, x, layer->rows * layer->cols, 0.0, &sum, &squared));
    if (isfinite(squared)) return QEM_OK;
    return qem_fail(context, QEM_ERR_RANGE, "%s are beyond the range of f32", what);
}

static qem_status check_standardized(qem_context *context, const qem_layer_fit *layer)
{
    return qem_layer_check_range(context, layer, layer->z, "standardized values");
}

static qem_status add_units(qem_context *context, qem_layer_fit *layer)
{
    const qem_backend *backend = context->backend;
    qem_affine *a = &layer->affine[0];
    *a = qem_affine_make(layer->recipe.grid_axis, layer->recipe.grid_block, layer->recipe.params, layer->rows, layer->cols);
    a->has_scale = 1;
    a->has_mean = layer->ops->units_have_means;
    QEM_TRY(qem_affine_alloc(context, a));
    QEM_TRY(layer->ops->units(context, backend, standardized(layer), layer->rows, layer->cols, a));
    QEM_TRY(qem_affine_store(context, a));
    return qem_layer_apply_steps(context, layer, 0);
}

static qem_status standardize(qem_context *context, qem_layer_fit *layer)
{
    const uint32_t units = layer->ops->units != NULL;
    uint32_t count = 0;
    if (layer->recipe.standardize) {
        const qem_status status = qem_standardize_begin(context, context->backend, layer->source.x, layer->rows, layer->cols,
                                                        &layer->recipe, layer->affine + units, &count);
        layer->affine_count = units + count;
        QEM_TRY(status);
        QEM_TRY(qem_layer_apply_steps(context, layer, units));
        QEM_TRY(check_standardized(context, layer));
    }
    layer->affine_count = units + count;
    return units ? add_units(context, layer) : QEM_OK;
}

/* ---- weights: the error that counts is that of the matrix, which is scale^2 times that of the standardized one ---- */

/* Is the weight the same for all elements of a sub-vector? */
static int weight_of_points(const qem_layer_fit *layer)
{
    const uint32_t dim = layer->recipe.dim;
    if (dim == 1 && !layer->ops->rotates) return layer->recipe.levels == 0;
    if (layer->importance && !layer->ops->rotates) return 0;
    for (uint32_t i = 0; i < layer->affine_count; i++) {
        const qem_affine *a = &layer->affine[i];
        if (a->axis == QEM_AXIS_COLUMN) return 0;
        if (a->axis == QEM_AXIS_BLOCK && (a->block % dim || layer->recipe.levels || layer->ops->rotates)) return 0;
    }
    return 1;
}

static int weights_matter(const qem_layer_fit *layer)
{
    if (layer->ops->kind == QEM_CODEBOOK_UNIFORM || layer->ops->kind == QEM_CODEBOOK_TABLE) return 0;
    if (layer->importance) return 1;
    for (uint32_t i = 0; i < layer->affine_count; i++)
        if (layer->affine[i].has_scale && layer->affine[i].axis != QEM_AXIS_TENSOR) return 1;
    return 0;
}

static qem_status fill_weights(qem_context *context, const qem_layer_fit *layer, int points, float *weight)
{
    qem_decode_affine steps[QEM_MOST_AFFINE];
    const uint32_t dim = layer->recipe.dim;
    qem_affine_views(layer->affine, layer->affine_count, steps);
    for (uint32_t i = 0; i < layer->affine_count && points && dim > 1; i++) steps[i].block /= dim;
    return context->backend->element_weights(context, layer->rows, points ? (layer->cols - 1) / dim + 1 : layer->cols, steps,
                                             layer->affine_count, layer->importance, layer->importance_rows, weight);
}

qem_status qem_layer_add_weights(qem_context *context, qem_layer_fit *layer)
{
    const int points = weight_of_points(layer);
    void *memory;
    if (!weights_matter(layer) || (layer->ops->rotates && !points)) return QEM_OK;
    float **slot = points ? &layer->point_weight : &layer->element_weight;
    if (!*slot) {
        const uint64_t width = points ? (layer->cols - 1) / layer->recipe.dim + 1 : layer->cols;
        QEM_TRY(context->backend->alloc(context, layer->rows * width, sizeof(float), &memory));
        *slot = memory;
    }
    return fill_weights(context, layer, points, *slot);
}

/* ---- ranges of rows ---- */

static qem_status swap_range(qem_context *context, const qem_layer_fit *layer, qem_range_fit *range, const float *x)
{
    const qem_backend *backend = context->backend;
    const uint64_t rows = range->row_end - range->row_begin, cols = layer->cols;
    void *memory;
    range->swap_map_bytes = qem_swap_map_bytes(rows, cols, layer->recipe.levels);
    QEM_TRY(backend->alloc(context, rows * cols, sizeof(float), &memory));
    range->ordered = memory;
    QEM_TRY(backend->alloc(context, range->swap_map_bytes, 1, &memory));
    range->swap_map = memory;
    QEM_TRY(backend->swap_forward(context, x, rows, cols, layer->recipe.levels, range->ordered, range->swap_map));
    if (!layer->element_weight) return QEM_OK;
    QEM_TRY(backend->alloc(context, rows * cols, sizeof(float), &memory));
    range->ordered_weight = memory;
    return backend->swap_by_map(context, layer->element_weight + range->row_begin * cols, range->swap_map, rows, cols,
                                layer->recipe.levels, range->ordered_weight);
}

/* Points and weights of the range, up to the partition. */
static qem_status load_range(qem_context *context, const qem_layer_fit *layer, const qem_range_plan *plan, qem_range_fit *range)
{
    const uint64_t rows = plan->row_end - plan->row_begin;
    const float *x = standardized(layer) + plan->row_begin * layer->cols;
    qem_fit *fit = &range->fit;
    range->row_begin = plan->row_begin;
    range->row_end = plan->row_end;
    fit->context = context;
    fit->backend = context->backend;
    fit->kind = layer->ops->kind;
    fit->recipe = layer->recipe;
    fit->table = layer->ops->table;
    fit->k = plan->k;
    fit->spare_bits = plan->spare_bits;
    if (layer->recipe.levels) {
        QEM_TRY(swap_range(context, layer, range, x));
        x = range->ordered;
    }
    fit->points = qem_cut(x, rows, layer->cols, layer->recipe.dim);
    fit->point_count = rows * fit->points.groups;
    if (layer->point_weight) fit->point_weight = layer->point_weight + range->row_begin * fit->points.groups;
    if (layer->element_weight)
        fit->element_weight = layer->recipe.levels ? range->ordered_weight : layer->element_weight + range->row_begin * layer->cols;
    return QEM_OK;
}

qem_status qem_range_begin(qem_context *context, const qem_layer_fit *layer, const qem_range_plan *plan, qem_range_fit *range)
{
    QEM_TRY(load_range(context, layer, plan, range));
    return layer->ops->partition ? layer->ops->partition(&range->fit) : QEM_OK;
}

void qem_range_end(qem_context *context, qem_range_fit *range)
{
    const qem_backend *backend = context->backend;
    qem_fit *fit = &range->fit;
    qem_release(context, fit->problems);
    qem_release(context, fit->thresholds);
    qem_release(context, fit->cells.cuts);
    qem_release(context, fit->cells.id);
    qem_release(context, fit->cells.first);
    qem_release(context, fit->group_bits);
    qem_release(context, fit->codebook_codes);
    qem_release(context, fit->codebook_scale);
    backend->release(context, fit->order);
    backend->release(context, fit->codebook);
    backend->release(context, fit->labels);
    backend->release(context, fit->rotation);
    backend->release(context, fit->coarse);
    backend->release(context, fit->row_cells);
    backend->release(context, range->ordered);
    backend->release(context, range->ordered_weight);
    backend->release(context, range->swap_map);
    memset(range, 0, sizeof *range);
}

/* Codes of scalars come from thresholds (qem_fit). */
static qem_status allocate_labels(qem_context *context, const qem_layer_fit *layer, qem_fit *fit)
{
    void *memory;
    if (layer->ops->scalar) return QEM_OK;
    QEM_TRY(context->backend->alloc(context, fit->point_count, sizeof(uint32_t), &memory));
    fit->labels = memory;
    return QEM_OK;
}

qem_status qem_range_allocate(qem_context *context, const qem_layer_fit *layer, qem_fit *fit)
{
    void *memory;
    if (layer->ops->rotates || !qem_fit_labels_are_late(fit)) QEM_TRY(allocate_labels(context, layer, fit));
    qem_stage stage = qem_recipe_stage(fit->kind, layer->cols, &fit->recipe, fit->k);
    stage.group_bits = fit->group_bits;
    QEM_TRY(context->backend->alloc(context, qem_stage_codebook_floats(&stage, layer->cols), sizeof(float), &memory));
    fit->codebook = memory;
    return QEM_OK;
}

/* ---- the whole ---- */

static qem_status begin_ranges(qem_context *context, qem_layer_fit *layer, qem_layer_plan *plan)
{
    QEM_TRY(qem_layer_search_scales(context, layer, plan));
    layer->range_count = plan->range_count;
    for (uint32_t i = 0; i < plan->range_count; i++) {
        QEM_TRY(qem_range_begin(context, layer, &plan->range[i], &layer->range[i]));
        plan->range[i].k = layer->range[i].fit.k;
        plan->range[i].group_bits = layer->range[i].fit.group_bits;
    }
    layer->recipe.intervals = layer->range[0].fit.recipe.intervals; /* the partition may have chosen them */
    return QEM_OK;
}

qem_status qem_layer_begin(qem_context *context, qem_layer_fit *layer, qem_layer_plan *plan, double budget)
{
    QEM_TRY(standardize(context, layer));
    QEM_TRY(qem_layer_add_weights(context, layer));
    plan->affine_count = layer->affine_count;
    memcpy(plan->affine, layer->affine, sizeof plan->affine);
    QEM_TRY(qem_plan_layer(context, layer->ops, &layer->recipe, layer->rows, layer->cols, budget, plan));
    return begin_ranges(context, layer, plan);
}

qem_status qem_layer_begin_as_planned(qem_context *context, qem_layer_fit *layer, qem_layer_plan *plan)
{
    QEM_TRY(standardize(context, layer));
    QEM_TRY(qem_layer_add_weights(context, layer));
    return begin_ranges(context, layer, plan);
}

/* The steps of the layer, and its number of stages, which follow. */
static void store_steps(qem_layer_fit *layer, qem_artifact *artifact, uint32_t index)
{
    qem_layer *made = &artifact->layers[index];
    made->stage_first = artifact->stage_count;
    made->stage_count = layer->range_count;
    made->affine_count = layer->affine_count;
    memcpy(made->affine, layer->affine, sizeof made->affine); /* the tables are the artifact's now */
    memset(layer->affine, 0, sizeof layer->affine);
    layer->affine_count = 0;
    artifact->layer_count = index + 1;
}

/* The next stage of the artifact; the fit is done with. */
static qem_status store_range(qem_context *context, qem_range_fit *range, qem_artifact *artifact)
{
    const int first = artifact->stage_count == 0;
    QEM_TRY(qem_store_stage(context, range, &artifact->stages[artifact->stage_count++]));
    if (first) {
        artifact->cells = range->fit.cells;
        memset(&range->fit.cells, 0, sizeof range->fit.cells);
    }
    qem_range_end(context, range);
    return QEM_OK;
}

qem_status qem_layer_finish(qem_context *context, qem_layer_fit *layer, qem_artifact *artifact, uint32_t index)
{
    store_steps(layer, artifact, index);
    for (uint32_t i = 0; i < layer->range_count; i++) {
        QEM_TRY(qem_range_allocate(context, layer, &layer->range[i].fit));
        QEM_TRY(layer->ops->fit(&layer->range[i].fit));
        QEM_TRY(store_range(context, &layer->range[i], artifact));
    }
    return QEM_OK;
}

void qem_layer_end(qem_context *context, qem_layer_fit *layer)
{
    for (uint32_t i = 0; i < 2; i++) qem_range_end(context, &layer->range[i]);
    for (uint32_t i = 0; i < QEM_MOST_AFFINE; i++) qem_affine_release(context, &layer->affine[i]);
    context->backend->release(context, layer->z);
    context->backend->release(context, layer->element_weight);
    context->backend->release(context, layer->point_weight);
    memset(layer, 0, sizeof *layer);
}

/* ---- new rows ---- */

/* The steps for new rows: what belongs to columns and to the tensor is the base's, rows and blocks get scales of their own. */
static qem_status encode_steps(qem_context *context, qem_layer_fit *layer, const qem_layer *base)
{
    const uint32_t units = layer->ops->units != NULL;
    for (uint32_t i = base->affine_count; i-- > 0;) {
        qem_affine *a = &layer->affine[i];
        const qem_affine *b = &base->affine[i];
        if (b->axis == QEM_AXIS_COLUMN || b->axis == QEM_AXIS_TENSOR) {
            QEM_TRY(qem_affine_copy(context, b, a));
        } else if (i == 0 && units) {
            *a = qem_affine_make(b->axis, b->block, b->params, layer->rows, layer->cols);
            a->has_scale = b->has_scale;
            a->has_mean = b->has_mean;
            QEM_TRY(qem_affine_alloc(context, a));
            QEM_TRY(layer->ops->units(context, context->backend, standardized(layer), layer->rows, layer->cols, a));
            QEM_TRY(qem_affine_store(context, a));
        } else {
            QEM_TRY(qem_standardize_like(context, context->backend, standardized(layer), layer->rows, layer->cols, b, a));
        }
        layer->affine_count = base->affine_count;
        QEM_TRY(qem_layer_apply_steps(context, layer, i));
        QEM_TRY(check_standardized(context, layer));
    }
    return QEM_OK;
}

static qem_status take_base(qem_context *context, const qem_layer_fit *layer, const qem_stage *stage, qem_fit *fit)
{
    const uint64_t floats = qem_stage_codebook_floats(stage, layer->cols);
    void *memory;
    fit->k = stage->k;
    fit->scale = stage->scale;
    fit->mean = stage->mean;
    if (stage->group_bits) {
        QEM_TRY(qem_allocate(context, stage->groups, 1, &memory));
        fit->group_bits = memcpy(memory, stage->group_bits, (size_t)stage->groups);
    }
    QEM_TRY(allocate_labels(context, layer, fit));
    QEM_TRY(context->backend->alloc(context, floats, sizeof(float), &memory));
    fit->codebook = memory;
    if (fit->kind == QEM_CODEBOOK_UNIFORM || fit->kind == QEM_CODEBOOK_TABLE) return QEM_OK;
    return context->backend->to_device(context, fit->codebook, stage->codebook, floats * sizeof(float));
}

/* Integers of the codebook as the base has them. */
static qem_status take_codebook_codes(qem_context *context, uint64_t cols, const qem_stage *stage, qem_fit *fit)
{
    const uint64_t floats = qem_stage_codebook_floats(stage, cols), scales = 2 * qem_stage_components(stage, cols);
    const uint8_t *stream = stage->codebook_stored;
    void *memory;
    if (stage->codebook_dtype != QEM_DTYPE_U8) return QEM_OK;
    QEM_TRY(qem_allocate(context, floats, sizeof(uint16_t), &memory));
    fit->codebook_codes = memory;
    for (uint64_t i = 0; i < floats; i++) {
        const uint64_t bit = i * stage->codebook_bits;
        const uint32_t word = stream[bit / 8] | (uint32_t)stream[bit / 8 + 1] << 8 | (uint32_t)stream[bit / 8 + 2] << 16;
        fit->codebook_codes[i] = (uint16_t)(word >> (bit % 8) & (((uint32_t)1 << stage->codebook_bits) - 1));
    }
    QEM_TRY(qem_allocate(context, scales, sizeof(float), &memory));
    fit->codebook_scale = memcpy(memory, stage->codebook_scale, (size_t)scales * sizeof(float));
    return QEM_OK;
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

qem_status qem_range_encode(qem_context *context, const qem_layer_fit *layer, const qem_artifact *base, qem_range_fit *range)
{
    const qem_stage *stage = &base->stages[0];
    const qem_range_plan all = { 0, layer->rows, stage->k, 0.0, NULL };
    QEM_TRY(load_range(context, layer, &all, range));
    QEM_TRY(take_base(context, layer, stage, &range->fit));
    QEM_TRY(layer->ops->encode(&range->fit, base));
    return take_codebook_codes(context, layer->cols, stage, &range->fit);
}

qem_status qem_layer_encode(qem_context *context, qem_layer_fit *layer, const qem_artifact *base, uint32_t index,
                            qem_artifact *artifact)
{
    const qem_layer *from = &base->layers[index];
    qem_artifact alone = *base; /* what the method sees: the layer's stage as stage 0; of mixed rates that of the longer codes */
    alone.stages = &base->stages[from->stage_first];
    if (index > 0) memset(&alone.cells, 0, sizeof alone.cells);
    QEM_TRY(encode_steps(context, layer, from));
    QEM_TRY(qem_layer_search_like(context, layer, &alone));
    QEM_TRY(qem_layer_add_weights(context, layer));
    layer->range_count = 1;
    QEM_TRY(qem_range_encode(context, layer, &alone, &layer->range[0]));
    QEM_TRY(copy_cells(context, &alone, &layer->range[0].fit.cells));
    store_steps(layer, artifact, index);
    return store_range(context, &layer->range[0], artifact);
}
