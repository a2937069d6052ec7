// The kernel host runner itself: it executes kernels as CUDA does, and each fault it exists to find is planted here and found.
#include <cstring>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/half.h"
#include "cuda/device.cuh"
#include "cuda_host/runner.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;

// Device memory that is freed with the test.
template <typename T> class Device {
public:
    explicit Device(size_t count) : count_(count)
    {
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void **>(&data_), count * sizeof(T)), cudaSuccess);
    }
    explicit Device(const std::vector<T> &values) : Device(values.size())
    {
        EXPECT_EQ(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~Device() { cudaFree(data_); }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;
    T *get() const { return data_; }
    std::vector<T> read() const
    {
        std::vector<T> values(count_);
        EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return values;
    }

private:
    T *data_ = nullptr;
    size_t count_;
};

class Stream {
public:
    Stream() { EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    operator cudaStream_t() const { return stream_; }

private:
    cudaStream_t stream_ = nullptr;
};

class Runner : public testing::Test {
protected:
    void SetUp() override
    {
        qem_runner::reset();
        testing::FLAGS_gtest_death_test_style = "threadsafe";
    }
    void TearDown() override { EXPECT_EQ(qem_runner::allocated_bytes(), 0u); }
};
using RunnerDeathTest = Runner;

std::vector<uint32_t> counted(size_t n)
{
    std::vector<uint32_t> values(n);
    std::iota(values.begin(), values.end(), 1u);
    return values;
}

// --- what kernels compute ---

__global__ void coordinates(uint32_t *out)
{
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    atomicAdd(out + block * threads + thread, block * 1000 + thread);
}

TEST_F(Runner, EveryThreadOfEveryBlockRunsOnce)
{
    const dim3 grid(3, 2, 2), block(5, 3, 2);
    Device<uint32_t> out(std::vector<uint32_t>(360, 0));
    ASSERT_EQ(QEM_LAUNCH(coordinates, grid, block, 0, nullptr, out.get()), cudaSuccess);
    const auto values = out.read();
    for (unsigned b = 0; b < 12; b++) {
        for (unsigned t = 0; t < 30; t++) EXPECT_EQ(values[b * 30 + t], b * 1000 + t);
    }
}

// Sums through every way threads exchange values: shuffles, static and dynamic shared memory, barriers, an atomic.
template <int Threads> __global__ void sum(const uint32_t *in, uint32_t *out, unsigned n)
{
    QEM_DYNAMIC_SHARED(uint32_t, all);
    QEM_SHARED(uint32_t, parts, [Threads / 32][2]);
    const unsigned i = blockIdx.x * Threads + threadIdx.x;
    all[threadIdx.x] = i < n ? qem_load_once(in + i) : 0;
    __syncthreads();
    uint32_t v = all[Threads - 1 - threadIdx.x];
    for (int by = 16; by; by >>= 1) v += __shfl_down_sync(kAll, v, by);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32][1] = v;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < Threads / 32; w++) v += parts[w][1];
    atomicAdd(out, v);
}

TEST_F(Runner, ASumIsTheSameInEveryOrderOfThreads)
{
    const unsigned n = 3000;
    Device<uint32_t> in(counted(n));
    for (uint64_t seed = 1; seed <= 5; seed++) {
        qem_runner::seed(seed);
        Device<uint32_t> out(std::vector<uint32_t>{0});
        ASSERT_EQ(QEM_LAUNCH(sum<128>, (n + 127) / 128, 128, 512, nullptr, in.get(), out.get(), n), cudaSuccess);
        EXPECT_EQ(out.read()[0], n * (n + 1) / 2);
    }
}

struct Warp {
    uint32_t indexed, segment, up, down, crossed, crossed_out, ballot, any, all, match;
    double wide;
};

__global__ void warp_operations(Warp *out)
{
    const uint32_t lane = threadIdx.x % 32;
    Warp w;
    w.indexed = __shfl_sync(kAll, lane * 3, 7);
    w.segment = __shfl_sync(kAll, lane * 3, 5, 8);
    w.up = __shfl_up_sync(kAll, lane, 3);
    w.down = __shfl_down_sync(kAll, lane, 3, 16);
    w.crossed = __shfl_xor_sync(kAll, lane, 5);
    w.crossed_out = __shfl_xor_sync(kAll, lane, 8, 8);
    w.ballot = __ballot_sync(kAll, lane % 3 == 0);
    w.any = __any_sync(kAll, lane == 31);
    w.all = __all_sync(kAll, lane == 31);
    w.match = __match_any_sync(kAll, lane / 10);
    w.wide = __shfl_xor_sync(kAll, lane + 0.25, 1);
    out[threadIdx.x] = w;
}

