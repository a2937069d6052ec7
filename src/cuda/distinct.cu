/*
 * Distinct sub-vectors and values, by hash tables with open addressing in device memory that are full enough when the
 * number asked for is reached. Which of equal elements comes first differs from run to run, how many there are does not.
 *
 * Bytes: each sub-vector once, and a sector of a table or two (and of the sub-vector that is there) for each.
 */
#include "backend.cuh"

#include <stdlib.h>

#define LEAST_SLOTS 16
#define ALL_LANES   0xffffffffu
#define FREE        0x80000000u /* bits of -0, which is stored as +0 */

/* ---- sub-vectors ---- */

/* A problem of count_distinct. */
struct distinct_problem {
    uint64_t first, step, count, k;
    const uint32_t *ids;  /* device, or NULL */
    uint64_t table, mask; /* where its slots begin, and their number - 1 */
};

struct distinct_job {
    qem_subvectors v;
    const distinct_problem *problems;
    uint64_t problem_count;
    uint32_t *tables; /* 0: free, else number of a point + 1 */
    uint32_t *found;  /* [problem_count] */
};

/* A sub-vector. */
struct distinct_point {
    const float *x;
    uint32_t width;
};

static __device__ __forceinline__ distinct_point point_of(const qem_subvectors &v, const distinct_problem &problem,
                                                          uint64_t t)
{
    const uint64_t id = problem.ids ? __ldg(problem.ids + t) : (uint32_t)(problem.first + t * problem.step);
    const uint64_t row = id / v.groups, group = id - row * v.groups;
    const distinct_point point = { v.x + row * v.cols + group * v.dim, group + 1 == v.groups ? v.tail_dim : v.dim };
    return point;
}

static __device__ __forceinline__ uint64_t mix(uint64_t hash, float x)
{
    hash = (hash ^ __float_as_uint(x + 0.0f)) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

static __device__ __forceinline__ uint64_t hash_of(const distinct_point &point)
{
    uint64_t hash = point.width;
    for (uint32_t p = 0; p < point.width; p++) hash = mix(hash, __ldg(point.x + p));
    return hash ^ hash >> 32;
}

static __device__ __forceinline__ bool same(const distinct_point &a, const distinct_point &b)
{
    if (a.width != b.width) return false;
    for (uint32_t p = 0; p < a.width; p++)
        if (__ldg(a.x + p) != __ldg(b.x + p)) return false;
    return true;
}

/* How many are found never goes down, so a thread that sees k of them has nothing more to find. */
static __device__ __forceinline__ void insert_point(const distinct_job &job, const distinct_problem &problem,
                                                    uint32_t *found, uint64_t t)
{
    const distinct_point point = point_of(job.v, problem, t);
    uint32_t *const table = job.tables + problem.table;
    for (uint64_t at = hash_of(point) & problem.mask;; at = (at + 1) & problem.mask) {
        if (atomicAdd(found, 0u) >= problem.k) return;
        const uint32_t other = atomicCAS(table + at, 0u, (uint32_t)t + 1u);
        if (other == 0) {
            atomicAdd(found, 1u);
            return;
        }
        if (same(point, point_of(job.v, problem, other - 1))) return;
    }
}

/* Blocks blockIdx.x, + gridDim.x, ... of the points of problems blockIdx.y, + gridDim.y, ... */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) insert_points(distinct_job job)
{
    for (uint64_t i = blockIdx.y; i < job.problem_count; i += gridDim.y) {
        const distinct_problem problem = job.problems[i];
        for (uint64_t t = qem_cuda_first(); t < problem.count; t += qem_cuda_stride())
            insert_point(job, problem, job.found + i, t);
    }
}

/* Tables of all problems, and the most points that one has; returns the slots of all. */
static uint64_t lay_out(const qem_problem *problems, uint64_t count, distinct_problem *to, uint64_t *most)
{
    uint64_t slots = 0;
    *most = 0;
    for (uint64_t i = 0; i < count; i++) {
        const qem_problem &p = problems[i];
        const uint64_t wanted = 2 * (p.k < p.count ? p.k : p.count);
        uint64_t size = LEAST_SLOTS;
        while (size < wanted) size *= 2;
        to[i] = { p.first, p.step, p.count, p.k, p.ids, slots, size - 1 };
        slots += size;
        if (p.count > *most) *most = p.count;
    }
    return slots;
}

static qem_status count_points(qem_cuda_call &call, distinct_job &job, const distinct_problem *problems, uint64_t slots,
                               uint64_t most, uint32_t *found)
{
    distinct_problem *on_device;
    QEM_TRY(call.put(problems, job.problem_count, &on_device));
    QEM_TRY(call.take_zero(slots, &job.tables));
    QEM_TRY(call.take_zero(job.problem_count, &job.found));
    job.problems = on_device;
    const uint32_t across = call.blocks(most), all = call.blocks(UINT64_MAX, 1);
    const uint64_t down = all / across ? all / across : 1;
    const dim3 grid(across, (uint32_t)(down < job.problem_count ? down : job.problem_count));
    QEM_TRY(call.launch(QEM_LAUNCH(insert_points, grid, dim3(QEM_CUDA_THREADS), 0, call.stream, job)));
    return call.to_host(found, job.found, job.problem_count * sizeof *found);
}

