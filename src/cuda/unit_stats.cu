/*
 * Extremes, mean and mean square of tensors, rows, columns and blocks, of a matrix as it is or standardized by some steps,
 * in double. The order of each sum is that of cpu/unit_stats.c: along a row, element i adds to lane i % 8 of its segment;
 * rows of a column in ascending order within chunks; then rows, segments and chunks, in ascending order. A first kernel
 * makes the parts' sums, a second one adds the parts of each unit.
 *
 * Bytes: the matrix once, 4 bytes an element, and 32 bytes a part written and read; a part has 1024 elements or more, apart
 * from blocks that are smaller.
 */
#include "lanes.cuh"
#include "undo.cuh"

#include <float.h>
#include <math.h>

#define SEGMENT    16384 /* columns of a row that are summed apart */
#define CHUNK_ROWS 1024  /* rows whose column sums are made apart */

struct moments {
    double sum, square, least, greatest;
};

/* Parts: `across` runs of `width` columns (the last one is narrower) in each of as many groups of `group` rows as there
 * are. By columns: a part is a column of a group of rows. */
struct stats_job {
    const float *x;
    uint64_t rows, cols;
    qem_undo_steps steps;
    uint64_t width, across, group, parts;
};

static __device__ __forceinline__ moments nothing()
{
    const moments m = { 0.0, 0.0, (double)INFINITY, -(double)INFINITY };
    return m;
}

static __device__ __forceinline__ void add_element(moments &m, double z)
{
    m.sum += z;
    m.square += z * z;
    m.least = z < m.least ? z : m.least;
    m.greatest = z > m.greatest ? z : m.greatest;
}

static __device__ __forceinline__ void add_moments(moments &total, const moments &part)
{
    total.sum += part.sum;
    total.square += part.square;
    total.least = part.least < total.least ? part.least : total.least;
    total.greatest = part.greatest > total.greatest ? part.greatest : total.greatest;
}

/* An element standardized by the steps, from the last to the first. */
static __device__ __forceinline__ double load(const stats_job &job, uint64_t row, uint64_t col)
{
    double z = (double)__ldg(job.x + row * job.cols + col);
    for (uint32_t s = job.steps.count; s-- > 0;) {
        const qem_undo_step &step = job.steps.step[s];
        const uint64_t unit = qem_undo_unit(step, row, col);
        if (step.mean) z -= (double)__ldg(step.mean + unit);
        if (!step.scale) continue;
        const float scale = __ldg(step.scale + unit);
        z *= scale == 0.0f ? 0.0 : 1.0 / (double)scale;
    }
    return z;
}

/* A team of 8 threads makes a part: its rows one after another, each by lanes. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS, 4) sum_runs(stats_job job, moments *parts)
{
    for (uint64_t round = 0; round < qem_team_rounds(job.parts); round++) {
        const uint64_t part = qem_team(round);
        const bool is_there = part < job.parts;
        const uint64_t first = is_there ? part / job.across * job.group : 0,
                       col = is_there ? part % job.across * job.width : 0;
        const uint64_t end = job.cols - col < job.width ? job.cols : col + job.width;
        moments total = nothing();
        for (uint64_t r = 0; r < job.group; r++) {
            moments lane = nothing();
            if (is_there && first + r < job.rows)
                for (uint64_t c = col + threadIdx.x % QEM_LANES; c < end; c += QEM_LANES)
                    add_element(lane, load(job, first + r, c));
            const moments row = { qem_lane_total(lane.sum), qem_lane_total(lane.square), qem_lane_least(lane.least),
                                  qem_lane_greatest(lane.greatest) };
            if (first + r < job.rows) add_moments(total, row);
        }
        if (is_there && threadIdx.x % QEM_LANES == 0) parts[part] = total;
    }
}

/* A thread makes a part; neighbours have neighbouring columns. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS, 4) sum_columns(stats_job job, moments *parts)
{
    for (uint64_t part = qem_cuda_first(); part < job.parts; part += qem_cuda_stride()) {
        const uint64_t first = part / job.cols * job.group, col = part % job.cols;
        const uint64_t last = job.rows - first < job.group ? job.rows : first + job.group;
        moments total = nothing();
        for (uint64_t row = first; row < last; row++) add_element(total, load(job, row, col));
        parts[part] = total;
    }
}

/* Extremes of steps' results may lie beyond f32: they are then the largest finite numbers. + 0: -0 is +0. */
static __device__ __forceinline__ float as_float(double x)
{
    return x > (double)FLT_MAX ? FLT_MAX : x < -(double)FLT_MAX ? -FLT_MAX : (float)x + 0.0f;
}

/* Tables of units, device memory. */
struct unit_tables {
    double *mean, *square;
    float *least, *greatest;
};

