/* What the two ways of decoding share (decode.c says which is taken when). */
#ifndef QEM_CPU_DECODE_H
#define QEM_CPU_DECODE_H

#include "cpu.h"
#include "kernels.h"

/* Outputs of fewer bytes stay in the caches, larger ones are streamed past them; and fewer elements than PARALLEL are done
 * before another thread would have begun. */
#define QEM_DECODE_STREAM_BYTES ((uint64_t)4 << 20)
#define QEM_DECODE_PARALLEL_ELEMENTS ((uint64_t)1 << 16)

/* Groups of a stage that have all `dim` positions: all but a tail group. */
uint64_t qem_whole_groups(const qem_decode_stage *stage, uint64_t cols);

/* The tile of row `row` of the artifact, without the place it is decoded to; other rows and groups follow from it. For codes
 * of one width. */
qem_code_tile qem_row_tile(const qem_decode_stage *stage, uint64_t cols, uint64_t row);

/* Groups first .. last - 1, a tail group too, of rows row .. row + rows - 1 as floats, in the order of the codes. */
void qem_look_up(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row, uint64_t rows,
                 uint64_t first, uint64_t last, float *out, size_t ld);

/* The steps of a stage's layer on columns first .. first + width - 1 of rows row .. row + rows - 1. */
void qem_apply_steps(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row, uint64_t rows,
                     uint64_t first, uint64_t width, float *x, size_t stride);

/* Writes the outliers among elements first .. first + n - 1 of the artifact to x. *at: a place in the index near theirs, any
 * number at first; afterwards where the next ones begin. */
void qem_write_outliers(const qem_decode_outliers *outliers, uint64_t first, uint64_t n, float *x, uint64_t *at);

/* The floats of row `row`'s tail group (cols % dim of them), NULL if there is none. */
const float *qem_row_tail(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row);

/* Decodes an artifact of one stage that is nothing but lookups, steps and outliers. */
qem_status qem_decode_tiles(qem_context *context, const qem_decode_args *args);

/* Decodes such an artifact if its codes are of single columns with one codebook, and its steps a scale of the tensor, of rows
 * or of blocks of a power of two of columns, and then perhaps one of columns. */
int qem_decode_by_blocks(const qem_decode_stage *stage);
qem_status qem_decode_blocks(qem_context *context, const qem_decode_args *args);

/* What decode_blocks() does for such a stage, from row `row` of the artifact on and for all columns, and a part of that: other
 * columns, whole blocks of them or within one, `down` rows further down. Number of rows and output are left to the caller. */
qem_block_tile qem_block_tile_of(const qem_decode_stage *stage, uint64_t cols, uint64_t row);
qem_block_tile qem_block_tile_part(const qem_block_tile *tile, uint64_t down, uint64_t first, uint64_t width);

/* Decodes artifacts with swaps or several stages; strips: from qem_decode_strip_count, which returns 0 where decoding by rows
 * is the only way, or as fast. */
uint64_t qem_decode_strip_count(const qem_decode_args *args);
qem_status qem_decode_strips(qem_context *context, const qem_decode_args *args, uint64_t strips);

#endif
