/* What the commands of the qem command line share. They see the library through its public header alone. */
#ifndef QEM_TOOLS_CLI_H
#define QEM_TOOLS_CLI_H

#include <jansson.h>
#include <qem/qem.h>
#include <stdbool.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_ERROR = 1, CLI_USAGE = 2 };

#define CLI_LIST_MAX 64
#define CLI_LAYERS 8 /* of a recipe with its residual layers */
#define CLI_METHODS "rtn, lloydmax, vq, pq, hyperchr, qet, grid, nf, opq, lopq or auto"

#if defined(__GNUC__)
#define CLI_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CLI_PRINTF(text, first)
#endif

/* -------------------------------------------------------------------------------------------------- options ---- */

typedef enum cli_command_id {
    CMD_QUANTIZE = 1 << 0,
    CMD_DEQUANTIZE = 1 << 1,
    CMD_INSPECT = 1 << 2,
    CMD_EVALUATE = 1 << 3,
    CMD_COMPARE = 1 << 4,
    CMD_GENERATE = 1 << 5,
    CMD_DEVICE = 1 << 6
} cli_command_id;

struct cli_options;

typedef struct cli_command {
    cli_command_id id;
    const char *name;
    const char *operands; /* as in the usage line */
    int operand_count;
    const char *summary;
    const char *details;  /* paragraphs and examples of `qem CMD --help` */
    int (*run)(struct cli_options *options);
} cli_command;

typedef struct cli_residual {
    qem_method method;
    double share;    /* of the layer before, as in qem_recipe; 0 = default */
} cli_residual;

typedef struct cli_options {
    const cli_command *command;
    const char *operands[2];
    const char *output;
    const char *tensor;
    const char *reuse;
    const char *csv;
    const char *plot;
    uint32_t include_count, exclude_count; /* patterns of tensor names */
    const char *include[CLI_LIST_MAX], *exclude[CLI_LIST_MAX];
    int uniform;
    qem_recipe recipe;       /* of the first layer */
    uint32_t residual_count; /* --residual */
    cli_residual residuals[CLI_LAYERS - 1];
    const char *recipe_file;
    uint32_t file_layers;    /* of --recipe; the first of file_chain is in `recipe` */
    qem_recipe file_chain[CLI_LAYERS];
    int file_budget;         /* the budget is the file's: one of the command line replaces it */
    const char *importance;
    qem_file *importance_file;
    qem_view importance_view;
    qem_device device;
    qem_isa isa;
    uint32_t threads; /* 0 = all cores */
    uint64_t seed;
    int json;
    int dry_run;
    int help;
    int device_set;   /* not an option: --device or --devices was given */
    int recipe_set;   /* an option of the recipe or a budget was given (contradicts --reuse) */
    /* dequantize */
    qem_dtype dtype;
    int dtype_set;    /* not an option: --dtype was given */
    int rows_set;
    uint64_t row_begin, row_end;
    /* compare */
    uint32_t repeat;
    uint32_t method_count;
    qem_method methods[CLI_LIST_MAX];
    uint32_t ratio_count;
    double ratios[CLI_LIST_MAX];
    uint32_t device_count;
    qem_device devices[2];
    /* generate */
    uint64_t rows, cols;
    double outlier_rate;
} cli_options;

/* Reads the words after the command's name. CLI_OK, or CLI_USAGE after one line on stderr. */
int cli_parse_options(const cli_command *command, int argc, char **argv, cli_options *options);

/* The option list of `qem CMD --help`. */
void cli_print_options(FILE *out, cli_command_id command);

/* Strict numbers: the whole text, no sign, no blanks, nothing but decimal notation. CLI_OK or CLI_USAGE. */
int cli_parse_u64(const char *option, const char *text, uint64_t minimum, uint64_t maximum, uint64_t *value);
int cli_parse_real(const char *option, const char *text, double minimum, bool above, double maximum, double *value);

/* ------------------------------------------------------------------------------------------------- recipes ----- */

/* Values that are more than a number or a word. CLI_OK, or CLI_USAGE after one line on stderr. */
int cli_parse_codebook(const char *option, const char *text, cli_options *options);
int cli_parse_params(const char *option, const char *text, cli_options *options);
int cli_parse_grid(const char *option, const char *text, cli_options *options);
int cli_parse_standardize(const char *option, const char *text, cli_options *options);
int cli_parse_outliers(const char *option, const char *text, cli_options *options);
int cli_parse_residual(const char *option, const char *text, cli_options *options);
/* "f32", "f16", "u4" .. "u12" into a recipe; false for another text. */
bool cli_codebook_word(const char *text, qem_recipe *recipe);

/* The recipe of all options with its residual layers in `chain`, which must outlive it. The second is for `qem compare`: what
 * `method` does not take is left out. */
