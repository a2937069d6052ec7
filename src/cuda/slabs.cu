/* Codebooks by group, cut into slabs: so many groups that their codebooks fit in shared memory together. */
#include "arena.cuh"
#include "slabs.cuh"

/* Floats of a group's codebook. */
static uint64_t group_floats(const qem_stage *stage, uint64_t group)
{
    return (uint64_t)stage->dim * (stage->group_bits ? (uint64_t)1 << stage->group_bits[group] : stage->k);
}

/* Whole chunks of 16 bytes alone: chunks of several entries, or entries of several chunks; with a level of swaps half a
 * chunk from each half of the row. */
static int has_whole_chunks(const qem_stage *stage, uint64_t cols, uint32_t elements)
{
    const int fits = stage->dim < elements ? elements % stage->dim == 0 : stage->dim % elements == 0;
    return fits && cols % ((uint64_t)stage->dim << stage->levels) == 0 && cols % (elements << stage->levels) == 0 &&
           stage->groups <= UINT32_MAX;
}

qem_cuda_slabs qem_cuda_cut_slabs(const qem_stage *stage, uint64_t cols, int wide, qem_cuda_slab *list)
{
    const qem_cuda_slabs none = { 0, 0 };
    if (stage->levels > 1) return none;
    const uint32_t elements = (wide ? 4 : 8) >> stage->levels, most = QEM_CUDA_SLAB_BYTES / (wide ? 4 : 2);
    const uint32_t together =
        stage->dim < elements ? elements / stage->dim : 1;                     /* groups of a chunk, or of a half's part */
    const uint32_t chunks = stage->dim < elements ? 1 : stage->dim / elements; /* chunks of a group, or of those */
    const uint64_t groups = stage->groups >> stage->levels;                    /* of the smaller half */
    qem_cuda_slabs slabs = none;
    uint64_t first = 0, floats = 0;
    uint32_t wide_chunks = 0;
    if (!has_whole_chunks(stage, cols, elements) || chunks > QEM_CUDA_SLAB_CHUNKS) return none;
    for (uint64_t g = 0; g < groups; g += together) {
        uint64_t more = 0;
        for (uint32_t i = 0; i < together; i++)
            more += group_floats(stage, g + i) + (stage->levels ? group_floats(stage, groups + g + i) : 0);
        if (more > most) return none;
        if (floats + more > most || wide_chunks + chunks > QEM_CUDA_SLAB_CHUNKS) {
            if (list) list[slabs.count] = { (uint32_t)first, (uint32_t)(g - first) };
            slabs.count++;
            first = g;
            floats = wide_chunks = 0;
        }
        floats += more;
        wide_chunks += chunks;
        slabs.floats = floats > slabs.floats ? (uint32_t)floats : slabs.floats;
    }
    if (list) list[slabs.count] = { (uint32_t)first, (uint32_t)(groups - first) };
    slabs.count++;
    return slabs;
}
