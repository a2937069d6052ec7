/*
 * Sums of all elements in the fixed order of backend.h: a team of 8 threads makes the sums of a chunk of QEM_ERROR_CHUNK
 * elements, the host adds the chunks' sums in ascending order.
 *
 * Bytes: every kernel reads each of its matrices once, 4 bytes an element, and writes 24 to 40 bytes a chunk: the minimum.
 */
#include "lanes.cuh"

#include <string.h>

struct chunk_sums {
    double sums[3], max;
    uint64_t zeros;
};

/* ---- extremes ---- */

static __device__ __forceinline__ uint32_t warp_least(uint32_t key)
{
    for (int by = 16; by > 0; by /= 2) key = min(key, __shfl_xor_sync(QEM_ALL_LANES, key, by));
    return key;
}

/* keys: [2], the least key and the least of the complements. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) find_extremes(const float *x, uint64_t count, uint32_t *keys)
{
    uint32_t low = UINT32_MAX, high = UINT32_MAX;
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) {
        const uint32_t key = qem_cuda_key(__ldg(x + i));
        low = min(low, key);
        high = min(high, ~key);
    }
    low = warp_least(low);
    high = warp_least(high);
    if (threadIdx.x % 32 != 0) return;
    atomicMin(keys, low);
    atomicMin(keys + 1, high);
}

static float from_key(uint32_t key)
{
    const uint32_t bits = key ^ ((key >> 31) ? 0x80000000u : 0xffffffffu);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

qem_status qem_cuda_extremes(qem_context *context, const float *x, uint64_t count, float *min, float *max)
{
    qem_cuda_call call(context);
    uint32_t keys[2] = { UINT32_MAX, UINT32_MAX }, *on_device;
    QEM_TRY(call.status);
    QEM_TRY(call.put(keys, 2, &on_device));
    QEM_TRY(
        call.launch(QEM_LAUNCH(find_extremes, call.blocks(count), QEM_CUDA_THREADS, 0, call.stream, x, count, on_device)));
    QEM_TRY(call.to_host(keys, on_device, sizeof keys));
    *min = from_key(keys[0]);
    *max = from_key(~keys[1]);
    return QEM_OK;
}

/* ---- chunks ---- */

/* Elements of a chunk that this lane adds: begin, begin + 8, ... below end. */
struct lane_range {
    uint64_t begin, end;
};

