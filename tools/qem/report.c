/* Reports: one JSON object for programs, a few lines for people. */
#include "cli.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void cli_record_init(cli_record *record)
{
    memset(record, 0, sizeof(*record));
    record->bits_per_element = record->ratio = NAN;
    record->quantize_seconds = record->dequantize_seconds = NAN;
}

/* Records outlive the artifacts and options that recipes point into. */
static void set_layers(cli_record *record, const qem_recipe *recipe)
{
    qem_recipe chain[CLI_LAYERS];

    record->layers = cli_copy_chain(recipe, chain);
    record->recipe = chain[0];
    if (record->layers > 1) memcpy(record->residuals, chain + 1, (record->layers - 1) * sizeof(chain[0]));
}

const char *cli_record_method(const cli_record *record)
{
    return qem_method_name(record->automatic ? QEM_METHOD_AUTO : record->method);
}

void cli_record_from_artifact(const qem_artifact *artifact, cli_record *record)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;

    cli_record_init(record);
    if (qem_artifact_query(artifact, &info) != QEM_OK) return;
    record->tensor = info.name;
    record->rows = info.rows;
    record->cols = info.cols;
    record->source = info.source_dtype;
    record->has_recipe = record->has_bytes = true;
    record->method = info.method;
    set_layers(record, &info.recipe);
    record->codebook = info.codebook;
    record->k = info.k;
    record->groups = info.groups;
    record->cells = info.cells;
    record->dim = info.dim;
    record->code_bits = info.code_bits;
    record->levels = info.levels;
    record->intervals = info.intervals;
    record->stages = info.stages;
    record->seed = info.seed;
    record->parts = info.parts;
    record->stored_bytes = info.stored_bytes;
    record->budget_bytes = info.budget_bytes;
    record->bits_per_element = info.bits_per_element;
    record->ratio = info.ratio;
    record->has_metrics = info.has_metrics != 0;
    record->metrics = info.metrics;
    record->quantize_seconds = info.quantize_seconds;
}

void cli_record_from_plan(const qem_plan *plan, const qem_recipe *recipe, uint64_t seed, cli_record *record)
{
    cli_record_init(record);
    record->rows = plan->rows;
    record->cols = plan->cols;
    record->has_recipe = record->has_bytes = true;
    record->method = plan->method;
    set_layers(record, recipe);
    record->codebook = plan->codebook;
    record->k = plan->k;
    record->groups = plan->groups;
    record->cells = plan->cells;
    record->dim = plan->dim;
    record->code_bits = plan->code_bits;
    record->levels = plan->levels;
    record->intervals = plan->intervals;
    record->stages = plan->stages;
    record->seed = seed;
    record->parts = plan->parts;
    record->stored_bytes = plan->stored_bytes;
    record->budget_bytes = plan->budget_bytes;
    record->bits_per_element = plan->bits_per_element;
    record->ratio = plan->ratio;
}

