/* qem dequantize of a model: a complete checkpoint again, with the names, types and shards that it had. */
#include "model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct restore_job {
    const cli_options *options;
    qem_context *context;
    cli_model model;
    cli_record *records;
    uint32_t record_count;
    int lock;
    qem_file *input;
    cli_bundle bundle;
} restore_job;

static int check_options(const cli_options *options)
{
    if (options->output == NULL) return cli_usage("qem dequantize of a model needs -o OUT, a directory");
    if (options->tensor != NULL || options->rows_set) {
        return cli_usage("--tensor and --rows are for files: name the shard instead of the model");
    }
    if (cli_has_suffix(options->output, ".npy") || cli_has_suffix(options->output, ".safetensors")) {
        return cli_usage("%s is a model in a directory: the output is a directory too, not '%s'", options->operands[0],
                         options->output);
    }
    return CLI_OK;
}

/* The type that it had, or that --dtype asks for; what decoding does not know becomes f32. */
static qem_dtype type_of(const restore_job *job, const cli_record *record)
{
    if (job->options->dtype_set) return job->options->dtype;
    return record->source == QEM_DTYPE_F16 || record->source == QEM_DTYPE_BF16 ? record->source : QEM_DTYPE_F32;
}

static int restore_artifact(restore_job *job, const cli_entry *entry, const char *name)
{
    cli_record *record = &job->records[job->record_count];
    qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;
    qem_artifact *artifact = NULL;
    qem_status status = qem_file_load(job->context, job->input, entry->name, &artifact);

    if (status != QEM_OK) return cli_library_error(job->context, status, entry->name);
    cli_record_from_artifact(artifact, record);
    record->tensor = name;
    job->record_count++;
    tensor.name = entry->name;
    tensor.dtype = type_of(job, record);
    tensor.rank = 2;
    tensor.shape[0] = record->rows;
    tensor.shape[1] = record->cols;
    tensor.bytes = record->rows * record->cols * qem_dtype_size(tensor.dtype);
    void *data = malloc(tensor.bytes);
    tensor.data = data;
    double started = cli_seconds();
    if (data != NULL) status = qem_dequantize(job->context, artifact, 0, record->rows, tensor.dtype, data, 0);
    record->dequantize_seconds = cli_seconds() - started;
    qem_artifact_destroy(&artifact);
    if (data != NULL && status == QEM_OK) return cli_bundle_tensor(job->context, &job->bundle, &tensor, data);
    free(data);
    return data == NULL ? cli_fail("out of memory") : cli_library_error(job->context, status, entry->name);
}

static int restore_tensors(restore_job *job, uint32_t shard)
{
    cli_listing listing = { 0 };
    int result = cli_list(job->input, &listing);
    uint32_t first = 0;

    while (first < job->model.tensor_count && job->model.tensors[first].shard != shard) first++;
    for (uint32_t i = 0; i < listing.count && result == CLI_OK; i++) {
        const cli_entry *entry = &listing.entries[i]; /* in the order in which the model lists them */
        const cli_model_tensor *tensor = &job->model.tensors[first + i];
        if (first + i >= job->model.tensor_count || tensor->shard != shard || strcmp(tensor->name, entry->name) != 0) {
            result = cli_fail("%s changed while it was read", job->model.shards[shard].path);
            break;
        }
        const char *name = tensor->name;
        if (entry->is_artifact) cli_progress_label("shard %u/%u %s", shard + 1, job->model.shard_count, name);
        result = entry->is_artifact ? restore_artifact(job, entry, name)
                                    : cli_bundle_tensor(job->context, &job->bundle, &entry->tensor, NULL);
        qem_file_discard(job->input);
    }
    cli_list_free(&listing);
    return result;
}

static int restore_shard(restore_job *job, uint32_t shard)
{
    const cli_shard *source = &job->model.shards[shard];
    char *path = cli_join(job->options->output, source->name);
    qem_status status = path == NULL ? QEM_ERR_MEMORY : qem_file_open(job->context, source->path, &job->input);
    int result = CLI_OK;

    if (path == NULL) return cli_fail("out of memory");
    if (status != QEM_OK) result = cli_library_error(job->context, status, source->path);
    if (result == CLI_OK) result = cli_bundle_open(job->context, path, true, &job->bundle);
    if (result == CLI_OK) result = restore_tensors(job, shard);
    if (result == CLI_OK) result = cli_bundle_commit(job->context, &job->bundle);
    cli_bundle_free(&job->bundle);
    qem_file_close(&job->input);
    free(path);
    return result;
}

static int report(const restore_job *job)
{
    const cli_options *options = job->options;

    if (options->json) {
        json_t *extra = json_object();
        json_object_set_new(extra, "input", cli_json_text(options->operands[0]));
        json_object_set_new(extra, "output", cli_json_text(options->output));
        json_object_set_new(extra, "shards", json_integer(job->model.shard_count));
        return cli_report_json(job->records, job->record_count, job->context, extra);
    }
    cli_report_table(job->records, job->record_count);
    printf("written to %s\n", options->output);
    return CLI_OK;
}

static int run(restore_job *job)
{
    const cli_options *options = job->options;
    uint32_t artifacts = 0;
    int result = cli_start(options, &job->context);

    if (result == CLI_OK) result = cli_model_open(job->context, options->operands[0], &job->model);
    if (result != CLI_OK) return result;
    for (uint32_t i = 0; i < job->model.tensor_count; i++) artifacts += job->model.tensors[i].is_artifact;
    if (artifacts == 0) return cli_fail("%s holds no quantized tensor", options->operands[0]);
    job->records = calloc(artifacts, sizeof(*job->records));
    if (job->records == NULL) return cli_fail("out of memory");
    result = cli_check_extras(&job->model);
    if (result == CLI_OK) result = cli_new_directory(options->output, &job->lock);
    for (uint32_t i = 0; i < job->model.shard_count && result == CLI_OK; i++) result = restore_shard(job, i);
    if (result == CLI_OK) result = cli_copy_extras(&job->model, options->output);
    if (result == CLI_OK && job->model.index != NULL) result = cli_write_index(job->context, options->output, &job->model);
    return result == CLI_OK ? report(job) : result;
}

int cli_dequantize_model(cli_options *options)
{
    restore_job job = { .options = options, .lock = -1 };
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    cli_bundle_free(&job.bundle);
    if (job.lock >= 0) close(job.lock);
    free(job.records);
    cli_model_free(&job.model);
    qem_file_close(&job.input);
    qem_context_destroy(&job.context);
    return result;
}
