// What the kernel tests share. Every kernel of every instruction set that this CPU has is compared, bit for bit, with the
// scalar one, which is the definition. Inputs end where their allocation ends, so that a sanitizer sees each read past them;
// outputs lie between guard bytes.
#ifndef QEM_TESTS_KERNELS_TEST_H
#define QEM_TESTS_KERNELS_TEST_H

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "cpu/kernels.h"
}

namespace qem_test {

using Random = std::mt19937_64;

inline uint64_t below(Random &random, uint64_t limit)
{
    return random() % limit;
}

template <typename T> struct AlignedAllocator {
    using value_type = T;
    AlignedAllocator() = default;
    template <typename U> AlignedAllocator(const AlignedAllocator<U> &) {}
    T *allocate(size_t n) { return static_cast<T *>(::operator new(n * sizeof(T), std::align_val_t(64))); }
    void deallocate(T *p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    template <typename U> bool operator==(const AlignedAllocator<U> &) const { return true; }
    template <typename U> bool operator!=(const AlignedAllocator<U> &) const { return false; }
};

// For points and centroids, whose arrays are 64-byte aligned by contract.
template <typename T> using Aligned = std::vector<T, AlignedAllocator<T>>;

// n elements between guard bytes, `shift` elements past a 64-byte boundary.
template <typename T> class Output {
public:
    explicit Output(size_t n, size_t shift = 0)
        : n_(n), before_(guard + shift * sizeof(T)), bytes_(before_ + n * sizeof(T) + guard, fill)
    {
    }
    T *data() { return reinterpret_cast<T *>(bytes_.data() + before_); }
    T &operator[](size_t i) { return data()[i]; }
    size_t size() const { return n_; }
    bool intact() const
    {
        for (size_t i = 0; i < bytes_.size(); i++)
            if ((i < before_ || i >= before_ + n_ * sizeof(T)) && bytes_[i] != fill) return false;
        return true;
    }

private:
    static constexpr size_t guard = 128;
    static constexpr unsigned char fill = 0xa5;
    size_t n_, before_;
    Aligned<unsigned char> bytes_;
};

template <typename T> ::testing::AssertionResult same_bits(const T *expected, const T *actual, size_t n)
{
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

// Finite floats of one kind.
enum class Pattern { normal, equal, few, zeros, outlier, denormal, huge, integers };
constexpr Pattern all_patterns[] = { Pattern::normal,  Pattern::equal,    Pattern::few,  Pattern::zeros,
                                     Pattern::outlier, Pattern::denormal, Pattern::huge, Pattern::integers };

const char *name_of(Pattern pattern);
void fill(Random &random, Pattern pattern, float *x, size_t n);
// Any bits: NaNs, infinities, denormals.
void fill_bits(Random &random, float *x, size_t n);

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
