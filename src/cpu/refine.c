/*
 * A shared codebook beyond its cells: every sub-vector may take any centroid, and exact Lloyd passes move all centroids
 * together. The sub-vectors stay where they are: they are read in chunks, whose order (cell by cell, in k-d order within) is
 * found once and kept in the list of ids, and each starts its search from the centroid that it had. Sums are of integers.
 */
#include "refine.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../core/fixed.h"
#include "../core/half.h"
#include "cpu.h"
#include "kdorder.h"
#include "parallel.h"
#include "problem.h"

#define ORDER_BLOCK 262144  /* ids that are put in k-d order together */
#define ROW_GRAIN 64

/* ---- centre and scale ---- */

typedef struct frame_table {
    int64_t sum;
    float low, high;
} frame_table;

typedef struct frame_job {
    const qem_subvectors *v;
    double scale;
    frame_table *tables; /* [threads][dim] */
} frame_job;

static void frame_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const frame_job *job = argument;
    const qem_subvectors *v = job->v;
    frame_table *table = job->tables + (uint64_t)thread * v->dim;
    for (uint64_t row = begin; row < end; row++) {
        const float *x = v->x + row * v->cols;
        uint32_t p = 0;
        for (uint64_t j = 0; j < v->cols; j++) {
            table[p].sum += llrint((double)x[j] * job->scale);
            table[p].low = x[j] < table[p].low ? x[j] : table[p].low;
            table[p].high = x[j] > table[p].high ? x[j] : table[p].high;
            if (++p == v->dim) p = 0;
        }
    }
}

/* Mean of each position, by fixed point, and the power of two that brings the largest deviation into [1, 2). */
static void set_frame(qem_refine *refine, frame_table *tables, uint32_t threads, int shift)
{
    const qem_subvectors *v = &refine->args->points;
    double largest = 0.0;
    for (uint32_t p = 0; p < v->dim; p++) {
        frame_table all = tables[p];
        for (uint32_t t = 1; t < threads; t++) {
            const frame_table *part = &tables[(uint64_t)t * v->dim + p];
            all.sum += part->sum;
            all.low = part->low < all.low ? part->low : all.low;
            all.high = part->high > all.high ? part->high : all.high;
        }
        const uint64_t count = v->rows * (p < v->tail_dim ? v->groups : v->groups - 1);
        const double mean = count ? ldexp((double)all.sum / (double)count, -shift) : 0.0;
        refine->codebook.mean[p] = mean;
        if (count && (double)all.high - mean > largest) largest = (double)all.high - mean;
        if (count && mean - (double)all.low > largest) largest = mean - (double)all.low;
    }
    const int exponent = largest > 0.0 ? qem_exponent_above(largest) - 1 : 0;
    refine->codebook.scale = ldexp(1.0, -exponent);
    refine->codebook.unit = ldexp(1.0, exponent);
}

static qem_status find_frame(qem_refine *refine)
{
    qem_context *context = refine->context;
    const qem_subvectors *v = &refine->args->points;
    const uint64_t entries = (uint64_t)context->threads * v->dim;
    void *memory;
    float min, max;
    QEM_TRY(qem_cpu_extremes(context, v->x, v->rows * v->cols, &min, &max));
    const int shift = qem_fixed_shift(refine->all.count, -min > max ? -min : max);
    QEM_TRY(qem_allocate(context, entries, sizeof(frame_table), &memory));
    frame_job job = { v, ldexp(1.0, shift), memory };
    for (uint64_t i = 0; i < entries; i++) job.tables[i] = (frame_table){ 0, INFINITY, -INFINITY };
    qem_parallel_for(context->threads, v->rows, ROW_GRAIN, frame_rows, &job);
    set_frame(refine, job.tables, context->threads, shift);
    qem_release(context, memory);
    return QEM_OK;
}

/* ---- order ---- */

typedef struct order_job {
    const qem_refine *refine;
    const uint64_t *blocks; /* [count + 1] */
    unsigned char *scratch;
    uint64_t scratch_bytes;
} order_job;

