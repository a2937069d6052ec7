/* The vocabulary, with SentencePiece's way of merging pairs, and .npy files of tokens. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#define SPACE_MARK "\xE2\x96\x81" /* what SentencePiece writes for a space */

static int compare(const void *a, const void *b)
{
    const vocabulary_entry *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->length < y->length ? x->length : y->length);
    if (order == 0) order = (x->length > y->length) - (x->length < y->length);
    return order ? order : (x->id > y->id) - (x->id < y->id);
}

static bool same_text(const vocabulary_entry *entry, const char *text, size_t length)
{
    return entry->length == length && memcmp(entry->text, text, length) == 0;
}

/* Marks become spaces, in place. */
static void unmark(vocabulary_entry *entry)
{
    char *out = (char *)entry->text; /* in the document's buffer, which is the vocabulary's own */
    size_t used = 0;
    for (size_t i = 0; i < entry->length;) {
        if (entry->length - i >= 3 && memcmp(entry->text + i, SPACE_MARK, 3) == 0) {
            out[used++] = ' ';
            i += 3;
        } else {
            out[used++] = entry->text[i++];
        }
    }
    entry->length = used;
}

static bool add_piece(vocabulary *words, uint32_t index, const json_node *piece, double id)
{
    if (piece->kind != JSON_STRING) return fail("%s: piece %u is not a text", words->document.path, index);
    if (!(id >= 0.0 && id < words->size) || id != (double)(uint32_t)id)
        return fail("%s: piece %u: its number is not below the vocabulary's size %u", words->document.path, index,
                    words->size);
    vocabulary_entry *entry = &words->pieces[(uint32_t)id];
    if (entry->text) return fail("%s: piece %u: its number %u is there twice", words->document.path, index, (uint32_t)id);
    *entry = (vocabulary_entry){ piece->text, piece->length, (uint32_t)id };
    unmark(entry);
    if (entry->length > words->longest) words->longest = entry->length;
    return true;
}

static bool add_pieces(vocabulary *words)
{
    const json_node *nodes = words->document.nodes;
    const bool object = nodes[0].kind == JSON_OBJECT;
    uint32_t at = 1;
    if (!object && nodes[0].kind != JSON_ARRAY)
        return fail("%s: is neither a list nor an object of pieces", words->document.path);
    for (uint32_t i = 0; i < nodes[0].count; i++) {
        const json_node *piece = &nodes[at], *id = object ? piece + 1 : NULL;
        if (id && id->kind != JSON_NUMBER) return fail("%s: piece %u has no number", words->document.path, i);
        if (!add_piece(words, i, piece, id ? id->number : i)) return false;
        at = (id ? id : piece)->end;
    }
    for (uint32_t i = 0; i < words->size; i++)
        if (words->pieces[i].text) words->sorted[words->sorted_count++] = words->pieces[i];
    qsort(words->sorted, words->sorted_count, sizeof *words->sorted, compare);
    return true;
}

bool vocabulary_load(const char *directory, uint32_t size, vocabulary *words)
{
    *words = (vocabulary){ .size = size };
    char *path = join_path(directory, "vocab.json");
    bool loaded = path && json_load(path, &words->document);
    free(path);
    if (!loaded) return false;
    words->pieces = allocate(size, sizeof *words->pieces);
    words->sorted = words->pieces ? allocate(size, sizeof *words->sorted) : NULL;
    return words->sorted && add_pieces(words);
}

void vocabulary_free(vocabulary *words)
{
    json_free(&words->document);
    free(words->pieces);
    free(words->sorted);
    *words = (vocabulary){ 0 };
}

