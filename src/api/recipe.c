/* What a recipe may ask for, and the defaults it leaves open. */
#include <math.h>
#include <string.h>

#include "../methods/rotation.h"
#include "api.h"

#define MOST_DIM 65535
#define MOST_INTERVALS 255
#define MOST_RESTARTS 1000
#define MOST_ELEMENTS ((uint64_t)1 << 48)
#define MOST_SUBVECTORS ((uint64_t)1 << 32)

qem_status qem_check_view(qem_context *context, const qem_view *view, const char *what, int data_needed)
{
    QEM_CHECK_STRUCT(context, view, qem_view);
    if (view->rows < 1 || view->cols < 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu x %llu is empty; at least one row and one column are needed", what,
                        (unsigned long long)view->rows, (unsigned long long)view->cols);
    if (view->rows >= MOST_ELEMENTS || view->cols >= MOST_ELEMENTS || view->rows > (MOST_ELEMENTS - 1) / view->cols)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: %llu x %llu exceeds 2^48 elements", what,
                        (unsigned long long)view->rows, (unsigned long long)view->cols);
    if (data_needed && !view->data) return qem_fail(context, QEM_ERR_ARGUMENT, "%s: data is NULL", what);
    if (view->dtype < QEM_DTYPE_F32 || view->dtype > QEM_DTYPE_U8)
        return qem_fail(context, QEM_ERR_ARGUMENT, "%s: elements of type %s; a matrix has f32, f16, bf16, f64 or u8", what,
                        qem_dtype_name(view->dtype));
    return QEM_OK;
}

#define MOST_OUTLIERS 0.5
#define MOST_CELLS 256
#define DEFAULT_CELLS 2
#define DEFAULT_SHARE 0.7

static qem_status check_budget(qem_context *context, const qem_recipe *r)
{
    const int set = (r->ratio != 0.0) + (r->bits != 0.0) + (r->k != 0);
    if (set != 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: exactly one of ratio, bits and k is to be set, %d are", set);
    if (!(r->ratio >= 0.0) || isinf(r->ratio) || !(r->bits >= 0.0) || isinf(r->bits))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: ratio %g and bits %g must be positive and finite", r->ratio, r->bits);
    return QEM_OK;
}

static qem_status check_numbers(qem_context *context, const qem_recipe *r)
{
    if (r->codebook != QEM_DTYPE_F32 && r->codebook != QEM_DTYPE_F16)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: a codebook is stored as f32 or f16, not as %s",
                        qem_dtype_name(r->codebook));
    if (r->restarts < 1 || r->restarts > MOST_RESTARTS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: restarts %u is outside 1 .. %d", r->restarts, MOST_RESTARTS);
    if (!(r->tolerance >= 0.0 && r->tolerance < 1.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: tolerance %g is outside [0, 1)", r->tolerance);
    if (r->accounting != QEM_ACCOUNTING_HONEST && r->accounting != QEM_ACCOUNTING_PAPER)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: accounting %d is unknown", (int)r->accounting);
    if (r->accounting == QEM_ACCOUNTING_PAPER && r->codebook != QEM_DTYPE_F32)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: the papers' accounting counts f32 codebooks; codebook f16 contradicts it");
    if (r->codebook_bits && (r->codebook_bits < 4 || r->codebook_bits > 12))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: codebooks of %u bits; integers have 4 .. 12", r->codebook_bits);
    if (r->accounting == QEM_ACCOUNTING_PAPER && r->codebook_bits)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: the papers' accounting counts f32 codebooks; %u bits contradict it",
                        r->codebook_bits);
    for (size_t i = 0; i < sizeof r->reserved / sizeof r->reserved[0]; i++)
        if (r->reserved[i] || r->reserved32)
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: a reserved field is set; this version knows no use of it");
    return QEM_OK;
}

static qem_status resolve_dim(qem_context *context, const qem_method_ops *ops, qem_recipe *r, uint64_t rows, uint64_t cols)
{
    if (r->dim == 0) r->dim = ops->default_dim;
    if (ops->scalar && r->dim != 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s is scalar, dim %u is not 1", ops->name, r->dim);
    if (r->dim > MOST_DIM) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: dim %u is above %d", r->dim, MOST_DIM);
    if (rows * ((cols + r->dim - 1) / r->dim) >= MOST_SUBVECTORS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %llu rows of %llu sub-vectors are 2^32 or more",
                        (unsigned long long)rows, (unsigned long long)((cols + r->dim - 1) / r->dim));
    return QEM_OK;
}

static qem_status resolve_method_blocks(qem_context *context, const qem_method_ops *ops, qem_recipe *r, uint64_t cols)
{
    if (r->levels == QEM_LEVELS_DEFAULT) r->levels = ops->default_levels;
    if (r->levels > 8) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %u swap levels are more than 8", r->levels);
    if (r->levels && ops->rotates)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: swap levels have no meaning for %s, which rotates the columns", ops->name);
    if (ops->rotates && cols > QEM_MOST_ROTATED_COLS)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "recipe: %s of %llu columns; at most %d are rotated", ops->name,
                        (unsigned long long)cols, QEM_MOST_ROTATED_COLS);
    if (r->intervals && !ops->intervals)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: intervals have no meaning for %s", ops->name);
    if ((r->assign || r->refine) && !ops->intervals)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s have no meaning for %s, which has no cells",
                        r->refine ? "refining passes" : "assignments", ops->name);
    if (r->assign != QEM_ASSIGN_CELL && r->assign != QEM_ASSIGN_GLOBAL)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: assignment %d is unknown", (int)r->assign);
    if (r->intervals > MOST_INTERVALS)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %u intervals are more than %d", r->intervals, MOST_INTERVALS);
    if ((unsigned)r->rotation_start > QEM_ROTATION_PCA || (r->rotation_start != QEM_ROTATION_BEST && !ops->rotates))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: rotation start %d has no meaning for %s", (int)r->rotation_start,
                        ops->name);
    if (r->allocation != QEM_ALLOCATION_COUNT && (r->allocation != QEM_ALLOCATION_VARIANCE || !ops->allocates))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: allocation %d has no meaning for %s", (int)r->allocation, ops->name);
    if (r->method == QEM_METHOD_LOPQ && r->cells == 0) r->cells = DEFAULT_CELLS;
    if (r->cells && (r->method != QEM_METHOD_LOPQ || r->cells < 2 || r->cells > MOST_CELLS))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %u coarse cells; lopq takes 2 .. %d, other methods none", r->cells,
                        MOST_CELLS);
    return QEM_OK;
}

