// Decoding of and products with artifacts of layers, on every instruction set and for several threads: bit for bit what the
// plain definition says (support/layers.h), and products within the bound that qem.h states.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "support/layers.h"

using namespace qem_test;

namespace {

constexpr float untouched = -123.25f;

double value_of(uint16_t x, qem_dtype dtype)
{
    return dtype == QEM_DTYPE_F16 ? value_of_f16(x) : value_of_bf16(x);
}

// Rows begin .. end - 1, the first one `shift` floats past a line, with a gap after each, which stays as it was.
void check_f32(const Context &context, const qem_artifact *a, const Matrix &expected, uint64_t begin, uint64_t end, uint64_t gap,
               size_t shift = 1)
{
    const uint64_t cols = a->cols, stride = cols + gap;
    std::vector<float> out((end - begin) * stride + 32, untouched), wanted = out;
    const size_t first = (16 - reinterpret_cast<uintptr_t>(out.data()) / sizeof(float) % 16) % 16 + shift;
    for (uint64_t i = begin; i < end; i++)
        std::memcpy(&wanted[first + (i - begin) * stride], &expected.x[i * cols], cols * sizeof(float));
    context.must(qem_dequantize(context, a, begin, end, QEM_DTYPE_F32, &out[first], stride));
    if (std::memcmp(out.data(), wanted.data(), out.size() * sizeof(float)) == 0) return;
    for (size_t e = 0; e < out.size(); e++) {
        uint32_t one, other;
        std::memcpy(&one, &out[e], 4);
        std::memcpy(&other, &wanted[e], 4);
        ASSERT_EQ(one, other) << "place " << e << ", row " << (e - first) / stride + begin << ", column " << (e - first) % stride;
    }
}

void check_16_bits(const Context &context, const qem_artifact *a, const Matrix &expected, uint64_t begin, uint64_t end,
                   qem_dtype dtype)
{
    const uint64_t cols = a->cols;
    std::vector<uint16_t> out((end - begin) * cols);
    context.must(qem_dequantize(context, a, begin, end, dtype, out.data(), 0));
    for (size_t e = 0; e < out.size(); e++) {
        const double x = expected.x[begin * cols + e];
        const double rounded = dtype == QEM_DTYPE_F16 ? round_to_f16(x) : round_to_bf16(x);
        ASSERT_EQ(value_of(out[e], dtype), rounded) << "row " << e / cols + begin << ", column " << e % cols;
    }
}

void check_decoding(const qem_artifact *a)
{
    const Matrix expected = decode_definition(a);
    for (qem_isa isa : available_isas())
        for (uint32_t threads : { 1, 3 }) {
            SCOPED_TRACE(std::string(qem_isa_name(isa)) + ", threads " + std::to_string(threads));
            const Context context(with_threads(threads, isa));
            ASSERT_NO_FATAL_FAILURE(check_f32(context, a, expected, 0, a->rows, 0));
            ASSERT_NO_FATAL_FAILURE(check_f32(context, a, expected, a->rows / 3, a->rows - a->rows / 5, 5));
            ASSERT_NO_FATAL_FAILURE(check_f32(context, a, expected, a->rows / 2, a->rows / 2 + 1, 0));
            ASSERT_NO_FATAL_FAILURE(check_16_bits(context, a, expected, 0, a->rows, QEM_DTYPE_F16));
            ASSERT_NO_FATAL_FAILURE(check_16_bits(context, a, expected, a->rows / 4, a->rows, QEM_DTYPE_BF16));
        }
}

// Within the bounds of qem.h: those of the widest groups here.
void check_products(const qem_artifact *a)
{
    const Matrix w = decode_definition(a);
    for (uint64_t batch : { 1, 3, 20 }) {
        const Matrix x = gaussian(batch, a->cols, 7 + batch);
        const uint64_t stride = a->rows + 2;
        std::vector<float> first;
        for (qem_isa isa : available_isas())
            for (uint32_t threads : { 1, 2, 3 }) {
                const Context context(with_threads(threads, isa));
                const uint64_t bytes = qem_matmul_workspace_size(context, a, batch);
                std::vector<unsigned char> workspace(bytes); // exactly so many: a sanitizer sees what lies beyond
                std::vector<float> y(batch * stride, untouched), again(batch * stride, untouched);
                context.must(qem_matmul(context, a, batch, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, y.data(), stride,
                                        workspace.data(), bytes));
                context.must(qem_matmul(context, a, batch, QEM_DTYPE_F32, x.x.data(), 0, QEM_DTYPE_F32, again.data(), stride,
                                        nullptr, 0));
                ASSERT_EQ(y, again);
                if (first.empty()) first = y;
                ASSERT_EQ(y, first) << qem_isa_name(isa) << ", threads " << threads << ", batch " << batch;
            }
        for (uint64_t b = 0; b < batch; b++) {
            for (uint64_t i = 0; i < a->rows; i++) {
                double sum = 0.0, size = 0.0;
                for (uint64_t j = 0; j < a->cols; j++) {
                    const double term = static_cast<double>(x.at(b, j)) * w.at(i, j);
                    sum += term;
                    size += std::fabs(term);
                }
                ASSERT_NEAR(first[b * stride + i], sum, (130.0 + a->cols / 1024.0) * 0x1p-24 * size) << "row " << i;
            }
            ASSERT_EQ(first[b * stride + a->rows], untouched);
            ASSERT_EQ(first[b * stride + a->rows + 1], untouched);
        }
    }
}

void check(const Layers &layers)
{
    ASSERT_NO_FATAL_FAILURE(check_decoding(layers.get()));
    ASSERT_NO_FATAL_FAILURE(check_products(layers.get()));
}

StageSpec shared(uint32_t dim, uint64_t k, uint32_t levels = 0, bool half = false)
{
    StageSpec spec;
    spec.dim = dim;
    spec.k = k;
    spec.levels = levels;
    spec.half = half;
    return spec;
}

StageSpec per_group(uint32_t dim, uint64_t k, uint32_t levels = 0, bool half = false)
{
    StageSpec spec = shared(dim, k, levels, half);
    spec.kind = QEM_CODEBOOK_PER_GROUP;
    return spec;
}

StageSpec formula(qem_codebook_kind kind, uint64_t k, uint32_t levels = 0)
{
    StageSpec spec = shared(1, k, levels);
    spec.kind = kind;
    return spec;
}

StageSpec mixed(uint32_t dim, uint64_t k, uint32_t levels = 0, bool half = false)
{
    StageSpec spec = per_group(dim, k, levels, half);
    spec.mixed = true;
    return spec;
}

StageSpec rotated(uint32_t dim, uint64_t k, uint32_t cells, bool half = false)
{
    StageSpec spec = per_group(dim, k, 0, half);
    spec.cells = cells;
    return spec;
}

const AffineSpec every_axis[] = { { QEM_AXIS_TENSOR, 0, true, true }, { QEM_AXIS_ROW, 0, true, true },
                                  { QEM_AXIS_COLUMN, 0, true, true }, { QEM_AXIS_BLOCK, 8, true, true },
                                  { QEM_AXIS_BLOCK, 16, true, true }, { QEM_AXIS_BLOCK, 32, true, true },
                                  { QEM_AXIS_BLOCK, 10, true, true }, { QEM_AXIS_BLOCK, 1000, true, true } };

// Every axis with a scale, a mean and both, over lookups alone.
TEST(Layers, EveryStepOverLookups)
{
    uint64_t seed = 1;
    for (AffineSpec step : every_axis)
        for (int parts : { 1, 2, 3 })
            for (uint64_t cols : { 13, 100, 160 }) {
                step.scale = parts & 1;
                step.mean = parts & 2;
                Layers layers(41, cols, seed++);
                const StageSpec specs[] = { formula(QEM_CODEBOOK_TABLE, 16), formula(QEM_CODEBOOK_UNIFORM, 256), shared(4, 20),
                                            per_group(4, 8, 0, true), shared(1, 5) };
                layers.add_layer(specs[seed % 5], { step }, seed % 2 ? std::vector<uint64_t>{ 17 } : std::vector<uint64_t>{});
                SCOPED_TRACE("axis " + std::to_string(step.axis) + ", block " + std::to_string(step.block) + ", parts " +
                             std::to_string(parts) + ", columns " + std::to_string(cols));
                ASSERT_NO_FATAL_FAILURE(check(layers));
            }
}

// Two layers of two row ranges each, one split in other places than the other, steps in all orders, over every kind of stage.
TEST(Layers, TwoLayersOfTwoRanges)
{
    uint64_t seed = 100;
    const StageSpec kinds[] = { formula(QEM_CODEBOOK_TABLE, 16, 1), shared(4, 30, 2), per_group(3, 9, 3),
                                mixed(4, 16),                       mixed(3, 8, 2, true), rotated(4, 8, 1),
                                rotated(4, 8, 3, true),             rotated(7, 5, 2),     shared(2, 256),
                                per_group(4, 16, 0, true) };
    for (size_t i = 0; i < 10; i++)
        for (uint64_t cols : { 30, 71 }) {
            Layers layers(57, cols, seed++);
            const AffineSpec *axes = every_axis;
            layers.add_layer(kinds[i], { axes[i % 8], axes[(i + 3) % 8], axes[(3 * i + 5) % 8] }, { 20 });
            layers.add_layer(kinds[(i + 3) % 10], { axes[(i + 1) % 8] }, { 33 });
            layers.add_outliers({ 0, 1, 20 * cols - 1, 20 * cols, 33 * cols + 5, 57 * cols - 1 }, i % 2 ? 8 : 4);
            SCOPED_TRACE("stage " + std::to_string(i) + ", columns " + std::to_string(cols));
            ASSERT_NO_FATAL_FAILURE(check(layers));
        }
}

// Rotations over many blocks of rows, cells that no row has, many threads' work.
TEST(Layers, RotationsOfManyRows)
{
    for (uint32_t cells : { 1, 3, 5 }) {
        Layers layers(430, 100, cells);
        layers.add_layer(rotated(4, 16, cells), { { QEM_AXIS_COLUMN, 0, true, true } }, { 201 });
        SCOPED_TRACE("cells " + std::to_string(cells));
        ASSERT_NO_FATAL_FAILURE(check_decoding(layers.get()));
        if (cells != 3) continue;
        ASSERT_NO_FATAL_FAILURE(check_products(layers.get()));
    }
}

// Strips of columns: codebooks of each group, swaps, many rows.
TEST(Layers, Strips)
{
    for (uint32_t which : { 0, 1, 2 }) {
        Layers layers(150, 1536, which);
        layers.add_layer(per_group(4, 30, which), { every_axis[3 + which], every_axis[2] }, { 70 });
        if (which != 1) layers.add_layer(per_group(2, 16, 1), { every_axis[1] }, { 70 });
        layers.add_outliers({ 0, 5000, 5001, 70 * 1536 + 1, 150 * 1536 - 1 }, 4);
        SCOPED_TRACE(which);
        ASSERT_NO_FATAL_FAILURE(check_decoding(layers.get()));
    }
}

// Streamed outputs, larger than a tile in each direction.
TEST(Layers, LargeOutputs)
{
    const uint64_t rows = 212, cols = 5008;
    std::vector<uint64_t> elements;
    for (uint64_t e = 7; e < rows * cols; e += 1 + e * 2654435761u % 997) elements.push_back(e);
    StageSpec grid = formula(QEM_CODEBOOK_TABLE, 8);
    grid.integers = true;
    for (uint32_t which : { 0, 1, 2, 3, 4 }) {
        Layers layers(rows, cols, which);
        if (which == 3) layers.add_layer(grid, { every_axis[5], every_axis[2] }, { 130 }); // written by the kernel itself
        if (which == 4) layers.add_layer(formula(QEM_CODEBOOK_TABLE, 16), { every_axis[3] });
        if (which == 0) layers.add_layer(formula(QEM_CODEBOOK_TABLE, 16), { every_axis[4], every_axis[2] }, { 100 });
        if (which == 1) layers.add_layer(shared(4, 256), {}); // one run, with outliers
        if (which == 2) layers.add_layer(per_group(8, 16), { every_axis[2] });
        if (which < 2) layers.add_outliers(elements, 8);
        const Matrix expected = decode_definition(layers.get());
        for (qem_isa isa : available_isas()) {
            const Context context(with_threads(2, isa));
            for (uint64_t gap : { 0, 29 })
                for (size_t shift : { 0, 1 })
                    ASSERT_NO_FATAL_FAILURE(check_f32(context, layers.get(), expected, 0, rows, gap, shift));
            ASSERT_NO_FATAL_FAILURE(check_16_bits(context, layers.get(), expected, 1, rows, QEM_DTYPE_F16));
        }
    }
}

// An outlier beyond f16 is an overflow; a decoded value beyond it that an outlier replaces is none.
TEST(Layers, OutliersAndTheRangeOfF16)
{
    const uint64_t rows = 6, cols = 33;
    for (const StageSpec &spec : { shared(1, 16), shared(2, 8, 1), rotated(4, 4, 1) })
        for (bool beyond : { false, true }) {
            Layers layers(rows, cols, 3);
            layers.add_layer(spec, { { QEM_AXIS_ROW, 0, true, true } });
            std::vector<uint64_t> row;
            for (uint64_t j = 0; j < cols; j++) row.push_back(2 * cols + j);
            layers.add_outliers(row, 4);
            layers.step(0, 0).mean[2] = 1e6f;
            if (beyond) layers.outlier_values()[cols - 1] = -70000.0f;
            for (qem_isa isa : available_isas()) {
                const Context context(with_threads(1, isa));
                std::vector<uint16_t> out(rows * cols);
                EXPECT_EQ(qem_dequantize(context, layers.get(), 0, rows, QEM_DTYPE_F16, out.data(), 0),
                          beyond ? QEM_ERR_RANGE : QEM_OK);
                EXPECT_EQ(std::isinf(value_of_f16(out[3 * cols - 1])), beyond);
                EXPECT_EQ(qem_dequantize(context, layers.get(), 3, rows, QEM_DTYPE_F16, out.data(), 0), QEM_OK);
            }
        }
}

// Fast ways of the products begin in the middle of an artifact, too: stages of plain lookups over two row ranges.
TEST(Layers, ProductsOfRanges)
{
    uint64_t seed = 200;
    for (const StageSpec &spec : { shared(1, 16), shared(1, 5), formula(QEM_CODEBOOK_UNIFORM, 256), shared(1, 200), shared(4, 64),
                                   per_group(4, 8), per_group(4, 5), per_group(2, 256), per_group(100, 4) })
        for (uint64_t cols : { 64, 1100 }) {
            Layers layers(90, cols, seed++);
            layers.add_layer(spec, {}, { 37 });
            SCOPED_TRACE("dim " + std::to_string(spec.dim) + ", k " + std::to_string(spec.k) + ", columns " +
                         std::to_string(cols));
            ASSERT_NO_FATAL_FAILURE(check_products(layers.get()));
        }
    for (size_t axis : { 2, 4, 6, 7 }) {
        Layers stepped(70, 2100, axis);
        stepped.add_layer(shared(1, 16), { every_axis[axis], every_axis[2] }, { 33 });
        stepped.add_outliers({ 0, 1024, 2099, 2100, 33 * 2100 + 1023, 70 * 2100 - 1 }, 4);
        ASSERT_NO_FATAL_FAILURE(check_products(stepped.get()));
    }
}

} // namespace
