// Matrix views: every element type and every stride give what a contiguous f32 matrix of the same values gives.
#include <gtest/gtest.h>

#include <map>

#include "support/reference.h"

using namespace qem_test;

namespace {

const Context &context()
{
    static const Context one(with_threads(2));
    return one;
}

template <typename T> void store(std::vector<unsigned char> &bytes, size_t at, T value)
{
    std::memcpy(bytes.data() + at, &value, sizeof value);
}

uint16_t f16_bits(double x)
{
    static const std::map<double, uint16_t> bits = [] {
        std::map<double, uint16_t> all;
        for (uint32_t h = 0; h < 0xfc00; h++)
            if ((h & 0x7c00) != 0x7c00) all[value_of_f16(static_cast<uint16_t>(h))] = static_cast<uint16_t>(h);
        return all;
    }();
    return bits.at(x);
}

uint16_t bf16_bits(float x)
{
    uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return static_cast<uint16_t>(u >> 16);
}

// Values that every type can hold, eighths among them; u8 takes the non-negative integers.
Matrix values_for(qem_dtype dtype, uint64_t rows, uint64_t cols)
{
    Matrix m(rows, cols);
    Random random(4);
    for (float &x : m.x) {
        x = static_cast<float>(random.below(200));
        if (dtype != QEM_DTYPE_U8) x = (x - 100.0f) / 8.0f;
    }
    return m;
}

void put(std::vector<unsigned char> &bytes, size_t at, qem_dtype dtype, float x)
{
    switch (dtype) {
    case QEM_DTYPE_F16: store(bytes, at, f16_bits(x)); break;
    case QEM_DTYPE_BF16: store(bytes, at, bf16_bits(x)); break;
    case QEM_DTYPE_F64: store(bytes, at, static_cast<double>(x)); break;
    case QEM_DTYPE_U8: store(bytes, at, static_cast<uint8_t>(x)); break;
    default: store(bytes, at, x);
    }
}

// The matrix in memory as the view says; bytes between the elements are NaN in every type.
struct Stored {
    std::vector<unsigned char> bytes;
    qem_view view;
};

Stored lay_out(const Matrix &m, qem_dtype dtype, uint64_t row_stride, uint64_t col_stride, uint64_t pitch, size_t shift)
{
    const size_t size = qem_dtype_size(dtype);
    const uint64_t row_bytes = pitch ? pitch : (row_stride ? row_stride : m.cols) * size;
    const uint64_t col_bytes = (col_stride ? col_stride : 1) * size;
    Stored s = { std::vector<unsigned char>(shift + (m.rows - 1) * row_bytes + (m.cols - 1) * col_bytes + size + 16,
                                            0xff),
                 QEM_VIEW_INIT };
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++) put(s.bytes, shift + i * row_bytes + j * col_bytes, dtype, m.at(i, j));
    s.view.dtype = dtype;
    s.view.data = s.bytes.data() + shift;
    s.view.rows = m.rows;
    s.view.cols = m.cols;
    s.view.row_stride = row_stride;
    s.view.col_stride = col_stride;
    s.view.row_pitch_bytes = pitch;
    return s;
}

constexpr qem_dtype kTypes[] = { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16, QEM_DTYPE_F64, QEM_DTYPE_U8 };

