/*
 * The steps of a layer, by chunks: a scale and a mean of the tensor, of the row or of a block of columns, then of the
 * column. What was looked up is f32, and is rounded once, after the steps.
 */
#ifndef QEM_CUDA_STEPS_CUH
#define QEM_CUDA_STEPS_CUH

#include "chunks.cuh"

#define QEM_STEPS_PER_THREAD 4
#define QEM_STEPS_TILE (QEM_STEPS_PER_THREAD * QEM_CHUNK_THREADS)

static_assert(QEM_STEPS_TILE <= QEM_CHUNK_TILE, "what places of chunks are made for");

/* The steps by chunks; a chunk lies within a unit of the first. */
struct chunk_steps {
    const float *scale, *mean; /* of the first step */
    uint32_t has_first;
    uint32_t units_per_row;    /* 0: one unit for the tensor */
    uint64_t row;              /* of the artifact, that the launch begins with */
    uint64_t unit_reciprocal;  /* of the chunks of a unit */
    uint32_t unit_shift;       /* of them, where they are a power of two, or 32: the unit is a row; else 64 */
    uint32_t flat, flat_shift; /* rows are whole units of 1 << flat_shift chunks: chunks are counted on from row to row */
    uint64_t flat_first;       /* chunks before the launch's first row */
    uint32_t has_columns;
    uint64_t flat_bytes[QEM_STEPS_PER_THREAD]; /* from the flat unit of a thread's first chunk to that of its j-th one */
    const float4 *column_scale, *column_mean;
};

template <qem_dtype TYPE> struct chunk_type {
    static constexpr int elements = TYPE == QEM_DTYPE_F32 ? 4 : 8;
};

/* ---- rounding ---- */

template <qem_dtype TYPE> __device__ __forceinline__ uint32_t pair_of(float low, float high);

template <> __device__ __forceinline__ uint32_t pair_of<QEM_DTYPE_F16>(float low, float high)
{
    return qem_cvt_f16x2(low, high);
}

template <> __device__ __forceinline__ uint32_t pair_of<QEM_DTYPE_BF16>(float low, float high)
{
    return qem_cvt_bf16x2(low, high);
}

template <> __device__ __forceinline__ uint32_t pair_of<QEM_DTYPE_F32>(float low, float)
{
    return __float_as_uint(low); /* never used: its chunks are not rounded */
}

template <qem_dtype TYPE> __device__ __forceinline__ uint4 round_chunk(const float *x)
{
    if (TYPE == QEM_DTYPE_F32)
        return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
    constexpr int last = chunk_type<TYPE>::elements - 1;
    return make_uint4(pair_of<TYPE>(x[0], x[1]), pair_of<TYPE>(x[2], x[3]),
                      pair_of<TYPE>(x[4 % (last + 1)], x[5 % (last + 1)]), pair_of<TYPE>(x[6 % (last + 1)], x[last]));
}

/* ---- steps ---- */

/* place: rows after that of the tile, whose first unit is `unit`, and the chunk of the row. */
template <int ELEMENTS>
__device__ __forceinline__ void apply_first(const chunk_steps &steps, uint64_t unit, uint2 place, float (&x)[ELEMENTS])
{
    const uint32_t of_row = steps.unit_shift < 32   ? place.y >> steps.unit_shift
                            : steps.unit_shift > 32 ? (uint32_t)__umul64hi(place.y, steps.unit_reciprocal)
                                                    : 0;
    unit += place.x * steps.units_per_row + of_row;
    const float scale = steps.scale ? __ldg(steps.scale + unit) : 1.0f, mean = steps.mean ? __ldg(steps.mean + unit) : 0.0f;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) x[e] = fmaf(x[e], scale, mean);
}

