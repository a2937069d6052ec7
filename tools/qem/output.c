/* Output paths checked before long work, and small text files that appear whole or not at all. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cli_check_output(const char *path)
{
    const char *slash = strrchr(path, '/');
    struct stat info;
    char *directory;
    int result = CLI_OK;

    if (path[0] == 0) return cli_fail("the name of the output file is empty");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return cli_fail("cannot write %s: it is a directory", path);
    directory = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (directory == NULL) return cli_fail("out of memory");
    if (access(directory, W_OK | X_OK) != 0) result = cli_fail("cannot write %s: %s", path, strerror(errno));
    free(directory);
    return result;
}

int cli_text_open(const char *path, cli_text_file *file)
{
    const char *slash = strrchr(path, '/');
    int directory = slash == NULL ? 0 : (int)(slash - path) + 1;
    size_t length = (size_t)directory + sizeof(".qem-XXXXXX");
    mode_t mask = umask(0);
    int descriptor;

    umask(mask);
    *file = (cli_text_file){ .path = path, .temporary = malloc(length) };
    if (file->temporary == NULL) return cli_fail("out of memory");
    snprintf(file->temporary, length, "%.*s.qem-XXXXXX", directory, path);
    descriptor = mkstemp(file->temporary);
    if (descriptor >= 0) {
        /* mkstemp makes private files; a result is as public as the user's umask says. */
        if (fchmod(descriptor, 0666 & ~mask) == 0) file->stream = fdopen(descriptor, "w");
        if (file->stream != NULL) return CLI_OK;
        int reason = errno;
        close(descriptor);
        unlink(file->temporary);
        errno = reason;
    }
    int result = cli_fail("cannot write %s: %s", path, strerror(errno));
    free(file->temporary);
    file->temporary = NULL;
    return result;
}

int cli_text_commit(cli_text_file *file)
{
    bool good = fflush(file->stream) == 0 && !ferror(file->stream) && fsync(fileno(file->stream)) == 0;
    int reason = errno;

    if (fclose(file->stream) != 0 && good) {
        good = false;
        reason = errno;
    }
    file->stream = NULL;
    if (good && rename(file->temporary, file->path) != 0) {
        good = false;
        reason = errno;
    }
    if (good) {
        free(file->temporary);
        file->temporary = NULL;
        return CLI_OK;
    }
    int result = cli_fail("cannot write %s: %s", file->path, strerror(reason));
    cli_text_abort(file);
    return result;
}

void cli_text_abort(cli_text_file *file)
{
    if (file->stream != NULL) fclose(file->stream);
    if (file->temporary != NULL) unlink(file->temporary);
    free(file->temporary);
    *file = (cli_text_file){ 0 };
}