static qem_status check_units(qem_context *context, const qem_method_ops *ops, const qem_recipe *r)
{
    const int blocks = r->grid_axis == QEM_AXIS_BLOCK;
    if ((unsigned)r->grid_axis > QEM_AXIS_BLOCK || (r->grid_axis && !ops->units))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: grid axis %d has no meaning for %s", (int)r->grid_axis, ops->name);
    if (blocks ? r->grid_block < 2 || r->grid_block > MOST_DIM : r->grid_block != 0)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: grid block %u; blocks have 2 .. %d columns, other axes 0", r->grid_block,
                        MOST_DIM);
    return QEM_OK;
}

static qem_status check_standardize(qem_context *context, const qem_recipe *r)
{
    const int blocks = (r->standardize & QEM_STANDARDIZE_BLOCK) != 0;
    if (r->standardize > (QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_BLOCK) ||
        (blocks && (r->standardize & QEM_STANDARDIZE_ROW)))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: standardize %u; it is columns, rows, both, blocks, or columns and blocks",
                        r->standardize);
    if (blocks ? r->standardize_block < 2 || r->standardize_block > MOST_DIM : r->standardize_block != 0)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: standardize_block %u; blocks have 2 .. %d columns, without them it is 0",
                        r->standardize_block, MOST_DIM);
    if (r->params && r->params != 16 && r->params != 32 && (r->params < 4 || r->params > 8))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: params %u; scales and means are stored in 16, 32 or 4 .. 8 bits", r->params);
    if ((unsigned)r->means > QEM_MEANS_NEVER)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: means %d is unknown", (int)r->means);
    return QEM_OK;
}

/* Two steps of one axis would be one step. */
static qem_status check_axes(qem_context *context, const qem_method_ops *ops, const qem_recipe *r)
{
    static const struct {
        uint32_t flag;
        qem_axis axis;
        const char *name;
    } axes[] = { { QEM_STANDARDIZE_COLUMN, QEM_AXIS_COLUMN, "columns" },
                 { QEM_STANDARDIZE_ROW, QEM_AXIS_ROW, "rows" },
                 { QEM_STANDARDIZE_BLOCK, QEM_AXIS_BLOCK, "blocks" } };
    for (size_t i = 0; ops->units && i < sizeof axes / sizeof *axes; i++)
        if ((r->standardize & axes[i].flag) && r->grid_axis == axes[i].axis)
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: %s has a grid for each of the %s, which are standardized too; one of "
                            "both is enough", ops->name, axes[i].name);
    return QEM_OK;
}

