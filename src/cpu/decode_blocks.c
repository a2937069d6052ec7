/*
 * Decoding of scalar codes with a scale for each row or block of a row, as matrices of language models are stored: unpacked,
 * looked up, scaled and stored in one pass. Outputs of f32 whose rows begin with lines are written by the kernel itself; others
 * go through chunks of columns in the first-level cache, where outliers are written too.
 */
#include <stdatomic.h>

#include "decode.h"
#include "parallel.h"

#define PIECE 65536 /* elements a thread takes at once */
#define CHUNK 4096  /* columns through scratch at once: whole blocks, or within one */
#define LEAST_SHIFT 3
#define ONE_BLOCK 63 /* shift of a block as wide as the row */

typedef struct block_job {
    const qem_cpu_kernels *kernels;
    const qem_decode_args *args;
    qem_block_tile tile; /* what is the same for all rows, and the first of them */
    int direct, streaming;
    float *scratch;      /* of each thread: a chunk */
    _Atomic int overflow;
} block_job;

/* log2 of a power of two, or 64. */
static uint32_t shift_of(uint64_t block)
{
    for (uint32_t shift = 0; shift < 64; shift++)
        if (block == (uint64_t)1 << shift) return shift;
    return 64;
}

int qem_decode_by_blocks(const qem_decode_stage *stage)
{
    const qem_decode_affine *step = stage->affine;
    if (stage->dim != 1 || stage->kind == QEM_CODEBOOK_PER_GROUP || stage->code_bits == 0) return 0;
    if (stage->affine_count < 1 || stage->affine_count > 2) return 0;
    if (stage->affine_count == 2 && step[1].axis != QEM_AXIS_COLUMN) return 0;
    if (step->axis == QEM_AXIS_BLOCK) return shift_of(step->block) >= LEAST_SHIFT && shift_of(step->block) < 64;
    return step->axis == QEM_AXIS_TENSOR || step->axis == QEM_AXIS_ROW;
}

static int all_integers(const qem_decode_stage *stage)
{
    for (uint64_t j = 0; j < stage->k; j++)
        if (stage->codebook[j] != (float)j) return 0;
    return 1;
}

qem_block_tile qem_block_tile_of(const qem_decode_stage *stage, uint64_t cols, uint64_t row)
{
    const qem_decode_affine *step = stage->affine, *columns = stage->affine_count > 1 ? step + 1 : NULL;
    const qem_code_tile codes = qem_row_tile(stage, cols, row);
    qem_block_tile tile = { .stream = codes.stream, .first_bit = codes.first_bit, .row_bits = codes.row_bits,
                            .bits = codes.bits, .codebook = codes.codebook, .k = codes.k, .integers = all_integers(stage),
                            .width = (size_t)cols, .block_shift = ONE_BLOCK };
    if (step->axis == QEM_AXIS_ROW) tile.unit_stride = 1;
    if (step->axis == QEM_AXIS_BLOCK) {
        tile.block_shift = shift_of(step->block);
        tile.unit_stride = (size_t)((cols - 1) / step->block + 1);
    }
    tile.scale = step->scale ? step->scale + row * tile.unit_stride : NULL;
    tile.mean = step->mean ? step->mean + row * tile.unit_stride : NULL;
    tile.columns = columns != NULL;
    tile.column_scale = columns ? columns->scale : NULL;
    tile.column_mean = columns ? columns->mean : NULL;
    return tile;
}

qem_block_tile qem_block_tile_part(const qem_block_tile *whole, uint64_t down, uint64_t first, uint64_t width)
{
    qem_block_tile tile = *whole;
    const size_t unit = (size_t)(down * tile.unit_stride + (first >> tile.block_shift));
    tile.first_bit += down * tile.row_bits + first * tile.bits;
    tile.width = (size_t)width;
    if (tile.scale) tile.scale += unit;
    if (tile.mean) tile.mean += unit;
    if (tile.column_scale) tile.column_scale += first;
    if (tile.column_mean) tile.column_mean += first;
    return tile;
}

static void *output_at(const block_job *job, uint64_t row, uint64_t column)
{
    return (unsigned char *)job->args->out + (row * job->args->row_stride + column) * qem_dtype_size(job->args->dtype);
}

/* As many rows as fill the scratch, or a chunk of one row. */
static int decode_by_chunks(const block_job *job, uint64_t row, uint64_t rows, float *scratch)
{
    const qem_decode_args *args = job->args;
    const uint64_t cols = args->cols, most = cols < CHUNK ? CHUNK / cols : 1;
    uint64_t outlier = 0;
    int overflow = 0;
    for (uint64_t r = 0; r < rows; r += most) {
        const uint64_t here = rows - r < most ? rows - r : most;
        for (uint64_t first = 0; first < cols; first += CHUNK) {
            const uint64_t width = cols - first < CHUNK ? cols - first : CHUNK;
            qem_block_tile tile = qem_block_tile_part(&job->tile, row + r, first, width);
            tile.rows = (size_t)here;
            tile.out = scratch;
            tile.row_stride = (size_t)width;
            job->kernels->decode_blocks(&tile);
            for (uint64_t i = 0; args->outliers.count && i < here; i++)
                qem_write_outliers(&args->outliers, (args->row_begin + row + r + i) * cols + first, width, scratch + i * width,
                                   &outlier);
            overflow |= job->kernels->store_rows(scratch, (size_t)width, (size_t)here, (size_t)width, args->dtype,
                                                 output_at(job, row + r, first), (size_t)args->row_stride, job->streaming);
        }
    }
    return overflow;
}

static void decode_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    block_job *job = argument;
    int overflow = 0;
    if (job->direct) {
        qem_block_tile tile = qem_block_tile_part(&job->tile, begin, 0, job->args->cols);
        tile.rows = (size_t)(end - begin);
        tile.out = output_at(job, begin, 0);
        tile.row_stride = (size_t)job->args->row_stride;
        tile.streaming = job->streaming;
        job->kernels->decode_blocks(&tile);
    } else {
        overflow = decode_by_chunks(job, begin, end - begin, job->scratch + (size_t)thread * CHUNK);
    }
    if (job->streaming) job->kernels->end_streaming();
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

qem_status qem_decode_blocks(qem_context *context, const qem_decode_args *args)
{
    block_job job = { .kernels = qem_kernels(context), .args = args };
    const uint64_t rows = args->row_end - args->row_begin, elements = rows * args->cols;
    const uint32_t threads = elements < QEM_DECODE_PARALLEL_ELEMENTS ? 1 : context->threads;
    const size_t line = QEM_LINE / sizeof(float);
    void *scratch = NULL;
    job.tile = qem_block_tile_of(args->stages, args->cols, args->row_begin);
    job.streaming = elements * qem_dtype_size(args->dtype) >= QEM_DECODE_STREAM_BYTES;
    const int lines = (uintptr_t)args->out % QEM_LINE == 0 && args->row_stride % line == 0;
    job.direct = args->dtype == QEM_DTYPE_F32 && args->outliers.count == 0 && (lines || !job.streaming);
    if (!job.direct) QEM_TRY(qem_allocate(context, (uint64_t)threads * CHUNK, sizeof(float), &scratch));
    job.scratch = scratch;
    qem_parallel_for(threads, rows, args->cols >= PIECE ? 1 : PIECE / args->cols, decode_piece, &job);
    *args->overflow = job.overflow;
    qem_release(context, scratch);
    return QEM_OK;
}