/* x of the full sub-vectors, their order and ids; the tail ones go behind them. */
static void order_block(const qem_refine *refine, uint32_t *ids, size_t count, unsigned char *scratch)
{
    const qem_subvectors *v = &refine->args->points;
    const uint32_t dim = v->dim;
    const size_t padded = qem_round_up(count, QEM_POINT_PAD);
    float *x = (float *)scratch;
    uint32_t *full = (uint32_t *)(x + padded * dim), *order = full + padded, *words = order + padded;
    size_t n = 0, tails = 0;
    for (size_t i = 0; i < count; i++) {
        if (qem_subvector_width(v, ids[i]) == dim)
            full[n++] = ids[i];
        else
            words[tails++] = ids[i];
    }
    memcpy(ids + n, words, tails * sizeof(uint32_t));
    for (size_t i = 0; i < n; i++) {
        const float *from = qem_subvector(v, full[i]);
        for (uint32_t p = 0; p < dim; p++) x[p * padded + i] = from[p];
    }
    if (n) qem_kd_order(refine->codebook.kernels, 1, x, padded, n, dim, order, words);
    for (size_t i = 0; i < n; i++) ids[i] = full[order[i]];
}

static void order_blocks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const order_job *job = argument;
    for (uint64_t b = begin; b < end; b++)
        order_block(job->refine, job->refine->args->order + job->blocks[b], (size_t)(job->blocks[b + 1] - job->blocks[b]),
                    job->scratch + thread * job->scratch_bytes);
}

/* Cells are cut into blocks of a bounded size. Returns their number; `blocks` may be NULL. */
static uint64_t list_blocks(const qem_refine_args *args, uint64_t *blocks)
{
    uint64_t count = 0;
    for (uint64_t c = 0; c < args->cells; c++)
        for (uint64_t at = args->offsets[c]; at < args->offsets[c + 1]; at += ORDER_BLOCK) {
            if (blocks) blocks[count] = at;
            count++;
        }
    if (blocks) blocks[count] = args->offsets[args->cells];
    return count;
}

static qem_status order_ids(qem_refine *refine)
{
    qem_context *context = refine->context;
    const uint64_t count = list_blocks(refine->args, NULL);
    order_job job = { .refine = refine };
    void *blocks, *scratch;
    const uint32_t threads = count < context->threads ? (uint32_t)count : context->threads;
    uint64_t longest = 0;
    QEM_TRY(qem_allocate(context, count + 1, sizeof(uint64_t), &blocks));
    job.blocks = blocks;
    (void)list_blocks(refine->args, blocks);
    for (uint64_t b = 0; b < count; b++) {
        const uint64_t length = job.blocks[b + 1] - job.blocks[b];
        longest = length > longest ? length : longest;
    }
    job.scratch_bytes = qem_round_up((qem_round_up(longest, QEM_POINT_PAD) * (refine->args->points.dim + 2) +
                                      qem_kd_scratch_words(longest)) * sizeof(uint32_t), 64);
    const qem_status status = qem_allocate(context, threads, job.scratch_bytes, &scratch);
    if (status == QEM_OK) {
        job.scratch = scratch;
        qem_parallel_for(threads, count, 1, order_blocks, &job);
        qem_release(context, scratch);
    }
    qem_release(context, blocks);
    return status;
}

/* ---- assignment, and the sums on the way ---- */

void qem_refine_layout_chunk(const qem_refine *refine, qem_refine_chunk *chunk, qem_arena *arena)
{
    memset(chunk, 0, sizeof *chunk);
    qem_chunk_layout(&chunk->chunk, &refine->codebook, QEM_REFINE_CHUNK, arena);
    chunk->d2 = qem_take(arena, QEM_REFINE_CHUNK, sizeof(float));
}

static void add_shared(const qem_refine *refine, const qem_chunk *chunk, int part, uint32_t dim)
{
    const uint32_t width = refine->codebook.width;
    for (size_t i = 0; i < chunk->count[part]; i++) {
        int64_t *sum = refine->sums + (uint64_t)chunk->labels[i] * width;
        for (uint32_t p = 0; p < dim; p++)
            __atomic_fetch_add(&sum[p], llrint((double)chunk->x[part][p * chunk->padded[part] + i] * refine->sum_scale),
                               __ATOMIC_RELAXED);
        __atomic_fetch_add(&refine->counts[part][chunk->labels[i]], 1, __ATOMIC_RELAXED);
    }
}

