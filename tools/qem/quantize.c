/* qem quantize: one matrix, all matrices of a file, or the weights of a model, shard by shard. */
#include "model.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct quantize_job {
    cli_options *options;
    const qem_recipe *recipe;
    qem_recipe chain[CLI_LAYERS]; /* what recipe points into */
    qem_context *context;
    cli_model model;
    uint32_t chosen_count;
    cli_record *records; /* of the chosen tensors, in the model's order */
    uint32_t record_count;
    qem_file *reused;
    cli_output output;   /* of a directory */
    bool resumed;
    uint32_t kept;       /* shards that an earlier run finished */
    /* the shard in work */
    qem_file *input;
    cli_bundle bundle;
    /* for the time left: elements, of those that this run quantizes */
    double started, done, all;
} quantize_job;

static int check_options(const cli_options *options)
{
    const qem_recipe *recipe = &options->recipe;
    int budgets = (recipe->ratio > 0) + (recipe->bits > 0) + (recipe->k > 0);
    bool model = cli_is_model_path(options->operands[0]);

    if (access(options->operands[0], F_OK) != 0) return cli_fail("%s: cannot be opened: %s", options->operands[0], strerror(errno));
    if (options->output == NULL && !options->dry_run) {
        return cli_usage("qem quantize needs -o %s", model ? "OUT, a directory" : "OUT.safetensors");
    }
    if (options->output != NULL && model && cli_has_suffix(options->output, ".safetensors")) {
        return cli_usage("%s is a model in a directory: the output is a directory too, not '%s'", options->operands[0],
                         options->output);
    }
    if (options->output != NULL && !model && !cli_has_suffix(options->output, ".safetensors")) {
        return cli_usage("the output must end in .safetensors, not '%s'", options->output);
    }
    if (options->tensor != NULL && options->include_count + options->exclude_count > 0) {
        return cli_usage("--tensor names one tensor: --include and --exclude go without it");
    }
    if (budgets > 1) return cli_usage("--ratio, --bits and --k exclude each other");
    if (model && recipe->method == QEM_METHOD_AUTO && recipe->k > 0 && options->reuse == NULL) {
        return cli_usage("--method auto takes --ratio or --bits, not --k");
    }
    if (options->reuse != NULL) {
        return options->dry_run ? cli_usage("--reuse and --dry-run exclude each other") : CLI_OK;
    }
    if (recipe->method == QEM_METHOD_NONE) return cli_usage("qem quantize needs --method");
    if (budgets == 0) return cli_usage("qem quantize needs a budget: --ratio, --bits or --k");
    return CLI_OK;
}

/* ------------------------------------------------------------------------------------------------ one tensor ---- */

/* The recipe for one tensor: its own budget and weights. */
static int recipe_for(const quantize_job *job, const cli_model_tensor *tensor, qem_recipe *recipe, qem_view *importance)
{
    *recipe = *job->recipe;
    if (tensor->bits > 0) {
        recipe->ratio = 0;
        recipe->bits = tensor->bits;
    }
    return cli_importance_for(job->context, job->options, tensor->name, importance, &recipe->importance);
}

static cli_record *next_record(quantize_job *job)
{
    return &job->records[job->record_count++];
}

/* Records outlive artifacts: the names are the model's. */
static cli_record *record_artifact(quantize_job *job, const cli_model_tensor *tensor, const qem_artifact *artifact)
{
    cli_record *record = next_record(job);

    cli_record_from_artifact(artifact, record);
    record->tensor = tensor->name;
    return record;
}

static int search_one(quantize_job *job, const cli_model_tensor *tensor, const qem_view *view, const qem_recipe *recipe)
{
    cli_search search = { .dry_run = job->options->dry_run != 0, .plan = QEM_PLAN_INIT };
    qem_status status = cli_search_run(job->context, view, tensor->name, recipe, &search);
    int result = CLI_OK;

    if (status == QEM_OK) {
        cli_record *record = search.dry_run ? next_record(job) : record_artifact(job, tensor, search.artifact);
        if (search.dry_run) cli_record_from_plan(&search.plan, &search.trials[0].recipe, job->options->seed, record);
        record->tensor = tensor->name;
        record->source = view->dtype;
        cli_search_to_record(&search, record);
        if (!search.dry_run) result = cli_bundle_artifact(job->context, &job->bundle, search.artifact);
    } else {
        result = cli_library_error(job->context, status, tensor->name);
    }
    free(search.trials);
    return result;
}

