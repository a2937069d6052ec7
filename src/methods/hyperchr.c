/*
 * HyperChr: the values at each position of the sub-vectors are cut at their l-quantiles, the cuts make cells, each cell gets
 * centroids in proportion to its sub-vectors and a k-means of its own; all centroids form one shared codebook. l = 1 is vq.
 * Beyond the paper: afterwards every sub-vector may take any centroid (assign), and all centroids may be moved together (refine).
 */
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "hyperchr_allocate.h"
#include "registry.h"

#define MOST_CELLS (1u << 24)
#define MOST_DEFAULT_INTERVALS 3
#define CENTROIDS_PER_CELL 8 /* below it the default takes fewer intervals: cells of few centroids have none for outliers */

/* l^dim, or 0 when that is above MOST_CELLS. */
static uint64_t cell_ids(uint32_t intervals, uint32_t dim)
{
    uint64_t ids = 1;
    for (uint32_t p = 0; p < dim; p++) {
        ids *= intervals;
        if (ids > MOST_CELLS) return 0;
    }
    return ids;
}

/* The grid as fitted, and the sub-vectors grouped by cell. */
typedef struct partition_state {
    uint64_t ids;      /* l^dim */
    uint32_t *keys;    /* device */
    uint64_t *offsets; /* host, [ids + 1] */
    uint64_t occupied; /* non-empty cells */
} partition_state;

static void drop(qem_fit *fit, partition_state *state)
{
    fit->backend->release(fit->context, state->keys);
    fit->backend->release(fit->context, fit->order);
    qem_release(fit->context, state->offsets);
    qem_release(fit->context, fit->cells.cuts);
    fit->order = NULL;
    fit->cells.cuts = NULL;
    memset(state, 0, sizeof *state);
}

static qem_status group(qem_fit *fit, partition_state *state, uint32_t intervals)
{
    qem_context *context = fit->context;
    void *memory;
    QEM_TRY(fit->backend->alloc(context, fit->point_count, sizeof(uint32_t), &memory));
    state->keys = memory;
    QEM_TRY(fit->backend->cell_ids(context, fit->points, intervals, fit->cells.cuts, state->keys));
    QEM_TRY(fit->backend->alloc(context, fit->point_count, sizeof(uint32_t), &memory));
    fit->order = memory;
    QEM_TRY(fit->backend->group_by_key(context, state->keys, fit->point_count, state->ids, fit->order, state->offsets));
    for (uint64_t c = 0; c < state->ids; c++) state->occupied += state->offsets[c + 1] > state->offsets[c];
    fit->backend->release(context, state->keys);
    state->keys = NULL;
    return QEM_OK;
}

static qem_status make_grid(qem_fit *fit, partition_state *state, uint32_t intervals)
{
    void *memory;
    state->ids = cell_ids(intervals, fit->points.dim);
    if (!state->ids)
        return qem_fail(fit->context, QEM_ERR_ARGUMENT, "hyperchr: %u intervals at each of %u positions make more than %u cells",
                        intervals, fit->points.dim, MOST_CELLS);
    QEM_TRY(qem_allocate(fit->context, (uint64_t)fit->points.dim * (intervals - 1), sizeof(float), &memory));
    fit->cells.cuts = memory;
    QEM_TRY(qem_allocate(fit->context, state->ids + 1, sizeof(uint64_t), &memory));
    state->offsets = memory;
    QEM_TRY(fit->backend->quantiles(fit->context, fit->points, intervals, fit->cells.cuts));
    return group(fit, state, intervals);
}

/* Cell tables from the offsets: ids, sizes, and one problem a cell. */
static qem_status list_cells(qem_fit *fit, const partition_state *state)
{
    void *memory;
    QEM_TRY(qem_fit_problems(fit, state->occupied));
    QEM_TRY(qem_allocate(fit->context, state->occupied, sizeof(uint32_t), &memory));
    fit->cells.id = memory;
    QEM_TRY(qem_allocate(fit->context, state->occupied + 1, sizeof(uint32_t), &memory));
    fit->cells.first = memory;
    fit->cells.count = 0;
    for (uint64_t c = 0; c < state->ids; c++) {
        const uint64_t count = state->offsets[c + 1] - state->offsets[c];
        if (count == 0) continue;
        qem_problem *problem = &fit->problems[fit->cells.count];
        *problem = (qem_problem){ .key = c, .ids = fit->order + state->offsets[c], .count = count, .width = fit->points.dim };
        fit->cells.id[fit->cells.count++] = (uint32_t)c;
    }
    return QEM_OK;
}

