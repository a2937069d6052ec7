/* Distinct sub-vectors and values, by hash tables that end when the number asked for is reached. */
#include <stdlib.h>
#include <string.h>

#include "../core/half.h"
#include "cpu.h"
#include "parallel.h"
#include "problem.h"

#define LEAST_SHARED_POINTS 16384 /* fewer are done before other threads have woken up */

typedef struct distinct_job {
    qem_subvectors points;
    const qem_problem *problems;
    uint32_t *tables; /* one a thread; 0 = empty, else number of a point + 1 */
    uint64_t table_size;
    uint64_t *distinct;
} distinct_job;

static uint64_t table_size_for(const qem_problem *problem)
{
    uint64_t most = problem->k < problem->count ? problem->k : problem->count;
    uint64_t size = 16;
    while (size < 2 * most) size *= 2;
    return size;
}

static uint64_t hash_subvector(const float *x, uint32_t width)
{
    uint64_t hash = width;
    for (uint32_t p = 0; p < width; p++) {
        hash = (hash ^ qem_float_bits(x[p] + 0.0f)) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash ^ (hash >> 32);
}

static int same(const float *a, const float *b, uint32_t width)
{
    for (uint32_t p = 0; p < width; p++)
        if (a[p] != b[p]) return 0;
    return 1;
}

static uint64_t count_problem(const qem_subvectors *v, const qem_problem *problem, uint32_t *table, uint64_t table_size)
{
    uint64_t found = 0;
    memset(table, 0, (size_t)table_size * sizeof(uint32_t));
    for (uint64_t t = 0; t < problem->count && found < problem->k; t++) {
        const uint64_t id = qem_problem_id(problem, t);
        const uint32_t width = qem_subvector_width(v, id);
        const float *x = qem_subvector(v, id);
        uint64_t at = hash_subvector(x, width) & (table_size - 1);
        for (;; at = (at + 1) & (table_size - 1)) {
            if (!table[at]) {
                table[at] = (uint32_t)t + 1;
                found++;
                break;
            }
            const uint64_t other = qem_problem_id(problem, table[at] - 1);
            if (qem_subvector_width(v, other) == width && same(x, qem_subvector(v, other), width)) break;
        }
    }
    return found;
}

static void count_problems(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const distinct_job *job = argument;
    for (uint64_t i = begin; i < end; i++)
        job->distinct[i] = count_problem(&job->points, &job->problems[i], job->tables + thread * job->table_size,
                                         table_size_for(&job->problems[i]));
}

qem_status qem_cpu_count_distinct(qem_context *context, qem_subvectors points, const qem_problem *problems,
                                  uint64_t problem_count, uint64_t *distinct)
{
    distinct_job job = { points, problems, NULL, 0, distinct };
    for (uint64_t i = 0; i < problem_count; i++) {
        const uint64_t size = table_size_for(&problems[i]);
        if (size > job.table_size) job.table_size = size;
    }
    uint64_t total = 0;
    for (uint64_t i = 0; i < problem_count; i++) total += problems[i].count;
    uint32_t threads = problem_count < context->threads ? (uint32_t)problem_count : context->threads;
    if (total < LEAST_SHARED_POINTS) threads = 1;
    void *memory;
    QEM_TRY(qem_allocate(context, threads * job.table_size, sizeof(uint32_t), &memory));
    job.tables = memory;
    qem_parallel_for(threads, problem_count, 1, count_problems, &job);
    qem_release(context, memory);
    return QEM_OK;
}

/* ---- distinct values ---- */

typedef struct tally {
    float value;
    uint32_t unused;
    uint64_t count; /* 0: the slot is free */
} tally;

static int by_value(const void *left, const void *right)
{
    const tally *a = left, *b = right;
    return (a->value > b->value) - (a->value < b->value);
}

/* Number of distinct values, or limit + 1. size is a power of two above 2 * limit. */
static uint64_t tally_values(const float *x, uint64_t count, uint64_t limit, tally *table, uint64_t size)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < count; i++) {
        const float value = x[i] + 0.0f;
        uint64_t at = hash_subvector(&value, 1) & (size - 1);
        while (table[at].count && table[at].value != value) at = (at + 1) & (size - 1);
        if (!table[at].count && ++found > limit) return found;
        table[at].value = value;
        table[at].count++;
    }
    return found;
}

qem_status qem_cpu_distinct_values(qem_context *context, const float *x, uint64_t count, uint64_t limit, float *values,
                                   uint64_t *counts, uint64_t *found)
{
    uint64_t size = 16, used = 0;
    void *memory;
    while (size <= 2 * limit) size *= 2;
    QEM_TRY(qem_allocate_zero(context, size, sizeof(tally), &memory));
    tally *table = memory;
    *found = tally_values(x, count, limit, table, size);
    if (*found <= limit) {
        for (uint64_t i = 0; i < size; i++)
            if (table[i].count) table[used++] = table[i];
        qsort(table, used, sizeof *table, by_value);
        for (uint64_t i = 0; i < used; i++) {
            values[i] = table[i].value;
            counts[i] = table[i].count;
        }
    }
    qem_release(context, memory);
    return QEM_OK;
}
