// Device memory, device artifacts and streams that end themselves, and a decoding that is compared with what is expected.
#ifndef QEM_TESTS_CUDA_DEVICE_H
#define QEM_TESTS_CUDA_DEVICE_H

#include <gtest/gtest.h>

#include <cuda_runtime_api.h>
#include <qem/cuda.h>

#include "core/half.h"
#include "cuda/chunks.cuh"
#include "cuda/runner.h"
#include "support/layers.h"

namespace qem_test {

inline void must_cuda(cudaError_t error)
{
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

class Stream {
public:
    Stream() { must_cuda(cudaStreamCreate(&stream_)); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream &) = delete;
    Stream &operator=(const Stream &) = delete;
    operator cudaStream_t() const { return stream_; }
    void wait() const { must_cuda(cudaStreamSynchronize(stream_)); }

private:
    cudaStream_t stream_ = nullptr;
};

// At least one byte, so that there is a pointer.
class DeviceMemory {
public:
    explicit DeviceMemory(size_t bytes, int fill = 0xff) : bytes_(bytes ? bytes : 1)
    {
        must_cuda(cudaMalloc(&memory_, bytes_));
        must_cuda(cudaMemset(memory_, fill, bytes_));
    }
    ~DeviceMemory() { cudaFree(memory_); }
    DeviceMemory(const DeviceMemory &) = delete;
    DeviceMemory &operator=(const DeviceMemory &) = delete;
    unsigned char *get() const { return static_cast<unsigned char *>(memory_); }
    std::vector<unsigned char> read() const
    {
        std::vector<unsigned char> bytes(bytes_);
        must_cuda(cudaMemcpy(bytes.data(), memory_, bytes_, cudaMemcpyDeviceToHost));
        return bytes;
    }

private:
    void *memory_ = nullptr;
    size_t bytes_;
};

struct DeviceArtifactEnd {
    void operator()(qem_device_artifact *artifact) const { qem_device_artifact_destroy(&artifact); }
};
using DeviceArtifact = std::unique_ptr<qem_device_artifact, DeviceArtifactEnd>;

inline DeviceArtifact upload(const Context &context, const qem_artifact *artifact)
{
    qem_device_artifact *uploaded = nullptr;
    const Stream stream;
    context.must(qem_artifact_upload(context, artifact, 0, stream, &uploaded));
    return DeviceArtifact(uploaded);
}

// How rows are decoded: the first element `shift` elements past a boundary of 256 bytes, `gap` elements after each row.
struct Place {
    uint64_t begin, end;
    qem_dtype dtype;
    uint64_t gap = 0, shift = 0;
};

inline std::ostream &operator<<(std::ostream &out, const Place &place)
{
    return out << "rows " << place.begin << " .. " << place.end << " as " << qem_dtype_name(place.dtype) << ", gap "
               << place.gap << ", shift " << place.shift;
}

// The bytes of one element, and whether it is a finite number that became infinite.
inline bool put_element(float x, qem_dtype dtype, unsigned char *to)
{
    if (dtype == QEM_DTYPE_F32) {
        std::memcpy(to, &x, 4);
        return false;
    }
    const uint16_t bits = dtype == QEM_DTYPE_F16 ? qem_f32_to_f16(x) : qem_f32_to_bf16(x);
    const uint16_t infinity = dtype == QEM_DTYPE_F16 ? 0x7c00 : 0x7f80;
    std::memcpy(to, &bits, 2);
    return std::isfinite(x) && (bits & 0x7fff) == infinity;
}

constexpr size_t device_guard = 256;
constexpr int device_fill = 0xa5;

// Memory with guards around the output, which lies between.
struct Output256 {
    Output256(uint64_t cols, const Place &place)
        : size(qem_dtype_size(place.dtype)), stride(cols + place.gap), rows(place.end - place.begin),
          first(device_guard + place.shift * size),
          bytes(first + (rows ? (rows - 1) * stride + cols : 0) * size + device_guard)
    {
    }
    uint64_t size, stride, rows, first, bytes;
};

inline std::vector<unsigned char> expected_bytes(const Matrix &m, const Place &place, bool *overflow)
{
    const Output256 out(m.cols, place);
    std::vector<unsigned char> bytes(out.bytes, device_fill);
    *overflow = false;
    for (uint64_t i = 0; i < out.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++)
            *overflow |= put_element(m.x[(place.begin + i) * m.cols + j], place.dtype,
                                     &bytes[out.first + (i * out.stride + j) * out.size]);
    return bytes;
}

// Which kernels decode the first of the rows, by the rule that the decoder goes by.
inline qem_cuda_way way_of(const qem_device_artifact *artifact, const Place &place)
{
    const Output256 out(artifact->cols, place);
    qem_cuda_rows rows = {};
    rows.cols = artifact->cols;
    rows.row_begin = place.begin;
    rows.rows = out.rows;
    rows.out = reinterpret_cast<void *>(uintptr_t(4096) + out.first);
    rows.row_stride = out.stride;
    rows.dtype = place.dtype;
    return qem_cuda_way_of(artifact, artifact->segments[0], rows);
}

// Every byte of the output and around it, and the overflow word.
inline void check_place(const Context &context, const qem_device_artifact *artifact, const Matrix &expected,
                        const Place &place)
{
    const Output256 out(expected.cols, place);
    const Stream stream;
    const DeviceMemory memory(out.bytes, device_fill), word(4, 0);
    const uint64_t workspace_bytes = qem_cuda_dequantize_workspace_size(artifact, out.rows);
    const DeviceMemory workspace(workspace_bytes);
    bool overflow;
    const std::vector<unsigned char> wanted = expected_bytes(expected, place, &overflow);
    {
        const qem_runner::EnqueueOnly scope(stream);
        context.must(qem_cuda_dequantize(context, artifact, place.begin, place.end, place.dtype, memory.get() + out.first,
                                         place.gap ? out.stride : 0, reinterpret_cast<uint32_t *>(word.get()),
                                         workspace_bytes ? workspace.get() : nullptr, workspace_bytes, stream));
    }
    stream.wait();
    const std::vector<unsigned char> got = memory.read();
    uint32_t flag;
    std::memcpy(&flag, word.read().data(), 4);
    ASSERT_EQ(flag, overflow ? 1u : 0u) << place;
    if (got == wanted) return;
    for (uint64_t at = 0; at < got.size(); at++) {
        if (got[at] == wanted[at]) continue;
        const int64_t element =
            (static_cast<int64_t>(at) - static_cast<int64_t>(out.first)) / static_cast<int64_t>(out.size);
        FAIL() << place << ": byte " << at << " of " << got.size() << ", row " << element / static_cast<int64_t>(out.stride)
               << " of these, column " << element % static_cast<int64_t>(out.stride) << ", is " << int(got[at]) << ", not "
               << int(wanted[at]);
    }
}

} // namespace qem_test

#endif