static int plan_one(quantize_job *job, const cli_model_tensor *tensor, const qem_view *view, const qem_recipe *recipe)
{
    qem_plan plan = QEM_PLAN_INIT;
    qem_status status = qem_make_plan(job->context, view, recipe, &plan);

    if (status != QEM_OK) return cli_library_error(job->context, status, tensor->name);
    cli_record *record = next_record(job);
    cli_record_from_plan(&plan, recipe, job->options->seed, record);
    record->tensor = tensor->name;
    record->source = view->dtype;
    return CLI_OK;
}

/* A model's tensor that auto will search for: only its share of the budget is known. */
static int plan_share(quantize_job *job, const cli_model_tensor *tensor, const qem_recipe *recipe)
{
    cli_record *record = next_record(job);

    cli_record_init(record);
    record->tensor = tensor->name;
    record->rows = tensor->rows;
    record->cols = tensor->cols;
    record->source = tensor->dtype;
    record->method = QEM_METHOD_AUTO;
    record->has_bytes = true;
    record->bits_per_element = recipe->bits > 0 ? recipe->bits : 32 / recipe->ratio;
    record->ratio = 32 / record->bits_per_element;
    record->budget_bytes = record->stored_bytes =
        (uint64_t)(record->bits_per_element * (double)tensor->rows * (double)tensor->cols / 8);
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

static int quantize_one(quantize_job *job, const cli_model_tensor *tensor, const qem_view *view, const qem_recipe *recipe)
{
    qem_artifact *artifact = NULL;
    int result = CLI_OK;

    if (job->reused != NULL) {
        result = encode_one(job, tensor->name, view, &artifact);
    } else {
        qem_status status = qem_quantize(job->context, view, tensor->name, recipe, &artifact);
        if (status != QEM_OK) result = cli_library_error(job->context, status, tensor->name);
    }
    if (result != CLI_OK) return result;
    record_artifact(job, tensor, artifact);
    return cli_bundle_artifact(job->context, &job->bundle, artifact);
}

static int work_on(quantize_job *job, const cli_model_tensor *tensor)
{
    const cli_options *options = job->options;
    qem_view view = QEM_VIEW_INIT, importance = QEM_VIEW_INIT;
    qem_recipe recipe;
    int result = recipe_for(job, tensor, &recipe, &importance);

    if (result != CLI_OK) return result;
    qem_status status = qem_file_view(job->context, job->input, tensor->name, &view);
    if (status != QEM_OK) return cli_library_error(job->context, status, tensor->name);
    if (job->reused != NULL || recipe.method != QEM_METHOD_AUTO) {
        return options->dry_run ? plan_one(job, tensor, &view, &recipe) : quantize_one(job, tensor, &view, &recipe);
    }
    if (options->dry_run && job->model.directory != NULL) return plan_share(job, tensor, &recipe);
    return search_one(job, tensor, &view, &recipe);
}

/* ------------------------------------------------------------------------------------------------- one shard ---- */

static const cli_entry *find_entry(const cli_listing *listing, const char *name)
{
    for (uint32_t i = 0; i < listing->count; i++) {
        if (strcmp(listing->entries[i].name, name) == 0) return &listing->entries[i];
    }
    return NULL;
}

static void show_progress(quantize_job *job, uint32_t shard, const cli_model_tensor *tensor)
{
    double elements = (double)tensor->rows * (double)tensor->cols;

    if (job->model.shard_count > 1) {
        cli_progress_label("shard %u/%u, tensor %u/%u %s", shard + 1, job->model.shard_count, job->record_count + 1,
                           job->chosen_count, tensor->name);
    } else if (job->chosen_count > 1) {
        cli_progress_label("%u/%u %s", job->record_count + 1, job->chosen_count, tensor->name);
    }
    if (job->chosen_count > 1) {
        cli_progress_left(job->done > 0 ? (cli_seconds() - job->started) * (job->all - job->done) / job->done : NAN);
    }
    job->done += elements;
}

/* Tensors come and go one by one; else all of a small file stays in memory until it is written. */
static bool is_streamed(const quantize_job *job)
{
    return job->chosen_count > 1 || job->model.directory != NULL;
}

static int work_on_tensors(quantize_job *job, uint32_t shard)
{
    cli_listing listing = { 0 };
    int result = cli_list(job->input, &listing);

    for (uint32_t i = 0; i < job->model.tensor_count && result == CLI_OK; i++) {
        const cli_model_tensor *tensor = &job->model.tensors[i];
        if (tensor->shard != shard) continue;
        if (tensor->chosen) {
            show_progress(job, shard, tensor);
            result = work_on(job, tensor);
        } else if (!job->options->dry_run) {
            const cli_entry *entry = find_entry(&listing, tensor->name);
            if (entry == NULL) result = cli_fail("%s changed while it was read", job->model.shards[shard].path);
            else result = cli_bundle_entry(job->context, &job->bundle, job->input, entry);
        }
        if (is_streamed(job)) {
            qem_file_discard(job->input);
            qem_file_discard(job->options->importance_file);
        }
    }
    cli_list_free(&listing);
    return result;
}

/* Quantizes the tensors of one shard into `path`; with --dry-run nothing is written. */
static int quantize_shard(quantize_job *job, uint32_t shard, const char *path)
{
    const char *source = job->model.shards[shard].path;
    qem_status status = qem_file_open(job->context, source, &job->input);
    int result = CLI_OK;

    if (status != QEM_OK) return cli_library_error(job->context, status, source);
    if (!job->options->dry_run) result = cli_bundle_open(job->context, path, is_streamed(job), &job->bundle);
    if (result == CLI_OK) result = work_on_tensors(job, shard);
    if (result == CLI_OK && !job->options->dry_run) result = cli_bundle_commit(job->context, &job->bundle);
    cli_bundle_free(&job->bundle);
    qem_file_close(&job->input);
    return result;
}

/* ------------------------------------------------------------------------------------------- finished shards ---- */

static bool same_tensor(const cli_entry *a, const cli_entry *b)
{
    const qem_tensor_info *x = &a->tensor, *y = &b->tensor;

    return x->dtype == y->dtype && x->rank == y->rank && x->bytes == y->bytes &&
           memcmp(x->shape, y->shape, sizeof(x->shape)) == 0 && (x->bytes == 0 || memcmp(x->data, y->data, x->bytes) == 0);
}

/* Is it what this run makes of that tensor, as far as that shows without making it? */
static bool is_of_run(const quantize_job *job, const cli_model_tensor *tensor, const cli_entry *source, const qem_artifact *artifact)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    const qem_recipe *recipe = job->recipe;

    if (qem_artifact_query(artifact, &info) != QEM_OK) return false;
    if (info.rows != tensor->rows || info.cols != tensor->cols || info.source_dtype != source->tensor.dtype) return false;
    if (job->reused != NULL) return true;
    if (info.seed != job->options->seed || (recipe->method != QEM_METHOD_AUTO && info.method != recipe->method)) return false;
    double bits = tensor->bits > 0 ? tensor->bits : recipe->bits > 0 ? recipe->bits : recipe->ratio > 0 ? 32 / recipe->ratio : 0;
    return bits == 0 || info.recipe.bits == bits || (info.recipe.ratio > 0 && info.recipe.ratio == recipe->ratio);
}

