/* Included first by every .cu file; the only file that tells nvcc from the host build. With QEM_HOST_RUNNER the kernels are
 * plain C++ that tests/cuda_host executes on the CPU, one fiber for each GPU thread; everything not named here is ordinary CUDA
 * C++ in both builds (threadIdx, __syncthreads, __shfl_*_sync, __ballot_sync, __ldg, atomicAdd, __funnelshift_r, ...).
 *
 *   QEM_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)   cudaError_t of this launch; never synchronizes
 *   QEM_KERNEL(kernel)                                                    the address cudaFuncGetAttributes and others take
 *   QEM_DYNAMIC_SHARED(type, name);                                       type *name: the launch's dynamic shared memory
 *   QEM_SHARED(type, name, [n][m]);                                       an array in static shared memory
 * A kernel may be a template instance: QEM_LAUNCH(kernel<4, 2>, ...). Shared memory is aligned to 16 bytes.
 *
 * nvcc compiles with -fmad=false: a product and a sum are two roundings in both builds; write fmaf where one is meant. */
#ifndef QEM_CUDA_DEVICE_CUH
#define QEM_CUDA_DEVICE_CUH

#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime.h>

#ifdef QEM_HOST_RUNNER
#include "cuda_host/device_host.h"
#else

template <typename T> struct qem_as_is {
    using type = T;
};

/* The kernel's own parameter types decide what is passed: an argument of another type is converted as in any call. The error is
 * that of this launch, whatever earlier calls left for cudaGetLastError. */
template <typename... P>
inline cudaError_t qem_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                              typename qem_as_is<P>::type... arguments)
{
    void *addresses[] = {static_cast<void *>(&arguments)..., nullptr};
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, block, addresses, shared_bytes, stream);
}

extern __shared__ __align__(16) unsigned char qem_dynamic_shared_memory[];

#define QEM_DYNAMIC_SHARED(type, name) type *const name = reinterpret_cast<type *>(qem_dynamic_shared_memory)
#define QEM_SHARED(type, name, dimensions) __shared__ __align__(16) type name dimensions

/* prmt.b32 with the whole selector: the intrinsic __byte_perm drops the bit that copies a byte's sign. */
__device__ __forceinline__ uint32_t qem_prmt(uint32_t a, uint32_t b, uint32_t selector)
{
    uint32_t result;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
    return result;
}

/* The hardware's conversions, which make every NaN one; pairs have the first element in the lower half. Written out because
 * cuda_fp16.h and cuda_bf16.h take nvcc about as long as the rest of a file. */
__device__ __forceinline__ uint16_t qem_cvt_f16(float x)
{
    uint16_t bits;
    asm("{ cvt.rn.f16.f32 %0, %1; }" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ float qem_cvt_f32(uint16_t bits)
{
    float x;
    asm("{ cvt.f32.f16 %0, %1; }" : "=f"(x) : "h"(bits));
    return x;
}

__device__ __forceinline__ uint32_t qem_cvt_f16x2(float low, float high)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    return (uint32_t)qem_cvt_f16(high) << 16 | qem_cvt_f16(low);
#else
    uint32_t bits;
    asm("{ cvt.rn.f16x2.f32 %0, %1, %2; }" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

__device__ __forceinline__ uint32_t qem_cvt_bf16x2(float low, float high)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    const uint32_t l = __float_as_uint(low), h = __float_as_uint(high);
    const uint32_t lower = (l & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : l + 0x7fffu + (l >> 16 & 1u);
    const uint32_t upper = (h & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : h + 0x7fffu + (h >> 16 & 1u);
    return qem_prmt(lower, upper, 0x7632u);
#else
    uint32_t bits;
    asm("{ cvt.rn.bf16x2.f32 %0, %1, %2; }" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

/* mask ? a : b, bit by bit. */
__device__ __forceinline__ uint32_t qem_select(uint32_t mask, uint32_t a, uint32_t b)
{
    uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(result) : "r"(mask), "r"(a), "r"(b));
    return result;
}

/* Loads of what is read once and that no thread of the launch writes: past L1, so that tables stay there. */
__device__ __forceinline__ uint32_t qem_load_once(const uint32_t *from)
{
    uint32_t v;
    asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}

__device__ __forceinline__ uint2 qem_load_once(const uint2 *from)
{
    uint2 v;
    asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}

__device__ __forceinline__ uint4 qem_load_once(const uint4 *from)
{
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(from));
    return v;
}

#endif

#define QEM_LAUNCH(...) qem_launch(__VA_ARGS__)
/* Functions that kernels and the host's code share. */
#ifdef __CUDACC__
#define QEM_BOTH_SIDES static __host__ __device__ __forceinline__
#else
#define QEM_BOTH_SIDES static inline
#endif
#define QEM_KERNEL(...) reinterpret_cast<const void *>(__VA_ARGS__)

/* Stores of what this launch does not read again. */
__device__ __forceinline__ void qem_store_once(uint32_t *to, uint32_t v) { __stcs(to, v); }
__device__ __forceinline__ void qem_store_once(uint2 *to, uint2 v) { __stcs(to, v); }
__device__ __forceinline__ void qem_store_once(uint4 *to, uint4 v) { __stcs(to, v); }

/* f32 against f16 and bf16, to the same bits as core/half.h: the hardware's conversions round alike but make every NaN one. */
__device__ __forceinline__ uint16_t qem_f16_bits(float value)
{
    const uint32_t u = __float_as_uint(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(((u >> 16) & 0x8000u) | 0x7e00u | ((u >> 13) & 0x3ffu));
    return qem_cvt_f16(value);
}

__device__ __forceinline__ float qem_f16_value(uint16_t bits)
{
    const uint32_t u = bits;
    if ((u & 0x7fffu) > 0x7c00u) return __uint_as_float(((u & 0x8000u) << 16) | 0x7fc00000u | ((u & 0x3ffu) << 13));
    return qem_cvt_f32(bits);
}

__device__ __forceinline__ uint16_t qem_bf16_bits(float value)
{
    const uint32_t u = __float_as_uint(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ float qem_bf16_value(uint16_t bits) { return __uint_as_float((uint32_t)bits << 16); }

#endif
