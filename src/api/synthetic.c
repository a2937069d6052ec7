/*
 * The papers' synthetic data. Every number is a function of (seed, element) alone, made by IEEE operations in a fixed order
 * (the logarithm below included), so machines agree to the last bit.
 */
#include <math.h>
#include <string.h>

#include "../core/random.h"
#include "api.h"

#define STREAM_NORMAL 0x10000u
#define STREAM_PLACE 0x20000u
#define STREAM_VALUE 0x30000u

/* ln x for x in (0,1): the series of 2 atanh((m-1)/(m+1)) with m in [sqrt(1/2), sqrt(2)). */
static double fixed_log(double x)
{
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2.0;
        exponent--;
    }
    const double t = (m - 1.0) / (m + 1.0), t2 = t * t;
    double sum = 0.0;
    for (int n = 23; n >= 1; n -= 2) sum = sum * t2 + 1.0 / n;
    return 2.0 * t * sum + exponent * 0.69314718055994531;
}

/* Standard normal by Marsaglia's polar method, drawn again until 0.5 + 0.16 z lies in [0,1]. */
static float truncated_normal(uint64_t seed, uint64_t element)
{
    for (uint32_t attempt = 0;; attempt++) {
        const qem_random128 r = qem_random(seed, element, attempt, STREAM_NORMAL);
        const double u = 2.0 * qem_random_unit((uint64_t)r.v[1] << 32 | r.v[0]) - 1.0;
        const double v = 2.0 * qem_random_unit((uint64_t)r.v[3] << 32 | r.v[2]) - 1.0;
        const double s = u * u + v * v;
        if (s >= 1.0 || s == 0.0) continue;
        const double value = 0.5 + 0.16 * (u * sqrt(-2.0 * fixed_log(s) / s));
        if (value >= 0.0 && value <= 1.0) return (float)value;
    }
}

static int test_bit(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

/* Marks `wanted` distinct elements; wanted is at most half of them, so a draw succeeds soon. */
static void draw_places(uint64_t seed, uint64_t count, uint64_t wanted, uint8_t *marked)
{
    for (uint64_t j = 0; j < wanted; j++)
        for (uint32_t attempt = 0;; attempt++) {
            const uint64_t i = qem_random_below(qem_random_u64(seed, j, attempt, STREAM_PLACE), count);
            if (test_bit(marked, i)) continue;
            marked[i / 8] |= (uint8_t)(1u << (i % 8));
            break;
        }
}

qem_status qem_generate_synthetic(qem_context *context, uint64_t rows, uint64_t cols, double outlier_rate, float *out)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!out) return qem_fail(context, QEM_ERR_ARGUMENT, "out: the pointer is NULL");
    if (rows < 1 || cols < 1 || rows > ((uint64_t)1 << 40) / cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%llu x %llu is empty or above 2^40 elements", (unsigned long long)rows,
                        (unsigned long long)cols);
    if (!(outlier_rate >= 0.0 && outlier_rate <= 1.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "outlier rate %g is outside 0 .. 1", outlier_rate);
    const uint64_t count = rows * cols;
    const uint64_t outliers = (uint64_t)llround((double)count * outlier_rate);
    const int complement = outliers > count / 2; /* then the others are drawn */
    void *memory;
    QEM_TRY(qem_allocate_zero(context, count / 8 + 1, 1, &memory));
    draw_places(context->seed, count, complement ? count - outliers : outliers, memory);
    for (uint64_t i = 0; i < count; i++) {
        if (test_bit(memory, i) != complement)
            out[i] = (float)(200.0 * qem_random_unit(qem_random_u64(context->seed, i, 0, STREAM_VALUE)) - 100.0);
        else
            out[i] = truncated_normal(context->seed, i);
    }
    qem_release(context, memory);
    return QEM_OK;
}
