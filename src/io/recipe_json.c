/*
 * Recipes in the metadata. Keys of format 1 are always there; a newer key is there where it is not at its default, so that a
 * recipe which uses nothing new has the same text as ever. Importance is borrowed data and never stored.
 */
#include <stddef.h>
#include <string.h>

#include "io/io.h"

typedef enum field_kind { FIELD_U32, FIELD_REAL, FIELD_WORD } field_kind;

typedef struct field {
    const char *key;
    field_kind kind;
    size_t offset;
    const char *const *words; /* FIELD_WORD: by value */
    uint32_t count;
} field;

static const char *const standardize_words[] = { "none", "column", "row", "both", "block", "column+block" };
static const char *const means_words[] = { "auto", "always", "never" };
static const char *const start_words[] = { "best", "identity", "pca" };
static const char *const allocation_words[] = { "count", "variance" };
static const char *const switch_words[] = { "off", "on" };

#define NUMBER(name) { #name, FIELD_U32, offsetof(qem_recipe, name), NULL, 0 }
#define REAL(name) { #name, FIELD_REAL, offsetof(qem_recipe, name), NULL, 0 }
#define WORD(key, name, words) { key, FIELD_WORD, offsetof(qem_recipe, name), words, sizeof words / sizeof words[0] }

static const field fields[] = {
    NUMBER(codebook_bits),
    WORD("standardize", standardize, standardize_words),
    NUMBER(standardize_block),
    NUMBER(params),
    WORD("means", means, means_words),
    REAL(outliers),
    REAL(outlier_sigma),
    WORD("grid", grid_axis, qem_io_axis_words),
    NUMBER(grid_block),
    WORD("rotation_start", rotation_start, start_words),
    NUMBER(cells),
    WORD("allocation", allocation, allocation_words),
    WORD("mixed", mixed, switch_words),
    NUMBER(effort),
    REAL(share),
};

#define FIELDS (sizeof fields / sizeof fields[0])

static const qem_recipe defaults = QEM_RECIPE_INIT;

/* Enumerations have the size of an int; memcpy, because their type is their own. */
static uint32_t word_at(const qem_recipe *recipe, const field *f)
{
    uint32_t value;
    memcpy(&value, (const char *)recipe + f->offset, sizeof value);
    return value;
}

static double real_at(const qem_recipe *recipe, const field *f)
{
    double value;
    memcpy(&value, (const char *)recipe + f->offset, sizeof value);
    return value;
}

static json_t *field_value(const qem_recipe *recipe, const field *f)
{
    if (f->kind == FIELD_REAL) return qem_json_real(real_at(recipe, f));
    const uint32_t value = word_at(recipe, f);
    if (f->kind == FIELD_U32) return qem_json_whole(value);
    return value < f->count ? json_string(f->words[value]) : NULL; /* no recipe that was carried out has another value */
}

static int at_default(const qem_recipe *recipe, const field *f)
{
    const size_t size = f->kind == FIELD_REAL ? sizeof(double) : sizeof(uint32_t);
    return memcmp((const char *)recipe + f->offset, (const char *)&defaults + f->offset, size) == 0;
}

json_t *qem_recipe_object(qem_io_builder *b, const qem_recipe *recipe)
{
    json_t *object = json_object();
    qem_json_put(b, object, "ratio", qem_json_real(recipe->ratio));
    qem_json_put(b, object, "bits", qem_json_real(recipe->bits));
    qem_json_put(b, object, "k", qem_json_whole(recipe->k));
    qem_json_put(b, object, "dim", qem_json_whole(recipe->dim));
    qem_json_put(b, object, "intervals", qem_json_whole(recipe->intervals));
    qem_json_put(b, object, "levels", recipe->levels == QEM_LEVELS_DEFAULT ? json_null() : qem_json_whole(recipe->levels));
    qem_json_put(b, object, "codebook", json_string(qem_dtype_name(recipe->codebook)));
    qem_json_put(b, object, "iterations", qem_json_whole(recipe->iterations));
    qem_json_put(b, object, "restarts", qem_json_whole(recipe->restarts));
    qem_json_put(b, object, "tolerance", qem_json_real(recipe->tolerance));
    qem_json_put(b, object, "assign", json_string(recipe->assign == QEM_ASSIGN_GLOBAL ? "global" : "cell"));
    qem_json_put(b, object, "refine", qem_json_whole(recipe->refine));
    qem_json_put(b, object, "accounting", json_string(recipe->accounting == QEM_ACCOUNTING_PAPER ? "paper" : "honest"));
    for (size_t i = 0; i < FIELDS; i++)
        if (!at_default(recipe, &fields[i])) qem_json_put_new(b, object, fields[i].key, field_value(recipe, &fields[i]));
    if (!recipe->residual) return object;
    json_t *residual = qem_recipe_object(b, recipe->residual); /* chains are short: qem_artifact_set_recipe */
    qem_json_put(b, residual, "method", json_string(qem_method_name(recipe->residual->method)));
    qem_json_put_new(b, object, "residual", residual);
    return object;
}

