/* decode_tile() for one instruction set. */
#include "../core/half.h"
#include "kernels.h"
#include "simd_kernels.h"
#include "unpack_template.h"
#include "decode_words_template.h"

/*
 * One vector of codes at a time: unpacked in a register, made the places of their entries, and these, stored to a few bytes
 * on the stack, are the addresses of the loads that are merged to whole vectors of floats. Merging is what pays: one store of
 * a line in place of one for each entry. Entries of 4 and 8 have a faster way as long as their codes are short
 * (decode_words_template.h).
 */

/* Plans by the bit of its byte at which a row begins, made when first met. */
typedef struct plan_set {
    uint32_t made;
    unpack_plan plan[8];
} plan_set;

QEM_INLINE const unpack_plan *plan_at(plan_set *set, uint32_t phase, uint32_t bits)
{
    if (!(set->made >> phase & 1)) {
        plan_unpack(&set->plan[phase], phase, bits);
        set->made |= 1u << phase;
    }
    return &set->plan[phase];
}

/* What is the same for all rows of a tile. dim, source and streaming, on which the code depends, go beside it as constants. */
typedef struct tile_kernel {
    uint32_t bits;
    size_t group_stride;
    const void *codebook;
    vi offset;      /* of the codebook of each of LANES groups from that of the first */
    vtable16 table; /* FROM_TABLE: the codebook */
} tile_kernel;

QEM_INLINE const void *book_of_group(const tile_kernel *kernel, entry_source source, size_t group)
{
    const size_t element = source == FROM_HALVES ? sizeof(uint16_t) : sizeof(float);
    return (const unsigned char *)kernel->codebook + group * kernel->group_stride * element;
}

/* LANES / dim entries, or one for dim == LANES. */
QEM_INLINE vf entries(uint32_t dim, entry_source source, const void *book, const uint32_t *index)
{
    const size_t element = source == FROM_HALVES ? sizeof(uint16_t) : sizeof(float);
    const void *from[LANES / 4];
    if (dim == 1) return vf_gather(book, vi_load(index));
    if (dim == 2) return source == FROM_HALVES ? vf_half_entries2(book, index) : vf_entries2(book, index);
    const uint32_t count = LANES / dim;
    QEM_UNROLL
    for (uint32_t i = 0; i < count; i++) from[i] = (const unsigned char *)book + index[i] * element;
    return joined(dim, source, from);
}

QEM_INLINE vi places(const tile_kernel *kernel, uint32_t dim, vi codes)
{
    const int shift = dim == 1 ? 0 : dim == 2 ? 1 : dim == 4 ? 2 : 3;
    return vi_add(vi_shift_left(codes, shift), kernel->offset);
}

QEM_INLINE void whole_vector(const tile_kernel *kernel, uint32_t dim, entry_source source, int streaming, vi codes,
                             const void *book, float *out)
{
    uint32_t index[LANES];
    if (source == FROM_TABLE) {
        put(streaming, out, vtable16_lookup(kernel->table, codes));
        return;
    }
    vi_store(index, places(kernel, dim, codes));
    QEM_KEEP_IN_MEMORY(index);
    QEM_UNROLL
    for (uint32_t v = 0; v < dim; v++)
        put(streaming, out + v * LANES, entries(dim, source, book, index + v * LANES / dim));
}

/* count <= LANES codes: vectors as far as they go, then one by one. Lanes past them hold no codes and are not looked up. */
QEM_INLINE void part_of_vector(const tile_kernel *kernel, uint32_t dim, entry_source source, int streaming, vi codes,
                               size_t count, const void *book, float *out)
{
    const size_t each = LANES / dim;
    uint32_t index[LANES];
    vi_store(index, places(kernel, dim, codes));
    QEM_KEEP_IN_MEMORY(index);
    QEM_UNROLL
    for (uint32_t v = 0; v < dim; v++)
        if ((v + 1) * each <= count) put(streaming, out + v * LANES, entries(dim, source, book, index + v * each));
    for (size_t i = count / each * each; i < count; i++) one_entry(dim, source, book, index[i], out + i * dim);
}

