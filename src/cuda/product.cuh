/*
 * Products of rows of x with rows of W by kernels of our own: y[b][i] = sum over j of x[b][j] * W[i][j], W with the bits
 * that decoding to f32 gives.
 *
 * One order of summation for all of them, whatever the artifact, the batch and the device are: columns are cut into runs
 * of QEM_RUN; the sum of a run is a chain of fma from +0 with j ascending; 8 runs make a span, whose sums are added as
 * ((0+1)+(2+3))+((4+5)+(6+7)), those of runs beyond the last column being +0; spans are added to +0 in ascending order. A
 * NaN is stored as the positive quiet one.
 *
 * multiply() below makes it so: 8 lanes for a row of W, each its run of the span; a warp has 4 rows, which read the same
 * part of x from shared memory at once. What a row of W is decoded from, the Weights say. Where there are few rows several
 * warps share the spans of the same rows ("ways"), which changes no bit.
 *
 * Bytes from device memory: the codes (and units of the steps) once for each QEM_PRODUCT_BATCH rows of x, y, and x and the
 * codebook once; x comes from L2 again for each block, 4 * BATCH bytes (2 * BATCH from f16) a column for 32 / ways rows.
 * A weight of 4096 x 4096, one row of x in f16, which is read and written once in all (0.002 bytes of a weight each):
 *
 *     codes                              least    device memory             L2 beside that
 *     4 bits, f16 scales of 32 columns   0.5625   0.625 (scales are f32)    0.06, x
 *     8 bits of 4, one codebook          0.250    0.250                     0.06, x
 *     8 bits of 4, codebooks by group    0.375    0.375                     0.13, sums of runs; 0.25, the other half of sectors
 *     swaps, rotations, layers, ...      as above and 8: rows as f32, written and read, which a large L2 holds
 *     cuBLAS, f16                        as above and 4: rows as f16, written and read, once for all rows of x
 *
 * This is counted, not measured.
 */
#ifndef QEM_CUDA_PRODUCT_CUH
#define QEM_CUDA_PRODUCT_CUH

#include "element.cuh"

#define QEM_RUN 64            /* columns */
#define QEM_RUN_QUADS (QEM_RUN / 4)
#define QEM_SPAN_RUNS 8
#define QEM_SPAN (QEM_SPAN_RUNS * QEM_RUN)
#define QEM_PRODUCT_BATCH 8   /* rows of x that one launch takes at most */
#define QEM_PRODUCT_THREADS 256
#define QEM_PRODUCT_ROWS (QEM_PRODUCT_THREADS / QEM_SPAN_RUNS) /* of a block that has its spans to itself */
/* float4 of a row of x in a span's tile: quad j of run r at j * (QEM_SPAN_RUNS + 1) + r. Lanes of a row read neighbours,
 * and those that store quads of a run do so to different banks. */
#define QEM_TILE_PITCH (QEM_SPAN_RUNS + 1)
#define QEM_TILE_QUADS (QEM_RUN_QUADS * QEM_TILE_PITCH)

/* What a launch multiplies. */
struct qem_cuda_product {
    const void *x;
    uint64_t x_stride, y_stride; /* elements */
    void *y;                     /* the first row of W is its first column */
    uint32_t *overflow;          /* or NULL */
    uint64_t cols, row, rows;    /* row: of the artifact, that the launch begins with */
    uint32_t x_dtype, y_dtype;
    uint32_t x_quads;            /* four elements of x can be loaded at once, wherever a column is a multiple of 4 */
    uint32_t batch;              /* 1 .. QEM_PRODUCT_BATCH */
};

/* ---- x and y ---- */

/* The halves of a word; which NaN a NaN becomes does not matter in a product. */
__device__ __forceinline__ float2 qem_two_halves(uint32_t word)
{
    return make_float2(qem_cvt_f32((uint16_t)word), qem_cvt_f32((uint16_t)(word >> 16)));
}

__device__ __forceinline__ float qem_element(const void *from, uint32_t dtype, uint64_t at)
{
    if (dtype == QEM_DTYPE_F32) return __ldg((const float *)from + at);
    const uint16_t bits = __ldg((const uint16_t *)from + at);
    return dtype == QEM_DTYPE_F16 ? qem_two_halves(bits).x : qem_bf16_value(bits);
}

