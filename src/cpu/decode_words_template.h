/* decode_tile() of entries of 4 and 8 by short codes, for one instruction set. */
#ifndef QEM_CPU_DECODE_WORDS_TEMPLATE_H
#define QEM_CPU_DECODE_WORDS_TEMPLATE_H

#include "../core/half.h"
#include "code_tile.h"

/*
 * Four codes at a time are unpacked in general registers, because they become addresses: places that are unpacked in a vector
 * have to be stored to be loaded again by elements, which costs more than all the rest. The entries are loaded each from its
 * own address and merged to whole vectors.
 */
#define WORD_BITS 14  /* four codes that begin inside a byte fit a word of 64 bits */
#define NARROW 32     /* floats in a row of the narrowest tiles, which have a loop of their own */
#define ROWS_AHEAD 16 /* the first codes of this many rows on are fetched: rows of codes are far apart */

typedef enum entry_source { FROM_TABLE, FROM_FLOATS, FROM_HALVES } entry_source;

static const uint8_t no_stream[2 * 16]; /* read where codes have no bits */

QEM_INLINE void put(int streaming, float *out, vf v)
{
    if (streaming)
        vf_stream(out, v);
    else
        vf_store(out, v);
}

/* LANES / dim entries side by side; dim 4 or 8. */
QEM_INLINE vf joined(uint32_t dim, entry_source source, const void *const *from)
{
    if (source == FROM_HALVES)
        return dim == 4 ? vf_load_half_fours((const uint16_t *const *)from) : vf_load_half_eights((const uint16_t *const *)from);
    return dim == 4 ? vf_load_fours((const float *const *)from) : vf_load_eights((const float *const *)from);
}

QEM_INLINE void one_entry(uint32_t dim, entry_source source, const void *book, uint32_t index, float *out)
{
    if (source == FROM_HALVES)
        for (uint32_t p = 0; p < dim; p++) out[p] = qem_f16_to_f32(((const uint16_t *)book)[index + p]);
    else
        memcpy(out, (const float *)book + index, dim * sizeof *out);
}

/* What is the same for all rows of a tile; the constants of the code beside it are dim, source, streaming and stride, the bytes
 * from a group's codebook to the next one's. */
typedef struct word_kernel {
    const uint8_t *stream;
    const unsigned char *codebook;
    uint32_t bits, bits2, bits3; /* of one, two and three codes */
    uint64_t mask;               /* of a place, in units of 8 bytes */
} word_kernel;

/* Codes are shifted by so much to be places in units of 8 bytes, which the least entry has. */
QEM_INLINE uint32_t place_shift(uint32_t dim, entry_source source)
{
    return (uint32_t)(dim == 8) + (source == FROM_FLOATS);
}

QEM_INLINE void one_word(const word_kernel *kernel, uint32_t dim, entry_source source, int streaming, size_t stride,
                         const uint8_t *at, uint32_t shift, const unsigned char *book, float *out)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    word = word >> shift << place_shift(dim, source);
    const void *const from[4] = { book + (word & kernel->mask) * 8, book + stride + (word >> kernel->bits & kernel->mask) * 8,
                                  book + 2 * stride + (word >> kernel->bits2 & kernel->mask) * 8,
                                  book + 3 * stride + (word >> kernel->bits3 & kernel->mask) * 8 };
    QEM_UNROLL
    for (uint32_t v = 0; v < 4 * dim / LANES; v++)
        put(streaming, out + v * LANES, joined(dim, source, from + v * (LANES / dim)));
}

/* Eight codes, which fill whole bytes: so the words of all eights of a row begin at the same bits of them. */
QEM_INLINE void two_words(const word_kernel *kernel, uint32_t dim, entry_source source, int streaming, size_t stride,
                          const uint8_t *at, uint32_t shift, const unsigned char *book, float *out)
{
    const uint32_t second = shift + 4 * kernel->bits;
    one_word(kernel, dim, source, streaming, stride, at, shift, book, out);
    one_word(kernel, dim, source, streaming, stride, at + second / 8, second % 8, book + 4 * stride, out + 4 * dim);
}

/* A few codes, one by one. Not inlined: the loops over words need the registers. */
static __attribute__((noinline)) void single_codes(const word_kernel *kernel, uint32_t dim, entry_source source, size_t stride,
                                                   uint64_t bit, size_t groups, const unsigned char *book, float *out)
{
    for (; groups > 0; groups--, bit += kernel->bits, book += stride, out += dim) {
        uint32_t word;
        memcpy(&word, kernel->stream + bit / 8, sizeof word);
        one_entry(dim, source, book, (word >> bit % 8 & ((1u << kernel->bits) - 1u)) * dim, out);
    }
}

