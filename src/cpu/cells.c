/* Cell of every sub-vector, and the stable grouping of sub-vectors by cell. */
#include <string.h>

#include "cpu.h"
#include "parallel.h"

#define MOST_COUNTERS (1u << 20) /* counters of all chunks together: above it the grouping is done in one chunk */

#define LEAST_CHUNK 8192          /* elements a chunk */

typedef struct cell_job {
    qem_subvectors points;
    uint32_t intervals;
    const float *cuts;
    uint32_t *ids;
} cell_job;

/* Number of cuts <= x: a value equal to a cut belongs to the upper interval. */
static uint32_t interval_of(const float *cuts, uint32_t count, float x)
{
    uint32_t base = 0;
    while (count > 0) {
        const uint32_t half = (count + 1) / 2;
        base += cuts[base + half - 1] <= x ? half : 0;
        count -= half;
    }
    return base;
}

static void cell_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const cell_job *job = argument;
    const qem_subvectors *v = &job->points;
    const uint32_t cuts = job->intervals - 1;
    (void)thread;
    for (uint64_t i = begin; i < end; i++)
        for (uint64_t g = 0; g < v->groups; g++) {
            const float *x = v->x + i * v->cols + g * v->dim;
            const uint32_t width = g + 1 == v->groups ? v->tail_dim : v->dim;
            uint32_t id = 0;
            for (uint32_t p = width; p-- > 0;) id = id * job->intervals + interval_of(job->cuts + (uint64_t)p * cuts, cuts, x[p]);
            job->ids[i * v->groups + g] = id;
        }
}

qem_status qem_cpu_cell_ids(qem_context *context, qem_subvectors points, uint32_t intervals, const float *cuts, uint32_t *ids)
{
    cell_job job = { points, intervals, cuts, ids };
    const uint64_t grain = points.groups >= 16384 ? 1 : 16384 / points.groups;
    qem_parallel_for(context->threads, points.rows, grain, cell_rows, &job);
    return QEM_OK;
}

typedef struct group_job {
    const uint32_t *keys;
    uint32_t *order;
    uint64_t count, key_count, chunk;
    uint64_t *table; /* [chunk][key]: counts, then where the chunk's next element of the key goes */
} group_job;

static void count_chunk(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const group_job *job = argument;
    uint64_t *table = job->table + begin / job->chunk * job->key_count;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) table[job->keys[i]]++;
}

static void place_chunk(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const group_job *job = argument;
    uint64_t *table = job->table + begin / job->chunk * job->key_count;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) job->order[table[job->keys[i]]++] = (uint32_t)i;
}

qem_status qem_cpu_group_by_key(qem_context *context, const uint32_t *keys, uint64_t count, uint64_t key_count,
                                uint32_t *order, uint64_t *offsets)
{
    uint64_t chunks = MOST_COUNTERS / key_count;
    if (chunks > 8u * context->threads) chunks = 8u * context->threads;
    if (chunks > count / LEAST_CHUNK) chunks = count / LEAST_CHUNK;
    if (chunks < 1 || context->threads == 1) chunks = 1;
    group_job job = { keys, order, count, key_count, (count + chunks - 1) / chunks, NULL };
    void *memory;
    QEM_TRY(qem_allocate_zero(context, chunks * key_count, sizeof(uint64_t), &memory));
    job.table = memory;
    qem_parallel_for(context->threads, count, job.chunk, count_chunk, &job);
    uint64_t next = 0;
    for (uint64_t key = 0; key < key_count; key++) {
        offsets[key] = next;
        for (uint64_t c = 0; c < chunks; c++) {
            uint64_t *cell = &job.table[c * key_count + key];
            const uint64_t here = *cell;
            *cell = next;
            next += here;
        }
    }
    offsets[key_count] = next;
    qem_parallel_for(context->threads, count, job.chunk, place_chunk, &job);
    qem_release(context, memory);
    return QEM_OK;
}
