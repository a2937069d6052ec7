/* seed_step(), fixed_sum() and own_distance() in AVX2. */
#include "simd_avx2.h"

#include "seed_template.h"
