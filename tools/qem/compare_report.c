/* The table of qem compare: for people, as CSV, as JSON. */
#include "cli.h"

#include <inttypes.h>
#include <math.h>

void cli_compare_header(FILE *out, bool devices)
{
    fprintf(out, "%6s  %-9s %8s %8s  %-10s %-10s %-10s %9s %9s %7s %7s%s\n", "theta", "method", "bits", "k", "MSE", "MAE",
            "NMSE", "QT s", "DT s", "QTR", "DTR", devices ? "  device  codes   largest difference" : "");
}

static void print_device(FILE *out, const cli_result *result)
{
    fprintf(out, "  %-6s", cli_device_name(result->where.device));
    if (result->compared) fprintf(out, "  %-6s  %.4g", result->codes_equal ? "equal" : "DIFFER", result->device_difference);
}

static void print_number(FILE *out, const char *format, int width, double value)
{
    if (isfinite(value)) fprintf(out, format, width, value);
    else fprintf(out, " %*s", width, "-");
}

void cli_compare_row(FILE *out, const cli_result *result, bool devices)
{
    const cli_record *record = &result->record;

    fprintf(out, "%6g  %-9s ", result->theta, cli_record_method(record));
    if (!result->feasible) {
        fprintf(out, "infeasible: %s\n", result->reason);
        fflush(out);
        return;
    }
    fprintf(out, "%8.4f %8" PRIu64 "  %-10.4g %-10.4g ", record->bits_per_element, record->k, record->metrics.mse,
            record->metrics.mae);
    if (isfinite(record->metrics.nmse)) fprintf(out, "%-10.4g", record->metrics.nmse);
    else fprintf(out, "%-10s", "-");
    print_number(out, " %*.4f", 9, record->quantize_seconds);
    print_number(out, " %*.5f", 9, record->dequantize_seconds);
    print_number(out, " %*.3g", 7, result->quantize_ratio);
    print_number(out, " %*.3g", 7, result->dequantize_ratio);
    if (devices) print_device(out, result);
    fprintf(out, "%s\n", record->recipe.accounting == QEM_ACCOUNTING_PAPER ? "  (paper accounting)" : "");
    if (record->automatic) {
        char text[400];
        cli_recipe_words(&record->recipe, text, sizeof(text));
        fprintf(out, "%6s  picked %s\n", "", text);
    }
    fflush(out);
}

/* A text field of a CSV file, quoted, with quotes doubled (RFC 4180). */
static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != 0; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void csv_real(FILE *out, double value)
{
    if (isfinite(value)) fprintf(out, ",%.17g", value);
    else fputc(',', out);
}

static void csv_row(FILE *out, const cli_result *result)
{
    const cli_record *record = &result->record;
    bool known = result->feasible;
    const qem_metrics *metrics = &record->metrics;
    const double reals[] = { known ? record->bits_per_element : NAN, known ? record->ratio : NAN,
                             known ? metrics->mae : NAN, known ? metrics->mse : NAN, known ? metrics->mre : NAN,
                             known ? metrics->nmse : NAN, known ? metrics->max_error : NAN, record->quantize_seconds,
                             record->dequantize_seconds, result->quantize_ratio, result->dequantize_ratio };

    fprintf(out, "%s,%.17g,%s,", cli_record_method(record), result->theta, known ? "ok" : "infeasible");
    if (known) fprintf(out, "%" PRIu64 ",%" PRIu64, record->k, record->stored_bytes);
    else fputc(',', out);
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++) csv_real(out, reals[i]);
    fprintf(out, ",%s,%u,%s,%s,", cli_device_name(result->where.device), result->where.threads,
            cli_isa_name(result->where.isa),
            record->recipe.accounting == QEM_ACCOUNTING_PAPER ? "paper" : "honest");
    csv_text(out, result->reason);
    fprintf(out, ",%s", !result->compared ? "" : result->codes_equal ? "1" : "0");
    csv_real(out, result->compared ? result->device_difference : NAN);
    fputc('\n', out);
}

int cli_compare_csv(const char *path, const cli_result *results, uint32_t count)
{
    cli_text_file file;
    int result = cli_text_open(path, &file);

    if (result != CLI_OK) return result;
    fputs("method,theta,status,k,stored_bytes,bits_per_element,ratio,mae,mse,mre,nmse,max_error,quantize_seconds,"
          "dequantize_seconds,quantize_ratio,dequantize_ratio,device,threads,isa,accounting,reason,codes_equal,max_device_difference\n", file.stream);
    for (uint32_t i = 0; i < count; i++) csv_row(file.stream, &results[i]);
    return cli_text_commit(&file);
}

json_t *cli_compare_json(const cli_result *results, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++) {
        const cli_result *result = &results[i];
        json_t *object = cli_json_record(&result->record, &result->where);
        json_object_set_new(object, "method", json_string(cli_record_method(&result->record)));
        json_object_set_new(object, "theta", cli_json_real(result->theta));
        json_object_set_new(object, "status", json_string(result->feasible ? "ok" : "infeasible"));
        json_object_set_new(object, "reason", result->feasible ? json_null() : cli_json_text(result->reason));
        json_object_set_new(object, "quantize_ratio", cli_json_real(result->quantize_ratio));
        json_object_set_new(object, "dequantize_ratio", cli_json_real(result->dequantize_ratio));
        if (result->compared) {
            json_object_set_new(object, "codes_equal", json_boolean(result->codes_equal));
            json_object_set_new(object, "max_device_difference", cli_json_real(result->device_difference));
        }
        json_array_append_new(list, object);
    }
    return list;
}
