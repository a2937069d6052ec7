/*
 * Recipes as JSON: what --json prints under "recipe", an artifact's metadata hold, and --recipe reads. Printed are the budget
 * and the blocks every recipe has, and of the others those that are not at their defaults. A text that is read needs no more
 * than it wants to change.
 */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum field_kind {
    FIELD_U32,
    FIELD_U64,
    FIELD_REAL,
    FIELD_WORD,
    FIELD_LEVELS,   /* null: the method's default */
    FIELD_CODEBOOK, /* f32, f16, u4 .. u12 */
    FIELD_METHOD
} field_kind;

typedef struct field {
    const char *key;
    field_kind kind;
    bool basic; /* printed also at its default */
    size_t offset;
    double minimum, maximum;  /* of numbers other than 0, which means "not set" where the default is 0 */
    const char *const *words; /* FIELD_WORD: by value, NULL at the end */
} field;

static const char *const assign_words[] = { "cell", "global", NULL };
static const char *const accounting_words[] = { "honest", "paper", NULL };
static const char *const standardize_words[] = { "none", "column", "row", "both", "block", "column+block", NULL };
static const char *const means_words[] = { "auto", "always", "never", NULL };
static const char *const axis_words[] = { "tensor", "row", "column", "block", NULL };
static const char *const start_words[] = { "best", "identity", "pca", NULL };
static const char *const allocation_words[] = { "count", "variance", NULL };
static const char *const switch_words[] = { "off", "on", NULL };

#define AT(name) offsetof(qem_recipe, name)
#define NUMBER(name, basic, low, high) { #name, FIELD_U32, basic, AT(name), low, high, NULL }
#define REAL(name, basic, high) { #name, FIELD_REAL, basic, AT(name), 0, high, NULL }
#define WORD(key, name, basic, words) { key, FIELD_WORD, basic, AT(name), 0, 0, words }

static const field fields[] = {
    { "method", FIELD_METHOD, true, AT(method), 0, 0, NULL },
    REAL(ratio, true, 1e9),
    REAL(bits, true, 1e6),
    { "k", FIELD_U64, true, AT(k), 1, 16777216, NULL },
    NUMBER(dim, true, 1, 65535),
    NUMBER(intervals, true, 1, 255),
    { "levels", FIELD_LEVELS, true, AT(levels), 0, 8, NULL },
    { "codebook", FIELD_CODEBOOK, true, AT(codebook), 0, 0, NULL },
    NUMBER(iterations, true, 0, 1000000),
    NUMBER(restarts, true, 1, 1000),
    REAL(tolerance, true, 1),
    WORD("assign", assign, true, assign_words),
    NUMBER(refine, true, 0, 1000000),
    WORD("accounting", accounting, true, accounting_words),
    NUMBER(codebook_bits, false, 4, 12),
    WORD("standardize", standardize, false, standardize_words),
    NUMBER(standardize_block, false, 2, 65535),
    NUMBER(params, false, 4, 32),
    WORD("means", means, false, means_words),
    REAL(outliers, false, 0.5),
    REAL(outlier_sigma, false, 1e9),
    WORD("grid", grid_axis, false, axis_words),
    NUMBER(grid_block, false, 2, 65535),
    WORD("rotation_start", rotation_start, false, start_words),
    NUMBER(cells, false, 2, 256),
    WORD("allocation", allocation, false, allocation_words),
    WORD("mixed", mixed, false, switch_words),
    NUMBER(effort, false, 0, 3),
    REAL(share, false, 1),
};

enum { FIELD_COUNT = sizeof(fields) / sizeof(fields[0]) };

static const qem_recipe defaults = QEM_RECIPE_INIT;

static size_t field_size(const field *f)
{
    return f->kind == FIELD_REAL ? sizeof(double) : f->kind == FIELD_U64 ? sizeof(uint64_t) : sizeof(uint32_t);
}

/* ------------------------------------------------------------------------------------------------- printing ---- */