const qem_recipe *cli_make_recipe(const cli_options *options, qem_recipe chain[CLI_LAYERS]);
const qem_recipe *cli_make_recipe_for(const cli_options *options, qem_method method, double theta,
                                      qem_recipe chain[CLI_LAYERS]);
/* Opens the file of --importance, if there is one; closed with importance_file. The matrix of an .npy goes into the recipes; of a
 * .safetensors each tensor has its own. */
int cli_open_importance(qem_context *context, cli_options *options);

/* A recipe and its residual layers as one object, and back. */
json_t *cli_json_recipe(const qem_recipe *chain, uint32_t count);
/* The method and the fields of one layer that are not at their defaults. */
json_t *cli_json_recipe_short(const qem_recipe *recipe);
/* The same in one line, as the options that ask for it: the blocks alone, without budget, passes and residuals. */
void cli_recipe_words(const qem_recipe *recipe, char *text, size_t size);
int cli_read_recipe(const char *path, qem_recipe *chain, uint32_t *count, uint64_t *seed);
/* The keys "layers", "stages" and "outliers" of an artifact's metadata in a file that the library has read; NULL when the file
 * cannot be read again. */
json_t *cli_layers(const char *path, const char *artifact);
void cli_print_layers(const json_t *listing);
/* Copies a linked recipe, without what it borrows; returns the number of layers. */
uint32_t cli_copy_chain(const qem_recipe *recipe, qem_recipe *chain);

/* ------------------------------------------------------------------------------------------------- messages ---- */

/* Prints "qem: SENTENCE" as one line on stderr and returns CLI_ERROR (CLI_USAGE for the second). */
int cli_fail(const char *format, ...) CLI_PRINTF(1, 2);
int cli_usage(const char *format, ...) CLI_PRINTF(1, 2);
/* A line on stderr that is no error. */
void cli_note(const char *format, ...) CLI_PRINTF(1, 2);
/* cli_fail with the library's own text; `prefix` (may be NULL) is put before it when the text does not hold it. */
int cli_library_error(const qem_context *context, qem_status status, const char *prefix);

/* ------------------------------------------------------------------------------------------------- session ----- */

/* A context as --device, --threads, --isa and --seed ask for, with the progress bar attached. */
int cli_start(const cli_options *options, qem_context **context);

/* What a file holds from the user's point of view: artifacts, and the tensors that belong to none. */
typedef struct cli_entry {
    bool is_artifact;
    const char *name;
    qem_tensor_info tensor; /* of plain tensors */
} cli_entry;
typedef struct cli_listing {
    uint32_t count;
    cli_entry *entries;
} cli_listing;
int cli_list(const qem_file *file, cli_listing *listing);
void cli_list_free(cli_listing *listing);
/* 2-D and floating: what quantize takes from a model and evaluate compares. */
bool cli_is_matrix(const cli_entry *entry);

/* What goes into an output .safetensors file; the artifacts and buffers are kept until it is written, or, with a spool, only
 * until they are copied there. */
typedef struct cli_bundle {
    qem_writer *writer;
    bool spooled;
    uint32_t count, capacity;
    qem_artifact **artifacts;
    void **buffers;
} cli_bundle;
int cli_bundle_open(qem_context *context, const char *path, bool spool, cli_bundle *bundle);
/* Takes the artifact over, also on an error. */
int cli_bundle_artifact(qem_context *context, cli_bundle *bundle, qem_artifact *artifact);
/* Takes `buffer` over (may be NULL: the tensor's bytes belong to an open file). */
int cli_bundle_tensor(qem_context *context, cli_bundle *bundle, const qem_tensor_info *tensor, void *buffer);
/* An entry of a file as it is: a plain tensor, or an artifact that is read and written again. */
int cli_bundle_entry(qem_context *context, cli_bundle *bundle, const qem_file *file, const cli_entry *entry);
int cli_bundle_commit(qem_context *context, cli_bundle *bundle);
void cli_bundle_free(cli_bundle *bundle);

/* ------------------------------------------------------------------------------------------------- output ------ */

/* Does the directory of `path` exist, and can it be written? So that an error shows before any long work. */
int cli_check_output(const char *path);

/* A small text file (CSV, SVG) that appears under its final name only when it is whole. */
typedef struct cli_text_file {
    const char *path;
    char *temporary;
    FILE *stream;
} cli_text_file;
int cli_text_open(const char *path, cli_text_file *file);
int cli_text_commit(cli_text_file *file);
void cli_text_abort(cli_text_file *file);

/* ------------------------------------------------------------------------------------------------- report ------ */

