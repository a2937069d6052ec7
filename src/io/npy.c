/*
 * Reading .npy (numpy's format 1.0, 2.0, 3.0). The header is a Python literal; this parser takes the dictionary that
 * numpy writes, in any order and spacing, and nothing else: no expressions, no structured types, no pickled objects.
 */
#include <stdio.h>
#include <string.h>

#include "io/io.h"

/* numpy's own headers have 118 bytes; this stops a damaged length from making the rest of the file the header. */
#define MAX_HEADER (1u << 20)

typedef struct scanner {
    qem_context *context;
    const char *path;
    const char *at, *end;
} scanner;

typedef struct header {
    qem_dtype dtype;
    int fortran;
    uint32_t rank;
    uint64_t shape[2];
    int has_descr, has_order, has_shape;
} header;

static qem_status bad(const scanner *s, const char *fault)
{
    return qem_fail(s->context, QEM_ERR_FORMAT, "%s: npy header: %s", s->path, fault);
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

/* Takes one character after white space; 0 when another one is there. */
static int take(scanner *s, char c)
{
    skip_space(s);
    if (s->at >= s->end || *s->at != c) return 0;
    s->at++;
    return 1;
}

static int take_word(scanner *s, const char *word)
{
    size_t length = strlen(word);
    skip_space(s);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0) return 0;
    s->at += length;
    return 1;
}

static qem_status take_string(scanner *s, const char **text, size_t *length)
{
    skip_space(s);
    if (s->at >= s->end || (*s->at != '\'' && *s->at != '"')) return bad(s, "a quoted string is missing");
    char quote = *s->at++;
    *text = s->at;
    while (s->at < s->end && *s->at != quote) s->at++;
    if (s->at >= s->end) return bad(s, "a string does not end");
    *length = (size_t)(s->at++ - *text);
    return QEM_OK;
}

static qem_status take_number(scanner *s, uint64_t *value)
{
    skip_space(s);
    if (s->at >= s->end || *s->at < '0' || *s->at > '9') return bad(s, "shape is not a tuple of numbers");
    *value = 0;
    for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++) {
        if (*value > (UINT64_MAX - 9) / 10) return bad(s, "a number in shape overflows");
        *value = *value * 10 + (uint64_t)(*s->at - '0');
    }
    if (s->at < s->end && *s->at == 'L') s->at++; /* Python 2 wrote long integers like this */
    return QEM_OK;
}

static qem_status take_shape(scanner *s, header *h)
{
    if (!take(s, '(')) return bad(s, "shape is not a tuple");
    h->rank = 0;
    while (!take(s, ')')) {
        uint64_t value = 0;
        QEM_TRY(take_number(s, &value));
        if (h->rank < 2) h->shape[h->rank] = value;
        if (h->rank < 1000) h->rank++;
        if (take(s, ',')) continue;
        if (!take(s, ')')) return bad(s, "shape does not end with ')'");
        break;
    }
    return QEM_OK;
}

static qem_status take_descr(scanner *s, header *h)
{
    static const struct {
        const char *descr;
        qem_dtype dtype;
    } known[] = {
        { "|u1", QEM_DTYPE_U8 }, { "<f2", QEM_DTYPE_F16 }, { "<f4", QEM_DTYPE_F32 }, { "<f8", QEM_DTYPE_F64 },
    };
    const char *text = NULL;
    size_t length = 0;
    skip_space(s);
    if (s->at < s->end && *s->at == '[') return bad(s, "structured types are not supported; save one plain field");
    QEM_TRY(take_string(s, &text, &length));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].descr) != length || memcmp(known[i].descr, text, length) != 0) continue;
        h->dtype = known[i].dtype;
        return QEM_OK;
    }
    qem_io_shown shown = qem_show_bytes(text, length);
    if (length > 1 && text[0] == '>')
        return qem_fail(s->context, QEM_ERR_FORMAT,
                        "%s: type '%s' is big-endian; save the array as little-endian (astype('<%s'))", s->path,
                        shown.text, shown.text + 1);
    return qem_fail(s->context, QEM_ERR_FORMAT, "%s: type '%s' is not one of |u1, <f2, <f4, <f8", s->path, shown.text);
}

static qem_status take_order(scanner *s, header *h)
{
    if (take_word(s, "True")) {
        h->fortran = 1;
        return QEM_OK;
    }
    return take_word(s, "False") ? QEM_OK : bad(s, "fortran_order is neither True nor False");
}

