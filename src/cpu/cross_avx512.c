/* cross_tile() in AVX-512. */
#include "simd_avx512.h"

#define CROSS_ROWS 8
#define CROSS_VECTORS 2
#include "cross_template.h"
