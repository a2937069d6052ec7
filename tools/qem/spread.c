/*
 * One budget for several tensors: more bits where they take away more error.
 *
 * For each tensor the error is measured at some rates on a sample, with the method that will be used: a curve. Minimizing the sum
 * of errors under the sum of bytes then means that all tensors pay the same price for a bit (Lagrange): at a price each takes the
 * rate of the least error + price * bytes, and the price is found by bisection. What is left over goes where it takes off most.
 *
 * Errors of different tensors are made comparable either by the importance file, whose weights are on one scale (the error is
 * then the weighted squared error), or, without one, by taking each tensor's relative error (NMSE) times its elements: plain squared
 * errors would starve tensors of small numbers, whose numbers matter as much.
 */
#include "model.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_ROWS 1024u
#define SAMPLE_ELEMENTS (1u << 18)
#define SAMPLE_ALIGN 64u /* columns: whole sub-vectors, whole blocks */

/* Rates beside that of the budget. */
static const double offsets[] = { -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5 };
enum { RATES = sizeof(offsets) / sizeof(offsets[0]) };

typedef struct rate_point {
    double bits;  /* asked for */
    double cost;  /* bytes of the whole tensor */
    double error; /* on the common scale, of the whole tensor */
} rate_point;

typedef struct rate_curve {
    cli_model_tensor *tensor;
    double elements;
    uint32_t count;
    rate_point points[RATES]; /* of rising cost and falling error */
    uint32_t taken;
} rate_curve;

typedef struct spread_job {
    qem_context *context;
    const cli_options *options;
    const qem_recipe *recipe;
    double bits, budget; /* of a weight; of all, in bytes */
    rate_curve *curves;
    uint32_t count;
} spread_job;

/* ------------------------------------------------------------------------------------------------- samples ------ */

/* Rows spread over the matrix, and columns from its middle: a part with the shape of the whole. */
typedef struct sampled {
    qem_view view, importance;
    bool weighted;
    double mean; /* where the sample's weights are all 0: the mean of all weights, which then counts for each; else 0 */
} sampled;

static uint64_t bytes_at(const qem_view *view, uint64_t row, uint64_t col)
{
    uint64_t pitch = view->row_stride ? view->row_stride : view->cols, step = view->col_stride ? view->col_stride : 1;

    if (view->row_pitch_bytes) return row * view->row_pitch_bytes + col * step * qem_dtype_size(view->dtype);
    return (row * pitch + col * step) * qem_dtype_size(view->dtype);
}

static qem_view cut_out(const qem_view *view, uint64_t row_step, uint64_t rows, uint64_t col, uint64_t cols)
{
    qem_view part = *view;

    part.data = (const char *)view->data + bytes_at(view, 0, col);
    part.rows = rows;
    part.cols = cols;
    part.row_stride = (view->row_stride ? view->row_stride : view->cols) * row_step;
    part.row_pitch_bytes = view->row_pitch_bytes * row_step;
    return part;
}

static void take_sample(const qem_view *view, const qem_view *importance, sampled *sample)
{
    uint64_t rows = view->rows < SAMPLE_ROWS ? view->rows : SAMPLE_ROWS, step = view->rows / rows;
    uint64_t cols = SAMPLE_ELEMENTS / rows / SAMPLE_ALIGN * SAMPLE_ALIGN, first = 0;

    if (cols < view->cols) first = (view->cols - cols) / 2 / SAMPLE_ALIGN * SAMPLE_ALIGN;
    else cols = view->cols;
    sample->view = cut_out(view, step, rows, first, cols);
    sample->weighted = importance != NULL;
    sample->mean = 0;
    if (importance == NULL) return;
    bool one_row = importance->rows == 1;
    sample->importance = cut_out(importance, one_row ? 1 : step, one_row ? 1 : rows, first, cols);
}

/* ------------------------------------------------------------------------------------------------ one point ----- */

