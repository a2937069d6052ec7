// The kernels of products: the scalar ones against sums written from the rule in products.h, the others against the scalar.
#include "kernels_test.h"

#include <algorithm>
#include <cmath>

using namespace qem_test;

namespace {

const size_t lengths[] = { 0, 1, 3, 15, 16, 17, 31, 32, 33, 47, 100, 255, 1000, 1023, 1024 };

// Lanes by halves.
float halves(std::vector<float> lane)
{
    for (size_t half = lane.size() / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

float dot_reference(const float *w, const float *x, size_t n)
{
    std::vector<float> lane(16, 0.0f);
    for (size_t j = 0; j < n; j++) lane[j % 16] = std::fma(w[j], x[j], lane[j % 16]);
    return halves(lane);
}

// Equal bits, or both NaN.
::testing::AssertionResult same_numbers(Output<float> &expected, Output<float> &actual)
{
    if (!expected.intact() || !actual.intact()) return ::testing::AssertionFailure() << "written outside of the output";
    for (size_t i = 0; i < expected.size(); i++)
        if (std::memcmp(&expected[i], &actual[i], 4) != 0 && !(std::isnan(expected[i]) && std::isnan(actual[i])))
            return ::testing::AssertionFailure() << "element " << i << ": expected " << expected[i] << ", got " << actual[i];
    return ::testing::AssertionSuccess();
}

// Totals that begin with something, with a gap after the rows of each batch.
struct Totals {
    Totals(Random &random, size_t rows, size_t batch) : ldt(rows + 3), start(batch * ldt + 1)
    {
        fill(random, Pattern::normal, start.data(), start.size());
    }
    Output<float> fresh() const
    {
        Output<float> out(start.size(), 1);
        for (size_t i = 0; i < start.size(); i++) out[i] = start[i];
        return out;
    }
    size_t ldt;
    std::vector<float> start;
};

class Products : public KernelTest {
protected:
    // Rows with gaps of NaN, which must not get into any sum; the array ends with the last row.
    std::vector<float> rows_of(size_t rows, size_t n, size_t ld, Pattern pattern, bool any = false)
    {
        std::vector<float> x(rows ? (rows - 1) * ld + n : 0, NAN);
        for (size_t r = 0; r < rows; r++) {
            if (any && below(random, 3) == 0)
                fill_bits(random, x.data() + r * ld, n);
            else
                fill(random, pattern, x.data() + r * ld, n);
        }
        return x;
    }
    void check16(const std::vector<float> &tables, size_t ld, const std::vector<uint32_t> &codes,
                 const std::vector<uint8_t> &bytes, size_t row_bytes, uint32_t bits, size_t rows, size_t groups, size_t k);
};

TEST_P(Products, DotIsTheRule)
{
    for (size_t n : lengths)
        for (const qem_cpu_kernels *kernels : { scalar, simd }) {
            const std::vector<float> w = rows_of(7, n, n + 1, Pattern::normal), x = rows_of(6, n, n + 2, Pattern::normal);
            const Totals totals(random, 7, 6);
            Output<float> expected = totals.fresh(), actual = totals.fresh();
            for (size_t b = 0; b < 6; b++)
                for (size_t r = 0; r < 7; r++)
                    expected[b * totals.ldt + r] += dot_reference(&w[0] + r * (n + 1), &x[0] + b * (n + 2), n);
            kernels->product.dot(w.data(), n + 1, 7, x.data(), n + 2, 6, n, actual.data(), totals.ldt);
            ASSERT_TRUE(same_output(expected, actual)) << "n " << n;
        }
}

TEST_P(Products, Dot)
{
    for (size_t n : lengths)
        for (size_t rows : { 0, 1, 2, 3, 4, 5, 8, 9 })
            for (size_t batch : { 0, 1, 2, 3, 4, 5, 7, 9 }) {
                const Pattern pattern = all_patterns[below(random, 8)];
                const size_t ldw = n + below(random, 5), ldx = n + below(random, 5);
                const std::vector<float> w = rows_of(rows, n, ldw, pattern), x = rows_of(batch, n, ldx, pattern, true);
                const Totals totals(random, rows, batch);
                Output<float> expected = totals.fresh(), actual = totals.fresh();
                scalar->product.dot(w.data(), ldw, rows, x.data(), ldx, batch, n, expected.data(), totals.ldt);
                simd->product.dot(w.data(), ldw, rows, x.data(), ldx, batch, n, actual.data(), totals.ldt);
                ASSERT_TRUE(same_numbers(expected, actual))
                    << name_of(pattern) << ", n " << n << ", rows " << rows << ", batch " << batch;
            }
}

// Rows of codes of one kind, exactly as long as they are said to be, and the weights they stand for.
struct Codes {
    qem_coded coded = {};
    std::vector<uint8_t> bytes;
    std::vector<float> table, weights;
    size_t n = 0;
};

void put_bits(std::vector<uint8_t> &bytes, size_t bit, uint32_t value, uint32_t bits)
{
    for (uint32_t i = 0; i < bits; i++)
        if (value >> i & 1) bytes[(bit + i) / 8] |= static_cast<uint8_t>(1u << (bit + i) % 8);
}

Codes make_codes(Random &random, qem_coded_kind kind, uint32_t bits, size_t rows, size_t n, Pattern pattern)
{
    Codes c;
    const bool quads = kind == QEM_CODED_QUADS;
    const size_t k = kind == QEM_CODED_TABLE ? 16 : quads ? 777 : 200; // fewer than 256 levels: the table ends there
    c.n = n;
    c.coded.kind = kind;
    c.coded.bits = kind == QEM_CODED_TABLE ? bits : 8;
    c.coded.scale = 0.37f;
    c.coded.mean = -20.0f;
    c.table.resize(quads ? k * 4 : k);
    fill(random, pattern, c.table.data(), c.table.size());
    if (kind == QEM_CODED_TABLE)
        for (size_t j = 0; j < 16; j++) c.table[j] = c.table[j % (size_t(1) << bits)];
    c.coded.row_bytes = (quads ? (n + 3) / 4 * 4 : (n * c.coded.bits + 7) / 8) + below(random, 3) * (quads ? 4 : 1);
    c.bytes.resize(rows * c.coded.row_bytes + 16);
    for (uint8_t &byte : c.bytes) byte = static_cast<uint8_t>(random());
    std::fill(c.bytes.begin(), c.bytes.end() - 16, uint8_t(0));
    c.weights.resize(rows * n);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++) {
            float &weight = c.weights[r * n + j];
            const size_t at = r * c.coded.row_bytes;
            if (quads) {
                uint32_t code;
                if (j % 4 == 0) {
                    code = static_cast<uint32_t>(below(random, k));
                    std::memcpy(&c.bytes[at + j], &code, 4);
                }
                std::memcpy(&code, &c.bytes[at + j / 4 * 4], 4);
                weight = c.table[code * 4 + j % 4];
            } else {
                const uint32_t limit = kind == QEM_CODED_TABLE ? 1u << bits : kind == QEM_CODED_TABLE8 ? 200 : 256;
                const uint32_t code = static_cast<uint32_t>(below(random, limit));
                put_bits(c.bytes, at * 8 + j * c.coded.bits, code, c.coded.bits);
                weight = kind == QEM_CODED_UNIFORM8 ? std::fma(static_cast<float>(code), c.coded.scale, c.coded.mean)
                                                    : c.table[code];
            }
        }
    c.coded.codes = c.bytes.data();
    c.coded.table = c.table.data();
    return c;
}

TEST_P(Products, CodesGiveWhatTheirWeightsGive)
{
    struct {
        qem_coded_kind kind;
        uint32_t bits;
    } const kinds[] = { { QEM_CODED_TABLE, 1 },  { QEM_CODED_TABLE, 2 },    { QEM_CODED_TABLE, 3 }, { QEM_CODED_TABLE, 4 },
                        { QEM_CODED_TABLE8, 8 }, { QEM_CODED_UNIFORM8, 8 }, { QEM_CODED_QUADS, 8 } };
    for (const auto &kind : kinds)
        for (size_t n : lengths)
            for (size_t rows : { 1, 2, 3, 4, 5, 7 })
                for (size_t batch : { 1, 2, 3, 4, 5, 6 }) {
                    const Pattern pattern = all_patterns[below(random, 8)];
                    Codes c = make_codes(random, kind.kind, kind.bits, rows, n, pattern);
                    const size_t ldx = n + below(random, 4);
                    const std::vector<float> x = rows_of(batch, n, ldx, Pattern::normal, true);
                    const Totals totals(random, rows, batch);
                    Output<float> expected = totals.fresh(), plain = totals.fresh(), actual = totals.fresh();
                    scalar->product.dot(c.weights.data(), n, rows, x.data(), ldx, batch, n, expected.data(), totals.ldt);
                    scalar->product.dot_coded(&c.coded, rows, x.data(), ldx, batch, n, plain.data(), totals.ldt);
                    simd->product.dot_coded(&c.coded, rows, x.data(), ldx, batch, n, actual.data(), totals.ldt);
                    ASSERT_TRUE(same_numbers(expected, plain)) << "kind " << kind.kind << ", bits " << kind.bits << ", n " << n;
                    ASSERT_TRUE(same_numbers(expected, actual)) << "kind " << kind.kind << ", bits " << kind.bits << ", n " << n
                                                                << ", rows " << rows << ", batch " << batch;
                }
}

TEST_P(Products, BuildTable)
{
    for (uint32_t width = 1; width <= 20; width++)
        for (size_t k : { 1, 2, 7, 8, 15, 16, 17, 31, 33, 100, 256 })
            for (Pattern pattern : { Pattern::normal, Pattern::denormal, Pattern::huge, Pattern::zeros }) {
                std::vector<float> entries(k * width), x(width);
                fill(random, pattern, entries.data(), entries.size());
                fill(random, Pattern::normal, x.data(), width);
                if (below(random, 4) == 0) fill_bits(random, x.data(), width);
                Output<float> rule(k, 1), expected(k, 1), actual(k, 1);
                for (size_t j = 0; j < k; j++) {
                    rule[j] = 0.0f;
                    for (uint32_t p = 0; p < width; p++) rule[j] = std::fma(x[p], entries[j * width + p], rule[j]);
                }
                scalar->product.build_table(x.data(), entries.data(), width, k, expected.data());
                simd->product.build_table(x.data(), entries.data(), width, k, actual.data());
                ASSERT_TRUE(same_numbers(rule, expected)) << "width " << width << ", k " << k;
                ASSERT_TRUE(same_numbers(rule, actual)) << "width " << width << ", k " << k;
                std::vector<float> x16(width * 16), column(width);
                fill(random, pattern, x16.data(), x16.size());
                Output<float> wide(k * 16, 1), scalar_wide(k * 16, 1);
                scalar->product.build_table16(x16.data(), entries.data(), width, k, scalar_wide.data());
                simd->product.build_table16(x16.data(), entries.data(), width, k, wide.data());
                ASSERT_TRUE(same_numbers(scalar_wide, wide)) << "width " << width << ", k " << k;
                for (size_t b = 0; b < 16; b++) {
                    for (uint32_t p = 0; p < width; p++) column[p] = x16[p * 16 + b];
                    scalar->product.build_table(column.data(), entries.data(), width, k, expected.data());
                    for (size_t j = 0; j < k; j++) rule[j] = wide[j * 16 + b];
                    ASSERT_TRUE(same_numbers(expected, rule)) << "16, width " << width << ", k " << k;
                }
            }
}

// Sums of entries, by the rule: blocks of 32 groups, 4 lanes.
void table_reference(const std::vector<float> &tables, size_t ld, const std::vector<uint32_t> &codes, size_t groups,
                     size_t rows, float *totals)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t first = 0; first < groups; first += 32) {
            std::vector<float> lane(4, 0.0f);
            for (size_t g = first; g < groups && g < first + 32; g++)
                lane[g % 4] += tables[g * ld + codes[r * groups + g]];
            totals[r] += halves(lane);
        }
}

