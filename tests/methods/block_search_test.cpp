// Scales of blocks: the primitive against a search in double, and the steps that come out of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "core/half.h"
#include "methods/standardize.h"
}

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(3));
    return one;
}

const qem_backend *backend()
{
    return &qem_cpu_backend;
}

// Something like a scalar codebook for unit variance; without the level 0 where k is even.
std::vector<float> levels_of(uint64_t k)
{
    std::vector<float> levels(k);
    for (uint64_t j = 0; j < k; j++) {
        const double t = (2.0 * static_cast<double>(j) + 1.0) / static_cast<double>(k) - 1.0;
        levels[j] = static_cast<float>(1.2 * t + 1.4 * t * t * t);
    }
    return levels;
}

double error_of(const Matrix &m, const std::vector<float> *weight, uint64_t block, uint64_t unit,
                const std::vector<float> &levels, double scale)
{
    const uint64_t of_row = (m.cols + block - 1) / block, row = unit / of_row, first = unit % of_row * block;
    double sum = 0.0;
    for (uint64_t j = first; j < std::min(m.cols, first + block); j++) {
        double least = INFINITY;
        for (float level : levels) least = std::min(least, std::fabs(m.at(row, j) - level * scale));
        sum += (weight ? static_cast<double>((*weight)[row * m.cols + j]) : 1.0) * least * least;
    }
    return sum;
}

TEST(SearchBlockScales, FindsTheLeastErrorOfAllIntegers)
{
    for (int kind : { 0, 1, 2, 5, 6, 7 })
        for (const auto &[rows, cols] : { std::pair<uint64_t, uint64_t>{ 1, 1 }, { 9, 37 }, { 40, 16 }, { 1, 1000 } })
            for (uint64_t block : { 2, 16, 300, 4000 })
                for (uint32_t bits : { 1, 4, 6, 8 })
                    for (uint64_t k : { 1, 2, 5, 16, 40 }) {
                        if (bits == 8 && k > 5) continue; // the reference is slow
                        const bool weighted = (k + bits) % 2;
                        const Matrix m = any_matrix(kind, rows, cols, 3);
                        const std::vector<float> levels = levels_of(k);
                        std::vector<float> weight = gaussian(rows, cols, 4).x;
                        for (float &w : weight) w = w < -1.0f ? 0.0f : w * w;
                        const uint64_t units = rows * ((cols + block - 1) / block), per_super = 3;
                        std::vector<float> supers(units / per_super + 1);
                        float largest = 0.0f;
                        for (float x : m.x) largest = std::max(largest, std::fabs(x));
                        for (size_t i = 0; i < supers.size(); i++) supers[i] = largest / static_cast<float>(1 + i % 3);
                        std::vector<uint8_t> q(units, 255);
                        std::vector<double> error(units, -1.0);
                        context().must(backend()->search_block_scales(context(), m.x.data(),
                                                                      weighted ? weight.data() : nullptr, rows,
                                                                      cols, block, bits, per_super, supers.data(), levels.data(), k,
                                                                      q.data(), error.data()));
                        SCOPED_TRACE(std::to_string(kind) + ": " + std::to_string(rows) + " x " + std::to_string(cols) +
                                     ", block " +
                                     std::to_string(block) + ", bits " + std::to_string(bits) + ", k " + std::to_string(k));
                        const std::vector<float> *w = weighted ? &weight : nullptr;
                        const float steps = static_cast<float>((1 << bits) - 1);
                        for (uint64_t u = 0; u < units; u++) {
                            const float step = supers[u / per_super] / steps;
                            double least = INFINITY;
                            for (int c = 0; c <= static_cast<int>(steps); c++)
                                least = std::min(least, error_of(m, w, block, u, levels, static_cast<float>(c) * step));
                            const double zero = error_of(m, w, block, u, levels, 0.0);
                            const double chosen = error_of(m, w, block, u, levels, static_cast<float>(q[u]) * step);
                            ASSERT_LE(chosen, least + 1e-5 * zero) << "block " << u << ", q " << int(q[u]);
                            if (zero > 1e-300) {
                                ASSERT_NEAR(error[u], chosen, 1e-5 * zero);
                            }
                        }
                    }
}

