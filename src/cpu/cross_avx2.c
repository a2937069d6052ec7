/* cross_tile() in AVX2. */
#include "simd_avx2.h"

#define CROSS_ROWS 4
#define CROSS_VECTORS 1
#include "cross_template.h"
