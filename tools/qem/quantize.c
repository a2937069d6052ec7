/* qem quantize: one matrix, or all matrices of a model, into one .safetensors file. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

typedef struct quantize_job {
    cli_options *options;
    const qem_recipe *recipe;
    qem_recipe chain[CLI_LAYERS]; /* what recipe points into */
    qem_context *context;
    qem_file *input, *reused;
    cli_listing listing;
    bool *chosen;        /* by entry of the listing */
    uint32_t chosen_count;
    cli_record *records;
    uint32_t record_count;
    cli_bundle bundle;
} quantize_job;

static int check_options(const cli_options *options)
{
    const qem_recipe *recipe = &options->recipe;
    int budgets = (recipe->ratio > 0) + (recipe->bits > 0) + (recipe->k > 0);

    if (options->output == NULL && !options->dry_run) return cli_usage("qem quantize needs -o OUT.safetensors");
    if (options->output != NULL && !cli_has_suffix(options->output, ".safetensors")) {
        return cli_usage("the output must end in .safetensors, not '%s'", options->output);
    }
    if (budgets > 1) return cli_usage("--ratio, --bits and --k exclude each other");
    if (options->reuse != NULL) {
        return options->dry_run ? cli_usage("--reuse and --dry-run exclude each other") : CLI_OK;
    }
    if (recipe->method == QEM_METHOD_NONE) return cli_usage("qem quantize needs --method");
    if (budgets == 0) return cli_usage("qem quantize needs a budget: --ratio, --bits or --k");
    return CLI_OK;
}

/* Marks what is to be quantized: the tensor named, the only matrix, or every 2-D tensor of floats. */
static int choose(quantize_job *job)
{
    const char *wanted = job->options->tensor;
    bool model = qem_file_get_kind(job->input) == QEM_FILE_SAFETENSORS;

    job->chosen = calloc(job->listing.count + 1, sizeof(*job->chosen));
    job->records = calloc(job->listing.count + 1, sizeof(*job->records));
    if (job->chosen == NULL || job->records == NULL) return cli_fail("out of memory");
    for (uint32_t i = 0; i < job->listing.count; i++) {
        const cli_entry *entry = &job->listing.entries[i];
        if (wanted != NULL) {
            job->chosen[i] = strcmp(entry->name, wanted) == 0;
        } else {
            job->chosen[i] = !model || cli_is_matrix(entry);
        }
        if (job->chosen[i] && entry->is_artifact) return cli_fail("%s is quantized already", entry->name);
        job->chosen_count += job->chosen[i];
    }
    if (job->chosen_count > 0) return CLI_OK;
    if (wanted != NULL) return cli_fail("%s has no tensor '%s'", job->options->operands[0], wanted);
    return cli_fail("%s has no 2-D tensor of floats to quantize", job->options->operands[0]);
}

static int search_one(quantize_job *job, const cli_entry *entry, const qem_view *view)
{
    cli_search search = { .dry_run = job->options->dry_run != 0, .plan = QEM_PLAN_INIT };
    qem_status status = cli_search_run(job->context, view, entry->name, job->recipe, &search);
    int result = CLI_OK;

    if (status == QEM_OK) {
        cli_record *record = &job->records[job->record_count++];
        if (search.dry_run) cli_record_from_plan(&search.plan, &search.trials[0].recipe, job->options->seed, record);
        else cli_record_from_artifact(search.artifact, record);
        record->tensor = entry->name;
        record->source = view->dtype;
        cli_search_to_record(&search, record);
        if (!search.dry_run) result = cli_bundle_artifact(job->context, &job->bundle, search.artifact);
    } else {
        result = cli_library_error(job->context, status, entry->name);
    }
    free(search.trials);
    return result;
}

static int plan_one(quantize_job *job, const cli_entry *entry, const qem_view *view)
{
    const cli_options *options = job->options;
    qem_plan plan = QEM_PLAN_INIT;
    qem_status status = qem_make_plan(job->context, view, job->recipe, &plan);

    if (status != QEM_OK) return cli_library_error(job->context, status, entry->name);
    cli_record *record = &job->records[job->record_count++];
    cli_record_from_plan(&plan, job->recipe, options->seed, record);
    record->tensor = entry->name;
    record->source = view->dtype;
    return CLI_OK;
}

