/* qem evaluate: the error of an artifact, or of a decoded matrix, against the original. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

typedef struct evaluate_job {
    const cli_options *options;
    qem_context *context;
    qem_file *original, *second;
    cli_listing listing;        /* of the second file */
    cli_record *records;
    uint32_t record_count;
} evaluate_job;

/* The matrix of the original that stands against `name`: of that name in a model, the only one of other files. */
static int original_view(evaluate_job *job, const char *name, uint32_t compared, qem_view *view)
{
    bool model = qem_file_get_kind(job->original) == QEM_FILE_SAFETENSORS;
    qem_status status = qem_file_view(job->context, job->original, model ? name : NULL, view);

    if (model && status == QEM_ERR_NOT_FOUND && compared == 1 && qem_file_tensor_count(job->original) == 1) {
        status = qem_file_view(job->context, job->original, NULL, view);
    }
    return status == QEM_OK ? CLI_OK : cli_library_error(job->context, status, job->options->operands[0]);
}

static int same_shape(const evaluate_job *job, const cli_record *record, const qem_view *original)
{
    if (record->rows == original->rows && record->cols == original->cols) return CLI_OK;
    return cli_fail("%s has %llu x %llu elements, the original %llu x %llu",
                    record->tensor != NULL ? record->tensor : job->options->operands[1],
                    (unsigned long long)record->rows, (unsigned long long)record->cols,
                    (unsigned long long)original->rows, (unsigned long long)original->cols);
}

static int evaluate_artifact(evaluate_job *job, const cli_entry *entry, const qem_view *original)
{
    cli_record *record = &job->records[job->record_count];
    qem_metrics metrics = QEM_METRICS_INIT;
    qem_artifact *artifact = NULL;
    qem_status status = qem_file_load(job->context, job->second, entry->name, &artifact);
    int result;

    if (status != QEM_OK) return cli_library_error(job->context, status, job->options->operands[1]);
    cli_record_from_artifact(artifact, record);
    record->tensor = entry->name;
    result = same_shape(job, record, original);
    if (result == CLI_OK) {
        status = qem_evaluate(job->context, original, artifact, &metrics);
        if (status != QEM_OK) result = cli_library_error(job->context, status, entry->name);
    }
    qem_artifact_destroy(&artifact);
    record->has_metrics = true;
    record->metrics = metrics;
    job->record_count++;
    return result;
}

static int evaluate_matrix(evaluate_job *job, const cli_entry *entry, const qem_view *original)
{
    cli_record *record = &job->records[job->record_count];
    qem_metrics metrics = QEM_METRICS_INIT;
    qem_view decoded = QEM_VIEW_INIT;
    qem_status status = qem_file_view(job->context, job->second, entry->name, &decoded);
    int result;

    if (status != QEM_OK) return cli_library_error(job->context, status, job->options->operands[1]);
    cli_record_init(record);
    record->tensor = entry->name;
    record->rows = decoded.rows;
    record->cols = decoded.cols;
    result = same_shape(job, record, original);
    if (result != CLI_OK) return result;
    status = qem_evaluate_matrix(job->context, original, &decoded, &metrics);
    if (status != QEM_OK) return cli_library_error(job->context, status, entry->name);
    record->has_metrics = true;
    record->metrics = metrics;
    job->record_count++;
    return CLI_OK;
}

/* With artifacts in the second file those are compared, else its matrices. */
static bool is_compared(const evaluate_job *job, const cli_entry *entry)
{
    bool model = qem_file_get_kind(job->second) == QEM_FILE_SAFETENSORS;

    if (qem_file_artifact_count(job->second) > 0 && !entry->is_artifact) return false;
    if (model && job->options->tensor != NULL) return strcmp(entry->name, job->options->tensor) == 0;
    return entry->is_artifact || !model || cli_is_matrix(entry);
}

static int evaluate_all(evaluate_job *job)
{
    const cli_options *options = job->options;
    uint32_t compared = 0;

    for (uint32_t i = 0; i < job->listing.count; i++) compared += is_compared(job, &job->listing.entries[i]);
    if (compared == 0 && options->tensor != NULL) {
        return cli_fail("%s has no tensor '%s' to compare", options->operands[1], options->tensor);
    }
    if (compared == 0) return cli_fail("%s has no matrix to compare", options->operands[1]);
    for (uint32_t i = 0; i < job->listing.count; i++) {
        const cli_entry *entry = &job->listing.entries[i];
        qem_view original = QEM_VIEW_INIT;
        if (!is_compared(job, entry)) continue;
        int result = original_view(job, options->tensor != NULL ? options->tensor : entry->name, compared, &original);
        if (result == CLI_OK) {
            result = entry->is_artifact ? evaluate_artifact(job, entry, &original)
                                        : evaluate_matrix(job, entry, &original);
        }
        if (result != CLI_OK) return result;
    }
    return CLI_OK;
}

static int run(evaluate_job *job)
{
    const cli_options *options = job->options;
    int result = cli_start(options, &job->context);

    if (result != CLI_OK) return result;
    qem_status status = qem_file_open(job->context, options->operands[0], &job->original);
    if (status != QEM_OK) return cli_library_error(job->context, status, options->operands[0]);
    status = qem_file_open(job->context, options->operands[1], &job->second);
    if (status != QEM_OK) return cli_library_error(job->context, status, options->operands[1]);
    result = cli_list(job->second, &job->listing);
    if (result != CLI_OK) return result;
    job->records = calloc(job->listing.count + 1, sizeof(*job->records));
    if (job->records == NULL) return cli_fail("out of memory");
    result = evaluate_all(job);
    if (result != CLI_OK) return result;
    if (options->json) return cli_report_json(job->records, job->record_count, job->context, NULL);
    cli_report_text(job->records, job->record_count);
    return CLI_OK;
}

int cli_evaluate(cli_options *options)
{
    evaluate_job job = { .options = options };
    int result = run(&job);

    cli_list_free(&job.listing);
    free(job.records);
    qem_file_close(&job.second);
    qem_file_close(&job.original);
    qem_context_destroy(&job.context);
    return result;
}
