/* What an artifact tells about itself. */
#include <string.h>

#include "api.h"

qem_status qem_artifact_query(const qem_artifact *artifact, qem_artifact_info *info)
{
    if (!artifact || !info || info->size != sizeof *info || info->version != 1) return QEM_ERR_ARGUMENT;
    const qem_stage *stage = &artifact->stages[0];
    const double elements = (double)artifact->rows * (double)artifact->cols;
    info->method = artifact->recipe.method;
    info->name = artifact->name;
    info->rows = artifact->rows;
    info->cols = artifact->cols;
    info->source_dtype = artifact->source_dtype;
    info->dim = stage->dim;
    info->groups = stage->groups;
    info->k = stage->k;
    info->code_bits = stage->code_bits;
    info->levels = stage->levels;
    info->intervals = artifact->recipe.method == QEM_METHOD_HYPERCHR
                          ? (artifact->cells.intervals > 1 ? artifact->cells.intervals : 1)
                          : 0;
    info->codebook = stage->codebook_dtype;
    info->cells = artifact->cells.count;
    qem_artifact_parts(artifact, &info->parts, &info->stored_bytes);
    info->budget_bytes = artifact->budget_bytes;
    info->bits_per_element = 8.0 * (double)info->stored_bytes / elements;
    info->ratio = 4.0 * elements / (double)info->stored_bytes;
    info->recipe = artifact->recipe;
    info->seed = artifact->seed;
    info->has_metrics = artifact->has_metrics;
    info->stages = artifact->stage_count;
    info->metrics = artifact->metrics;
    info->quantize_seconds = artifact->quantize_seconds;
    return QEM_OK;
}

enum { PART_CODEBOOK, PART_SCALE, PART_MEAN, PART_CODES, PART_SWAP_MAP, PART_KINDS };

static const char *const part_names[PART_KINDS] = { "codebook", "scale", "mean", "codes", "swap_map" };

/* Later stages carry their number; names are constants so that they live as long as the artifact. */
#define STAGE_NAMES(n) { n ".codebook", n ".scale", n ".mean", n ".codes", n ".swap_map" }
static const char *const later_names[][PART_KINDS] = { STAGE_NAMES("1"), STAGE_NAMES("2"), STAGE_NAMES("3"), STAGE_NAMES("4"),
                                                       STAGE_NAMES("5"), STAGE_NAMES("6"), STAGE_NAMES("7") };

static void shape1(qem_part *part, uint64_t n)
{
    part->rank = 1;
    part->shape[0] = n;
}

static void codebook_part(const qem_artifact *artifact, const qem_stage *stage, qem_part *part)
{
    part->dtype = stage->codebook_dtype;
    part->data = stage->codebook_stored;
    part->bytes = stage->codebook_bytes;
    if (stage->kind == QEM_CODEBOOK_SHARED) {
        part->rank = 2;
        part->shape[0] = stage->k;
        part->shape[1] = stage->dim;
    } else if (artifact->cols % stage->dim == 0) {
        part->rank = 3;
        part->shape[0] = stage->groups;
        part->shape[1] = stage->k;
        part->shape[2] = stage->dim;
    } else {
        shape1(part, stage->k * artifact->cols); /* the tail group's entries are shorter */
    }
}

/* Fills `part` if the stage has a part of this kind. */
static int describe(const qem_artifact *artifact, uint32_t number, int kind, qem_part *part)
{
    const qem_stage *stage = &artifact->stages[number];
    const int uniform = stage->kind == QEM_CODEBOOK_UNIFORM;
    *part = (qem_part)QEM_PART_INIT;
    part->name = number == 0 ? part_names[kind] : later_names[number - 1][kind];
    part->dtype = QEM_DTYPE_U8;
    switch (kind) {
    case PART_CODEBOOK:
        if (uniform) return 0;
        codebook_part(artifact, stage, part);
        return 1;
    case PART_SCALE:
    case PART_MEAN:
        if (!uniform) return 0;
        part->dtype = QEM_DTYPE_F32;
        part->data = kind == PART_SCALE ? &stage->scale : &stage->mean;
        part->bytes = sizeof(float);
        shape1(part, 1);
        return 1;
    case PART_CODES:
        if (stage->code_bits == 0) return 0;
        part->data = stage->codes;
        part->bytes = stage->codes_bytes;
        shape1(part, part->bytes);
        return 1;
    default:
        if (stage->levels == 0) return 0;
        part->data = stage->swap_map;
        part->bytes = stage->swap_map_bytes;
        shape1(part, part->bytes);
        return 1;
    }
}

static int find_part(const qem_artifact *artifact, uint32_t index, qem_part *part, uint32_t *count)
{
    *count = 0;
    for (uint32_t stage = 0; stage < artifact->stage_count; stage++)
        for (int kind = 0; kind < PART_KINDS; kind++)
            if (describe(artifact, stage, kind, part) && (*count)++ == index) return 1;
    return 0;
}

uint32_t qem_artifact_part_count(const qem_artifact *artifact)
{
    qem_part part;
    uint32_t count;
    if (!artifact) return 0;
    (void)find_part(artifact, UINT32_MAX, &part, &count);
    return count;
}

qem_status qem_artifact_part(const qem_artifact *artifact, uint32_t index, qem_part *part)
{
    qem_part found;
    uint32_t count;
    if (!artifact || !part || part->size != sizeof *part || part->version != 1) return QEM_ERR_ARGUMENT;
    if (!find_part(artifact, index, &found, &count)) return QEM_ERR_ARGUMENT;
    *part = found;
    return QEM_OK;
}
