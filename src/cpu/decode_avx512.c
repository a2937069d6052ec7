/* decode_tile() in AVX-512. */
#include "simd_avx512.h"

#include "decode_template.h"
