#include "weighted.h"

#include <math.h>
#include <string.h>

#define MOST_POINTS 4096
#define MOST_FLOATS 65536

uint32_t qem_feature_points(uint32_t dim)
{
    const size_t points = MOST_FLOATS / (2 * (size_t)dim) / QEM_POINT_PAD * QEM_POINT_PAD;
    if (points > MOST_POINTS) return MOST_POINTS;
    return points ? (uint32_t)points : QEM_POINT_PAD;
}

void qem_point_features(const float *x, const float *w, size_t ld, size_t n, uint32_t dim, float *out, size_t out_ld)
{
    for (uint32_t p = 0; p < dim; p++) {
        float *product = out + 2 * p * out_ld;
        for (size_t i = 0; i < n; i++) product[i] = w[p * ld + i] * x[p * ld + i];
        memcpy(product + out_ld, w + p * ld, n * sizeof(float));
    }
}

void qem_centroid_features(const float *c, size_t ldc, size_t k, size_t count, uint32_t dim, float *out, float *h)
{
    for (uint32_t p = 0; p < dim; p++) {
        float *own = out + 2 * p * ldc, *square = own + ldc;
        memcpy(own, c + p * ldc, count * sizeof(float));
        for (size_t j = 0; j < count; j++) square[j] = (float)(-0.5 * (double)own[j] * (double)own[j]);
    }
    for (size_t j = 0; j < count; j++) h[j] = j < k ? 0.0f : INFINITY;
}
