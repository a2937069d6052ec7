/* The points of a set: what is known of them before, gathering, centring and scaling, labels back. Thread = points of a tile. */
#include "kmeans_device.cuh"

/* ---- before the layout ---- */

static __device__ __forceinline__ uint32_t id_of(const qem_problem &p, uint64_t t)
{
    return p.ids ? p.ids[t] : (uint32_t)(p.first + t * p.step);
}

static __device__ bool has_tail(const qem_subvectors &v, const qem_problem &p)
{
    return p.width == v.dim && v.tail_dim != v.dim;
}

/* Does a weight of sub-vector `id` differ from `common`? */
static __device__ bool differs(const qem_subvectors &v, const float *weights, int of_elements, uint32_t id, float common)
{
    if (!of_elements) return weights[id] != common;
    const float *w = weights + qem_km_place(v, id);
    const uint32_t width = v.tail_dim != v.dim && qem_km_is_last_group(v, id) ? v.tail_dim : v.dim;
    for (uint32_t q = 0; q < width; q++)
        if (w[q] != common) return true;
    return false;
}

/* A block a problem. Reads each weight once, and ids. */
static __global__ void __launch_bounds__(1024) look(qem_subvectors v, const qem_problem *problems, const float *weights,
                                                    int of_elements, qem_km_found *found)
{
    const qem_problem &p = problems[blockIdx.x];
    long long tail = 0, differ = 0, all_tail, all_differ;
    float common = 0.0f;
    if (weights && p.count) common = weights[of_elements ? qem_km_place(v, id_of(p, 0)) : id_of(p, 0)];
    for (uint64_t t = threadIdx.x; t < p.count; t += blockDim.x) {
        const uint32_t id = id_of(p, t);
        tail += has_tail(v, p) && qem_km_is_last_group(v, id);
        differ += weights && differs(v, weights, of_elements, id, common);
    }
    (void)qem_km_scan(tail, &all_tail);
    (void)qem_km_scan(differ, &all_differ);
    if (threadIdx.x == 0) found[blockIdx.x] = { (uint32_t)all_tail, all_differ != 0, common > 0.0f ? common : 1.0f };
}

qem_status qem_km_survey(qem_cuda_call *call, const qem_km_wish *wish, qem_km_found *found)
{
    const float *weights = wish->element_weight ? wish->element_weight : wish->point_weight;
    const uint64_t count = wish->problem_count;
    if (wish->labels_only) weights = nullptr; /* each point's own ones matter there */
    for (uint64_t i = 0; i < count; i++) found[i] = { 0, 0, 1.0f };
    if ((!weights && wish->points.tail_dim == wish->points.dim) || count == 0) return QEM_OK;
    qem_problem *problems;
    qem_km_found *on_device;
    QEM_TRY(call->put(wish->problems, count, &problems));
    QEM_TRY(call->take(count, &on_device));
    uint64_t most = 0;
    for (uint64_t i = 0; i < count; i++) most = wish->problems[i].count > most ? wish->problems[i].count : most;
    const unsigned threads = most > 65536 ? 1024 : QEM_KM_THREADS;
    QEM_TRY(call->launch(QEM_LAUNCH(look, dim3((unsigned)count), dim3(threads), 0, call->stream, wish->points, problems, weights,
                                    wish->element_weight != nullptr, on_device)));
    return call->to_host(found, on_device, count * sizeof *found);
}

/* ---- gathering ---- */

static __device__ __forceinline__ uint32_t given_id(const qem_km_problem &p, uint32_t t)
{
    return p.given ? p.given[t] : (uint32_t)(p.first + t * p.step);
}

/* The ids of problems with tail points, by slot: a block a problem, in steps of as many points as it has threads. */
static __global__ void __launch_bounds__(1024) list_ids(const qem_km_view v)
{
    const qem_km_problem &p = v.problems[blockIdx.x];
    uint32_t *const ids = v.ids + p.slot_at;
    uint32_t full = 0;
    if (p.full == p.count) return;
    for (uint32_t base = 0; base < p.count; base += blockDim.x) {
        const uint32_t t = base + threadIdx.x;
        const uint32_t id = t < p.count ? given_id(p, t) : 0;
        const bool is_full = t < p.count && !qem_km_is_last_group(v.points, id);
        long long all;
        const uint32_t before = full + (uint32_t)qem_km_scan(is_full, &all) - is_full; /* full ones before this point */
        if (t < p.count) ids[is_full ? before : p.tail_slot + (t - before)] = id;
        full += (uint32_t)all;
    }
}