static qem_status take_entry(scanner *s, header *h)
{
    const char *key = NULL;
    size_t length = 0;
    QEM_TRY(take_string(s, &key, &length));
    if (!take(s, ':')) return bad(s, "a ':' is missing");
    int is_descr = length == 5 && memcmp(key, "descr", 5) == 0;
    int is_order = length == 13 && memcmp(key, "fortran_order", 13) == 0;
    int is_shape = length == 5 && memcmp(key, "shape", 5) == 0;
    if (!is_descr && !is_order && !is_shape)
        return qem_fail(s->context, QEM_ERR_FORMAT, "%s: npy header: unknown key '%s'", s->path,
                        qem_show_bytes(key, length).text);
    if ((is_descr && h->has_descr) || (is_order && h->has_order) || (is_shape && h->has_shape))
        return bad(s, "a key is there twice");
    h->has_descr |= is_descr;
    h->has_order |= is_order;
    h->has_shape |= is_shape;
    return is_descr ? take_descr(s, h) : is_order ? take_order(s, h) : take_shape(s, h);
}

static qem_status parse_header(scanner *s, header *h)
{
    if (!take(s, '{')) return bad(s, "it is not a dictionary");
    while (!take(s, '}')) {
        QEM_TRY(take_entry(s, h));
        if (take(s, ',')) continue;
        if (!take(s, '}')) return bad(s, "a ',' or '}' is missing");
        break;
    }
    skip_space(s);
    if (s->at != s->end) return bad(s, "text follows the dictionary");
    if (!h->has_descr || !h->has_order || !h->has_shape) return bad(s, "one of descr, fortran_order, shape is missing");
    return QEM_OK;
}

/* Where the header lies. Version 1 has a length of 2 bytes, versions 2 and 3 of 4. */
static qem_status find_header(qem_context *context, const qem_file *file, uint64_t *begin, uint64_t *end)
{
    if (file->bytes < 10) return qem_fail(context, QEM_ERR_FORMAT, "%s: truncated in the npy header", file->path);
    unsigned major = file->data[6], minor = file->data[7];
    if (major < 1 || major > 3)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: npy format %u.%u is not one of 1.0, 2.0, 3.0", file->path, major,
                        minor);
    *begin = major == 1 ? 10 : 12;
    if (file->bytes < *begin) return qem_fail(context, QEM_ERR_FORMAT, "%s: truncated in the npy header", file->path);
    uint32_t length = 0;
    memcpy(&length, file->data + 8, (size_t)(*begin - 8));
    if (length > MAX_HEADER)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: an npy header of %lu bytes is longer than the limit of %u",
                        file->path, (unsigned long)length, MAX_HEADER);
    *end = *begin + length;
    if (*end > file->bytes)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: truncated: the npy header ends at byte %llu of %llu", file->path,
                        (unsigned long long)*end, (unsigned long long)file->bytes);
    return QEM_OK;
}

static qem_status check_size(qem_context *context, const qem_file *file, const header *h, uint64_t data_bytes)
{
    uint64_t rows = h->shape[0], cols = h->shape[1];
    if (rows == 0 || cols == 0)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: an array of %llu x %llu elements is empty", file->path,
                        (unsigned long long)rows, (unsigned long long)cols);
    if (rows > (QEM_IO_MAX_ELEMENTS - 1) / cols)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: %llu x %llu elements are more than the limit of 2^48", file->path,
                        (unsigned long long)rows, (unsigned long long)cols);
    uint64_t needed = rows * cols * qem_dtype_size(h->dtype);
    if (needed == data_bytes) return QEM_OK;
    return qem_fail(context, QEM_ERR_FORMAT, "%s: %s: %llu x %llu elements of %s need %llu bytes, there are %llu",
                    file->path, needed > data_bytes ? "truncated" : "bytes follow the array", (unsigned long long)rows,
                    (unsigned long long)cols, qem_dtype_name(h->dtype), (unsigned long long)needed,
                    (unsigned long long)data_bytes);
}

qem_status qem_npy_parse(qem_context *context, qem_file *file)
{
    uint64_t begin = 0, end = 0;
    QEM_TRY(find_header(context, file, &begin, &end));
    scanner s = { context, file->path, (const char *)file->data + begin, (const char *)file->data + end };
    header h;
    memset(&h, 0, sizeof h);
    QEM_TRY(parse_header(&s, &h));
    if (h.rank != 1 && h.rank != 2)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: the array has %u dimensions, 1 or 2 are supported", file->path,
                        (unsigned)h.rank);
    if (h.rank == 1) {
        h.shape[1] = h.shape[0];
        h.shape[0] = 1;
        h.fortran = 0;
    }
    QEM_TRY(check_size(context, file, &h, file->bytes - end));
    qem_view *view = &file->matrix;
    view->dtype = h.dtype;
    view->data = file->data + end;
    view->rows = h.shape[0];
    view->cols = h.shape[1];
    if (h.fortran) {
        view->row_stride = 1;
        view->col_stride = view->rows;
    }
    /* With one row or one column both orders are the same bytes. */
    return qem_file_set_matrix(context, file, !h.fortran || view->rows == 1 || view->cols == 1);
}
