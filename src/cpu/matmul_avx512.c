/* Products in AVX-512: 4 x 4 outputs of a register each. */
#include "simd_avx512.h"

#define DOT_ROWS 4
#define DOT_BATCH 4

#include "matmul_template.h"
#include "matmul_tables_template.h"

void qem_product_kernels_avx512(qem_product_kernels *kernels)
{
    kernels->dot = QEM_SIMD(dot);
    kernels->dot_coded = QEM_SIMD(dot_coded);
    kernels->build_table = QEM_SIMD(build_table);
    kernels->build_table16 = QEM_SIMD(build_table16);
    kernels->table_sums16 = QEM_SIMD(table_sums16);
}
