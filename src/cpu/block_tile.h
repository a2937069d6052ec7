/* Scalar codes and the scales of their blocks, as decode_blocks() takes them in one pass. */
#ifndef QEM_CPU_BLOCK_TILE_H
#define QEM_CPU_BLOCK_TILE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Code (row, j) lies at bit first_bit + row * row_bits + j * bits of the stream, which 16 readable bytes follow; bits 1 .. 24.
 * out[row * row_stride + j] = fmaf(level of the code, scale[u], mean[u]) with u = row * unit_stride + (j >> block_shift); where
 * `columns`, x then becomes fmaf(x, column_scale[j], column_mean[j]). A table that is NULL stands for ones or zeros.
 */
typedef struct qem_block_tile {
    const uint8_t *stream;
    uint64_t first_bit, row_bits;
    uint32_t bits;
    uint32_t block_shift;      /* blocks of 8 columns at least: 3 .. 63 */
    const float *codebook;
    uint64_t k;
    int integers;              /* level j is j */
    size_t rows, width;
    const float *scale, *mean;
    size_t unit_stride;
    int columns;
    const float *column_scale, *column_mean;
    float *out;
    size_t row_stride;
    int streaming;             /* past the caches: only where every row begins with a line */
} qem_block_tile;

#endif
