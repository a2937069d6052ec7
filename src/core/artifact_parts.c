/* The parts of an artifact: their names, sizes and places, the one list that files, checks, sums and queries go by. */
#include <stddef.h>
#include <string.h>

#include "artifact.h"

/* ---- sizes that follow from the shape ---- */

uint32_t qem_code_bits(uint64_t k)
{
    uint32_t bits = 0;
    while (((uint64_t)1 << bits) < k) bits++;
    return bits;
}

uint64_t qem_bit_stream_bytes(uint64_t count, uint32_t bits)
{
    return (count / 8) * bits + ((count % 8) * bits + 7) / 8;
}

uint64_t qem_codebook_floats(qem_codebook_kind kind, uint64_t cols, uint32_t dim, uint64_t k)
{
    switch (kind) {
    case QEM_CODEBOOK_SHARED: return k * dim;
    case QEM_CODEBOOK_PER_GROUP: return k * cols; /* the groups' widths add up to the columns */
    case QEM_CODEBOOK_UNIFORM:
    case QEM_CODEBOOK_TABLE: return 0;
    }
    return 0;
}

static uint64_t group_width(const qem_stage *stage, uint64_t cols, uint64_t group)
{
    return group + 1 == stage->groups && cols % stage->dim ? cols % stage->dim : stage->dim;
}

uint64_t qem_stage_codebook_floats(const qem_stage *stage, uint64_t cols)
{
    const uint64_t copies = stage->cells > 1 ? stage->cells : 1;
    uint64_t floats = 0;
    if (!stage->group_bits) return copies * qem_codebook_floats(stage->kind, cols, stage->dim, stage->k);
    for (uint64_t g = 0; g < stage->groups; g++) floats += group_width(stage, cols, g) << stage->group_bits[g];
    return copies * floats;
}

uint64_t qem_stage_components(const qem_stage *stage, uint64_t cols)
{
    const uint64_t copies = stage->cells > 1 ? stage->cells : 1;
    return stage->kind == QEM_CODEBOOK_SHARED ? stage->dim : copies * cols;
}

uint64_t qem_stage_row_bits(const qem_stage *stage)
{
    uint64_t bits = 0;
    if (!stage->group_bits) return stage->groups * stage->code_bits;
    for (uint64_t g = 0; g < stage->groups; g++) bits += stage->group_bits[g];
    return bits;
}

void qem_stage_sizes(qem_stage *stage, uint64_t cols)
{
    const uint64_t rows = stage->row_end - stage->row_begin, floats = qem_stage_codebook_floats(stage, cols);
    stage->codes_bytes = (rows * qem_stage_row_bits(stage) + 7) / 8;
    stage->codebook_bytes = stage->codebook_dtype == QEM_DTYPE_U8 ? qem_bit_stream_bytes(floats, stage->codebook_bits)
                                                                  : floats * qem_dtype_size(stage->codebook_dtype);
    stage->swap_map_bytes = stage->levels ? qem_swap_map_bytes(rows, cols, stage->levels) : 0;
}

uint32_t qem_recipe_halves_rotation(const qem_recipe *recipe)
{
    return (recipe->method == QEM_METHOD_OPQ || recipe->method == QEM_METHOD_LOPQ) && recipe->params == 16;
}

qem_stage qem_recipe_stage(qem_codebook_kind kind, uint64_t cols, const qem_recipe *recipe, uint64_t k)
{
    const int formula = kind == QEM_CODEBOOK_UNIFORM || kind == QEM_CODEBOOK_TABLE;
    return (qem_stage){
        .kind = kind,
        .dim = recipe->dim,
        .k = k,
        .code_bits = qem_code_bits(k),
        .levels = recipe->levels,
        .groups = (cols + recipe->dim - 1) / recipe->dim,
        .codebook_dtype = formula ? QEM_DTYPE_F32 : recipe->codebook_bits ? QEM_DTYPE_U8 : recipe->codebook,
        .codebook_bits = formula ? 0 : recipe->codebook_bits,
        .cells = recipe->method == QEM_METHOD_OPQ ? 1 : recipe->cells,
        .half_rotation = qem_recipe_halves_rotation(recipe),
    };
}

uint64_t qem_recipe_bytes(qem_codebook_kind kind, uint64_t rows, uint64_t cols, const qem_recipe *recipe, uint64_t k)
{
    qem_stage stage = qem_recipe_stage(kind, cols, recipe, k);
    qem_artifact artifact = { .rows = rows, .cols = cols, .stage_count = 1, .stages = &stage };
    qem_parts parts;
    uint64_t bytes;
    stage.row_end = rows;
    qem_stage_sizes(&stage, cols);
    qem_artifact_parts(&artifact, &parts, &bytes);
    return bytes;
}

#define SUPER_ELEMENTS 256 /* matrix elements whose blocks share a super-scale; rows and columns: units */

