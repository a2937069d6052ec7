/* qem compare: every method at every budget, on one matrix. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct compare_job {
    cli_options *options;
    qem_context *context;
    qem_context_info where;
    qem_file *input;
    qem_view view;
    const char *tensor;
    float *decoded;
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
static int check_devices(const cli_options *options)
{
    cli_options one = *options;
    qem_context *context = NULL;

    for (uint32_t i = 0; i < options->device_count; i++) {
        one.device = options->devices[i];
        int result = cli_start(&one, &context);
        qem_context_destroy(&context);
        if (result != CLI_OK) return result;
    }
    if (options->device_count > 1) return cli_fail("comparing two devices is not in this version");
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

static qem_status run_once(compare_job *job, const qem_recipe *recipe, cli_record *record)
{
    qem_artifact *artifact = NULL;
    qem_status status = qem_quantize(job->context, &job->view, job->tensor, recipe, &artifact);
    double started;

    if (status != QEM_OK) return status;
    cli_record_from_artifact(artifact, record);
    record->automatic = recipe->method == QEM_METHOD_AUTO;
    record->tensor = job->tensor;
    started = cli_seconds();
    status = qem_dequantize(job->context, artifact, 0, job->view.rows, QEM_DTYPE_F32, job->decoded, 0);
    record->dequantize_seconds = cli_seconds() - started;
    qem_artifact_destroy(&artifact);
    return status;
}

/* A budget that cannot be met, or a codebook that its type cannot hold, is a result; anything else is an error. */
static int run_cell(compare_job *job, qem_method method, double theta, double *times)
{
    const cli_options *options = job->options;
    qem_recipe chain[CLI_LAYERS];
    const qem_recipe *recipe = cli_make_recipe_for(options, method, theta, chain);
    cli_result *result = &job->results[job->count];
    uint32_t repeat = options->repeat;

    *result = (cli_result){ .theta = theta, .feasible = true, .where = job->where };
    result->quantize_ratio = result->dequantize_ratio = NAN;
    cli_progress_label("%s theta %g", qem_method_name(method), theta);
    for (uint32_t i = 0; i < repeat; i++) {
        qem_status status = run_once(job, recipe, &result->record);
        if (status == QEM_ERR_BUDGET || status == QEM_ERR_RANGE) {
            cli_record_init(&result->record);
            result->record.method = method;
            result->record.automatic = method == QEM_METHOD_AUTO;
            result->record.rows = job->view.rows;
            result->record.cols = job->view.cols;
            result->record.tensor = job->tensor;
            result->record.source = job->view.dtype;
            result->feasible = false;
            snprintf(result->reason, sizeof(result->reason), "%s", qem_last_error(job->context));
            break;
        }
        if (status != QEM_OK) return cli_library_error(job->context, status, qem_method_name(method));
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

static int run_all(compare_job *job)
{
    const cli_options *options = job->options;
    double *times = malloc(2 * sizeof(double) * options->repeat);
    int result = times == NULL ? cli_fail("out of memory") : CLI_OK;

    for (uint32_t r = 0; r < options->ratio_count && result == CLI_OK; r++) {
        const cli_result *first = &job->results[job->count];
        for (uint32_t m = 0; m < options->method_count && result == CLI_OK; m++) {
            cli_result *cell = &job->results[job->count];
            result = run_cell(job, options->methods[m], options->ratios[r], times);
            if (result != CLI_OK) break;
            cell->quantize_ratio = cell->record.quantize_seconds / first->record.quantize_seconds;
            cell->dequantize_ratio = cell->record.dequantize_seconds / first->record.dequantize_seconds;
            cli_progress_clear();
            if (options->json) continue;
            if (job->count == 1) cli_compare_header(stdout);
            cli_compare_row(stdout, cell);
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
    qem_status status = qem_file_open(job->context, options->operands[0], &job->input);

    if (status == QEM_OK) status = qem_file_view(job->context, job->input, options->tensor, &job->view);
    if (status != QEM_OK) return cli_library_error(job->context, status, options->operands[0]);
    result = cli_list(job->input, &listing);
    if (result != CLI_OK) return result;
    job->tensor = options->tensor != NULL ? options->tensor : listing.entries[0].name;
    cli_list_free(&listing);
    touch(&job->view);
    job->results = calloc((size_t)options->method_count * options->ratio_count, sizeof(*job->results));
    if (job->view.rows <= SIZE_MAX / sizeof(float) / job->view.cols) {
        size_t bytes = (size_t)job->view.rows * (size_t)job->view.cols * sizeof(float);
        job->decoded = malloc(bytes);
        /* Not in the time of the first decoding: the system's work of handing out the pages. */
        if (job->decoded != NULL) memset(job->decoded, 1, bytes);
    }
    return job->results == NULL || job->decoded == NULL ? cli_fail("out of memory") : CLI_OK;
}

static int run(compare_job *job)
{
    cli_options *options = job->options;
    int result = check_devices(options);

    options->device = options->devices[0];
    if (result == CLI_OK && options->plot != NULL) result = cli_plot_check(options->plot);
    if (result == CLI_OK && options->csv != NULL) result = cli_check_output(options->csv);
    if (result == CLI_OK) result = cli_start(options, &job->context);
    if (result == CLI_OK) result = open_input(job);
    if (result == CLI_OK) result = cli_open_importance(job->context, options);
    if (result != CLI_OK) return result;
    qem_context_query(job->context, &job->where);
    result = run_all(job);
    if (result != CLI_OK) return result;
    if (options->csv != NULL) result = cli_compare_csv(options->csv, job->results, job->count);
    if (result == CLI_OK && options->plot != NULL) {
        char title[300];
        snprintf(title, sizeof(title), "%s, %llu x %llu", job->tensor, (unsigned long long)job->view.rows,
                 (unsigned long long)job->view.cols);
        result = cli_plot(options->plot, title, job->results, job->count);
    }
    return result == CLI_OK && options->json ? report_json(job) : result;
}

int cli_compare(cli_options *options)
{
    compare_job job = { .options = options, .view = QEM_VIEW_INIT, .where = QEM_CONTEXT_INFO_INIT };
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    free(job.results);
    free(job.decoded);
    qem_file_close(&options->importance_file);
    qem_file_close(&job.input);
    qem_context_destroy(&job.context);
    return result;
}
