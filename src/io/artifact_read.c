/*
 * Reading an artifact. The file is not trusted: every size is computed again from the shapes and compared, every byte
 * is checksummed, everything is copied, and qem_artifact_check has the last word. Only then may a decoder see it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

#define MAX_K ((uint64_t)1 << 24)

typedef struct loader {
    qem_io_reader reader;
    const json_t *root;
    const json_t *sums;
    size_t sums_used;
    qem_artifact *artifact;
} loader;

/* ------------------------------------------------------------------------------------------------- the text ----- */

/* The checksum covers the text from its '{' on, without the "self" entry that stands behind it. */
static qem_status check_self(const qem_io_reader *reader)
{
    const char *text = reader->entry->text;
    const size_t rest = QEM_IO_SELF_PREFIX_BYTES + QEM_IO_HEX_BYTES + 2; /* behind the closing quote and the comma */
    if (reader->entry->length <= rest || memcmp(text, QEM_IO_SELF_PREFIX, QEM_IO_SELF_PREFIX_BYTES) != 0 ||
        memcmp(text + rest - 2, "\",", 2) != 0)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "the metadata does not begin with the checksum 'self'");
    size_t length = reader->entry->length - rest + 1;
    void *memory = NULL;
    QEM_TRY(qem_allocate(reader->context, length, 1, &memory));
    char *covered = memory;
    covered[0] = '{';
    memcpy(covered + 1, text + rest, length - 1);
    int matches = qem_checksum_matches(covered, length, text + QEM_IO_SELF_PREFIX_BYTES);
    qem_release(reader->context, memory);
    if (matches) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_CHECKSUM, "the metadata do not match their checksum");
}

static qem_status read_metrics(loader *l)
{
    const qem_io_reader *reader = &l->reader;
    qem_metrics *metrics = &l->artifact->metrics;
    json_t *object = NULL;
    *metrics = (qem_metrics)QEM_METRICS_INIT;
    QEM_TRY(qem_read_member(reader, l->root, "metrics", &object));
    if (json_is_null(object)) return QEM_OK;
    QEM_TRY(qem_read_object(reader, l->root, "metrics", &object));
    QEM_TRY(qem_read_real(reader, object, "mae", &metrics->mae));
    QEM_TRY(qem_read_real(reader, object, "mse", &metrics->mse));
    QEM_TRY(qem_read_real(reader, object, "mre", &metrics->mre));
    QEM_TRY(qem_read_real(reader, object, "nmse", &metrics->nmse));
    QEM_TRY(qem_read_real(reader, object, "max_error", &metrics->max_error));
    QEM_TRY(qem_read_u64(reader, object, "zeros", 0, UINT64_MAX, &metrics->zeros));
    QEM_TRY(qem_read_u64(reader, object, "count", 0, UINT64_MAX, &metrics->count));
    l->artifact->has_metrics = 1;
    return QEM_OK;
}

/* ------------------------------------------------------------------------------------------------- the parts ---- */

static qem_status check_part(loader *l, const char *part, const qem_io_tensor *tensor, const qem_blob *blob)
{
    const char *sum = NULL;
    if (tensor->dtype != blob->dtype)
        return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "its tensor '%s' has type %s, not %s", part,
                               qem_dtype_name(tensor->dtype), qem_dtype_name(blob->dtype));
    if (tensor->bytes != blob->bytes)
        return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "its tensor '%s' has %llu bytes, its shape asks for %llu",
                               part, (unsigned long long)tensor->bytes, (unsigned long long)blob->bytes);
    QEM_TRY(qem_read_string(&l->reader, l->sums, part, &sum));
    l->sums_used++;
    if (strlen(sum) == QEM_IO_HEX_BYTES && qem_checksum_matches(tensor->data, (size_t)blob->bytes, sum)) return QEM_OK;
    return qem_reader_fail(&l->reader, QEM_ERR_CHECKSUM, "the bytes of its tensor '%s' do not match their checksum",
                           part);
}

/* Copies a part to where the artifact has it, with zero bytes behind it. A part of no bytes may be left out of the file. */
static qem_status read_part(loader *l, uint32_t stage, const qem_blob *blob)
{
    const char *part = qem_blob_name(stage, blob->name);
    char name[320];
    void *copy = blob->inlined;
    snprintf(name, sizeof name, "%s.%s", l->reader.entry->name, part);
    const qem_io_tensor *tensor = qem_file_find(l->reader.file, name);
    if (!tensor && blob->bytes > 0)
        return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "its tensor '%s' is missing", part);
    if (tensor) QEM_TRY(check_part(l, part, tensor, blob));
    if (blob->slot) {
        QEM_TRY(qem_allocate(l->reader.context, blob->bytes + blob->slack, 1, blob->slot));
        copy = *blob->slot;
    }
    if (blob->bytes > 0) memcpy(copy, tensor->data, (size_t)blob->bytes);
    memset((char *)copy + blob->bytes, 0, (size_t)blob->slack);
    return QEM_OK;
}

