/* The picture of qem compare, drawn by gnuplot: script and data go to its stdin, the SVG comes from its stdout. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define METHOD_COUNT (QEM_METHOD_AUTO + 1)

/* Colours that stay apart for colour-blind eyes (Okabe and Ito), and a mark of its own for print in grey. */
static const struct style {
    const char *colour;
    int mark;
} styles[METHOD_COUNT] = {
    [QEM_METHOD_RTN] = { "#777777", 2 },   [QEM_METHOD_LLOYDMAX] = { "#56b4e9", 9 },
    [QEM_METHOD_VQ] = { "#009e73", 6 },    [QEM_METHOD_PQ] = { "#e69f00", 5 },
    [QEM_METHOD_HYPERCHR] = { "#d55e00", 7 }, [QEM_METHOD_QET] = { "#0072b2", 13 },
    [QEM_METHOD_GRID] = { "#999933", 1 },  [QEM_METHOD_NF] = { "#cc79a7", 4 },
    [QEM_METHOD_OPQ] = { "#332288", 8 },   [QEM_METHOD_LOPQ] = { "#882255", 10 },
    [QEM_METHOD_AUTO] = { "#000000", 11 },
};

/* Where PATH finds gnuplot, malloc'ed, or NULL. */
static char *find_gnuplot(void)
{
    const char *path = getenv("PATH");

    while (path != NULL && *path != 0) {
        size_t length = strcspn(path, ":");
        char *name = malloc(length + sizeof("/gnuplot"));
        if (name == NULL) return NULL;
        memcpy(name, path, length);
        strcpy(name + length, "/gnuplot");
        if (length > 0 && access(name, X_OK) == 0) return name;
        free(name);
        path += length + (path[length] == ':');
    }
    return NULL;
}

int cli_plot_check(const char *path)
{
    char *gnuplot = find_gnuplot();

    if (gnuplot == NULL) {
        return cli_fail("--plot needs the program gnuplot, which is not in PATH (Debian: apt-get install gnuplot-nox)");
    }
    free(gnuplot);
    return cli_check_output(path);
}

static qem_method asked_method(const cli_record *record)
{
    return record->automatic ? QEM_METHOD_AUTO : record->method;
}

static bool can_draw(const cli_result *result)
{
    return result->feasible && result->record.metrics.mse > 0 && isfinite(result->record.metrics.mse);
}

/* Tics 1, 2, 5 of each decade when there are few decades, else the decades alone (every n-th of many). */
static void write_tics(FILE *script, double low, double high)
{
    int first = (int)floor(log10(low)), last = (int)ceil(log10(high)), step = (last - first) / 12 + 1;
    const char *separator = "set ytics (";

    for (int decade = first; decade <= last; decade += step) {
        fprintf(script, "%s\"1e%d\" 1e%d", separator, decade, decade);
        separator = ", ";
        if (last - first > 2) continue;
        fprintf(script, ", \"2e%d\" 2e%d, \"5e%d\" 5e%d", decade, decade, decade, decade);
    }
    fputs(")\n", script);
}

static bool write_range(FILE *script, const cli_result *results, uint32_t count)
{
    double low = INFINITY, high = 0, widest = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (!can_draw(&results[i])) continue;
        low = fmin(low, results[i].record.metrics.mse);
        high = fmax(high, results[i].record.metrics.mse);
        widest = fmax(widest, results[i].record.bits_per_element);
    }
    if (high == 0) return false;
    fprintf(script, "set yrange [%.9g:%.9g]\nset xrange [0:%.9g]\n", low / 1.6, high * 1.6, widest * 1.04);
    write_tics(script, low / 1.6, high * 1.6);
    return true;
}

/* The title in double quotes: what gnuplot would read as a command or a markup is replaced. */
static void write_title(FILE *script, const char *title)
{
    fputs("set title \"", script);
    for (; *title != 0; title++) {
        bool plain = (unsigned char)*title >= ' ' && *title != '"' && *title != '\\' && *title != '`';
        fputc(plain ? *title : '?', script);
    }
    fputs(": error against memory\"\n", script);
}

