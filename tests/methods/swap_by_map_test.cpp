// A second matrix in the order that the swap gave the first.
#include <gtest/gtest.h>

#include <string>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "backend.h"
}

using namespace qem_test;

TEST(SwapByMap, MovesWhatStandsBesideEachElement)
{
    for (const auto &[rows, cols] : { std::pair<uint64_t, uint64_t>{ 1, 1 }, { 1, 300 }, { 7, 5 }, { 90, 131 }, { 3, 1024 } })
        for (uint32_t levels = 1; levels <= 8; levels++)
            for (uint32_t threads : { 1, 3 }) {
                SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", levels " + std::to_string(levels));
                const Context context(with_threads(threads));
                const Matrix x = integers(rows, cols, 3, 5); // with ties
                Matrix place(rows, cols), ordered(rows, cols), moved(rows, cols), restored(rows, cols);
                for (size_t i = 0; i < place.x.size(); i++) place.x[i] = static_cast<float>(i);
                std::vector<uint8_t> map(qem_swap_map_bytes(rows, cols, levels));
                const qem_backend &b = qem_cpu_backend;
                context.must(b.swap_forward(context, x.x.data(), rows, cols, levels, ordered.x.data(), map.data()));
                context.must(b.swap_by_map(context, place.x.data(), map.data(), rows, cols, levels, moved.x.data()));
                for (size_t i = 0; i < x.x.size(); i++)
                    ASSERT_EQ(ordered.x[i], x.x[static_cast<size_t>(moved.x[i])]) << "element " << i;
                context.must(b.swap_inverse(context, moved.x.data(), map.data(), rows, cols, levels, restored.x.data()));
                ASSERT_EQ(restored.x, place.x);
            }
}