template <int ELEMENTS>
__device__ __forceinline__ void apply_columns(const chunk_steps &steps, uint32_t chunk_of_row, float (&x)[ELEMENTS])
{
#pragma unroll
    for (int q = 0; q < ELEMENTS / 4; q++) {
        const uint32_t at = chunk_of_row * (ELEMENTS / 4) + q;
        const float4 scale = steps.column_scale ? __ldg(steps.column_scale + at) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        const float4 mean = steps.column_mean ? __ldg(steps.column_mean + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        x[4 * q] = fmaf(x[4 * q], scale.x, mean.x);
        x[4 * q + 1] = fmaf(x[4 * q + 1], scale.y, mean.y);
        x[4 * q + 2] = fmaf(x[4 * q + 2], scale.z, mean.z);
        x[4 * q + 3] = fmaf(x[4 * q + 3], scale.w, mean.w);
    }
}

/* ---- a tile ---- */

/* How the steps of a launch are applied: where chunks are counted on from row to row and units are flat, without a look at
 * rows and columns. */
enum steps_way { STEPS_NONE, STEPS_SCALE, STEPS_BOTH, STEPS_ANY };

template <steps_way WAY, int ELEMENTS>
__device__ __forceinline__ void apply_flat(const char *scales, const char *means, uint64_t bytes, float (&x)[ELEMENTS])
{
    if (WAY == STEPS_NONE) return;
    const float scale = __ldg((const float *)(scales + bytes)),
                mean = WAY == STEPS_BOTH ? __ldg((const float *)(means + bytes)) : 0.0f;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) x[e] = fmaf(x[e], scale, mean);
}

/* A tile whose chunks follow each other. fetch(local) is what is read for chunk `local`, look(local, fetched, x) what that
 * is looked up to. TOGETHER: all threads look, also those whose chunk is beyond the last one; fetched is 0 then. */
template <qem_dtype TYPE, steps_way WAY, bool TOGETHER, typename Fetch, typename Look>
__device__ __forceinline__ void make_flat_tile(const chunk_steps &steps, const qem_cuda_chunks &to, uint64_t first,
                                               Fetch fetch, Look look)
{
    /* units are powers of two: that of chunk t + 256 j is so many after that of t as 256 j are units, as t is below 256 */
    const uint64_t unit = (first + threadIdx.x + steps.flat_first) >> steps.flat_shift;
    const char *const scales = (const char *)(steps.scale + (WAY == STEPS_NONE ? 0 : unit)),
               *const means = (const char *)(steps.mean + (WAY == STEPS_BOTH ? unit : 0));
    uint4 *const out = (uint4 *)to.out + (first + threadIdx.x);
    float x[chunk_type<TYPE>::elements];
    if (to.count - first >= QEM_STEPS_TILE) {
        uint32_t fetched[QEM_STEPS_PER_THREAD];
#pragma unroll
        for (int j = 0; j < QEM_STEPS_PER_THREAD; j++) fetched[j] = fetch(threadIdx.x + (size_t)j * QEM_CHUNK_THREADS);
#pragma unroll
        for (int j = 0; j < QEM_STEPS_PER_THREAD; j++) {
            look(threadIdx.x + j * QEM_CHUNK_THREADS, fetched[j], x);
            apply_flat<WAY>(scales, means, steps.flat_bytes[j], x);
            qem_store_once(out + j * QEM_CHUNK_THREADS, round_chunk<TYPE>(x));
        }
        return;
    }
    const uint32_t left = (uint32_t)(to.count - first);
#pragma unroll 1
    for (uint32_t before = 0; before < left; before += QEM_CHUNK_THREADS) {
        const uint32_t local = before + threadIdx.x;
        if (!TOGETHER && local >= left) return;
        look(local, local < left ? fetch(local) : 0, x);
        if (local >= left) continue;
        apply_flat<WAY>(scales, means, ((uint64_t)before >> steps.flat_shift) * sizeof(float), x);
        qem_store_once(out + before, round_chunk<TYPE>(x));
    }
}

/* Any other tile. */
template <qem_dtype TYPE, bool TOGETHER, typename Fetch, typename Look>
__device__ __forceinline__ void make_any_tile(const chunk_steps &steps, const qem_cuda_chunks &to, uint64_t first,
                                              Fetch fetch, Look look)
{
    const qem_cuda_tile tile = qem_tile_at(to, first);
    const uint64_t unit = (steps.row + tile.row) * steps.units_per_row;
    uint32_t fetched[QEM_STEPS_PER_THREAD];
#pragma unroll
    for (int j = 0; j < QEM_STEPS_PER_THREAD; j++) {
        const uint32_t local = threadIdx.x + j * QEM_CHUNK_THREADS;
        fetched[j] = local < tile.left ? fetch(local) : 0;
    }
#pragma unroll
    for (int j = 0; j < QEM_STEPS_PER_THREAD; j++) {
        const uint32_t local = threadIdx.x + j * QEM_CHUNK_THREADS;
        float x[chunk_type<TYPE>::elements];
        if (!TOGETHER && local >= tile.left) return;
        look(local, fetched[j], x);
        if (local >= tile.left) continue;
        const uint2 place = qem_chunk_place(to, tile, local);
        if (steps.has_first) apply_first(steps, unit, place, x);
        if (steps.has_columns) apply_columns(steps, place.y, x);
        qem_store_chunk(to, tile, local, round_chunk<TYPE>(x));
    }
}