/* The lowest token of that text, or UINT32_MAX. */
static uint32_t find_piece(const vocabulary *words, const char *text, size_t length)
{
    const vocabulary_entry wanted = { text, length, 0 };
    uint32_t low = 0, high = words->sorted_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare(&words->sorted[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < words->sorted_count && same_text(&words->sorted[low], text, length) ? words->sorted[low].id : UINT32_MAX;
}

static uint32_t find_byte(const vocabulary *words, unsigned char byte)
{
    char name[8];
    snprintf(name, sizeof name, "<0x%02X>", byte);
    return find_piece(words, name, 6);
}

/* Bytes of the UTF-8 character at `text`; 1 where it is damaged. */
static size_t character_length(const char *text)
{
    const unsigned char lead = (unsigned char)*text;
    size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    for (size_t i = 1; i < length; i++)
        if (((unsigned char)text[i] & 0xC0) != 0x80) return 1;
    return length;
}

/* Characters, or bytes where the vocabulary lacks a character, each at most a token. */
static bool split(const vocabulary *words, const char *text, uint32_t *tokens, uint32_t *count)
{
    while (*text) {
        size_t length = character_length(text);
        uint32_t token = find_piece(words, text, length);
        if (token != UINT32_MAX) {
            tokens[(*count)++] = token;
        } else {
            for (size_t i = 0; i < length; i++) {
                token = find_byte(words, (unsigned char)text[i]);
                if (token == UINT32_MAX)
                    return fail("%s: no piece for byte %u of the prompt", words->document.path, (unsigned char)text[i]);
                tokens[(*count)++] = token;
            }
        }
        text += length;
    }
    return true;
}

/* The token that two merge into, or UINT32_MAX. */
static uint32_t merged(const vocabulary *words, uint32_t a, uint32_t b, char *buffer)
{
    const vocabulary_entry *x = &words->pieces[a], *y = &words->pieces[b];
    if (x->length + y->length > words->longest) return UINT32_MAX;
    memcpy(buffer, x->text, x->length);
    memcpy(buffer + x->length, y->text, y->length);
    return find_piece(words, buffer, x->length + y->length);
}

/* Merges the pair with the lowest token, which was learnt first, as long as there is one. */
static void merge(const vocabulary *words, uint32_t *tokens, uint32_t *pairs, uint32_t *count, char *buffer)
{
    for (uint32_t i = 0; i + 1 < *count; i++) pairs[i] = merged(words, tokens[i], tokens[i + 1], buffer);
    while (*count > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < *count; i++)
            if (pairs[i] < pairs[best]) best = i;
        if (pairs[best] == UINT32_MAX) return;
        tokens[best] = pairs[best];
        --*count;
        memmove(tokens + best + 1, tokens + best + 2, (*count - best - 1) * sizeof *tokens);
        memmove(pairs + best, pairs + best + 1, (*count - best - 1) * sizeof *pairs);
        if (best > 0) pairs[best - 1] = merged(words, tokens[best - 1], tokens[best], buffer);
        if (best + 1 < *count) pairs[best] = merged(words, tokens[best], tokens[best + 1], buffer);
    }
}

bool vocabulary_encode(const vocabulary *words, const char *text, uint32_t most, uint32_t **tokens, uint32_t *count)
{
    size_t length = strlen(text);
    *count = 0;
    if (length > 16 * (size_t)most)
        return fail("the prompt's %zu bytes are more than a context of %u tokens", length, most);
    char *spaced = allocate(length + 2, 1), *buffer = allocate(words->longest + 1, 1);
    uint32_t *pairs = allocate(length + 1, sizeof *pairs);
    *tokens = allocate(length + 1, sizeof **tokens);
    bool done = spaced && buffer && pairs && *tokens;
    if (done) {
        spaced[0] = ' ';
        memcpy(spaced + 1, text, length);
        done = split(words, spaced, *tokens, count);
    }
    if (done) merge(words, *tokens, pairs, count, buffer);
    free(spaced);
    free(buffer);
    free(pairs);
    if (done && *count > most) return fail("the prompt's %u tokens are more than a context of %u leaves", *count, most);
    return done;
}

const char *vocabulary_decode(const vocabulary *words, uint32_t token, char *buffer, size_t *length)
{
    unsigned byte;
    const vocabulary_entry *entry = &words->pieces[token];
    *length = entry->text ? entry->length : 0;
    if (*length != 6 || memcmp(entry->text, "<0x", 3) != 0 || sscanf(entry->text, "<0x%2X>", &byte) != 1)
        return entry->text;
    buffer[0] = (char)byte;
    *length = 1;
    return buffer;
}

/* --------------------------------------------------------------------------------------------- token files ------ */

typedef struct token_type {
    const char *descr;
    size_t size;
    bool is_signed;
} token_type;

/* The value of a key of the Python literal that numpy writes as header, or NULL. */
static const char *header_value(const char *header, const char *key)
{
    const char *found = strstr(header, key);
    return found ? found + strlen(key) : NULL;
}

static bool parse_shape(const char *at, token_rows *rows)
{
    uint64_t sizes[2] = { 1, 1 };
    int rank = 0;
    while (*at >= '0' && *at <= '9') {
        if (rank == 2) return false;
        uint64_t size = 0;
        for (; *at >= '0' && *at <= '9'; at++) {
            size = 10 * size + (uint64_t)(*at - '0');
            if (size > UINT32_MAX) return false;
        }
        sizes[rank++] = size;
        while (*at == ',' || *at == ' ') at++;
    }
    if (*at != ')' || rank == 0) return false;
    rows->rows = rank == 2 ? sizes[0] : 1;
    rows->cols = rank == 2 ? sizes[1] : sizes[0];
    return rows->rows > 0 && rows->cols > 0;
}

static bool parse_header(const char *path, char *header, token_rows *rows, token_type *type)
{
    static const token_type known[] = { { "|u1'", 1, false }, { "<u2'", 2, false }, { "<i4'", 4, true },
                                        { "<u4'", 4, false }, { "<i8'", 8, true } };
    const char *descr = header_value(header, "'descr': '"), *order = header_value(header, "'fortran_order': ");
    const char *shape = header_value(header, "'shape': (");
    if (!descr || !order || !shape) return fail("%s: its npy header is not numpy's", path);
    if (strncmp(order, "False", 5) != 0) return fail("%s: tokens must be in C order", path);
    if (!parse_shape(shape, rows)) return fail("%s: tokens must be one or two dimensions, and not empty", path);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(descr, known[i].descr, strlen(known[i].descr)) == 0) {
            *type = known[i];
            return true;
        }
    return fail("%s: tokens are not u1, u2, u4, i4 or i8", path);
}

