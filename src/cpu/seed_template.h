/* seed_step(), fixed_sum(), own_distance() and the weighted forms for one instruction set: lanes are points, and memory is the limit. */
#include "kernels.h"
#include "simd_kernels.h"

QEM_INLINE vf squared_distance(const float *x, size_t ld, uint32_t dim, const float *center)
{
    vf s = vf_set1(0.0f);
    for (uint32_t p = 0; p < dim; p++) {
        const vf d = vf_sub(vf_load(x + p * ld), vf_set1(center[p]));
        s = vf_fmadd(d, d, s);
    }
    return s;
}

/* Late in a seeding a new centre is nearer to few points: where no lane changes nothing is written. */
QEM_INLINE vf update_distance(vf t, uint32_t label, float *d2, uint32_t *labels)
{
    const vf old = vf_load(d2);
    const vm nearer = vf_lt(t, old);
    if (vm_bits(nearer) == 0) return old;
    const vf now = vf_select(nearer, t, old);
    vf_store(d2, now);
    vi_store(labels, vi_select(nearer, vi_set1(label), vi_load(labels)));
    return now;
}

QEM_INLINE float seed_step(const float *x, size_t ld, size_t points, uint32_t dim, const float *center, uint32_t label,
                           float *d2, uint32_t *labels)
{
    vf largest = vf_set1(0.0f);
    for (size_t i = 0; i < points; i += LANES)
        largest = vf_max(update_distance(squared_distance(x + i, ld, dim, center), label, d2 + i, labels + i), largest);
    return vf_reduce_max(largest);
}

float QEM_SIMD(seed_step)(const float *x, size_t ld, size_t points, uint32_t dim, const float *center, uint32_t label,
                          float *d2, uint32_t *labels)
{
    switch (dim) { /* constants: the loop over components disappears */
    case 1: return seed_step(x, ld, points, 1, center, label, d2, labels);
    case 2: return seed_step(x, ld, points, 2, center, label, d2, labels);
    case 3: return seed_step(x, ld, points, 3, center, label, d2, labels);
    case 4: return seed_step(x, ld, points, 4, center, label, d2, labels);
    case 5: return seed_step(x, ld, points, 5, center, label, d2, labels);
    case 6: return seed_step(x, ld, points, 6, center, label, d2, labels);
    case 7: return seed_step(x, ld, points, 7, center, label, d2, labels);
    case 8: return seed_step(x, ld, points, 8, center, label, d2, labels);
    default: return seed_step(x, ld, points, dim, center, label, d2, labels);
    }
}

QEM_INLINE vf weighted_term(vf x, vf center, vf w, vf s)
{
    const vf d = vf_sub(x, center);
    return vf_fmadd(vf_mul(w, d), d, s);
}

QEM_INLINE float weighted_step(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *center,
                               uint32_t label, float *d2, uint32_t *labels)
{
    vf largest = vf_set1(0.0f);
    for (size_t i = 0; i < points; i += LANES) {
        vf s = vf_set1(0.0f);
        for (uint32_t p = 0; p < dim; p++)
            s = weighted_term(vf_load(x + p * ld + i), vf_set1(center[p]), vf_load(w + p * ld + i), s);
        largest = vf_max(update_distance(s, label, d2 + i, labels + i), largest);
    }
    return vf_reduce_max(largest);
}

float QEM_SIMD(weighted_step)(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *center,
                              uint32_t label, float *d2, uint32_t *labels)
{
    switch (dim) {
    case 2: return weighted_step(x, w, ld, points, 2, center, label, d2, labels);
    case 4: return weighted_step(x, w, ld, points, 4, center, label, d2, labels);
    case 8: return weighted_step(x, w, ld, points, 8, center, label, d2, labels);
    default: return weighted_step(x, w, ld, points, dim, center, label, d2, labels);
    }
}

void QEM_SIMD(weighted_distance)(const float *x, const float *w, size_t ld, size_t points, uint32_t dim, const float *c,
                                 size_t ldc, const uint32_t *labels, float *d2)
{
    for (size_t i = 0; i < points; i += LANES) {
        const vi own = vi_load(labels + i);
        vf s = vf_set1(0.0f);
        for (uint32_t p = 0; p < dim; p++)
            s = weighted_term(vf_load(x + p * ld + i), vf_gather(c + p * ldc, own), vf_load(w + p * ld + i), s);
        vf_store(d2 + i, s);
    }
}

int64_t QEM_SIMD(fixed_sum)(const float *d2, size_t points, double scale)
{
    const vd8 factor = vd8_set1(scale);
    vsum sum = vsum_zero();
    for (size_t i = 0; i < points; i += 8) sum = vsum_add_scaled(sum, d2 + i, factor);
    return vsum_total(sum);
}

void QEM_SIMD(own_distance)(const float *x, size_t ld, size_t points, uint32_t dim, const float *c, size_t ldc,
                            const uint32_t *labels, float *d2)
{
    for (size_t i = 0; i < points; i += LANES) {
        const vi own = vi_load(labels + i);
        vf s = vf_set1(0.0f);
        for (uint32_t p = 0; p < dim; p++) {
            const vf d = vf_sub(vf_load(x + p * ld + i), vf_gather(c + p * ldc, own));
            s = vf_fmadd(d, d, s);
        }
        vf_store(d2 + i, s);
    }
}