static qem_status check_extras(qem_context *context, const qem_method_ops *ops, const qem_recipe *r)
{
    if (!(r->outliers >= 0.0 && r->outliers <= MOST_OUTLIERS))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: the fraction of outliers %g is outside 0 .. %g", r->outliers, MOST_OUTLIERS);
    if (!(r->outlier_sigma >= 0.0) || isinf(r->outlier_sigma) || (r->outlier_sigma > 0.0 && r->outliers > 0.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: outlier_sigma %g must be positive, and not beside a fraction",
                        r->outlier_sigma);
    if (r->mixed > 1 || (r->mixed && (r->k || ops->rotates)))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: mixed is 0 or 1, and 0 with an explicit k and for opq and lopq");
    if (r->importance && ops->rotates)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: importance has no meaning for %s, which rotates the columns", ops->name);
    return QEM_OK;
}

/* The links of a chain of recipes: what only the first may ask for. */
static qem_status resolve_share(qem_context *context, const qem_recipe *recipe, qem_recipe *r)
{
    const qem_recipe *next = recipe->residual;
    if (!next) {
        if (r->share != 0.0) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: share %g needs a residual", r->share);
        return QEM_OK;
    }
    if (r->share == 0.0) r->share = DEFAULT_SHARE;
    if (!(r->share > 0.0 && r->share < 1.0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: share %g is outside (0, 1)", r->share);
    if (next->size != sizeof *next || next->version != 1)
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: the residual's size and version are not those of this library");
    if (next->ratio != 0.0 || next->bits != 0.0 || next->outliers != 0.0 || next->outlier_sigma != 0.0 || next->importance ||
        (next->k != 0) != (r->k != 0))
        return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: a residual has no ratio, bits, outliers or importance of its own, and a "
                        "k exactly where the recipe before it has one");
    return QEM_OK;
}

qem_status qem_resolve_layer(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols,
                             const qem_method_ops **ops, qem_recipe *resolved)
{
    *ops = qem_method_find(recipe->method);
    if (!*ops || !(*ops)->fit) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: method %d is unknown", (int)recipe->method);
    *resolved = *recipe;
    QEM_TRY(check_numbers(context, recipe));
    QEM_TRY(resolve_dim(context, *ops, resolved, rows, cols));
    QEM_TRY(resolve_method_blocks(context, *ops, resolved, cols));
    QEM_TRY(check_units(context, *ops, resolved));
    QEM_TRY(check_standardize(context, resolved));
    QEM_TRY(check_axes(context, *ops, resolved));
    QEM_TRY(check_extras(context, *ops, resolved));
    return resolve_share(context, recipe, resolved);
}

static qem_status check_importance(qem_context *context, const qem_view *view, uint64_t rows, uint64_t cols)
{
    QEM_TRY(qem_check_view(context, view, "importance", 1));
    if (view->cols == cols && (view->rows == 1 || view->rows == rows)) return QEM_OK;
    return qem_fail(context, QEM_ERR_ARGUMENT, "importance: %llu x %llu; it is 1 x %llu or %llu x %llu",
                    (unsigned long long)view->rows, (unsigned long long)view->cols, (unsigned long long)cols,
                    (unsigned long long)rows, (unsigned long long)cols);
}

qem_status qem_check_recipe(qem_context *context, const qem_recipe *recipe, uint64_t rows, uint64_t cols)
{
    uint32_t stages = 0;
    QEM_CHECK_STRUCT(context, recipe, qem_recipe);
    QEM_TRY(check_budget(context, recipe));
    if (recipe->effort > 3) return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: effort %u is above 3", recipe->effort);
    for (const qem_recipe *r = recipe; r; r = r->residual) {
        const qem_method_ops *ops;
        qem_recipe resolved;
        QEM_TRY(qem_resolve_layer(context, r, rows, cols, &ops, &resolved));
        stages += r->mixed ? 2 : 1;
        if (stages > QEM_MOST_STAGES)
            return qem_fail(context, QEM_ERR_ARGUMENT, "recipe: its residuals make more than %d stages", QEM_MOST_STAGES);
    }
    return recipe->importance ? check_importance(context, recipe->importance, rows, cols) : QEM_OK;
}