/* Sum of weight * squared error over the sample, and the count of its elements. */
static qem_status weigh(qem_context *context, const sampled *sample, const qem_artifact *artifact, float *buffers[3], double *sum)
{
    uint64_t rows = sample->view.rows, cols = sample->view.cols;
    qem_status status = qem_to_f32(context, &sample->view, buffers[0]);

    if (status == QEM_OK) status = qem_to_f32(context, &sample->importance, buffers[1]);
    if (status == QEM_OK) status = qem_dequantize(context, artifact, 0, rows, QEM_DTYPE_F32, buffers[2], 0);
    *sum = 0;
    for (uint64_t i = 0; i < rows * cols && status == QEM_OK; i++) {
        double error = (double)buffers[0][i] - buffers[2][i];
        *sum += error * error * buffers[1][sample->importance.rows == 1 ? i % cols : i];
    }
    return status;
}

static qem_status weighted_error(qem_context *context, const sampled *sample, const qem_artifact *artifact, double *sum)
{
    size_t elements = (size_t)(sample->view.rows * sample->view.cols);
    float *memory = malloc(3 * elements * sizeof(*memory));
    float *buffers[3] = { memory, memory + elements, memory + 2 * elements };
    qem_status status = QEM_ERR_MEMORY;

    if (memory != NULL) status = weigh(context, sample, artifact, buffers, sum);
    free(memory);
    return status;
}

/* The error of the whole tensor on the scale that all tensors share, carried over from the sample. */
static qem_status error_of(qem_context *context, const sampled *sample, const qem_artifact *artifact, double elements, double *error)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_status status = qem_artifact_query(artifact, &info);

    if (status != QEM_OK) return status;
    if (sample->mean > 0) {
        *error = info.metrics.mse * sample->mean * elements;
        return QEM_OK;
    }
    if (!sample->weighted) {
        *error = isfinite(info.metrics.nmse) ? info.metrics.nmse * elements : 0;
        return QEM_OK;
    }
    status = weighted_error(context, sample, artifact, error);
    *error *= elements / ((double)sample->view.rows * (double)sample->view.cols);
    return status;
}

/* The bytes that the whole tensor will take: what the planner says, or, of recipes that are still to be found, all of it. */
static qem_status cost_of(qem_context *context, const qem_view *view, const qem_recipe *recipe, double elements, double *cost)
{
    qem_plan plan = QEM_PLAN_INIT;

    *cost = floor(recipe->bits * elements / 8);
    if (recipe->method == QEM_METHOD_AUTO) return QEM_OK;
    qem_status status = qem_make_plan(context, view, recipe, &plan);
    if (status == QEM_OK) *cost = (double)plan.stored_bytes;
    return status;
}

static qem_status measure(qem_context *context, const qem_view *view, const sampled *sample, const qem_recipe *recipe,
                          double elements, rate_point *point)
{
    qem_artifact *artifact = NULL;
    qem_recipe shortened = *recipe;
    qem_status status = cost_of(context, view, recipe, elements, &point->cost);

    point->bits = recipe->bits;
    shortened.importance = sample->weighted ? &sample->importance : NULL;
    shortened.effort = recipe->method == QEM_METHOD_AUTO ? 0 : recipe->effort;
    if (status == QEM_OK) status = qem_quantize(context, &sample->view, NULL, &shortened, &artifact);
    if (status == QEM_OK) status = error_of(context, sample, artifact, elements, &point->error);
    qem_artifact_destroy(&artifact);
    return status;
}

/* ------------------------------------------------------------------------------------------------- curves ------- */

/* A rate that does not fit a tensor is no rate of its curve; other errors end the run. */
static bool is_out(qem_status status)
{
    return status == QEM_ERR_BUDGET || status == QEM_ERR_RANGE || status == QEM_ERR_ARGUMENT || status == QEM_ERR_UNSUPPORTED;
}

