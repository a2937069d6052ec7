/*
 * Scalar codes of 1 .. 8 bits, one codebook of levels, and the steps of their layer: a scale and a mean of the tensor, of the
 * row or of a block of columns, then of the column. Levels are f32; what is stored is rounded once, after the steps.
 *
 * Bytes an element: code_bits / 8 and 2 or 4, and the units' parameters, each read once for its chunks from L1; that is the least.
 * scalars_of_four(): codes of 4 bits, the 16 levels in the registers of a warp, looked up by shuffles. scalars_of_bits(): the levels in shared
 * memory, the codes of a tile staged there too.
 */
#include "chunks.cuh"

#define FOUR_PER_THREAD 4
#define TILE 1024

/* The steps by chunks; a chunk lies within a unit of the first. */
struct scalar_steps {
    const float *scale, *mean;         /* of the first step */
    uint32_t has_first;
    uint64_t row, units_per_row;       /* of the artifact; 0 units: one for the tensor */
    uint64_t unit_reciprocal;          /* of the chunks of a unit */
    uint32_t whole_rows;               /* a unit is a row */
    const float4 *column_scale, *column_mean;
    uint32_t has_columns;
};

template <qem_dtype TYPE> struct chunk_type {
    static constexpr int elements = TYPE == QEM_DTYPE_F32 ? 4 : 8;
};

/* ---- rounding ---- */

template <qem_dtype TYPE> __device__ __forceinline__ uint32_t pair_of(float low, float high);

template <> __device__ __forceinline__ uint32_t pair_of<QEM_DTYPE_F16>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return (uint32_t)__half_as_ushort(__low2half(pair)) | (uint32_t)__half_as_ushort(__high2half(pair)) << 16;
}

template <> __device__ __forceinline__ uint32_t pair_of<QEM_DTYPE_BF16>(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return (uint32_t)__bfloat16_as_ushort(__low2bfloat16(pair)) | (uint32_t)__bfloat16_as_ushort(__high2bfloat16(pair)) << 16;
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
    return make_uint4(pair_of<TYPE>(x[0], x[1]), pair_of<TYPE>(x[2], x[3]), pair_of<TYPE>(x[4 % (last + 1)], x[5 % (last + 1)]),
                      pair_of<TYPE>(x[6 % (last + 1)], x[last]));
}

/* ---- steps ---- */

template <int ELEMENTS>
__device__ __forceinline__ void apply_first(const scalar_steps &steps, uint64_t row, uint64_t chunk_of_row, float (&x)[ELEMENTS])
{
    uint64_t unit = 0;
    if (steps.units_per_row)
        unit = (steps.row + row) * steps.units_per_row +
               (steps.unit_reciprocal ? __umul64hi(chunk_of_row, steps.unit_reciprocal) : steps.whole_rows ? 0 : chunk_of_row);
    const float scale = steps.scale ? __ldg(steps.scale + unit) : 1.0f, mean = steps.mean ? __ldg(steps.mean + unit) : 0.0f;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) x[e] = fmaf(x[e], scale, mean);
}

