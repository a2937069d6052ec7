/*
 * The header of a .safetensors file: 8 bytes of length, JSON, data. Everything the format promises is checked here
 * once, so that no later code has to doubt an offset: no holes, no overlaps, shapes that match their bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

static qem_status tensor_fail(qem_context *context, const qem_file *file, const char *name, const char *fault)
{
    return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': %s", file->path, qem_show(name).text, fault);
}

static qem_status parse_type(qem_context *context, const qem_file *file, const json_t *value, qem_io_tensor *tensor)
{
    const char *type = json_string_value(json_object_get(value, "dtype"));
    if (!type) return tensor_fail(context, file, tensor->name, "dtype is missing or no string");
    tensor->dtype = qem_safetensors_type_from(type);
    if (tensor->dtype != QEM_DTYPE_NONE) return QEM_OK;
    return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': unknown dtype '%s'", file->path,
                    qem_show(tensor->name).text, qem_show(type).text);
}

/* `needed` = the bytes that type and shape ask for. */
static qem_status parse_shape(qem_context *context, const qem_file *file, const json_t *value, qem_io_tensor *tensor,
                              uint64_t *needed)
{
    const json_t *shape = json_object_get(value, "shape");
    if (!json_is_array(shape)) return tensor_fail(context, file, tensor->name, "shape is missing or no list");
    if (json_array_size(shape) > QEM_IO_MAX_RANK)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': %zu dimensions are more than the limit of %d",
                        file->path, qem_show(tensor->name).text, json_array_size(shape), QEM_IO_MAX_RANK);
    tensor->rank = (uint32_t)json_array_size(shape);
    *needed = qem_dtype_size(tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        const json_t *length = json_array_get(shape, i);
        if (!json_is_integer(length) || json_integer_value(length) < 0)
            return tensor_fail(context, file, tensor->name, "shape holds something that is no length");
        tensor->shape[i] = (uint64_t)json_integer_value(length);
        if (__builtin_mul_overflow(*needed, tensor->shape[i], needed))
            return tensor_fail(context, file, tensor->name, "its shape overflows 64 bits");
    }
    return QEM_OK;
}

static qem_status parse_offsets(qem_context *context, const qem_file *file, const json_t *value, qem_io_tensor *tensor,
                                uint64_t data_begin)
{
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return tensor_fail(context, file, tensor->name, "data_offsets is missing or no pair of integers");
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    uint64_t data_bytes = file->bytes - data_begin;
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return qem_fail(context, QEM_ERR_FORMAT,
                        "%s: tensor '%s': data_offsets [%lld,%lld] lie outside the %llu data bytes",
                        file->path, qem_show(tensor->name).text, (long long)begin, (long long)end,
                        (unsigned long long)data_bytes);
    tensor->data = file->data + data_begin + begin;
    tensor->bytes = (uint64_t)(end - begin);
    return QEM_OK;
}

static qem_status parse_tensor(qem_context *context, const qem_file *file, const json_t *value, uint64_t data_begin,
                               qem_io_tensor *tensor)
{
    uint64_t needed = 0;
    if (!json_is_object(value)) return tensor_fail(context, file, tensor->name, "its header entry is no object");
    QEM_TRY(parse_type(context, file, value, tensor));
    QEM_TRY(parse_shape(context, file, value, tensor, &needed));
    QEM_TRY(parse_offsets(context, file, value, tensor, data_begin));
    if (needed != tensor->bytes)
        return qem_fail(context, QEM_ERR_FORMAT,
                        "%s: tensor '%s': type and shape need %llu bytes, data_offsets give %llu",
                        file->path, qem_show(tensor->name).text, (unsigned long long)needed,
                        (unsigned long long)tensor->bytes);
    return QEM_OK;
}

