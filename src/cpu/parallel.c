#include "parallel.h"

#include <omp.h>
#include <stdatomic.h>

#if defined(__SANITIZE_THREAD__)
/* ThreadSanitizer does not see libgomp's fork and join: tell it, so that it reports races of qem and none of libgomp. */
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define JOIN_ACQUIRE(address) __tsan_acquire(address)
#define JOIN_RELEASE(address) __tsan_release(address)
#define UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define JOIN_ACQUIRE(address) ((void)(address))
#define JOIN_RELEASE(address) ((void)(address))
#define UNSEEN
#endif

typedef struct job {
    qem_task task;
    void *argument;
    uint64_t count, grain;
    _Atomic uint64_t next;
} job;

static void work(job *j, uint32_t thread)
{
    JOIN_ACQUIRE(j);
    for (;;) {
        const uint64_t begin = atomic_fetch_add_explicit(&j->next, j->grain, memory_order_relaxed);
        if (begin >= j->count) break;
        const uint64_t left = j->count - begin;
        j->task(j->argument, begin, begin + (left < j->grain ? left : j->grain), thread);
    }
    JOIN_RELEASE(j);
}

UNSEEN static void fork_join(job *j, int threads)
{
#pragma omp parallel num_threads(threads)
    work(j, (uint32_t)omp_get_thread_num());
}

void qem_parallel_for(uint32_t threads, uint64_t count, uint64_t grain, qem_task task, void *argument)
{
    if (count == 0) return;
    if (grain == 0) grain = 1;
    const uint64_t pieces = (count - 1) / grain + 1;
    if (pieces < threads) threads = (uint32_t)pieces;
    job j = { task, argument, count, grain, 0 };
    if (threads <= 1) {
        work(&j, 0);
        return;
    }
    JOIN_RELEASE(&j);
    fork_join(&j, (int)threads);
    JOIN_ACQUIRE(&j);
}
