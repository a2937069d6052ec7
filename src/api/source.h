/* A matrix that is read some rows at once, so that no more of it is in memory than must be. */
#ifndef QEM_API_SOURCE_H
#define QEM_API_SOURCE_H

#include "../backend.h"

typedef struct qem_source {
    const qem_view *view; /* where it comes from; it has been loaded once, so its elements are known to be finite */
    const float *x;       /* device, [rows, cols] of the view; NULL: rows are loaded again when they are asked for */
    const qem_outliers *outliers; /* that are replaced in what is loaded again, or NULL */
    const float *replaced;        /* host, [cols], by what */
} qem_source;

/* Rows that are handled at once: some megabytes, a row at least. */
uint64_t qem_rows_at_once(uint64_t cols);

/* Rows of a view as a view of their own. */
qem_view qem_view_rows(const qem_view *view, uint64_t begin, uint64_t end);

/* The pages of the view's file are not needed for a while. */
void qem_view_discard(const qem_view *view);

/* Rows begin .. end-1, ended by releasing rows->owned (device). */
qem_status qem_source_rows(qem_context *context, const qem_source *source, uint64_t begin, uint64_t end, qem_matrix *rows);

#endif
