/*
 * The elements of the largest scores |x - mean| * inverse. Scores are >= 0, so their bits order as they do: the least score
 * that is taken comes from a histogram of the upper 16 bits and one of the lower 15 of those that share them; then all
 * above it are taken, and of those equal to it the first ones. Scores are made anew in each of the passes, never stored.
 */
#include <math.h>
#include <string.h>

#include "../core/half.h"
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define STRIP 512        /* columns worked on at once */
#define PIECE 65536      /* elements of a chunk, whole rows */
#define UPPER 65536      /* bins by the bits above the lowest 15 (the sign is 0) */
#define LOWER 32768
#define LOWER_BITS 15

typedef struct tally {
    uint64_t above, equal; /* elements of a chunk with a score above the limit, and equal to it */
} tally;

typedef struct outliers_job {
    const float *x, *mean, *inverse;
    uint64_t rows, cols, chunk_rows;
    uint64_t *bins;  /* one table a thread */
    uint32_t bin;    /* UINT32_MAX: by the upper bits; else of scores with these upper bits, by the lower */
    uint32_t limit;  /* bits of a score */
    tally *tallies;  /* one a chunk; later: where its outliers go, and how many equal ones it may take */
    uint64_t *index;
} outliers_job;

static uint64_t chunk_count(const outliers_job *job)
{
    return (job->rows - 1) / job->chunk_rows + 1;
}

/* Bits of the scores of n <= STRIP elements of a row. NaN (an infinite difference in a column without deviation) is 0. */
static void score_strip(const outliers_job *job, uint64_t row, uint64_t col, size_t n, uint32_t *bits)
{
    const float *x = job->x + row * job->cols + col, *mean = job->mean + col, *inverse = job->inverse + col;
    float score[STRIP];
    for (size_t i = 0; i < n; i++) score[i] = fabsf(x[i] - mean[i]) * inverse[i];
    for (size_t i = 0; i < n; i++) {
        const uint32_t u = qem_float_bits(score[i]) & 0x7fffffffu;
        bits[i] = u > 0x7f800000u ? 0 : u;
    }
}

static uint64_t strip_width(const outliers_job *job, uint64_t col)
{
    return job->cols - col < STRIP ? job->cols - col : STRIP;
}

static uint64_t row_after(const outliers_job *job, uint64_t chunk)
{
    const uint64_t first = chunk * job->chunk_rows;
    return job->rows - first < job->chunk_rows ? job->rows : first + job->chunk_rows;
}

/* Strips of a chunk's rows: the columns from col on, strip_width of them. */
#define FOR_EACH_STRIP(job, chunk, row, col)                                                                \
    for (uint64_t row = (chunk) * (job)->chunk_rows; row < row_after(job, chunk); row++)                    \
        for (uint64_t col = 0; col < (job)->cols; col += STRIP)

static void count_bins(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const outliers_job *job = argument;
    uint64_t *bins = job->bins + (uint64_t)thread * UPPER;
    uint32_t bits[STRIP];
    for (uint64_t chunk = begin; chunk < end; chunk++)
        FOR_EACH_STRIP(job, chunk, row, col) {
            const size_t n = (size_t)strip_width(job, col);
            score_strip(job, row, col, n, bits);
            if (job->bin == UINT32_MAX)
                for (size_t i = 0; i < n; i++) bins[bits[i] >> LOWER_BITS]++;
            else
                for (size_t i = 0; i < n; i++)
                    if (bits[i] >> LOWER_BITS == job->bin) bins[bits[i] & (LOWER - 1)]++;
        }
}

static void count_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const outliers_job *job = argument;
    (void)thread;
    uint32_t bits[STRIP];
    for (uint64_t chunk = begin; chunk < end; chunk++) {
        tally t = { 0, 0 };
        FOR_EACH_STRIP(job, chunk, row, col) {
            const size_t n = (size_t)strip_width(job, col);
            score_strip(job, row, col, n, bits);
            for (size_t i = 0; i < n; i++) t.above += bits[i] > job->limit, t.equal += bits[i] == job->limit;
        }
        job->tallies[chunk] = t;
    }
}

/* tallies: above = where the chunk's first outlier goes, equal = how many equal ones it takes. */
static void write_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const outliers_job *job = argument;
    (void)thread;
    uint32_t bits[STRIP];
    for (uint64_t chunk = begin; chunk < end; chunk++) {
        uint64_t at = job->tallies[chunk].above, equal = job->tallies[chunk].equal;
        FOR_EACH_STRIP(job, chunk, row, col) {
            const size_t n = (size_t)strip_width(job, col);
            score_strip(job, row, col, n, bits);
            for (size_t i = 0; i < n; i++) {
                if (bits[i] < job->limit || (bits[i] == job->limit && equal == 0)) continue;
                equal -= bits[i] == job->limit;
                job->index[at++] = row * job->cols + col + i;
            }
        }
    }
}

