/*
 * Locally optimized product quantization (Kalantidis and Avrithis 2014): coarse cells of rows by k-means; what is left of a row
 * when its cell's centroid is taken away is coded by the cell's own opq. While they are at work the rows lie cell by cell.
 */
#include <string.h>

#include "registry.h"
#include "rotated.h"

#define ROWS_AT_ONCE 4096 /* that change places at once */

typedef struct local {
    qem_fit *fit;
    const qem_backend *backend;
    uint64_t rows, cols, cells, at_once;
    float *x, *y;       /* device, [rows][cols]: cell by cell */
    float *encoder;     /* device, [cols][cols] */
    uint32_t *labels;   /* device, [rows][groups]: cell by cell */
    float *weight;      /* device, [rows][groups]: cell by cell, or NULL */
    uint32_t *row_cell; /* host, [rows] */
    uint64_t *first;    /* host, [cells + 1]: where a cell's rows begin */
    uint64_t *next;     /* host, [cells] */
    unsigned char *stage; /* host: rows that change places */
} local;

static qem_status device_memory(local *l, uint64_t count, uint64_t size, void *slot)
{
    void *memory;
    const qem_status status = l->backend->alloc(l->fit->context, count, size, &memory);
    memcpy(slot, &memory, sizeof memory);
    return status;
}

static qem_status host_memory(local *l, uint64_t count, uint64_t size, void *slot)
{
    void *memory;
    const qem_status status = qem_allocate_zero(l->fit->context, count, size, &memory);
    memcpy(slot, &memory, sizeof memory);
    return status;
}

static qem_status begin(qem_fit *fit, uint64_t cells, local *l)
{
    const uint64_t widest = fit->points.cols * sizeof(float); /* of x and labels, groups <= cols */
    *l = (local){ .fit = fit, .backend = fit->backend, .rows = fit->points.rows, .cols = fit->points.cols, .cells = cells };
    l->at_once = l->rows < ROWS_AT_ONCE ? l->rows : ROWS_AT_ONCE;
    fit->cells_of_rows = (uint32_t)cells;
    QEM_TRY(device_memory(l, l->rows * l->cols, sizeof(float), &l->x));
    QEM_TRY(device_memory(l, l->rows * l->cols, sizeof(float), &l->y));
    QEM_TRY(device_memory(l, l->cols * l->cols, sizeof(float), &l->encoder));
    QEM_TRY(device_memory(l, fit->point_count, sizeof(uint32_t), &l->labels));
    if (fit->point_weight) QEM_TRY(device_memory(l, fit->point_count, sizeof(float), &l->weight));
    QEM_TRY(device_memory(l, cells * l->cols * l->cols, sizeof(float), &fit->rotation));
    QEM_TRY(device_memory(l, cells * l->cols, sizeof(float), &fit->coarse));
    QEM_TRY(device_memory(l, l->rows, sizeof(uint32_t), &fit->row_cells));
    QEM_TRY(host_memory(l, l->rows, sizeof(uint32_t), &l->row_cell));
    QEM_TRY(host_memory(l, cells + 1, sizeof(uint64_t), &l->first));
    QEM_TRY(host_memory(l, cells, sizeof(uint64_t), &l->next));
    return host_memory(l, 2 * l->at_once, widest, &l->stage);
}

static void end(local *l)
{
    l->backend->release(l->fit->context, l->x);
    l->backend->release(l->fit->context, l->y);
    l->backend->release(l->fit->context, l->encoder);
    l->backend->release(l->fit->context, l->labels);
    l->backend->release(l->fit->context, l->weight);
    qem_release(l->fit->context, l->row_cell);
    qem_release(l->fit->context, l->first);
    qem_release(l->fit->context, l->next);
    qem_release(l->fit->context, l->stage);
}

/* ---- coarse cells ---- */

/* The rows as sub-vectors of one group, their labels the cells. */
static qem_kmeans_args coarse_arguments(const local *l, const qem_problem *problem)
{
    qem_kmeans_args args = qem_fit_kmeans_args(l->fit);
    args.points = qem_cut(l->fit->points.x, l->rows, l->cols, (uint32_t)l->cols);
    args.problems = problem;
    args.problem_count = 1;
    args.codebook_dtype = qem_recipe_halves_rotation(&l->fit->recipe) ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
    args.point_weight = NULL;
    args.codebook = l->fit->coarse;
    args.labels = l->fit->row_cells;
    return args;
}

