// The cases of the kernels' tests and benchmarks: what the inputs look like, and the sizes at which code takes another way.
#ifndef QEM_TESTS_SUPPORT_KERNEL_CASES_H
#define QEM_TESTS_SUPPORT_KERNEL_CASES_H

#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <vector>

extern "C" {
#include "cpu/kernels.h"
}

#include "backend.h"

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

// Finite floats of one kind.
enum class Pattern { normal, equal, few, zeros, outlier, denormal, huge, integers };
constexpr Pattern all_patterns[] = { Pattern::normal,  Pattern::equal,    Pattern::few,  Pattern::zeros,
                                     Pattern::outlier, Pattern::denormal, Pattern::huge, Pattern::integers };

inline const char *name_of(Pattern pattern)
{
    static const char *const names[] = { "normal", "equal", "few", "zeros", "outlier", "denormal", "huge", "integers" };
    return names[static_cast<int>(pattern)];
}

void fill(Random &random, Pattern pattern, float *x, size_t n);

// Any bits: NaNs, infinities, denormals.
void fill_bits(Random &random, float *x, size_t n);

// ---- nearest ----

struct NearestCase {
    size_t points, count;
    uint32_t dim;
};

// Around the limits of nearest_template.h: groups of 1024 points, chunks of centroids, grains by 12 (8) and 64 times dim + 4
// up to dim 8 and 48 (32) times above.
constexpr NearestCase nearest_cases[] = {
    { 64, 32, 1 }, { 192, 96, 1 }, { 1088, 352, 1 }, { 64, 3200, 1 }, { 1216, 32, 2 },
    { 128, 160, 2 }, { 64, 4128, 2 }, { 64, 64, 3 }, { 192, 448, 3 }, { 64, 1632, 3 },
    { 64, 32, 4 }, { 320, 128, 4 }, { 1088, 256, 4 }, { 64, 544, 4 }, { 64, 2464, 4 },
    { 64, 96, 5 }, { 128, 128, 5 }, { 64, 1184, 5 }, { 64, 96, 6 }, { 64, 160, 6 },
    { 64, 928, 6 }, { 64, 128, 7 }, { 64, 192, 7 }, { 64, 832, 7 }, { 64, 32, 8 },
    { 128, 160, 8 }, { 64, 800, 8 }, { 64, 32, 9 }, { 1088, 64, 9 }, { 64, 640, 9 },
    { 64, 64, 10 }, { 64, 96, 11 }, { 64, 800, 12 }, { 64, 96, 13 }, { 64, 32, 14 },
    { 64, 64, 15 }, { 64, 32, 16 }, { 576, 64, 16 }, { 64, 992, 16 }, { 64, 64, 17 },
    { 64, 96, 18 }, { 64, 32, 19 }, { 192, 64, 20 }, { 64, 1184, 20 }, { 192, 32, 63 },
    { 192, 32, 64 }, { 192, 32, 65 }, { 64, 1792, 33 }, { 64, 64, 127 }, { 128, 64, 128 },
    { 64, 64, 129 }, { 128, 32, 150 }, { 64, 64, 300 },
};

// ---- seeding, pruning ----

constexpr uint32_t seed_dims[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 20, 65 };
constexpr size_t seed_sizes[] = { 64, 192, 1088 };
constexpr size_t pruned_counts[] = { 1, 33, 700 };

// ---- codes ----

constexpr size_t threshold_counts[] = { 0,  1,  2,  3,  5,  7,   8,   14,  15,   16,   17,   30,
                                        31, 32, 33, 63, 64, 100, 255, 256, 1000, 4095, 70000 };
constexpr uint32_t most_code_bits = 24;
constexpr uint32_t lookup_dims[] = { 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                                     14, 15, 16, 17, 18, 19, 20, 24, 31, 32, 64, 100 };
constexpr size_t lookup_sizes[] = { 0, 1, 2, 7, 15, 16, 17, 31, 33, 70, 200 };

// ---- elements one by one ----

constexpr size_t convert_sizes[] = { 0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000 };
constexpr size_t swap_sizes[] = { 0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 100, 127, 128, 200, 513 }; // pairs
constexpr size_t metrics_sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 100, 511, 1000,
                                     QEM_ERROR_CHUNK - 1, QEM_ERROR_CHUNK };

} // namespace qem_test

#endif
