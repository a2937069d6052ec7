/* kd_split() in AVX-512. */
#include "simd_avx512.h"

#include "kdsplit_template.h"
