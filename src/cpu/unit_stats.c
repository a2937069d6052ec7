/*
 * Extremes, mean and mean square of tensors, rows, columns and blocks, of a matrix as it is or standardized by some steps,
 * in double. The order of each sum is fixed by the shape: along a row, element i adds to lane i % 8 of its segment; rows of
 * a column, and segments and rows otherwise, in ascending order within fixed chunks, then the chunks.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "parallel.h"
#include "standardize.h"

#define SEGMENT 16384    /* columns of a row that one thread sums; a multiple of QEM_STRIP */
#define CHUNK_ROWS 1024  /* rows whose column sums one thread makes */
#define PIECE 65536      /* elements handed to a thread at once, where units are small */

typedef struct moments {
    double sum, square, least, greatest;
} moments;

typedef struct stats_job {
    const float *x;
    uint64_t rows, cols, block;
    const qem_decode_affine *steps;
    uint32_t count;
    double *inverses[QEM_MOST_AFFINE]; /* of columns: 1 / scale, 0 where it is 0; else NULL */
    uint64_t segments, group;          /* segments of a row; rows of a tensor's chunk */
    moments *parts;                    /* where a unit is summed in parts, else NULL */
    float *least, *greatest;
    double *mean, *square;
} stats_job;

/* ---- elements ---- */

static double inverse_of(float scale)
{
    return scale == 0.0f ? 0.0 : 1.0 / (double)scale;
}

static void undo_columns(const qem_decode_affine *step, const double *inverse, uint64_t col, size_t n, double *z)
{
    if (step->mean)
        for (size_t i = 0; i < n; i++) z[i] -= (double)step->mean[col + i];
    if (step->scale)
        for (size_t i = 0; i < n; i++) z[i] *= inverse[col + i];
}

static void undo_units(const stats_job *job, const qem_decode_affine *step, uint64_t row, uint64_t col, size_t n, double *z)
{
    for (size_t i = 0; i < n;) {
        const uint64_t unit = qem_unit_of(step, job->cols, row, col + i);
        const size_t end = i + (size_t)qem_unit_run(step, col + i, n - i);
        const double mean = step->mean ? (double)step->mean[unit] : 0.0;
        const double inverse = step->scale ? inverse_of(step->scale[unit]) : 1.0;
        for (; i < end; i++) z[i] = (z[i] - mean) * inverse;
    }
}

/* n <= QEM_STRIP elements of a row, standardized by the steps from the last to the first. */
static void load_strip(const stats_job *job, uint64_t row, uint64_t col, size_t n, double *z)
{
    const float *x = job->x + row * job->cols + col;
    for (size_t i = 0; i < n; i++) z[i] = (double)x[i];
    for (uint32_t s = job->count; s-- > 0;) {
        if (job->steps[s].axis == QEM_AXIS_COLUMN)
            undo_columns(&job->steps[s], job->inverses[s], col, n, z);
        else
            undo_units(job, &job->steps[s], row, col, n, z);
    }
}

/* ---- sums ---- */

static const moments nothing = { 0.0, 0.0, INFINITY, -INFINITY };

static void add_moments(moments *total, const moments *part)
{
    total->sum += part->sum;
    total->square += part->square;
    total->least = part->least < total->least ? part->least : total->least;
    total->greatest = part->greatest > total->greatest ? part->greatest : total->greatest;
}

static double lane_total(const double lane[8])
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

typedef struct lanes8 {
    double sum[8], square[8], least[8], greatest[8];
} lanes8;

static void add_lanes(lanes8 *lanes, const double *z, size_t n)
{
    for (size_t l = 0; l < n; l++) {
        lanes->sum[l] += z[l];
        lanes->square[l] += z[l] * z[l];
        lanes->least[l] = z[l] < lanes->least[l] ? z[l] : lanes->least[l];
        lanes->greatest[l] = z[l] > lanes->greatest[l] ? z[l] : lanes->greatest[l];
    }
}

/* Columns col .. col+n-1 of a row. */
static moments row_moments(const stats_job *job, uint64_t row, uint64_t col, uint64_t n)
{
    lanes8 lanes;
    double z[QEM_STRIP];
    for (size_t l = 0; l < 8; l++) {
        lanes.sum[l] = lanes.square[l] = 0.0;
        lanes.least[l] = INFINITY;
        lanes.greatest[l] = -INFINITY;
    }
    for (uint64_t begin = 0; begin < n; begin += QEM_STRIP) {
        const size_t here = n - begin < QEM_STRIP ? (size_t)(n - begin) : QEM_STRIP;
        load_strip(job, row, col + begin, here, z);
        size_t i = 0;
        for (; i + 8 <= here; i += 8) add_lanes(&lanes, z + i, 8);
        add_lanes(&lanes, z + i, here - i);
    }
    moments m = { lane_total(lanes.sum), lane_total(lanes.square), lanes.least[0], lanes.greatest[0] };
    for (size_t l = 1; l < 8; l++) {
        m.least = lanes.least[l] < m.least ? lanes.least[l] : m.least;
        m.greatest = lanes.greatest[l] > m.greatest ? lanes.greatest[l] : m.greatest;
    }
    return m;
}

