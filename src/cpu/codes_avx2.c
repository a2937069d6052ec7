/* scalar_codes() and unpack() in AVX2. */
#include "simd_avx2.h"

#define COUNT_LIMIT 20

#include "codes_template.h"
