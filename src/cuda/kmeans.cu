/* Many k-means problems in one call: sets of as many as fit, each run through all its restarts. Host code alone. */
#include "kmeans.cuh"

struct kmeans_job {
    qem_context *context;
    const qem_kmeans_args *args;
    qem_km_wish wish;
    qem_problem *problems; /* those that have points and centroids */
    uint64_t *numbers;     /* theirs in the arguments */
    qem_km_found *found;
    uint64_t count;
    double work, work_done; /* pairs of points and centroids */
};

qem_status qem_km_report(qem_km_set *set, double share)
{
    return qem_report_progress(set->call->context, set->phase, set->progress_begin + set->progress_share * share);
}

qem_status qem_km_check_range(qem_km_set *set)
{
    uint32_t beyond;
    QEM_TRY(set->call->to_host(&beyond, set->view.flags + 1, sizeof beyond));
    if (!beyond) return QEM_OK;
    return qem_fail(set->call->context, QEM_ERR_RANGE, "a centroid is beyond the range of f16 (65504); store the codebook as f32");
}

/* Moves the centroids until all problems are done. The host waits once a pass, for how many are not. */
static qem_status passes(const kmeans_job *job, qem_km_set *set)
{
    const uint32_t iterations = job->args->iterations;
    QEM_TRY(qem_km_begin_passes(set));
    for (uint32_t pass = 1; pass <= iterations; pass++) {
        uint32_t working;
        QEM_TRY(qem_km_count(set, 0));
        QEM_TRY(qem_km_repair(set));
        QEM_TRY(qem_km_move(set));
        if (pass == iterations) break;
        QEM_TRY(qem_km_norms(set));
        QEM_TRY(qem_km_nearest(set, 1, 0));
        QEM_TRY(qem_km_decide(set, job->args->tolerance, &working));
        QEM_TRY(qem_km_report(set, QEM_KM_SEED_SHARE + (1.0 - QEM_KM_SEED_SHARE) * pass / iterations));
        if (!working) break;
    }
    return QEM_OK;
}

/* Seeds, passes, a last assignment against the centroids as stored; the result goes out where it is the best so far. */
static qem_status lloyd(const kmeans_job *job, qem_km_set *set, uint32_t restart, int measured)
{
    const qem_kmeans_args *args = job->args;
    QEM_TRY(args->warm ? qem_km_warm(set, args->codebook, args->labels) : qem_km_seed(set, args->seed, restart));
    QEM_TRY(passes(job, set));
    QEM_TRY(qem_km_store(set, args->codebook_dtype));
    QEM_TRY(qem_km_norms(set));
    QEM_TRY(qem_km_nearest(set, 0, 0));
    QEM_TRY(qem_km_choose(set, measured));
    QEM_TRY(qem_km_emit(set, args->codebook));
    return qem_km_scatter(set, args->labels, 1);
}

/* What problems begin, begin + 1, ... of the job have come to, to the tables of the arguments. */
static qem_status read_results(const kmeans_job *job, qem_km_set *set, uint64_t begin)
{
    const uint64_t count = set->view.problem_count;
    void *memory;
    if (!job->args->used && !job->args->objective) return QEM_OK;
    QEM_TRY(qem_allocate(job->context, count, sizeof(qem_km_state), &memory));
    const qem_km_state *const states = (const qem_km_state *)memory;
    const qem_status status = set->call->to_host(memory, set->view.states, count * sizeof *states);
    for (uint64_t i = 0; status == QEM_OK && i < count; i++) {
        const uint64_t number = job->numbers[begin + i];
        if (job->args->used) job->args->used[number] = states[i].used;
        if (job->args->objective) job->args->objective[number] = states[i].best;
    }
    qem_release(job->context, memory);
    return status;
}

static double work_of(const kmeans_job *job, uint64_t begin, uint64_t end)
{
    double work = 0.0;
    for (uint64_t i = begin; i < end; i++) work += (double)job->problems[i].count * (double)job->problems[i].k;
    return work;
}

static qem_status run_set(kmeans_job *job, uint64_t begin, uint64_t end)
{
    const uint32_t restarts = job->args->warm ? 1 : job->args->restarts;
    const double share = work_of(job, begin, end) / job->work;
    qem_cuda_call call(job->context);
    qem_km_set set;
    QEM_TRY(call.status);
    QEM_TRY(qem_km_make(&call, &job->wish, job->found, begin, end, &set));
    set.phase = "k-means";
    set.progress_share = share / restarts;
    QEM_TRY(call.zero(set.view.flags, 2 * sizeof *set.view.flags));
    QEM_TRY(qem_km_gather(&set));
    QEM_TRY(qem_km_frame(&set));
    for (uint32_t r = 0; r < restarts; r++) {
        set.progress_begin = job->work_done + share * r / restarts;
        QEM_TRY(lloyd(job, &set, r, restarts > 1 || job->args->objective));
        QEM_TRY(qem_km_check_range(&set));
    }
    job->work_done += share;
    return read_results(job, &set, begin);
}

static void list_problems(kmeans_job *job)
{
    const qem_kmeans_args *args = job->args;
    for (uint64_t i = 0; i < args->problem_count; i++) {
        const qem_problem *problem = &args->problems[i];
        if (problem->count && problem->k) {
            job->numbers[job->count] = i;
            job->problems[job->count++] = *problem;
            continue;
        }
        if (args->used) args->used[i] = 0;
        if (args->objective) args->objective[i] = 0.0;
    }
}

static qem_status run_all(kmeans_job *job, uint64_t most_bytes)
{
    const qem_kmeans_args *args = job->args;
    list_problems(job);
    job->work = work_of(job, 0, job->count);
    job->wish = { args->points, job->problems, job->count, args->element_weight, args->point_weight, 0 };
    {
        qem_cuda_call call(job->context);
        QEM_TRY(call.status);
        QEM_TRY(qem_km_survey(&call, &job->wish, job->found));
    }
    for (uint64_t begin = 0; begin < job->count;) {
        const uint64_t end = qem_km_batch(&job->wish, job->found, begin, most_bytes);
        QEM_TRY(run_set(job, begin, end));
        begin = end;
    }
    return QEM_OK;
}

qem_status qem_cuda_kmeans_within(qem_context *context, const qem_kmeans_args *args, uint64_t most_bytes)
{
    kmeans_job job = {};
    void *memory;
    job.context = context;
    job.args = args;
    QEM_TRY(qem_report_progress(context, "k-means", 0.0));
    QEM_TRY(qem_allocate(context, args->problem_count, sizeof(qem_problem) + sizeof(uint64_t) + sizeof(qem_km_found), &memory));
    job.problems = (qem_problem *)memory;
    job.numbers = (uint64_t *)(job.problems + args->problem_count);
    job.found = (qem_km_found *)(job.numbers + args->problem_count);
    const qem_status status = run_all(&job, most_bytes);
    qem_release(context, memory);
    return status == QEM_OK ? qem_report_progress(context, "k-means", 1.0) : status;
}

qem_status qem_cuda_kmeans(qem_context *context, const qem_kmeans_args *args)
{
    return qem_cuda_kmeans_within(context, args, QEM_KM_MOST_BYTES);
}