static qem_status read_stream(loader *l, uint32_t stage, const char *name, uint64_t bytes, uint8_t **slot)
{
    qem_blob blob = { .name = name, .dtype = QEM_DTYPE_U8, .bytes = bytes, .slot = (void **)slot, .slack = QEM_IO_SLACK };
    return read_part(l, stage, &blob);
}

/* Before the other parts of its stage: their sizes depend on these widths. */
static qem_status read_group_bits(loader *l, uint32_t index, qem_stage *stage)
{
    QEM_TRY(read_stream(l, index, "group_bits", stage->groups, &stage->group_bits));
    for (uint64_t g = 0; g < stage->groups; g++)
        if (stage->group_bits[g] > stage->code_bits)
            return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "stage %u: group %llu has codes of %u bits, more than %u",
                                   (unsigned)index, (unsigned long long)g, stage->group_bits[g], stage->code_bits);
    return QEM_OK;
}

static qem_status read_stage(loader *l, uint32_t index, const json_t *object)
{
    qem_artifact *artifact = l->artifact;
    qem_stage *stage = &artifact->stages[index];
    qem_blob blobs[QEM_MOST_BLOBS];
    int has_group_bits = 0;
    if (!json_is_object(object)) return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "stage %u is no object", index);
    QEM_TRY(qem_read_stage(&l->reader, object, artifact, stage, &has_group_bits));
    if (has_group_bits) QEM_TRY(read_group_bits(l, index, stage));
    qem_stage_sizes(stage, artifact->cols);
    const uint32_t count = qem_artifact_blobs(artifact, index, blobs);
    for (uint32_t i = 0; i < count; i++)
        if (!blobs[i].slot || !*blobs[i].slot) QEM_TRY(read_part(l, index, &blobs[i]));
    /* Codes of no bits have no part, but decoders read on from where they would be. */
    if (!stage->codes) QEM_TRY(read_stream(l, index, "codes", 0, &stage->codes));
    QEM_TRY(qem_stage_expand_rotation(l->reader.context, stage, artifact->cols));
    return qem_stage_expand_codebook(l->reader.context, stage, artifact->cols);
}

/* Makes what decoders read of the steps and outliers, once all parts are there. */
static qem_status expand(qem_context *context, qem_artifact *artifact)
{
    for (uint32_t i = 0; i < artifact->layer_count; i++)
        for (uint32_t step = 0; step < artifact->layers[i].affine_count; step++)
            QEM_TRY(qem_affine_expand(context, &artifact->layers[i].affine[step]));
    return artifact->outliers.count ? qem_outliers_expand(context, &artifact->outliers) : QEM_OK;
}

/* ------------------------------------------------------------------------------------------------- the cells ---- */

static qem_status read_ids(loader *l, const json_t *object, const char *key, uint64_t count, uint32_t **numbers)
{
    json_t *list = NULL;
    void *memory = NULL;
    QEM_TRY(qem_read_array(&l->reader, object, key, &list));
    if (json_array_size(list) != count)
        return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "the metadata key '%s' has %zu numbers, not %llu", key,
                               json_array_size(list), (unsigned long long)count);
    QEM_TRY(qem_allocate(l->reader.context, count, sizeof **numbers, &memory));
    *numbers = memory;
    for (uint64_t i = 0; i < count; i++) {
        const json_t *number = json_array_get(list, (size_t)i);
        json_int_t value = json_integer_value(number);
        if (!json_is_integer(number) || value < 0 || value > (json_int_t)MAX_K)
            return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "the metadata key '%s' holds no number up to 2^24", key);
        (*numbers)[i] = (uint32_t)value;
        if (i > 0 && (*numbers)[i] <= (*numbers)[i - 1])
            return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "the metadata key '%s' does not ascend", key);
    }
    return QEM_OK;
}

static qem_status read_cuts(loader *l, const json_t *object, uint32_t dim, uint32_t intervals, float **cuts)
{
    json_t *list = NULL;
    void *memory = NULL;
    uint64_t count = (uint64_t)dim * (intervals - 1);
    QEM_TRY(qem_read_array(&l->reader, object, "cuts", &list));
    if (json_array_size(list) != count)
        return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "%zu cuts are there, dim and intervals ask for %llu",
                               json_array_size(list), (unsigned long long)count);
    QEM_TRY(qem_allocate(l->reader.context, count, sizeof **cuts, &memory));
    *cuts = memory;
    for (uint64_t i = 0; i < count; i++) {
        const json_t *number = json_array_get(list, (size_t)i);
        double value = json_number_value(number);
        if (!json_is_number(number) || !(fabs(value) <= 3.4028234663852886e38))
            return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "a cut is no finite float");
        (*cuts)[i] = (float)value;
        if (i % (intervals - 1) != 0 && (*cuts)[i] < (*cuts)[i - 1])
            return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "the cuts do not ascend");
    }
    return QEM_OK;
}

