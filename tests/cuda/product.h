// Products on the device, compared byte by byte with a scalar restatement of the documented order, which is itself compared
// with a product in double.
#ifndef QEM_TESTS_CUDA_PRODUCT_H
#define QEM_TESTS_CUDA_PRODUCT_H

#include <cmath>
#include <limits>

#include "device.h"

namespace qem_test {

constexpr qem_dtype product_types[] = { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 };

// Gaps are elements after each row, shifts elements past a boundary of 256 bytes.
struct DeviceProduct {
    uint64_t batch;
    qem_dtype x_dtype = QEM_DTYPE_F32, y_dtype = QEM_DTYPE_F32;
    uint64_t x_gap = 0, y_gap = 0, x_shift = 0, y_shift = 0;
};

inline std::ostream &operator<<(std::ostream &out, const DeviceProduct &p)
{
    return out << "batch " << p.batch << ", x " << qem_dtype_name(p.x_dtype) << " gap " << p.x_gap << " shift " << p.x_shift
               << ", y " << qem_dtype_name(p.y_dtype) << " gap " << p.y_gap << " shift " << p.y_shift;
}

inline float round_to(float x, qem_dtype dtype)
{
    if (dtype == QEM_DTYPE_F32) return x;
    return dtype == QEM_DTYPE_F16 ? qem_f16_to_f32(qem_f32_to_f16(x)) : qem_bf16_to_f32(qem_f32_to_bf16(x));
}

// ---- the documented order ----

inline float run_sum(const float *x, const float *w, uint64_t begin, uint64_t end)
{
    float sum = 0.0f;
    for (uint64_t j = begin; j < end; j++) sum = std::fma(w[j], x[j], sum);
    return sum;
}

inline float dot_in_order(const float *x, const float *w, uint64_t cols)
{
    float total = 0.0f;
    for (uint64_t span = 0; span < cols; span += 512) {
        float s[8];
        for (uint64_t r = 0; r < 8; r++)
            s[r] = run_sum(x, w, std::min(cols, span + 64 * r), std::min(cols, span + 64 * r + 64));
        total += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
    return total;
}

// As the stand-in for cuBLAS has it: one chain, with W in the type of x.
inline float dot_in_chain(const float *x, const float *w, uint64_t cols, qem_dtype dtype)
{
    float sum = 0.0f;
    for (uint64_t j = 0; j < cols; j++) sum = std::fma(round_to(w[j], dtype), x[j], sum);
    return sum;
}

// No further from the product in double than documented. False where the bound says nothing.
inline void check_bound(const float *x, const float *w, uint64_t cols, float sum)
{
    double exact = 0.0, size = 0.0;
    for (uint64_t j = 0; j < cols; j++) {
        exact += double(x[j]) * w[j];
        size += std::abs(double(x[j]) * w[j]);
    }
    if (!(size < 3e38)) return; // infinite on the way
    const double n = 68.0 + double(cols) / 512.0;
    ASSERT_LE(std::abs(sum - exact), 1.01 * n * 0x1p-24 * size + n * 0x1p-149);
}

// ---- a product and what is expected of it ----

// Rows of x, as they are in their type.
inline Matrix rows_of_x(const DeviceProduct &p, uint64_t cols, uint64_t seed)
{
    Matrix x = gaussian(p.batch, cols, seed);
    for (float &value : x.x) value = round_to(value, p.x_dtype);
    return x;
}

struct Expected {
    std::vector<unsigned char> bytes; // of y and around it
    bool overflow = false;
};

inline Expected expected_product(const Matrix &w, const Matrix &x, const DeviceProduct &p, bool by_blas)
{
    const Output256 out(w.rows, { 0, p.batch, p.y_dtype, p.y_gap, p.y_shift });
    Expected expected;
    expected.bytes.assign(out.bytes, device_fill);
    for (uint64_t b = 0; b < p.batch; b++)
        for (uint64_t i = 0; i < w.rows; i++) {
            const float *row = &w.x[i * w.cols], *of_x = &x.x[b * w.cols];
            float sum = by_blas ? dot_in_chain(of_x, row, w.cols, p.x_dtype) : dot_in_order(of_x, row, w.cols);
            if (!by_blas) check_bound(of_x, row, w.cols, sum);
            if (std::isnan(sum)) sum = std::numeric_limits<float>::quiet_NaN();
            expected.overflow |= put_element(sum, p.y_dtype, &expected.bytes[out.first + (b * out.stride + i) * out.size]);
        }
    return expected;
}

// Gaps of x are NaN of either sign, which no sum may show.
inline std::vector<unsigned char> bytes_of_x(const Matrix &x, const DeviceProduct &p)
{
    const Output256 in(x.cols, { 0, p.batch, p.x_dtype, p.x_gap, p.x_shift });
    std::vector<unsigned char> bytes(in.bytes, 0xff);
    for (uint64_t b = 0; b < p.batch; b++)
        for (uint64_t j = 0; j < x.cols; j++)
            put_element(x.at(b, j), p.x_dtype, &bytes[in.first + (b * in.stride + j) * in.size]);
    return bytes;
}

struct BlasEnd {
    void operator()(qem_cuda_blas *blas) const { qem_cuda_blas_destroy(&blas); }
};
using Blas = std::unique_ptr<qem_cuda_blas, BlasEnd>;

inline Blas make_blas(const Context &context, void *handle = nullptr)
{
    qem_cuda_blas *blas = nullptr;
    context.must(qem_cuda_blas_create(context, 0, handle, &blas));
    return Blas(blas);
}

// The memory of one product.
struct ProductMemory {
    ProductMemory(const qem_device_artifact *artifact, const qem_cuda_blas *blas, const Matrix &x, const DeviceProduct &p)
        : of_y(artifact->rows, { 0, p.batch, p.y_dtype, p.y_gap, p.y_shift }),
          of_x(x.cols, { 0, p.batch, p.x_dtype, p.x_gap, p.x_shift }),
          workspace_bytes(qem_cuda_matmul_workspace_size(artifact, blas, p.batch, p.x_dtype, p.y_dtype)), x_memory(of_x.bytes),
          y_memory(of_y.bytes, device_fill), word(4, 0), workspace(workspace_bytes)
    {
        must_cuda(cudaMemcpy(x_memory.get(), bytes_of_x(x, p).data(), of_x.bytes, cudaMemcpyHostToDevice));
    }
    const void *x() const { return x_memory.get() + of_x.first; }
    void *y() const { return y_memory.get() + of_y.first; }
    uint32_t flag() const
    {
        uint32_t value;
        std::memcpy(&value, word.read().data(), 4);
        return value;
    }
    qem_status multiply(const Context &context, const qem_device_artifact *artifact, qem_cuda_blas *blas,
                        const DeviceProduct &p, cudaStream_t stream) const
    {
        return qem_cuda_matmul(context, artifact, blas, p.batch, p.x_dtype, x(), p.x_gap ? of_x.stride : 0, p.y_dtype, y(),
                               p.y_gap ? of_y.stride : 0, reinterpret_cast<uint32_t *>(word.get()),
                               workspace_bytes ? workspace.get() : nullptr, workspace_bytes, stream);
    }
    Output256 of_y, of_x;
    uint64_t workspace_bytes;
    DeviceMemory x_memory, y_memory, word, workspace;
};

// Every byte of y and around it, and the overflow word.
inline void check_product(const Context &context, const qem_device_artifact *artifact, const Matrix &w, const Matrix &x,
                          const DeviceProduct &p, qem_cuda_blas *blas = nullptr)
{
    const Stream stream;
    const ProductMemory memory(artifact, blas, x, p);
    const bool by_blas = blas && p.batch >= QEM_CUDA_MATMUL_BLAS_BATCH;
    const Expected expected = expected_product(w, x, p, by_blas);
    {
        const qem_runner::EnqueueOnly scope(stream);
        context.must(memory.multiply(context, artifact, blas, p, stream));
    }
    stream.wait();
    ASSERT_EQ(memory.flag(), expected.overflow ? 1u : 0u) << p;
    const std::vector<unsigned char> got = memory.y_memory.read();
    if (got == expected.bytes) return;
    for (uint64_t at = 0; at < got.size(); at++) {
        if (got[at] == expected.bytes[at]) continue;
        const Output256 &out = memory.of_y;
        const int64_t element =
            (static_cast<int64_t>(at) - static_cast<int64_t>(out.first)) / static_cast<int64_t>(out.size);
        FAIL() << p << ": byte " << at << " of " << got.size() << ", row " << element / static_cast<int64_t>(out.stride)
               << " of y, column " << element % static_cast<int64_t>(out.stride) << ", is " << int(got[at]) << ", not "
               << int(expected.bytes[at]);
    }
}

inline void check_product(const Context &context, const qem_device_artifact *artifact, const Matrix &w, const DeviceProduct &p,
                          qem_cuda_blas *blas = nullptr)
{
    ASSERT_NO_FATAL_FAILURE(check_product(context, artifact, w, rows_of_x(p, w.cols, p.batch + w.cols), p, blas));
}

} // namespace qem_test

#endif
