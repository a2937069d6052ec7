/* pair_split() and pair_merge() in AVX2. */
#include "simd_avx2.h"

#include "swap_template.h"
