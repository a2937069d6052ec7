/* A progress bar on a terminal; silent when stderr is a pipe or a file. */
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 30 };

static char label[96];
static double left = NAN;
static bool shown;

void cli_progress_left(double seconds)
{
    left = seconds;
}

/* "12:34 left", "3:05:00 left", or nothing. */
static void print_left(void)
{
    if (!(left >= 0 && left < 1e7)) return;
    unsigned seconds = (unsigned)(left + 0.5);
    if (seconds >= 3600) fprintf(stderr, ", %u:%02u:%02u left", seconds / 3600, seconds / 60 % 60, seconds % 60);
    else fprintf(stderr, ", %u:%02u left", seconds / 60, seconds % 60);
}

void cli_progress_label(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(label, sizeof(label), format, arguments);
    va_end(arguments);
}

int cli_progress(void *user, const char *phase, double fraction)
{
    char bar[BAR_WIDTH + 1];
    int full;

    (void)user;
    if (!isatty(STDERR_FILENO)) return 0;
    if (!(fraction > 0)) fraction = 0;
    if (fraction > 1) fraction = 1;
    full = (int)(fraction * BAR_WIDTH + 0.5);
    memset(bar, '#', (size_t)full);
    memset(bar + full, '.', (size_t)(BAR_WIDTH - full));
    bar[BAR_WIDTH] = 0;
    /* \033[K clears what a longer line left behind. */
    fprintf(stderr, "\r[%s] %3.0f%% %.60s%s%.30s", bar, fraction * 100, label, label[0] ? ": " : "", phase);
    print_left();
    fputs("\033[K", stderr);
    fflush(stderr);
    shown = true;
    return 0;
}

void cli_progress_clear(void)
{
    if (!shown) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    shown = false;
}
