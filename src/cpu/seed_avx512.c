/* seed_step(), fixed_sum(), own_distance(), half_norms() and sum_points() in AVX-512. */
#include "simd_avx512.h"

#include "seed_template.h"
