/* pair_split() and pair_merge() in AVX-512. */
#include "simd_avx512.h"

#include "swap_template.h"
