/*
 * The part of nearest_template.h for more than NARROW_DIM dimensions. x and c lie in columns whose distance may be a power
 * of two, and so many of them would fight for one set of the cache: points and centroids are packed first.
 */
#define PACK_POINTS QEM_POINT_PAD
#define PACK_DIM 128 /* up to here all dimensions of a group are packed once, above they go by slabs of SLAB_DIM */
#define SLAB_DIM 64

typedef struct wide_buffers {
    _Alignas(64) float x[PACK_DIM * PACK_POINTS];      /* [pack][dimension][PACK_POINTS] */
    _Alignas(64) float c[PACK_DIM * BLOCK];            /* [dimension][BLOCK] */
    _Alignas(64) float scores[BLOCK][PACK_POINTS];     /* carried from slab to slab */
    _Alignas(64) float best[GROUP_POINTS];
} wide_buffers;

static void pack_columns(const float *from, size_t stride, uint32_t dim, size_t width, float *to)
{
    for (uint32_t p = 0; p < dim; p++)
        for (size_t i = 0; i < width; i += LANES) vf_store(to + p * width + i, vf_load(from + p * stride + i));
}

QEM_INLINE void scan_packed(wide_buffers *buffers, size_t size, centroids_at centroids, size_t count, uint32_t dim,
                            uint32_t grain, uint32_t *where)
{
    for (size_t first = 0; first < count; first += BLOCK) {
        const centroids_at block = { buffers->c, centroids.h + first, BLOCK };
        pack_columns(centroids.c + first, centroids.ldc, dim, BLOCK, buffers->c);
        for (size_t i = 0; i < size; i += TILE_POINTS) {
            const points_at tile = { buffers->x + i / PACK_POINTS * PACK_POINTS * dim + i % PACK_POINTS, PACK_POINTS };
            tile_best best;
            load_best(&best, buffers->best + i, where + i);
            scan_block(tile, block, dim, (uint32_t)first, grain, &best);
            store_best(&best, buffers->best + i, where + i);
        }
    }
}

static void start_scores(const float *h, float scores[BLOCK][PACK_POINTS])
{
    for (size_t j = 0; j < BLOCK; j++)
        for (size_t i = 0; i < PACK_POINTS; i += LANES) vf_store(scores[j] + i, vf_set1(h[j]));
}

static void continue_scores(const float *x, const float *c, uint32_t dim, float scores[BLOCK][PACK_POINTS])
{
    for (size_t j = 0; j < BLOCK; j += TILE_CENTROIDS)
        for (size_t i = 0; i < PACK_POINTS; i += TILE_POINTS) {
            const points_at tile = { x + i, PACK_POINTS };
            vf s[TILE_CENTROIDS][TILE_VECTORS];
            QEM_UNROLL
            for (int t = 0; t < TILE_CENTROIDS; t++) {
                QEM_UNROLL
                for (int v = 0; v < TILE_VECTORS; v++) s[t][v] = vf_load(scores[j + (size_t)t] + i + v * LANES);
            }
            continue_chains(s, tile, dim, c + j, BLOCK);
            QEM_UNROLL
            for (int t = 0; t < TILE_CENTROIDS; t++) {
                QEM_UNROLL
                for (int v = 0; v < TILE_VECTORS; v++) vf_store(scores[j + (size_t)t] + i + v * LANES, s[t][v]);
            }
        }
}

static void take_scores(float scores[BLOCK][PACK_POINTS], uint32_t first, float *best, uint32_t *where)
{
    for (size_t i = 0; i < PACK_POINTS; i += LANES) {
        vf b = vf_load(best + i);
        vi w = vi_load(where + i);
        for (uint32_t j = 0; j < BLOCK; j++) take_best(vf_load(scores[j] + i), first + j, &b, &w);
        vf_store(best + i, b);
        vi_store(where + i, w);
    }
}

/* One pack of points of a dimension so large that keeping every index costs nothing beside it. */
static void scan_slabs(wide_buffers *buffers, points_at points, centroids_at centroids, size_t count, uint32_t dim,
                       uint32_t *labels)
{
    for (size_t first = 0; first < count; first += BLOCK) {
        start_scores(centroids.h + first, buffers->scores);
        for (size_t p = 0; p < dim; p += SLAB_DIM) {
            const uint32_t slab = dim - p < SLAB_DIM ? (uint32_t)(dim - p) : SLAB_DIM;
            pack_columns(points.x + p * points.ld, points.ld, slab, PACK_POINTS, buffers->x);
            pack_columns(centroids.c + p * centroids.ldc + first, centroids.ldc, slab, BLOCK, buffers->c);
            continue_scores(buffers->x, buffers->c, slab, buffers->scores);
        }
        take_scores(buffers->scores, (uint32_t)first, buffers->best, labels);
    }
}

static void nearest_packed_group(wide_buffers *buffers, points_at points, size_t size, centroids_at centroids, size_t count,
                                 uint32_t dim, uint32_t *labels)
{
    for (size_t i = 0; i < size; i += PACK_POINTS)
        pack_columns(points.x + i, points.ld, dim, PACK_POINTS, buffers->x + i * dim);
    if (choose_grain(dim, count) == 1) {
        scan_packed(buffers, size, centroids, count, dim, 1, labels);
    } else {
        scan_packed(buffers, size, centroids, count, dim, 16, labels);
        resolve(points, centroids, dim, 16, size, buffers->best, labels);
    }
}

static void nearest_wide(points_at points, size_t point_count, centroids_at centroids, size_t count, uint32_t dim,
                         uint32_t *labels)
{
    wide_buffers buffers;
    size_t group = dim <= PACK_DIM ? PACK_DIM / dim * PACK_POINTS : PACK_POINTS;
    if (group > GROUP_POINTS) group = GROUP_POINTS;
    for (size_t begin = 0; begin < point_count; begin += group) {
        const points_at from = points_from(points, begin);
        const size_t size = point_count - begin < group ? point_count - begin : group;
        start_best(size, buffers.best, labels + begin);
        if (dim <= PACK_DIM)
            nearest_packed_group(&buffers, from, size, centroids, count, dim, labels + begin);
        else
            scan_slabs(&buffers, from, centroids, count, dim, labels + begin);
    }
}
