#include "allocate_bits.h"

#include <math.h>
#include <string.h>

#include "rotation.h"

#define MOST_FULL 32       /* columns of a group whose covariance is made */
#define ROWS_AT_ONCE 1024

/* ---- variances ---- */

static uint64_t group_width(const qem_subvectors *v, uint64_t group)
{
    return group + 1 == v->groups ? v->tail_dim : v->dim;
}

/* Some rows on the host, and the square roots of their elements' weights. */
typedef struct row_chunk {
    float *x, *weight; /* [ROWS_AT_ONCE][cols], weight: as the fit has it */
    uint64_t rows;
} row_chunk;

static qem_status load_chunk(const qem_fit *fit, uint64_t row, row_chunk *c)
{
    const qem_subvectors *v = &fit->points;
    const uint64_t width = fit->element_weight ? v->cols : v->groups;
    const float *weight = fit->element_weight ? fit->element_weight : fit->point_weight;
    c->rows = v->rows - row < ROWS_AT_ONCE ? v->rows - row : ROWS_AT_ONCE;
    QEM_TRY(fit->backend->to_host(fit->context, c->x, v->x + row * v->cols, c->rows * v->cols * sizeof(float)));
    return weight ? fit->backend->to_host(fit->context, c->weight, weight + row * width, c->rows * width * sizeof(float)) : QEM_OK;
}

static double weight_of(const qem_fit *fit, const row_chunk *c, uint64_t row, uint64_t col)
{
    if (fit->element_weight) return (double)c->weight[row * fit->points.cols + col];
    return fit->point_weight ? (double)c->weight[row * fit->points.groups + col / fit->points.dim] : 1.0;
}

/* Weighted sums of the columns, and their weights. */
static void add_sums(const qem_fit *fit, const row_chunk *c, double *sum, double *weight)
{
    const uint64_t cols = fit->points.cols;
    for (uint64_t i = 0; i < c->rows; i++)
        for (uint64_t j = 0; j < cols; j++) {
            const double w = weight_of(fit, c, i, j);
            sum[j] = fma(w, (double)c->x[i * cols + j], sum[j]);
            weight[j] += w;
        }
}

/* square: [dim][dim] of each group of `full` columns at most, the lower triangles; else [cols]. row: [cols] */
static void add_squares(const qem_fit *fit, const row_chunk *c, const double *mean, double *row, double *square)
{
    const qem_subvectors *v = &fit->points;
    for (uint64_t i = 0; i < c->rows; i++) {
        for (uint64_t j = 0; j < v->cols; j++)
            row[j] = sqrt(weight_of(fit, c, i, j)) * ((double)c->x[i * v->cols + j] - mean[j]);
        for (uint64_t j = 0; j < v->cols && v->dim > MOST_FULL; j++) square[j] = fma(row[j], row[j], square[j]);
        for (uint64_t g = 0; g < v->groups && v->dim <= MOST_FULL; g++) {
            const double *e = row + g * v->dim;
            double *s = square + g * v->dim * v->dim;
            for (uint64_t p = 0; p < group_width(v, g); p++)
                for (uint64_t q = 0; q <= p; q++) s[p * v->dim + q] = fma(e[p], e[q], s[p * v->dim + q]);
        }
    }
}

static qem_status sum_up(const qem_fit *fit, row_chunk *c, double *mean, double *row, double *square)
{
    const qem_subvectors *v = &fit->points;
    for (uint64_t i = 0; i < v->rows; i += ROWS_AT_ONCE) {
        QEM_TRY(load_chunk(fit, i, c));
        add_sums(fit, c, mean, row);
    }
    for (uint64_t j = 0; j < v->cols; j++) mean[j] = row[j] > 0.0 ? mean[j] / row[j] : 0.0;
    for (uint64_t i = 0; i < v->rows; i += ROWS_AT_ONCE) {
        QEM_TRY(load_chunk(fit, i, c));
        add_squares(fit, c, mean, row, square);
    }
    return QEM_OK;
}

static void sort_descending(double *values, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        const double value = values[i];
        uint64_t j = i;
        for (; j > 0 && values[j - 1] < value; j--) values[j] = values[j - 1];
        values[j] = value;
    }
}

