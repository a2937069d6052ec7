/* Opening, closing, listing and viewing files of every kind. */
#define _DEFAULT_SOURCE /* madvise */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io.h"

/* ---------------------------------------------------------------------------------------------- life of a file -- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int has_extension(const char *path, const char *extension)
{
    const char *base = base_name(path);
    const char *dot = strrchr(base, '.');
    return dot && dot != base && strcmp(dot, extension) == 0;
}

static qem_status copy_stem(qem_context *context, const char *path, char **stem)
{
    const char *base = base_name(path);
    const char *dot = strrchr(base, '.');
    size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    void *memory = NULL;
    QEM_TRY(qem_allocate(context, length + 1, 1, &memory));
    memcpy(memory, base, length);
    *stem = memory;
    (*stem)[length] = 0;
    return QEM_OK;
}

static qem_status new_file(qem_context *context, const char *path, qem_file **out)
{
    void *memory = NULL;
    QEM_TRY(qem_allocate_zero(context, 1, sizeof(qem_file), &memory));
    qem_file *file = memory;
    file->allocator = context->allocator;
    file->matrix = (qem_view)QEM_VIEW_INIT;
    qem_status status = qem_copy_path(context, path, &file->path);
    if (status == QEM_OK) status = copy_stem(context, path, &file->stem);
    if (status != QEM_OK) qem_file_close(&file);
    *out = file;
    return status;
}

static void release(const qem_file *file, void *pointer)
{
    if (pointer) file->allocator.release(file->allocator.user, pointer);
}

void qem_file_close(qem_file **handle)
{
    if (!handle || !*handle) return;
    qem_file *file = *handle;
    *handle = NULL;
    if (file->mapped) munmap((void *)(uintptr_t)file->data, file->bytes);
    release(file, file->path);
    release(file, file->stem);
    release(file, file->strings);
    release(file, file->tensors);
    release(file, (void *)file->by_name);
    release(file, file->artifacts);
    qem_allocator allocator = file->allocator;
    allocator.release(allocator.user, file);
}

void qem_file_discard(const qem_file *file)
{
    /* The mapping is private and only read, so nothing is lost; where the system refuses, nothing changes. */
    if (file && file->mapped) (void)madvise((void *)(uintptr_t)file->data, (size_t)file->bytes, MADV_DONTNEED);
}

/* --------------------------------------------------------------------------------------------------- opening ---- */

static qem_status unknown_kind(qem_context *context, const qem_file *file, const char *path)
{
    if (has_extension(path, ".npy"))
        return qem_fail(context, QEM_ERR_FORMAT, "%s: not a .npy file: it does not begin with \\x93NUMPY", file->path);
    if (has_extension(path, ".safetensors"))
        return qem_fail(context, QEM_ERR_FORMAT,
                        "%s: not a .safetensors file: no header that begins with '{' after 8 bytes of its length",
                        file->path);
    return qem_fail(context, QEM_ERR_FORMAT, "%s: neither its content nor its extension is that of a .npy, .fvecs, "
                    ".bvecs or .safetensors file", file->path);
}

/* The vecs formats have no magic, so their extension goes first: any number may stand in their first bytes. */
static qem_status parse(qem_context *context, qem_file *file, const char *path)
{
    if (file->bytes == 0) return qem_fail(context, QEM_ERR_FORMAT, "%s: the file is empty", file->path);
    if (has_extension(path, ".fvecs") || has_extension(path, ".bvecs")) {
        file->kind = has_extension(path, ".fvecs") ? QEM_FILE_FVECS : QEM_FILE_BVECS;
        return qem_vecs_parse(context, file);
    }
    if (file->bytes >= 6 && memcmp(file->data, "\x93NUMPY", 6) == 0) {
        file->kind = QEM_FILE_NPY;
        return qem_npy_parse(context, file);
    }
    if (file->bytes > 8 && file->data[8] == '{') {
        file->kind = QEM_FILE_SAFETENSORS;
        return qem_safetensors_parse(context, file);
    }
    return unknown_kind(context, file, path);
}

static qem_status io_error(qem_context *context, const qem_file *file, const char *what, int error)
{
    return qem_fail(context, QEM_ERR_IO, "%s: %s: %s", file->path, what, qem_show_errno(error).text);
}

