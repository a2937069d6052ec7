/*
 * nearest() for one instruction set; the includer has included its vocabulary and set TILE_VECTORS and the
 * factors of choose_grain().
 *
 * Lanes are points, centroid components are broadcast, and a tile of TILE_VECTORS vectors of points x TILE_CENTROIDS
 * centroids keeps enough fma chains in flight to fill the ports. Keeping the index of each score would cost a compare and a
 * blend a score. Instead only the number of the winning grain of 16 or 32 centroids is kept, and the index is found by scoring
 * that grain once more for each point, now with centroids in the lanes: the same chains, so the same bits. With few
 * centroids that costs more than it saves, and the grain is 1.
 *
 * Points are taken in groups small enough for a running best on the stack, centroids in chunks that stay in the L1 cache
 * while the whole group passes over them. labels[] holds grain numbers until they are resolved.
 */
#include "kernels.h"
#include "simd_kernels.h"

#define BLOCK QEM_CENTROID_PAD
#define TILE_CENTROIDS 4
#define TILE_POINTS (TILE_VECTORS * LANES)
#define NARROW_DIM 8      /* dimensions up to here are compile-time constants and read x and c where they lie */
#define GROUP_POINTS 1024
#define CHUNK_FLOATS 6144 /* of centroids in the L1 cache */

typedef struct points_at {
    const float *x;
    size_t ld;
} points_at;

typedef struct centroids_at {
    const float *c, *h;
    size_t ldc;
} centroids_at;

/* The running best of one tile of points, with the number of its grain. */
typedef struct tile_best {
    vf best[TILE_VECTORS];
    vi where[TILE_VECTORS];
} tile_best;

QEM_INLINE points_at points_from(points_at points, size_t i)
{
    points.x += i;
    return points;
}

QEM_INLINE centroids_at centroids_from(centroids_at centroids, size_t j)
{
    centroids.c += j;
    centroids.h += j;
    return centroids;
}

/* Grain 1 costs by the score, resolving by the point, its components and the grain; the factors are measured. */
QEM_INLINE uint32_t choose_grain(uint32_t dim, size_t count)
{
    const size_t work = (size_t)dim + 4;
    if (count <= work * (dim <= NARROW_DIM ? GRAIN_1_NARROW : GRAIN_1_WIDE)) return 1;
    return count <= work * GRAIN_16 ? 16 : 32;
}

QEM_INLINE void start_chains(vf s[TILE_CENTROIDS][TILE_VECTORS], const float *h)
{
    QEM_UNROLL
    for (int j = 0; j < TILE_CENTROIDS; j++) {
        QEM_UNROLL
        for (int v = 0; v < TILE_VECTORS; v++) s[j][v] = vf_set1(h[j]);
    }
}

QEM_INLINE void continue_chains(vf s[TILE_CENTROIDS][TILE_VECTORS], points_at points, uint32_t dim, const float *c, size_t ldc)
{
    for (uint32_t p = 0; p < dim; p++) {
        vf point[TILE_VECTORS];
        QEM_UNROLL
        for (int v = 0; v < TILE_VECTORS; v++) point[v] = vf_load(points.x + p * points.ld + v * LANES);
        QEM_UNROLL
        for (int j = 0; j < TILE_CENTROIDS; j++) {
            const vf component = vf_set1(c[p * ldc + (size_t)j]);
            QEM_UNROLL
            for (int v = 0; v < TILE_VECTORS; v++) s[j][v] = vf_fnmadd(point[v], component, s[j][v]);
        }
    }
}

QEM_INLINE void take_best(vf s, uint32_t number, vf *best, vi *where)
{
    *where = vi_select(vf_lt(s, *best), vi_set1(number), *where); /* strictly less: ties stay with the lower one */
    *best = vf_min(s, *best);
}

/* Grain 1: `first` is the index of the first of these centroids. */
QEM_INLINE void take_each(vf s[TILE_CENTROIDS][TILE_VECTORS], uint32_t first, tile_best *tile)
{
    QEM_UNROLL
    for (int j = 0; j < TILE_CENTROIDS; j++) {
        QEM_UNROLL
        for (int v = 0; v < TILE_VECTORS; v++) take_best(s[j][v], first + (uint32_t)j, &tile->best[v], &tile->where[v]);
    }
}

