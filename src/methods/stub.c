#include "standardize.h"
#include "outliers.h"
#include <string.h>
#define NO { (void)0; return QEM_ERR_INTERNAL; }
#pragma GCC diagnostic ignored "-Wunused-parameter"
qem_status qem_standardize_search(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols, qem_affine *steps, uint32_t count, const float *levels, uint64_t k) NO
qem_status qem_outliers_take(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols, const qem_recipe *recipe, qem_dtype source, float *cleaned, qem_outliers *out) NO
void qem_outliers_shape(const qem_recipe *recipe, uint64_t rows, uint64_t cols, qem_dtype source, uint64_t *count, qem_dtype *dtype) { *count=0; *dtype=QEM_DTYPE_F32; }
void qem_outliers_release(const qem_allocator *allocator, qem_outliers *outliers) { }
