/* One table of all options of all commands, and the loop that reads them. */
#include "cli.h"

#include <getopt.h>
#include <stddef.h>
#include <string.h>

#define FIT (CMD_QUANTIZE | CMD_COMPARE)
#define COMPUTE (CMD_QUANTIZE | CMD_DEQUANTIZE | CMD_INSPECT | CMD_EVALUATE | CMD_COMPARE | CMD_GENERATE)
#define EVERY (COMPUTE | CMD_DEVICE)

typedef enum option_kind {
    KIND_FLAG,
    KIND_TEXT,
    KIND_U32,
    KIND_U64,
    KIND_REAL,     /* minimum .. maximum */
    KIND_POSITIVE, /* above minimum .. maximum */
    KIND_CHOICE,
    KIND_METHOD,
    KIND_METHODS,
    KIND_RATIOS,
    KIND_DEVICES,
    KIND_RANGE,
    KIND_PATTERN,  /* of names; may be given again */
    KIND_PARSED    /* by a function of its own */
} option_kind;

typedef struct choice {
    const char *name;
    int value;
} choice;

typedef struct option_row {
    const char *name;
    char letter;
    const char *argument;
    unsigned commands;
    option_kind kind;
    size_t offset;
    double minimum, maximum;
    const choice *choices;
    bool recipe;      /* part of the recipe or a budget */
    const char *help;
    int (*parse)(const char *option, const char *text, cli_options *options); /* KIND_PARSED */
} option_row;

static const choice isa_choices[] = {
    { "auto", QEM_ISA_AUTO }, { "scalar", QEM_ISA_SCALAR }, { "avx2", QEM_ISA_AVX2 }, { "avx512", QEM_ISA_AVX512 },
    { NULL, 0 }
};
static const choice device_choices[] = { { "cpu", QEM_DEVICE_CPU }, { "cuda", QEM_DEVICE_CUDA }, { NULL, 0 } };
static const choice dtype_choices[] = {
    { "f32", QEM_DTYPE_F32 }, { "f16", QEM_DTYPE_F16 }, { "bf16", QEM_DTYPE_BF16 }, { NULL, 0 }
};
static const choice assign_choices[] = {
    { "cell", QEM_ASSIGN_CELL }, { "global", QEM_ASSIGN_GLOBAL }, { NULL, 0 }
};
static const choice accounting_choices[] = {
    { "honest", QEM_ACCOUNTING_HONEST }, { "paper", QEM_ACCOUNTING_PAPER }, { NULL, 0 }
};

static const choice allocation_choices[] = {
    { "count", QEM_ALLOCATION_COUNT }, { "variance", QEM_ALLOCATION_VARIANCE }, { NULL, 0 }
};
static const choice start_choices[] = {
    { "best", QEM_ROTATION_BEST }, { "identity", QEM_ROTATION_IDENTITY }, { "pca", QEM_ROTATION_PCA }, { NULL, 0 }
};
static const choice means_choices[] = {
    { "auto", QEM_MEANS_AUTO }, { "always", QEM_MEANS_ALWAYS }, { "never", QEM_MEANS_NEVER }, { NULL, 0 }
};
static const choice switch_choices[] = { { "on", 1 }, { "off", 0 }, { NULL, 0 } };

#define AT(field) offsetof(cli_options, field)
#define TEXT(name, letter, argument, commands, field, help) \
    { name, letter, argument, commands, KIND_TEXT, AT(field), 0, 0, NULL, false, help, NULL }
#define FLAG(name, letter, commands, field, help) \
    { name, letter, NULL, commands, KIND_FLAG, AT(field), 0, 0, NULL, false, help, NULL }
#define NUMBER(name, argument, commands, kind, field, low, high, recipe, help) \
    { name, 0, argument, commands, kind, AT(field), low, high, NULL, recipe, help, NULL }
#define CHOICE(name, argument, commands, field, list, recipe, help) \
    { name, 0, argument, commands, KIND_CHOICE, AT(field), 0, 0, list, recipe, help, NULL }
#define PARSED(name, argument, function, help) { name, 0, argument, FIT, KIND_PARSED, 0, 0, 0, NULL, true, help, function }

