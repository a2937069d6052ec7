// The primitives of backend.h on the GPU (the kernel host runner) beside those on the CPU: results are equal bit for bit.
// Device arrays lie between guard bytes, and the runner guards their ends too.
#ifndef QEM_TESTS_CUDA_PRIMITIVES_H
#define QEM_TESTS_CUDA_PRIMITIVES_H

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "backend.h"
}

#include "cuda/runner.h"
#include "support/context.h"
#include "support/kernel_cases.h"

namespace qem_test {

// A context, and its primitives: p->sum(p, ...)
class Primitives {
public:
    explicit Primitives(qem_device device) : context_(on_device(device)) {}
    operator qem_context *() const { return context_; }
    const qem_backend *operator->() const { return static_cast<qem_context *>(context_)->backend; }
    void must(qem_status status) const { context_.must(status); }
    std::string error() const { return context_.error(); }

private:
    Context context_;
};

// n elements in the memory of a context's device, between guard bytes; filled from the host, or with 0xa5.
template <typename T> class DeviceArray {
public:
    DeviceArray(const Primitives &on, size_t n, const T *from = nullptr) : on_(on), n_(n)
    {
        std::vector<unsigned char> bytes(2 * guard + n * sizeof(T), fill);
        if (from && n) std::memcpy(bytes.data() + guard, from, n * sizeof(T));
        on.must(on->alloc(on, bytes.size(), 1, &memory_));
        on.must(on->to_device(on, memory_, bytes.data(), bytes.size()));
    }
    DeviceArray(const Primitives &on, const std::vector<T> &from) : DeviceArray(on, from.size(), from.data()) {}
    ~DeviceArray()
    {
        const std::vector<unsigned char> bytes = all();
        for (size_t i = 0; i < guard; i++) {
            EXPECT_EQ(bytes[i], fill) << "byte " << guard - i << " before an array on the device";
            EXPECT_EQ(bytes[guard + n_ * sizeof(T) + i], fill) << "byte " << i << " after an array on the device";
        }
        on_->release(on_, memory_);
    }
    DeviceArray(const DeviceArray &) = delete;
    DeviceArray &operator=(const DeviceArray &) = delete;
    T *get() const { return reinterpret_cast<T *>(static_cast<unsigned char *>(memory_) + guard); }
    std::vector<T> read() const
    {
        std::vector<T> x(n_);
        const std::vector<unsigned char> bytes = all();
        if (n_) std::memcpy(x.data(), bytes.data() + guard, n_ * sizeof(T));
        return x;
    }

private:
    static constexpr size_t guard = 256;
    static constexpr unsigned char fill = 0xa5;
    std::vector<unsigned char> all() const
    {
        std::vector<unsigned char> bytes(2 * guard + n_ * sizeof(T));
        on_.must(on_->to_host(on_, bytes.data(), memory_, bytes.size()));
        return bytes;
    }
    const Primitives &on_;
    size_t n_;
    void *memory_ = nullptr;
};

using Floats = DeviceArray<float>;

// Whether two tables hold the same bits; `what` tells of the case.
template <typename T> void expect_same(const std::vector<T> &cpu, const std::vector<T> &gpu, const std::string &what)
{
    ASSERT_EQ(cpu.size(), gpu.size()) << what;
    for (size_t i = 0; i < cpu.size(); i++)
        if (std::memcmp(&cpu[i], &gpu[i], sizeof(T)) != 0) {
            FAIL() << what << ": entry " << i << " of " << cpu.size() << " is " << +gpu[i] << " on the GPU, " << +cpu[i]
                   << " on the CPU";
        }
}

inline std::vector<float> values(Random &random, Pattern pattern, size_t n)
{
    std::vector<float> x(n);
    fill(random, pattern, x.data(), n);
    return x;
}

// Weights from 0 to 1, some of them 0.
inline std::vector<float> weights(Random &random, size_t n)
{
    std::vector<float> w(n);
    for (float &value : w) value = below(random, 5) ? static_cast<float>(below(random, 10000)) / 9999.0f : 0.0f;
    return w;
}

inline const Primitives &of_device(qem_device device)
{
    static const Primitives cpu(QEM_DEVICE_CPU), gpu(QEM_DEVICE_CUDA);
    return device == QEM_DEVICE_CPU ? cpu : gpu;
}

// What a primitive does on both devices: run(primitives) returns the bits of all its results, which have to be the same.
template <typename Run> void both(const std::string &what, Run run)
{
    expect_same(run(of_device(QEM_DEVICE_CPU)), run(of_device(QEM_DEVICE_CUDA)), what);
}

// Bytes of any tables, one after another.
class Bytes {
public:
    template <typename T> Bytes &add(const std::vector<T> &table)
    {
        const unsigned char *from = reinterpret_cast<const unsigned char *>(table.data());
        bytes_.insert(bytes_.end(), from, from + table.size() * sizeof(T));
        return *this;
    }
    template <typename T> Bytes &add(const T &value) { return add(std::vector<T>(1, value)); }
    operator std::vector<unsigned char>() const { return bytes_; }

private:
    std::vector<unsigned char> bytes_;
};

} // namespace qem_test

#endif
