/* gather_points(), scale_points(), sum_points() and half_norms() in AVX-512. */
#include "simd_avx512.h"

#include "points_template.h"
