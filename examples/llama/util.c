/* Error lines, memory, random numbers, whole files. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

#define MAX_FILE ((size_t)1 << 30)

bool fail(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    fprintf(stderr, "llama: %s\n", text);
    return false;
}

bool fail_library(const qem_context *context, qem_status status, const char *what)
{
    const char *text = context ? qem_last_error(context) : "";
    if (!*text) text = qem_status_string(status);
    if (strncmp(text, what, strlen(what)) == 0) return fail("%s", text);
    return fail("%s: %s", what, text);
}

void *allocate(size_t count, size_t size)
{
    void *memory = count > SIZE_MAX / size ? NULL : calloc(count ? count : 1, size);
    if (!memory) fail("out of memory (%zu elements of %zu bytes)", count, size);
    return memory;
}

char *join_path(const char *directory, const char *name)
{
    size_t size = (directory ? strlen(directory) + 1 : 0) + strlen(name) + 1;
    char *path = allocate(size, 1);
    if (path) snprintf(path, size, "%s%s%s", directory ? directory : "", directory ? "/" : "", name);
    return path;
}

/* splitmix64 */
double draw(uint64_t *seed)
{
    uint64_t z = *seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* Reads on until the end; a file needs no size for that. */
static char *read_all(FILE *stream, const char *path, size_t *size)
{
    size_t capacity = 1 << 16, used = 0;
    char *buffer = allocate(capacity, 1);
    while (buffer) {
        used += fread(buffer + used, 1, capacity - 1 - used, stream);
        if (used < capacity - 1) break;
        char *more = capacity >= MAX_FILE ? NULL : realloc(buffer, 2 * capacity);
        if (!more) {
            fail("%s: larger than %zu bytes, or out of memory", path, capacity - 1);
            free(buffer);
            return NULL;
        }
        buffer = more;
        capacity *= 2;
    }
    if (!buffer) return NULL;
    if (ferror(stream)) {
        fail("%s: %s", path, strerror(errno));
        free(buffer);
        return NULL;
    }
    buffer[used] = '\0';
    *size = used;
    return buffer;
}

char *read_file(const char *path, size_t *size)
{
    FILE *stream = fopen(path, "rb");
    if (!stream) {
        fail("%s: %s", path, strerror(errno));
        return NULL;
    }
    char *buffer = read_all(stream, path, size);
    fclose(stream);
    return buffer;
}
