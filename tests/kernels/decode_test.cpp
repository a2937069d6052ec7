// decode_tile(), store_rows().
#include "kernels_test.h"

#include <algorithm>
#include <memory>

#include "core/half.h"

using namespace qem_test;

namespace {

// One rectangle with everything it reads, each input ending where its allocation ends.
struct TileInput {
    qem_code_tile tile = {};
    std::vector<uint8_t> stream;
    std::vector<float> floats;
    std::vector<uint16_t> halves;
};

struct Shape {
    uint32_t dim, bits;
    uint64_t k;
    size_t rows, groups;
    bool shared, halves;
};

void put_code(std::vector<uint8_t> &stream, uint64_t bit, uint32_t bits, uint64_t code)
{
    for (uint32_t b = 0; b < bits; b++) {
        uint8_t &byte = stream[(bit + b) / 8];
        const uint8_t one = static_cast<uint8_t>(1u << ((bit + b) % 8));
        byte = static_cast<uint8_t>(code >> b & 1 ? byte | one : byte & ~one);
    }
}

// A codebook of millions of entries repeats its first elements: random numbers would take longer than the kernels. The
// period is a prime, so that entries a power of two apart differ.
constexpr size_t most_random = 65537;

template <typename T> void repeat(std::vector<T> &elements, size_t count)
{
    elements.reserve(count); // no room behind the last one
    while (elements.size() < count) {
        const size_t have = elements.size(), more = std::min(have, count - have);
        elements.resize(have + more);
        std::memcpy(elements.data() + have, elements.data(), more * sizeof(T));
    }
}

// Between the codes of two rows lie other bits, as in a tile that is narrower than its matrix.
TileInput make_input(Random &random, const Shape &shape)
{
    TileInput input;
    const uint64_t first = below(random, 70), between = shape.rows > 1 ? below(random, 3) * below(random, 90) : 0;
    const uint64_t row_bits = shape.groups * shape.bits + between;
    const uint64_t last_bit = first + (shape.rows - 1) * row_bits + shape.groups * shape.bits;
    input.stream.resize(shape.bits ? (last_bit + 7) / 8 + 16 : 0);
    for (uint8_t &byte : input.stream) byte = static_cast<uint8_t>(random());
    for (size_t row = 0; row < shape.rows; row++)
        for (size_t group = 0; group < shape.groups; group++)
            put_code(input.stream, first + row * row_bits + group * shape.bits, shape.bits,
                     below(random, 4) ? below(random, shape.k) : shape.k - 1);
    const size_t elements = (shape.shared ? 1 : shape.groups) * shape.k * shape.dim;
    const size_t own = std::min(elements, most_random); // floats move bit by bit
    if (shape.halves) {
        input.halves.resize(own);
        for (uint16_t &half : input.halves) half = static_cast<uint16_t>(random());
        repeat(input.halves, elements);
    } else {
        input.floats.resize(own);
        fill_bits(random, input.floats.data(), own);
        repeat(input.floats, elements);
    }
    qem_code_tile &tile = input.tile;
    tile.stream = shape.bits ? input.stream.data() : nullptr;
    tile.first_bit = first;
    tile.row_bits = row_bits;
    tile.bits = shape.bits;
    tile.dim = shape.dim;
    tile.codebook = shape.halves ? nullptr : input.floats.data();
    tile.half = shape.halves ? input.halves.data() : nullptr;
    tile.k = shape.k;
    tile.group_stride = shape.shared ? 0 : shape.k * shape.dim;
    tile.rows = shape.rows;
    tile.groups = shape.groups;
    return input;
}

// A k that needs so many bits; few entries, so that codebooks of many groups stay small, where the width allows.
uint64_t some_k(Random &random, uint32_t bits)
{
    if (bits == 0) return 1;
    const uint64_t least = (uint64_t(1) << (bits - 1)) + 1, most = uint64_t(1) << bits;
    return bits == 1 ? 2 : least + below(random, most - least + 1);
}

class Decode : public KernelTest {
protected:
    // The scalar kernel into exactly the same place: gaps between rows must be left alone as well.
    void check(const Shape &shape, size_t shift, size_t gap, bool streaming)
    {
        const TileInput input = make_input(random, shape);
        const size_t width = shape.groups * shape.dim, stride = width + gap;
        const size_t n = shape.rows ? (shape.rows - 1) * stride + width : 0;
        Output<float> expected(n, shift), actual(n, shift);
        qem_code_tile tile = input.tile;
        tile.row_stride = stride;
        tile.out = expected.data();
        scalar->decode_tile(&tile);
        tile.out = actual.data();
        tile.streaming = streaming && qem_can_stream(shape.dim, tile.out, shape.rows > 1 ? stride : shape.dim);
        simd->decode_tile(&tile);
        simd->end_streaming();
        ASSERT_TRUE(same_output(expected, actual))
            << "dim " << shape.dim << ", " << shape.bits << " bits, k " << shape.k << ", " << shape.rows << " x "
            << shape.groups << (shape.shared ? ", shared" : ", groups") << (shape.halves ? ", f16" : ", f32") << ", shift "
            << shift << ", gap " << gap << (tile.streaming ? ", streaming" : "");
    }
};

TEST_P(Decode, EveryDimensionFromEveryCodebook)
{
    for (uint32_t dim : { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 24, 31, 32, 64, 100 })
        for (size_t groups : { 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 70, 130 })
            for (int variant = 0; variant < 8; variant++) {
                const uint32_t bits = static_cast<uint32_t>(below(random, 7));
                const Shape shape = { dim, bits, some_k(random, bits), 1 + below(random, 3), groups, (variant & 1) != 0,
                                      (variant & 2) != 0 };
                ASSERT_NO_FATAL_FAILURE(check(shape, below(random, 17), below(random, 3) * dim, (variant & 4) != 0));
            }
}

TEST_P(Decode, EveryWidthOfCodes)
{
    for (uint32_t bits = 0; bits <= 24; bits++)
        for (uint32_t dim : { 1, 2, 3, 4, 8 }) {
            if (bits > 14 && dim != 1 && dim != 4) continue; // large codebooks: a few are enough
            for (bool halves : { false, true }) {
                if (bits > 18 && halves == (bits % 2 == 0)) continue;
                const Shape shape = { dim, bits, some_k(random, bits), 2, 40 + below(random, 30), true, halves };
                ASSERT_NO_FATAL_FAILURE(check(shape, dim * below(random, 4), dim, below(random, 2) != 0));
            }
        }
}

// Every place of a row's first element in a line, as many elements as a few lines: head, middle and tail of streamed rows.
TEST_P(Decode, StreamingAtEveryPlaceInALine)
{
    for (uint32_t dim : { 1, 2, 4, 8 })
        for (size_t shift = 0; shift < 17; shift++)
            for (size_t groups = 1; groups <= 68 / dim + 1; groups += 1 + below(random, 3))
                for (bool halves : { false, true }) {
                    const Shape shape = { dim, 5, 20 + below(random, 13), 3, groups, below(random, 2) != 0, halves };
                    ASSERT_NO_FATAL_FAILURE(check(shape, shift, dim * below(random, 5), true));
                }
}

TEST_P(Decode, RegisterTables)
{
    for (uint64_t k = 1; k <= 17; k++)
        for (size_t groups : { 1, 15, 16, 17, 64, 100, 333 })
            for (bool streaming : { false, true }) {
                uint32_t bits = 0;
                while ((uint64_t(1) << bits) < k) bits++;
                ASSERT_NO_FATAL_FAILURE(check({ 1, bits, k, 2, groups, true, false }, below(random, 17), 3, streaming));
            }
}

// The columns of a wide matrix with its own codebook each, many rows: what a tile of decode_tiles.c is.
TEST_P(Decode, TallTiles)
{
    for (uint32_t bits : { 4, 7, 8, 9, 12 })
        for (size_t groups : { 4, 8, 12, 32 })
            ASSERT_NO_FATAL_FAILURE(check({ 4, bits, some_k(random, bits), 300, groups, false, below(random, 2) != 0 },
                                          4 * below(random, 4), 16 * below(random, 3), true));
}

// Entries of 4 and 8 by words of codes: every width around the longest that fit, rows that begin at every bit of a byte, at the
// edges of lines and elsewhere; whole eights, fours and single codes at the end. k = 256 has a loop of its own.
TEST_P(Decode, WordsOfCodes)
{
    for (uint32_t dim : { 4, 8 })
        for (uint32_t bits : { 0, 1, 3, 7, 8, 11, 12, 13, 14, 15 })
            for (size_t groups : { 1, 3, 4, 7, 8, 9, 12, 24, 29 })
                for (int variant = 0; variant < 8; variant++) {
                    const bool shared = bits > 9 || (variant & 1) != 0, halves = (variant & 2) != 0;
                    const uint64_t k = bits == 8 ? 256 : some_k(random, bits);
                    const size_t shift = below(random, 2) ? 0 : dim * below(random, 16 / dim + 1);
                    const size_t to_line = (16 - groups * dim % 16) % 16;
                    const size_t gap = below(random, 2) ? to_line : dim * below(random, 5);
                    const Shape shape = { dim, bits, k, 1 + below(random, 20), groups, shared, halves };
                    ASSERT_NO_FATAL_FAILURE(check(shape, shift, gap, (variant & 4) != 0));
                }
}

TEST_P(Decode, NothingToDo)
{
    qem_code_tile tile = {};
    tile.dim = 4;
    tile.bits = 8;
    tile.k = 256;
    tile.groups = 3; // no rows
    simd->decode_tile(&tile);
    scalar->decode_tile(&tile);
    tile.rows = 3;
    tile.groups = 0;
    simd->decode_tile(&tile);
    scalar->decode_tile(&tile);
    SUCCEED();
}

TEST_P(Decode, FarInALongStream)
{
    const uint64_t first_bit = (uint64_t(1) << 32) + 5;
    const size_t bytes = first_bit / 8 + 200;
    const std::unique_ptr<uint8_t[]> stream(new uint8_t[bytes]); // not filled: only its end is read
    std::vector<float> codebook(4 * 131072);
    for (size_t i = bytes - 250; i < bytes; i++) stream[i] = static_cast<uint8_t>(random());
    fill_bits(random, codebook.data(), codebook.size());
    qem_code_tile tile = { stream.get(), first_bit, 0, 17, 4, codebook.data(), nullptr, 131072, 0, 1, 70, nullptr, 280, 0 };
    Output<float> expected(280), actual(280);
    tile.out = expected.data();
    scalar->decode_tile(&tile);
    tile.out = actual.data();
    simd->decode_tile(&tile);
    ASSERT_TRUE(same_output(expected, actual));
}

template <typename T> void check_store(Random &random, const qem_cpu_kernels *scalar, const qem_cpu_kernels *simd,
                                       qem_dtype dtype, bool finite)
{
    for (size_t n : { 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 130, 257 })
        for (size_t shift : { 0, 1, 2, 5, 8, 15, 16, 17, 31 })
            for (bool streaming : { false, true }) {
                const size_t rows = 1 + below(random, 3), x_stride = n + below(random, 5), stride = n + below(random, 40);
                std::vector<float> x((rows - 1) * x_stride + n);
                if (finite)
                    fill(random, Pattern::normal, x.data(), x.size());
                else
                    fill_bits(random, x.data(), x.size());
                if (finite && below(random, 2)) x[below(random, n)] = below(random, 2) ? 65520.0f : 3.4e38f;
                Output<T> expected((rows - 1) * stride + n, shift), actual((rows - 1) * stride + n, shift);
                const int over = scalar->store_rows(x.data(), x_stride, rows, n, dtype, expected.data(), stride, 0);
                EXPECT_EQ(simd->store_rows(x.data(), x_stride, rows, n, dtype, actual.data(), stride, streaming), over);
                simd->end_streaming();
                ASSERT_TRUE(same_output(expected, actual))
                    << rows << " x " << n << ", shift " << shift << ", stride " << stride << (streaming ? ", streaming" : "");
            }
}

TEST_P(Decode, StoreRows)
{
    for (bool finite : { false, true }) {
        ASSERT_NO_FATAL_FAILURE(check_store<float>(random, scalar, simd, QEM_DTYPE_F32, finite));
        ASSERT_NO_FATAL_FAILURE(check_store<uint16_t>(random, scalar, simd, QEM_DTYPE_F16, finite));
        ASSERT_NO_FATAL_FAILURE(check_store<uint16_t>(random, scalar, simd, QEM_DTYPE_BF16, finite));
    }
}

// The scalar kernel itself, by hand.
TEST(DecodeScalar, ByHand)
{
    const qem_cpu_kernels *scalar = qem_cpu_kernels_for(QEM_ISA_SCALAR);
    const uint8_t stream[1 + 16] = { 0x93 }; // codes of 2 bits from bit 0: 3, 0, 1, 2
    const float codebook[2 * 4 * 2] = { 0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17 };
    float out[2 * 5] = { 0, 0, 0, 0, -1, 0, 0, 0, 0, -1 };
    qem_code_tile tile = { stream, 0, 4, 2, 2, codebook, nullptr, 4, 8, 2, 2, out, 5, 0 };
    scalar->decode_tile(&tile);
    const float expected[] = { 6, 7, 10, 11, -1, 2, 3, 14, 15, -1 };
    EXPECT_TRUE(same_bits(expected, out, 10));
    const uint16_t halves[] = { 0x3c00, 0x4000, 0xc000, 0x0001 };
    tile = { nullptr, 9, 0, 0, 2, nullptr, halves, 1, 2, 1, 2, out, 5, 0 };
    scalar->decode_tile(&tile);
    const float halves_expected[] = { 1.0f, 2.0f, -2.0f, 0x1p-24f };
    EXPECT_TRUE(same_bits(halves_expected, out, 4));
}

QEM_KERNEL_TESTS(Decode);

} // namespace