TEST_F(Runner, WarpOperationsAreCudas)
{
    Device<Warp> out(64);
    ASSERT_EQ(QEM_LAUNCH(warp_operations, 1, 64, 0, nullptr, out.get()), cudaSuccess);
    const auto got = out.read();
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t lane = i % 32, group = lane / 10;
        EXPECT_EQ(got[i].indexed, 21u);
        EXPECT_EQ(got[i].segment, (lane / 8 * 8 + 5) * 3);
        EXPECT_EQ(got[i].up, lane < 3 ? lane : lane - 3);
        EXPECT_EQ(got[i].down, lane % 16 >= 13 ? lane : lane + 3);
        EXPECT_EQ(got[i].crossed, lane ^ 5);
        EXPECT_EQ(got[i].crossed_out, lane & 8 ? lane ^ 8 : lane); // an earlier segment can be read, a later one cannot
        EXPECT_EQ(got[i].ballot, 0x49249249u);
        EXPECT_EQ(got[i].any, 1u);
        EXPECT_EQ(got[i].all, 0u);
        EXPECT_EQ(got[i].match, group == 3 ? 0xc0000000u : 0x3ffu << (10 * group));
        EXPECT_EQ(got[i].wide, (lane ^ 1) + 0.25);
    }
}

// The halves of a warp on different ways, each with its own mask and number of turns; a quarter has ended before.
__global__ void halves(uint32_t *out)
{
    const uint32_t lane = threadIdx.x;
    uint32_t v = lane;
    if (lane < 8) return;
    if (lane < 16) {
        for (int i = 0; i < 3; i++) v = __shfl_xor_sync(0xff00u, v, 1) + 1;
    } else {
        for (int i = 0; i < 10; i++) v = __shfl_xor_sync(0xffff0000u, v, 2) + 1;
    }
    out[lane] = v + 100 * __popc(__ballot_sync(kAll, 1)); // lanes that have ended are not waited for
}

TEST_F(Runner, PartsOfAWarpMeetByTheirMasks)
{
    Device<uint32_t> out(std::vector<uint32_t>(32, 0));
    for (uint64_t seed = 1; seed <= 20; seed++) {
        qem_runner::seed(seed);
        ASSERT_EQ(QEM_LAUNCH(halves, 1, 32, 0, nullptr, out.get()), cudaSuccess);
        const auto got = out.read();
        for (uint32_t lane = 0; lane < 32; lane++) {
            EXPECT_EQ(got[lane], lane < 8 ? 0 : lane < 16 ? (lane ^ 1) + 2403 : lane + 2410);
        }
    }
}

__global__ void bit_functions(uint64_t *out)
{
    out[0] = qem_prmt(0x83828180u, 0x07060504u, 0x9840u);
    out[1] = __byte_perm(0x83828180u, 0x07060504u, 0x9840u);
    out[2] = __funnelshift_r(0x89abcdefu, 0x01234567u, 36);
    out[3] = __funnelshift_l(0x89abcdefu, 0x01234567u, 8);
    out[4] = __funnelshift_rc(0x89abcdefu, 0x01234567u, 36);
    out[5] = __brev(0x00000006u);
    out[6] = (uint64_t)__clz(1) * 10000 + __ffs(8) * 100 + __popc(0xf0f0u);
    out[7] = __umulhi(0x80000000u, 6u);
    out[8] = __umul64hi(0x8000000000000001u, 6u);
}

TEST_F(Runner, BitFunctions)
{
    Device<uint64_t> out(9);
    ASSERT_EQ(QEM_LAUNCH(bit_functions, 1, 1, 0, nullptr, out.get()), cudaSuccess);
    EXPECT_EQ(out.read(), (std::vector<uint64_t>{0xffff0480u, 0x81800480u, 0x789abcdeu, 0x23456789u, 0x01234567u, 0x60000000u,
                                                 31 * 10000 + 4 * 100 + 8, 3u, 3u}));
}

