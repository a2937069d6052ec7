/* The one place where threads are started. */
#ifndef QEM_CPU_PARALLEL_H
#define QEM_CPU_PARALLEL_H

#include <stdint.h>

/* Items begin .. end-1, by thread number `thread` < threads. */
typedef void (*qem_task)(void *argument, uint64_t begin, uint64_t end, uint32_t thread);

/*
 * Runs task over items 0 .. count-1 in pieces of `grain` items that start at multiples of grain, handed out as threads ask
 * for them. Thread 0 is the caller. The result must not depend on which thread gets which piece.
 */
void qem_parallel_for(uint32_t threads, uint64_t count, uint64_t grain, qem_task task, void *argument);

#endif
