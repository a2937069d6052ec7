/*
 * The inner loops of products on codes, in scalar C (matmul_scalar.c, the definition), AVX2 and AVX-512. How a sum is made,
 * the same in every variant, for any number of threads and any partition of the work:
 *
 *   The terms of an output are taken in blocks. Inside a block term t belongs to lane t % lanes; a lane starts at +0 and takes
 *   its terms in ascending order. The lanes are added by halves: lane l and l + lanes/2, then l and l + lanes/4, down to one.
 *   The output starts at +0 and adds the blocks in ascending order.
 *
 * "Dot" kernels have one term a column, lane = fmaf(w, x, lane). "Table" kernels have one term a group, lane = lane + entry.
 * Inputs may hold infinities and NaN; which NaN results is not defined here (the caller makes them one).
 */
#ifndef QEM_CPU_PRODUCTS_H
#define QEM_CPU_PRODUCTS_H

#include <stddef.h>
#include <stdint.h>

#define QEM_SUM_BLOCK 1024 /* columns */
#define QEM_SUM_LANES 16
#define QEM_TABLE_BLOCK 32 /* groups: with 256 entries their tables take 32 KiB of the L1 cache */
#define QEM_TABLE_LANES 4
#define QEM_TURNED_ROWS 64 /* rows whose codes of one group lie side by side */
#define QEM_TURNED_GROUPS (2 * QEM_TABLE_BLOCK) /* at once: of codes of 8 bits a cache line of each row */
#define QEM_TURNED_BYTES (QEM_TURNED_ROWS * QEM_TABLE_BLOCK)

/* Codes that a kernel decodes in registers, without storing the weights. */
typedef enum qem_coded_kind {
    QEM_CODED_NONE = 0,
    QEM_CODED_TABLE = 1,   /* one code a column of 1 .. 4 bits, table of 16 floats: entry j is level j % 2^bits */
    QEM_CODED_TABLE8 = 2,  /* one code a column of 8 bits, table of levels */
    QEM_CODED_UNIFORM8 = 3,/* one code a column of 8 bits, level = fmaf(code, scale, mean) */
    QEM_CODED_QUADS = 4    /* one uint32_t for 4 columns, table of entries of 4 floats */
} qem_coded_kind;

/* Rows of codes from a column on that is a multiple of 16: row r begins at codes + r * row_bytes. 16 readable bytes follow. */
typedef struct qem_coded {
    qem_coded_kind kind;
    uint32_t bits; /* QEM_CODED_TABLE */
    const uint8_t *codes;
    size_t row_bytes;
    const float *table;
    float scale, mean;
} qem_coded;

typedef struct qem_product_kernels {
    /* totals[b * ldt + r] += the block of n <= QEM_SUM_BLOCK terms w[r * ldw + j] * x[b * ldx + j]. */
    void (*dot)(const float *w, size_t ldw, size_t rows, const float *x, size_t ldx, size_t batch, size_t n, float *totals,
                size_t ldt);

    /* The same with weights that are decoded on the way; equal to dot() on the decoded rows bit for bit. */
    void (*dot_coded)(const qem_coded *w, size_t rows, const float *x, size_t ldx, size_t batch, size_t n, float *totals,
                      size_t ldt);

    /* table[j] = fmaf chain of x[p] * entries[j * width + p], p ascending from +0, for j < k. */
    void (*build_table)(const float *x, const float *entries, uint32_t width, size_t k, float *table);

    /* totals[r] += the blocks of terms tables[g * ld + code(r, g)], g = 0 .. groups-1. Codes of `bits` bits, 1 .. 8, as a stream
     * from byte codes + r * row_bytes on (16 readable bytes follow), or 32: uint32_t there. `ahead`: NULL, or codes that
     * will be wanted soon, of which rows * groups * bits / 8 bytes are fetched into the L2 cache. In plain C on every
     * instruction set: loads of single floats are as fast as gathers. */
    void (*table_sums)(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                       size_t groups, float *totals, const uint8_t *ahead);

    /*
     * The same sums from tables cut into bytes, which 64 rows of W look up at a time: three steps, all NULL where the CPU has
     * no lookup of bytes for it. ld: 64, 128 or 256, entries of a table; bits: 1 .. 8.
     *
     * planes[p * ld + j] = byte p of table[j], j < ld, p < 4. */
    void (*split_table)(const float *table, size_t ld, uint8_t *planes);

    /* Codes of `groups` <= QEM_TURNED_GROUPS by group instead of by row, for plane_sums: code (r, g) is at bit first_bit +
     * r * row_bits + g * bits, with bits 8 at a byte. turned: QEM_TURNED_BYTES for QEM_TURNED_ROWS rows and QEM_TABLE_BLOCK
     * groups, all rows for the first of these blocks of groups, then all for the second. Rows past the last, of which there is at
     * least one, have any code below 2^bits. */
    void (*turn_codes)(const uint8_t *stream, uint64_t first_bit, uint64_t row_bits, uint32_t bits, size_t rows, size_t groups,
                       uint8_t *turned);

    /* totals[r] += the block of terms of `groups` <= QEM_TABLE_BLOCK groups, for whole blocks of QEM_TURNED_ROWS rows, planes of
     * group g at planes + g * 4 * ld. Meanwhile lines that lie `step` bytes apart from `ahead` on, one for each group of each
     * block, are fetched into the L2 cache; they need not be there. */
    void (*plane_sums)(const uint8_t *planes, size_t ld, const uint8_t *turned, size_t blocks, size_t groups, float *totals,
                       uintptr_t ahead, size_t step);

    /* The same for 16 rows of x at a time, x16[p * 16 + b], table[j * 16 + b], totals[r * 16 + b]; ld in entries of 16. */
    void (*build_table16)(const float *x16, const float *entries, uint32_t width, size_t k, float *table);
    void (*table_sums16)(const float *tables, size_t ld, const uint8_t *codes, size_t row_bytes, uint32_t bits, size_t rows,
                         size_t groups, float *totals);
} qem_product_kernels;

/* Each fills in what it does better; scalar first. */
void qem_product_kernels_scalar(qem_product_kernels *kernels);
void qem_product_kernels_avx2(qem_product_kernels *kernels);
void qem_product_kernels_avx512(qem_product_kernels *kernels);
/* On a CPU that has VBMI beside what the level avx512 asks for. */
void qem_product_kernels_vbmi_avx512(qem_product_kernels *kernels);

#endif
