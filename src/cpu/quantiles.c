/*
 * Exact quantiles by selection: a histogram of the top 16 bits of the ordered keys finds the bin of every order statistic
 * that is wanted, a second pass counts the low 16 bits inside those bins alone. Two passes, no copy of the data. Few elements,
 * for which the tables would be the greater work, are sorted.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../core/ordered_key.h"
#include "cpu.h"
#include "parallel.h"

#define BINS 65536
#define POSITIONS 8 /* positions counted in one pass over the matrix: their tables fit in the second-level cache */
#define SLOTS 16    /* bins refined in one pass */
#define PIECE 65536 /* elements a thread takes at once */
#define PIECES_A_THREAD 16 /* fewer are no work for the tables, megabytes, that a thread has to itself */
#define MOST_SORTED 32768 /* elements of a position */

typedef struct quantile_job {
    qem_subvectors points;
    uint32_t first, positions; /* positions first .. first+positions-1 of a sub-vector */
    uint32_t threads;
    uint64_t stretches;        /* a row is cut into so many, ... */
    uint64_t stretch_groups;   /* ... of so many groups each, so that one long row is work for several threads */
    uint32_t *coarse;          /* [thread][position][BINS] */
    uint32_t *fine;            /* [thread][slot][BINS] */
    uint8_t *slot_of;          /* [BINS] of one position: slot + 1, or 0 */
} quantile_job;

/* Groups *first .. *last-1 of the row that stretch number i lies in; returns the row. */
static const float *stretch_of(const quantile_job *job, uint64_t i, uint64_t *first, uint64_t *last)
{
    const qem_subvectors *v = &job->points;
    const uint64_t row = i / job->stretches;
    *first = (i - row * job->stretches) * job->stretch_groups;
    *last = v->groups - *first < job->stretch_groups ? v->groups : *first + job->stretch_groups;
    return v->x + row * v->cols;
}

static void coarse_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const quantile_job *job = argument;
    const qem_subvectors *v = &job->points;
    uint32_t *tables = job->coarse + (uint64_t)thread * job->positions * BINS;
    for (uint64_t i = begin; i < end; i++) {
        uint64_t first, last;
        const float *row = stretch_of(job, i, &first, &last);
        for (uint64_t g = first; g < last; g++)
            for (uint32_t p = 0; p < job->positions; p++) {
                const uint64_t column = g * v->dim + job->first + p;
                if (column < v->cols) tables[(uint64_t)p * BINS + (qem_ordered_key(row[column]) >> 16)]++;
            }
    }
}

static void fine_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const quantile_job *job = argument;
    const qem_subvectors *v = &job->points;
    uint32_t *tables = job->fine + (uint64_t)thread * SLOTS * BINS;
    for (uint64_t i = begin; i < end; i++) {
        uint64_t first, last;
        const float *row = stretch_of(job, i, &first, &last);
        const uint64_t end_column = last * v->dim < v->cols ? last * v->dim : v->cols;
        for (uint64_t column = first * v->dim + job->first; column < end_column; column += v->dim) {
            const uint32_t key = qem_ordered_key(row[column]);
            const uint8_t slot = job->slot_of[key >> 16];
            if (slot) tables[(uint64_t)(slot - 1) * BINS + (key & 0xffffu)]++;
        }
    }
}

static void fold(uint32_t *tables, uint64_t size, uint32_t threads)
{
    for (uint32_t t = 1; t < threads; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * size + i];
}

/* The bin that holds the element of rank `*rank`; *rank becomes its rank inside the bin. */
static uint32_t find_bin(const uint32_t *table, uint64_t *rank)
{
    uint32_t bin = 0;
    while (bin < BINS - 1 && *rank >= table[bin]) *rank -= table[bin++];
    return bin;
}

/* Elements of position p: columns p, p + dim, ... of every row. */
static uint64_t pooled(const qem_subvectors *v, uint32_t p)
{
    return p < v->tail_dim ? v->rows * v->groups : v->rows * (v->groups - 1);
}

/* Values of the given ranks (ascending) of one position, from its coarse table. */
static void select_ranks(quantile_job *job, const uint32_t *coarse, uint64_t *rank, uint32_t *bin, float *value,
                         uint32_t count, uint64_t grain)
{
    for (uint32_t r = 0; r < count; r++) bin[r] = find_bin(coarse, &rank[r]);
    for (uint32_t r = 0; r < count;) {
        memset(job->slot_of, 0, BINS);
        memset(job->fine, 0, (size_t)job->threads * SLOTS * BINS * sizeof(uint32_t));
        uint32_t slots = 0, last = r;
        for (; last < count; last++) {
            if (job->slot_of[bin[last]]) continue;
            if (slots == SLOTS) break;
            job->slot_of[bin[last]] = (uint8_t)++slots;
        }
        qem_parallel_for(job->threads, job->points.rows * job->stretches, grain, fine_rows, job);
        fold(job->fine, (uint64_t)SLOTS * BINS, job->threads);
        for (; r < last; r++) {
            const uint32_t slot = job->slot_of[bin[r]] - 1u;
            const uint32_t low = find_bin(job->fine + (uint64_t)slot * BINS, &rank[r]);
            value[r] = qem_from_ordered_key(bin[r] << 16 | low);
        }
    }
}

