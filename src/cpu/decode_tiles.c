/*
 * Decoding of one stage that is nothing but lookups, steps of de-standardization and outliers, tile by tile.
 *
 * Lookups alone go from the codes to the output; steps and outliers go over parts of a tile in the first-level cache. A shared
 * codebook whose rows lie side by side in codes and output is one long run of codes. Other matrices are walked in
 * tiles, groups by rows, for two reasons. Each group has a codebook of its own: a row of 4096 columns by 4 at k = 256 looks
 * into 4 MiB of them, and the next row into the same 4 MiB again. So a tile takes only as many groups as have their codebooks
 * in the second-level cache, and inside it a narrower tile as many as have them in the first, and walks down a thousand
 * rows with them before it goes on to the next groups. And a core has few buffers for lines under way, which a streamed line
 * occupies for long: any load that misses the first-level cache takes one of them from the streaming stores. So the codes of a
 * tile, of which a narrow one needs but a few bytes of each line, are first gathered to side by side for each narrow tile.
 */
#include <stdatomic.h>
#include <string.h>

#include "decode.h"
#include "parallel.h"

#define PIECE 65536         /* elements a thread takes at once where there are no tiles */
#define SCRATCH_FLOATS 1024 /* decoded before they are converted: they stay in the first-level cache */
#define STEPPED_FLOATS 4096 /* the same with steps, which cost a call each */
#define BLOCK_ROWS 1024     /* of a tile, before the next groups */
#define LEAST_TILE_ROWS 32  /* with fewer rows codebooks would be fetched for too few lookups */
#define GATHERED_BYTES (1280 << 10) /* of codes: they stay in the second-level cache beside the codebooks */
#define GATHERED_ROWS 16    /* at once */
#define INNER_BOOK_BYTES 32768
#define OUTER_BOOK_BYTES (512 << 10)
#define LEAST_INNER_BYTES 128 /* of output in a row: single lines are streamed at half the speed */
#define PIECES_A_THREAD 8

typedef struct tile_job {
    const qem_cpu_kernels *kernels;
    const qem_decode_args *args;
    const qem_decode_stage *stage;
    uint64_t rows, groups;       /* of the rectangle to decode, without tail groups; a run is one row */
    uint64_t row_stride;         /* elements */
    size_t element;              /* bytes of an output element */
    uint64_t first;              /* groups before the first tile, so that tiles begin with a line of the output */
    uint64_t outer, inner;       /* groups of the tiles */
    uint64_t tiles;              /* outer ones in a row */
    uint64_t block, blocks;      /* rows of a tile; blocks of rows */
    size_t gathered_row;         /* bytes of the codes of an inner tile in a row if they are gathered, else 0 */
    size_t gathered_tile;        /* and of all rows of an inner tile */
    uint64_t part_groups, part_floats; /* decoded to scratch at once; their number with all rows */
    int streaming, direct;       /* direct: decode_tile writes the output itself */
    unsigned char *scratch;      /* of each thread: floats, unless direct, and gathered codes */
    size_t scratch_floats, scratch_bytes;
    _Atomic int overflow;
} tile_job;

/* ---- one tile ---- */

static qem_code_tile part_of(const qem_code_tile *tile, uint64_t row, uint64_t rows, uint64_t group, uint64_t groups)
{
    qem_code_tile part = *tile;
    part.first_bit += row * tile->row_bits + group * tile->bits;
    part.codebook += group * tile->group_stride;
    if (part.half) part.half += group * tile->group_stride;
    part.rows = (size_t)rows;
    part.groups = (size_t)groups;
    return part;
}

static void *output_at(const tile_job *job, uint64_t row, uint64_t group)
{
    return (unsigned char *)job->args->out + (row * job->row_stride + group * job->stage->dim) * job->element;
}

