/*
 * The fused decoder of every method: a row is unpacked, looked up, swapped back, summed over the stages, converted and
 * stored before the next one is begun, so the matrix passes through memory once.
 */
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "parallel.h"
#include "swap.h"

#define PIECE 65536 /* elements a thread takes at once */

typedef struct decode_job {
    const qem_cpu_kernels *kernels;
    const qem_decode_args *args;
    const qem_swap_tree *trees; /* one a stage */
    unsigned char *scratch;
    uint64_t scratch_bytes, row_floats, most_groups;
    _Atomic int overflow;
} decode_job;

typedef struct row_scratch {
    float *a, *b, *sum;
    uint32_t *codes;
    uint64_t *bits;
} row_scratch;

static row_scratch scratch_of(const decode_job *job, uint32_t thread)
{
    row_scratch s;
    s.a = (float *)(job->scratch + thread * job->scratch_bytes);
    s.b = s.a + job->row_floats;
    s.sum = s.b + job->row_floats;
    s.codes = (uint32_t *)(s.sum + job->row_floats);
    s.bits = (uint64_t *)(s.codes + job->most_groups);
    return s;
}

/* Centroids of one row, in the order of the leaves. */
static void look_up(const decode_job *job, const qem_decode_stage *stage, uint64_t row, uint32_t *codes, float *out)
{
    const uint64_t cols = job->args->cols;
    const uint32_t tail = (uint32_t)(cols % stage->dim);
    const uint64_t whole = tail ? stage->groups - 1 : stage->groups;
    const size_t stride = stage->kind == QEM_CODEBOOK_PER_GROUP ? (size_t)stage->k * stage->dim : 0;
    if (stage->code_bits)
        job->kernels->unpack(stage->codes, row * stage->groups * stage->code_bits, (size_t)stage->groups, stage->code_bits,
                             codes);
    else
        memset(codes, 0, (size_t)stage->groups * sizeof(uint32_t));
    if (whole) job->kernels->lookup(stage->codebook, stride, stage->dim, codes, (size_t)whole, out);
    if (tail) { /* a tail group's own codebook has entries of `tail` floats; a shared one is read in part */
        const size_t width = stride ? tail : stage->dim;
        memcpy(out + whole * stage->dim, stage->codebook + whole * stride + codes[whole] * width, tail * sizeof(float));
    }
}

/* One stage of one row; the result lies in s->a, s->b or `direct`. */
static const float *decode_stage(const decode_job *job, uint32_t index, uint64_t row, row_scratch *s, float *direct)
{
    const qem_decode_stage *stage = &job->args->stages[index];
    float *out = direct && stage->levels == 0 ? direct : s->a;
    look_up(job, stage, row, s->codes, out);
    if (stage->levels == 0) return out;
    return qem_swap_restore_row(job->kernels, &job->trees[index], stage->swap_map, row, s->a, s->b, s->bits);
}

static int store_row(const decode_job *job, const float *row, void *out)
{
    const size_t cols = (size_t)job->args->cols;
    switch (job->args->dtype) {
    case QEM_DTYPE_F16: return job->kernels->f32_to_f16(row, cols, out);
    case QEM_DTYPE_BF16: return job->kernels->f32_to_bf16(row, cols, out);
    default:
        if (row != out) memcpy(out, row, cols * sizeof(float));
        return 0;
    }
}

static void decode_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    decode_job *job = argument;
    const qem_decode_args *args = job->args;
    row_scratch s = scratch_of(job, thread);
    const size_t element = args->dtype == QEM_DTYPE_F32 ? 4 : 2;
    int overflow = 0;
    for (uint64_t i = begin; i < end; i++) {
        void *out = (unsigned char *)args->out + i * args->row_stride * element;
        const int in_place = args->dtype == QEM_DTYPE_F32 && args->stage_count == 1;
        const float *row = decode_stage(job, 0, args->row_begin + i, &s, in_place ? out : NULL);
        if (args->stage_count > 1) {
            memcpy(s.sum, row, (size_t)args->cols * sizeof(float));
            for (uint32_t stage = 1; stage < args->stage_count; stage++)
                job->kernels->add(decode_stage(job, stage, args->row_begin + i, &s, NULL), (size_t)args->cols, s.sum);
            row = s.sum;
        }
        overflow |= store_row(job, row, out);
    }
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

qem_status qem_cpu_decode(qem_context *context, const qem_decode_args *args)
{
    decode_job job = { .kernels = qem_kernels(context), .args = args };
    void *trees, *scratch;
    *args->overflow = 0;
    QEM_TRY(qem_allocate(context, args->stage_count, sizeof(qem_swap_tree), &trees));
    for (uint32_t i = 0; i < args->stage_count; i++) {
        qem_swap_tree_make((qem_swap_tree *)trees + i, args->rows, args->cols, args->stages[i].levels);
        if (args->stages[i].groups > job.most_groups) job.most_groups = args->stages[i].groups;
    }
    job.trees = trees;
    job.most_groups = (job.most_groups + 15) / 16 * 16;
    job.row_floats = (args->cols + 15) / 16 * 16;
    job.scratch_bytes = 3 * job.row_floats * sizeof(float) + job.most_groups * sizeof(uint32_t) +
                        (qem_swap_row_words(args->cols) + 7) / 8 * 64;
    const qem_status status = qem_allocate(context, context->threads, job.scratch_bytes, &scratch);
    if (status == QEM_OK) {
        job.scratch = scratch;
        const uint64_t grain = args->cols >= PIECE ? 1 : PIECE / args->cols;
        qem_parallel_for(context->threads, args->row_end - args->row_begin, grain, decode_rows, &job);
        *args->overflow = job.overflow;
        qem_release(context, scratch);
    }
    qem_release(context, trees);
    return status;
}
