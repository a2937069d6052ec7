/* qem dequantize: artifacts back to matrices, as .npy or in a .safetensors file. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

typedef struct dequantize_job {
    const cli_options *options;
    qem_context *context;
    qem_file *input;
    cli_listing listing;
    cli_record *records;
    uint32_t record_count;
    cli_bundle bundle;
    bool to_npy;
} dequantize_job;

static int check_options(const cli_options *options)
{
    bool to_npy;

    if (options->output == NULL) return cli_usage("qem dequantize needs -o OUT.npy or OUT.safetensors");
    to_npy = cli_has_suffix(options->output, ".npy");
    if (!to_npy && !cli_has_suffix(options->output, ".safetensors")) {
        return cli_usage("the output must end in .npy or .safetensors, not '%s'", options->output);
    }
    if (to_npy && options->dtype == QEM_DTYPE_BF16) {
        return cli_usage("--dtype bf16: .npy has no such type; write .safetensors");
    }
    return CLI_OK;
}

/* A decoded matrix in memory of its own. */
typedef struct decoded {
    uint64_t rows, cols;
    void *data;
    uint64_t bytes;
} decoded;

static int decode(dequantize_job *job, const qem_artifact *artifact, cli_record *record, decoded *out)
{
    const cli_options *options = job->options;
    uint64_t begin = options->rows_set ? options->row_begin : 0;
    uint64_t end = options->rows_set ? options->row_end : record->rows;
    double started;

    if (end > record->rows) {
        return cli_fail("--rows %llu:%llu: %s has %llu rows", (unsigned long long)begin, (unsigned long long)end,
                        record->tensor, (unsigned long long)record->rows);
    }
    out->rows = end - begin;
    out->cols = record->cols;
    if (out->rows > SIZE_MAX / 4 / out->cols) return cli_fail("out of memory");
    out->bytes = out->rows * out->cols * qem_dtype_size(options->dtype);
    out->data = malloc(out->bytes);
    if (out->data == NULL) return cli_fail("out of memory");
    started = cli_seconds();
    qem_status status = qem_dequantize(job->context, artifact, begin, end, options->dtype, out->data, 0);
    record->dequantize_seconds = cli_seconds() - started;
    return status == QEM_OK ? CLI_OK : cli_library_error(job->context, status, record->tensor);
}

static int save_npy(dequantize_job *job, const decoded *matrix)
{
    qem_view view = QEM_VIEW_INIT;

    view.dtype = job->options->dtype;
    view.data = matrix->data;
    view.rows = matrix->rows;
    view.cols = matrix->cols;
    qem_status status = qem_save_npy(job->context, &view, job->options->output);
    return status == QEM_OK ? CLI_OK : cli_library_error(job->context, status, job->options->output);
}

static int add_tensor(dequantize_job *job, const char *name, const decoded *matrix)
{
    qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;

    tensor.name = name;
    tensor.dtype = job->options->dtype;
    tensor.rank = 2;
    tensor.shape[0] = matrix->rows;
    tensor.shape[1] = matrix->cols;
    tensor.data = matrix->data;
    tensor.bytes = matrix->bytes;
    return cli_bundle_tensor(job->context, &job->bundle, &tensor, matrix->data);
}

static int decode_entry(dequantize_job *job, const cli_entry *entry)
{
    cli_record *record = &job->records[job->record_count];
    decoded matrix = { 0 };
    qem_artifact *artifact = NULL;
    qem_status status = qem_file_load(job->context, job->input, entry->name, &artifact);
    int result;

    if (status != QEM_OK) return cli_library_error(job->context, status, entry->name);
    cli_record_from_artifact(artifact, record);
    record->tensor = entry->name;
    job->record_count++;
    result = decode(job, artifact, record, &matrix);
    qem_artifact_destroy(&artifact);
    if (result == CLI_OK && !job->to_npy) return add_tensor(job, entry->name, &matrix);
    if (result == CLI_OK) result = save_npy(job, &matrix);
    free(matrix.data);
    return result;
}

