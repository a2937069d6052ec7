/*
 * Labels of sub-vectors against fixed codebooks: those of new rows. A codebook is centred by its own mean and scaled by its own
 * extent, so that a label does not depend on which other rows are there. Where elements have weights, each point's are scaled
 * by their own largest one, and a point whose weights are all the same is searched as one without.
 */
#include "kmeans_device.cuh"

#define STAGE 2048 /* floats of a codebook in shared memory */

/* ---- the frame of a codebook ---- */

/* Means of components first .. first + cols - 1: the sum of a component goes in the order of the entries, in double, by one
 * thread; the others fetch. */
static __device__ void sum_columns(const float *stored, const qem_km_problem &p, uint32_t first, uint32_t cols, double *mean)
{
    QEM_SHARED(float, stage, [STAGE]);
    const uint32_t rows = STAGE / cols;
    double sum = 0.0;
    for (uint32_t base = 0; base < p.k; base += rows) {
        const uint32_t here = p.k - base < rows ? p.k - base : rows;
        __syncthreads();
        for (uint32_t e = threadIdx.x; e < here * cols; e += QEM_KM_THREADS)
            stage[e] = stored[(uint64_t)(base + e / cols) * p.width + first + e % cols];
        __syncthreads();
        for (uint32_t r = 0; threadIdx.x < cols && r < here; r++) sum += (double)stage[r * cols + threadIdx.x];
    }
    if (threadIdx.x < cols) mean[first + threadIdx.x] = sum / (double)p.k;
    __syncthreads();
}

/* A block a problem that has a codebook of its own. Reads the codebook twice. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) frame(const qem_km_view v, const float *codebook)
{
    const qem_km_problem &p = v.problems[blockIdx.x];
    const float *const stored = codebook + p.codebook_at;
    double *const mean = v.mean + p.mean_at;
    double largest = 0.0;
    if (p.owner != blockIdx.x) return;
    for (uint32_t first = 0; first < p.width; first += QEM_KM_THREADS)
        sum_columns(stored, p, first, p.width - first < QEM_KM_THREADS ? p.width - first : QEM_KM_THREADS, mean);
    for (uint64_t e = threadIdx.x; e < (uint64_t)p.k * p.width; e += QEM_KM_THREADS) {
        const double d = fabs((double)stored[e] - mean[e % p.width]);
        largest = d > largest ? d : largest;
    }
    qem_km_note_largest(&v.states[blockIdx.x].deviation, largest);
}

/* A thread a problem: its scale, or that of the problem whose codebook it takes. */
static __global__ void set_scales(const qem_km_view v)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= v.problem_count) return;
    const double largest = qem_km_double(v.states[v.problems[i].owner].deviation);
    const int exponent = largest > 0.0 ? qem_exponent_above(largest) - 1 : -1;
    v.states[i].scale = ldexp(1.0, -exponent);
    v.states[i].unit = ldexp(1.0, exponent);
}

/* ---- weights ---- */

/* Scales each point's weights; d2 = 1 where they are all the same, else 0. Reads and writes each weight. */
static __global__ void __launch_bounds__(QEM_KM_THREADS) scale_weights(const qem_km_view v)
{
    const qem_km_tile tile = v.tiles[blockIdx.x];
    const qem_km_problem &p = v.problems[tile.problem];
    const uint32_t dim = qem_km_dim(p, tile);
    for (uint32_t i = 0; i < QEM_KM_EACH; i++) {
        uint32_t slot;
        if (!qem_km_slot(tile, i, &slot)) break;
        float *const w = v.w + p.w_at + slot;
        float largest = 0.0f;
        bool same = true;
        for (uint32_t q = 0; q < dim; q++) {
            const float here = w[(uint64_t)q * p.slots];
            same = same && here == w[0];
            largest = here > largest ? here : largest;
        }
        v.d2[p.slot_at + slot] = same ? 1.0f : 0.0f;
        if (same) continue; /* one that is not 0 is there */
        const double scale = ldexp(1.0, 1 - qem_exponent_above(largest));
        for (uint32_t q = 0; q < dim; q++) w[(uint64_t)q * p.slots] = (float)((double)w[(uint64_t)q * p.slots] * scale);
    }
}

/* ---- the call ---- */

static qem_status label_set(qem_km_set *set, const qem_kmeans_args *args)
{
    QEM_TRY(qem_km_gather(set));
    QEM_KM_LAUNCH(set, frame, set->view.problem_count, QEM_KM_THREADS, set->view, args->codebook);
    QEM_KM_EACH_PROBLEM(set, set_scales, set->view);
    QEM_TRY(qem_km_scale(set));
    QEM_TRY(qem_km_warm(set, args->codebook, nullptr));
    QEM_TRY(qem_km_norms(set));
    if (args->element_weight) {
        QEM_KM_ON_TILES(set, scale_weights, set->view);
        QEM_TRY(qem_km_nearest(set, 0, 1));
        QEM_TRY(qem_km_nearest(set, 0, 2));
    } else {
        QEM_TRY(qem_km_nearest(set, 0, 0));
    }
    return qem_km_scatter(set, args->labels, 0);
}

/* Problems cut into pieces of at most `most` points; list may be NULL. Returns their number. */
static uint64_t cut_problems(const qem_kmeans_args *args, uint64_t most, qem_problem *list)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < args->problem_count; i++)
        for (uint64_t at = 0; at < args->problems[i].count; at += most, count++) {
            if (!list) continue;
            qem_problem *const piece = &list[count];
            *piece = args->problems[i];
            piece->first += at * piece->step;
            if (piece->ids) piece->ids += at;
            piece->count = piece->count - at < most ? piece->count - at : most;
        }
    return count;
}

static qem_status label_batches(qem_context *context, const qem_kmeans_args *args, const qem_km_wish *wish, qem_km_found *found,
                                uint64_t most_bytes)
{
    {
        qem_cuda_call call(context);
        QEM_TRY(call.status);
        QEM_TRY(qem_km_survey(&call, wish, found));
    }
    for (uint64_t begin = 0; begin < wish->problem_count;) {
        const uint64_t end = qem_km_batch(wish, found, begin, most_bytes);
        qem_cuda_call call(context);
        qem_km_set set;
        QEM_TRY(call.status);
        QEM_TRY(qem_km_make(&call, wish, found, begin, end, &set));
        QEM_TRY(label_set(&set, args));
        begin = end;
    }
    return QEM_OK;
}

qem_status qem_cuda_assign_within(qem_context *context, const qem_kmeans_args *args, uint64_t most_bytes)
{
    const uint64_t point_bytes = (args->points.dim * (args->element_weight ? 2ull : 1ull) + 3) * sizeof(float);
    const uint64_t tiles = most_bytes / 2 / point_bytes / QEM_KM_TILE, most = (tiles ? tiles : 1) * QEM_KM_TILE;
    const uint64_t count = cut_problems(args, most, nullptr);
    void *memory;
    QEM_TRY(qem_allocate(context, count, sizeof(qem_problem) + sizeof(qem_km_found), &memory));
    qem_problem *const list = (qem_problem *)memory;
    (void)cut_problems(args, most, list);
    const qem_km_wish wish = { args->points, list, count, args->element_weight, nullptr, 1 };
    const qem_status status = label_batches(context, args, &wish, (qem_km_found *)(list + count), most_bytes);
    qem_release(context, memory);
    return status;
}

qem_status qem_cuda_assign(qem_context *context, const qem_kmeans_args *args)
{
    return qem_cuda_assign_within(context, args, QEM_KM_MOST_BYTES);
}