/* Columns of a rectangle of groups: of a run, elements from its beginning on. */
static void finish_part(const tile_job *job, uint64_t row, uint64_t rows, uint64_t column, size_t width, float *x, uint64_t *outlier)
{
    const qem_decode_args *args = job->args;
    const uint64_t at = args->row_begin + row;
    qem_apply_steps(job->kernels, job->stage, args->cols, at, rows, column, width, x, width);
    for (uint64_t r = 0; args->outliers.count && r < rows; r++)
        qem_write_outliers(&args->outliers, (at + r) * args->cols + column, width, x + r * width, outlier);
}

/* Other types than f32, entries that do not fill lines, steps, outliers: through scratch. */
static int decode_by_scratch(const tile_job *job, const qem_code_tile *tile, uint64_t row, uint64_t group, float *scratch,
                             uint64_t *outlier)
{
    int overflow = 0;
    for (uint64_t g = 0; g < tile->groups; g += job->part_groups) {
        const uint64_t groups = tile->groups - g < job->part_groups ? tile->groups - g : job->part_groups;
        const size_t width = (size_t)groups * tile->dim;
        const uint64_t most = width < job->part_floats ? job->part_floats / width : 1;
        for (uint64_t r = 0; r < tile->rows; r += most) {
            const uint64_t rows = tile->rows - r < most ? tile->rows - r : most;
            qem_code_tile part = part_of(tile, r, rows, g, groups);
            part.out = scratch;
            part.row_stride = width;
            job->kernels->decode_tile(&part);
            finish_part(job, row + r, rows, (group + g) * tile->dim, width, scratch, outlier);
            overflow |= job->kernels->store_rows(scratch, width, (size_t)rows, width, job->args->dtype,
                                                 output_at(job, row + r, group + g), (size_t)job->row_stride, job->streaming);
        }
    }
    return overflow;
}

static int decode_one(const tile_job *job, const qem_code_tile *tile, uint64_t row, uint64_t group, float *scratch,
                      uint64_t *outlier)
{
    if (!job->direct) return decode_by_scratch(job, tile, row, group, scratch, outlier);
    qem_code_tile direct = *tile;
    direct.out = output_at(job, row, group);
    direct.row_stride = (size_t)job->row_stride;
    direct.streaming = job->streaming;
    job->kernels->decode_tile(&direct);
    return 0;
}

/* The tail groups of rows that have one, where the rest of the row is not one run with the next. */
static int decode_tails(const tile_job *job, uint64_t row, uint64_t rows, float *scratch, uint64_t *outlier)
{
    const uint64_t cols = job->args->cols;
    const size_t width = (size_t)(cols % job->stage->dim);
    int overflow = 0;
    for (uint64_t i = row; i < row + rows; i++) {
        const float *tail = qem_row_tail(job->kernels, job->stage, cols, job->args->row_begin + i);
        if (!job->direct) {
            memcpy(scratch, tail, width * sizeof *tail);
            finish_part(job, i, 1, cols - width, width, scratch, outlier);
            tail = scratch;
        }
        overflow |= job->kernels->store_rows(tail, 0, 1, width, job->args->dtype, output_at(job, i, job->groups), 0, 0);
    }
    return overflow;
}

/* Tile t of a row has the groups from edge t to edge t + 1. */
static uint64_t edge(const tile_job *job, uint64_t t)
{
    const uint64_t at = t == 0 ? 0 : job->first + t * job->outer;
    return at < job->groups ? at : job->groups;
}

/* The inner tile that begins with `group` ends with this group or before. The first groups are a tile of their own if codes are
 * gathered, else part of the first one. */
static uint64_t inner_end(const tile_job *job, uint64_t group, uint64_t end)
{
    uint64_t next = group + job->inner;
    if (group == 0 && job->first > 0) next = job->gathered_row ? job->first : job->first + job->inner;
    return next < end ? next : end;
}

/* `bytes` bytes of each of `rows` rows to rows of `step` bytes, in steps of 8 or 16: what the last one has too much is written over
 * by the next row, or lies behind all of them. */
