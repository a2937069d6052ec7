/* Optimized product quantization (Ge, He, Ke, Sun 2013): one rotation of the columns, then pq. */
#include "allocate_bits.h"
#include "registry.h"
#include "rotated.h"

/* Widths of the groups that principal axes make, the largest variances first; *found 0: there are none. */
static qem_status share_bits(qem_fit *fit, int *found)
{
    void *memory;
    QEM_TRY(qem_allocate(fit->context, fit->points.cols, sizeof(double), &memory));
    qem_status status = qem_rotated_variances(fit, memory, found);
    if (status == QEM_OK && *found) status = qem_fit_allocate_bits(fit, memory, NULL);
    qem_release(fit->context, memory);
    return status;
}

/* Widths go by the variances that the rotation starts with: of all rotations, principal axes leave the least error behind. */
static qem_status partition(qem_fit *fit)
{
    if (qem_fit_widths_vary(fit) && fit->recipe.rotation_start != QEM_ROTATION_IDENTITY) {
        int found = 0;
        QEM_TRY(qem_rotated_fits(fit, fit->points.x, fit->points.rows, 1.0, &found));
        if (found) QEM_TRY(share_bits(fit, &found));
        if (found) {
            fit->recipe.rotation_start = QEM_ROTATION_PCA;
            return QEM_OK;
        }
        fit->recipe.rotation_start = QEM_ROTATION_IDENTITY;
    }
    return qem_method_find(QEM_METHOD_PQ)->partition(fit);
}

/* The matrices of a rotation, and a copy of the points for what they become; *y and *encoder end with the call's work. */
static qem_status prepare(qem_fit *fit, qem_rotated_rows *part, void **y, void **encoder)
{
    const qem_backend *backend = fit->backend;
    const uint64_t rows = fit->points.rows, cols = fit->points.cols;
    void *memory;
    QEM_TRY(backend->alloc(fit->context, rows * cols, sizeof(float), y));
    QEM_TRY(backend->alloc(fit->context, cols * cols, sizeof(float), encoder));
    QEM_TRY(backend->alloc(fit->context, cols * cols, sizeof(float), &memory));
    fit->rotation = memory;
    fit->cells_of_rows = 1;
    *part = (qem_rotated_rows){
        .x = fit->points.x,
        .y = *y,
        .rows = rows,
        .encoder = *encoder,
        .decoder = fit->rotation,
        .codebook = fit->codebook,
        .labels = fit->labels,
        .weight = fit->point_weight,
    };
    return QEM_OK;
}

/* Rows that the fit left unrotated because of their size may come again; others of that size cannot be rotated. */
static qem_status check_range(qem_fit *fit, const float *rotation)
{
    const uint64_t cols = fit->points.cols;
    int fits, identity = 1;
    QEM_TRY(qem_rotated_fits(fit, fit->points.x, fit->points.rows, 1.0, &fits));
    for (uint64_t i = 0; identity && i < cols * cols; i++) identity = rotation[i] == (i % (cols + 1) == 0 ? 1.0f : 0.0f);
    if (fits || identity) return QEM_OK;
    return qem_fail(fit->context, QEM_ERR_RANGE, "opq: the rotated rows are beyond the range of f32");
}

/* Integers for the codebook where the recipe wants them, and the labels that go with them. */
static qem_status fit_part(qem_fit *fit, qem_rotated_rows *part)
{
    QEM_TRY(qem_rotated_fit(fit, part));
    if (!fit->recipe.codebook_bits) return QEM_OK;
    QEM_TRY(qem_fit_round_codebook(fit));
    return qem_rotated_assign(fit, part);
}

static qem_status fit_or_encode(qem_fit *fit, const qem_artifact *base)
{
    qem_rotated_rows part;
    void *y = NULL, *encoder = NULL;
    const uint64_t bytes = fit->points.cols * fit->points.cols * sizeof(float);
    QEM_TRY(qem_fit_problems(fit, fit->points.groups));
    qem_status status = prepare(fit, &part, &y, &encoder);
    if (status == QEM_OK && base) status = fit->backend->to_device(fit->context, part.decoder, base->stages[0].rotation, bytes);
    if (status == QEM_OK) status = base ? qem_rotated_encode(fit, &part, base->stages[0].rotation, NULL) : fit_part(fit, &part);
    fit->backend->release(fit->context, y);
    fit->backend->release(fit->context, encoder);
    return status;
}

static qem_status fit_rows(qem_fit *fit)
{
    return fit_or_encode(fit, NULL);
}

static qem_status encode(qem_fit *fit, const qem_artifact *base)
{
    fit->k = base->stages[0].k;
    QEM_TRY(check_range(fit, base->stages[0].rotation));
    return fit_or_encode(fit, base);
}

const qem_method_ops qem_opq_ops = {
    .id = QEM_METHOD_OPQ,
    .name = "opq",
    .kind = QEM_CODEBOOK_PER_GROUP,
    .rotates = 1,
    .allocates = 1,
    .default_dim = 4,
    .most_k = 1u << 24,
    .partition = partition,
    .fit = fit_rows,
    .encode = encode,
};
