/* The levels of a scalar codebook as a binary search wants them. */
#ifndef QEM_CPU_SCALE_SEARCH_H
#define QEM_CPU_SCALE_SEARCH_H

#include <stdint.h>

#define QEM_SCALE_PAD 16     /* candidates are padded to a multiple of it */
#define QEM_LEVEL_PAD 16     /* entries that the tables have at least */

typedef struct qem_level_table {
    uint32_t size;           /* a power of two, at least 2 and the number of levels */
    const float *threshold;  /* [i]: z at or above it takes level i or a higher one; +inf past the last level */
    const float *level;      /* past the last level: that one */
} qem_level_table;

#endif
