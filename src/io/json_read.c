/* Typed access to the metadata of one artifact. Unknown keys are never looked at; a missing or wrong one is named. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

qem_status qem_reader_fail(const qem_io_reader *reader, qem_status status, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return qem_fail(reader->context, status, "%s: artifact '%s': %s", reader->file->path,
                    qem_show(reader->entry->name).text, text);
}

static qem_status wrong(const qem_io_reader *reader, const char *key, const char *expected)
{
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata key '%s' is not %s", key, expected);
}

qem_status qem_read_member(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value)
{
    *value = json_object_get(object, key);
    return *value ? QEM_OK : qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata lacks the key '%s'", key);
}

qem_status qem_read_object(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value)
{
    QEM_TRY(qem_read_member(reader, object, key, value));
    return json_is_object(*value) ? QEM_OK : wrong(reader, key, "an object");
}

qem_status qem_read_array(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value)
{
    QEM_TRY(qem_read_member(reader, object, key, value));
    return json_is_array(*value) ? QEM_OK : wrong(reader, key, "a list");
}

/* JSON readers elsewhere keep 53 or 63 bits, so numbers that may be larger are written as decimal strings. */
static int parse_decimal(const char *text, uint64_t *value)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 20 || text[digits] != 0) return 0;
    errno = 0;
    *value = strtoull(text, NULL, 10);
    return errno == 0;
}

qem_status qem_read_u64(const qem_io_reader *reader, const json_t *object, const char *key, uint64_t least,
                        uint64_t most, uint64_t *value)
{
    json_t *member = NULL;
    uint64_t number = 0;
    QEM_TRY(qem_read_member(reader, object, key, &member));
    if (json_is_string(member)) {
        if (!parse_decimal(json_string_value(member), &number)) return wrong(reader, key, "a whole number");
    } else {
        if (!json_is_integer(member) || json_integer_value(member) < 0) return wrong(reader, key, "a whole number");
        number = (uint64_t)json_integer_value(member);
    }
    if (number < least || number > most)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata key '%s' is %llu, not in %llu .. %llu", key,
                               (unsigned long long)number, (unsigned long long)least, (unsigned long long)most);
    *value = number;
    return QEM_OK;
}

qem_status qem_read_u32(const qem_io_reader *reader, const json_t *object, const char *key, uint32_t least,
                        uint32_t most, uint32_t *value)
{
    uint64_t number = 0;
    QEM_TRY(qem_read_u64(reader, object, key, least, most, &number));
    *value = (uint32_t)number;
    return QEM_OK;
}

/* null stands for NaN, which JSON does not have. */
qem_status qem_read_real(const qem_io_reader *reader, const json_t *object, const char *key, double *value)
{
    json_t *member = NULL;
    QEM_TRY(qem_read_member(reader, object, key, &member));
    if (!json_is_number(member) && !json_is_null(member)) return wrong(reader, key, "a number or null");
    *value = json_is_null(member) ? NAN : json_number_value(member);
    return QEM_OK;
}

qem_status qem_read_string(const qem_io_reader *reader, const json_t *object, const char *key, const char **value)
{
    json_t *member = NULL;
    QEM_TRY(qem_read_member(reader, object, key, &member));
    *value = json_string_value(member);
    return *value ? QEM_OK : wrong(reader, key, "a string");
}

qem_status qem_read_optional_u32(const qem_io_reader *reader, const json_t *object, const char *key, uint32_t least,
                                 uint32_t most, uint32_t *value)
{
    return json_object_get(object, key) ? qem_read_u32(reader, object, key, least, most, value) : QEM_OK;
}

qem_status qem_read_flag(const qem_io_reader *reader, const json_t *object, const char *key, int *value)
{
    const json_t *member = json_object_get(object, key);
    if (member && !json_is_boolean(member)) return wrong(reader, key, "true or false");
    if (member) *value = json_is_true(member);
    return QEM_OK;
}

qem_status qem_read_word(const qem_io_reader *reader, const json_t *object, const char *key, const char *const *words,
                         uint32_t count, uint32_t *value)
{
    const char *word = NULL;
    QEM_TRY(qem_read_string(reader, object, key, &word));
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(words[i], word) != 0) continue;
        *value = i;
        return QEM_OK;
    }
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata key '%s' is '%s', which this version of qem does not know",
                           key, qem_show(word).text);
}

qem_status qem_read_dtype(const qem_io_reader *reader, const json_t *object, const char *key, qem_dtype *value)
{
    const char *name = NULL;
    QEM_TRY(qem_read_string(reader, object, key, &name));
    for (int dtype = QEM_DTYPE_F32; dtype <= QEM_DTYPE_F8_E5M2; dtype++) {
        if (strcmp(qem_dtype_name((qem_dtype)dtype), name) != 0) continue;
        *value = (qem_dtype)dtype;
        return QEM_OK;
    }
    return wrong(reader, key, "a known element type");
}
