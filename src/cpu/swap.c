/* QET's pair swap, row by row: every level compares neighbours inside each leaf of the level before. */
#include "swap.h"

#include <string.h>

#include "bits.h"
#include "cpu.h"
#include "parallel.h"

void qem_swap_tree_make(qem_swap_tree *tree, uint64_t rows, uint64_t cols, uint32_t levels)
{
    uint64_t bit = 0;
    tree->levels = levels;
    tree->node[0] = (qem_swap_node){ 0, cols, 0 };
    for (uint32_t level = 0; level < levels; level++) {
        const uint32_t first = (1u << level) - 1, count = 1u << level;
        for (uint32_t n = first; n < first + count; n++) {
            qem_swap_node *node = &tree->node[n];
            node->first_bit = bit;
            bit += rows * (node->width / 2);
            if (level + 1 == levels) continue;
            const uint64_t large = node->width / 2, small = node->width - large;
            tree->node[2 * n + 1] = (qem_swap_node){ node->offset, small, 0 };
            tree->node[2 * n + 2] = (qem_swap_node){ node->offset + small, large, 0 };
        }
    }
    tree->total_bits = bit;
}

uint64_t qem_swap_row_words(uint64_t cols)
{
    return cols / 2 / 64 + 1;
}

uint64_t qem_swap_map_bytes(uint64_t rows, uint64_t cols, uint32_t levels)
{
    if (levels == 0 || levels > QEM_MOST_LEVELS) return 0;
    qem_swap_tree tree;
    qem_swap_tree_make(&tree, rows, cols, levels);
    return (tree.total_bits + 7) / 8;
}

/* One node of one row from level to level: the columns of `from` into the smaller and the larger half of `to`. */
struct swap_job;
typedef void (*node_step)(const struct swap_job *job, const qem_swap_node *node, uint64_t row, const float *from, float *to,
                          uint64_t *bits);

typedef struct swap_job {
    const qem_cpu_kernels *kernels;
    qem_swap_tree tree;
    node_step step;
    uint64_t cols;
    const float *in;
    float *out;
    uint8_t *map;
    const uint8_t *map_read;
    unsigned char *scratch; /* per thread: two rows of floats, then the words */
    uint64_t scratch_bytes;
} swap_job;

static void split_node(const swap_job *job, const qem_swap_node *node, uint64_t row, const float *from, float *to,
                       uint64_t *bits)
{
    const uint64_t pairs = node->width / 2, small = node->width - pairs;
    from += node->offset;
    to += node->offset;
    if (node->width % 2) to[small - 1] = from[node->width - 1]; /* the odd last column goes unpaired to the end of S */
    if (pairs == 0) return;
    job->kernels->pair_split(from, (size_t)pairs, to, to + small, bits);
    qem_bits_write(job->map, node->first_bit + row * pairs, bits, pairs);
}

static void scratch_of(const swap_job *job, uint32_t thread, float **a, float **b, uint64_t **bits)
{
    unsigned char *memory = job->scratch + thread * job->scratch_bytes;
    *a = (float *)memory;
    *b = *a + (job->cols + 1) / 2 * 2;
    *bits = (uint64_t *)(*b + (job->cols + 1) / 2 * 2);
}

static void forward_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const swap_job *job = argument;
    float *a, *b;
    uint64_t *bits;
    scratch_of(job, thread, &a, &b, &bits);
    for (uint64_t i = begin; i < end; i++) {
        const float *from = job->in + i * job->cols;
        for (uint32_t level = 0; level < job->tree.levels; level++) {
            float *to = level + 1 == job->tree.levels ? job->out + i * job->cols : from == a ? b : a;
            for (uint32_t n = (1u << level) - 1; n < (2u << level) - 1; n++)
                job->step(job, &job->tree.node[n], i, from, to, bits);
            from = to;
        }
    }
}