__device__ __forceinline__ float4 qem_four_elements(const void *from, uint32_t dtype, uint64_t at)
{
    if (dtype == QEM_DTYPE_F32) return __ldg((const float4 *)((const float *)from + at));
    const uint2 v = __ldg((const uint2 *)((const uint16_t *)from + at));
    if (dtype == QEM_DTYPE_F16) {
        const float2 low = qem_two_halves(v.x), high = qem_two_halves(v.y);
        return make_float4(low.x, low.y, high.x, high.y);
    }
    return make_float4(qem_bf16_value((uint16_t)v.x), qem_bf16_value((uint16_t)(v.x >> 16)),
                       qem_bf16_value((uint16_t)v.y), qem_bf16_value((uint16_t)(v.y >> 16)));
}

/* Columns col .. col + 3 of a row of x; zeros where it has no such columns. */
__device__ __forceinline__ float4 qem_load_x(const qem_cuda_product &p, uint32_t b, uint64_t col)
{
    const uint64_t at = b * p.x_stride + col;
    if (b >= p.batch) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (p.x_quads && col + 4 <= p.cols) return qem_four_elements(p.x, p.x_dtype, at);
    return make_float4(col < p.cols ? qem_element(p.x, p.x_dtype, at) : 0.0f,
                       col + 1 < p.cols ? qem_element(p.x, p.x_dtype, at + 1) : 0.0f,
                       col + 2 < p.cols ? qem_element(p.x, p.x_dtype, at + 2) : 0.0f,
                       col + 3 < p.cols ? qem_element(p.x, p.x_dtype, at + 3) : 0.0f);
}

/* Row `row` of the launch's. */
__device__ __forceinline__ void qem_store_y(const qem_cuda_product &p, uint32_t b, uint64_t row, float sum)
{
    const uint64_t at = b * p.y_stride + row;
    if ((__float_as_uint(sum) & 0x7fffffffu) > 0x7f800000u) sum = __uint_as_float(0x7fc00000u);
    if (p.y_dtype == QEM_DTYPE_F32) {
        ((float *)p.y)[at] = sum;
        return;
    }
    const uint32_t infinity = p.y_dtype == QEM_DTYPE_F16 ? 0x7c00u : 0x7f80u;
    const uint32_t bits = p.y_dtype == QEM_DTYPE_F16 ? qem_f16_bits(sum) : qem_bf16_bits(sum);
    ((uint16_t *)p.y)[at] = (uint16_t)bits;
    if ((bits & 0x7fffu) == infinity && qem_is_finite(sum) && p.overflow) atomicOr(p.overflow, 1u);
}

/* ---- the steps of a layer, by fours of columns ---- */

/* As split_steps (steps.cuh) tells them apart. Fours of columns lie within a unit of the first. */
struct qem_product_steps {
    const float *scale, *mean;                /* of the first step */
    const float4 *column_scale, *column_mean; /* of that of the columns; either may be NULL */
    uint64_t block_reciprocal;
    uint32_t units_per_row;
    uint32_t axis;    /* of the first step */
    uint32_t of_unit; /* fours of columns that certainly share a unit, less one: a unit is looked up where j & of_unit is 0 */
    uint32_t has_first, has_columns;
};

/* A row's. */
struct qem_row_steps {
    float scale, mean;
};

__device__ __forceinline__ void qem_product_step(const qem_product_steps &steps, uint64_t row, uint64_t column, uint32_t j,
                                                 qem_row_steps &now, float (&w)[4])
{
    if (steps.has_first) {
        if ((j & steps.of_unit) == 0) {
            uint64_t unit = steps.axis == QEM_AXIS_ROW ? row : 0;
            if (steps.axis == QEM_AXIS_BLOCK)
                unit = row * steps.units_per_row + qem_column_quotient(column + 4 * j, steps.block_reciprocal);
            now.scale = steps.scale ? __ldg(steps.scale + unit) : 1.0f;
            now.mean = steps.mean ? __ldg(steps.mean + unit) : 0.0f;
        }
#pragma unroll
        for (int e = 0; e < 4; e++) w[e] = fmaf(w[e], now.scale, now.mean);
    }
    if (!steps.has_columns) return;
    const uint64_t at = column / 4 + j;
    const float4 scale = steps.column_scale ? __ldg(steps.column_scale + at) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
    const float4 mean = steps.column_mean ? __ldg(steps.column_mean + at) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    w[0] = fmaf(w[0], scale.x, mean.x);
    w[1] = fmaf(w[1], scale.y, mean.y);
    w[2] = fmaf(w[2], scale.z, mean.z);
    w[3] = fmaf(w[3], scale.w, mean.w);
}

