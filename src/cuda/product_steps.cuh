/* The steps of a stage for products (host); steps.cuh says which are taken. */
#ifndef QEM_CUDA_PRODUCT_STEPS_CUH
#define QEM_CUDA_PRODUCT_STEPS_CUH

#include "product.cuh"
#include "steps.cuh"

static inline qem_product_steps qem_product_steps_of(const qem_cuda_stage &stage)
{
    const qem_cuda_step *first, *columns;
    qem_product_steps steps = qem_product_steps();
    (void)split_steps(stage, &first, &columns);
    if (first) {
        steps.has_first = 1;
        steps.scale = first->scale;
        steps.mean = first->mean;
        steps.axis = first->axis;
        steps.of_unit = QEM_RUN_QUADS - 1;
        if (first->axis == QEM_AXIS_BLOCK) { /* runs begin at multiples of QEM_RUN */
            steps.units_per_row = (uint32_t)first->units_per_row; /* at most the fours of a row */
            steps.block_reciprocal = first->block_reciprocal;
            while (first->block % (4 * (steps.of_unit + 1))) steps.of_unit /= 2;
        }
    }
    if (columns) {
        steps.has_columns = 1;
        steps.column_scale = (const float4 *)columns->scale;
        steps.column_mean = (const float4 *)columns->mean;
    }
    return steps;
}

#endif
