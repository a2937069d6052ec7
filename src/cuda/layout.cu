/* What lies in the arena of a device artifact: parts as they are stored, and the tables that kernels read beside them. */
#include "arena.cuh"
#include "swapped.cuh"

#include <math.h>

#include "../core/half.h"

/* ---- streams ---- */

/* Kernels read whole words, and streams that are staged in pieces of 16 bytes. */
static const uint32_t *put_stream(qem_cuda_arena *arena, const uint8_t *stream, uint64_t bytes)
{
    const uint64_t with_slack = bytes + QEM_STREAM_SLACK;
    return (const uint32_t *)qem_cuda_put_with_room(arena, stream, stream ? with_slack : 0, (with_slack + 15) / 16 * 16);
}

static uint32_t read_bits(const uint8_t *stream, uint64_t bit, uint32_t bits)
{
    const uint8_t *from = stream + bit / 8;
    const uint32_t word = from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16; /* the slack is readable */
    return word >> (bit % 8) & ((1u << bits) - 1u);
}

/* ---- codebooks ---- */

static uint64_t group_width(const qem_stage *stage, uint64_t cols, uint64_t group)
{
    return group + 1 == stage->groups && cols % stage->dim ? cols % stage->dim : stage->dim;
}

static const qem_cuda_group *put_groups(qem_cuda_arena *arena, const qem_stage *stage, uint64_t cols)
{
    if (!stage->group_bits) return nullptr;
    qem_cuda_group *groups = qem_cuda_make_array<qem_cuda_group>(arena, stage->groups);
    uint64_t bit = 0, entry = 0;
    for (uint64_t g = 0; groups && g < stage->groups; g++) {
        groups[g].bit = bit;
        groups[g].entry = entry | (uint64_t)stage->group_bits[g] << 56;
        bit += stage->group_bits[g];
        entry += group_width(stage, cols, g) << stage->group_bits[g];
    }
    return qem_cuda_put(arena, groups, stage->groups);
}

/* A shared codebook that holds the decoded values, rounded as those would be. */
static const uint16_t *put_rounded(qem_cuda_arena *arena, const float *book, uint64_t floats, int bf16)
{
    uint16_t *rounded = qem_cuda_make_array<uint16_t>(arena, floats);
    for (uint64_t i = 0; rounded && i < floats; i++) rounded[i] = bf16 ? qem_f32_to_bf16(book[i]) : qem_f32_to_f16(book[i]);
    return qem_cuda_put(arena, rounded, floats);
}

static void place_codebook(qem_cuda_arena *arena, const qem_artifact *artifact, const qem_layer *layer,
                           const qem_stage *stage, qem_cuda_host_stage *to)
{
    const int by_group = stage->kind == QEM_CODEBOOK_PER_GROUP, stored = by_group || stage->kind == QEM_CODEBOOK_SHARED;
    const uint64_t floats = stored ? qem_stage_codebook_floats(stage, artifact->cols) : stage->k;
    qem_cuda_stage *d = &to->on_device;
    d->group_stride = by_group ? stage->k * stage->dim : 0;
    d->cell_floats = stage->cells > 1 ? floats / stage->cells : 0;
    /* codebooks by group may take more than the codes: in f16 where they are stored so */
    if (by_group && stage->codebook_dtype == QEM_DTYPE_F16)
        d->book_half = qem_cuda_put(arena, (const uint16_t *)stage->codebook_stored, floats);
    else
        d->book = qem_cuda_put(arena, stage->codebook, floats);
    if (by_group || artifact->layer_count > 1 || layer->affine_count || stage->cells) return;
    for (int i = 0; i < 2; i++) to->rounded[i] = put_rounded(arena, stage->codebook, floats, i);
}

static void place_slabs(qem_cuda_arena *arena, const qem_artifact *artifact, const qem_layer *layer, const qem_stage *stage,
                        qem_cuda_host_stage *to)
{
    if (artifact->layer_count > 1 || layer->affine_count || stage->cells) return;
    if (stage->kind != QEM_CODEBOOK_PER_GROUP && stage->levels == 0) return;
    for (int wide = 0; wide < 2; wide++) {
        const qem_cuda_slabs slabs = qem_cuda_cut_slabs(stage, artifact->cols, wide, nullptr);
        if (slabs.count == 0) continue;
        qem_cuda_slab *list = qem_cuda_make_array<qem_cuda_slab>(arena, slabs.count);
        if (list) (void)qem_cuda_cut_slabs(stage, artifact->cols, wide, list);
        to->slabs[wide] = slabs;
        to->slab[wide] = qem_cuda_put(arena, list, slabs.count);
    }
}

/* ---- swaps ---- */

