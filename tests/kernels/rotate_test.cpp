// rotate_rows(), and the primitive that is made of it.
#include "kernels_test.h"

#include <cmath>

#include "support/context.h"

extern "C" {
#include "core/context.h"
#include "cpu/cpu.h"
}

using namespace qem_test;

namespace {

class Rotate : public KernelTest {
protected:
    // Rows of x and out lie apart, and what lies between rows of the output is left alone.
    void check(size_t rows, size_t cols, Pattern pattern, bool after, size_t shift, size_t gap)
    {
        const size_t ldx = cols + gap / 2, ldo = cols + gap;
        std::vector<float> x((rows ? rows - 1 : 0) * ldx + (rows ? cols : 0)), rotation(cols * cols), begin(cols);
        fill(random, pattern, x.data(), x.size());
        fill(random, pattern == Pattern::huge ? Pattern::normal : pattern, rotation.data(), rotation.size());
        fill(random, Pattern::normal, begin.data(), begin.size());
        const size_t n = rows ? (rows - 1) * ldo + cols : 0;
        Output<float> expected(n, shift), actual(n, shift);
        const float *from = after ? begin.data() : nullptr;
        scalar->rotate_rows(x.data(), ldx, rows, cols, rotation.data(), from, expected.data(), ldo);
        simd->rotate_rows(x.data(), ldx, rows, cols, rotation.data(), from, actual.data(), ldo);
        ASSERT_TRUE(same_output(expected, actual)) << rows << " x " << cols << ", " << name_of(pattern)
                                                   << (after ? ", after" : "") << ", gap " << gap;
    }
};

TEST_P(Rotate, EveryShape)
{
    for (size_t cols : { 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 192, 257 })
        for (size_t rows : { 0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 47, 48, 49, 98 })
            ASSERT_NO_FATAL_FAILURE(check(rows, cols, Pattern::normal, below(random, 2), below(random, 17), below(random, 9)));
}

TEST_P(Rotate, EveryKindOfNumber)
{
    for (Pattern pattern : all_patterns)
        for (bool after : { false, true }) {
            ASSERT_NO_FATAL_FAILURE(check(7, 70, pattern, after, 3, 5));
            ASSERT_NO_FATAL_FAILURE(check(50, 140, pattern, after, 0, 0));
        }
}

TEST(RotateScalar, ByHand)
{
    const float x[] = { 1, 2, -1, 3, -1, 0, 5, -1 }, rotation[] = { 1, 10, 100, 1000 }, after[] = { 0.5f, -0.25f };
    float out[5] = { 0, 0, -7, 0, 0 };
    const qem_cpu_kernels *scalar = qem_cpu_kernels_for(QEM_ISA_SCALAR);
    scalar->rotate_rows(x, 3, 2, 2, rotation, after, out, 3);
    const float expected[] = { 201.5f, 2009.75f, -7, -96.5f, -969.0f - 1.25f };
    EXPECT_TRUE(same_bits(expected, out, 5));
    scalar->rotate_rows(x, 3, 1, 2, rotation, nullptr, out, 3);
    EXPECT_EQ(out[0], 201.0f);
    EXPECT_EQ(out[1], 2010.0f);
}

// The primitive on every instruction set and for any number of threads: what the chain says, written out.
TEST(RotatePrimitive, SubtractsRotatesAdds)
{
    Random random(5);
    for (size_t cols : { 1, 13, 64, 150, 400 })
        for (size_t rows : { 1, 5, 61, 401 })
            for (int which = 0; which < 4; which++) {
                std::vector<float> x(rows * cols), rotation(cols * cols), before(cols), after(cols), expected(rows * cols);
                for (std::vector<float> *v : { &x, &rotation, &before, &after })
                    fill(random, Pattern::normal, v->data(), v->size());
                const float *b = which & 1 ? before.data() : nullptr, *a = which & 2 ? after.data() : nullptr;
                if (rows == 401 && (cols > 150 || (cols > 64 && which < 3))) continue; // fmaf one by one is slow
                for (size_t i = 0; i < rows; i++)
                    for (size_t j = 0; j < cols; j++) {
                        float sum = a ? a[j] : 0.0f;
                        for (size_t p = 0; p < cols; p++)
                            sum = std::fma(b ? x[i * cols + p] - b[p] : x[i * cols + p], rotation[p * cols + j], sum);
                        expected[i * cols + j] = sum;
                    }
                for (qem_isa isa : available_isas())
                    for (uint32_t threads : { 1, 3 }) {
                        if (isa == QEM_ISA_SCALAR && cols > 64 && threads > 1) continue;
                        const Context context(with_threads(threads, isa));
                        Output<float> out(rows * cols);
                        context.must(qem_cpu_rotate(context, x.data(), rows, cols, rotation.data(), b, a, out.data()));
                        ASSERT_TRUE(out.intact());
                        ASSERT_TRUE(same_bits(expected.data(), out.data(), out.size()))
                            << rows << " x " << cols << ", " << which << ", " << qem_isa_name(isa);
                    }
            }
}

QEM_KERNEL_TESTS(Rotate);

} // namespace
