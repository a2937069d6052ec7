/*
 * The best integer scale of every block against a scalar codebook: all candidates are tried. Each block is brought to a
 * largest magnitude below 1 by a power of two, and so are its weights, so that f32 is enough whatever the size of the data.
 */
#include "scale_search.h"

#include <math.h>
#include <string.h>

#include "../core/threshold.h"
#include "arena.h"
#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define MOST_CANDIDATES 256
#define RUN 256      /* elements of a block that are summed in f32; runs are added in double */
#define PIECE 16384  /* elements handed to a thread at once */

typedef struct search_job {
    const qem_cpu_kernels *kernels;
    qem_level_table table;
    const float *x, *weight;
    uint64_t cols, block, of_row, per_super;
    uint32_t steps;            /* 2^bits - 1 */
    const float *supers;
    uint8_t *q;
    double *error;
    unsigned char *scratch;    /* per thread */
    uint64_t scratch_bytes;
} search_job;

/* What a thread works with. */
typedef struct search_scratch {
    float *x, *weight; /* [block] */
    float scale[MOST_CANDIDATES], inverse[MOST_CANDIDATES], sums[MOST_CANDIDATES];
    double total[MOST_CANDIDATES];
} search_scratch;

/* to[i] = from[i] * 2^-e with all magnitudes below 1. Returns e, or INT32_MIN where all are 0. */
static int32_t bring_below_one(const float *from, size_t n, float *to)
{
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++) largest = fabsf(from[i]) > largest ? fabsf(from[i]) : largest;
    if (largest == 0.0f) {
        memset(to, 0, n * sizeof(float));
        return INT32_MIN;
    }
    const int32_t e = ilogbf(largest) + 1;
    const double unit = ldexp(1.0, -e);
    for (size_t i = 0; i < n; i++) to[i] = (float)((double)from[i] * unit);
    return e;
}

static size_t candidates_of(const search_job *job)
{
    return qem_round_up(job->steps + 1, QEM_SCALE_PAD);
}

/* Scales 0, 1, ... steps times super / steps, in units of 2^exponent; those past the last repeat it. */
static void make_candidates(const search_job *job, float super, int32_t exponent, search_scratch *s)
{
    const float step = super / (float)job->steps;
    const double unit = ldexp(1.0, -exponent);
    const size_t count = candidates_of(job);
    for (size_t c = 0; c < count; c++) {
        const uint32_t q = c < job->steps ? (uint32_t)c : job->steps;
        s->scale[c] = (float)((double)((float)q * step) * unit);
        s->inverse[c] = s->scale[c] == 0.0f ? 0.0f : 1.0f / s->scale[c];
        s->total[c] = 0.0;
    }
}

static void search_block(const search_job *job, uint64_t unit, search_scratch *s)
{
    const uint64_t row = unit / job->of_row, col = unit % job->of_row * job->block, at = row * job->cols + col;
    const size_t n = job->cols - col < job->block ? (size_t)(job->cols - col) : (size_t)job->block;
    const int32_t exponent = bring_below_one(job->x + at, n, s->x);
    job->q[unit] = 0;
    if (job->error) job->error[unit] = 0.0;
    if (exponent == INT32_MIN) return;
    /* weights that are all 0 say nothing: the block is searched as if there were none */
    const int32_t weight_exponent = job->weight ? bring_below_one(job->weight + at, n, s->weight) : INT32_MIN;
    const float *weight = weight_exponent == INT32_MIN ? NULL : s->weight;
    const size_t count = candidates_of(job);
    make_candidates(job, job->supers[unit / job->per_super], exponent, s);
    for (size_t i = 0; i < n; i += RUN) {
        const size_t here = n - i < RUN ? n - i : RUN;
        job->kernels->scale_errors(&job->table, s->x + i, weight ? weight + i : NULL, here, s->scale, s->inverse, count,
                                   s->sums);
        for (size_t c = 0; c < count; c++) s->total[c] += (double)s->sums[c];
    }
    uint32_t best = 0;
    for (uint32_t c = 1; c <= job->steps; c++)
        if (s->total[c] < s->total[best]) best = c;
    job->q[unit] = (uint8_t)best;
    if (job->error && !(job->weight && !weight))
        job->error[unit] = ldexp(s->total[best], 2 * exponent + (weight ? weight_exponent : 0));
}

static search_scratch *scratch_of(const search_job *job, uint32_t thread)
{
    qem_arena arena = { job->scratch + thread * job->scratch_bytes, 0 };
    search_scratch *s = qem_take(&arena, 1, sizeof *s);
    s->x = qem_take(&arena, job->block, sizeof(float));
    s->weight = qem_take(&arena, job->block, sizeof(float));
    return s;
}

static void search_blocks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const search_job *job = argument;
    search_scratch *s = scratch_of(job, thread);
    for (uint64_t unit = begin; unit < end; unit++) search_block(job, unit, s);
}

/* thresholds and levels, each of as many entries as the search wants. */
static qem_status make_table(qem_context *context, const float *levels, uint64_t k, qem_level_table *table, float **memory)
{
    void *pointer;
    table->size = 2;
    while (table->size < k) table->size *= 2;
    const uint32_t entries = table->size < QEM_LEVEL_PAD ? QEM_LEVEL_PAD : table->size;
    QEM_TRY(qem_allocate(context, entries, 2 * sizeof(float), &pointer));
    float *threshold = *memory = pointer, *level = threshold + entries;
    threshold[0] = -INFINITY;
    for (uint32_t i = 0; i < entries; i++) level[i] = levels[i < k ? i : k - 1];
    for (uint32_t i = 1; i < entries; i++)
        threshold[i] = i < k ? qem_threshold(((double)levels[i - 1] + (double)levels[i]) * 0.5) : INFINITY;
    table->threshold = threshold;
    table->level = level;
    return QEM_OK;
}

qem_status qem_cpu_search_block_scales(qem_context *context, const float *x, const float *weight, uint64_t rows,
                                       uint64_t cols,
                                       uint64_t block, uint32_t bits, uint64_t per_super, const float *supers,
                                       const float *levels, uint64_t k, uint8_t *q, double *error)
{
    search_job job = { .kernels = qem_kernels(context), .x = x, .weight = weight, .cols = cols, .block = block,
                       .supers = supers };
    float *tables;
    void *memory;
    job.of_row = (cols - 1) / block + 1;
    job.per_super = per_super;
    job.steps = ((uint32_t)1 << bits) - 1;
    job.q = q;
    job.error = error;
    job.scratch_bytes = qem_round_up(sizeof(search_scratch), 64) + 2 * qem_round_up(block * sizeof(float), 64);
    QEM_TRY(make_table(context, levels, k, &job.table, &tables));
    const qem_status status = qem_allocate(context, context->threads, job.scratch_bytes, &memory);
    if (status == QEM_OK) {
        job.scratch = memory;
        qem_parallel_for(context->threads, rows * job.of_row, (PIECE - 1) / block + 1, search_blocks, &job);
        qem_release(context, memory);
    }
    qem_release(context, tables);
    return status;
}
