/* An artifact whose rows are decoded to device memory, some at a time. */
#ifndef QEM_API_DECODER_H
#define QEM_API_DECODER_H

#include "../backend.h"

typedef struct qem_decoder {
    qem_context *context;
    const qem_artifact *artifact;
    void *opened; /* what the backend made of it; NULL where it reads the artifact itself */
} qem_decoder;

/* The artifact is borrowed until the close, which may follow a failed open, too. Rows go to `out`, device memory, row_begin first;
 * row_stride in elements; *overflow (host): 1 if a finite value became infinite. */
qem_status qem_decoder_open(qem_context *context, const qem_artifact *artifact, qem_decoder *d);
qem_status qem_decoder_rows(const qem_decoder *d, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, void *out,
                            uint64_t row_stride, int *overflow);
void qem_decoder_close(qem_decoder *d);

#endif
