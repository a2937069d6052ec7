/* The directory a model is written to: its manifest, so that a run that was cut off goes on, its index and its other files. */
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_MEMORY() cli_fail("out of memory")

/* ------------------------------------------------------------------------------------------------ small files --- */

static int write_json(const char *directory, const char *name, const json_t *object)
{
    char *path = cli_join(directory, name);
    cli_text_file file;
    int result = path == NULL ? NO_MEMORY() : cli_text_open(path, &file);

    if (result == CLI_OK) {
        if (json_dumpf(object, file.stream, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) == 0 && putc('\n', file.stream) != EOF) {
            result = cli_text_commit(&file);
        } else {
            result = cli_fail("cannot write %s: %s", path, strerror(errno));
            cli_text_abort(&file);
        }
    }
    free(path);
    return result;
}

static int copy_stream(FILE *from, const char *from_path, cli_text_file *to)
{
    char buffer[1 << 16];
    size_t count;

    while ((count = fread(buffer, 1, sizeof(buffer), from)) > 0) {
        if (fwrite(buffer, 1, count, to->stream) != count) return cli_fail("cannot write %s: %s", to->path, strerror(errno));
    }
    return ferror(from) ? cli_fail("%s: cannot be read: %s", from_path, strerror(errno)) : CLI_OK;
}

static int copy_file(const char *from, const char *to)
{
    cli_text_file file;
    FILE *stream = fopen(from, "rb");
    int result;

    if (stream == NULL) return cli_fail("%s: cannot be read: %s", from, strerror(errno));
    result = cli_text_open(to, &file);
    if (result == CLI_OK) {
        result = copy_stream(stream, from, &file);
        if (result == CLI_OK) result = cli_text_commit(&file);
        else cli_text_abort(&file);
    }
    fclose(stream);
    return result;
}

int cli_copy_extras(const cli_model *model, const char *directory)
{
    int result = CLI_OK;

    for (uint32_t i = 0; i < model->extra_count && result == CLI_OK; i++) {
        char *from = cli_join(model->directory, model->extras[i]), *to = cli_join(directory, model->extras[i]);
        result = from == NULL || to == NULL ? NO_MEMORY() : copy_file(from, to);
        free(from);
        free(to);
    }
    return result;
}

/* -------------------------------------------------------------------------------------------------- index ------- */

/* Adds what one file holds to the index. */
static int index_shard(qem_context *context, const char *path, const char *name, json_t *map, json_t *quantized, uint64_t *bytes)
{
    qem_file *file = NULL;
    qem_status status = qem_file_open(context, path, &file);

    if (status != QEM_OK) return cli_library_error(context, status, path);
    for (uint32_t i = 0; i < qem_file_tensor_count(file); i++) {
        qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;
        if (qem_file_tensor(file, i, &tensor) != QEM_OK) continue;
        json_object_set_new(map, tensor.name, json_string(name));
        *bytes += tensor.bytes;
    }
    for (uint32_t i = 0; i < qem_file_artifact_count(file); i++) {
        json_object_set_new(quantized, qem_file_artifact_name(file, i), json_string(name));
    }
    qem_file_close(&file);
    return CLI_OK;
}

int cli_write_index(qem_context *context, const char *directory, const cli_model *model)
{
    json_t *map = json_object(), *quantized = json_object(), *root = json_object(), *metadata = json_object();
    uint64_t bytes = 0;
    int result = CLI_OK;

    for (uint32_t i = 0; i < model->shard_count && result == CLI_OK; i++) {
        char *path = cli_join(directory, model->shards[i].name);
        result = path == NULL ? NO_MEMORY() : index_shard(context, path, model->shards[i].name, map, quantized, &bytes);
        free(path);
    }
    json_object_set_new(metadata, "total_size", json_integer((json_int_t)bytes));
    json_object_set_new(root, "metadata", metadata);
    json_object_set_new(root, "weight_map", map);
    if (json_object_size(quantized) > 0) json_object_set(root, "quantized_map", quantized);
    json_decref(quantized);
    if (result == CLI_OK) result = write_json(directory, model->index, root);
    json_decref(root);
    return result;
}

/* ------------------------------------------------------------------------------------------------- manifest ----- */