static int64_t token_at(const char *data, uint64_t i, const token_type *type)
{
    int64_t wide = 0;
    if (type->size == 4 && type->is_signed) {
        int32_t narrow;
        memcpy(&narrow, data + 4 * i, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, data + type->size * i, type->size); /* little-endian, as the library itself */
    return wide;
}

static bool convert(const char *path, const char *data, uint32_t vocab, const token_type *type, token_rows *rows)
{
    rows->tokens = allocate(rows->rows * rows->cols, sizeof *rows->tokens);
    if (!rows->tokens) return false;
    for (uint64_t i = 0; i < rows->rows * rows->cols; i++) {
        int64_t token = token_at(data, i, type);
        if (token < 0 || token >= vocab)
            return fail("%s: token %lld in row %llu, column %llu: the vocabulary has %u", path, (long long)token,
                        (unsigned long long)(i / rows->cols), (unsigned long long)(i % rows->cols), vocab);
        rows->tokens[i] = (uint32_t)token;
    }
    return true;
}

static bool parse_npy(const char *path, char *bytes, size_t size, uint32_t vocab, token_rows *rows)
{
    token_type type = { 0 };
    uint32_t length = 0;
    if (size < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0) return fail("%s: is not a .npy file", path);
    const size_t width = bytes[6] == 1 ? 2 : 4, begin = 8 + width;
    memcpy(&length, bytes + 8, width);
    if (length == 0 || length > size - begin) return fail("%s: truncated in the npy header", path);
    bytes[begin + length - 1] = '\0'; /* its last character is a line feed */
    if (!parse_header(path, bytes + begin, rows, &type)) return false;
    const uint64_t there = (size - begin - length) / type.size;
    if (rows->rows > there / rows->cols || rows->rows * rows->cols * type.size != size - begin - length)
        return fail("%s: %llu x %llu tokens are not what its %zu bytes hold", path, (unsigned long long)rows->rows,
                    (unsigned long long)rows->cols, size);
    return convert(path, bytes + begin + length, vocab, &type, rows);
}

bool tokens_load(const char *path, uint32_t vocab, token_rows *rows)
{
    size_t size = 0;
    *rows = (token_rows){ 0 };
    char *bytes = read_file(path, &size);
    bool done = bytes && parse_npy(path, bytes, size, vocab, rows);
    free(bytes);
    return done;
}

bool tokens_save(const char *path, const token_rows *rows)
{
    char header[128];
    const int used = snprintf(header, sizeof header, "{'descr': '<i4', 'fortran_order': False, 'shape': (%llu, %llu), }",
                              (unsigned long long)rows->rows, (unsigned long long)rows->cols);
    memset(header + used, ' ', sizeof header - (size_t)used);
    header[sizeof header - 11] = '\n'; /* magic, version and length have 10 bytes; 128 are aligned as numpy likes it */
    FILE *stream = fopen(path, "wb");
    if (!stream) return fail("%s: %s", path, strerror(errno));
    bool done = fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, stream) == 10 && fwrite(header, 1, 118, stream) == 118 &&
                fwrite(rows->tokens, sizeof *rows->tokens, rows->rows * rows->cols, stream) == rows->rows * rows->cols;
    done = fclose(stream) == 0 && done;
    return done ? true : fail("%s: could not be written", path);
}
