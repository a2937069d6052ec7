/* The search for the best recipe: every candidate on a sample, the best on the whole matrix. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../methods/outliers.h"
#include "layer.h"
#include "search.h"

/* By effort: elements of the sample, Lloyd passes of a trial, rounds around the leader, candidates fitted on the whole matrix. */
static const struct {
    uint64_t elements;
    uint32_t iterations, rounds, finals;
} efforts[] = { { (uint64_t)1 << 16, 4, 0, 1 }, { (uint64_t)1 << 18, 6, 2, 1 }, { (uint64_t)1 << 20, 10, 4, 3 },
                { UINT64_MAX, 20, 6, 4 } };

#define FIRST_SHARE 0.7     /* of the trials' time that the first candidates take, for the progress callback */
#define MOST_FINALS 4
#define SURPRISE 0.95 /* a trial this much better than the best final is worth another one */
#define LEAST_SAMPLE ((uint64_t)1 << 16)
#define SMALL_SHARE 3       /* a small matrix is tried on a third of it: else the trials would take most of the time */
#define ROWS_OF_ROTATION 16 /* rows for each column that a rotation is learnt from, at least */
#define BLOCK_COLS 8u       /* neighbouring columns in a sample of columns */
#define LEAST_BLOCKS 8u
#define POINTS_PER_CENTROID 6 /* a sample of fewer would say little */

/* A part of the matrix as a view of its own, and the importance of that part. */
typedef struct sample {
    qem_view view, importance;
    int weighted; /* importance is there, and not all 0 */
} sample;

typedef struct search {
    qem_context *context;
    const qem_view *view;
    const qem_recipe *asked;
    float *gathered[2]; /* what columns borrow, of the matrix and of the importance */
    sample rows, columns, turned; /* spread rows, whole; many rows of few columns; more rows, for rotations */
} search;

/* ---- samples ---- */

/* Every step-th row, `rows` of them, and the first `cols` columns from `col` on. */
static qem_view part_of(const qem_view *view, uint64_t rows, uint64_t step, uint64_t col, uint64_t cols)
{
    qem_view part = *view;
    const uint64_t stride = view->row_stride ? view->row_stride : view->cols, across = view->col_stride ? view->col_stride : 1;
    part.rows = rows;
    part.cols = cols;
    part.data = (const char *)view->data + col * across * qem_dtype_size(view->dtype);
    part.row_stride = stride * step;
    part.row_pitch_bytes = view->row_pitch_bytes * step;
    part.col_stride = across;
    return part;
}

static void take_sample(const search *s, uint64_t rows, uint64_t col, uint64_t cols, sample *out)
{
    const qem_view *importance = s->asked->importance;
    const uint64_t step = s->view->rows / rows;
    out->view = part_of(s->view, rows, step, col, cols);
    if (importance) out->importance = part_of(importance, importance->rows > 1 ? rows : 1, importance->rows > 1 ? step : 1, col, cols);
}