template <int ELEMENTS>
__device__ __forceinline__ void apply_columns(const scalar_steps &steps, uint64_t chunk_of_row, float (&x)[ELEMENTS])
{
#pragma unroll
    for (int q = 0; q < ELEMENTS / 4; q++) {
        const uint64_t at = chunk_of_row * (ELEMENTS / 4) + q;
        const float4 scale = steps.column_scale ? __ldg(steps.column_scale + at) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        const float4 mean = steps.column_mean ? __ldg(steps.column_mean + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        x[4 * q] = fmaf(x[4 * q], scale.x, mean.x);
        x[4 * q + 1] = fmaf(x[4 * q + 1], scale.y, mean.y);
        x[4 * q + 2] = fmaf(x[4 * q + 2], scale.z, mean.z);
        x[4 * q + 3] = fmaf(x[4 * q + 3], scale.w, mean.w);
    }
}

template <qem_dtype TYPE>
__device__ __forceinline__ void finish_chunk(const scalar_steps &steps, const qem_cuda_chunks &to, uint64_t chunk,
                                             float (&x)[chunk_type<TYPE>::elements])
{
    if (steps.has_first || steps.has_columns) {
        const uint64_t row = qem_chunk_row(to, chunk), chunk_of_row = chunk - row * to.per_row;
        if (steps.has_first) apply_first(steps, row, chunk_of_row, x);
        if (steps.has_columns) apply_columns(steps, chunk_of_row, x);
    }
    qem_store_chunk(to, chunk, round_chunk<TYPE>(x));
}

/* ---- codes of 4 bits ---- */

/* `first`: chunks of the stream before the first one. All threads of a warp stay together: a level lies in one of them. */
template <qem_dtype TYPE>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS) scalars_of_four(const uint32_t *codes, uint64_t first, const float *levels,
                                                                 uint32_t k, scalar_steps steps, qem_cuda_chunks to)
{
    constexpr int elements = chunk_type<TYPE>::elements;
    const uint32_t lane = threadIdx.x % 16;
    const float level = lane < k ? __ldg(levels + lane) : 0.0f;
    for (uint64_t tile = blockIdx.x; tile * (FOUR_PER_THREAD * QEM_CHUNK_THREADS) < to.count; tile += gridDim.x) {
        const uint64_t begin = tile * (FOUR_PER_THREAD * QEM_CHUNK_THREADS) + threadIdx.x;
        uint32_t word[FOUR_PER_THREAD];
#pragma unroll
        for (int j = 0; j < FOUR_PER_THREAD; j++) {
            const uint64_t chunk = begin + j * QEM_CHUNK_THREADS, at = first + chunk;
            word[j] = 0;
            if (chunk >= to.count) continue;
            word[j] = elements == 8 ? qem_load_once(codes + at) : __ldg(codes + at / 2) >> (at % 2 * 16);
        }
#pragma unroll
        for (int j = 0; j < FOUR_PER_THREAD; j++) {
            const uint64_t chunk = begin + j * QEM_CHUNK_THREADS;
            float x[elements];
#pragma unroll
            for (int e = 0; e < elements; e++) x[e] = __shfl_sync(0xffffffffu, level, (int)(word[j] >> (4 * e)), 16);
            if (chunk < to.count) finish_chunk<TYPE>(steps, to, chunk, x);
        }
    }
}

/* ---- codes of other widths ---- */

template <qem_dtype TYPE>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS) scalars_of_bits(qem_cuda_codes from, uint32_t vectors, uint32_t bits,
                                                                   const float *levels, uint32_t k, scalar_steps steps,
                                                                   qem_cuda_chunks to)
{
    constexpr int elements = chunk_type<TYPE>::elements;
    QEM_DYNAMIC_SHARED(uint4, shared); /* 256 levels, then the codes of a tile */
    float *const table = (float *)shared;
    uint4 *const staged = shared + 256 / 4;
    const uint32_t mask = (1u << bits) - 1u;
    if (threadIdx.x < k) table[threadIdx.x] = __ldg(levels + threadIdx.x);
    for (uint64_t tile = blockIdx.x; tile * TILE < to.count; tile += gridDim.x) {
        __syncthreads();
        for (uint32_t v = threadIdx.x; v < vectors; v += QEM_CHUNK_THREADS) staged[v] = qem_load_codes(from, tile, v);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < TILE / QEM_CHUNK_THREADS; j++) {
            const uint32_t local = j * QEM_CHUNK_THREADS + threadIdx.x, first = from.phase + local * elements * bits;
            const uint64_t chunk = tile * TILE + local;
            float x[elements];
            if (chunk >= to.count) break;
#pragma unroll
            for (int e = 0; e < elements; e++)
                x[e] = table[qem_staged_code((const uint32_t *)staged, first + (uint32_t)e * bits, mask)];
            finish_chunk<TYPE>(steps, to, chunk, x);
        }
    }
}

/* ---- which of them ---- */

/* The step before that of the columns, and that; NULL where there is none. 0: other steps than these. */
static int split_steps(const qem_cuda_stage &stage, const qem_cuda_step **first, const qem_cuda_step **columns)
{
    uint32_t i = 0;
    *first = *columns = NULL;
    if (i < stage.step_count && stage.step[i].axis != QEM_AXIS_COLUMN) *first = &stage.step[i++];
    if (i < stage.step_count && stage.step[i].axis == QEM_AXIS_COLUMN) *columns = &stage.step[i++];
    return i == stage.step_count;
}