static void gather_rows(const uint8_t *from, size_t row_bytes, size_t bytes, uint64_t rows, uint8_t *to, size_t step)
{
    if (bytes <= 8)
        for (uint64_t r = 0; r < rows; r++, from += row_bytes, to += step) memcpy(to, from, 8);
    else
        for (uint64_t r = 0; r < rows; r++, from += row_bytes, to += step)
            for (size_t i = 0; i < bytes; i += 16) memcpy(to + i, from + i, 16);
}

/* The codes of a tile, `bytes` bytes a row: inner tile by inner tile. A few rows at once, so that both what is read and what
 * is written are few lines, and the next few are fetched meanwhile. */
static void gather_codes(const tile_job *job, const uint8_t *from, size_t row_bytes, size_t bytes, uint64_t rows,
                         uint8_t *to)
{
    for (uint64_t r = 0; r < rows; r += GATHERED_ROWS) {
        const uint64_t left = rows - r, some = left < GATHERED_ROWS ? left : GATHERED_ROWS;
        for (uint64_t ahead = GATHERED_ROWS; ahead < 2 * GATHERED_ROWS && ahead < left; ahead++)
            for (size_t i = 0; i < bytes; i += QEM_LINE) __builtin_prefetch(from + ahead * row_bytes + i);
        uint8_t *tile = to;
        for (size_t at = 0; at < bytes; at += job->gathered_row, tile += job->gathered_tile)
            gather_rows(from + at, row_bytes, bytes - at < job->gathered_row ? bytes - at : job->gathered_row, some, tile,
                        job->gathered_row);
        from += GATHERED_ROWS * row_bytes;
        to += GATHERED_ROWS * job->gathered_row;
    }
}

/* The codebooks of an inner tile, in their order, as memory likes it, not as they are looked up; but not for a few rows. */
static void fetch_codebooks(const qem_code_tile *tile)
{
    const size_t element = tile->half ? sizeof *tile->half : sizeof *tile->codebook;
    const unsigned char *book = tile->half ? (const unsigned char *)tile->half : (const unsigned char *)tile->codebook;
    if (tile->rows < tile->k * tile->dim * element / QEM_LINE) return;
    for (size_t i = 0; i < tile->groups * tile->group_stride * element; i += QEM_LINE) __builtin_prefetch(book + i);
}

static int decode_tile_of_rows(const tile_job *job, uint64_t t, uint64_t row, uint64_t rows, unsigned char *scratch,
                               uint64_t *outlier)
{
    const qem_code_tile all = qem_row_tile(job->stage, job->args->cols, job->args->row_begin + row);
    const uint64_t begin = edge(job, t), end = edge(job, t + 1);
    const uint64_t from = t == 0 && job->first < end ? job->first : begin; /* gathered from there on */
    float *floats = (float *)scratch;
    uint8_t *codes = scratch ? scratch + job->scratch_floats * sizeof(float) : NULL;
    int overflow = 0;
    if (job->gathered_row)
        gather_codes(job, all.stream + (all.first_bit + from * all.bits) / 8, all.row_bits / 8,
                     ((end - from) * all.bits + 7) / 8, rows, codes);
    for (uint64_t group = begin, next; group < end; group = next) {
        next = inner_end(job, group, end);
        qem_code_tile tile = part_of(&all, 0, rows, group, next - group);
        if (job->gathered_row && group >= from) {
            tile.stream = codes;
            tile.first_bit = 0;
            tile.row_bits = job->gathered_row * 8;
            codes += job->gathered_tile;
            fetch_codebooks(&tile);
        }
        overflow |= decode_one(job, &tile, row, group, floats, outlier);
    }
    if (t + 1 == job->tiles && job->args->cols % job->stage->dim) overflow |= decode_tails(job, row, rows, floats, outlier);
    return overflow;
}

