/*
 * Products with scalar codes of 1 .. 8 bits, one codebook of levels, and the steps of their layer (product.cuh has the
 * order and the bytes). The levels lie in shared memory as f32; 16 of them lie in different banks.
 *
 * Bytes a weight: code_bits / 8 and the units' parameters, which is the least. packed<4>, packed<8>: a lane reads a word of
 * its run after the other, of which it has 32 or 64 bytes that follow each other, those of a row's lanes too.
 * windows: codes of any width, two words for each four of them, from L1 but for the first time.
 */
#include "product_steps.cuh"

struct levels_source {
    const uint32_t *codes;
    const float *levels;
    uint64_t row_bits, stage_row; /* stage_row: of the artifact, that the stage begins with */
    uint32_t k, bits;
    qem_product_steps steps;
};

/* What both kinds share: a row's codes, its levels and steps. */
struct level_row {
    const levels_source &from;
    const float *table;
    uint64_t row, column;
    qem_row_steps now;

    __device__ level_row(const levels_source &source, const void *shared, uint64_t row_here)
        : from(source), table((const float *)shared), row(row_here), column(0), now()
    {
    }
    __device__ __forceinline__ void step(uint32_t j, float (&w)[4])
    {
        qem_product_step(from.steps, row, column, j, now, w);
    }
};

struct level_table {
    using source = levels_source;
    static size_t table_bytes(const source &) { return 256 * sizeof(float); }
    __device__ static void fill(const source &from, void *shared)
    {
        if (threadIdx.x < from.k) ((float *)shared)[threadIdx.x] = __ldg(from.levels + threadIdx.x);
    }
};

/* Codes of BITS bits, so many in a word; rows are whole words. */
template <int BITS> struct packed : level_table {
    level_row at;
    const uint32_t *words, *next;
    uint32_t word;

    __device__ packed(const source &from, const void *shared, uint64_t row)
        : at(from, shared, row), words(from.codes + (row - from.stage_row) * (from.row_bits / 32)), next(words), word(0)
    {
    }
    __device__ __forceinline__ void begin(uint64_t column)
    {
        at.column = column;
        next = words + column * BITS / 32;
        word = __ldg(next);
    }
    template <typename Use> __device__ __forceinline__ void each(uint32_t left, Use use)
    {
        constexpr uint32_t quads = 8 / BITS; /* of a word */
        const uint32_t count = left / (32 / BITS);
#pragma unroll 1
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t codes = word;
            if (i + 1 < count) word = __ldg(next + i + 1);
#pragma unroll
            for (uint32_t q = 0; q < quads; q++) {
                float w[4];
#pragma unroll
                for (uint32_t e = 0; e < 4; e++)
                    w[e] = at.table[codes >> ((4 * q + e) * BITS % 32) & ((1u << BITS) - 1u)];
                at.step(i * quads + q, w);
                use(i * quads + q, w, 4);
            }
        }
    }
};

/* Codes of any width up to 8. */
struct windows : level_table {
    level_row at;
    uint64_t first_bit, bit;

    __device__ windows(const source &from, const void *shared, uint64_t row)
        : at(from, shared, row), first_bit((row - from.stage_row) * from.row_bits), bit(0)
    {
    }
    __device__ __forceinline__ void begin(uint64_t column)
    {
        at.column = column;
        bit = first_bit + column * at.from.bits;
    }
    template <typename Use> __device__ __forceinline__ void each(uint32_t left, Use use)
    {
        const uint32_t bits = at.from.bits, mask = (1u << bits) - 1u;
#pragma unroll 1
        for (uint32_t j = 0; j < left / 4; j++) {
            const uint64_t here = bit + j * 4 * bits;
            const uint32_t *const word = at.from.codes + (here >> 5);
            const uint32_t codes = __funnelshift_r(__ldg(word), __ldg(word + 1), (uint32_t)here & 31u);
            float w[4];
#pragma unroll
            for (uint32_t e = 0; e < 4; e++) w[e] = at.table[codes >> (e * bits) & mask];
            at.step(j, w);
            use(j, w, 4);
        }
    }
};

/* ---- launches ---- */

int qem_cuda_multiplies_scalars(const qem_cuda_host_stage &stage, uint64_t cols)
{
    const qem_cuda_stage &d = stage.on_device;
    if (d.dim != 1 || d.group_stride || d.group || d.levels || d.cells || d.code_bits < 1 || d.code_bits > 8) return 0;
    return cols % 4 == 0 && takes_steps(d, 4);
}

cudaError_t qem_cuda_multiply_scalars(const qem_cuda_host_stage &stage, const qem_cuda_product &p, uint32_t processors,
                                      cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const levels_source from = { d.codes,     d.book,      d.row_bits, d.row_begin, (uint32_t)stage.k,
                                 d.code_bits, qem_product_steps_of(d) };
    if (d.code_bits == 4 && d.row_bits % 32 == 0) return qem_multiply<packed<4>>(from, p, processors, stream);
    if (d.code_bits == 8 && d.row_bits % 32 == 0) return qem_multiply<packed<8>>(from, p, processors, stream);
    return qem_multiply<windows>(from, p, processors, stream);
}

cudaError_t qem_cuda_load_scalar_products(void)
{
    cudaError_t error = qem_load_products<packed<4>>();
    if (error == cudaSuccess) error = qem_load_products<packed<8>>();
    if (error == cudaSuccess) error = qem_load_products<windows>();
    return error;
}