static const option_row rows[] = {
    TEXT("output", 'o', "FILE", CMD_QUANTIZE | CMD_DEQUANTIZE | CMD_GENERATE, output, "where the result goes"),
    TEXT("tensor", 0, "NAME", CMD_QUANTIZE | CMD_DEQUANTIZE | CMD_EVALUATE | CMD_COMPARE, tensor,
         "the tensor of a file that holds several"),
    NUMBER("include", "PATTERN", CMD_QUANTIZE, KIND_PATTERN, include, 0, 0, false,
           "quantize the tensors that match (as file names do: *, ?, []); may be given again"),
    NUMBER("exclude", "PATTERN", CMD_QUANTIZE, KIND_PATTERN, exclude, 0, 0, false, "leave these tensors as they are; may be given again"),
    FLAG("uniform", 0, CMD_QUANTIZE, uniform, "of several tensors give each the same budget, not all together one"),
    NUMBER("method", "M", CMD_QUANTIZE, KIND_METHOD, recipe.method, 0, 0, false,
           CLI_METHODS),
    NUMBER("ratio", "THETA", CMD_QUANTIZE, KIND_POSITIVE, recipe.ratio, 0, 1e9, true,
           "budget: compression ratio against 32 bits per element"),
    NUMBER("bits", "B", CMD_QUANTIZE, KIND_POSITIVE, recipe.bits, 0, 1e6, true, "budget: stored bits per element"),
    NUMBER("k", "K", CMD_QUANTIZE, KIND_U64, recipe.k, 1, 16777216, true, "budget: centroids per codebook"),
    NUMBER("methods", "M,M,..", CMD_COMPARE, KIND_METHODS, methods, 0, 0, false, "methods to compare (default: rtn, lloydmax, vq, pq, hyperchr, qet)"),
    NUMBER("ratios", "T,T,..", CMD_COMPARE, KIND_RATIOS, ratios, 0, 1e9, false,
           "compression ratios (default: 2,4,6,8,10,12,14,16)"),
    NUMBER("repeat", "N", CMD_COMPARE, KIND_U32, repeat, 1, 1000, false, "runs of each; times are medians (default 1)"),
    TEXT("csv", 0, "FILE", CMD_COMPARE, csv, "write the table as CSV"),
    TEXT("plot", 0, "FILE.svg", CMD_COMPARE, plot, "draw MSE against stored bits (needs gnuplot)"),
    NUMBER("devices", "LIST", CMD_COMPARE, KIND_DEVICES, devices, 0, 0, false, "cpu, cuda or cpu,cuda (default cpu)"),
    NUMBER("dim", "S", FIT, KIND_U32, recipe.dim, 1, 65535, true,
           "elements of a sub-vector (default 4; rtn, lloydmax, grid and nf: 1)"),
    NUMBER("intervals", "L", FIT, KIND_U32, recipe.intervals, 1, 255, true,
           "hyperchr: intervals per position (default: up to 3)"),
    NUMBER("levels", "L", FIT, KIND_U32, recipe.levels, 0, 8, true, "swap levels before the codebook (default: qet 1)"),
    PARSED("codebook", "TYPE", cli_parse_codebook, "type codebooks are stored in: f32 (default), f16, or integers u4 .. u12"),
    NUMBER("iterations", "N", FIT, KIND_U32, recipe.iterations, 0, 1000000, true, "most Lloyd passes (default 20)"),
    NUMBER("tolerance", "T", FIT, KIND_REAL, recipe.tolerance, 0, 1, true,
           "stop when a pass lowers the error by less than this share (default 0)"),
    NUMBER("restarts", "R", FIT, KIND_U32, recipe.restarts, 1, 1000, true, "k-means runs, the best stays (default 1)"),
    CHOICE("assign", "cell|global", FIT, recipe.assign, assign_choices, true,
           "hyperchr: centroids that a sub-vector may take (default: those of its cell)"),
    NUMBER("refine", "R", FIT, KIND_U32, recipe.refine, 0, 1000000, true,
           "hyperchr: Lloyd passes over all cells together (default 0)"),
    CHOICE("accounting", "honest|paper", FIT, recipe.accounting, accounting_choices, true,
           "paper: fractional code bits, only to redo the papers' tables"),
    CHOICE("allocation", "count|variance", FIT, recipe.allocation, allocation_choices, true,
           "variance: more centroids (hyperchr's cells) or wider codes (groups of pq, opq, qet) where more varies"),
    PARSED("grid", "UNIT", cli_parse_grid, "grid, nf: a range for each tensor (default), row, column or block:G of G columns"),
    NUMBER("cells", "V", FIT, KIND_U32, recipe.cells, 2, 256, true, "lopq: coarse cells (default 2)"),
    CHOICE("rotation-start", "best|identity|pca", FIT, recipe.rotation_start, start_choices, true,
           "opq, lopq: where rotations start (default best: the better of the others)"),
    PARSED("standardize", "WHAT", cli_parse_standardize,
           "none (default), column, row, both, block:G or column+block:G: scales, and means, divided out before"),
    PARSED("params", "TYPE", cli_parse_params, "type scales and means are stored in: f16 (default), f32, or integers u4 .. u8"),
    CHOICE("means", "auto|always|never", FIT, recipe.means, means_choices, true,
           "store means of columns and rows (default: where they pay)"),
    PARSED("outliers", "P|sigma:T", cli_parse_outliers,
           "keep this share of elements (up to 0.5), or those beyond T standard deviations, as they are"),
    CHOICE("mixed", "on|off", FIT, recipe.mixed, switch_choices, true,
           "on: bits that are left over give the first rows longer codes (default off)"),
    PARSED("residual", "M2[:SHARE]", cli_parse_residual,
           "a further layer, by method M2, for what the layers before leave over; may be given again"),
    TEXT("importance", 0, "FILE.npy", FIT, importance, "weights of the squared error: one a column, or one an element; of models a .safetensors with a tensor for each"),
    NUMBER("effort", "0..3", FIT, KIND_U32, recipe.effort, 0, 3, true, "auto: how much is tried, on how much of the matrix (default 1)"),
    TEXT("recipe", 0, "FILE.json", FIT, recipe_file, "start from this recipe; options of the command line override it"),
    TEXT("reuse", 0, "ARTIFACT", CMD_QUANTIZE, reuse, "encode against the codebooks of this file, fit nothing"),
    FLAG("dry-run", 0, CMD_QUANTIZE, dry_run, "say what it would cost, write nothing"),
    NUMBER("rows", "A:B", CMD_DEQUANTIZE, KIND_RANGE, row_begin, 0, 0, false, "rows A .. B-1 only, counted from 0"),
    CHOICE("dtype", "f32|f16|bf16", CMD_DEQUANTIZE, dtype, dtype_choices, false, "type of the result (default f32; of models the type before)"),
    NUMBER("rows", "N", CMD_GENERATE, KIND_U64, rows, 1, 281474976710655.0, false, "default 1024"),
    NUMBER("cols", "N", CMD_GENERATE, KIND_U64, cols, 1, 281474976710655.0, false, "default 128"),
    NUMBER("outlier-rate", "P", CMD_GENERATE, KIND_REAL, outlier_rate, 0, 1, false,
           "share of elements replaced by uniform(-100, 100) (default 1e-4)"),
    NUMBER("seed", "S", FIT | CMD_GENERATE, KIND_U64, seed, 0, 0, false, "key of all random draws (default 0)"),
    NUMBER("threads", "T", COMPUTE, KIND_U32, threads, 1, 1024, false, "default: all cores"),
    CHOICE("isa", "LEVEL", COMPUTE, isa, isa_choices, false,
           "scalar, avx2 or avx512 (default: the best there is); the result is the same"),
    CHOICE("device", "cpu|cuda", COMPUTE & ~CMD_COMPARE, device, device_choices, false, "default cpu"),
    FLAG("json", 0, EVERY, json, "one JSON object on stdout, all other words on stderr"),
    FLAG("help", 'h', EVERY, help, "this text"),
};

enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

/* One method's name, `length` bytes of `text`. */
static int parse_method(const char *option, const char *text, size_t length, qem_method *method)
{
    char name[32];

    if (length < sizeof(name)) {
        memcpy(name, text, length);
        name[length] = 0;
        *method = qem_method_from_name(name);
        if (*method != QEM_METHOD_NONE) return CLI_OK;
        if (strchr(name, '+') != NULL) {
            return cli_usage("--%s: '%s' is no method; further layers are given by --residual", option, name);
        }
    }
    return cli_usage("--%s takes " CLI_METHODS ", not '%.*s'", option, (int)length, text);
}

static int parse_methods(const char *option, const char *text, cli_options *options)
{
    options->method_count = 0;
    for (;;) {
        size_t length = strcspn(text, ",");
        if (options->method_count == CLI_LIST_MAX) return cli_usage("--%s: at most %d names", option, CLI_LIST_MAX);
        int result = parse_method(option, text, length, &options->methods[options->method_count++]);
        if (result != CLI_OK) return result;
        if (text[length] == 0) return CLI_OK;
        text += length + 1;
    }
}

static int parse_ratios(const char *option, const char *text, double maximum, cli_options *options)
{
    options->ratio_count = 0;
    for (;;) {
        char number[64];
        size_t length = strcspn(text, ",");
        if (options->ratio_count == CLI_LIST_MAX) return cli_usage("--%s: at most %d numbers", option, CLI_LIST_MAX);
        if (length >= sizeof(number)) return cli_usage("--%s: '%.*s' is not a number", option, (int)length, text);
        memcpy(number, text, length);
        number[length] = 0;
        int result = cli_parse_real(option, number, 0, true, maximum, &options->ratios[options->ratio_count++]);
        if (result != CLI_OK) return result;
        if (text[length] == 0) return CLI_OK;
        text += length + 1;
    }
}

