/*
 * Writing .safetensors. Tensors are sorted by falling element size: the format allows no gaps, so this is what keeps
 * every tensor aligned to its elements. The header is padded with spaces so that the data begin at a multiple of 64.
 * Data are borrowed until they are written, or, in a writer with a spool, copied there as they are added.
 */
#include <stdio.h>
#include <string.h>

#include "io/io.h"

typedef struct entry {
    char *name;
    qem_dtype dtype;
    uint32_t rank;
    uint64_t shape[QEM_IO_MAX_RANK];
    const void *data; /* NULL when they are in the spool, at `offset` */
    uint64_t bytes;
    uint64_t offset;
} entry;

struct qem_writer {
    qem_allocator allocator; /* of the context that made it; add may come with another one */
    char *path;
    entry *entries;
    uint32_t count, capacity;
    json_t *taken;    /* set of the names in use */
    json_t *metadata; /* key -> text */
    int version;      /* of the format: the oldest that has all that was added */
    qem_io_spool spool;
};

/* ------------------------------------------------------------------------------------------------ its memory ---- */

static void writer_release(const qem_writer *writer, void *pointer)
{
    if (pointer) writer->allocator.release(writer->allocator.user, pointer);
}

static qem_status writer_allocate(qem_context *context, const qem_writer *writer, size_t bytes, void **memory)
{
    *memory = writer->allocator.allocate(writer->allocator.user, bytes);
    return *memory ? QEM_OK : qem_fail(context, QEM_ERR_MEMORY, "out of memory for %zu bytes", bytes);
}

void qem_writer_abort(qem_writer **handle)
{
    if (!handle || !*handle) return;
    qem_writer *writer = *handle;
    *handle = NULL;
    qem_spool_close(&writer->spool);
    for (uint32_t i = 0; i < writer->count; i++) writer_release(writer, writer->entries[i].name);
    writer_release(writer, writer->entries);
    writer_release(writer, writer->path);
    json_decref(writer->taken);
    json_decref(writer->metadata);
    qem_allocator allocator = writer->allocator;
    allocator.release(allocator.user, writer);
}

static qem_status fill_writer(qem_context *context, const char *path, qem_writer *writer)
{
    void *memory = NULL;
    QEM_TRY(writer_allocate(context, writer, strlen(path) + 1, &memory));
    writer->path = memcpy(memory, path, strlen(path) + 1);
    writer->version = 1;
    writer->taken = json_object();
    writer->metadata = json_object();
    if (!writer->taken || !writer->metadata) return qem_fail(context, QEM_ERR_MEMORY, "%s: out of memory", path);
    return QEM_OK;
}

qem_status qem_writer_create(qem_context *context, const char *path, qem_writer **handle)
{
    if (handle) *handle = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!path || !handle)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_writer_create: path and writer must not be NULL");
    QEM_TRY(qem_atomic_check(context, path));
    void *memory = NULL;
    QEM_TRY(qem_allocate_zero(context, 1, sizeof(qem_writer), &memory));
    qem_writer *writer = memory;
    writer->allocator = context->allocator;
    qem_status status = fill_writer(context, path, writer);
    if (status != QEM_OK) qem_writer_abort(&writer);
    *handle = writer;
    return status;
}

qem_status qem_writer_spool(qem_context *context, qem_writer *writer)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!writer) return qem_fail(context, QEM_ERR_ARGUMENT, "qem_writer_spool: writer must not be NULL");
    if (writer->count > 0 || writer->spool.path)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%.400s: qem_writer_spool comes once, before anything is added",
                        writer->path);
    qem_status status = qem_spool_open(context, writer->path, &writer->spool);
    if (status != QEM_OK) qem_spool_close(&writer->spool);
    return status;
}

static qem_status grow(qem_context *context, qem_writer *writer)
{
    if (writer->count < writer->capacity) return QEM_OK;
    uint32_t capacity = writer->capacity ? 2 * writer->capacity : 16;
    void *memory = NULL;
    QEM_TRY(writer_allocate(context, writer, capacity * sizeof(entry), &memory));
    if (writer->count) memcpy(memory, writer->entries, writer->count * sizeof(entry));
    writer_release(writer, writer->entries);
    writer->entries = memory;
    writer->capacity = capacity;
    return QEM_OK;
}

/* ---------------------------------------------------------------------------------------------------- adding ---- */

static qem_status take_name(qem_context *context, qem_writer *writer, const char *name)
{
    json_t *copy = json_string(name);
    if (!copy || !*name) {
        json_decref(copy);
        return qem_fail(context, QEM_ERR_ARGUMENT, "%.400s: tensor '%s': its name is empty or no valid UTF-8",
                        writer->path, qem_show(name).text);
    }
    json_decref(copy);
    if (json_object_get(writer->taken, name) || strcmp(name, "__metadata__") == 0)
        return qem_fail(context, QEM_ERR_CLASH, "%.400s: two tensors would have the name '%s'", writer->path,
                        qem_show(name).text);
    if (json_object_set_new(writer->taken, name, json_true()) == 0) return QEM_OK;
    return qem_fail(context, QEM_ERR_MEMORY, "%.400s: out of memory", writer->path);
}

