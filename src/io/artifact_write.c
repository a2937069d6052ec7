/*
 * The metadata text of an artifact: compact JSON with sorted keys, no time, device or thread count in it, so that the
 * same input gives the same bytes. Reals have 17 digits: every float and double comes back as it was.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/io.h"

/* A json_* call that fails for want of memory gives NULL, and storing a NULL fails: one flag at the end is enough. */
typedef struct builder {
    int failed;
} builder;

static void put(builder *b, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) b->failed = 1;
}

static void append(builder *b, json_t *list, json_t *value)
{
    if (json_array_append_new(list, value) != 0) b->failed = 1;
}

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Always a string: 64 bits do not fit the numbers of most JSON readers. */
static json_t *wide(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return json_string(text);
}

static json_t *whole(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : wide(value);
}

const char *qem_codebook_kind_word(qem_codebook_kind kind)
{
    switch (kind) {
    case QEM_CODEBOOK_SHARED: return "shared";
    case QEM_CODEBOOK_PER_GROUP: return "per_group";
    case QEM_CODEBOOK_UNIFORM: return "uniform";
    case QEM_CODEBOOK_TABLE: return "table";
    }
    return "?";
}

static json_t *recipe_object(builder *b, const qem_recipe *recipe)
{
    json_t *object = json_object();
    put(b, object, "ratio", real(recipe->ratio));
    put(b, object, "bits", real(recipe->bits));
    put(b, object, "k", whole(recipe->k));
    put(b, object, "dim", whole(recipe->dim));
    put(b, object, "intervals", whole(recipe->intervals));
    put(b, object, "levels", recipe->levels == QEM_LEVELS_DEFAULT ? json_null() : whole(recipe->levels));
    put(b, object, "codebook", json_string(qem_dtype_name(recipe->codebook)));
    put(b, object, "iterations", whole(recipe->iterations));
    put(b, object, "restarts", whole(recipe->restarts));
    put(b, object, "tolerance", real(recipe->tolerance));
    put(b, object, "assign", json_string(recipe->assign == QEM_ASSIGN_GLOBAL ? "global" : "cell"));
    put(b, object, "refine", whole(recipe->refine));
    put(b, object, "accounting", json_string(recipe->accounting == QEM_ACCOUNTING_PAPER ? "paper" : "honest"));
    return object;
}

static json_t *stage_object(builder *b, const qem_stage *stage)
{
    json_t *object = json_object();
    put(b, object, "kind", json_string(qem_codebook_kind_word(stage->kind)));
    put(b, object, "dim", whole(stage->dim));
    put(b, object, "k", whole(stage->k));
    put(b, object, "code_bits", whole(stage->code_bits));
    put(b, object, "levels", whole(stage->levels));
    put(b, object, "codebook", json_string(qem_dtype_name(stage->codebook_dtype)));
    return object;
}

static json_t *stage_list(builder *b, const qem_artifact *artifact)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < artifact->stage_count; i++) append(b, list, stage_object(b, &artifact->stages[i]));
    return list;
}

static json_t *id_list(builder *b, const uint32_t *ids, uint64_t count)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < count; i++) append(b, list, json_integer((json_int_t)ids[i]));
    return list;
}

static json_t *cells_object(builder *b, const qem_artifact *artifact)
{
    const qem_cells *cells = &artifact->cells;
    json_t *object = json_object();
    put(b, object, "intervals", whole(cells->intervals));
    put(b, object, "count", whole(cells->count));
    if (cells->intervals <= 1) return object;
    uint64_t count = (uint64_t)artifact->stages[0].dim * (cells->intervals - 1);
    json_t *cuts = json_array();
    for (uint64_t i = 0; i < count; i++) append(b, cuts, json_real(cells->cuts[i]));
    put(b, object, "cuts", cuts);
    put(b, object, "ids", id_list(b, cells->id, cells->count));
    put(b, object, "first", id_list(b, cells->first, cells->count + 1));
    return object;
}

static json_t *metrics_object(builder *b, const qem_artifact *artifact)
{
    const qem_metrics *metrics = &artifact->metrics;
    if (!artifact->has_metrics) return json_null();
    json_t *object = json_object();
    put(b, object, "mae", real(metrics->mae));
    put(b, object, "mse", real(metrics->mse));
    put(b, object, "mre", real(metrics->mre));
    put(b, object, "nmse", real(metrics->nmse));
    put(b, object, "max_error", real(metrics->max_error));
    put(b, object, "zeros", whole(metrics->zeros));
    put(b, object, "count", whole(metrics->count));
    return object;
}

static json_t *checksums_object(builder *b, const qem_artifact *artifact)
{
    json_t *object = json_object();
    uint32_t count = qem_artifact_part_count(artifact);
    for (uint32_t i = 0; i < count; i++) {
        qem_part part = QEM_PART_INIT;
        char hex[QEM_IO_HEX_BYTES + 1];
        if (qem_artifact_part(artifact, i, &part) != QEM_OK) {
            b->failed = 1;
            break;
        }
        qem_checksum(part.data, (size_t)part.bytes, hex);
        put(b, object, part.name, json_string(hex));
    }
    return object;
}

static json_t *root_object(builder *b, const qem_artifact *artifact)
{
    json_t *root = json_object();
    put(b, root, "name", json_string(artifact->name));
    put(b, root, "rows", whole(artifact->rows));
    put(b, root, "cols", whole(artifact->cols));
    put(b, root, "source_dtype", json_string(qem_dtype_name(artifact->source_dtype)));
    put(b, root, "method", json_string(qem_method_name(artifact->recipe.method)));
    put(b, root, "recipe", recipe_object(b, &artifact->recipe));
    put(b, root, "seed", wide(artifact->seed));
    put(b, root, "budget_bytes", whole(artifact->budget_bytes));
    put(b, root, "stages", stage_list(b, artifact));
    put(b, root, "cells", cells_object(b, artifact));
    put(b, root, "metrics", metrics_object(b, artifact));
    put(b, root, "xxh3", checksums_object(b, artifact));
    return root;
}

static qem_status add_self(qem_context *context, const char *body, char **text)
{
    size_t length = strlen(body);
    char hex[QEM_IO_HEX_BYTES + 1];
    void *memory = NULL;
    size_t room = length + QEM_IO_SELF_PREFIX_BYTES + QEM_IO_HEX_BYTES + 3;
    qem_checksum(body, length, hex);
    QEM_TRY(qem_allocate(context, room, 1, &memory));
    *text = memory;
    snprintf(*text, room, "%s%s\",%s", QEM_IO_SELF_PREFIX, hex, body + 1);
    return QEM_OK;
}

qem_status qem_artifact_text(qem_context *context, const qem_artifact *artifact, char **text)
{
    builder b = { 0 };
    json_t *root = root_object(&b, artifact);
    char *body = root && !b.failed ? json_dumps(root, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!body)
        return qem_fail(context, QEM_ERR_MEMORY, "out of memory for the metadata of artifact '%s'",
                        qem_show(artifact->name).text);
    qem_status status = add_self(context, body, text);
    qem_json_free(body);
    return status;
}