TEST(SearchBlockScales, ZerosAndZeroWeights)
{
    Matrix m(2, 32);
    const std::vector<float> levels = { -1.0f, 1.0f };
    for (uint64_t j = 16; j < 32; j++) m.at(0, j) = m.at(1, j) = j % 2 ? 0.5f : -0.5f;
    std::vector<float> weight(64, 1.0f), super = { 1.0f, 1.0f, 1.0f, 1.0f };
    std::fill(weight.begin() + 48, weight.end(), 0.0f);
    std::vector<uint8_t> q(4, 9);
    std::vector<double> error(4, -1.0);
    context().must(backend()->search_block_scales(context(), m.x.data(), weight.data(), 2, 32, 16, 4, 1, super.data(),
                                                  levels.data(), 2, q.data(), error.data()));
    EXPECT_EQ(q[0], 0);
    EXPECT_EQ(q[2], 0);
    EXPECT_NEAR(q[1] / 15.0, 0.5, 0.04);
    EXPECT_EQ(q[3], q[1]); // as if its weights were 1
    EXPECT_EQ(error[3], 0.0);
}

struct Found {
    std::vector<uint8_t> q;
    std::vector<double> error;
};

TEST(SearchBlockScales, IsTheSameForEveryNumberOfThreadsAndInstructionSet)
{
    const Matrix m = heavy_tails(60, 333, 2);
    for (uint64_t k : { 3, 16, 100 })
        for (uint64_t block : { 16, 333 }) {
            const std::vector<float> levels = levels_of(k), supers(60 * 21, 2.5f);
            const uint64_t units = 60 * ((333 + block - 1) / block);
            const auto run = [&](const Context &c) {
                Found f = { std::vector<uint8_t>(units), std::vector<double>(units) };
                c.must(backend()->search_block_scales(c, m.x.data(), nullptr, 60, 333, block, 6, 4, supers.data(),
                                                      levels.data(), k, f.q.data(), f.error.data()));
                return f;
            };
            const Found expected = run(Context(with_threads(1, QEM_ISA_SCALAR)));
            for (qem_isa isa : available_isas())
                for (uint32_t threads : { 1, 4 }) {
                    const Found f = run(Context(with_threads(threads, isa)));
                    EXPECT_EQ(f.q, expected.q);
                    EXPECT_EQ(f.error, expected.error);
                }
        }
}

struct Steps {
    Steps() = default;
    Steps(const Steps &) = delete;
    ~Steps() { qem_standardize_release(context(), step, &count); }
    qem_affine step[QEM_MOST_AFFINE] = {};
    uint32_t count = 0;
};

void begin_blocks(const Context &c, const Matrix &m, uint64_t block, uint32_t params, Steps *steps)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.standardize = QEM_STANDARDIZE_BLOCK;
    recipe.standardize_block = static_cast<uint32_t>(block);
    recipe.params = params;
    c.must(qem_standardize_begin(c, backend(), m.x.data(), m.rows, m.cols, &recipe, steps->step, &steps->count));
}

TEST(StandardizeSearch, NeverMakesAScaleWorse)
{
    for (int kind : { 0, 1, 2, 5, 8 })
        for (uint32_t params : { 4u, 6u, 8u, 16u, 32u })
            for (uint64_t block : { 2, 16, 300 })
                for (uint64_t k : { 2, 5, 16 }) {
                    Matrix m = any_matrix(kind, 37, 70, 5);
                    if (kind == 8)
                        for (float &x : m.x) x *= 0.01f; // within f16
                    SCOPED_TRACE(std::to_string(kind) + ": block " + std::to_string(block) + ", params " +
                                 std::to_string(params) +
                                 ", k " + std::to_string(k));
                    const std::vector<float> levels = levels_of(k);
                    Steps steps;
                    begin_blocks(context(), m, block, params, &steps);
                    qem_affine &a = steps.step[0];
                    const std::vector<float> start(a.scale, a.scale + a.units);
                    double total = -1.0;
                    context().must(qem_standardize_search(context(), backend(), m.x.data(), nullptr, m.rows, m.cols,
                                                          levels.data(), k, &a, &total));
                    qem_affine again = a; // what is stored is what is expanded
                    again.scale = nullptr;
                    context().must(qem_affine_expand(context(), &again));
                    EXPECT_EQ(std::memcmp(again.scale, a.scale, a.units * sizeof(float)), 0);
                    if (again.scale != again.scale_stored) qem_release(context(), again.scale);
                    const uint64_t together = params < 16 ? a.per_super : 1;
                    double sum = 0.0;
                    for (uint64_t first = 0; first < a.units; first += together) {
                        double before = 0.0, after = 0.0, zero = 0.0;
                        for (uint64_t u = first; u < std::min(a.units, first + together); u++) {
                            before += error_of(m, nullptr, block, u, levels, start[u]);
                            after += error_of(m, nullptr, block, u, levels, a.scale[u]);
                            zero += error_of(m, nullptr, block, u, levels, 0.0);
                        }
                        ASSERT_LE(after, before + 1e-5 * zero) << "from block " << first;
                        sum += after;
                    }
                    EXPECT_NEAR(total, sum, 1e-4 * sum + 1e-30);
                }
}

