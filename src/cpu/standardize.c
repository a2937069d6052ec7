/* z = (x - mean) / scale of every step, and the weights that make an error of z count as one of x. */
#include "standardize.h"

#include <math.h>
#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define PIECE 65536 /* elements handed to a thread at once */

static uint64_t rows_of_piece(uint64_t cols)
{
    return cols >= PIECE ? 1 : PIECE / cols;
}

/* ---- standardize ---- */

typedef struct standardize_job {
    const float *x;
    float *z;
    uint64_t cols;
    const qem_decode_affine *steps;
    uint32_t count;
    float *divisors[QEM_MOST_AFFINE]; /* of columns, infinite where the scale is 0; else NULL */
} standardize_job;

/* Dividing by infinity gives 0; + 0 makes it the positive one, and leaves all else as it is. */
static float divisor_of(float scale)
{
    return scale == 0.0f ? INFINITY : scale;
}

static void subtract_one(float *z, size_t n, float mean)
{
    for (size_t i = 0; i < n; i++) z[i] = z[i] - mean;
}

static void subtract_each(float *restrict z, size_t n, const float *restrict mean)
{
    for (size_t i = 0; i < n; i++) z[i] = z[i] - mean[i];
}

static void divide_one(float *z, size_t n, float divisor)
{
    for (size_t i = 0; i < n; i++) z[i] = z[i] / divisor + 0.0f;
}

static void divide_each(float *restrict z, size_t n, const float *restrict divisor)
{
    for (size_t i = 0; i < n; i++) z[i] = z[i] / divisor[i] + 0.0f;
}

/* One step on n elements of a row from column col on. */
static void undo_step(const standardize_job *job, uint32_t index, uint64_t row, uint64_t col, uint64_t n, float *z)
{
    const qem_decode_affine *step = &job->steps[index];
    if (step->axis == QEM_AXIS_COLUMN) {
        if (step->mean) subtract_each(z, (size_t)n, step->mean + col);
        if (step->scale) divide_each(z, (size_t)n, job->divisors[index] + col);
        return;
    }
    for (uint64_t i = 0; i < n;) {
        const uint64_t unit = qem_unit_of(step, job->cols, row, col + i), run = qem_unit_run(step, col + i, n - i);
        if (step->mean) subtract_one(z + i, (size_t)run, step->mean[unit]);
        if (step->scale) divide_one(z + i, (size_t)run, divisor_of(step->scale[unit]));
        i += run;
    }
}

static void standardize_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const standardize_job *job = argument;
    (void)thread;
    for (uint64_t row = begin; row < end; row++)
        for (uint64_t col = 0; col < job->cols; col += QEM_STRIP) {
            const uint64_t n = job->cols - col < QEM_STRIP ? job->cols - col : QEM_STRIP;
            const float *x = job->x + row * job->cols + col;
            float *z = job->z + row * job->cols + col;
            if (z != x) memcpy(z, x, (size_t)n * sizeof(float));
            for (uint32_t s = job->count; s-- > 0;) undo_step(job, s, row, col, n, z);
        }
}

static qem_status make_divisors(qem_context *context, standardize_job *job)
{
    for (uint32_t s = 0; s < job->count; s++) {
        void *memory;
        if (job->steps[s].axis != QEM_AXIS_COLUMN || !job->steps[s].scale) continue;
        QEM_TRY(qem_allocate(context, job->cols, sizeof(float), &memory));
        job->divisors[s] = memory;
        for (uint64_t j = 0; j < job->cols; j++) job->divisors[s][j] = divisor_of(job->steps[s].scale[j]);
    }
    return QEM_OK;
}

qem_status qem_cpu_standardize(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                               const qem_decode_affine *steps, uint32_t count, float *z)
{
    standardize_job job = { .x = x, .z = z, .cols = cols, .steps = steps, .count = count };
    const qem_status status = make_divisors(context, &job);
    if (status == QEM_OK) qem_parallel_for(context->threads, rows, rows_of_piece(cols), standardize_rows, &job);
    for (uint32_t s = 0; s < count; s++) qem_release(context, job.divisors[s]);
    return status;
}

