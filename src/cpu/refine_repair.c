/* Clusters that lost their last member: each moves to the point with the largest error, ties to the lowest index. */
#include <math.h>
#include <string.h>

#include "far_heap.h"
#include "parallel.h"
#include "problem.h"
#include "refine.h"


typedef struct far_job {
    qem_refine *refine;
    qem_far_heap *heaps; /* one a thread */
} far_job;

/* Ties count by this order: the full sub-vectors in ascending id, then the tail ones. */
static uint64_t index_of(const qem_refine *refine, uint32_t id)
{
    const qem_subvectors *v = &refine->args->points;
    if (!refine->codebook.tail_dim) return id;
    const uint64_t row = id / v->groups, group = id % v->groups;
    return group + 1 == v->groups ? v->rows * (v->groups - 1) + row : id - row;
}

static uint32_t id_of(const qem_refine *refine, uint64_t index)
{
    const qem_subvectors *v = &refine->args->points;
    if (!refine->codebook.tail_dim) return (uint32_t)index;
    const uint64_t full = v->rows * (v->groups - 1);
    if (index >= full) return (uint32_t)((index - full) * v->groups + v->groups - 1);
    return (uint32_t)(index + index / (v->groups - 1));
}

static void measure_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const far_job *job = argument;
    qem_refine *refine = job->refine;
    const qem_search_codebook *codebook = &refine->codebook;
    qem_arena arena = { refine->scratch + thread * refine->scratch_bytes, 0 };
    qem_refine_chunk here;
    qem_chunk *chunk = &here.chunk;
    qem_refine_layout_chunk(refine, &here, &arena);
    for (uint64_t c = begin; c < end; c++) {
        const uint64_t first = c * QEM_REFINE_CHUNK, last = qem_refine_chunk_end(refine, first);
        qem_chunk_gather(chunk, codebook, &refine->args->points, &refine->all, first, last);
        for (int part = 0; part < refine->parts; part++) {
            for (size_t i = 0; i < chunk->count[part]; i++) chunk->labels[i] = refine->args->labels[chunk->ids[part][i]];
            for (size_t i = chunk->count[part]; i < chunk->padded[part]; i++) chunk->labels[i] = 0;
            codebook->kernels->own_distance(chunk->x[part], chunk->padded[part], chunk->padded[part],
                                            part ? codebook->tail_dim : codebook->width, codebook->c, codebook->ldc,
                                            chunk->labels, here.d2);
            for (size_t i = 0; i < chunk->count[part]; i++)
                qem_far_add(&job->heaps[thread], qem_far_key(here.d2[i], index_of(refine, chunk->ids[part][i])));
        }
    }
}

/* One point out of its cluster and into cluster j. */
static void move_point(qem_refine *refine, uint32_t id, uint64_t j)
{
    const qem_search_codebook *codebook = &refine->codebook;
    const qem_subvectors *v = &refine->args->points;
    const uint32_t width = qem_subvector_width(v, id);
    const int part = width != v->dim;
    const float *x = qem_subvector(v, id);
    uint32_t *label = &refine->args->labels[id];
    for (uint32_t p = 0; p < width; p++) {
        float scaled = x[p];
        codebook->kernels->scale_points(&scaled, 1, codebook->mean[p], codebook->scale);
        const int64_t fixed = llrint((double)scaled * refine->sum_scale);
        refine->sums[(uint64_t)*label * codebook->width + p] -= fixed;
        refine->sums[j * codebook->width + p] += fixed;
    }
    refine->counts[part][*label]--;
    refine->counts[part][j]++;
    *label = (uint32_t)j;
}

static void hand_out(qem_refine *refine, qem_far_heap *far)
{
    uint64_t next = 0;
    qem_far_sort(far);
    for (uint64_t j = 0; j < refine->codebook.k && next < far->size; j++) {
        if (qem_refine_members(refine, j)) continue;
        const uint64_t key = far->key[next++];
        if (key >> 32 == 0) return; /* a point without error is left where it is */
        move_point(refine, id_of(refine, qem_far_index(key)), j);
    }
}

qem_status qem_refine_repair(qem_refine *refine)
{
    const uint32_t threads = refine->context->threads;
    uint64_t empty = 0;
    void *memory, *keys;
    for (uint64_t j = 0; j < refine->codebook.k; j++) empty += qem_refine_members(refine, j) == 0;
    if (empty == 0) return QEM_OK;
    QEM_TRY(qem_allocate(refine->context, threads, sizeof(qem_far_heap), &memory));
    const qem_status status = qem_allocate(refine->context, threads * empty, sizeof(uint64_t), &keys);
    if (status == QEM_OK) {
        far_job job = { refine, memory };
        for (uint32_t t = 0; t < threads; t++) job.heaps[t] = (qem_far_heap){ (uint64_t *)keys + t * empty, 0, empty };
        qem_parallel_for(threads, qem_refine_chunks(refine), 1, measure_chunks, &job);
        for (uint32_t t = 1; t < threads; t++)
            for (uint64_t i = 0; i < job.heaps[t].size; i++) qem_far_add(&job.heaps[0], job.heaps[t].key[i]);
        hand_out(refine, &job.heaps[0]);
        qem_release(refine->context, keys);
    }
    qem_release(refine->context, memory);
    return status;
}
