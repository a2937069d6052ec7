/*
 * Many k-means problems in one call. Small ones run side by side, one thread each; one that is a large part of the work is
 * given all threads. Seeding and assignment are exact in any case; kmeans_prune.c makes them fast in few dimensions.
 */
#include "kmeans.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "../core/half.h"
#include "cpu.h"
#include "parallel.h"
#include "problem.h"

#define WIDE_SHARE 1.5        /* of a thread's fair share: a problem above it is split over the threads */
#define LARGE_SHARE 0.1
#define LEAST_SHARED_WORK 2e4 /* pairs of points and centroids: less is done before other threads have woken up */

typedef struct kmeans_job {
    qem_context *context;
    const qem_kmeans_args *args;
    const uint64_t *narrow;   /* numbers of the problems run one thread each */
    unsigned char *scratch;
    uint64_t scratch_bytes;   /* a thread */
    double work_total;
    _Atomic uint64_t work_done;
    _Atomic int overflow;     /* a centroid did not fit in f16 */
    _Atomic int cancelled;
} kmeans_job;

static double work_of(const qem_problem *problem)
{
    return (double)problem->count * (double)problem->k;
}

/* Rounds the centroids to the type they are stored in, writes them out, and goes on with the rounded ones. */
static void store_centroids(kmeans_job *job, qem_work *work)
{
    const qem_problem *problem = work->problem;
    float *out = job->args->codebook + problem->codebook_offset;
    for (uint64_t j = 0; j < work->k; j++)
        for (uint32_t p = 0; p < work->width; p++) {
            float *c = &work->c[p * work->ldc + j];
            float stored = qem_work_stored(work, p, *c);
            if (work->only_tail[j] && p >= work->segment[1].dim) stored = 0.0f;
            if (job->args->codebook_dtype == QEM_DTYPE_F16) {
                stored = qem_f16_to_f32(qem_f32_to_f16(stored));
                if (!isfinite(stored)) atomic_store_explicit(&job->overflow, 1, memory_order_relaxed);
            }
            out[j * work->width + p] = stored;
            *c = qem_work_scaled(work, p, stored);
        }
    for (uint64_t j = work->k; j < problem->k; j++) memcpy(out + j * work->width, out, work->width * sizeof(float));
}

static int stopped(kmeans_job *job)
{
    return atomic_load_explicit(&job->cancelled, memory_order_relaxed) ||
           atomic_load_explicit(&job->overflow, memory_order_relaxed);
}

static void report(kmeans_job *job, double done, uint32_t thread)
{
    if (thread != 0) return;
    const double before = (double)atomic_load_explicit(&job->work_done, memory_order_relaxed);
    if (qem_report_progress(job->context, "k-means", (before + done) / job->work_total) != QEM_OK)
        atomic_store_explicit(&job->cancelled, 1, memory_order_relaxed);
}

/* Seeds, passes, and a last assignment against the centroids as stored. */
static void lloyd(kmeans_job *job, qem_work *work, uint32_t restart, uint32_t thread)
{
    const qem_kmeans_args *args = job->args;
    const double work_here = work_of(work->problem);
    double before = INFINITY;
    int done = args->iterations == 0;
    if (args->warm)
        qem_work_warm(work, args->codebook, args->labels);
    else
        qem_work_seed(work, args->seed, restart);
    if (work->lanes) qem_prune_centroids(work);
    for (uint32_t pass = 1; pass <= args->iterations && !done && !stopped(job); pass++) {
        qem_work_update(work);
        if (pass == args->iterations) break;
        int changed = qem_work_assign(work);
        if (changed && args->tolerance > 0.0) {
            const double now = qem_work_objective(work);
            if (before - now < args->tolerance * before) changed = 0;
            before = now;
        }
        done = !changed;
        report(job, work_here * (restart + (double)pass / args->iterations) / args->restarts, thread);
    }
    store_centroids(job, work);
    (void)qem_work_assign(work);
}