/* ---- the kernel ---- */

/* x's columns first_span * QEM_SPAN .. of `ways` spans. */
template <int BATCH>
__device__ __forceinline__ void qem_stage_x(const qem_cuda_product &p, uint64_t first_span, uint32_t ways, float4 *tile)
{
    constexpr uint32_t quads = QEM_SPAN / 4;
    for (uint32_t i = threadIdx.x; i < ways * BATCH * quads; i += QEM_PRODUCT_THREADS) {
        const uint32_t quad = i % quads, of_tile = i / quads, b = of_tile % BATCH, way = of_tile / BATCH;
        const uint64_t col = (first_span + way) * QEM_SPAN + 4 * quad;
        tile[of_tile * QEM_TILE_QUADS + quad % QEM_RUN_QUADS * QEM_TILE_PITCH + quad / QEM_RUN_QUADS] =
            qem_load_x(p, b, col);
    }
}

/*
 * Weights: what rows of W are made from.
 *   Weights::source           what the launch passes; table_bytes(): of shared memory that it wants, fill() them
 *   Weights(source, table, row)   a row, counted from the artifact's first
 *   begin(column)             a run begins there: what takes long to come is asked for
 *   each(left, use)           use(j, w, n) for each four of the run's `left` columns, j ascending; the last has n of them
 *
 * Shared: x's tiles [ways][BATCH], sums of spans [ways][rows][BATCH], then the table.
 */
template <int BATCH, typename Weights>
static __global__ void __launch_bounds__(QEM_PRODUCT_THREADS, 2)
    multiply(typename Weights::source from, qem_cuda_product p, uint32_t ways)
{
    QEM_DYNAMIC_SHARED(float4, tile);
    float *const sums = (float *)(tile + ways * BATCH * QEM_TILE_QUADS);
    void *const table = sums + QEM_PRODUCT_ROWS * BATCH;
    const uint32_t t = threadIdx.x, run = t % QEM_SPAN_RUNS, rows = QEM_PRODUCT_ROWS / ways;
    const uint32_t row = t / QEM_SPAN_RUNS % rows, way = t / QEM_SPAN_RUNS / rows;
    const uint64_t first_row = (uint64_t)blockIdx.x * rows, spans = (p.cols - 1) / QEM_SPAN + 1;
    const uint64_t row_here = first_row + row < p.rows ? first_row + row : p.rows - 1; /* one too many is not stored */
    const float4 *const of_run = tile + way * BATCH * QEM_TILE_QUADS + run;
    Weights weights(from, table, p.row + row_here);
    float total = 0.0f; /* of row t / BATCH, batch t % BATCH */
    Weights::fill(from, table);
    for (uint64_t first = 0; first < spans; first += ways) {
        const uint64_t column = (first + way) * QEM_SPAN + run * QEM_RUN;
        const uint32_t left = column >= p.cols ? 0 : p.cols - column < QEM_RUN ? (uint32_t)(p.cols - column) : QEM_RUN;
        if (left) weights.begin(column);
        qem_stage_x<BATCH>(p, first, ways, tile);
        __syncthreads();
        float sum[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) sum[b] = 0.0f;
        weights.each(left, [&](uint32_t j, const float(&w)[4], int n) {
#pragma unroll
            for (int b = 0; b < BATCH; b++) {
                const float4 x = of_run[b * QEM_TILE_QUADS + j * QEM_TILE_PITCH];
                sum[b] = fmaf(w[0], x.x, sum[b]);
                if (n > 1) sum[b] = fmaf(w[1], x.y, sum[b]);
                if (n > 2) sum[b] = fmaf(w[2], x.z, sum[b]);
                if (n > 3) sum[b] = fmaf(w[3], x.w, sum[b]);
            }
        });
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            sum[b] += __shfl_xor_sync(0xffffffffu, sum[b], 1);
            sum[b] += __shfl_xor_sync(0xffffffffu, sum[b], 2);
            sum[b] += __shfl_xor_sync(0xffffffffu, sum[b], 4);
            if (run == 0) sums[(way * rows + row) * BATCH + b] = sum[b];
        }
        __syncthreads();
        for (uint32_t i = 0; i < ways && t < rows * BATCH; i++) total += sums[i * rows * BATCH + t]; /* + 0 where none is */
    }
    if (t < rows * BATCH && first_row + t / BATCH < p.rows && t % BATCH < p.batch)
        qem_store_y(p, t % BATCH, first_row + t / BATCH, total);
}

