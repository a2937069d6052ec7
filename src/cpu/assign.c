/*
 * Labels of sub-vectors against fixed codebooks: those of new rows. The codebooks of many problems are made ready first, then
 * their points go through in chunks. Column groups that share cache lines of the matrix and of the labels are searched together.
 */
#include <string.h>

#include "codebook.h"
#include "cpu.h"
#include "parallel.h"

#define TILED_CHUNK 16384  /* points: enough for tiles that are small */
#define BRUTE_CHUNK 2048
#define BRUTE_FLOATS 32768 /* of a brute-force chunk, for large dim */
#define LINE_FLOATS 32     /* two cache lines: as many groups go together as lie in them */
#define MOST_CELLS 65536   /* problems that are made ready at once: small codebooks, padded, become many times as large */

typedef struct assign_job {
    qem_context *context;
    const qem_kmeans_args *args;
    qem_search_codebook *codebooks; /* [problem_count] */
    uint64_t *owner;                /* [problem_count] the problem whose codebook entry is used */
    uint64_t *first_task;           /* [problem_count + 1]; unused when groups go together */
    uint64_t together;              /* problems 0, 1, ... are the column groups: so many are searched together; or 0 */
    size_t chunk_points;
    qem_search_codebook largest;    /* sizes for the chunks */
    unsigned char *scratch;
    uint64_t scratch_bytes;         /* a thread */
} assign_job;

/* ---- codebooks ---- */

static int same_codebook(const qem_problem *a, const qem_problem *b)
{
    return a->codebook_offset == b->codebook_offset && a->k == b->k && a->width == b->width;
}

static void layout_codebooks(assign_job *job, qem_arena *arena)
{
    const qem_kmeans_args *args = job->args;
    const qem_subvectors *v = &args->points;
    /* the largest so far: cells that were empty at the fit all search the whole codebook, which is made ready once */
    uint64_t whole = 0;
    for (uint64_t i = 0; i < args->problem_count; i++) {
        const qem_problem *problem = &args->problems[i];
        qem_search_codebook *codebook = &job->codebooks[i];
        job->owner[i] = i > 0 && same_codebook(problem, &args->problems[whole]) ? whole : i;
        if (job->owner[i] != i) continue;
        if (problem->k > args->problems[whole].k) whole = i;
        const uint32_t tail_dim = problem->width == v->dim && v->tail_dim != v->dim ? v->tail_dim : 0;
        qem_codebook_layout(codebook, qem_kernels(job->context), problem->width, tail_dim, problem->k, problem->count, arena);
        if (i == 0 || codebook->pruned > job->largest.pruned ||
            (codebook->pruned == job->largest.pruned && codebook->k > job->largest.k))
            job->largest = *codebook;
        job->largest.width = v->dim; /* a tail group's own codebook is narrower */
    }
}

static void prepare_codebooks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    assign_job *job = argument;
    uint32_t *scratch = (uint32_t *)(job->scratch + thread * job->scratch_bytes);
    for (uint64_t i = begin; i < end; i++) {
        if (job->owner[i] != i) continue;
        const float *stored = job->args->codebook + job->args->problems[i].codebook_offset;
        qem_codebook_own_frame(&job->codebooks[i], stored);
        qem_codebook_set(&job->codebooks[i], stored);
        qem_codebook_ready(&job->codebooks[i], 1, 1, scratch);
    }
}

/* ---- chunks ---- */

/* One problem a group, in their order, over the same rows? */
static int are_groups(const qem_kmeans_args *args)
{
    const uint64_t groups = args->points.groups;
    if (args->problem_count != groups || groups == 1) return 0;
    for (uint64_t g = 0; g < groups; g++) {
        const qem_problem *problem = &args->problems[g];
        if (problem->ids || problem->first != g || problem->step != groups) return 0;
        if (problem->count != args->problems[0].count) return 0;
    }
    return 1;
}

static void choose_chunks(assign_job *job)
{
    const uint32_t dim = job->largest.width;
    size_t points = TILED_CHUNK;
    if (!job->largest.pruned || dim > QEM_MOST_PRUNED_DIM) points = BRUTE_FLOATS / dim;
    if (!job->largest.pruned && points > BRUTE_CHUNK) points = BRUTE_CHUNK;
    if (!job->largest.pruned && dim < LINE_FLOATS && are_groups(job->args)) {
        job->together = LINE_FLOATS / dim;
        points = BRUTE_CHUNK / 4; /* of each */
    }
    job->chunk_points = qem_round_up(points ? points : 1, QEM_POINT_PAD);
}

