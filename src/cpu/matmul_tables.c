/*
 * Products by tables of partial sums: with a codebook for each group, x_g . c_gj is one of k numbers, made once for all rows.
 * Sums take rows in pieces whose codes stay in the L2 cache, and groups in tiles whose tables stay in the L1 cache.
 */
#include <string.h>

#include "matmul.h"
#include "parallel.h"

#define TILE_BYTES 32768u                 /* tables of a tile */
#define CODES_BYTES ((uint64_t)1 << 18)   /* codes of a piece */
#define MOST_PIECE 512
#define LEAST_PIECE 16
#define BUILD_FLOATS 16384u               /* of codebooks, a piece of work */

static uint64_t unpacked_groups(const qem_decode_stage *stage)
{
    return qem_round_up(stage->groups, 16) + 16;
}

uint64_t qem_product_plan_tables(const qem_matmul_args *args, qem_product_plan *plan)
{
    const qem_decode_stage *s = &args->stages[0];
    plan->in_place = s->code_bits <= 8 && s->groups * s->code_bits % 8 == 0;
    plan->table_ld = qem_round_up(s->k, 16);
    plan->table_tile = TILE_BYTES / (plan->table_ld * sizeof(float)) / QEM_TABLE_BLOCK * QEM_TABLE_BLOCK;
    if (plan->table_tile < QEM_TABLE_BLOCK) plan->table_tile = QEM_TABLE_BLOCK;
    const uint64_t row = plan->in_place ? s->groups * s->code_bits / 8 + 1 : unpacked_groups(s) * sizeof(uint32_t);
    const uint64_t share = qem_round_up(qem_product_rows(args) / (4 * (uint64_t)plan->threads) + 1, LEAST_PIECE);
    plan->piece_rows = qem_round_up(CODES_BYTES / row + 1, LEAST_PIECE);
    if (plan->piece_rows > MOST_PIECE) plan->piece_rows = MOST_PIECE;
    if (plan->piece_rows > share) plan->piece_rows = share;
    plan->scratch_bytes = plan->piece_rows * plan->batch_step * sizeof(float) + (plan->in_place ? 0 : plan->piece_rows * row);
    return plan->batch_step * s->groups * plan->table_ld * sizeof(float);
}

static float *tables_of(const qem_product_job *job, uint64_t b)
{
    return (float *)qem_product_part(job, job->plan.tables_at) + b * job->args->stages[0].groups * job->plan.table_ld;
}

static void build(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const qem_product_job *job = argument;
    const qem_decode_stage *s = &job->args->stages[0];
    const uint32_t tail = (uint32_t)(job->args->cols % s->dim);
    (void)thread;
    for (uint64_t g = begin; g < end; g++)
        for (uint64_t b = 0; b < job->batch; b++)
            job->kernels->product.build_table(job->x + b * job->ldx + g * s->dim, s->codebook + g * s->k * s->dim,
                                              tail && g + 1 == s->groups ? tail : s->dim, (size_t)s->k,
                                              tables_of(job, b) + g * job->plan.table_ld);
}

typedef struct code_rows {
    const uint8_t *codes;
    size_t row_bytes;
    uint32_t bits; /* as the kernel reads them */
} code_rows;

static code_rows place_codes(const qem_product_job *job, uint64_t row, uint64_t rows, uint32_t *unpacked)
{
    const qem_decode_stage *s = &job->args->stages[0];
    row = qem_product_stage_row(job, row);
    if (job->plan.in_place) {
        const size_t row_bytes = (size_t)(s->groups * s->code_bits / 8);
        return (code_rows){ s->codes + row * row_bytes, row_bytes, s->code_bits };
    }
    const uint64_t ld = unpacked_groups(s);
    for (uint64_t r = 0; r < rows; r++)
        job->kernels->unpack(s->codes, (row + r) * s->groups * s->code_bits, (size_t)s->groups, s->code_bits,
                             unpacked + r * ld);
    return (code_rows){ (const uint8_t *)unpacked, (size_t)ld * sizeof(uint32_t), 32 };
}

/* Codes of the piece that this thread will probably take next, or NULL: read a few bytes of each row at a time, they would
 * come too late if the hardware were left to fetch them. */
static const uint8_t *next_codes(const qem_product_job *job, uint64_t begin, size_t row_bytes)
{
    const uint64_t next = begin + job->plan.threads * job->plan.piece_rows;
    if (!job->plan.in_place || next + job->plan.piece_rows > qem_product_rows(job->args)) return NULL;
    return job->args->stages[0].codes + qem_product_stage_row(job, next) * row_bytes;
}

static void sum(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_product_job *job = argument;
    const qem_product_plan *plan = &job->plan;
    const uint64_t groups = job->args->stages[0].groups, rows = end - begin;
    float *totals = qem_product_scratch(job, thread);
    const code_rows codes = place_codes(job, begin, rows, (uint32_t *)(totals + plan->piece_rows * plan->batch_step));
    const uint8_t *ahead = next_codes(job, begin, codes.row_bytes);
    memset(totals, 0, (size_t)(plan->piece_rows * job->batch) * sizeof(float));
    for (uint64_t b = 0; b < job->batch; b++) {
        for (uint64_t g = 0; g < groups; g += plan->table_tile) {
            const uint64_t count = groups - g < plan->table_tile ? groups - g : plan->table_tile;
            job->kernels->product.table_sums(tables_of(job, b) + g * plan->table_ld, (size_t)plan->table_ld,
                                             codes.codes + g * codes.bits / 8, codes.row_bytes, codes.bits, (size_t)rows,
                                             (size_t)count, totals + b * plan->piece_rows, ahead);
            if (ahead) ahead += rows * count * codes.bits / 8;
        }
        ahead = NULL; /* they are there now */
    }
    qem_product_store(job, begin, rows, totals, plan->piece_rows);
}