static qem_status run(qem_context *context, swap_job *job, uint64_t rows, qem_task task)
{
    void *memory;
    job->kernels = qem_kernels(context);
    job->scratch_bytes = 2 * ((job->cols + 1) / 2 * 2) * sizeof(float) + qem_swap_row_words(job->cols) * sizeof(uint64_t);
    job->scratch_bytes = (job->scratch_bytes + 63) / 64 * 64;
    QEM_TRY(qem_allocate(context, context->threads, job->scratch_bytes, &memory));
    job->scratch = memory;
    qem_parallel_for(context->threads, rows, job->cols >= 65536 ? 1 : 65536 / job->cols, task, job);
    qem_release(context, memory);
    return QEM_OK;
}

qem_status qem_cpu_swap_forward(qem_context *context, const float *x, uint64_t rows, uint64_t cols, uint32_t levels,
                                float *ordered, uint8_t *map)
{
    swap_job job = { .step = split_node, .cols = cols, .in = x, .out = ordered, .map = map };
    qem_swap_tree_make(&job.tree, rows, cols, levels);
    if (job.tree.total_bits > 0) memset(map, 0, (size_t)((job.tree.total_bits + 7) / 8));
    return run(context, &job, rows, forward_rows);
}

static void merge_node(const qem_cpu_kernels *kernels, const qem_swap_node *node, const uint8_t *map, uint64_t row,
                       const float *from, float *to, uint64_t *bits)
{
    const uint64_t pairs = node->width / 2, small = node->width - pairs;
    from += node->offset;
    to += node->offset;
    if (node->width % 2) to[node->width - 1] = from[small - 1];
    if (pairs == 0) return;
    qem_bits_read(map, node->first_bit + row * pairs, pairs, bits);
    kernels->pair_merge(from, from + small, bits, (size_t)pairs, to);
}

float *qem_swap_restore_row(const qem_cpu_kernels *kernels, const qem_swap_tree *tree, const uint8_t *map, uint64_t row,
                            float *ordered, float *spare, uint64_t *bits)
{
    for (uint32_t level = tree->levels; level-- > 0;) {
        for (uint32_t n = (1u << level) - 1; n < (2u << level) - 1; n++)
            merge_node(kernels, &tree->node[n], map, row, ordered, spare, bits);
        float *swap = ordered;
        ordered = spare;
        spare = swap;
    }
    return ordered;
}

static void inverse_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const swap_job *job = argument;
    float *a, *b;
    uint64_t *bits;
    scratch_of(job, thread, &a, &b, &bits);
    for (uint64_t i = begin; i < end; i++) {
        memcpy(a, job->in + i * job->cols, (size_t)job->cols * sizeof(float));
        const float *row = qem_swap_restore_row(job->kernels, &job->tree, job->map_read, i, a, b, bits);
        memcpy(job->out + i * job->cols, row, (size_t)job->cols * sizeof(float));
    }
}

qem_status qem_cpu_swap_inverse(qem_context *context, const float *ordered, const uint8_t *map, uint64_t rows, uint64_t cols,
                                uint32_t levels, float *restored)
{
    swap_job job = { .cols = cols, .in = ordered, .out = restored, .map_read = map };
    qem_swap_tree_make(&job.tree, rows, cols, levels);
    return run(context, &job, rows, inverse_rows);
}

/* ---- the order of another matrix ---- */

static void order_node(const swap_job *job, const qem_swap_node *node, uint64_t row, const float *from, float *to, uint64_t *bits)
{
    const uint64_t pairs = node->width / 2, small = node->width - pairs;
    from += node->offset;
    to += node->offset;
    if (node->width % 2) to[small - 1] = from[node->width - 1];
    if (pairs == 0) return;
    qem_bits_read(job->map_read, node->first_bit + row * pairs, pairs, bits);
    for (uint64_t j = 0; j < pairs; j++) {
        const uint64_t left = bits[j / 64] >> j % 64 & 1; /* 1: the left one was the smaller */
        to[j] = from[2 * j + !left];
        to[small + j] = from[2 * j + left];
    }
}

qem_status qem_cpu_swap_by_map(qem_context *context, const float *x, const uint8_t *map, uint64_t rows, uint64_t cols,
                               uint32_t levels, float *ordered)
{
    swap_job job = { .step = order_node, .cols = cols, .in = x, .out = ordered, .map_read = map };
    qem_swap_tree_make(&job.tree, rows, cols, levels);
    return run(context, &job, rows, forward_rows);
}
