/*
 * Sums of table entries by lookups of bytes (products.h): a lookup in 64 bytes takes as long as one of a single float, so the
 * four bytes of 64 entries are found one by one and put together. The 64 codes of one lookup are those of 64 rows and one
 * group; rows lie in them in the order in which the bytes, put together, make four vectors of 16 rows one after the other.
 */
#include "products.h"

#define QUARTERS 4
#define QUARTER_BYTES 16
#define FLOAT_BYTES 4
#define PLANE_BYTES 64 /* of one lookup */

static void QEM_SIMD(split_table)(const float *table, size_t ld, uint8_t *planes)
{
    uint8_t order[PLANE_BYTES];
    for (size_t i = 0; i < PLANE_BYTES; i++) order[i] = (uint8_t)(i % QUARTER_BYTES * FLOAT_BYTES + i / QUARTER_BYTES);
    const vb by_plane = vb_load(order);
    for (size_t j = 0; j < ld; j += QUARTER_BYTES) vb_store_quarters(planes + j, ld, vb_lookup(vb_load(table + j), by_plane));
}

/* ---- codes by group ---- */

/* The row whose code is byte `byte` of a quarter, as add_entries() puts bytes together. */
QEM_INLINE size_t row_of(size_t quarter, size_t byte)
{
    return (byte % 2 * 2 + byte / 8) * 16 + quarter * FLOAT_BYTES + byte / 2 % FLOAT_BYTES;
}

/* 16 groups of rows of PLANE_BYTES from `from` on, which hold a code in each byte. */
QEM_INLINE void turn16(const uint8_t *from, uint8_t *turned)
{
    vb a[QUARTER_BYTES], b[QUARTER_BYTES];
    QEM_UNROLL
    for (size_t i = 0; i < QUARTER_BYTES; i++) {
        const size_t offset[QUARTERS] = { row_of(0, i) * PLANE_BYTES, row_of(1, i) * PLANE_BYTES, row_of(2, i) * PLANE_BYTES,
                                          row_of(3, i) * PLANE_BYTES };
        a[i] = vi_load_quarters(from, offset);
    }
    QEM_UNROLL
    for (int step = 0; step < 4; step++) { /* each doubles the rows that lie side by side, and halves the groups */
        QEM_UNROLL
        for (int i = 0; i < QUARTER_BYTES / 2; i++) {
            b[2 * i] = vb_zip_low(a[i], a[i + QUARTER_BYTES / 2]);
            b[2 * i + 1] = vb_zip_high(a[i], a[i + QUARTER_BYTES / 2]);
        }
        QEM_UNROLL
        for (int i = 0; i < QUARTER_BYTES; i++) a[i] = b[i];
    }
    QEM_UNROLL
    for (int g = 0; g < QUARTER_BYTES; g++) vb_store(turned + g * QEM_TURNED_ROWS, a[g]);
}

/* The codes of rows as bytes, PLANE_BYTES for a row; those past `groups` are anything. */
QEM_INLINE void copy_rows(const uint8_t *stream, size_t row_bytes, size_t rows, size_t groups, uint8_t *bytes)
{
    const vbm there = vbm_first(groups);
    for (size_t r = 0; r < rows; r++, stream += row_bytes, bytes += PLANE_BYTES) {
        if (groups == QEM_TURNED_GROUPS)
            memcpy(bytes, stream, QEM_TURNED_GROUPS);
        else
            vb_store(bytes, vb_load_where(there, stream));
    }
}

static void widen_rows(const uint8_t *stream, uint64_t first_bit, uint64_t row_bits, uint32_t bits, size_t rows, size_t groups,
                       uint8_t *bytes)
{
    uint8_t place[PLANE_BYTES], shift[PLANE_BYTES];
    for (size_t i = 0; i < PLANE_BYTES; i++) { /* runs of 8 bytes take their 8 codes, `bits` bytes after those of the run before */
        place[i] = (uint8_t)(i / 8 * bits + i % 8);
        shift[i] = (uint8_t)(i % 8 * bits);
    }
    const vb places = vb_load(place), shifts = vb_load(shift), mask = vb_set1((uint8_t)((1u << bits) - 1u));
    for (size_t r = 0; r < rows; r++, first_bit += row_bits) {
        const uint32_t rest = (uint32_t)(first_bit % 8);
        const vb codes = vb_load_where(vbm_first((rest + groups * bits + 7) / 8), stream + first_bit / 8);
        const vb wide = vb_bits_from(vb_lookup(codes, places), vb_add(shifts, vb_set1((uint8_t)rest)));
        vb_store(bytes + r * PLANE_BYTES, vb_and(wide, mask));
    }
}