json_t *cli_model_json(const cli_model *model)
{
    json_t *shards = json_array();

    for (uint32_t i = 0; i < model->shard_count; i++) {
        const cli_shard *shard = &model->shards[i];
        json_array_append_new(shards, json_pack("{s:s,s:I,s:[I,I]}", "name", shard->name, "bytes", (json_int_t)shard->bytes,
                                                "modified", (json_int_t)shard->seconds, (json_int_t)shard->nanoseconds));
    }
    return shards;
}

static int save_manifest(const cli_output *output)
{
    return write_json(output->path, CLI_MANIFEST, output->manifest);
}

static bool is_temporary(const char *name)
{
    return strncmp(name, ".qem-", 5) == 0;
}

/* Counts what is in a directory but temporary files; `clear` takes those away: of a run that was killed they have no reader. */
static int go_through(const char *path, bool clear, uint32_t *others)
{
    DIR *stream = opendir(path);
    const struct dirent *entry;

    *others = 0;
    if (stream == NULL) return cli_fail("%s: cannot be read: %s", path, strerror(errno));
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!is_temporary(entry->d_name)) ++*others;
        else if (clear) unlinkat(dirfd(stream), entry->d_name, 0);
    }
    closedir(stream);
    return CLI_OK;
}

static int make_directory(const char *path, bool *made)
{
    *made = mkdir(path, 0777) == 0;
    if (*made || errno == EEXIST) return CLI_OK;
    return cli_fail("%s: the directory cannot be made: %s", path, strerror(errno));
}

/* Opens the directory and keeps others out until the descriptor is closed. File systems without locks do without. */
static int lock_path(const char *path, int *lock)
{
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) return cli_fail("%s: cannot be opened as a directory: %s", path, strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return CLI_OK;
    return cli_fail("%s: another run writes there", path);
}

int cli_new_directory(const char *path, int *lock)
{
    uint32_t others = 0;
    bool made;

    *lock = -1;
    int result = make_directory(path, &made);
    if (result == CLI_OK) result = lock_path(path, lock);
    if (result == CLI_OK) result = go_through(path, false, &others);
    if (result == CLI_OK && others > 0) result = cli_fail("%s is not empty: choose another directory", path);
    return result == CLI_OK ? go_through(path, true, &others) : result;
}

static int lock_directory(cli_output *output, const cli_model *model)
{
    struct stat here, there;
    int result = lock_path(output->path, &output->lock);

    if (result != CLI_OK) return result;
    if (stat(model->directory, &there) == 0 && fstat(output->lock, &here) == 0 && here.st_ino == there.st_ino &&
        here.st_dev == there.st_dev) {
        return cli_fail("%s is the model itself: the result needs a directory of its own", output->path);
    }
    return CLI_OK;
}

/* What an earlier run left; NULL where there is nothing. */
static int load_manifest(const cli_output *output, json_t **manifest)
{
    char *path = cli_join(output->path, CLI_MANIFEST);
    json_error_t error;
    int result = CLI_OK;

    *manifest = NULL;
    if (path == NULL) return NO_MEMORY();
    if (access(path, F_OK) == 0) {
        *manifest = json_load_file(path, 0, &error);
        if (!json_is_object(*manifest)) result = cli_fail("%s: is not the manifest of a run: %s", path, error.text);
    }
    free(path);
    return result;
}

/* The first key in which two descriptions of runs differ. */
static const char *difference(json_t *old, json_t *run)
{
    const char *key;
    json_t *value;

    json_object_foreach(run, key, value) {
        if (!json_equal(value, json_object_get(old, key))) return key;
    }
    return "other options";
}

static int take_up(cli_output *output, json_t *old, json_t *run, bool *resumed)
{
    json_t *before = json_object_get(old, "run");

    *resumed = old != NULL;
    if (old == NULL) {
        output->manifest = json_pack("{s:O,s:[]}", "run", run, "finished");
        return output->manifest == NULL ? NO_MEMORY() : save_manifest(output);
    }
    if (!json_is_object(before) || !json_is_array(json_object_get(old, "finished"))) {
        return cli_fail("%s/" CLI_MANIFEST " is damaged: remove the directory", output->path);
    }
    if (!json_equal(before, run)) {
        return cli_fail("%s holds the result of another run (its '%s' differs): remove it or choose another directory",
                        output->path, difference(before, run));
    }
    output->manifest = json_incref(old);
    return CLI_OK;
}