static uint64_t at_most(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

/* `blocks` runs of BLOCK_COLS columns, spread over all columns, side by side in memory of their own. */
static qem_status gather_columns(qem_context *context, const qem_view *view, uint64_t rows, uint64_t step, uint64_t blocks,
                                 float **memory, qem_view *out)
{
    const uint64_t width = blocks * BLOCK_COLS, places = view->cols / BLOCK_COLS;
    void *gathered;
    QEM_TRY(qem_allocate(context, rows * width, sizeof(float), &gathered));
    *memory = gathered;
    for (uint64_t b = 0; b < blocks; b++) {
        const qem_view part = part_of(view, rows, step, b * places / blocks * BLOCK_COLS, BLOCK_COLS);
        qem_matrix matrix = { 0 };
        void *block;
        QEM_TRY(qem_allocate(context, rows * BLOCK_COLS, sizeof(float), &block));
        qem_status status = context->backend->load(context, &part, "sample", &matrix);
        if (status == QEM_OK) status = context->backend->to_host(context, block, matrix.x, rows * BLOCK_COLS * sizeof(float));
        for (uint64_t i = 0; i < rows && status == QEM_OK; i++)
            memcpy(*memory + i * width + b * BLOCK_COLS, (const float *)block + i * BLOCK_COLS, BLOCK_COLS * sizeof(float));
        context->backend->release(context, matrix.owned);
        qem_release(context, block);
        QEM_TRY(status);
    }
    *out = (qem_view)QEM_VIEW_INIT;
    out->data = *memory;
    out->rows = rows;
    out->cols = width;
    return QEM_OK;
}

/* Where each group of columns has a codebook: as many rows as may be, of some groups. */
static qem_status take_columns(search *s, uint64_t elements)
{
    const uint64_t rows = s->view->rows, cols = s->view->cols, places = cols / BLOCK_COLS;
    const qem_view *importance = s->asked->importance;
    const uint64_t blocks = at_most(places, elements / rows / BLOCK_COLS < LEAST_BLOCKS ? LEAST_BLOCKS : elements / rows / BLOCK_COLS);
    if (blocks == 0 || blocks == places) { /* all columns: nothing to gather */
        take_sample(s, at_most(rows, elements / cols ? elements / cols : 1), 0, cols, &s->columns);
        return QEM_OK;
    }
    const uint64_t tall = at_most(rows, elements / (blocks * BLOCK_COLS) ? elements / (blocks * BLOCK_COLS) : 1), step = rows / tall;
    QEM_TRY(gather_columns(s->context, s->view, tall, step, blocks, &s->gathered[0], &s->columns.view));
    if (!importance) return QEM_OK;
    const int each = importance->rows > 1;
    return gather_columns(s->context, importance, each ? tall : 1, each ? step : 1, blocks, &s->gathered[1], &s->columns.importance);
}

static qem_status take_samples(search *s)
{
    const uint64_t rows = s->view->rows, cols = s->view->cols;
    uint64_t elements = at_most(efforts[s->asked->effort].elements, rows * cols);
    if (s->asked->effort < 2 && elements > LEAST_SAMPLE && elements > rows * cols / SMALL_SHARE)
        elements = rows * cols / SMALL_SHARE > LEAST_SAMPLE ? rows * cols / SMALL_SHARE : LEAST_SAMPLE;
    const uint64_t whole = at_most(rows, elements / cols ? elements / cols : 1);
    take_sample(s, whole, 0, cols, &s->rows);
    take_sample(s, at_most(rows, whole > ROWS_OF_ROTATION * cols ? whole : ROWS_OF_ROTATION * cols), 0, cols, &s->turned);
    return take_columns(s, elements);
}

/* Loads a view for its errors, which name the element of the whole matrix, and its largest element. */
static qem_status check_view(qem_context *context, const qem_view *view, const char *what, float *greatest)
{
    qem_matrix matrix;
    float least;
    QEM_TRY(context->backend->load(context, view, what, &matrix));
    const qem_status status = context->backend->extremes(context, matrix.x, view->rows * view->cols, &least, greatest);
    context->backend->release(context, matrix.owned);
    return status;
}

static qem_status check_whole(const search *s)
{
    float greatest;
    QEM_TRY(check_view(s->context, s->view, "matrix", &greatest));
    return s->asked->importance ? check_view(s->context, s->asked->importance, "importance", &greatest) : QEM_OK;
}

/* Weights may all be 0 in a sample, which then says as much without them. */
static qem_status weigh_samples(search *s)
{
    sample *samples[] = { &s->rows, &s->columns, &s->turned };
    float greatest;
    for (size_t i = 0; s->asked->importance && i < sizeof samples / sizeof *samples; i++) {
        QEM_TRY(check_view(s->context, &samples[i]->importance, "importance", &greatest));
        samples[i]->weighted = greatest > 0.0f;
    }
    return QEM_OK;
}

/* ---- a trial ---- */

/* The plan of the whole matrix, its ranges brought down to the sample. UNSUPPORTED where the sample is too small for k. */
static qem_status plan_sample(const search *s, const qem_method_ops *ops, const qem_recipe *r, const qem_view *part,
                              qem_layer_plan *whole, qem_layer_plan *small)
{
    memset(whole, 0, sizeof *whole);
    const uint64_t rows = s->view->rows, cols = s->view->cols;
    qem_plan outliers = QEM_PLAN_INIT;
    const qem_outliers o = qem_outliers_shape(rows, cols, qem_outliers_count(rows, cols, r->outliers), r, s->view->dtype);
    qem_plan_add_outliers(&o, &outliers);
    qem_plan_steps(ops, r, rows, cols, whole);
    QEM_TRY(qem_plan_layer(s->context, ops, r, rows, cols,
                           qem_budget_bits(r, rows, cols) - 8.0 * (double)qem_parts_sum(&outliers.parts), whole));
    *small = *whole;
    if (small->range_count == 2) {
        const double share = (double)whole->range[0].row_end / (double)rows;
        uint64_t split = (uint64_t)(share * (double)part->rows + 0.5);
        split = split < 1 ? 1 : split;
        if (part->rows < 2 || split >= part->rows) { /* one range stands for both */
            small->range_count = 1;
            split = part->rows;
        }
        small->range[0].row_end = small->range[1].row_begin = split;
        small->range[1].row_end = part->rows;
    } else {
        small->range[0].row_end = part->rows;
        small->range[0].spare_bits *= (double)part->rows / (double)rows * ((double)part->cols / (double)cols);
    }
    const uint64_t groups = ops->kind == QEM_CODEBOOK_PER_GROUP ? 1 : (part->cols + r->dim - 1) / r->dim;
    const int all = part->rows == rows && part->cols == cols;
    for (uint32_t i = 0; i < small->range_count; i++) {
        const uint64_t points = (small->range[i].row_end - small->range[i].row_begin) * groups;
        if (small->range[i].k > (all ? points : points / POINTS_PER_CENTROID) && small->range[i].k > 1) return QEM_ERR_UNSUPPORTED;
    }
    return QEM_OK;
}

/* A centroid lies nearer to the points it was made of than to others of their kind. In samples of 16 to 64 points a centroid their
 * squared error came out too small by about 2 / m, m points each (sift_131k, w_charlstm_bolano_l0). */
static double optimism(const qem_method_ops *ops, const qem_recipe *r, const qem_layer_plan *plan, uint64_t cols)
{
    const double groups = ops->kind == QEM_CODEBOOK_PER_GROUP ? 1.0 : ceil((double)cols / (double)r->dim);
    double factor = 0.0, rows = 0.0;
    for (uint32_t i = 0; i < plan->range_count; i++) {
        const double here = (double)(plan->range[i].row_end - plan->range[i].row_begin);
        const double rest = 1.0 - 2.0 * (double)plan->range[i].k / (here * groups);
        factor += here * (rest > 0.1 ? rest : 0.1);
        rows += here;
    }
    return factor / rows;
}

/* What recipes are compared by: the mean squared error, weighted where there are weights. */
static qem_status judge(qem_context *context, const qem_view *view, const qem_view *importance, const qem_artifact *artifact,
                        double *mse)
{
    *mse = artifact->metrics.mse;
    return importance ? qem_measure_weighted(context, view, importance, artifact, mse) : QEM_OK;
}

static qem_status try_on(const search *s, const qem_recipe *recipe, const qem_view *view, const qem_layer_plan *plan, double *mse)
{
    qem_artifact *artifact = NULL;
    qem_status status = qem_quantize_as_planned(s->context, view, recipe, plan, &artifact);
    if (status == QEM_OK) status = judge(s->context, view, recipe->importance, artifact, mse);
    qem_artifact_destroy(&artifact);
    return status;
}

static qem_status try_recipe(const search *s, qem_trial *trial)
{
    const qem_method_ops *ops;
    qem_recipe r, asked = trial->recipe;
    qem_layer_plan whole, small;
    asked.iterations = efforts[s->asked->effort].iterations < asked.iterations ? efforts[s->asked->effort].iterations : asked.iterations;
    QEM_TRY(qem_resolve_layer(s->context, &asked, s->view->rows, s->view->cols, &ops, &r));
    const int by_groups = ops->kind == QEM_CODEBOOK_PER_GROUP && !ops->rotates;
    const sample *part = by_groups ? &s->columns : ops->rotates ? &s->turned : &s->rows;
    QEM_TRY(plan_sample(s, ops, &r, &part->view, &whole, &small));
    asked.importance = part->weighted ? &part->importance : NULL;
    QEM_TRY(try_on(s, &asked, &part->view, &small, &trial->mse));
    if (ops->kind != QEM_CODEBOOK_TABLE && ops->kind != QEM_CODEBOOK_UNIFORM)
        trial->mse *= optimism(ops, &r, &whole, s->view->cols) / optimism(ops, &r, &small, part->view.cols);
    return QEM_OK;
}

/* ---- the whole ---- */

static double rank(const qem_trial *t)
{
    return !isnan(t->final_mse) ? t->final_mse : !isnan(t->mse) ? t->mse : INFINITY;
}

/* Finals first, then by error; equal ones in the order tried (the sort is by insertion: stable). */
static void sort_trials(qem_trial *trials, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t j = i; j > 0; j--) {
            const int a = !isnan(trials[j - 1].final_mse), b = !isnan(trials[j].final_mse);
            if (a > b || (a == b && rank(&trials[j - 1]) <= rank(&trials[j]))) break;
            const qem_trial swap = trials[j];
            trials[j] = trials[j - 1];
            trials[j - 1] = swap;
        }
}

