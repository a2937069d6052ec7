/* --method auto: the search for a recipe, what it tried, and recipes in one line. */
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const qem_recipe defaults = QEM_RECIPE_INIT;

/* ------------------------------------------------------------------------------------------------- searching --- */

qem_status cli_search_run(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                          cli_search *search)
{
    double started = cli_seconds();
    qem_recipe best;

    search->trials = calloc(QEM_MOST_TRIALS, sizeof(*search->trials));
    if (search->trials == NULL) return QEM_ERR_MEMORY;
    qem_status status = qem_search(context, view, name, recipe, &best, search->trials, &search->count,
                                   search->dry_run ? NULL : &search->artifact);
    if (status == QEM_OK && search->dry_run) status = qem_make_plan(context, view, &best, &search->plan);
    search->seconds = cli_seconds() - started;
    return status;
}

void cli_search_to_record(cli_search *search, cli_record *record)
{
    record->automatic = true;
    record->trials = search->trials;
    record->trial_count = search->count;
    if (!search->dry_run) record->quantize_seconds = search->seconds;
    search->trials = NULL;
}

void cli_records_free(cli_record *records, uint32_t count)
{
    for (uint32_t i = 0; records != NULL && i < count; i++) free(records[i].trials);
    free(records);
}

/* ------------------------------------------------------------------------------------------------- words ------- */

typedef struct words {
    char *text;
    size_t size, length;
} words;

CLI_PRINTF(2, 3) static void add(words *w, const char *format, ...)
{
    va_list arguments;
    size_t room = w->size - w->length;

    va_start(arguments, format);
    int length = vsnprintf(w->text + w->length, room, format, arguments);
    va_end(arguments);
    if (length > 0) w->length += (size_t)length < room ? (size_t)length : room - 1;
}

static void add_unit(words *w, const char *option, const char *before, const char *unit, uint32_t block)
{
    add(w, " --%s %s%s", option, before, unit);
    if (block > 0) add(w, ":%u", block);
}

static void add_standardize(words *w, const qem_recipe *r)
{
    static const char *const axes[] = { "none", "column", "row", "both" };

    if (r->standardize & QEM_STANDARDIZE_BLOCK) {
        add_unit(w, "standardize", r->standardize & QEM_STANDARDIZE_COLUMN ? "column+" : "", "block", r->standardize_block);
    } else if (r->standardize != 0) {
        add_unit(w, "standardize", "", axes[r->standardize & 3], 0);
    }
    if (r->params == 16 || r->params == 32) add(w, " --params f%u", r->params);
    else if (r->params != 0) add(w, " --params u%u", r->params);
    if (r->means != defaults.means) add(w, " --means %s", r->means == QEM_MEANS_ALWAYS ? "always" : "never");
}

/* Of a method's own blocks; the rest is common to all. */
static void add_method(words *w, const qem_recipe *r)
{
    static const char *const axes[] = { "tensor", "row", "column", "block" };
    static const char *const starts[] = { "best", "identity", "pca" };

    if (r->intervals != 0) add(w, " --intervals %u", r->intervals);
    if (r->assign != defaults.assign) add(w, " --assign global");
    if (r->refine != 0) add(w, " --refine %u", r->refine);
    if (r->grid_axis != defaults.grid_axis) add_unit(w, "grid", "", axes[r->grid_axis], r->grid_block);
    if (r->rotation_start != defaults.rotation_start) add(w, " --rotation-start %s", starts[r->rotation_start]);
    if (r->cells != 0) add(w, " --cells %u", r->cells);
    if (r->allocation != defaults.allocation) add(w, " --allocation variance");
}

void cli_recipe_words(const qem_recipe *recipe, char *text, size_t size)
{
    words w = { text, size, 0 };

    add(&w, "%s", qem_method_name(recipe->method));
    if (recipe->dim != 0) add(&w, " --dim %u", recipe->dim);
    if (recipe->levels != defaults.levels) add(&w, " --levels %u", recipe->levels);
    if (recipe->codebook_bits != 0) add(&w, " --codebook u%u", recipe->codebook_bits);
    else if (recipe->codebook != defaults.codebook) add(&w, " --codebook f16");
    add_method(&w, recipe);
    add_standardize(&w, recipe);
    if (recipe->outliers > 0) add(&w, " --outliers %g", recipe->outliers);
    if (recipe->outlier_sigma > 0) add(&w, " --outliers sigma:%g", recipe->outlier_sigma);
    if (recipe->mixed) add(&w, " --mixed on");
}

/* ------------------------------------------------------------------------------------------------- reports ----- */

json_t *cli_json_trials(const cli_record *record)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < record->trial_count; i++) {
        const qem_trial *trial = &record->trials[i];
        json_t *object = json_object();
        json_object_set_new(object, "recipe", cli_json_recipe_short(&trial->recipe));
        json_object_set_new(object, "status", json_string(trial->status == QEM_OK ? "ok" : qem_status_string(trial->status)));
        json_object_set_new(object, "mse", cli_json_real(trial->mse));
        json_object_set_new(object, "final_mse", cli_json_real(trial->final_mse));
        json_object_set_new(object, "seconds", cli_json_real(trial->seconds));
        json_array_append_new(list, object);
    }
    return list;
}

static void print_error(double value)
{
    if (isfinite(value)) printf("  %-11.5g", value);
    else printf("  %-11s", "-");
}

void cli_print_trials(const cli_record *record)
{
    enum { SHOWN = 8 };
    uint32_t good = 0;
    char text[400];

    while (good < record->trial_count && record->trials[good].status == QEM_OK) good++;
    cli_recipe_words(&record->trials[0].recipe, text, sizeof(text));
    printf("  auto     picked %s, the best of %u tried\n", text, record->trial_count);
    printf("  tried    %-11s  %-11s  %7s  recipe\n", "MSE sample", "MSE matrix", "seconds");
    for (uint32_t i = 0; i < good && i < SHOWN; i++) {
        const qem_trial *trial = &record->trials[i];
        cli_recipe_words(&trial->recipe, text, sizeof(text));
        printf("         ");
        print_error(trial->mse);
        print_error(trial->final_mse);
        printf("  %7.3f  %s\n", trial->seconds, text);
    }
    if (good > SHOWN) printf("           and %u of more error\n", good - SHOWN);
    if (good < record->trial_count) {
        printf("           %u do not fit the budget or the sample\n", record->trial_count - good);
    }
}
