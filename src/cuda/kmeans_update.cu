/*
 * Centroids: sums of their members, their means, half norms, and what will be stored of them. A centroid's component goes to
 * sum(w x) / sum(w) over its members, both sums of int64, without weights under one power of two for the problem, with weights
 * under one that follows the largest weight of that component in that cluster.
 *
 * Sums go by atomic additions: for small codebooks first to a table in shared memory, for TILES_AT_ONCE tiles together.
 */
#include "kmeans_device.cuh"

#define TILES_AT_ONCE 8

static __global__ void __launch_bounds__(QEM_KM_THREADS) clear(const qem_km_view v, int of_repaired)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const qem_km_state &s = v.states[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (s.done || j >= p.k || (of_repaired && (!s.repaired || p.weighting == QEM_KM_UNWEIGHTED))) return;
    v.counts[p.entry_at + j] = v.counts[v.entry_total + p.entry_at + j] = 0;
    for (uint32_t q = 0; q < p.width; q++) {
        const uint64_t at = p.part_at + (uint64_t)j * p.width + q;
        v.sums[at] = 0;
        if (p.weighting == QEM_KM_UNWEIGHTED) continue;
        v.weight_sums[at] = 0;
        v.heaviest[at] = 0;
    }
}

/* ---- sums without weights ---- */

/* A table in shared memory: [k][width] sums as two words each (64-bit additions there would be loops of compare and swap), [k]
 * members. */
struct sum_table {
    uint32_t *low, *high, *counts;
};

static __device__ __forceinline__ sum_table table_of(const qem_km_problem &p, uint32_t *memory)
{
    const uint32_t sums = p.k * p.width;
    return {memory, memory + sums, memory + 2 * sums};
}

static __device__ __forceinline__ uint32_t table_words(const qem_km_problem &p) { return p.k * (2 * p.width + 1); }

/* The carries of all additions to `low` end up in `high`, whatever their order. */
static __device__ __forceinline__ void add_to_table(const sum_table &table, uint32_t at, unsigned long long value)
{
    const uint32_t low = (uint32_t)value, before = atomicAdd(&table.low[at], low);
    const uint32_t high = (uint32_t)(value >> 32) + (before + low < before);
    if (high) atomicAdd(&table.high[at], high);
}

/* The table to the problem's sums; all threads of the block. */
static __device__ void flush(const qem_km_view &v, const qem_km_problem &p, uint32_t part, const sum_table &table)
{
    for (uint32_t e = threadIdx.x; e < p.k * p.width; e += QEM_KM_THREADS) {
        const unsigned long long sum = (unsigned long long)table.high[e] << 32 | table.low[e];
        if (sum) atomicAdd(&v.sums[p.part_at + e], sum);
    }
    for (uint32_t j = threadIdx.x; j < p.k; j += QEM_KM_THREADS)
        if (table.counts[j]) atomicAdd(&v.counts[(part ? v.entry_total : 0) + p.entry_at + j], table.counts[j]);
}

static __device__ void add_tile(const qem_km_view &v, const qem_km_problem &p, const qem_km_tile &tile, const sum_table &table,
                                bool in_table)
{
    const double scale = ldexp(1.0, qem_fixed_shift(p.count, 2.0)); /* scaled points lie in [-2, 2] */
    const uint32_t dim = qem_km_dim(p, tile);
    uint32_t *const counts = v.counts + (tile.part ? v.entry_total : 0) + p.entry_at;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        const uint32_t label = v.labels[p.slot_at + slot];
        for (uint32_t q = 0; q < dim; q++) {
            const float x = v.x[p.x_at + (uint64_t)q * p.slots + slot];
            const unsigned long long fixed = (unsigned long long)llrint((double)x * scale);
            if (in_table)
                add_to_table(table, label * p.width + q, fixed);
            else
                atomicAdd(&v.sums[p.part_at + (uint64_t)label * p.width + q], fixed);
        }
        atomicAdd(in_table ? &table.counts[label] : &counts[label], 1u);
    }
}

/* TILES_AT_ONCE tiles a block. Reads each element and label once; with a table, writes that for each block, else atomic
 * additions go to L2, one an element and one a point. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) add_points(const qem_km_view v, uint32_t tiles, uint32_t table_bytes)
{
    QEM_DYNAMIC_SHARED(uint32_t, memory);
    const uint32_t first = blockIdx.x * TILES_AT_ONCE, last = tiles - first < TILES_AT_ONCE ? tiles : first + TILES_AT_ONCE;
    uint32_t at = first;
    while (at < last) {
        const qem_km_tile head = v.tiles[at];
        const qem_km_problem &p = v.problems[head.problem];
        const bool is_work = p.weighting == QEM_KM_UNWEIGHTED && !v.states[head.problem].done;
        const bool in_table = is_work && 4ull * table_words(p) <= table_bytes;
        const sum_table table = table_of(p, memory);
        __syncthreads(); /* the table before is read */
        for (uint32_t e = threadIdx.x; in_table && e < table_words(p); e += QEM_KM_THREADS) memory[e] = 0;
        __syncthreads();
        for (; at < last; at++) {
            const qem_km_tile tile = v.tiles[at];
            if (tile.problem != head.problem || tile.part != head.part) break;
            if (is_work) add_tile(v, p, tile, table, in_table);
        }
        __syncthreads();
        if (in_table) flush(v, p, head.part, table);
    }
}

