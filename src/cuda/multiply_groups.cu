/*
 * Products with codebooks by group, of sub-vectors of 2, 4 or 8 (product.cuh has the order). A block has a run of columns:
 * the run's codebooks in shared memory as f16, read once for many rows, and x's columns of the run; a thread makes the run's
 * sums of a row, which sum_groups() adds.
 *
 * Bytes a weight: code_bits / (8 * dim), and rows times less for codebooks; for each row of x and each 64 weights a sum is
 * written and read, mostly in L2. Of codes as they are stored a row's run is 16 bytes (dim 4, 8 bits), half a sector;
 * neighbouring runs find the rest in L2. Codebooks that shared memory does not hold, or that are not f16, come from L1 and L2.
 *
 * Entries are looked up, there are no tables of partial sums: those would be repaid for one row of x alone, above some 3000
 * rows, and round otherwise. Nothing of this was measured on a GPU.
 */
#include "product.cuh"

#define TABLE_BYTES 32768 /* of codebooks at most */

struct groups_source {
    const uint32_t *codes;
    const qem_cuda_group *group; /* or NULL: codes of one width */
    const float *book;           /* one of these */
    const uint16_t *half;
    uint64_t row_bits, stage_row, groups, group_stride;
    uint32_t bits;
    uint32_t words; /* codes of 8 bits, and a row's whole runs begin at multiples of their bytes */
};

/* A group's codes within a row, and its codebook. */
struct groups_place {
    uint64_t bit, entry;
    uint32_t bits;
};

static __device__ __forceinline__ groups_place place_of(const groups_source &in, uint64_t g)
{
    groups_place place = { g * in.bits, g * in.group_stride, in.bits };
    if (!in.group) return place;
    place.bit = __ldg((const unsigned long long *)&in.group[g].bit);
    place.entry = __ldg((const unsigned long long *)&in.group[g].entry);
    place.bits = (uint32_t)(place.entry >> 56);
    place.entry &= QEM_CUDA_ENTRY_MASK;
    return place;
}

/* The floats of groups first .. last - 1, two at a time: a group has an even number of them. */
template <int DIM>
static __device__ __forceinline__ void fill_table(const groups_source &in, uint64_t first, uint64_t last, uint16_t *table)
{
    const groups_place begin = place_of(in, first), end = place_of(in, last - 1);
    const uint64_t floats = end.entry - begin.entry + (in.group ? (uint64_t)DIM << end.bits : in.group_stride);
    const uint32_t *const halves = (const uint32_t *)(in.half + begin.entry);
    for (uint32_t i = threadIdx.x; i < floats / 2; i += QEM_PRODUCT_THREADS) ((uint32_t *)table)[i] = __ldg(halves + i);
}

/* ---- entries, by loads of 4, 8 or 16 bytes ---- */

