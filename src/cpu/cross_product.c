/*
 * a^T b in double: the matrix that decides a rotation. Each element is the sum of the parts' sums in ascending order, a part
 * being a range of rows that depends on the shape alone, and a part's sum is one fma chain over its rows in ascending order.
 */
#include <string.h>

#include "arena.h"
#include "cpu.h"
#include "cross.h"
#include "kernels.h"
#include "parallel.h"

#define BLOCK 128       /* columns of either matrix that a task takes; multiple of both panels' widths */
#define CHUNK 256       /* rows that are made panels at once */
#define PART_ROWS 4096  /* at least so many in a part */
#define MOST_TASKS 32   /* parts are made only up to so many: each needs a product of its own */

typedef struct cross_job {
    const qem_cpu_kernels *kernels;
    const float *a, *b;
    uint64_t rows, cols_a, cols_b;
    uint64_t blocks_a, blocks_b, parts;
    double *product;        /* [parts][cols_a][cols_b] */
    unsigned char *scratch;
    size_t scratch_bytes;   /* a thread */
} cross_job;

typedef struct cross_scratch {
    double *a, *b; /* [BLOCK / width][CHUNK][width] */
    double *sums;  /* [BLOCK / QEM_CROSS_A][BLOCK / QEM_CROSS_B][QEM_CROSS_A][QEM_CROSS_B] */
} cross_scratch;

static cross_scratch layout(qem_arena *arena)
{
    cross_scratch s;
    s.a = qem_take(arena, (uint64_t)BLOCK * CHUNK, sizeof(double));
    s.b = qem_take(arena, (uint64_t)BLOCK * CHUNK, sizeof(double));
    s.sums = qem_take(arena, (uint64_t)BLOCK * BLOCK, sizeof(double));
    return s;
}

/* Panels of columns 0 .. count-1 of n rows; the columns that a panel lacks are 0. */
static void make_panels(const float *x, uint64_t cols, size_t n, size_t count, size_t width, double *panels)
{
    for (size_t first = 0; first < count; first += width, panels += n * width) {
        const size_t here = count - first < width ? count - first : width;
        if (here < width) memset(panels, 0, n * width * sizeof *panels);
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < here; i++) panels[r * width + i] = (double)x[r * cols + first + i];
    }
}

static void add_chunk(const cross_job *job, const cross_scratch *s, size_t n, size_t count_a, size_t count_b)
{
    double *sums = s->sums;
    for (size_t i = 0; i < count_a; i += QEM_CROSS_A)
        for (size_t j = 0; j < count_b; j += QEM_CROSS_B, sums += QEM_CROSS_A * QEM_CROSS_B)
            job->kernels->cross_tile(s->a + i * n, s->b + j * n, n, sums);
}

static void store_block(const cross_scratch *s, size_t count_a, size_t count_b, double *out, uint64_t stride)
{
    const double *sums = s->sums;
    for (size_t i = 0; i < count_a; i += QEM_CROSS_A)
        for (size_t j = 0; j < count_b; j += QEM_CROSS_B, sums += QEM_CROSS_A * QEM_CROSS_B) {
            const size_t width = count_b - j < QEM_CROSS_B ? count_b - j : QEM_CROSS_B;
            for (size_t p = 0; p < QEM_CROSS_A && i + p < count_a; p++)
                memcpy(out + (i + p) * stride + j, sums + p * QEM_CROSS_B, width * sizeof *sums);
        }
}

static void run_tasks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const cross_job *job = argument;
    qem_arena arena = { job->scratch + thread * job->scratch_bytes, 0 };
    const cross_scratch s = layout(&arena);
    for (uint64_t task = begin; task < end; task++) {
        const uint64_t part = task / (job->blocks_a * job->blocks_b), block = task % (job->blocks_a * job->blocks_b);
        const uint64_t i = block / job->blocks_b * BLOCK, j = block % job->blocks_b * BLOCK;
        const size_t count_a = (size_t)(job->cols_a - i < BLOCK ? job->cols_a - i : BLOCK);
        const size_t count_b = (size_t)(job->cols_b - j < BLOCK ? job->cols_b - j : BLOCK);
        const uint64_t last = (part + 1) * job->rows / job->parts;
        memset(s.sums, 0, (size_t)BLOCK * BLOCK * sizeof *s.sums);
        for (uint64_t row = part * job->rows / job->parts; row < last; row += CHUNK) {
            const size_t n = (size_t)(last - row < CHUNK ? last - row : CHUNK);
            make_panels(job->a + row * job->cols_a + i, job->cols_a, n, count_a, QEM_CROSS_A, s.a);
            make_panels(job->b + row * job->cols_b + j, job->cols_b, n, count_b, QEM_CROSS_B, s.b);
            add_chunk(job, &s, n, count_a, count_b);
        }
        store_block(&s, count_a, count_b, job->product + (part * job->cols_a + i) * job->cols_b + j, job->cols_b);
    }
}

static void choose_parts(cross_job *job)
{
    job->blocks_a = (job->cols_a + BLOCK - 1) / BLOCK;
    job->blocks_b = (job->cols_b + BLOCK - 1) / BLOCK;
    const uint64_t by_rows = job->rows / PART_ROWS, by_tasks = MOST_TASKS / (job->blocks_a * job->blocks_b);
    job->parts = by_rows < by_tasks ? by_rows : by_tasks;
    if (job->parts == 0) job->parts = 1;
}

qem_status qem_cpu_cross_product(qem_context *context, const float *a, const float *b, uint64_t rows, uint64_t cols_a,
                                 uint64_t cols_b, double *product)
{
    cross_job job = { .kernels = qem_kernels(context), .a = a, .b = b, .rows = rows, .cols_a = cols_a, .cols_b = cols_b };
    const uint64_t size = cols_a * cols_b;
    qem_arena sizes = { NULL, 0 };
    void *memory, *parts = NULL;
    choose_parts(&job);
    (void)layout(&sizes);
    job.scratch_bytes = sizes.used;
    const uint64_t tasks = job.parts * job.blocks_a * job.blocks_b;
    const uint32_t threads = tasks < context->threads ? (uint32_t)tasks : context->threads;
    QEM_TRY(qem_allocate(context, threads, job.scratch_bytes, &memory));
    job.scratch = memory;
    job.product = product;
    qem_status status = QEM_OK;
    if (job.parts > 1) {
        status = qem_allocate(context, job.parts * size, sizeof(double), &parts);
        job.product = parts;
    }
    if (status == QEM_OK) {
        qem_parallel_for(threads, tasks, 1, run_tasks, &job);
        for (uint64_t i = 0; parts && i < size; i++) {
            double sum = job.product[i];
            for (uint64_t p = 1; p < job.parts; p++) sum += job.product[p * size + i];
            product[i] = sum;
        }
    }
    qem_release(context, parts);
    qem_release(context, memory);
    return status;
}
