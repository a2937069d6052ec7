// What the kernel tests share. Every kernel of every instruction set that this CPU has is compared, bit for bit, with the
// scalar one, which is the definition. Inputs end where their allocation ends, so that a sanitizer sees each read past them;
// outputs lie between guard bytes.
#ifndef QEM_TESTS_KERNELS_TEST_H
#define QEM_TESTS_KERNELS_TEST_H

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "support/kernel_cases.h"

namespace qem_test {

// n elements between guard bytes, `shift` elements past a 64-byte boundary.
template <typename T> class Output {
public:
    explicit Output(size_t n, size_t shift = 0)
        : n_(n), before_(guard + shift * sizeof(T)),
          bytes_(static_cast<unsigned char *>(::operator new(before_ + n * sizeof(T) + guard, std::align_val_t(64))))
    {
        std::memset(bytes_.get(), fill, before_ + n * sizeof(T) + guard);
    }
    T *data() { return reinterpret_cast<T *>(bytes_.get() + before_); }
    T &operator[](size_t i) { return data()[i]; }
    size_t size() const { return n_; }
    bool intact() const
    {
        for (size_t i = 0; i < before_; i++)
            if (bytes_[i] != fill) return false;
        for (size_t i = 0; i < guard; i++)
            if (bytes_[before_ + n_ * sizeof(T) + i] != fill) return false;
        return true;
    }

private:
    static constexpr size_t guard = 128;
    static constexpr unsigned char fill = 0xa5;
    struct Free {
        void operator()(unsigned char *bytes) const { ::operator delete(bytes, std::align_val_t(64)); }
    };
    size_t n_, before_;
    std::unique_ptr<unsigned char[], Free> bytes_;
};

template <typename T> ::testing::AssertionResult same_bits(const T *expected, const T *actual, size_t n)
{
    if (n == 0 || std::memcmp(expected, actual, n * sizeof(T)) == 0) return ::testing::AssertionSuccess();
    for (size_t i = 0; i < n; i++)
        if (std::memcmp(expected + i, actual + i, sizeof(T)) != 0)
            return ::testing::AssertionFailure()
                   << "element " << i << " of " << n << ": expected " << expected[i] << ", got " << actual[i];
    return ::testing::AssertionSuccess();
}

template <typename T> ::testing::AssertionResult same_output(Output<T> &expected, Output<T> &actual)
{
    if (!expected.intact()) return ::testing::AssertionFailure() << "the scalar kernel wrote outside of its output";
    if (!actual.intact()) return ::testing::AssertionFailure() << "wrote outside of its output";
    return same_bits(expected.data(), actual.data(), expected.size());
}

// One test for each instruction set that is compared with the scalar kernels.
class KernelTest : public ::testing::TestWithParam<qem_isa> {
protected:
    void SetUp() override;
    const qem_cpu_kernels *scalar = nullptr, *simd = nullptr;
    uint64_t seed = 0; // of QEM_TEST_SEED, or a fixed one; printed when a test fails
    Random random;
    void TearDown() override;
};

inline std::string isa_test_name(const ::testing::TestParamInfo<qem_isa> &tested)
{
    return tested.param == QEM_ISA_AVX2 ? "avx2" : "avx512";
}

#define QEM_KERNEL_TESTS(Suite)                                                                                            \
    INSTANTIATE_TEST_SUITE_P(Cpu, Suite, ::testing::Values(QEM_ISA_AVX2, QEM_ISA_AVX512), isa_test_name)

} // namespace qem_test

#endif
