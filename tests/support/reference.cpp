#include "reference.h"

#include <limits>
#include <map>

namespace qem_test {

double value_of_f16(uint16_t h)
{
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const double sign = h >> 15 ? -1.0 : 1.0;
    if (exponent == 31) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

uint16_t f16_of(double value)
{
    static const std::map<double, uint16_t> all = [] {
        std::map<double, uint16_t> values;
        for (uint32_t h = 0; h < 0x10000; h++)
            if ((h & 0x7c00) != 0x7c00 || (h & 0x3ff) == 0) values.emplace(value_of_f16(static_cast<uint16_t>(h)), h);
        return values;
    }();
    return all.at(value);
}

double value_of_bf16(uint16_t h)
{
    const uint32_t u = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
}

double round_to(double x, int digits, int least, int most)
{
    if (x == 0.0 || !std::isfinite(x)) return x;
    const int unit = std::max(std::ilogb(x) - digits + 1, least);
    const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
    return std::fabs(rounded) >= std::ldexp(1.0, most) ? std::copysign(std::numeric_limits<double>::infinity(), x)
                                                       : rounded;
}

double round_to_f16(double x) { return round_to(x, 11, -24, 16); }

double round_to_bf16(double x) { return round_to(x, 8, -133, 128); }

size_t first_not_rounded(const uint16_t *narrow, const float *wide, size_t n, qem_dtype dtype)
{
    for (size_t i = 0; i < n; i++)
        if (dtype == QEM_DTYPE_F16 ? value_of_f16(narrow[i]) != round_to_f16(wide[i])
                                   : value_of_bf16(narrow[i]) != round_to_bf16(wide[i]))
            return i;
    return n;
}

std::vector<Leaf> swap_leaves(uint64_t cols, uint32_t levels)
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

Swapped swap_reference(const Matrix &m, uint32_t levels)
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

std::vector<uint8_t> bits_to_bytes(const std::vector<int> &bits)
{
    std::vector<uint8_t> bytes((bits.size() + 7) / 8);
    for (size_t i = 0; i < bits.size(); i++) bytes[i / 8] = static_cast<uint8_t>(bytes[i / 8] | bits[i] << (i % 8));
    return bytes;
}

Matrix unswap_reference(const Matrix &ordered, const std::vector<uint8_t> &map, uint32_t levels)
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

Unpacked unpack(const Artifact &artifact)
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

Matrix look_up(const Unpacked &u)
{
    Matrix m(u.rows, u.cols);
    for (uint64_t i = 0; i < u.rows; i++)
        for (uint64_t g = 0; g < u.groups; g++)
            for (uint32_t p = 0; p < u.width(g); p++) m.at(i, g * u.dim + p) = u.entry(g, u.code(i, g))[p];
    return m;
}

Matrix decode_reference(const Artifact &artifact)
{
    const Unpacked u = unpack(artifact);
    return unswap_reference(look_up(u), u.swap_map, u.levels);
}

Errors errors_of(const std::vector<float> &x, const std::vector<float> &y)
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

double distance(const float *x, const float *c, uint32_t width)
{
    double sum = 0.0;
    for (uint32_t p = 0; p < width; p++) sum += (static_cast<double>(x[p]) - c[p]) * (static_cast<double>(x[p]) - c[p]);
    return sum;
}

double least_distance(const float *x, const float *centroids, uint64_t count, uint64_t stride, uint32_t width)
{
    double least = std::numeric_limits<double>::infinity();
    for (uint64_t j = 0; j < count; j++) least = std::min(least, distance(x, centroids + j * stride, width));
    return least;
}

std::vector<Product> products_reference(const Matrix &x, const std::vector<float> &w)
{
    std::vector<Product> products(x.rows * (w.size() / x.cols));
    size_t at = 0;
    for (uint64_t b = 0; b < x.rows; b++)
        for (size_t begin = 0; begin < w.size(); begin += x.cols, at++) {
            double sum = 0.0, size = 0.0;
            for (uint64_t j = 0; j < x.cols; j++) {
                const double term = static_cast<double>(x.x[b * x.cols + j]) * w[begin + j];
                sum += term;
                size += std::fabs(term);
            }
            products[at] = { sum, size };
        }
    return products;
}

} // namespace qem_test