static qem_status map_descriptor(qem_context *context, qem_file *file, int descriptor)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0) return io_error(context, file, "cannot be examined", errno);
    if (!S_ISREG(info.st_mode))
        return qem_fail(context, QEM_ERR_IO, "%s: %s, not a regular file", file->path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a device or pipe");
    if (info.st_size == 0) return QEM_OK;
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) return io_error(context, file, "cannot be mapped", errno);
    file->data = data;
    file->bytes = (uint64_t)info.st_size;
    file->mapped = 1;
    return QEM_OK;
}

static qem_status map_path(qem_context *context, qem_file *file, const char *path)
{
    /* O_NONBLOCK: opening a pipe without a writer would otherwise wait for ever before it can be refused. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return io_error(context, file, "cannot be opened", errno);
    qem_status status = map_descriptor(context, file, descriptor);
    close(descriptor);
    return status;
}

static qem_status check_open(qem_context *context, const char *path, qem_file **file)
{
    if (file) *file = NULL;
    if (!context) return QEM_ERR_ARGUMENT;
    if (!path || !file) return qem_fail(context, QEM_ERR_ARGUMENT, "opening a file: path and file must not be NULL");
    return QEM_OK;
}

qem_status qem_file_open(qem_context *context, const char *path, qem_file **out)
{
    QEM_TRY(check_open(context, path, out));
    qem_file *file = NULL;
    QEM_TRY(new_file(context, path, &file));
    qem_status status = map_path(context, file, path);
    if (status == QEM_OK) status = parse(context, file, path);
    if (status != QEM_OK) qem_file_close(&file);
    *out = file;
    return status;
}

qem_status qem_file_open_memory(qem_context *context, const char *name, const void *data, size_t bytes,
                                qem_file **out)
{
    QEM_TRY(check_open(context, name, out));
    qem_file *file = NULL;
    QEM_TRY(new_file(context, name, &file));
    file->data = data;
    file->bytes = bytes;
    qem_status status = parse(context, file, name);
    if (status != QEM_OK) qem_file_close(&file);
    *out = file;
    return status;
}

qem_status qem_file_set_matrix(qem_context *context, qem_file *file, int row_major)
{
    void *memory = NULL;
    QEM_TRY(qem_allocate_zero(context, 1, sizeof(qem_io_tensor), &memory));
    file->tensors = memory;
    file->tensor_count = 1;
    qem_io_tensor *tensor = file->tensors;
    tensor->name = file->stem;
    tensor->dtype = file->matrix.dtype;
    tensor->rank = 2;
    tensor->shape[0] = file->matrix.rows;
    tensor->shape[1] = file->matrix.cols;
    tensor->data = row_major ? file->matrix.data : NULL;
    tensor->bytes = file->matrix.rows * file->matrix.cols * qem_dtype_size(file->matrix.dtype);
    return QEM_OK;
}

/* --------------------------------------------------------------------------------------------------- listing ---- */

qem_file_kind qem_file_get_kind(const qem_file *file)
{
    return file ? file->kind : (qem_file_kind)0;
}

uint32_t qem_file_tensor_count(const qem_file *file)
{
    return file ? file->tensor_count : 0;
}

qem_status qem_file_tensor(const qem_file *file, uint32_t index, qem_tensor_info *info)
{
    if (!file || !info || info->size != sizeof *info || index >= file->tensor_count) return QEM_ERR_ARGUMENT;
    const qem_io_tensor *tensor = &file->tensors[index];
    info->dtype = tensor->dtype;
    info->name = tensor->name;
    info->rank = tensor->rank;
    info->of_artifact = tensor->of_artifact;
    memcpy(info->shape, tensor->shape, sizeof info->shape);
    info->data = tensor->data;
    info->bytes = tensor->bytes;
    return QEM_OK;
}

static int compare_name(const void *key, const void *element)
{
    return strcmp(key, (*(const qem_io_tensor *const *)element)->name);
}

const qem_io_tensor *qem_file_find(const qem_file *file, const char *name)
{
    if (file->tensor_count == 0) return NULL;
    if (!file->by_name) return strcmp(file->tensors[0].name, name) == 0 ? &file->tensors[0] : NULL;
    const qem_io_tensor **found =
        bsearch(name, file->by_name, file->tensor_count, sizeof *file->by_name, compare_name);
    return found ? *found : NULL;
}

uint32_t qem_file_artifact_count(const qem_file *file)
{
    return file ? file->artifact_count : 0;
}

const char *qem_file_artifact_name(const qem_file *file, uint32_t index)
{
    return file && index < file->artifact_count ? file->artifacts[index].name : NULL;
}

/* ---------------------------------------------------------------------------------------------------- viewing --- */

static int viewable(qem_dtype dtype)
{
    return dtype == QEM_DTYPE_F32 || dtype == QEM_DTYPE_F16 || dtype == QEM_DTYPE_BF16 || dtype == QEM_DTYPE_F64 ||
           dtype == QEM_DTYPE_U8;
}

static int is_matrix(const qem_io_tensor *tensor)
{
    return tensor->rank == 2 && viewable(tensor->dtype);
}

/* "'a', 'b' and 3 more": the first names of the tensors (matrices_only: of those that a NULL name may mean). */
static void list_names(const qem_file *file, int matrices_only, char *text, size_t room)
{
    const uint32_t most = 5;
    uint32_t count = 0;
    size_t used = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        const qem_io_tensor *tensor = &file->tensors[i];
        if (matrices_only && (tensor->of_artifact || !is_matrix(tensor))) continue;
        if (count++ >= most || used >= room) continue;
        int added = snprintf(text + used, room - used, "%s'%s'", count > 1 ? ", " : "", qem_show(tensor->name).text);
        used += added > 0 ? (size_t)added : 0;
    }
    if (count > most && used < room) snprintf(text + used, room - used, " and %u more", (unsigned)(count - most));
}

