/* Stand-ins for the calls of the CUDA runtime that the library and its tests make: devices, kernels, memory, copies. The
 * streams that order them are in streams.cpp. */
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include <cuda_runtime.h>

#include "cuda_host/device_host.h"
#include "cuda_host/internal.h"

namespace qem_runner {
namespace {

struct Memory {
    cudaMemoryType type;
    int device;
    size_t bytes, mapped; /* asked for; whole pages, with a red zone */
};

Machine the_machine;
std::map<uintptr_t, Memory> memory; /* by address */
std::map<uintptr_t, size_t> freed;  /* never handed out again, so that late accesses fault */
std::map<const void *, size_t> kernels; /* loaded ones, with the dynamic shared memory they may use */
thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

constexpr size_t kPage = 4096;

/* Rights to device memory change with each launch and copy. A protection key does that for this thread without a system call;
 * where processor or system have none (-1), every allocation's pages are protected one by one. */
int protection_key()
{
    static const int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
    return key;
}

const std::pair<const uintptr_t, Memory> *find(const void *pointer)
{
    auto at = memory.upper_bound(reinterpret_cast<uintptr_t>(pointer));
    if (at == memory.begin()) return nullptr;
    --at;
    return reinterpret_cast<uintptr_t>(pointer) < at->first + std::max<size_t>(at->second.bytes, 1) ? &*at : nullptr;
}

/* Says what a faulting address is before the fault takes its course. */
struct sigaction fault_before;
void explain_fault(int, siginfo_t *info, void *)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(info->si_addr);
    auto old = freed.upper_bound(at);
    const bool was_freed = old != freed.begin() && at < std::prev(old)->first + std::prev(old)->second;
    if (was_freed) fprintf(stderr, "CUDA host runner: access to device memory that was freed\n");
    else if (find(info->si_addr)) fprintf(stderr, "CUDA host runner: host code touches device memory\n");
    fflush(stderr);
    sigaction(SIGSEGV, &fault_before, nullptr);
}

bool is_loaded(const void *kernel)
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    return kernels.count(kernel) != 0;
}

cudaError_t allocate(void **pointer, size_t bytes, cudaMemoryType type)
{
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    size_t used = 0;
    for (const auto &[address, m] : memory) used += m.type == cudaMemoryTypeDevice && m.device == current_device ? m.bytes : 0;
    if (bytes > the_machine.memory || used > the_machine.memory - bytes) return remember(cudaErrorMemoryAllocation);
    /* A page that is never readable before it; behind it at least a byte that ASan guards. */
    const size_t mapped = (bytes + kPage) / kPage * kPage;
    char *base = static_cast<char *>(mmap(nullptr, kPage + mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) return remember(cudaErrorMemoryAllocation);
    base += kPage;
    if (mprotect(base, mapped, PROT_READ | PROT_WRITE)) return remember(cudaErrorMemoryAllocation);
    static const bool installed = [] {
        struct sigaction action = {};
        action.sa_sigaction = explain_fault;
        action.sa_flags = SA_SIGINFO;
        return sigaction(SIGSEGV, &action, &fault_before) == 0;
    }();
    if (!installed) fail("no handler for faults");
    memset(base, 0xff, bytes);
    ASAN_POISON_MEMORY_REGION(base + bytes, mapped - bytes);
    if (type == cudaMemoryTypeDevice) {
        const int failed = protection_key() < 0 ? mprotect(base, mapped, PROT_NONE)
                                                : pkey_mprotect(base, mapped, PROT_READ | PROT_WRITE, protection_key());
        if (failed) fail("device memory cannot be protected");
    }
    memory[reinterpret_cast<uintptr_t>(base)] = {type, current_device, bytes, mapped};
    *pointer = base;
    return cudaSuccess;
}

cudaError_t release(void *pointer, bool host)
{
    if (!pointer) return cudaSuccess;
    const auto at = memory.find(reinterpret_cast<uintptr_t>(pointer));
    if (at == memory.end() || (at->second.type == cudaMemoryTypeHost) != host) return remember(cudaErrorInvalidValue);
    run_everything(); /* as cudaFree does */
    /* never to be used again; mapped anew the kernel keeps it and its neighbours as one range, and of ranges it has few */
    if (mmap(pointer, at->second.mapped, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != pointer)
        fail("device memory cannot be released");
    freed[at->first] = at->second.mapped;
    memory.erase(at);
    return cudaSuccess;
}

/* Whether [pointer, pointer + bytes) lies in one allocation; host memory the runtime does not know counts as host. */
bool covers(const void *pointer, size_t bytes, bool device)
{
    const auto *const m = find(pointer);
    if (!m) return !device;
    if (m->second.type != cudaMemoryTypeManaged && (m->second.type == cudaMemoryTypeDevice) != device) return false;
    return bytes <= m->first + m->second.bytes - reinterpret_cast<uintptr_t>(pointer);
}

bool pageable(const void *pointer)
{
    return find(pointer) == nullptr;
}

bool direction_fits(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyDefault) return covers(to, bytes, !pageable(to)) && covers(from, bytes, !pageable(from));
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return covers(to, bytes, to_device) && covers(from, bytes, from_device);
}

} // namespace