static void add_own(const qem_refine *refine, const qem_chunk *chunk, int part, uint32_t dim, uint32_t thread)
{
    const uint32_t width = refine->codebook.width;
    const uint64_t k = refine->codebook.k;
    uint64_t *counts = refine->counts[part] + thread * k;
    refine->codebook.kernels->sum_points(chunk->x[part], chunk->padded[part], chunk->count[part], dim, chunk->labels,
                                         refine->sum_scale, refine->sums + thread * k * width, width);
    for (size_t i = 0; i < chunk->count[part]; i++) counts[chunk->labels[i]]++;
}

/* Labels of one part to the table; says whether one is new. */
static int take_labels(const qem_refine *refine, const qem_chunk *chunk, int part)
{
    uint32_t *labels = refine->args->labels;
    int changed = 0;
    for (size_t i = 0; i < chunk->count[part]; i++) {
        uint32_t *label = &labels[chunk->ids[part][i]];
        changed |= *label != chunk->labels[i];
        *label = chunk->labels[i];
    }
    return changed;
}

static void search_full(qem_refine *refine, qem_chunk *chunk)
{
    qem_search_codebook *codebook = &refine->codebook;
    if (codebook->pruned && !atomic_load_explicit(&codebook->brute, memory_order_relaxed)) {
        for (size_t i = 0; i < chunk->count[0]; i++) chunk->previous[i] = refine->args->labels[chunk->ids[0][i]];
        for (size_t i = chunk->count[0]; i < chunk->padded[0]; i++) chunk->previous[i] = 0;
        qem_chunk_boxes(chunk, codebook);
        if (qem_chunk_tiles(chunk, codebook)) return;
    }
    qem_chunk_brute(chunk, codebook, 0);
}

static void report(qem_refine *refine, uint64_t points, uint32_t thread)
{
    const uint64_t done = atomic_fetch_add_explicit(&refine->done, points, memory_order_relaxed) + points;
    if (thread != 0) return;
    const double share = refine->progress_base + refine->progress_share * (double)done / (double)refine->all.count;
    if (qem_report_progress(refine->context, "refining", share) != QEM_OK)
        atomic_store_explicit(&refine->cancelled, 1, memory_order_relaxed);
}

static void assign_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    qem_refine *refine = argument;
    qem_arena arena = { refine->scratch + thread * refine->scratch_bytes, 0 };
    qem_refine_chunk here;
    int changed = 0;
    qem_refine_layout_chunk(refine, &here, &arena);
    for (uint64_t c = begin; c < end; c++) {
        if (atomic_load_explicit(&refine->cancelled, memory_order_relaxed)) return;
        const uint64_t first = c * QEM_REFINE_CHUNK, last = qem_refine_chunk_end(refine, first);
        qem_chunk_gather(&here.chunk, &refine->codebook, &refine->args->points, &refine->all, first, last);
        for (int part = 0; part < refine->parts; part++) {
            const uint32_t dim = part ? refine->codebook.tail_dim : refine->codebook.width;
            if (here.chunk.count[part] == 0) continue;
            if (part)
                qem_chunk_brute(&here.chunk, &refine->codebook, 1);
            else
                search_full(refine, &here.chunk);
            changed |= take_labels(refine, &here.chunk, part);
            if (refine->adding && refine->shared)
                add_shared(refine, &here.chunk, part, dim);
            else if (refine->adding)
                add_own(refine, &here.chunk, part, dim, thread);
        }
        report(refine, last - first, thread);
    }
    if (changed) atomic_store_explicit(&refine->changed, 1, memory_order_relaxed);
}

static void fold(int64_t *tables, uint32_t count, uint64_t size)
{
    for (uint32_t t = 1; t < count; t++)
        for (uint64_t i = 0; i < size; i++) tables[i] += tables[t * size + i];
}