/*
 * The high-rate optimum in the place of the counts: (count * variance)^(dim/(dim+2)) of each cell, in units whose sum is about 2^36.
 * Few outliers decide a cell's plain variance, and one centroid each would do for them. So count * variance is taken as a
 * codebook sees it: the error E that seeds in proportion to the counts leave is about count * variance * k^(-2/dim).
 */
static qem_status weigh_cells(qem_fit *fit, const uint64_t *share, uint64_t *counts)
{
    const uint64_t cells = fit->cells.count;
    const double dim = (double)fit->points.dim;
    void *objective, *codebook = NULL, *labels = NULL;
    float *pooled = NULL;
    double sum = 0.0;
    uint64_t first = 0;
    QEM_TRY(qem_allocate(fit->context, cells, sizeof(double), &objective));
    double *weight = objective;
    for (uint64_t c = 0; c < cells; c++) {
        fit->problems[c].k = share[c];
        fit->problems[c].codebook_offset = first * fit->points.dim;
        first += share[c];
    }
    qem_status status = fit->backend->alloc(fit->context, first * fit->points.dim, sizeof(float), &codebook);
    if (status == QEM_OK) status = fit->backend->alloc(fit->context, fit->point_count, sizeof(uint32_t), &labels);
    if (status == QEM_OK && fit->element_weight) status = qem_fit_pool_weights(fit, &pooled);
    const qem_kmeans_args args = { .points = fit->points, .problems = fit->problems, .problem_count = cells,
                                   .codebook_dtype = QEM_DTYPE_F32, .iterations = 1, .restarts = 1, .seed = fit->context->seed,
                                   .point_weight = fit->element_weight ? pooled : fit->point_weight,
                                   .codebook = codebook, .labels = labels, .objective = weight };
    if (status == QEM_OK) status = fit->backend->kmeans(fit->context, &args);
    for (uint64_t c = 0; c < cells && status == QEM_OK; c++)
        sum += weight[c] = pow(weight[c], dim / (dim + 2.0)) * pow((double)share[c], 2.0 / (dim + 2.0));
    for (uint64_t c = 0; c < cells && status == QEM_OK; c++)
        counts[c] = 1 + (sum > 0.0 ? (uint64_t)(weight[c] / sum * 68719476736.0) : 0);
    fit->backend->release(fit->context, pooled);
    fit->backend->release(fit->context, labels);
    fit->backend->release(fit->context, codebook);
    qem_release(fit->context, objective);
    return status;
}

/* Shares the centroids out; where a cell has fewer distinct sub-vectors than its share, the rest goes to the others. */
static qem_status share_centroids(qem_fit *fit, uint64_t *table)
{
    const uint64_t cells = fit->cells.count;
    uint64_t *counts = table, *most = table + cells, *share = most + cells, *distinct = share + cells;
    for (uint64_t c = 0; c < cells; c++) counts[c] = most[c] = fit->problems[c].count;
    if (fit->recipe.allocation == QEM_ALLOCATION_VARIANCE) {
        QEM_TRY(qem_allocate_centroids(fit->context, fit->k, cells, counts, most, share));
        QEM_TRY(weigh_cells(fit, share, counts));
    }
    for (int limited = 1; limited;) {
        QEM_TRY(qem_allocate_centroids(fit->context, fit->k, cells, counts, most, share));
        for (uint64_t c = 0; c < cells; c++) fit->problems[c].k = share[c];
        QEM_TRY(fit->backend->count_distinct(fit->context, fit->points, fit->problems, cells, distinct));
        limited = 0;
        for (uint64_t c = 0; c < cells; c++)
            if (distinct[c] < share[c]) {
                most[c] = distinct[c];
                limited = 1;
            }
    }
    uint64_t first = 0;
    for (uint64_t c = 0; c < cells; c++) {
        fit->problems[c].codebook_offset = first * fit->points.dim;
        fit->problems[c].label_base = (uint32_t)first;
        fit->cells.first[c] = (uint32_t)first;
        first += share[c];
    }
    fit->cells.first[cells] = (uint32_t)first;
    fit->k = first;
    return QEM_OK;
}