/* Keeps the points that take more bytes than the ones before and leave less error. */
static void add_point(rate_curve *curve, const rate_point *point)
{
    const rate_point *last = curve->count > 0 ? &curve->points[curve->count - 1] : NULL;

    if (last != NULL && (point->cost <= last->cost || point->error >= last->error)) return;
    curve->points[curve->count++] = *point;
}

static qem_status mean_of(qem_context *context, const qem_view *view, double *mean)
{
    float *values = malloc((size_t)(view->rows * view->cols) * sizeof(*values));
    qem_status status = values == NULL ? QEM_ERR_MEMORY : qem_to_f32(context, view, values);

    *mean = 0;
    for (uint64_t i = 0; i < view->rows * view->cols && status == QEM_OK; i++) *mean += values[i];
    *mean /= (double)view->rows * (double)view->cols;
    free(values);
    return status;
}

/* Weights may all be 0 in a sample: it is then fitted without them. */
static qem_status weigh_sample(qem_context *context, const qem_view *importance, sampled *sample)
{
    double mean = 0;
    qem_status status = sample->weighted ? mean_of(context, &sample->importance, &mean) : QEM_OK;

    if (status != QEM_OK || !sample->weighted || mean > 0) return status;
    sample->weighted = false;
    return mean_of(context, importance, &sample->mean);
}

static int measure_curve(spread_job *job, const qem_view *view, const qem_view *importance, rate_curve *curve)
{
    sampled sample;
    qem_status status = QEM_OK;

    take_sample(view, importance, &sample);
    status = weigh_sample(job->context, importance, &sample);
    if (status != QEM_OK) return cli_library_error(job->context, status, job->options->importance);
    for (int i = 0; i < RATES; i++) {
        qem_recipe recipe = *job->recipe;
        rate_point point = { 0 };
        recipe.ratio = 0;
        recipe.bits = job->bits + offsets[i];
        if (recipe.bits < job->bits / 2) continue;
        qem_status tried = measure(job->context, view, &sample, &recipe, curve->elements, &point);
        if (tried == QEM_OK) add_point(curve, &point);
        else if (!is_out(tried)) return cli_library_error(job->context, tried, curve->tensor->name);
        else status = tried;
    }
    if (curve->count > 0) return CLI_OK;
    return cli_library_error(job->context, status, curve->tensor->name); /* the last one tried: the most bits */
}

static int curve_of(spread_job *job, const qem_file *file, rate_curve *curve)
{
    qem_view view = QEM_VIEW_INIT, storage = QEM_VIEW_INIT;
    const qem_view *importance = NULL;
    qem_status status = qem_file_view(job->context, file, curve->tensor->name, &view);
    int result;

    if (status != QEM_OK) return cli_library_error(job->context, status, curve->tensor->name);
    result = cli_importance_for(job->context, job->options, curve->tensor->name, &storage, &importance);
    if (result != CLI_OK) return result;
    if (importance != NULL && (importance->cols != view.cols || (importance->rows != 1 && importance->rows != view.rows))) {
        return cli_fail("%s: the weights for '%s' are %llu x %llu; it is %llu x %llu", job->options->importance,
                        curve->tensor->name, (unsigned long long)importance->rows, (unsigned long long)importance->cols,
                        (unsigned long long)view.rows, (unsigned long long)view.cols);
    }
    curve->elements = (double)view.rows * (double)view.cols;
    return measure_curve(job, &view, importance, curve);
}

/* The curves of all chosen tensors, shard by shard. */
static int measure_all(spread_job *job, cli_model *model)
{
    int result = CLI_OK;
    uint32_t next = 0, total = job->count;

    for (uint32_t s = 0; s < model->shard_count && result == CLI_OK; s++) {
        qem_file *file = NULL;
        qem_status status = qem_file_open(job->context, model->shards[s].path, &file);
        if (status != QEM_OK) return cli_library_error(job->context, status, model->shards[s].path);
        for (uint32_t i = 0; i < model->tensor_count && result == CLI_OK; i++) {
            if (model->tensors[i].shard != s || !model->tensors[i].chosen) continue;
            cli_progress_label("rates %u/%u %s", next + 1, total, model->tensors[i].name);
            job->curves[next].tensor = &model->tensors[i];
            result = curve_of(job, file, &job->curves[next++]);
            qem_file_discard(file);
            qem_file_discard(job->options->importance_file);
        }
        qem_file_close(&file);
    }
    return result;
}

