/* Models: finding the shards of a checkpoint, listing its tensors, and choosing which of them are quantized. */
#include "model.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_MEMORY() cli_fail("out of memory")

static bool is_directory(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool cli_is_model_path(const char *path)
{
    return cli_has_suffix(path, ".json") || is_directory(path);
}

char *cli_join(const char *directory, const char *name)
{
    size_t room = strlen(directory) + strlen(name) + 2;
    char *path = malloc(room);
    bool slash = directory[0] != 0 && directory[strlen(directory) - 1] == '/';

    if (path != NULL) snprintf(path, room, "%s%s%s", directory, slash ? "" : "/", name);
    return path;
}

void cli_model_free(cli_model *model)
{
    for (uint32_t i = 0; i < model->shard_count; i++) {
        free(model->shards[i].name);
        free(model->shards[i].path);
    }
    for (uint32_t i = 0; i < model->tensor_count; i++) free(model->tensors[i].name);
    for (uint32_t i = 0; i < model->extra_count; i++) free(model->extras[i]);
    free(model->shards);
    free(model->tensors);
    free(model->extras);
    free(model->directory);
    free(model->index);
    *model = (cli_model){ 0 };
}

/* -------------------------------------------------------------------------------------------------- shards ------ */

/* Room for one more of `size` bytes at the end of a list; the list grows by doubling. */
static void *one_more(void *list, uint32_t count, size_t size)
{
    if ((count & (count - 1)) != 0) return list; /* no power of two: there is room */
    return realloc(list, (count == 0 ? 1 : 2 * (size_t)count) * size);
}

static int add_shard(cli_model *model, const char *name, const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0) return cli_fail("%s: cannot be read: %s", path, strerror(errno));
    cli_shard *grown = one_more(model->shards, model->shard_count, sizeof(*grown));
    if (grown == NULL) return NO_MEMORY();
    model->shards = grown;
    cli_shard *shard = &grown[model->shard_count];
    *shard = (cli_shard){ .name = strdup(name), .path = strdup(path), .bytes = (uint64_t)info.st_size,
                          .seconds = info.st_mtim.tv_sec, .nanoseconds = info.st_mtim.tv_nsec };
    model->shard_count++;
    return shard->name != NULL && shard->path != NULL ? CLI_OK : NO_MEMORY();
}

static int add_shard_of(cli_model *model, const char *name)
{
    char *path = cli_join(model->directory, name);
    int result = path == NULL ? NO_MEMORY() : add_shard(model, name, path);

    free(path);
    return result;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a directory's regular files, sorted, without hidden ones. */
static int list_directory(const char *directory, char ***names, uint32_t *count)
{
    DIR *stream = opendir(directory);
    const struct dirent *entry;
    int result = CLI_OK;

    *names = NULL;
    *count = 0;
    if (stream == NULL) return cli_fail("%s: cannot be read: %s", directory, strerror(errno));
    while (result == CLI_OK && (entry = readdir(stream)) != NULL) {
        struct stat info;
        char *path = cli_join(directory, entry->d_name);
        bool regular = path != NULL && entry->d_name[0] != '.' && stat(path, &info) == 0 && S_ISREG(info.st_mode);
        if (regular) {
            char **grown = one_more(*names, *count, sizeof(*grown));
            if (grown != NULL) *names = grown;
            char *copy = grown == NULL ? NULL : strdup(entry->d_name);
            if (copy == NULL) result = NO_MEMORY();
            else (*names)[(*count)++] = copy;
        }
        if (path == NULL) result = NO_MEMORY();
        free(path);
    }
    closedir(stream);
    if (*count > 0) qsort(*names, *count, sizeof(**names), compare_names);
    return result;
}

/* Weights in whatever format: they are not copied beside those that are quantized. */
static bool holds_weights(const char *name)
{
    static const char *const suffixes[] = { ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx",
                                            ".ckpt", CLI_INDEX_SUFFIX };

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        if (cli_has_suffix(name, suffixes[i])) return true;
    }
    return strcmp(name, CLI_MANIFEST) == 0;
}

static bool is_plain_name(const char *name)
{
    return name != NULL && name[0] != 0 && name[0] != '.' && strchr(name, '/') == NULL;
}

