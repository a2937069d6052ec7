/*
 * Decoding of swaps and sums of stages where groups have codebooks of their own, by blocks of rows and strips of columns.
 *
 * Row by row, each lookup of a row would go to another codebook, and all of them together to megabytes. A strip is as
 * many columns of the output as have their codebooks in the second-level cache. Swaps interleave: a node of width w makes
 * columns 2j and 2j + 1 of columns j and w / 2 + j. So where every node splits evenly, a strip of W columns comes from
 * W / 2^L columns of each of the 2^L leaves, and it is as if a matrix of `strips` times the rows, W columns wide, had been
 * swapped: its map has the same bits in the same places, row i and strip s being its row i * strips + s. The steps of a layer
 * and the outliers come after the swaps, where a strip is just some columns of its rows.
 */
#include <stdatomic.h>
#include <string.h>

#include "decode.h"
#include "parallel.h"
#include "swap.h"

#define BLOCK_ROWS 256
#define LEAST_ROWS 64 /* with fewer, codebooks would be fetched for too few lookups */
#define OUTER_BOOK_BYTES (512 << 10)
#define INNER_BOOK_BYTES 32768
#define LEAST_STRIP 64   /* columns */
#define MOST_STRIP 1024  /* a block of them stays in the second-level cache */
#define PITCH_PADDING 16 /* floats: rows a power of two apart would share a few sets of the first-level cache */

typedef struct strip_job {
    const qem_cpu_kernels *kernels;
    const qem_decode_args *args;
    const qem_swap_tree *trees; /* one a stage, of the matrix of strips */
    uint64_t rows, strips, block, blocks;
    size_t width, pitch; /* floats of a strip; from row to row in a block */
    float *scratch;
    uint64_t scratch_floats; /* of each thread */
    int streaming;
    _Atomic int overflow;
} strip_job;

typedef struct strip_scratch {
    float *block, *sums, *spare;
    uint64_t *bits;
    uint64_t outlier; /* where the next ones may begin */
} strip_scratch;

/* Floats in whose place the map bits of a row lie, whole lines. */
static uint64_t bit_floats(size_t width)
{
    return (qem_swap_row_words(width) * sizeof(uint64_t) + QEM_LINE - 1) / QEM_LINE * (QEM_LINE / sizeof(float));
}

static strip_scratch scratch_of(const strip_job *job, uint32_t thread)
{
    const size_t block = (size_t)job->block * job->pitch;
    strip_scratch s;
    s.block = job->scratch + thread * job->scratch_floats;
    s.sums = s.block + block;
    s.spare = s.sums + (job->args->stage_count > 1 ? block : 0);
    s.bits = (uint64_t *)(s.spare + job->pitch);
    s.outlier = 0;
    return s;
}

/* Groups whose codebooks stay in the first-level cache. */
static uint64_t inner_groups(const qem_code_tile *tile)
{
    const uint64_t book = tile->k * tile->dim * (tile->half ? sizeof *tile->half : sizeof *tile->codebook);
    return tile->group_stride && book < INNER_BOOK_BYTES ? INNER_BOOK_BYTES / book : 1;
}

/* The groups from `group` on, of one leaf, for all rows of the block. */
static void decode_leaf(const strip_job *job, qem_code_tile tile, uint64_t group, uint64_t groups, float *out)
{
    const uint64_t end = group + groups, inner = tile.group_stride ? inner_groups(&tile) : groups;
    tile.row_stride = job->pitch;
    const qem_code_tile all = tile;
    for (uint64_t at = group, next; at < end; at = next, out += tile.groups * tile.dim) {
        next = end - at < inner ? end : at + inner;
        tile.first_bit = all.first_bit + at * all.bits;
        tile.codebook = all.codebook + at * all.group_stride;
        if (all.half) tile.half = all.half + at * all.group_stride;
        tile.groups = (size_t)(next - at);
        tile.out = out;
        job->kernels->decode_tile(&tile);
    }
}

/* One stage of rows row .. row + rows - 1 of the artifact, in the order before the swaps are undone. */
static void decode_leaves(const strip_job *job, uint32_t index, uint64_t row, uint64_t rows, uint64_t strip, float *out)
{
    const qem_decode_stage *stage = &job->args->stages[index];
    const uint64_t leaf = job->width >> stage->levels, groups = leaf / stage->dim;
    qem_code_tile tile = qem_row_tile(stage, job->args->cols, row);
    tile.rows = (size_t)rows;
    for (uint64_t i = 0; i < (uint64_t)1 << stage->levels; i++)
        decode_leaf(job, tile, (i * job->strips + strip) * groups, groups, out + i * leaf);
}

/* The sum of a row's stages up to `index`. */
static float *sum_of_stages(const strip_job *job, uint32_t index, float *row, float *sum)
{
    if (job->args->stage_count == 1) return row;
    if (index == 0)
        memcpy(sum, row, job->width * sizeof *sum);
    else
        job->kernels->add(row, job->width, sum);
    return sum;
}