static __device__ __forceinline__ lane_range lane_of_chunk(uint64_t chunk, uint64_t count)
{
    const uint64_t first = chunk * QEM_ERROR_CHUNK, left = first < count ? count - first : 0;
    const lane_range r = { first + threadIdx.x % QEM_LANES, first + (left < QEM_ERROR_CHUNK ? left : QEM_ERROR_CHUNK) };
    return r;
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    sum_chunks(const float *x, uint64_t count, uint64_t chunks, double center, chunk_sums *out)
{
    for (uint64_t round = 0; round < qem_team_rounds(chunks); round++) {
        const uint64_t chunk = qem_team(round);
        const lane_range r = lane_of_chunk(chunk, count);
        double sum = 0.0, squared = 0.0;
#pragma unroll 8
        for (uint64_t i = r.begin; i < r.end; i += QEM_LANES) {
            const double d = (double)__ldg(x + i) - center;
            sum += d;
            squared += d * d;
        }
        sum = qem_lane_total(sum);
        squared = qem_lane_total(squared);
        if (chunk >= chunks || threadIdx.x % QEM_LANES != 0) continue;
        out[chunk].sums[0] = sum;
        out[chunk].sums[1] = squared;
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    error_chunks(const float *x, const float *y, uint64_t count, uint64_t chunks, chunk_sums *out)
{
    for (uint64_t round = 0; round < qem_team_rounds(chunks); round++) {
        const uint64_t chunk = qem_team(round);
        const lane_range r = lane_of_chunk(chunk, count);
        double absolute = 0.0, squared = 0.0, relative = 0.0, largest = 0.0;
        uint32_t zeros = 0;
#pragma unroll 4
        for (uint64_t i = r.begin; i < r.end; i += QEM_LANES) {
            const double exact = (double)__ldg(x + i), e = fabs(exact - (double)__ldg(y + i)), size = fabs(exact);
            absolute += e;
            squared += e * e;
            if (size != 0.0)
                relative += e / size;
            else
                zeros++;
            largest = e > largest ? e : largest;
        }
        absolute = qem_lane_total(absolute);
        squared = qem_lane_total(squared);
        relative = qem_lane_total(relative);
        largest = qem_lane_greatest(largest);
        for (int by = 1; by < 8; by *= 2) zeros += __shfl_xor_sync(QEM_ALL_LANES, zeros, by);
        if (chunk >= chunks || threadIdx.x % QEM_LANES != 0) continue;
        const chunk_sums sums = { { absolute, squared, relative }, largest, zeros };
        out[chunk] = sums;
    }
}

/* The sums of all chunks, host memory that the caller releases. y NULL: sums of x - center. */
static qem_status run(qem_context *context, const float *x, const float *y, uint64_t count, double center,
                      chunk_sums **sums)
{
    const uint64_t chunks = (count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK;
    qem_cuda_call call(context);
    chunk_sums *on_device;
    void *memory;
    *sums = nullptr;
    QEM_TRY(call.status);
    QEM_TRY(call.take(chunks, &on_device));
    const uint32_t blocks = call.blocks(chunks, QEM_CUDA_THREADS / QEM_LANES);
    QEM_TRY(call.launch(
        y ? QEM_LAUNCH(error_chunks, blocks, QEM_CUDA_THREADS, 0, call.stream, x, y, count, chunks, on_device)
          : QEM_LAUNCH(sum_chunks, blocks, QEM_CUDA_THREADS, 0, call.stream, x, count, chunks, center, on_device)));
    QEM_TRY(qem_allocate(context, chunks, sizeof(chunk_sums), &memory));
    const qem_status status = call.to_host(memory, on_device, chunks * sizeof(chunk_sums));
    if (status == QEM_OK)
        *sums = (chunk_sums *)memory;
    else
        qem_release(context, memory);
    return status;
}

qem_status qem_cuda_error_sums(qem_context *context, const float *x, const float *y, uint64_t count, qem_error_sums *sums)
{
    chunk_sums *chunk;
    const qem_error_sums none = { 0.0, 0.0, 0.0, 0.0, 0 };
    QEM_TRY(run(context, x, y, count, 0.0, &chunk));
    *sums = none;
    for (uint64_t c = 0; c < (count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK; c++) {
        sums->abs_error += chunk[c].sums[0];
        sums->squared_error += chunk[c].sums[1];
        sums->relative_error += chunk[c].sums[2];
        if (chunk[c].max > sums->max_error) sums->max_error = chunk[c].max;
        sums->zeros += chunk[c].zeros;
    }
    qem_release(context, chunk);
    return QEM_OK;
}

qem_status qem_cuda_sum(qem_context *context, const float *x, uint64_t count, double center, double *sum, double *squared)
{
    chunk_sums *chunk;
    QEM_TRY(run(context, x, nullptr, count, center, &chunk));
    *sum = *squared = 0.0;
    for (uint64_t c = 0; c < (count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK; c++) {
        *sum += chunk[c].sums[0];
        *squared += chunk[c].sums[1];
    }
    qem_release(context, chunk);
    return QEM_OK;
}

qem_status qem_cuda_mean(qem_context *context, const float *x, uint64_t count, double *mean)
{
    double sum, squared;
    QEM_TRY(qem_cuda_sum(context, x, count, 0.0, &sum, &squared));
    *mean = sum / (double)count;
    return QEM_OK;
}

/* ---- weighted moments ---- */

#define TILE 32 /* chunks that a warp sums, and elements of each that it loads at once */

/* A chunk is one chain of sums here, so a thread makes it; a warp loads a run of each of its 32 chunks side by side and
 * turns them in shared memory, padded so that neither way of access meets a bank twice. */
static __global__ void __launch_bounds__(TILE)
    weigh_chunks(const float *x, const float *weight, uint64_t count, uint64_t chunks, double center, double *moments)
{
    QEM_SHARED(float, xs, [TILE][TILE + 1]);
    QEM_SHARED(float, ws, [TILE][TILE + 1]);
    const uint64_t first_chunk = (uint64_t)blockIdx.x * TILE;
    const uint32_t lane = threadIdx.x;
    double total = 0.0, first = 0.0, second = 0.0;
    for (uint32_t at = 0; at < QEM_ERROR_CHUNK; at += TILE) {
        for (uint32_t c = 0; c < TILE; c++) {
            const uint64_t i = (first_chunk + c) * QEM_ERROR_CHUNK + at + lane;
            xs[c][lane] = i < count ? __ldg(x + i) : 0.0f;
            ws[c][lane] = i < count ? __ldg(weight + i) : 0.0f;
        }
        __syncwarp();
        const uint64_t begin = (first_chunk + lane) * QEM_ERROR_CHUNK + at;
        for (uint32_t i = 0; i < TILE && begin + i < count; i++) {
            const double w = (double)ws[lane][i], d = (double)xs[lane][i] - center, product = w * d;
            total += w;
            first += product;
            second += product * d;
        }
        __syncwarp();
    }
    if (first_chunk + lane >= chunks) return;
    double *const out = moments + 3 * (first_chunk + lane);
    out[0] = total;
    out[1] = first;
    out[2] = second;
}

qem_status qem_cuda_weighted_moments(qem_context *context, const float *x, const float *weight, uint64_t count,
                                     double center, double moments[3])
{
    const uint64_t chunks = (count + QEM_ERROR_CHUNK - 1) / QEM_ERROR_CHUNK;
    qem_cuda_call call(context);
    double *on_device;
    void *memory;
    QEM_TRY(call.status);
    QEM_TRY(call.take(3 * chunks, &on_device));
    QEM_TRY(call.launch(QEM_LAUNCH(weigh_chunks, (uint32_t)((chunks + TILE - 1) / TILE), TILE, 0, call.stream, x, weight,
                                   count, chunks, center, on_device)));
    QEM_TRY(qem_allocate(context, chunks, 3 * sizeof(double), &memory));
    const double *const of_chunk = (const double *)memory;
    const qem_status status = call.to_host(memory, on_device, 3 * chunks * sizeof(double));
    moments[0] = moments[1] = moments[2] = 0.0;
    for (uint64_t c = 0; status == QEM_OK && c < chunks; c++)
        for (int m = 0; m < 3; m++) moments[m] += of_chunk[3 * c + m];
    qem_release(context, memory);
    return status;
}
