/* lookup() in AVX-512. */
#include "simd_avx512.h"

#include "lookup_template.h"
