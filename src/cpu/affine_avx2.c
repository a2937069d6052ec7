/* affine() in AVX2. */
#include "simd_avx2.h"

#include "affine_template.h"
