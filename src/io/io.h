/*
 * What the files of src/io share. A file is mapped once, checked once when it is opened and never changed afterwards,
 * so every later call only reads and threads may share it. Nothing here knows a method or a backend.
 */
#ifndef QEM_IO_IO_H
#define QEM_IO_IO_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include <qem/qem.h>

#include "core/artifact.h"
#include "core/context.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "qem reads and writes little-endian files by their bytes; the conversions of a big-endian host are not written"
#endif

#define QEM_IO_MAX_RANK 8
/* The limit of qem_view: products of indices and strides then stay far from 2^64. */
#define QEM_IO_MAX_ELEMENTS ((uint64_t)1 << 48)
/* The reference implementation of safetensors refuses longer headers: nobody else could read such a file. */
#define QEM_IO_MAX_HEADER 100000000u
#define QEM_IO_SLACK QEM_STREAM_SLACK
/* The newest format. A file says 1 as long as nothing in it is newer than that, so that older readers can have it. */
#define QEM_IO_FORMAT_VERSION 2
#define QEM_IO_ARTIFACT_KEY "qem.artifact."
#define QEM_IO_VERSION_KEY "qem.version"
/* The checksum of the metadata text stands at its very front, so that it covers bytes and not a re-serialisation. */
#define QEM_IO_SELF_PREFIX "{\"self\":\""
#define QEM_IO_SELF_PREFIX_BYTES 9
#define QEM_IO_HEX_BYTES 16

typedef struct qem_io_tensor {
    const char *name;
    qem_dtype dtype;
    uint32_t rank;
    int of_artifact;
    uint64_t shape[QEM_IO_MAX_RANK];
    const uint8_t *data; /* NULL when the elements do not lie in row-major order without gaps */
    uint64_t bytes;
} qem_io_tensor;

typedef struct qem_io_artifact {
    const char *name;
    const char *text; /* the JSON text of __metadata__, NUL-terminated */
    size_t length;
} qem_io_artifact;

struct qem_file {
    qem_allocator allocator;
    qem_file_kind kind;
    char *path; /* for error texts only, shortened if it is long */
    char *stem;
    const uint8_t *data;
    uint64_t bytes;
    int mapped;
    char *strings; /* names and texts of a safetensors file */
    uint32_t tensor_count;
    qem_io_tensor *tensors;        /* in the order of their data */
    const qem_io_tensor **by_name; /* safetensors only: sorted by strcmp */
    uint32_t artifact_count;
    qem_io_artifact *artifacts;
    qem_view matrix; /* npy, fvecs, bvecs */
};

/* Opens a file that lies in memory, as if `name` were its path. `data` is borrowed until the file is closed. */
qem_status qem_file_open_memory(qem_context *context, const char *name, const void *data, size_t bytes,
                                qem_file **file);

/* Each fills the tensors of a file whose bytes are there already. */
qem_status qem_npy_parse(qem_context *context, qem_file *file);
qem_status qem_vecs_parse(qem_context *context, qem_file *file);
qem_status qem_safetensors_parse(qem_context *context, qem_file *file);
/* Finds the artifacts named in `metadata` and marks the tensors that belong to them. */
qem_status qem_artifact_index(qem_context *context, qem_file *file, const json_t *metadata, char *strings);
/* The one tensor of an npy, fvecs or bvecs file; file->matrix must be filled. */
qem_status qem_file_set_matrix(qem_context *context, qem_file *file, int row_major);

const qem_io_tensor *qem_file_find(const qem_file *file, const char *name);

/* "F32" and so on; NULL and QEM_DTYPE_NONE for unknown ones. */
const char *qem_safetensors_type(qem_dtype dtype);
qem_dtype qem_safetensors_type_from(const char *name);

/* A copy of `text` that fits into one line of an error message: shortened, control characters replaced. */
#define QEM_IO_SHOWN 112
typedef struct qem_io_shown {
    char text[QEM_IO_SHOWN];
} qem_io_shown;
qem_io_shown qem_show(const char *text);
qem_io_shown qem_show_bytes(const void *text, size_t bytes);
/* The system's reason for `error`, without the locks and global buffers of strerror. */
qem_io_shown qem_show_errno(int error);
/* A copy of a path, for error texts: the end of a long one. */
qem_status qem_copy_path(qem_context *context, const char *path, char **copy);
/* 16 lower-case hexadecimal digits of the XXH3-64 of the bytes, and a NUL. */
void qem_checksum(const void *data, size_t bytes, char hex[QEM_IO_HEX_BYTES + 1]);
int qem_checksum_matches(const void *data, size_t bytes, const char *hex);

/* Ends a string that json_dumps returned; the host may have given jansson functions other than malloc and free. */
void qem_json_free(void *text);

