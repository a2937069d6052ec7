/*
 * The labels of a set: the lowest of the centroids with the least score, score = fmaf(-x_p, c_p, score) for ascending p from the
 * half norm. Where elements have weights, a point has 2 * dim features (w_0 * x_0, w_0, w_1 * x_1, ...), a centroid as many
 * (c_0, -c_0^2 / 2, c_1, ...), and its half norm is 0.
 *
 * Few positions: a block has a tile of points in registers and passes over the centroids in shared memory, CHUNK of them at a
 * time; each vector read there serves QEM_KM_EACH points. Of QEM_KM_GRAIN scores only the least is kept, and which grain it was
 * of; the winning grain is scored once more in the end, by the same chains, to find its index: equality is exact. An index kept
 * on every score would cost 2 instructions a score beside dim + 1.
 *
 * Many positions: points stay in memory (a tile of them fits in L1 for some 64 positions), STEP centroids go through shared
 * memory, SLAB positions at a time, and every thread carries QEM_KM_EACH * STEP chains.
 *
 * Bytes: each element once (few positions), a label, and the codebook for each tile, from L2.
 */
#include "kmeans_device.cuh"

#define CHUNK 256
#define STEP 8
#define SLAB 64
#define MOST_NARROW 8  /* features */
#define LEAST_BLOCKS 4 /* on a multiprocessor at once: up to 128 registers a thread, with which nothing is spilled */

struct search {
    uint32_t first_tile; /* of the launch's tiles */
    int passes;          /* 1: problems that are not done, and note what has changed */
    uint32_t part;       /* as qem_km_nearest */
};

/* The centroids of a problem as a search reads them. */
struct centroids {
    const float *c, *h; /* c[f * ldc + j]; h NULL: 0 */
    uint32_t ldc, k, count; /* count: k in whole grains */
};

static __device__ __forceinline__ centroids centroids_of(const qem_km_view &v, const qem_km_problem &p, const qem_km_tile &tile,
                                                         uint32_t k, bool weighted)
{
    const uint32_t count = (k + QEM_KM_GRAIN - 1) / QEM_KM_GRAIN * QEM_KM_GRAIN;
    if (weighted) return {v.features + 2 * p.part_at, nullptr, p.ldc, k, count};
    return {v.c + p.part_at, v.h + (tile.part ? v.entry_total : 0) + p.entry_at, p.ldc, k, count};
}

static __device__ __forceinline__ float half_norm(const centroids &all, uint32_t j)
{
    if (all.h) return all.h[j];
    return j < all.k ? 0.0f : INFINITY;
}

/* The new labels of a thread's points. */
static __device__ __forceinline__ void put_labels(const qem_km_view &v, const search &s, const qem_km_tile &tile,
                                                  const qem_km_problem &p, const uint32_t (&label)[QEM_KM_EACH])
{
    bool changed = false;
#pragma unroll
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) continue;
        if (s.part && (v.d2[p.slot_at + slot] == 1.0f) != (s.part == 1)) continue;
        uint32_t *const to = &v.labels[p.slot_at + slot];
        if (*to == label[i]) continue;
        *to = label[i];
        changed = true;
    }
    if (s.passes && __any_sync(QEM_KM_ALL_LANES, changed) && threadIdx.x % 32 == 0) atomicOr(&v.states[tile.problem].changed, 1u);
}

static __device__ __forceinline__ float lane_of(const float4 &a, int lane)
{
    return lane == 0 ? a.x : lane == 1 ? a.y : lane == 2 ? a.z : a.w;
}

/* Four scores of one point, whose centroids begin at c, c + stride, ... */
template <int F>
static __device__ __forceinline__ float4 score_four(const float (&x)[F], const float *c, uint32_t stride, float4 s)
{
#pragma unroll
    for (int f = 0; f < F; f++) {
        const float4 here = *reinterpret_cast<const float4 *>(c + f * stride);
        s.x = fmaf(-x[f], here.x, s.x);
        s.y = fmaf(-x[f], here.y, s.y);
        s.z = fmaf(-x[f], here.z, s.z);
        s.w = fmaf(-x[f], here.w, s.w);
    }
    return s;
}

