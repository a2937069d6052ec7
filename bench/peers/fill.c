/* The rate at which this machine can write: a buffer filled past the caches by several threads. Decoding can hardly be
 * faster than this, so it is measured against it. */
#include <stddef.h>
#ifdef __SSE2__
#include <emmintrin.h>
#else
#include <string.h>
#endif

void qem_bench_fill(float *out, size_t count, int threads);

/* Elements begin .. end-1, both multiples of 16 (a cache line). Elsewhere than on x86 the C library knows best. */
static void fill_lines(float *out, size_t begin, size_t end)
{
#ifdef __SSE2__
    const __m128i value = _mm_set1_epi32(0x3f800000);

    for (size_t i = begin; i < end; i += 16)
        for (size_t j = i; j < i + 16; j += 4) _mm_stream_si128((__m128i *)(out + j), value);
    _mm_sfence();
#else
    memset(out + begin, 1, (end - begin) * sizeof *out);
#endif
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
