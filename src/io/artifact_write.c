/*
 * The metadata text of an artifact: compact JSON with sorted keys, no time, device or thread count in it, so that the
 * same input gives the same bytes. Reals have 17 digits: every float and double comes back as it was.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/io.h"

void qem_json_put(qem_io_builder *b, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) b->failed = 1;
}

void qem_json_put_new(qem_io_builder *b, json_t *object, const char *key, json_t *value)
{
    b->version = QEM_IO_FORMAT_VERSION;
    qem_json_put(b, object, key, value);
}

static void append(qem_io_builder *b, json_t *list, json_t *value)
{
    if (json_array_append_new(list, value) != 0) b->failed = 1;
}

json_t *qem_json_real(double value)
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

json_t *qem_json_whole(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : wide(value);
}

static json_t *stage_object(qem_io_builder *b, const qem_artifact *artifact, const qem_stage *stage)
{
    json_t *object = json_object();
    qem_json_put(b, object, "kind", json_string(qem_io_kind_words[stage->kind]));
    qem_json_put(b, object, "dim", qem_json_whole(stage->dim));
    qem_json_put(b, object, "k", qem_json_whole(stage->k));
    qem_json_put(b, object, "code_bits", qem_json_whole(stage->code_bits));
    qem_json_put(b, object, "levels", qem_json_whole(stage->levels));
    qem_json_put(b, object, "codebook", json_string(qem_dtype_name(stage->codebook_dtype)));
    if (stage->codebook_bits) qem_json_put_new(b, object, "codebook_bits", qem_json_whole(stage->codebook_bits));
    if (stage->kind == QEM_CODEBOOK_TABLE) qem_json_put_new(b, object, "table", json_string(qem_io_table_words[stage->table]));
    if (stage->group_bits) qem_json_put_new(b, object, "group_bits", json_true());
    if (stage->cells) qem_json_put_new(b, object, "cells", qem_json_whole(stage->cells));
    if (stage->half_rotation) qem_json_put_new(b, object, "rotation", json_string(qem_dtype_name(QEM_DTYPE_F16)));
    if (stage->row_begin == 0 && stage->row_end == artifact->rows) return object;
    qem_json_put_new(b, object, "row_begin", qem_json_whole(stage->row_begin));
    qem_json_put_new(b, object, "row_end", qem_json_whole(stage->row_end));
    return object;
}

static json_t *stage_list(qem_io_builder *b, const qem_artifact *artifact)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < artifact->stage_count; i++) append(b, list, stage_object(b, artifact, &artifact->stages[i]));
    return list;
}

static json_t *step_list(qem_io_builder *b, const qem_layer *layer)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < layer->affine_count; i++) {
        const qem_affine *step = &layer->affine[i];
        json_t *object = json_object();
        qem_json_put(b, object, "axis", json_string(qem_io_axis_words[step->axis]));
        if (step->axis == QEM_AXIS_BLOCK) qem_json_put(b, object, "block", qem_json_whole(step->block));
        qem_json_put(b, object, "params", qem_json_whole(step->params));
        qem_json_put(b, object, "scale", json_boolean(step->has_scale));
        qem_json_put(b, object, "mean", json_boolean(step->has_mean));
        append(b, list, object);
    }
    return list;
}

static json_t *layer_list(qem_io_builder *b, const qem_artifact *artifact)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < artifact->layer_count; i++) {
        const qem_layer *layer = &artifact->layers[i];
        json_t *object = json_object();
        qem_json_put(b, object, "stage_first", qem_json_whole(layer->stage_first));
        qem_json_put(b, object, "stage_count", qem_json_whole(layer->stage_count));
        if (layer->affine_count) qem_json_put(b, object, "steps", step_list(b, layer));
        append(b, list, object);
    }
    return list;
}

/* Format 1 knows layers of one stage without steps alone, and does not list them. */
static int layers_are_stages(const qem_artifact *artifact)
{
    for (uint32_t i = 0; i < artifact->layer_count; i++)
        if (artifact->layers[i].stage_count != 1 || artifact->layers[i].affine_count > 0) return 0;
    return 1;
}

