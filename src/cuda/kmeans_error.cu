/* Errors of the points of a set under the centroids of now: the objectives, and what follows from them. */
#include "kmeans_device.cuh"

/* Reads each element, weight and label once, gathers the own centroid (from L1 or L2), writes D^2. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) own_distances(const qem_km_view v, qem_km_which which)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    qem_km_state &s = v.states[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    float largest = 0.0f;
    if ((which == QEM_KM_WITH_EMPTY && !s.empty) || (which == QEM_KM_WORKING && s.done)) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        float d2 = qem_km_distance(v, p, slot, dim, v.labels[p.slot_at + slot]);
        if (p.weighting == QEM_KM_POINT) d2 *= v.w[p.w_at + slot];
        v.d2[p.slot_at + slot] = d2;
        largest = d2 > largest ? d2 : largest;
    }
    qem_km_note_largest(&s.largest, largest);
}

/* Reads each D^2 once. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) sum_errors(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    qem_km_state &s = v.states[tile.problem];
    const double largest = qem_km_double(s.largest);
    long long sum = 0;
    if (!(largest > 0.0)) return;
    const double scale = ldexp(1.0, qem_fixed_shift(p.count, largest));
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (qem_km_slot(tile, i, &slot)) sum += llrint((double)v.d2[p.slot_at + slot] * scale);
    }
    sum = qem_km_warp_sum(sum);
    if (threadIdx.x % 32 == 0 && sum) atomicAdd(&s.errors, (unsigned long long)sum);
}

/* ---- a thread a problem ---- */

static __global__ void reset(const qem_km_view v)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    v.states[i].largest = v.states[i].errors = 0;
    v.states[i].empty = v.states[i].repaired = 0;
}

static __global__ void begin_passes(const qem_km_view v)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    v.states[i].done = v.states[i].changed = 0;
    v.states[i].before = INFINITY;
}

/* In the units of the data. */
static __device__ double objective_of(const qem_km_problem &p, const qem_km_state &s)
{
    const double largest = qem_km_double(s.largest);
    if (!(largest > 0.0)) return 0.0;
    return ldexp((double)(long long)s.errors, 2 * s.exponent - qem_fixed_shift(p.count, largest)) * s.weight_unit;
}

static __global__ void decide(const qem_km_view v, double tolerance)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    qem_km_state &s = v.states[i];
    if (s.done) return;
    uint32_t changed = s.changed;
    if (changed && tolerance > 0.0) {
        const double now = objective_of(v.problems[i], s);
        if (s.before - now < tolerance * s.before) changed = 0;
        s.before = now;
    }
    s.changed = 0;
    s.done = !changed;
    if (changed) atomicAdd(&v.flags[0], 1u);
}

static __global__ void choose(const qem_km_view v, int measured)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    qem_km_state &s = v.states[i];
    const double objective = measured ? objective_of(v.problems[i], s) : 0.0;
    s.better = objective < s.best;
    if (!s.better) return;
    s.best = objective;
    s.used = s.k;
}

/* ---- the calls ---- */

qem_status qem_km_own_distances(qem_km_set *set, qem_km_which which)
{
    QEM_KM_ON_TILES(set, own_distances, set->view, which);
    return QEM_OK;
}

qem_status qem_km_reset(qem_km_set *set)
{
    QEM_KM_EACH_PROBLEM(set, reset, set->view);
    return QEM_OK;
}

static qem_status measure(qem_km_set *set, qem_km_which which)
{
    QEM_TRY(qem_km_reset(set));
    QEM_TRY(qem_km_own_distances(set, which));
    QEM_KM_ON_TILES(set, sum_errors, set->view);
    return QEM_OK;
}

qem_status qem_km_begin_passes(qem_km_set *set)
{
    QEM_KM_EACH_PROBLEM(set, begin_passes, set->view);
    return QEM_OK;
}

qem_status qem_km_decide(qem_km_set *set, double tolerance, uint32_t *working)
{
    if (tolerance > 0.0) QEM_TRY(measure(set, QEM_KM_WORKING));
    QEM_TRY(set->call->zero(set->view.flags, sizeof *set->view.flags));
    QEM_KM_EACH_PROBLEM(set, decide, set->view, tolerance);
    return set->call->to_host(working, set->view.flags, sizeof *working);
}

qem_status qem_km_choose(qem_km_set *set, int measured)
{
    if (measured) QEM_TRY(measure(set, QEM_KM_ALL));
    QEM_KM_EACH_PROBLEM(set, choose, set->view, measured);
    return QEM_OK;
}