/* intervals^dim, or MAX_K + 1 when it is larger. */
static uint64_t cell_limit(uint32_t intervals, uint32_t dim)
{
    uint64_t cells = 1;
    for (uint32_t i = 0; i < dim && cells <= MAX_K; i++) cells *= intervals;
    return cells <= MAX_K ? cells : MAX_K + 1;
}

static qem_status read_cells(loader *l)
{
    const qem_io_reader *reader = &l->reader;
    const qem_stage *stage = &l->artifact->stages[0];
    qem_cells *cells = &l->artifact->cells;
    json_t *object = NULL;
    QEM_TRY(qem_read_object(reader, l->root, "cells", &object));
    QEM_TRY(qem_read_u32(reader, object, "intervals", 0, 255, &cells->intervals));
    QEM_TRY(qem_read_u64(reader, object, "count", 0, MAX_K, &cells->count));
    if (cells->intervals <= 1) return QEM_OK;
    uint64_t limit = cell_limit(cells->intervals, stage->dim);
    if (limit > MAX_K || cells->count < 1 || cells->count > limit || stage->kind != QEM_CODEBOOK_SHARED)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "%llu cells of %u intervals do not fit the codebook",
                               (unsigned long long)cells->count, (unsigned)cells->intervals);
    QEM_TRY(read_cuts(l, object, stage->dim, cells->intervals, &cells->cuts));
    QEM_TRY(read_ids(l, object, "ids", cells->count, &cells->id));
    QEM_TRY(read_ids(l, object, "first", cells->count + 1, &cells->first));
    if (cells->id[cells->count - 1] >= limit || cells->first[0] != 0 || cells->first[cells->count] != stage->k)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its cells do not cover the %llu centroids",
                               (unsigned long long)stage->k);
    return QEM_OK;
}

/* -------------------------------------------------------------------------------------------------- the whole --- */

/* A part that no stage asked for may change what the matrix decodes to, so it is not passed over. */
static qem_status check_all_used(const loader *l)
{
    if (l->sums_used == json_object_size(l->sums)) return QEM_OK;
    return qem_reader_fail(&l->reader, QEM_ERR_FORMAT, "it has %zu parts, of which this version of qem knows %zu",
                           json_object_size(l->sums), l->sums_used);
}

static qem_status read_stages(loader *l, const json_t *stages)
{
    json_t *sums = NULL;
    QEM_TRY(qem_read_object(&l->reader, l->root, "xxh3", &sums));
    l->sums = sums;
    QEM_TRY(qem_read_layers(&l->reader, l->root, l->artifact));
    QEM_TRY(qem_read_outliers(&l->reader, l->root, l->artifact));
    for (uint32_t i = 0; i < l->artifact->stage_count; i++) QEM_TRY(read_stage(l, i, json_array_get(stages, i)));
    QEM_TRY(check_all_used(l));
    return expand(l->reader.context, l->artifact);
}

static qem_status read_shape(const qem_io_reader *reader, const json_t *root, uint64_t *rows, uint64_t *cols)
{
    const char *name = NULL;
    QEM_TRY(qem_read_string(reader, root, "name", &name));
    if (strcmp(name, reader->entry->name) != 0)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "its metadata are those of '%s'", qem_show(name).text);
    QEM_TRY(qem_read_u64(reader, root, "rows", 1, QEM_IO_MAX_ELEMENTS - 1, rows));
    QEM_TRY(qem_read_u64(reader, root, "cols", 1, QEM_IO_MAX_ELEMENTS - 1, cols));
    if (*rows <= (QEM_IO_MAX_ELEMENTS - 1) / *cols) return QEM_OK;
    return qem_reader_fail(reader, QEM_ERR_FORMAT, "%llu x %llu elements are more than the limit of 2^48",
                           (unsigned long long)*rows, (unsigned long long)*cols);
}

