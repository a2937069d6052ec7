/*
 * Codebooks stored as integers (QET paper: CQO): every component, a position of the sub-vector, is rounded to a uniform grid
 * between its extremes over the entries of one codebook. Entry = fmaf(q, step, least), as the decoder computes it.
 */
#include <math.h>
#include <string.h>

#include "method.h"

typedef struct rounding {
    float *codebook;   /* host */
    uint16_t *codes;
    float *scale;      /* [components][2] */
    float most;        /* 2^bits - 1 */
} rounding;

/* One component: `count` entries, `stride` floats apart. */
static qem_status round_component(qem_context *context, const rounding *r, uint64_t first, uint64_t stride, uint64_t count,
                                  uint64_t component)
{
    float least = r->codebook[first], greatest = least;
    for (uint64_t j = 1; j < count; j++) {
        least = fminf(least, r->codebook[first + j * stride]);
        greatest = fmaxf(greatest, r->codebook[first + j * stride]);
    }
    const float step = (float)(((double)greatest - (double)least) / (double)r->most);
    if (!isfinite(step) || !isfinite(fmaf(r->most, step, least)))
        return qem_fail(context, QEM_ERR_RANGE, "codebook: the range %g .. %g of a component is beyond f32 as a grid", (double)least,
                        (double)greatest);
    r->scale[2 * component] = step;
    r->scale[2 * component + 1] = least + 0.0f;
    for (uint64_t j = 0; j < count; j++) {
        float *entry = &r->codebook[first + j * stride];
        const double q = step > 0.0f ? nearbyint(((double)*entry - (double)least) / (double)step) : 0.0;
        r->codes[first + j * stride] = (uint16_t)fmin(q, (double)r->most);
        *entry = fmaf((float)r->codes[first + j * stride], step, least + 0.0f);
    }
    return QEM_OK;
}

/* The codebook of one group (or the shared one): k entries of `width` floats. */
static qem_status round_group(qem_context *context, const rounding *r, uint64_t *first, uint64_t width, uint64_t k,
                              uint64_t *component)
{
    for (uint64_t p = 0; p < width; p++) QEM_TRY(round_component(context, r, *first + p, width, k, *component + p));
    *first += k * width;
    *component += width;
    return QEM_OK;
}

static qem_status round_all(const qem_fit *fit, const rounding *r)
{
    const qem_subvectors *v = &fit->points;
    uint64_t first = 0, component = 0;
    if (fit->kind == QEM_CODEBOOK_SHARED) return round_group(fit->context, r, &first, v->dim, fit->k, &component);
    for (uint32_t c = 0; c < (fit->cells_of_rows ? fit->cells_of_rows : 1); c++)
        for (uint64_t g = 0; g < v->groups; g++)
            QEM_TRY(round_group(fit->context, r, &first, g + 1 == v->groups ? v->tail_dim : v->dim,
                                fit->group_bits ? (uint64_t)1 << fit->group_bits[g] : fit->k, &component));
    return QEM_OK;
}

/* The sizes go by a stage of the same numbers. */
static qem_stage stage_of(const qem_fit *fit)
{
    qem_stage stage;
    memset(&stage, 0, sizeof stage);
    stage.kind = fit->kind;
    stage.dim = fit->points.dim;
    stage.groups = fit->points.groups;
    stage.k = fit->k;
    stage.group_bits = fit->group_bits;
    stage.cells = fit->cells_of_rows;
    return stage;
}

qem_status qem_fit_round_codebook(qem_fit *fit)
{
    qem_context *context = fit->context;
    const qem_stage stage = stage_of(fit);
    const uint64_t floats = qem_stage_codebook_floats(&stage, fit->points.cols);
    void *memory;
    if (!fit->recipe.codebook_bits) return QEM_OK;
    qem_release(context, fit->codebook_codes);
    qem_release(context, fit->codebook_scale);
    fit->codebook_codes = NULL;
    fit->codebook_scale = NULL;
    QEM_TRY(qem_allocate(context, floats, sizeof(uint16_t), &memory));
    fit->codebook_codes = memory;
    QEM_TRY(qem_allocate(context, qem_stage_components(&stage, fit->points.cols), 2 * sizeof(float), &memory));
    fit->codebook_scale = memory;
    QEM_TRY(qem_allocate(context, floats, sizeof(float), &memory));
    const rounding r = { memory, fit->codebook_codes, fit->codebook_scale,
                         (float)(((uint32_t)1 << fit->recipe.codebook_bits) - 1) };
    qem_status status = fit->backend->to_host(context, r.codebook, fit->codebook, floats * sizeof(float));
    if (status == QEM_OK) status = round_all(fit, &r);
    if (status == QEM_OK) status = fit->backend->to_device(context, fit->codebook, r.codebook, floats * sizeof(float));
    qem_release(context, memory);
    return status;
}
