// What a benchmark on a GPU needs of CUDA: memory and events that end themselves, and the median time of work on a stream.
#ifndef QEM_BENCH_GPU_TIMING_H
#define QEM_BENCH_GPU_TIMING_H

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

inline void must_cuda(cudaError_t error)
{
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

class Memory {
public:
    explicit Memory(uint64_t bytes) : bytes_(bytes)
    {
        if (bytes_) must_cuda(cudaMalloc(&memory_, bytes_));
    }
    ~Memory() { cudaFree(memory_); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    void *get() const { return memory_; } // NULL for 0 bytes
    uint64_t bytes() const { return bytes_; }
    void fill_from(const void *from) const { must_cuda(cudaMemcpy(memory_, from, bytes_, cudaMemcpyHostToDevice)); }
    void read_to(void *to, uint64_t at, uint64_t bytes) const
    {
        must_cuda(cudaMemcpy(to, static_cast<const char *>(memory_) + at, bytes, cudaMemcpyDeviceToHost));
    }

private:
    void *memory_ = nullptr;
    uint64_t bytes_;
};

class Event {
public:
    Event() { must_cuda(cudaEventCreate(&event_)); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event &) = delete;
    Event &operator=(const Event &) = delete;
    void record(cudaStream_t stream) const { must_cuda(cudaEventRecord(event_, stream)); }
    double microseconds_since(const Event &begin) const
    {
        float milliseconds = 0.0f;
        must_cuda(cudaEventSynchronize(event_));
        must_cuda(cudaEventElapsedTime(&milliseconds, begin.event_, event_));
        return milliseconds * 1e3;
    }

private:
    cudaEvent_t event_ = nullptr;
};

inline double median(std::vector<double> values)
{
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2.0;
}

// Times work as a model finds it: before each turn more memory is written than the caches hold, so that codes come from
// memory, and while that is written, the launch of what is timed waits in the stream already.
class Timer {
public:
    Timer(uint64_t cache_bytes, int turns) : caches_(cache_bytes), turns_(turns) { must_cuda(cudaStreamCreate(&stream_)); }
    ~Timer() { cudaStreamDestroy(stream_); }
    Timer(const Timer &) = delete;
    Timer &operator=(const Timer &) = delete;
    cudaStream_t stream() const { return stream_; }

    // The median over the turns in microseconds; enqueue() puts the work into stream().
    template <typename Enqueue> double time(Enqueue enqueue) const
    {
        const Event begin, end;
        std::vector<double> times;
        for (int turn = -warm_up; turn < turns_; turn++) {
            must_cuda(cudaMemsetAsync(caches_.get(), turn & 0xff, caches_.bytes(), stream_));
            begin.record(stream_);
            enqueue();
            end.record(stream_);
            const double us = end.microseconds_since(begin);
            if (turn >= 0) times.push_back(us);
        }
        must_cuda(cudaStreamSynchronize(stream_));
        return median(times);
    }

private:
    static constexpr int warm_up = 3;
    Memory caches_;
    cudaStream_t stream_ = nullptr;
    int turns_;
};

#endif