/* The position q of a tile's points, and their largest weight so far. */
static __device__ void gather_weights(const qem_km_view &v, const qem_km_problem &p, uint32_t id, uint32_t slot, uint32_t dim,
                                      float *heaviest)
{
    if (p.weighting == QEM_KM_POINT) {
        const float w = v.weights[id];
        v.w[p.w_at + slot] = w;
        *heaviest = w > *heaviest ? w : *heaviest;
        return;
    }
    const float *from = v.weights + qem_km_place(v.points, id);
    for (uint32_t q = 0; q < dim; q++) {
        v.w[p.w_at + (uint64_t)q * p.slots + slot] = from[q];
        *heaviest = from[q] > *heaviest ? from[q] : *heaviest;
    }
}

/* Reads and writes each element once, and an id a point; a point's elements lie together, those of neighbours as far apart as
 * the ids say, so with few positions half of each sector read may be for other problems (and come from L2 for them). */
static __global__ void __launch_bounds__(QEM_KM_THREADS) gather(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    float largest = 0.0f, heaviest = 0.0f;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        const uint32_t id = p.full == p.count ? given_id(p, slot) : v.ids[p.slot_at + slot];
        const float *from = v.points.x + qem_km_place(v.points, id);
        v.ids[p.slot_at + slot] = id;
        for (uint32_t q = 0; q < dim; q++) {
            const float x = from[q];
            v.x[p.x_at + (uint64_t)q * p.slots + slot] = x;
            largest = fmaxf(largest, fabsf(x));
        }
        if (p.weighting != QEM_KM_UNWEIGHTED) gather_weights(v, p, id, slot, dim, &heaviest);
    }
    qem_km_note_largest(&v.states[tile.problem].largest, largest);
    if (p.weighting != QEM_KM_UNWEIGHTED) qem_km_note_largest(&v.states[tile.problem].heaviest, heaviest);
}

qem_status qem_km_gather(qem_km_set *set)
{
    if (set->any_tail) QEM_KM_ON_PROBLEMS(set, list_ids, set->view);
    QEM_KM_ON_TILES(set, gather, set->view);
    return QEM_OK;
}

/* ---- centre and scale ---- */

/* Sum of each component in fixed point, under one shift for all. Reads each element once. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) sum_components(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    const double scale = ldexp(1.0, qem_fixed_shift(p.count, qem_km_double(v.states[tile.problem].largest)));
    for (uint32_t q = 0; q < dim; q++) {
        long long sum = 0;
        for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
            uint32_t slot;
            if (qem_km_slot(tile, i, &slot)) sum += llrint((double)v.x[p.x_at + (uint64_t)q * p.slots + slot] * scale);
        }
        sum = qem_km_warp_sum(sum);
        if (threadIdx.x % 32 == 0 && sum) atomicAdd(&v.mean_sums[p.mean_at + q], (unsigned long long)sum);
    }
}

static __global__ void set_means(const qem_km_view v)
{
    const qem_km_problem &p = v.problems[blockIdx.x];
    const int shift = p.count ? qem_fixed_shift(p.count, qem_km_double(v.states[blockIdx.x].largest)) : 0;
    for (uint32_t q = threadIdx.x; q < p.width; q += blockDim.x) {
        const uint32_t count = p.full == p.count || q < p.tail_dim ? p.count : p.full;
        const double sum = (double)(long long)v.mean_sums[p.mean_at + q];
        v.mean[p.mean_at + q] = count ? ldexp(sum / (double)count, -shift) : 0.0;
    }
}

/* Reads each element once. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) find_deviation(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    double largest = 0.0;
    for (uint32_t q = 0; q < dim; q++) {
        const double mean = v.mean[p.mean_at + q];
        for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
            uint32_t slot;
            if (!qem_km_slot(tile, i, &slot)) break;
            const double d = fabs((double)v.x[p.x_at + (uint64_t)q * p.slots + slot] - mean);
            largest = d > largest ? d : largest;
        }
    }
    qem_km_note_largest(&v.states[tile.problem].deviation, largest);
}

static __global__ void set_scales(const qem_km_view v)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    qem_km_state &s = v.states[i];
    const double largest = qem_km_double(s.deviation), heaviest = qem_km_double(s.heaviest);
    s.exponent = largest > 0.0 ? qem_exponent_above(largest) - 1 : 0;
    s.scale = ldexp(1.0, -s.exponent);
    s.unit = ldexp(1.0, s.exponent);
    if (v.problems[i].weighting != QEM_KM_UNWEIGHTED) s.weight_unit = ldexp(1.0, qem_exponent_above(heaviest) - 1);
}

/* Reads and writes each element once. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) scale_points(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const double scale = v.states[tile.problem].scale;
    const uint32_t dim = qem_km_dim(p, tile);
    for (uint32_t q = 0; q < dim; q++) {
        const double mean = v.mean[p.mean_at + q];
        for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
            uint32_t slot;
            if (!qem_km_slot(tile, i, &slot)) break;
            float *const x = &v.x[p.x_at + (uint64_t)q * p.slots + slot];
            *x = qem_km_scaled(mean, scale, *x);
        }
    }
}

/* The largest of a problem's weights goes to [1, 2). */
static __global__ void __launch_bounds__(QEM_KM_THREADS) scale_weights(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    if (p.weighting == QEM_KM_UNWEIGHTED) return;
    const uint32_t rows = p.weighting == QEM_KM_ELEMENT ? qem_km_dim(p, tile) : 1;
    const double scale = 1.0 / v.states[tile.problem].weight_unit; /* a power of two */
    for (uint32_t q = 0; q < rows; q++)
        for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
            uint32_t slot;
            if (!qem_km_slot(tile, i, &slot)) break;
            float *const w = &v.w[p.w_at + (uint64_t)q * p.slots + slot];
            *w = qem_km_scaled(0.0, scale, *w);
        }
}

