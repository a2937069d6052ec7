/* The options of a recipe whose values are more than a number or one word, and the recipe that all of them make together. */
#include "cli.h"

#include <string.h>

static const qem_recipe defaults = QEM_RECIPE_INIT;

/* ------------------------------------------------------------------------------------------------- values ------ */

/* "u4" .. "uMAX" into `bits`; 0 for another text. */
static uint32_t integer_bits(const char *text, uint32_t most)
{
    uint32_t bits = 0;

    if (text[0] != 'u' || text[1] < '1' || text[1] > '9' || strlen(text) > 3) return 0;
    for (const char *c = text + 1; *c != 0; c++) {
        if (*c < '0' || *c > '9') return 0;
        bits = 10 * bits + (uint32_t)(*c - '0');
    }
    return bits >= 4 && bits <= most ? bits : 0;
}

bool cli_codebook_word(const char *text, qem_recipe *recipe)
{
    uint32_t bits = integer_bits(text, 12);

    if (strcmp(text, "f32") != 0 && strcmp(text, "f16") != 0 && bits == 0) return false;
    recipe->codebook = strcmp(text, "f16") == 0 ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
    recipe->codebook_bits = bits;
    return true;
}

int cli_parse_codebook(const char *option, const char *text, cli_options *options)
{
    if (cli_codebook_word(text, &options->recipe)) return CLI_OK;
    return cli_usage("--%s takes f32, f16 or u4 .. u12, not '%s'", option, text);
}

int cli_parse_params(const char *option, const char *text, cli_options *options)
{
    uint32_t bits = strcmp(text, "f16") == 0 ? 16 : strcmp(text, "f32") == 0 ? 32 : integer_bits(text, 8);

    if (bits == 0) return cli_usage("--%s takes f16, f32 or u4 .. u8, not '%s'", option, text);
    options->recipe.params = bits;
    return CLI_OK;
}

static int parse_block(const char *option, const char *text, uint32_t *block)
{
    uint64_t columns = 0;
    int result = cli_parse_u64(option, text, 2, 65535, &columns);

    *block = (uint32_t)columns;
    return result;
}

int cli_parse_grid(const char *option, const char *text, cli_options *options)
{
    static const char *const words[] = { "tensor", "row", "column" };
    qem_recipe *recipe = &options->recipe;

    if (strncmp(text, "block:", 6) == 0) {
        recipe->grid_axis = QEM_AXIS_BLOCK;
        return parse_block(option, text + 6, &recipe->grid_block);
    }
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        recipe->grid_axis = (qem_axis)i;
        recipe->grid_block = 0;
        return CLI_OK;
    }
    return cli_usage("--%s takes tensor, row, column or block:G (G columns, 2 .. 65535), not '%s'", option, text);
}

int cli_parse_standardize(const char *option, const char *text, cli_options *options)
{
    static const char *const words[] = { "none", "column", "row", "both" };
    qem_recipe *recipe = &options->recipe;
    bool columns = strncmp(text, "column+", 7) == 0;
    const char *rest = columns ? text + 7 : text;

    if (strncmp(rest, "block:", 6) == 0) {
        recipe->standardize = QEM_STANDARDIZE_BLOCK | (columns ? QEM_STANDARDIZE_COLUMN : 0u);
        return parse_block(option, rest + 6, &recipe->standardize_block);
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        recipe->standardize = i;
        recipe->standardize_block = 0;
        return CLI_OK;
    }
    return cli_usage("--%s takes none, column, row, both, block:G or column+block:G (G columns, 2 .. 65535), not '%s'", option,
                     text);
}

int cli_parse_outliers(const char *option, const char *text, cli_options *options)
{
    qem_recipe *recipe = &options->recipe;

    recipe->outliers = recipe->outlier_sigma = 0;
    if (strncmp(text, "sigma:", 6) == 0) return cli_parse_real(option, text + 6, 0, true, 1e9, &recipe->outlier_sigma);
    return cli_parse_real(option, text, 0, false, 0.5, &recipe->outliers);
}

/* M2[:SHARE]: SHARE is the part that goes to this layer and those after it, the field `share` that of the layer before. */
int cli_parse_residual(const char *option, const char *text, cli_options *options)
{
    char name[32] = "";
    size_t length = strcspn(text, ":");
    uint32_t index = options->residual_count;

    if (index == CLI_LAYERS - 1) return cli_usage("--%s: at most %d layers together", option, CLI_LAYERS);
    if (length < sizeof(name)) memcpy(name, text, length);
    qem_method method = qem_method_from_name(name);
    if (method == QEM_METHOD_NONE || method == QEM_METHOD_AUTO) {
        return cli_usage("--%s takes METHOD or METHOD:SHARE, METHOD one of rtn, lloydmax, vq, pq, hyperchr, qet, grid, nf, opq "
                         "and lopq, not '%s'", option, text);
    }
    double share = 0;
    if (text[length] == ':') {
        int result = cli_parse_real(option, text + length + 1, 0, true, 1, &share);
        if (result != CLI_OK) return result;
        if (share == 1) return cli_usage("--%s %s: the share must lie below 1", option, text);
        share = 1 - share;
    }
    options->residuals[index] = (cli_residual){ method, share };
    options->residual_count++;
    return CLI_OK;
}

