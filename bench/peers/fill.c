/* The rate at which this machine can write: a buffer filled past the caches by several threads. Decoding can hardly be
 * faster than this, so it is measured against it. */
#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>

void qem_bench_fill(float *out, size_t count, int threads);

/* Elements begin .. end-1, both multiples of 16 (a cache line). */
static void fill_lines(float *out, size_t begin, size_t end)
{
    const __m128i value = _mm_set1_epi32(0x3f800000);
    size_t i;

    for (i = begin; i < end; i += 16) {
        _mm_stream_si128((__m128i *)(out + i), value);
        _mm_stream_si128((__m128i *)(out + i + 4), value);
        _mm_stream_si128((__m128i *)(out + i + 8), value);
        _mm_stream_si128((__m128i *)(out + i + 12), value);
    }
    _mm_sfence();
}

/* `out` is aligned to 64; what is left after the last whole line is not written. */
void qem_bench_fill(float *out, size_t count, int threads)
{
    const size_t lines = count / 16;
    int t;

#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (t = 0; t < threads; t++) {
        fill_lines(out, lines * (size_t)t / (size_t)threads * 16, lines * (size_t)(t + 1) / (size_t)threads * 16);
    }
}
