/* What the kernels of k-means share. */
#ifndef QEM_CUDA_KMEANS_DEVICE_CUH
#define QEM_CUDA_KMEANS_DEVICE_CUH

#include <float.h>
#include <math.h>

#include "../core/fixed.h"
#include "../core/random.h"
#include "kmeans.cuh"

#define QEM_KM_ALL_LANES 0xffffffffu

/* ---- sub-vectors ---- */

__device__ __forceinline__ bool qem_km_is_last_group(const qem_subvectors &v, uint32_t id)
{
    return id % (uint32_t)v.groups + 1 == (uint32_t)v.groups;
}

/* Where sub-vector `id` begins in the matrix, or in one of weights. */
__device__ __forceinline__ uint64_t qem_km_place(const qem_subvectors &v, uint32_t id)
{
    if (qem_are_dense(&v)) return (uint64_t)id * v.dim;
    const uint32_t groups = (uint32_t)v.groups, row = id / groups;
    return (uint64_t)row * v.cols + (uint64_t)(id - row * groups) * v.dim;
}

/* ---- slots and tiles ---- */

/* Slot number i of a thread, or the tile's end; i < QEM_KM_EACH. */
__device__ __forceinline__ bool qem_km_slot(const qem_km_tile &tile, uint32_t i, uint32_t *slot)
{
    const uint32_t at = i * QEM_KM_THREADS + threadIdx.x;
    *slot = tile.begin + at;
    return at < tile.count;
}

__device__ __forceinline__ uint32_t qem_km_dim(const qem_km_problem &p, const qem_km_tile &tile)
{
    return tile.part ? p.tail_dim : p.width;
}

/* Point number `index` of a problem, and back. */
__device__ __forceinline__ uint32_t qem_km_slot_of(const qem_km_problem &p, uint32_t index)
{
    return index < p.full ? index : p.tail_slot + (index - p.full);
}

__device__ __forceinline__ uint32_t qem_km_index_of(const qem_km_problem &p, uint32_t slot)
{
    return slot < p.tail_slot || p.full == p.count ? slot : p.full + (slot - p.tail_slot);
}

/* A tile's number in the order of the problem's points, and a tile of that number. */
__device__ __forceinline__ uint32_t qem_km_tiles_of(uint32_t points) { return (points + QEM_KM_TILE - 1) / QEM_KM_TILE; }

__device__ __forceinline__ uint32_t qem_km_number(const qem_km_problem &p, const qem_km_tile &tile)
{
    return tile.part ? qem_km_tiles_of(p.full) + (tile.begin - p.tail_slot) / QEM_KM_TILE : tile.begin / QEM_KM_TILE;
}

__device__ __forceinline__ qem_km_tile qem_km_tile_of(const qem_km_problem &p, uint32_t problem, uint32_t number)
{
    const uint32_t full_tiles = qem_km_tiles_of(p.full);
    const uint32_t part = number >= full_tiles, at = (part ? number - full_tiles : number) * QEM_KM_TILE;
    const uint32_t left = (part ? p.count - p.full : p.full) - at;
    return {problem, part ? p.tail_slot + at : at, left < QEM_KM_TILE ? left : QEM_KM_TILE, part};
}

/* ---- values ---- */

__device__ __forceinline__ double qem_km_double(unsigned long long bits) { return __longlong_as_double((long long)bits); }
__device__ __forceinline__ unsigned long long qem_km_bits(double x) { return (unsigned long long)__double_as_longlong(x); }

__device__ __forceinline__ float qem_km_scaled(double mean, double scale, float stored)
{
    const float value = (float)(((double)stored - mean) * scale);
    if (value > QEM_KM_CLAMP) return QEM_KM_CLAMP;
    return value < -QEM_KM_CLAMP ? -QEM_KM_CLAMP : value;
}

/* Squared distance of a point to centroid j, over the point's components. */
__device__ __forceinline__ float qem_km_distance(const qem_km_view &v, const qem_km_problem &p, uint32_t slot, uint32_t dim,
                                                 uint32_t j)
{
    const float *x = v.x + p.x_at + slot, *c = v.c + p.part_at + j;
    const float *w = p.weighting == QEM_KM_ELEMENT ? v.w + p.w_at + slot : nullptr;
    float s = 0.0f;
    for (uint32_t q = 0; q < dim; q++) {
        const float d = x[(uint64_t)q * p.slots] - c[(uint64_t)q * p.ldc];
        s = fmaf(w ? w[(uint64_t)q * p.slots] * d : d, d, s);
    }
    return s;
}

/* ---- a warp, a block ---- */

__device__ __forceinline__ unsigned long long qem_km_warp_max(unsigned long long value)
{
    for (int by = 16; by > 0; by /= 2) {
        const unsigned long long other = __shfl_xor_sync(QEM_KM_ALL_LANES, value, by);
        value = other > value ? other : value;
    }
    return value;
}

__device__ __forceinline__ long long qem_km_warp_sum(long long value)
{
    for (int by = 16; by > 0; by /= 2) value += __shfl_xor_sync(QEM_KM_ALL_LANES, value, by);
    return value;
}

/* The largest of a tile's values >= 0, for the problem. */
__device__ __forceinline__ void qem_km_note_largest(unsigned long long *largest, double value)
{
    const unsigned long long bits = qem_km_warp_max(qem_km_bits(value));
    if (threadIdx.x % 32 == 0 && bits) atomicMax(largest, bits);
}

/* Sum of the values of this thread and those before it in the block; *total of all. */
__device__ __forceinline__ long long qem_km_scan(long long value, long long *total)
{
    QEM_SHARED(long long, of_warp, [32]);
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (uint32_t by = 1; by < 32; by *= 2) {
        const long long other = __shfl_up_sync(QEM_KM_ALL_LANES, value, by);
        if (lane >= by) value += other;
    }
    __syncthreads(); /* the sums of the scan before are read */
    if (lane == 31) of_warp[warp] = value;
    __syncthreads();
    long long all = 0;
    for (uint32_t w = 0; w < blockDim.x / 32; w++) {
        if (w < warp) value += of_warp[w];
        all += of_warp[w];
    }
    *total = all;
    return value;
}

#endif