/* The principal variances of one group, from the lower triangle of its squares. */
static qem_status principal(const qem_fit *fit, uint64_t group, double *squares, double *variance)
{
    const uint64_t dim = fit->points.dim, width = group_width(&fit->points, group);
    double matrix[MOST_FULL * MOST_FULL];
    int found = 0;
    for (uint64_t p = 0; p < width; p++)
        for (uint64_t q = 0; q <= p; q++) matrix[p * width + q] = matrix[q * width + p] = squares[p * dim + q];
    if (width > 1) QEM_TRY(qem_rotation_variances(fit->context, width, matrix, variance, &found));
    for (uint64_t p = 0; p < width && !found; p++) variance[p] = squares[p * dim + p];
    for (uint64_t p = 0; p < width; p++) variance[p] = fmax(variance[p], 0.0);
    sort_descending(variance, width);
    return QEM_OK;
}

static qem_status finish(const qem_fit *fit, double *square, double *variance)
{
    const qem_subvectors *v = &fit->points;
    if (v->dim <= MOST_FULL) {
        for (uint64_t g = 0; g < v->groups; g++)
            QEM_TRY(principal(fit, g, square + g * v->dim * v->dim, variance + g * v->dim));
        return QEM_OK;
    }
    memcpy(variance, square, (size_t)v->cols * sizeof *variance);
    for (uint64_t g = 0; g < v->groups; g++) sort_descending(variance + g * v->dim, group_width(v, g));
    return QEM_OK;
}

qem_status qem_group_variances(const qem_fit *fit, double *variance)
{
    const qem_subvectors *v = &fit->points;
    const uint64_t squares = v->dim <= MOST_FULL ? v->groups * v->dim * v->dim : v->cols;
    const uint64_t chunk = v->rows < ROWS_AT_ONCE ? v->rows : ROWS_AT_ONCE;
    void *memory, *floats;
    QEM_TRY(qem_allocate_zero(fit->context, 2 * v->cols + squares, sizeof(double), &memory));
    qem_status status = qem_allocate(fit->context, 2 * chunk * v->cols, sizeof(float), &floats);
    if (status == QEM_OK) {
        double *mean = memory, *row = mean + v->cols, *square = row + v->cols;
        row_chunk c = { floats, (float *)floats + chunk * v->cols, 0 };
        status = sum_up(fit, &c, mean, row, square);
        if (status == QEM_OK) status = finish(fit, square, variance);
        qem_release(fit->context, floats);
    }
    qem_release(fit->context, memory);
    return status;
}

/* ---- errors ---- */

/* Mean squared error of the best 2^b levels for a normal distribution of variance 1 (Max 1960; Lloyd 1982). */
static double scalar_error(uint32_t bits)
{
    static const double table[] = { 1.0, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499, 0.0006442 };
    const uint32_t last = sizeof table / sizeof *table - 1;
    return bits <= last ? table[bits] : ldexp(table[last], -2 * (int)(bits - last));
}

double qem_expected_error(const double *variance, uint64_t width, uint32_t bits)
{
    double logs = 0.0, level = 0.0, error = 0.0;
    uint64_t coded = 0; /* axes above the water level; bits are shared by those */
    if (width == 1) return variance[0] * scalar_error(bits);
    if (bits > 0)
        for (; coded < width && variance[coded] > level && variance[coded] > 0.0; coded++) {
            const double wider = logs + log2(variance[coded]);
            const double next = exp2((wider - 2.0 * bits) / (double)(coded + 1));
            if (coded > 0 && next >= variance[coded]) break;
            logs = wider;
            level = next;
        }
    for (uint64_t p = coded; p < width; p++) error += variance[p];
    return (double)coded * level + error;
}

/* ---- the widths ---- */

typedef struct bid {
    double rate; /* error that the next bit of the group takes away, for each bit stored */
    uint64_t group;
} bid;

typedef struct auction {
    const qem_fit *fit;
    const double *variance;
    const uint64_t *distinct;
    uint64_t entry_bits;           /* of one float of a codebook */
    uint64_t code_bits, book_bits; /* taken so far */
    uint64_t bytes;                /* that there are */
    bid *heap;
    uint64_t count;
    uint8_t *bits;
} auction;

static uint32_t most_bits(const auction *a, uint64_t group)
{
    const uint32_t bits = qem_code_bits(a->distinct ? a->distinct[group] : a->fit->points.rows);
    return bits < QEM_MOST_GROUP_BITS ? bits : QEM_MOST_GROUP_BITS;
}

