/* kd_split() in AVX2. */
#include "simd_avx2.h"

#include "kdsplit_template.h"