/* Features of the thread's points; 0 past the tile's end. */
template <int D, bool WEIGHTED, int F>
static __device__ __forceinline__ void load_points(const qem_km_view &v, const qem_km_tile &tile, const qem_km_problem &p,
                                                   float (&x)[QEM_KM_EACH][F])
{
#pragma unroll
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        const bool is_there = qem_km_slot(tile, i, &slot);
#pragma unroll
        for (int q = 0; q < D; q++) {
            const uint64_t at = (uint64_t)q * p.slots + slot;
            const float value = is_there ? v.x[p.x_at + at] : 0.0f;
            if (WEIGHTED) {
                const float w = is_there ? v.w[p.w_at + at] : 0.0f;
                x[i][2 * q] = w * value;
                x[i][2 * q + 1] = w;
            } else {
                x[i][q] = value;
            }
        }
    }
}

/* Centroids first .. first + n - 1 to table[f][CHUNK], their half norms behind. */
template <int F>
static __device__ __forceinline__ void load_chunk(const centroids &all, uint32_t first, uint32_t n, float *table)
{
    for (uint32_t e = threadIdx.x; e < n; e += QEM_KM_THREADS) {
#pragma unroll
        for (int f = 0; f < F; f++) table[f * CHUNK + e] = all.c[(uint64_t)f * all.ldc + first + e];
        table[F * CHUNK + e] = half_norm(all, first + e);
    }
}

/* The grains of a chunk, the first of which has the number `first`. */
template <int F>
static __device__ __forceinline__ void scan_chunk(const float *table, uint32_t first, uint32_t n,
                                                  const float (&x)[QEM_KM_EACH][F], float (&best)[QEM_KM_EACH],
                                                  uint32_t (&where)[QEM_KM_EACH])
{
    for (uint32_t begin = 0; begin < n; begin += QEM_KM_GRAIN) {
        float least[QEM_KM_EACH];
#pragma unroll
        for (int i = 0; i < QEM_KM_EACH; i++) least[i] = INFINITY;
#pragma unroll
        for (uint32_t four = 0; four < QEM_KM_GRAIN; four += 4) {
            const float *const at = table + begin + four;
            const float4 h = *reinterpret_cast<const float4 *>(at + F * CHUNK);
#pragma unroll
            for (int i = 0; i < QEM_KM_EACH; i++) {
                const float4 s = score_four<F>(x[i], at, CHUNK, h);
                least[i] = fminf(least[i], fminf(fminf(s.x, s.y), fminf(s.z, s.w)));
            }
        }
#pragma unroll
        for (int i = 0; i < QEM_KM_EACH; i++) {
            if (!(least[i] < best[i])) continue; /* ties stay with the lower one */
            best[i] = least[i];
            where[i] = first + begin / QEM_KM_GRAIN;
        }
    }
}

/* The first centroid of a grain with the score `best`. */
template <int F>
static __device__ __forceinline__ uint32_t find_in_grain(const centroids &all, uint32_t grain, const float (&x)[F], float best)
{
    uint32_t label = 0;
#pragma unroll 1
    for (int four = QEM_KM_GRAIN - 4; four >= 0; four -= 4) {
        const uint32_t first = grain * QEM_KM_GRAIN + (uint32_t)four;
        const float4 h = {half_norm(all, first), half_norm(all, first + 1), half_norm(all, first + 2), half_norm(all, first + 3)};
        const float4 s = score_four<F>(x, all.c + first, all.ldc, h);
#pragma unroll
        for (int lane = 3; lane >= 0; lane--)
            if (lane_of(s, lane) == best) label = first + (uint32_t)lane;
    }
    return label;
}

