/* The table of the kernels in AVX-512. */
#include "kernels.h"
#include "simd_kernels.h"

void qem_kernels_avx512(qem_cpu_kernels *kernels)
{
    kernels->nearest = qem_nearest_avx512;
    kernels->seed_step = qem_seed_step_avx512;
    kernels->fixed_sum = qem_fixed_sum_avx512;
    kernels->own_distance = qem_own_distance_avx512;
    kernels->weighted_step = qem_weighted_step_avx512;
    kernels->weighted_distance = qem_weighted_distance_avx512;
    kernels->half_norms = qem_half_norms_avx512;
    kernels->gather_points = qem_gather_points_avx512;
    kernels->scale_points = qem_scale_points_avx512;
    kernels->sum_points = qem_sum_points_avx512;
    kernels->scalar_codes = qem_scalar_codes_avx512;
    kernels->scale_errors = qem_scale_errors_avx512;
    kernels->unpack = qem_unpack_avx512;
    kernels->decode_tile = qem_decode_tile_avx512;
    kernels->store_rows = qem_store_rows_avx512;
    kernels->end_streaming = qem_end_streaming_avx512;
    kernels->pair_split = qem_pair_split_avx512;
    kernels->pair_merge = qem_pair_merge_avx512;
    kernels->affine = qem_affine_avx512;
    kernels->rotate_rows = qem_rotate_rows_avx512;
    kernels->add = qem_add_avx512;
    kernels->f32_to_f16 = qem_f32_to_f16_avx512;
    kernels->f32_to_bf16 = qem_f32_to_bf16_avx512;
    kernels->f16_to_f32 = qem_f16_to_f32_avx512;
    kernels->bf16_to_f32 = qem_bf16_to_f32_avx512;
    kernels->find_nonfinite = qem_find_nonfinite_avx512;
    kernels->extremes = qem_extremes_avx512;
    kernels->error_chunk = qem_error_chunk_avx512;
    kernels->sum_chunk = qem_sum_chunk_avx512;
    kernels->cross_tile = qem_cross_tile_avx512;
    kernels->lanes = 16;
    kernels->kd_split = qem_kd_split_avx512;
    kernels->seed_tiles = qem_seed_tiles_avx512;
    kernels->near_tiles = qem_near_tiles_avx512;
    kernels->nearest_tiles = qem_nearest_tiles_avx512;
    qem_product_kernels_avx512(&kernels->product);
}
