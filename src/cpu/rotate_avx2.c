/* rotate_rows() in AVX2: 12 sums in registers. */
#include "simd_avx2.h"

#define ROTATE_ROWS 6
#define ROTATE_PARTS 2

#include "rotate_template.h"
