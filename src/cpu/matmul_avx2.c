/* Products in AVX2: 2 x 2 outputs of 2 registers each. */
#include "simd_avx2.h"

#define DOT_ROWS 2
#define DOT_BATCH 2

#include "matmul_template.h"
#include "matmul_tables_template.h"

void qem_product_kernels_avx2(qem_product_kernels *kernels)
{
    kernels->dot = QEM_SIMD(dot);
    kernels->dot_coded = QEM_SIMD(dot_coded);
    kernels->build_table = QEM_SIMD(build_table);
    kernels->build_table16 = QEM_SIMD(build_table16);
    kernels->table_sums16 = QEM_SIMD(table_sums16);
}
