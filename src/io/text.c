/* Words for error messages, checksums, and the names of element types. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "io/io.h"

qem_io_shown qem_show_bytes(const void *text, size_t bytes)
{
    qem_io_shown shown;
    const unsigned char *from = text;
    size_t room = sizeof shown.text - 4;
    size_t count = bytes < room ? bytes : room;
    /* A character of several bytes is not cut in two: the message has to stay valid UTF-8. */
    while (count < bytes && count > 0 && (from[count] & 0xC0) == 0x80) count--;
    for (size_t i = 0; i < count; i++) shown.text[i] = from[i] < 32 || from[i] == 127 ? '?' : (char)from[i];
    memcpy(shown.text + count, count < bytes ? "..." : "", count < bytes ? 4 : 1);
    return shown;
}

qem_io_shown qem_show(const char *text)
{
    return qem_show_bytes(text, strlen(text));
}

qem_io_shown qem_show_errno(int error)
{
    qem_io_shown shown;
    if (strerror_r(error, shown.text, sizeof shown.text) != 0)
        snprintf(shown.text, sizeof shown.text, "system error %d", error);
    return shown;
}

qem_status qem_copy_path(qem_context *context, const char *path, char **copy)
{
    const size_t limit = 400;
    size_t length = strlen(path);
    size_t skip = length > limit ? length - limit : 0;
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, length - skip + 4, 1, &memory));
    *copy = memory;
    snprintf(*copy, length - skip + 4, "%s%s", skip ? "..." : "", path + skip);
    return QEM_OK;
}

void qem_checksum(const void *data, size_t bytes, char hex[QEM_IO_HEX_BYTES + 1])
{
    snprintf(hex, QEM_IO_HEX_BYTES + 1, "%016llx", (unsigned long long)XXH3_64bits(data, bytes));
}

int qem_checksum_matches(const void *data, size_t bytes, const char *hex)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    /* A fuzzer cannot guess a hash; without this it would never reach the checks behind it. */
    (void)data, (void)bytes, (void)hex;
    return 1;
#else
    char found[QEM_IO_HEX_BYTES + 1];
    qem_checksum(data, bytes, found);
    return memcmp(found, hex, QEM_IO_HEX_BYTES) == 0;
#endif
}

void qem_json_free(void *text)
{
    json_malloc_t allocate;
    json_free_t release;
    json_get_alloc_funcs(&allocate, &release);
    release(text);
}

const char *const qem_io_kind_words[QEM_IO_KINDS] = { "shared", "per_group", "uniform", "table" };
const char *const qem_io_table_words[QEM_IO_TABLES] = { "uniform", "nf" };
const char *const qem_io_axis_words[QEM_IO_AXES] = { "tensor", "row", "column", "block" };

static const struct {
    const char *name;
    qem_dtype dtype;
} type_names[] = {
    { "F32", QEM_DTYPE_F32 },         { "F16", QEM_DTYPE_F16 }, { "BF16", QEM_DTYPE_BF16 }, { "F64", QEM_DTYPE_F64 },
    { "U8", QEM_DTYPE_U8 },           { "BOOL", QEM_DTYPE_BOOL }, { "I8", QEM_DTYPE_I8 },   { "I16", QEM_DTYPE_I16 },
    { "U16", QEM_DTYPE_U16 },         { "I32", QEM_DTYPE_I32 }, { "U32", QEM_DTYPE_U32 },   { "I64", QEM_DTYPE_I64 },
    { "U64", QEM_DTYPE_U64 },         { "F8_E4M3", QEM_DTYPE_F8_E4M3 }, { "F8_E5M2", QEM_DTYPE_F8_E5M2 },
};

const char *qem_safetensors_type(qem_dtype dtype)
{
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++)
        if (type_names[i].dtype == dtype) return type_names[i].name;
    return NULL;
}

qem_dtype qem_safetensors_type_from(const char *name)
{
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++)
        if (strcmp(type_names[i].name, name) == 0) return type_names[i].dtype;
    return QEM_DTYPE_NONE;
}
