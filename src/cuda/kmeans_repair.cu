/*
 * Clusters without members (with weights: without a member that counts): in ascending order, each gets the point with the
 * largest error, ties to the lowest index; a point without error is left. A cluster that so loses its last member counts as
 * empty from then on, so the handing out is serial, by one warp a problem. It is rare; only finding the clusters is done always.
 */
#include "kmeans_device.cuh"

#define DIGITS 256 /* of 8 bits */

static __device__ __forceinline__ bool is_empty(const qem_km_view &v, const qem_km_problem &p, uint32_t j)
{
    if (p.weighting == QEM_KM_UNWEIGHTED) return v.counts[p.entry_at + j] + v.counts[v.entry_total + p.entry_at + j] == 0;
    for (uint32_t q = 0; q < p.width; q++)
        if (v.heaviest[p.part_at + (uint64_t)j * p.width + q]) return false;
    return true;
}

/* A thread a centroid. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) find_empty(const qem_km_view v)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    qem_km_state &s = v.states[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (s.done) return;
    const uint32_t found = __ballot_sync(QEM_KM_ALL_LANES, j < s.k && is_empty(v, p, j));
    if (threadIdx.x % 32 == 0 && found) atomicAdd(&s.empty, (uint32_t)__popc(found));
}

/* ---- the farthest points ---- */

static __device__ __forceinline__ uint32_t error_bits(const qem_km_view &v, const qem_km_problem &p, uint32_t index)
{
    return __float_as_uint(v.d2[p.slot_at + qem_km_slot_of(p, index)]);
}

/* How many points of each value of the digit at `shift` have `above` in the digits above it. */
static __device__ void count_digits(const qem_km_view &v, const qem_km_problem &p, uint32_t above, uint32_t shift,
                                    uint32_t *digits)
{
    for (uint32_t d = threadIdx.x; d < DIGITS; d += blockDim.x) digits[d] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < p.count; i += blockDim.x) {
        const uint32_t bits = error_bits(v, p, i);
        if ((uint64_t)bits >> (shift + 8) == (uint64_t)above >> (shift + 8)) atomicAdd(&digits[(bits >> shift) % DIGITS], 1u);
    }
    __syncthreads();
}

/* The error of place `wanted` from the top (from 1 on); *wanted becomes how many of those with that error are among them. */
static __device__ uint32_t find_threshold(const qem_km_view &v, const qem_km_problem &p, uint32_t *wanted)
{
    QEM_SHARED(uint32_t, digits, [DIGITS]);
    QEM_SHARED(uint32_t, found, [2]);
    uint32_t threshold = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        count_digits(v, p, threshold, (uint32_t)shift, digits);
        if (threadIdx.x == 0) {
            uint32_t digit = DIGITS - 1, left = *wanted;
            while (left > digits[digit]) left -= digits[digit--];
            found[0] = digit;
            found[1] = left;
        }
        __syncthreads();
        threshold |= found[0] << shift;
        *wanted = found[1];
        __syncthreads();
    }
    return threshold;
}

/* Keys of the `wanted` farthest points, in no order: larger key = larger error, then lower index. */
static __device__ void collect(const qem_km_view &v, const qem_km_problem &p, uint32_t wanted, unsigned long long *keys)
{
    uint32_t ties = wanted;
    const uint32_t threshold = find_threshold(v, p, &ties);
    uint32_t filled = 0, tied = 0;
    for (uint32_t base = 0; base < p.count; base += blockDim.x) {
        const uint32_t i = base + threadIdx.x;
        const uint32_t bits = i < p.count ? error_bits(v, p, i) : 0;
        const bool is_tie = i < p.count && bits == threshold;
        long long all_ties, all;
        const uint32_t rank = tied + (uint32_t)qem_km_scan(is_tie, &all_ties); /* from 1 on */
        const bool is_taken = i < p.count && (bits > threshold || (is_tie && rank <= ties));
        const uint32_t place = filled + (uint32_t)qem_km_scan(is_taken, &all);
        if (is_taken) keys[place - 1] = (unsigned long long)bits << 32 | (0xffffffffu - i);
        tied += (uint32_t)all_ties;
        filled += (uint32_t)all;
    }
    __syncthreads();
}

