/* decode_blocks() in AVX2. */
#include "simd_avx2.h"

#include "decode_blocks_template.h"
