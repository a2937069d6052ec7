// Cells, distinct sub-vectors and values, swaps, rotations, products and packed codes.
#include <algorithm>

#include "cuda/primitives.h"
#include "core/artifact.h"

using namespace qem_test;

namespace {

struct Cut {
    uint64_t rows, cols;
    uint32_t dim;
};
constexpr Cut cuts_of_matrices[] = { { 1, 1, 1 },   { 40, 8, 4 },  { 9, 10, 4 },   { 5, 3, 7 },
                                     { 100, 7, 3 }, { 3, 64, 64 }, { 20, 40, 17 }, { 500, 6, 2 } };

std::string label(Pattern pattern, const Cut &c)
{
    return std::string(name_of(pattern)) + ", " + std::to_string(c.rows) + " x " + std::to_string(c.cols) + ", dim " +
           std::to_string(c.dim);
}

TEST(CudaPrimitives, QuantilesAndCells)
{
    Random random(1);
    for (const Pattern pattern : all_patterns)
        for (const Cut &c : cuts_of_matrices) {
            const uint32_t intervals = static_cast<uint32_t>(1 + below(random, c.dim < 4 ? 12 : 4));
            const std::vector<float> x = values(random, pattern, c.rows * c.cols);
            both(label(pattern, c) + ", " + std::to_string(intervals) + " intervals",
                 [&](const Primitives &p) -> std::vector<unsigned char> {
                     const Floats a(p, x);
                     const qem_subvectors v = qem_cut(a.get(), c.rows, c.cols, c.dim);
                     const DeviceArray<uint32_t> ids(p, v.rows * v.groups);
                     std::vector<float> cuts(c.dim * (intervals - 1));
                     p.must(p->quantiles(p, v, intervals, cuts.data()));
                     p.must(p->cell_ids(p, v, intervals, cuts.data(), ids.get()));
                     return Bytes().add(cuts).add(ids.read());
                 });
        }
}

// More bins to look into than there are slots.
TEST(CudaPrimitives, ManyQuantiles)
{
    Random random(2);
    const std::vector<float> x = values(random, Pattern::normal, 3000);
    both("256 intervals", [&](const Primitives &p) {
        const Floats a(p, x);
        std::vector<float> cuts(2 * 255);
        p.must(p->quantiles(p, qem_cut(a.get(), 1500, 2, 2), 256, cuts.data()));
        return cuts;
    });
}

TEST(CudaPrimitives, GroupByKey)
{
    Random random(3);
    for (const uint64_t count : { 1, 31, 512, 1024, 3000, 5000 })
        for (const uint64_t key_count : { uint64_t(1), uint64_t(2), uint64_t(100), uint64_t(5000) }) {
            std::vector<uint32_t> keys(count);
            for (uint32_t &key : keys)
                key = static_cast<uint32_t>(below(random, 3) ? below(random, key_count) : key_count / 2);
            both(std::to_string(count) + " elements, " + std::to_string(key_count) + " keys",
                 [&](const Primitives &p) -> std::vector<unsigned char> {
                     const DeviceArray<uint32_t> on_device(p, keys), order(p, count);
                     std::vector<uint64_t> offsets(key_count + 1);
                     p.must(p->group_by_key(p, on_device.get(), count, key_count, order.get(), offsets.data()));
                     return Bytes().add(offsets).add(order.read());
                 });
        }
}

TEST(CudaPrimitives, CountDistinct)
{
    Random random(4);
    for (const Pattern pattern : all_patterns)
        for (const Cut &c : cuts_of_matrices)
            for (const uint64_t k : { uint64_t(1), uint64_t(3), uint64_t(50), uint64_t(100000) }) {
                const std::vector<float> x = values(random, pattern, c.rows * c.cols);
                const uint64_t groups = (c.cols + c.dim - 1) / c.dim, all = c.rows * groups;
                std::vector<uint32_t> some;
                for (uint64_t id = 0; id < all; id++)
                    if (below(random, 2)) some.push_back(static_cast<uint32_t>(id));
                both(label(pattern, c) + ", k " + std::to_string(k), [&](const Primitives &p) {
                    const Floats a(p, x);
                    const DeviceArray<uint32_t> ids(p, some);
                    std::vector<qem_problem> problems(groups + 2);
                    for (uint64_t g = 0; g < groups + 2; g++) {
                        problems[g].k = k;
                        problems[g].first = g < groups ? g : 0;
                        problems[g].step = g < groups ? groups : 1;
                        problems[g].count = g < groups ? c.rows : all;
                    }
                    problems.back().ids = ids.get();
                    problems.back().count = some.size();
                    std::vector<uint64_t> distinct(problems.size());
                    p.must(p->count_distinct(p, qem_cut(a.get(), c.rows, c.cols, c.dim), problems.data(), problems.size(),
                                             distinct.data()));
                    return distinct;
                });
            }
}

TEST(CudaPrimitives, DistinctValues)
{
    Random random(5);
    for (const Pattern pattern : all_patterns)
        for (const uint64_t limit : { 1, 3, 41, 300, 5000 }) {
            const std::vector<float> x = values(random, pattern, 1501);
            both(std::string(name_of(pattern)) + ", at most " + std::to_string(limit),
                 [&](const Primitives &p) -> std::vector<unsigned char> {
                     const Floats a(p, x);
                     std::vector<float> found(limit);
                     std::vector<uint64_t> counts(limit);
                     uint64_t count;
                     p.must(p->distinct_values(p, a.get(), x.size(), limit, found.data(), counts.data(), &count));
                     if (count > limit) return Bytes().add(count);
                     return Bytes().add(count).add(found).add(counts);
                 });
        }
}

// ---- swaps ----

void check_swaps(Random &random, Pattern pattern, uint64_t rows, uint64_t cols, uint32_t levels)
{
    const std::vector<float> x = values(random, pattern, rows * cols), y = values(random, Pattern::normal, rows * cols);
    const uint64_t bytes = qem_swap_map_bytes(rows, cols, levels);
    both(std::string(name_of(pattern)) + ", " + std::to_string(rows) + " x " + std::to_string(cols) + ", " +
             std::to_string(levels) + " levels",
         [&](const Primitives &p) -> std::vector<unsigned char> {
             const Floats a(p, x), b(p, y), ordered(p, x.size()), restored(p, x.size()), other(p, x.size());
             const DeviceArray<uint8_t> map(p, bytes);
             p.must(p->swap_forward(p, a.get(), rows, cols, levels, ordered.get(), map.get()));
             p.must(p->swap_inverse(p, ordered.get(), map.get(), rows, cols, levels, restored.get()));
             p.must(p->swap_by_map(p, b.get(), map.get(), rows, cols, levels, other.get()));
             const std::vector<float> in_order = ordered.read();
             p.must(p->swap_inverse(p, ordered.get(), map.get(), rows, cols, levels, ordered.get()));
             const std::vector<float> back = restored.read(), in_place = ordered.read();
             EXPECT_EQ(std::memcmp(back.data(), x.data(), x.size() * sizeof(float)), 0);
             EXPECT_EQ(std::memcmp(in_place.data(), x.data(), x.size() * sizeof(float)), 0);
             return Bytes().add(in_order).add(map.read()).add(other.read());
         });
}

TEST(CudaPrimitives, Swaps)
{
    Random random(6);
    for (const Pattern pattern : { Pattern::normal, Pattern::few, Pattern::zeros, Pattern::equal })
        for (const uint32_t levels : { 1u, 2u, 3u, 5u, 8u })
            for (const uint64_t cols : { 1, 2, 3, 7, 64, 65, 130, 259 })
                check_swaps(random, pattern, 1 + below(random, cols < 100 ? 12 : 3), cols, levels);
}

// Rows that shared memory does not hold.
TEST(CudaPrimitives, SwapsOfLongRows)
{
    Random random(7);
    for (const uint32_t levels : { 1u, 2u, 3u }) check_swaps(random, Pattern::normal, 2, 8193 + levels, levels);
}

// ---- products ----

TEST(CudaPrimitives, Rotate)
{
    Random random(8);
    for (const Pattern pattern : { Pattern::normal, Pattern::zeros, Pattern::denormal, Pattern::integers })
        for (const uint64_t cols : { 1, 5, 16, 33, 64, 70 }) {
            const uint64_t rows = 1 + below(random, 90);
            const std::vector<float> x = values(random, pattern, rows * cols),
                                     rotation = values(random, Pattern::normal, cols * cols);
            const std::vector<float> before = values(random, pattern, cols), after = values(random, pattern, cols);
            both(std::string(name_of(pattern)) + ", " + std::to_string(cols),
                 [&](const Primitives &p) -> std::vector<unsigned char> {
                     const Floats a(p, x), r(p, rotation), b(p, before), c(p, after), plain(p, x.size()),
                         shifted(p, x.size());
                     p.must(p->rotate(p, a.get(), rows, cols, r.get(), nullptr, nullptr, plain.get()));
                     p.must(p->rotate(p, a.get(), rows, cols, r.get(), b.get(), c.get(), shifted.get()));
                     return Bytes().add(plain.read()).add(shifted.read());
                 });
        }
}

TEST(CudaPrimitives, CrossProduct)
{
    Random random(9);
    struct Size {
        uint64_t rows, a, b;
    };
    for (const Size &s :
         { Size{ 1, 1, 1 }, Size{ 17, 33, 1 }, Size{ 300, 5, 40 }, Size{ 8200, 3, 2 }, Size{ 40, 130, 7 } }) {
        const std::vector<float> x = values(random, Pattern::normal, s.rows * s.a),
                                 y = values(random, Pattern::outlier, s.rows * s.b);
        both(std::to_string(s.rows) + " rows", [&](const Primitives &p) {
            const Floats a(p, x), b(p, y);
            std::vector<double> product(s.a * s.b);
            p.must(p->cross_product(p, a.get(), b.get(), s.rows, s.a, s.b, product.data()));
            return product;
        });
    }
}

TEST(CudaPrimitives, Pack)
{
    Random random(10);
    for (uint32_t bits = 0; bits <= 24; bits++)
        for (const uint64_t count : { 0, 1, 7, 33, 1001 }) {
            std::vector<uint32_t> labels(count);
            for (uint32_t &label : labels) label = static_cast<uint32_t>(random()) & ((1u << bits) - 1u);
            both(std::to_string(count) + " codes of " + std::to_string(bits) + " bits", [&](const Primitives &p) {
                const DeviceArray<uint32_t> a(p, labels);
                const DeviceArray<uint8_t> stream(p, (count * bits + 7) / 8);
                p.must(p->pack(p, a.get(), count, bits, stream.get()));
                return stream.read();
            });
        }
}

} // namespace