qem_status qem_km_scale(qem_km_set *set)
{
    QEM_KM_ON_TILES(set, scale_points, set->view);
    return QEM_OK;
}

qem_status qem_km_frame(qem_km_set *set)
{
    QEM_TRY(set->call->zero(set->view.mean_sums, set->view.mean_total * sizeof *set->view.mean_sums));
    QEM_KM_ON_TILES(set, sum_components, set->view);
    QEM_KM_LAUNCH(set, set_means, set->view.problem_count, 32, set->view);
    QEM_KM_ON_TILES(set, find_deviation, set->view);
    QEM_KM_EACH_PROBLEM(set, set_scales, set->view);
    QEM_TRY(qem_km_scale(set));
    if (set->any_weighted) QEM_KM_ON_TILES(set, scale_weights, set->view);
    return QEM_OK;
}

/* ---- warm starts, labels back ---- */

/* Centroids as they are stored, scaled. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) read_centroids(const qem_km_view v, const float *codebook)
{
    const qem_km_run run = v.runs[blockIdx.x];
    const qem_km_problem &p = v.problems[run.problem];
    const uint32_t j = run.first + threadIdx.x;
    if (j >= p.k) return;
    const float *stored = codebook + p.codebook_at + (uint64_t)j * p.width;
    const double scale = v.states[run.problem].scale;
    for (uint32_t q = 0; q < p.width; q++)
        v.c[p.part_at + (uint64_t)q * p.ldc + j] = qem_km_scaled(v.mean[p.mean_at + q], scale, stored[q]);
    if (v.only_tail) v.only_tail[p.entry_at + j] = 0; /* the next update knows */
}

static __global__ void __launch_bounds__(QEM_KM_THREADS) read_labels(const qem_km_view v, const uint32_t *labels)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        v.labels[p.slot_at + slot] = labels[v.ids[p.slot_at + slot]] - p.label_base;
    }
}

static __global__ void __launch_bounds__(QEM_KM_THREADS) write_labels(const qem_km_view v, uint32_t *labels, int if_better)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    if (if_better && !v.states[tile.problem].better) return;
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        labels[v.ids[p.slot_at + slot]] = p.label_base + v.labels[p.slot_at + slot];
    }
}

qem_status qem_km_warm(qem_km_set *set, const float *codebook, const uint32_t *labels)
{
    QEM_KM_ON_RUNS(set, read_centroids, set->view, codebook);
    if (labels) QEM_KM_ON_TILES(set, read_labels, set->view, labels);
    return QEM_OK;
}

qem_status qem_km_scatter(qem_km_set *set, uint32_t *labels, int if_better)
{
    QEM_KM_ON_TILES(set, write_labels, set->view, labels, if_better);
    return QEM_OK;
}