static int parse_choice(const option_row *row, const char *text, size_t length, void *field)
{
    char list[128] = "";

    for (const choice *c = row->choices; c->name != NULL; c++) {
        if (strlen(c->name) == length && memcmp(c->name, text, length) == 0) {
            memcpy(field, &c->value, sizeof(c->value));
            return CLI_OK;
        }
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", c == row->choices ? "" : ", ", c->name);
    }
    return cli_usage("--%s takes one of %s, not '%.*s'", row->name, list, (int)length, text);
}

static int parse_devices(const char *option, const char *text, cli_options *options)
{
    const option_row row = { .name = option, .choices = device_choices };

    options->device_count = 0;
    options->device_set = 1;
    for (;;) {
        size_t length = strcspn(text, ",");
        if (options->device_count == 2) return cli_usage("--%s takes cpu, cuda or cpu,cuda", option);
        int result = parse_choice(&row, text, length, &options->devices[options->device_count++]);
        if (result != CLI_OK) return result;
        if (text[length] == 0) break;
        text += length + 1;
    }
    if (options->device_count == 2 && options->devices[0] == options->devices[1]) {
        return cli_usage("--%s names the same device twice", option);
    }
    return CLI_OK;
}

static int parse_range(const char *option, const char *text, cli_options *options)
{
    char first[32];
    size_t length = strcspn(text, ":");

    if (text[length] != ':' || length >= sizeof(first)) return cli_usage("--%s takes A:B, not '%s'", option, text);
    memcpy(first, text, length);
    first[length] = 0;
    int result = cli_parse_u64(option, first, 0, UINT64_MAX, &options->row_begin);
    if (result == CLI_OK) result = cli_parse_u64(option, text + length + 1, 0, UINT64_MAX, &options->row_end);
    if (result != CLI_OK) return result;
    if (options->row_begin >= options->row_end) {
        return cli_usage("--%s %s: the first row must lie below the end", option, text);
    }
    options->rows_set = 1;
    return CLI_OK;
}

static int add_pattern(const option_row *row, const char *text, cli_options *options)
{
    bool include = row->offset == AT(include);
    uint32_t *count = include ? &options->include_count : &options->exclude_count;

    if (*count == CLI_LIST_MAX) return cli_usage("--%s: at most %d patterns", row->name, CLI_LIST_MAX);
    (include ? options->include : options->exclude)[(*count)++] = text;
    return CLI_OK;
}

