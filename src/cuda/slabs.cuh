/* The limits of a slab (slabs.cu) that the kernel which works by slabs counts on. */
#ifndef QEM_CUDA_SLABS_CUH
#define QEM_CUDA_SLABS_CUH

#define QEM_CUDA_SLAB_BYTES 32768 /* of codebooks in the type of the output: several blocks a multiprocessor */
#define QEM_CUDA_SLAB_CHUNKS 32   /* of 16 bytes of a row */

#endif