static json_t *outliers_object(qem_io_builder *b, const qem_outliers *outliers)
{
    json_t *object = json_object();
    qem_json_put(b, object, "count", qem_json_whole(outliers->count));
    qem_json_put(b, object, "value_dtype", json_string(qem_dtype_name(outliers->value_dtype)));
    return object;
}

static json_t *id_list(qem_io_builder *b, const uint32_t *ids, uint64_t count)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < count; i++) append(b, list, json_integer((json_int_t)ids[i]));
    return list;
}

static json_t *cells_object(qem_io_builder *b, const qem_artifact *artifact)
{
    const qem_cells *cells = &artifact->cells;
    json_t *object = json_object();
    qem_json_put(b, object, "intervals", qem_json_whole(cells->intervals));
    qem_json_put(b, object, "count", qem_json_whole(cells->count));
    if (cells->intervals <= 1) return object;
    uint64_t count = (uint64_t)artifact->stages[0].dim * (cells->intervals - 1);
    json_t *cuts = json_array();
    for (uint64_t i = 0; i < count; i++) append(b, cuts, json_real(cells->cuts[i]));
    qem_json_put(b, object, "cuts", cuts);
    qem_json_put(b, object, "ids", id_list(b, cells->id, cells->count));
    qem_json_put(b, object, "first", id_list(b, cells->first, cells->count + 1));
    return object;
}

static json_t *metrics_object(qem_io_builder *b, const qem_artifact *artifact)
{
    const qem_metrics *metrics = &artifact->metrics;
    if (!artifact->has_metrics) return json_null();
    json_t *object = json_object();
    qem_json_put(b, object, "mae", qem_json_real(metrics->mae));
    qem_json_put(b, object, "mse", qem_json_real(metrics->mse));
    qem_json_put(b, object, "mre", qem_json_real(metrics->mre));
    qem_json_put(b, object, "nmse", qem_json_real(metrics->nmse));
    qem_json_put(b, object, "max_error", qem_json_real(metrics->max_error));
    qem_json_put(b, object, "zeros", qem_json_whole(metrics->zeros));
    qem_json_put(b, object, "count", qem_json_whole(metrics->count));
    return object;
}

static json_t *checksums_object(qem_io_builder *b, const qem_artifact *artifact)
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
        qem_json_put(b, object, part.name, json_string(hex));
    }
    return object;
}

static json_t *root_object(qem_io_builder *b, const qem_artifact *artifact)
{
    if (artifact->recipe.method > QEM_METHOD_QET) b->version = QEM_IO_FORMAT_VERSION; /* a name that format 1 does not know */
    json_t *root = json_object();
    qem_json_put(b, root, "name", json_string(artifact->name));
    qem_json_put(b, root, "rows", qem_json_whole(artifact->rows));
    qem_json_put(b, root, "cols", qem_json_whole(artifact->cols));
    qem_json_put(b, root, "source_dtype", json_string(qem_dtype_name(artifact->source_dtype)));
    qem_json_put(b, root, "method", json_string(qem_method_name(artifact->recipe.method)));
    qem_json_put(b, root, "recipe", qem_recipe_object(b, &artifact->recipe));
    qem_json_put(b, root, "seed", wide(artifact->seed));
    qem_json_put(b, root, "budget_bytes", qem_json_whole(artifact->budget_bytes));
    qem_json_put(b, root, "stages", stage_list(b, artifact));
    if (!layers_are_stages(artifact)) qem_json_put_new(b, root, "layers", layer_list(b, artifact));
    if (artifact->outliers.count) qem_json_put_new(b, root, "outliers", outliers_object(b, &artifact->outliers));
    qem_json_put(b, root, "cells", cells_object(b, artifact));
    qem_json_put(b, root, "metrics", metrics_object(b, artifact));
    qem_json_put(b, root, "xxh3", checksums_object(b, artifact));
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

qem_status qem_artifact_text(qem_context *context, const qem_artifact *artifact, char **text, int *version)
{
    qem_io_builder b = { 0, 1 };
    json_t *root = root_object(&b, artifact);
    char *body = root && !b.failed ? json_dumps(root, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!body)
        return qem_fail(context, QEM_ERR_MEMORY, "out of memory for the metadata of artifact '%s'",
                        qem_show(artifact->name).text);
    qem_status status = add_self(context, body, text);
    qem_json_free(body);
    *version = b.version;
    return status;
}