/* One line of a report: a tensor, what it costs and what it loses. Unknown numbers are NaN, unknown blocks are off. */
typedef struct cli_record {
    const char *tensor;
    uint64_t rows, cols;
    qem_dtype source;
    bool has_recipe; /* method .. seed are known */
    qem_method method;
    qem_recipe recipe;
    uint32_t layers; /* of the recipe; further ones in residuals */
    qem_recipe residuals[CLI_LAYERS];
    bool automatic;    /* the recipe was found: the method asked for is auto */
    qem_trial *trials; /* malloc'ed, or NULL: what the search tried, best first */
    uint32_t trial_count;
    qem_dtype codebook;
    uint64_t k, groups, cells;
    uint32_t dim, code_bits, levels, intervals;
    uint32_t stages;   /* k, dim, .. are those of the first */
    uint64_t seed;
    bool has_bytes; /* parts .. ratio are known */
    qem_parts parts;
    uint64_t stored_bytes, budget_bytes;
    double bits_per_element, ratio;
    bool has_metrics;
    qem_metrics metrics;
    double quantize_seconds, dequantize_seconds;
} cli_record;

void cli_record_init(cli_record *record);
/* Frees an array of records with what they own. */
void cli_records_free(cli_record *records, uint32_t count);
/* The method's name; of a recipe that was found, "auto". */
const char *cli_record_method(const cli_record *record);
void cli_record_from_artifact(const qem_artifact *artifact, cli_record *record);
void cli_record_from_plan(const qem_plan *plan, const qem_recipe *recipe, uint64_t seed, cli_record *record);

json_t *cli_json_real(double value);      /* null for NaN and infinity */
json_t *cli_json_text(const char *text);  /* null for NULL; bytes that are not UTF-8 become '?' */
json_t *cli_json_record(const cli_record *record, const qem_context_info *where);
/* Prints the object on stdout and drops it. */
int cli_json_print(json_t *object);

/* `count` records as --json wants them: one object, or a list `tensors` with totals. `extra` (may be NULL) is merged in
 * and dropped. */
int cli_report_json(const cli_record *records, uint32_t count, const qem_context *context, json_t *extra);
/* The same for people, on stdout. */
void cli_report_text(const cli_record *records, uint32_t count);
/* One line a tensor, and totals: for models. */
void cli_report_table(const cli_record *records, uint32_t count);

/* What a search tried, of a record that has trials. */
json_t *cli_json_trials(const cli_record *record);
void cli_print_trials(const cli_record *record);

const char *cli_isa_name(qem_isa isa);
const char *cli_device_name(qem_device device);

/* ------------------------------------------------------------------------------------------------- search ------ */

/* --method auto for one matrix. */
typedef struct cli_search {
    bool dry_run;           /* plan the best instead of quantizing by it */
    qem_trial *trials;      /* best first; freed by the caller unless a record took them */
    uint32_t count;
    qem_artifact *artifact; /* the caller's */
    qem_plan plan;
    double seconds;
} cli_search;

/* Searches, then carries out the best recipe that the whole matrix takes. */
qem_status cli_search_run(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                          cli_search *search);
/* Hands the trials over to the record of what was made. */
void cli_search_to_record(cli_search *search, cli_record *record);

/* ------------------------------------------------------------------------------------------------- compare ----- */

typedef struct cli_result {
    cli_record record;
    double theta;       /* asked for */
    bool feasible;
    char reason[512];   /* why not */
    double quantize_ratio, dequantize_ratio; /* to the first method at this theta; NaN if it has none */
    qem_context_info where;
    bool compared;           /* with the first device's result, which stands before */
    bool codes_equal;
    double device_difference; /* the largest of decoded elements */
} cli_result;

/* Is gnuplot there, and can the picture be written? CLI_OK, or one line on stderr. */
int cli_plot_check(const char *path);
/* MSE against stored bits per element, one line a method, as SVG. */
int cli_plot(const char *path, const char *title, const cli_result *results, uint32_t count);

/* `devices`: the table has columns for the device, and for the second one beside the first. */
void cli_compare_header(FILE *out, bool devices);
void cli_compare_row(FILE *out, const cli_result *result, bool devices);
int cli_compare_csv(const char *path, const cli_result *results, uint32_t count);
json_t *cli_compare_json(const cli_result *results, uint32_t count);

/* ------------------------------------------------------------------------------------------------- the rest ---- */

/* A bar on stderr when that is a terminal, else nothing. `label` stands before the phase; copied. */
void cli_progress_label(const char *format, ...) CLI_PRINTF(1, 2);
int cli_progress(void *user, const char *phase, double fraction);
/* Shown behind the bar until it is set anew: seconds that the rest is expected to take; NaN: not known. */
void cli_progress_left(double seconds);
void cli_progress_clear(void);

double cli_seconds(void);
bool cli_has_suffix(const char *text, const char *suffix);

int cli_quantize(cli_options *options);
int cli_dequantize(cli_options *options);
int cli_dequantize_model(cli_options *options);
int cli_inspect(cli_options *options);
int cli_evaluate(cli_options *options);
int cli_compare(cli_options *options);
int cli_generate(cli_options *options);
int cli_device(cli_options *options);

#endif
