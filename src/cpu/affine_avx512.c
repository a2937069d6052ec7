/* affine() in AVX-512. */
#include "simd_avx512.h"

#include "affine_template.h"