/* ------------------------------------------------------------------------------------------------- the whole --- */

static bool is_one_of(qem_method method, const qem_method *list, int count)
{
    for (int i = 0; i < count; i++) {
        if (list[i] == method) return true;
    }
    return false;
}

#define IS(method, ...) \
    is_one_of(method, (const qem_method[]){ __VA_ARGS__ }, (int)(sizeof((qem_method[]){ __VA_ARGS__ }) / sizeof(qem_method)))

/* The search finds all but these. */
static void leave_to_search(qem_recipe *recipe)
{
    const qem_recipe asked = *recipe;

    *recipe = defaults;
    recipe->method = QEM_METHOD_AUTO;
    recipe->ratio = asked.ratio;
    recipe->bits = asked.bits;
    recipe->iterations = asked.iterations;
    recipe->restarts = asked.restarts;
    recipe->tolerance = asked.tolerance;
    recipe->params = asked.params;
    recipe->importance = asked.importance;
    recipe->effort = asked.effort;
}

/* Takes out of a recipe what its method would refuse, as options that are given to several methods at once ask for. */
static void fit_to_method(qem_recipe *recipe, qem_method method)
{
    bool rotates = IS(method, QEM_METHOD_OPQ, QEM_METHOD_LOPQ);

    if (method == QEM_METHOD_AUTO) {
        leave_to_search(recipe);
        return;
    }
    recipe->method = method;
    if (IS(method, QEM_METHOD_RTN, QEM_METHOD_LLOYDMAX, QEM_METHOD_GRID, QEM_METHOD_NF)) recipe->dim = defaults.dim;
    if (method != QEM_METHOD_HYPERCHR) {
        recipe->intervals = defaults.intervals;
        recipe->assign = defaults.assign;
        recipe->refine = defaults.refine;
    }
    if (method != QEM_METHOD_QET) recipe->levels = defaults.levels;
    if (!IS(method, QEM_METHOD_GRID, QEM_METHOD_NF)) {
        recipe->grid_axis = defaults.grid_axis;
        recipe->grid_block = defaults.grid_block;
    }
    if (!rotates) recipe->rotation_start = defaults.rotation_start;
    if (method != QEM_METHOD_LOPQ) recipe->cells = defaults.cells;
    if (!IS(method, QEM_METHOD_HYPERCHR, QEM_METHOD_PQ, QEM_METHOD_OPQ, QEM_METHOD_QET)) {
        recipe->allocation = defaults.allocation;
    }
    if (rotates) {
        recipe->mixed = defaults.mixed;
        recipe->importance = NULL;
    }
    recipe->effort = defaults.effort;
}

/* Layers for what `chain[0]` leaves over: those of the options, else those of the recipe file. Centroids of a file's layers are
 * part of its budget: where that was replaced, they are too. */
static void link_layers(const cli_options *options, bool replaced, qem_recipe *chain)
{
    uint32_t count = options->residual_count > 0 ? options->residual_count + 1 : options->file_layers;

    for (uint32_t i = 1; i < count; i++) {
        if (options->residual_count > 0) {
            chain[i] = options->recipe;
            chain[i].ratio = chain[i].bits = chain[i].outliers = chain[i].outlier_sigma = 0;
            chain[i].k = chain[0].k;
            chain[i].importance = NULL; /* the first layer's serves all */
            fit_to_method(&chain[i], options->residuals[i - 1].method);
        } else {
            chain[i] = options->file_chain[i];
            if (replaced) chain[i].k = chain[0].k;
        }
    }
    for (uint32_t i = 1; i < count; i++) {
        if (options->residual_count > 0) {
            chain[i - 1].share = options->residuals[i - 1].share;
            chain[i].share = 0;
        }
        chain[i - 1].residual = &chain[i];
    }
}

const qem_recipe *cli_make_recipe(const cli_options *options, qem_recipe chain[CLI_LAYERS])
{
    chain[0] = options->recipe;
    link_layers(options, !options->file_budget, chain);
    return &chain[0];
}

const qem_recipe *cli_make_recipe_for(const cli_options *options, qem_method method, double theta,
                                      qem_recipe chain[CLI_LAYERS])
{
    chain[0] = options->recipe;
    chain[0].ratio = theta;
    chain[0].bits = 0;
    chain[0].k = 0;
    fit_to_method(&chain[0], method);
    if (method != QEM_METHOD_AUTO) link_layers(options, true, chain);
    return &chain[0];
}

int cli_open_importance(qem_context *context, cli_options *options)
{
    if (options->importance == NULL) return CLI_OK;
    options->importance_view = (qem_view)QEM_VIEW_INIT;
    qem_status status = qem_file_open(context, options->importance, &options->importance_file);
    if (status == QEM_OK && qem_file_get_kind(options->importance_file) == QEM_FILE_SAFETENSORS) return CLI_OK;
    if (status == QEM_OK) {
        status = qem_file_view(context, options->importance_file, NULL, &options->importance_view);
    }
    if (status != QEM_OK) return cli_library_error(context, status, options->importance);
    options->recipe.importance = &options->importance_view;
    return CLI_OK;
}
