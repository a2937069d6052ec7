/*
 * k-means++ (Arthur and Vassilvitskii 2007) for all problems of a set at once. D^2 is summed as integers, under a power of two
 * that follows the largest D^2 of the step, so a draw does not depend on the order of the sum; it is the first point, in the
 * order of the problem, whose prefix sum exceeds u * total. A weighted point counts with weight * D^2, for the first draw with
 * its weight.
 *
 * Three launches a step: D^2 against the centre drawn last and their largest; sums of tiles under the scale of that largest; the
 * draw. A problem that has all its centroids, or no error left, is passed over by its blocks.
 */
#include "kmeans_device.cuh"

#define LEAST_TOTAL ((long long)1 << 40) /* sums of weighted D^2 below it are made again under a finer scale */
#define REPORT_STEPS 64 /* a step is short: the host looks up after so many */

static __global__ void start(const qem_km_view v)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    v.states[i].k = 0;
    v.states[i].largest = 0;
}

/* What a point's D^2 adds to the sums, before it is scaled. */
static __device__ __forceinline__ double error_of(const qem_km_view &v, const qem_km_problem &p, uint32_t slot)
{
    const double d2 = (double)v.d2[p.slot_at + slot];
    return p.weighting == QEM_KM_POINT ? d2 * (double)v.w[p.w_at + slot] : d2; /* exact */
}

/* For the first draw: the weights as if they were errors. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) weigh(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    double largest = 0.0;
    if (p.weighting == QEM_KM_UNWEIGHTED) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        float sum = 0.0f;
        if (!qem_km_slot(tile, i, &slot)) break;
        if (p.weighting == QEM_KM_ELEMENT)
            for (uint32_t q = 0; q < dim; q++) sum += v.w[p.w_at + (uint64_t)q * p.slots + slot];
        v.d2[p.slot_at + slot] = p.weighting == QEM_KM_ELEMENT ? sum : 1.0f;
        const double error = error_of(v, p, slot);
        largest = error > largest ? error : largest;
    }
    qem_km_note_largest(&v.states[tile.problem].largest, largest);
}

/* D^2 and label against centroid j - 1. Reads each element and D^2 once; writes D^2 and label of the points that are nearer. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) step(const qem_km_view v, uint32_t j)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    double largest = 0.0;
    if (v.states[tile.problem].k != j) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        float *const d2 = &v.d2[p.slot_at + slot];
        const float t = qem_km_distance(v, p, slot, dim, j - 1);
        if (j == 1 || t < *d2) {
            *d2 = t;
            v.labels[p.slot_at + slot] = j - 1;
        }
        const double error = error_of(v, p, slot);
        largest = error > largest ? error : largest;
    }
    qem_km_note_largest(&v.states[tile.problem].largest, largest);
}

/* Is there something to be summed for draw number j? */
static __device__ __forceinline__ bool is_drawn(const qem_km_problem &p, const qem_km_state &s, uint32_t j)
{
    return s.k == j && j < p.k && qem_km_double(s.largest) > 0.0;
}

/* The sums of a tile; with weights of points also those under the scale of the step before, which may stay. Reads each D^2. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) sum_tiles(const qem_km_view v, uint32_t j)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const qem_km_state &s = v.states[tile.problem];
    long long anew = 0, before = 0, total;
    if (!is_drawn(p, s, j)) return;
    const double scale = ldexp(1.0, qem_fixed_shift(p.count, qem_km_double(s.largest))), old = ldexp(1.0, s.shift);
    const bool both = p.weighting == QEM_KM_POINT && j > 1;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        const double error = error_of(v, p, slot);
        anew += llrint(error * scale);
        if (both) before += llrint(error * old);
    }
    const uint64_t at = p.tile_at + qem_km_number(p, tile);
    (void)qem_km_scan(anew, &total);
    if (threadIdx.x == 0) v.tile_sums[at] = (unsigned long long)total;
    if (!both) return;
    (void)qem_km_scan(before, &total);
    if (threadIdx.x == 0) v.tile_sums[v.tile_total + at] = (unsigned long long)total;
}

/* Sum of `count` numbers, by the block. */
static __device__ long long sum_of(const unsigned long long *from, uint32_t count)
{
    long long sum = 0, total;
    for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) sum += (long long)from[i];
    (void)qem_km_scan(sum, &total);
    return total;
}

/* The first number whose prefix sum exceeds *target, which becomes what is left of it there. */
template <typename Value> static __device__ uint32_t first_above(uint32_t count, long long *target, Value value_of)
{
    QEM_SHARED(long long, rest, [1]);
    QEM_SHARED(uint32_t, found, [1]);
    long long passed = 0;
    if (threadIdx.x == 0) {
        *found = count - 1;
        *rest = 0;
    }
    for (uint32_t base = 0; base < count; base += blockDim.x) {
        long long all;
        const uint32_t i = base + threadIdx.x;
        const long long value = i < count ? value_of(i) : 0;
        const long long after = passed + qem_km_scan(value, &all); /* it has barriers: *found is set */
        if (after > *target && after - value <= *target) {
            *found = i;
            *rest = *target - (after - value);
        }
        passed += all;
        if (passed > *target) break; /* all threads see the same */
    }
    __syncthreads();
    const uint32_t at = *found;
    *target = *rest;
    __syncthreads(); /* they are used again */
    return at;
}