static int is_fatal(qem_status status)
{
    return status == QEM_ERR_MEMORY || status == QEM_ERR_CANCELLED || status == QEM_ERR_DATA || status == QEM_ERR_INTERNAL;
}

static qem_status try_next(const search *s, const qem_recipe *recipe, double done, qem_trial *trial)
{
    const double begin = qem_seconds();
    QEM_TRY(qem_report_progress(s->context, "trying recipes", done));
    *trial = (qem_trial)QEM_TRIAL_INIT;
    trial->recipe = *recipe;
    trial->mse = trial->final_mse = NAN;
    trial->status = try_recipe(s, trial);
    trial->seconds = qem_seconds() - begin;
    return is_fatal(trial->status) ? trial->status : QEM_OK;
}

static int is_tried(const qem_trial *trials, uint32_t count, const qem_recipe *recipe)
{
    for (uint32_t i = 0; i < count; i++)
        if (memcmp(&trials[i].recipe, recipe, sizeof *recipe) == 0) return 1;
    return 0;
}

/* From the leader to the best recipe beside it, as long as that is better. */
static qem_status try_neighbours(const search *s, double bits, qem_trial *trials, uint32_t *count)
{
    qem_recipe list[QEM_SEARCH_MOST_NEIGHBOURS];
    const uint32_t rounds = efforts[s->asked->effort].rounds;
    for (uint32_t round = 0; round < rounds; round++) {
        const qem_recipe leader = trials[0].recipe;
        if (isnan(trials[0].mse) || (leader.method == QEM_METHOD_OPQ && qem_search_is_wide(s->view->cols))) return QEM_OK;
        const uint32_t beside = qem_search_neighbours(s->asked, &leader, bits, list);
        for (uint32_t i = 0; i < beside && *count < QEM_MOST_TRIALS; i++) {
            if (is_tried(trials, *count, &list[i])) continue;
            QEM_TRY(try_next(s, &list[i], FIRST_SHARE + (1.0 - FIRST_SHARE) * (round + (double)i / beside) / rounds, &trials[*count]));
            ++*count;
        }
        sort_trials(trials, *count);
        if (memcmp(&trials[0].recipe, &leader, sizeof leader) == 0) return QEM_OK;
    }
    return QEM_OK;
}

