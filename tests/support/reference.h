// Plain versions of what the library does fast, written from spec.md alone and with no regard to speed.
#ifndef QEM_TESTS_SUPPORT_REFERENCE_H
#define QEM_TESTS_SUPPORT_REFERENCE_H

#include <algorithm>
#include <cmath>
#include <cstring>

#include "context.h"
#include "matrices.h"

namespace qem_test {

// ---- f16 and bf16 by exact arithmetic on values ----

double value_of_f16(uint16_t h);

// The f16 of a value that the type holds exactly.
uint16_t f16_of(double value);

double value_of_bf16(uint16_t h);

// x rounded to nearest even at `digits` binary digits, no digit below 2^least, infinite from 2^most on.
double round_to(double x, int digits, int least, int most);

double round_to_f16(double x);
double round_to_bf16(double x);

// The first of n elements of `narrow`, of that type, that is not `wide` rounded to nearest even; n if there is none.
size_t first_not_rounded(const uint16_t *narrow, const float *wide, size_t n, qem_dtype dtype);

// ---- swap ----

struct Leaf {
    uint64_t begin, width;
};

// Widths of the leaves after `levels` levels, depth first.
std::vector<Leaf> swap_leaves(uint64_t cols, uint32_t levels);

struct Swapped {
    Matrix ordered;
    std::vector<int> bits; // level by level, leaf by leaf, row-major
};

Swapped swap_reference(const Matrix &m, uint32_t levels);

std::vector<uint8_t> bits_to_bytes(const std::vector<int> &bits);

Matrix unswap_reference(const Matrix &ordered, const std::vector<uint8_t> &map, uint32_t levels);

// ---- artifacts from their parts ----

// What an artifact stores, unpacked: codes by (row, group) and the codebook(s) as float.
struct Unpacked {
    uint64_t rows, cols, groups, k;
    uint32_t dim, levels;
    bool per_group;
    std::vector<uint32_t> codes;
    std::vector<float> codebook;
    std::vector<uint8_t> swap_map;

    uint32_t width(uint64_t group) const
    {
        return static_cast<uint32_t>(std::min<uint64_t>(dim, cols - group * dim));
    }
    // From one entry of a group's codebook to the next.
    uint32_t stride(uint64_t group) const { return per_group ? width(group) : dim; }
    // The entry of a group's codebook; the first width(group) floats of it count.
    const float *entry(uint64_t group, uint64_t code) const
    {
        return codebook.data() + (per_group ? group * k * dim : 0) + code * stride(group);
    }
    uint32_t code(uint64_t row, uint64_t group) const { return codes[row * groups + group]; }
};

Unpacked unpack(const Artifact &artifact);

// The decoded matrix before the swaps are undone.
Matrix look_up(const Unpacked &u);

Matrix decode_reference(const Artifact &artifact);

// ---- errors ----

struct Errors {
    double mae, mse, mre, nmse, max_error;
    uint64_t zeros;
};

Errors errors_of(const std::vector<float> &x, const std::vector<float> &y);

// Squared distance in double of a sub-vector to a centroid.
double distance(const float *x, const float *c, uint32_t width);

// The least of those to `count` centroids that lie `stride` floats apart; infinite if there are none.
double least_distance(const float *x, const float *centroids, uint64_t count, uint64_t stride, uint32_t width);

// ---- products ----

// A sum in double and the sum of the terms' sizes, on which the rounding error of the library's depends.
struct Product {
    double sum, size;
};

// x times the transposed w, whose rows are x.cols long: row b * (rows of w) + i is row b of x by row i of w.
std::vector<Product> products_reference(const Matrix &x, const std::vector<float> &w);

} // namespace qem_test

#endif