static qem_status fill(loader *l, const json_t *stages)
{
    const qem_io_reader *reader = &l->reader;
    qem_artifact *artifact = l->artifact;
    artifact->quantize_seconds = NAN;
    QEM_TRY(qem_read_dtype(reader, l->root, "source_dtype", &artifact->source_dtype));
    QEM_TRY(qem_read_u64(reader, l->root, "seed", 0, UINT64_MAX, &artifact->seed));
    QEM_TRY(qem_read_u64(reader, l->root, "budget_bytes", 0, UINT64_MAX, &artifact->budget_bytes));
    QEM_TRY(qem_read_recipe(reader, l->root, artifact));
    QEM_TRY(read_stages(l, stages));
    QEM_TRY(read_cells(l));
    QEM_TRY(read_metrics(l));
    char what[640];
    snprintf(what, sizeof what, "%s: artifact '%s'", reader->file->path, qem_show(reader->entry->name).text);
    return qem_artifact_check(reader->context, artifact, what);
}

/* Lengths of the lists of stages and layers; without the latter (format 1) every stage is a layer. */
static qem_status read_counts(const qem_io_reader *reader, const json_t *root, json_t **stages, uint32_t *stage_count,
                              uint32_t *layer_count)
{
    json_t *layers = NULL;
    QEM_TRY(qem_read_array(reader, root, "stages", stages));
    if (json_array_size(*stages) < 1 || json_array_size(*stages) > QEM_MOST_STAGES)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "%zu stages are not within 1 .. %d", json_array_size(*stages),
                               QEM_MOST_STAGES);
    *stage_count = *layer_count = (uint32_t)json_array_size(*stages);
    if (!json_object_get(root, "layers")) return QEM_OK;
    QEM_TRY(qem_read_array(reader, root, "layers", &layers));
    if (json_array_size(layers) < 1 || json_array_size(layers) > *stage_count)
        return qem_reader_fail(reader, QEM_ERR_FORMAT, "%zu layers are not within 1 .. %u, its stages", json_array_size(layers),
                               (unsigned)*stage_count);
    *layer_count = (uint32_t)json_array_size(layers);
    return QEM_OK;
}

static qem_status load(const qem_io_reader *reader, const json_t *root, qem_artifact **artifact)
{
    uint64_t rows = 0, cols = 0;
    uint32_t stage_count = 0, layer_count = 0;
    json_t *stages = NULL;
    QEM_TRY(read_shape(reader, root, &rows, &cols));
    QEM_TRY(read_counts(reader, root, &stages, &stage_count, &layer_count));
    loader l = { *reader, root, NULL, 0, NULL };
    QEM_TRY(qem_artifact_new(reader->context, reader->entry->name, rows, cols, stage_count, layer_count, &l.artifact));
    qem_status status = fill(&l, stages);
    if (status != QEM_OK) qem_artifact_destroy(&l.artifact);
    *artifact = l.artifact;
    return status;
}

static qem_status find_entry(qem_context *context, const qem_file *file, const char *name,
                             const qem_io_artifact **entry)
{
    if (file->artifact_count == 0)
        return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: holds no qem artifact", file->path);
    if (!name && file->artifact_count > 1)
        return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: holds %u artifacts, name one of them: '%s', '%s'%s",
                        file->path, (unsigned)file->artifact_count, qem_show(file->artifacts[0].name).text,
                        qem_show(file->artifacts[1].name).text, file->artifact_count > 2 ? ", ..." : "");
    for (uint32_t i = 0; i < file->artifact_count; i++) {
        *entry = &file->artifacts[i];
        if (!name || strcmp((*entry)->name, name) == 0) return QEM_OK;
    }
    return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: no artifact '%s'; there is '%s'%s", file->path,
                    qem_show(name).text, qem_show(file->artifacts[0].name).text,
                    file->artifact_count > 1 ? " and others" : "");
}

qem_status qem_file_load(qem_context *context, const qem_file *file, const char *name, qem_artifact **artifact)
{
    if (artifact) *artifact = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!file || !artifact)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_file_load: file and artifact must not be NULL");
    qem_io_reader reader = { context, file, NULL };
    QEM_TRY(find_entry(context, file, name, &reader.entry));
    QEM_TRY(check_self(&reader));
    json_error_t error;
    json_t *root = json_loadb(reader.entry->text, reader.entry->length, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return qem_reader_fail(&reader, QEM_ERR_MEMORY, "the metadata cannot be read: %s", qem_show(error.text).text);
    qem_status status = load(&reader, root, artifact);
    json_decref(root);
    return status;
}

qem_status qem_load(qem_context *context, const char *path, qem_artifact **artifact)
{
    if (artifact) *artifact = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!path || !artifact)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_load: path and artifact must not be NULL");
    qem_file *file = NULL;
    QEM_TRY(qem_file_open(context, path, &file));
    qem_status status = qem_file_load(context, file, NULL, artifact);
    qem_file_close(&file);
    return status;
}
