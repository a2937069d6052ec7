/* scale_errors() in AVX-512. */
#include "simd_avx512.h"

#include "scale_search_template.h"
