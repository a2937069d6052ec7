/*
 * The decoder of every method, fused: the matrix passes through memory once. An artifact of one stage without swaps is
 * nothing but lookups and goes tile by tile from the codes to the output (decode_tiles.c). Swaps and sums of stages need
 * whole rows: those are unpacked and looked up, swapped back, summed, converted and stored one by one here, in memory that
 * stays in the caches, unless they have many codebooks and can be cut to strips (decode_strips.c).
 */
#include "decode.h"

#include <stdatomic.h>
#include <string.h>

#include "parallel.h"
#include "swap.h"

#define PIECE 65536 /* elements a thread takes at once */

typedef struct row_job {
    const qem_cpu_kernels *kernels;
    const qem_decode_args *args;
    const qem_swap_tree *trees; /* one a stage */
    unsigned char *scratch;
    uint64_t scratch_bytes, row_floats;
    int streaming;
    _Atomic int overflow;
} row_job;

typedef struct row_scratch {
    float *a, *b, *sum;
    uint64_t *bits;
} row_scratch;

uint64_t qem_whole_groups(const qem_decode_stage *stage, uint64_t cols)
{
    return cols % stage->dim ? stage->groups - 1 : stage->groups;
}

static size_t group_stride(const qem_decode_stage *stage)
{
    return stage->kind == QEM_CODEBOOK_PER_GROUP ? (size_t)stage->k * stage->dim : 0;
}

qem_code_tile qem_row_tile(const qem_decode_stage *stage, uint64_t cols, uint64_t row)
{
    qem_code_tile tile = { 0 };
    tile.row_bits = stage->groups * stage->code_bits;
    tile.stream = stage->codes;
    tile.first_bit = row * tile.row_bits;
    tile.bits = stage->code_bits;
    tile.dim = stage->dim;
    tile.codebook = stage->codebook;
    tile.half = stage->dim > 1 ? stage->codebook_half : NULL; /* scalar codebooks are small, and f32 gathers are faster */
    tile.k = stage->k;
    tile.group_stride = group_stride(stage);
    tile.rows = 1;
    tile.groups = (size_t)qem_whole_groups(stage, cols);
    return tile;
}

const float *qem_row_tail(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row)
{
    const uint64_t whole = qem_whole_groups(stage, cols);
    const size_t stride = group_stride(stage);
    uint32_t code = 0;
    if (whole == stage->groups) return NULL;
    if (stage->code_bits)
        kernels->unpack(stage->codes, (row * stage->groups + whole) * stage->code_bits, 1, stage->code_bits, &code);
    /* a tail group's own codebook has entries of cols % dim floats; a shared one is read in part */
    const size_t width = stride ? (size_t)(cols % stage->dim) : stage->dim;
    return stage->codebook + whole * stride + code * width;
}

/* ---- rows: swaps and several stages ---- */

static row_scratch scratch_of(const row_job *job, uint32_t thread)
{
    row_scratch s;
    s.a = (float *)(job->scratch + thread * job->scratch_bytes);
    s.b = s.a + job->row_floats;
    s.sum = s.b + job->row_floats;
    s.bits = (uint64_t *)(s.sum + job->row_floats);
    return s;
}

/* One stage of one row; the result lies in s->a or s->b. */
static const float *decode_stage(const row_job *job, uint32_t index, uint64_t row, row_scratch *s)
{
    const qem_decode_stage *stage = &job->args->stages[index];
    const uint64_t cols = job->args->cols;
    const float *tail = qem_row_tail(job->kernels, stage, cols, row);
    qem_code_tile tile = qem_row_tile(stage, cols, row);
    tile.out = s->a;
    job->kernels->decode_tile(&tile);
    if (tail) memcpy(s->a + tile.groups * tile.dim, tail, (size_t)(cols % tile.dim) * sizeof *tail);
    if (stage->levels == 0) return s->a;
    return qem_swap_restore_row(job->kernels, &job->trees[index], stage->swap_map, row, s->a, s->b, s->bits);
}

static void decode_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    row_job *job = argument;
    const qem_decode_args *args = job->args;
    const size_t cols = (size_t)args->cols, row_bytes = (size_t)args->row_stride * qem_dtype_size(args->dtype);
    row_scratch s = scratch_of(job, thread);
    int overflow = 0;
    for (uint64_t i = begin; i < end; i++) {
        const float *row = decode_stage(job, 0, args->row_begin + i, &s);
        if (args->stage_count > 1) {
            memcpy(s.sum, row, cols * sizeof(float));
            for (uint32_t stage = 1; stage < args->stage_count; stage++)
                job->kernels->add(decode_stage(job, stage, args->row_begin + i, &s), cols, s.sum);
            row = s.sum;
        }
        overflow |= job->kernels->store_rows(row, cols, 1, cols, args->dtype, (unsigned char *)args->out + i * row_bytes, cols,
                                             job->streaming);
    }
    if (job->streaming) job->kernels->end_streaming();
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

static qem_status decode_by_rows(qem_context *context, const qem_decode_args *args)
{
    row_job job = { .kernels = qem_kernels(context), .args = args };
    const uint64_t rows = args->row_end - args->row_begin;
    const uint32_t threads = rows * args->cols < QEM_DECODE_PARALLEL_ELEMENTS ? 1 : context->threads;
    void *trees, *scratch;
    QEM_TRY(qem_allocate(context, args->stage_count, sizeof(qem_swap_tree), &trees));
    for (uint32_t i = 0; i < args->stage_count; i++)
        qem_swap_tree_make((qem_swap_tree *)trees + i, args->rows, args->cols, args->stages[i].levels);
    job.trees = trees;
    job.row_floats = (args->cols + 15) / 16 * 16;
    job.scratch_bytes = 3 * job.row_floats * sizeof(float) + (qem_swap_row_words(args->cols) + 7) / 8 * 64;
    job.streaming = rows * args->cols * qem_dtype_size(args->dtype) >= QEM_DECODE_STREAM_BYTES;
    const qem_status status = qem_allocate(context, threads, job.scratch_bytes, &scratch);
    if (status == QEM_OK) {
        job.scratch = scratch;
        qem_parallel_for(threads, rows, args->cols >= PIECE ? 1 : PIECE / args->cols, decode_rows, &job);
        *args->overflow = job.overflow;
        qem_release(context, scratch);
    }
    qem_release(context, trees);
    return status;
}

qem_status qem_cpu_decode(qem_context *context, const qem_decode_args *args)
{
    *args->overflow = 0;
    if (args->stage_count == 1 && args->stages[0].levels == 0) return qem_decode_tiles(context, args);
    const uint64_t strips = qem_decode_strip_count(args);
    if (strips > 0) return qem_decode_strips(context, args, strips);
    return decode_by_rows(context, args);
}
