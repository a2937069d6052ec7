/*
 * Products on codes: which way is taken, the workspace, the rows of x as f32, the rows of y in their type.
 *
 * The way depends on artifact and batch alone, never on threads or instruction set. ROWS and CODED give the same bits, so the
 * choice between them is one of speed; so do TABLES and TABLES16, which add in an order of their own.
 */
#include "matmul.h"

#include <math.h>
#include <string.h>

#include "parallel.h"

#define MOST_BATCH_STEP 256     /* rows of x at once: decoding is paid once for so many */
#define MOST_CODED_BATCH 16     /* above it, decoding once into scratch is cheaper than once for every few rows of x */
#define MOST_TABLES_BATCH 2     /* rows of x with tables of their own */
#define TABLES_ROWS 4           /* rows of W for an entry of a table to pay for its making */
#define LEAST_DIM16 4           /* TABLES16: columns that one addition has to stand for */
#define MOST_K16 256            /* TABLES16: the tables of a block then fit the L2 cache */
#define TABLES16_ROWS 8
#define SERIAL_WORK (1u << 18)  /* multiplications below which a second thread costs more than it brings */
#define CONVERT_ELEMENTS 65536  /* of x, a piece of work */

/* Whether W is nothing but what the codes of one stage are looked up to. */
static int is_plain(const qem_matmul_args *args)
{
    const qem_decode_stage *s = &args->stages[0];
    return args->stage_count == 1 && !qem_whole_rows_only(s) && s->affine_count == 0 && args->outliers.count == 0;
}

/* TABLES, TABLES16, or ROWS where tables do not pay. */
static qem_product_way table_way(const qem_matmul_args *args)
{
    const qem_decode_stage *s = &args->stages[0];
    const uint64_t rows = qem_product_rows(args);
    if (!is_plain(args) || s->kind != QEM_CODEBOOK_PER_GROUP || s->code_bits == 0) return QEM_PRODUCT_ROWS;
    if (args->batch <= MOST_TABLES_BATCH) return s->k <= rows / TABLES_ROWS ? QEM_PRODUCT_TABLES : QEM_PRODUCT_ROWS;
    const int pays = s->dim >= LEAST_DIM16 && s->k <= MOST_K16 && s->k <= rows / TABLES16_ROWS;
    return pays ? QEM_PRODUCT_TABLES16 : QEM_PRODUCT_ROWS;
}

/* Streams of narrow codes are read in place, so rows and blocks of columns have to begin at a byte. */
static qem_coded_kind coded_kind(const qem_matmul_args *args)
{
    const qem_decode_stage *s = &args->stages[0];
    if (!is_plain(args) || s->kind == QEM_CODEBOOK_PER_GROUP || args->batch > MOST_CODED_BATCH) return QEM_CODED_NONE;
    if (s->dim == 4 && s->code_bits > 0) return QEM_CODED_QUADS;
    if (s->dim != 1 || s->groups * s->code_bits % 8) return QEM_CODED_NONE;
    if (s->code_bits >= 1 && s->code_bits <= 4) return QEM_CODED_TABLE;
    if (s->code_bits == 8) return s->kind == QEM_CODEBOOK_UNIFORM ? QEM_CODED_UNIFORM8 : QEM_CODED_TABLE8;
    return QEM_CODED_NONE;
}

/* Rows of x in equal steps. */
static uint64_t batch_step(uint64_t batch, uint64_t most)
{
    const uint64_t steps = (batch + most - 1) / most;
    return qem_round_up((batch + steps - 1) / steps, batch > 4 ? 4 : 1);
}