static qem_status partition_cells(qem_fit *fit, const partition_state *state)
{
    void *memory;
    if (fit->k < state->occupied && fit->recipe.k)
        return qem_fail(fit->context, QEM_ERR_ARGUMENT,
                        "hyperchr: %u intervals leave %llu non-empty cells, which need a centroid each; k is %llu",
                        fit->recipe.intervals, (unsigned long long)state->occupied, (unsigned long long)fit->k);
    if (fit->k < state->occupied)
        return qem_fail(fit->context, QEM_ERR_BUDGET,
                        "hyperchr: %u intervals leave %llu non-empty cells, but the budget allows %llu centroids; the largest "
                        "ratio with one centroid a cell is %.6g", fit->recipe.intervals, (unsigned long long)state->occupied,
                        (unsigned long long)fit->k,
                        qem_six_digits_below((double)fit->points.rows * (double)fit->points.cols * 4.0 /
                                             (double)qem_recipe_bytes(QEM_CODEBOOK_SHARED, fit->points.rows, fit->points.cols,
                                                                      &fit->recipe, state->occupied)));
    QEM_TRY(list_cells(fit, state));
    QEM_TRY(qem_allocate(fit->context, 4 * state->occupied, sizeof(uint64_t), &memory));
    const qem_status status = share_centroids(fit, memory);
    qem_release(fit->context, memory);
    return status;
}

/* The default: as many intervals as leave CENTROIDS_PER_CELL to each non-empty cell. */
static qem_status choose_grid(qem_fit *fit, partition_state *state)
{
    for (uint32_t l = MOST_DEFAULT_INTERVALS; l > 1; l--) {
        if (!cell_ids(l, fit->points.dim)) continue;
        QEM_TRY(make_grid(fit, state, l));
        if (fit->k >= CENTROIDS_PER_CELL * state->occupied) {
            fit->recipe.intervals = l;
            return QEM_OK;
        }
        drop(fit, state);
    }
    fit->recipe.intervals = 1;
    return QEM_OK;
}

static qem_status partition(qem_fit *fit)
{
    partition_state state;
    memset(&state, 0, sizeof state);
    qem_status status = QEM_OK;
    if (fit->recipe.intervals == 0)
        status = choose_grid(fit, &state);
    else if (fit->recipe.intervals > 1)
        status = make_grid(fit, &state, fit->recipe.intervals);
    if (status == QEM_OK && fit->recipe.intervals > 1) {
        fit->cells.intervals = fit->recipe.intervals;
        status = partition_cells(fit, &state);
    }
    fit->backend->release(fit->context, state.keys);
    qem_release(fit->context, state.offsets);
    if (status == QEM_OK && fit->recipe.intervals == 1) status = qem_method_find(QEM_METHOD_VQ)->partition(fit);
    return status;
}

/* ---- fit ---- */

static int is_global(const qem_recipe *recipe)
{
    return recipe->assign == QEM_ASSIGN_GLOBAL || recipe->refine > 0;
}

/* The sub-vectors of all cells as one problem. */
static qem_status join_cells(qem_fit *fit)
{
    QEM_TRY(qem_fit_problems(fit, 1));
    fit->problems[0] = (qem_problem){ .step = 1, .count = fit->point_count, .k = fit->k, .width = fit->points.dim };
    return QEM_OK;
}

/* With weights: k-means over all sub-vectors that goes on from the cells' centroids. */
static qem_status refine_weighted(qem_fit *fit)
{
    QEM_TRY(join_cells(fit));
    return fit->recipe.refine ? qem_fit_refine_warm(fit) : qem_fit_assign(fit);
}

static qem_status refine(qem_fit *fit)
{
    void *memory;
    if (fit->element_weight || fit->point_weight) return refine_weighted(fit);
    QEM_TRY(qem_allocate(fit->context, fit->cells.count + 1, sizeof(uint64_t), &memory));
    uint64_t *offsets = memory;
    offsets[0] = 0;
    for (uint64_t c = 0; c < fit->cells.count; c++) offsets[c + 1] = offsets[c] + fit->problems[c].count;
    const qem_refine_args args = {
        .points = fit->points,
        .order = fit->order,
        .offsets = offsets,
        .cells = fit->cells.count,
        .k = fit->k,
        .codebook_dtype = fit->recipe.codebook,
        .passes = fit->recipe.refine,
        .codebook = fit->codebook,
        .labels = fit->labels,
    };
    const qem_status status = fit->backend->refine(fit->context, &args);
    qem_release(fit->context, memory);
    return status;
}

