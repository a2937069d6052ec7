/* seed_step(), fixed_sum(), own_distance(), half_norms() and sum_points() in AVX2. */
#include "simd_avx2.h"

#include "seed_template.h"