static qem_status try_all(const search *s, qem_trial *trials, uint32_t *count)
{
    qem_recipe list[QEM_MOST_TRIALS];
    const double elements = (double)s->view->rows * (double)s->view->cols;
    const double bits = qem_budget_bits(s->asked, s->view->rows, s->view->cols) / elements;
    const double share = efforts[s->asked->effort].rounds ? FIRST_SHARE : 1.0;
    const uint32_t first = qem_search_candidates(s->asked, s->view->rows, s->view->cols, bits, list);
    for (*count = 0; *count < first; ++*count)
        QEM_TRY(try_next(s, &list[*count], share * (double)*count / first, &trials[*count]));
    sort_trials(trials, *count);
    return try_neighbours(s, bits, trials, count);
}

/* Fits the first trials on the whole matrix, `finals` of them, and more as long as the next one promises a smaller error than
 * was reached. The best artifact is kept where it is asked for. */
static qem_status fit_finals(const search *s, qem_trial *trials, uint32_t count, uint32_t finals, qem_artifact **artifact)
{
    double best = INFINITY;
    for (uint32_t i = 0, fitted = 0; i < count && fitted < MOST_FINALS && (fitted < finals || trials[i].mse < SURPRISE * best); i++) {
        qem_artifact *made = NULL;
        const double begin = qem_seconds();
        double error = NAN;
        trials[i].status = qem_quantize(s->context, s->view, "trial", &trials[i].recipe, &made);
        if (trials[i].status == QEM_OK) trials[i].status = judge(s->context, s->view, s->asked->importance, made, &error);
        trials[i].seconds += qem_seconds() - begin;
        if (trials[i].status != QEM_OK) {
            qem_artifact_destroy(&made);
            if (is_fatal(trials[i].status)) return trials[i].status;
            trials[i].mse = NAN;
            continue;
        }
        trials[i].final_mse = error;
        fitted++;
        const int better = trials[i].final_mse < best;
        if (better) best = trials[i].final_mse;
        if (better && artifact) {
            qem_artifact *swap = *artifact;
            *artifact = made;
            made = swap;
        }
        qem_artifact_destroy(&made);
    }
    sort_trials(trials, count);
    return QEM_OK;
}

