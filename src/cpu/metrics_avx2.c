/* find_nonfinite(), extremes(), error_chunk() and sum_chunk() in AVX2. */
#include "simd_avx2.h"

#include "metrics_template.h"