int cli_output_open(const char *path, const cli_model *model, json_t *run, cli_output *output, bool *resumed)
{
    uint32_t others = 0;
    json_t *old = NULL;

    *output = (cli_output){ .path = path, .lock = -1 };
    int result = make_directory(path, &output->made);
    if (result == CLI_OK) result = lock_directory(output, model);
    if (result == CLI_OK) result = go_through(path, false, &others);
    if (result == CLI_OK) result = load_manifest(output, &old);
    if (result == CLI_OK && old == NULL && others > 0) {
        result = cli_fail("%s is not empty and holds no earlier run: choose another directory", path);
    }
    if (result == CLI_OK) result = take_up(output, old, run, resumed);
    if (result == CLI_OK) result = go_through(path, true, &others);
    json_decref(old);
    json_decref(run);
    return result;
}

int cli_output_plan(cli_output *output, bool resumed, cli_model *model)
{
    json_t *plan = json_object_get(output->manifest, "plan");

    if (resumed && plan != NULL) {
        for (uint32_t i = 0; i < model->tensor_count; i++) {
            json_t *bits = json_object_get(plan, model->tensors[i].name);
            if (model->tensors[i].chosen && (!json_is_number(bits) || json_number_value(bits) < 0)) {
                return cli_fail("%s/" CLI_MANIFEST ": its plan does not name '%s'", output->path, model->tensors[i].name);
            }
            if (model->tensors[i].chosen) model->tensors[i].bits = json_number_value(bits);
        }
        return CLI_OK;
    }
    plan = json_object();
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const cli_model_tensor *tensor = &model->tensors[i];
        if (tensor->chosen) json_object_set_new(plan, tensor->name, json_real(tensor->bits));
    }
    json_object_set_new(output->manifest, "plan", plan);
    return save_manifest(output);
}

bool cli_output_has(const cli_output *output, const char *shard)
{
    size_t index;
    json_t *value;

    json_array_foreach(json_object_get(output->manifest, "finished"), index, value) {
        if (json_is_string(value) && strcmp(json_string_value(value), shard) == 0) return true;
    }
    return false;
}

int cli_output_finished(cli_output *output, const char *shard)
{
    if (cli_output_has(output, shard)) return CLI_OK;
    if (json_array_append_new(json_object_get(output->manifest, "finished"), json_string(shard)) != 0) return NO_MEMORY();
    return save_manifest(output);
}

int cli_output_unfinished(cli_output *output, const char *shard)
{
    json_t *finished = json_object_get(output->manifest, "finished");

    for (size_t i = json_array_size(finished); i-- > 0;) {
        const char *name = json_string_value(json_array_get(finished, i));
        if (name != NULL && strcmp(name, shard) == 0) json_array_remove(finished, i);
    }
    json_object_del(output->manifest, "complete");
    return save_manifest(output);
}

int cli_check_extras(const cli_model *model)
{
    for (uint32_t i = 0; i < model->extra_count; i++) {
        char *path = cli_join(model->directory, model->extras[i]);
        FILE *file = path == NULL ? NULL : fopen(path, "rb");
        int result = path == NULL ? NO_MEMORY() : file == NULL ? cli_fail("%s: cannot be read: %s", path, strerror(errno)) : CLI_OK;
        if (file != NULL) fclose(file);
        free(path);
        if (result != CLI_OK) return result;
    }
    return CLI_OK;
}

int cli_output_complete(qem_context *context, cli_output *output, const cli_model *model)
{
    int result = cli_copy_extras(model, output->path);

    if (result == CLI_OK && model->index != NULL) result = cli_write_index(context, output->path, model);
    if (result != CLI_OK) return result;
    json_t *finished = json_array(); /* in the model's order, whatever the order of making */
    for (uint32_t i = 0; i < model->shard_count; i++) json_array_append_new(finished, json_string(model->shards[i].name));
    json_object_set_new(output->manifest, "finished", finished);
    json_object_set_new(output->manifest, "complete", json_true());
    return save_manifest(output);
}

void cli_output_discard(const cli_output *output)
{
    if (output->manifest == NULL || json_array_size(json_object_get(output->manifest, "finished")) > 0) return;
    unlinkat(output->lock, CLI_MANIFEST, 0);
    if (output->made) rmdir(output->path); /* fails, as it should, where something else lies there */
}

void cli_output_close(cli_output *output)
{
    if (output->path != NULL && output->lock >= 0) close(output->lock);
    json_decref(output->manifest);
    *output = (cli_output){ .lock = -1 };
}
