/* z = (x - mean) / scale of every step, and the weights that make an error of z count as one of x. */
#include "undo.cuh"

#include <math.h>

/* ---- standardize ---- */

/* A thread makes an element; neighbours share the units' scales in L1. Bytes: 4 read and 4 written, the minimum. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    undo(const float *x, uint64_t rows, uint64_t cols, qem_undo_steps steps, float *z)
{
    for (uint64_t i = qem_cuda_first(); i < rows * cols; i += qem_cuda_stride()) {
        const uint64_t row = i / cols, col = i - row * cols;
        float value = x[i];
#pragma unroll
        for (uint32_t s = QEM_MOST_AFFINE; s-- > 0;) { /* of constant places: the steps stay where arguments lie */
            if (s >= steps.count) continue;
            const qem_undo_step &step = steps.step[s];
            const uint64_t unit = qem_undo_unit(step, row, col);
            if (step.mean) value = value - __ldg(step.mean + unit);
            if (!step.scale) continue;
            /* dividing by infinity gives 0; + 0 makes it the positive one, and leaves all else as it is */
            const float scale = __ldg(step.scale + unit);
            value = value / (scale == 0.0f ? INFINITY : scale) + 0.0f;
        }
        z[i] = value;
    }
}

qem_status qem_cuda_standardize(qem_context *context, const float *x, uint64_t rows, uint64_t cols,
                                const qem_decode_affine *steps, uint32_t count, float *z)
{
    qem_cuda_call call(context);
    qem_undo_steps on_device;
    QEM_TRY(call.status);
    if (count == 0) return x == z ? QEM_OK : call.copy(z, x, rows * cols * sizeof *z);
    QEM_TRY(qem_put_steps(call, steps, count, rows, cols, &on_device));
    return call.launch(
        QEM_LAUNCH(undo, call.blocks(rows * cols), QEM_CUDA_THREADS, 0, call.stream, x, rows, cols, on_device, z));
}

/* ---- weights ---- */

struct weights_job {
    uint64_t rows, cols;
    qem_undo_steps steps;
    double unit[QEM_MOST_AFFINE]; /* of each step: the power of two that brings its scales below 1 */
    const double *columns;        /* product of the squares of the steps of columns */
    const float *importance;      /* or NULL */
    uint64_t importance_stride;
    double importance_unit;
};

/* Bytes: 4 written an element, and 4 read where there is an importance of each, the minimum; the columns' products come
 * from L2. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) weigh(weights_job job, float *weight)
{
    for (uint64_t i = qem_cuda_first(); i < job.rows * job.cols; i += qem_cuda_stride()) {
        const uint64_t row = i / job.cols, col = i - row * job.cols;
        double factor = 1.0;
        for (uint32_t s = 0; s < job.steps.count; s++) {
            const qem_undo_step &step = job.steps.step[s];
            if (step.axis == QEM_AXIS_COLUMN || !step.scale) continue;
            const double scale = (double)__ldg(step.scale + qem_undo_unit(step, row, col)) * job.unit[s];
            factor *= scale * scale;
        }
        double w = job.columns[col] * factor;
        if (job.importance) w *= (double)__ldg(job.importance + row * job.importance_stride + col) * job.importance_unit;
        weight[i] = (float)w;
    }
}

static double unit_below(float largest)
{
    return largest > 0.0f ? ldexp(1.0, -(ilogbf(largest) + 1)) : 1.0;
}

static double step_unit(const qem_decode_affine &step, uint64_t rows, uint64_t cols)
{
    float largest = 0.0f;
    if (!step.scale) return 1.0;
    const uint64_t units = qem_undo_units(step.axis, step.block, rows, cols);
    for (uint64_t u = 0; u < units; u++) largest = fabsf(step.scale[u]) > largest ? fabsf(step.scale[u]) : largest;
    return unit_below(largest);
}

static qem_status put_columns(qem_cuda_call &call, const qem_decode_affine *steps, weights_job *job)
{
    void *memory;
    double *on_device;
    QEM_TRY(qem_allocate(call.context, job->cols, sizeof(double), &memory));
    double *const columns = (double *)memory;
    for (uint64_t j = 0; j < job->cols; j++) {
        columns[j] = 1.0;
        for (uint32_t s = 0; s < job->steps.count; s++) {
            if (steps[s].axis != QEM_AXIS_COLUMN || !steps[s].scale) continue;
            const double scale = (double)steps[s].scale[j] * job->unit[s];
            columns[j] *= scale * scale;
        }
    }
    const qem_status status = call.put(columns, job->cols, &on_device);
    job->columns = on_device;
    qem_release(call.context, memory);
    return status;
}

qem_status qem_cuda_element_weights(qem_context *context, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                                    uint32_t count, const float *importance, uint64_t importance_rows, float *weight)
{
    qem_cuda_call call(context);
    weights_job job = weights_job();
    float least, greatest;
    QEM_TRY(call.status);
    job.rows = rows;
    job.cols = cols;
    job.importance = importance;
    job.importance_stride = importance_rows == 1 ? 0 : cols;
    if (importance) {
        QEM_TRY(qem_cuda_extremes(context, importance, importance_rows * cols, &least, &greatest));
        job.importance_unit = unit_below(greatest);
    }
    QEM_TRY(qem_put_steps(call, steps, count, rows, cols, &job.steps));
    for (uint32_t s = 0; s < count; s++) job.unit[s] = step_unit(steps[s], rows, cols);
    QEM_TRY(put_columns(call, steps, &job));
    return call.launch(QEM_LAUNCH(weigh, call.blocks(rows * cols), QEM_CUDA_THREADS, 0, call.stream, job, weight));
}