/* A failed add must not leave half an artifact in the writer. */
static void roll_back(qem_writer *writer, uint32_t count)
{
    while (writer->count > count) {
        writer->count--;
        json_object_del(writer->taken, writer->entries[writer->count].name);
        writer_release(writer, writer->entries[writer->count].name);
    }
}

static qem_status spool_entry(qem_context *context, qem_writer *writer, entry *e)
{
    if (!writer->spool.path) return QEM_OK;
    e->offset = writer->spool.bytes;
    QEM_TRY(qem_spool_write(context, &writer->spool, e->data, e->bytes));
    e->data = NULL;
    return QEM_OK;
}

/* Adds an entry whose name is in memory of the writer already; the name is the writer's then, also on errors. */
static qem_status add_entry(qem_context *context, qem_writer *writer, entry *added)
{
    qem_status status = grow(context, writer);
    if (status == QEM_OK) status = take_name(context, writer, added->name);
    if (status != QEM_OK) {
        writer_release(writer, added->name);
        return status;
    }
    status = spool_entry(context, writer, added);
    writer->entries[writer->count++] = *added;
    if (status != QEM_OK) roll_back(writer, writer->count - 1);
    return status;
}

static qem_status add_part(qem_context *context, qem_writer *writer, const qem_artifact *artifact, uint32_t index)
{
    qem_part part = QEM_PART_INIT;
    void *memory = NULL;
    if (qem_artifact_part(artifact, index, &part) != QEM_OK)
        return qem_fail(context, QEM_ERR_INTERNAL, "part %u of an artifact cannot be had", (unsigned)index);
    size_t room = strlen(artifact->name) + strlen(part.name) + 2;
    QEM_TRY(writer_allocate(context, writer, room, &memory));
    snprintf(memory, room, "%s.%s", artifact->name, part.name);
    entry added = { memory, part.dtype, part.rank, { 0 }, part.data, part.bytes, 0 };
    for (uint32_t i = 0; i < part.rank; i++) added.shape[i] = part.shape[i];
    return add_entry(context, writer, &added);
}

static qem_status add_text(qem_context *context, qem_writer *writer, const qem_artifact *artifact)
{
    char *text = NULL;
    int version = 1;
    char key[sizeof QEM_IO_ARTIFACT_KEY + 256];
    QEM_TRY(qem_artifact_text(context, artifact, &text, &version));
    snprintf(key, sizeof key, "%s%s", QEM_IO_ARTIFACT_KEY, artifact->name);
    int failed = json_object_set_new(writer->metadata, key, json_string(text));
    qem_release(context, text);
    if (failed) return qem_fail(context, QEM_ERR_MEMORY, "%.400s: out of memory", writer->path);
    if (version > writer->version) writer->version = version;
    return QEM_OK;
}

qem_status qem_writer_add_artifact(qem_context *context, qem_writer *writer, const qem_artifact *artifact)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!writer || !artifact)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_writer_add_artifact: writer and artifact must not be NULL");
    if (strlen(artifact->name) > 255)
        return qem_fail(context, QEM_ERR_ARGUMENT, "artifact '%s': its name is longer than 255 bytes",
                        qem_show(artifact->name).text);
    /* The artifact's own name is taken too: with a plain tensor of that name it would mean two things. */
    QEM_TRY(take_name(context, writer, artifact->name));
    uint32_t before = writer->count, parts = qem_artifact_part_count(artifact);
    qem_status status = QEM_OK;
    for (uint32_t i = 0; i < parts && status == QEM_OK; i++) status = add_part(context, writer, artifact, i);
    if (status == QEM_OK) status = add_text(context, writer, artifact);
    if (status == QEM_OK) return QEM_OK;
    roll_back(writer, before);
    json_object_del(writer->taken, artifact->name);
    return status;
}

static qem_status check_tensor(qem_context *context, const qem_tensor_info *tensor)
{
    if (tensor->size != sizeof *tensor || !tensor->name || tensor->rank > QEM_IO_MAX_RANK)
        return qem_fail(context, QEM_ERR_ARGUMENT,
                        "qem_writer_add_tensor: use QEM_TENSOR_INFO_INIT, a name, and a rank of at most 8");
    qem_io_shown name = qem_show(tensor->name);
    if (!qem_safetensors_type(tensor->dtype))
        return qem_fail(context, QEM_ERR_ARGUMENT, "tensor '%s': dtype %d is not known", name.text, (int)tensor->dtype);
    uint64_t bytes = qem_dtype_size(tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] > INT64_MAX || __builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return qem_fail(context, QEM_ERR_ARGUMENT, "tensor '%s': its shape overflows 64 bits", name.text);
    }
    if (bytes != tensor->bytes || (bytes > 0 && !tensor->data))
        return qem_fail(context, QEM_ERR_ARGUMENT, "tensor '%s': its shape asks for %llu bytes, %llu are given%s",
                        name.text, (unsigned long long)bytes, (unsigned long long)tensor->bytes,
                        tensor->data ? "" : ", and data is NULL");
    return QEM_OK;
}

