// Statistics, standardization, weights, block scales and outliers.
#include <algorithm>
#include <cmath>

#include "cuda/primitives.h"

using namespace qem_test;

namespace {

struct Shape {
    uint64_t rows, cols;
};
constexpr Shape shapes[] = { { 1, 1 }, { 1, 40 }, { 33, 1 }, { 7, 13 }, { 5, 64 }, { 37, 96 }, { 3, 700 } };

std::string label(Pattern pattern, const Shape &s)
{
    return std::string(name_of(pattern)) + ", " + std::to_string(s.rows) + " x " + std::to_string(s.cols);
}

uint64_t units_of(qem_axis axis, uint64_t block, const Shape &s)
{
    return axis == QEM_AXIS_TENSOR   ? 1
           : axis == QEM_AXIS_ROW    ? s.rows
           : axis == QEM_AXIS_COLUMN ? s.cols
                                     : s.rows * ((s.cols - 1) / block + 1);
}

// Steps with tables of their own; some scales are 0.
struct Steps {
    std::vector<std::vector<float>> tables;
    std::vector<qem_decode_affine> steps;
    Steps() = default;
    Steps(const Steps &) = delete;

    void add(Random &random, qem_axis axis, uint64_t block, const Shape &s, bool scale, bool mean)
    {
        const uint64_t units = units_of(axis, block, s);
        qem_decode_affine step = { axis, block, nullptr, nullptr };
        std::vector<float> scales(units);
        for (float &x : scales) x = below(random, 6) ? 0.01f * static_cast<float>(1 + below(random, 500)) : 0.0f;
        tables.push_back(scales);
        step.scale = scale ? tables.back().data() : nullptr;
        tables.push_back(values(random, Pattern::normal, units));
        step.mean = mean ? tables.back().data() : nullptr;
        steps.push_back(step);
    }
};

// Number i of some ways to combine steps.
void make_steps(Random &random, int i, const Shape &s, Steps *to)
{
    to->tables.reserve(8);
    if (i == 1) to->add(random, QEM_AXIS_TENSOR, 0, s, true, true);
    if (i == 2) to->add(random, QEM_AXIS_COLUMN, 0, s, true, true);
    if (i == 3) to->add(random, QEM_AXIS_ROW, 0, s, true, false);
    if (i == 4) to->add(random, QEM_AXIS_BLOCK, 16, s, false, true);
    if (i == 5) {
        to->add(random, QEM_AXIS_TENSOR, 0, s, true, false);
        to->add(random, QEM_AXIS_BLOCK, 5, s, true, true);
        to->add(random, QEM_AXIS_COLUMN, 0, s, true, false);
    }
}
constexpr int step_kinds = 6;

TEST(CudaPrimitives, UnitStatistics)
{
    Random random(1);
    for (const Pattern pattern : all_patterns)
        for (const Shape &s : shapes)
            for (const qem_axis axis : { QEM_AXIS_TENSOR, QEM_AXIS_ROW, QEM_AXIS_COLUMN, QEM_AXIS_BLOCK }) {
                const std::vector<float> x = values(random, pattern, s.rows * s.cols);
                const uint64_t block = axis == QEM_AXIS_BLOCK ? 1 + below(random, 40) : 0, units = units_of(axis, block, s);
                Steps steps;
                make_steps(random, static_cast<int>(below(random, step_kinds)), s, &steps);
                both(label(pattern, s), [&](const Primitives &p) -> std::vector<unsigned char> {
                    const Floats a(p, x);
                    std::vector<float> least(units), greatest(units);
                    std::vector<double> mean(units), square(units), mean_alone(units);
                    p.must(p->standardized_stats(p, a.get(), s.rows, s.cols, steps.steps.data(),
                                                 static_cast<uint32_t>(steps.steps.size()), axis, block, least.data(),
                                                 greatest.data(), mean.data(), square.data()));
                    p.must(p->unit_stats(p, a.get(), s.rows, s.cols, axis, block, nullptr, nullptr, mean_alone.data(),
                                         nullptr));
                    return Bytes().add(least).add(greatest).add(mean).add(square).add(mean_alone);
                });
            }
}

// Rows of several segments, and more rows than a chunk has.
TEST(CudaPrimitives, UnitStatisticsInParts)
{
    Random random(2);
    for (const Shape &s : { Shape{ 2, 33001 }, Shape{ 1300, 7 } }) {
        const std::vector<float> x = values(random, Pattern::normal, s.rows * s.cols);
        for (const qem_axis axis : { QEM_AXIS_TENSOR, QEM_AXIS_ROW, QEM_AXIS_COLUMN })
            both(label(Pattern::normal, s), [&](const Primitives &p) -> std::vector<double> {
                const Floats a(p, x);
                std::vector<double> mean(units_of(axis, 0, s)), square(mean.size());
                p.must(p->unit_stats(p, a.get(), s.rows, s.cols, axis, 0, nullptr, nullptr, mean.data(), square.data()));
                mean.insert(mean.end(), square.begin(), square.end());
                return mean;
            });
    }
}

TEST(CudaPrimitives, StandardizeAndWeigh)
{
    Random random(3);
    for (const Pattern pattern : all_patterns)
        for (const Shape &s : shapes)
            for (int kind = 0; kind < step_kinds; kind++) {
                const uint64_t n = s.rows * s.cols, importance_rows = below(random, 2) ? 1 : s.rows;
                const std::vector<float> x = values(random, pattern, n),
                                         importance = weights(random, importance_rows * s.cols);
                Steps steps;
                make_steps(random, kind, s, &steps);
                const qem_decode_affine *list = steps.steps.data();
                const uint32_t count = static_cast<uint32_t>(steps.steps.size());
                both(label(pattern, s) + ", steps " + std::to_string(kind), [&](const Primitives &p) -> std::vector<float> {
                    const Floats a(p, x), z(p, n), w(p, n), v(p, n), i(p, importance);
                    p.must(p->standardize(p, a.get(), s.rows, s.cols, list, count, z.get()));
                    p.must(p->standardize(p, a.get(), s.rows, s.cols, list, count, a.get()));
                    p.must(p->element_weights(p, s.rows, s.cols, list, count, nullptr, 0, w.get()));
                    p.must(p->element_weights(p, s.rows, s.cols, list, count, i.get(), importance_rows, v.get()));
                    std::vector<float> all;
                    for (const Floats *from : { &z, &a, &w, &v }) {
                        const std::vector<float> part = from->read();
                        all.insert(all.end(), part.begin(), part.end());
                    }
                    return all;
                });
            }
}

TEST(CudaPrimitives, PoolAndFit)
{
    Random random(4);
    for (const Pattern pattern : all_patterns)
        for (const Shape &s : shapes) {
            const uint64_t n = s.rows * s.cols, block = 1 + below(random, 40);
            const uint32_t dim = static_cast<uint32_t>(1 + below(random, s.cols < 9 ? s.cols : 9));
            const std::vector<float> x = values(random, pattern, n), w = weights(random, n);
            const std::vector<float> coded = values(random, below(random, 2) ? Pattern::normal : Pattern::few, n);
            both(label(pattern, s), [&](const Primitives &p) -> std::vector<float> {
                const Floats a(p, x), b(p, coded), c(p, w), pooled(p, s.rows * ((s.cols - 1) / dim + 1));
                std::vector<float> scale(units_of(QEM_AXIS_BLOCK, block, s)), weighted(scale.size());
                p.must(p->pool_weights(p, qem_cut(c.get(), s.rows, s.cols, dim), pooled.get()));
                p.must(p->fit_block_scales(p, a.get(), b.get(), nullptr, s.rows, s.cols, block, scale.data()));
                p.must(p->fit_block_scales(p, a.get(), b.get(), c.get(), s.rows, s.cols, block, weighted.data()));
                std::vector<float> all = pooled.read();
                all.insert(all.end(), scale.begin(), scale.end());
                all.insert(all.end(), weighted.begin(), weighted.end());
                return all;
            });
        }
}

TEST(CudaPrimitives, SearchBlockScales)
{
    Random random(5);
    for (const Pattern pattern : all_patterns)
        for (const uint32_t bits : { 1u, 4u, 6u, 8u })
            for (const uint64_t k : { 1, 2, 16, 1500 }) {
                const Shape s = shapes[below(random, 6)];
                const uint64_t n = s.rows * s.cols, block = below(random, 3) ? 1 + below(random, 40) : 600;
                const uint64_t units = units_of(QEM_AXIS_BLOCK, block, s), per_super = bits == 1 ? 1 : 1 + below(random, 5);
                if ((k > 100 || bits > 4) && n > 500) continue;
                const std::vector<float> x = values(random, pattern, n);
                std::vector<float> w = weights(random, n), levels = values(random, Pattern::normal, k);
                if (below(random, 3) == 0) std::fill(w.begin(), w.begin() + static_cast<long>(n / 2), 0.0f);
                std::vector<float> supers = values(random, pattern, (units - 1) / per_super + 1);
                for (float &value : supers) value = std::fabs(value);
                std::sort(levels.begin(), levels.end());
                both(label(pattern, s) + ", " + std::to_string(bits) + " bits, k " + std::to_string(k),
                     [&](const Primitives &p) -> std::vector<unsigned char> {
                         const Floats a(p, x), b(p, w);
                         std::vector<uint8_t> q(units), weighted(units), alone(units);
                         std::vector<double> error(units), weighted_error(units);
                         p.must(p->search_block_scales(p, a.get(), nullptr, s.rows, s.cols, block, bits, per_super,
                                                       supers.data(), levels.data(), k, q.data(), error.data()));
                         p.must(p->search_block_scales(p, a.get(), b.get(), s.rows, s.cols, block, bits, per_super,
                                                       supers.data(), levels.data(), k, weighted.data(),
                                                       weighted_error.data()));
                         p.must(p->search_block_scales(p, a.get(), b.get(), s.rows, s.cols, block, bits, per_super,
                                                       supers.data(), levels.data(), k, alone.data(), nullptr));
                         return Bytes().add(q).add(error).add(weighted).add(weighted_error).add(alone);
                     });
            }
}

TEST(CudaPrimitives, Outliers)
{
    Random random(6);
    for (const Pattern pattern : all_patterns)
        for (const Shape &s : { Shape{ 1, 1 }, Shape{ 7, 13 }, Shape{ 50, 96 }, Shape{ 3, 2100 } }) {
            const uint64_t n = s.rows * s.cols;
            const std::vector<float> x = values(random, pattern, n), mean = values(random, pattern, s.cols);
            std::vector<float> inverse = weights(random, s.cols);
            if (below(random, 2)) inverse[0] = INFINITY;
            for (const uint64_t count : { uint64_t(0), uint64_t(1), n / 50, n / 2, n + 5, UINT64_MAX })
                both(label(pattern, s) + ", " + std::to_string(count) + " wanted", [&](const Primitives &p) {
                    const Floats a(p, x);
                    std::vector<uint64_t> index(n + 1, 77);
                    uint64_t found, counted;
                    p.must(p->select_outliers(p, a.get(), s.rows, s.cols, mean.data(), inverse.data(), count, 0.25f,
                                              index.data(), &found));
                    p.must(p->select_outliers(p, a.get(), s.rows, s.cols, mean.data(), inverse.data(), count, 0.25f,
                                              nullptr, &counted));
                    index.push_back(found);
                    index.push_back(counted);
                    return index;
                });
        }
}

TEST(CudaPrimitives, ScatterGatherSubtract)
{
    Random random(7);
    for (const uint64_t n : { 1, 5, 1000, 4099 })
        for (const uint64_t count : { uint64_t(0), uint64_t(1), n / 3, n }) {
            const std::vector<float> x = values(random, Pattern::normal, n), y = values(random, Pattern::huge, n);
            std::vector<uint64_t> all(n);
            for (uint64_t i = 0; i < n; i++) all[i] = i;
            std::shuffle(all.begin(), all.end(), random);
            const std::vector<uint64_t> index(all.begin(), all.begin() + static_cast<long>(count));
            both(std::to_string(n) + " elements, " + std::to_string(count) + " of them", [&](const Primitives &p) {
                const Floats a(p, x), b(p, y);
                std::vector<float> value(count);
                p.must(p->gather(p, b.get(), index.data(), count, value.data()));
                p.must(p->scatter(p, a.get(), index.data(), value.data(), count));
                p.must(p->subtract(p, a.get() + n % 2, b.get(), n - n % 2));
                std::vector<float> result = a.read();
                result.insert(result.end(), value.begin(), value.end());
                return result;
            });
        }
}

} // namespace
