/* .fvecs and .bvecs (TEXMEX: SIFT, GIST): every row is an int32 d, then d little-endian f32 or d bytes. */
#include <string.h>

#include "io/io.h"

static int32_t row_dimension(const uint8_t *row)
{
    int32_t dimension;
    memcpy(&dimension, row, sizeof dimension);
    return dimension;
}

/* The format repeats d in every row; one that differs means a damaged file, and all later rows would be read askew. */
static qem_status check_rows(qem_context *context, const qem_file *file, uint64_t pitch, uint64_t rows, int32_t d)
{
    for (uint64_t i = 1; i < rows; i++) {
        int32_t found = row_dimension(file->data + i * pitch);
        if (found != d)
            return qem_fail(context, QEM_ERR_FORMAT, "%s: row %llu says it has %ld elements, row 0 has %ld", file->path,
                            (unsigned long long)i, (long)found, (long)d);
    }
    return QEM_OK;
}

qem_status qem_vecs_parse(qem_context *context, qem_file *file)
{
    const uint64_t size = file->kind == QEM_FILE_FVECS ? 4 : 1;
    if (file->bytes < 4)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: %llu bytes are too few for the length of a row", file->path,
                        (unsigned long long)file->bytes);
    int32_t d = row_dimension(file->data);
    if (d < 1)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: row 0 says it has %ld elements, 1 is the least", file->path,
                        (long)d);
    uint64_t pitch = 4 + (uint64_t)d * size;
    uint64_t rows = file->bytes / pitch;
    if (rows == 0 || file->bytes % pitch != 0)
        return qem_fail(context, QEM_ERR_FORMAT, "%s: truncated: %llu bytes are no multiple of a row of %llu bytes",
                        file->path, (unsigned long long)file->bytes, (unsigned long long)pitch);
    QEM_TRY(check_rows(context, file, pitch, rows, d));
    qem_view *view = &file->matrix;
    view->dtype = size == 4 ? QEM_DTYPE_F32 : QEM_DTYPE_U8;
    view->data = file->data + 4;
    view->rows = rows;
    view->cols = (uint64_t)d;
    view->row_pitch_bytes = pitch;
    return qem_file_set_matrix(context, file, 0);
}