/* Items are the blocks of rows of the first tile, then those of the second, ... */
static void decode_items(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    tile_job *job = argument;
    unsigned char *scratch = job->scratch ? job->scratch + thread * job->scratch_bytes : NULL;
    uint64_t outlier = 0;
    int overflow = 0;
    for (uint64_t item = begin; item < end; item++) {
        const uint64_t row = item % job->blocks * job->block, left = job->rows - row;
        overflow |= decode_tile_of_rows(job, item / job->blocks, row, left < job->block ? left : job->block, scratch,
                                        &outlier);
    }
    if (job->streaming) job->kernels->end_streaming();
    if (overflow) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
}

/* ---- the choice of the tiles ---- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The most groups, at least one unit and a multiple of it, whose codebooks have at most so many bytes. */
static uint64_t groups_within(const tile_job *job, uint64_t bytes, uint64_t unit)
{
    const qem_code_tile tile = qem_row_tile(job->stage, job->args->cols, job->args->row_begin);
    const uint64_t book = tile.k * tile.dim * (tile.half ? sizeof *tile.half : sizeof *tile.codebook);
    const uint64_t fit = bytes / book / unit * unit;
    return fit ? fit : unit;
}

/* Whether the codes of inner tiles can be gathered: in each row they begin with a byte; and shall: they are less than a line. */
static int gathers(const tile_job *job)
{
    const qem_code_tile tile = qem_row_tile(job->stage, job->args->cols, job->args->row_begin);
    return tile.bits > 0 && tile.first_bit % 8 == 0 && tile.row_bits % 8 == 0 && job->first * tile.bits % 8 == 0 &&
           job->inner * tile.bits % 8 == 0 && job->inner < job->groups && job->inner * tile.bits / 8 < QEM_LINE;
}

/* Tiles of as many rows as fit, so that codebooks that do not stay in the second-level cache pass through it once; but enough of
 * them for all threads. */
static void choose_tall_tiles(tile_job *job, uint32_t threads)
{
    const uint64_t rows = GATHERED_BYTES / job->gathered_row, pieces = PIECES_A_THREAD * (uint64_t)threads;
    const uint64_t columns = (job->groups - 1) / job->inner + 1, share = job->rows * columns / pieces;
    const uint64_t block = share > BLOCK_ROWS ? share : BLOCK_ROWS, most = block < rows ? block : rows;
    job->block = job->rows < most ? job->rows : most;
    const uint64_t fit = rows / job->block, wide = columns / pieces < fit ? columns / pieces : fit;
    job->outer = job->inner * (wide > 1 ? wide : 1);
}

/* Gathers the codes of as many inner tiles as have their codebooks in the second-level cache. */
static void choose_gathered(tile_job *job, uint32_t threads)
{
    job->gathered_row = job->inner * job->stage->code_bits / 8;
    if (job->outer < job->inner) job->outer = job->inner;
    job->outer -= job->outer % job->inner;
    if (job->outer < job->groups && job->outer / job->inner * job->gathered_row < QEM_LINE) choose_tall_tiles(job, threads);
    job->gathered_tile = ((size_t)job->block * job->gathered_row + 16 + QEM_LINE - 1) / QEM_LINE * QEM_LINE + QEM_LINE;
}

/* `unit`: the fewest groups that fill lines of the output. */
static void choose_tiles(tile_job *job, uint64_t unit, uint32_t threads)
{
    const size_t entry = job->stage->dim * job->element;
    const int whole_pitch = job->row_stride * job->element % QEM_LINE == 0;
    job->outer = job->groups > 0 ? job->groups : 1;
    job->block = job->args->cols >= PIECE ? 1 : PIECE / job->args->cols;
    if (job->rows == 1) job->outer = (PIECE / job->stage->dim + unit) / unit * unit;
    job->inner = job->outer;
    if (job->stage->kind != QEM_CODEBOOK_PER_GROUP || job->rows < LEAST_TILE_ROWS) return;
    job->block = job->rows < BLOCK_ROWS ? job->rows : BLOCK_ROWS;
    const uint64_t least = (LEAST_INNER_BYTES - 1) / (unit * entry) * unit + unit;
    const uint64_t inner = groups_within(job, INNER_BOOK_BYTES, unit), outer = groups_within(job, OUTER_BOOK_BYTES, unit);
    if (outer < job->outer) job->outer = outer;
    /* what is streamed has narrow tiles only where all their edges are edges of lines: ordinary stores to parts of lines cost
     * more than they save */
    const int narrow = !job->streaming || whole_pitch;
    job->inner = inner > least ? inner : least;
    if (job->inner > 8) job->inner -= job->inner % 8; /* codes of eight groups fill whole bytes */
    if (narrow && gathers(job))
        choose_gathered(job, threads);
    else if (!narrow || inner < least || job->inner > job->outer)
        job->inner = job->outer;
}