/* Extremes of steps' results may lie beyond f32: they are then the largest finite numbers. + 0: -0 is +0. */
static float as_float(double x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : (float)x + 0.0f;
}

static void finish(const stats_job *job, uint64_t unit, const moments *m, uint64_t elements)
{
    if (job->least) job->least[unit] = as_float(m->least);
    if (job->greatest) job->greatest[unit] = as_float(m->greatest);
    if (job->mean) job->mean[unit] = m->sum / (double)elements;
    if (job->square) job->square[unit] = m->square / (double)elements;
}

/* ---- one task an axis ---- */

static uint64_t segment_of(const stats_job *job, uint64_t index, uint64_t *width)
{
    const uint64_t col = index * SEGMENT;
    *width = job->cols - col < SEGMENT ? job->cols - col : SEGMENT;
    return col;
}

static void sum_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const stats_job *job = argument;
    (void)thread;
    for (uint64_t item = begin; item < end; item++) {
        uint64_t width;
        const uint64_t row = item / job->segments, col = segment_of(job, item % job->segments, &width);
        const moments m = row_moments(job, row, col, width);
        if (job->parts)
            job->parts[item] = m;
        else
            finish(job, row, &m, job->cols);
    }
}

static void sum_groups(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const stats_job *job = argument;
    (void)thread;
    for (uint64_t item = begin; item < end; item++) {
        uint64_t width;
        const uint64_t first = item / job->segments * job->group, col = segment_of(job, item % job->segments, &width);
        const uint64_t last = job->rows - first < job->group ? job->rows : first + job->group;
        job->parts[item] = nothing;
        for (uint64_t row = first; row < last; row++) {
            const moments m = row_moments(job, row, col, width);
            add_moments(&job->parts[item], &m);
        }
    }
}

static void sum_blocks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const stats_job *job = argument;
    (void)thread;
    const uint64_t of_row = (job->cols - 1) / job->block + 1;
    for (uint64_t unit = begin; unit < end; unit++) {
        const uint64_t row = unit / of_row, col = unit % of_row * job->block;
        const uint64_t width = job->cols - col < job->block ? job->cols - col : job->block;
        const moments m = row_moments(job, row, col, width);
        finish(job, unit, &m, width);
    }
}

typedef struct column_sums {
    double sum[QEM_STRIP], square[QEM_STRIP], least[QEM_STRIP], greatest[QEM_STRIP];
} column_sums;

static void add_columns(column_sums *s, const double *restrict z, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s->sum[i] += z[i];
        s->square[i] += z[i] * z[i];
        s->least[i] = z[i] < s->least[i] ? z[i] : s->least[i];
        s->greatest[i] = z[i] > s->greatest[i] ? z[i] : s->greatest[i];
    }
}

/* Items: strips of columns, chunk of rows by chunk. */
static void sum_columns(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const stats_job *job = argument;
    (void)thread;
    const uint64_t strips = (job->cols - 1) / QEM_STRIP + 1;
    column_sums s;
    double z[QEM_STRIP];
    for (uint64_t item = begin; item < end; item++) {
        const uint64_t first = item / strips * CHUNK_ROWS, col = item % strips * QEM_STRIP;
        const uint64_t last = job->rows - first < CHUNK_ROWS ? job->rows : first + CHUNK_ROWS;
        const size_t n = job->cols - col < QEM_STRIP ? (size_t)(job->cols - col) : QEM_STRIP;
        for (size_t i = 0; i < n; i++) s.sum[i] = s.square[i] = 0.0, s.least[i] = INFINITY, s.greatest[i] = -INFINITY;
        for (uint64_t row = first; row < last; row++) {
            load_strip(job, row, col, n, z);
            add_columns(&s, z, n);
        }
        for (size_t i = 0; i < n; i++) {
            const moments m = { s.sum[i], s.square[i], s.least[i], s.greatest[i] };
            if (job->parts)
                job->parts[item / strips * job->cols + col + i] = m;
            else
                finish(job, col + i, &m, job->rows);
        }
    }
}

