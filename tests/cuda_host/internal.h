/* Between grid.cpp (fibers, blocks, shared memory), runtime.cpp (devices, device memory) and streams.cpp. */
#ifndef QEM_TESTS_CUDA_HOST_INTERNAL_H
#define QEM_TESTS_CUDA_HOST_INTERNAL_H

#include <sys/mman.h>

#include <functional>
#include <mutex>

#include "cuda_host/runner.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace qem_runner {

using Work = std::function<void()>;

extern std::recursive_mutex mutex; /* one host thread at a time is in the runtime or in kernels */

cudaError_t remember(cudaError_t error); /* for cudaGetLastError; returns it */
int device_of_thread();

/* Device memory can be touched while one of these lives. */
class Open {
public:
    Open()
    {
        if (depth++ == 0) protect(PROT_READ | PROT_WRITE);
    }
    ~Open()
    {
        if (--depth == 0) protect(PROT_NONE);
    }

private:
    static void protect(int protection);
    static int depth;
};

/* Every call of the API begins with one: the lock, the driver, what a scope or a capture forbids. */
enum Effect { kNone = 0, kAllocates = 1, kSynchronizes = 2, kLoads = 4 };
struct Call {
    std::lock_guard<std::recursive_mutex> lock{mutex};
    cudaError_t error = cudaSuccess;
    explicit Call(const char *name, int effects = kNone);
};

/* Puts work into a stream, or into the graph it captures. */
cudaError_t enqueue(const char *name, cudaStream_t stream, Work work);
void run_stream(cudaStream_t stream); /* all that is in its queue */
void run_everything();
bool is_capturing(cudaStream_t stream);
bool stream_is_here(cudaStream_t stream); /* a stream, and of the thread's device */

uint32_t random_below(uint32_t n);

/* Runs every thread of every block; `thread` is the kernel with its arguments. */
void run_grid(const std::function<void()> &thread, dim3 grid, dim3 block, size_t shared_bytes, size_t shared_limit);

} // namespace qem_runner

#endif