static void choose_way(tile_job *job, uint32_t threads)
{
    const qem_decode_args *args = job->args;
    const qem_decode_stage *stage = job->stage;
    const size_t entry = stage->dim * job->element;
    const uint64_t unit = QEM_LINE / common_divisor(QEM_LINE, entry);
    job->rows = args->row_end - args->row_begin;
    job->groups = qem_whole_groups(stage, args->cols);
    job->row_stride = args->row_stride;
    const uint64_t elements = job->rows * args->cols;
    if (stage->kind != QEM_CODEBOOK_PER_GROUP && job->groups == stage->groups && job->row_stride == args->cols &&
        stage->affine_count == 0) {
        job->groups *= job->rows; /* one long run */
        job->rows = 1;
    }
    job->streaming = elements * job->element >= QEM_DECODE_STREAM_BYTES && job->groups * entry >= LEAST_INNER_BYTES;
    job->direct = args->dtype == QEM_DTYPE_F32 && stage->affine_count == 0 && args->outliers.count == 0 &&
                  (!job->streaming ||
                   qem_can_stream(stage->dim, args->out, job->rows > 1 ? (size_t)job->row_stride : stage->dim));
    job->first = 0;
    while (job->first < unit && ((uintptr_t)args->out + job->first * entry) % QEM_LINE) job->first++;
    if (job->first == unit) job->first = 0; /* no entry begins with a line */
    choose_tiles(job, unit, threads);
    job->part_floats = stage->affine_count ? STEPPED_FLOATS : SCRATCH_FLOATS;
    job->part_groups = job->part_floats / stage->dim / unit * unit;
    if (job->part_groups == 0) job->part_groups = job->part_floats / stage->dim > 0 ? job->part_floats / stage->dim : 1;
    job->blocks = (job->rows - 1) / job->block + 1;
    job->tiles = job->groups > job->first + job->outer ? (job->groups - job->first - 1) / job->outer + 1 : 1;
}

qem_status qem_decode_tiles(qem_context *context, const qem_decode_args *args)
{
    tile_job job = { .kernels = qem_kernels(context), .args = args, .stage = args->stages };
    const uint64_t elements = (args->row_end - args->row_begin) * args->cols;
    const uint32_t threads = elements < QEM_DECODE_PARALLEL_ELEMENTS ? 1 : context->threads;
    void *scratch = NULL;
    job.element = qem_dtype_size(args->dtype);
    choose_way(&job, threads);
    if (!job.direct) {
        const size_t entry = (job.stage->dim + 15u) / 16u * 16u;
        job.scratch_floats = entry > job.part_floats ? entry : job.part_floats;
    }
    job.scratch_bytes = job.scratch_floats * sizeof(float) + (size_t)(job.outer / job.inner) * job.gathered_tile;
    if (job.scratch_bytes) QEM_TRY(qem_allocate(context, threads, job.scratch_bytes, &scratch));
    job.scratch = scratch;
    /* threads keep to a tile as long as the work can still be shared out evenly: each fetches its codebooks for itself */
    const uint64_t items = job.tiles * job.blocks, even = items / (PIECES_A_THREAD * (uint64_t)threads);
    const uint64_t grain = even > job.blocks ? job.blocks : even > 1 ? even : 1;
    qem_parallel_for(threads, items, grain, decode_items, &job);
    *args->overflow = job.overflow;
    qem_release(context, scratch);
    return QEM_OK;
}