void qem_affine_sizes(qem_affine *a, uint64_t rows, uint64_t cols)
{
    a->per_super = SUPER_ELEMENTS;
    switch (a->axis) {
    case QEM_AXIS_TENSOR: a->units = 1; break;
    case QEM_AXIS_ROW: a->units = rows; break;
    case QEM_AXIS_COLUMN: a->units = cols; break;
    case QEM_AXIS_BLOCK:
        a->units = rows * ((cols - 1) / a->block + 1);
        a->per_super = a->block < SUPER_ELEMENTS ? SUPER_ELEMENTS / a->block : 1;
        break;
    }
    a->supers = a->params < 16 ? (a->units - 1) / a->per_super + 1 : 0;
}

static uint64_t param_bytes(const qem_affine *a)
{
    return a->params < 16 ? qem_bit_stream_bytes(a->units, a->params) : a->units * (a->params / 8);
}

uint64_t qem_affine_bytes(const qem_affine *a)
{
    return (uint64_t)(a->has_scale + a->has_mean) * (param_bytes(a) + a->supers * sizeof(uint16_t));
}

/* ---- names ---- */

#define ALL_NAMES(p)                                                                                                          \
    {                                                                                                                         \
        p "codebook", p "codebook_scale", p "scale", p "mean", p "group_bits", p "codes", p "swap_map", p "rotation",         \
            p "coarse", p "row_cells", p "tensor_scale", p "tensor_scale_super", p "tensor_mean", p "tensor_mean_super",      \
            p "row_scale", p "row_scale_super", p "row_mean", p "row_mean_super", p "column_scale", p "column_scale_super",   \
            p "column_mean", p "column_mean_super", p "block_scale", p "block_scale_super", p "block_mean",                   \
            p "block_mean_super", p "outlier_index", p "outlier_value"                                                        \
    }
#define NAMES 28
static const char *const names[QEM_MOST_STAGES][NAMES] = { ALL_NAMES(""),   ALL_NAMES("1."), ALL_NAMES("2."), ALL_NAMES("3."),
                                                           ALL_NAMES("4."), ALL_NAMES("5."), ALL_NAMES("6."), ALL_NAMES("7.") };
enum { TENSOR_SCALE = 10, STEP_NAMES = 4 }; /* names of steps: axis by axis, in the order of qem_axis */

const char *qem_blob_name(uint32_t stage, const char *name)
{
    for (uint32_t i = 0; stage < QEM_MOST_STAGES && i < NAMES; i++)
        if (strcmp(names[0][i], name) == 0) return names[stage][i];
    return NULL;
}

/* ---- the list ---- */

typedef struct blob_list {
    qem_blob *blobs;
    uint32_t count;
} blob_list;

/* An entry of `count` elements; slot and the rest are the caller's to change. */
static qem_blob *add(blob_list *list, const char *name, qem_dtype dtype, uint64_t count, size_t counter)
{
    qem_blob *blob = &list->blobs[list->count++];
    memset(blob, 0, sizeof *blob);
    blob->name = name;
    blob->dtype = dtype;
    blob->bytes = count * qem_dtype_size(dtype);
    blob->rank = 1;
    blob->shape[0] = count;
    blob->counter = counter;
    return blob;
}

static void set_shape(qem_blob *blob, uint32_t rank, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    blob->rank = rank;
    blob->shape[0] = a;
    blob->shape[1] = b;
    blob->shape[2] = c;
    blob->shape[3] = d;
}

static void add_stream(blob_list *list, const char *name, uint64_t bytes, uint8_t **slot, size_t counter)
{
    qem_blob *blob = add(list, name, QEM_DTYPE_U8, bytes, counter);
    blob->slot = (void **)slot;
    blob->slack = QEM_STREAM_SLACK;
}

static void add_codebook(blob_list *list, qem_stage *s, uint64_t cols)
{
    qem_blob *blob = add(list, "codebook", s->codebook_dtype, 0, offsetof(qem_parts, codebook));
    blob->bytes = s->codebook_bytes;
    blob->slot = &s->codebook_stored;
    if (s->codebook_dtype == QEM_DTYPE_U8) {
        blob->slack = QEM_STREAM_SLACK;
        set_shape(blob, 1, s->codebook_bytes, 0, 0, 0);
        blob = add(list, "codebook_scale", QEM_DTYPE_F32, 2 * qem_stage_components(s, cols), offsetof(qem_parts, codebook_scale));
        blob->slot = (void **)&s->codebook_scale;
        set_shape(blob, 2, qem_stage_components(s, cols), 2, 0, 0);
    } else if (s->kind == QEM_CODEBOOK_SHARED)
        set_shape(blob, 2, s->k, s->dim, 0, 0);
    else if (cols % s->dim || s->group_bits) /* the tail group's entries are shorter, or groups have fewer */
        set_shape(blob, 1, qem_stage_codebook_floats(s, cols), 0, 0, 0);
    else if (s->cells > 1)
        set_shape(blob, 4, s->cells, s->groups, s->k, s->dim);
    else
        set_shape(blob, 3, s->groups, s->k, s->dim, 0);
}

