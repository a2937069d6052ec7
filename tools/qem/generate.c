/* qem generate: test data. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int check_options(const cli_options *options)
{
    if (strcmp(options->operands[0], "synthetic") != 0) {
        return cli_usage("qem generate makes synthetic data, not '%s'", options->operands[0]);
    }
    if (options->output == NULL) return cli_usage("qem generate needs -o OUT.npy");
    if (!cli_has_suffix(options->output, ".npy")) {
        return cli_usage("the output must end in .npy, not '%s'", options->output);
    }
    return CLI_OK;
}

static int make(const cli_options *options, qem_context *context)
{
    qem_view view = QEM_VIEW_INIT;
    float *data = NULL;
    qem_status status;

    if (options->rows <= SIZE_MAX / sizeof(float) / options->cols) {
        data = malloc((size_t)options->rows * (size_t)options->cols * sizeof(float));
    }
    if (data == NULL) {
        return cli_fail("no memory for %" PRIu64 " x %" PRIu64 " elements", options->rows, options->cols);
    }
    status = qem_generate_synthetic(context, options->rows, options->cols, options->outlier_rate, data);
    if (status == QEM_OK) {
        view.data = data;
        view.rows = options->rows;
        view.cols = options->cols;
        status = qem_save_npy(context, &view, options->output);
    }
    free(data);
    return status == QEM_OK ? CLI_OK : cli_library_error(context, status, NULL);
}

static int report(const cli_options *options)
{
    json_t *object;

    if (!options->json) {
        printf("%" PRIu64 " x %" PRIu64 " f32 written to %s\n", options->rows, options->cols, options->output);
        return CLI_OK;
    }
    object = json_object();
    json_object_set_new(object, "output", cli_json_text(options->output));
    json_object_set_new(object, "rows", json_integer((json_int_t)options->rows));
    json_object_set_new(object, "cols", json_integer((json_int_t)options->cols));
    json_object_set_new(object, "seed", json_integer((json_int_t)options->seed));
    json_object_set_new(object, "outlier_rate", cli_json_real(options->outlier_rate));
    return cli_json_print(object);
}

int cli_generate(cli_options *options)
{
    qem_context *context = NULL;
    int result = check_options(options);

    if (result == CLI_OK) result = cli_start(options, &context);
    if (result == CLI_OK) result = cli_check_output(options->output);
    if (result == CLI_OK) result = make(options, context);
    qem_context_destroy(&context);
    return result == CLI_OK ? report(options) : result;
}
