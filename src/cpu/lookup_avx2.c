/* lookup() in AVX2. */
#include "simd_avx2.h"

#include "lookup_template.h"
