/*
 * The elements of the largest scores |x - mean| * inverse, as cpu/outliers.c finds them: scores are >= 0, so their bits
 * order as they do; the least score that is taken comes from a histogram of the upper 16 bits and one of the lower 15 of
 * those that share them; then all above it are taken, and of those equal to it the first ones. Scores are made anew in each
 * of the passes.
 *
 * Bytes: 4 an element in each of four passes (two to count, two to place), and 8 an outlier.
 */
#include "backend.cuh"

#include <string.h>

#define UPPER      65536 /* bins by the bits above the lowest 15 (the sign is 0) */
#define LOWER      32768
#define LOWER_BITS 15
#define PER_THREAD 8
#define CHUNK      (PER_THREAD * QEM_CUDA_THREADS) /* elements that a block places */
#define WARPS      (QEM_CUDA_THREADS / 32)
#define ALL_LANES  0xffffffffu

typedef unsigned long long wide;

struct tally {
    uint64_t above, equal; /* elements of a chunk with a score above the limit, and equal to it */
};

struct outliers_job {
    const float *x, *mean, *inverse;
    uint64_t count, cols, chunks;
    uint32_t limit; /* bits of a score */
    tally *tallies; /* one a chunk; later: where its outliers go, and how many equal ones it may take */
    uint64_t *index;
};

/* NaN (an infinite difference in a column without deviation) is 0. */
static __device__ __forceinline__ uint32_t score_bits(const outliers_job &job, uint64_t i)
{
    const uint64_t col = i % job.cols;
    const float score = fabsf(__ldg(job.x + i) - __ldg(job.mean + col)) * __ldg(job.inverse + col);
    const uint32_t u = __float_as_uint(score) & 0x7fffffffu;
    return u > 0x7f800000u ? 0 : u;
}

/* bin UINT32_MAX: by the upper bits; else of scores with these upper bits, by the lower. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) count_bins(outliers_job job, uint32_t bin, wide *bins)
{
    for (uint64_t i = qem_cuda_first(); i < job.count; i += qem_cuda_stride()) {
        const uint32_t bits = score_bits(job, i);
        if (bin == UINT32_MAX)
            atomicAdd(bins + (bits >> LOWER_BITS), (wide)1);
        else if (bits >> LOWER_BITS == bin)
            atomicAdd(bins + (bits & (LOWER - 1)), (wide)1);
    }
}

/* Sum over the warps of a block before this one of what each says, and over all. */
static __device__ __forceinline__ uint32_t of_warps_before(uint32_t of_this, uint32_t *of_warp, uint32_t *all)
{
    uint32_t before = 0, sum = 0;
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = of_this;
    __syncthreads();
    for (uint32_t w = 0; w < WARPS; w++) {
        before += w < threadIdx.x / 32 ? of_warp[w] : 0;
        sum += of_warp[w];
    }
    __syncthreads();
    *all = sum;
    return before;
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) count_chunks(outliers_job job)
{
    QEM_SHARED(uint32_t, of_warp, [WARPS]);
    for (uint64_t chunk = blockIdx.x; chunk < job.chunks; chunk += gridDim.x) {
        uint32_t above = 0, equal = 0, all_above, all_equal;
        for (uint32_t n = 0; n < PER_THREAD; n++) {
            const uint64_t i = chunk * CHUNK + n * QEM_CUDA_THREADS + threadIdx.x;
            const bool is_there = i < job.count;
            const uint32_t bits = is_there ? score_bits(job, i) : 0;
            above += (uint32_t)__popc(__ballot_sync(ALL_LANES, is_there && bits > job.limit));
            equal += (uint32_t)__popc(__ballot_sync(ALL_LANES, is_there && bits == job.limit));
        }
        (void)of_warps_before(above, of_warp, &all_above);
        (void)of_warps_before(equal, of_warp, &all_equal);
        if (threadIdx.x != 0) continue;
        job.tallies[chunk].above = all_above;
        job.tallies[chunk].equal = all_equal;
    }
}

/* Outliers of a chunk in ascending order: 256 elements after each other, each of whose threads knows how many come before.
 */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) write_chunks(outliers_job job)
{
    QEM_SHARED(uint32_t, of_warp, [WARPS]);
    const uint32_t earlier_lanes = (1u << threadIdx.x % 32) - 1u;
    for (uint64_t chunk = blockIdx.x; chunk < job.chunks; chunk += gridDim.x) {
        uint64_t at = job.tallies[chunk].above, equal_left = job.tallies[chunk].equal;
        for (uint32_t n = 0; n < PER_THREAD; n++) {
            const uint64_t i = chunk * CHUNK + n * QEM_CUDA_THREADS + threadIdx.x;
            const uint32_t bits = i < job.count ? score_bits(job, i) : 0;
            const bool equal = i < job.count && bits == job.limit;
            uint32_t all_equal, all_taken;
            const uint32_t equals = __ballot_sync(ALL_LANES, equal);
            const uint32_t equal_before =
                of_warps_before((uint32_t)__popc(equals), of_warp, &all_equal) + (uint32_t)__popc(equals & earlier_lanes);
            const bool taken = i < job.count && (bits > job.limit || (equal && equal_before < equal_left));
            const uint32_t takens = __ballot_sync(ALL_LANES, taken);
            const uint32_t before =
                of_warps_before((uint32_t)__popc(takens), of_warp, &all_taken) + (uint32_t)__popc(takens & earlier_lanes);
            if (taken) job.index[at + before] = i;
            at += all_taken;
            equal_left -= all_equal < equal_left ? all_equal : equal_left;
        }
    }
}

