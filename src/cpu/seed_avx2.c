/* seed_step(), fixed_sum(), own_distance() and the weighted forms in AVX2. */
#include "simd_avx2.h"

#include "seed_template.h"
