/* The context as every room inside the library sees it: who computes, with which memory, and the text of the last error. */
#ifndef QEM_CORE_CONTEXT_H
#define QEM_CORE_CONTEXT_H

#include <qem/qem.h>

#define QEM_ERROR_TEXT 1024

struct qem_backend; /* backend.h */

struct qem_context {
    qem_device device;
    qem_isa isa;             /* level really used, never AUTO */
    uint32_t threads;        /* never 0 */
    uint64_t seed;
    qem_allocator allocator; /* both functions set */
    qem_progress progress;   /* may be NULL */
    void *progress_user;
    const struct qem_backend *backend;
    const void *kernels;     /* the CPU's table of kernels for `isa` (cpu/kernels.h) */
    void *device_state;      /* what a GPU's backend keeps (cuda/backend.cuh), or NULL */
    double progress_last;    /* when the callback was called last, seconds */
    char error[QEM_ERROR_TEXT];
};

/* Sets the text of the last error (printf style) and returns `status`: return qem_fail(context, QEM_ERR_..., "..."); */
__attribute__((format(printf, 3, 4))) qem_status qem_fail(qem_context *context, qem_status status, const char *format, ...);

/* Memory by the context's allocator, aligned to 64. qem_allocate(0 bytes) gives a valid pointer. On failure *pointer is
 * NULL, the text is set and MEMORY returned. count*size is checked for overflow. */
qem_status qem_allocate(qem_context *context, uint64_t count, uint64_t size, void **pointer);
qem_status qem_allocate_zero(qem_context *context, uint64_t count, uint64_t size, void **pointer);
void qem_release(qem_context *context, void *pointer); /* NULL is ignored */

/* Calls the progress callback at most some times a second (always at 0 and 1); CANCELLED when it asks to stop. */
qem_status qem_report_progress(qem_context *context, const char *phase, double fraction);

/* Seconds of a monotonic clock. */
double qem_seconds(void);

#define QEM_TRY(call)                                   \
    do {                                                \
        qem_status qem_try_status_ = (call);            \
        if (qem_try_status_ != QEM_OK) return qem_try_status_; \
    } while (0)

#endif
