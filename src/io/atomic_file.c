/*
 * Files that appear whole or not at all: written to a temporary name in the same directory, synced, renamed, and the
 * directory synced so that the rename too survives a crash. The old file stays as it was until the rename, also when it
 * is the very input that is mapped: the rename replaces the name, the mapping keeps the old bytes.
 */
#define _XOPEN_SOURCE 700 /* realpath */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/io.h"

/* Linux writes at most 2 GiB - 4096 bytes a call; smaller pieces also let a signal handler run. */
#define MOST_A_CALL ((uint64_t)1 << 30)

static qem_status system_fail(qem_context *context, const char *path, const char *what, int error)
{
    return qem_fail(context, QEM_ERR_IO, "%.400s: %s: %s", path, what, qem_show_errno(error).text);
}

static qem_status copy_text(qem_context *context, const char *text, size_t length, char **copy)
{
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, length + 1, 1, &memory));
    memcpy(memory, text, length);
    *copy = memory;
    (*copy)[length] = 0;
    return QEM_OK;
}

/* The directory part of a path: "." for a bare name, "/" for a name in the root. */
static qem_status directory_of(qem_context *context, const char *path, char **directory)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return copy_text(context, ".", 1, directory);
    return copy_text(context, path, slash == path ? 1 : (size_t)(slash - path), directory);
}

/*
 * The file that a path really means. A symbolic link is followed, so that the link stays and its target is replaced.
 * *mode: 0 when there is no such file yet.
 */
static qem_status resolve(qem_context *context, const char *path, char **target, mode_t *mode)
{
    struct stat info;
    *mode = 0;
    if (stat(path, &info) != 0) {
        if (errno != ENOENT) return system_fail(context, path, "cannot be written", errno);
        if (lstat(path, &info) == 0)
            return qem_fail(context, QEM_ERR_IO, "%.400s: a symbolic link to a file that is not there", path);
        return copy_text(context, path, strlen(path), target);
    }
    *mode = info.st_mode;
    if (S_ISDIR(info.st_mode)) return system_fail(context, path, "cannot be written", EISDIR);
    if (access(path, W_OK) != 0) return system_fail(context, path, "cannot be written", errno);
    if (!S_ISREG(info.st_mode)) return copy_text(context, path, strlen(path), target);
    char *real = realpath(path, NULL);
    if (!real) return system_fail(context, path, "cannot be resolved", errno);
    qem_status status = copy_text(context, real, strlen(real), target);
    free(real);
    return status;
}

qem_status qem_atomic_check(qem_context *context, const char *path)
{
    char *target = NULL, *directory = NULL;
    mode_t mode = 0;
    if (!*path || path[strlen(path) - 1] == '/')
        return qem_fail(context, QEM_ERR_IO, "'%.400s': not the name of a file", path);
    QEM_TRY(resolve(context, path, &target, &mode));
    qem_status status = QEM_OK;
    if (mode == 0 || S_ISREG(mode)) {
        status = directory_of(context, target, &directory);
        if (status == QEM_OK && access(directory, W_OK | X_OK) != 0)
            status = system_fail(context, path, "its directory cannot be written", errno);
    }
    qem_release(context, directory);
    qem_release(context, target);
    return status;
}

/* O_EXCL decides between two writers of one name; the rest only makes a collision rare. */
static int create_temporary(const char *directory, char *name, size_t room)
{
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int length = snprintf(name, room, "%s/.qem-%ld-%lx%lx-%u.tmp", directory, (long)getpid(),
                              (unsigned long)now.tv_sec, (unsigned long)now.tv_nsec, attempt);
        if (length < 0 || (size_t)length >= room) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST) return descriptor;
    }
    return -1;
}

static qem_status open_temporary(qem_atomic_file *file, mode_t mode)
{
    void *memory = NULL;
    QEM_TRY(directory_of(file->context, file->target, &file->directory));
    size_t room = strlen(file->directory) + 96;
    QEM_TRY(qem_allocate(file->context, room, 1, &memory));
    file->descriptor = create_temporary(file->directory, memory, room);
    if (file->descriptor < 0) {
        int error = errno;
        qem_release(file->context, memory);
        return system_fail(file->context, file->path, "no file can be made beside it", error);
    }
    file->temporary = memory;
    /* Who may read the file stays as it was; where a file system refuses that, it is no reason to fail. */
    if (mode != 0 && fchmod(file->descriptor, mode & 0777) != 0) errno = 0;
    return QEM_OK;
}

qem_status qem_atomic_open(qem_context *context, const char *path, qem_atomic_file *file)
{
    mode_t mode = 0;
    *file = (qem_atomic_file){ context, path, NULL, NULL, NULL, -1 };
    QEM_TRY(qem_atomic_check(context, path));
    QEM_TRY(resolve(context, path, &file->target, &mode));
    qem_status status = QEM_OK;
    if (mode == 0 || S_ISREG(mode)) {
        status = open_temporary(file, mode);
    } else {
        file->descriptor = open(path, O_WRONLY | O_CLOEXEC);
        if (file->descriptor < 0) status = system_fail(context, path, "cannot be opened", errno);
    }
    if (status != QEM_OK) qem_atomic_abort(file);
    return status;
}

qem_status qem_atomic_write(qem_atomic_file *file, const void *data, uint64_t bytes)
{
    const char *from = data;
    while (bytes > 0) {
        ssize_t written = write(file->descriptor, from, (size_t)(bytes < MOST_A_CALL ? bytes : MOST_A_CALL));
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return system_fail(file->context, file->path, "cannot be written", errno);
        if (written == 0) return system_fail(file->context, file->path, "cannot be written", ENOSPC);
        from += written;
        bytes -= (uint64_t)written;
    }
    return QEM_OK;
}

/* Pipes, devices and some file systems have nothing to sync and say so. */
static int sync_descriptor(int descriptor)
{
    if (fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS) return 0;
    return -1;
}

static qem_status sync_directory(qem_context *context, const qem_atomic_file *file)
{
    int descriptor = open(file->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return QEM_OK; /* a directory that may be written but not read; the file itself is there */
    int failed = sync_descriptor(descriptor) != 0;
    int error = errno;
    close(descriptor);
    return failed ? system_fail(context, file->path, "written, but its directory cannot be synced", error) : QEM_OK;
}

static qem_status finish(qem_atomic_file *file)
{
    if (sync_descriptor(file->descriptor) != 0)
        return system_fail(file->context, file->path, "cannot be synced", errno);
    int descriptor = file->descriptor;
    file->descriptor = -1;
    if (close(descriptor) != 0) return system_fail(file->context, file->path, "cannot be closed", errno);
    if (!file->temporary) return QEM_OK;
    if (rename(file->temporary, file->target) != 0)
        return system_fail(file->context, file->path, "cannot be renamed", errno);
    qem_release(file->context, file->temporary);
    file->temporary = NULL;
    return sync_directory(file->context, file);
}

qem_status qem_atomic_commit(qem_atomic_file *file)
{
    qem_status status = finish(file);
    qem_atomic_abort(file);
    return status;
}

void qem_atomic_abort(qem_atomic_file *file)
{
    if (file->descriptor >= 0) close(file->descriptor);
    if (file->temporary) unlink(file->temporary);
    qem_release(file->context, file->temporary);
    qem_release(file->context, file->directory);
    qem_release(file->context, file->target);
    *file = (qem_atomic_file){ file->context, file->path, NULL, NULL, NULL, -1 };
}
