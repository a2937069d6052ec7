/* gather_points(), scale_points(), sum_points() and half_norms() in AVX2. */
#include "simd_avx2.h"

#include "points_template.h"