static bool is_budget(const option_row *row)
{
    return row->offset == AT(recipe.ratio) || row->offset == AT(recipe.bits) || row->offset == AT(recipe.k);
}

static int set_u32(const option_row *row, const char *text, void *field)
{
    uint64_t wide = 0;
    int result = cli_parse_u64(row->name, text, (uint64_t)row->minimum, (uint64_t)row->maximum, &wide);

    if (result == CLI_OK) *(uint32_t *)field = (uint32_t)wide;
    return result;
}

static int set_option(const option_row *row, const char *text, cli_options *options)
{
    void *field = (char *)options + row->offset;

    if (row->recipe) options->recipe_set = 1;
    if (row->recipe && options->file_budget && is_budget(row)) {
        options->recipe.ratio = options->recipe.bits = 0;
        options->recipe.k = 0;
        options->file_budget = 0;
    }
    if (row->choices == device_choices) options->device_set = 1;
    if (row->choices == dtype_choices) options->dtype_set = 1;
    switch (row->kind) {
    case KIND_FLAG: *(int *)field = 1; return CLI_OK;
    case KIND_TEXT: *(const char **)field = text; return CLI_OK;
    case KIND_U32: return set_u32(row, text, field);
    case KIND_U64:
        return cli_parse_u64(row->name, text, (uint64_t)row->minimum,
                             row->maximum > 0 ? (uint64_t)row->maximum : INT64_MAX, field);
    case KIND_REAL: return cli_parse_real(row->name, text, row->minimum, false, row->maximum, field);
    case KIND_POSITIVE: return cli_parse_real(row->name, text, row->minimum, true, row->maximum, field);
    case KIND_CHOICE: return parse_choice(row, text, strlen(text), field);
    case KIND_METHOD: return parse_method(row->name, text, strlen(text), field);
    case KIND_METHODS: return parse_methods(row->name, text, options);
    case KIND_RATIOS: return parse_ratios(row->name, text, row->maximum, options);
    case KIND_DEVICES: return parse_devices(row->name, text, options);
    case KIND_RANGE: return parse_range(row->name, text, options);
    case KIND_PATTERN: return add_pattern(row, text, options);
    case KIND_PARSED: return row->parse(row->name, text, options);
    }
    return CLI_OK;
}

static void set_defaults(cli_options *options, const cli_command *command)
{
    static const qem_recipe recipe = QEM_RECIPE_INIT;

    memset(options, 0, sizeof(*options));
    options->command = command;
    options->recipe = recipe;
    options->dtype = QEM_DTYPE_F32;
    options->repeat = 1;
    options->rows = 1024;
    options->cols = 128;
    options->outlier_rate = 1e-4;
    options->device_count = 1;
    for (int m = QEM_METHOD_RTN; m <= QEM_METHOD_QET; m++) options->methods[options->method_count++] = (qem_method)m;
    for (int theta = 2; theta <= 16; theta += 2) options->ratios[options->ratio_count++] = theta;
}

/* getopt takes any unambiguous beginning of a name; an option added later would then break scripts. */
static bool is_abbreviated(const char *word, const char *name)
{
    return strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, strcspn(word + 2, "=")) == 0 &&
           strcspn(word + 2, "=") < strlen(name);
}

static int unknown_option(const cli_command *command, char **argv)
{
    if (optopt > 0 && optopt < 128) return cli_usage("unknown option -%c; see qem %s --help", optopt, command->name);
    const char *word = argv[optind - 1];
    if (optopt >= 256) return cli_usage("--%s takes no value", rows[optopt - 256].name);
    return cli_usage("unknown option %.*s; see qem %s --help", (int)strcspn(word, "="), word, command->name);
}

