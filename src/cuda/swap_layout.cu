/* Codes and maps of swaps in the order of swapped.cuh. The host's part of it. */
#include "arena.cuh"
#include "swapped.cuh"

#include <string.h>

int qem_cuda_orders_swaps(const qem_artifact *artifact, const qem_layer *layer, const qem_stage *stage)
{
    if (stage->levels < 1 || stage->levels > QEM_SWAPPED_LEVELS || stage->cells) return 0;
    if (artifact->layer_count > 1 || layer->affine_count) return 0;
    return qem_cuda_cut_slabs(stage, artifact->cols, 0, nullptr).count > 0 ||
           qem_cuda_cut_slabs(stage, artifact->cols, 1, nullptr).count > 0;
}

/* Up to 25 bits; the stream has its slack. */
static uint32_t bits_at(const uint8_t *stream, uint64_t bit, uint32_t bits)
{
    uint32_t word = 0;
    for (int i = 3; i >= 0; i--) word = word << 8 | stream[bit / 8 + (uint64_t)i];
    return word >> (bit % 8) & ((1u << bits) - 1u);
}

/* ---- codes ---- */

const qem_cuda_group *qem_cuda_put_ordered_groups(qem_cuda_arena *arena, const qem_stage *stage)
{
    const uint64_t leaf = stage->groups >> stage->levels;
    qem_cuda_group *groups = qem_cuda_make_array<qem_cuda_group>(arena, stage->groups);
    uint64_t bit = 0, entry = 0;
    for (uint64_t g = 0; groups && g < stage->groups; g++) { /* codebooks stay where they are */
        const uint32_t bits = stage->group_bits ? stage->group_bits[g] : stage->code_bits;
        groups[g].entry = entry | (uint64_t)bits << 56;
        if (stage->kind != QEM_CODEBOOK_PER_GROUP) continue;
        entry += stage->dim * (stage->group_bits ? (uint64_t)1 << bits : stage->k);
    }
    for (uint64_t j = 0; groups && j < leaf; j++)
        for (uint64_t g = j; g < stage->groups; g += leaf) {
            groups[g].bit = bit;
            bit += groups[g].entry >> 56;
        }
    return qem_cuda_put(arena, groups, stage->groups);
}

/* Codes one after the other into a stream. */
struct code_writer {
    uint8_t *to;
    uint64_t word;
    uint32_t filled; /* bits of it, below 8 between codes */

    void put(uint32_t code, uint32_t bits)
    {
        word |= (uint64_t)code << filled;
        for (filled += bits; filled >= 8; filled -= 8, word >>= 8) *to++ = (uint8_t)word;
    }
    void end()
    {
        if (filled) *to = (uint8_t)word;
    }
};

/* from[g]: where the code of group g begins in a row of the stream as it is stored. */
static void order_codes(const qem_stage *stage, const uint64_t *from, uint64_t row_bits, uint8_t *to)
{
    const uint64_t rows = stage->row_end - stage->row_begin, leaf = stage->groups >> stage->levels;
    code_writer writer = { to, 0, 0 };
    for (uint64_t row = 0; row < rows; row++)
        for (uint64_t j = 0; j < leaf; j++)
            for (uint64_t g = j; g < stage->groups; g += leaf) {
                const uint32_t bits = stage->group_bits ? stage->group_bits[g] : stage->code_bits;
                writer.put(bits_at(stage->codes, row * row_bits + from[g], bits), bits);
            }
    writer.end();
}

const uint32_t *qem_cuda_put_ordered_codes(qem_cuda_arena *arena, const qem_stage *stage)
{
    const uint64_t room = (stage->codes_bytes + QEM_STREAM_SLACK + 15) / 16 * 16;
    uint8_t *stream = qem_cuda_make_array<uint8_t>(arena, room);
    uint64_t *from = stream ? qem_cuda_make_array<uint64_t>(arena, stage->groups) : nullptr, bit = 0;
    for (uint64_t g = 0; from && g < stage->groups; g++) {
        from[g] = bit;
        bit += stage->group_bits ? stage->group_bits[g] : stage->code_bits;
    }
    if (from) order_codes(stage, from, bit, stream);
    return (const uint32_t *)qem_cuda_put_with_room(arena, stream, room, room);
}

/* ---- maps ---- */

/* The bits of one node in the unit from `bit` on, into the row's words. */
static void order_unit(const qem_stage *stage, uint32_t level, uint32_t node, uint64_t bit, uint64_t first_slot,
                       uint8_t *row)
{
    const uint32_t below = stage->levels - 1 - level, words = 2u << below;
    const uint32_t pairs = bits_at(stage->swap_map, bit, 2 * words);
    for (uint32_t w = 0; w < words; w++) {
        const uint64_t slot = first_slot + qem_swapped_slot(stage->levels, below, node, w);
        uint8_t *const word = row + slot / 8 * 2;
        const uint32_t shift = 7 - (uint32_t)(slot % 8);
        word[0] = (uint8_t)(word[0] | (pairs >> (2 * w) & 1u) << shift);
        word[1] = (uint8_t)(word[1] | (pairs >> (2 * w + 1) & 1u) << shift);
    }
}

const uint32_t *qem_cuda_put_ordered_map(qem_cuda_arena *arena, const qem_stage *stage, uint64_t cols)
{
    const uint64_t rows = stage->row_end - stage->row_begin, row_bytes = qem_swapped_row_bits(cols, stage->levels) / 8;
    const uint64_t units = (cols >> stage->levels) / QEM_SWAPPED_UNIT, room = (rows * row_bytes + 15) / 16 * 16;
    uint8_t *map = qem_cuda_make_array<uint8_t>(arena, room);
    uint64_t bit = 0; /* of the map as it is stored: nodes by level, rows of each node */
    for (uint32_t level = 0; map && level < stage->levels; level++) {
        const uint64_t pairs_of_unit = (uint64_t)QEM_SWAPPED_UNIT << (stage->levels - 1 - level);
        for (uint32_t node = 0; node < 1u << level; node++)
            for (uint64_t row = 0; row < rows; row++)
                for (uint64_t unit = 0; unit < units; unit++, bit += pairs_of_unit)
                    order_unit(stage, level, node, bit, unit * QEM_SWAPPED_SLOTS(stage->levels), map + row * row_bytes);
    }
    return (const uint32_t *)qem_cuda_put_with_room(arena, map, room, room);
}
