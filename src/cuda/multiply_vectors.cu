/*
 * Products with codes of sub-vectors of 2, 4 or 8, one codebook, and the steps of their layer (product.cuh has the order
 * and the bytes).
 *
 * Bytes a weight: code_bits / (8 * dim) and the units' parameters, which is the least. byte_codes: codes of 8 bits and a
 * codebook that f16 holds without loss, in shared memory as f16; a lane reads a word of its run after the other. any_codes:
 * other widths and codebooks, whose entries come from L1 and L2, one lookup for each four weights.
 */
#include "product_steps.cuh"

struct vectors_source {
    const uint32_t *codes;
    const float *book;
    const uint16_t *half; /* the same, where it lies there too; or NULL */
    uint64_t row_bits, stage_row;
    uint32_t k, bits;
    qem_product_steps steps;
};

/* COUNT floats (2 or 4) of an entry, which is finite. */
template <int COUNT> __device__ __forceinline__ void halves(const uint16_t *from, float *w)
{
    const uint2 v = COUNT == 4 ? *(const uint2 *)from : make_uint2(*(const uint32_t *)from, 0);
    const float2 low = qem_two_halves(v.x), high = qem_two_halves(v.y);
    w[0] = low.x, w[1] = low.y;
    if (COUNT == 4) w[2 % COUNT] = high.x, w[3 % COUNT] = high.y;
}

/* ---- codes of 8 bits ---- */

template <int DIM> struct byte_codes {
    using source = vectors_source;
    const source &from;
    const uint16_t *table;
    uint64_t row, column;
    const uint32_t *words, *next;
    uint32_t word;
    qem_row_steps now;

    static size_t table_bytes(const source &in) { return in.k * DIM * sizeof(uint16_t); }
    __device__ static void fill(const source &in, void *shared)
    {
        uint16_t *const to = (uint16_t *)shared;
        for (uint32_t i = threadIdx.x; i < in.k * DIM; i += QEM_PRODUCT_THREADS) to[i] = qem_f16_bits(__ldg(in.book + i));
    }
    __device__ byte_codes(const source &in, const void *shared, uint64_t row_here)
        : from(in), table((const uint16_t *)shared), row(row_here), column(0),
          words(in.codes + (row_here - in.stage_row) * (in.row_bits / 32)), next(words), word(0), now()
    {
    }
    __device__ __forceinline__ void begin(uint64_t column_here)
    {
        column = column_here;
        next = words + column / (4 * DIM);
        word = __ldg(next);
    }
    template <typename Use> __device__ __forceinline__ void each(uint32_t left, Use use)
    {
        const uint32_t count = left / (4 * DIM);
#pragma unroll 1
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t codes = word;
            if (i + 1 < count) word = __ldg(next + i + 1);
#pragma unroll
            for (uint32_t q = 0; q < DIM; q++) { /* a word is as many fours as an entry has floats */
                float w[4];
                if (DIM == 2) {
                    halves<2>(table + (codes >> (2 * q * 8 % 32) & 255u) * DIM, w);
                    halves<2>(table + (codes >> ((2 * q + 1) * 8 % 32) & 255u) * DIM, w + 2);
                } else {
                    halves<4>(table + (codes >> (q * 4 / DIM * 8) & 255u) * DIM + q * 4 % DIM, w);
                }
                qem_product_step(from.steps, row, column, i * DIM + q, now, w);
                use(i * DIM + q, w, 4);
            }
        }
    }
};

/* ---- any codes ---- */