int qem_cuda_takes_scalars(const qem_cuda_host_stage &stage, uint32_t elements)
{
    const qem_cuda_stage &d = stage.on_device;
    const qem_cuda_step *first, *columns;
    if (d.dim != 1 || d.group_stride || d.group || d.code_bits < 1 || d.code_bits > 8) return 0;
    if (!split_steps(d, &first, &columns)) return 0;
    return !first || first->axis != QEM_AXIS_BLOCK || first->block % elements == 0;
}

static scalar_steps steps_of(const qem_cuda_stage &stage, uint64_t row, uint32_t elements)
{
    const qem_cuda_step *first, *columns;
    scalar_steps steps = scalar_steps();
    (void)split_steps(stage, &first, &columns);
    steps.row = row;
    if (first) {
        steps.has_first = 1;
        steps.scale = first->scale;
        steps.mean = first->mean;
        steps.whole_rows = first->axis == QEM_AXIS_ROW;
        if (first->axis == QEM_AXIS_ROW) steps.units_per_row = 1;
        if (first->axis == QEM_AXIS_BLOCK) {
            steps.units_per_row = first->units_per_row;
            steps.unit_reciprocal = qem_cuda_reciprocal(first->block / elements);
        }
    }
    if (columns) {
        steps.has_columns = 1;
        steps.column_scale = (const float4 *)columns->scale;
        steps.column_mean = (const float4 *)columns->mean;
    }
    return steps;
}

template <qem_dtype TYPE>
static cudaError_t launch(const qem_cuda_host_stage &stage, uint64_t row, const qem_cuda_chunks &to, const qem_cuda_grid &grid,
                          cudaStream_t stream)
{
    constexpr uint32_t elements = chunk_type<TYPE>::elements;
    const qem_cuda_stage &d = stage.on_device;
    const scalar_steps steps = steps_of(d, row, elements);
    const uint64_t stage_row = row - d.row_begin;
    if (d.code_bits == 4) {
        const uint64_t tile = FOUR_PER_THREAD * QEM_CHUNK_THREADS;
        const uint32_t blocks = qem_cuda_persistent(grid, (to.count - 1) / tile + 1);
        return QEM_LAUNCH(scalars_of_four<TYPE>, dim3(blocks), dim3(QEM_CHUNK_THREADS), 0, stream, d.codes, stage_row * to.per_row, d.book,
                          (uint32_t)stage.k, steps, to);
    }
    const uint32_t tile_bits = TILE * elements * d.code_bits;
    const qem_cuda_codes from = qem_cuda_codes_from(d, stage_row, tile_bits);
    const uint32_t vectors = (from.phase + tile_bits + 32 + 127) / 128; /* the last code may be read with the word after it */
    const uint32_t blocks = qem_cuda_persistent(grid, (to.count - 1) / TILE + 1);
    return QEM_LAUNCH(scalars_of_bits<TYPE>, dim3(blocks), dim3(QEM_CHUNK_THREADS), 256 * sizeof(float) + vectors * 16, stream, from, vectors,
                      d.code_bits, d.book, (uint32_t)stage.k, steps, to);
}

cudaError_t qem_cuda_decode_scalars(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype, const qem_cuda_chunks &to,
                                    const qem_cuda_grid &grid, cudaStream_t stream)
{
    if (dtype == QEM_DTYPE_F32) return launch<QEM_DTYPE_F32>(stage, row, to, grid, stream);
    if (dtype == QEM_DTYPE_F16) return launch<QEM_DTYPE_F16>(stage, row, to, grid, stream);
    return launch<QEM_DTYPE_BF16>(stage, row, to, grid, stream);
}

cudaError_t qem_cuda_load_scalars(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(scalars_of_four<QEM_DTYPE_F32>),   QEM_KERNEL(scalars_of_four<QEM_DTYPE_F16>),   QEM_KERNEL(scalars_of_four<QEM_DTYPE_BF16>),
        QEM_KERNEL(scalars_of_bits<QEM_DTYPE_F32>), QEM_KERNEL(scalars_of_bits<QEM_DTYPE_F16>), QEM_KERNEL(scalars_of_bits<QEM_DTYPE_BF16>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
