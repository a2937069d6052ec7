/*
 * Stages cut into slabs: so many groups that their codebooks fit in shared memory together. For codebooks by group, and
 * with swaps for shared ones too; with swaps the groups of a slab are those of each leaf.
 */
#include "arena.cuh"
#include "slabs.cuh"
#include "swapped.cuh"

/* What a row is cut by. */
struct piece {
    uint32_t elements; /* that a thread makes of a row, or of a leaf of it */
    uint32_t together; /* groups that cannot be parted, of a leaf */
    uint32_t pieces;   /* that they are */
};

/* Chunks of 16 bytes; with swaps 8 bytes from each leaf, and from the second level on pairs of those, for two threads that
 * exchange what they store. 0: sub-vectors do not make whole ones. */
static int find_piece(const qem_stage *stage, uint64_t cols, int wide, piece *found)
{
    const uint32_t elements = (wide ? 4 : 8) >> (stage->levels > 0), least = elements << (stage->levels > 1);
    const uint32_t unit = stage->levels > 1 ? 2 * QEM_SWAPPED_UNIT : stage->levels ? QEM_SWAPPED_UNIT : least;
    found->elements = elements;
    found->together = stage->dim < least ? least / stage->dim : 1;
    found->pieces = found->together * stage->dim / elements;
    if (stage->dim < least ? least % stage->dim : stage->dim % least) return 0;
    if (stage->levels > 1 && stage->dim < 2) return 0; /* too many codes a thread */
    return cols % ((uint64_t)stage->dim << stage->levels) == 0 && cols % (unit << stage->levels) == 0;
}

/* Floats of the codebooks of group `group` of all leaves, where they are by group. */
static uint64_t group_floats(const qem_stage *stage, uint64_t group)
{
    const uint64_t leaf = stage->groups >> stage->levels;
    uint64_t floats = 0;
    if (stage->kind != QEM_CODEBOOK_PER_GROUP) return 0;
    for (uint64_t g = group; g < stage->groups; g += leaf)
        floats += (uint64_t)stage->dim * (stage->group_bits ? (uint64_t)1 << stage->group_bits[g] : stage->k);
    return floats;
}

/* Floats of a shared codebook, where a block has a copy. */
static uint32_t shared_floats(const qem_stage *stage, uint32_t size)
{
    const uint64_t floats = stage->k * stage->dim;
    return stage->kind != QEM_CODEBOOK_PER_GROUP && floats * size <= QEM_CUDA_SHARED_BOOK_BYTES ? (uint32_t)floats : 0;
}

qem_cuda_slabs qem_cuda_cut_slabs(const qem_stage *stage, uint64_t cols, int wide, qem_cuda_slab *list)
{
    const qem_cuda_slabs none = { 0, 0 };
    const uint32_t size = wide ? 4 : 2, most = QEM_CUDA_SLAB_BYTES / size;
    const uint64_t groups = stage->groups >> stage->levels; /* of a leaf */
    qem_cuda_slabs slabs = { 0, shared_floats(stage, size) };
    uint64_t first = 0, floats = 0;
    uint32_t pieces = 0;
    piece piece;
    if (stage->levels > QEM_SWAPPED_LEVELS || stage->groups > UINT32_MAX) return none;
    if (!find_piece(stage, cols, wide, &piece) || piece.pieces > QEM_CUDA_SLAB_CHUNKS) return none;
    for (uint64_t g = 0; g < groups; g += piece.together) {
        uint64_t more = 0;
        for (uint32_t i = 0; i < piece.together; i++) more += group_floats(stage, g + i);
        if (more > most) return none;
        if (floats + more > most || pieces + piece.pieces > QEM_CUDA_SLAB_CHUNKS) {
            if (list) list[slabs.count] = { (uint32_t)first, (uint32_t)(g - first) };
            slabs.count++;
            first = g;
            floats = pieces = 0;
        }
        floats += more;
        pieces += piece.pieces;
        slabs.floats = floats > slabs.floats ? (uint32_t)floats : slabs.floats;
    }
    if (list) list[slabs.count] = { (uint32_t)first, (uint32_t)(groups - first) };
    slabs.count++;
    return slabs;
}
