/*
 * The decoder of every method, fused: the matrix passes through memory once. An artifact of one stage that is nothing but
 * lookups and steps of de-standardization goes tile by tile from the codes to the output (decode_tiles.c; decode_blocks.c for
 * scalar codes with scales of rows or blocks). Swaps and sums of layers where groups have codebooks of their own are cut to
 * strips of columns (decode_strips.c). The rest is decoded by whole rows (decode_rows.c), in memory that stays in the caches,
 * converted and stored here.
 */
#include "decode.h"

#include <stdatomic.h>
#include <string.h>

#include "decode_rows.h"
#include "parallel.h"

#define PIECE 65536 /* elements a thread takes at once */

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
    tile.first_bit = (row - stage->row_begin) * tile.row_bits;
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
        kernels->unpack(stage->codes, ((row - stage->row_begin) * stage->groups + whole) * stage->code_bits, 1,
                        stage->code_bits, &code);
    /* a tail group's own codebook has entries of cols % dim floats; a shared one is read in part */
    const size_t width = stride ? (size_t)(cols % stage->dim) : stage->dim;
    return stage->codebook + whole * stride + code * width;
}

/* ---- parts of all ways ---- */

void qem_look_up(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row, uint64_t rows,
                 uint64_t first, uint64_t last, float *out, size_t ld)
{
    const uint64_t whole = qem_whole_groups(stage, cols);
    qem_code_tile tile = qem_row_tile(stage, cols, row);
    tile.first_bit += first * tile.bits;
    tile.codebook += first * tile.group_stride;
    if (tile.half) tile.half += first * tile.group_stride;
    tile.rows = (size_t)rows;
    tile.groups = (size_t)((last < whole ? last : whole) - first);
    tile.out = out;
    tile.row_stride = ld;
    if (tile.groups) kernels->decode_tile(&tile);
    if (last <= whole) return;
    for (uint64_t r = 0; r < rows; r++)
        memcpy(out + r * ld + tile.groups * tile.dim, qem_row_tail(kernels, stage, cols, row + r),
               (size_t)(cols % tile.dim) * sizeof *out);
}

void qem_apply_steps(const qem_cpu_kernels *kernels, const qem_decode_stage *stage, uint64_t cols, uint64_t row, uint64_t rows,
                     uint64_t first, uint64_t width, float *x, size_t stride)
{
    for (uint32_t i = 0; i < stage->affine_count; i++) {
        const qem_decode_affine *step = &stage->affine[i];
        qem_affine_tile tile = { .x = x, .stride = stride, .rows = (size_t)rows, .width = (size_t)width };
        uint64_t unit = 0;
        switch (step->axis) {
        case QEM_AXIS_ROW:
            tile.unit_stride = 1;
            unit = row;
            break;
        case QEM_AXIS_COLUMN:
            tile.block = 1;
            unit = first;
            break;
        case QEM_AXIS_BLOCK:
            tile.block = (size_t)step->block;
            tile.phase = (size_t)(first % step->block);
            tile.unit_stride = (size_t)((cols - 1) / step->block + 1);
            unit = row * tile.unit_stride + first / step->block;
            break;
        default: break; /* the tensor */
        }
        tile.scale = step->scale ? step->scale + unit : NULL;
        tile.mean = step->mean ? step->mean + unit : NULL;
        kernels->affine(&tile);
    }
}

static uint64_t outlier_index(const qem_decode_outliers *o, uint64_t i)
{
    return o->index_size == 8 ? ((const uint64_t *)o->index)[i] : ((const uint32_t *)o->index)[i];
}