/* The points of one method from left to right: the ratios may have been asked for in any order. */
static void write_data(FILE *script, qem_method method, const cli_result *results, uint32_t count)
{
    double last = -1;

    fprintf(script, "$%s << END\n", qem_method_name(method));
    for (;;) {
        const cli_record *next = NULL;
        for (uint32_t i = 0; i < count; i++) {
            const cli_record *record = &results[i].record;
            if (asked_method(record) != method || !can_draw(&results[i]) || record->bits_per_element <= last) continue;
            if (next == NULL || record->bits_per_element < next->bits_per_element) next = record;
        }
        if (next == NULL) break;
        last = next->bits_per_element;
        fprintf(script, "%.17g %.17g\n", last, next->metrics.mse);
    }
    fputs("END\n", script);
}

static bool write_script(FILE *script, const char *title, const cli_result *results, uint32_t count)
{
    const char *separator = "plot ";
    bool used[METHOD_COUNT] = { false };

    fputs("set encoding utf8\n"
          "set terminal svg size 860,520 noenhanced font 'Helvetica,14' background '#ffffff'\n"
          "set logscale y\nset key outside right center reverse Left samplen 3 spacing 1.4\n"
          "set border 3 lc '#444444'\nset tics nomirror out scale 0.6\n"
          "set grid xtics ytics lc '#dddddd' lw 1 lt 1\n"
          "set xlabel 'stored bits per element (everything counted)'\nset ylabel 'mean squared error'\n", script);
    write_title(script, title);
    if (!write_range(script, results, count)) return false;
    for (uint32_t i = 0; i < count; i++) {
        qem_method method = asked_method(&results[i].record);
        if (!can_draw(&results[i]) || used[method]) continue;
        used[method] = true;
        write_data(script, method, results, count);
    }
    for (int method = 1; method < METHOD_COUNT; method++) {
        if (!used[method]) continue;
        const char *name = qem_method_name((qem_method)method);
        fprintf(script, "%s$%s using 1:2 with linespoints lw 2 pt %d ps 0.7 lc '%s' title '%s'",
                separator, name, styles[method].mark, styles[method].colour, name);
        separator = ", \\\n     ";
    }
    fputs("\n", script);
    return true;
}

/* Starts gnuplot with stdin from a pipe, stdout into `output`, stderr to nowhere. Returns 0 or an errno. */
static int start_gnuplot(int output, pid_t *child, FILE **script)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    char *arguments[] = { "gnuplot", "-", NULL };
    int ends[2], error;
    extern char **environ;

    if (pipe(ends) != 0) return errno;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    error = posix_spawnp(child, "gnuplot", &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[0]);
    if (error == 0) {
        *script = fdopen(ends[1], "w");
        if (*script != NULL) return 0;
        error = errno;
    }
    close(ends[1]);
    return error;
}

static int wait_gnuplot(pid_t child)
{
    int state = 0;

    while (waitpid(child, &state, 0) < 0) {
        if (errno != EINTR) return cli_fail("gnuplot: %s", strerror(errno));
    }
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return CLI_OK;
    if (WIFEXITED(state)) return cli_fail("gnuplot could not draw the picture (exit code %d)", WEXITSTATUS(state));
    return cli_fail("gnuplot could not draw the picture (signal %d)", WTERMSIG(state));
}

int cli_plot(const char *path, const char *title, const cli_result *results, uint32_t count)
{
    cli_text_file file;
    FILE *script = NULL;
    pid_t child = 0;
    bool drawn;
    int result, error;

    result = cli_text_open(path, &file);
    if (result != CLI_OK) return result;
    error = start_gnuplot(fileno(file.stream), &child, &script);
    if (error != 0) {
        cli_text_abort(&file);
        return cli_fail("cannot start gnuplot: %s", strerror(error));
    }
    /* A gnuplot that ends early must not end this process too. */
    void (*previous)(int) = signal(SIGPIPE, SIG_IGN);
    drawn = write_script(script, title, results, count);
    fclose(script);
    result = wait_gnuplot(child);
    signal(SIGPIPE, previous);
    if (!drawn && result == CLI_OK) result = cli_fail("nothing to plot: no feasible result with an error above 0");
    if (result == CLI_OK) return cli_text_commit(&file);
    cli_text_abort(&file);
    return result;
}