/* Is a tensor of a finished shard what it should be? Artifacts are verified by their checksums, the rest against the input. */
static bool verify_tensor(quantize_job *job, const cli_model_tensor *tensor, const qem_file *made, const cli_listing *before,
                          const cli_listing *after)
{
    const cli_entry *old = find_entry(before, tensor->name), *new = find_entry(after, tensor->name);
    qem_artifact *artifact = NULL;
    bool quantized = tensor->chosen || tensor->is_artifact;

    if (old == NULL || new == NULL || new->is_artifact != quantized) return false;
    if (!quantized) return same_tensor(old, new);
    if (qem_file_load(job->context, made, tensor->name, &artifact) != QEM_OK) return false;
    bool good = !tensor->chosen || is_of_run(job, tensor, old, artifact);
    if (tensor->chosen && good) record_artifact(job, tensor, artifact)->automatic = job->recipe->method == QEM_METHOD_AUTO;
    qem_artifact_destroy(&artifact);
    return good;
}

static bool verify_tensors(quantize_job *job, uint32_t shard, const qem_file *made)
{
    cli_listing before = { 0 }, after = { 0 };
    bool good = cli_list(job->input, &before) == CLI_OK && cli_list(made, &after) == CLI_OK;

    for (uint32_t i = 0; i < job->model.tensor_count && good; i++) {
        if (job->model.tensors[i].shard != shard) continue;
        good = verify_tensor(job, &job->model.tensors[i], made, &before, &after);
        qem_file_discard(job->input);
        qem_file_discard(made);
    }
    good = good && before.count == after.count;
    cli_list_free(&before);
    cli_list_free(&after);
    return good;
}

