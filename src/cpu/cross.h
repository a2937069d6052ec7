/* Panels of the cross product a^T b: rows of doubles, CROSS_A columns of a and CROSS_B columns of b wide. */
#ifndef QEM_CPU_CROSS_H
#define QEM_CPU_CROSS_H

#define QEM_CROSS_A 8
#define QEM_CROSS_B 16

#endif
