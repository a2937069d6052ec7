/*
 * Exact quantiles by selection, as on the CPU: a histogram of the top 16 bits of the ordered keys finds the bin of every
 * order statistic that is wanted, a second one counts the low 16 bits inside those bins alone. Bins are counted on the GPU,
 * found on the host.
 *
 * Bytes: the matrix once for each POSITIONS positions of a sub-vector, and once more for each SLOTS bins that are looked
 * into; a line of it is read whole for the positions that are wanted. The tables, some MB, stay in L2.
 */
#include "lanes.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BINS           65536
#define POSITIONS      16 /* counted in one pass */
#define SLOTS          64 /* bins looked into in one pass */
#define MOST_INTERVALS 256

/* Positions first .. first + positions - 1 of a sub-vector. */
struct quantile_job {
    qem_subvectors v;
    uint32_t first, positions;
    uint32_t *coarse; /* [POSITIONS][BINS] */
    uint32_t *fine;   /* [SLOTS][BINS] */
    uint8_t *slot_of; /* [POSITIONS][BINS]: slot + 1, or 0 */
};

/* Element number i of those at the job's positions: its place in the matrix, or false where a narrower last group has none.
 */
static __device__ __forceinline__ bool element(const quantile_job &job, uint64_t i, uint32_t *position, uint64_t *at)
{
    const uint64_t vector = i / job.positions, row = vector / job.v.groups, group = vector - row * job.v.groups;
    *position = (uint32_t)(i - vector * job.positions);
    const uint64_t col = group * job.v.dim + job.first + *position;
    *at = row * job.v.cols + col;
    return col < job.v.cols;
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) count_coarse(quantile_job job)
{
    const uint64_t count = job.v.rows * job.v.groups * job.positions;
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) {
        uint32_t position;
        uint64_t at;
        if (!element(job, i, &position, &at)) continue;
        atomicAdd(job.coarse + position * BINS + (qem_cuda_key(__ldg(job.v.x + at)) >> 16), 1u);
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) count_fine(quantile_job job)
{
    const uint64_t count = job.v.rows * job.v.groups * job.positions;
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) {
        uint32_t position;
        uint64_t at;
        if (!element(job, i, &position, &at)) continue;
        const uint32_t key = qem_cuda_key(__ldg(job.v.x + at)), slot = job.slot_of[position * BINS + (key >> 16)];
        if (slot) atomicAdd(job.fine + (slot - 1) * BINS + (key & 0xffffu), 1u);
    }
}

/* ---- host ---- */

/* An order statistic that is wanted. */
struct statistic {
    uint32_t position, bin; /* position counts from the job's first */
    uint64_t rank;          /* within the position, then within the bin */
    float value;
};

struct host_tables {
    uint32_t *counts;      /* [POSITIONS][BINS], then [SLOTS][BINS] */
    uint8_t *slot_of;      /* [POSITIONS][BINS] */
    statistic *statistics; /* [POSITIONS][2 * (intervals - 1)] */
};

/* The bin that holds the element of rank `*rank`; *rank becomes its rank inside the bin. */
static uint32_t find_bin(const uint32_t *table, uint64_t *rank)
{
    uint32_t bin = 0;
    while (bin < BINS - 1 && *rank >= table[bin]) *rank -= table[bin++];
    return bin;
}

