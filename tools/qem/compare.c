/* qem compare: every method at every budget, on one matrix, on one device or on two beside each other. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DEVICES = 2 };

/* One device, and what the last run made on it. */
typedef struct compare_side {
    qem_context *context;
    qem_context_info where;
    qem_artifact *artifact;
    float *decoded;
} compare_side;

typedef struct compare_job {
    cli_options *options;
    compare_side sides[MOST_DEVICES];
    uint32_t side_count;
    qem_file *input;
    qem_view view;
    const char *tensor;
    cli_result *results;
    uint32_t count;
} compare_job;

static int check_options(const cli_options *options)
{
    if (options->plot != NULL && !cli_has_suffix(options->plot, ".svg")) {
        return cli_usage("--plot writes SVG: its file must end in .svg, not '%s'", options->plot);
    }
    return CLI_OK;
}

/* All devices must be there before the first long run starts. */
static int start_sides(compare_job *job)
{
    cli_options one = *job->options;

    for (uint32_t i = 0; i < job->options->device_count; i++) {
        compare_side *side = &job->sides[i];
        one.device = job->options->devices[i];
        int result = cli_start(&one, &side->context);
        if (result != CLI_OK) return result;
        side->where = (qem_context_info)QEM_CONTEXT_INFO_INIT;
        qem_context_query(side->context, &side->where);
        job->side_count++;
    }
    return CLI_OK;
}