static __device__ __forceinline__ void order_pair(unsigned long long *keys, uint32_t low, uint32_t high, uint32_t count)
{
    if (high >= count) return; /* as if a key of 0 were there: it stays behind all others */
    const unsigned long long a = keys[low], b = keys[high];
    if (a >= b) return;
    keys[low] = b;
    keys[high] = a;
}

/* Descending, by the block (a bitonic sort whose comparisons all point one way, so that any count will do). */
static __device__ void sort_keys(unsigned long long *keys, uint32_t count)
{
    for (uint64_t half = 1; half < count; half *= 2) {
        const uint32_t mask = (uint32_t)(2 * half - 1);
        for (uint32_t i = threadIdx.x; i < count; i += blockDim.x)
            if ((i & (uint32_t)half) == 0) order_pair(keys, i, i ^ mask, count);
        __syncthreads();
        for (uint32_t by = (uint32_t)half / 2; by > 0; by /= 2) {
            for (uint32_t i = threadIdx.x; i < count; i += blockDim.x)
                if ((i & by) == 0) order_pair(keys, i, i + by, count);
            __syncthreads();
        }
    }
}

/* ---- handing out ---- */

/* A point into cluster j, by a warp; without weights the sums follow (with weights they are made later). */
static __device__ void hand_to(const qem_km_view &v, const qem_km_problem &p, unsigned long long key, uint32_t j)
{
    const uint32_t lane = threadIdx.x % 32, slot = qem_km_slot_of(p, 0xffffffffu - (uint32_t)key);
    const bool tail = p.full != p.count && slot >= p.tail_slot;
    const uint32_t dim = tail ? p.tail_dim : p.width, label = v.labels[p.slot_at + slot];
    const double scale = ldexp(1.0, qem_fixed_shift(p.count, 2.0));
    uint32_t *const counts = v.counts + (tail ? v.entry_total : 0) + p.entry_at;
    __syncwarp(); /* all lanes have read the label */
    for (uint32_t q = lane; q < dim && p.weighting == QEM_KM_UNWEIGHTED; q += 32) {
        const double x = (double)v.x[p.x_at + (uint64_t)q * p.slots + slot];
        const unsigned long long fixed = (unsigned long long)llrint(x * scale);
        v.sums[p.part_at + (uint64_t)label * p.width + q] -= fixed;
        v.sums[p.part_at + (uint64_t)j * p.width + q] += fixed;
    }
    if (lane == 0) {
        counts[label]--;
        counts[j]++;
        v.labels[p.slot_at + slot] = j;
    }
    __syncwarp();
}

/* By a warp: 32 clusters at a time. */
static __device__ void hand_out(const qem_km_view &v, const qem_km_problem &p, uint32_t k, const unsigned long long *keys,
                                uint32_t count)
{
    uint32_t next = 0;
    for (uint32_t base = 0; base < k && next < count; base += 32) {
        const uint32_t own = base + threadIdx.x % 32;
        uint32_t empty = __ballot_sync(QEM_KM_ALL_LANES, own < k && is_empty(v, p, own));
        while (empty && next < count) {
            const uint32_t j = base + (uint32_t)__ffs((int)empty) - 1;
            const unsigned long long key = keys[next++];
            if (key >> 32 == 0) return;
            hand_to(v, p, key, j);
            empty = __ballot_sync(QEM_KM_ALL_LANES, own > j && own < k && is_empty(v, p, own));
        }
    }
}

/* A block a problem. Reads each D^2 five times. */
static __global__ void __launch_bounds__(1024) repair(const qem_km_view v)
{
    const qem_km_problem &p = v.problems[blockIdx.x];
    qem_km_state &s = v.states[blockIdx.x];
    unsigned long long *const keys = v.keys + p.entry_at;
    if (s.done || s.empty == 0) return;
    const uint32_t count = s.empty < p.count ? s.empty : p.count;
    collect(v, p, count, keys);
    sort_keys(keys, count);
    if (threadIdx.x < 32) hand_out(v, p, s.k, keys, count);
    if (threadIdx.x == 0) s.repaired = 1;
}

qem_status qem_km_repair(qem_km_set *set)
{
    QEM_TRY(qem_km_reset(set));
    QEM_KM_ON_RUNS(set, find_empty, set->view);
    QEM_TRY(qem_km_own_distances(set, QEM_KM_WITH_EMPTY));
    QEM_KM_ON_PROBLEMS(set, repair, set->view);
    if (set->any_weighted) QEM_TRY(qem_km_count(set, 1));
    return QEM_OK;
}