/* ---- sums with weights ---- */

static __device__ __forceinline__ float weight_of(const qem_km_view &v, const qem_km_problem &p, uint32_t slot, uint32_t q)
{
    return v.w[p.w_at + (p.weighting == QEM_KM_ELEMENT ? (uint64_t)q * p.slots : 0) + slot];
}

/* Members, and the largest weight of each component. Reads each weight and label once. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) add_heaviest(const qem_km_view v, int of_repaired)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const qem_km_state &s = v.states[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    if (p.weighting == QEM_KM_UNWEIGHTED || s.done || (of_repaired && !s.repaired)) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        const uint32_t label = v.labels[p.slot_at + slot];
        atomicAdd(&v.counts[(tile.part ? v.entry_total : 0) + p.entry_at + label], 1u);
        for (uint32_t q = 0; q < dim; q++) {
            const float w = weight_of(v, p, slot, q);
            if (w > 0.0f) atomicMax(&v.heaviest[p.part_at + (uint64_t)label * p.width + q], __float_as_uint(w));
        }
    }
}

static __device__ __forceinline__ uint32_t members_of(const qem_km_view &v, const qem_km_problem &p, uint32_t j)
{
    return v.counts[p.entry_at + j] + v.counts[v.entry_total + p.entry_at + j];
}

static __global__ void __launch_bounds__(QEM_KM_THREADS) set_weight_scales(const qem_km_view v)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (p.weighting == QEM_KM_UNWEIGHTED || v.states[run.problem].done || j >= v.states[run.problem].k) return;
    for (uint32_t q = 0; q < p.width; q++) {
        const uint64_t at = p.part_at + (uint64_t)j * p.width + q;
        const double largest = 2.0 * (double)__uint_as_float(v.heaviest[at]); /* scaled points lie in [-2, 2] */
        v.weight_scale[at] = largest > 0.0 ? ldexp(1.0, qem_fixed_shift(members_of(v, p, j), largest)) : 0.0;
    }
}

/* Reads each element, weight and label once; two atomic additions an element. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) add_weighted(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    if (p.weighting == QEM_KM_UNWEIGHTED || v.states[tile.problem].done) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        const uint64_t first = p.part_at + (uint64_t)v.labels[p.slot_at + slot] * p.width;
        for (uint32_t q = 0; q < dim; q++) {
            const double w = (double)weight_of(v, p, slot, q) * v.weight_scale[first + q];
            const double x = (double)v.x[p.x_at + (uint64_t)q * p.slots + slot];
            atomicAdd(&v.weight_sums[first + q], (unsigned long long)llrint(w));
            atomicAdd(&v.sums[first + q], (unsigned long long)llrint(x * w));
        }
    }
}

qem_status qem_km_count(qem_km_set *set, int of_repaired)
{
    const uint32_t blocks = (set->tiles + TILES_AT_ONCE - 1) / TILES_AT_ONCE;
    QEM_KM_ON_RUNS(set, clear, set->view, of_repaired);
    if (!of_repaired && blocks)
        QEM_TRY(set->call->launch(QEM_LAUNCH(add_points, dim3(blocks), dim3(QEM_KM_THREADS), set->table_bytes, set->call->stream,
                                             set->view, set->tiles, set->table_bytes)));
    if (set->any_weighted) QEM_KM_ON_TILES(set, add_heaviest, set->view, of_repaired);
    return QEM_OK;
}

/* ---- means ---- */

/* What component q of centroid j becomes; *c as it is where no member cares. */
static __device__ __forceinline__ float moved(const qem_km_view &v, const qem_km_problem &p, double scale, uint32_t j, uint32_t q,
                                              uint32_t full, float c)
{
    const uint64_t at = p.part_at + (uint64_t)j * p.width + q;
    const double sum = (double)(long long)v.sums[at];
    if (full == 0 && q >= p.tail_dim) return qem_km_scaled(v.mean[p.mean_at + q], scale, 0.0f);
    if (p.weighting != QEM_KM_UNWEIGHTED) {
        const long long weight = (long long)v.weight_sums[at];
        return weight > 0 ? (float)(sum / (double)weight) : c;
    }
    const uint32_t count = q < p.tail_dim || full == 0 ? members_of(v, p, j) : full;
    return (float)(sum / (double)count * ldexp(1.0, -qem_fixed_shift(p.count, 2.0)));
}

