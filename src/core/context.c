/* Error text, memory and progress of a context. */
#include "context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PROGRESS_INTERVAL 0.1 /* seconds between two calls of the callback */

qem_status qem_fail(qem_context *context, qem_status status, const char *format, ...)
{
    /* format into a copy first: an argument may be the old text */
    char text[QEM_ERROR_TEXT];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(context->error, text, sizeof text);
    return status;
}

qem_status qem_allocate(qem_context *context, uint64_t count, uint64_t size, void **pointer)
{
    *pointer = NULL;
    if (size != 0 && count > (SIZE_MAX / 2) / size)
        return qem_fail(context, QEM_ERR_MEMORY, "%llu x %llu bytes do not fit in this machine's address space",
                        (unsigned long long)count, (unsigned long long)size);
    const size_t bytes = (size_t)(count * size);
    *pointer = context->allocator.allocate(context->allocator.user, bytes ? bytes : 1);
    if (!*pointer)
        return qem_fail(context, QEM_ERR_MEMORY, "out of memory: %llu bytes could not be had", (unsigned long long)bytes);
    return QEM_OK;
}

qem_status qem_allocate_zero(qem_context *context, uint64_t count, uint64_t size, void **pointer)
{
    QEM_TRY(qem_allocate(context, count, size, pointer));
    memset(*pointer, 0, (size_t)(count * size));
    return QEM_OK;
}

void qem_release(qem_context *context, void *pointer)
{
    if (pointer) context->allocator.release(context->allocator.user, pointer);
}

double qem_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

qem_status qem_report_progress(qem_context *context, const char *phase, double fraction)
{
    if (!context->progress) return QEM_OK;
    const double now = qem_seconds();
    if (fraction > 0.0 && fraction < 1.0 && now - context->progress_last < PROGRESS_INTERVAL) return QEM_OK;
    context->progress_last = now;
    if (context->progress(context->progress_user, phase, fraction))
        return qem_fail(context, QEM_ERR_CANCELLED, "stopped by the progress callback during %s", phase);
    return QEM_OK;
}
