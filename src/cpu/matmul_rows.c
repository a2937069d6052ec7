/*
 * Products by dot products of decoded rows: of rows in scratch, which any artifact can give, or of codes that the kernel
 * decodes in registers. Both have the same terms in the same order.
 */
#include <string.h>

#include "decode.h"
#include "matmul.h"
#include "parallel.h"

#define WIDEST_BLOCKED_DIM 64          /* wider groups would be decoded again for every block of columns they touch */
#define SLAB_BYTES ((uint64_t)1 << 18) /* decoded rows at once, of the L2 cache */
#define LEAST_PIECE 16                 /* rows; a cache line of y */
#define CODED_ROWS 4                   /* rows of codes that are read side by side */

/* Rows of W a thread takes at once: `most`, fewer where there are few rows for the threads. */
static uint64_t piece_rows(const qem_matmul_args *args, uint32_t threads, uint64_t most)
{
    const uint64_t share = qem_round_up(qem_product_rows(args) / (4 * (uint64_t)threads) + 1, LEAST_PIECE);
    return share < most ? share : most;
}

/* ---- rows in scratch ---- */

typedef struct rows_scratch {
    float *totals, *slab;
    void *decoder; /* its scratch */
    uint64_t outlier;
} rows_scratch;

/* Whole rows where a row cannot be decoded in part. */
static int needs_whole_rows(const qem_matmul_args *args)
{
    const qem_decode_stage *stage = &args->stages[0];
    return args->stage_count > 1 || qem_whole_rows_only(stage) || stage->dim > WIDEST_BLOCKED_DIM;
}

void qem_product_plan_rows(const qem_matmul_args *args, qem_product_plan *plan, qem_row_decoder *decoder)
{
    const int per_group = args->stages[0].kind == QEM_CODEBOOK_PER_GROUP;
    const int whole = needs_whole_rows(args);
    plan->whole = whole;
    plan->by_blocks = !whole && qem_decode_by_blocks(args->stages);
    if (whole) qem_row_decoder_plan(decoder, args->cols, args->stages, args->stage_count, &args->outliers);
    plan->span = whole || args->cols < QEM_SUM_BLOCK ? args->cols : QEM_SUM_BLOCK;
    plan->ld = qem_round_up(plan->span + (whole ? 0 : 2 * args->stages[0].dim), 16) + 16; /* not a power of two */
    plan->tile_rows = SLAB_BYTES / (plan->ld * sizeof(float)) / 4 * 4;
    if (plan->tile_rows < 4) plan->tile_rows = 4;
    const uint64_t most = plan->batch_step <= 8 ? 4 : 16; /* with few rows of x the slab stays in the L1 cache */
    if (plan->tile_rows > most) plan->tile_rows = most;
    if (decoder->block > plan->tile_rows) plan->tile_rows = decoder->block;
    /* a codebook for each group: many rows go through the codebooks of one block of columns while these are in the cache */
    plan->piece_rows = piece_rows(args, plan->threads, decoder->block > 64 ? decoder->block : per_group && !whole ? 256 : 64);
    plan->pass_rows = per_group && !whole ? plan->piece_rows : plan->tile_rows;
    plan->scratch_bytes = qem_round_up(plan->batch_step * plan->piece_rows * sizeof(float), 64) +
                          qem_round_up(plan->tile_rows * plan->ld * sizeof(float), 64) + decoder->scratch_bytes;
}

static rows_scratch scratch_of(const qem_product_job *job, uint32_t thread)
{
    const qem_product_plan *plan = &job->plan;
    rows_scratch s;
    s.totals = qem_product_scratch(job, thread);
    s.slab = s.totals + qem_round_up(plan->batch_step * plan->piece_rows, 16);
    s.decoder = s.slab + qem_round_up(plan->tile_rows * plan->ld, 16);
    s.outlier = 0;
    return s;
}

static void decode_whole_rows(const qem_product_job *job, uint64_t row, uint64_t rows, rows_scratch *s)
{
    const uint64_t block = job->decoder.block;
    for (uint64_t r = 0; r < rows; r += block)
        qem_row_decoder_run(&job->decoder, job->args->row_begin + row + r, rows - r < block ? rows - r : block, s->decoder,
                            s->slab + r * job->plan.ld, (size_t)job->plan.ld, &s->outlier);
}

/* Columns first .. first+span-1 of the rows of a tile; returns where the first row's column `first` lies in the slab. */
static const float *decode_tile(const qem_product_job *job, uint64_t row, uint64_t rows, uint64_t first, uint64_t span,
                                rows_scratch *s)
{
    const qem_matmul_args *args = job->args;
    const qem_decode_stage *stage = &args->stages[0];
    const uint64_t at = args->row_begin + row;
    const size_t ld = (size_t)job->plan.ld;
    if (job->plan.whole) {
        decode_whole_rows(job, row, rows, s);
        return s->slab;
    }
    const uint64_t group = first / stage->dim, last = (first + span + stage->dim - 1) / stage->dim;
    float *x = s->slab + (first - group * stage->dim);
    if (job->plan.by_blocks) {
        qem_block_tile tile = qem_block_tile_part(&job->blocks, row, first, span);
        tile.rows = (size_t)rows;
        tile.out = x;
        tile.row_stride = ld;
        job->kernels->decode_blocks(&tile);
    } else {
        qem_look_up(job->kernels, stage, args->cols, at, rows, group, last, s->slab, ld);
        qem_apply_steps(job->kernels, stage, args->cols, at, rows, first, span, x, ld);
    }
    for (uint64_t r = 0; args->outliers.count && r < rows; r++)
        qem_write_outliers(&args->outliers, (at + r) * args->cols + first, span, x + r * ld, &s->outlier);
    return x;
}