static json_t *whole(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *codebook_word(const qem_recipe *recipe)
{
    char word[16];

    if (recipe->codebook_bits == 0) return json_string(qem_dtype_name(recipe->codebook));
    snprintf(word, sizeof(word), "u%u", recipe->codebook_bits);
    return json_string(word);
}

static json_t *field_value(const qem_recipe *recipe, const field *f)
{
    const char *place = (const char *)recipe + f->offset;
    uint32_t number = 0;
    uint64_t wide = 0;
    double real = 0;

    switch (f->kind) {
    case FIELD_REAL: memcpy(&real, place, sizeof(real)); break;
    case FIELD_U64: memcpy(&wide, place, sizeof(wide)); break;
    default: memcpy(&number, place, sizeof(number)); break;
    }
    switch (f->kind) {
    case FIELD_REAL: return real > 0 || f->offset == AT(tolerance) ? cli_json_real(real) : json_null();
    case FIELD_U64: return wide > 0 ? whole(wide) : json_null();
    case FIELD_WORD: return json_string(f->words[number]);
    case FIELD_LEVELS: return number == QEM_LEVELS_DEFAULT ? json_null() : whole(number);
    case FIELD_CODEBOOK: return codebook_word(recipe);
    case FIELD_METHOD: return json_string(qem_method_name((qem_method)number));
    case FIELD_U32: break;
    }
    return whole(number);
}

static bool is_default(const qem_recipe *recipe, const field *f)
{
    return memcmp((const char *)recipe + f->offset, (const char *)&defaults + f->offset, field_size(f)) == 0;
}

json_t *cli_json_recipe(const qem_recipe *chain, uint32_t count)
{
    json_t *object = json_object();

    for (int i = 0; i < FIELD_COUNT; i++) {
        const field *f = &fields[i];
        if (f->offset == AT(codebook_bits)) continue; /* its word stands under "codebook" */
        if (f->basic || !is_default(chain, f)) json_object_set_new(object, f->key, field_value(chain, f));
    }
    if (count > 1) json_object_set_new(object, "residual", cli_json_recipe(chain + 1, count - 1));
    return object;
}

json_t *cli_json_recipe_short(const qem_recipe *recipe)
{
    json_t *object = json_object();

    for (int i = 0; i < FIELD_COUNT; i++) {
        const field *f = &fields[i];
        if (f->kind != FIELD_METHOD && is_default(recipe, f)) continue;
        if (f->offset != AT(codebook_bits)) json_object_set_new(object, f->key, field_value(recipe, f));
    }
    if (recipe->codebook_bits > 0) json_object_set_new(object, "codebook", codebook_word(recipe));
    return object;
}

uint32_t cli_copy_chain(const qem_recipe *recipe, qem_recipe *chain)
{
    uint32_t count = 0;

    for (; recipe != NULL && count < CLI_LAYERS; recipe = recipe->residual) chain[count++] = *recipe;
    for (uint32_t i = 0; i < count; i++) {
        chain[i].residual = NULL;
        chain[i].importance = NULL;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------------- reading ----- */

static int bad_value(const char *path, const field *f)
{
    char words[160] = "";

    for (int i = 0; f->words != NULL && f->words[i] != NULL; i++) {
        snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s%s", i ? ", " : "", f->words[i]);
    }
    switch (f->kind) {
    case FIELD_WORD: return cli_fail("--recipe %s: '%s' takes one of %s", path, f->key, words);
    case FIELD_METHOD: return cli_fail("--recipe %s: '%s' takes one of %s", path, f->key, CLI_METHODS);
    case FIELD_CODEBOOK: return cli_fail("--recipe %s: 'codebook' takes f32, f16 or u4 .. u12", path);
    case FIELD_REAL: return cli_fail("--recipe %s: '%s' takes a number from 0 to %g", path, f->key, f->maximum);
    default: return cli_fail("--recipe %s: '%s' takes a whole number from %.0f to %.0f", path, f->key, f->minimum,
                             f->maximum);
    }
}

static bool read_number(const json_t *value, const field *f, uint64_t *number)
{
    if (json_is_null(value) && f->kind == FIELD_LEVELS) {
        *number = QEM_LEVELS_DEFAULT;
        return true;
    }
    if (json_is_null(value) && f->kind == FIELD_U64) {
        *number = 0;
        return true;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *number = (uint64_t)json_integer_value(value);
    if (*number == 0 && f->kind != FIELD_LEVELS && f->offset != AT(restarts)) return true; /* not set, or a true 0 */
    if (f->offset == AT(params) && *number > 8 && *number != 16 && *number != 32) return false;
    return (double)*number >= f->minimum && (double)*number <= f->maximum;
}

static bool read_word(const json_t *value, const field *f, uint32_t *number)
{
    const char *text = json_string_value(value);

    for (int i = 0; text != NULL && f->words[i] != NULL; i++) {
        if (strcmp(text, f->words[i]) != 0) continue;
        *number = (uint32_t)i;
        return true;
    }
    return false;
}

static bool read_field(const json_t *value, const field *f, qem_recipe *recipe)
{
    char *place = (char *)recipe + f->offset;
    uint64_t wide = 0;
    uint32_t number = 0;
    double real = 0;

    switch (f->kind) {
    case FIELD_REAL:
        if (!json_is_null(value)) real = json_is_number(value) ? json_number_value(value) : NAN;
        if (!(real >= 0 && real <= f->maximum)) return false;
        memcpy(place, &real, sizeof(real));
        return true;
    case FIELD_METHOD:
        number = (uint32_t)qem_method_from_name(json_string_value(value));
        memcpy(place, &number, sizeof(number));
        return number != QEM_METHOD_NONE;
    case FIELD_CODEBOOK: return json_is_string(value) && cli_codebook_word(json_string_value(value), recipe);
    case FIELD_WORD:
        if (!read_word(value, f, &number)) return false;
        memcpy(place, &number, sizeof(number));
        return true;
    default:
        if (!read_number(value, f, &wide)) return false;
        number = (uint32_t)wide;
        memcpy(place, f->kind == FIELD_U64 ? (const void *)&wide : (const void *)&number, field_size(f));
        return true;
    }
}

static int read_seed(const char *path, const json_t *value, uint64_t *seed)
{
    if (json_is_string(value)) return cli_parse_u64("seed", json_string_value(value), 0, UINT64_MAX, seed);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return cli_fail("--recipe %s: 'seed' takes a whole number", path);
    }
    *seed = (uint64_t)json_integer_value(value);
    return CLI_OK;
}

static const field *find_field(const char *key)
{
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(fields[i].key, key) == 0) return &fields[i];
    }
    return NULL;
}

/* One layer; the object of the next, or NULL. codebook_bits comes last: the word under "codebook" would undo it. */
static int read_layer(const char *path, const json_t *object, bool first, qem_recipe *recipe, uint64_t *seed,
                      const json_t **residual)
{
    const char *key;
    json_t *value;

    *recipe = defaults;
    *residual = NULL;
    if (!json_is_object(object)) return cli_fail("--recipe %s: %s is no object", path, first ? "the recipe" : "'residual'");
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        const field *f = find_field(key);
        int result = CLI_OK;
        if (strcmp(key, "residual") == 0) *residual = json_is_null(value) ? NULL : value;
        else if (strcmp(key, "seed") == 0 && first) result = read_seed(path, value, seed);
        else if (strcmp(key, "importance") == 0 && json_is_null(value)) continue;
        else if (strcmp(key, "importance") == 0) result = cli_fail("--recipe %s: weights come by --importance FILE.npy", path);
        else if (f == NULL) result = cli_fail("--recipe %s: unknown key '%s'", path, key);
        else if (f->offset != AT(codebook_bits) && !read_field(value, f, recipe)) result = bad_value(path, f);
        if (result != CLI_OK) return result;
    }
    value = json_object_get(object, "codebook_bits");
    if (value != NULL && !read_field(value, find_field("codebook_bits"), recipe)) {
        return bad_value(path, find_field("codebook_bits"));
    }
    if (!first && recipe->method == QEM_METHOD_NONE) return cli_fail("--recipe %s: 'residual' lacks its 'method'", path);
    return CLI_OK;
}

int cli_read_recipe(const char *path, qem_recipe *chain, uint32_t *count, uint64_t *seed)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    const json_t *object = root;
    int result = CLI_OK;

    if (root == NULL && error.line > 0) return cli_fail("--recipe %s: line %d: %s", path, error.line, error.text);
    if (root == NULL) return cli_fail("--recipe: %s", error.text);
    for (*count = 0; object != NULL && result == CLI_OK; ++*count) {
        if (*count == CLI_LAYERS) result = cli_fail("--recipe %s: more than %d layers", path, CLI_LAYERS);
        else result = read_layer(path, object, *count == 0, &chain[*count], seed, &object);
    }
    json_decref(root);
    return result;
}
