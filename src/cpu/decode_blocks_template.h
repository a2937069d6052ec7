/*
 * decode_blocks() for one instruction set: codes are unpacked, looked up and scaled in registers, and stored once. What the
 * loop depends on comes as constants, so that each case has a loop of its own.
 */
#include "kernels.h"
#include "simd_kernels.h"
#include "unpack_template.h"

typedef enum level_source { FROM_INTEGERS, FROM_TABLE16, FROM_TABLE64, FROM_MEMORY } level_source;

/* Numbers by unit or by column; those that are missing are read from a few equal ones over and over. */
typedef struct numbers {
    const float *at;
    size_t step; /* all bits, or none: of the index */
} numbers;

typedef struct block_kernel {
    const float *codebook;
    vtable16 table16;
    vtable64 table64;
    vi nibble; /* how far each lane's 4 bits lie from the end of its word */
    uint32_t bits, block_shift;
    numbers scale, mean, column_scale, column_mean;
} block_kernel;

static const float ones[LANES] = { 1, 1, 1, 1, 1, 1, 1, 1
#if LANES == 16
                                   , 1, 1, 1, 1, 1, 1, 1, 1
#endif
};
static const float zeros[LANES];

static numbers numbers_of(const float *at, const float *missing)
{
    const numbers n = { at ? at : missing, at ? SIZE_MAX : 0 };
    return n;
}

static numbers from_unit(numbers n, size_t unit)
{
    n.at += unit & n.step;
    return n;
}

QEM_INLINE float one_of(numbers n, size_t i) { return n.at[i & n.step]; }

/* Of LANES columns from j on, in a block or two halves of blocks. */
QEM_INLINE vf of_units(const block_kernel *kernel, numbers n, size_t j, int halves)
{
    if (!halves) return vf_set1(one_of(n, j >> kernel->block_shift));
    const float pair[2] = { one_of(n, j >> kernel->block_shift), one_of(n, (j + LANES / 2) >> kernel->block_shift) };
    return vf_halves(pair);
}

QEM_INLINE vf level(const block_kernel *kernel, level_source source, vi codes)
{
    switch (source) {
    case FROM_INTEGERS: return vi_to_float(codes);
    case FROM_TABLE16: return vtable16_lookup(kernel->table16, codes);
    case FROM_TABLE64: return vtable64_lookup(kernel->table64, codes);
    default: return vf_gather(kernel->codebook, codes);
    }
}

QEM_INLINE vi nibbles(const block_kernel *kernel, level_source source, const uint8_t *from)
{
    const vi codes = vi_shift_right_each(vi_spread(from, 4), kernel->nibble);
    return source == FROM_TABLE16 ? codes : vi_and(codes, vi_set1(15)); /* a table of 16 looks at 4 bits alone */
}

/* The last codes of a row, fewer than a vector. */
static __attribute__((noinline)) void last_codes(const qem_block_tile *tile, const block_kernel *kernel, const unpack_plan *plan, const uint8_t *from,
                       size_t j, float *out)
{
    uint32_t codes[LANES];
    vi_store(codes, unpack_first(plan, from, tile->width - j));
    for (size_t i = 0; j < tile->width; i++, j++) {
        const size_t unit = j >> kernel->block_shift;
        const float x = tile->integers ? (float)codes[i] : tile->codebook[codes[i]];
        out[j] = fmaf(x, one_of(kernel->scale, unit), one_of(kernel->mean, unit));
        if (tile->columns) out[j] = fmaf(out[j], one_of(kernel->column_scale, j), one_of(kernel->column_mean, j));
    }
}

static __attribute__((noinline)) void make_plan(unpack_plan *plan, uint32_t first_bit, uint32_t bits)
{
    plan_unpack(plan, first_bit, bits);
}

QEM_INLINE size_t decode_row(const qem_block_tile *tile, const block_kernel *kernel, const unpack_plan *plan,
                             const uint8_t *from, float *out, level_source source, const int narrow, const int halves,
                             const int columns, const int streaming)
{
    const size_t width = tile->width;
    size_t j = 0;
    for (; j + LANES <= width; j += LANES, from += LANES / 8 * kernel->bits) {
        const vi codes = narrow ? nibbles(kernel, source, from) : unpack_vector(plan, from);
        vf x = vf_fmadd(level(kernel, source, codes), of_units(kernel, kernel->scale, j, halves),
                        of_units(kernel, kernel->mean, j, halves));
        if (columns)
            x = vf_fmadd(x, vf_load(kernel->column_scale.at + (j & kernel->column_scale.step)),
                         vf_load(kernel->column_mean.at + (j & kernel->column_mean.step)));
        if (streaming)
            vf_stream(out + j, x);
        else
            vf_store(out + j, x);
    }
    return j;
}