qem_status qem_cuda_count_distinct(qem_context *context, qem_subvectors points, const qem_problem *problems,
                                   uint64_t problem_count, uint64_t *distinct)
{
    qem_cuda_call call(context);
    distinct_job job = { points, nullptr, problem_count, nullptr, nullptr };
    void *memory;
    uint64_t most;
    QEM_TRY(call.status);
    if (problem_count == 0) return QEM_OK;
    QEM_TRY(qem_allocate(context, problem_count, sizeof(distinct_problem) + sizeof(uint32_t), &memory));
    distinct_problem *const laid_out = (distinct_problem *)memory;
    uint32_t *const found = (uint32_t *)(laid_out + problem_count);
    const uint64_t slots = lay_out(problems, problem_count, laid_out, &most);
    const qem_status status = count_points(call, job, laid_out, slots, most, found);
    for (uint64_t i = 0; i < problem_count && status == QEM_OK; i++) /* threads side by side may have gone past k */
        distinct[i] = found[i] < problems[i].k ? found[i] : problems[i].k;
    qem_release(context, memory);
    return status;
}

/* ---- values ---- */

typedef unsigned long long wide;

struct value_table {
    uint32_t *values; /* bits */
    wide *counts;
    uint64_t mask;
    uint32_t *found;
    uint64_t limit;
};

/* The slot of a value, or false where there are more than `limit`. */
static __device__ __forceinline__ bool slot_of(const value_table &table, uint32_t bits, uint64_t *slot)
{
    const uint64_t hash = mix(1, __uint_as_float(bits));
    for (uint64_t at = (hash ^ hash >> 32) & table.mask;; at = (at + 1) & table.mask) {
        if (atomicAdd(table.found, 0u) > table.limit) return false;
        const uint32_t other = atomicCAS(table.values + at, FREE, bits);
        if (other == FREE) atomicAdd(table.found, 1u);
        *slot = at;
        if (other == FREE || other == bits) return true;
    }
}

/* The threads of a warp that have the same value count it together, since values that come again often come soon. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) tally(const float *x, uint64_t count, value_table table)
{
    const uint32_t lane = threadIdx.x % 32;
    for (uint64_t first = qem_cuda_first() - lane; first < count; first += qem_cuda_stride()) {
        const bool is_there = first + lane < count;
        const uint32_t there = __ballot_sync(ALL_LANES, is_there);
        if (is_there) {
            const uint32_t bits = __float_as_uint(__ldg(x + first + lane) + 0.0f), equal = __match_any_sync(there, bits);
            uint64_t slot;
            if ((uint32_t)__ffs((int)equal) - 1 == lane && slot_of(table, bits, &slot))
                atomicAdd(table.counts + slot, (wide)__popc(equal));
        }
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) free_slots(uint32_t *values, uint64_t slots)
{
    for (uint64_t i = qem_cuda_first(); i < slots; i += qem_cuda_stride()) values[i] = FREE;
}

struct value_count {
    float value;
    uint64_t count;
};

static int by_value(const void *left, const void *right)
{
    const value_count *a = (const value_count *)left, *b = (const value_count *)right;
    return (a->value > b->value) - (a->value < b->value);
}

/* The slots that are taken, sorted. pairs: room for `found` of them. */
static void sort_values(const float *table, const uint64_t *table_counts, uint64_t slots, value_count *pairs, float *values,
                        uint64_t *counts)
{
    uint64_t used = 0;
    for (uint64_t i = 0; i < slots; i++)
        if (table_counts[i]) pairs[used++] = { table[i], table_counts[i] };
    qsort(pairs, used, sizeof *pairs, by_value);
    for (uint64_t i = 0; i < used; i++) {
        values[i] = pairs[i].value;
        counts[i] = pairs[i].count;
    }
}

static qem_status read_values(qem_cuda_call &call, const value_table &table, uint64_t found, float *values,
                              uint64_t *counts)
{
    const uint64_t slots = table.mask + 1;
    void *memory;
    QEM_TRY(
        qem_allocate(call.context, found * sizeof(value_count) + slots * (sizeof(uint64_t) + sizeof(float)), 1, &memory));
    value_count *const pairs = (value_count *)memory;
    uint64_t *const table_counts = (uint64_t *)(pairs + found);
    float *const table_values = (float *)(table_counts + slots);
    qem_status status = call.to_host(table_counts, table.counts, slots * sizeof *table_counts);
    if (status == QEM_OK) status = call.to_host(table_values, table.values, slots * sizeof *table_values);
    if (status == QEM_OK) sort_values(table_values, table_counts, slots, pairs, values, counts);
    qem_release(call.context, memory);
    return status;
}

qem_status qem_cuda_distinct_values(qem_context *context, const float *x, uint64_t count, uint64_t limit, float *values,
                                    uint64_t *counts, uint64_t *found)
{
    qem_cuda_call call(context);
    value_table table = { nullptr, nullptr, 0, nullptr, limit };
    uint64_t slots = LEAST_SLOTS;
    uint32_t here;
    QEM_TRY(call.status);
    while (slots <= 2 * limit) slots *= 2;
    table.mask = slots - 1;
    QEM_TRY(call.take(slots, &table.values));
    QEM_TRY(call.take_zero(slots, &table.counts));
    QEM_TRY(call.take_zero(1, &table.found));
    QEM_TRY(call.launch(QEM_LAUNCH(free_slots, call.blocks(slots), QEM_CUDA_THREADS, 0, call.stream, table.values, slots)));
    QEM_TRY(call.launch(QEM_LAUNCH(tally, call.blocks(count), QEM_CUDA_THREADS, 0, call.stream, x, count, table)));
    QEM_TRY(call.to_host(&here, table.found, sizeof here));
    *found = here > limit ? limit + 1 : here;
    return here > limit ? QEM_OK : read_values(call, table, here, values, counts);
}
