/* seed_tiles() and nearest_tiles() in AVX2. */
#include "simd_avx2.h"

#include "prune_template.h"
