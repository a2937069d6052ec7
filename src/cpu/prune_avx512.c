/* seed_tiles() and nearest_tiles() in AVX-512. */
#include "simd_avx512.h"

#include "prune_template.h"
