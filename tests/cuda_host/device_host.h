/* What nvcc supplies to kernels, for the host build: included by cuda/device.cuh alone. One kernel thread runs at a time, on a
 * fiber of its own (grid.cpp), so that plain loads and stores are atomic; everything else a warp does together is built on one
 * primitive, qem_runner::exchange. Only exact functions are given: no fast division, no approximations. */
#ifndef QEM_TESTS_CUDA_HOST_DEVICE_HOST_H
#define QEM_TESTS_CUDA_HOST_DEVICE_HOST_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
#define __launch_bounds__(...)
using std::max;
using std::min;

namespace qem_runner {

/* Where in the source a thread waits: barriers are told apart and reported by it. */
struct Site {
    const char *file;
    int line;
    static Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

enum class Exchange { sync, shuffle, ballot, match };

/* Every lane of `mask` that has not exited posts a word; when the last one arrives each gets its answer: the word of lane
 * `source` (all ones if that lane is not there), or a set of lanes (those whose word is not 0, those whose word is mine).
 * `present`, if not null, receives the lanes that were there. */
uint64_t exchange(Exchange what, uint32_t mask, uint64_t word, int source, Site site, uint32_t *present = nullptr);
void barrier(Site site);
unsigned lane();

void *dynamic_shared();
void *static_shared(const void *id, size_t bytes);
template <typename Array> Array &static_shared(const void *id) { return *static_cast<Array *>(static_shared(id, sizeof(Array))); }

[[noreturn]] void misaligned(size_t bytes);
inline void check_alignment(const void *address, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(address) % bytes) misaligned(bytes);
}

/* As the hardware converts, by the toolkit's own functions (convert.cpp). */
uint16_t to_f16(float x);
uint16_t to_bf16(float x);
float from_f16(uint16_t bits);

void check_argument(int index, const void *pointer);
template <typename T> void check_argument(int index, const T &value)
{
    if constexpr (std::is_pointer_v<T>) check_argument(index, static_cast<const void *>(value));
}

cudaError_t launch(const void *kernel, std::function<void()> thread, dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream);
[[noreturn]] void trap(Site site);

} // namespace qem_runner

template <typename T> struct qem_as_is {
    using type = T;
};

template <typename... P>
cudaError_t qem_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                       typename qem_as_is<P>::type... arguments)
{
    int index = 0;
    (qem_runner::check_argument(index++, arguments), ...);
    return qem_runner::launch(reinterpret_cast<const void *>(kernel), [=] { kernel(arguments...); }, grid, block, shared_bytes,
                              stream);
}

