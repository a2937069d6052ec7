/*
 * Products by tables of partial sums: with a codebook for each group, x_g . c_gj is one of k numbers, made once for all rows.
 * Sums take rows in pieces whose codes stay in the L2 cache, and groups in tiles whose tables stay in the L1 cache. Where the
 * CPU looks up bytes, tables of at most 256 entries are cut into bytes, and 64 rows are summed at a time; the same bits.
 */
#include <string.h>

#include "matmul.h"
#include "parallel.h"

#define TILE_BYTES 32768u                 /* tables of a tile */
#define CODES_BYTES ((uint64_t)1 << 18)   /* codes of a piece */
#define MOST_PIECE 512
#define LEAST_PIECE 16
#define BUILD_FLOATS 16384u               /* of codebooks, a piece of work */
#define MOST_PLANE_BITS 8                 /* of codes, to be looked up by bytes */
#define MOST_PLANE_ENTRIES 256
#define MOST_PLANE_PIECE 256              /* a block of groups of it, turned, stays in the L1 cache beside the tables */

static uint64_t unpacked_groups(const qem_decode_stage *stage)
{
    return qem_round_up(stage->groups, 16) + 16;
}

/* Rows of W at once: multiples of `unit` whose codes of `row` bytes fit, and several pieces a thread. */
static uint64_t piece_rows(const qem_matmul_args *args, const qem_product_plan *plan, uint64_t row, uint64_t unit)
{
    const uint64_t share = qem_round_up(qem_product_rows(args) / (4 * (uint64_t)plan->threads) + 1, unit);
    uint64_t rows = qem_round_up(CODES_BYTES / row + 1, unit);
    if (rows > MOST_PIECE) rows = MOST_PIECE;
    return rows < share ? rows : share;
}

/* Entries of a table with room up to 64, 128 or 256. */
static uint64_t plane_ld(uint64_t k)
{
    return k <= 64 ? 64 : k <= 128 ? 128 : MOST_PLANE_ENTRIES;
}

/* Turned codes of a piece. */
static uint64_t turned_bytes(const qem_product_plan *plan)
{
    return plan->piece_rows / QEM_TURNED_ROWS * (QEM_TURNED_GROUPS / QEM_TABLE_BLOCK) * QEM_TURNED_BYTES;
}

uint64_t qem_product_plan_tables(const qem_matmul_args *args, const qem_product_kernels *kernels, qem_product_plan *plan)
{
    const qem_decode_stage *s = &args->stages[0];
    plan->planes = kernels->plane_sums && s->code_bits <= MOST_PLANE_BITS;
    plan->in_place = !plan->planes && s->code_bits <= 8 && s->groups * s->code_bits % 8 == 0;
    if (plan->planes) {
        plan->table_ld = plane_ld(s->k);
        plan->table_tile = QEM_TABLE_BLOCK;
        plan->piece_rows = piece_rows(args, plan, s->groups * s->code_bits / 8 + 1, QEM_TURNED_ROWS);
        if (plan->piece_rows > MOST_PLANE_PIECE) plan->piece_rows = MOST_PLANE_PIECE;
        plan->scratch_bytes = turned_bytes(plan) +
                              plan->piece_rows * plan->batch_step * sizeof(float);
        return plan->batch_step * s->groups * plan->table_ld * sizeof(float);
    }
    plan->table_ld = qem_round_up(s->k, 16);
    plan->table_tile = TILE_BYTES / (plan->table_ld * sizeof(float)) / QEM_TABLE_BLOCK * QEM_TABLE_BLOCK;
    if (plan->table_tile < QEM_TABLE_BLOCK) plan->table_tile = QEM_TABLE_BLOCK;
    const uint64_t row = plan->in_place ? s->groups * s->code_bits / 8 + 1 : unpacked_groups(s) * sizeof(uint32_t);
    plan->piece_rows = piece_rows(args, plan, row, LEAST_PIECE);
    plan->scratch_bytes = plan->piece_rows * plan->batch_step * sizeof(float) + (plan->in_place ? 0 : plan->piece_rows * row);
    return plan->batch_step * s->groups * plan->table_ld * sizeof(float);
}

static float *tables_of(const qem_product_job *job, uint64_t b)
{
    return (float *)qem_product_part(job, job->plan.tables_at) + b * job->args->stages[0].groups * job->plan.table_ld;
}

static uint32_t width_of(const qem_product_job *job, uint64_t g)
{
    const qem_decode_stage *s = &job->args->stages[0];
    const uint64_t left = job->args->cols - g * s->dim;
    return left < s->dim ? (uint32_t)left : s->dim;
}

/* A codebook often takes a page of memory, and the hardware fetches ahead only inside of one. */
static void fetch_codebook(const qem_product_job *job, uint64_t g)
{
    const qem_decode_stage *s = &job->args->stages[0];
    const uint64_t floats = s->k * width_of(job, g);
    for (uint64_t i = 0; i < floats; i += 16) __builtin_prefetch(s->codebook + g * s->k * s->dim + i, 0, 2);
}