/* The one artifact that goes to an .npy file, or that --tensor names. */
static int decode_single(dequantize_job *job)
{
    const char *wanted = job->options->tensor;
    const cli_entry *found = NULL;
    uint32_t count = 0;

    for (uint32_t i = 0; i < job->listing.count; i++) {
        const cli_entry *entry = &job->listing.entries[i];
        if (!entry->is_artifact || (wanted != NULL && strcmp(entry->name, wanted) != 0)) continue;
        found = entry;
        count++;
    }
    if (count == 1) return decode_entry(job, found);
    if (wanted != NULL) return cli_fail("%s has no quantized tensor '%s'", job->options->operands[0], wanted);
    return cli_fail("%s holds %u quantized tensors; choose one by --tensor, or write .safetensors",
                    job->options->operands[0], count);
}

static int decode_all(dequantize_job *job)
{
    uint32_t artifacts = qem_file_artifact_count(job->input), number = 0;

    if (artifacts > 1 && job->options->rows_set) {
        return cli_fail("--rows needs --tensor: %s holds %u quantized tensors", job->options->operands[0], artifacts);
    }
    for (uint32_t i = 0; i < job->listing.count; i++) {
        const cli_entry *entry = &job->listing.entries[i];
        if (entry->is_artifact && artifacts > 1) cli_progress_label("%u/%u %s", ++number, artifacts, entry->name);
        int result = entry->is_artifact ? decode_entry(job, entry)
                                        : cli_bundle_entry(job->context, &job->bundle, job->input, entry);
        if (result != CLI_OK) return result;
        if (artifacts > 1) qem_file_discard(job->input);
    }
    return CLI_OK;
}

static int report(const dequantize_job *job)
{
    const cli_options *options = job->options;

    if (options->json) {
        json_t *extra = json_object();
        json_object_set_new(extra, "input", cli_json_text(options->operands[0]));
        json_object_set_new(extra, "output", cli_json_text(options->output));
        json_object_set_new(extra, "dtype", json_string(qem_dtype_name(options->dtype)));
        return cli_report_json(job->records, job->record_count, job->context, extra);
    }
    cli_report_text(job->records, job->record_count);
    printf("written to %s as %s\n", options->output, qem_dtype_name(options->dtype));
    return CLI_OK;
}

static int run(dequantize_job *job)
{
    const cli_options *options = job->options;
    int result = cli_start(options, &job->context);

    if (result != CLI_OK) return result;
    job->to_npy = cli_has_suffix(options->output, ".npy");
    qem_status status = qem_file_open(job->context, options->operands[0], &job->input);
    if (status != QEM_OK) return cli_library_error(job->context, status, options->operands[0]);
    if (qem_file_artifact_count(job->input) == 0) return cli_fail("%s holds no quantized tensor", options->operands[0]);
    result = cli_list(job->input, &job->listing);
    if (result == CLI_OK) result = cli_check_output(options->output);
    if (result != CLI_OK) return result;
    job->records = calloc(job->listing.count + 1, sizeof(*job->records));
    if (job->records == NULL) return cli_fail("out of memory");
    if (!job->to_npy) result = cli_bundle_open(job->context, options->output, qem_file_artifact_count(job->input) > 1, &job->bundle);
    if (result != CLI_OK) return result;
    result = job->to_npy || options->tensor != NULL ? decode_single(job) : decode_all(job);
    if (result == CLI_OK && !job->to_npy) result = cli_bundle_commit(job->context, &job->bundle);
    return result == CLI_OK ? report(job) : result;
}

int cli_dequantize(cli_options *options)
{
    dequantize_job job = { .options = options };
    if (cli_is_model_path(options->operands[0])) return cli_dequantize_model(options);
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    cli_bundle_free(&job.bundle);
    cli_list_free(&job.listing);
    free(job.records);
    qem_file_close(&job.input);
    qem_context_destroy(&job.context);
    return result;
}