TEST(Views, EveryTypeAndStrideGivesTheSameBytes)
{
    const uint64_t rows = 23, cols = 11;
    for (qem_dtype dtype : kTypes) {
        const Matrix m = values_for(dtype, rows, cols);
        const size_t size = qem_dtype_size(dtype);
        const Stored layouts[] = {
            lay_out(m, dtype, 0, 0, 0, 0),                   // contiguous
            lay_out(m, dtype, 0, 0, 0, 1),                   // not aligned
            lay_out(m, dtype, cols, 1, 0, 0),                // the same, said
            lay_out(m, dtype, cols + 5, 1, 0, 0),            // gaps behind the rows
            lay_out(m, dtype, 3 * cols, 3, 0, 0),            // gaps between the elements
            lay_out(m, dtype, 1, rows, 0, 0),                // Fortran order
            lay_out(m, dtype, 1, rows + 2, 0, 3),            // Fortran with gaps, not aligned
            lay_out(m, dtype, 0, 0, cols * size + 3, 0),     // a pitch that is no multiple of the element
            lay_out(m, dtype, 999, 2, 2 * cols * size + 1, 0) // the pitch replaces the row stride
        };
        for (size_t i = 0; i < std::size(layouts); i++) {
            std::vector<float> floats(rows * cols + 1, -1.0f);
            context().must(qem_to_f32(context(), &layouts[i].view, floats.data()));
            EXPECT_EQ(floats.back(), -1.0f);
            floats.pop_back();
            EXPECT_EQ(floats, m.x) << qem_dtype_name(dtype) << ", layout " << i;
        }
        for (qem_method method : { QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET, QEM_METHOD_RTN }) {
            const qem_recipe recipe = recipe_k(method, 8);
            const Artifact expected = quantize(context(), m.view(), recipe);
            for (size_t i = 0; i < std::size(layouts); i++) {
                SCOPED_TRACE(std::string(qem_dtype_name(dtype)) + ", layout " + std::to_string(i));
                const Artifact artifact = quantize(context(), layouts[i].view, recipe);
                EXPECT_EQ(parts_of(artifact), parts_of(expected));
                EXPECT_EQ(query(artifact).source_dtype, dtype);
                EXPECT_EQ(query(artifact).metrics.mse, query(expected).metrics.mse);
            }
        }
        // the blocks and the metrics take views too
        std::vector<float> a(4), b(4);
        for (const Stored &layout : layouts) {
            context().must(qem_quantiles(context(), &layout.view, 2, 3, a.data()));
            const qem_view plain = m.view();
            context().must(qem_quantiles(context(), &plain, 2, 3, b.data()));
            EXPECT_EQ(a, b);
            qem_metrics metrics = QEM_METRICS_INIT;
            context().must(qem_evaluate_matrix(context(), &plain, &layout.view, &metrics));
            EXPECT_EQ(metrics.max_error, 0.0);
        }
    }
}

// All 65536 bit patterns of the two short types.
TEST(Views, EveryF16AndBf16Value)
{
    for (qem_dtype dtype : { QEM_DTYPE_F16, QEM_DTYPE_BF16 }) {
        std::vector<uint16_t> halves;
        std::vector<float> values;
        for (uint32_t h = 0; h < 0x10000; h++) {
            const double x = dtype == QEM_DTYPE_F16 ? value_of_f16(static_cast<uint16_t>(h))
                                                    : value_of_bf16(static_cast<uint16_t>(h));
            if (!std::isfinite(x)) continue;
            halves.push_back(static_cast<uint16_t>(h));
            values.push_back(static_cast<float>(x));
        }
        qem_view view = QEM_VIEW_INIT, plain = QEM_VIEW_INIT;
        view.dtype = dtype;
        view.data = halves.data();
        plain.data = values.data();
        view.rows = plain.rows = 1;
        view.cols = plain.cols = halves.size();
        for (qem_isa isa : available_isas()) {
            const Context one(with_threads(1, isa));
            qem_metrics metrics = QEM_METRICS_INIT;
            one.must(qem_evaluate_matrix(one, &plain, &view, &metrics));
            EXPECT_EQ(metrics.max_error, 0.0) << qem_isa_name(isa);
            EXPECT_EQ(metrics.zeros, 2u);
        }
    }
}

// ---- what is not finite ----

qem_status quantize_status(const Context &c, const qem_view &view)
{
    const qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 4);
    qem_artifact *artifact = nullptr;
    const qem_status status = qem_quantize(c, &view, "weights", &recipe, &artifact);
    EXPECT_EQ(artifact, nullptr);
    return status;
}