static qem_status check_asked(qem_context *context, const qem_view *view, const qem_recipe *asked)
{
    qem_recipe plain = QEM_RECIPE_INIT, same;
    QEM_CHECK_STRUCT(context, asked, qem_recipe);
    if (asked->k) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: auto takes a ratio or bits, not a k");
    same = *asked;
    same.method = QEM_METHOD_NONE;
    same.ratio = same.bits = same.tolerance = 0.0;
    same.iterations = plain.iterations;
    same.restarts = plain.restarts;
    same.importance = NULL;
    same.params = 0;
    same.effort = plain.effort;
    if (memcmp(&same, &plain, sizeof same) != 0)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: auto finds all but budget, iterations, restarts, tolerance, params, "
                        "importance and effort by itself; another field is set");
    plain = *asked;
    plain.method = QEM_METHOD_LLOYDMAX; /* the checks that all methods share */
    return qem_check_recipe(context, &plain, view->rows, view->cols);
}

/* What keeps the most modest recipe from fitting says best why none does. */
static qem_status nothing_found(const search *s, const qem_trial *trials, uint32_t count)
{
    qem_recipe plain = *s->asked;
    qem_plan plan = QEM_PLAN_INIT;
    plain.method = QEM_METHOD_LLOYDMAX;
    plain.params = 0;
    QEM_TRY(qem_make_plan(s->context, s->view, &plain, &plan));
    qem_status status = QEM_ERR_BUDGET;
    for (uint32_t i = 0; i < count; i++)
        if (trials[i].status != QEM_ERR_BUDGET && trials[i].status != QEM_ERR_UNSUPPORTED) status = trials[i].status;
    return qem_fail(s->context, status, "auto: none of %u recipes can be carried out for this matrix and budget", count);
}

static qem_status rename_artifact(qem_context *context, const char *name, qem_artifact *artifact)
{
    void *memory;
    QEM_TRY(qem_allocate(context, strlen(name) + 1, 1, &memory));
    qem_release(context, artifact->name);
    artifact->name = strcpy(memory, name);
    return QEM_OK;
}

static qem_status search_and_fit(search *s, qem_trial *tried, uint32_t *count, qem_artifact **artifact)
{
    QEM_TRY(check_whole(s));
    QEM_TRY(take_samples(s));
    QEM_TRY(weigh_samples(s));
    QEM_TRY(try_all(s, tried, count));
    if (rank(&tried[0]) == INFINITY) return nothing_found(s, tried, *count);
    QEM_TRY(fit_finals(s, tried, *count, efforts[s->asked->effort].finals, artifact));
    return rank(&tried[0]) == INFINITY ? nothing_found(s, tried, *count) : QEM_OK;
}

qem_status qem_search(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe, qem_recipe *best,
                      qem_trial *trials, uint32_t *trial_count, qem_artifact **artifact)
{
    const double started = qem_seconds();
    if (!context) return QEM_ERR_ARGUMENT;
    if (artifact) *artifact = NULL;
    if (!best || (trials && !trial_count))
        return qem_fail(context, QEM_ERR_ARGUMENT, "best: the pointer is NULL, or trials without trial_count");
    QEM_TRY(qem_check_name(context, &name));
    QEM_TRY(qem_check_view(context, view, name, 1));
    QEM_TRY(check_asked(context, view, recipe));
    search s = { .context = context, .view = view, .asked = recipe };
    qem_artifact *made = NULL;
    uint32_t count = 0;
    void *memory;
    QEM_TRY(qem_allocate_zero(context, QEM_MOST_TRIALS, sizeof(qem_trial), &memory));
    qem_trial *tried = memory;
    qem_status status = search_and_fit(&s, tried, &count, artifact ? &made : NULL);
    if (status == QEM_OK && artifact) status = rename_artifact(context, name, made);
    if (status == QEM_OK) {
        *best = tried[0].recipe;
        if (trial_count) *trial_count = count;
        if (trials) memcpy(trials, tried, count * sizeof *tried);
        if (artifact) {
            made->quantize_seconds = qem_seconds() - started;
            *artifact = made;
            made = NULL;
        }
    }
    qem_artifact_destroy(&made);
    qem_release(context, s.gathered[0]);
    qem_release(context, s.gathered[1]);
    qem_release(context, memory);
    return status;
}