/* ---- launches (host) ---- */

/* Warps that share a row's spans: more where blocks would be too few for the device to be busy. */
static inline uint32_t qem_product_ways(const qem_cuda_product &p, uint32_t batch, uint32_t processors)
{
    const uint64_t spans = (p.cols - 1) / QEM_SPAN + 1;
    uint32_t ways = 1;
    while (ways < 8 && ways < spans && 2 * ways * batch <= 16 && (p.rows - 1) / (QEM_PRODUCT_ROWS / ways) + 1 < 4 * processors)
        ways *= 2;
    return ways;
}

template <int BATCH, typename Weights>
static cudaError_t qem_launch_product(const typename Weights::source &from, const qem_cuda_product &p, uint32_t processors,
                                      cudaStream_t stream)
{
    const uint32_t ways = qem_product_ways(p, BATCH, processors);
    const uint64_t blocks = (p.rows - 1) / (QEM_PRODUCT_ROWS / ways) + 1; /* rows are below 2^32 */
    const size_t shared = ways * BATCH * QEM_TILE_QUADS * sizeof(float4) + QEM_PRODUCT_ROWS * BATCH * sizeof(float) +
                          Weights::table_bytes(from);
    return QEM_LAUNCH((multiply<BATCH, Weights>), dim3((uint32_t)blocks), dim3(QEM_PRODUCT_THREADS), shared, stream, from,
                      p, ways);
}

template <typename Weights>
static cudaError_t qem_multiply(const typename Weights::source &from, const qem_cuda_product &p, uint32_t processors,
                                cudaStream_t stream)
{
    if (p.batch == 1) return qem_launch_product<1, Weights>(from, p, processors, stream);
    if (p.batch == 2) return qem_launch_product<2, Weights>(from, p, processors, stream);
    if (p.batch <= 4) return qem_launch_product<4, Weights>(from, p, processors, stream);
    return qem_launch_product<8, Weights>(from, p, processors, stream);
}

template <typename Weights> static cudaError_t qem_load_products(void)
{
    const void *const kernels[] = { QEM_KERNEL(multiply<1, Weights>), QEM_KERNEL(multiply<2, Weights>),
                                    QEM_KERNEL(multiply<4, Weights>), QEM_KERNEL(multiply<8, Weights>) };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

/* What each kind of weights takes, and its product; `segment` is one that it takes. */

/* Scalar codes of 1 .. 8 bits with one codebook and the steps of their layer, as qem_cuda_takes_scalars. */
int qem_cuda_multiplies_scalars(const qem_cuda_host_stage &stage, uint64_t cols);
cudaError_t qem_cuda_multiply_scalars(const qem_cuda_host_stage &stage, const qem_cuda_product &p, uint32_t processors,
                                      cudaStream_t stream);
cudaError_t qem_cuda_load_scalar_products(void);

/* Shared codebooks of sub-vectors of 2, 4 or 8, with such steps. */
int qem_cuda_multiplies_vectors(const qem_cuda_host_stage &stage, uint64_t cols);
cudaError_t qem_cuda_multiply_vectors(const qem_cuda_host_stage &stage, const qem_cuda_product &p, uint32_t processors,
                                      cudaStream_t stream);
cudaError_t qem_cuda_load_vector_products(void);

/* Codebooks by group, of sub-vectors of 2, 4 or 8. partial: qem_cuda_group_sums(cols, batch) floats for each row. */
int qem_cuda_multiplies_groups(const qem_cuda_host_stage &stage, uint64_t cols);
uint64_t qem_cuda_group_sums(uint64_t cols, uint32_t batch);
cudaError_t qem_cuda_multiply_groups(const qem_cuda_host_stage &stage, const qem_cuda_product &p, float *partial,
                                     uint32_t processors, cudaStream_t stream);
cudaError_t qem_cuda_load_group_products(void);

/* Rows of floats at multiples of 16 bytes, at a stride of qem_cuda_float_stride(cols). */
static inline uint64_t qem_cuda_float_stride(uint64_t cols) { return (cols + 3) / 4 * 4; }
cudaError_t qem_cuda_multiply_floats(const float *w, const qem_cuda_product &p, uint32_t processors, cudaStream_t stream);
cudaError_t qem_cuda_load_float_products(void);

/* sums [p.batch, p.rows] to y. */
cudaError_t qem_cuda_store_sums(const float *sums, const qem_cuda_product &p, cudaStream_t stream);

#endif