// 16 tables side by side, the first of them as it is, the others its multiples: each is summed by the same rule.
void Products::check16(const std::vector<float> &tables, size_t ld, const std::vector<uint32_t> &codes,
                       const std::vector<uint8_t> &bytes, size_t row_bytes, uint32_t bits, size_t rows, size_t groups, size_t k)
{
    std::vector<float> wide(groups ? ((groups - 1) * ld + k) * 16 : 0);
    std::vector<std::vector<float>> single(16, tables);
    for (size_t b = 0; b < 16; b++)
        for (size_t i = 0; i < tables.size(); i++) {
            single[b][i] = tables[i] * (1.0f - 0.3f * static_cast<float>(b));
            wide[i * 16 + b] = single[b][i];
        }
    Output<float> expected(rows * 16, 1), one(rows * 16, 1), two(rows * 16, 1);
    for (size_t i = 0; i < rows * 16; i++) expected[i] = one[i] = two[i] = static_cast<float>(i);
    for (size_t b = 0; b < 16; b++) {
        std::vector<float> totals(rows);
        for (size_t r = 0; r < rows; r++) totals[r] = expected[r * 16 + b];
        table_reference(single[b], ld, codes, groups, rows, totals.data());
        for (size_t r = 0; r < rows; r++) expected[r * 16 + b] = totals[r];
    }
    scalar->product.table_sums16(wide.data(), ld, bytes.data(), row_bytes, bits, rows, groups, one.data());
    simd->product.table_sums16(wide.data(), ld, bytes.data(), row_bytes, bits, rows, groups, two.data());
    ASSERT_TRUE(same_numbers(expected, one)) << "16, bits " << bits << ", groups " << groups;
    ASSERT_TRUE(same_numbers(expected, two)) << "16, bits " << bits << ", groups " << groups;
}