static void multiply_tile(const qem_product_job *job, const float *w, uint64_t rows, uint64_t first, uint64_t span,
                          float *totals)
{
    for (uint64_t j = 0; j < span; j += QEM_SUM_BLOCK) {
        const uint64_t n = span - j < QEM_SUM_BLOCK ? span - j : QEM_SUM_BLOCK;
        job->kernels->product.dot(w + j, (size_t)job->plan.ld, (size_t)rows, job->x + first + j, (size_t)job->ldx,
                                  (size_t)job->batch, (size_t)n, totals, (size_t)job->plan.piece_rows);
    }
}

static void multiply_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_product_job *job = argument;
    const qem_product_plan *plan = &job->plan;
    rows_scratch s = scratch_of(job, thread);
    memset(s.totals, 0, (size_t)(job->batch * plan->piece_rows) * sizeof(float));
    for (uint64_t pass = begin; pass < end; pass += plan->pass_rows) {
        const uint64_t pass_end = end - pass < plan->pass_rows ? end : pass + plan->pass_rows;
        for (uint64_t first = 0; first < job->args->cols; first += plan->span) {
            const uint64_t left = job->args->cols - first, span = left < plan->span ? left : plan->span;
            for (uint64_t row = pass; row < pass_end; row += plan->tile_rows) {
                const uint64_t rows = pass_end - row < plan->tile_rows ? pass_end - row : plan->tile_rows;
                const float *w = decode_tile(job, row, rows, first, span, &s);
                multiply_tile(job, w, rows, first, span, s.totals + (row - begin));
            }
        }
    }
    qem_product_store(job, begin, end - begin, s.totals, plan->piece_rows);
}

void qem_product_run_rows(qem_product_job *job)
{
    qem_parallel_for(job->plan.threads, qem_product_rows(job->args), job->plan.piece_rows, multiply_rows, job);
}

/* ---- codes decoded in registers ---- */

static uint64_t unpacked_groups(const qem_decode_stage *stage)
{
    return qem_round_up(stage->groups, 16) + 16;
}

void qem_product_plan_coded(const qem_matmul_args *args, qem_product_plan *plan)
{
    plan->piece_rows = piece_rows(args, plan->threads, 64);
    plan->scratch_bytes = qem_round_up(plan->batch_step * plan->piece_rows * sizeof(float), 64);
    if (plan->kind == QEM_CODED_QUADS) plan->scratch_bytes += CODED_ROWS * unpacked_groups(args->stages) * sizeof(uint32_t);
}

static void fill_table(const qem_decode_stage *stage, float table[16])
{
    for (uint32_t j = 0; j < 16; j++) {
        const uint32_t level = j & ((1u << stage->code_bits) - 1u);
        table[j] = level < stage->k ? stage->codebook[level] : 0.0f;
    }
}

/* Codes of rows row .. row+rows-1 as the kernel reads them. */
static void place_codes(const qem_product_job *job, uint64_t row, uint64_t rows, uint32_t *unpacked, qem_coded *coded)
{
    const qem_decode_stage *stage = &job->args->stages[0];
    const uint64_t ld = unpacked_groups(stage);
    row = qem_product_stage_row(job, row);
    if (coded->kind != QEM_CODED_QUADS) {
        coded->row_bytes = (size_t)(stage->groups * stage->code_bits / 8);
        coded->codes = stage->codes + row * coded->row_bytes;
        return;
    }
    for (uint64_t r = 0; r < rows; r++)
        job->kernels->unpack(stage->codes, (row + r) * stage->groups * stage->code_bits, (size_t)stage->groups,
                             stage->code_bits, unpacked + r * ld);
    coded->codes = (const uint8_t *)unpacked;
    coded->row_bytes = (size_t)ld * sizeof(uint32_t);
}

static void multiply_codes(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_product_job *job = argument;
    const qem_decode_stage *stage = &job->args->stages[0];
    float *totals = qem_product_scratch(job, thread), table[16];
    uint32_t *unpacked = (uint32_t *)(totals + qem_round_up(job->plan.batch_step * job->plan.piece_rows, 16));
    qem_coded coded = { job->plan.kind, stage->code_bits, NULL, 0, stage->codebook, stage->scale, stage->mean };
    if (coded.kind == QEM_CODED_TABLE) {
        fill_table(stage, table);
        coded.table = table;
    }
    const uint32_t bits = coded.kind == QEM_CODED_QUADS ? 8 : stage->code_bits; /* of a column, as the kernel reads them */
    memset(totals, 0, (size_t)(job->batch * job->plan.piece_rows) * sizeof(float));
    for (uint64_t row = begin; row < end; row += CODED_ROWS) {
        const uint64_t rows = end - row < CODED_ROWS ? end - row : CODED_ROWS;
        place_codes(job, row, rows, unpacked, &coded);
        for (uint64_t first = 0; first < job->args->cols; first += QEM_SUM_BLOCK) {
            const uint64_t left = job->args->cols - first, n = left < QEM_SUM_BLOCK ? left : QEM_SUM_BLOCK;
            job->kernels->product.dot_coded(&coded, (size_t)rows, job->x + first, (size_t)job->ldx, (size_t)job->batch,
                                            (size_t)n, totals + (row - begin), (size_t)job->plan.piece_rows);
            coded.codes += (size_t)QEM_SUM_BLOCK * bits / 8;
        }
    }
    qem_product_store(job, begin, end - begin, totals, job->plan.piece_rows);
}

void qem_product_run_coded(qem_product_job *job)
{
    qem_parallel_for(job->plan.threads, qem_product_rows(job->args), job->plan.piece_rows, multiply_codes, job);
}