void qem_product_run_tables(qem_product_job *job)
{
    const qem_decode_stage *s = &job->args->stages[0];
    qem_parallel_for(job->plan.threads, s->groups, BUILD_FLOATS / (s->k * s->dim) + 1, build, job);
    qem_parallel_for(job->plan.threads, qem_product_rows(job->args), job->plan.piece_rows, sum, job);
}

/* ---- 16 rows of x at a time ----
 * Tables are 16 times as large, so each thread makes those of one block of groups, takes all its rows through them, and goes
 * on to the next block. */

#define WIDTH 16
#define LEAST_ROWS16 512 /* of a piece, to pay for tables of its own */
#define MOST_ROWS16 4096

typedef struct scratch16 {
    float *tables, *x16, *totals, *column;
    uint32_t *codes;
} scratch16;

void qem_product_plan_tables16(const qem_matmul_args *args, qem_product_plan *plan)
{
    const qem_decode_stage *s = &args->stages[0];
    const uint64_t share = qem_round_up(qem_product_rows(args) / (2 * (uint64_t)plan->threads) + 1, LEAST_PIECE);
    plan->in_place = s->code_bits <= 8 && s->groups * s->code_bits % 8 == 0;
    plan->table_ld = s->k;
    plan->table_tile = QEM_TABLE_BLOCK;
    plan->piece_rows = share < LEAST_ROWS16 ? LEAST_ROWS16 : share > MOST_ROWS16 ? MOST_ROWS16 : share;
    plan->scratch_bytes = (QEM_TABLE_BLOCK * s->k * WIDTH + s->dim * WIDTH + plan->piece_rows * WIDTH +
                           WIDTH * plan->piece_rows) * sizeof(float) +
                          (plan->in_place ? 0 : plan->piece_rows * QEM_TABLE_BLOCK * sizeof(uint32_t) + 64);
}

static scratch16 scratch16_of(const qem_product_job *job, uint32_t thread)
{
    const qem_decode_stage *stage = &job->args->stages[0];
    scratch16 s;
    s.tables = qem_product_scratch(job, thread);
    s.x16 = s.tables + QEM_TABLE_BLOCK * stage->k * WIDTH;
    s.totals = s.x16 + stage->dim * WIDTH;
    s.column = s.totals + job->plan.piece_rows * WIDTH;
    s.codes = (uint32_t *)(s.column + WIDTH * job->plan.piece_rows);
    return s;
}

/* Tables of groups first .. last-1; rows of x that are not there count as 0. */
static void build16(const qem_product_job *job, uint64_t first, uint64_t last, const scratch16 *s)
{
    const qem_decode_stage *stage = &job->args->stages[0];
    for (uint64_t g = first; g < last; g++) {
        const uint64_t column = g * stage->dim, left = job->args->cols - column;
        const uint32_t width = left < stage->dim ? (uint32_t)left : stage->dim;
        for (uint32_t p = 0; p < width; p++)
            for (uint64_t b = 0; b < WIDTH; b++)
                s->x16[p * WIDTH + b] = b < job->batch ? job->x[b * job->ldx + column + p] : 0.0f;
        job->kernels->product.build_table16(s->x16, stage->codebook + g * stage->k * stage->dim, width, (size_t)stage->k,
                                            s->tables + (g - first) * stage->k * WIDTH);
    }
}

static code_rows block_codes(const qem_product_job *job, uint64_t row, uint64_t rows, uint64_t first, uint64_t count,
                             uint32_t *unpacked)
{
    const qem_decode_stage *stage = &job->args->stages[0];
    row = qem_product_stage_row(job, row);
    if (job->plan.in_place) {
        const size_t row_bytes = (size_t)(stage->groups * stage->code_bits / 8);
        return (code_rows){ stage->codes + row * row_bytes + first * stage->code_bits / 8, row_bytes, stage->code_bits };
    }
    for (uint64_t r = 0; r < rows; r++)
        job->kernels->unpack(stage->codes, ((row + r) * stage->groups + first) * stage->code_bits, (size_t)count,
                             stage->code_bits, unpacked + r * QEM_TABLE_BLOCK);
    return (code_rows){ (const uint8_t *)unpacked, QEM_TABLE_BLOCK * sizeof(uint32_t), 32 };
}

static void sum16(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_product_job *job = argument;
    const uint64_t groups = job->args->stages[0].groups, rows = end - begin;
    const scratch16 s = scratch16_of(job, thread);
    memset(s.totals, 0, (size_t)(rows * WIDTH) * sizeof(float));
    for (uint64_t g = 0; g < groups; g += QEM_TABLE_BLOCK) {
        const uint64_t count = groups - g < QEM_TABLE_BLOCK ? groups - g : QEM_TABLE_BLOCK;
        build16(job, g, g + count, &s);
        const code_rows codes = block_codes(job, begin, rows, g, count, s.codes);
        job->kernels->product.table_sums16(s.tables, (size_t)job->plan.table_ld, codes.codes, codes.row_bytes, codes.bits,
                                           (size_t)rows, (size_t)count, s.totals);
    }
    for (uint64_t b = 0; b < job->batch; b++)
        for (uint64_t r = 0; r < rows; r++) s.column[b * job->plan.piece_rows + r] = s.totals[r * WIDTH + b];
    qem_product_store(job, begin, rows, s.column, job->plan.piece_rows);
}

void qem_product_run_tables16(qem_product_job *job)
{
    qem_parallel_for(job->plan.threads, qem_product_rows(job->args), job->plan.piece_rows, sum16, job);
}
