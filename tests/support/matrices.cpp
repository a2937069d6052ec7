#include "matrices.h"

namespace qem_test {

Matrix gaussian(uint64_t rows, uint64_t cols, uint64_t seed, double scale, double offset)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(offset + scale * random.normal());
    return m;
}

Matrix heavy_tails(uint64_t rows, uint64_t cols, uint64_t seed)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(random.normal() / std::sqrt(1e-6 - std::log(1.0 - random.unit())));
    return m;
}

Matrix integers(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t values)
{
    Matrix m(rows, cols);
    Random random(seed);
    for (float &x : m.x) x = static_cast<float>(random.below(values)) - static_cast<float>(values / 2);
    return m;
}

Matrix repeated_rows(uint64_t rows, uint64_t cols, uint64_t seed, uint64_t distinct)
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

Matrix equal_columns(uint64_t rows, uint64_t cols, uint64_t seed)
{
    return repeated_rows(rows, cols, seed, 1);
}

Matrix mixed_columns(uint64_t rows, uint64_t cols, uint64_t seed)
{
    Matrix m = gaussian(rows, cols, seed);
    const double scales[] = { 1.0, 1e-33, 1e5, 0.0, 3e-3 };
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) m.at(i, j) = static_cast<float>(m.at(i, j) * scales[j % 5]);
    return m;
}

Matrix any_matrix(int kind, uint64_t rows, uint64_t cols, uint64_t seed)
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