static __device__ uint32_t draw_by_errors(const qem_km_view &v, const qem_km_problem &p, qem_km_state &s, uint32_t j,
                                          uint64_t random)
{
    const uint32_t tiles = qem_km_tiles_of(p.full) + qem_km_tiles_of(p.count - p.full);
    const unsigned long long *sums = v.tile_sums + p.tile_at;
    int shift = s.shift;
    long long total = 0;
    if (p.weighting == QEM_KM_POINT && j > 1) total = sum_of(sums + v.tile_total, tiles);
    if (total >= LEAST_TOTAL) {
        sums += v.tile_total;
    } else {
        total = sum_of(sums, tiles);
        shift = qem_fixed_shift(p.count, qem_km_double(s.largest));
    }
    const double scale = ldexp(1.0, shift);
    long long target = (long long)qem_random_below(random, (uint64_t)total);
    const uint32_t number = first_above(tiles, &target, [=](uint32_t i) { return (long long)sums[i]; });
    const qem_km_tile tile = qem_km_tile_of(p, 0, number);
    const uint32_t in_tile =
        first_above(tile.count, &target, [&](uint32_t i) { return (long long)llrint(error_of(v, p, tile.begin + i) * scale); });
    if (threadIdx.x == 0) s.shift = shift; /* the others have read it: there were barriers */
    return tile.begin + in_tile;
}

/* Makes the point of a slot centroid j. */
static __device__ void take_center(const qem_km_view &v, const qem_km_problem &p, qem_km_state &s, uint32_t j, uint32_t slot)
{
    const bool tail = p.full != p.count && slot >= p.tail_slot;
    const uint32_t dim = tail ? p.tail_dim : p.width;
    for (uint32_t q = threadIdx.x; q < p.width; q += blockDim.x)
        v.c[p.part_at + (uint64_t)q * p.ldc + j] =
            q < dim ? v.x[p.x_at + (uint64_t)q * p.slots + slot] : qem_km_scaled(v.mean[p.mean_at + q], s.scale, 0.0f);
    if (threadIdx.x) return;
    v.only_tail[p.entry_at + j] = tail;
    s.k = j + 1;
    s.largest = 0;
}

/* A block a problem. Reads the sums of its tiles, and D^2 of one. */
static __global__ void __launch_bounds__(1024) draw(const qem_km_view v, uint32_t j, uint64_t seed, uint32_t restart)
{
    const qem_km_problem &p = v.problems[blockIdx.x];
    qem_km_state &s = v.states[blockIdx.x];
    const uint32_t here = s.k;
    const double largest = qem_km_double(s.largest);
    __syncthreads(); /* one thread will write them */
    if (here != j || j >= p.k) return;
    const uint64_t random = qem_random_u64(seed, p.key, j, restart);
    uint32_t slot;
    if (j == 0 && p.weighting == QEM_KM_UNWEIGHTED) {
        slot = qem_km_slot_of(p, (uint32_t)qem_random_below(random, p.count));
    } else {
        if (!(largest > 0.0)) return; /* every point is a centre already */
        slot = draw_by_errors(v, p, s, j, random);
    }
    take_center(v, p, s, j, slot);
}

static qem_status step_of(qem_km_set *set, uint32_t j, uint64_t seed, uint32_t restart)
{
    QEM_KM_ON_TILES(set, step, set->view, j);
    if (j >= set->most_k) return QEM_OK; /* the last one: labels alone */
    QEM_KM_ON_TILES(set, sum_tiles, set->view, j);
    QEM_KM_ON_PROBLEMS(set, draw, set->view, j, seed, restart);
    return QEM_OK;
}

qem_status qem_km_seed(qem_km_set *set, uint64_t seed, uint32_t restart)
{
    QEM_KM_EACH_PROBLEM(set, start, set->view);
    if (set->any_weighted) {
        QEM_KM_ON_TILES(set, weigh, set->view);
        QEM_KM_ON_TILES(set, sum_tiles, set->view, 0);
    }
    QEM_KM_ON_PROBLEMS(set, draw, set->view, 0, seed, restart);
    for (uint32_t j = 1; j <= set->most_k; j++) {
        QEM_TRY(step_of(set, j, seed, restart));
        if (j % REPORT_STEPS == 0) QEM_TRY(qem_km_report(set, (double)j / set->most_k * QEM_KM_SEED_SHARE));
    }
    return QEM_OK;
}