// A grid of few levels gains much by the search; integers of 6 bits come close to exact scales.
TEST(StandardizeSearch, GainsWhatItShould)
{
    const Matrix m = gaussian(200, 256, 3);
    const std::vector<float> levels = { -1.51f, -0.453f, 0.453f, 1.51f };
    double error[3];
    const uint32_t params[] = { 32, 16, 6 };
    for (int i = 0; i < 3; i++) {
        Steps steps;
        begin_blocks(context(), m, 16, params[i], &steps);
        double before = 0.0;
        for (uint64_t u = 0; u < steps.step[0].units; u++)
            before += error_of(m, nullptr, 16, u, levels, steps.step[0].scale[u]);
        context().must(qem_standardize_search(context(), backend(), m.x.data(), nullptr, m.rows, m.cols, levels.data(), 4,
                                              &steps.step[0], &error[i]));
        EXPECT_LT(error[i], 0.93 * before) << "params " << params[i];
    }
    EXPECT_LT(error[1], 1.001 * error[0]);
    EXPECT_LT(error[2], 1.02 * error[0]);
}

TEST(StandardizeSearch, FollowsTheWeights)
{
    Matrix m = gaussian(50, 64, 3);
    std::vector<float> weight(m.x.size());
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++) {
            weight[i * m.cols + j] = j % 16 == 5 ? 100.0f : 1.0f;
            if (j % 16 == 5) m.at(i, j) *= 0.1f;
        }
    const std::vector<float> levels = levels_of(4);
    double plain = 0.0, weighted = 0.0;
    Steps a, b;
    begin_blocks(context(), m, 16, 6, &a);
    begin_blocks(context(), m, 16, 6, &b);
    context().must(qem_standardize_search(context(), backend(), m.x.data(), nullptr, 50, 64, levels.data(), 4, a.step,
                                          nullptr));
    context().must(qem_standardize_search(context(), backend(), m.x.data(), weight.data(), 50, 64, levels.data(), 4, b.step,
                                          nullptr));
    for (uint64_t u = 0; u < a.step[0].units; u++) {
        plain += error_of(m, &weight, 16, u, levels, a.step[0].scale[u]);
        weighted += error_of(m, &weight, 16, u, levels, b.step[0].scale[u]);
    }
    EXPECT_LT(weighted, 0.9 * plain);
}

TEST(StandardizeSearch, LargestScalesOfF16DoNotOverflow)
{
    Matrix m = gaussian(4, 64, 3, 6e4);
    for (uint32_t params : { 16u, 6u }) {
        for (float &x : m.x) x = x < 0 ? -65000.0f : 65000.0f;
        Steps steps;
        begin_blocks(context(), m, 16, params, &steps);
        const std::vector<float> levels = { -0.4f, 0.4f };
        context().must(qem_standardize_search(context(), backend(), m.x.data(), nullptr, 4, 64, levels.data(), 2,
                                              steps.step, nullptr));
        for (uint64_t u = 0; u < steps.step[0].units; u++) {
            EXPECT_LE(steps.step[0].scale[u], 65505.0f);
            EXPECT_GE(steps.step[0].scale[u], 64900.0f);
        }
    }
}

TEST(StandardizeSearch, LeavesNothingWhereMemoryEnds)
{
    int left = 1000;
    Options options;
    options.allocator.user = &left;
    options.allocator.allocate = [](void *user, size_t bytes) -> void * {
        return (*static_cast<int *>(user))-- > 0 ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    };
    options.allocator.release = [](void *, void *pointer) { std::free(pointer); };
    const Context limited(options);
    const Matrix m = gaussian(10, 64, 2);
    const std::vector<float> levels = levels_of(4);
    for (uint32_t params : { 6u, 16u, 32u }) {
        qem_status status = QEM_ERR_MEMORY;
        for (int allowed = 0; status != QEM_OK; allowed++) {
            ASSERT_LT(allowed, 100);
            left = 1000;
            qem_recipe recipe = QEM_RECIPE_INIT;
            recipe.standardize = QEM_STANDARDIZE_BLOCK;
            recipe.standardize_block = 16;
            recipe.params = params;
            qem_affine steps[QEM_MOST_AFFINE];
            uint32_t count;
            limited.must(qem_standardize_begin(limited, backend(), m.x.data(), 10, 64, &recipe, steps, &count));
            left = allowed;
            status = qem_standardize_search(limited, backend(), m.x.data(), nullptr, 10, 64, levels.data(), 4, steps,
                                            nullptr);
            if (status != QEM_OK) {
                ASSERT_EQ(status, QEM_ERR_MEMORY);
            }
            qem_standardize_release(limited, steps, &count);
        }
    }
}

} // namespace