/* The codes up to the next line of the output, by ordinary stores. Returns how many. */
QEM_INLINE size_t head_of_row(const tile_kernel *kernel, plan_set *plans, uint32_t dim, entry_source source,
                              const uint8_t *stream, uint64_t bit, size_t groups, float *out)
{
    const size_t to_line = qem_bytes_to_line(out) / (dim * sizeof *out), head = to_line < groups ? to_line : groups;
    for (size_t group = 0; group < head; group += LANES) {
        const size_t count = head - group < LANES ? head - group : LANES;
        const uint64_t at = bit + group * kernel->bits;
        const vi codes = unpack_first(plan_at(plans, at % 8, kernel->bits), stream + at / 8, count);
        part_of_vector(kernel, dim, source, 0, codes, count, book_of_group(kernel, source, group), out + group * dim);
    }
    return head;
}

QEM_INLINE void decode_row(const tile_kernel *kernel, plan_set *plans, uint32_t dim, entry_source source, int streaming,
                           const uint8_t *stream, uint64_t bit, size_t groups, float *out)
{
    const unpack_plan *plan = plan_at(plans, bit % 8, kernel->bits);
    const uint8_t *from = stream + bit / 8;
    size_t group = 0;
    for (; group + LANES <= groups; group += LANES, from += LANES / 8 * kernel->bits)
        whole_vector(kernel, dim, source, streaming, unpack_vector(plan, from), book_of_group(kernel, source, group),
                     out + group * dim);
    if (group < groups)
        part_of_vector(kernel, dim, source, streaming, unpack_first(plan, from, groups - group), groups - group,
                       book_of_group(kernel, source, group), out + group * dim);
}

static void prepare_kernel(tile_kernel *kernel, const qem_code_tile *tile, entry_source source)
{
    uint32_t offset[LANES];
    float table[16] = { 0 };
    for (uint32_t lane = 0; lane < LANES; lane++) offset[lane] = lane * (uint32_t)tile->group_stride;
    if (source == FROM_TABLE) memcpy(table, tile->codebook, (size_t)tile->k * sizeof *table);
    kernel->bits = tile->bits;
    kernel->group_stride = tile->group_stride;
    kernel->codebook = source == FROM_HALVES ? (const void *)tile->half : tile->codebook;
    kernel->offset = vi_load(offset);
    kernel->table = vtable16_load(table);
}

/* `groups` is tile->groups, a constant where the tile is narrow; `headless`: every row begins with a line. */
QEM_INLINE void decode_rows(const qem_code_tile *tile, uint32_t dim, entry_source source, int streaming, int headless,
                            size_t groups)
{
    const uint8_t *stream = tile->bits ? tile->stream : no_stream;
    const size_t rows = tile->rows, row_stride = tile->row_stride; /* the stores might be to the tile, for all C knows */
    const uint64_t row_bits = tile->bits ? tile->row_bits : 0;
    uint64_t bit = tile->bits ? tile->first_bit : 0;
    float *out = tile->out;
    tile_kernel prepared;
    plan_set plans;
    plans.made = 0;
    prepare_kernel(&prepared, tile, source);
    const tile_kernel kernel = prepared; /* a copy whose address nobody has: its fields may stay in registers */
    for (size_t row = 0; row < rows; row++, bit += row_bits, out += row_stride) {
        size_t head = 0;
        if (row + ROWS_AHEAD < rows) prefetch(stream + (bit + ROWS_AHEAD * row_bits) / 8);
        if (!headless) head = head_of_row(&kernel, &plans, dim, source, stream, bit, groups, out);
        tile_kernel rest = kernel;
        rest.codebook = book_of_group(&kernel, source, head);
        decode_row(&rest, &plans, dim, source, streaming, stream, bit + head * kernel.bits, groups - head, out + head * dim);
    }
}

/* Whole entries of any size. */
QEM_INLINE void copy_floats(const float *from, uint32_t dim, float *to)
{
    if (dim < 8) {
        for (uint32_t p = 0; p < dim; p++) to[p] = from[p];
        return;
    }
    for (uint32_t p = 0; p + 8 < dim; p += 8) _mm256_storeu_ps(to + p, _mm256_loadu_ps(from + p));
    _mm256_storeu_ps(to + dim - 8, _mm256_loadu_ps(from + dim - 8)); /* overlaps the one before */
}

