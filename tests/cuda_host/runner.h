/* The kernel host runner as tests see it. The CUDA runtime API itself is cuda_runtime_api.h: runtime.cpp stands in for the calls
 * the library makes. What a real device would leave undefined, or do wrong in silence, ends the program here with a text:
 *   - host code that touches device memory (it is readable only while a launch or a copy runs);
 *   - a host pointer passed to a kernel; shared or fresh device memory read before it is written holds 0xFF in every byte;
 *   - barriers and warp operations that not all threads reach, with the numbers of the threads and where they wait;
 *   - out-of-bounds (address sanitizer), misaligned vectors (undefined behaviour sanitizer; cache-hinted accesses always),
 *     races inside a block (thread sanitizer). The order of threads and of blocks, and how long work stays queued in its stream
 *     before it runs, are drawn from a seed (QEM_RUNNER_SEED in the environment, or seed()).
 * Not modelled: time, weak memory order, work of two streams at once, barriers over a grid. */
#ifndef QEM_TESTS_CUDA_HOST_RUNNER_H
#define QEM_TESTS_CUDA_HOST_RUNNER_H

#include <cstddef>
#include <cstdint>
#include <string>

#include <cuda_runtime_api.h>

/* First in a test that only the runner can run, because it changes the machine or knows what is allocated; on a real device
 * (tests/cuda/real_device.h) the test is skipped. */
#define QEM_NEEDS_RUNNER() (void)0

namespace qem_runner {

/* The machine that the runtime API describes: by default one small device, the oldest architecture that is built for. */
struct Machine {
    int devices = 1;    /* 0: cudaErrorNoDevice */
    bool driver = true; /* false: every call returns cudaErrorInsufficientDriver and writes nothing */
    int major = 7, minor = 5;
    int multiprocessors = 4;
    size_t memory = (size_t)1 << 30;       /* of each device */
    size_t shared_by_default = 48 << 10;   /* a block's shared memory without cudaFuncSetAttribute */
    size_t shared_at_most = 64 << 10;      /* and with it */
    bool cublas12 = false, cublas13 = true; /* libraries that can be loaded, and those that the process has loaded */
    bool cublas12_loaded = false, cublas13_loaded = false;
    const char *cublas_lacks = nullptr; /* a function that they do not have */
    int cublas_create_fails = 0;        /* the status of cublasCreate */
    bool cublas_product_fails = false;
};
Machine &machine();

/* The default machine, no kernel loaded, the seed of the environment. Memory and streams stay what they are. */
void reset();
void seed(uint64_t value);

/* A handle of the stand-in for cuBLAS (blas.cpp), as an engine has its own. */
struct BlasHandle {
    int device = 0;
    cudaStream_t stream = nullptr;
    void *workspace = nullptr; /* null: cuBLAS's own, which a product may allocate */
    size_t workspace_bytes = 0;
    int math_mode = 0, pointer_mode = 0, atomics_mode = 0;
    uint64_t products = 0;
};
BlasHandle *make_blas_handle();
void end_blas_handle(BlasHandle *handle);
size_t blas_handles(); /* that are not ended */

size_t allocated_bytes(); /* device memory not freed yet, as asked for */

/* While one lives, calls of this thread may only enqueue, and only on `stream`: an allocation, a synchronization, another stream
 * or the first use of a kernel that was not loaded (cudaFuncGetAttributes) ends the program with the name of the call. */
class EnqueueOnly {
public:
    explicit EnqueueOnly(cudaStream_t stream);
    ~EnqueueOnly();
    EnqueueOnly(const EnqueueOnly &) = delete;
    EnqueueOnly &operator=(const EnqueueOnly &) = delete;
};

[[noreturn]] void fail(const std::string &text);

} // namespace qem_runner

#endif
