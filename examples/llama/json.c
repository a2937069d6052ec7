/* A reader of JSON documents: strict about structure, strings and depth; keys may repeat (the first counts). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { MAX_DEPTH = 32 };

typedef struct parser {
    json *document;
    char *at;
    const char *end;
} parser;

static bool bad(const parser *p, const char *fault)
{
    return fail("%s: JSON: byte %zu: %s", p->document->path, (size_t)(p->at - p->document->buffer), fault);
}

static void skip_space(parser *p)
{
    while (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r') p->at++;
}

static bool take(parser *p, char c)
{
    skip_space(p);
    if (*p->at != c) return false;
    p->at++;
    return true;
}

static bool add_node(parser *p, json_kind kind, uint32_t *index)
{
    json *document = p->document;
    if (document->count == document->capacity) {
        uint32_t capacity = document->capacity ? 2 * document->capacity : 256;
        json_node *nodes = capacity > 1u << 30 ? NULL : realloc(document->nodes, capacity * sizeof *nodes);
        if (!nodes) return fail("%s: out of memory", document->path);
        document->nodes = nodes;
        document->capacity = capacity;
    }
    *index = document->count++;
    document->nodes[*index] = (json_node){ .kind = kind, .end = document->count };
    return true;
}

/* Four hexadecimal digits behind \u, or -1. */
static int32_t take_hex(parser *p)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdefABCDEF";
        const char *found = *p->at ? strchr(digits, *p->at) : NULL;
        if (!found) return -1;
        value = 16 * value + (int32_t)(found - digits < 16 ? found - digits : found - digits - 6);
        p->at++;
    }
    return value;
}

static char *put_utf8(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    }
    if (code >= 0x80) *out++ = (char)(0x80 | (code & 0x3F));
    return out;
}

/* \uXXXX, or two of them for a code beyond 16 bits; p->at lies behind the 'u'. */
static bool take_unicode(parser *p, char **out)
{
    int32_t code = take_hex(p);
    if (code >= 0xD800 && code < 0xDC00 && p->at[0] == '\\' && p->at[1] == 'u') {
        p->at += 2;
        int32_t low = take_hex(p);
        if (low < 0xDC00 || low > 0xDFFF) return bad(p, "half of a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code < 0 || (code >= 0xD800 && code < 0xE000)) return bad(p, "\\u is not followed by a character's number");
    *out = put_utf8(*out, (uint32_t)code);
    return true;
}

static bool take_escape(parser *p, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *p->at;
    const char *found = c ? strchr(from, c) : NULL;
    if (c != 'u' && !found) return bad(p, "unknown escape in a string");
    p->at++;
    if (c == 'u') return take_unicode(p, out);
    *(*out)++ = to[found - from];
    return true;
}

/* Decodes a string where it lies: no escape is shorter than what it stands for. */
static bool take_string(parser *p, uint32_t *index)
{
    char *out = ++p->at;
    const char *begin = out;
    if (!add_node(p, JSON_STRING, index)) return false;
    while (*p->at != '"') {
        if ((unsigned char)*p->at < 0x20) return bad(p, "a string does not end, or holds a control character");
        if (*p->at != '\\') {
            *out++ = *p->at++;
            continue;
        }
        p->at++;
        if (!take_escape(p, &out)) return false;
    }
    p->at++;
    *out = '\0';
    p->document->nodes[*index].text = begin;
    p->document->nodes[*index].length = (size_t)(out - begin);
    return true;
}

static bool take_number(parser *p, uint32_t *index)
{
    char text[64], *end;
    size_t length = strspn(p->at, "+-0123456789.eE");
    if (length == 0 || length >= sizeof text || *p->at == '+') return bad(p, "no JSON value begins here");
    memcpy(text, p->at, length);
    text[length] = '\0';
    double value = strtod(text, &end);
    if (*end != '\0' || end == text) return bad(p, "a malformed number");
    if (!add_node(p, JSON_NUMBER, index)) return false;
    p->document->nodes[*index].number = value;
    p->at += length;
    return true;
}

static bool take_value(parser *p, int depth);

static bool take_children(parser *p, bool object, uint32_t self, int depth)
{
    const char close = object ? '}' : ']';
    uint32_t key;
    if (take(p, close)) return true;
    do {
        skip_space(p);
        if (object) {
            if (*p->at != '"') return bad(p, "a key is missing");
            if (!take_string(p, &key)) return false;
            if (!take(p, ':')) return bad(p, "a ':' is missing");
        }
        if (!take_value(p, depth + 1)) return false;
        p->document->nodes[self].count++;
    } while (take(p, ','));
    return take(p, close) ? true : bad(p, object ? "a ',' or '}' is missing" : "a ',' or ']' is missing");
}

static bool take_word(parser *p, const char *word, json_kind kind)
{
    uint32_t index;
    if (strncmp(p->at, word, strlen(word)) != 0) return bad(p, "no JSON value begins here");
    p->at += strlen(word);
    return add_node(p, kind, &index);
}

static bool take_value(parser *p, int depth)
{
    uint32_t self;
    if (depth > MAX_DEPTH) return bad(p, "nested too deeply");
    skip_space(p);
    switch (*p->at) {
    case '"': return take_string(p, &self);
    case 't': return take_word(p, "true", JSON_TRUE);
    case 'f': return take_word(p, "false", JSON_FALSE);
    case 'n': return take_word(p, "null", JSON_NULL);
    case '{':
    case '[': break;
    default: return take_number(p, &self);
    }
    bool object = *p->at++ == '{';
    if (!add_node(p, object ? JSON_OBJECT : JSON_ARRAY, &self)) return false;
    if (!take_children(p, object, self, depth)) return false;
    p->document->nodes[self].end = p->document->count;
    return true;
}

bool json_load(const char *path, json *document)
{
    size_t size = 0;
    *document = (json){ 0 };
    document->path = join_path(NULL, path);
    if (!document->path) return false;
    document->buffer = read_file(path, &size);
    if (!document->buffer) return false;
    parser p = { document, document->buffer, document->buffer + size };
    if (!take_value(&p, 0)) return false;
    skip_space(&p);
    return p.at == p.end ? true : bad(&p, "more follows the document");
}

void json_free(json *document)
{
    free(document->path);
    free(document->buffer);
    free(document->nodes);
    *document = (json){ 0 };
}

uint32_t json_index(const json *document, const json_node *node)
{
    return (uint32_t)(node - document->nodes);
}

const json_node *json_get(const json *document, uint32_t object, const char *key)
{
    if (document->nodes[object].kind != JSON_OBJECT) return NULL;
    uint32_t at = object + 1;
    for (uint32_t i = 0; i < document->nodes[object].count; i++) {
        const json_node *name = &document->nodes[at], *value = name + 1;
        if (strlen(key) == name->length && memcmp(key, name->text, name->length) == 0) return value;
        at = value->end;
    }
    return NULL;
}
