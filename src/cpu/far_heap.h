/* The farthest of many points: a heap of keys whose top is the nearest of those kept. */
#ifndef QEM_CPU_FAR_HEAP_H
#define QEM_CPU_FAR_HEAP_H

#include "../core/half.h"

typedef struct qem_far_heap {
    uint64_t *key;
    uint64_t size, wanted;
} qem_far_heap;

/* Larger key = larger error, then lower index. */
static inline uint64_t qem_far_key(float d2, uint64_t index)
{
    return (uint64_t)qem_float_bits(d2) << 32 | (0xffffffffu - (uint32_t)index);
}

static inline uint32_t qem_far_index(uint64_t key)
{
    return 0xffffffffu - (uint32_t)key;
}

static inline void qem_far_sift_down(uint64_t *heap, uint64_t size, uint64_t at)
{
    for (;;) {
        uint64_t child = 2 * at + 1;
        if (child >= size) return;
        if (child + 1 < size && heap[child + 1] < heap[child]) child++;
        if (heap[at] <= heap[child]) return;
        const uint64_t swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

static inline void qem_far_sift_up(uint64_t *heap, uint64_t at)
{
    while (at > 0) {
        const uint64_t parent = (at - 1) / 2;
        if (heap[parent] <= heap[at]) return;
        const uint64_t swap = heap[at];
        heap[at] = heap[parent];
        heap[parent] = swap;
        at = parent;
    }
}

static inline void qem_far_add(qem_far_heap *heap, uint64_t key)
{
    if (heap->size < heap->wanted) {
        heap->key[heap->size] = key;
        qem_far_sift_up(heap->key, heap->size++);
    } else if (heap->size > 0 && key > heap->key[0]) {
        heap->key[0] = key;
        qem_far_sift_down(heap->key, heap->size, 0);
    }
}

/* Heap -> descending order. */
static inline void qem_far_sort(qem_far_heap *heap)
{
    for (uint64_t size = heap->size; size > 1;) {
        const uint64_t least = heap->key[0];
        heap->key[0] = heap->key[--size];
        heap->key[size] = least;
        qem_far_sift_down(heap->key, size, 0);
    }
}

#endif