/* Takes over a shard that an earlier run finished, if it is whole. */
static bool keep_shard(quantize_job *job, uint32_t shard, const char *path)
{
    qem_file *made = NULL;
    uint32_t records = job->record_count;
    bool good = qem_file_open(job->context, job->model.shards[shard].path, &job->input) == QEM_OK &&
                qem_file_open(job->context, path, &made) == QEM_OK && verify_tensors(job, shard, made);

    qem_file_close(&made);
    qem_file_close(&job->input);
    if (good) return true;
    job->record_count = records;
    cli_note("note: %s is not what the earlier run wrote; it is made again", path);
    return false;
}

static double elements_of(const cli_model *model, uint32_t shard)
{
    double elements = 0;

    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const cli_model_tensor *tensor = &model->tensors[i];
        if (tensor->shard == shard && tensor->chosen) elements += (double)tensor->rows * (double)tensor->cols;
    }
    return elements;
}

/* ------------------------------------------------------------------------------------------------- the whole ---- */

/* What decides the bytes of the result, for the manifest. */
static json_t *describe_run(const quantize_job *job)
{
    const cli_options *options = job->options;
    json_t *run = json_object(), *include = json_array(), *exclude = json_array();
    qem_recipe chain[CLI_LAYERS];
    uint32_t layers = cli_copy_chain(job->recipe, chain);

    for (uint32_t i = 0; i < options->include_count; i++) json_array_append_new(include, cli_json_text(options->include[i]));
    for (uint32_t i = 0; i < options->exclude_count; i++) json_array_append_new(exclude, cli_json_text(options->exclude[i]));
    json_object_set_new(run, "qem", json_string(qem_version()));
    json_object_set_new(run, "recipe", cli_json_recipe(chain, layers));
    json_object_set_new(run, "seed", json_integer((json_int_t)options->seed));
    json_object_set_new(run, "uniform", json_boolean(options->uniform));
    json_object_set_new(run, "importance", cli_file_identity(options->importance));
    json_object_set_new(run, "reuse", cli_file_identity(options->reuse));
    json_object_set_new(run, "tensor", cli_json_text(options->tensor));
    json_object_set_new(run, "include", include);
    json_object_set_new(run, "exclude", exclude);
    json_object_set_new(run, "shards", cli_model_json(&job->model));
    return run;
}

/* One budget for several tensors is shared out by what errors cost; a number of centroids is not. */
static int spread(quantize_job *job)
{
    const qem_recipe *recipe = job->recipe;
    double bits = recipe->bits > 0 ? recipe->bits : recipe->ratio > 0 ? 32 / recipe->ratio : 0;

    if (job->chosen_count < 2 || job->options->uniform || job->reused != NULL || bits == 0) return CLI_OK;
    return cli_spread(job->context, job->options, recipe, bits, &job->model);
}

static int work_on_directory(quantize_job *job)
{
    int result = CLI_OK;

    for (uint32_t i = 0; i < job->model.shard_count; i++) job->all += elements_of(&job->model, i);
    job->started = cli_seconds();
    for (uint32_t i = 0; i < job->model.shard_count && result == CLI_OK; i++) {
        const cli_shard *shard = &job->model.shards[i];
        char *path = job->options->dry_run ? strdup("") : cli_join(job->options->output, shard->name);
        if (path == NULL) return cli_fail("out of memory");
        if (!job->options->dry_run && cli_output_has(&job->output, shard->name) && keep_shard(job, i, path)) {
            job->all -= elements_of(&job->model, i);
            job->kept++;
        } else {
            if (!job->options->dry_run && cli_output_has(&job->output, shard->name)) {
                result = cli_output_unfinished(&job->output, shard->name);
            }
            if (result == CLI_OK) result = quantize_shard(job, i, path);
            if (result == CLI_OK && !job->options->dry_run) result = cli_output_finished(&job->output, shard->name);
        }
        free(path);
    }
    return result;
}

static int quantize_directory(quantize_job *job)
{
    bool dry = job->options->dry_run != 0;
    int result = CLI_OK;

    if (!dry) result = cli_check_extras(&job->model);
    if (result == CLI_OK && !dry) result = cli_output_open(job->options->output, &job->model, describe_run(job), &job->output, &job->resumed);
    if (result == CLI_OK && (dry || json_object_get(job->output.manifest, "plan") == NULL)) result = spread(job);
    if (result == CLI_OK && !dry) result = cli_output_plan(&job->output, job->resumed, &job->model);
    if (result == CLI_OK) result = work_on_directory(job);
    if (result == CLI_OK && !dry) result = cli_output_complete(job->context, &job->output, &job->model);
    if (result != CLI_OK && !job->resumed) cli_output_discard(&job->output);
    return result;
}