/* The bin in which the count-th from above lies; *above: elements in the bins after it. */
static uint32_t bin_of_rank(qem_context *context, outliers_job *job, uint32_t bin, uint64_t count, uint64_t *above)
{
    memset(job->bins, 0, (size_t)context->threads * UPPER * sizeof(uint64_t));
    job->bin = bin;
    qem_parallel_for(context->threads, chunk_count(job), 1, count_bins, job);
    uint64_t seen = 0;
    for (uint32_t b = UPPER; b-- > 0;) {
        uint64_t here = 0;
        for (uint32_t t = 0; t < context->threads; t++) here += job->bins[(uint64_t)t * UPPER + b];
        if (seen + here >= count) {
            *above = seen;
            return b;
        }
        seen += here;
    }
    *above = seen; /* not reached: count is at most the number of elements */
    return 0;
}

/* Sets the limit so that `count` >= 1 elements are at or above it. */
static qem_status find_limit(qem_context *context, outliers_job *job, uint64_t count)
{
    void *memory;
    uint64_t above;
    QEM_TRY(qem_allocate(context, (uint64_t)context->threads * UPPER, sizeof(uint64_t), &memory));
    job->bins = memory;
    const uint32_t upper = bin_of_rank(context, job, UINT32_MAX, count, &above);
    const uint32_t lower = bin_of_rank(context, job, upper, count - above, &above);
    job->limit = upper << LOWER_BITS | lower;
    qem_release(context, memory);
    return QEM_OK;
}

/* Turns the tallies into places; `most` outliers in all, the first of the equal ones. Returns how many there are. */
static uint64_t place_chunks(outliers_job *job, int take_equal, uint64_t most)
{
    const uint64_t chunks = chunk_count(job);
    uint64_t above = 0, at = 0;
    for (uint64_t c = 0; c < chunks; c++) above += job->tallies[c].above;
    uint64_t equal_left = take_equal ? most - above : 0;
    for (uint64_t c = 0; c < chunks; c++) {
        tally *t = &job->tallies[c];
        const uint64_t equal = t->equal < equal_left ? t->equal : equal_left, here = t->above + equal;
        equal_left -= equal;
        t->above = at;
        t->equal = equal;
        at += here;
    }
    return at;
}

qem_status qem_cpu_select_outliers(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *mean,
                                   const float *inverse, uint64_t count, float threshold, uint64_t *index, uint64_t *found)
{
    outliers_job job = { .x = x, .mean = mean, .inverse = inverse, .rows = rows, .cols = cols, .index = index };
    void *memory;
    const int by_threshold = count == UINT64_MAX;
    job.chunk_rows = cols >= PIECE ? 1 : PIECE / cols;
    if (!by_threshold && count > rows * cols) count = rows * cols;
    if (!by_threshold && (count == 0 || !index)) {
        *found = count;
        return QEM_OK;
    }
    job.limit = qem_float_bits(threshold > 0.0f ? threshold : 0.0f);
    if (!by_threshold) QEM_TRY(find_limit(context, &job, count));
    QEM_TRY(qem_allocate(context, chunk_count(&job), sizeof(tally), &memory));
    job.tallies = memory;
    qem_parallel_for(context->threads, chunk_count(&job), 1, count_chunks, &job);
    *found = place_chunks(&job, !by_threshold, count);
    if (index) qem_parallel_for(context->threads, chunk_count(&job), 1, write_chunks, &job);
    qem_release(context, memory);
    return QEM_OK;
}

/* ---- single elements ---- */

qem_status qem_cpu_scatter(qem_context *context, float *x, const uint64_t *index, const float *value, uint64_t count)
{
    (void)context;
    for (uint64_t i = 0; i < count; i++) x[index[i]] = value[i];
    return QEM_OK;
}

qem_status qem_cpu_gather(qem_context *context, const float *x, const uint64_t *index, uint64_t count, float *value)
{
    (void)context;
    for (uint64_t i = 0; i < count; i++) value[i] = x[index[i]];
    return QEM_OK;
}

typedef struct subtract_job {
    float *x;
    const float *y;
} subtract_job;

static void subtract_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const subtract_job *job = argument;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) job->x[i] = job->x[i] - job->y[i];
}

qem_status qem_cpu_subtract(qem_context *context, float *x, const float *y, uint64_t count)
{
    subtract_job job = { x, y };
    qem_parallel_for(context->threads, count, PIECE, subtract_piece, &job);
    return QEM_OK;
}