/* A tree, since at dim 1 a chain of minima through least[] would be the slowest part. */
QEM_INLINE void take_least(vf s[TILE_CENTROIDS][TILE_VECTORS], vf least[TILE_VECTORS])
{
    QEM_UNROLL
    for (int v = 0; v < TILE_VECTORS; v++)
        least[v] = vf_min(vf_min(vf_min(s[0][v], s[1][v]), vf_min(s[2][v], s[3][v])), least[v]);
}

/* One block, whose first centroid has the index `first`, over one tile of points. */
QEM_INLINE void scan_block(points_at points, centroids_at block, uint32_t dim, uint32_t first, uint32_t grain, tile_best *tile)
{
    const uint32_t step = grain == 1 ? TILE_CENTROIDS : grain;
    for (uint32_t begin = 0; begin < BLOCK; begin += step) {
        vf least[TILE_VECTORS];
        QEM_UNROLL
        for (int v = 0; v < TILE_VECTORS; v++) least[v] = vf_set1(INFINITY);
        for (uint32_t j = begin; j < begin + step; j += TILE_CENTROIDS) {
            vf s[TILE_CENTROIDS][TILE_VECTORS];
            start_chains(s, block.h + j);
            continue_chains(s, points, dim, block.c + j, block.ldc);
            if (grain == 1)
                take_each(s, first + j, tile);
            else
                take_least(s, least);
        }
        if (grain == 1) continue;
        QEM_UNROLL
        for (int v = 0; v < TILE_VECTORS; v++) take_best(least[v], (first + begin) / grain, &tile->best[v], &tile->where[v]);
    }
}

QEM_INLINE void load_best(tile_best *tile, const float *best, const uint32_t *where)
{
    QEM_UNROLL
    for (int v = 0; v < TILE_VECTORS; v++) {
        tile->best[v] = vf_load(best + v * LANES);
        tile->where[v] = vi_load(where + v * LANES);
    }
}

QEM_INLINE void store_best(const tile_best *tile, float *best, uint32_t *where)
{
    QEM_UNROLL
    for (int v = 0; v < TILE_VECTORS; v++) {
        vf_store(best + v * LANES, tile->best[v]);
        vi_store(where + v * LANES, tile->where[v]);
    }
}

/* Centroids first .. end-1 over one tile of points. */
QEM_INLINE void scan_chunk(points_at points, centroids_at centroids, uint32_t dim, size_t first, size_t end, uint32_t grain,
                           float *best, uint32_t *where)
{
    tile_best tile;
    load_best(&tile, best, where);
    for (size_t j = first; j < end; j += BLOCK)
        scan_block(points, centroids_from(centroids, j), dim, (uint32_t)j, grain, &tile);
    store_best(&tile, best, where);
}

/* The first centroid of a grain whose score of one point is `best`; 0 in grain 0 if all scores are +inf. */
QEM_INLINE uint32_t find_in_grain(points_at point, centroids_at centroids, uint32_t dim, uint32_t grain, const float *best)
{
    const int vectors = (int)grain / LANES;
    vf s[BLOCK / LANES];
    QEM_UNROLL
    for (int v = 0; v < vectors; v++) s[v] = vf_load(centroids.h + v * LANES);
    for (uint32_t p = 0; p < dim; p++) {
        const vf component = vf_set1(point.x[p * point.ld]);
        QEM_UNROLL
        for (int v = 0; v < vectors; v++)
            s[v] = vf_fnmadd(component, vf_load(centroids.c + p * centroids.ldc + v * LANES), s[v]);
    }
    uint32_t equal = 1u << (grain - 1); /* never 0, so that even a NaN gives a label in range */
    QEM_UNROLL
    for (int v = 0; v < vectors; v++) equal |= vm_bits(vf_eq(s[v], vf_set1(*best))) << (v * LANES);
    return (uint32_t)__builtin_ctz(equal);
}

QEM_INLINE void resolve(points_at points, centroids_at centroids, uint32_t dim, uint32_t grain, size_t size, const float *best,
                        uint32_t *labels)
{
    for (size_t i = 0; i < size; i++) {
        const uint32_t first = labels[i] * grain;
        labels[i] = first + find_in_grain(points_from(points, i), centroids_from(centroids, first), dim, grain, best + i);
    }
}