template <int D, bool WEIGHTED>
static __global__ void __launch_bounds__(QEM_KM_THREADS, LEAST_BLOCKS) nearest_narrow(const qem_km_view v, const search s)
{
    constexpr int F = WEIGHTED ? 2 * D : D;
    QEM_DYNAMIC_SHARED(float, table);
    const qem_km_tile tile = v.tiles[s.first_tile + blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    float x[QEM_KM_EACH][F], best[QEM_KM_EACH];
    uint32_t where[QEM_KM_EACH];
    if (s.passes && v.states[tile.problem].done) return;
    const centroids all = centroids_of(v, p, tile, v.states[tile.problem].k, WEIGHTED);
    load_points<D, WEIGHTED, F>(v, tile, p, x);
#pragma unroll
    for (int i = 0; i < QEM_KM_EACH; i++) {
        best[i] = INFINITY;
        where[i] = 0;
    }
    for (uint32_t first = 0; first < all.count; first += CHUNK) {
        const uint32_t n = all.count - first < CHUNK ? all.count - first : CHUNK;
        __syncthreads();
        load_chunk<F>(all, first, n, table);
        __syncthreads();
        scan_chunk<F>(table, first / QEM_KM_GRAIN, n, x, best, where);
    }
#pragma unroll
    for (int i = 0; i < QEM_KM_EACH; i++) where[i] = all.count ? find_in_grain<F>(all, where[i], x[i], best[i]) : 0;
    put_labels(v, s, tile, p, where);
}

/* ---- many positions ---- */

/* Positions begin .. end-1 of STEP centroids: table[f][STEP], f counted from the slab's first feature. */
static __device__ __forceinline__ void load_slab(const centroids &all, uint32_t first, uint32_t begin, uint32_t end, float *table)
{
    for (uint32_t e = threadIdx.x; e < (end - begin) * STEP; e += QEM_KM_THREADS)
        table[e] = all.c[(uint64_t)(begin + e / STEP) * all.ldc + first + e % STEP];
}

static __device__ __forceinline__ void go_on(const float *c, const float (&x)[QEM_KM_EACH], float (&s)[QEM_KM_EACH][STEP])
{
#pragma unroll
    for (int e = 0; e < STEP; e += 4) {
        const float4 here = *reinterpret_cast<const float4 *>(c + e);
#pragma unroll
        for (int i = 0; i < QEM_KM_EACH; i++) {
            s[i][e] = fmaf(-x[i], here.x, s[i][e]);
            s[i][e + 1] = fmaf(-x[i], here.y, s[i][e + 1]);
            s[i][e + 2] = fmaf(-x[i], here.z, s[i][e + 2]);
            s[i][e + 3] = fmaf(-x[i], here.w, s[i][e + 3]);
        }
    }
}

template <bool WEIGHTED>
static __device__ __forceinline__ void scan_slab(const qem_km_view &v, const qem_km_problem &p, const qem_km_tile &tile,
                                                 const float *table, uint32_t begin, uint32_t end,
                                                 float (&s)[QEM_KM_EACH][STEP])
{
    for (uint32_t q = begin; q < end; q++) {
        float x[QEM_KM_EACH], w[QEM_KM_EACH];
#pragma unroll
        for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
            uint32_t slot;
            const bool is_there = qem_km_slot(tile, i, &slot);
            const uint64_t at = (uint64_t)q * p.slots + slot;
            x[i] = is_there ? v.x[p.x_at + at] : 0.0f;
            if (!WEIGHTED) continue;
            w[i] = is_there ? v.w[p.w_at + at] : 0.0f;
            x[i] = w[i] * x[i];
        }
        if (WEIGHTED) {
            go_on(table + 2 * (q - begin) * STEP, x, s);
            go_on(table + (2 * (q - begin) + 1) * STEP, w, s);
        } else {
            go_on(table + (q - begin) * STEP, x, s);
        }
    }
}

