/* Cell of every sub-vector, and the stable grouping of sub-vectors by cell. */
#include "scan.cuh"

#include <string.h>

#define SHARED_FLOATS 8192 /* cuts that a block keeps */
#define LEAST_CHUNK   512  /* elements that a warp groups */
#define MOST_COUNTERS (1u << 22)
#define WARPS         (QEM_CUDA_THREADS / 32)
#define ALL_LANES     0xffffffffu

/* ---- cells ---- */

/* Number of cuts <= x: a value equal to a cut belongs to the upper interval. */
static __device__ __forceinline__ uint32_t interval_of(const float *cuts, uint32_t count, float x)
{
    uint32_t base = 0;
    while (count > 0) {
        const uint32_t half = (count + 1) / 2;
        base += cuts[base + half - 1] <= x ? half : 0;
        count -= half;
    }
    return base;
}

/* A thread finds the cell of a sub-vector. Bytes: 4 an element and 4 a sub-vector, the minimum. Shared: the cuts, if they
 * fit. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    find_cells(qem_subvectors v, uint32_t intervals, const float *cuts, uint32_t staged_floats, uint32_t *ids)
{
    QEM_DYNAMIC_SHARED(float, staged);
    const uint32_t per_position = intervals - 1;
    for (uint32_t i = threadIdx.x; i < staged_floats; i += blockDim.x) staged[i] = __ldg(cuts + i);
    __syncthreads();
    const float *const table = staged_floats ? staged : cuts;
    for (uint64_t id = qem_cuda_first(); id < v.rows * v.groups; id += qem_cuda_stride()) {
        const uint64_t row = id / v.groups, group = id - row * v.groups;
        const float *const x = v.x + row * v.cols + group * v.dim;
        const uint32_t width = group + 1 == v.groups ? v.tail_dim : v.dim;
        uint32_t cell = 0;
        for (uint32_t p = width; p-- > 0;)
            cell = cell * intervals + interval_of(table + (uint64_t)p * per_position, per_position, __ldg(x + p));
        ids[id] = cell;
    }
}

qem_status qem_cuda_cell_ids(qem_context *context, qem_subvectors points, uint32_t intervals, const float *cuts,
                             uint32_t *ids)
{
    qem_cuda_call call(context);
    const uint64_t floats = (uint64_t)points.dim * (intervals - 1);
    float *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.put(cuts, floats, &on_device));
    const uint32_t staged = floats <= SHARED_FLOATS ? (uint32_t)floats : 0;
    return call.launch(QEM_LAUNCH(find_cells, call.blocks(points.rows * points.groups), QEM_CUDA_THREADS,
                                  staged * sizeof(float), call.stream, points, intervals, on_device, staged, ids));
}

/* ---- grouping ---- */

/* A warp goes through a chunk in order, 32 elements at once; of those with one key the lowest lane does the counting. */
struct group_job {
    const uint32_t *keys;
    uint64_t count, chunk, chunks;
    uint32_t *table; /* [key][chunk]: counts, then where the chunk's next element of the key goes */
    uint32_t *order;
};

/* Bytes: 4 an element to count and 8 to place (keys read twice, ids written once), and the table of counters. Place: where
 * each element goes, which is in scattered runs, one a key. */
template <bool PLACE> static __global__ void __launch_bounds__(QEM_CUDA_THREADS) group_chunks(group_job job)
{
    const uint32_t lane = threadIdx.x % 32;
    for (uint64_t chunk = qem_cuda_first() / 32; chunk < job.chunks; chunk += qem_cuda_stride() / 32) {
        const uint64_t first = chunk * job.chunk, end = job.count - first < job.chunk ? job.count : first + job.chunk;
        for (uint64_t at = first; at < end; at += 32) {
            const uint64_t i = at + lane;
            const bool is_there = i < end;
            const uint32_t there = __ballot_sync(ALL_LANES, is_there);
            if (!is_there) continue; /* the last ones of the chunk */
            const uint32_t key = __ldg(job.keys + i), same = __match_any_sync(there, key);
            const uint32_t before = (uint32_t)__popc(same & ((1u << lane) - 1u)), leader = (uint32_t)__ffs((int)same) - 1;
            uint32_t *const counter = job.table + key * job.chunks + chunk;
            const uint32_t next = *counter; /* every lane of the key reads it before the leader writes */
            __syncwarp(there);
            if (lane == leader) *counter = next + (uint32_t)__popc(same);
            __syncwarp(there);
            if (PLACE) job.order[next + before] = (uint32_t)i;
        }
    }
}

/* offsets[key] = where its first chunk begins. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    take_offsets(const uint32_t *table, uint64_t chunks, uint64_t key_count, uint32_t *offsets)
{
    for (uint64_t key = qem_cuda_first(); key < key_count; key += qem_cuda_stride()) offsets[key] = table[key * chunks];
}

static qem_status group(qem_cuda_call &call, group_job &job, uint64_t key_count, uint32_t *offsets)
{
    const uint32_t blocks = call.blocks(job.chunks, WARPS);
    QEM_TRY(call.take_zero(key_count * job.chunks, &job.table));
    QEM_TRY(call.launch(QEM_LAUNCH(group_chunks<false>, blocks, QEM_CUDA_THREADS, 0, call.stream, job)));
    QEM_TRY(qem_cuda_exclusive_sums(call, job.table, key_count * job.chunks));
    QEM_TRY(call.launch(QEM_LAUNCH(take_offsets, call.blocks(key_count), QEM_CUDA_THREADS, 0, call.stream, job.table,
                                   job.chunks, key_count, offsets)));
    return call.launch(QEM_LAUNCH(group_chunks<true>, blocks, QEM_CUDA_THREADS, 0, call.stream, job));
}

qem_status qem_cuda_group_by_key(qem_context *context, const uint32_t *keys, uint64_t count, uint64_t key_count,
                                 uint32_t *order, uint64_t *offsets)
{
    qem_cuda_call call(context);
    uint32_t *on_device;
    void *memory;
    QEM_TRY(call.status);
    uint64_t chunks = MOST_COUNTERS / key_count;
    if (chunks > count / LEAST_CHUNK) chunks = count / LEAST_CHUNK;
    if (chunks < 1) chunks = 1;
    group_job job = { keys, count, (count + chunks - 1) / chunks, chunks, nullptr, order };
    job.chunk = (job.chunk + 31) / 32 * 32; /* so that a warp's loads begin at whole lines */
    job.chunks = job.chunk ? (count + job.chunk - 1) / job.chunk : 1;
    if (job.chunks == 0) job.chunks = 1;
    QEM_TRY(call.take(key_count, &on_device));
    QEM_TRY(group(call, job, key_count, on_device));
    QEM_TRY(qem_allocate(context, key_count, sizeof(uint32_t), &memory));
    const qem_status status = call.to_host(memory, on_device, key_count * sizeof(uint32_t));
    for (uint64_t key = 0; key < key_count; key++) offsets[key] = ((const uint32_t *)memory)[key];
    offsets[key_count] = count;
    qem_release(context, memory);
    return status;
}
