/* scalar_codes() and unpack() in AVX-512. */
#include "simd_avx512.h"

#define COUNT_LIMIT 4

#include "codes_template.h"
