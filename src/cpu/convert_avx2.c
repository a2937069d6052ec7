/* add() and the conversions in AVX2. */
#include "simd_avx2.h"

#include "convert_template.h"