/* As a tree: node n splits into the smaller half 2n + 1 and the larger one 2n + 2; maps follow each other in this order. */
static void place_swaps(qem_cuda_arena *arena, uint64_t cols, const qem_stage *stage, qem_cuda_stage *d)
{
    uint64_t width[1 << 8], bit = 0;
    if (stage->levels == 0) return;
    const uint32_t nodes = (1u << stage->levels) - 1;
    uint64_t *first = qem_cuda_make_array<uint64_t>(arena, nodes);
    width[0] = cols;
    for (uint32_t n = 0; first && n < nodes; n++) {
        first[n] = bit;
        bit += (stage->row_end - stage->row_begin) * (width[n] / 2);
        if (2 * n + 2 >= nodes) continue;
        width[2 * n + 1] = width[n] - width[n] / 2;
        width[2 * n + 2] = width[n] / 2;
    }
    d->node_bit = qem_cuda_put(arena, first, nodes);
    d->map = put_stream(arena, stage->swap_map, stage->swap_map_bytes);
}

/* ---- rotations ---- */

static void place_rotation(qem_cuda_arena *arena, uint64_t cols, const qem_stage *stage, qem_cuda_stage *d)
{
    const uint64_t rows = stage->row_end - stage->row_begin;
    if (stage->cells == 0) return;
    d->rotation = qem_cuda_put(arena, stage->rotation, stage->cells * cols * cols);
    if (stage->coarse) d->coarse = qem_cuda_put(arena, stage->coarse, stage->cells * cols);
    if (stage->cells == 1) return;
    const uint32_t bits = qem_code_bits(stage->cells);
    d->row_cells = put_stream(arena, stage->row_cells, (rows * bits + 7) / 8);
    uint32_t *starts = qem_cuda_make_array<uint32_t>(arena, stage->cells + 2),
             *list = qem_cuda_make_array<uint32_t>(arena, rows);
    if (starts && list) { /* starts[c + 1] is where the next row of cell c goes */
        for (uint64_t i = 0; i < rows; i++) starts[read_bits(stage->row_cells, i * bits, bits) + 2]++;
        for (uint32_t c = 0; c < stage->cells; c++) starts[c + 2] += starts[c + 1];
        for (uint64_t i = 0; i < rows; i++) list[starts[read_bits(stage->row_cells, i * bits, bits) + 1]++] = (uint32_t)i;
    }
    d->cell_starts = qem_cuda_put(arena, starts, stage->cells + 1);
    d->cell_rows = qem_cuda_put(arena, list, rows);
}

/* ---- layers ---- */

static double largest_of(const float *x, uint64_t count)
{
    double largest = 0.0;
    for (uint64_t i = 0; i < count; i++) largest = fabs((double)x[i]) > largest ? fabs((double)x[i]) : largest;
    return largest;
}

/* No value of the layer is larger: products and sums are rounded, each by less than one part in 2^23. */
static double bound_of(const qem_layer *layer, const qem_stage *stage, uint64_t cols)
{
    const int stored = stage->kind == QEM_CODEBOOK_PER_GROUP || stage->kind == QEM_CODEBOOK_SHARED;
    double bound = largest_of(stage->codebook, stored ? qem_stage_codebook_floats(stage, cols) : stage->k);
    if (stage->cells) return INFINITY;
    for (uint32_t i = 0; i < layer->affine_count; i++) {
        const qem_affine *step = &layer->affine[i];
        bound = bound * (step->scale ? largest_of(step->scale, step->units) : 1.0);
        bound = (bound + (step->mean ? largest_of(step->mean, step->units) : 0.0)) * (1.0 + 0x1p-22);
    }
    return bound;
}

static void place_stage(qem_cuda_arena *arena, const qem_artifact *artifact, const qem_layer *layer, const qem_stage *stage,
                        qem_cuda_host_stage *to)
{
    const int ordered = qem_cuda_orders_swaps(artifact, layer, stage);
    qem_cuda_stage *d = &to->on_device;
    to->k = stage->k;
    to->mixed = stage->group_bits != NULL;
    to->halves = stage->codebook_dtype == QEM_DTYPE_F16;
    d->row_begin = stage->row_begin;
    d->row_end = stage->row_end;
    d->row_bits = qem_stage_row_bits(stage);
    d->groups = stage->groups;
    d->dim = stage->dim;
    d->dim_reciprocal = qem_cuda_reciprocal(stage->dim);
    d->code_bits = stage->code_bits;
    d->levels = stage->levels;
    d->cells = stage->cells;
    d->cell_bits = qem_code_bits(stage->cells ? stage->cells : 1);
    d->codes = ordered ? qem_cuda_put_ordered_codes(arena, stage) : put_stream(arena, stage->codes, stage->codes_bytes);
    d->group = ordered ? qem_cuda_put_ordered_groups(arena, stage) : put_groups(arena, stage, artifact->cols);
    place_codebook(arena, artifact, layer, stage, to);
    place_slabs(arena, artifact, layer, stage, to);
    if (ordered) {
        d->map_row_bits = qem_swapped_row_bits(artifact->cols, stage->levels);
        d->map = qem_cuda_put_ordered_map(arena, stage, artifact->cols);
    } else {
        place_swaps(arena, artifact->cols, stage, d);
    }
    place_rotation(arena, artifact->cols, stage, d);
    if (arena->context) to->largest = bound_of(layer, stage, artifact->cols);
}

