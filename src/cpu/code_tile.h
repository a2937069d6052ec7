/* A rectangle of codes that decode_tile() turns into floats. */
#ifndef QEM_CPU_CODE_TILE_H
#define QEM_CPU_CODE_TILE_H

#include <stddef.h>
#include <stdint.h>

/* A line of the caches, the unit of streaming stores, and the bytes from p to the next one. */
#define QEM_LINE 64
static inline size_t qem_bytes_to_line(const void *p)
{
    return (QEM_LINE - (uintptr_t)p % QEM_LINE) % QEM_LINE;
}

/*
 * Code (row, group) lies at bit first_bit + row * row_bits + group * bits of the stream, which 16 readable bytes follow. Its
 * entry begins at element group * group_stride + code * dim of the codebook (group_stride 0: one codebook for all groups) and
 * goes to out[row * row_stride + group * dim ..]; nothing else is written. bits 0: every code is 0 and the stream is not read.
 */
typedef struct qem_code_tile {
    const uint8_t *stream;
    uint64_t first_bit, row_bits;
    uint32_t bits, dim;    /* 0 .. 24; >= 1 */
    const float *codebook;
    const uint16_t *half;  /* the same codebook in f16, or NULL; read in its place, for it takes half the room in the caches */
    uint64_t k;            /* entries of a group, 1 .. 2^24 */
    size_t group_stride;
    size_t rows, groups;
    float *out;
    size_t row_stride;
    int streaming;         /* whole lines of 64 bytes go past the caches: only where qem_can_stream */
} qem_code_tile;

/* Whether decode_tile() may stream entries of `dim` floats to rows at `out`, out + row_stride, ...: entries never lie across
 * the end of a line. */
static inline int qem_can_stream(uint32_t dim, const void *out, size_t row_stride)
{
    const size_t bytes = dim * sizeof(float);
    return (dim == 1 || dim == 2 || dim == 4 || dim == 8) && (uintptr_t)out % bytes == 0 && row_stride % dim == 0;
}

#endif
