/* add() and the conversions in AVX-512. */
#include "simd_avx512.h"

#include "convert_template.h"
