/* rotate_rows() in AVX-512: 24 sums in registers. */
#include "simd_avx512.h"

#define ROTATE_ROWS 6
#define ROTATE_PARTS 4

#include "rotate_template.h"
