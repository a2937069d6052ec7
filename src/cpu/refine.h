/* What refine.c and refine_repair.c share: Lloyd passes over all sub-vectors of a shared codebook, in chunks. */
#ifndef QEM_CPU_REFINE_H
#define QEM_CPU_REFINE_H

#include "codebook.h"

#define QEM_REFINE_CHUNK 16384 /* sub-vectors that are searched together */

typedef struct qem_refine {
    qem_context *context;
    const qem_refine_args *args;
    qem_problem all;               /* every sub-vector, in the order of args->order */
    qem_search_codebook codebook;
    unsigned char *only_tail;      /* [k] 1: no full member, the components past the tail are 0 as stored */
    double sum_scale, sum_unit;    /* a sum holds llrint(scaled * sum_scale) */
    int adding;                    /* 1: the assignment fills the sums, too */
    int shared;                    /* 1: one table, added to by atomic operations */
    int64_t *sums;                 /* [tables][k][dim] */
    uint64_t *counts[2];           /* [tables][k] full members; tail members, where there are any */
    int parts;                     /* 2 if there are tail points, else 1 */
    uint32_t tables;
    unsigned char *scratch;        /* a chunk and its distances for each thread */
    uint64_t scratch_bytes;
    _Atomic int changed, cancelled;
    _Atomic uint64_t done;         /* points of this pass, for the progress */
    double progress_base, progress_share;
} qem_refine;

typedef struct qem_refine_chunk {
    qem_chunk chunk;
    float *d2;
} qem_refine_chunk;

void qem_refine_layout_chunk(const qem_refine *refine, qem_refine_chunk *chunk, qem_arena *arena);
static inline uint64_t qem_refine_members(const qem_refine *refine, uint64_t j)
{
    return refine->counts[0][j] + (refine->parts == 2 ? refine->counts[1][j] : 0);
}

/* Chunk c is ids first .. end - 1 of refine->all, first = c * QEM_REFINE_CHUNK. */
static inline uint64_t qem_refine_chunks(const qem_refine *refine)
{
    return (refine->all.count + QEM_REFINE_CHUNK - 1) / QEM_REFINE_CHUNK;
}

static inline uint64_t qem_refine_chunk_end(const qem_refine *refine, uint64_t first)
{
    return refine->all.count - first < QEM_REFINE_CHUNK ? refine->all.count : first + QEM_REFINE_CHUNK;
}

/* Gives clusters without members the points with the largest errors; counts and sums follow. */
qem_status qem_refine_repair(qem_refine *refine);

#endif