static void place_steps(qem_cuda_arena *arena, uint64_t cols, const qem_layer *layer, qem_cuda_step steps[QEM_MOST_AFFINE])
{
    for (uint32_t i = 0; i < layer->affine_count; i++) {
        const qem_affine *step = &layer->affine[i];
        qem_cuda_step *d = &steps[i];
        *d = qem_cuda_step();
        d->axis = (uint32_t)step->axis;
        if (step->axis == QEM_AXIS_BLOCK) {
            d->block = (uint32_t)step->block;
            d->block_reciprocal = qem_cuda_reciprocal(step->block);
            d->units_per_row = (cols - 1) / step->block + 1;
        }
        if (step->scale) d->scale = qem_cuda_put(arena, step->scale, step->units);
        if (step->mean) d->mean = qem_cuda_put(arena, step->mean, step->units);
    }
}

static void place_layer(qem_cuda_arena *arena, const qem_artifact *artifact, const qem_layer *layer,
                        qem_device_artifact *to)
{
    qem_cuda_step steps[QEM_MOST_AFFINE];
    place_steps(arena, artifact->cols, layer, steps);
    for (uint32_t i = layer->stage_first; i < layer->stage_first + layer->stage_count; i++) {
        qem_cuda_host_stage uncounted, *stage = to ? &to->stages[i] : &uncounted;
        *stage = qem_cuda_host_stage();
        place_stage(arena, artifact, layer, &artifact->stages[i], stage);
        stage->on_device.step_count = layer->affine_count;
        for (uint32_t s = 0; s < layer->affine_count; s++) stage->on_device.step[s] = steps[s];
        if (to && stage->on_device.cells) to->rotated = 1;
    }
}

/* ---- segments ---- */

/* The stage of a layer that decodes row `row`. */
static uint32_t stage_at(const qem_artifact *artifact, uint32_t layer, uint64_t row)
{
    uint32_t i = artifact->layers[layer].stage_first;
    while (row >= artifact->stages[i].row_end) i++;
    return i;
}

static uint64_t segment_end(const qem_artifact *artifact, uint64_t row)
{
    uint64_t end = artifact->rows;
    for (uint32_t l = 0; l < artifact->layer_count; l++) {
        const uint64_t here = artifact->stages[stage_at(artifact, l, row)].row_end;
        end = here < end ? here : end;
    }
    return end;
}

uint32_t qem_cuda_segment_count(const qem_artifact *artifact)
{
    uint32_t count = 0;
    for (uint64_t row = 0; row < artifact->rows; row = segment_end(artifact, row)) count++;
    return count;
}

static void place_segments(qem_cuda_arena *arena, const qem_artifact *artifact, qem_device_artifact *to)
{
    uint32_t count = 0;
    for (uint64_t row = 0, end; row < artifact->rows; row = end, count++) {
        end = segment_end(artifact, row);
        qem_cuda_stage *stages = qem_cuda_make_array<qem_cuda_stage>(arena, artifact->layer_count);
        for (uint32_t l = 0; to && stages && l < artifact->layer_count; l++) {
            to->segments[count].stage[l] = &to->stages[stage_at(artifact, l, row)];
            stages[l] = to->segments[count].stage[l]->on_device;
        }
        const qem_cuda_stage *placed = qem_cuda_put(arena, stages, artifact->layer_count);
        if (!to) continue;
        to->segments[count].row_begin = row;
        to->segments[count].row_end = end;
        to->segments[count].stages = placed;
    }
}

/* ---- outliers ---- */

static void place_outliers(qem_cuda_arena *arena, const qem_artifact *artifact, qem_device_artifact *to)
{
    const qem_outliers *o = &artifact->outliers;
    if (o->count == 0) return;
    const void *index = qem_cuda_put_with_room(arena, o->index, o->count * o->index_size, o->count * o->index_size);
    const float *value = qem_cuda_put(arena, o->value, o->count);
    if (!to) return;
    to->outliers.count = o->count;
    to->outliers.index_size = o->index_size;
    to->outliers.index = index;
    to->outliers.value = value;
    uint64_t at = 0;
    for (uint64_t i = 0; i <= QEM_CUDA_OUTLIER_STARTS; i++) {
        const uint64_t element = qem_cuda_outlier_row(artifact->rows, i) * artifact->cols;
        while (at < o->count && qem_outlier_index(o, at) < element) at++;
        to->outlier_starts[i] = at;
    }
}

void qem_cuda_place(qem_cuda_arena *arena, const qem_artifact *artifact, qem_device_artifact *to)
{
    for (uint32_t l = 0; l < artifact->layer_count; l++) place_layer(arena, artifact, &artifact->layers[l], to);
    place_segments(arena, artifact, to);
    place_outliers(arena, artifact, to);
}