/* ---- all of it ---- */

static qem_status make_parts(qem_context *context, stats_job *job, uint64_t count)
{
    void *memory;
    QEM_TRY(qem_allocate(context, count, sizeof(moments), &memory));
    job->parts = memory;
    return QEM_OK;
}

/* Unit u is the sum of the parts u * inner + i * outer, i < count. */
static void fold_parts(const stats_job *job, uint64_t units, uint64_t inner, uint64_t outer, uint64_t count,
                       uint64_t elements)
{
    for (uint64_t u = 0; u < units; u++) {
        moments total = nothing;
        for (uint64_t i = 0; i < count; i++) add_moments(&total, &job->parts[u * inner + i * outer]);
        finish(job, u, &total, elements);
    }
}

static qem_status rows_stats(qem_context *context, stats_job *job)
{
    const uint64_t items = job->rows * job->segments, width = job->cols < SEGMENT ? job->cols : SEGMENT;
    if (job->segments > 1) QEM_TRY(make_parts(context, job, items));
    qem_parallel_for(context->threads, items, (PIECE - 1) / width + 1, sum_rows, job);
    if (job->parts) fold_parts(job, job->rows, job->segments, 1, job->segments, job->cols);
    return QEM_OK;
}

static qem_status tensor_stats(qem_context *context, stats_job *job)
{
    job->group = job->cols < SEGMENT ? SEGMENT / job->cols : 1;
    const uint64_t items = ((job->rows - 1) / job->group + 1) * job->segments;
    QEM_TRY(make_parts(context, job, items));
    qem_parallel_for(context->threads, items, 4, sum_groups, job);
    fold_parts(job, 1, 0, 1, items, job->rows * job->cols);
    return QEM_OK;
}

static qem_status blocks_stats(qem_context *context, stats_job *job)
{
    const uint64_t units = job->rows * ((job->cols - 1) / job->block + 1);
    qem_parallel_for(context->threads, units, (PIECE - 1) / job->block + 1, sum_blocks, job);
    return QEM_OK;
}

static qem_status columns_stats(qem_context *context, stats_job *job)
{
    const uint64_t chunks = (job->rows - 1) / CHUNK_ROWS + 1;
    if (chunks > 1) QEM_TRY(make_parts(context, job, chunks * job->cols));
    qem_parallel_for(context->threads, chunks * ((job->cols - 1) / QEM_STRIP + 1), 1, sum_columns, job);
    if (job->parts) fold_parts(job, job->cols, 1, job->cols, chunks, job->rows);
    return QEM_OK;
}

static qem_status axis_stats(qem_context *context, stats_job *job, qem_axis axis)
{
    for (uint32_t s = 0; s < job->count; s++) {
        void *memory;
        if (job->steps[s].axis != QEM_AXIS_COLUMN || !job->steps[s].scale) continue;
        QEM_TRY(qem_allocate(context, job->cols, sizeof(double), &memory));
        job->inverses[s] = memory;
        for (uint64_t j = 0; j < job->cols; j++) job->inverses[s][j] = inverse_of(job->steps[s].scale[j]);
    }
    switch (axis) {
    case QEM_AXIS_TENSOR: return tensor_stats(context, job);
    case QEM_AXIS_ROW: return rows_stats(context, job);
    case QEM_AXIS_COLUMN: return columns_stats(context, job);
    case QEM_AXIS_BLOCK: return blocks_stats(context, job);
    }
    return qem_fail(context, QEM_ERR_INTERNAL, "statistics of an unknown axis %d", (int)axis);
}

qem_status qem_cpu_standardized_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                                      const qem_decode_affine *steps, uint32_t count, qem_axis axis, uint64_t block,
                                      float *least, float *greatest, double *mean, double *square)
{
    stats_job job = { .x = x, .rows = rows, .cols = cols, .block = block, .steps = steps, .count = count };
    job.segments = (cols - 1) / SEGMENT + 1;
    job.least = least;
    job.greatest = greatest;
    job.mean = mean;
    job.square = square;
    const qem_status status = axis_stats(context, &job, axis);
    for (uint32_t s = 0; s < count; s++) qem_release(context, job.inverses[s]);
    qem_release(context, job.parts);
    return status;
}

qem_status qem_cpu_unit_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols, qem_axis axis,
                              uint64_t block, float *least, float *greatest, double *mean, double *square)
{
    return qem_cpu_standardized_stats(context, x, rows, cols, NULL, 0, axis, block, least, greatest, mean, square);
}