qem_status qem_writer_add_tensor(qem_context *context, qem_writer *writer, const qem_tensor_info *tensor)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!writer || !tensor)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_writer_add_tensor: writer and tensor must not be NULL");
    QEM_TRY(check_tensor(context, tensor));
    void *memory = NULL;
    size_t room = strlen(tensor->name) + 1;
    QEM_TRY(writer_allocate(context, writer, room, &memory));
    entry added = { memcpy(memory, tensor->name, room), tensor->dtype, tensor->rank, { 0 }, tensor->data,
                    tensor->bytes, 0 };
    memcpy(added.shape, tensor->shape, sizeof added.shape);
    return add_entry(context, writer, &added);
}

/* -------------------------------------------------------------------------------------------------- the header -- */

static json_t *entry_object(const entry *e, uint64_t begin)
{
    json_t *shape = json_array();
    for (uint32_t i = 0; i < e->rank; i++)
        if (json_array_append_new(shape, json_integer((json_int_t)e->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s,s:o,s:[I,I]}", "dtype", qem_safetensors_type(e->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + e->bytes));
}

/* A stable sort: within one element size the tensors stay in the order in which they were added. */
static void sort_entries(const qem_writer *writer, const entry **sorted)
{
    uint32_t count = 0;
    for (size_t size = 8; size > 0; size /= 2)
        for (uint32_t i = 0; i < writer->count; i++)
            if (qem_dtype_size(writer->entries[i].dtype) == size) sorted[count++] = &writer->entries[i];
}

static int build_header(const qem_writer *writer, const entry **sorted, json_t *root)
{
    uint64_t begin = 0;
    if (json_object_size(writer->metadata) > 0) {
        char version[16];
        json_t *metadata = json_object();
        snprintf(version, sizeof version, "%d", writer->version);
        if (json_object_set_new(root, "__metadata__", metadata) != 0 ||
            json_object_set_new(metadata, QEM_IO_VERSION_KEY, json_string(version)) != 0 ||
            json_object_update(metadata, writer->metadata) != 0)
            return 0;
    }
    for (uint32_t i = 0; i < writer->count; i++) {
        if (json_object_set_new(root, sorted[i]->name, entry_object(sorted[i], begin)) != 0) return 0;
        begin += sorted[i]->bytes;
    }
    return 1;
}

static qem_status write_header(qem_writer *writer, qem_atomic_file *file, const char *header)
{
    static const char spaces[64] = "                                                                ";
    uint64_t length = strlen(header);
    uint64_t padded = (8 + length + 63) / 64 * 64 - 8;
    if (padded > QEM_IO_MAX_HEADER)
        return qem_fail(file->context, QEM_ERR_RANGE,
                        "%.400s: a header of %llu bytes is longer than the format's limit of %u", writer->path,
                        (unsigned long long)padded, QEM_IO_MAX_HEADER);
    QEM_TRY(qem_atomic_write(file, &padded, sizeof padded));
    QEM_TRY(qem_atomic_write(file, header, length));
    return qem_atomic_write(file, spaces, padded - length);
}

static qem_status write_all(qem_context *context, qem_writer *writer, const entry **sorted, const char *header)
{
    qem_atomic_file file;
    QEM_TRY(qem_atomic_open(context, writer->path, &file));
    qem_status status = write_header(writer, &file, header);
    for (uint32_t i = 0; i < writer->count && status == QEM_OK; i++)
        status = sorted[i]->data || !sorted[i]->bytes ? qem_atomic_write(&file, sorted[i]->data, sorted[i]->bytes)
                                 : qem_spool_copy(context, &writer->spool, sorted[i]->offset, sorted[i]->bytes, &file);
    if (status == QEM_OK) return qem_atomic_commit(&file);
    qem_atomic_abort(&file);
    return status;
}

static qem_status commit(qem_context *context, qem_writer *writer)
{
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, writer->count, sizeof(entry *), &memory));
    const entry **sorted = memory;
    sort_entries(writer, sorted);
    json_t *root = json_object();
    char *header = root && build_header(writer, sorted, root) ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    qem_status status = QEM_OK;
    if (header) status = write_all(context, writer, sorted, header);
    else status = qem_fail(context, QEM_ERR_MEMORY, "%.400s: out of memory for the header", writer->path);
    if (header) qem_json_free(header);
    qem_release(context, memory);
    return status;
}

qem_status qem_writer_commit(qem_context *context, qem_writer **handle)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!handle || !*handle)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_writer_commit: writer and *writer must not be NULL");
    qem_status status = commit(context, *handle);
    qem_writer_abort(handle);
    return status;
}

qem_status qem_save(qem_context *context, const qem_artifact *artifact, const char *path)
{
    qem_writer *writer = NULL;
    QEM_TRY(qem_writer_create(context, path, &writer));
    qem_status status = qem_writer_add_artifact(context, writer, artifact);
    if (status == QEM_OK) return qem_writer_commit(context, &writer);
    qem_writer_abort(&writer);
    return status;
}
