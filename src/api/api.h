/* What the files of this room share: argument checks, resolved recipes, device copies of artifacts. */
#ifndef QEM_API_API_H
#define QEM_API_API_H

#include "../methods/registry.h"

/* size and version of a parameter struct that its _INIT macro has set. */
#define QEM_CHECK_STRUCT(context, pointer, type)                                                                       \
    do {                                                                                                               \
        if (!(pointer)) return qem_fail(context, QEM_ERR_ARGUMENT, "%s: the pointer is NULL", #type);                   \
        if ((pointer)->size != sizeof(type) || (pointer)->version != 1)                                                \
            return qem_fail(context, QEM_ERR_ARGUMENT, "%s: size %llu and version %u are not those of this library; "   \
                            "initialise the struct by its _INIT macro", #type, (unsigned long long)(pointer)->size,     \
                            (unsigned)(pointer)->version);                                                              \
    } while (0)

/* Shape, strides and type of a view; data may be NULL when `data_needed` is 0. `what` names it in the message. */
qem_status qem_check_view(qem_context *context, const qem_view *view, const char *what, int data_needed);

/* Checks a recipe against a shape and fills in the method's defaults. */
qem_status qem_resolve_recipe(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols,
                              const qem_method_ops **ops, qem_recipe *resolved);

/* k and bytes by the shape alone. */
qem_status qem_plan_shape(qem_context *context, const qem_method_ops *ops, const qem_recipe *resolved, uint64_t rows,
                          uint64_t cols, qem_plan *plan);
/* Bytes by part once k is final. */
void qem_plan_parts(const qem_method_ops *ops, const qem_recipe *resolved, qem_plan *plan);

/* A fit up to the end of its partition: matrix loaded, swapped, cut; k final. Released by qem_fit_end in any case. */
typedef struct qem_fit_state {
    qem_fit fit;
    const qem_method_ops *ops;
    qem_plan plan;
    qem_matrix matrix;
    float *ordered;          /* device, the swapped matrix */
    uint8_t *swap_map;       /* device */
    uint64_t swap_map_bytes;
} qem_fit_state;

qem_status qem_fit_begin(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_fit_state *state);
void qem_fit_end(qem_context *context, qem_fit_state *state);

/* Metrics of an artifact against a loaded matrix. */
qem_status qem_measure(qem_context *context, const qem_matrix *original, const qem_artifact *artifact, qem_metrics *metrics);

/* The stage of each layer that decodes row `row`, as the backend reads it; room for artifact->layer_count of them. Returns the
 * end of the rows that they all decode. */
uint64_t qem_decode_stages(const qem_artifact *artifact, uint64_t row, qem_decode_stage *stages, qem_decode_outliers *outliers);

/* Decodes rows to device memory. */
qem_status qem_decode_rows(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                           qem_dtype dtype, void *out, uint64_t row_stride, int *overflow);

#endif