static void QEM_SIMD(turn_codes)(const uint8_t *stream, uint64_t first_bit, uint64_t row_bits, uint32_t bits, size_t rows,
                                 size_t groups, uint8_t *turned)
{
    const size_t blocks = (rows + QEM_TURNED_ROWS - 1) / QEM_TURNED_ROWS;
    uint8_t bytes[QEM_TURNED_ROWS * PLANE_BYTES] __attribute__((aligned(64)));
    if (rows < QEM_TURNED_ROWS) memset(bytes, 0, sizeof bytes);
    for (size_t b = 0; b < blocks; b++) {
        const size_t r = b * QEM_TURNED_ROWS, some = rows - r < QEM_TURNED_ROWS ? rows - r : QEM_TURNED_ROWS;
        const uint64_t bit = first_bit + r * row_bits;
        if (bits == 8)
            copy_rows(stream + bit / 8, (size_t)(row_bits / 8), some, groups, bytes);
        else
            widen_rows(stream, bit, row_bits, bits, some, groups, bytes);
        for (size_t g = 0; g < groups; g += QUARTER_BYTES)
            turn16(bytes + g, turned + (g / QEM_TABLE_BLOCK * blocks + b) * QEM_TURNED_BYTES +
                                  g % QEM_TABLE_BLOCK * QEM_TURNED_ROWS);
    }
}

/* ---- sums ---- */

/* Which of the 64 entries of a plane that bits 6 and 7 of a code are the number of: a lookup in each replaces those before. */
typedef struct parts {
    vbm second, third, fourth;
} parts;

/* Entries of a plane of 64, 128 or 256 at 64 codes. */
QEM_INLINE vb plane_lookup(const uint8_t *plane, vb codes, const parts *in, const size_t ld)
{
    vb entries = vb_lookup(vb_load(plane), codes);
    if (ld > 64) entries = vb_lookup_where(in->second, entries, vb_load(plane + 64), codes);
    if (ld > 128) entries = vb_lookup_where(in->third, entries, vb_load(plane + 128), codes);
    if (ld > 128) entries = vb_lookup_where(in->fourth, entries, vb_load(plane + 192), codes);
    return entries;
}

/* The entries of one group for 64 rows. */
QEM_INLINE void add_entries(const uint8_t *planes, const uint8_t *turned, const size_t ld, vf *sum)
{
    const vb codes = vb_load(turned);
    parts in = { vb_top_bits(vb_add(codes, codes)), vb_top_bits(codes), 0 };
    in.fourth = vbm_and(in.second, in.third);
    vb byte[FLOAT_BYTES];
    QEM_UNROLL
    for (size_t p = 0; p < FLOAT_BYTES; p++) byte[p] = plane_lookup(planes + p * ld, codes, &in, ld);
    const vb even01 = vb_bytes_even(byte[0], byte[1]), odd01 = vb_bytes_odd(byte[0], byte[1]);
    const vb even23 = vb_bytes_even(byte[2], byte[3]), odd23 = vb_bytes_odd(byte[2], byte[3]);
    sum[0] = vf_add(sum[0], vi_float(vb_zip_pairs_low(even01, even23)));
    sum[1] = vf_add(sum[1], vi_float(vb_zip_pairs_high(even01, even23)));
    sum[2] = vf_add(sum[2], vi_float(vb_zip_pairs_low(odd01, odd23)));
    sum[3] = vf_add(sum[3], vi_float(vb_zip_pairs_high(odd01, odd23)));
}

QEM_INLINE void block_sums(const uint8_t *planes, const uint8_t *turned, size_t groups, const size_t ld, float *totals,
                           uintptr_t ahead, size_t step)
{
    vf sum[QEM_TABLE_LANES][QUARTERS];
    QEM_UNROLL
    for (int l = 0; l < QEM_TABLE_LANES; l++) {
        QEM_UNROLL
        for (int i = 0; i < QUARTERS; i++) sum[l][i] = vf_set1(0.0f);
    }
    for (size_t g = 0; g < groups; g += QEM_TABLE_LANES, planes += QEM_TABLE_LANES * FLOAT_BYTES * ld) {
        QEM_UNROLL
        for (size_t l = 0; l < QEM_TABLE_LANES; l++)
            if (g + l < groups) {
                prefetch2((const void *)(ahead + (g + l) * step));
                add_entries(planes + l * FLOAT_BYTES * ld, turned + (g + l) * QEM_TURNED_ROWS, ld, sum[l]);
            }
    }
    QEM_UNROLL
    for (int i = 0; i < QUARTERS; i++) {
        const vf block = vf_add(vf_add(sum[0][i], sum[2][i]), vf_add(sum[1][i], sum[3][i]));
        vf_store(totals + i * LANES, vf_add(vf_load(totals + i * LANES), block));
    }
}

QEM_INLINE void plane_blocks(const uint8_t *planes, const size_t ld, const uint8_t *turned, size_t blocks, size_t groups,
                             float *totals, uintptr_t ahead, size_t step)
{
    for (size_t b = 0; b < blocks; b++, ahead += groups * step)
        block_sums(planes, turned + b * QEM_TURNED_BYTES, groups, ld, totals + b * QEM_TURNED_ROWS, ahead, step);
}

static void QEM_SIMD(plane_sums)(const uint8_t *planes, size_t ld, const uint8_t *turned, size_t blocks, size_t groups,
                                 float *totals, uintptr_t ahead, size_t step)
{
    switch (ld) {
    case 64: plane_blocks(planes, 64, turned, blocks, groups, totals, ahead, step); break;
    case 128: plane_blocks(planes, 128, turned, blocks, groups, totals, ahead, step); break;
    case 256: plane_blocks(planes, 256, turned, blocks, groups, totals, ahead, step); break;
    default: break;
    }
}
