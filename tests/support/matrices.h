// Matrices for tests: every maker gives the same numbers for the same seed.
#ifndef QEM_TESTS_SUPPORT_MATRICES_H
#define QEM_TESTS_SUPPORT_MATRICES_H

#include <qem/qem.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace qem_test {

struct Matrix {
    uint64_t rows = 0, cols = 0;
    std::vector<float> x;

    Matrix() = default;
    Matrix(uint64_t r, uint64_t c, float value = 0.0f) : rows(r), cols(c), x(r * c, value) {}
    float &at(uint64_t i, uint64_t j) { return x[i * cols + j]; }
    float at(uint64_t i, uint64_t j) const { return x[i * cols + j]; }
    qem_view view() const
    {
        qem_view view = QEM_VIEW_INIT;
        view.data = x.data();
        view.rows = rows;
        view.cols = cols;
        return view;
    }
};

class Random {
public:
    explicit Random(uint64_t seed) : engine_(seed * 0x9E3779B97F4A7C15u + 1) {}
    uint64_t below(uint64_t n) { return engine_() % n; }
    double unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
    double normal() { return std::sqrt(-2.0 * std::log(1.0 - unit())) * std::cos(6.283185307179586 * unit()); }

private:
    std::mt19937_64 engine_;
};

inline Matrix gaussian(uint64_t rows, uint64_t cols, uint64_t seed, double scale = 1.0, double offset = 0.0)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(offset + scale * random.normal());
    return m;
}

// The tails of a Student t with two degrees of freedom: most values near 0, a few very far out.
inline Matrix heavy_tails(uint64_t rows, uint64_t cols, uint64_t seed)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(random.normal() / std::sqrt(1e-6 - std::log(1.0 - random.unit())));
    return m;
}

// Small integers: many ties and equal sub-vectors.
inline Matrix integers(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t values)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(random.below(values)) - static_cast<float>(values / 2);
    return m;
}

// Rows drawn from `distinct` Gaussian rows.
inline Matrix repeated_rows(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t distinct)
{
    const Matrix source = gaussian(distinct, cols, seed + 1000);
    Matrix m(rows, cols);
    Random random(seed);
    for (uint64_t i = 0; i < rows; i++) {
        const uint64_t from = random.below(distinct);
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) = source.at(from, j);
    }
    return m;
}

// Every row the same.
inline Matrix equal_columns(uint64_t rows, uint64_t cols, uint64_t seed)
{
    return repeated_rows(rows, cols, seed, 1);
}

// Columns of very different scale, one of them constant.
inline Matrix mixed_columns(uint64_t rows, uint64_t cols, uint64_t seed)
{
    Matrix m = gaussian(rows, cols, seed);
    const double scales[] = { 1.0, 1e-33, 1e5, 0.0, 3e-3 };
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) = static_cast<float>(m.at(i, j) * scales[j % 5]);
    return m;
}

// A matrix of some kind: `kind` picks the maker.
constexpr int kKinds = 9;
inline Matrix any_matrix(int kind, uint64_t rows, uint64_t cols, uint64_t seed)
{
    switch (kind) {
    case 0: return gaussian(rows, cols, seed);
    case 1: return heavy_tails(rows, cols, seed);
    case 2: return integers(rows, cols, seed, 3);
    case 3: return repeated_rows(rows, cols, seed, 3);
    case 4: return equal_columns(rows, cols, seed);
    case 5: return Matrix(rows, cols, static_cast<float>(seed % 3) * 0.1f); // constant
    case 6: return gaussian(rows, cols, seed, 1e-41);                       // denormal
    case 7: return gaussian(rows, cols, seed, 1e37);                        // huge
    default: return mixed_columns(rows, cols, seed);
    }
}

} // namespace qem_test

#endif