/* Unit u is the sum of the parts u * inner + i * outer, i < count; blocks are narrower at the end of a row. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS, 4)
    add_parts(const moments *parts, uint64_t units, uint64_t inner, uint64_t outer, uint64_t count, uint64_t elements,
              uint64_t of_row, uint64_t last_elements, unit_tables out)
{
    for (uint64_t u = qem_cuda_first(); u < units; u += qem_cuda_stride()) {
        moments total = nothing();
        for (uint64_t i = 0; i < count; i++) add_moments(total, parts[u * inner + i * outer]);
        const uint64_t n = of_row && u % of_row == of_row - 1 ? last_elements : elements;
        out.mean[u] = total.sum / (double)n;
        out.square[u] = total.square / (double)n;
        out.least[u] = as_float(total.least);
        out.greatest[u] = as_float(total.greatest);
    }
}

/* How the parts of an axis make its units. */
struct unit_sums {
    uint64_t units, inner, outer, count, elements, of_row, last_elements;
};

static unit_sums plan(stats_job *job, qem_axis axis, uint64_t block)
{
    const uint64_t rows = job->rows, cols = job->cols;
    unit_sums u = unit_sums();
    job->width = cols < SEGMENT ? cols : SEGMENT;
    job->group = 1;
    u.units = qem_undo_units(axis, block, rows, cols);
    switch (axis) {
    case QEM_AXIS_TENSOR:
        job->group = cols < SEGMENT ? SEGMENT / cols : 1;
        u.elements = rows * cols;
        break;
    case QEM_AXIS_ROW: u.elements = cols; break;
    case QEM_AXIS_COLUMN:
        job->width = 1;
        job->group = CHUNK_ROWS;
        u.elements = rows;
        break;
    case QEM_AXIS_BLOCK:
        job->width = block;
        u.elements = block;
        u.of_row = (cols - 1) / block + 1;
        u.last_elements = cols - (u.of_row - 1) * block;
        break;
    }
    if (job->group > rows) job->group = rows; /* threads go through all of a group together */
    job->across = (cols - 1) / job->width + 1;
    job->parts = ((rows - 1) / job->group + 1) * job->across;
    u.count = job->parts / u.units;
    u.inner = axis == QEM_AXIS_COLUMN ? 1 : u.count;
    u.outer = axis == QEM_AXIS_COLUMN ? cols : 1;
    return u;
}

static qem_status take_tables(qem_cuda_call &call, uint64_t units, unit_tables *tables)
{
    QEM_TRY(call.take(units, &tables->mean));
    QEM_TRY(call.take(units, &tables->square));
    QEM_TRY(call.take(units, &tables->least));
    return call.take(units, &tables->greatest);
}

qem_status qem_cuda_standardized_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                                       const qem_decode_affine *steps, uint32_t count, qem_axis axis, uint64_t block,
                                       float *least, float *greatest, double *mean, double *square)
{
    qem_cuda_call call(context);
    stats_job job = stats_job();
    unit_tables tables;
    moments *parts;
    QEM_TRY(call.status);
    job.x = x;
    job.rows = rows;
    job.cols = cols;
    QEM_TRY(qem_put_steps(call, steps, count, rows, cols, &job.steps));
    const unit_sums u = plan(&job, axis, block);
    QEM_TRY(call.take(job.parts, &parts));
    QEM_TRY(take_tables(call, u.units, &tables));
    if (axis == QEM_AXIS_COLUMN)
        QEM_TRY(call.launch(QEM_LAUNCH(sum_columns, call.blocks(job.parts), QEM_CUDA_THREADS, 0, call.stream, job, parts)));
    else
        QEM_TRY(call.launch(QEM_LAUNCH(sum_runs, call.blocks(job.parts, QEM_CUDA_THREADS / QEM_LANES), QEM_CUDA_THREADS, 0,
                                       call.stream, job, parts)));
    QEM_TRY(call.launch(QEM_LAUNCH(add_parts, call.blocks(u.units), QEM_CUDA_THREADS, 0, call.stream, parts, u.units,
                                   u.inner, u.outer, u.count, u.elements, u.of_row, u.last_elements, tables)));
    if (least) QEM_TRY(call.to_host(least, tables.least, u.units * sizeof *least));
    if (greatest) QEM_TRY(call.to_host(greatest, tables.greatest, u.units * sizeof *greatest));
    if (mean) QEM_TRY(call.to_host(mean, tables.mean, u.units * sizeof *mean));
    return square ? call.to_host(square, tables.square, u.units * sizeof *square) : QEM_OK;
}

qem_status qem_cuda_unit_stats(qem_context *context, const float *x, uint64_t rows, uint64_t cols, qem_axis axis,
                               uint64_t block, float *least, float *greatest, double *mean, double *square)
{
    return qem_cuda_standardized_stats(context, x, rows, cols, nullptr, 0, axis, block, least, greatest, mean, square);
}