template <bool WEIGHTED>
static __global__ void __launch_bounds__(QEM_KM_THREADS, LEAST_BLOCKS) nearest_wide(const qem_km_view v, const search s)
{
    constexpr uint32_t factor = WEIGHTED ? 2 : 1;
    QEM_DYNAMIC_SHARED(float, table);
    const qem_km_tile tile = v.tiles[s.first_tile + blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    float best[QEM_KM_EACH];
    uint32_t label[QEM_KM_EACH];
    if (s.passes && v.states[tile.problem].done) return;
    const centroids all = centroids_of(v, p, tile, v.states[tile.problem].k, WEIGHTED);
#pragma unroll
    for (int i = 0; i < QEM_KM_EACH; i++) {
        best[i] = INFINITY;
        label[i] = 0;
    }
    for (uint32_t first = 0; first < all.count; first += STEP) {
        float score[QEM_KM_EACH][STEP];
#pragma unroll
        for (int e = 0; e < STEP; e++) {
            const float h = half_norm(all, first + e);
#pragma unroll
            for (int i = 0; i < QEM_KM_EACH; i++) score[i][e] = h;
        }
        for (uint32_t q = 0; q < dim; q += SLAB) {
            const uint32_t end = dim - q < SLAB ? dim : q + SLAB;
            __syncthreads();
            load_slab(all, first, factor * q, factor * end, table);
            __syncthreads();
            scan_slab<WEIGHTED>(v, p, tile, table, q, end, score);
        }
#pragma unroll
        for (int e = 0; e < STEP; e++) {
#pragma unroll
            for (int i = 0; i < QEM_KM_EACH; i++) {
                if (!(score[i][e] < best[i])) continue;
                best[i] = score[i][e];
                label[i] = first + e;
            }
        }
    }
    put_labels(v, s, tile, p, label);
}

/* ---- the call ---- */

typedef void kernel_type(const qem_km_view, const search);

static kernel_type *kernel_of(uint32_t dim, bool weighted, size_t *shared_bytes)
{
    static kernel_type *const plain[MOST_NARROW] = { nearest_narrow<1, false>, nearest_narrow<2, false>, nearest_narrow<3, false>,
                                                     nearest_narrow<4, false>, nearest_narrow<5, false>, nearest_narrow<6, false>,
                                                     nearest_narrow<7, false>, nearest_narrow<8, false> };
    static kernel_type *const with_weights[MOST_NARROW / 2] = { nearest_narrow<1, true>, nearest_narrow<2, true>,
                                                                nearest_narrow<3, true>, nearest_narrow<4, true> };
    const uint32_t features = weighted ? 2 * dim : dim;
    if (features > MOST_NARROW) {
        *shared_bytes = (weighted ? 2 : 1) * SLAB * STEP * sizeof(float);
        return weighted ? nearest_wide<true> : nearest_wide<false>;
    }
    *shared_bytes = (features + 1) * CHUNK * sizeof(float);
    return weighted ? with_weights[dim - 1] : plain[dim - 1];
}

qem_status qem_km_nearest(qem_km_set *set, int passes, uint32_t part)
{
    const qem_subvectors *v = &set->view.points;
    for (uint32_t kind = 0; kind < 4; kind++) {
        const uint32_t tiles = set->first_tile[kind + 1] - set->first_tile[kind];
        const bool weighted = part ? part == 2 : kind >= 2;
        size_t shared_bytes;
        if (tiles == 0 || (weighted && kind < 2)) continue;
        kernel_type *const kernel = kernel_of(kind % 2 ? v->tail_dim : v->dim, weighted, &shared_bytes);
        const search s = { set->first_tile[kind], passes, part };
        QEM_TRY(set->call->launch(
            QEM_LAUNCH(kernel, dim3(tiles), dim3(QEM_KM_THREADS), shared_bytes, set->call->stream, set->view, s)));
    }
    return QEM_OK;
}
