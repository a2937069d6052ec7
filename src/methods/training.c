/*
 * Codebooks by k-means. Where one problem has very many sub-vectors, those of every n-th row are trained on and all are assigned
 * afterwards: the passes need several times the memory of their points, and more points would hardly better the codebook.
 */
#include <string.h>

#include "method.h"

#define MOST_WORDS ((uint64_t)40 << 20) /* of the points trained on, or */
#define TRAINED_PER_CENTROID 64         /* so many points for each centroid, if that is more */
#define LEAST_PER_CENTROID 24           /* where the step is rounded up */
#define WORDS_BESIDE 5                  /* that k-means has of each point: distance, labels, places, boxes */
#define LEAST_ROWS 256
#define ELEMENT_PASSES 2 /* Lloyd passes with a weight for each element, after those with one for each sub-vector */

/* ---- weights ---- */

qem_status qem_fit_pool_weights(const qem_fit *fit, float **pooled)
{
    const qem_subvectors *v = &fit->points;
    qem_subvectors weights = *v;
    void *memory;
    weights.x = fit->element_weight;
    *pooled = NULL;
    QEM_TRY(fit->backend->alloc(fit->context, fit->point_count, sizeof(float), &memory));
    *pooled = memory;
    return fit->backend->pool_weights(fit->context, weights, *pooled);
}

/*
 * Weights of elements make every search look at every centroid. So the passes are made with one weight for each sub-vector, whose
 * searches are pruned, and the last ones with the weights as they are: they find the few labels that differ.
 */
static qem_status kmeans_by_elements(qem_fit *fit)
{
    qem_kmeans_args args = qem_fit_kmeans_args(fit);
    float *pooled;
    qem_status status = qem_fit_pool_weights(fit, &pooled);
    args.element_weight = NULL;
    args.point_weight = pooled;
    if (status == QEM_OK) status = fit->backend->kmeans(fit->context, &args);
    fit->backend->release(fit->context, pooled);
    QEM_TRY(status);
    args = qem_fit_kmeans_args(fit);
    args.warm = 1;
    args.used = NULL; /* the seeds say it */
    if (args.iterations > ELEMENT_PASSES) args.iterations = ELEMENT_PASSES;
    return fit->backend->kmeans(fit->context, &args);
}

static qem_status kmeans(qem_fit *fit)
{
    const qem_kmeans_args args = qem_fit_kmeans_args(fit);
    return fit->element_weight ? kmeans_by_elements(fit) : fit->backend->kmeans(fit->context, &args);
}

static qem_status kmeans_warm(qem_fit *fit)
{
    qem_kmeans_args args = qem_fit_kmeans_args(fit);
    args.warm = 1;
    args.iterations = fit->recipe.refine;
    return fit->backend->kmeans(fit->context, &args);
}

/* ---- rows ---- */

/* Rows from one that is trained on to the next: no multiple of 2 or 3, since rows often come in pairs, triples, fours. */
static uint64_t training_step(const qem_fit *fit)
{
    const qem_problem *problem = fit->problems;
    if (fit->problem_count != 1 || problem->ids || problem->count != fit->point_count) return 1;
    const uint64_t words = (fit->element_weight ? 2 : 1) * (uint64_t)fit->points.dim + WORDS_BESIDE;
    const uint64_t needed = problem->k * TRAINED_PER_CENTROID, most = MOST_WORDS / words > needed ? MOST_WORDS / words : needed;
    if (problem->count <= most) return 1;
    uint64_t step = (problem->count - 1) / most + 1;
    while (step % 2 == 0 || step % 3 == 0) step++;
    return fit->points.rows / step >= LEAST_ROWS && problem->count / step >= problem->k * LEAST_PER_CENTROID ? step : 1;
}

int qem_fit_labels_are_late(const qem_fit *fit)
{
    return !fit->group_bits && training_step(fit) > 1;
}

/* Weights of points are by id: those of every step-th row side by side. */
static qem_status take_point_weights(const qem_fit *fit, uint64_t step, qem_fit *part, qem_matrix *weight)
{
    qem_view rows = QEM_VIEW_INIT;
    if (!fit->point_weight) return QEM_OK;
    rows.data = fit->point_weight;
    rows.rows = part->points.rows;
    rows.cols = fit->points.groups;
    rows.row_stride = step * fit->points.groups;
    QEM_TRY(fit->backend->load(fit->context, &rows, "weights", weight));
    part->point_weight = weight->x;
    return QEM_OK;
}

