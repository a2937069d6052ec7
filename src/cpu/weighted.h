/*
 * The search where each element has a weight: sum of w_p * (x_p - c_p)^2 is least where the sum of w_p * c_p^2 / 2 - w_p * x_p * c_p
 * is, an inner product of 2 * dim features of the point and as many of the centroid. So nearest() finds it:
 * point (w_0 * x_0, w_0, w_1 * x_1, w_1, ...), centroid (c_0, -c_0^2 / 2, c_1, -c_1^2 / 2, ...), half norm 0. Each feature is rounded
 * once; the features of fewer positions are the first ones.
 */
#ifndef QEM_CPU_WEIGHTED_H
#define QEM_CPU_WEIGHTED_H

#include "kernels.h"

/* Points whose features are made at once: few enough that they stay in a cache; a multiple of QEM_POINT_PAD. */
uint32_t qem_feature_points(uint32_t dim);

/* Features of n points x[p * ld + i] with weights w[p * ld + i] -> out[f * out_ld + i]. */
void qem_point_features(const float *x, const float *w, size_t ld, size_t n, uint32_t dim, float *out, size_t out_ld);

/* Features of centroids c[p * ldc + j], j < count -> out[f * ldc + j], and h: 0 for the first k, +inf for the rest. */
void qem_centroid_features(const float *c, size_t ldc, size_t k, size_t count, uint32_t dim, float *out, float *h);

#endif