/* The first outlier at `element` or after it: by doubling steps from `at`, then by halving. */
static uint64_t find_outlier(const qem_decode_outliers *o, uint64_t element, uint64_t at)
{
    uint64_t low, high, step = 1; /* those before low lie before the element, those from high on do not */
    if (at > o->count) at = o->count;
    if (at < o->count && outlier_index(o, at) < element) {
        low = at + 1;
        while (o->count - low > step && outlier_index(o, low + step) < element) {
            low += step + 1;
            step *= 2;
        }
        high = o->count - low > step ? low + step : o->count;
    } else {
        high = at;
        while (high >= step && outlier_index(o, high - step) >= element) {
            high -= step;
            step *= 2;
        }
        low = high >= step ? high - step + 1 : 0;
    }
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (outlier_index(o, middle) < element)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void qem_write_outliers(const qem_decode_outliers *outliers, uint64_t first, uint64_t n, float *x, uint64_t *at)
{
    if (outliers->count == 0) return;
    uint64_t i = find_outlier(outliers, first, *at);
    for (; i < outliers->count; i++) {
        const uint64_t element = outlier_index(outliers, i) - first;
        if (element >= n) break;
        x[element] = outliers->value[i];
    }
    *at = i;
}

/* ---- whole rows ---- */

typedef struct row_job {
    const qem_decode_args *args;
    qem_row_decoder decoder;
    unsigned char *scratch; /* of each thread: a block of rows, then the decoder's */
    uint64_t scratch_bytes;
    int streaming;
    _Atomic int overflow;
} row_job;

static void decode_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    row_job *job = argument;
    const qem_row_decoder *d = &job->decoder;
    const qem_decode_args *args = job->args;
    const size_t row_bytes = (size_t)args->row_stride * qem_dtype_size(args->dtype);
    float *block = (float *)(job->scratch + thread * job->scratch_bytes);
    uint64_t outlier = 0;
    int overflow = 0;
    for (uint64_t i = begin; i < end; i += d->block) {
        const uint64_t rows = end - i < d->block ? end - i : d->block;
        qem_row_decoder_run(d, args->row_begin + i, rows, block + d->block * d->pitch, block, d->pitch, &outlier);
        overflow |= d->kernels->store_rows(block, d->pitch, (size_t)rows, (size_t)args->cols, args->dtype,
                                           (unsigned char *)args->out + i * row_bytes, (size_t)args->row_stride,
                                           job->streaming);
    }
    if (job->streaming) d->kernels->end_streaming();
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

/* Blocks of rows, many enough for all threads. */
static uint64_t rows_at_once(const row_job *job, uint64_t rows, uint32_t threads)
{
    const uint64_t block = job->decoder.block, share = rows / threads + 1;
    const uint64_t piece = PIECE / job->args->cols > block ? PIECE / job->args->cols / block * block : block;
    return piece < share ? piece : share;
}

static qem_status decode_by_rows(qem_context *context, const qem_decode_args *args)
{
    row_job job = { .args = args };
    const uint64_t rows = args->row_end - args->row_begin;
    const uint32_t threads = rows * args->cols < QEM_DECODE_PARALLEL_ELEMENTS ? 1 : context->threads;
    void *shared = NULL, *scratch;
    qem_row_decoder_plan(&job.decoder, args->cols, args->stages, args->stage_count, &args->outliers);
    if (job.decoder.shared_bytes) QEM_TRY(qem_allocate(context, job.decoder.shared_bytes, 1, &shared));
    qem_row_decoder_prepare(&job.decoder, qem_kernels(context), shared);
    job.scratch_bytes = job.decoder.block * job.decoder.pitch * sizeof(float) + job.decoder.scratch_bytes;
    job.streaming = rows * args->cols * qem_dtype_size(args->dtype) >= QEM_DECODE_STREAM_BYTES;
    const qem_status status = qem_allocate(context, threads, job.scratch_bytes, &scratch);
    if (status == QEM_OK) {
        job.scratch = scratch;
        qem_parallel_for(threads, rows, rows_at_once(&job, rows, threads), decode_rows, &job);
        *args->overflow = job.overflow;
        qem_release(context, scratch);
    }
    qem_release(context, shared);
    return status;
}

qem_status qem_cpu_decode(qem_context *context, const qem_decode_args *args)
{
    *args->overflow = 0;
    if (args->stage_count == 1 && !qem_whole_rows_only(args->stages))
        return qem_decode_by_blocks(args->stages) ? qem_decode_blocks(context, args) : qem_decode_tiles(context, args);
    const uint64_t strips = qem_decode_strip_count(args);
    if (strips > 0) return qem_decode_strips(context, args, strips);
    return decode_by_rows(context, args);
}
