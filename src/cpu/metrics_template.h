/* find_nonfinite(), extremes() and the sums of the metrics for one instruction set. */
#include "kernels.h"
#include "simd_kernels.h"

/* Lanes whose exponent is all ones. */
QEM_INLINE vm nonfinite(vi u)
{
    const vi exponent = vi_set1(0x7f800000u);
    return vi_eq(vi_and(u, exponent), exponent);
}

size_t QEM_SIMD(find_nonfinite)(const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        const vm first = vm_or(nonfinite(vi_load(x + i)), nonfinite(vi_load(x + i + LANES)));
        const vm second = vm_or(nonfinite(vi_load(x + i + 2 * LANES)), nonfinite(vi_load(x + i + 3 * LANES)));
        if (vm_bits(vm_or(first, second))) break;
    }
    for (; i < n; i++) {
        uint32_t u;
        memcpy(&u, x + i, sizeof u);
        if ((u & 0x7f800000u) == 0x7f800000u) return i;
    }
    return n;
}

void QEM_SIMD(extremes)(const float *x, size_t n, float *min, float *max)
{
    vf lo = vf_set1(x[0]), hi = lo, lo2 = lo, hi2 = lo;
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const vf a = vf_load(x + i), b = vf_load(x + i + LANES);
        lo = vf_min(a, lo);
        hi = vf_max(a, hi);
        lo2 = vf_min(b, lo2);
        hi2 = vf_max(b, hi2);
    }
    float least = vf_reduce_min(vf_min(lo, lo2)), greatest = vf_reduce_max(vf_max(hi, hi2));
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        greatest = x[i] > greatest ? x[i] : greatest;
    }
    *min = least + 0.0f; /* which zero depends on the order: + 0 makes both +0 */
    *max = greatest + 0.0f;
}

static double lane_total(const double lane[8])
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double lane_sum(vd8 lanes)
{
    double lane[8];
    vd8_store(lane, lanes);
    return lane_total(lane);
}

static double lane_max(vd8 lanes)
{
    double lane[8], largest = 0.0;
    vd8_store(lane, lanes);
    for (int i = 0; i < 8; i++) largest = lane[i] > largest ? lane[i] : largest;
    return largest;
}

typedef struct error_lanes {
    vd8 absolute, squared, relative, largest;
    uint64_t zeros;
} error_lanes;

QEM_INLINE void add_errors(error_lanes *sums, const float *x, const float *y)
{
    const vd8 exact = vd8_from_floats(x);
    const vd8 e = vd8_abs(vd8_sub(exact, vd8_from_floats(y)));
    sums->absolute = vd8_add(sums->absolute, e);
    sums->squared = vd8_add(sums->squared, vd8_mul(e, e));
    sums->relative = vd8_add_ratio(sums->relative, e, vd8_abs(exact), &sums->zeros);
    sums->largest = vd8_max(e, sums->largest);
}

void QEM_SIMD(error_chunk)(const float *x, const float *y, size_t n, double sums[3], double *max, uint64_t *zeros)
{
    const vd8 zero = vd8_set1(0.0);
    error_lanes lanes = { zero, zero, zero, zero, 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) add_errors(&lanes, x + i, y + i);
    if (i < n) { /* lanes of 1 against 1 add +0 to sums that are never -0, and are no zeros of x */
        float last_x[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, last_y[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
        memcpy(last_x, x + i, (n - i) * sizeof *x);
        memcpy(last_y, y + i, (n - i) * sizeof *y);
        add_errors(&lanes, last_x, last_y);
    }
    sums[0] = lane_sum(lanes.absolute);
    sums[1] = lane_sum(lanes.squared);
    sums[2] = lane_sum(lanes.relative);
    *max = lane_max(lanes.largest);
    *zeros = lanes.zeros;
}

void QEM_SIMD(sum_chunk)(const float *x, size_t n, double center, double *sum, double *squared)
{
    const vd8 mean = vd8_set1(center);
    vd8 s = vd8_set1(0.0), q = s;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const vd8 d = vd8_sub(vd8_from_floats(x + i), mean);
        s = vd8_add(s, d);
        q = vd8_add(q, vd8_mul(d, d));
    }
    double s_lane[8], q_lane[8];
    vd8_store(s_lane, s);
    vd8_store(q_lane, q);
    for (size_t lane = 0; i < n; i++, lane++) {
        const double d = (double)x[i] - center;
        s_lane[lane] += d;
        q_lane[lane] += d * d;
    }
    *sum = lane_total(s_lane);
    *squared = lane_total(q_lane);
}