/* Reads one byte a page, so that the first method does not pay for bringing the file into memory. */
static void touch(const qem_view *view)
{
    size_t element = qem_dtype_size(view->dtype);
    uint64_t row_stride = view->row_stride != 0 ? view->row_stride : view->cols;
    uint64_t col_stride = view->col_stride != 0 ? view->col_stride : 1;
    uint64_t pitch = view->row_pitch_bytes != 0 ? view->row_pitch_bytes : row_stride * element;
    uint64_t bytes = (view->rows - 1) * pitch + (view->cols - 1) * col_stride * element + 1;
    const volatile unsigned char *data = view->data;
    unsigned char sink = 0;

    for (uint64_t at = 0; at < bytes; at += 4096) sink ^= data[at];
    (void)sink;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return count % 2 == 1 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

static qem_status run_once(compare_job *job, compare_side *side, const qem_recipe *recipe, cli_record *record)
{
    double started;

    qem_artifact_destroy(&side->artifact);
    qem_status status = qem_quantize(side->context, &job->view, job->tensor, recipe, &side->artifact);
    if (status != QEM_OK) return status;
    cli_record_from_artifact(side->artifact, record);
    record->automatic = recipe->method == QEM_METHOD_AUTO;
    record->tensor = job->tensor;
    started = cli_seconds();
    status = qem_dequantize(side->context, side->artifact, 0, job->view.rows, QEM_DTYPE_F32, side->decoded, 0);
    record->dequantize_seconds = cli_seconds() - started;
    return status;
}

static void set_infeasible(const compare_job *job, const compare_side *side, qem_method method, cli_result *result)
{
    cli_record_init(&result->record);
    result->record.method = method;
    result->record.automatic = method == QEM_METHOD_AUTO;
    result->record.rows = job->view.rows;
    result->record.cols = job->view.cols;
    result->record.tensor = job->tensor;
    result->record.source = job->view.dtype;
    result->feasible = false;
    snprintf(result->reason, sizeof(result->reason), "%s", qem_last_error(side->context));
}

/* A budget that cannot be met, or a codebook that its type cannot hold, is a result; anything else is an error. */
static int run_cell(compare_job *job, compare_side *side, qem_method method, double theta, double *times)
{
    const cli_options *options = job->options;
    qem_recipe chain[CLI_LAYERS];
    const qem_recipe *recipe = cli_make_recipe_for(options, method, theta, chain);
    cli_result *result = &job->results[job->count];
    uint32_t repeat = options->repeat;

    *result = (cli_result){ .theta = theta, .feasible = true, .where = side->where };
    result->quantize_ratio = result->dequantize_ratio = NAN;
    cli_progress_label("%s theta %g", qem_method_name(method), theta);
    for (uint32_t i = 0; i < repeat; i++) {
        qem_status status = run_once(job, side, recipe, &result->record);
        if (status == QEM_ERR_BUDGET || status == QEM_ERR_RANGE) {
            set_infeasible(job, side, method, result);
            break;
        }
        if (status != QEM_OK) return cli_library_error(side->context, status, qem_method_name(method));
        times[i] = result->record.quantize_seconds;
        times[repeat + i] = result->record.dequantize_seconds;
    }
    if (result->feasible) {
        result->record.quantize_seconds = median(times, repeat);
        result->record.dequantize_seconds = median(times + repeat, repeat);
    }
    job->count++;
    return CLI_OK;
}

static bool is_codes(const char *name)
{
    return strcmp(name, "codes") == 0 || cli_has_suffix(name, ".codes");
}

/* Have two artifacts the same codes, in all stages? */
static bool same_codes(const qem_artifact *a, const qem_artifact *b)
{
    uint32_t count = qem_artifact_part_count(a);

    if (qem_artifact_part_count(b) != count) return false;
    for (uint32_t i = 0; i < count; i++) {
        qem_part x = QEM_PART_INIT, y = QEM_PART_INIT;
        if (qem_artifact_part(a, i, &x) != QEM_OK || qem_artifact_part(b, i, &y) != QEM_OK) return false;
        if (strcmp(x.name, y.name) != 0 || x.bytes != y.bytes) return false;
        if (is_codes(x.name) && memcmp(x.data, y.data, x.bytes) != 0) return false;
    }
    return true;
}

static double largest_difference(const float *a, const float *b, uint64_t count)
{
    double largest = 0;

    for (uint64_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (difference > largest) largest = difference;
    }
    return largest;
}

/* The second device beside the first, whose result is the one before. */
static void compare_sides(const compare_job *job, cli_result *second)
{
    const compare_side *a = &job->sides[0], *b = &job->sides[1];

    if (!second[-1].feasible || !second->feasible) return;
    second->compared = true;
    second->codes_equal = same_codes(a->artifact, b->artifact);
    second->device_difference = largest_difference(a->decoded, b->decoded, job->view.rows * job->view.cols);
}

static int run_method(compare_job *job, qem_method method, double theta, const cli_result *first, double *times)
{
    const cli_options *options = job->options;

    for (uint32_t d = 0; d < job->side_count; d++) {
        cli_result *cell = &job->results[job->count];
        int result = run_cell(job, &job->sides[d], method, theta, times);
        if (result != CLI_OK) return result;
        cell->quantize_ratio = cell->record.quantize_seconds / first->record.quantize_seconds;
        cell->dequantize_ratio = cell->record.dequantize_seconds / first->record.dequantize_seconds;
        if (d == 1) compare_sides(job, cell);
        cli_progress_clear();
        if (options->json) continue;
        if (job->count == 1) cli_compare_header(stdout, job->side_count > 1);
        cli_compare_row(stdout, cell, job->side_count > 1);
    }
    return CLI_OK;
}

static int run_all(compare_job *job)
{
    const cli_options *options = job->options;
    double *times = malloc(2 * sizeof(double) * options->repeat);
    int result = times == NULL ? cli_fail("out of memory") : CLI_OK;

    for (uint32_t r = 0; r < options->ratio_count && result == CLI_OK; r++) {
        const cli_result *first = &job->results[job->count];
        for (uint32_t m = 0; m < options->method_count && result == CLI_OK; m++) {
            result = run_method(job, options->methods[m], options->ratios[r], first, times);
        }
    }
    free(times);
    return result;
}

static int report_json(const compare_job *job)
{
    json_t *object = json_object();

    json_object_set_new(object, "input", cli_json_text(job->options->operands[0]));
    json_object_set_new(object, "tensor", cli_json_text(job->tensor));
    json_object_set_new(object, "rows", json_integer((json_int_t)job->view.rows));
    json_object_set_new(object, "cols", json_integer((json_int_t)job->view.cols));
    json_object_set_new(object, "repeat", json_integer(job->options->repeat));
    json_object_set_new(object, "results", cli_compare_json(job->results, job->count));
    return cli_json_print(object);
}

static int open_input(compare_job *job)
{
    const cli_options *options = job->options;
    cli_listing listing;
    int result;
    qem_context *context = job->sides[0].context;
    qem_status status = qem_file_open(context, options->operands[0], &job->input);

    if (status == QEM_OK) status = qem_file_view(context, job->input, options->tensor, &job->view);
    if (status != QEM_OK) return cli_library_error(context, status, options->operands[0]);
    result = cli_list(job->input, &listing);
    if (result != CLI_OK) return result;
    job->tensor = options->tensor;
    for (uint32_t i = 0; i < listing.count && job->tensor == NULL; i++) {
        if (listing.count == 1 || cli_is_matrix(&listing.entries[i])) job->tensor = listing.entries[i].name;
    }
    if (job->tensor == NULL) job->tensor = listing.entries[0].name;
    cli_list_free(&listing);
    touch(&job->view);
    job->results = calloc((size_t)options->method_count * options->ratio_count * job->side_count, sizeof(*job->results));
    if (job->results == NULL || job->view.rows > SIZE_MAX / sizeof(float) / job->view.cols) return cli_fail("out of memory");
    for (uint32_t d = 0; d < job->side_count; d++) {
        size_t bytes = (size_t)job->view.rows * (size_t)job->view.cols * sizeof(float);
        job->sides[d].decoded = malloc(bytes);
        if (job->sides[d].decoded == NULL) return cli_fail("out of memory");
        /* Not in the time of the first decoding: the system's work of handing out the pages. */
        memset(job->sides[d].decoded, 1, bytes);
    }
    return CLI_OK;
}

/* The first device's results alone: the errors of the other are the same. */
static int plot(const compare_job *job)
{
    cli_result *results = calloc(job->count, sizeof(*results));
    char title[300];
    uint32_t count = 0;

    if (results == NULL) return cli_fail("out of memory");
    for (uint32_t i = 0; i < job->count; i += job->side_count) results[count++] = job->results[i];
    snprintf(title, sizeof(title), "%s, %llu x %llu", job->tensor, (unsigned long long)job->view.rows,
             (unsigned long long)job->view.cols);
    int result = cli_plot(job->options->plot, title, results, count);
    free(results);
    return result;
}

static int run(compare_job *job)
{
    cli_options *options = job->options;
    int result = start_sides(job);

    if (result == CLI_OK && options->plot != NULL) result = cli_plot_check(options->plot);
    if (result == CLI_OK && options->csv != NULL) result = cli_check_output(options->csv);
    if (result == CLI_OK) result = open_input(job);
    if (result == CLI_OK) result = cli_open_importance(job->sides[0].context, options);
    if (result == CLI_OK && options->importance != NULL && options->recipe.importance == NULL) {
        result = cli_fail("qem compare takes its weights from an .npy file, not from %s", options->importance);
    }
    if (result == CLI_OK) result = run_all(job);
    if (result == CLI_OK && options->csv != NULL) result = cli_compare_csv(options->csv, job->results, job->count);
    if (result == CLI_OK && options->plot != NULL) result = plot(job);
    return result == CLI_OK && options->json ? report_json(job) : result;
}

int cli_compare(cli_options *options)
{
    compare_job job = { .options = options, .view = QEM_VIEW_INIT };
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    free(job.results);
    qem_file_close(&options->importance_file);
    qem_file_close(&job.input);
    for (uint32_t d = 0; d < MOST_DEVICES; d++) {
        free(job.sides[d].decoded);
        qem_artifact_destroy(&job.sides[d].artifact);
        qem_context_destroy(&job.sides[d].context);
    }
    return result;
}