static qem_product_plan make_plan(const qem_context *context, const qem_matmul_args *args, qem_row_decoder *decoder)
{
    qem_product_plan plan = { .threads = context->threads };
    uint64_t tables = 0;
    *decoder = (qem_row_decoder){ 0 };
    if ((double)qem_product_rows(args) * (double)args->cols * (double)args->batch < SERIAL_WORK) plan.threads = 1;
    plan.way = table_way(args);
    plan.batch_step = batch_step(args->batch, plan.way == QEM_PRODUCT_TABLES16 ? 16 : MOST_BATCH_STEP);
    plan.kind = coded_kind(args);
    if (plan.way == QEM_PRODUCT_TABLES) {
        tables = qem_product_plan_tables(args, &qem_kernels(context)->product, &plan);
    } else if (plan.way == QEM_PRODUCT_TABLES16) {
        qem_product_plan_tables16(args, &plan);
    } else if (plan.kind != QEM_CODED_NONE) {
        plan.way = QEM_PRODUCT_CODED;
        qem_product_plan_coded(args, &plan);
    } else {
        qem_product_plan_rows(args, &plan, decoder);
    }
    const uint64_t x = args->x_dtype == QEM_DTYPE_F32 ? 0 : plan.batch_step * qem_round_up(args->cols, 16) * sizeof(float);
    plan.shared_at = 0;
    plan.x_at = qem_round_up(decoder->shared_bytes, 64);
    plan.tables_at = plan.x_at + x;
    plan.scratch_at = plan.tables_at + qem_round_up(tables, 64);
    plan.scratch_bytes = qem_round_up(plan.scratch_bytes, 64);
    plan.bytes = plan.scratch_at + plan.threads * plan.scratch_bytes;
    return plan;
}

uint64_t qem_cpu_matmul_workspace(const qem_context *context, const qem_matmul_args *args)
{
    qem_row_decoder decoder;
    return make_plan(context, args, &decoder).bytes;
}

/* ---- x ---- */

static void convert_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const qem_product_job *job = argument;
    float *out = qem_product_part(job, job->plan.x_at);
    (void)thread;
    for (uint64_t b = begin; b < end; b++) {
        const uint16_t *x = (const uint16_t *)job->args->x + (job->first + b) * job->args->x_stride;
        (job->args->x_dtype == QEM_DTYPE_F16 ? job->kernels->f16_to_f32
                                             : job->kernels->bf16_to_f32)(x, (size_t)job->args->cols, out + b * job->ldx);
    }
}

static void take_x(qem_product_job *job)
{
    const qem_matmul_args *args = job->args;
    if (args->x_dtype == QEM_DTYPE_F32) {
        job->ldx = args->x_stride;
        job->x = (const float *)args->x + job->first * args->x_stride;
        return;
    }
    job->ldx = qem_round_up(args->cols, 16);
    job->x = qem_product_part(job, job->plan.x_at);
    qem_parallel_for(job->plan.threads, job->batch, CONVERT_ELEMENTS / args->cols + 1, convert_rows, job);
}

/* ---- y ---- */

void qem_product_store(qem_product_job *job, uint64_t row, uint64_t rows, float *totals, uint64_t ldt)
{
    const qem_matmul_args *args = job->args;
    int overflow = 0;
    for (uint64_t b = 0; b < job->batch; b++) {
        const uint64_t at = (job->first + b) * args->y_stride + row;
        float *y = totals + b * ldt;
        for (uint64_t r = 0; r < rows; r++)
            if (isnan(y[r])) y[r] = NAN; /* one and the same on every instruction set */
        switch (args->y_dtype) {
        case QEM_DTYPE_F16: overflow |= job->kernels->f32_to_f16(y, (size_t)rows, (uint16_t *)args->y + at); break;
        case QEM_DTYPE_BF16: overflow |= job->kernels->f32_to_bf16(y, (size_t)rows, (uint16_t *)args->y + at); break;
        default: memcpy((float *)args->y + at, y, (size_t)rows * sizeof(float)); break;
        }
    }
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

void qem_cpu_matmul(qem_context *context, const qem_matmul_args *args)
{
    qem_product_job job = { .kernels = qem_kernels(context), .args = args };
    job.plan = make_plan(context, args, &job.decoder);
    if (job.plan.whole) qem_row_decoder_prepare(&job.decoder, job.kernels, qem_product_part(&job, job.plan.shared_at));
    if (job.plan.by_blocks) job.blocks = qem_block_tile_of(args->stages, args->cols, args->row_begin);
    for (job.first = 0; job.first < args->batch; job.first += job.plan.batch_step) {
        const uint64_t left = args->batch - job.first;
        job.batch = left < job.plan.batch_step ? left : job.plan.batch_step;
        take_x(&job);
        switch (job.plan.way) {
        case QEM_PRODUCT_TABLES: qem_product_run_tables(&job); break;
        case QEM_PRODUCT_TABLES16: qem_product_run_tables16(&job); break;
        case QEM_PRODUCT_CODED: qem_product_run_coded(&job); break;
        case QEM_PRODUCT_ROWS: qem_product_run_rows(&job); break;
        }
    }
    *args->overflow = job.overflow;
}