/* The shards that the index names, sorted; `weight_map` is borrowed. */
static int shards_of_index(cli_model *model, const char *path, const json_t *weight_map)
{
    char **names = calloc(json_object_size(weight_map) + 1, sizeof(*names));
    uint32_t count = 0;
    const char *key;
    json_t *value;
    int result = names == NULL ? NO_MEMORY() : CLI_OK;

    json_object_foreach((json_t *)(uintptr_t)weight_map, key, value) {
        if (result != CLI_OK) break;
        if (!is_plain_name(json_string_value(value))) result = cli_fail("%s: tensor '%s': its shard is not named by a plain name", path, key);
        else names[count++] = (char *)(uintptr_t)json_string_value(value);
    }
    if (result == CLI_OK && count == 0) result = cli_fail("%s: 'weight_map' is not there, or names no tensor", path);
    if (result == CLI_OK) qsort(names, count, sizeof(*names), compare_names);
    for (uint32_t i = 0; i < count && result == CLI_OK; i++) {
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) result = add_shard_of(model, names[i]);
    }
    free(names);
    return result;
}

static int read_index(cli_model *model, json_t **root)
{
    json_error_t error;
    char *path = cli_join(model->directory, model->index);
    int result = CLI_OK;

    if (path == NULL) return NO_MEMORY();
    *root = json_load_file(path, 0, &error);
    if (*root == NULL) result = cli_fail("%s: no JSON that can be read: line %d: %s", path, error.line, error.text);
    else result = shards_of_index(model, path, json_object_get(*root, "weight_map"));
    free(path);
    return result;
}

/* A directory's files sorted into what they are: the index, the one file of weights, or other files. */
static int sort_files(cli_model *model, char **names, uint32_t count, const char **single)
{
    uint32_t weights = 0, indexes = 0;
    bool given = model->index != NULL;

    model->extras = calloc(count + 1, sizeof(*model->extras));
    if (model->extras == NULL) return NO_MEMORY();
    for (uint32_t i = 0; i < count; i++) {
        if (cli_has_suffix(names[i], CLI_INDEX_SUFFIX) && !given) {
            if (indexes++ > 0) return cli_fail("%s holds several index files; name the one that is meant", model->path);
            model->index = strdup(names[i]);
            if (model->index == NULL) return NO_MEMORY();
        } else if (cli_has_suffix(names[i], ".safetensors")) {
            if (weights++ == 0 || strcmp(names[i], "model.safetensors") == 0) *single = names[i];
        } else if (!holds_weights(names[i])) {
            char *copy = strdup(names[i]);
            if (copy == NULL) return NO_MEMORY();
            model->extras[model->extra_count++] = copy;
        }
    }
    if (model->index != NULL) return CLI_OK;
    if (weights == 0) return cli_fail("%s holds no .safetensors file", model->path);
    if (weights > 1 && strcmp(*single, "model.safetensors") != 0) {
        return cli_fail("%s holds %u .safetensors files, no index and no model.safetensors", model->path, weights);
    }
    return CLI_OK;
}

/* What a run that was cut off left is no model yet. */
static int check_finished(const cli_model *model)
{
    char *path = cli_join(model->directory, CLI_MANIFEST);
    int result = CLI_OK;

    if (path == NULL) return NO_MEMORY();
    if (access(path, F_OK) == 0) {
        json_t *manifest = json_load_file(path, 0, NULL);
        if (!json_is_true(json_object_get(manifest, "complete"))) {
            result = cli_fail("%s: its quantization is not finished (" CLI_MANIFEST "): start that run again", model->path);
        }
        json_decref(manifest);
    }
    free(path);
    return result;
}

static int open_directory(cli_model *model, json_t **index)
{
    char **names = NULL;
    const char *single = NULL;
    uint32_t count = 0;
    int result = list_directory(model->directory, &names, &count);

    if (result == CLI_OK) result = check_finished(model);
    if (result == CLI_OK) result = sort_files(model, names, count, &single);
    if (result == CLI_OK) result = model->index != NULL ? read_index(model, index) : add_shard_of(model, single);
    for (uint32_t i = 0; i < count; i++) free(names[i]);
    free(names);
    return result;
}

/* Splits an index's path into directory and name. */
static int set_directory(cli_model *model)
{
    const char *slash = strrchr(model->path, '/');

    if (is_directory(model->path)) {
        model->directory = strdup(model->path);
        return model->directory != NULL ? CLI_OK : NO_MEMORY();
    }
    if (!cli_has_suffix(model->path, CLI_INDEX_SUFFIX)) {
        return cli_fail("%s: an index of shards is named *" CLI_INDEX_SUFFIX, model->path);
    }
    size_t length = slash == NULL ? 0 : slash == model->path ? 1 : (size_t)(slash - model->path);
    model->directory = slash == NULL ? strdup(".") : strndup(model->path, length);
    model->index = strdup(slash == NULL ? model->path : slash + 1);
    return model->directory != NULL && model->index != NULL ? CLI_OK : NO_MEMORY();
}

