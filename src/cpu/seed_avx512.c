/* seed_step(), fixed_sum() and own_distance() in AVX-512. */
#include "simd_avx512.h"

#include "seed_template.h"