/* Labels from the codebook of now; returns 1 if one is new. */
static int assign(qem_refine *refine, int adding)
{
    const uint64_t k = refine->codebook.k, width = refine->codebook.width;
    refine->adding = adding;
    atomic_store_explicit(&refine->changed, 0, memory_order_relaxed);
    atomic_store_explicit(&refine->done, 0, memory_order_relaxed);
    if (adding) {
        memset(refine->sums, 0, (size_t)(refine->tables * k * width) * sizeof(int64_t));
        for (int part = 0; part < refine->parts; part++) memset(refine->counts[part], 0, (size_t)(refine->tables * k) * sizeof(uint64_t));
    }
    qem_parallel_for(refine->context->threads, qem_refine_chunks(refine), 1, assign_chunks, refine);
    if (adding) {
        fold(refine->sums, refine->tables, k * width);
        for (int part = 0; part < refine->parts; part++) fold((int64_t *)refine->counts[part], refine->tables, k);
    }
    refine->progress_base += refine->progress_share;
    return refine->changed;
}

/* ---- update ---- */

static float scaled_zero(const qem_search_codebook *codebook, uint32_t p)
{
    float zero = 0.0f;
    codebook->kernels->scale_points(&zero, 1, codebook->mean[p], codebook->scale);
    return zero;
}

/* Every centroid to the mean of its members; positions that no member has are 0 as stored. */
static void update(qem_refine *refine)
{
    qem_search_codebook *codebook = &refine->codebook;
    const uint32_t shared_dim = codebook->tail_dim ? codebook->tail_dim : codebook->width; /* positions that all points have */
    for (uint64_t j = 0; j < codebook->k; j++) {
        const uint64_t full = refine->counts[0][j], all = qem_refine_members(refine, j);
        if (all == 0) continue; /* stays where it is */
        refine->only_tail[j] = full == 0;
        for (uint32_t p = 0; p < codebook->width; p++) {
            float *c = &codebook->c[p * codebook->ldc + j];
            const double sum = (double)refine->sums[j * codebook->width + p];
            if (p < shared_dim)
                *c = (float)(sum / (double)all * refine->sum_unit);
            else
                *c = full ? (float)(sum / (double)full * refine->sum_unit) : scaled_zero(codebook, p);
        }
    }
}

/* The codebook as it will be stored; the search goes on with that. */
static qem_status store(qem_refine *refine)
{
    qem_search_codebook *codebook = &refine->codebook;
    float *out = refine->args->codebook;
    for (uint64_t j = 0; j < codebook->k; j++)
        for (uint32_t p = 0; p < codebook->width; p++) {
            const double value = (double)codebook->c[p * codebook->ldc + j] * codebook->unit + codebook->mean[p];
            float stored = (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value) + 0.0f;
            if (refine->only_tail[j] && codebook->tail_dim && p >= codebook->tail_dim) stored = 0.0f;
            if (refine->args->codebook_dtype == QEM_DTYPE_F16) {
                stored = qem_f16_to_f32(qem_f32_to_f16(stored));
                if (!isfinite(stored))
                    return qem_fail(refine->context, QEM_ERR_RANGE,
                                    "a centroid is beyond the range of f16 (65504); store the codebook as f32");
            }
            out[j * codebook->width + p] = stored;
        }
    qem_codebook_set(codebook, out);
    return QEM_OK;
}

/* ---- the call ---- */

static qem_status passes(qem_refine *refine, uint32_t *tree_scratch)
{
    const uint32_t threads = refine->context->threads, count = refine->args->passes;
    refine->progress_share = 1.0 / (count + 1.0);
    qem_codebook_ready(&refine->codebook, threads, 1, tree_scratch);
    for (uint32_t pass = 0; pass < count; pass++) {
        const int changed = assign(refine, 1);
        if (refine->cancelled || (pass > 0 && !changed)) break;
        QEM_TRY(qem_refine_repair(refine));
        update(refine);
        qem_codebook_ready(&refine->codebook, threads, 0, NULL);
    }
    if (count && !refine->cancelled) {
        QEM_TRY(store(refine));
        qem_codebook_ready(&refine->codebook, threads, 0, NULL);
    }
    (void)assign(refine, 0);
    return refine->cancelled ? QEM_ERR_CANCELLED : QEM_OK;
}

