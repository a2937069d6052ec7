/*
 * Exclusive sums: blocks add up their tiles, the tiles' sums are summed the same way, and blocks sum within their tiles.
 *
 * Bytes: 4 read for the tiles' sums, then 4 read and 4 written a counter.
 */
#include "scan.cuh"

#define TILE      (4 * QEM_CUDA_THREADS)
#define WARPS     (QEM_CUDA_THREADS / 32)
#define ALL_LANES 0xffffffffu

/* The sum of `value` over the threads of the block before this one; *total: over all. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t value, uint32_t *total)
{
    QEM_SHARED(uint32_t, of_warp, [WARPS]);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = value, before = 0, all = 0;
    for (uint32_t by = 1; by < 32; by *= 2) {
        const uint32_t other = __shfl_up_sync(ALL_LANES, sum, by);
        sum += lane >= by ? other : 0;
    }
    if (lane == 31) of_warp[warp] = sum;
    __syncthreads();
    for (uint32_t w = 0; w < WARPS; w++) {
        before += w < warp ? of_warp[w] : 0;
        all += of_warp[w];
    }
    __syncthreads();
    *total = all;
    return before + sum - value;
}

static __device__ __forceinline__ uint32_t at(const uint32_t *counts, uint64_t count, uint64_t i)
{
    return i < count ? counts[i] : 0;
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    add_tiles(const uint32_t *counts, uint64_t count, uint64_t tiles, uint32_t *sums)
{
    for (uint64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const uint64_t first = tile * TILE + threadIdx.x;
        uint32_t value = 0, total;
        for (uint32_t i = 0; i < TILE; i += QEM_CUDA_THREADS) value += at(counts, count, first + i);
        (void)sum_before(value, &total);
        if (threadIdx.x == 0) sums[tile] = total;
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    sum_tiles(uint32_t *counts, uint64_t count, uint64_t tiles, const uint32_t *before)
{
    for (uint64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        uint32_t sum = before ? before[tile] : 0;
        for (uint32_t i = 0; i < TILE; i += QEM_CUDA_THREADS) {
            const uint64_t here = tile * TILE + i + threadIdx.x;
            uint32_t total;
            const uint32_t own = sum_before(at(counts, count, here), &total);
            if (here < count) counts[here] = sum + own;
            sum += total;
        }
    }
}

qem_status qem_cuda_exclusive_sums(qem_cuda_call &call, uint32_t *counts, uint64_t count)
{
    const uint64_t tiles = (count + TILE - 1) / TILE;
    const uint32_t blocks = call.blocks(tiles, 1);
    uint32_t *sums = nullptr;
    if (count == 0) return QEM_OK;
    if (tiles > 1) {
        QEM_TRY(call.take(tiles, &sums));
        QEM_TRY(call.launch(QEM_LAUNCH(add_tiles, blocks, QEM_CUDA_THREADS, 0, call.stream, counts, count, tiles, sums)));
        QEM_TRY(qem_cuda_exclusive_sums(call, sums, tiles));
    }
    return call.launch(QEM_LAUNCH(sum_tiles, blocks, QEM_CUDA_THREADS, 0, call.stream, counts, count, tiles, sums));
}