static void start_best(size_t size, float *best, uint32_t *labels)
{
    for (size_t i = 0; i < size; i += LANES) {
        vf_store(best + i, vf_set1(INFINITY));
        vi_store(labels + i, vi_set1(0));
    }
}

QEM_INLINE void scan_group(points_at points, size_t size, centroids_at centroids, size_t count, uint32_t dim, uint32_t grain,
                           float *best, uint32_t *where)
{
    const size_t chunk = CHUNK_FLOATS / (dim + 1) / BLOCK * BLOCK;
    for (size_t first = 0; first < count; first += chunk) {
        const size_t end = count - first < chunk ? count : first + chunk;
        for (size_t i = 0; i < size; i += TILE_POINTS)
            scan_chunk(points_from(points, i), centroids, dim, first, end, grain, best + i, where + i);
    }
}

/* Scanning and resolving are functions of their own for each dimension and grain: each needs all the registers. */
#define NOINLINE static __attribute__((noinline)) void
#define SCAN(DIM, GRAIN)                                                                                                   \
    NOINLINE scan_##DIM##_##GRAIN(points_at points, size_t size, centroids_at centroids, size_t count, float *best,        \
                                  uint32_t *where)                                                                         \
    {                                                                                                                      \
        scan_group(points, size, centroids, count, DIM, GRAIN, best, where);                                               \
    }
#define RESOLVE(DIM, GRAIN)                                                                                                \
    NOINLINE resolve_##DIM##_##GRAIN(points_at points, size_t size, centroids_at centroids, const float *best,             \
                                     uint32_t *labels)                                                                     \
    {                                                                                                                      \
        resolve(points, centroids, DIM, GRAIN, size, best, labels);                                                        \
    }
#define NARROW(DIM)                                                                                                        \
    SCAN(DIM, 1) SCAN(DIM, 16) SCAN(DIM, 32) RESOLVE(DIM, 16) RESOLVE(DIM, 32)                                             \
    static const narrow_functions narrow_##DIM = { { scan_##DIM##_1, scan_##DIM##_16, scan_##DIM##_32 },                   \
                                                   { NULL, resolve_##DIM##_16, resolve_##DIM##_32 } };

/* Indexed by grain / 16: 0, 1, 2. */
typedef struct narrow_functions {
    void (*scan[3])(points_at, size_t, centroids_at, size_t, float *, uint32_t *);
    void (*resolve[3])(points_at, size_t, centroids_at, const float *, uint32_t *);
} narrow_functions;

NARROW(1)
NARROW(2)
NARROW(3)
NARROW(4)
NARROW(5)
NARROW(6)
NARROW(7)
NARROW(8)

static void nearest_narrow(points_at points, size_t point_count, centroids_at centroids, size_t count, uint32_t dim,
                           uint32_t *labels)
{
    static const narrow_functions *const by_dim[NARROW_DIM + 1] = { NULL,      &narrow_1, &narrow_2, &narrow_3, &narrow_4,
                                                                    &narrow_5, &narrow_6, &narrow_7, &narrow_8 };
    const narrow_functions *functions = by_dim[dim];
    const uint32_t grain = choose_grain(dim, count);
    float best[GROUP_POINTS];
    for (size_t begin = 0; begin < point_count; begin += GROUP_POINTS) {
        const points_at group = points_from(points, begin);
        const size_t size = point_count - begin < GROUP_POINTS ? point_count - begin : GROUP_POINTS;
        start_best(size, best, labels + begin);
        functions->scan[grain / 16](group, size, centroids, count, best, labels + begin);
        if (grain > 1) functions->resolve[grain / 16](group, size, centroids, best, labels + begin);
    }
}

#include "nearest_wide_template.h"

void QEM_SIMD(nearest)(const float *x, size_t ld, size_t point_count, uint32_t dim, const float *c, const float *h, size_t ldc,
                       size_t count, uint32_t *labels)
{
    const points_at points = { x, ld };
    const centroids_at centroids = { c, h, ldc };
    if (dim <= NARROW_DIM)
        nearest_narrow(points, point_count, centroids, count, dim, labels);
    else
        nearest_wide(points, point_count, centroids, count, dim, labels);
}
