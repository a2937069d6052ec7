/* Writing a view as .npy, byte for byte as numpy.save would write the same array in C order. */
#include <stdio.h>
#include <string.h>

#include "io/io.h"

/* Strided views are gathered in pieces of this size, so that no copy of the whole matrix is made. */
#define PIECE_BYTES ((uint64_t)1 << 20)

static const char *descr_of(qem_dtype dtype)
{
    switch (dtype) {
    case QEM_DTYPE_U8: return "|u1";
    case QEM_DTYPE_F16: return "<f2";
    case QEM_DTYPE_F32: return "<f4";
    case QEM_DTYPE_F64: return "<f8";
    default: return NULL;
    }
}

static qem_status check_view(qem_context *context, const qem_view *view, const char *path)
{
    if (!view || !path) return qem_fail(context, QEM_ERR_ARGUMENT, "qem_save_npy: view and path must not be NULL");
    if (view->size != sizeof *view)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_save_npy: view->size is %zu; use QEM_VIEW_INIT", view->size);
    if (view->dtype == QEM_DTYPE_BF16)
        return qem_fail(context, QEM_ERR_UNSUPPORTED,
                        "%s: .npy has no type for bf16; write .safetensors, or f32 or f16", path);
    if (!descr_of(view->dtype))
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_save_npy: view->dtype %d is not one of f32, f16, f64, u8",
                        (int)view->dtype);
    if (!view->data || view->rows == 0 || view->cols == 0)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_save_npy: data must not be NULL, rows and cols at least 1");
    if (view->rows > (QEM_IO_MAX_ELEMENTS - 1) / view->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "qem_save_npy: %llu x %llu elements are more than the limit of 2^48",
                        (unsigned long long)view->rows, (unsigned long long)view->cols);
    return QEM_OK;
}

static qem_status write_header(qem_atomic_file *file, const qem_view *view)
{
    char header[192];
    int length = snprintf(header + 10, sizeof header - 10,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (%llu, %llu), }",
                          descr_of(view->dtype), (unsigned long long)view->rows, (unsigned long long)view->cols);
    size_t end = 10 + (size_t)length;
    size_t total = (end + 1 + 63) / 64 * 64; /* the data begin aligned to 64 bytes, after a newline */
    memset(header + end, ' ', total - end);
    header[total - 1] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)((total - 10) & 255);
    header[9] = (char)((total - 10) >> 8);
    return qem_atomic_write(file, header, total);
}

typedef struct piece {
    uint64_t row, rows, col, cols;
} piece;

/* Copies a rectangle of the view to `out`, walking the source along its smaller stride. */
static void gather(const qem_view *view, uint64_t row_bytes, uint64_t col_bytes, const piece *p, uint8_t *out)
{
    const size_t size = qem_dtype_size(view->dtype);
    const uint8_t *from = (const uint8_t *)view->data + p->row * row_bytes + p->col * col_bytes;
    if (col_bytes == size) {
        for (uint64_t i = 0; i < p->rows; i++)
            memcpy(out + i * p->cols * size, from + i * row_bytes, (size_t)(p->cols * size));
        return;
    }
    for (uint64_t j = 0; j < p->cols; j++)
        for (uint64_t i = 0; i < p->rows; i++)
            memcpy(out + (i * p->cols + j) * size, from + i * row_bytes + j * col_bytes, size);
}

static qem_status write_pieces(qem_atomic_file *file, const qem_view *view, uint64_t row_bytes, uint64_t col_bytes,
                               uint8_t *buffer)
{
    const uint64_t size = qem_dtype_size(view->dtype);
    const uint64_t most = PIECE_BYTES / size;
    const uint64_t cols = view->cols < most ? view->cols : most;
    const uint64_t rows = view->cols < most ? most / view->cols : 1;
    for (uint64_t row = 0; row < view->rows; row += rows) {
        for (uint64_t col = 0; col < view->cols; col += cols) {
            piece p = { row, rows, col, cols };
            if (p.rows > view->rows - row) p.rows = view->rows - row;
            if (p.cols > view->cols - col) p.cols = view->cols - col;
            gather(view, row_bytes, col_bytes, &p, buffer);
            QEM_TRY(qem_atomic_write(file, buffer, p.rows * p.cols * size));
        }
    }
    return QEM_OK;
}

static qem_status write_elements(qem_context *context, qem_atomic_file *file, const qem_view *view)
{
    const uint64_t size = qem_dtype_size(view->dtype);
    uint64_t row_bytes = (view->row_stride ? view->row_stride : view->cols) * size;
    uint64_t col_bytes = (view->col_stride ? view->col_stride : 1) * size;
    if (view->row_pitch_bytes) row_bytes = view->row_pitch_bytes;
    if (col_bytes == size && row_bytes == view->cols * size)
        return qem_atomic_write(file, view->data, view->rows * view->cols * size);
    void *buffer = NULL;
    QEM_TRY(qem_allocate(context, PIECE_BYTES, 1, &buffer));
    qem_status status = write_pieces(file, view, row_bytes, col_bytes, buffer);
    qem_release(context, buffer);
    return status;
}

qem_status qem_save_npy(qem_context *context, const qem_view *view, const char *path)
{
    if (!context) return QEM_ERR_ARGUMENT;
    QEM_TRY(check_view(context, view, path));
    qem_atomic_file file;
    QEM_TRY(qem_atomic_open(context, path, &file));
    qem_status status = write_header(&file, view);
    if (status == QEM_OK) status = write_elements(context, &file, view);
    if (status == QEM_OK) return qem_atomic_commit(&file);
    qem_atomic_abort(&file);
    return status;
}