__global__ void conversions(const uint32_t *in, unsigned n, uint32_t *out)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float value = __uint_as_float(in[i]);
    out[4 * i] = qem_f16_bits(value);
    out[4 * i + 1] = qem_bf16_bits(value);
    out[4 * i + 2] = __float_as_uint(qem_f16_value((uint16_t)in[i]));
    out[4 * i + 3] = __float_as_uint(qem_bf16_value((uint16_t)in[i]));
}

TEST_F(Runner, HalvesAreThoseOfTheCpu)
{
    std::vector<uint32_t> bits(1 << 16);
    std::iota(bits.begin(), bits.end(), 0u); // every f16 and bf16; as f32, spread over signs, exponents and ties
    for (size_t i = 0; i < 1 << 16; i++) bits.push_back((uint32_t)i << 16 | (i % 3 == 0 ? 0x1000 : (uint32_t)(i * 40503 & 0xffff)));
    const unsigned n = (unsigned)bits.size();
    Device<uint32_t> in(bits), out(4 * bits.size());
    ASSERT_EQ(QEM_LAUNCH(conversions, n / 256, 256, 0, nullptr, in.get(), n, out.get()), cudaSuccess);
    const auto got = out.read();
    size_t wrong = 0;
    for (unsigned i = 0; i < n; i++) {
        const float value = qem_bits_float(bits[i]);
        wrong += got[4 * i] != qem_f32_to_f16(value);
        wrong += got[4 * i + 1] != qem_f32_to_bf16(value);
        wrong += got[4 * i + 2] != qem_float_bits(qem_f16_to_f32((uint16_t)bits[i]));
        wrong += got[4 * i + 3] != qem_float_bits(qem_bf16_to_f32((uint16_t)bits[i]));
    }
    EXPECT_EQ(wrong, 0u);
}

// --- faults inside kernels ---

// Reverses a block through shared memory; the barrier between writing and reading may be left out.
__global__ void reverse(uint32_t *data, int with_barrier)
{
    QEM_DYNAMIC_SHARED(uint32_t, tile);
    tile[threadIdx.x] = data[threadIdx.x];
    if (with_barrier) __syncthreads();
    data[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

#ifndef __SANITIZE_THREAD__ // which ends the program at the same fault
TEST_F(Runner, AMissingBarrierShowsInTheResult)
{
    auto expected = counted(64);
    std::reverse(expected.begin(), expected.end());
    int right = 0;
    for (int with_barrier = 0; with_barrier < 2; with_barrier++) {
        for (uint64_t seed = 1; seed <= 10; seed++) {
            qem_runner::seed(seed);
            Device<uint32_t> data(counted(64));
            ASSERT_EQ(QEM_LAUNCH(reverse, 1, 64, 256, nullptr, data.get(), with_barrier), cudaSuccess);
            right += data.read() == expected;
        }
        EXPECT_EQ(right, with_barrier ? 10 : 0);
    }
}
#endif

__global__ void last_block_wins(uint32_t *out)
{
    out[0] = blockIdx.x;
}

TEST_F(Runner, TheOrderOfBlocksIsShuffled)
{
    std::vector<bool> seen(4);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        qem_runner::seed(seed);
        Device<uint32_t> out(1);
        ASSERT_EQ(QEM_LAUNCH(last_block_wins, 4, 1, 0, nullptr, out.get()), cudaSuccess);
        seen[out.read()[0]] = true;
    }
    EXPECT_EQ(seen, std::vector<bool>(4, true));
}

__global__ void uninitialised(uint32_t *out)
{
    QEM_DYNAMIC_SHARED(uint32_t, dynamic);
    QEM_SHARED(uint32_t, fixed, [4]);
    out[2 * blockIdx.x] = dynamic[3];
    out[2 * blockIdx.x + 1] = fixed[3];
    dynamic[3] = fixed[3] = 5; // the next block must not see it
}

TEST_F(Runner, UninitialisedMemoryIsPoisoned)
{
    Device<uint32_t> out(6);
    EXPECT_EQ(out.read(), std::vector<uint32_t>(6, kAll));
    ASSERT_EQ(QEM_LAUNCH(uninitialised, 3, 1, 16, nullptr, out.get()), cudaSuccess);
    EXPECT_EQ(out.read(), std::vector<uint32_t>(6, kAll));
}

__global__ void two_barriers(int divergent)
{
    if (divergent && threadIdx.x >= 40) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void waits_for_no_one()
{
    if (threadIdx.x == 3) {
        __shfl_sync(kAll, 1, 0);
    } else {
        __syncthreads();
    }
}

__global__ void outside_its_mask()
{
    __ballot_sync(0xfffeu, 1);
}

TEST_F(RunnerDeathTest, BarriersThatNotAllReach)
{
    EXPECT_EQ(QEM_LAUNCH(two_barriers, 2, 64, 0, nullptr, 0), cudaSuccess);
    EXPECT_DEATH((void)QEM_LAUNCH(two_barriers, 2, 64, 0, nullptr, 1),
                 "divergent barrier in block(.|\n)*threads 0-39 wait in __syncthreads at .*runner_test.cpp:[0-9]+\n"
                 "  threads 40-63 wait in __syncthreads at .*runner_test.cpp");
    EXPECT_DEATH((void)QEM_LAUNCH(waits_for_no_one, 1, 32, 0, nullptr),
                 "deadlock in block(.|\n)*threads 0-2,4-31 wait in __syncthreads(.|\n)*threads 3 wait in a shuffle of mask ffffffff");
    EXPECT_DEATH((void)QEM_LAUNCH(outside_its_mask, 1, 16, 0, nullptr), "a thread outside the mask");
}

__global__ void touch(unsigned char *at, int shared, int offset)
{
    QEM_DYNAMIC_SHARED(unsigned char, dynamic);
    QEM_SHARED(unsigned char, fixed, [20]);
    unsigned char *const base = shared == 0 ? at : shared == 1 ? dynamic : fixed;
    base[offset] = 1;
}

TEST_F(Runner, TheLastByteCanBeReached)
{
    Device<unsigned char> memory(100);
    EXPECT_EQ(QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 0, 99), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 1, 39), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 2, 19), cudaSuccess);
    EXPECT_EQ(memory.read()[99], 1);
}