/* ---- weights ---- */

typedef struct weights_job {
    uint64_t cols;
    const qem_decode_affine *steps;
    uint32_t count;
    double unit[QEM_MOST_AFFINE]; /* of each step: the power of two that brings its scales below 1 */
    const double *columns;        /* product of the squares of the steps of columns */
    const float *importance;      /* or NULL */
    uint64_t importance_stride;
    double importance_unit;
    float *weight;
} weights_job;

static double squared(const weights_job *job, uint32_t step, uint64_t unit)
{
    const double scale = (double)job->steps[step].scale[unit] * job->unit[step];
    return scale * scale;
}

static void weigh(const weights_job *job, uint64_t row, uint64_t col, size_t n, double factor)
{
    const double *columns = job->columns + col;
    float *weight = job->weight + row * job->cols + col;
    if (!job->importance) {
        for (size_t i = 0; i < n; i++) weight[i] = (float)(columns[i] * factor);
        return;
    }
    const float *importance = job->importance + row * job->importance_stride + col;
    for (size_t i = 0; i < n; i++) weight[i] = (float)(columns[i] * factor * ((double)importance[i] * job->importance_unit));
}

static void weigh_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const weights_job *job = argument;
    (void)thread;
    for (uint64_t row = begin; row < end; row++)
        for (uint64_t col = 0; col < job->cols;) {
            uint64_t run = job->cols - col;
            double factor = 1.0;
            for (uint32_t s = 0; s < job->count; s++) {
                const qem_decode_affine *step = &job->steps[s];
                if (step->axis == QEM_AXIS_COLUMN || !step->scale) continue;
                factor *= squared(job, s, qem_unit_of(step, job->cols, row, col));
                run = qem_unit_run(step, col, run);
            }
            weigh(job, row, col, (size_t)run, factor);
            col += run;
        }
}

static double unit_below(float largest)
{
    return largest > 0.0f ? ldexp(1.0, -(ilogbf(largest) + 1)) : 1.0;
}

static double step_unit(const qem_decode_affine *step, uint64_t rows, uint64_t cols)
{
    qem_affine sizes = { .axis = step->axis, .block = step->block, .params = 32 };
    float largest = 0.0f;
    if (!step->scale) return 1.0;
    qem_affine_sizes(&sizes, rows, cols);
    for (uint64_t u = 0; u < sizes.units; u++) largest = fabsf(step->scale[u]) > largest ? fabsf(step->scale[u]) : largest;
    return unit_below(largest);
}

qem_status qem_cpu_element_weights(qem_context *context, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                                   uint32_t count, const float *importance, uint64_t importance_rows, float *weight)
{
    void *memory;
    weights_job job = { .cols = cols, .steps = steps, .count = count, .importance = importance, .weight = weight };
    job.importance_stride = importance_rows == 1 ? 0 : cols;
    if (importance) {
        float least, greatest;
        QEM_TRY(qem_cpu_extremes(context, importance, importance_rows * cols, &least, &greatest));
        job.importance_unit = unit_below(greatest);
    }
    for (uint32_t s = 0; s < count; s++) job.unit[s] = step_unit(&steps[s], rows, cols);
    QEM_TRY(qem_allocate(context, cols, sizeof(double), &memory));
    double *columns = memory;
    for (uint64_t j = 0; j < cols; j++) {
        columns[j] = 1.0;
        for (uint32_t s = 0; s < count; s++)
            if (steps[s].axis == QEM_AXIS_COLUMN && steps[s].scale) columns[j] *= squared(&job, s, j);
    }
    job.columns = columns;
    qem_parallel_for(context->threads, rows, rows_of_piece(cols), weigh_rows, &job);
    qem_release(context, memory);
    return QEM_OK;
}