template <int DIM> static __device__ __forceinline__ void from_halves(uint4 v, float (&w)[DIM])
{
    const uint32_t words[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
    for (int e = 0; e < DIM; e += 2) {
        const float2 pair = qem_two_halves(words[e / 2]);
        w[e] = pair.x, w[e + 1] = pair.y;
    }
}

template <int DIM> static __device__ __forceinline__ void shared_entry(const uint16_t *at, float (&w)[DIM])
{
    uint4 v = make_uint4(0, 0, 0, 0);
    if constexpr (DIM == 2) v.x = *(const uint32_t *)at;
    if constexpr (DIM == 4) v.x = ((const uint2 *)at)->x, v.y = ((const uint2 *)at)->y;
    if constexpr (DIM == 8) v = *(const uint4 *)at;
    from_halves<DIM>(v, w);
}

template <int DIM> static __device__ __forceinline__ void half_entry(const uint16_t *at, float (&w)[DIM])
{
    uint4 v = make_uint4(0, 0, 0, 0);
    if constexpr (DIM == 2) v.x = __ldg((const uint32_t *)at);
    if constexpr (DIM == 4) {
        const uint2 two = __ldg((const uint2 *)at);
        v.x = two.x, v.y = two.y;
    }
    if constexpr (DIM == 8) v = __ldg((const uint4 *)at);
    from_halves<DIM>(v, w);
}

template <int DIM> static __device__ __forceinline__ void float_entry(const float *at, float (&w)[DIM])
{
    if constexpr (DIM == 2) {
        const float2 v = __ldg((const float2 *)at);
        w[0] = v.x, w[1] = v.y;
    } else {
#pragma unroll
        for (int e = 0; e < DIM; e += 4) {
            const float4 v = __ldg((const float4 *)(at + e));
            w[e] = v.x, w[e + 1] = v.y, w[e + 2] = v.z, w[e + 3] = v.w;
        }
    }
}

/* An entry. SHARED: `entry` counts from the first float of the table, which holds the run's codebooks; else the book's. */
template <int DIM, bool SHARED>
static __device__ __forceinline__ void load_entry(const groups_source &in, const uint16_t *table, uint64_t entry,
                                                  float (&w)[DIM])
{
    if (SHARED)
        shared_entry<DIM>(table + (uint32_t)entry, w);
    else if (in.half)
        half_entry<DIM>(in.half + entry, w);
    else
        float_entry<DIM>(in.book + entry, w);
}

template <int DIM, int BATCH>
static __device__ __forceinline__ void add_entry(const float *x, const float (&w)[DIM], float (&sum)[BATCH])
{
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
        const float *const from = x + b * QEM_RUN;
        if constexpr (DIM == 2) {
            const float2 v = *(const float2 *)from;
            sum[b] = fmaf(w[1], v.y, fmaf(w[0], v.x, sum[b]));
        } else {
#pragma unroll
            for (int e = 0; e < DIM; e += 4) {
                const float4 v = *(const float4 *)(from + e);
                sum[b] = fmaf(w[e + 1], v.y, fmaf(w[e], v.x, sum[b]));
                sum[b] = fmaf(w[e + 3], v.w, fmaf(w[e + 2], v.z, sum[b]));
            }
        }
    }
}

/* Words of a run whose codes have 8 bits. */
template <int COUNT> struct run_words {
    uint32_t word[COUNT];
};

template <int COUNT> static __device__ __forceinline__ run_words<COUNT> load_words(const uint32_t *from)
{
    run_words<COUNT> words;
    if constexpr (COUNT == 2) {
        const uint2 v = __ldg((const uint2 *)from);
        words.word[0] = v.x, words.word[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i += 4) {
            const uint4 v = __ldg((const uint4 *)(from + i));
            words.word[i] = v.x, words.word[i + 1] = v.y, words.word[i + 2] = v.z, words.word[i + 3] = v.w;
        }
    }
    return words;
}

/* The run's sums of the stage's row `row`; whole runs of codes of 8 bits. */
template <int DIM, int BATCH, bool SHARED>
static __device__ __forceinline__ void sum_words(const groups_source &in, const uint16_t *table, const float *x,
                                                 uint64_t run, uint64_t row, float (&sum)[BATCH])
{
    constexpr int count = QEM_RUN / DIM / 4;
    run_words<count> words = load_words<count>(in.codes + (row * in.row_bits + run * (QEM_RUN / DIM * 8)) / 32);
    const uint64_t book = SHARED ? 0 : run * (QEM_RUN / DIM) * in.group_stride;
#pragma unroll 1
    for (uint32_t i = 0; i < count; i++) {
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) {
            const uint32_t g = 4 * i + e, code = words.word[0] >> (8 * e) & 255u;
            float w[DIM];
            load_entry<DIM, SHARED>(in, table, book + g * in.group_stride + code * DIM, w);
            add_entry<DIM, BATCH>(x + g * DIM, w, sum);
        }
#pragma unroll
        for (int c = 1; c < count; c++) words.word[c - 1] = words.word[c]; /* no index that changes: they stay in registers */
    }
}