#ifdef __SANITIZE_ADDRESS__
TEST_F(RunnerDeathTest, OutOfBounds)
{
    Device<unsigned char> memory(100);
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 0, 100), "AddressSanitizer: use-after-poison");
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 0, -1), "AddressSanitizer");
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 1, 40), "AddressSanitizer: use-after-poison");
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 1, -1), "AddressSanitizer: use-after-poison");
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 2, 20), "AddressSanitizer: use-after-poison");
    EXPECT_DEATH((void)QEM_LAUNCH(touch, 1, 1, 40, nullptr, memory.get(), 2, -1), "AddressSanitizer: use-after-poison");
}
#endif

__global__ void vector_access(uint32_t *data, int offset, int plain)
{
    uint4 *const at = reinterpret_cast<uint4 *>(data + offset);
    if (plain) *at = make_uint4(1, 2, 3, 4);
    else qem_store_once(at, make_uint4(1, 2, 3, 4));
}

TEST_F(RunnerDeathTest, MisalignedVectors)
{
    Device<uint32_t> data(16);
    EXPECT_EQ(QEM_LAUNCH(vector_access, 1, 1, 0, nullptr, data.get(), 4, 0), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(vector_access, 1, 1, 0, nullptr, data.get(), 8, 1), cudaSuccess);
    EXPECT_DEATH((void)QEM_LAUNCH(vector_access, 1, 1, 0, nullptr, data.get(), 2, 0), "thread 0 accesses 16 bytes at an address");
#ifdef __SANITIZE_ADDRESS__ // and with it the undefined behaviour sanitizer
    EXPECT_DEATH((void)QEM_LAUNCH(vector_access, 1, 1, 0, nullptr, data.get(), 2, 1), "misaligned address");
#endif
}

// A value passed from lane to lane through shared memory; __syncwarp orders it, a shuffle alone does not.
__global__ void hand_on(uint32_t *out, int ordered)
{
    QEM_SHARED(uint32_t, box, [32]);
    box[threadIdx.x] = threadIdx.x;
    if (ordered) __syncwarp();
    else __shfl_sync(kAll, 0, 0);
    out[threadIdx.x] = box[threadIdx.x ^ 1];
}

