// Plain versions of what the library does fast, written from spec.md alone and with no regard to speed.
#ifndef QEM_TESTS_SUPPORT_REFERENCE_H
#define QEM_TESTS_SUPPORT_REFERENCE_H

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "context.h"
#include "matrices.h"

namespace qem_test {

// ---- f16 and bf16 by exact arithmetic on values ----

inline double value_of_f16(uint16_t h)
{
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const double sign = h >> 15 ? -1.0 : 1.0;
    if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

inline double value_of_bf16(uint16_t h)
{
    const uint32_t u = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
}

// x rounded to nearest even at `digits` binary digits, no digit below 2^least, infinite from 2^most on.
inline double round_to(double x, int digits, int least, int most)
{
    if (x == 0.0 || !std::isfinite(x)) return x;
    const int unit = std::max(std::ilogb(x) - digits + 1, least);
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
    return std::fabs(rounded) >= std::ldexp(1.0, most) ? std::copysign(std::numeric_limits<double>::infinity(), x)
                                                       : rounded;
}

inline double round_to_f16(double x) { return round_to(x, 11, -24, 16); }
inline double round_to_bf16(double x) { return round_to(x, 8, -133, 128); }

// ---- swap ----

struct Leaf {
    uint64_t begin, width;
};

// Widths of the leaves after `levels` levels, depth first.
inline std::vector<Leaf> swap_leaves(uint64_t cols, uint32_t levels)
{
    std::vector<Leaf> leaves = { { 0, cols } };
    for (uint32_t level = 0; level < levels; level++) {
        std::vector<Leaf> next;
        for (const Leaf &leaf : leaves) {
            next.push_back({ leaf.begin, (leaf.width + 1) / 2 });
            next.push_back({ leaf.begin + (leaf.width + 1) / 2, leaf.width / 2 });
        }
        leaves = next;
    }
    return leaves;
}

struct Swapped {
    Matrix ordered;
    std::vector<int> bits; // level by level, leaf by leaf, row-major
};

inline Swapped swap_reference(const Matrix &m, uint32_t levels)
{
    Swapped result = { m, {} };
    for (uint32_t level = 0; level < levels; level++) {
        const Matrix before = result.ordered;
        for (const Leaf &leaf : swap_leaves(m.cols, level))
            for (uint64_t i = 0; i < m.rows; i++) {
                const uint64_t half = (leaf.width + 1) / 2;
                for (uint64_t j = 0; j < leaf.width / 2; j++) {
                    const float left = before.at(i, leaf.begin + 2 * j), right = before.at(i, leaf.begin + 2 * j + 1);
                    result.bits.push_back(left < right);
                    result.ordered.at(i, leaf.begin + j) = left < right ? left : right;
                    result.ordered.at(i, leaf.begin + half + j) = left < right ? right : left;
                }
                if (leaf.width % 2)
                    result.ordered.at(i, leaf.begin + half - 1) = before.at(i, leaf.begin + leaf.width - 1);
            }
    }
    return result;
}

inline std::vector<uint8_t> bits_to_bytes(const std::vector<int> &bits)
{
    std::vector<uint8_t> bytes((bits.size() + 7) / 8);
    for (size_t i = 0; i < bits.size(); i++) bytes[i / 8] = static_cast<uint8_t>(bytes[i / 8] | bits[i] << (i % 8));
    return bytes;
}

inline Matrix unswap_reference(const Matrix &ordered, const std::vector<uint8_t> &map, uint32_t levels)
{
    // the position in the map where each level begins
    std::vector<uint64_t> first(levels + 1, 0);
    for (uint32_t level = 0; level < levels; level++) {
        first[level + 1] = first[level];
        for (const Leaf &leaf : swap_leaves(ordered.cols, level)) first[level + 1] += ordered.rows * (leaf.width / 2);
    }
    Matrix m = ordered;
    for (uint32_t level = levels; level-- > 0;) {
        const Matrix before = m;
        uint64_t bit = first[level];
        for (const Leaf &leaf : swap_leaves(m.cols, level))
            for (uint64_t i = 0; i < m.rows; i++) {
                const uint64_t half = (leaf.width + 1) / 2;
                for (uint64_t j = 0; j < leaf.width / 2; j++, bit++) {
                    const float s = before.at(i, leaf.begin + j), l = before.at(i, leaf.begin + half + j);
                    const bool left_smaller = map[bit / 8] >> (bit % 8) & 1;
                    m.at(i, leaf.begin + 2 * j) = left_smaller ? s : l;
                    m.at(i, leaf.begin + 2 * j + 1) = left_smaller ? l : s;
                }
                if (leaf.width % 2) m.at(i, leaf.begin + leaf.width - 1) = before.at(i, leaf.begin + half - 1);
            }
    }
    return m;
}

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
    // The entry of a group's codebook; the first width(group) floats of it count.
    const float *entry(uint64_t group, uint64_t code) const
    {
        return codebook.data() + (per_group ? group * k * dim + code * width(group) : code * dim);
    }
    uint32_t code(uint64_t row, uint64_t group) const { return codes[row * groups + group]; }
};

inline Unpacked unpack(const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    const auto parts = parts_of(artifact);
    Unpacked u = { info.rows, info.cols, info.groups, info.k, info.dim, info.levels, is_per_group(info.method),
                   {},        {},        {} };
    u.codes.assign(u.rows * u.groups, 0);
    if (info.code_bits) {
        const std::vector<uint8_t> &stream = parts.at("codes");
        for (uint64_t i = 0; i < u.codes.size(); i++)
            for (uint32_t b = 0; b < info.code_bits; b++) {
                const uint64_t bit = i * info.code_bits + b;
                u.codes[i] |= static_cast<uint32_t>(stream[bit / 8] >> (bit % 8) & 1) << b;
            }
    }
    if (info.method == QEM_METHOD_RTN) {
        float scale, mean;
        std::memcpy(&scale, parts.at("scale").data(), sizeof scale);
        std::memcpy(&mean, parts.at("mean").data(), sizeof mean);
        for (uint64_t j = 0; j < u.k; j++) u.codebook.push_back(std::fma(static_cast<float>(j), scale, mean));
    } else if (info.codebook == QEM_DTYPE_F16) {
        const std::vector<uint8_t> &bytes = parts.at("codebook");
        for (size_t i = 0; i < bytes.size(); i += 2)
            u.codebook.push_back(static_cast<float>(value_of_f16(static_cast<uint16_t>(bytes[i] | bytes[i + 1] << 8))));
    } else {
        const std::vector<uint8_t> &bytes = parts.at("codebook");
        u.codebook.resize(bytes.size() / sizeof(float));
        std::memcpy(u.codebook.data(), bytes.data(), bytes.size());
    }
    if (info.levels) u.swap_map = parts.at("swap_map");
    return u;
}

// The decoded matrix before the swaps are undone.
inline Matrix look_up(const Unpacked &u)
{
    Matrix m(u.rows, u.cols);
    for (uint64_t i = 0; i < u.rows; i++)
        for (uint64_t g = 0; g < u.groups; g++)
            for (uint32_t p = 0; p < u.width(g); p++) m.at(i, g * u.dim + p) = u.entry(g, u.code(i, g))[p];
    return m;
}

inline Matrix decode_reference(const Artifact &artifact)
{
    const Unpacked u = unpack(artifact);
    return unswap_reference(look_up(u), u.swap_map, u.levels);
}

// ---- errors ----

struct Errors {
    double mae, mse, mre, nmse, max_error;
    uint64_t zeros;
};

inline Errors errors_of(const std::vector<float> &x, const std::vector<float> &y)
{
    long double sum = 0, absolute = 0, squared = 0, relative = 0, variance = 0;
    Errors e = { 0, 0, 0, 0, 0, 0 };
    for (float value : x) sum += value;
    const long double mean = sum / x.size();
    for (size_t i = 0; i < x.size(); i++) {
        const long double d = fabsl(static_cast<long double>(x[i]) - y[i]);
        absolute += d;
        squared += d * d;
        variance += (x[i] - mean) * (x[i] - mean);
        if (x[i] != 0.0f)
            relative += d / fabsl(x[i]);
        else
            e.zeros++;
        e.max_error = std::max(e.max_error, static_cast<double>(d));
    }
    e.mae = static_cast<double>(absolute / x.size());
    e.mse = static_cast<double>(squared / x.size());
    e.mre = e.zeros < x.size() ? static_cast<double>(relative / (x.size() - e.zeros)) : std::nan("");
    e.nmse = variance > 0 ? static_cast<double>(squared / variance) : std::nan("");
    return e;
}

// Squared distance in double of a sub-vector to a centroid.
inline double distance(const float *x, const float *c, uint32_t width)
{
    double sum = 0.0;
    for (uint32_t p = 0; p < width; p++) sum += (static_cast<double>(x[p]) - c[p]) * (static_cast<double>(x[p]) - c[p]);
    return sum;
}

} // namespace qem_test

#endif