/* The same of groups first .. last - 1 and codes of any width. */
template <int DIM, int BATCH, bool SHARED>
static __device__ __forceinline__ void sum_codes(const groups_source &in, const uint16_t *table, const float *x,
                                                 uint64_t first, uint64_t last, uint64_t row, float (&sum)[BATCH])
{
    const uint64_t book = SHARED ? place_of(in, first).entry : 0;
#pragma unroll 1
    for (uint64_t g = first; g < last; g++) {
        const groups_place place = place_of(in, g);
        const uint32_t code = qem_bits_at(in.codes, row * in.row_bits + place.bit, place.bits);
        float w[DIM];
        load_entry<DIM, SHARED>(in, table, place.entry - book + (uint64_t)code * DIM, w);
        add_entry<DIM, BATCH>(x + (g - first) * DIM, w, sum);
    }
}

/* Block x has a run, block y every gridDim.y-th QEM_PRODUCT_THREADS rows. partial: [runs][BATCH][rows]. */
template <int DIM, int BATCH, bool SHARED>
static __global__ void __launch_bounds__(QEM_PRODUCT_THREADS, 2)
    multiply_groups(groups_source in, qem_cuda_product p, float *partial)
{
    QEM_DYNAMIC_SHARED(float, x); /* [BATCH][QEM_RUN], then the table */
    uint16_t *const table = (uint16_t *)(x + BATCH * QEM_RUN);
    const uint64_t run = blockIdx.x, column = run * QEM_RUN, first = column / DIM;
    const uint64_t last = first + QEM_RUN / DIM < in.groups ? first + QEM_RUN / DIM : in.groups;
    for (uint32_t i = threadIdx.x; i < BATCH * QEM_RUN_QUADS; i += QEM_PRODUCT_THREADS)
        ((float4 *)x)[i] = qem_load_x(p, i / QEM_RUN_QUADS, column + 4 * (i % QEM_RUN_QUADS));
    if (SHARED) fill_table<DIM>(in, first, last, table);
    __syncthreads();
    for (uint64_t row = (uint64_t)blockIdx.y * QEM_PRODUCT_THREADS + threadIdx.x; row < p.rows;
         row += (uint64_t)gridDim.y * QEM_PRODUCT_THREADS) {
        const uint64_t of_stage = p.row - in.stage_row + row;
        float sum[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++) sum[b] = 0.0f;
        if (in.words)
            sum_words<DIM, BATCH, SHARED>(in, table, x, run, of_stage, sum);
        else
            sum_codes<DIM, BATCH, SHARED>(in, table, x, first, last, of_stage, sum);
#pragma unroll
        for (int b = 0; b < BATCH; b++) partial[(run * BATCH + b) * p.rows + row] = sum[b];
    }
}

/* y from sums of runs [runs][batch][rows]. */
static __global__ void __launch_bounds__(256) sum_groups(const float *partial, uint32_t batch, qem_cuda_product p)
{
    const uint64_t row = (uint64_t)blockIdx.x * 256 + threadIdx.x, runs = (p.cols - 1) / QEM_RUN + 1;
    const uint32_t b = blockIdx.y;
    float total = 0.0f;
    if (row >= p.rows) return;
    for (uint64_t first = 0; first < runs; first += QEM_SPAN_RUNS) {
        float sum[QEM_SPAN_RUNS];
#pragma unroll
        for (int r = 0; r < QEM_SPAN_RUNS; r++)
            sum[r] = first + r < runs ? __ldg(partial + ((first + r) * batch + b) * p.rows + row) : 0.0f;
        total += ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
    }
    qem_store_y(p, b, row, total);
}

/* ---- launches ---- */

static uint32_t batch_of_kernel(uint32_t batch) { return qem_cuda_power(batch, QEM_PRODUCT_BATCH); }

uint64_t qem_cuda_group_sums(uint64_t cols, uint32_t batch) { return ((cols - 1) / QEM_RUN + 1) * batch_of_kernel(batch); }

int qem_cuda_multiplies_groups(const qem_cuda_host_stage &stage, uint64_t cols)
{
    const qem_cuda_stage &d = stage.on_device;
    if ((!d.group_stride && !d.group) || d.levels || d.cells || d.step_count) return 0;
    if (d.dim != 2 && d.dim != 4 && d.dim != 8) return 0;
    return cols % d.dim == 0 && (cols - 1) / QEM_RUN < 0x7fffffff;
}