TEST_F(Runner, BarriersOfBlockAndWarpOrderMemory)
{
    Device<uint32_t> data(counted(64));
    EXPECT_EQ(QEM_LAUNCH(reverse, 1, 64, 256, nullptr, data.get(), 1), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(hand_on, 3, 32, 0, nullptr, data.get(), 1), cudaSuccess);
    EXPECT_EQ(data.read()[6], 7u);
}

#ifdef __SANITIZE_THREAD__
TEST_F(RunnerDeathTest, RacesInsideABlock)
{
    Device<uint32_t> data(counted(64));
    const auto race = [&](const std::function<cudaError_t()> &launch) {
        EXPECT_EXIT(((void)launch(), exit(0)), testing::ExitedWithCode(66), "ThreadSanitizer: data race");
    };
    race([&] { return QEM_LAUNCH(reverse, 1, 64, 256, nullptr, data.get(), 0); });
    race([&] { return QEM_LAUNCH(hand_on, 1, 32, 0, nullptr, data.get(), 0); });
}
#endif

__global__ void stops() { __trap(); }

TEST_F(RunnerDeathTest, Trap)
{
    EXPECT_DEATH((void)QEM_LAUNCH(stops, 1, 1, 0, nullptr), "__trap by thread 0 at .*runner_test.cpp");
}

// --- faults of host code ---

TEST_F(RunnerDeathTest, HostCodeThatTouchesDeviceMemory)
{
    Device<uint32_t> memory(4);
    volatile uint32_t *const at = memory.get();
    EXPECT_DEATH(at[1] = 1, "host code touches device memory");
    EXPECT_DEATH((void)at[1], "host code touches device memory");
    uint32_t mine = 0;
    EXPECT_DEATH((void)QEM_LAUNCH(last_block_wins, 1, 1, 0, nullptr, &mine), "argument 0 of a kernel is a host pointer");
}

TEST_F(RunnerDeathTest, MemoryThatWasFreed)
{
    uint32_t *memory;
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void **>(&memory), 4), cudaSuccess);
    ASSERT_EQ(cudaFree(memory), cudaSuccess);
    EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
    EXPECT_DEATH(*const_cast<volatile uint32_t *>(memory) = 1, "device memory that was freed");
}

TEST_F(RunnerDeathTest, WhatAnEnqueueOnlyScopeForbids)
{
    Stream mine, other;
    Device<uint32_t> memory(4);
    uint32_t value = 0;
    void *more;
    const auto dies = [&](const std::function<void()> &call, const char *text) {
        EXPECT_DEATH(({
                         qem_runner::EnqueueOnly scope(mine);
                         call();
                     }),
                     text);
    };
    dies([&] { cudaMalloc(&more, 4); }, "cudaMalloc allocates");
    dies([&] { cudaMallocHost(&more, 4); }, "cudaMallocHost allocates");
    dies([&] { cudaFree(memory.get()); }, "cudaFree synchronizes");
    dies([&] { cudaStreamSynchronize(mine); }, "cudaStreamSynchronize synchronizes");
    dies([&] { cudaDeviceSynchronize(); }, "cudaDeviceSynchronize synchronizes");
    dies([&] { cudaMemcpy(memory.get(), memory.get() + 1, 4, cudaMemcpyDeviceToDevice); }, "cudaMemcpy synchronizes");
    dies([&] { cudaMemcpyAsync(memory.get(), &value, 4, cudaMemcpyHostToDevice, mine); }, "pageable host memory synchronizes");
    dies([&] { cudaMemsetAsync(memory.get(), 0, 4, other); }, "cudaMemsetAsync on another stream");
    dies([&] { cudaMemsetAsync(memory.get(), 0, 4, nullptr); }, "cudaMemsetAsync on another stream");
    dies([&] { QEM_LAUNCH(last_block_wins, 1, 1, 0, mine, memory.get()); }, "the first launch of a kernel loads");

    cudaFuncAttributes attributes;
    ASSERT_EQ(cudaFuncGetAttributes(&attributes, QEM_KERNEL(last_block_wins)), cudaSuccess);
    qem_runner::EnqueueOnly scope(mine);
    EXPECT_EQ(cudaMemsetAsync(memory.get(), 0, 4, mine), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(last_block_wins, 1, 1, 0, mine, memory.get()), cudaSuccess);
}

// --- the runtime API ---