/* Typed access to the metadata of one artifact; every error names file, artifact and key. */
typedef struct qem_io_reader {
    qem_context *context;
    const qem_file *file;
    const qem_io_artifact *entry;
} qem_io_reader;
__attribute__((format(printf, 3, 4)))
qem_status qem_reader_fail(const qem_io_reader *reader, qem_status status, const char *format, ...);
qem_status qem_read_member(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value);
qem_status qem_read_object(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value);
qem_status qem_read_array(const qem_io_reader *reader, const json_t *object, const char *key, json_t **value);
qem_status qem_read_u64(const qem_io_reader *reader, const json_t *object, const char *key, uint64_t least,
                        uint64_t most, uint64_t *value);
qem_status qem_read_u32(const qem_io_reader *reader, const json_t *object, const char *key, uint32_t least,
                        uint32_t most, uint32_t *value);
qem_status qem_read_real(const qem_io_reader *reader, const json_t *object, const char *key, double *value);
qem_status qem_read_string(const qem_io_reader *reader, const json_t *object, const char *key, const char **value);
qem_status qem_read_dtype(const qem_io_reader *reader, const json_t *object, const char *key, qem_dtype *value);
/* A member that may be missing: *value stays as it is then. */
qem_status qem_read_optional_u32(const qem_io_reader *reader, const json_t *object, const char *key, uint32_t least,
                                 uint32_t most, uint32_t *value);
qem_status qem_read_flag(const qem_io_reader *reader, const json_t *object, const char *key, int *value);
/* One of `count` words; *value is its place among them. */
qem_status qem_read_word(const qem_io_reader *reader, const json_t *object, const char *key, const char *const *words,
                         uint32_t count, uint32_t *value);

/*
 * A metadata text as it is built. A json_* call that fails for want of memory gives NULL, and storing a NULL fails: one flag
 * at the end is enough. `version` is the oldest format whose readers understand all that was put.
 */
typedef struct qem_io_builder {
    int failed;
    int version;
} qem_io_builder;
void qem_json_put(qem_io_builder *builder, json_t *object, const char *key, json_t *value);
/* The same for a key that readers of format 1 do not know and would pass over. */
void qem_json_put_new(qem_io_builder *builder, json_t *object, const char *key, json_t *value);
json_t *qem_json_real(double value); /* null for NaN and infinity */
json_t *qem_json_whole(uint64_t value);

/* A recipe without its method: keys of format 1 always, newer ones where they are not at their defaults. */
json_t *qem_recipe_object(qem_io_builder *builder, const qem_recipe *recipe);
/* The method and recipe of an artifact, with those of further layers. */
qem_status qem_read_recipe(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact);

/* What a file claims about layers, outliers and one stage, in limits within which no size that follows from it overflows. */
qem_status qem_read_layers(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact);
qem_status qem_read_outliers(const qem_io_reader *reader, const json_t *root, qem_artifact *artifact);
qem_status qem_read_stage(const qem_io_reader *reader, const json_t *object, const qem_artifact *artifact, qem_stage *stage,
                          int *has_group_bits);

/* The metadata text of an artifact; the caller ends it with qem_release. *version: the oldest format that has all of it. */
qem_status qem_artifact_text(qem_context *context, const qem_artifact *artifact, char **text, int *version);
/* The words of the metadata, by number. */
#define QEM_IO_KINDS 4
#define QEM_IO_TABLES 2
#define QEM_IO_AXES 4
extern const char *const qem_io_kind_words[QEM_IO_KINDS];   /* qem_codebook_kind */
extern const char *const qem_io_table_words[QEM_IO_TABLES]; /* qem_table */
extern const char *const qem_io_axis_words[QEM_IO_AXES];    /* qem_axis */

/*
 * A file that appears under its final name whole or not at all. A target that is no regular file (/dev/null, a pipe) is
 * written in place, because a rename would replace the device itself.
 */
typedef struct qem_atomic_file {
    qem_context *context;
    const char *path; /* as the caller named it */
    char *target;     /* symbolic links resolved */
    char *directory;  /* of the target: had in time, because after the rename nothing may fail for want of memory */
    char *temporary;  /* NULL when written in place */
    int descriptor;
} qem_atomic_file;
/* Says before any work is done whether `path` could be written at all. */
qem_status qem_atomic_check(qem_context *context, const char *path);
qem_status qem_atomic_open(qem_context *context, const char *path, qem_atomic_file *file);
qem_status qem_atomic_write(qem_atomic_file *file, const void *data, uint64_t bytes);
/* Each ends the file; an error of commit leaves no temporary file and the old target as it was. */
qem_status qem_atomic_commit(qem_atomic_file *file);
void qem_atomic_abort(qem_atomic_file *file);

/* A file without a name in the directory of `path` (borrowed), to which bytes are added and from which they are copied. */
typedef struct qem_io_spool {
    const char *path; /* NULL: not open */
    int descriptor;
    uint64_t bytes;
} qem_io_spool;
qem_status qem_spool_open(qem_context *context, const char *path, qem_io_spool *spool);
qem_status qem_spool_write(qem_context *context, qem_io_spool *spool, const void *data, uint64_t bytes);
qem_status qem_spool_copy(qem_context *context, const qem_io_spool *spool, uint64_t offset, uint64_t bytes,
                          qem_atomic_file *file);
void qem_spool_close(qem_io_spool *spool);

#endif