static float from_key(uint32_t key)
{
    const uint32_t bits = key ^ ((key >> 31) ? 0x80000000u : 0xffffffffu);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Elements of a position. */
static uint64_t pooled(const qem_subvectors &v, uint32_t position)
{
    return position < v.tail_dim ? v.rows * v.groups : v.rows * (v.groups - 1);
}

/* numpy's default: position (n-1)*q between two order statistics. */
static float interpolate(float low, float high, double t)
{
    const double a = low, b = high;
    const double value = t < 0.5 ? a + (b - a) * t : b - (b - a) * (1.0 - t);
    return (float)value + 0.0f;
}

static double place_of(uint64_t n, uint32_t intervals, uint32_t cut)
{
    return (double)(n - 1) * (cut + 1) / intervals;
}

/* Two statistics for each cut of each position that has elements; returns how many. */
static uint32_t want(const quantile_job &job, uint32_t intervals, statistic *statistics)
{
    uint32_t count = 0;
    for (uint32_t p = 0; p < job.positions; p++) {
        const uint64_t n = pooled(job.v, job.first + p);
        for (uint32_t c = 0; n > 0 && c + 1 < intervals; c++) {
            const uint64_t below = (uint64_t)floor(place_of(n, intervals, c));
            const statistic low = { p, 0, below, 0.0f }, high = { p, 0, below + 1 < n ? below + 1 : n - 1, 0.0f };
            statistics[count++] = low;
            statistics[count++] = high;
        }
    }
    return count;
}

/* Statistics begin .. until the slots are used up; returns where it ended, *used: how many slots. */
static uint32_t hand_out_slots(const host_tables &host, uint32_t begin, uint32_t count, uint32_t *used)
{
    uint32_t slots = 0, i = begin;
    for (; i < count; i++) {
        uint8_t *const slot = &host.slot_of[host.statistics[i].position * BINS + host.statistics[i].bin];
        if (*slot) continue;
        if (slots == SLOTS) break;
        *slot = (uint8_t)++slots;
    }
    *used = slots;
    return i;
}

static qem_status look_into_bins(qem_cuda_call &call, const quantile_job &job, const host_tables &host, uint32_t count)
{
    const uint64_t elements = job.v.rows * job.v.groups * job.positions;
    for (uint32_t i = 0, last; i < count; i = last) {
        uint32_t slots;
        memset(host.slot_of, 0, (size_t)job.positions * BINS);
        last = hand_out_slots(host, i, count, &slots);
        const uint64_t bytes = (uint64_t)slots * BINS * sizeof(uint32_t);
        QEM_TRY(call.to_device(job.slot_of, host.slot_of, (uint64_t)job.positions * BINS));
        QEM_TRY(call.zero(job.fine, bytes));
        QEM_TRY(call.launch(QEM_LAUNCH(count_fine, call.blocks(elements), QEM_CUDA_THREADS, 0, call.stream, job)));
        QEM_TRY(call.to_host(host.counts, job.fine, bytes));
        for (uint32_t s = i; s < last; s++) {
            statistic &wanted = host.statistics[s];
            const uint32_t slot = host.slot_of[wanted.position * BINS + wanted.bin] - 1u;
            wanted.value = from_key(wanted.bin << 16 | find_bin(host.counts + (uint64_t)slot * BINS, &wanted.rank));
        }
    }
    return QEM_OK;
}

static qem_status select(qem_cuda_call &call, const quantile_job &job, const host_tables &host, uint32_t intervals,
                         float *cuts)
{
    const uint64_t elements = job.v.rows * job.v.groups * job.positions,
                   bytes = (uint64_t)job.positions * BINS * sizeof(uint32_t);
    const uint32_t count = want(job, intervals, host.statistics);
    QEM_TRY(call.zero(job.coarse, bytes));
    QEM_TRY(call.launch(QEM_LAUNCH(count_coarse, call.blocks(elements), QEM_CUDA_THREADS, 0, call.stream, job)));
    QEM_TRY(call.to_host(host.counts, job.coarse, bytes));
    for (uint32_t i = 0; i < count; i++) {
        statistic &s = host.statistics[i];
        s.bin = find_bin(host.counts + (uint64_t)s.position * BINS, &s.rank);
    }
    QEM_TRY(look_into_bins(call, job, host, count));
    const statistic *next = host.statistics;
    for (uint32_t p = 0; p < job.positions; p++) {
        const uint64_t n = pooled(job.v, job.first + p);
        for (uint32_t c = 0; c + 1 < intervals; c++) {
            float *const cut = cuts + (uint64_t)(job.first + p) * (intervals - 1) + c;
            *cut = 0.0f; /* of a single column group that is narrower than dim */
            if (n == 0) continue;
            const double at = place_of(n, intervals, c);
            *cut = interpolate(next[0].value, next[1].value, at - floor(at));
            next += 2;
        }
    }
    return QEM_OK;
}

qem_status qem_cuda_quantiles(qem_context *context, qem_subvectors points, uint32_t intervals, float *cuts)
{
    qem_cuda_call call(context);
    quantile_job job = { points, 0, 0, nullptr, nullptr, nullptr };
    void *memory;
    QEM_TRY(call.status);
    if (intervals > MOST_INTERVALS)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "quantiles into %u intervals; at most %d", intervals, MOST_INTERVALS);
    QEM_TRY(call.take((uint64_t)POSITIONS * BINS, &job.coarse));
    QEM_TRY(call.take((uint64_t)SLOTS * BINS, &job.fine));
    QEM_TRY(call.take((uint64_t)POSITIONS * BINS, &job.slot_of));
    const uint64_t counters = (uint64_t)(SLOTS > POSITIONS ? SLOTS : POSITIONS) * BINS;
    const uint64_t statistics = (uint64_t)POSITIONS * 2 * MOST_INTERVALS;
    QEM_TRY(
        qem_allocate(context, counters * sizeof(uint32_t) + statistics * sizeof(statistic) + POSITIONS * BINS, 1, &memory));
    host_tables host;
    host.statistics = (statistic *)memory;
    host.counts = (uint32_t *)(host.statistics + statistics);
    host.slot_of = (uint8_t *)(host.counts + counters);
    qem_status status = QEM_OK;
    for (; job.first < points.dim && status == QEM_OK; job.first += POSITIONS) {
        job.positions = points.dim - job.first < POSITIONS ? points.dim - job.first : POSITIONS;
        status = select(call, job, host, intervals, cuts);
    }
    qem_release(context, memory);
    return status;
}
