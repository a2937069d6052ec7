/* qem inspect: what a file holds, artifact by artifact and tensor by tensor. */
#include "model.h"

#include <inttypes.h>
#include <stdlib.h>

static const char *kind_name(qem_file_kind kind)
{
    switch (kind) {
    case QEM_FILE_NPY: return "npy";
    case QEM_FILE_FVECS: return "fvecs";
    case QEM_FILE_BVECS: return "bvecs";
    case QEM_FILE_SAFETENSORS: return "safetensors";
    }
    return "?";
}

static json_t *json_shape(uint32_t rank, const uint64_t *shape)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < rank; i++) json_array_append_new(list, json_integer((json_int_t)shape[i]));
    return list;
}

static json_t *json_stored(const char *name, qem_dtype dtype, uint32_t rank, const uint64_t *shape, uint64_t bytes)
{
    json_t *object = json_object();

    json_object_set_new(object, "name", cli_json_text(name));
    json_object_set_new(object, "dtype", json_string(qem_dtype_name(dtype)));
    json_object_set_new(object, "shape", json_shape(rank, shape));
    json_object_set_new(object, "bytes", json_integer((json_int_t)bytes));
    return object;
}

/* The tensors an artifact is stored as. */
static json_t *json_artifact_parts(const qem_artifact *artifact)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < qem_artifact_part_count(artifact); i++) {
        qem_part part = QEM_PART_INIT;
        if (qem_artifact_part(artifact, i, &part) != QEM_OK) continue;
        json_array_append_new(list, json_stored(part.name, part.dtype, part.rank, part.shape, part.bytes));
    }
    return list;
}

static void print_artifact_parts(const qem_artifact *artifact)
{
    for (uint32_t i = 0; i < qem_artifact_part_count(artifact); i++) {
        qem_part part = QEM_PART_INIT;
        if (qem_artifact_part(artifact, i, &part) != QEM_OK) continue;
        printf("  tensor   %s: %s [", part.name, qem_dtype_name(part.dtype));
        for (uint32_t d = 0; d < part.rank; d++) printf("%s%" PRIu64, d ? ", " : "", part.shape[d]);
        printf("], %" PRIu64 " bytes\n", part.bytes);
    }
}

static int show_artifact(qem_context *context, const qem_file *file, const char *path, const char *name, json_t **object)
{
    qem_context_info where = QEM_CONTEXT_INFO_INIT;
    qem_artifact *artifact = NULL;
    json_t *layers;
    cli_record record;
    qem_status status = qem_file_load(context, file, name, &artifact);

    if (status != QEM_OK) return cli_library_error(context, status, name);
    qem_context_query(context, &where);
    cli_record_from_artifact(artifact, &record);
    layers = cli_layers(path, name);
    if (object != NULL) {
        *object = cli_json_record(&record, &where);
        json_object_set_new(*object, "quantized", json_true());
        json_object_set_new(*object, "stored_tensors", json_artifact_parts(artifact));
        json_object_update(*object, layers);
    } else {
        cli_report_text(&record, 1);
        cli_print_layers(layers);
        print_artifact_parts(artifact);
    }
    json_decref(layers);
    qem_artifact_destroy(&artifact);
    return CLI_OK;
}

static json_t *json_plain(const qem_tensor_info *tensor, const qem_context_info *where)
{
    cli_record record;
    json_t *object;

    cli_record_init(&record);
    record.tensor = tensor->name;
    record.source = tensor->dtype;
    object = cli_json_record(&record, where);
    json_object_set_new(object, "rows", tensor->rank == 2 ? json_integer((json_int_t)tensor->shape[0]) : json_null());
    json_object_set_new(object, "cols", tensor->rank == 2 ? json_integer((json_int_t)tensor->shape[1]) : json_null());
    json_object_set_new(object, "quantized", json_false());
    json_object_set_new(object, "shape", json_shape(tensor->rank, tensor->shape));
    json_object_set_new(object, "bytes", json_integer((json_int_t)tensor->bytes));
    return object;
}

static void print_plain(const qem_tensor_info *tensor)
{
    printf("%s: ", tensor->name);
    for (uint32_t d = 0; d < tensor->rank; d++) printf("%s%" PRIu64, d ? " x " : "", tensor->shape[d]);
    printf("%s%s, %" PRIu64 " bytes, not quantized\n", tensor->rank > 0 ? " " : "", qem_dtype_name(tensor->dtype),
           tensor->bytes);
}

/* Of one file; `path` names it. Adds to `list` with --json. */
static int show_file(const cli_options *options, qem_context *context, const qem_file *file, const char *path,
                     const char *shard, json_t *list)
{
    qem_context_info where = QEM_CONTEXT_INFO_INIT;
    cli_listing listing = { 0 };
    int result = cli_list(file, &listing);

    qem_context_query(context, &where);
    for (uint32_t i = 0; i < listing.count && result == CLI_OK; i++) {
        const cli_entry *entry = &listing.entries[i];
        json_t *object = NULL;
        if (entry->is_artifact) {
            result = show_artifact(context, file, path, entry->name, options->json ? &object : NULL);
        } else if (options->json) {
            object = json_plain(&entry->tensor, &where);
        } else {
            print_plain(&entry->tensor);
        }
        if (object != NULL && shard != NULL) json_object_set_new(object, "shard", cli_json_text(shard));
        if (object != NULL) json_array_append_new(list, object);
        qem_file_discard(file);
    }
    cli_list_free(&listing);
    return result;
}

static int inspect_file(const cli_options *options, qem_context *context)
{
    qem_file *file = NULL;
    json_t *list = json_array(), *object = NULL;
    qem_status status = qem_file_open(context, options->operands[0], &file);
    int result = CLI_OK;

    if (status != QEM_OK) result = cli_library_error(context, status, options->operands[0]);
    if (result == CLI_OK) result = show_file(options, context, file, options->operands[0], NULL, list);
    if (options->json && result == CLI_OK) {
        object = json_array_size(list) == 1 ? json_deep_copy(json_array_get(list, 0)) : json_pack("{s:O}", "tensors", list);
        json_object_set_new(object, "file", cli_json_text(options->operands[0]));
        json_object_set_new(object, "kind", json_string(kind_name(qem_file_get_kind(file))));
        result = cli_json_print(object);
    }
    json_decref(list);
    qem_file_close(&file);
    return result;
}

static int inspect_model(const cli_options *options, qem_context *context)
{
    cli_model model;
    json_t *list = json_array();
    int result = cli_model_open(context, options->operands[0], &model);

    for (uint32_t i = 0; i < model.shard_count && result == CLI_OK; i++) {
        qem_file *file = NULL;
        qem_status status = qem_file_open(context, model.shards[i].path, &file);
        if (status != QEM_OK) result = cli_library_error(context, status, model.shards[i].path);
        if (!options->json && result == CLI_OK) printf("%s\n", model.shards[i].name);
        if (result == CLI_OK) result = show_file(options, context, file, model.shards[i].path, model.shards[i].name, list);
        qem_file_close(&file);
    }
    if (options->json && result == CLI_OK) {
        result = cli_json_print(json_pack("{s:O,s:o,s:i}", "tensors", list, "model", cli_json_text(options->operands[0]), "shards",
                                          (int)model.shard_count));
    }
    json_decref(list);
    cli_model_free(&model);
    return result;
}

int cli_inspect(cli_options *options)
{
    qem_context *context = NULL;
    int result = cli_start(options, &context);

    if (result == CLI_OK) {
        result = cli_is_model_path(options->operands[0]) ? inspect_model(options, context) : inspect_file(options, context);
    }
    qem_context_destroy(&context);
    return result;
}