/* Tables of groups, as floats or cut into bytes. */
static void build(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const qem_product_job *job = argument;
    const qem_product_kernels *kernels = &job->kernels->product;
    const qem_decode_stage *s = &job->args->stages[0];
    const uint64_t ld = job->plan.table_ld;
    (void)thread;
    for (uint64_t g = begin; g < end; g++) {
        if (g + 1 < end) fetch_codebook(job, g + 1);
        for (uint64_t b = 0; b < job->batch; b++) {
            float whole[MOST_PLANE_ENTRIES], *table = tables_of(job, b) + g * ld;
            kernels->build_table(job->x + b * job->ldx + g * s->dim, s->codebook + g * s->k * s->dim, width_of(job, g),
                                 (size_t)s->k, job->plan.planes ? whole : table);
            if (!job->plan.planes) continue;
            for (uint64_t j = s->k; j < ld; j++) whole[j] = 0.0f;
            kernels->split_table(whole, (size_t)ld, (uint8_t *)table);
        }
    }
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

/* Sums of a piece of rows from `row` on, a block of groups at a time. The codes of the piece `next`, which this thread takes
 * after it, are fetched meanwhile, one after the other: row by row they would need a new page of memory every few bytes. */
static void sum_planes(qem_product_job *job, uint64_t row, uint64_t next, uint32_t thread)
{
    const qem_product_plan *plan = &job->plan;
    const qem_product_kernels *kernels = &job->kernels->product;
    const qem_decode_stage *s = &job->args->stages[0];
    const uint64_t left = qem_product_rows(job->args) - row, rows = left < plan->piece_rows ? left : plan->piece_rows;
    const uint64_t blocks = (rows + QEM_TURNED_ROWS - 1) / QEM_TURNED_ROWS, row_bits = s->groups * s->code_bits;
    const uint64_t first_bit = qem_product_stage_row(job, row) * row_bits;
    uint8_t *turned = qem_product_scratch(job, thread);
    float *totals = (float *)(turned + turned_bytes(plan));
    const int last = next >= qem_product_rows(job->args);
    const uint64_t step = last ? 0 : QEM_TURNED_ROWS * s->code_bits / 8 / job->batch; /* for a group of a block */
    uintptr_t ahead = (uintptr_t)s->codes + (last ? 0 : qem_product_stage_row(job, next) * row_bits / 8);
    memset(totals, 0, (size_t)(plan->piece_rows * job->batch) * sizeof(float));
    for (uint64_t g = 0; g < s->groups; g += QEM_TABLE_BLOCK) {
        const uint64_t count = s->groups - g < QEM_TABLE_BLOCK ? s->groups - g : QEM_TABLE_BLOCK;
        const uint64_t second = g % QEM_TURNED_GROUPS / QEM_TABLE_BLOCK;
        if (!second)
            kernels->turn_codes(s->codes, first_bit + g * s->code_bits, row_bits, s->code_bits, (size_t)rows,
                                (size_t)(s->groups - g < QEM_TURNED_GROUPS ? s->groups - g : QEM_TURNED_GROUPS), turned);
        for (uint64_t b = 0; b < job->batch; b++, ahead += blocks * count * step)
            kernels->plane_sums((const uint8_t *)(tables_of(job, b) + g * plan->table_ld), (size_t)plan->table_ld,
                                turned + second * blocks * QEM_TURNED_BYTES, (size_t)blocks, (size_t)count, totals + b * plan->piece_rows, ahead,
                                (size_t)step);
    }
    qem_product_store(job, row, rows, totals, plan->piece_rows);
}

/* Takes pieces as long as there are any, each one before the last is done: its codes are fetched meanwhile. */
static void take_pieces(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_product_job *job = argument;
    const uint64_t rows = qem_product_rows(job->args), piece = job->plan.piece_rows;
    (void)begin;
    (void)end;
    for (uint64_t row = atomic_fetch_add_explicit(&job->taken, piece, memory_order_relaxed); row < rows;) {
        const uint64_t next = atomic_fetch_add_explicit(&job->taken, piece, memory_order_relaxed);
        sum_planes(job, row, next, thread);
        row = next;
    }
}

void qem_product_run_tables(qem_product_job *job)
{
    const qem_decode_stage *s = &job->args->stages[0];
    const uint64_t rows = qem_product_rows(job->args);
    qem_parallel_for(job->plan.threads, s->groups, BUILD_FLOATS / (s->k * s->dim) + 1, build, job);
    if (!job->plan.planes) {
        qem_parallel_for(job->plan.threads, rows, job->plan.piece_rows, sum, job);
        return;
    }
    atomic_store_explicit(&job->taken, 0, memory_order_relaxed);
    qem_parallel_for(job->plan.threads, job->plan.threads, 1, take_pieces, job);
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