TEST_F(Runner, LaunchesThatCudaRefuses)
{
    Device<uint32_t> out(std::vector<uint32_t>(64, 0));
    const auto launch = [&](dim3 grid, dim3 block, size_t shared) {
        return QEM_LAUNCH(reverse, grid, block, shared, nullptr, out.get(), 1);
    };
    EXPECT_EQ(launch(0, 32, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(launch(1, 0, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(launch(1, 1025, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(launch(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);

    EXPECT_EQ(launch(1, 32, (48 << 10) + 1), cudaErrorInvalidValue);
    const auto dynamic = cudaFuncAttributeMaxDynamicSharedMemorySize;
    EXPECT_EQ(cudaFuncSetAttribute(QEM_KERNEL(reverse), dynamic, (64 << 10) + 1), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFuncSetAttribute(QEM_KERNEL(reverse), dynamic, 64 << 10), cudaSuccess);
    EXPECT_EQ(launch(1, 32, 64 << 10), cudaSuccess);
    EXPECT_EQ(QEM_LAUNCH(reverse, 1, 32, 128, reinterpret_cast<cudaStream_t>(&out), out.get(), 1),
              cudaErrorInvalidResourceHandle);
}

TEST_F(Runner, MemoryThatCudaRefuses)
{
    Device<uint32_t> four(4);
    uint32_t host[8] = {};
    void *more = host;
    EXPECT_EQ(cudaMalloc(&more, (size_t)1 << 40), cudaErrorMemoryAllocation);
    EXPECT_EQ(more, nullptr);
    qem_runner::machine().memory = 1000;
    EXPECT_EQ(cudaMalloc(&more, 985), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMalloc(&more, 984), cudaSuccess);
    EXPECT_EQ(cudaFree(more), cudaSuccess);
    EXPECT_EQ(cudaFree(host), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(four.get(), host, 17, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(four.get(), host, 16, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemset(four.get() + 1, 0, 16), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemset(host, 0, 4), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpy(four.get(), host, 16, cudaMemcpyDefault), cudaSuccess);
    EXPECT_EQ(four.read(), std::vector<uint32_t>(4, 0));
}

TEST_F(Runner, PointersTellWhereTheyPoint)
{
    qem_runner::machine().devices = 2;
    ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
    Device<uint32_t> memory(4);
    cudaPointerAttributes attributes;
    ASSERT_EQ(cudaPointerGetAttributes(&attributes, memory.get() + 3), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
    EXPECT_EQ(attributes.device, 1);
    ASSERT_EQ(cudaPointerGetAttributes(&attributes, memory.get() + 4), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
    void *pinned, *managed;
    ASSERT_EQ(cudaMallocHost(&pinned, 8), cudaSuccess);
    ASSERT_EQ(cudaMallocManaged(&managed, 8, cudaMemAttachGlobal), cudaSuccess);
    ASSERT_EQ(cudaPointerGetAttributes(&attributes, pinned), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
    ASSERT_EQ(cudaPointerGetAttributes(&attributes, managed), cudaSuccess);
    EXPECT_EQ(attributes.type, cudaMemoryTypeManaged);
    memset(pinned, 0, 8); // the host may touch both
    memset(managed, 0, 8);
    EXPECT_EQ(cudaFreeHost(managed), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
    EXPECT_EQ(cudaFree(managed), cudaSuccess);
}

TEST_F(Runner, MachinesWithoutADevice)
{
    int count = -1;
    qem_runner::machine().devices = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    qem_runner::machine().driver = false;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    EXPECT_EQ(count, -1);
    EXPECT_EQ(QEM_LAUNCH(last_block_wins, 1, 1, 0, nullptr, nullptr), cudaErrorInsufficientDriver);
    qem_runner::reset();
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    EXPECT_EQ(count, 1);
    EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
}

TEST_F(Runner, WorkWaitsInItsStream)
{
    bool late = false, at_once = false;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        qem_runner::seed(seed);
        Stream stream;
        Device<uint32_t> out(1);
        uint32_t *pinned;
        ASSERT_EQ(cudaMallocHost(reinterpret_cast<void **>(&pinned), 4), cudaSuccess);
        *pinned = 77;
        ASSERT_EQ(QEM_LAUNCH(last_block_wins, 1, 1, 0, stream, out.get()), cudaSuccess);
        ASSERT_EQ(cudaMemcpyAsync(pinned, out.get(), 4, cudaMemcpyDeviceToHost, stream), cudaSuccess);
        (*pinned == 77 ? late : at_once) = true; // a host that does not wait reads one or the other
        EXPECT_EQ(cudaStreamQuery(stream), *pinned == 77 ? cudaErrorNotReady : cudaSuccess);
        ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        EXPECT_EQ(*pinned, 0u);
        ASSERT_EQ(cudaFreeHost(pinned), cudaSuccess);
    }
    EXPECT_TRUE(late && at_once);
}

TEST_F(Runner, EventsOrderStreams)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        qem_runner::seed(seed);
        Stream first, second;
        cudaEvent_t event;
        Device<uint32_t> value(1), copy(1);
        ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
        ASSERT_EQ(cudaMemsetAsync(value.get(), 1, 4, first), cudaSuccess);
        ASSERT_EQ(cudaEventRecord(event, first), cudaSuccess);
        ASSERT_EQ(cudaStreamWaitEvent(second, event, 0), cudaSuccess);
        ASSERT_EQ(cudaMemcpyAsync(copy.get(), value.get(), 4, cudaMemcpyDeviceToDevice, second), cudaSuccess);
        ASSERT_EQ(cudaStreamSynchronize(second), cudaSuccess);
        EXPECT_EQ(copy.read()[0], 0x01010101u);
        ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
    }
}

TEST_F(Runner, EventsCountPiecesOfWorkAsMilliseconds)
{
    Stream stream, other;
    cudaEvent_t begin, end, elsewhere;
    Device<uint32_t> value(1);
    float milliseconds = -1.0f;
    for (cudaEvent_t *event : {&begin, &end, &elsewhere}) ASSERT_EQ(cudaEventCreate(event), cudaSuccess);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorInvalidResourceHandle) << "never recorded";
    ASSERT_EQ(cudaMemsetAsync(value.get(), 1, 4, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(begin, stream), cudaSuccess);
    for (int i = 0; i < 3; i++) ASSERT_EQ(cudaMemsetAsync(value.get(), i, 4, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(end, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(elsewhere, other), cudaSuccess);
    ASSERT_EQ(cudaEventSynchronize(end), cudaSuccess);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
    EXPECT_EQ(milliseconds, 3.0f);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, elsewhere), cudaErrorInvalidResourceHandle);
    for (cudaEvent_t event : {begin, end, elsewhere}) ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorInvalidResourceHandle) << "ended";
    cudaGetLastError();
}

__global__ void add_one(uint32_t *at) { atomicAdd(at, 1); }

TEST_F(Runner, CaptureRunsNothingAndItsGraphRunsOften)
{
    Stream stream;
    Device<uint32_t> count(std::vector<uint32_t>{0});
    cudaStreamCaptureStatus status;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusActive);
    ASSERT_EQ(QEM_LAUNCH(add_one, 2, 3, 0, stream, count.get()), cudaSuccess);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    EXPECT_EQ(count.read()[0], 0u);
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    for (int i = 0; i < 3; i++) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(count.read()[0], 18u);
    EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

TEST_F(Runner, CaptureIsBrokenByWhatItForbids)
{
    Stream stream;
    const std::vector<std::pair<std::function<cudaError_t()>, cudaError_t>> calls = {
        {[] { void *more; return cudaMalloc(&more, 4); }, cudaErrorStreamCaptureUnsupported},
        {[&] { return cudaStreamSynchronize(stream); }, cudaErrorStreamCaptureUnsupported},
        {[] { return cudaDeviceSynchronize(); }, cudaErrorStreamCaptureUnsupported},
    };
    for (const auto &[call, error] : calls) {
        cudaGraph_t graph;
        ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
        EXPECT_EQ(call(), error);
        EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        EXPECT_EQ(graph, nullptr);
    }
}

TEST_F(Runner, SeveralHostThreadsLaunch)
{
    Device<uint32_t> count(std::vector<uint32_t>{0});
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; t++) {
        threads.emplace_back([&] {
            Stream stream;
            for (int i = 0; i < 5; i++) ASSERT_EQ(QEM_LAUNCH(add_one, 2, 40, 0, stream, count.get()), cudaSuccess);
            ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        });
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT_EQ(count.read()[0], 1200u);
}

} // namespace
