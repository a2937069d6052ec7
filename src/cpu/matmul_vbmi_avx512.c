/* Sums of table entries by lookups of bytes, for CPUs with VBMI (dispatch.c). */
#include "simd_avx512.h"

#include "matmul_planes_template.h"

void qem_product_kernels_vbmi_avx512(qem_product_kernels *kernels)
{
    kernels->split_table = QEM_SIMD(split_table);
    kernels->turn_codes = QEM_SIMD(turn_codes);
    kernels->plane_sums = QEM_SIMD(plane_sums);
}
