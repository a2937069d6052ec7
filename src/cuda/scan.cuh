/* Exclusive sums of 32-bit counters in device memory. */
#ifndef QEM_CUDA_SCAN_CUH
#define QEM_CUDA_SCAN_CUH

#include "backend.cuh"

/* counts[i] becomes the sum of those before it, modulo 2^32. */
qem_status qem_cuda_exclusive_sums(qem_cuda_call &call, uint32_t *counts, uint64_t count);

#endif