QEM_INLINE void word_row(const word_kernel *kernel, uint32_t dim, entry_source source, int streaming, size_t stride,
                         uint64_t bit, size_t groups, float *out)
{
    const unsigned char *book = kernel->codebook;
    if (streaming && (uintptr_t)out % QEM_LINE) { /* up to the next line by ordinary stores */
        const size_t to_line = qem_bytes_to_line(out) / (dim * sizeof *out), head = to_line < groups ? to_line : groups;
        single_codes(kernel, dim, source, stride, bit, head, book, out);
        bit += head * kernel->bits, book += head * stride, out += head * dim, groups -= head;
    }
    const uint32_t shift = bit % 8;
    const uint8_t *from = kernel->stream + bit / 8;
    size_t group = 0;
    for (; group + 8 <= groups; group += 8, from += kernel->bits, book += 8 * stride, out += 8 * dim)
        two_words(kernel, dim, source, streaming, stride, from, shift, book, out);
    if (group + 4 <= groups) {
        one_word(kernel, dim, source, streaming, stride, from, shift, book, out);
        group += 4, book += 4 * stride, out += 4 * dim;
    }
    if (group < groups)
        single_codes(kernel, dim, source, stride, bit + group * kernel->bits, groups - group, book, out);
}

QEM_INLINE void word_rows(const qem_code_tile *tile, uint32_t dim, entry_source source, int streaming, size_t stride)
{
    const size_t rows = tile->rows, groups = tile->groups, row_stride = tile->row_stride; /* unchanged by what is stored */
    const uint64_t row_bits = tile->bits ? tile->row_bits : 0;
    const word_kernel kernel = { tile->bits ? tile->stream : no_stream,
                                 source == FROM_HALVES ? (const void *)tile->half : tile->codebook,
                                 tile->bits, 2 * tile->bits, 3 * tile->bits,
                                 (((uint64_t)1 << tile->bits) - 1) << place_shift(dim, source) };
    const int headless = !streaming || ((uintptr_t)tile->out % QEM_LINE == 0 && row_stride * sizeof(float) % QEM_LINE == 0);
    uint64_t bit = tile->bits ? tile->first_bit : 0;
    float *out = tile->out;
    if (stride && groups * dim == NARROW && headless && row_bits % 8 == 0) {
        const uint8_t *from = kernel.stream + bit / 8;
        for (size_t row = 0; row < rows; row++, from += row_bits / 8, out += row_stride) {
            if (row + ROWS_AHEAD < rows) prefetch(from + ROWS_AHEAD * (row_bits / 8));
            if (dim == 4)
                two_words(&kernel, dim, source, streaming, stride, from, bit % 8, kernel.codebook, out);
            else
                one_word(&kernel, dim, source, streaming, stride, from, bit % 8, kernel.codebook, out);
        }
        return;
    }
    for (size_t row = 0; row < rows; row++, bit += row_bits, out += row_stride) {
        if (row + ROWS_AHEAD < rows) prefetch(kernel.stream + (bit + ROWS_AHEAD * row_bits) / 8);
        word_row(&kernel, dim, source, streaming, stride, bit, groups, out);
    }
}

/* A function for each, or the compiler would share the registers out among all of them. Codebooks of 256 fours, the most usual
 * ones, lie at distances that instructions can hold. */
#define USUAL_STRIDE 1024
#define WORD_ROWS(name, dim, source, element)                                                                              \
    static __attribute__((noinline)) void name##_shared(const qem_code_tile *tile)                                         \
    {                                                                                                                      \
        word_rows(tile, dim, source, 0, 0);                                                                                \
    }                                                                                                                      \
    static __attribute__((noinline)) void name##_shared_streaming(const qem_code_tile *tile)                               \
    {                                                                                                                      \
        word_rows(tile, dim, source, 1, 0);                                                                                \
    }                                                                                                                      \
    static __attribute__((noinline)) void name##_usual_streaming(const qem_code_tile *tile)                                \
    {                                                                                                                      \
        word_rows(tile, dim, source, 1, USUAL_STRIDE * sizeof(element));                                                   \
    }                                                                                                                      \
    static __attribute__((noinline)) void name##_any(const qem_code_tile *tile)                                            \
    {                                                                                                                      \
        word_rows(tile, dim, source, 0, tile->group_stride * sizeof(element));                                             \
    }                                                                                                                      \
    static __attribute__((noinline)) void name##_any_streaming(const qem_code_tile *tile)                                  \
    {                                                                                                                      \
        word_rows(tile, dim, source, 1, tile->group_stride * sizeof(element));                                             \
    }                                                                                                                      \
    static void name(const qem_code_tile *tile)                                                                            \
    {                                                                                                                      \
        if (tile->group_stride == 0)                                                                                       \
            tile->streaming ? name##_shared_streaming(tile) : name##_shared(tile);                                         \
        else if (tile->group_stride == USUAL_STRIDE && tile->streaming)                                                    \
            name##_usual_streaming(tile);                                                                                  \
        else                                                                                                               \
            tile->streaming ? name##_any_streaming(tile) : name##_any(tile);                                               \
    }

WORD_ROWS(fours, 4, FROM_FLOATS, float)
WORD_ROWS(half_fours, 4, FROM_HALVES, uint16_t)
WORD_ROWS(eights, 8, FROM_FLOATS, float)
WORD_ROWS(half_eights, 8, FROM_HALVES, uint16_t)

static void decode_by_words(const qem_code_tile *tile, entry_source source)
{
    if (tile->dim == 4)
        source == FROM_HALVES ? half_fours(tile) : fours(tile);
    else
        source == FROM_HALVES ? half_eights(tile) : eights(tile);
}

#endif