/* A thread a centroid. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) move(const qem_km_view v)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const qem_km_state &s = v.states[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (s.done || j >= s.k || members_of(v, p, j) == 0) return; /* without members it stays where it is */
    const uint32_t full = v.counts[p.entry_at + j];
    v.only_tail[p.entry_at + j] = full == 0;
    for (uint32_t q = 0; q < p.width; q++) {
        float *const c = &v.c[p.part_at + (uint64_t)q * p.ldc + j];
        *c = moved(v, p, s.scale, j, q, full, *c);
    }
}

qem_status qem_km_move(qem_km_set *set)
{
    if (set->any_weighted) {
        QEM_KM_ON_RUNS(set, set_weight_scales, set->view);
        QEM_KM_ON_TILES(set, add_weighted, set->view);
    }
    QEM_KM_ON_RUNS(set, move, set->view);
    return QEM_OK;
}

/* ---- half norms ---- */

/* A thread a centroid: a chain of fma in double, rounded once. */
static __device__ float half_norm(const qem_km_view &v, const qem_km_problem &p, uint32_t j, uint32_t dim)
{
    double sum = 0.0;
    for (uint32_t q = 0; q < dim; q++) {
        const double c = (double)v.c[p.part_at + (uint64_t)q * p.ldc + j];
        sum = fma(c, c, sum);
    }
    return (float)(0.5 * sum);
}

static __global__ void __launch_bounds__(QEM_KM_THREADS) norms(const qem_km_view v)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (j >= p.ldc) return;
    const bool used = j < v.states[run.problem].k;
    for (uint32_t q = 0; q < p.width; q++) {
        float *const c = &v.c[p.part_at + (uint64_t)q * p.ldc + j];
        if (!used) *c = 0.0f;
        if (!v.features || p.weighting != QEM_KM_ELEMENT) continue;
        float *const feature = &v.features[2 * (p.part_at + (uint64_t)q * p.ldc) + j];
        feature[0] = *c;
        feature[p.ldc] = (float)(-0.5 * (double)*c * (double)*c);
    }
    v.h[p.entry_at + j] = used ? half_norm(v, p, j, p.width) : INFINITY;
    v.h[v.entry_total + p.entry_at + j] = used ? half_norm(v, p, j, v.points.tail_dim) : INFINITY;
}

qem_status qem_km_norms(qem_km_set *set)
{
    QEM_KM_ON_RUNS(set, norms, set->view);
    return QEM_OK;
}

/* Of a codebook that is there already: which centroids have members, but no full ones. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) note_tails(const qem_km_view v)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (j < p.k) v.only_tail[p.entry_at + j] = v.counts[p.entry_at + j] == 0 && members_of(v, p, j) > 0;
}

qem_status qem_km_note_tails(qem_km_set *set)
{
    QEM_KM_ON_RUNS(set, note_tails, set->view);
    return QEM_OK;
}

/* ---- what is stored ---- */

/* The stored value of a scaled one. A centroid lies among its points; rounding near the limit of f32 must not carry it beyond. */
static __device__ __forceinline__ float stored_of(float scaled, double unit, double mean)
{
    const double value = (double)scaled * unit + mean;
    return (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value) + 0.0f;
}

static __global__ void __launch_bounds__(QEM_KM_THREADS) store(const qem_km_view v, int half)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const qem_km_state &s = v.states[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (j >= s.k) return;
    for (uint32_t q = 0; q < p.width; q++) {
        const double mean = v.mean[p.mean_at + q];
        float *const c = &v.c[p.part_at + (uint64_t)q * p.ldc + j];
        float stored = stored_of(*c, s.unit, mean);
        if (v.only_tail[p.entry_at + j] && q >= v.points.tail_dim) stored = 0.0f;
        if (half) {
            stored = qem_f16_value(qem_f16_bits(stored));
            if (!(fabsf(stored) <= FLT_MAX)) atomicOr(&v.flags[1], 1u);
        }
        v.stored[p.part_at + (uint64_t)j * p.width + q] = stored;
        *c = qem_km_scaled(mean, s.scale, stored);
    }
}

qem_status qem_km_store(qem_km_set *set, qem_dtype dtype)
{
    QEM_KM_ON_RUNS(set, store, set->view, dtype == QEM_DTYPE_F16);
    return QEM_OK;
}

/* Entries that are not used repeat entry 0. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) emit(const qem_km_view v, float *codebook)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const qem_km_state &s = v.states[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (j >= p.k || !s.better) return;
    const float *from = v.stored + p.part_at + (j < s.k ? (uint64_t)j * p.width : 0);
    for (uint32_t q = 0; q < p.width; q++) codebook[p.codebook_at + (uint64_t)j * p.width + q] = from[q];
}

qem_status qem_km_emit(qem_km_set *set, float *codebook)
{
    QEM_KM_ON_RUNS(set, emit, set->view, codebook);
    return QEM_OK;
}
