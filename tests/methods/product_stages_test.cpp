// Products with an artifact of several stages, which no method makes yet and files may hold.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/context.h"
#include "support/matrices.h"

extern "C" {
#include "core/artifact.h"
}

using namespace qem_test;

namespace {

qem_layer layer_of(uint32_t stage)
{
    qem_layer layer = {};
    layer.stage_first = stage;
    layer.stage_count = 1;
    return layer;
}

TEST(ProductStages, StagesAreAdded)
{
    const uint64_t rows = 37, batch = 5;
    for (uint64_t cols : { 13, 64, 1100 })
        for (uint32_t levels : { 0, 3 }) {
            const Context context(with_threads(2));
            const Matrix m = gaussian(rows, cols, 1), x = gaussian(batch, cols, 2);
            qem_recipe second = recipe_k(QEM_METHOD_PQ, 8);
            second.levels = levels;
            const Artifact a = quantize(context, m.view(), recipe_k(QEM_METHOD_LLOYDMAX, 16));
            const Artifact b = quantize(context, m.view(), second);
            qem_stage stages[2] = { a->stages[0], b->stages[0] };
            qem_artifact both = *a;
            both.stages = stages;
            qem_layer layers[2] = { layer_of(0), layer_of(1) };
            both.layers = layers;
            both.layer_count = both.stage_count = 2;
            std::vector<float> decoded(rows * cols), y(batch * rows), scalar_y(batch * rows);
            context.must(qem_dequantize(context, &both, 0, rows, QEM_DTYPE_F32, decoded.data(), 0));
            context.must(qem_matmul(context, &both, batch, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, y.data(), 0, nullptr, 0));
            for (uint64_t r = 0; r < batch; r++)
                for (uint64_t i = 0; i < rows; i++) {
                    double sum = 0.0, size = 0.0;
                    for (uint64_t j = 0; j < cols; j++) {
                        const double term = static_cast<double>(x.at(r, j)) * decoded[i * cols + j];
                        sum += term;
                        size += std::fabs(term);
                    }
                    ASSERT_NEAR(y[r * rows + i], sum, (70.0 + cols / 1024.0) * 0x1p-24 * size);
                }
            const Context scalar(with_threads(1, QEM_ISA_SCALAR));
            scalar.must(qem_matmul(scalar, &both, batch, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, scalar_y.data(), 0,
                                   nullptr, 0));
            ASSERT_EQ(y, scalar_y);
        }
}

// Decoded in strips of columns, by blocks of rows: the sum of what the stages decode to one by one.
TEST(ProductStages, DecodedStagesAreAdded)
{
    const uint64_t rows = 301, cols = 1536;
    const Context quantizer(with_threads(2));
    const Matrix m = gaussian(rows, cols, 3);
    for (uint32_t levels : { 0, 3 }) {
        qem_recipe second = recipe_k(QEM_METHOD_PQ, 30), first = recipe_k(QEM_METHOD_PQ, 16);
        second.levels = levels;
        first.levels = 1;
        first.dim = 2;
        const Artifact a = quantize(quantizer, m.view(), first), b = quantize(quantizer, m.view(), second);
        std::vector<float> sum = decode(quantizer, a);
        const std::vector<float> other = decode(quantizer, b);
        for (size_t i = 0; i < sum.size(); i++) sum[i] += other[i];
        qem_stage stages[2] = { a->stages[0], b->stages[0] };
        qem_artifact both = *a;
        both.stages = stages;
        qem_layer layers[2] = { layer_of(0), layer_of(1) };
        both.layers = layers;
        both.layer_count = both.stage_count = 2;
        for (qem_isa isa : available_isas())
            for (uint64_t begin : { 0, 9 }) {
                const Context context(with_threads(2, isa));
                std::vector<float> out((rows - begin) * cols);
                context.must(qem_dequantize(context, &both, begin, rows, QEM_DTYPE_F32, out.data(), 0));
                ASSERT_TRUE(std::equal(out.begin(), out.end(), sum.begin() + static_cast<long>(begin * cols)));
            }
    }
}

} // namespace