/* Cells of the rows, and where the rows of each begin. base: the artifact that has the centroids, or NULL. */
static qem_status find_cells(local *l, const qem_artifact *base)
{
    qem_context *context = l->fit->context;
    const uint64_t coarse_bytes = l->cells * l->cols * sizeof(float);
    const qem_problem problem = { .key = UINT32_MAX, .step = 1, .count = l->rows, .k = l->cells, .width = (uint32_t)l->cols };
    const qem_kmeans_args args = coarse_arguments(l, &problem);
    if (base) QEM_TRY(l->backend->to_device(context, l->fit->coarse, base->stages[0].coarse, coarse_bytes));
    QEM_TRY(base ? l->backend->assign(context, &args) : l->backend->kmeans(context, &args));
    QEM_TRY(l->backend->to_host(context, l->row_cell, l->fit->row_cells, l->rows * sizeof(uint32_t)));
    for (uint64_t i = 0; i < l->rows; i++) l->first[l->row_cell[i] + 1]++;
    for (uint64_t c = 0; c < l->cells; c++) l->first[c + 1] += l->first[c];
    return QEM_OK;
}

/* Rows of a chunk in their own order, and those of one cell side by side. */
typedef struct move {
    const uint32_t *cell; /* [rows] */
    uint64_t rows, bytes;
    unsigned char *in_order, *of_cell;
} move;

static uint64_t count_rows(const move *m, uint64_t cell)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < m->rows; i++) count += m->cell[i] == cell;
    return count;
}

static void take_rows(const move *m, uint64_t cell)
{
    unsigned char *to = m->of_cell;
    for (uint64_t i = 0; i < m->rows; i++)
        if (m->cell[i] == cell) {
            memcpy(to, m->in_order + i * m->bytes, (size_t)m->bytes);
            to += m->bytes;
        }
}

static void put_rows(const move *m, uint64_t cell)
{
    const unsigned char *from = m->of_cell;
    for (uint64_t i = 0; i < m->rows; i++)
        if (m->cell[i] == cell) {
            memcpy(m->in_order + i * m->bytes, from, (size_t)m->bytes);
            from += m->bytes;
        }
}

/* Rows of a cell follow each other on the sorted side, so a chunk has one run of each. */
static qem_status sort_chunk(local *l, const move *m, unsigned char *sorted)
{
    for (uint64_t c = 0; c < l->cells; c++) {
        const uint64_t count = count_rows(m, c);
        if (count == 0) continue;
        take_rows(m, c);
        QEM_TRY(l->backend->to_device(l->fit->context, sorted + l->next[c] * m->bytes, m->of_cell, count * m->bytes));
        l->next[c] += count;
    }
    return QEM_OK;
}

static qem_status unsort_chunk(local *l, const move *m, const unsigned char *sorted)
{
    for (uint64_t c = 0; c < l->cells; c++) {
        const uint64_t count = count_rows(m, c);
        if (count == 0) continue;
        QEM_TRY(l->backend->to_host(l->fit->context, m->of_cell, sorted + l->next[c] * m->bytes, count * m->bytes));
        put_rows(m, c);
        l->next[c] += count;
    }
    return QEM_OK;
}

/* Copies rows of `bytes` each from their own order to that cell by cell. */
static qem_status sort_rows(local *l, const void *in_order, void *sorted, uint64_t bytes)
{
    memcpy(l->next, l->first, (size_t)l->cells * sizeof *l->next);
    for (uint64_t row = 0; row < l->rows; row += l->at_once) {
        const uint64_t n = l->rows - row < l->at_once ? l->rows - row : l->at_once;
        const move m = { l->row_cell + row, n, bytes, l->stage, l->stage + l->at_once * bytes };
        QEM_TRY(l->backend->to_host(l->fit->context, m.in_order, (const unsigned char *)in_order + row * bytes, n * bytes));
        QEM_TRY(sort_chunk(l, &m, sorted));
    }
    return QEM_OK;
}

static qem_status unsort_rows(local *l, const void *sorted, void *in_order, uint64_t bytes)
{
    memcpy(l->next, l->first, (size_t)l->cells * sizeof *l->next);
    for (uint64_t row = 0; row < l->rows; row += l->at_once) {
        const uint64_t n = l->rows - row < l->at_once ? l->rows - row : l->at_once;
        const move m = { l->row_cell + row, n, bytes, l->stage, l->stage + l->at_once * bytes };
        QEM_TRY(unsort_chunk(l, &m, sorted));
        QEM_TRY(l->backend->to_device(l->fit->context, (unsigned char *)in_order + row * bytes, m.in_order, n * bytes));
    }
    return QEM_OK;
}

/* ---- the cells one by one ---- */

static qem_rotated_rows part_of(const local *l, uint64_t cell)
{
    const uint64_t first = l->first[cell], groups = l->fit->points.groups;
    return (qem_rotated_rows){
        .x = l->x + first * l->cols,
        .y = l->y + first * l->cols,
        .rows = l->first[cell + 1] - first,
        .cell = cell,
        .encoder = l->encoder,
        .decoder = l->fit->rotation + cell * l->cols * l->cols,
        .codebook = l->fit->codebook + cell * l->fit->k * l->cols,
        .labels = l->labels + first * groups,
        .weight = l->weight ? l->weight + first * groups : NULL,
    };
}

