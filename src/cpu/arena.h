/* Takes aligned pieces from one block of memory; with base NULL it only adds up what they need. */
#ifndef QEM_CPU_ARENA_H
#define QEM_CPU_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct qem_arena {
    unsigned char *base;
    size_t used;
} qem_arena;

static inline size_t qem_round_up(uint64_t value, uint64_t multiple)
{
    return (size_t)((value + multiple - 1) / multiple * multiple);
}

static inline void *qem_take(qem_arena *arena, uint64_t count, size_t size)
{
    void *memory = arena->base ? arena->base + arena->used : NULL;
    arena->used += qem_round_up(count * size, 64);
    return memory;
}

#endif