/* The artifact whose codebooks serve `name`: of the same name, or the only one. */
static int encode_one(quantize_job *job, const char *name, const qem_view *view, qem_artifact **artifact)
{
    const cli_options *options = job->options;
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_artifact *base = NULL;
    bool only = qem_file_artifact_count(job->reused) == 1;
    qem_status status = qem_file_load(job->context, job->reused, only ? NULL : name, &base);

    if (status != QEM_OK) return cli_library_error(job->context, status, options->reuse);
    status = qem_artifact_query(base, &info);
    if (status == QEM_OK && options->recipe.method != QEM_METHOD_NONE && options->recipe.method != info.method) {
        int result = cli_fail("%s was made by %s, not by %s; drop --method", options->reuse,
                              qem_method_name(info.method), qem_method_name(options->recipe.method));
        qem_artifact_destroy(&base);
        return result;
    }
    if (status == QEM_OK) status = qem_encode(job->context, base, view, name, artifact);
    qem_artifact_destroy(&base);
    return status == QEM_OK ? CLI_OK : cli_library_error(job->context, status, name);
}

static int quantize_one(quantize_job *job, const cli_entry *entry, const qem_view *view)
{
    qem_artifact *artifact = NULL;
    int result = CLI_OK;

    if (job->reused != NULL) {
        result = encode_one(job, entry->name, view, &artifact);
    } else {
        qem_status status = qem_quantize(job->context, view, entry->name, job->recipe, &artifact);
        if (status != QEM_OK) result = cli_library_error(job->context, status, entry->name);
    }
    if (result != CLI_OK) return result;
    cli_record_from_artifact(artifact, &job->records[job->record_count++]);
    return cli_bundle_artifact(job->context, &job->bundle, artifact);
}

static int work(quantize_job *job)
{
    const cli_options *options = job->options;
    uint32_t number = 0;

    for (uint32_t i = 0; i < job->listing.count; i++) {
        const cli_entry *entry = &job->listing.entries[i];
        qem_view view = QEM_VIEW_INIT;
        int result;
        if (!job->chosen[i]) {
            if (options->dry_run) continue;
            result = cli_bundle_entry(job->context, &job->bundle, job->input, entry);
            if (result != CLI_OK) return result;
            continue;
        }
        if (job->chosen_count > 1) {
            cli_progress_label("%u/%u %s", ++number, job->chosen_count, entry->name);
        }
        qem_status status = qem_file_view(job->context, job->input, entry->name, &view);
        if (status != QEM_OK) return cli_library_error(job->context, status, entry->name);
        if (job->reused == NULL && job->recipe->method == QEM_METHOD_AUTO) result = search_one(job, entry, &view);
        else result = options->dry_run ? plan_one(job, entry, &view) : quantize_one(job, entry, &view);
        if (result != CLI_OK) return result;
    }
    return CLI_OK;
}

static json_t *extra_keys(const cli_options *options)
{
    json_t *extra = json_object();

    json_object_set_new(extra, "input", cli_json_text(options->operands[0]));
    json_object_set_new(extra, "output", options->dry_run ? json_null() : cli_json_text(options->output));
    json_object_set_new(extra, "dry_run", json_boolean(options->dry_run));
    return extra;
}

static int report(const quantize_job *job)
{
    const cli_options *options = job->options;

    if (options->json) return cli_report_json(job->records, job->record_count, job->context, extra_keys(options));
    cli_report_text(job->records, job->record_count);
    if (options->dry_run) printf("nothing was written\n");
    else printf("written to %s\n", options->output);
    return CLI_OK;
}

static int run(quantize_job *job)
{
    const cli_options *options = job->options;
    int result = cli_start(options, &job->context);

    if (result != CLI_OK) return result;
    qem_status status = qem_file_open(job->context, options->operands[0], &job->input);
    if (status != QEM_OK) return cli_library_error(job->context, status, options->operands[0]);
    if (options->reuse != NULL) {
        status = qem_file_open(job->context, options->reuse, &job->reused);
        if (status != QEM_OK) return cli_library_error(job->context, status, options->reuse);
        if (options->recipe_set) cli_note("note: with --reuse the artifact's recipe is used, not that of the options");
    }
    result = cli_open_importance(job->context, job->options);
    job->recipe = cli_make_recipe(options, job->chain);
    if (result == CLI_OK) result = cli_list(job->input, &job->listing);
    if (result == CLI_OK) result = choose(job);
    if (result == CLI_OK && !options->dry_run) result = cli_check_output(options->output);
    if (result == CLI_OK && !options->dry_run) result = cli_bundle_open(job->context, options->output, &job->bundle);
    if (result == CLI_OK) result = work(job);
    if (result == CLI_OK && !options->dry_run) result = cli_bundle_commit(job->context, &job->bundle);
    return result == CLI_OK ? report(job) : result;
}

int cli_quantize(cli_options *options)
{
    quantize_job job = { .options = options };
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    cli_bundle_free(&job.bundle);
    cli_list_free(&job.listing);
    free(job.chosen);
    cli_records_free(job.records, job.record_count);
    qem_file_close(&options->importance_file);
    qem_file_close(&job.reused);
    qem_file_close(&job.input);
    qem_context_destroy(&job.context);
    return result;
}