/* x = y - coarse, by the identity, which changes nothing. */
static qem_status subtract_centroids(local *l)
{
    qem_context *context = l->fit->context;
    void *memory;
    QEM_TRY(qem_allocate_zero(context, l->cols * l->cols, sizeof(float), &memory));
    for (uint64_t i = 0; i < l->cols; i++) ((float *)memory)[i * l->cols + i] = 1.0f;
    qem_status status = l->backend->to_device(context, l->encoder, memory, l->cols * l->cols * sizeof(float));
    for (uint64_t c = 0; c < l->cells && status == QEM_OK; c++) {
        const uint64_t first = l->first[c];
        status = l->backend->rotate(context, l->y + first * l->cols, l->first[c + 1] - first, l->cols, l->encoder,
                                    l->fit->coarse + c * l->cols, NULL, l->x + first * l->cols);
    }
    qem_release(context, memory);
    return status;
}

/* Integers for the codebooks of all cells where the recipe wants them, and the labels that go with them. */
static qem_status round_cells(local *l)
{
    if (!l->fit->recipe.codebook_bits) return QEM_OK;
    QEM_TRY(qem_fit_round_codebook(l->fit));
    for (uint64_t c = 0; c < l->cells; c++) {
        const qem_rotated_rows part = part_of(l, c);
        QEM_TRY(qem_rotated_assign(l->fit, &part));
    }
    return QEM_OK;
}

static qem_status fit_cells(local *l)
{
    qem_fit *fit = l->fit;
    QEM_TRY(sort_rows(l, fit->points.x, l->y, l->cols * sizeof(float)));
    if (l->weight) QEM_TRY(sort_rows(l, fit->point_weight, l->weight, fit->points.groups * sizeof(float)));
    QEM_TRY(subtract_centroids(l));
    for (uint64_t c = 0; c < l->cells; c++) {
        qem_rotated_rows part = part_of(l, c);
        QEM_TRY(qem_rotated_fit(fit, &part));
    }
    return round_cells(l);
}

static qem_status encode_cells(local *l, const qem_stage *stage)
{
    qem_fit *fit = l->fit;
    const uint64_t square = l->cols * l->cols;
    QEM_TRY(l->backend->to_device(fit->context, fit->rotation, stage->rotation, l->cells * square * sizeof(float)));
    QEM_TRY(sort_rows(l, fit->points.x, l->x, l->cols * sizeof(float)));
    for (uint64_t c = 0; c < l->cells; c++) {
        const qem_rotated_rows part = part_of(l, c);
        QEM_TRY(qem_rotated_encode(fit, &part, stage->rotation + c * square, fit->coarse + c * l->cols));
    }
    return QEM_OK;
}

static qem_status run(qem_fit *fit, uint64_t cells, const qem_artifact *base)
{
    local l;
    int fits;
    QEM_TRY(qem_rotated_fits(fit, fit->points.x, fit->points.rows, 2.0, &fits));
    if (!fits) return qem_fail(fit->context, QEM_ERR_RANGE, "lopq: what cells and rotations make of such values is beyond the range of f32");
    QEM_TRY(qem_fit_problems(fit, fit->points.groups));
    qem_status status = begin(fit, cells, &l);
    if (status == QEM_OK) status = find_cells(&l, base);
    if (status == QEM_OK) status = base ? encode_cells(&l, &base->stages[0]) : fit_cells(&l);
    if (status == QEM_OK) status = unsort_rows(&l, l.labels, fit->labels, fit->points.groups * sizeof(uint32_t));
    end(&l);
    return status;
}

/* ---- the method ---- */

/* What the centroids leave may have more distinct sub-vectors than the matrix, but no more than this are needed to be exact. */
static qem_status partition(qem_fit *fit)
{
    if (fit->recipe.cells > fit->points.rows)
        return qem_fail(fit->context, QEM_ERR_ARGUMENT, "cells: %u, but the matrix has %llu rows", fit->recipe.cells,
                        (unsigned long long)fit->points.rows);
    return qem_method_find(QEM_METHOD_PQ)->partition(fit);
}

static qem_status fit_rows(qem_fit *fit)
{
    return run(fit, fit->recipe.cells, NULL);
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    fit->k = base->stages[0].k;
    return run(fit, base->stages[0].cells, base);
}

const qem_method_ops qem_lopq_ops = {
    .id = QEM_METHOD_LOPQ,
    .name = "lopq",
    .kind = QEM_CODEBOOK_PER_GROUP,
    .rotates = 1,
    .default_dim = 4,
    .most_k = 1u << 24,
    .partition = partition,
    .fit = fit_rows,
    .encode = encode,
};