static void add_stage(blob_list *list, qem_stage *s, uint64_t cols)
{
    const qem_dtype rotation_dtype = s->half_rotation ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
    qem_blob *blob;
    if (s->kind == QEM_CODEBOOK_SHARED || s->kind == QEM_CODEBOOK_PER_GROUP) add_codebook(list, s, cols);
    if (s->kind == QEM_CODEBOOK_UNIFORM) {
        add(list, "scale", QEM_DTYPE_F32, 1, offsetof(qem_parts, scale))->inlined = &s->scale;
        add(list, "mean", QEM_DTYPE_F32, 1, offsetof(qem_parts, mean))->inlined = &s->mean;
    }
    if (s->group_bits) add_stream(list, "group_bits", s->groups, &s->group_bits, offsetof(qem_parts, group_bits));
    if (s->codes_bytes) add_stream(list, "codes", s->codes_bytes, &s->codes, offsetof(qem_parts, codes));
    if (s->levels) add_stream(list, "swap_map", s->swap_map_bytes, &s->swap_map, offsetof(qem_parts, swap_map));
    if (s->cells) {
        blob = add(list, "rotation", rotation_dtype, s->cells * cols * cols, offsetof(qem_parts, rotation));
        blob->slot = s->half_rotation ? (void **)&s->rotation_half : (void **)&s->rotation;
        set_shape(blob, 3, s->cells, cols, cols, 0);
    }
    if (s->cells > 1) {
        blob = add(list, "coarse", rotation_dtype, s->cells * cols, offsetof(qem_parts, coarse));
        blob->slot = s->half_rotation ? (void **)&s->coarse_half : (void **)&s->coarse;
        set_shape(blob, 2, s->cells, cols, 0, 0);
        add_stream(list, "row_cells", qem_bit_stream_bytes(s->row_end - s->row_begin, qem_code_bits(s->cells)), &s->row_cells,
                   offsetof(qem_parts, coarse));
    }
}

static void add_params(blob_list *list, const qem_affine *a, int mean, void **stored, uint16_t **supers)
{
    const char *const *name = &names[0][TENSOR_SCALE + STEP_NAMES * (int)a->axis + 2 * mean];
    const size_t counter = mean ? offsetof(qem_parts, mean) : offsetof(qem_parts, scale);
    const qem_dtype dtype = a->params < 16 ? QEM_DTYPE_U8 : a->params == 16 ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
    qem_blob *blob = add(list, name[0], dtype, a->params < 16 ? param_bytes(a) : a->units, counter);
    blob->slot = stored;
    if (a->params >= 16) return;
    blob->slack = QEM_STREAM_SLACK;
    add(list, name[1], QEM_DTYPE_F16, a->supers, counter)->slot = (void **)supers;
}

static void add_outliers(blob_list *list, qem_outliers *o)
{
    const qem_dtype index = o->index_size == 8 ? QEM_DTYPE_U64 : QEM_DTYPE_U32;
    add(list, "outlier_index", index, o->count, offsetof(qem_parts, outlier_index))->slot = &o->index;
    add(list, "outlier_value", o->value_dtype, o->count, offsetof(qem_parts, outlier_value))->slot = &o->value_stored;
}

static qem_layer *layer_that_begins(qem_artifact *artifact, uint32_t stage)
{
    for (uint32_t i = 0; i < artifact->layer_count; i++)
        if (artifact->layers[i].stage_first == stage) return &artifact->layers[i];
    return NULL;
}

uint32_t qem_artifact_blobs(qem_artifact *artifact, uint32_t index, qem_blob blobs[QEM_MOST_BLOBS])
{
    blob_list list = { blobs, 0 };
    qem_layer *layer = layer_that_begins(artifact, index);
    add_stage(&list, &artifact->stages[index], artifact->cols);
    for (uint32_t i = 0; layer && i < layer->affine_count; i++) {
        qem_affine *a = &layer->affine[i];
        if (a->has_scale) add_params(&list, a, 0, &a->scale_stored, &a->scale_super);
        if (a->has_mean) add_params(&list, a, 1, &a->mean_stored, &a->mean_super);
    }
    if (index == 0 && artifact->outliers.count) add_outliers(&list, &artifact->outliers);
    return list.count;
}

/* ---- sums ---- */

uint64_t qem_parts_sum(const qem_parts *parts)
{
    return parts->codes + parts->codebook + parts->codebook_scale + parts->swap_map + parts->scale + parts->mean + parts->rotation +
           parts->coarse + parts->outlier_index + parts->outlier_value + parts->group_bits;
}

void qem_artifact_parts(const qem_artifact *artifact, qem_parts *parts, uint64_t *stored_bytes)
{
    qem_blob blobs[QEM_MOST_BLOBS];
    memset(parts, 0, sizeof *parts);
    for (uint32_t i = 0; i < artifact->stage_count; i++) {
        const uint32_t count = qem_artifact_blobs((qem_artifact *)artifact, i, blobs); /* only lists */
        for (uint32_t b = 0; b < count; b++) *(uint64_t *)((char *)parts + blobs[b].counter) += blobs[b].bytes;
    }
    *stored_bytes = qem_parts_sum(parts);
}
