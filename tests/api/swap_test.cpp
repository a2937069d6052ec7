// QET's pair swap against its definition.
#include <gtest/gtest.h>

#include "support/reference.h"

using namespace qem_test;

namespace {

constexpr uint64_t kWidths[] = { 1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 64, 100, 127, 128, 257 };

Matrix matrix_for(int kind, uint64_t rows, uint64_t cols)
{
    Matrix m = any_matrix(kind, rows, cols, cols);
    if (kind == 2) // ties between -0 and +0 as well
        for (size_t i = 0; i < m.x.size(); i += 3) m.x[i] = i % 2 ? -0.0f : 0.0f;
    return m;
}

// Equality of bits: -0 and +0 differ.
bool same_bits(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(Swap, ForwardAndMapAreTheDefinition)
{
    for (qem_isa isa : available_isas())
        for (uint32_t threads : thread_counts({ 1, 3 })) {
            const Context context(with_threads(threads, isa));
            for (uint32_t levels = 1; levels <= 8; levels++)
                for (uint64_t cols : kWidths)
                    for (uint64_t rows : { 1, 5, 33 })
                        for (int kind : { 0, 2 }) {
                            const Matrix m = matrix_for(kind, rows, cols);
                            const Swapped expected = swap_reference(m, levels);
                            const uint64_t bytes = qem_swap_map_bytes(rows, cols, levels);
                            ASSERT_EQ(bytes, (expected.bits.size() + 7) / 8);
                            std::vector<float> ordered(m.x.size() + 1, 9.0f);
                            std::vector<uint8_t> map(bytes + 1, 0xaa);
                            const qem_view view = m.view();
                            context.must(qem_swap_forward(context, &view, levels, ordered.data(), map.data()));
                            ASSERT_EQ(ordered.back(), 9.0f);
                            ASSERT_EQ(map.back(), 0xaa);
                            ordered.pop_back();
                            map.pop_back();
                            ASSERT_EQ(map, bits_to_bytes(expected.bits))
                                << rows << " x " << cols << ", levels " << levels;
                            ASSERT_TRUE(same_bits(ordered, expected.ordered.x))
                                << rows << " x " << cols << ", levels " << levels;
                        }
        }
}

TEST(Swap, InverseIsTheIdentity)
{
    for (qem_isa isa : available_isas()) {
        const Context context(with_threads(2, isa));
        for (uint32_t levels = 1; levels <= 8; levels++)
            for (uint64_t cols : kWidths)
                for (int kind = 0; kind < kKinds; kind++) {
                    const Matrix m = matrix_for(kind, 11, cols);
                    std::vector<float> ordered(m.x.size()), restored(m.x.size());
                    std::vector<uint8_t> map(qem_swap_map_bytes(m.rows, cols, levels) + 1);
                    const qem_view view = m.view();
                    context.must(qem_swap_forward(context, &view, levels, ordered.data(), map.data()));
                    context.must(
                        qem_swap_inverse(context, ordered.data(), map.data(), m.rows, cols, levels, restored.data()));
                    ASSERT_TRUE(same_bits(restored, m.x)) << cols << " columns, levels " << levels << ", kind " << kind;
                    context.must(
                        qem_swap_inverse(context, ordered.data(), map.data(), m.rows, cols, levels, ordered.data()));
                    ASSERT_TRUE(same_bits(ordered, m.x)) << "in place";
                }
    }
}

TEST(Swap, ByHand)
{
    const Context context;
    Matrix m(2, 5);
    m.x = { 1, 2, 4, 3, 9, /**/ 5, 5, -0.0f, 0.0f, 8 };
    std::vector<float> ordered(10);
    uint8_t map = 0;
    const qem_view view = m.view();
    ASSERT_EQ(qem_swap_map_bytes(2, 5, 1), 1u);
    context.must(qem_swap_forward(context, &view, 1, ordered.data(), &map));
    // S = smaller of each pair and the odd column, L = the larger; a tie has bit 0 and S = right
    EXPECT_EQ(ordered, std::vector<float>({ 1, 3, 9, 2, 4, /**/ 5, 0, 8, 5, -0.0f }));
    EXPECT_FALSE(std::signbit(ordered[6]));
    EXPECT_TRUE(std::signbit(ordered[9]));
    EXPECT_EQ(map, 1);
}

TEST(Swap, MapBytes)
{
    EXPECT_EQ(qem_swap_map_bytes(100, 64, 0), 0u);
    EXPECT_EQ(qem_swap_map_bytes(100, 64, 1), 400u); // half a bit an element
    EXPECT_EQ(qem_swap_map_bytes(100, 64, 2), 800u);
    EXPECT_EQ(qem_swap_map_bytes(3, 1, 8), 0u);      // nothing to compare
    EXPECT_EQ(qem_swap_map_bytes(1, 3, 2), 1u);      // one pair, then a pair in S
    EXPECT_EQ(qem_swap_map_bytes(uint64_t(1) << 24, (uint64_t(1) << 24) - 2, 1),
              ((uint64_t(1) << 47) - (uint64_t(1) << 24)) / 8);
}

} // namespace
