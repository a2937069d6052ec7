/* Which artifacts a safetensors file holds, and which of its tensors belong to them: all that listing needs to know. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

static int is_artifact_key(const char *key)
{
    return strncmp(key, QEM_IO_ARTIFACT_KEY, strlen(QEM_IO_ARTIFACT_KEY)) == 0;
}

static uint32_t count_artifacts(const json_t *metadata)
{
    uint32_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (is_artifact_key(key)) count++;
    }
    return count;
}

/* A newer format may store parts that this version would silently leave out of the decoded matrix. */
static qem_status check_version(qem_context *context, const qem_file *file, const json_t *metadata)
{
    const char *text = json_string_value(json_object_get(metadata, QEM_IO_VERSION_KEY));
    if (!text)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: __metadata__ names artifacts but lacks the key '%s'", file->path,
                        QEM_IO_VERSION_KEY);
    char *end = NULL;
    long version = strtol(text, &end, 10);
    if (end == text || *end != 0 || version < 1)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: '%s' is '%s', not a format version", file->path,
                        QEM_IO_VERSION_KEY, qem_show(text).text);
    if (version > QEM_IO_FORMAT_VERSION)
        return qem_fail(context, QEM_ERR_FORMAT,
                        "%s: written in qem format %s; this version of qem reads formats up to %d: update qem",
                        file->path, qem_show(text).text, QEM_IO_FORMAT_VERSION);
    return QEM_OK;
}

/* Marks tensor "artifact.part" as a part; two artifacts cannot share one. */
static qem_status mark_part(const qem_io_reader *reader, const char *part)
{
    char name[1024];
    int length = snprintf(name, sizeof name, "%s.%s", reader->entry->name, part);
    const qem_io_tensor *found =
        length > 0 && (size_t)length < sizeof name ? qem_file_find(reader->file, name) : NULL;
    if (!found)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its tensor '%s' is missing", qem_show(part).text);
    if (found->of_artifact)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its tensor '%s' belongs to two artifacts", qem_show(name).text);
    reader->file->tensors[found - reader->file->tensors].of_artifact = 1;
    return QEM_OK;
}

static qem_status mark_parts(const qem_io_reader *reader, const json_t *root)
{
    json_t *sums = NULL, *value;
    const char *part;
    QEM_TRY(qem_read_object(reader, root, "xxh3", &sums));
    json_object_foreach(sums, part, value) QEM_TRY(mark_part(reader, part));
    return QEM_OK;
}

static qem_status index_one(const qem_io_reader *reader)
{
    size_t length = strlen(reader->entry->name);
    if (length < 1 || length > 255)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its name has %zu bytes, not 1 .. 255", length);
    json_error_t error;
    json_t *root = json_loadb(reader->entry->text, reader->entry->length, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata is not valid JSON: %s", qem_show(error.text).text);
    qem_status status = mark_parts(reader, root);
    json_decref(root);
    return status;
}

qem_status qem_artifact_index(qem_context *context, qem_file *file, const json_t *metadata, char *strings)
{
    const char *key;
    json_t *value;
    void *memory = NULL;
    uint32_t count = count_artifacts(metadata);
    /* The key alone is looked at too: a file of a newer version may name its artifacts differently. */
    if (count == 0 && !json_object_get(metadata, QEM_IO_VERSION_KEY)) return QEM_OK;
    QEM_TRY(check_version(context, file, metadata));
    QEM_TRY(qem_allocate_zero(context, count, sizeof *file->artifacts, &memory));
    file->artifacts = memory;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!is_artifact_key(key)) continue;
        qem_io_artifact *entry = &file->artifacts[file->artifact_count++];
        size_t key_size = strlen(key) + 1;
        entry->length = json_string_length(value);
        entry->name = (const char *)memcpy(strings, key, key_size) + strlen(QEM_IO_ARTIFACT_KEY);
        entry->text = memcpy(strings + key_size, json_string_value(value), entry->length + 1);
        strings += key_size + entry->length + 1;
        qem_io_reader reader = { context, file, entry };
        QEM_TRY(index_one(&reader));
    }
    return QEM_OK;
}
