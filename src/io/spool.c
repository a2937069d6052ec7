/*
 * A file without a name beside the target: what a writer was given and may no longer borrow. Nobody can see it, and it is
 * gone with the process however that ends.
 */
#define _GNU_SOURCE /* O_TMPFILE */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/io.h"

#define COPY_BYTES ((uint64_t)1 << 20)

static qem_status system_fail(qem_context *context, const qem_io_spool *spool, const char *what, int error)
{
    return qem_fail(context, QEM_ERR_IO, "%.400s: a temporary file beside it %s: %s", spool->path, what,
                    qem_show_errno(error).text);
}

/* For file systems that know no files without a name: a name that is taken away at once. */
static int open_and_unlink(char *name)
{
    int descriptor = mkstemp(name);
    if (descriptor >= 0) unlink(name);
    return descriptor;
}

qem_status qem_spool_open(qem_context *context, const char *path, qem_io_spool *spool)
{
    const char *slash = strrchr(path, '/');
    const char *directory = slash ? path : ".";
    int length = !slash ? 1 : slash == path ? 1 : (int)(slash - path);
    char name[4096 + 32];
    *spool = (qem_io_spool){ path, -1, 0 };
    if (snprintf(name, sizeof name, "%.*s", length, directory) >= 4096)
        return system_fail(context, spool, "cannot be made", ENAMETOOLONG);
    spool->descriptor = open(name, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (spool->descriptor < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        strcat(name, "/.qem-spool-XXXXXX");
        spool->descriptor = open_and_unlink(name);
    }
    return spool->descriptor < 0 ? system_fail(context, spool, "cannot be made", errno) : QEM_OK;
}

qem_status qem_spool_write(qem_context *context, qem_io_spool *spool, const void *data, uint64_t bytes)
{
    const char *from = data;
    while (bytes > 0) {
        ssize_t written = pwrite(spool->descriptor, from, (size_t)(bytes < COPY_BYTES ? bytes : COPY_BYTES),
                                 (off_t)spool->bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return system_fail(context, spool, "cannot be written", written < 0 ? errno : ENOSPC);
        from += written;
        bytes -= (uint64_t)written;
        spool->bytes += (uint64_t)written;
    }
    return QEM_OK;
}

static qem_status copy_pieces(qem_context *context, const qem_io_spool *spool, uint64_t offset, uint64_t bytes, void *buffer,
                              qem_atomic_file *file)
{
    while (bytes > 0) {
        ssize_t got = pread(spool->descriptor, buffer, (size_t)(bytes < COPY_BYTES ? bytes : COPY_BYTES), (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return system_fail(context, spool, "cannot be read again", got < 0 ? errno : EIO);
        QEM_TRY(qem_atomic_write(file, buffer, (uint64_t)got));
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return QEM_OK;
}

qem_status qem_spool_copy(qem_context *context, const qem_io_spool *spool, uint64_t offset, uint64_t bytes,
                          qem_atomic_file *file)
{
    void *buffer = NULL;
    QEM_TRY(qem_allocate(context, COPY_BYTES, 1, &buffer));
    qem_status status = copy_pieces(context, spool, offset, bytes, buffer, file);
    qem_release(context, buffer);
    return status;
}

void qem_spool_close(qem_io_spool *spool)
{
    if (spool->path && spool->descriptor >= 0) close(spool->descriptor);
    *spool = (qem_io_spool){ NULL, -1, 0 };
}