static uint64_t chunk_count(const assign_job *job, uint64_t problem)
{
    return (job->args->problems[problem].count + job->chunk_points - 1) / job->chunk_points;
}

static uint64_t count_tasks(assign_job *job)
{
    const uint64_t problems = job->args->problem_count;
    if (job->together) return chunk_count(job, 0) * ((problems + job->together - 1) / job->together);
    job->first_task[0] = 0;
    for (uint64_t i = 0; i < problems; i++) job->first_task[i + 1] = job->first_task[i] + chunk_count(job, i);
    return job->first_task[problems];
}

/* Problem of a task: first_task[problem] <= task < first_task[problem + 1]. */
static uint64_t problem_of(const assign_job *job, uint64_t task)
{
    uint64_t low = 0, high = job->args->problem_count;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (job->first_task[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void search(qem_chunk *chunk, qem_search_codebook *codebook)
{
    if (codebook->pruned && !atomic_load_explicit(&codebook->brute, memory_order_relaxed)) {
        qem_chunk_order(chunk, codebook);
        qem_chunk_boxes(chunk, codebook);
        codebook->kernels->near_tiles(&codebook->tree, &chunk->tiles, codebook->width,
                                      (chunk->count[0] + chunk->lanes - 1) / chunk->lanes, chunk->previous);
        if (qem_chunk_tiles(chunk, codebook)) return;
    }
    qem_chunk_brute(chunk, codebook, 0);
}

static void scatter(const qem_chunk *chunk, int part, uint32_t label_base, uint32_t *labels)
{
    for (size_t i = 0; i < chunk->count[part]; i++) labels[chunk->ids[part][i]] = label_base + chunk->labels[i];
}

static void assign_chunk(const assign_job *job, uint64_t task, qem_chunk *chunk)
{
    const qem_kmeans_args *args = job->args;
    const uint64_t at = problem_of(job, task);
    const qem_problem *problem = &args->problems[at];
    qem_search_codebook *codebook = &job->codebooks[job->owner[at]];
    const uint64_t first = (task - job->first_task[at]) * job->chunk_points;
    const uint64_t last = problem->count - first < job->chunk_points ? problem->count : first + job->chunk_points;
    qem_chunk_gather(chunk, codebook, &args->points, problem, first, last);
    if (chunk->count[0]) {
        search(chunk, codebook);
        scatter(chunk, 0, problem->label_base, args->labels);
    }
    qem_chunk_brute(chunk, codebook, 1);
    scatter(chunk, 1, problem->label_base, args->labels);
}

static void assign_chunks(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const assign_job *job = argument;
    qem_arena arena = { job->scratch + thread * job->scratch_bytes, 0 };
    qem_chunk chunk;
    memset(&chunk, 0, sizeof chunk);
    qem_chunk_layout(&chunk, &job->largest, job->chunk_points, &arena);
    for (uint64_t task = begin; task < end; task++) assign_chunk(job, task, &chunk);
}

/* ---- groups that go together ---- */

typedef struct group_tile {
    uint32_t *rows;   /* [chunk_points] */
    float *x;         /* [together * dim][chunk_points] */
    uint32_t *labels; /* [together][chunk_points] */
} group_tile;

static void layout_tile(const assign_job *job, group_tile *tile, qem_arena *arena)
{
    tile->rows = qem_take(arena, job->chunk_points, sizeof(uint32_t));
    tile->x = qem_take(arena, job->chunk_points * job->together * job->largest.width, sizeof(float));
    tile->labels = qem_take(arena, job->chunk_points * job->together, sizeof(uint32_t));
}

/* Groups first .. last-1 of `count` rows. */
static void assign_tile(const assign_job *job, group_tile *tile, uint64_t row, size_t count, uint64_t first, uint64_t last)
{
    const qem_kmeans_args *args = job->args;
    const qem_subvectors *v = &args->points;
    const size_t ld = job->chunk_points;
    const uint32_t width = (uint32_t)((last - first - 1) * v->dim) + args->problems[last - 1].width;
    for (size_t i = 0; i < count; i++) tile->rows[i] = (uint32_t)i;
    const float *x = v->x + row * v->cols + first * v->dim;
    job->largest.kernels->gather_points(x, tile->rows, count, (size_t)v->cols, width, tile->x, ld);
    for (uint64_t g = first; g < last; g++)
        qem_codebook_search(&job->codebooks[job->owner[g]], tile->x + (g - first) * v->dim * ld, ld, count,
                            tile->labels + (g - first) * ld);
    for (size_t i = 0; i < count; i++)
        for (uint64_t g = first; g < last; g++)
            args->labels[(row + i) * v->groups + g] = args->problems[g].label_base + tile->labels[(g - first) * ld + i];
}

static void assign_tiles(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const assign_job *job = argument;
    const uint64_t groups = job->args->problem_count, rows = job->args->problems[0].count;
    const uint64_t across = (groups + job->together - 1) / job->together;
    qem_arena arena = { job->scratch + thread * job->scratch_bytes, 0 };
    group_tile tile;
    layout_tile(job, &tile, &arena);
    for (uint64_t task = begin; task < end; task++) {
        const uint64_t row = task / across * job->chunk_points, first = task % across * job->together;
        const uint64_t count = rows - row < job->chunk_points ? rows - row : job->chunk_points;
        assign_tile(job, &tile, row, (size_t)count, first, first + job->together < groups ? first + job->together : groups);
    }
}

/* ---- the call ---- */

static qem_status run(assign_job *job)
{
    const uint64_t problems = job->args->problem_count, tasks = count_tasks(job), most = tasks > problems ? tasks : problems;
    const uint32_t threads = most < job->context->threads ? (uint32_t)most : job->context->threads; /* of the scratch, too */
    qem_arena sizes = { NULL, 0 };
    qem_chunk chunk;
    void *memory;
    group_tile tile;
    memset(&chunk, 0, sizeof chunk);
    if (job->together)
        layout_tile(job, &tile, &sizes);
    else
        qem_chunk_layout(&chunk, &job->largest, job->chunk_points, &sizes);
    const uint64_t ordering = qem_codebook_scratch_words(&job->largest) * sizeof(uint32_t);
    job->scratch_bytes = qem_round_up(sizes.used > ordering ? sizes.used : ordering, 64);
    QEM_TRY(qem_allocate(job->context, threads, job->scratch_bytes, &memory));
    job->scratch = memory;
    qem_parallel_for(threads, problems, 1, prepare_codebooks, job);
    if (job->together)
        qem_parallel_for(threads, tasks, 4, assign_tiles, job);
    else
        qem_parallel_for(threads, tasks, 1, assign_chunks, job);
    qem_release(job->context, memory);
    return QEM_OK;
}

static qem_status assign_problems(qem_context *context, const qem_kmeans_args *args)
{
    assign_job job = { .context = context, .args = args };
    const uint64_t problems = args->problem_count;
    void *table, *memory;
    QEM_TRY(qem_allocate_zero(context, problems + 1, sizeof(qem_search_codebook) + 2 * sizeof(uint64_t), &table));
    job.codebooks = table;
    job.owner = (uint64_t *)(job.codebooks + problems);
    job.first_task = job.owner + problems;
    qem_arena sizes = { NULL, 0 };
    layout_codebooks(&job, &sizes);
    choose_chunks(&job);
    qem_status status = qem_allocate(context, sizes.used, 1, &memory);
    if (status == QEM_OK) {
        qem_arena arena = { memory, 0 };
        layout_codebooks(&job, &arena);
        status = run(&job);
        qem_release(context, memory);
    }
    qem_release(context, table);
    return status;
}

qem_status qem_cpu_assign(qem_context *context, const qem_kmeans_args *args)
{
    if (args->element_weight) return qem_cpu_assign_weighted(context, args);
    const uint64_t at_once = are_groups(args) ? args->problem_count : MOST_CELLS;
    for (uint64_t first = 0; first < args->problem_count; first += at_once) {
        qem_kmeans_args part = *args;
        part.problems += first;
        part.problem_count = args->problem_count - first < at_once ? args->problem_count - first : at_once;
        QEM_TRY(assign_problems(context, &part));
    }
    return QEM_OK;
}