/* Rows of a block: all of them where the runs keep the device busy. */
static uint32_t blocks_of_run(const qem_cuda_product &p, uint64_t runs, uint32_t processors)
{
    const uint64_t most = (p.rows - 1) / QEM_PRODUCT_THREADS + 1;
    uint64_t blocks = 1;
    while (blocks < most && blocks < 32768 && blocks * runs < 2 * processors) blocks *= 2;
    return (uint32_t)blocks;
}

template <int DIM, int BATCH>
static cudaError_t launch(const groups_source &in, uint64_t table_bytes, const qem_cuda_product &p, float *partial,
                          uint32_t processors, cudaStream_t stream)
{
    const uint64_t runs = (p.cols - 1) / QEM_RUN + 1;
    const dim3 grid((uint32_t)runs, blocks_of_run(p, runs, processors));
    const uint32_t x_bytes = BATCH * QEM_RUN * sizeof(float);
    const int shared = in.half && table_bytes <= TABLE_BYTES;
    cudaError_t error =
        shared ? QEM_LAUNCH((multiply_groups<DIM, BATCH, true>), grid, dim3(QEM_PRODUCT_THREADS), x_bytes + table_bytes,
                            stream, in, p, partial)
               : QEM_LAUNCH((multiply_groups<DIM, BATCH, false>), grid, dim3(QEM_PRODUCT_THREADS), x_bytes, stream, in, p,
                            partial);
    if (error != cudaSuccess) return error;
    return QEM_LAUNCH(sum_groups, dim3((uint32_t)((p.rows - 1) / 256 + 1), p.batch), dim3(256), 0, stream, partial,
                      (uint32_t)BATCH, p);
}

template <int DIM>
static cudaError_t launch_dim(const groups_source &in, uint64_t table_bytes, const qem_cuda_product &p, float *partial,
                              uint32_t processors, cudaStream_t stream)
{
    switch (batch_of_kernel(p.batch)) {
    case 1: return launch<DIM, 1>(in, table_bytes, p, partial, processors, stream);
    case 2: return launch<DIM, 2>(in, table_bytes, p, partial, processors, stream);
    case 4: return launch<DIM, 4>(in, table_bytes, p, partial, processors, stream);
    default: return launch<DIM, 8>(in, table_bytes, p, partial, processors, stream);
    }
}

cudaError_t qem_cuda_multiply_groups(const qem_cuda_host_stage &stage, const qem_cuda_product &p, float *partial,
                                     uint32_t processors, cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const groups_source in = { d.codes,  d.group,        d.book,      d.book_half, d.row_bits, d.row_begin,
                               d.groups, d.group_stride, d.code_bits, !d.group && d.code_bits == 8 && p.cols % QEM_RUN == 0 };
    const uint64_t table_bytes = stage.k * QEM_RUN * sizeof(uint16_t); /* k: of the widest group */
    if (d.dim == 2) return launch_dim<2>(in, table_bytes, p, partial, processors, stream);
    if (d.dim == 4) return launch_dim<4>(in, table_bytes, p, partial, processors, stream);
    return launch_dim<8>(in, table_bytes, p, partial, processors, stream);
}

template <int DIM, int BATCH> static cudaError_t load(void)
{
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, QEM_KERNEL(multiply_groups<DIM, BATCH, true>));
    if (error != cudaSuccess) return error;
    return cudaFuncGetAttributes(&attributes, QEM_KERNEL(multiply_groups<DIM, BATCH, false>));
}

cudaError_t qem_cuda_load_group_products(void)
{
    cudaError_t (*const loads[])(void) = { load<2, 1>, load<2, 2>, load<2, 4>, load<2, 8>, load<4, 1>, load<4, 2>,
                                           load<4, 4>, load<4, 8>, load<8, 1>, load<8, 2>, load<8, 4>, load<8, 8> };
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, QEM_KERNEL(sum_groups));
    for (auto one : loads)
        if (error == cudaSuccess) error = one();
    return error;
}
