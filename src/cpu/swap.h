/* The tree of leaves of QET's swap, shared by the forward pass, the inverse and the fused decoder. */
#ifndef QEM_CPU_SWAP_H
#define QEM_CPU_SWAP_H

#include <stdint.h>

#include "kernels.h"

#define QEM_MOST_LEVELS 8
#define QEM_MOST_NODES ((1u << QEM_MOST_LEVELS) - 1)

/* One matrix that a level splits: where it lies in the row, and where its map begins. */
typedef struct qem_swap_node {
    uint64_t offset, width; /* columns */
    uint64_t first_bit;     /* row i's bits begin at first_bit + i * (width / 2) */
} qem_swap_node;

typedef struct qem_swap_tree {
    uint32_t levels;
    qem_swap_node node[QEM_MOST_NODES]; /* level i (from 0) has nodes 2^i - 1 .. 2^(i+1) - 2, in the order of their leaves */
    uint64_t total_bits;
} qem_swap_tree;

void qem_swap_tree_make(qem_swap_tree *tree, uint64_t rows, uint64_t cols, uint32_t levels);

/* 64-bit words of map bits that the widest node of a row needs. */
uint64_t qem_swap_row_words(uint64_t cols);

/* Inverse of all levels for row i: `ordered` is read and overwritten, `spare` holds cols floats, bits qem_swap_row_words words;
 * returns whichever of the two holds the restored row. */
float *qem_swap_restore_row(const qem_cpu_kernels *kernels, const qem_swap_tree *tree, const uint8_t *map, uint64_t row,
                            float *ordered, float *spare, uint64_t *bits);

#endif
