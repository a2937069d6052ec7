/* decode_blocks() in AVX-512. */
#include "simd_avx512.h"

#include "decode_blocks_template.h"