template <int DIM> struct any_codes {
    using source = vectors_source;
    const source &from;
    uint64_t row, column, first_bit, bit;
    qem_row_steps now;

    static size_t table_bytes(const source &) { return 0; }
    __device__ static void fill(const source &, void *) {}
    __device__ any_codes(const source &in, const void *, uint64_t row_here)
        : from(in), row(row_here), column(0), first_bit((row_here - in.stage_row) * in.row_bits), bit(0), now()
    {
    }
    __device__ __forceinline__ void begin(uint64_t column_here)
    {
        column = column_here;
        bit = first_bit + column / DIM * from.bits;
    }
    /* COUNT floats from place `at` of the codebook on. */
    template <int COUNT> __device__ __forceinline__ void fetch(uint64_t at, float *w) const
    {
        if (from.half) {
            const uint32_t *const pairs = (const uint32_t *)(from.half + at);
#pragma unroll
            for (int e = 0; e < COUNT; e += 2) {
                const float2 pair = qem_two_halves(__ldg(pairs + e / 2));
                w[e] = pair.x, w[e + 1] = pair.y;
            }
        } else if (COUNT == 4) {
            const float4 v = __ldg((const float4 *)(from.book + at));
            w[0] = v.x, w[1] = v.y, w[2 % COUNT] = v.z, w[3 % COUNT] = v.w;
        } else {
            const float2 v = __ldg((const float2 *)(from.book + at));
            w[0] = v.x, w[1] = v.y;
        }
    }
    template <typename Use> __device__ __forceinline__ void each(uint32_t left, Use use)
    {
#pragma unroll 1
        for (uint32_t j = 0; j < left / 4; j++) {
            float w[4];
            if (DIM == 2) {
                fetch<2>((uint64_t)qem_bits_at(from.codes, bit + 2 * j * from.bits, from.bits) * DIM, w);
                fetch<2>((uint64_t)qem_bits_at(from.codes, bit + (2 * j + 1) * from.bits, from.bits) * DIM, w + 2);
            } else {
                const uint32_t code = qem_bits_at(from.codes, bit + j * 4 / DIM * from.bits, from.bits);
                fetch<4>((uint64_t)code * DIM + j * 4 % DIM, w);
            }
            qem_product_step(from.steps, row, column, j, now, w);
            use(j, w, 4);
        }
    }
};

/* ---- launches ---- */

int qem_cuda_multiplies_vectors(const qem_cuda_host_stage &stage, uint64_t cols)
{
    const qem_cuda_stage &d = stage.on_device;
    if (d.group_stride || d.group || d.levels || d.cells) return 0;
    if (d.dim != 2 && d.dim != 4 && d.dim != 8) return 0;
    return cols % 4 == 0 && cols % d.dim == 0 && takes_steps(d, 4);
}

template <int DIM>
static cudaError_t launch(const qem_cuda_host_stage &stage, const qem_cuda_product &p, uint32_t processors,
                          cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const uint16_t *half = stage.halves ? stage.rounded[0] : NULL;
    const vectors_source from = { d.codes,           d.book,      half,                   d.row_bits, d.row_begin,
                                  (uint32_t)stage.k, d.code_bits, qem_product_steps_of(d) };
    if (d.code_bits == 8 && d.row_bits % 32 == 0 && stage.halves)
        return qem_multiply<byte_codes<DIM>>(from, p, processors, stream);
    return qem_multiply<any_codes<DIM>>(from, p, processors, stream);
}

cudaError_t qem_cuda_multiply_vectors(const qem_cuda_host_stage &stage, const qem_cuda_product &p, uint32_t processors,
                                      cudaStream_t stream)
{
    if (stage.on_device.dim == 2) return launch<2>(stage, p, processors, stream);
    if (stage.on_device.dim == 4) return launch<4>(stage, p, processors, stream);
    return launch<8>(stage, p, processors, stream);
}

cudaError_t qem_cuda_load_vector_products(void)
{
    cudaError_t (*const loads[])(void) = { qem_load_products<byte_codes<2>>, qem_load_products<byte_codes<4>>,
                                           qem_load_products<byte_codes<8>>, qem_load_products<any_codes<2>>,
                                           qem_load_products<any_codes<4>>,  qem_load_products<any_codes<8>> };
    for (auto load : loads) {
        const cudaError_t error = load();
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
