/*
 * How codes and maps of swaps are laid out for decode_swapped.cu, where every node of the tree splits evenly and a leaf is
 * whole groups.
 *
 * Column j of all 2^levels leaves makes 2^levels neighbouring columns of the output, whatever the bits. So a row's codes
 * are ordered by their group in the leaf, then by leaf; and its bits by units of four columns of each leaf, in the order in
 * which the decoder takes them. It undoes the levels from the deepest on, and takes two neighbouring pairs of a node at once
 * (a word of two 16-bit elements of either half): the two bits make a slot. Eight slots are a word of 16 bits, each with
 * its first bit in the lower byte and its second one in the upper byte, slot 0 topmost: shifted to the top of both bytes,
 * prmt spreads them as signs over whole elements.
 */
#ifndef QEM_CUDA_SWAPPED_CUH
#define QEM_CUDA_SWAPPED_CUH

#include "artifact.cuh"

#define QEM_SWAPPED_LEVELS 3 /* at most */
#define QEM_SWAPPED_UNIT   4 /* columns of each leaf */

/* Slots of a unit. */
#define QEM_SWAPPED_SLOTS(levels) ((uint32_t)(levels) << (levels))

/* The slot, within its unit, of word `word` of the unit's part of node `node` of a level, with `below` levels below it: by
 * halves of the unit, so that 32-bit elements, two columns of each leaf a thread, have theirs together. */
QEM_BOTH_SIDES uint32_t qem_swapped_slot(uint32_t levels, uint32_t below, uint32_t node, uint32_t word)
{
    const uint32_t half = word >> below, rest = word & ((1u << below) - 1u);
    return (below << levels) + (half << (levels - 1)) + (node << below) + rest;
}

/* The bit, counted from the row's first one, of a pair of node `node` of level `level`. */
QEM_BOTH_SIDES uint64_t qem_swapped_bit(uint32_t levels, uint32_t level, uint32_t node, uint64_t pair)
{
    const uint32_t below = levels - 1 - level, word = (uint32_t)(pair >> 1) & ((2u << below) - 1u);
    const uint64_t unit = pair / QEM_SWAPPED_UNIT >> below;
    const uint64_t slot = unit * QEM_SWAPPED_SLOTS(levels) + qem_swapped_slot(levels, below, node, word);
    return slot / 8 * 16 + (pair & 1u) * 8 + (7 - slot % 8);
}

/* Bits of a row, whole words. */
static inline uint64_t qem_swapped_row_bits(uint64_t cols, uint32_t levels)
{
    const uint64_t slots = (cols >> levels) / QEM_SWAPPED_UNIT * QEM_SWAPPED_SLOTS(levels);
    return (slots + 7) / 8 * 16;
}

#endif