/* ------------------------------------------------------------------------------------------------- tensors ------ */

static int add_tensor(cli_model *model, const cli_model_tensor *added, const char *name)
{
    cli_model_tensor *grown = one_more(model->tensors, model->tensor_count, sizeof(*grown));

    if (grown == NULL) return NO_MEMORY();
    model->tensors = grown;
    grown[model->tensor_count] = *added;
    grown[model->tensor_count].name = strdup(name);
    return grown[model->tensor_count++].name != NULL ? CLI_OK : NO_MEMORY();
}

static int list_shard(qem_context *context, cli_model *model, uint32_t shard)
{
    const char *path = model->shards[shard].path;
    qem_file *file = NULL;
    cli_listing listing = { 0 };
    qem_status status = qem_file_open(context, path, &file);

    if (status != QEM_OK) return cli_library_error(context, status, path);
    bool model_file = qem_file_get_kind(file) == QEM_FILE_SAFETENSORS;
    int result = CLI_OK;
    if (model->directory != NULL && !model_file) result = cli_fail("%s: not a .safetensors file", path);
    if (result == CLI_OK) result = cli_list(file, &listing);
    for (uint32_t i = 0; i < listing.count && result == CLI_OK; i++) {
        const cli_entry *entry = &listing.entries[i];
        cli_model_tensor tensor = { .shard = shard, .is_artifact = entry->is_artifact };
        tensor.matrix = !entry->is_artifact && (!model_file || cli_is_matrix(entry));
        tensor.dtype = entry->tensor.dtype;
        if (tensor.matrix && entry->tensor.rank == 2) {
            tensor.rows = entry->tensor.shape[0];
            tensor.cols = entry->tensor.shape[1];
        }
        result = add_tensor(model, &tensor, entry->name);
    }
    cli_list_free(&listing);
    qem_file_close(&file);
    return result;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const cli_model_tensor *const *)a)->name, (*(const cli_model_tensor *const *)b)->name);
}

static int check_duplicates(const cli_model *model, const cli_model_tensor **sorted)
{
    for (uint32_t i = 0; i < model->tensor_count; i++) sorted[i] = &model->tensors[i];
    qsort(sorted, model->tensor_count, sizeof(*sorted), compare_tensors);
    for (uint32_t i = 1; i < model->tensor_count; i++) {
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0) {
            return cli_fail("%s: tensor '%s' lies in two shards, %s and %s", model->path, sorted[i]->name,
                            model->shards[sorted[i - 1]->shard].name, model->shards[sorted[i]->shard].name);
        }
    }
    return CLI_OK;
}

/* The tensor of that name, or the artifact that a part of that name belongs to ("w.codes", "w.1.codes"). */
static const cli_model_tensor *find_tensor(const cli_model *model, const cli_model_tensor **sorted, const char *name)
{
    char *text = strdup(name);
    const cli_model_tensor wanted = { .name = text }, *key = &wanted, **found = NULL;

    while (text != NULL) {
        found = bsearch(&key, sorted, model->tensor_count, sizeof(*sorted), compare_tensors);
        char *dot = strrchr(text, '.');
        if (found != NULL && (strcmp(text, name) == 0 || (*found)->is_artifact)) break;
        found = NULL;
        if (dot == NULL) break;
        *dot = 0;
    }
    free(text);
    return found != NULL ? *found : NULL;
}

static int check_map(const cli_model *model, const cli_model_tensor **sorted, json_t *map)
{
    const char *name;
    json_t *value;

    json_object_foreach(map, name, value) {
        const char *shard = json_string_value(value);
        const cli_model_tensor *found = find_tensor(model, sorted, name);
        if (shard == NULL || found == NULL || strcmp(model->shards[found->shard].name, shard) != 0) {
            return cli_fail("%s: tensor '%s' of the index is not in %s", model->path, name, shard != NULL ? shard : "a shard");
        }
    }
    return CLI_OK;
}

/* Every tensor lies in one shard only, and, with an index, every one that it names is where it says. */
static int check_tensors(const cli_model *model, const json_t *index)
{
    const cli_model_tensor **sorted = calloc(model->tensor_count + 1, sizeof(*sorted));
    int result = sorted == NULL ? NO_MEMORY() : check_duplicates(model, sorted);

    if (result == CLI_OK) result = check_map(model, sorted, json_object_get(index, "weight_map"));
    if (result == CLI_OK) result = check_map(model, sorted, json_object_get(index, "quantized_map"));
    free(sorted);
    return result;
}