#define QEM_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(qem_runner::dynamic_shared())
#define QEM_SHARED(type, name, dimensions) \
    static char name##_identity; \
    type(&name) dimensions = qem_runner::static_shared<type dimensions>(&name##_identity)

/* --- barriers and the operations of a warp --- */

inline void __syncthreads(qem_runner::Site site = qem_runner::Site::here()) { qem_runner::barrier(site); }

inline void __syncwarp(unsigned mask = 0xffffffffu, qem_runner::Site site = qem_runner::Site::here())
{
    qem_runner::exchange(qem_runner::Exchange::sync, mask, 0, 0, site);
}

template <typename T> T qem_shuffle(unsigned mask, T value, int source, qem_runner::Site site)
{
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    word = qem_runner::exchange(qem_runner::Exchange::shuffle, mask, word, source, site);
    memcpy(&value, &word, sizeof value);
    return value;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, qem_runner::Site site = qem_runner::Site::here())
{
    const int lane = qem_runner::lane();
    return qem_shuffle(mask, value, (lane & -width) | (source & (width - 1)), site);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, qem_runner::Site site = qem_runner::Site::here())
{
    const int lane = qem_runner::lane(), source = lane ^ bits;
    return qem_shuffle(mask, value, source < (lane & -width) + width ? source : lane, site);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, qem_runner::Site site = qem_runner::Site::here())
{
    const int lane = qem_runner::lane(), source = lane + by;
    return qem_shuffle(mask, value, source < (lane & -width) + width ? source : lane, site);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, int by, int width = 32, qem_runner::Site site = qem_runner::Site::here())
{
    const int lane = qem_runner::lane(), source = lane - by;
    return qem_shuffle(mask, value, source >= (lane & -width) ? source : lane, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, qem_runner::Site site = qem_runner::Site::here())
{
    return (unsigned)qem_runner::exchange(qem_runner::Exchange::ballot, mask, predicate != 0, 0, site);
}

inline int __any_sync(unsigned mask, int predicate, qem_runner::Site site = qem_runner::Site::here())
{
    return __ballot_sync(mask, predicate, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, qem_runner::Site site = qem_runner::Site::here())
{
    uint32_t present;
    const uint64_t yes = qem_runner::exchange(qem_runner::Exchange::ballot, mask, predicate != 0, 0, site, &present);
    return yes == present;
}

template <typename T>
unsigned __match_any_sync(unsigned mask, T value, qem_runner::Site site = qem_runner::Site::here())
{
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    return (unsigned)qem_runner::exchange(qem_runner::Exchange::match, mask, word, 0, site);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __trap(qem_runner::Site site = qem_runner::Site::here()) { qem_runner::trap(site); }

/* --- memory --- */

template <typename T> T qem_load_once(const T *from)
{
    qem_runner::check_alignment(from, sizeof(T));
    return *from;
}

template <typename T> T __ldg(const T *from) { return qem_load_once(from); }
template <typename T> T __ldcs(const T *from) { return qem_load_once(from); }
template <typename T> T __ldcg(const T *from) { return qem_load_once(from); }

template <typename T> void __stcs(T *to, T value)
{
    qem_runner::check_alignment(to, sizeof(T));
    *to = value;
}

/* Relaxed atomic operations, so that the thread sanitizer tells them from plain accesses. */
template <typename T> T atomicAdd(T *at, typename qem_as_is<T>::type value)
{
    static_assert(std::is_integral_v<T>, "float atomics depend on the order of threads");
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <typename T> T atomicOr(T *at, typename qem_as_is<T>::type v) { return __atomic_fetch_or(at, v, __ATOMIC_RELAXED); }
template <typename T> T atomicCAS(T *at, typename qem_as_is<T>::type expected, typename qem_as_is<T>::type value)
{
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <typename T> T atomicMin(T *at, typename qem_as_is<T>::type value)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value < old && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
template <typename T> T atomicMax(T *at, typename qem_as_is<T>::type value)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value > old && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}

/* --- bits and arithmetic --- */

template <typename To, typename From> To qem_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "a change of type, not of size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

inline unsigned __float_as_uint(float x) { return qem_bits<unsigned>(x); }
inline int __float_as_int(float x) { return qem_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return qem_bits<float>(x); }
inline float __int_as_float(int x) { return qem_bits<float>(x); }
inline double __longlong_as_double(long long x) { return qem_bits<double>(x); }
inline long long __double_as_longlong(double x) { return qem_bits<long long>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    __extension__ typedef unsigned __int128 wide;
    return (unsigned long long)(((wide)a * b) >> 64);
}

inline unsigned __brev(unsigned x)
{
    unsigned result = 0;
    for (int i = 0; i < 32; i++) result |= ((x >> i) & 1u) << (31 - i);
    return result;
}

/* The high (l) or low (r) word of hi:lo shifted by the low five bits of `by`; the clamped one stops at 32. */
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by)
{
    return (unsigned)(((((uint64_t)hi << 32) | lo) << (by & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by)
{
    return (unsigned)((((uint64_t)hi << 32) | lo) >> (by & 31));
}
inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned by)
{
    return by >= 32 ? hi : __funnelshift_r(lo, hi, by);
}

/* Each nibble of the selector names one of eight bytes; its high bit asks for that byte's sign in all eight bits. */
inline uint32_t qem_prmt(uint32_t a, uint32_t b, uint32_t selector)
{
    const uint64_t bytes = ((uint64_t)b << 32) | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t nibble = (selector >> (4 * i)) & 15u;
        uint32_t byte = (uint32_t)(bytes >> (8 * (nibble & 7u))) & 255u;
        if (nibble & 8u) byte = byte & 128u ? 255u : 0u;
        result |= byte << (8 * i);
    }
    return result;
}
inline uint16_t qem_cvt_f16(float x) { return qem_runner::to_f16(x); }
inline float qem_cvt_f32(uint16_t bits) { return qem_runner::from_f16(bits); }
inline uint32_t qem_cvt_f16x2(float low, float high)
{
    return (uint32_t)qem_runner::to_f16(high) << 16 | qem_runner::to_f16(low);
}
inline uint32_t qem_cvt_bf16x2(float low, float high)
{
    return (uint32_t)qem_runner::to_bf16(high) << 16 | qem_runner::to_bf16(low);
}
inline uint32_t qem_select(uint32_t mask, uint32_t a, uint32_t b) { return (mask & a) | (~mask & b); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) { return qem_prmt(a, b, selector & 0x7777u); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }

#endif
