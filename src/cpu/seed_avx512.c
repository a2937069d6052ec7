/* seed_step(), fixed_sum(), own_distance() and the weighted forms in AVX-512. */
#include "simd_avx512.h"

#include "seed_template.h"
