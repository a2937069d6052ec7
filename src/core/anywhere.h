/* In front of a function of this room that kernels call, too. */
#ifndef QEM_CORE_ANYWHERE_H
#define QEM_CORE_ANYWHERE_H

#ifdef __CUDACC__
#define QEM_ANYWHERE __host__ __device__
#else
#define QEM_ANYWHERE
#endif

#endif