/* Fills getopt's two tables with the options that `command` takes. Long options return 256 + their row. */
static void build_tables(const cli_command *command, struct option *longs, char *shorts)
{
    *shorts++ = ':';
    for (int i = 0; i < ROW_COUNT; i++) {
        if ((rows[i].commands & (unsigned)command->id) == 0) continue;
        *longs++ = (struct option){ rows[i].name, rows[i].argument != NULL, NULL, 256 + i };
        if (rows[i].letter == 0) continue;
        *shorts++ = rows[i].letter;
        if (rows[i].argument != NULL) *shorts++ = ':';
    }
    *longs = (struct option){ NULL, 0, NULL, 0 };
    *shorts = 0;
}

static const option_row *row_of(int code)
{
    if (code >= 256) return &rows[code - 256];
    for (int i = 0; i < ROW_COUNT; i++) {
        if (rows[i].letter == code) return &rows[i];
    }
    return NULL;
}

static int missing_argument(const cli_command *command)
{
    const option_row *row = row_of(optopt);

    return cli_usage("--%s needs a value: %s; see qem %s --help", row->name, row->argument, command->name);
}

static int read_operands(const cli_command *command, int argc, char **argv, cli_options *options)
{
    int count = argc - optind;

    if (count != command->operand_count) {
        if (command->operand_count == 0) return cli_usage("qem %s takes no operand", command->name);
        return cli_usage("qem %s needs %s, got %d word%s; see qem %s --help", command->name, command->operands, count,
                         count == 1 ? "" : "s", command->name);
    }
    for (int i = 0; i < count; i++) options->operands[i] = argv[optind + i];
    return CLI_OK;
}

/* --recipe comes first wherever it stands: the other options override what is in its file. */
typedef enum pass { PASS_FILE, PASS_REST } pass;

static bool is_of_pass(const option_row *row, pass which)
{
    return (row->offset == AT(recipe_file) && row->kind == KIND_TEXT) == (which == PASS_FILE);
}

static int read_words(const cli_command *command, int argc, char **argv, pass which, cli_options *options)
{
    struct option longs[ROW_COUNT + 1];
    char shorts[2 * ROW_COUNT + 2];
    int code;

    build_tables(command, longs, shorts);
    opterr = 0;
    optind = 0; /* glibc and musl: start from the beginning */
    while ((code = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (code == ':') return missing_argument(command);
        const option_row *row = code == '?' ? NULL : row_of(code);
        if (row == NULL) return unknown_option(command, argv);
        const char *word = argv[optind - 1];
        if (code >= 256 && row->argument != NULL && optarg == word) word = argv[optind - 2];
        if (code >= 256 && is_abbreviated(word, row->name)) {
            return cli_usage("unknown option %.*s (write --%s); see qem %s --help", (int)strcspn(word, "="), word,
                             row->name, command->name);
        }
        int result = is_of_pass(row, which) ? set_option(row, optarg, options) : CLI_OK;
        if (result != CLI_OK) return result;
    }
    return CLI_OK;
}

static int read_recipe_file(cli_options *options)
{
    int result = cli_read_recipe(options->recipe_file, options->file_chain, &options->file_layers, &options->seed);

    options->recipe = options->file_chain[0];
    options->file_budget = options->recipe_set = 1;
    return result;
}

int cli_parse_options(const cli_command *command, int argc, char **argv, cli_options *options)
{
    set_defaults(options, command);
    int result = read_words(command, argc, argv, PASS_FILE, options);
    if (result == CLI_OK && options->recipe_file != NULL) result = read_recipe_file(options);
    if (result == CLI_OK) result = read_words(command, argc, argv, PASS_REST, options);
    if (result != CLI_OK || options->help) return result;
    return read_operands(command, argc, argv, options);
}

void cli_print_options(FILE *out, cli_command_id command)
{
    fputs("Options:\n", out);
    for (int i = 0; i < ROW_COUNT; i++) {
        char left[64];
        if ((rows[i].commands & (unsigned)command) == 0) continue;
        snprintf(left, sizeof(left), "%s%c%s--%s%s%s", rows[i].letter ? "-" : "", rows[i].letter ? rows[i].letter : ' ',
                 rows[i].letter ? ", " : "   ", rows[i].name, rows[i].argument ? " " : "",
                 rows[i].argument ? rows[i].argument : "");
        fprintf(out, "  %-30s  %s\n", left, rows[i].help);
    }
}
