/*
 * A fixed codebook made ready for searches: centred and scaled as spec section 4 asks, half norms, and, where pruning may pay,
 * the box tree. Points are searched in chunks: gathered, scaled, put in k-d order if that helps, labelled.
 */
#ifndef QEM_CPU_CODEBOOK_H
#define QEM_CPU_CODEBOOK_H

#include <stdatomic.h>

#include "../backend.h"
#include "kernels.h"

typedef struct qem_search_codebook {
    const qem_cpu_kernels *kernels;
    uint32_t width, tail_dim; /* components of a centroid; of the tail points that share it (0: there are none) */
    uint64_t k;
    size_t ldc, padded;       /* stride of c; k rounded up to QEM_CENTROID_PAD */
    float *c, *h[2];          /* [width][ldc]; [ldc] half norms over width and over tail_dim components */
    double *mean;             /* [width] */
    double scale, unit;       /* 2^-e, 2^e: scaled = (stored - mean) * scale */
    int pruned;               /* 1: there is a tree */
    qem_centroid_tree tree;
    _Atomic int brute;        /* 1: a sample has shown that pruning does not pay */
} qem_search_codebook;

/* Pieces for a codebook of k centroids that about `count` points are searched in. */
void qem_codebook_layout(qem_search_codebook *codebook, const qem_cpu_kernels *kernels, uint32_t width, uint32_t tail_dim,
                         uint64_t k, uint64_t count, qem_arena *arena);
/* Centre and scale of the codebook itself, so that a code does not depend on which other rows are encoded with it. */
void qem_codebook_own_frame(qem_search_codebook *codebook, const float *stored);
/* The centroids [k][width] under mean and scale. */
void qem_codebook_set(qem_search_codebook *codebook, const float *stored);
/* Half norms and, if pruned, the tree; `order`: 1 to order it anew. scratch: qem_codebook_scratch_words, may be NULL without. */
void qem_codebook_ready(qem_search_codebook *codebook, uint32_t threads, int order, uint32_t *scratch);
uint64_t qem_codebook_scratch_words(const qem_search_codebook *codebook);

/* Points that are worked on together, by one thread. */
typedef struct qem_chunk {
    uint32_t lanes;           /* 0: never in tiles */
    size_t count[2], padded[2]; /* full points, tail points */
    float *x[2];              /* [dim][padded] */
    uint32_t *ids[2];         /* [capacity] */
    uint32_t *labels, *previous, *order; /* [capacity]; order: place before the k-d order */
    uint32_t *scratch;        /* of the k-d order */
    qem_tiles tiles;
    uint32_t *candidates;
} qem_chunk;

/* Pieces for chunks of up to `capacity` points that are searched in codebooks up to `largest`. */
void qem_chunk_layout(qem_chunk *chunk, const qem_search_codebook *largest, size_t capacity, qem_arena *arena);
/* Reads and scales points begin .. end-1 of a problem; tail points go to the second part. */
void qem_chunk_gather(qem_chunk *chunk, const qem_search_codebook *codebook, const qem_subvectors *points,
                      const qem_problem *problem, uint64_t begin, uint64_t end);
/* Puts the full points, and their ids, in k-d order. */
void qem_chunk_order(qem_chunk *chunk, const qem_search_codebook *codebook);
/* Fits the boxes of the tiles; after it qem_chunk_tiles may be called. */
void qem_chunk_boxes(qem_chunk *chunk, const qem_search_codebook *codebook);
/* Labels of the full points by tiles, from `previous`; 0 if a sample says that brute force is cheaper (nothing is done then). */
int qem_chunk_tiles(qem_chunk *chunk, qem_search_codebook *codebook);
/* Labels of one part by brute force. */
void qem_chunk_brute(qem_chunk *chunk, const qem_search_codebook *codebook, int part);
/* Scales and labels `count` gathered points x[p * ld + i] by brute force; ld a multiple of QEM_POINT_PAD. */
void qem_codebook_search(const qem_search_codebook *codebook, float *x, size_t ld, size_t count, uint32_t *labels);

#endif