TEST_P(Products, TableSums)
{
    for (uint32_t bits : { 1, 2, 3, 4, 5, 6, 7, 8, 32 })
        for (size_t groups : { 0, 1, 3, 7, 8, 9, 31, 32, 33, 63, 64, 71 })
            for (size_t rows : { 0, 1, 3, 10 }) {
                const size_t k = bits == 32 ? 700 : (size_t(1) << bits) - (bits > 2 ? below(random, 3) : 0);
                const size_t ld = (k + 15) / 16 * 16, width = bits == 32 ? 4 * groups : (groups * bits + 7) / 8;
                const size_t row_bytes = width + (bits == 32 ? 0 : below(random, 3));
                std::vector<float> tables(groups ? (groups - 1) * ld + k : 0);
                std::vector<uint32_t> codes(rows * groups);
                std::vector<uint8_t> bytes(rows * row_bytes + 16), ahead(rows * width);
                fill(random, all_patterns[below(random, 8)], tables.data(), tables.size());
                for (size_t i = 0; i < codes.size(); i++) {
                    codes[i] = static_cast<uint32_t>(below(random, k));
                    if (bits == 32)
                        std::memcpy(&bytes[i * 4], &codes[i], 4);
                    else
                        put_bits(bytes, i / groups * row_bytes * 8 + i % groups * bits, codes[i], bits);
                }
                const Totals totals(random, rows, 1);
                Output<float> expected = totals.fresh(), one = totals.fresh(), two = totals.fresh();
                table_reference(tables, ld, codes, groups, rows, expected.data());
                scalar->product.table_sums(tables.data(), ld, bytes.data(), row_bytes, bits, rows, groups, one.data(), nullptr);
                simd->product.table_sums(tables.data(), ld, bytes.data(), row_bytes, bits, rows, groups, two.data(),
                                         ahead.data());
                ASSERT_TRUE(same_numbers(expected, one)) << "bits " << bits << ", groups " << groups;
                ASSERT_TRUE(same_numbers(expected, two)) << "bits " << bits << ", groups " << groups;
                ASSERT_NO_FATAL_FAILURE(check16(tables, ld, codes, bytes, row_bytes, bits, rows, groups, k));
            }
}

