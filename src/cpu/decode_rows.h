/* Whole rows of any artifact as floats, for the decoder (decode.c) and the products (matmul_rows.c). */
#ifndef QEM_CPU_DECODE_ROWS_H
#define QEM_CPU_DECODE_ROWS_H

#include "decode.h"
#include "swap.h"

/* Adjoining groups whose codes are of one width, so that they make a tile. */
typedef struct qem_width_run {
    uint64_t column, first_bit, entry; /* of the row; of its codes; float of the codebook */
    size_t groups;
    uint32_t bits, dim;                /* dim: a tail group is a run of its own with fewer positions */
} qem_width_run;

typedef struct qem_row_stage {
    qem_swap_tree *tree;       /* with swap levels */
    qem_width_run *runs;       /* with group_bits */
    uint64_t run_count, row_bits;
    uint64_t cell_floats;      /* from one cell's codebooks to the next one's */
} qem_row_stage;

/* What is the same for all rows of a call. */
typedef struct qem_row_decoder {
    const qem_cpu_kernels *kernels;
    uint64_t cols;
    uint32_t stage_count;
    const qem_decode_stage *stages;
    qem_decode_outliers outliers;
    uint64_t block;            /* the most rows of a call */
    size_t pitch;              /* a good distance of the rows decoded to, in floats */
    uint64_t shared_bytes;     /* of memory that all threads read */
    uint64_t scratch_bytes;    /* of each thread, a multiple of 64 */
    uint64_t most_cells;
    qem_row_stage stage[QEM_MOST_STAGES];
} qem_row_decoder;

/* Whether rows of a stage can only be decoded whole. */
static inline int qem_whole_rows_only(const qem_decode_stage *stage)
{
    return stage->levels > 0 || stage->cells > 0 || stage->group_bits != NULL;
}

/* Sizes alone. */
void qem_row_decoder_plan(qem_row_decoder *decoder, uint64_t cols, const qem_decode_stage *stages, uint32_t stage_count,
                          const qem_decode_outliers *outliers);
/* shared: shared_bytes bytes aligned to 64, filled here. */
void qem_row_decoder_prepare(qem_row_decoder *decoder, const qem_cpu_kernels *kernels, void *shared);

/* Rows row .. row + rows - 1 of the artifact, at most `block`, outliers included, to out[r * ld ..]; ld >= cols. `outlier`: a
 * place in the outliers near those of the row, any number at first. */
void qem_row_decoder_run(const qem_row_decoder *decoder, uint64_t row, uint64_t rows, void *scratch, float *out, size_t ld,
                         uint64_t *outlier);

#endif