/* ------------------------------------------------------------------------------------------------- the price ---- */

/* What each tensor takes at a price of error for a byte; returns the bytes of all. */
static double take_at(spread_job *job, double price)
{
    double bytes = 0;

    for (uint32_t i = 0; i < job->count; i++) {
        rate_curve *curve = &job->curves[i];
        curve->taken = 0;
        for (uint32_t p = 1; p < curve->count; p++) {
            const rate_point *best = &curve->points[curve->taken], *other = &curve->points[p];
            if (other->error + price * other->cost < best->error + price * best->cost) curve->taken = p;
        }
        bytes += curve->points[curve->taken].cost;
    }
    return bytes;
}

/* The gain of one step up the curve for each byte, or -1 where there is none that `room` allows; *next: the step's end. */
static double gain_of(const rate_curve *curve, double room, uint32_t *next)
{
    const rate_point *now = &curve->points[curve->taken];
    double best = -1;

    for (uint32_t p = curve->taken + 1; p < curve->count; p++) {
        const rate_point *then = &curve->points[p];
        double gain = (now->error - then->error) / (then->cost - now->cost);
        if (then->cost - now->cost > room || gain <= best) continue;
        best = gain;
        *next = p;
    }
    return best;
}

/* Spends what the price left over, step by step, where a byte takes off most; returns what remains. */
static double spend_rest(spread_job *job, double room)
{
    for (;;) {
        rate_curve *best = NULL;
        double most = -1;
        uint32_t step = 0;
        for (uint32_t i = 0; i < job->count; i++) {
            uint32_t next = 0;
            double gain = gain_of(&job->curves[i], room, &next);
            if (gain <= most) continue;
            most = gain;
            best = &job->curves[i];
            step = next;
        }
        if (best == NULL) return room;
        room -= best->points[step].cost - best->points[best->taken].cost;
        best->taken = step;
    }
}

static int find_price(spread_job *job)
{
    enum { STEPS = 200 };
    double low = 0, high = 1, least = take_at(job, DBL_MAX);

    if (least > job->budget) {
        return cli_fail("%g bits a weight are too few: the least that all tensors take together are %.4f", job->bits,
                        least / job->budget * job->bits);
    }
    while (take_at(job, high) > job->budget && high < DBL_MAX / 4) high *= 4;
    for (int i = 0; i < STEPS; i++) {
        double middle = (low + high) / 2;
        if (take_at(job, middle) > job->budget) low = middle;
        else high = middle;
    }
    double room = spend_rest(job, job->budget - take_at(job, high));
    double all = job->budget * 8 / job->bits, extra = room * 8 / all;
    for (uint32_t i = 0; i < job->count; i++) {
        const rate_curve *curve = &job->curves[i];
        /* Half a bit more than the bytes: the planner must find the same size again. */
        curve->tensor->bits = (8 * curve->points[curve->taken].cost + 0.5) / curve->elements + extra;
    }
    return CLI_OK;
}

int cli_spread(qem_context *context, const cli_options *options, const qem_recipe *recipe, double bits, cli_model *model)
{
    spread_job job = { .context = context, .options = options, .recipe = recipe, .bits = bits };
    int result = CLI_OK;

    for (uint32_t i = 0; i < model->tensor_count; i++) job.count += model->tensors[i].chosen;
    job.curves = calloc(job.count, sizeof(*job.curves));
    if (job.curves == NULL) return cli_fail("out of memory");
    result = measure_all(&job, model);
    for (uint32_t i = 0; i < job.count; i++) job.budget += job.curves[i].elements * bits / 8;
    if (result == CLI_OK) result = find_price(&job);
    free(job.curves);
    return result;
}