/* With an entry for each distinct sub-vector nothing is left. */
static double error_at(const auction *a, uint64_t group, uint32_t bits)
{
    if (a->distinct && bits >= qem_code_bits(a->distinct[group]) && bits < QEM_MOST_GROUP_BITS) return 0.0;
    return qem_expected_error(a->variance + group * a->fit->points.dim, group_width(&a->fit->points, group), bits);
}

static uint64_t book_growth(const auction *a, uint64_t group)
{
    return a->entry_bits * group_width(&a->fit->points, group) << a->bits[group];
}

static int before(const bid *a, const bid *b)
{
    return a->rate != b->rate ? a->rate > b->rate : a->group < b->group;
}

static void sink(auction *a, uint64_t at)
{
    for (uint64_t child; (child = 2 * at + 1) < a->count; at = child) {
        if (child + 1 < a->count && before(&a->heap[child + 1], &a->heap[child])) child++;
        if (!before(&a->heap[child], &a->heap[at])) return;
        const bid swap = a->heap[at];
        a->heap[at] = a->heap[child];
        a->heap[child] = swap;
    }
}

/* What the group's next bit is worth; 0 when it can have no more. */
static double rate_of(const auction *a, uint64_t group)
{
    const uint32_t bits = a->bits[group];
    if (bits >= most_bits(a, group)) return 0.0;
    const double cost = (double)a->fit->points.rows + (double)book_growth(a, group);
    return (error_at(a, group, bits) - error_at(a, group, bits + 1)) / cost;
}

static int fits(const auction *a, uint64_t code_bits, uint64_t book_bits)
{
    return (code_bits + 7) / 8 + (book_bits + 7) / 8 <= a->bytes;
}

static void sell(auction *a)
{
    const uint64_t groups = a->fit->points.groups, rows = a->fit->points.rows;
    for (a->count = 0; a->count < groups; a->count++) a->heap[a->count] = (bid){ rate_of(a, a->count), a->count };
    for (uint64_t i = groups; i-- > 0;) sink(a, i);
    while (a->count > 0 && a->heap[0].rate > 0.0) {
        bid *first = &a->heap[0];
        const uint64_t book_bits = a->book_bits + book_growth(a, first->group);
        if (fits(a, a->code_bits + rows, book_bits)) {
            a->code_bits += rows;
            a->book_bits = book_bits;
            a->bits[first->group]++;
            first->rate = rate_of(a, first->group);
        } else {
            *first = a->heap[--a->count]; /* later bits of the group cost no less */
        }
        sink(a, 0);
    }
}

static uint64_t bytes_there_are(const qem_fit *fit, uint64_t entry_bits)
{
    const uint64_t codes = fit->point_count, books = entry_bits * fit->points.cols * fit->k;
    if (fit->recipe.accounting == QEM_ACCOUNTING_PAPER) /* whose codes are log2 k bits */
        return (uint64_t)(((double)codes * log2((double)fit->k) + (double)books + fit->spare_bits) / 8.0);
    return (codes * qem_code_bits(fit->k) + 7) / 8 + (books + 7) / 8 + (uint64_t)(fit->spare_bits / 8.0);
}

qem_status qem_fit_allocate_bits(qem_fit *fit, const double *variance, const uint64_t *distinct)
{
    const uint64_t groups = fit->points.groups;
    const uint32_t entry_bits = fit->recipe.codebook_bits ? fit->recipe.codebook_bits
                                                          : 8 * (uint32_t)qem_dtype_size(fit->recipe.codebook);
    void *memory;
    auction a = { .fit = fit, .variance = variance, .distinct = distinct, .entry_bits = entry_bits };
    a.bytes = bytes_there_are(fit, entry_bits);
    a.book_bits = entry_bits * fit->points.cols;
    qem_release(fit->context, fit->group_bits);
    fit->group_bits = NULL;
    QEM_TRY(qem_allocate_zero(fit->context, groups, 1, &memory));
    fit->group_bits = a.bits = memory;
    QEM_TRY(qem_allocate(fit->context, groups, sizeof(bid), &memory));
    a.heap = memory;
    sell(&a);
    qem_release(fit->context, memory);
    fit->k = 1;
    for (uint64_t g = 0; g < groups; g++)
        if ((uint64_t)1 << a.bits[g] > fit->k) fit->k = (uint64_t)1 << a.bits[g];
    return QEM_OK;
}