QEM_INLINE void copy_halves(const uint16_t *from, uint32_t dim, float *to)
{
    if (dim < 8) {
        for (uint32_t p = 0; p < dim; p++) to[p] = qem_f16_to_f32(from[p]);
        return;
    }
    for (uint32_t p = 0; p + 8 < dim; p += 8)
        _mm256_storeu_ps(to + p, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + p))));
    _mm256_storeu_ps(to + dim - 8, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + dim - 8))));
}

QEM_INLINE void copy_row_of_entries(const qem_code_tile *tile, uint32_t dim, plan_set *plans, const uint8_t *stream,
                                    uint64_t bit, float *out)
{
    const unpack_plan *plan = plan_at(plans, bit % 8, tile->bits);
    const uint8_t *from = stream + bit / 8;
    uint32_t codes[LANES];
    for (size_t group = 0; group < tile->groups; group += LANES, from += LANES / 8 * tile->bits) {
        const size_t left = tile->groups - group, count = left < LANES ? left : LANES;
        vi_store(codes, unpack_first(plan, from, count));
        for (size_t i = 0; i < count; i++) {
            const size_t entry = (group + i) * tile->group_stride + (size_t)codes[i] * dim;
            if (tile->half)
                copy_halves(tile->half + entry, dim, out + (group + i) * dim);
            else
                copy_floats(tile->codebook + entry, dim, out + (group + i) * dim);
        }
    }
}

QEM_INLINE void copy_entries(const qem_code_tile *tile, uint32_t dim)
{
    const uint8_t *stream = tile->bits ? tile->stream : no_stream;
    plan_set plans;
    plans.made = 0;
    for (size_t row = 0; row < tile->rows; row++)
        copy_row_of_entries(tile, dim, &plans, stream, tile->bits ? tile->first_bit + row * tile->row_bits : 0,
                            tile->out + row * tile->row_stride);
}

QEM_INLINE void decode_vectors(const qem_code_tile *tile, uint32_t dim, entry_source source)
{
    const int aligned = (uintptr_t)tile->out % QEM_LINE == 0 &&
                        (tile->rows == 1 || tile->row_stride % (QEM_LINE / sizeof(float)) == 0);
    if (!tile->streaming)
        decode_rows(tile, dim, source, 0, 1, tile->groups);
    else if (!aligned)
        decode_rows(tile, dim, source, 1, 0, tile->groups);
    else if (dim == 2 && tile->groups * dim == NARROW)
        decode_rows(tile, dim, source, 1, 1, NARROW / dim);
    else
        decode_rows(tile, dim, source, 1, 1, tile->groups);
}

void QEM_SIMD(decode_tile)(const qem_code_tile *tile)
{
    if (tile->rows == 0 || tile->groups == 0) return; /* the pointers may be NULL then */
    const entry_source source = tile->half ? FROM_HALVES : FROM_FLOATS;
    if ((tile->dim == 4 || tile->dim == 8) && tile->bits <= WORD_BITS) {
        decode_by_words(tile, source);
        return;
    }
    switch (tile->dim) {
    case 1:
        if (source == FROM_FLOATS && tile->group_stride == 0 && tile->k <= 16)
            decode_vectors(tile, 1, FROM_TABLE);
        else if (source == FROM_FLOATS)
            decode_vectors(tile, 1, FROM_FLOATS);
        else
            copy_entries(tile, 1);
        break;
    case 2: source == FROM_HALVES ? decode_vectors(tile, 2, FROM_HALVES) : decode_vectors(tile, 2, FROM_FLOATS); break;
    case 3: copy_entries(tile, 3); break;
    case 4: source == FROM_HALVES ? decode_vectors(tile, 4, FROM_HALVES) : decode_vectors(tile, 4, FROM_FLOATS); break;
    case 5: copy_entries(tile, 5); break;
    case 6: copy_entries(tile, 6); break;
    case 7: copy_entries(tile, 7); break;
    case 8: source == FROM_HALVES ? decode_vectors(tile, 8, FROM_HALVES) : decode_vectors(tile, 8, FROM_FLOATS); break;
    case 16: copy_entries(tile, 16); break;
    default: copy_entries(tile, tile->dim); break;
    }
}

void QEM_SIMD(end_streaming)(void)
{
    _mm_sfence();
}