/* ---- host ---- */

/* The bin in which the count-th from above lies; *above: elements in the bins after it. */
static qem_status bin_of_rank(qem_cuda_call &call, const outliers_job &job, uint32_t bin, uint64_t count, uint64_t *bins,
                              wide *on_device, uint32_t *found, uint64_t *above)
{
    uint64_t seen = 0;
    QEM_TRY(call.zero(on_device, UPPER * sizeof *on_device));
    QEM_TRY(
        call.launch(QEM_LAUNCH(count_bins, call.blocks(job.count), QEM_CUDA_THREADS, 0, call.stream, job, bin, on_device)));
    QEM_TRY(call.to_host(bins, on_device, UPPER * sizeof *bins));
    *found = 0;
    for (uint32_t b = UPPER; b-- > 0;) {
        if (seen + bins[b] >= count) {
            *found = b;
            break;
        }
        seen += bins[b];
    }
    *above = seen;
    return QEM_OK;
}

/* Sets the limit so that `count` >= 1 elements are at or above it. */
static qem_status find_limit(qem_cuda_call &call, outliers_job *job, uint64_t count)
{
    void *memory;
    wide *on_device;
    uint64_t above = 0;
    uint32_t upper = 0, lower = 0;
    QEM_TRY(call.take(UPPER, &on_device));
    QEM_TRY(qem_allocate(call.context, UPPER, sizeof(uint64_t), &memory));
    uint64_t *const bins = (uint64_t *)memory;
    qem_status status = bin_of_rank(call, *job, UINT32_MAX, count, bins, on_device, &upper, &above);
    if (status == QEM_OK) status = bin_of_rank(call, *job, upper, count - above, bins, on_device, &lower, &above);
    job->limit = upper << LOWER_BITS | lower;
    qem_release(call.context, memory);
    return status;
}

/* Turns the tallies into places; `most` outliers in all, the first of the equal ones. Returns how many there are. */
static uint64_t place_chunks(tally *tallies, uint64_t chunks, int take_equal, uint64_t most)
{
    uint64_t above = 0, at = 0;
    for (uint64_t c = 0; c < chunks; c++) above += tallies[c].above;
    uint64_t equal_left = take_equal ? most - above : 0;
    for (uint64_t c = 0; c < chunks; c++) {
        const uint64_t equal = tallies[c].equal < equal_left ? tallies[c].equal : equal_left,
                       here = tallies[c].above + equal;
        equal_left -= equal;
        tallies[c].above = at;
        tallies[c].equal = equal;
        at += here;
    }
    return at;
}

static qem_status place(qem_cuda_call &call, outliers_job &job, int take_equal, uint64_t most, tally *tallies,
                        uint64_t *index, uint64_t *found)
{
    const uint32_t blocks = call.blocks(job.chunks, 1);
    QEM_TRY(call.launch(QEM_LAUNCH(count_chunks, blocks, QEM_CUDA_THREADS, 0, call.stream, job)));
    QEM_TRY(call.to_host(tallies, job.tallies, job.chunks * sizeof *tallies));
    *found = place_chunks(tallies, job.chunks, take_equal, most);
    if (!index || *found == 0) return QEM_OK;
    QEM_TRY(call.to_device(job.tallies, tallies, job.chunks * sizeof *tallies));
    QEM_TRY(call.take(*found, &job.index));
    QEM_TRY(call.launch(QEM_LAUNCH(write_chunks, blocks, QEM_CUDA_THREADS, 0, call.stream, job)));
    return call.to_host(index, job.index, *found * sizeof *index);
}

qem_status qem_cuda_select_outliers(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *mean,
                                    const float *inverse, uint64_t count, float threshold, uint64_t *index, uint64_t *found)
{
    qem_cuda_call call(context);
    outliers_job job = outliers_job();
    const int by_threshold = count == UINT64_MAX;
    float *means, *inverses;
    void *memory;
    QEM_TRY(call.status);
    job.count = rows * cols;
    if (!by_threshold && count > job.count) count = job.count;
    if (!by_threshold && (count == 0 || !index)) {
        *found = count;
        return QEM_OK;
    }
    QEM_TRY(call.put(mean, cols, &means));
    QEM_TRY(call.put(inverse, cols, &inverses));
    job.x = x;
    job.mean = means;
    job.inverse = inverses;
    job.cols = cols;
    job.chunks = (job.count - 1) / CHUNK + 1;
    const float limit = threshold > 0.0f ? threshold : 0.0f;
    memcpy(&job.limit, &limit, sizeof limit);
    if (!by_threshold) QEM_TRY(find_limit(call, &job, count));
    QEM_TRY(call.take(job.chunks, &job.tallies));
    QEM_TRY(qem_allocate(context, job.chunks, sizeof(tally), &memory));
    const qem_status status = place(call, job, !by_threshold, count, (tally *)memory, index, found);
    qem_release(context, memory);
    return status;
}
