/* What the SIMD vocabularies and templates share. */
#ifndef QEM_CPU_SIMD_COMMON_H
#define QEM_CPU_SIMD_COMMON_H

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Templates depend on it: `dim` arrives as a constant, and the loops over it are gone. */
#define QEM_INLINE static inline __attribute__((always_inline))

/* Before a loop over registers: an array of vectors stays in registers only if such loops are unrolled, also at -O2. */
#ifdef __clang__
#define QEM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QEM_UNROLL _Pragma("GCC unroll 32")
#endif

/* An array that was stored as a vector shall be loaded by elements: taking a vector apart in registers is slower. */
#define QEM_KEEP_IN_MEMORY(array) __asm__("" : "+m"(array))

/* A hint: the line at p, which need not be readable. */
QEM_INLINE void prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
QEM_INLINE void prefetch2(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); } /* into the L2 cache */

#endif
