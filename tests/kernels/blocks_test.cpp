// decode_blocks(): scalar codes and the scales of their blocks in one pass.
#include "kernels_test.h"

using namespace qem_test;

namespace {

class Blocks : public KernelTest {
protected:
    // parts: bit 0 scales, 1 means, 2 columns' scales, 3 columns' means, 4 a step of columns without either.
    void check(uint32_t bits, uint64_t k, bool integers, size_t rows, size_t width, uint32_t shift, int parts, bool streaming,
               bool bytes)
    {
        const uint64_t between = bytes ? (8 - width * bits % 8) % 8 : below(random, 20), first = bytes ? 24 : below(random, 60);
        const uint64_t row_bits = width * bits + between;
        std::vector<uint8_t> stream((first + rows * row_bits + 7) / 8 + 16);
        for (uint8_t &byte : stream) byte = static_cast<uint8_t>(random());
        for (size_t i = 0; i < rows * width; i++) {
            const uint64_t code = below(random, k), bit = first + i / width * row_bits + i % width * bits;
            for (uint32_t b = 0; b < bits; b++) {
                uint8_t &byte = stream[(bit + b) / 8];
                const uint8_t one = static_cast<uint8_t>(1u << ((bit + b) % 8));
                byte = static_cast<uint8_t>(code >> b & 1 ? byte | one : byte & ~one);
            }
        }
        const size_t units = shift > 30 ? 1 : ((width - 1) >> shift) + 1, gap = streaming ? (16 - width % 16) % 16 + 16 : 3;
        std::vector<float> codebook(k), scale(rows * units), mean(rows * units), column_scale(width), column_mean(width);
        for (std::vector<float> *v : { &codebook, &scale, &mean, &column_scale, &column_mean })
            fill(random, Pattern::normal, v->data(), v->size());
        for (uint64_t j = 0; integers && j < k; j++) codebook[j] = static_cast<float>(j);
        const size_t n = (rows - 1) * (width + gap) + width;
        Output<float> expected(n, streaming ? 0 : 5), actual(n, streaming ? 0 : 5);
        qem_block_tile tile = {};
        tile.stream = stream.data();
        tile.first_bit = first;
        tile.row_bits = row_bits;
        tile.bits = bits;
        tile.block_shift = shift;
        tile.codebook = codebook.data();
        tile.k = k;
        tile.integers = integers;
        tile.rows = rows;
        tile.width = width;
        tile.scale = parts & 1 ? scale.data() : nullptr;
        tile.mean = parts & 2 ? mean.data() : nullptr;
        tile.unit_stride = units;
        tile.columns = parts >> 2 != 0;
        tile.column_scale = parts & 4 ? column_scale.data() : nullptr;
        tile.column_mean = parts & 8 ? column_mean.data() : nullptr;
        tile.row_stride = width + gap;
        tile.out = expected.data();
        scalar->decode_blocks(&tile);
        tile.out = actual.data();
        tile.streaming = streaming;
        simd->decode_blocks(&tile);
        simd->end_streaming();
        ASSERT_TRUE(same_output(expected, actual)) << bits << " bits, k " << k << (integers ? ", integers, " : ", ") << rows
                                                   << " x " << width << ", blocks of 2^" << shift << ", parts " << parts
                                                   << (streaming ? ", streaming" : "") << (bytes ? ", whole bytes" : "");
    }
};

TEST_P(Blocks, EveryWidthOfCodes)
{
    for (uint32_t bits = 1; bits <= 12; bits++)
        for (bool integers : { false, true })
            for (size_t width : { 1, 7, 8, 15, 16, 17, 31, 64, 100, 161 })
                for (int parts : { 1, 2, 3, 7, 13, 16 }) {
                    const uint64_t most = uint64_t(1) << bits, k = below(random, 2) ? most : most / 2 + 1;
                    const uint32_t shifts[] = { 3, 4, 5, 6, 7, 63 };
                    ASSERT_NO_FATAL_FAILURE(check(bits, k, integers, 1 + below(random, 4), width, shifts[below(random, 6)],
                                                  parts, below(random, 2), below(random, 2)));
                }
}

TEST_P(Blocks, FourBitsEveryCase)
{
    for (uint32_t shift : { 3, 4, 5, 6, 63 })
        for (int parts = 1; parts < 17; parts++)
            for (int flags = 0; flags < 8; flags++)
                ASSERT_NO_FATAL_FAILURE(check(4, 16, flags & 1, 3, 90, shift, parts, flags & 2, flags & 4));
}

TEST(BlocksScalar, ByHand)
{
    const uint8_t stream[2 + 16] = { 0x30, 0x12 }; // codes of 4 bits from bit 4: 3, 2, 1
    const float codebook[] = { 9, 10, 20, 30 }, scale[] = { 2, -1 }, mean[] = { 1, 0.5f }, column[] = { 1, 10, 100 };
    float out[4] = { 0, 0, 0, 7 };
    qem_block_tile tile = {};
    tile.stream = stream;
    tile.first_bit = 4;
    tile.bits = 4;
    tile.block_shift = 1;
    tile.codebook = codebook;
    tile.k = 4;
    tile.rows = 1;
    tile.width = 3;
    tile.scale = scale;
    tile.mean = mean;
    tile.columns = 1;
    tile.column_scale = column;
    tile.out = out;
    qem_cpu_kernels_for(QEM_ISA_SCALAR)->decode_blocks(&tile);
    const float expected[] = { 61, 410, -950, 7 };
    EXPECT_TRUE(same_bits(expected, out, 4));
}

QEM_KERNEL_TESTS(Blocks);

} // namespace
