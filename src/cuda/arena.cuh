/* One block of device memory, filled in order: the same walk first counts its bytes and then copies them. */
#ifndef QEM_CUDA_ARENA_CUH
#define QEM_CUDA_ARENA_CUH

#include "runtime.cuh"

struct qem_cuda_arena {
    qem_context *context;  /* NULL: nothing is allocated or copied, only counted */
    unsigned char *memory; /* device */
    uint64_t used, bytes;
    cudaStream_t stream;
    qem_status status; /* the first failure; after it nothing more is done */
    void *made;        /* host blocks that copies may still read */
};

/* Host memory for a table to be copied by qem_cuda_put, zeroed; NULL while only counting, or out of memory. */
void *qem_cuda_make(qem_cuda_arena *arena, uint64_t bytes);

/* Copies `bytes` bytes, of which there are `room` in the arena; returns where they lie. Host memory must stay until the
 * stream has passed. */
const void *qem_cuda_put_with_room(qem_cuda_arena *arena, const void *host, uint64_t bytes, uint64_t room);

template <typename T> const T *qem_cuda_put(qem_cuda_arena *arena, const T *host, uint64_t count)
{
    return (const T *)qem_cuda_put_with_room(arena, host, count * sizeof(T), count * sizeof(T));
}

template <typename T> T *qem_cuda_make_array(qem_cuda_arena *arena, uint64_t count)
{
    return (T *)qem_cuda_make(arena, count * sizeof(T));
}

/* Releases what was made, once the stream has passed. */
void qem_cuda_arena_end(qem_cuda_arena *arena);

/* ---- layout.cu: what lies in an arena ---- */

/* Places the artifact in the arena, and fills stages, segments and outliers of `to`, which has room for them and its
 * numbers set; `to` NULL: only counts. */
void qem_cuda_place(qem_cuda_arena *arena, const qem_artifact *artifact, qem_device_artifact *to);
/* Row ranges that the same stages decode. */
uint32_t qem_cuda_segment_count(const qem_artifact *artifact);

/* slabs.cu: cuts a stage with codebooks by group, or with swaps, into slabs for outputs of 2 (0) or 4 (1) bytes. list: room
 * for count of them, or NULL: only counts. A count of 0: a group's codebooks are too large, or the kernels that work by
 * slabs do not do such a stage. */
qem_cuda_slabs qem_cuda_cut_slabs(const qem_stage *stage, uint64_t cols, int wide, qem_cuda_slab *list);

/* swap_layout.cu: whether codes and map of a stage are laid out as swapped.cuh has it, and that. */
int qem_cuda_orders_swaps(const qem_artifact *artifact, const qem_layer *layer, const qem_stage *stage);
const qem_cuda_group *qem_cuda_put_ordered_groups(qem_cuda_arena *arena, const qem_stage *stage);
const uint32_t *qem_cuda_put_ordered_codes(qem_cuda_arena *arena, const qem_stage *stage);
const uint32_t *qem_cuda_put_ordered_map(qem_cuda_arena *arena, const qem_stage *stage, uint64_t cols);

#endif