static void run_problem(kmeans_job *job, uint64_t number, uint32_t threads, void *scratch, uint32_t thread)
{
    const qem_kmeans_args *args = job->args;
    const qem_problem *problem = &args->problems[number];
    qem_work work;
    if (problem->count == 0 || problem->k == 0) {
        if (args->used) args->used[number] = 0;
        if (args->objective) args->objective[number] = 0.0;
        return;
    }
    qem_work_init(&work, qem_kernels(job->context), args, problem, threads, scratch);
    qem_work_gather(&work);
    double best = INFINITY;
    uint32_t best_restart = 0;
    const uint32_t restarts = args->warm ? 1 : args->restarts;
    const int choose = restarts > 1;
    for (uint32_t r = 0; r < restarts && !stopped(job); r++) {
        lloyd(job, &work, r, thread);
        const double objective = choose || args->objective ? qem_work_objective(&work) : 0.0;
        if (objective < best) {
            best = objective;
            best_restart = r;
            qem_work_scatter(&work, args->labels);
            if (args->used) args->used[number] = work.k;
        }
    }
    /* the codebook is written by every restart: make the best one again unless it was the last */
    if (choose && best_restart + 1 != restarts && !stopped(job)) lloyd(job, &work, best_restart, thread);
    if (args->objective) args->objective[number] = best;
    atomic_fetch_add_explicit(&job->work_done, (uint64_t)work_of(problem), memory_order_relaxed);
    report(job, 0.0, thread);
}

static void run_narrow(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    kmeans_job *job = argument;
    for (uint64_t i = begin; i < end && !stopped(job); i++)
        run_problem(job, job->narrow[i], 1, job->scratch + thread * job->scratch_bytes, thread);
}

static qem_status run_wide(kmeans_job *job, uint64_t number)
{
    void *scratch;
    const uint32_t threads = job->context->threads;
    const uint64_t bytes = qem_work_bytes(qem_kernels(job->context), job->args, &job->args->problems[number], threads);
    QEM_TRY(qem_allocate(job->context, bytes, 1, &scratch));
    run_problem(job, number, threads, scratch, 0);
    qem_release(job->context, scratch);
    return QEM_OK;
}

static qem_status run_all_narrow(kmeans_job *job, uint64_t narrow_count)
{
    void *scratch;
    for (uint64_t i = 0; i < narrow_count; i++) {
        const uint64_t bytes = qem_work_bytes(qem_kernels(job->context), job->args, &job->args->problems[job->narrow[i]], 1);
        if (bytes > job->scratch_bytes) job->scratch_bytes = bytes;
    }
    uint32_t threads = narrow_count < job->context->threads ? (uint32_t)narrow_count : job->context->threads;
    if (job->work_total < LEAST_SHARED_WORK) threads = 1;
    QEM_TRY(qem_allocate(job->context, threads, job->scratch_bytes, &scratch));
    job->scratch = scratch;
    qem_parallel_for(threads, narrow_count, 1, run_narrow, job);
    qem_release(job->context, scratch);
    return QEM_OK;
}

qem_status qem_cpu_kmeans(qem_context *context, const qem_kmeans_args *args)
{
    kmeans_job job = { .context = context, .args = args };
    void *memory;
    QEM_TRY(qem_report_progress(context, "k-means", 0.0));
    QEM_TRY(qem_allocate(context, args->problem_count, sizeof(uint64_t), &memory));
    uint64_t *narrow = memory, narrow_count = 0;
    for (uint64_t i = 0; i < args->problem_count; i++) job.work_total += work_of(&args->problems[i]);
    /* Drawing seeds is serial, so several problems side by side waste less than one after the other on all threads: only one
     * that would keep the others waiting is given all. Of the rest the large ones come first, so that none is left over. */
    const double fair = job.work_total / context->threads;
    qem_status status = QEM_OK;
    for (int round = 0; round < 3; round++)
        for (uint64_t i = 0; i < args->problem_count && status == QEM_OK; i++) {
            const double work = work_of(&args->problems[i]);
            const int wide = context->threads > 1 && job.work_total >= LEAST_SHARED_WORK && work > WIDE_SHARE * fair;
            if (round == 0 && wide) status = run_wide(&job, i);
            if (round > 0 && !wide && (round == 1) == (work > LARGE_SHARE * fair)) narrow[narrow_count++] = i;
        }
    job.narrow = narrow;
    if (status == QEM_OK && narrow_count) status = run_all_narrow(&job, narrow_count);
    qem_release(context, memory);
    if (status != QEM_OK) return status;
    if (job.cancelled) return QEM_ERR_CANCELLED;
    if (job.overflow)
        return qem_fail(context, QEM_ERR_RANGE, "a centroid is beyond the range of f16 (65504); store the codebook as f32");
    return qem_report_progress(context, "k-means", 1.0);
}