static void layout(qem_refine *refine, qem_arena *arena)
{
    const qem_refine_args *args = refine->args;
    const qem_subvectors *v = &args->points;
    const uint32_t tail_dim = v->tail_dim != v->dim ? v->tail_dim : 0;
    qem_codebook_layout(&refine->codebook, qem_kernels(refine->context), v->dim, tail_dim, args->k, refine->all.count, arena);
    refine->only_tail = qem_take(arena, args->k, 1);
    if (args->passes == 0) return;
    refine->sums = qem_take(arena, refine->tables * args->k * v->dim, sizeof(int64_t));
    for (int part = 0; part < refine->parts; part++) refine->counts[part] = qem_take(arena, refine->tables * args->k, sizeof(uint64_t));
}

static qem_status run(qem_refine *refine)
{
    qem_context *context = refine->context;
    const qem_refine_args *args = refine->args;
    qem_arena sizes = { NULL, 0 };
    qem_refine_chunk chunk;
    void *tree_scratch, *scratch;
    const qem_subvectors *v = &args->points;
    QEM_TRY(find_frame(refine));
    qem_codebook_set(&refine->codebook, args->codebook);
    memset(refine->only_tail, 0, args->k);
    for (uint64_t i = 0; refine->codebook.tail_dim && i < refine->all.count; i++) /* bit 0: a tail member, bit 1: a full one */
        refine->only_tail[args->labels[i]] |= qem_subvector_width(v, (uint32_t)i) == v->dim ? 2 : 1;
    for (uint64_t j = 0; j < args->k; j++) refine->only_tail[j] = refine->only_tail[j] == 1;
    if (refine->codebook.pruned) QEM_TRY(order_ids(refine));
    qem_refine_layout_chunk(refine, &chunk, &sizes);
    refine->scratch_bytes = qem_round_up(sizes.used, 64);
    QEM_TRY(qem_allocate(context, qem_codebook_scratch_words(&refine->codebook) + 1, sizeof(uint32_t), &tree_scratch));
    const uint64_t chunks = qem_refine_chunks(refine); /* no more threads than these will be at work */
    const uint64_t workers = chunks < context->threads ? chunks : context->threads;
    qem_status status = qem_allocate(context, workers, refine->scratch_bytes, &scratch);
    if (status == QEM_OK) {
        refine->scratch = scratch;
        status = passes(refine, tree_scratch);
        qem_release(context, scratch);
    }
    qem_release(context, tree_scratch);
    return status;
}

qem_status qem_cpu_refine(qem_context *context, const qem_refine_args *args)
{
    const qem_subvectors *v = &args->points;
    qem_refine refine;
    qem_arena sizes = { NULL, 0 };
    void *memory;
    memset(&refine, 0, sizeof refine);
    refine.context = context;
    refine.args = args;
    refine.parts = v->tail_dim != v->dim ? 2 : 1;
    refine.all.ids = args->order;
    refine.all.count = v->rows * v->groups;
    refine.all.k = args->k;
    refine.all.width = v->dim;
    const int shift = qem_fixed_shift(refine.all.count, 2.0); /* scaled points lie in [-2, 2] */
    refine.sum_scale = ldexp(1.0, shift);
    refine.sum_unit = ldexp(1.0, -shift);
    /* a table of sums a thread, as long as they are together no larger than the points; else one for all */
    refine.shared = context->threads * args->k * (v->dim + 2) * 2 > refine.all.count * v->dim;
    refine.tables = refine.shared ? 1 : context->threads;
    if (context->threads == 1) refine.shared = 0;
    layout(&refine, &sizes);
    QEM_TRY(qem_allocate(context, sizes.used, 1, &memory));
    qem_arena arena = { memory, 0 };
    layout(&refine, &arena);
    const qem_status status = run(&refine);
    qem_release(context, memory);
    return status;
}