static int compare_place(const void *left, const void *right)
{
    const qem_io_tensor *a = left, *b = right;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int compare_names(const void *left, const void *right)
{
    return strcmp((*(const qem_io_tensor *const *)left)->name, (*(const qem_io_tensor *const *)right)->name);
}

/* The format demands that the tensors fill the data exactly: a file can hide nothing, and no two can share bytes. */
static qem_status check_places(qem_context *context, const qem_file *file, uint64_t data_begin)
{
    const uint8_t *expected = file->data + data_begin;
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        const qem_io_tensor *tensor = &file->tensors[i];
        if (tensor->data < expected)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': its data overlap those of tensor '%s'",
                            file->path, qem_show(tensor->name).text, qem_show(file->tensors[i - 1].name).text);
        if (tensor->data > expected)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': %llu bytes before its data belong to no tensor",
                            file->path, qem_show(tensor->name).text, (unsigned long long)(tensor->data - expected));
        expected += tensor->bytes;
    }
    uint64_t left = (uint64_t)(file->data + file->bytes - expected);
    if (left == 0) return QEM_OK;
    return qem_fail(context, QEM_ERR_FORMAT, "%s: %llu bytes at the end belong to no tensor", file->path,
                    (unsigned long long)left);
}

static qem_status make_index(qem_context *context, qem_file *file)
{
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, file->tensor_count, sizeof *file->by_name, &memory));
    file->by_name = memory;
    for (uint32_t i = 0; i < file->tensor_count; i++) file->by_name[i] = &file->tensors[i];
    qsort((void *)file->by_name, file->tensor_count, sizeof *file->by_name, compare_names);
    return QEM_OK;
}

static qem_status parse_tensors(qem_context *context, qem_file *file, json_t *root, uint64_t data_begin, char **strings)
{
    const char *key;
    json_t *value;
    void *memory = NULL;
    QEM_TRY(qem_allocate_zero(context, json_object_size(root), sizeof *file->tensors, &memory));
    file->tensors = memory;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0) continue;
        size_t length = strlen(key) + 1;
        qem_io_tensor *tensor = &file->tensors[file->tensor_count++];
        tensor->name = memcpy(*strings, key, length);
        *strings += length;
        QEM_TRY(parse_tensor(context, file, value, data_begin, tensor));
    }
    qsort(file->tensors, file->tensor_count, sizeof *file->tensors, compare_place);
    QEM_TRY(check_places(context, file, data_begin));
    return make_index(context, file);
}

static qem_status check_metadata(qem_context *context, const qem_file *file, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return qem_fail(context, QEM_ERR_FORMAT, "%s: __metadata__ is no object", file->path);
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return qem_fail(context, QEM_ERR_FORMAT, "%s: __metadata__: the value of '%s' is no string", file->path,
                            qem_show(key).text);
    }
    return QEM_OK;
}

static qem_status parse_root(qem_context *context, qem_file *file, json_t *root, uint64_t header_bytes)
{
    if (!json_is_object(root)) return qem_fail(context, QEM_ERR_FORMAT, "%s: the header is no object", file->path);
    /* Every string with its NUL is shorter than its JSON form with two quotes: the header's length is room for all. */
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, header_bytes, 1, &memory));
    file->strings = memory;
    char *strings = file->strings;
    QEM_TRY(parse_tensors(context, file, root, 8 + header_bytes, &strings));
    json_t *metadata = json_object_get(root, "__metadata__");
    if (!metadata) return QEM_OK;
    QEM_TRY(check_metadata(context, file, metadata));
    return qem_artifact_index(context, file, metadata, strings);
}

qem_status qem_safetensors_parse(qem_context *context, qem_file *file)
{
    uint64_t length = 0;
    memcpy(&length, file->data, sizeof length);
    if (length > QEM_IO_MAX_HEADER)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: a header of %llu bytes is longer than the limit of %u",
                        file->path, (unsigned long long)length, QEM_IO_MAX_HEADER);
    if (length > file->bytes - 8)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: truncated: the header needs %llu bytes, %llu are there",
                        file->path, (unsigned long long)length, (unsigned long long)(file->bytes - 8));
    json_error_t error;
    json_t *root = json_loadb((const char *)file->data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        int no_memory = json_error_code(&error) == json_error_out_of_memory;
        return qem_fail(context, no_memory ? QEM_ERR_MEMORY : QEM_ERR_FORMAT, "%s: the header is not valid JSON: %s",
                        file->path, qem_show(error.text).text);
    }
    qem_status status = parse_root(context, file, root, length);
    json_decref(root);
    return status;
}