int Open::depth = 0;

void Open::protect(int protection)
{
    if (protection_key() >= 0) {
        pkey_set(protection_key(), protection == PROT_NONE ? PKEY_DISABLE_ACCESS : 0);
        return;
    }
    for (const auto &[address, m] : memory) {
        if (m.type != cudaMemoryTypeDevice) continue;
        if (mprotect(reinterpret_cast<void *>(address), m.mapped, protection)) fail("mprotect of device memory failed");
    }
}

cudaError_t remember(cudaError_t error)
{
    if (error != cudaSuccess) last_error = error;
    return error;
}

int device_of_thread()
{
    return current_device;
}

Machine &machine()
{
    return the_machine;
}

void reset()
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    the_machine = Machine();
    kernels.clear();
    last_error = cudaSuccess;
    current_device = 0;
    const char *const text = getenv("QEM_RUNNER_SEED");
    seed(text ? strtoull(text, nullptr, 10) : 1);
}

size_t allocated_bytes()
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    size_t sum = 0;
    for (const auto &[address, m] : memory) sum += m.type == cudaMemoryTypeDevice ? m.bytes : 0;
    return sum;
}

void check_argument(int index, const void *pointer)
{
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    if (pointer && !find(pointer)) fail("argument " + std::to_string(index) + " of a kernel is a host pointer");
}

cudaError_t launch(const void *kernel, Work thread, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t handle)
{
    const bool loaded = is_loaded(kernel);
    const Call call("the first launch of a kernel", loaded ? kNone : kLoads);
    if (call.error) return call.error;
    if (!stream_is_here(handle)) return remember(cudaErrorInvalidResourceHandle);
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
        return remember(cudaErrorInvalidConfiguration);
    }
    if (!loaded) kernels[kernel] = the_machine.shared_by_default;
    const size_t limit = kernels[kernel];
    if (shared_bytes > limit) return remember(cudaErrorInvalidValue);
    return enqueue("a launch", handle, [=] { run_grid(thread, grid, block, shared_bytes, limit); });
}

} // namespace qem_runner

using namespace qem_runner;

/* --- devices, errors --- */

cudaError_t cudaGetLastError()
{
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError()
{
    return last_error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureImplicit: return "cudaErrorStreamCaptureImplicit";
    default: return "another CUDA error";
    }
}

cudaError_t cudaGetDeviceCount(int *count)
{
    const Call call("cudaGetDeviceCount");
    if (!call.error) *count = the_machine.devices;
    return call.error;
}

cudaError_t cudaGetDevice(int *device)
{
    const Call call("cudaGetDevice");
    if (!call.error) *device = current_device;
    return call.error;
}

cudaError_t cudaSetDevice(int device)
{
    const Call call("cudaSetDevice");
    if (call.error) return call.error;
    if (device < 0 || device >= the_machine.devices) return remember(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    const Call call("cudaDeviceGetAttribute");
    if (call.error) return call.error;
    if (device < 0 || device >= the_machine.devices) return remember(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = the_machine.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = the_machine.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = the_machine.multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)the_machine.shared_by_default; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)the_machine.shared_at_most; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)the_machine.shared_at_most; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default: fail("cudaDeviceGetAttribute: attribute " + std::to_string(attribute) + " is not modelled");
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    const Call call("cudaGetDeviceProperties");
    if (call.error) return call.error;
    if (device < 0 || device >= the_machine.devices) return remember(cudaErrorInvalidDevice);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "kernel host runner");
    properties->major = the_machine.major;
    properties->minor = the_machine.minor;
    return cudaSuccess;
}