template <qem_dtype TYPE, steps_way WAY, bool TOGETHER, typename Fetch, typename Look>
__device__ __forceinline__ void make_tile(const chunk_steps &steps, const qem_cuda_chunks &to, uint64_t first,
                                          Fetch fetch, Look look)
{
    if (WAY == STEPS_ANY)
        make_any_tile<TYPE, TOGETHER>(steps, to, first, fetch, look);
    else
        make_flat_tile<TYPE, WAY == STEPS_ANY ? STEPS_NONE : WAY, TOGETHER>(steps, to, first, fetch, look);
}

/* ---- of a stage (host) ---- */

/* The step before that of the columns, and that; NULL where there is none. 0: other steps than these. */
static inline int split_steps(const qem_cuda_stage &stage, const qem_cuda_step **first, const qem_cuda_step **columns)
{
    uint32_t i = 0;
    *first = *columns = NULL;
    if (i < stage.step_count && stage.step[i].axis != QEM_AXIS_COLUMN) *first = &stage.step[i++];
    if (i < stage.step_count && stage.step[i].axis == QEM_AXIS_COLUMN) *columns = &stage.step[i++];
    return i == stage.step_count;
}

/* Whether chunks of so many elements lie within the units of the steps, and there are no others. */
static inline int takes_steps(const qem_cuda_stage &stage, uint32_t elements)
{
    const qem_cuda_step *first, *columns;
    if (!split_steps(stage, &first, &columns)) return 0;
    return !first || first->axis != QEM_AXIS_BLOCK || first->block % elements == 0;
}

/* Units of 1 << shift chunks, of which rows are whole ones. */
static inline void set_flat(chunk_steps *steps, uint64_t chunks, uint32_t per_row, uint64_t row)
{
    if (chunks & (chunks - 1) || per_row % chunks) return;
    steps->flat = 1;
    steps->flat_first = row * per_row;
    while ((uint64_t)1 << steps->flat_shift < chunks) steps->flat_shift++;
    for (uint64_t j = 0; j < QEM_STEPS_PER_THREAD; j++)
        steps->flat_bytes[j] = (j * QEM_CHUNK_THREADS >> steps->flat_shift) * sizeof(float);
}

static inline chunk_steps steps_of(const qem_cuda_stage &stage, uint64_t row, uint32_t elements, uint32_t per_row)
{
    const qem_cuda_step *first, *columns;
    chunk_steps steps = chunk_steps();
    (void)split_steps(stage, &first, &columns);
    steps.row = row;
    if (first) {
        steps.has_first = 1;
        steps.scale = first->scale;
        steps.mean = first->mean;
        steps.unit_shift = 32;
        if (first->axis == QEM_AXIS_ROW) {
            steps.units_per_row = 1;
            set_flat(&steps, per_row, per_row, row);
        }
        if (first->axis == QEM_AXIS_TENSOR) { /* unit 0: the number of no chunk has so many bits */
            steps.flat = 1;
            steps.flat_shift = 63;
        }
        if (first->axis == QEM_AXIS_BLOCK) {
            const uint32_t chunks = first->block / elements;
            steps.units_per_row = (uint32_t)first->units_per_row; /* at most the chunks of a row */
            steps.unit_reciprocal = qem_cuda_reciprocal(chunks);
            set_flat(&steps, chunks, per_row, row);
            steps.unit_shift = chunks & (chunks - 1) ? 64 : 0;
            while (steps.unit_shift < 32 && 1u << steps.unit_shift < chunks) steps.unit_shift++;
        }
    }
    if (columns) {
        steps.has_columns = 1;
        steps.column_scale = (const float4 *)columns->scale;
        steps.column_mean = (const float4 *)columns->mean;
    }
    return steps;
}

/* How a launch applies them. */
static inline steps_way way_of(const chunk_steps &steps, const qem_cuda_chunks &to)
{
    if (!to.contiguous || steps.has_columns) return STEPS_ANY;
    if (!steps.has_first) return STEPS_NONE;
    if (!steps.flat || !steps.scale) return STEPS_ANY;
    return steps.mean ? STEPS_BOTH : STEPS_SCALE;
}

#endif
