#ifndef O_H
#define O_H
#include "../backend.h"
qem_status qem_outliers_take(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols, const qem_recipe *recipe, qem_dtype source, float *cleaned, qem_outliers *out);
void qem_outliers_shape(const qem_recipe *recipe, uint64_t rows, uint64_t cols, qem_dtype source, uint64_t *count, qem_dtype *dtype);
void qem_outliers_release(const qem_allocator *allocator, qem_outliers *outliers);
#endif
