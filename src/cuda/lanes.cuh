/* What sums in 8 lanes share: a team of 8 threads makes a sum, thread l the lane of the elements l, l + 8, ... of its
 * piece. A warp's four teams load 32 bytes each that lie side by side. */
#ifndef QEM_CUDA_LANES_CUH
#define QEM_CUDA_LANES_CUH

#include "backend.cuh"

#define QEM_LANES     8u
#define QEM_ALL_LANES 0xffffffffu

/* ((0+1)+(2+3))+((4+5)+(6+7)) in every thread of a team; all threads of the warp take part. */
__device__ __forceinline__ double qem_lane_total(double lane)
{
    lane += __shfl_xor_sync(QEM_ALL_LANES, lane, 1);
    lane += __shfl_xor_sync(QEM_ALL_LANES, lane, 2);
    return lane + __shfl_xor_sync(QEM_ALL_LANES, lane, 4);
}

__device__ __forceinline__ double qem_lane_least(double lane)
{
    for (int by = 1; by < 8; by *= 2) {
        const double other = __shfl_xor_sync(QEM_ALL_LANES, lane, by);
        lane = other < lane ? other : lane;
    }
    return lane;
}

__device__ __forceinline__ double qem_lane_greatest(double lane)
{
    for (int by = 1; by < 8; by *= 2) {
        const double other = __shfl_xor_sync(QEM_ALL_LANES, lane, by);
        lane = other > lane ? other : lane;
    }
    return lane;
}

/* Teams of a grid, and the team of this thread. All threads of a warp have to go through a loop over teams together:
 * for (uint64_t round = 0; round < qem_team_rounds(count); round++) { item = qem_team(round); ... item < count ... } */
__device__ __forceinline__ uint64_t qem_team_rounds(uint64_t count)
{
    const uint64_t teams = qem_cuda_stride() / QEM_LANES;
    return (count + teams - 1) / teams;
}

__device__ __forceinline__ uint64_t qem_team(uint64_t round)
{
    return round * (qem_cuda_stride() / QEM_LANES) + qem_cuda_first() / QEM_LANES;
}

/* Order of floats as order of unsigned integers; -0 has the key of +0 (core/ordered_key.h). */
__device__ __forceinline__ uint32_t qem_cuda_key(float x)
{
    const uint32_t u = __float_as_uint(x + 0.0f);
    return u ^ ((u >> 31) ? 0xffffffffu : 0x80000000u);
}

#endif