/* ------------------------------------------------------------------------------------------------- JSON -------- */

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_text(const char *text)
{
    json_t *string;
    char *copy;

    if (text == NULL) return json_null();
    string = json_string(text);
    if (string != NULL) return string;
    copy = strdup(text);
    if (copy == NULL) return json_null();
    for (char *c = copy; *c != 0; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    string = json_string(copy);
    free(copy);
    return string;
}

static json_t *whole(uint64_t value)
{
    return json_integer((json_int_t)value);
}

typedef struct part_name {
    const char *name;
    size_t offset;
} part_name;

static const part_name part_names[] = {
    { "codes", offsetof(qem_parts, codes) },
    { "codebook", offsetof(qem_parts, codebook) },
    { "codebook_scale", offsetof(qem_parts, codebook_scale) },
    { "group_bits", offsetof(qem_parts, group_bits) },
    { "swap_map", offsetof(qem_parts, swap_map) },
    { "scale", offsetof(qem_parts, scale) },
    { "mean", offsetof(qem_parts, mean) },
    { "rotation", offsetof(qem_parts, rotation) },
    { "coarse", offsetof(qem_parts, coarse) },
    { "outlier_index", offsetof(qem_parts, outlier_index) },
    { "outlier_value", offsetof(qem_parts, outlier_value) },
};

enum { PART_COUNT = sizeof(part_names) / sizeof(part_names[0]) };

static uint64_t part_bytes(const qem_parts *parts, int index)
{
    return *(const uint64_t *)((const char *)parts + part_names[index].offset);
}

static json_t *json_parts(const qem_parts *parts)
{
    json_t *object = json_object();

    for (int i = 0; i < PART_COUNT; i++) json_object_set_new(object, part_names[i].name, whole(part_bytes(parts, i)));
    return object;
}

static bool has_codebook(qem_method method)
{
    return method != QEM_METHOD_RTN && method != QEM_METHOD_GRID && method != QEM_METHOD_NF;
}

/* What was used, and the budget as it was asked for (two of ratio, bits, k are null). Residual layers are as asked. */
static json_t *json_recipe(const cli_record *record)
{
    qem_recipe chain[CLI_LAYERS + 1];
    json_t *object;

    chain[0] = record->recipe;
    chain[0].method = record->method;
    chain[0].dim = record->dim;
    chain[0].intervals = record->intervals;
    chain[0].levels = record->levels;
    if (!has_codebook(record->method)) chain[0].codebook_bits = 0;
    if (chain[0].codebook_bits == 0) chain[0].codebook = record->codebook;
    memcpy(chain + 1, record->residuals, sizeof(record->residuals)); /* record->layers tells how many mean something */
    object = cli_json_recipe(chain, record->layers);
    json_object_set_new(object, "seed", whole(record->seed));
    return object;
}

static void set_recipe(json_t *object, const cli_record *record)
{
    bool known = record->has_recipe;

    json_object_set_new(object, "method", known ? json_string(cli_record_method(record)) : json_null());
    json_object_set_new(object, "rows", whole(record->rows));
    json_object_set_new(object, "cols", whole(record->cols));
    json_object_set_new(object, "source_dtype",
                        record->source != QEM_DTYPE_NONE ? json_string(qem_dtype_name(record->source)) : json_null());
    json_object_set_new(object, "recipe", known ? json_recipe(record) : json_null());
    json_object_set_new(object, "stage_count", known ? whole(record->stages) : json_null());
    json_object_set_new(object, "k", known ? whole(record->k) : json_null());
    json_object_set_new(object, "code_bits", known ? whole(record->code_bits) : json_null());
    json_object_set_new(object, "groups", known ? whole(record->groups) : json_null());
    json_object_set_new(object, "cells", known ? whole(record->cells) : json_null());
}

static void set_metrics(json_t *object, const cli_record *record)
{
    const qem_metrics *metrics = &record->metrics;
    bool known = record->has_metrics;

    json_object_set_new(object, "mae", known ? cli_json_real(metrics->mae) : json_null());
    json_object_set_new(object, "mse", known ? cli_json_real(metrics->mse) : json_null());
    json_object_set_new(object, "mre", known ? cli_json_real(metrics->mre) : json_null());
    json_object_set_new(object, "nmse", known ? cli_json_real(metrics->nmse) : json_null());
    json_object_set_new(object, "max_error", known ? cli_json_real(metrics->max_error) : json_null());
    json_object_set_new(object, "zeros", known ? whole(metrics->zeros) : json_null());
}

static void set_machine(json_t *object, const qem_context_info *where)
{
    json_object_set_new(object, "device", json_string(cli_device_name(where->device)));
    json_object_set_new(object, "threads", whole(where->threads));
    json_object_set_new(object, "isa", json_string(cli_isa_name(where->isa)));
}

json_t *cli_json_record(const cli_record *record, const qem_context_info *where)
{
    json_t *object = json_object();
    bool bytes = record->has_bytes;

    json_object_set_new(object, "tensor", cli_json_text(record->tensor));
    set_recipe(object, record);
    json_object_set_new(object, "stored_bytes", bytes ? whole(record->stored_bytes) : json_null());
    json_object_set_new(object, "budget_bytes", bytes ? whole(record->budget_bytes) : json_null());
    json_object_set_new(object, "bits_per_element", cli_json_real(record->bits_per_element));
    json_object_set_new(object, "ratio", cli_json_real(record->ratio));
    json_object_set_new(object, "parts", bytes ? json_parts(&record->parts) : json_null());
    set_metrics(object, record);
    json_object_set_new(object, "quantize_seconds", cli_json_real(record->quantize_seconds));
    json_object_set_new(object, "dequantize_seconds", cli_json_real(record->dequantize_seconds));
    if (record->trials != NULL) json_object_set_new(object, "trials", cli_json_trials(record));
    set_machine(object, where);
    return object;
}

int cli_json_print(json_t *object)
{
    if (object == NULL) return cli_fail("out of memory");
    int failed = json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(object);
    if (failed) return cli_fail("cannot write to standard output");
    putchar('\n');
    return CLI_OK;
}

/* Bytes and elements of all records together. */
static void totals(const cli_record *records, uint32_t count, uint64_t *bytes, double *elements)
{
    *bytes = 0;
    *elements = 0;
    for (uint32_t i = 0; i < count; i++) {
        *bytes += records[i].stored_bytes;
        *elements += (double)records[i].rows * (double)records[i].cols;
    }
}

static json_t *json_many(const cli_record *records, uint32_t count, const qem_context_info *where)
{
    json_t *object = json_object(), *list = json_array();
    double elements = 0;
    uint64_t bytes = 0;
    bool known = count > 0 && records[0].has_bytes;

    totals(records, count, &bytes, &elements);
    for (uint32_t i = 0; i < count; i++) json_array_append_new(list, cli_json_record(&records[i], where));
    json_object_set_new(object, "tensors", list);
    json_object_set_new(object, "stored_bytes", known ? whole(bytes) : json_null());
    json_object_set_new(object, "bits_per_element", cli_json_real(known ? 8.0 * (double)bytes / elements : NAN));
    json_object_set_new(object, "ratio", cli_json_real(known ? 4.0 * elements / (double)bytes : NAN));
    set_machine(object, where);
    return object;
}

int cli_report_json(const cli_record *records, uint32_t count, const qem_context *context, json_t *extra)
{
    qem_context_info where = QEM_CONTEXT_INFO_INIT;
    json_t *object;

    qem_context_query(context, &where);
    object = count == 1 ? cli_json_record(&records[0], &where) : json_many(records, count, &where);
    if (extra != NULL) {
        json_object_update(object, extra);
        json_decref(extra);
    }
    return cli_json_print(object);
}

/* ------------------------------------------------------------------------------------------------- text -------- */

static void print_codebook(const cli_record *record)
{
    if (!has_codebook(record->method)) return;
    if (record->recipe.codebook_bits > 0) printf(", codebook u%u", record->recipe.codebook_bits);
    else printf(", codebook %s", qem_dtype_name(record->codebook));
}

static void print_recipe(const cli_record *record)
{
    printf("  recipe   %s: dim %u, k %" PRIu64 ", %u bit%s a code", qem_method_name(record->method), record->dim,
           record->k, record->code_bits, record->code_bits == 1 ? "" : "s");
    if (record->stages > 1) printf(" (the first of %u stages)", record->stages);
    print_codebook(record);
    if (record->levels > 0) printf(", %u swap level%s", record->levels, record->levels == 1 ? "" : "s");
    if (record->method == QEM_METHOD_HYPERCHR) {
        printf(", %u interval%s a position", record->intervals, record->intervals == 1 ? "" : "s");
        if (record->cells > 0) printf(", %" PRIu64 " cells", record->cells);
    }
    for (uint32_t i = 1; i < record->layers; i++) printf(", then %s", qem_method_name(record->residuals[i - 1].method));
    putchar('\n');
}

static void print_bytes(const cli_record *record)
{
    const char *sign = "=";

    printf("  stored   %" PRIu64 " bytes", record->stored_bytes);
    for (int i = 0; i < PART_COUNT; i++) {
        uint64_t bytes = part_bytes(&record->parts, i);
        if (bytes == 0) continue;
        printf(" %s %s %" PRIu64, sign, part_names[i].name, bytes);
        sign = "+";
    }
    printf("\n  bits     %.4f per element, ratio %.3f (budget %" PRIu64 " bytes%s)\n", record->bits_per_element,
           record->ratio, record->budget_bytes,
           record->recipe.accounting == QEM_ACCOUNTING_PAPER ? ", counted as the papers do" : "");
}

static void print_metric(const char *before, double value)
{
    if (isfinite(value)) printf("%s %.6g", before, value);
    else printf("%s -", before);
}

static void print_metrics(const qem_metrics *metrics)
{
    print_metric("  error    MSE", metrics->mse);
    print_metric(", MAE", metrics->mae);
    print_metric(", NMSE", metrics->nmse);
    print_metric(", MRE", metrics->mre);
    print_metric(", largest", metrics->max_error);
    putchar('\n');
    if (metrics->zeros > 0) printf("           (MRE leaves out %" PRIu64 " zeros)\n", metrics->zeros);
}

void cli_report_text(const cli_record *records, uint32_t count)
{
    uint64_t bytes;
    double elements;

    cli_progress_clear();
    for (uint32_t i = 0; i < count; i++) {
        const cli_record *record = &records[i];
        printf("%s: %" PRIu64 " x %" PRIu64, record->tensor != NULL ? record->tensor : "matrix", record->rows,
               record->cols);
        if (record->source != QEM_DTYPE_NONE) printf(" %s", qem_dtype_name(record->source));
        putchar('\n');
        if (record->trials != NULL) cli_print_trials(record);
        if (record->has_recipe) print_recipe(record);
        if (record->has_bytes) print_bytes(record);
        if (record->has_metrics) print_metrics(&record->metrics);
        if (isfinite(record->quantize_seconds)) printf("  time     quantized in %.3f s\n", record->quantize_seconds);
        if (isfinite(record->dequantize_seconds)) printf("  time     decoded in %.4f s\n", record->dequantize_seconds);
    }
    if (count < 2 || !records[0].has_bytes) return;
    totals(records, count, &bytes, &elements);
    printf("total: %u tensors, %" PRIu64 " bytes, %.4f bits per element\n", count, bytes,
           8.0 * (double)bytes / elements);
}

static void print_number(const char *format, double value)
{
    if (isfinite(value)) printf(format, value);
    else printf("  %9s", "-");
}

void cli_report_table(const cli_record *records, uint32_t count)
{
    uint64_t bytes;
    double elements;
    int width = 6;

    cli_progress_clear();
    for (uint32_t i = 0; i < count; i++) {
        int length = (int)strlen(records[i].tensor);
        if (length > width) width = length < 60 ? length : 60;
    }
    printf("%-*s  %15s  %-8s  %8s  %12s  %9s  %9s\n", width, "tensor", "rows x cols", "method", "bits", "bytes", "NMSE", "seconds");
    for (uint32_t i = 0; i < count; i++) {
        const cli_record *record = &records[i];
        char shape[48];
        snprintf(shape, sizeof(shape), "%" PRIu64 " x %" PRIu64, record->rows, record->cols);
        printf("%-*s  %15s  %-8s  %8.4f  %12" PRIu64, width, record->tensor, shape, qem_method_name(record->method),
               record->bits_per_element, record->stored_bytes);
        print_number("  %9.3e", record->has_metrics ? record->metrics.nmse : NAN);
        print_number("  %9.2f", record->quantize_seconds);
        putchar('\n');
    }
    totals(records, count, &bytes, &elements);
    printf("total: %u tensors, %.0f weights, %" PRIu64 " bytes, %.4f bits a weight\n", count, elements, bytes,
           8.0 * (double)bytes / elements);
}
