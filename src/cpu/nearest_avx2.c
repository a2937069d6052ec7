/* nearest() in AVX2: 16 points x 4 centroids a tile, 8 accumulators of the 16 registers. */
#include "simd_avx2.h"

#define TILE_VECTORS 2
#define GRAIN_1_NARROW 8
#define GRAIN_1_WIDE 32
#define GRAIN_16 64

#include "nearest_template.h"