static qem_status only_matrix(qem_context *context, const qem_file *file, const qem_io_tensor **found)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < file->tensor_count; i++) {
        if (file->tensors[i].of_artifact || !is_matrix(&file->tensors[i])) continue;
        *found = &file->tensors[i];
        count++;
    }
    if (count == 1) return QEM_OK;
    if (count == 0 && file->artifact_count > 0)
        return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: holds %u quantized tensor(s) and no plain matrix", file->path,
                        (unsigned)file->artifact_count);
    if (count == 0)
        return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: holds no 2-D tensor of type f32, f16, bf16, f64 or u8",
                        file->path);
    char names[640];
    list_names(file, 1, names, sizeof names);
    return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: holds %u matrices, name one of them: %s", file->path,
                    (unsigned)count, names);
}

static qem_status named_matrix(qem_context *context, const qem_file *file, const char *name,
                               const qem_io_tensor **found)
{
    *found = qem_file_find(file, name);
    if (*found) return QEM_OK;
    char names[512];
    list_names(file, 0, names, sizeof names);
    return qem_fail(context, QEM_ERR_NOT_FOUND, "%s: no tensor '%s'; there is %s", file->path, qem_show(name).text,
                    file->tensor_count ? names : "none at all");
}

static qem_status check_matrix(qem_context *context, const qem_file *file, const qem_io_tensor *tensor)
{
    qem_io_shown name = qem_show(tensor->name);
    if (tensor->rank != 2)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': it has %u dimensions, a matrix has 2", file->path,
                        name.text, (unsigned)tensor->rank);
    if (!viewable(tensor->dtype))
        return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': type %s is not one of f32, f16, bf16, f64, u8",
                        file->path, name.text, qem_dtype_name(tensor->dtype));
    if (tensor->shape[0] == 0 || tensor->shape[1] == 0)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': a matrix of %llu x %llu elements is empty",
                        file->path, name.text, (unsigned long long)tensor->shape[0],
                        (unsigned long long)tensor->shape[1]);
    if (tensor->shape[0] > (QEM_IO_MAX_ELEMENTS - 1) / tensor->shape[1])
        return qem_fail(context, QEM_ERR_FORMAT, "%s: tensor '%s': 2^48 elements or more are not supported",
                        file->path, name.text);
    return QEM_OK;
}

qem_status qem_file_view(qem_context *context, const qem_file *file, const char *name, qem_view *view)
{
    if (!context) return QEM_ERR_ARGUMENT;
    if (!file || !view) return qem_fail(context, QEM_ERR_ARGUMENT, "qem_file_view: file and view must not be NULL");
    if (view->size != sizeof *view)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_file_view: view->size is %zu; use QEM_VIEW_INIT", view->size);
    const qem_io_tensor *tensor = NULL;
    QEM_TRY(name ? named_matrix(context, file, name, &tensor) : only_matrix(context, file, &tensor));
    QEM_TRY(check_matrix(context, file, tensor));
    if (file->kind != QEM_FILE_SAFETENSORS) {
        *view = file->matrix;
        view->file = file;
        return QEM_OK;
    }
    *view = (qem_view)QEM_VIEW_INIT;
    view->dtype = tensor->dtype;
    view->data = tensor->data;
    view->rows = tensor->shape[0];
    view->cols = tensor->shape[1];
    view->file = file;
    return QEM_OK;
}