static int quantize_file(quantize_job *job)
{
    int result = job->options->dry_run ? CLI_OK : cli_check_output(job->options->output);

    job->all = elements_of(&job->model, 0);
    if (result == CLI_OK) result = spread(job);
    job->started = cli_seconds();
    return result == CLI_OK ? quantize_shard(job, 0, job->options->output) : result;
}

/* ---------------------------------------------------------------------------------------------------- report ---- */

static double seconds_spent(const quantize_job *job)
{
    double seconds = 0;

    for (uint32_t i = 0; i < job->record_count; i++) {
        if (isfinite(job->records[i].quantize_seconds)) seconds += job->records[i].quantize_seconds;
    }
    return seconds;
}


static json_t *extra_keys(const quantize_job *job)
{
    const cli_options *options = job->options;
    json_t *extra = json_object();

    json_object_set_new(extra, "input", cli_json_text(options->operands[0]));
    json_object_set_new(extra, "output", options->dry_run ? json_null() : cli_json_text(options->output));
    json_object_set_new(extra, "dry_run", json_boolean(options->dry_run));
    if (job->model.directory == NULL) return extra;
    json_object_set_new(extra, "shards", json_integer(job->model.shard_count));
    json_object_set_new(extra, "shards_kept", json_integer(job->kept));
    json_object_set_new(extra, "uniform", json_boolean(options->uniform));
    return extra;
}

static void print_speed(const quantize_job *job)
{
    qem_context_info info = QEM_CONTEXT_INFO_INIT;
    double seconds = seconds_spent(job);

    if (qem_context_query(job->context, &info) != QEM_OK || !(seconds > 0)) return;
    printf("speed: %.3g weights a second and core (%.1f s of quantizing, %u thread%s)\n", job->done / seconds / info.threads,
           seconds, info.threads, info.threads == 1 ? "" : "s");
}

static int report(const quantize_job *job)
{
    const cli_options *options = job->options;

    if (options->json) return cli_report_json(job->records, job->record_count, job->context, extra_keys(job));
    if (job->model.directory != NULL) cli_report_table(job->records, job->record_count);
    else cli_report_text(job->records, job->record_count);
    if (job->kept > 0) printf("%u of %u shards were finished by an earlier run\n", job->kept, job->model.shard_count);
    if (options->dry_run) {
        printf("nothing was written\n");
        return CLI_OK;
    }
    if (job->model.directory != NULL) print_speed(job);
    printf("written to %s\n", options->output);
    return CLI_OK;
}

static int prepare(quantize_job *job)
{
    cli_options *options = job->options;
    int result = cli_start(options, &job->context);

    if (result == CLI_OK) result = cli_model_open(job->context, options->operands[0], &job->model);
    if (result != CLI_OK) return result;
    if (options->reuse != NULL) {
        qem_status status = qem_file_open(job->context, options->reuse, &job->reused);
        if (status != QEM_OK) return cli_library_error(job->context, status, options->reuse);
        if (options->recipe_set) cli_note("note: with --reuse the artifact's recipe is used, not that of the options");
    }
    result = cli_open_importance(job->context, options);
    job->recipe = cli_make_recipe(options, job->chain);
    if (result == CLI_OK) result = cli_model_choose(options, &job->model, &job->chosen_count);
    if (result != CLI_OK) return result;
    job->records = calloc(job->chosen_count, sizeof(*job->records));
    return job->records != NULL ? CLI_OK : cli_fail("out of memory");
}

static int run(quantize_job *job)
{
    int result = prepare(job);

    if (result == CLI_OK) result = job->model.directory != NULL ? quantize_directory(job) : quantize_file(job);
    return result == CLI_OK ? report(job) : result;
}

int cli_quantize(cli_options *options)
{
    quantize_job job = { .options = options, .output = { .lock = -1 } };
    int result = check_options(options);

    if (result == CLI_OK) result = run(&job);
    cli_bundle_free(&job.bundle);
    cli_output_close(&job.output);
    cli_records_free(job.records, job.record_count);
    cli_model_free(&job.model);
    qem_file_close(&options->importance_file);
    qem_file_close(&job.reused);
    qem_file_close(&job.input);
    qem_context_destroy(&job.context);
    return result;
}