static int decode_block(const strip_job *job, uint64_t begin, uint64_t rows, uint64_t strip, strip_scratch *s)
{
    const qem_decode_args *args = job->args;
    const size_t width = job->width, element = qem_dtype_size(args->dtype);
    unsigned char *out = (unsigned char *)args->out + (begin * args->row_stride + strip * width) * element;
    int overflow = 0;
    for (uint32_t i = 0; i < args->stage_count; i++) {
        const qem_decode_stage *stage = &args->stages[i];
        decode_leaves(job, i, args->row_begin + begin, rows, strip, s->block);
        for (uint64_t r = 0; r < rows; r++) {
            const uint64_t at = args->row_begin + begin + r, swapped = (at - stage->row_begin) * job->strips + strip;
            float *row = qem_swap_restore_row(job->kernels, &job->trees[i], stage->swap_map, swapped, s->block + r * job->pitch,
                                              s->spare, s->bits);
            qem_apply_steps(job->kernels, stage, args->cols, at, 1, strip * width, width, row, width);
            row = sum_of_stages(job, i, row, s->sums + r * job->pitch);
            if (i + 1 < args->stage_count) continue;
            qem_write_outliers(&args->outliers, at * args->cols + strip * width, width, row, &s->outlier);
            overflow |= job->kernels->store_rows(row, width, 1, width, args->dtype, out + r * args->row_stride * element, width,
                                                 job->streaming);
        }
    }
    return overflow;
}

/* Items are the blocks of rows of the first strip, then those of the second, ... */
static void decode_items(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    strip_job *job = argument;
    strip_scratch s = scratch_of(job, thread);
    int overflow = 0;
    for (uint64_t item = begin; item < end; item++) {
        const uint64_t row = item % job->blocks * job->block, left = job->rows - row;
        overflow |= decode_block(job, row, left < job->block ? left : job->block, item / job->blocks, &s);
    }
    if (job->streaming) job->kernels->end_streaming();
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

/* Whether strips of so many columns hold whole groups of all leaves of a stage, and no more codebooks than shall be. */
static int fits(const qem_decode_stage *stage, uint64_t width)
{
    const uint64_t entry = stage->codebook_half && stage->dim > 1 ? sizeof(uint16_t) : sizeof(float);
    if (stage->cells || stage->group_bits || width % ((uint64_t)stage->dim << stage->levels)) return 0;
    return stage->kind != QEM_CODEBOOK_PER_GROUP || width * stage->k * entry <= OUTER_BOOK_BYTES;
}

/* The number of strips, the fewest that will do; 0 if none will. */
uint64_t qem_decode_strip_count(const qem_decode_args *args)
{
    int own_codebooks = 0;
    for (uint32_t i = 0; i < args->stage_count; i++) own_codebooks |= args->stages[i].kind == QEM_CODEBOOK_PER_GROUP;
    if (!own_codebooks || args->row_end - args->row_begin < LEAST_ROWS) return 0;
    for (uint64_t strips = 1; args->cols / strips >= LEAST_STRIP; strips++) {
        const uint64_t width = args->cols / strips;
        int fit = args->cols % strips == 0 && width <= MOST_STRIP;
        for (uint32_t i = 0; fit && i < args->stage_count; i++) fit = fits(&args->stages[i], width);
        if (fit) return strips;
    }
    return 0;
}

qem_status qem_decode_strips(qem_context *context, const qem_decode_args *args, uint64_t strips)
{
    strip_job job = { .kernels = qem_kernels(context), .args = args, .strips = strips };
    void *trees, *scratch;
    job.rows = args->row_end - args->row_begin;
    job.width = (size_t)(args->cols / strips);
    job.pitch = (job.width + 15) / 16 * 16 + PITCH_PADDING;
    job.block = job.rows < BLOCK_ROWS ? job.rows : BLOCK_ROWS;
    job.blocks = (job.rows - 1) / job.block + 1;
    job.streaming = job.rows * args->cols * qem_dtype_size(args->dtype) >= QEM_DECODE_STREAM_BYTES;
    job.scratch_floats = ((args->stage_count > 1 ? 2 : 1) * job.block + 1) * job.pitch + bit_floats(job.width);
    QEM_TRY(qem_allocate(context, args->stage_count, sizeof(qem_swap_tree), &trees));
    for (uint32_t i = 0; i < args->stage_count; i++)
        qem_swap_tree_make((qem_swap_tree *)trees + i, (args->stages[i].row_end - args->stages[i].row_begin) * strips, job.width,
                           args->stages[i].levels);
    job.trees = trees;
    const uint32_t threads = job.rows * args->cols < QEM_DECODE_PARALLEL_ELEMENTS ? 1 : context->threads;
    const qem_status status = qem_allocate(context, threads, job.scratch_floats * sizeof(float), &scratch);
    if (status == QEM_OK) {
        job.scratch = scratch;
        qem_parallel_for(threads, job.strips * job.blocks, 1, decode_items, &job);
        *args->overflow = job.overflow;
        qem_release(context, scratch);
    }
    qem_release(context, trees);
    return status;
}