TEST(Views, NanAndInfinityAreNamedWithTheirPlace)
{
    const uint64_t rows = 30, cols = 21;
    for (qem_dtype dtype : { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16, QEM_DTYPE_F64 })
        for (uint64_t stride : { uint64_t(0), cols + 1 })
            for (int bad = 0; bad < 3; bad++)
                for (const auto &[row, col] :
                     { std::pair<uint64_t, uint64_t>(0, 0), { 0, 20 }, { 17, 16 }, { 29, 20 } }) {
                    const Matrix m = values_for(dtype, rows, cols);
                    const size_t size = qem_dtype_size(dtype);
                    Stored s = lay_out(m, dtype, stride, 0, 0, 0);
                    const size_t at = (row * (stride ? stride : cols) + col) * size;
                    const float value = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
                    if (dtype == QEM_DTYPE_F16)
                        store(s.bytes, at, static_cast<uint16_t>(bad == 0 ? 0x7c01 : bad == 1 ? 0x7c00 : 0xfc00));
                    else
                        put(s.bytes, at, dtype, value);
                    ASSERT_EQ(quantize_status(context(), s.view), QEM_ERR_DATA) << qem_dtype_name(dtype);
                    const std::string text = context().error();
                    const std::string place = "(" + std::to_string(row) + ", " + std::to_string(col) + ")";
                    EXPECT_NE(text.find(place), std::string::npos) << text;
                    EXPECT_NE(text.find(bad == 0 ? "NaN" : "infinite"), std::string::npos) << text;
                }
}

TEST(Views, TheFirstBadElementIsNamedWhateverTheThreads)
{
    Matrix m = gaussian(5000, 40, 1);
    for (uint64_t i : { 4999, 3001, 1234, 4000 }) m.at(i, i % 40) = NAN;
    for (uint32_t threads : thread_counts({ 1, 2, 3 }))
        for (qem_isa isa : available_isas()) {
            const Context c(with_threads(threads, isa));
            EXPECT_EQ(quantize_status(c, m.view()), QEM_ERR_DATA);
            EXPECT_NE(c.error().find("(1234, 34)"), std::string::npos) << c.error();
        }
}

TEST(Views, EveryCallRefusesWhatIsNotFinite)
{
    Matrix m = gaussian(10, 8, 1);
    const Artifact base = quantize(context(), m.view(), recipe_k(QEM_METHOD_PQ, 4));
    m.at(3, 2) = -INFINITY;
    const qem_view view = m.view();
    std::vector<float> out(100);
    std::vector<uint8_t> map(100);
    qem_metrics metrics = QEM_METRICS_INIT;
    qem_plan plan = QEM_PLAN_INIT;
    const qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 4);
    qem_artifact *artifact = nullptr;
    EXPECT_EQ(qem_make_plan(context(), &view, &recipe, &plan), QEM_ERR_DATA);
    EXPECT_EQ(qem_encode(context(), base.get(), &view, nullptr, &artifact), QEM_ERR_DATA);
    EXPECT_EQ(qem_evaluate(context(), &view, base.get(), &metrics), QEM_ERR_DATA);
    EXPECT_EQ(qem_evaluate_matrix(context(), &view, &view, &metrics), QEM_ERR_DATA);
    EXPECT_EQ(qem_kmeans(context(), &view, 2, nullptr, out.data(), nullptr, nullptr, nullptr), QEM_ERR_DATA);
    EXPECT_EQ(qem_quantiles(context(), &view, 2, 2, out.data()), QEM_ERR_DATA);
    EXPECT_EQ(qem_swap_forward(context(), &view, 1, out.data(), map.data()), QEM_ERR_DATA);
    EXPECT_EQ(metrics.count, 0u);
}

TEST(Views, F64BeyondF32IsRefused)
{
    std::vector<double> x(12, 1.0);
    x[7] = -1e39;
    qem_view view = QEM_VIEW_INIT;
    view.dtype = QEM_DTYPE_F64;
    view.data = x.data();
    view.rows = 4;
    view.cols = 3;
    EXPECT_EQ(quantize_status(context(), view), QEM_ERR_DATA);
    EXPECT_NE(context().error().find("(2, 1)"), std::string::npos) << context().error();
    x[7] = 3.4e38; // this one fits
    const std::vector<float> decoded = decode(context(), quantize(context(), view, recipe_k(QEM_METHOD_RTN, 2)));
    EXPECT_EQ(decoded[6], 1.0f);
    EXPECT_EQ(decoded[7], 3.4e38f);
}

} // namespace