QEM_INLINE void decode_rows(const qem_block_tile *tile, const block_kernel *prepared, level_source source, const int narrow,
                            const int halves, const int columns, const int streaming)
{
    block_kernel kernel = *prepared;
    unpack_plan plan;
    uint32_t phase = UINT32_MAX;
    for (size_t row = 0; row < tile->rows; row++) {
        const uint64_t bit = tile->first_bit + row * tile->row_bits;
        const uint8_t *from = tile->stream + bit / 8;
        float *out = tile->out + row * tile->row_stride;
        if (bit % 8 != phase) make_plan(&plan, phase = (uint32_t)(bit % 8), tile->bits);
        kernel.scale = from_unit(prepared->scale, row * tile->unit_stride);
        kernel.mean = from_unit(prepared->mean, row * tile->unit_stride);
        const size_t j = decode_row(tile, &kernel, &plan, from, out, source, narrow, halves, columns, streaming);
        if (j < tile->width) last_codes(tile, &kernel, &plan, from + j / 8 * tile->bits, j, out);
    }
}

QEM_INLINE void by_store(const qem_block_tile *tile, const block_kernel *kernel, level_source source, const int narrow,
                         const int halves, const int columns)
{
    if (tile->streaming)
        decode_rows(tile, kernel, source, narrow, halves, columns, 1);
    else
        decode_rows(tile, kernel, source, narrow, halves, columns, 0);
}

QEM_INLINE void by_steps(const qem_block_tile *tile, const block_kernel *kernel, level_source source, const int narrow)
{
    const int halves = (size_t)1 << tile->block_shift < LANES;
    if (halves && tile->columns)
        by_store(tile, kernel, source, narrow, 1, 1);
    else if (halves)
        by_store(tile, kernel, source, narrow, 1, 0);
    else if (tile->columns)
        by_store(tile, kernel, source, narrow, 0, 1);
    else
        by_store(tile, kernel, source, narrow, 0, 0);
}

/* Entries past k are never looked up. */
static void prepare(block_kernel *kernel, const qem_block_tile *tile, float table[64])
{
    uint32_t nibble[LANES];
    for (uint32_t i = 0; i < LANES; i++) nibble[i] = i % 8 * 4;
    memset(table, 0, 64 * sizeof *table);
    if (!tile->integers && tile->k <= 64) memcpy(table, tile->codebook, (size_t)tile->k * sizeof *table);
    kernel->codebook = tile->codebook;
    kernel->table16 = vtable16_load(table);
    kernel->table64 = vtable64_load(table);
    kernel->nibble = vi_load(nibble);
    kernel->bits = tile->bits;
    kernel->block_shift = tile->block_shift;
    kernel->scale = numbers_of(tile->scale, ones);
    kernel->mean = numbers_of(tile->mean, zeros);
    kernel->column_scale = numbers_of(tile->column_scale, ones);
    kernel->column_mean = numbers_of(tile->column_mean, zeros);
}

void QEM_SIMD(decode_blocks)(const qem_block_tile *tile)
{
    const int narrow = tile->bits == 4 && tile->first_bit % 8 == 0 && tile->row_bits % 8 == 0;
    float table[64];
    block_kernel kernel;
    prepare(&kernel, tile, table);
    if (tile->integers && narrow)
        by_steps(tile, &kernel, FROM_INTEGERS, 1);
    else if (tile->integers)
        by_steps(tile, &kernel, FROM_INTEGERS, 0);
    else if (tile->k <= 16 && narrow)
        by_steps(tile, &kernel, FROM_TABLE16, 1);
    else if (tile->k <= 16)
        by_steps(tile, &kernel, FROM_TABLE16, 0);
    else if (tile->k <= 64)
        by_steps(tile, &kernel, FROM_TABLE64, 0);
    else
        by_steps(tile, &kernel, FROM_MEMORY, 0);
}
