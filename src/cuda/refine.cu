/*
 * A shared codebook beyond its cells: every sub-vector may take any centroid, and exact Lloyd passes move all centroids
 * together. It is one problem of all sub-vectors in ascending id; the cells, which on the CPU give the order of its tiles,
 * matter no more. Host code alone.
 */
#include "kmeans.cuh"

/* Labels, then means, until no label changes. */
static qem_status passes(qem_km_set *set, uint32_t count)
{
    for (uint32_t pass = 0; pass < count; pass++) {
        uint32_t changed;
        QEM_TRY(qem_km_begin_passes(set));
        QEM_TRY(qem_km_nearest(set, 1, 0));
        QEM_TRY(qem_km_decide(set, 0.0, &changed));
        QEM_TRY(qem_km_report(set, (pass + 1.0) / (count + 1.0)));
        if (pass > 0 && !changed) break;
        QEM_TRY(qem_km_begin_passes(set)); /* after the first one it goes on in any case */
        QEM_TRY(qem_km_count(set, 0));
        QEM_TRY(qem_km_repair(set));
        QEM_TRY(qem_km_move(set));
        QEM_TRY(qem_km_norms(set));
    }
    return QEM_OK;
}

static qem_status begin(qem_km_set *set, const qem_refine_args *args)
{
    QEM_TRY(set->call->zero(set->view.flags, 2 * sizeof *set->view.flags));
    QEM_TRY(qem_km_gather(set));
    QEM_TRY(qem_km_frame(set));
    QEM_TRY(qem_km_warm(set, args->codebook, args->labels));
    if (set->any_tail) { /* a cluster without full members keeps its zeros, as long as it gets none */
        QEM_TRY(qem_km_count(set, 0));
        QEM_TRY(qem_km_note_tails(set));
    }
    return qem_km_norms(set);
}

static qem_status run(qem_km_set *set, const qem_refine_args *args)
{
    QEM_TRY(begin(set, args));
    QEM_TRY(passes(set, args->passes));
    if (args->passes) {
        QEM_TRY(qem_km_store(set, args->codebook_dtype));
        QEM_TRY(qem_km_check_range(set));
        QEM_TRY(qem_km_norms(set));
    }
    QEM_TRY(qem_km_nearest(set, 0, 0));
    QEM_TRY(qem_km_choose(set, 0));
    if (args->passes) QEM_TRY(qem_km_emit(set, args->codebook));
    QEM_TRY(qem_km_scatter(set, args->labels, 1));
    QEM_TRY(set->call->wait());
    return qem_km_report(set, 1.0);
}

qem_status qem_cuda_refine(qem_context *context, const qem_refine_args *args)
{
    const qem_subvectors *v = &args->points;
    qem_problem all = {};
    qem_km_found found;
    qem_km_set set;
    qem_cuda_call call(context);
    all.step = 1;
    all.count = v->rows * v->groups;
    all.k = args->k;
    all.width = v->dim;
    const qem_km_wish wish = { *v, &all, 1, nullptr, nullptr, 0 };
    QEM_TRY(call.status);
    QEM_TRY(qem_km_survey(&call, &wish, &found));
    QEM_TRY(qem_km_make(&call, &wish, &found, 0, 1, &set));
    set.phase = "refining";
    set.progress_share = 1.0;
    return run(&set, args);
}
