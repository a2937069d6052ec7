#include "standardize.h"
#include "outliers.h"
#include <string.h>
#define NO { (void)0; return QEM_ERR_INTERNAL; }
#pragma GCC diagnostic ignored "-Wunused-parameter"
qem_status qem_standardize_search(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols, qem_affine *steps, uint32_t count, const float *levels, uint64_t k) NO