/* numpy's default: position (n-1)*q between two order statistics. */
static float interpolate(float low, float high, double t)
{
    const double a = low, b = high;
    const double value = t < 0.5 ? a + (b - a) * t : b - (b - a) * (1.0 - t);
    return (float)value + 0.0f;
}

/* The ranks that the cuts of n >= 1 elements need, two a cut, and how far each cut lies between its two. */
static void wanted_ranks(uint64_t n, uint32_t intervals, uint64_t *rank, double *t)
{
    for (uint32_t c = 0; c + 1 < intervals; c++) {
        const double at = (double)(n - 1) * (c + 1) / intervals;
        const double below = floor(at);
        t[c] = at - below;
        rank[2 * c] = (uint64_t)below;
        rank[2 * c + 1] = (uint64_t)below + 1 < n ? (uint64_t)below + 1 : n - 1;
    }
}

static void cuts_of_position(quantile_job *job, uint32_t p, uint32_t intervals, const uint32_t *coarse, float *cuts,
                             uint64_t grain)
{
    uint64_t rank[2 * 255];
    uint32_t bin[2 * 255];
    float value[2 * 255];
    double t[255];
    const uint64_t n = pooled(&job->points, p);
    if (n == 0) { /* a single column group that is narrower than dim */
        for (uint32_t c = 0; c + 1 < intervals; c++) cuts[c] = 0.0f;
        return;
    }
    wanted_ranks(n, intervals, rank, t);
    job->first = p;
    select_ranks(job, coarse, rank, bin, value, 2 * (intervals - 1), grain);
    for (uint32_t c = 0; c + 1 < intervals; c++) cuts[c] = interpolate(value[2 * c], value[2 * c + 1], t[c]);
}

static int by_key(const void *left, const void *right)
{
    const uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* The same by sorting; keys holds all elements of a position. */
static void sort_position(const qem_subvectors *v, uint32_t p, uint32_t intervals, uint32_t *keys, float *cuts)
{
    uint64_t rank[2 * 255], n = 0;
    double t[255];
    for (uint64_t i = 0; i < v->rows; i++)
        for (uint64_t column = p; column < v->cols; column += v->dim) keys[n++] = qem_ordered_key(v->x[i * v->cols + column]);
    if (n == 0) {
        for (uint32_t c = 0; c + 1 < intervals; c++) cuts[c] = 0.0f;
        return;
    }
    qsort(keys, n, sizeof *keys, by_key);
    wanted_ranks(n, intervals, rank, t);
    for (uint32_t c = 0; c + 1 < intervals; c++)
        cuts[c] = interpolate(qem_from_ordered_key(keys[rank[2 * c]]), qem_from_ordered_key(keys[rank[2 * c + 1]]), t[c]);
}

static qem_status sort_all(qem_context *context, const qem_subvectors *v, uint32_t intervals, float *cuts)
{
    void *keys;
    QEM_TRY(qem_allocate(context, v->rows * v->groups, sizeof(uint32_t), &keys));
    for (uint32_t p = 0; p < v->dim; p++) sort_position(v, p, intervals, keys, cuts + (uint64_t)p * (intervals - 1));
    qem_release(context, keys);
    return QEM_OK;
}

qem_status qem_cpu_quantiles(qem_context *context, qem_subvectors points, uint32_t intervals, float *cuts)
{
    if (points.rows * points.groups <= MOST_SORTED) return sort_all(context, &points, intervals, cuts);
    quantile_job job = { .points = points, .threads = context->threads };
    const uint32_t most = points.dim < POSITIONS ? points.dim : POSITIONS;
    const uint64_t grain = points.cols >= PIECE ? 1 : PIECE / points.cols; /* stretches; a row is one unless it is long */
    job.stretch_groups = points.cols > PIECE ? (PIECE + points.dim - 1) / points.dim : points.groups;
    job.stretches = (points.groups + job.stretch_groups - 1) / job.stretch_groups;
    const uint64_t pieces = (points.rows * job.stretches + grain - 1) / grain;
    if (pieces / PIECES_A_THREAD < job.threads) job.threads = (uint32_t)(pieces / PIECES_A_THREAD);
    if (job.threads == 0) job.threads = 1;
    const uint64_t coarse_size = (uint64_t)job.threads * most * BINS;
    void *memory;
    QEM_TRY(qem_allocate(context, coarse_size + (uint64_t)job.threads * SLOTS * BINS + BINS, sizeof(uint32_t), &memory));
    job.coarse = memory;
    job.fine = job.coarse + coarse_size;
    job.slot_of = (uint8_t *)(job.fine + (uint64_t)job.threads * SLOTS * BINS);
    for (uint32_t first = 0; first < points.dim; first += most) {
        job.first = first;
        job.positions = points.dim - first < most ? points.dim - first : most;
        memset(job.coarse, 0, (size_t)coarse_size * sizeof(uint32_t));
        qem_parallel_for(job.threads, points.rows * job.stretches, grain, coarse_rows, &job);
        fold(job.coarse, (uint64_t)job.positions * BINS, job.threads);
        for (uint32_t p = 0; p < job.positions; p++)
            cuts_of_position(&job, first + p, intervals, job.coarse + (uint64_t)p * BINS,
                             cuts + (uint64_t)(first + p) * (intervals - 1), grain);
    }
    qem_release(context, memory);
    return QEM_OK;
}