/* ---- reading ---- */

static qem_status read_method(const qem_io_reader *reader, const json_t *object, qem_recipe *recipe)
{
    const char *method = NULL;
    QEM_TRY(qem_read_string(reader, object, "method", &method));
    recipe->method = qem_method_from_name(method);
    if (recipe->method != QEM_METHOD_NONE) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "unknown method '%s'", qem_show(method).text);
}

static qem_status read_assignment(const qem_io_reader *reader, const json_t *object, qem_recipe *recipe)
{
    const char *assign = NULL;
    if (!json_object_get(object, "assign")) return QEM_OK; /* the first files have neither this nor refine */
    QEM_TRY(qem_read_string(reader, object, "assign", &assign));
    if (strcmp(assign, "cell") != 0 && strcmp(assign, "global") != 0)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "unknown assignment '%s'", qem_show(assign).text);
    recipe->assign = strcmp(assign, "global") == 0 ? QEM_ASSIGN_GLOBAL : QEM_ASSIGN_CELL;
    return qem_read_u32(reader, object, "refine", 0, UINT32_MAX, &recipe->refine);
}

static qem_status read_accounting(const qem_io_reader *reader, const json_t *object, qem_recipe *recipe)
{
    const char *accounting = NULL;
    QEM_TRY(qem_read_string(reader, object, "accounting", &accounting));
    if (strcmp(accounting, "honest") != 0 && strcmp(accounting, "paper") != 0)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "unknown accounting '%s'", qem_show(accounting).text);
    recipe->accounting = strcmp(accounting, "paper") == 0 ? QEM_ACCOUNTING_PAPER : QEM_ACCOUNTING_HONEST;
    return QEM_OK;
}

static qem_status read_field(const qem_io_reader *reader, const json_t *object, const field *f, qem_recipe *recipe)
{
    char *place = (char *)recipe + f->offset;
    uint32_t number = 0;
    double real = 0.0;
    if (!json_object_get(object, f->key)) return QEM_OK;
    if (f->kind == FIELD_REAL) {
        QEM_TRY(qem_read_real(reader, object, f->key, &real));
        memcpy(place, &real, sizeof real);
        return QEM_OK;
    }
    if (f->kind == FIELD_U32) QEM_TRY(qem_read_u32(reader, object, f->key, 0, UINT32_MAX, &number));
    else QEM_TRY(qem_read_word(reader, object, f->key, f->words, f->count, &number));
    memcpy(place, &number, sizeof number);
    return QEM_OK;
}

static qem_status read_fields(const qem_io_reader *reader, const json_t *object, qem_recipe *recipe)
{
    json_t *levels = NULL;
    QEM_TRY(qem_read_real(reader, object, "ratio", &recipe->ratio));
    QEM_TRY(qem_read_real(reader, object, "bits", &recipe->bits));
    QEM_TRY(qem_read_u64(reader, object, "k", 0, UINT64_MAX, &recipe->k));
    QEM_TRY(qem_read_u32(reader, object, "dim", 0, UINT32_MAX, &recipe->dim));
    QEM_TRY(qem_read_u32(reader, object, "intervals", 0, UINT32_MAX, &recipe->intervals));
    QEM_TRY(qem_read_member(reader, object, "levels", &levels));
    if (!json_is_null(levels)) QEM_TRY(qem_read_u32(reader, object, "levels", 0, UINT32_MAX, &recipe->levels));
    QEM_TRY(qem_read_dtype(reader, object, "codebook", &recipe->codebook));
    QEM_TRY(qem_read_u32(reader, object, "iterations", 0, UINT32_MAX, &recipe->iterations));
    QEM_TRY(qem_read_u32(reader, object, "restarts", 0, UINT32_MAX, &recipe->restarts));
    QEM_TRY(qem_read_real(reader, object, "tolerance", &recipe->tolerance));
    QEM_TRY(read_assignment(reader, object, recipe));
    for (size_t i = 0; i < FIELDS; i++) QEM_TRY(read_field(reader, object, &fields[i], recipe));
    return read_accounting(reader, object, recipe);
}

qem_status qem_read_recipe(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact)
{
    qem_recipe *recipe = &artifact->recipe;
    json_t *object = NULL;
    *recipe = defaults;
    QEM_TRY(read_method(reader, root, recipe));
    QEM_TRY(qem_read_object(reader, root, "recipe", &object));
    QEM_TRY(read_fields(reader, object, recipe));
    for (uint32_t i = 0; json_object_get(object, "residual"); i++) {
        if (i + 1 == QEM_MOST_STAGES)
            return qem_reader_fail(reader, QEM_ERR_FORMAT, "its recipe has more than %d layers", QEM_MOST_STAGES);
        QEM_TRY(qem_read_object(reader, object, "residual", &object));
        recipe->residual = &artifact->residuals[i];
        recipe = &artifact->residuals[i];
        *recipe = defaults;
        QEM_TRY(read_method(reader, object, recipe));
        QEM_TRY(read_fields(reader, object, recipe));
    }
    return QEM_OK;
}
