// The part of the runner's interface (cuda_host/runner.h) that a real GPU can answer. What it cannot is a failure, not
// silence: a test that needs it begins with QEM_NEEDS_RUNNER(), which skips it here.
#ifndef QEM_TESTS_CUDA_REAL_DEVICE_H
#define QEM_TESTS_CUDA_REAL_DEVICE_H

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#define QEM_NEEDS_RUNNER() GTEST_SKIP() << "only the kernel host runner can do this"

namespace qem_runner {

struct Machine {
    int devices = 1;
    bool driver = true;
    int multiprocessors = 0;
    size_t memory = 0;
};

// Nobody can change a real machine.
inline Machine &machine()
{
    static Machine none;
    ADD_FAILURE() << "the test changes the machine, but does not begin with QEM_NEEDS_RUNNER()";
    return none;
}

inline void reset() {}

// The order of threads and blocks is the device's own, another one each time.
inline void seed(uint64_t) {}

// What the whole process has allocated is not known: tests of leaks hold by themselves here, those of amounts need the
// runner.
inline size_t allocated_bytes()
{
    return 0;
}

// While one lives, the calls on its stream are captured: CUDA itself refuses allocations and synchronizations of this
// thread then. The end of the scope launches what was captured.
class EnqueueOnly {
public:
    explicit EnqueueOnly(cudaStream_t stream) : stream_(stream)
    {
        EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    }
    ~EnqueueOnly()
    {
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t executable = nullptr;
        cudaError_t error = cudaStreamEndCapture(stream_, &graph);
        if (error == cudaSuccess) error = cudaGraphInstantiate(&executable, graph, 0);
        if (error == cudaSuccess) error = cudaGraphLaunch(executable, stream_);
        if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
        EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
        if (executable) cudaGraphExecDestroy(executable);
        if (graph) cudaGraphDestroy(graph);
    }
    EnqueueOnly(const EnqueueOnly &) = delete;
    EnqueueOnly &operator=(const EnqueueOnly &) = delete;

private:
    cudaStream_t stream_;
};

} // namespace qem_runner

#endif
