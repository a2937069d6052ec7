/* scale_errors() in AVX2. */
#include "simd_avx2.h"

#include "scale_search_template.h"
