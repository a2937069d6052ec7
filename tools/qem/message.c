/* Words for people: one line on stderr, whatever a file's name holds. */
#include "cli.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

static void print_line(const char *format, va_list arguments)
{
    char text[2048];

    vsnprintf(text, sizeof(text), format, arguments);
    for (char *c = text; *c != 0; c++) {
        if (iscntrl((unsigned char)*c)) *c = '?';
    }
    cli_progress_clear();
    fprintf(stderr, "qem: %s\n", text);
}

int cli_fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    return CLI_ERROR;
}

int cli_usage(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    return CLI_USAGE;
}

void cli_note(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

int cli_library_error(const qem_context *context, qem_status status, const char *prefix)
{
    const char *text = context == NULL ? "" : qem_last_error(context);

    if (text == NULL || text[0] == 0) text = qem_status_string(status);
    if (prefix != NULL && strstr(text, prefix) == NULL) return cli_fail("%s: %s", prefix, text);
    return cli_fail("%s", text);
}

double cli_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool cli_has_suffix(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);

    return length > tail && strcmp(text + length - tail, suffix) == 0;
}
