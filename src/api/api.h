/* What the files of this room share: argument checks, resolved recipes, device copies of artifacts. */
#ifndef QEM_API_API_H
#define QEM_API_API_H

#include "../methods/registry.h"
#include "source.h"

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

/* Checks a recipe and its residuals against a shape. */
qem_status qem_check_recipe(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols);
/* One link of the chain: its method, and the recipe with the method's defaults filled in. */
qem_status qem_resolve_layer(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols,
                             const qem_method_ops **ops, qem_recipe *resolved);

/* ---- the planner (plan.c) ---- */

typedef struct qem_range_plan {
    uint64_t row_begin, row_end, k;
    double spare_bits;         /* that k leaves of the budget, where widths differ by group */
    const uint8_t *group_bits; /* those widths once they are known, borrowed from the fit; else NULL */
} qem_range_plan;

typedef struct qem_layer_plan {
    uint32_t range_count;
    qem_range_plan range[2];
    uint32_t affine_count;
    qem_affine affine[QEM_MOST_AFFINE]; /* sizes alone */
    const qem_recipe *chain;            /* for messages, as the rest: the first recipe, NULL = this one alone */
    uint64_t outlier_bytes;             /* taken just before this layer */
    uint64_t chain_outliers;            /* taken before all layers */
} qem_layer_plan;

/* Bits that the recipe's ratio or bits allow; the part of `left` that is for the first layer of a chain. */
double qem_budget_bits(const qem_recipe *recipe, uint64_t rows, uint64_t cols);
double qem_layer_budget(const qem_recipe *resolved, double left);
/* The steps of a layer by the shape alone, means as if stored. */
void qem_plan_steps(const qem_method_ops *ops, const qem_recipe *resolved, uint64_t rows, uint64_t cols, qem_layer_plan *plan);
/* Ranges and k for `budget` bits, the steps of `plan` to be paid from it; or the explicit k. BUDGET says what is too large. */
qem_status qem_plan_layer(qem_context *context, const qem_method_ops *ops, const qem_recipe *resolved, uint64_t rows, uint64_t cols,
                          double budget, qem_layer_plan *plan);

/* A qem_plan, layer by layer; the layers from `recipe` of the chain on by the shape alone, with `left` bits for them. */
void qem_plan_begin(const qem_recipe *recipe, uint64_t rows, uint64_t cols, qem_plan *plan);
void qem_plan_add_outliers(const qem_outliers *outliers, qem_plan *plan);
void qem_plan_add_layer(const qem_method_ops *ops, const qem_recipe *resolved, const qem_layer_plan *layer, qem_plan *plan);
qem_status qem_plan_rest(qem_context *context, const qem_recipe *chain, const qem_recipe *recipe, double left, qem_plan *plan);
/* The plan with the data looked at (quantize.c). */
qem_status qem_plan_data(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan);

/* One layer of a recipe that has been checked, with ranges and k given instead of a budget. */
qem_status qem_quantize_as_planned(qem_context *context, const qem_view *view, const qem_recipe *recipe,
                                   const qem_layer_plan *plan, qem_artifact **artifact);

/* NULL becomes "tensor"; ARGUMENT where the length is not one that files take. */
qem_status qem_check_name(qem_context *context, const char **name);

/* Metrics of an artifact against the original. */
qem_status qem_measure(qem_context *context, const qem_source *original, const qem_artifact *artifact, qem_metrics *metrics);

/* Sum of weight * squared error over the sum of weights (positive); importance as in qem_recipe. */
qem_status qem_measure_weighted(qem_context *context, const qem_view *view, const qem_view *importance,
                                const qem_artifact *artifact, double *mse);

/* The stage of each layer that decodes row `row`, as the backend reads it; room for artifact->layer_count of them. Returns the
 * end of the rows that they all decode. */
uint64_t qem_decode_stages(const qem_artifact *artifact, uint64_t row, qem_decode_stage *stages, qem_decode_outliers *outliers);

/* Decodes rows to device memory. */
qem_status qem_decode_rows(qem_context *context, const qem_artifact *artifact, uint64_t row_begin, uint64_t row_end,
                           qem_dtype dtype, void *out, uint64_t row_stride, int *overflow);
/* x -= layer `index` of the artifact, decoded; x: device, [rows, cols]. */
qem_status qem_subtract_layer(qem_context *context, const qem_artifact *artifact, uint32_t index, float *x);

#endif
