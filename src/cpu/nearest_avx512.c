/* nearest() in AVX-512: 64 points x 4 centroids a tile, 16 accumulators of the 32 registers. */
#include "simd_avx512.h"

#define TILE_VECTORS 4
#define GRAIN_1_NARROW 12
#define GRAIN_1_WIDE 48
#define GRAIN_16 64

#include "nearest_template.h"
