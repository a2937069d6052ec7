// Short names for what artifacts are built of, and artifacts drawn at random.
#ifndef QEM_TESTS_CUDA_ARTIFACTS_H
#define QEM_TESTS_CUDA_ARTIFACTS_H

#include <cstdlib>
#include <memory>

#include "support/layers.h"

namespace qem_test {

inline StageSpec shared(uint32_t dim, uint64_t k, uint32_t levels = 0, bool half = false)
{
    StageSpec spec;
    spec.dim = dim;
    spec.k = k;
    spec.levels = levels;
    spec.half = half;
    return spec;
}

inline StageSpec by_group(uint32_t dim, uint64_t k, uint32_t levels = 0, uint32_t cells = 0, bool mixed = false)
{
    StageSpec spec = shared(dim, k, levels);
    spec.kind = QEM_CODEBOOK_PER_GROUP;
    spec.cells = cells;
    spec.mixed = mixed;
    return spec;
}

inline StageSpec scalar(qem_codebook_kind kind, uint64_t k, uint32_t levels = 0)
{
    StageSpec spec = shared(1, k, levels);
    spec.kind = kind;
    return spec;
}

inline uint64_t test_seed()
{
    const char *seed = std::getenv("QEM_TEST_SEED");
    return seed ? std::strtoull(seed, nullptr, 10) : 20260101;
}

inline AffineSpec random_step(Random &random)
{
    AffineSpec step;
    step.axis = static_cast<qem_axis>(random.below(4));
    if (step.axis == QEM_AXIS_BLOCK) step.block = random.below(2) ? uint64_t(8) << random.below(4) : 1 + random.below(40);
    step.scale = random.below(4) != 0;
    step.mean = !step.scale || random.below(2);
    return step;
}

inline StageSpec random_stage(Random &random)
{
    const uint32_t dims[] = { 1, 1, 1, 2, 3, 4, 4, 6, 8, 8, 16, 32 };
    StageSpec spec;
    spec.kind = static_cast<qem_codebook_kind>(random.below(4));
    const bool formula = spec.kind == QEM_CODEBOOK_UNIFORM || spec.kind == QEM_CODEBOOK_TABLE;
    spec.dim = formula ? 1 : dims[random.below(12)];
    const uint32_t bits = static_cast<uint32_t>(random.below(10));
    spec.k = random.below(2) ? uint64_t(1) << bits : 1 + random.below(uint64_t(1) << bits);
    spec.half = !formula && random.below(2);
    spec.mixed = spec.kind == QEM_CODEBOOK_PER_GROUP && random.below(3) == 0;
    if (spec.mixed) spec.k = uint64_t(1) << bits;
    if (random.below(3) == 0)
        spec.levels = static_cast<uint32_t>(1 + random.below(8));
    else if (spec.kind == QEM_CODEBOOK_PER_GROUP && random.below(3) == 0)
        spec.cells = static_cast<uint32_t>(1 + random.below(5));
    return spec;
}

inline void add_random_layer(Random &random, Layers &layers, uint64_t rows)
{
    std::vector<AffineSpec> steps(random.below(2) ? 0 : random.below(QEM_MOST_AFFINE + 1));
    for (AffineSpec &step : steps) step = random_step(random);
    std::vector<uint64_t> splits;
    if (rows > 1 && random.below(4) == 0) splits.push_back(1 + random.below(rows - 1));
    layers.add_layer(random_stage(random), steps, splits);
}

// Of any shape and any layers, with outliers or without.
inline std::unique_ptr<Layers> random_layers(uint64_t seed)
{
    Random random(seed);
    const uint64_t rows = 1 + random.below(60), cols = random.below(2) ? 8 * (1 + random.below(20)) : 1 + random.below(130);
    std::unique_ptr<Layers> layers(new Layers(rows, cols, seed));
    const uint64_t count = random.below(3) ? 1 : 1 + random.below(4);
    for (uint64_t l = 0; l < count; l++) add_random_layer(random, *layers, rows);
    std::vector<uint64_t> elements;
    for (uint64_t e = random.below(50); random.below(3) == 0 && e < rows * cols; e += 1 + random.below(200))
        elements.push_back(e);
    if (!elements.empty()) layers->add_outliers(elements, random.below(2) ? 4 : 8);
    return layers;
}

} // namespace qem_test

#endif