static qem_status take_labels(const qem_fit *fit, uint64_t step, qem_fit *part)
{
    const uint64_t groups = fit->points.groups;
    void *memory;
    QEM_TRY(fit->backend->alloc(fit->context, part->point_count, sizeof(uint32_t), &memory));
    part->labels = memory;
    for (uint64_t row = 0; row < part->points.rows && fit->labels; row++) /* warm starts read them */
        QEM_TRY(fit->backend->copy(fit->context, part->labels + row * groups, fit->labels + row * step * groups,
                                   groups * sizeof(uint32_t)));
    return QEM_OK;
}

/* The fit of every step-th row, by `run`: its codebook is that of all. *used: entries of it that are set. */
static qem_status train(qem_fit *fit, uint64_t step, qem_status (*run)(qem_fit *fit), uint64_t *used)
{
    qem_fit part = *fit;
    qem_matrix weight = { NULL, 0, 0, NULL };
    qem_problem problem = fit->problems[0];
    part.points.rows = (fit->points.rows - 1) / step + 1;
    part.points.cols = fit->points.cols * step;
    part.point_count = problem.count = part.points.rows * part.points.groups;
    part.problems = &problem;
    part.point_weight = NULL;
    part.labels = NULL;
    part.used = used;
    qem_status status = take_point_weights(fit, step, &part, &weight);
    if (status == QEM_OK) status = take_labels(fit, step, &part);
    if (status == QEM_OK) status = run(&part);
    fit->backend->release(fit->context, part.labels);
    fit->backend->release(fit->context, weight.owned);
    return status;
}

/* On all rows, with labels for the time being where the fit has none. */
static qem_status train_on_all(qem_fit *fit, qem_status (*run)(qem_fit *fit))
{
    qem_fit whole = *fit;
    void *memory;
    if (fit->labels) return run(fit);
    QEM_TRY(fit->backend->alloc(fit->context, fit->point_count, sizeof(uint32_t), &memory));
    whole.labels = memory;
    const qem_status status = run(&whole);
    fit->backend->release(fit->context, memory);
    return status;
}

static qem_status train_and_assign(qem_fit *fit, qem_status (*run)(qem_fit *fit))
{
    const uint64_t step = training_step(fit);
    uint64_t used = 0;
    if (step == 1) return run(fit);
    QEM_TRY(train(fit, step, run, &used));
    if (used < fit->k) QEM_TRY(train_on_all(fit, run)); /* few values, and some of them in other rows alone */
    return qem_fit_assign(fit);
}

/* ---- what methods call ---- */

qem_status qem_fit_kmeans_exact(qem_fit *fit)
{
    return train_and_assign(fit, kmeans);
}

qem_status qem_fit_refine_warm(qem_fit *fit)
{
    return train_and_assign(fit, kmeans_warm);
}

qem_status qem_fit_kmeans(qem_fit *fit)
{
    QEM_TRY(qem_fit_kmeans_exact(fit));
    if (!fit->recipe.codebook_bits) return QEM_OK;
    QEM_TRY(qem_fit_round_codebook(fit));
    return qem_fit_assign(fit);
}

static qem_status assign(const qem_fit *fit)
{
    const qem_kmeans_args args = qem_fit_kmeans_args(fit);
    return fit->backend->assign(fit->context, &args);
}

qem_status qem_fit_assign(qem_fit *fit)
{
    return fit->labels ? assign(fit) : QEM_OK;
}

qem_status qem_fit_label_rows(const qem_fit *fit, uint64_t begin, uint64_t end, uint32_t *labels)
{
    const uint64_t first = begin * fit->points.groups;
    qem_fit part = *fit;
    qem_problem problem = fit->problems[0];
    part.points.x += begin * fit->points.cols;
    part.points.rows = end - begin;
    part.point_count = problem.count = part.points.rows * part.points.groups;
    part.problems = &problem;
    part.labels = labels;
    if (part.element_weight) part.element_weight += begin * fit->points.cols;
    if (part.point_weight) part.point_weight += first;
    return assign(&part);
}
