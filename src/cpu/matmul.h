/* Products on codes: what the orchestration (matmul.c) and its three ways share. The order of the sums: products.h. */
#ifndef QEM_CPU_MATMUL_H
#define QEM_CPU_MATMUL_H

#include <stdatomic.h>

#include "cpu.h"
#include "decode_rows.h"
#include "kernels.h"

typedef enum qem_product_way {
    QEM_PRODUCT_ROWS = 0,  /* any artifact: rows are decoded to scratch, then multiplied (matmul_rows.c) */
    QEM_PRODUCT_CODED = 1, /* codes are decoded in registers, the weights never stored (matmul_rows.c) */
    QEM_PRODUCT_TABLES = 2,  /* tables of x_g . c_gj, one entry added for a code (matmul_tables.c) */
    QEM_PRODUCT_TABLES16 = 3 /* the same for 16 rows of x at a time (matmul_tables.c) */
} qem_product_way;

typedef struct qem_product_plan {
    qem_product_way way;
    qem_coded_kind kind;            /* CODED */
    uint32_t threads;
    uint64_t batch_step;            /* rows of x at once */
    uint64_t piece_rows;            /* rows of W a thread takes at once */
    uint64_t pass_rows;             /* ROWS: of those, rows that go through a block of columns before the next block */
    uint64_t tile_rows, span, ld;   /* ROWS: rows and columns decoded at once; floats from row to row */
    int in_place;                   /* TABLES, TABLES16: the kernel reads the code stream itself, else unpacked codes */
    int whole;                      /* ROWS: rows are decoded whole, by `decoder` */
    int by_blocks;                  /* ROWS: decode_blocks() decodes them */
    int planes;                     /* TABLES: tables are cut into bytes */
    uint64_t table_ld, table_tile;  /* TABLES: floats of a table, groups whose tables stay in the L1 cache */
    uint64_t shared_at, x_at, tables_at, scratch_at, scratch_bytes, bytes; /* parts of the workspace, in bytes */
} qem_product_plan;

typedef struct qem_product_job {
    const qem_cpu_kernels *kernels;
    const qem_matmul_args *args;
    qem_product_plan plan;
    qem_row_decoder decoder; /* ROWS, where plan.whole */
    qem_block_tile blocks;   /* ROWS, where plan.by_blocks: from row row_begin on */
    const float *x; /* the rows now at work, as f32 */
    uint64_t ldx, first, batch;
    _Atomic uint64_t taken; /* TABLES, where plan.planes: rows of W that threads have taken */
    _Atomic int overflow;
} qem_product_job;

/* Rows of W that the call multiplies; they are counted from its first one. */
static inline uint64_t qem_product_rows(const qem_matmul_args *args)
{
    return args->row_end - args->row_begin;
}

/* Row `row` of the call in the rows that a stage has codes for. */
static inline uint64_t qem_product_stage_row(const qem_product_job *job, uint64_t row)
{
    return job->args->row_begin + row - job->args->stages[0].row_begin;
}

static inline void *qem_product_part(const qem_product_job *job, uint64_t at)
{
    return (unsigned char *)job->args->workspace + at;
}

static inline void *qem_product_scratch(const qem_product_job *job, uint32_t thread)
{
    return qem_product_part(job, job->plan.scratch_at + thread * job->plan.scratch_bytes);
}

/* Sizes of the way's own scratch: sets tables_at's length as return value and plan->scratch_bytes. */
void qem_product_plan_rows(const qem_matmul_args *args, qem_product_plan *plan, qem_row_decoder *decoder);
void qem_product_plan_coded(const qem_matmul_args *args, qem_product_plan *plan);
uint64_t qem_product_plan_tables(const qem_matmul_args *args, const qem_product_kernels *kernels, qem_product_plan *plan);
void qem_product_plan_tables16(const qem_matmul_args *args, qem_product_plan *plan);

/* y for the rows of x now at work. */
void qem_product_run_rows(qem_product_job *job);
void qem_product_run_coded(qem_product_job *job);
void qem_product_run_tables(qem_product_job *job);
void qem_product_run_tables16(qem_product_job *job);

/* Stores totals[b * ldt + r] as y[first + b][row + r], r < rows. */
void qem_product_store(qem_product_job *job, uint64_t row, uint64_t rows, float *totals, uint64_t ldt);

#endif