// ---- tables cut into bytes ----

// The steps one by one against their definition, and together against table_sums of the scalar kernels.
class Planes : public Products {
protected:
    void SetUp() override
    {
        Products::SetUp();
        if (!IsSkipped() && !simd->product.plane_sums) GTEST_SKIP() << "no lookups of bytes here";
    }
    void check(uint32_t bits, size_t groups, size_t rows, size_t first_group, size_t row_groups, Pattern pattern);
};

TEST_P(Planes, SplitTable)
{
    for (size_t ld : { 64, 128, 256 })
        for (Pattern pattern : all_patterns) {
            std::vector<float> table(ld);
            fill(random, pattern, table.data(), ld);
            if (below(random, 2)) fill_bits(random, table.data(), ld);
            Output<uint8_t> planes(ld * 4);
            simd->product.split_table(table.data(), ld, planes.data());
            ASSERT_TRUE(planes.intact());
            std::vector<uint8_t> bytes(ld * 4);
            std::memcpy(bytes.data(), table.data(), ld * 4);
            for (size_t j = 0; j < ld; j++)
                for (size_t p = 0; p < 4; p++) ASSERT_EQ(planes[p * ld + j], bytes[j * 4 + p]) << "ld " << ld << ", entry " << j;
        }
}

// Groups first_group .. first_group+groups-1 of rows of row_groups codes; the stream ends with its last byte.
void Planes::check(uint32_t bits, size_t groups, size_t rows, size_t first_group, size_t row_groups, Pattern pattern)
{
    const size_t k = (size_t(1) << bits) - (bits > 2 ? below(random, 3) : 0);
    const size_t ld = k <= 64 ? 64 : k <= 128 ? 128 : 256, blocks = (rows + 63) / 64, row_bits = row_groups * bits;
    const size_t lead = bits == 8 ? 8 * below(random, 3) : below(random, 20); // bits before the first row
    std::vector<float> tables(groups * ld);
    std::vector<uint32_t> codes(rows * groups);
    std::vector<uint8_t> stream((lead + rows * row_bits + 7) / 8), wide(rows * groups * 4 + 16);
    fill(random, pattern, tables.data(), tables.size());
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < row_groups; g++) {
            const uint32_t code = static_cast<uint32_t>(below(random, k));
            put_bits(stream, lead + r * row_bits + g * bits, code, bits);
            if (g >= first_group && g < first_group + groups) codes[r * groups + g - first_group] = code;
        }
    std::memcpy(wide.data(), codes.data(), codes.size() * 4);

    Output<uint8_t> planes(groups * ld * 4), turned((groups + 31) / 32 * blocks * QEM_TURNED_BYTES);
    for (size_t g = 0; g < groups; g++)
        simd->product.split_table(tables.data() + g * ld, ld, planes.data() + g * ld * 4);
    simd->product.turn_codes(stream.data(), lead + first_group * bits, row_bits, bits, rows, groups, turned.data());
    ASSERT_TRUE(turned.intact());
    for (size_t b = 0; b < blocks; b++) // each code is there as often as rows have it, and nothing beyond 2^bits
        for (size_t g = 0; g < groups; g++) {
            const uint8_t *from = turned.data() + (g / 32 * blocks + b) * QEM_TURNED_BYTES + g % 32 * 64;
            std::vector<uint8_t> there(from, from + 64);
            ASSERT_LT(*std::max_element(there.begin(), there.end()), 1u << bits);
            for (size_t r = b * 64; r < rows && r < b * 64 + 64; r++) {
                const auto at = std::find(there.begin(), there.end(), codes[r * groups + g]);
                ASSERT_NE(at, there.end()) << "row " << r << ", group " << g;
                there.erase(at);
            }
        }

    Output<float> expected(rows, 1), actual(blocks * 64, 1);
    for (size_t r = 0; r < blocks * 64; r++) actual[r] = static_cast<float>(r) - 70.5f;
    for (size_t r = 0; r < rows; r++) expected[r] = actual[r];
    scalar->product.table_sums(tables.data(), ld, wide.data(), groups * 4, 32, rows, groups, expected.data(), nullptr);
    for (size_t g = 0; g < groups; g += 32)
        simd->product.plane_sums(planes.data() + g * ld * 4, ld, turned.data() + g / 32 * blocks * QEM_TURNED_BYTES, blocks,
                                 std::min<size_t>(groups - g, 32), actual.data(), reinterpret_cast<uintptr_t>(stream.data()),
                                 below(random, 100));
    ASSERT_TRUE(actual.intact());
    Output<float> first(rows, 1);
    for (size_t r = 0; r < rows; r++) first[r] = actual[r];
    ASSERT_TRUE(same_numbers(expected, first));
}

TEST_P(Planes, SumsAreThoseOfTheTables)
{
    for (uint32_t bits = 1; bits <= 8; bits++)
        for (size_t groups : { 1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 47, 63, 64 })
            for (size_t rows : { 1, 2, 63, 64, 65, 150 })
                for (size_t first : { 0, 64 }) {
                    SCOPED_TRACE("bits " + std::to_string(bits) + ", groups " + std::to_string(groups) + ", rows " +
                                 std::to_string(rows) + ", first " + std::to_string(first));
                    const size_t row_groups = first + groups + below(random, 3);
                    ASSERT_NO_FATAL_FAILURE(check(bits, groups, rows, first, row_groups, all_patterns[below(random, 8)]));
                }
}

QEM_KERNEL_TESTS(Planes);
QEM_KERNEL_TESTS(Products);

} // namespace
