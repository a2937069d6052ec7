/* find_nonfinite(), extremes(), error_chunk() and sum_chunk() in AVX-512. */
#include "simd_avx512.h"

#include "metrics_template.h"
