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

Matrix gaussian(uint64_t rows, uint64_t cols, uint64_t seed, double scale = 1.0, double offset = 0.0);

// The tails of a Student t with two degrees of freedom: most values near 0, a few very far out.
Matrix heavy_tails(uint64_t rows, uint64_t cols, uint64_t seed);

// Small integers: many ties and equal sub-vectors.
Matrix integers(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t values);

// Rows drawn from `distinct` Gaussian rows.
Matrix repeated_rows(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t distinct);

// Every row the same.
Matrix equal_columns(uint64_t rows, uint64_t cols, uint64_t seed);

// Columns of very different scale, one of them constant.
Matrix mixed_columns(uint64_t rows, uint64_t cols, uint64_t seed);

// A matrix of some kind: `kind` picks the maker.
constexpr int kKinds = 9;
Matrix any_matrix(int kind, uint64_t rows, uint64_t cols, uint64_t seed);

} // namespace qem_test

#endif
