/* decode_tile() in AVX2. */
#include "simd_avx2.h"

#include "decode_template.h"