int cli_model_open(qem_context *context, const char *path, cli_model *model)
{
    json_t *index = NULL;
    int result = CLI_OK;

    *model = (cli_model){ .path = path };
    if (cli_is_model_path(path)) {
        result = set_directory(model);
        if (result == CLI_OK) result = open_directory(model, &index);
    } else {
        /* The library tells what is wrong with a file that cannot be opened. */
        struct stat info;
        if (stat(path, &info) == 0) result = add_shard(model, path, path);
        else result = cli_fail("%s: cannot be opened: %s", path, strerror(errno));
    }
    for (uint32_t i = 0; i < model->shard_count && result == CLI_OK; i++) result = list_shard(context, model, i);
    if (result == CLI_OK && model->directory != NULL) result = check_tensors(model, index);
    json_decref(index);
    return result;
}

/* ------------------------------------------------------------------------------------------------ choosing ------ */

static bool matches_any(const char *const *patterns, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fnmatch(patterns[i], name, 0) == 0) return true;
    }
    return false;
}

/*
 * What models call their embeddings, norms, biases and routers. They are few bytes, or, as embeddings, read one row at a time,
 * and errors in them cost more than in the products' weights.
 */
static bool is_linear_weight(const cli_model_tensor *tensor)
{
    static const char *const others[] = { "*embed*", "*wte*", "*wpe*", "*norm*", "*ln_*", "*bias*", "*rotary*", "*router*",
                                          "*.gate.weight" };
    enum { LEAST_SIDE = 16, LEAST_ELEMENTS = 2048 };

    if (tensor->rows < LEAST_SIDE || tensor->cols < LEAST_SIDE || tensor->rows * tensor->cols < LEAST_ELEMENTS) return false;
    return !matches_any(others, sizeof(others) / sizeof(others[0]), tensor->name);
}

static bool wants(const cli_options *options, const cli_model *model, const cli_model_tensor *tensor)
{
    if (options->tensor != NULL) return strcmp(tensor->name, options->tensor) == 0;
    if (!tensor->matrix || matches_any(options->exclude, options->exclude_count, tensor->name)) return false;
    if (options->include_count > 0) return matches_any(options->include, options->include_count, tensor->name);
    return model->directory == NULL || is_linear_weight(tensor);
}

int cli_model_choose(const cli_options *options, cli_model *model, uint32_t *chosen)
{
    *chosen = 0;
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        cli_model_tensor *tensor = &model->tensors[i];
        tensor->chosen = wants(options, model, tensor);
        if (tensor->chosen && tensor->is_artifact) return cli_fail("%s is quantized already", tensor->name);
        *chosen += tensor->chosen;
    }
    if (*chosen > 0) return CLI_OK;
    if (options->tensor != NULL) return cli_fail("%s has no tensor '%s'", model->path, options->tensor);
    if (options->include_count + options->exclude_count > 0) {
        return cli_fail("%s has no 2-D tensor of floats that --include and --exclude leave to quantize", model->path);
    }
    if (model->directory != NULL) return cli_fail("%s has no linear weights to quantize; --include chooses others", model->path);
    return cli_fail("%s has no 2-D tensor of floats to quantize", model->path);
}

/* ---------------------------------------------------------------------------------------------- importance ------ */

json_t *cli_file_identity(const char *path)
{
    struct stat info;

    if (path == NULL) return json_null();
    if (stat(path, &info) != 0) return cli_json_text(path);
    return json_pack("{s:o,s:I,s:[I,I]}", "path", cli_json_text(path), "bytes", (json_int_t)info.st_size, "modified",
                     (json_int_t)info.st_mtim.tv_sec, (json_int_t)info.st_mtim.tv_nsec);
}

int cli_importance_for(qem_context *context, const cli_options *options, const char *name, qem_view *storage,
                       const qem_view **view)
{
    const qem_file *file = options->importance_file;

    *view = options->recipe.importance;
    if (file == NULL || *view != NULL) return CLI_OK;
    for (uint32_t i = 0; i < qem_file_tensor_count(file); i++) {
        qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;
        if (qem_file_tensor(file, i, &tensor) != QEM_OK || strcmp(tensor.name, name) != 0) continue;
        *view = storage;
        if (tensor.rank == 1 && tensor.dtype == QEM_DTYPE_F32) { /* one weight a column */
            *storage = (qem_view)QEM_VIEW_INIT;
            storage->data = tensor.data;
            storage->rows = 1;
            storage->cols = tensor.shape[0];
            return CLI_OK;
        }
        qem_status status = qem_file_view(context, file, name, storage);
        return status == QEM_OK ? CLI_OK : cli_library_error(context, status, options->importance);
    }
    return cli_fail("%s has no weights for tensor '%s'", options->importance, name);
}
