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

/* The tile of one whole row of a stage, without the place it is decoded to; other rows and groups follow from it. */
qem_code_tile qem_row_tile(const qem_decode_stage *stage, uint64_t cols, uint64_t row);

/* The floats of row `row`'s tail group (cols % dim of them), NULL if there is none. */
const float *qem_row_tail(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row);

/* Decodes an artifact of one stage without swaps. */
qem_status qem_decode_tiles(qem_context *context, const qem_decode_args *args);

/* Decodes artifacts with swaps or several stages; strips: from qem_decode_strip_count, which returns 0 where decoding by rows
 * is the only way, or as fast. */
uint64_t qem_decode_strip_count(const qem_decode_args *args);
qem_status qem_decode_strips(qem_context *context, const qem_decode_args *args, uint64_t strips);

#endif