/* The codes against the codebook as stored, which rounding has moved. */
static qem_status round_codebook(qem_fit *fit)
{
    if (!fit->recipe.codebook_bits) return QEM_OK;
    QEM_TRY(qem_fit_round_codebook(fit));
    if (is_global(&fit->recipe)) QEM_TRY(join_cells(fit));
    return qem_fit_assign(fit);
}

static qem_status fit_cells(qem_fit *fit)
{
    if (fit->recipe.intervals == 1) { /* one cell: refining passes are passes like the others */
        const uint32_t passes = fit->recipe.iterations + fit->recipe.refine;
        fit->recipe.iterations = passes < fit->recipe.refine ? UINT32_MAX : passes;
        return qem_fit_kmeans(fit);
    }
    QEM_TRY(qem_fit_kmeans_exact(fit));
    if (is_global(&fit->recipe)) QEM_TRY(refine(fit));
    return round_codebook(fit);
}

/* ---- new rows ---- */

/* One problem for each cell that new rows fall into; those of cells that were empty may take any centroid. */
static qem_status encode_problems(qem_fit *fit, const qem_artifact *base, const uint64_t *offsets, uint64_t ids)
{
    const qem_cells *cells = &base->cells;
    uint64_t occupied = 0, known = 0;
    for (uint64_t c = 0; c < ids; c++) occupied += offsets[c + 1] > offsets[c];
    QEM_TRY(qem_fit_problems(fit, occupied));
    uint64_t next = 0;
    for (uint64_t c = 0; c < ids; c++) {
        if (offsets[c + 1] == offsets[c]) continue;
        while (known < cells->count && cells->id[known] < c) known++;
        const int found = known < cells->count && cells->id[known] == c;
        const uint32_t first = found ? cells->first[known] : 0;
        fit->problems[next++] = (qem_problem){
            .key = c,
            .ids = fit->order + offsets[c],
            .count = offsets[c + 1] - offsets[c],
            .k = found ? cells->first[known + 1] - first : base->stages[0].k,
            .codebook_offset = (uint64_t)first * fit->points.dim,
            .width = fit->points.dim,
            .label_base = first,
        };
    }
    return QEM_OK;
}

static qem_status encode_cells(qem_fit *fit, const qem_artifact *base, partition_state *state)
{
    void *memory;
    const uint32_t intervals = base->cells.intervals;
    const uint64_t cuts = (uint64_t)fit->points.dim * (intervals - 1);
    state->ids = cell_ids(intervals, fit->points.dim);
    QEM_TRY(qem_allocate(fit->context, cuts, sizeof(float), &memory));
    fit->cells.cuts = memory;
    memcpy(memory, base->cells.cuts, (size_t)cuts * sizeof(float));
    QEM_TRY(qem_allocate(fit->context, state->ids + 1, sizeof(uint64_t), &memory));
    state->offsets = memory;
    QEM_TRY(group(fit, state, intervals));
    QEM_TRY(encode_problems(fit, base, state->offsets, state->ids));
    return qem_fit_assign(fit);
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    if (base->cells.intervals <= 1 || is_global(&base->recipe)) return qem_method_find(QEM_METHOD_VQ)->encode(fit, base);
    partition_state state;
    memset(&state, 0, sizeof state);
    const qem_status status = encode_cells(fit, base, &state);
    fit->backend->release(fit->context, state.keys);
    qem_release(fit->context, state.offsets);
    return status;
}

const qem_method_ops qem_hyperchr_ops = {
    .id = QEM_METHOD_HYPERCHR,
    .name = "hyperchr",
    .kind = QEM_CODEBOOK_SHARED,
    .default_dim = 4,
    .most_k = 1u << 24,
    .intervals = 1,
    .allocates = 1,
    .partition = partition,
    .fit = fit_cells,
    .encode = encode,
};
