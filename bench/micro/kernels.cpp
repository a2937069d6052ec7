// Every kernel of src/cpu/kernels.h for each instruction set of this CPU, on the cases of its tests.
// Names: kernel/case/instruction set, for example nearest/dim4/k256/avx512. Items are what the kernel goes through: pairs
// of point and centroid for the searches, points for seeding, codes, or elements.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <string>

#include "support/kernel_problems.h"

using namespace qem_test;

namespace {

using Body = std::function<void(benchmark::State &, const qem_cpu_kernels *)>;

enum class Needs { nothing, tiles };

void add(const std::string &name, const Body &body, Needs needs = Needs::nothing)
{
    for (qem_isa isa : { QEM_ISA_SCALAR, QEM_ISA_AVX2, QEM_ISA_AVX512 }) {
        if (!qem_isa_available(isa)) continue;
        const qem_cpu_kernels *kernels = qem_cpu_kernels_for(isa);
        if (needs == Needs::tiles && kernels->lanes == 0) continue;
        benchmark::RegisterBenchmark((name + "/" + qem_isa_name(isa)).c_str(),
                                     [body, kernels](benchmark::State &state) { body(state, kernels); });
    }
}

std::string part(const char *name, size_t value)
{
    return "/" + std::string(name) + std::to_string(value);
}

// Runs `work` for each iteration; each goes through `items`.
template <typename Work> void measure(benchmark::State &state, size_t items, Work work)
{
    for (auto _ : state) {
        work();
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(items));
}

std::vector<float> floats(size_t n, Pattern pattern = Pattern::normal)
{
    Random random(1);
    std::vector<float> x(n);
    fill(random, pattern, x.data(), n);
    return x;
}

std::vector<uint32_t> codes_below(size_t n, size_t k)
{
    Random random(2);
    std::vector<uint32_t> codes(n);
    for (uint32_t &code : codes) code = static_cast<uint32_t>(below(random, k));
    return codes;
}

// ---- k-means ----

void nearest(benchmark::State &state, const qem_cpu_kernels *kernels, const NearestCase &shape)
{
    Random random(1);
    const NearestProblem problem(random, shape, Pattern::normal, Pattern::normal);
    Aligned<uint32_t> labels(shape.points);
    measure(state, shape.points * shape.count, [&] {
        kernels->nearest(problem.x.data(), problem.ld, shape.points, shape.dim, problem.c.data(), problem.h.data(),
                         problem.ldc, shape.count, labels.data());
    });
}

void seed_step(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim, size_t points)
{
    Random random(1);
    Aligned<float> x(points * dim), d2(points, INFINITY), center(dim, 0.25f);
    Aligned<uint32_t> labels(points);
    fill(random, Pattern::normal, x.data(), x.size());
    measure(state, points, [&] {
        benchmark::DoNotOptimize(
            kernels->seed_step(x.data(), points, points, dim, center.data(), 1, d2.data(), labels.data()));
    });
}

void own_distance(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim, size_t points)
{
    constexpr size_t centroids = 96;
    Random random(1);
    Aligned<float> x(points * dim), c(centroids * dim), d2(points);
    const std::vector<uint32_t> labels = codes_below(points, centroids);
    fill(random, Pattern::normal, x.data(), x.size());
    fill(random, Pattern::normal, c.data(), c.size());
    measure(state, points, [&] {
        kernels->own_distance(x.data(), points, points, dim, c.data(), centroids, labels.data(), d2.data());
    });
}

void fixed_sum(benchmark::State &state, const qem_cpu_kernels *kernels, size_t points)
{
    const Aligned<float> d2(points, 1.5f);
    measure(state, points, [&] { benchmark::DoNotOptimize(kernels->fixed_sum(d2.data(), points, 0x1p40)); });
}

void half_norms(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim)
{
    constexpr size_t count = 1024;
    Random random(1);
    Aligned<float> c(count * dim), h(count);
    fill(random, Pattern::normal, c.data(), c.size());
    measure(state, count, [&] { kernels->half_norms(c.data(), count, count, dim, h.data()); });
}

// Points a row of 4096 floats apart, as those of a column group are.
void gather_points(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim, size_t points)
{
    const size_t stride = 4096;
    const std::vector<float> x(points * stride, 1.0f);
    std::vector<uint32_t> ids(points);
    Aligned<float> out(points * dim);
    for (size_t i = 0; i < points; i++) ids[i] = static_cast<uint32_t>(i);
    measure(state, points, [&] { kernels->gather_points(x.data(), ids.data(), points, stride, dim, out.data(), points); });
}

void scale_points(benchmark::State &state, const qem_cpu_kernels *kernels, size_t points)
{
    Aligned<float> x(points, 1.5f);
    measure(state, points, [&] { kernels->scale_points(x.data(), points, 0.25, 1.0); });
}

void sum_points(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim, size_t points)
{
    constexpr size_t centroids = 96;
    const std::vector<uint32_t> labels = codes_below(points, centroids);
    const Aligned<float> x(points * dim, 1.5f);
    std::vector<int64_t> sums(centroids * dim);
    measure(state, points, [&] {
        kernels->sum_points(x.data(), points, points, dim, labels.data(), 1.0, sums.data(), dim);
    });
}

constexpr size_t pruned_points = 1500;

// One node of the k-d order.
void kd_split(benchmark::State &state, const qem_cpu_kernels *kernels, Pattern pattern, uint32_t dim)
{
    const size_t n = pruned_points;
    Random random(1);
    Aligned<float> x(n * dim);
    Aligned<uint32_t> index(n), scratch(qem_kd_scratch_words(n));
    fill(random, pattern, x.data(), x.size());
    for (size_t i = 0; i < n; i++) index[i] = static_cast<uint32_t>(i);
    measure(state, n, [&] { kernels->kd_split(x.data(), n, dim, index.data(), n, 1024, scratch.data()); });
}

// A centroid near each tile, from nothing.
void near_tiles(benchmark::State &state, const qem_cpu_kernels *kernels, Pattern pattern, uint32_t dim, size_t count)
{
    Random random(1);
    const Points points(kernels, random, pattern, pruned_points, dim);
    const Centroids centroids(kernels, random, points, count);
    const size_t tiles = (points.count + kernels->lanes - 1) / kernels->lanes;
    Aligned<uint32_t> previous(points.padded);
    measure(state, points.count, [&] { kernels->near_tiles(&centroids.tree, &points.tiles, dim, tiles, previous.data()); });
}

// A centre that takes no point away: the cost of looking at the boxes, which almost every step of a long seeding is.
void seed_tiles(benchmark::State &state, const qem_cpu_kernels *kernels, Pattern pattern, uint32_t dim)
{
    Random random(1);
    Points points(kernels, random, pattern, pruned_points, dim);
    Aligned<float> d2(points.padded);
    Aligned<uint32_t> labels(points.padded);
    std::vector<int64_t> blocks(points.padded / QEM_SEED_BLOCK + 1), runs(blocks.size() / QEM_SEED_RUN + 1);
    qem_seed_sums sums = { blocks.data(), runs.data(), 0, 0x1p40 };
    std::vector<float> center(dim);
    for (size_t i = 0; i < points.count; i++) d2[i] = 0x1p-10f;
    for (uint32_t p = 0; p < dim; p++) center[p] = points.x[p * points.padded];
    for (float &most : points.most) most = 0x1p-10f;
    for (float &most : points.super_most) most = 0x1p-10f;
    measure(state, points.count, [&] {
        benchmark::DoNotOptimize(kernels->seed_tiles(&points.tiles, points.x.data(), points.padded, dim, center.data(), 1,
                                                     d2.data(), labels.data(), points.order.data(), &sums));
    });
}

void nearest_tiles(benchmark::State &state, const qem_cpu_kernels *kernels, Pattern pattern, uint32_t dim, size_t count)
{
    Random random(1);
    const Points points(kernels, random, pattern, pruned_points, dim);
    const Centroids centroids(kernels, random, points, count);
    const size_t tiles = (points.count + kernels->lanes - 1) / kernels->lanes;
    Aligned<uint32_t> previous(points.padded), labels(points.padded), candidates(qem_candidate_words(&centroids.tree, kernels->lanes));
    auto search = [&](const Aligned<uint32_t> &from, Aligned<uint32_t> &to) {
        kernels->nearest_tiles(&centroids.tree, &points.tiles, points.x.data(), points.padded, dim, centroids.c.data(),
                               centroids.ldc, from.data(), to.data(), 0, tiles, 1, candidates.data());
    };
    search(previous, labels);
    previous = labels;
    measure(state, points.count * count, [&] { search(previous, labels); });
}

void add_kmeans()
{
    for (const NearestCase &shape : nearest_cases)
        add("nearest" + part("dim", shape.dim) + part("k", shape.count),
            [shape](benchmark::State &state, const qem_cpu_kernels *kernels) { nearest(state, kernels, shape); });
    for (uint32_t dim : seed_dims) {
        const size_t points = *std::max_element(std::begin(seed_sizes), std::end(seed_sizes));
        add("seed_step" + part("dim", dim), [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
            seed_step(state, kernels, dim, points);
        });
        add("own_distance" + part("dim", dim), [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
            own_distance(state, kernels, dim, points);
        });
        add("half_norms" + part("dim", dim),
            [=](benchmark::State &state, const qem_cpu_kernels *kernels) { half_norms(state, kernels, dim); });
        add("gather_points" + part("dim", dim), [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
            gather_points(state, kernels, dim, points);
        });
        add("sum_points" + part("dim", dim), [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
            sum_points(state, kernels, dim, points);
        });
    }
    for (size_t points : seed_sizes)
        add("fixed_sum" + part("n", points),
            [=](benchmark::State &state, const qem_cpu_kernels *kernels) { fixed_sum(state, kernels, points); });
    for (size_t points : seed_sizes)
        add("scale_points" + part("n", points),
            [=](benchmark::State &state, const qem_cpu_kernels *kernels) { scale_points(state, kernels, points); });
    for (Pattern pattern : all_patterns)
        for (uint32_t dim = 1; dim <= QEM_MOST_PRUNED_DIM; dim++) {
            const std::string shape = "/" + std::string(name_of(pattern)) + part("dim", dim);
            add("seed_tiles" + shape, [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
                seed_tiles(state, kernels, pattern, dim);
            }, Needs::tiles);
            add("kd_split" + shape, [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
                kd_split(state, kernels, pattern, dim);
            }, Needs::tiles);
            for (size_t count : pruned_counts) {
                add("near_tiles" + shape + part("k", count),
                    [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
                        near_tiles(state, kernels, pattern, dim, count);
                    },
                    Needs::tiles);
                add("nearest_tiles" + shape + part("k", count),
                    [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
                        nearest_tiles(state, kernels, pattern, dim, count);
                    },
                    Needs::tiles);
            }
        }
}

// ---- codes ----

void scalar_codes(benchmark::State &state, const qem_cpu_kernels *kernels, size_t count)
{
    constexpr size_t n = 4096;
    const std::vector<float> x = floats(n);
    std::vector<float> thresholds = floats(count);
    std::vector<uint32_t> codes(n);
    std::sort(thresholds.begin(), thresholds.end());
    measure(state, n, [&] { kernels->scalar_codes(x.data(), n, thresholds.data(), count, codes.data()); });
}

void unpack(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t bits)
{
    constexpr size_t n = 4096;
    Random random(1);
    std::vector<uint8_t> stream((n * bits + 7) / 8 + 16);
    std::vector<uint32_t> codes(n);
    for (uint8_t &byte : stream) byte = static_cast<uint8_t>(random());
    measure(state, n, [&] { kernels->unpack(stream.data(), 0, n, bits, codes.data()); });
}

// A few rows of codes of 6 bits, to memory that stays in the caches.
void decode_tile(benchmark::State &state, const qem_cpu_kernels *kernels, uint32_t dim, bool shared, bool half)
{
    const size_t groups = *std::max_element(std::begin(lookup_sizes), std::end(lookup_sizes)), k = 40, rows = 8;
    const std::vector<float> codebook = floats((shared ? 1 : groups) * k * dim);
    std::vector<uint16_t> halves(codebook.size());
    std::vector<uint32_t> codes = codes_below(rows * groups, k);
    std::vector<uint8_t> stream((codes.size() * 6 + 7) / 8 + 16);
    Aligned<float> out(rows * groups * dim);
    for (size_t i = 0; i < codes.size(); i++)
        for (size_t b = 0; b < 6; b++)
            stream[(i * 6 + b) / 8] = static_cast<uint8_t>(stream[(i * 6 + b) / 8] | (codes[i] >> b & 1) << (i * 6 + b) % 8);
    kernels->f32_to_f16(codebook.data(), codebook.size(), halves.data());
    qem_code_tile tile = {};
    tile.stream = stream.data();
    tile.bits = 6;
    tile.row_bits = groups * tile.bits;
    tile.dim = dim;
    tile.codebook = half ? nullptr : codebook.data();
    tile.half = half ? halves.data() : nullptr;
    tile.k = k;
    tile.group_stride = shared ? 0 : k * dim;
    tile.rows = rows;
    tile.groups = groups;
    tile.out = out.data();
    tile.row_stride = groups * dim;
    measure(state, rows * groups, [&] { kernels->decode_tile(&tile); });
}

void add_codes()
{
    for (size_t count : threshold_counts)
        add("scalar_codes" + part("thresholds", count),
            [=](benchmark::State &state, const qem_cpu_kernels *kernels) { scalar_codes(state, kernels, count); });
    for (uint32_t bits = 1; bits <= most_code_bits; bits++)
        add("unpack" + part("bits", bits),
            [=](benchmark::State &state, const qem_cpu_kernels *kernels) { unpack(state, kernels, bits); });
    for (uint32_t dim : lookup_dims)
        for (bool shared : { true, false })
            for (bool half : { false, true })
                add("decode_tile" + part("dim", dim) + (shared ? "/shared" : "/groups") + (half ? "/f16" : "/f32"),
                    [=](benchmark::State &state, const qem_cpu_kernels *kernels) {
                        decode_tile(state, kernels, dim, shared, half);
                    });
}

// ---- elements one by one ----

using Narrow = int (*qem_cpu_kernels::*)(const float *, size_t, uint16_t *);
using Widen = void (*qem_cpu_kernels::*)(const uint16_t *, size_t, float *);

void add_convert(size_t n)
{
    for (auto [name, kernel] : { std::pair<const char *, Narrow>("f32_to_f16", &qem_cpu_kernels::f32_to_f16),
                                 std::pair<const char *, Narrow>("f32_to_bf16", &qem_cpu_kernels::f32_to_bf16) })
        add(name + part("n", n), [n, kernel = kernel](benchmark::State &state, const qem_cpu_kernels *kernels) {
            const std::vector<float> x = floats(n);
            std::vector<uint16_t> out(n);
            measure(state, n, [&] { benchmark::DoNotOptimize((kernels->*kernel)(x.data(), n, out.data())); });
        });
    for (auto [name, kernel] : { std::pair<const char *, Widen>("f16_to_f32", &qem_cpu_kernels::f16_to_f32),
                                 std::pair<const char *, Widen>("bf16_to_f32", &qem_cpu_kernels::bf16_to_f32) })
        add(name + part("n", n), [n, kernel = kernel](benchmark::State &state, const qem_cpu_kernels *kernels) {
            const std::vector<uint16_t> x(n, 0x3c01);
            std::vector<float> out(n);
            measure(state, n, [&] { (kernels->*kernel)(x.data(), n, out.data()); });
        });
    add("add" + part("n", n), [n](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x(n, 0.0f);
        std::vector<float> y = floats(n);
        measure(state, n, [&] { kernels->add(x.data(), n, y.data()); });
    });
}

void add_swap(size_t pairs)
{
    add("pair_split" + part("n", pairs), [pairs](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x = floats(2 * pairs);
        std::vector<float> small(pairs), large(pairs);
        std::vector<uint64_t> bits((pairs + 63) / 64);
        measure(state, 2 * pairs, [&] { kernels->pair_split(x.data(), pairs, small.data(), large.data(), bits.data()); });
    });
    add("pair_merge" + part("n", pairs), [pairs](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> small = floats(pairs), large = floats(pairs);
        const std::vector<uint64_t> bits((pairs + 63) / 64, 0x5a5a5a5a5a5a5a5au);
        std::vector<float> x(2 * pairs);
        measure(state, 2 * pairs, [&] { kernels->pair_merge(small.data(), large.data(), bits.data(), pairs, x.data()); });
    });
}

void add_metrics(size_t n)
{
    add("find_nonfinite" + part("n", n), [n](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x = floats(n);
        measure(state, n, [&] { benchmark::DoNotOptimize(kernels->find_nonfinite(x.data(), n)); });
    });
    add("extremes" + part("n", n), [n](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x = floats(n);
        float least, most;
        measure(state, n, [&] { kernels->extremes(x.data(), n, &least, &most); });
    });
    add("error_chunk" + part("n", n), [n](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x = floats(n), y = floats(n, Pattern::few);
        double sums[3], most;
        uint64_t zeros;
        measure(state, n, [&] { kernels->error_chunk(x.data(), y.data(), n, sums, &most, &zeros); });
    });
    add("sum_chunk" + part("n", n), [n](benchmark::State &state, const qem_cpu_kernels *kernels) {
        const std::vector<float> x = floats(n);
        double sum, squared;
        measure(state, n, [&] { kernels->sum_chunk(x.data(), n, 0.1, &sum, &squared); });
    });
}

const bool added = [] {
    add_kmeans();
    add_codes();
    for (size_t n : convert_sizes) add_convert(n);
    for (size_t pairs : swap_sizes) add_swap(pairs);
    for (size_t n : metrics_sizes) add_metrics(n);
    return true;
}();

} // namespace