/* --- kernels --- */

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel)
{
    const Call call("cudaFuncGetAttributes", is_loaded(kernel) ? kNone : kLoads);
    if (call.error) return call.error;
    const size_t dynamic = kernels.emplace(kernel, the_machine.shared_by_default).first->second;
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 10 * the_machine.major + the_machine.minor;
    attributes->maxDynamicSharedSizeBytes = (int)dynamic;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    const Call call("cudaFuncSetAttribute", is_loaded(kernel) ? kNone : kLoads);
    if (call.error) return call.error;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || (size_t)value > the_machine.shared_at_most) {
        return remember(cudaErrorInvalidValue);
    }
    kernels[kernel] = std::max((size_t)value, the_machine.shared_by_default);
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int threads, size_t shared_bytes)
{
    const Call call("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    if (call.error) return call.error;
    if (threads <= 0 || threads > 1024) return remember(cudaErrorInvalidValue);
    const size_t by_shared = shared_bytes ? the_machine.shared_at_most / shared_bytes : 16;
    *blocks = (int)std::min<size_t>({16, (size_t)(1024 / threads), by_shared});
    return cudaSuccess;
}

/* --- memory --- */

cudaError_t cudaMalloc(void **pointer, size_t bytes)
{
    const Call call("cudaMalloc", kAllocates);
    return call.error ? call.error : allocate(pointer, bytes, cudaMemoryTypeDevice);
}

cudaError_t cudaMallocManaged(void **pointer, size_t bytes, unsigned)
{
    const Call call("cudaMallocManaged", kAllocates);
    return call.error ? call.error : allocate(pointer, bytes, cudaMemoryTypeManaged);
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes)
{
    const Call call("cudaMallocHost", kAllocates);
    return call.error ? call.error : allocate(pointer, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaFree(void *pointer)
{
    const Call call("cudaFree", kSynchronizes);
    return call.error ? call.error : release(pointer, false);
}

cudaError_t cudaFreeHost(void *pointer)
{
    const Call call("cudaFreeHost", kSynchronizes);
    return call.error ? call.error : release(pointer, true);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer)
{
    const Call call("cudaPointerGetAttributes");
    if (call.error) return call.error;
    *attributes = {};
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -2; /* cudaInvalidDeviceId */
    attributes->hostPointer = const_cast<void *>(pointer);
    if (const auto *const m = find(pointer)) {
        attributes->type = m->second.type;
        attributes->device = m->second.device;
        attributes->devicePointer = const_cast<void *>(pointer);
        if (m->second.type == cudaMemoryTypeDevice) attributes->hostPointer = nullptr;
    }
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    const Call call("cudaMemcpyAsync");
    if (call.error || bytes == 0) return call.error;
    if (!direction_fits(to, from, bytes, kind)) return remember(cudaErrorInvalidValue);
    if (is_capturing(stream) || (!pageable(to) && !pageable(from))) {
        return enqueue("cudaMemcpyAsync", stream, [=] { memcpy(to, from, bytes); });
    }
    /* Memory that is not pinned is read before the call returns; a copy to it is done when the call returns. */
    const Call waits("cudaMemcpyAsync with pageable host memory", kSynchronizes);
    if (waits.error) return waits.error;
    if (pageable(to)) {
        const cudaError_t error = enqueue("cudaMemcpyAsync", stream, [=] { memcpy(to, from, bytes); });
        if (!error) run_stream(stream);
        return error;
    }
    const auto staged = std::make_shared<std::vector<char>>(static_cast<const char *>(from),
                                                            static_cast<const char *>(from) + bytes);
    return enqueue("cudaMemcpyAsync", stream, [=] { memcpy(to, staged->data(), bytes); });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    const Call call("cudaMemcpy", kSynchronizes);
    if (call.error) return call.error;
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    const Call call("cudaMemsetAsync");
    if (call.error || bytes == 0) return call.error;
    if (!covers(to, bytes, true)) return remember(cudaErrorInvalidValue);
    return enqueue("cudaMemsetAsync", stream, [=] { memset(to, value, bytes); });
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    const Call call("cudaMemset", kSynchronizes);
    return call.error ? call.error : cudaMemsetAsync(to, value, bytes, nullptr);
}
