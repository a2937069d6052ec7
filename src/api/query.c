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

static int find_part(const qem_artifact *artifact, uint32_t index, qem_part *part, uint32_t *count)
{
    qem_blob blobs[QEM_MOST_BLOBS];
    *count = 0;
    for (uint32_t stage = 0; stage < artifact->stage_count; stage++) {
        const uint32_t here = qem_artifact_blobs((qem_artifact *)artifact, stage, blobs); /* only lists */
        if (index >= *count && index - *count < here) {
            const qem_blob *blob = &blobs[index - *count];
            *part = (qem_part)QEM_PART_INIT;
            part->name = qem_blob_name(stage, blob->name);
            part->dtype = blob->dtype;
            part->data = blob->slot ? *blob->slot : blob->inlined;
            part->bytes = blob->bytes;
            part->rank = blob->rank;
            memcpy(part->shape, blob->shape, sizeof part->shape);
            return 1;
        }
        *count += here;
    }
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
