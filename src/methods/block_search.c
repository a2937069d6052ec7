/* Scales of blocks, searched for the least error against a scalar codebook. */
#include <math.h>
#include <string.h>

#include "../core/half.h"
#include "standardize.h"

#define ROUGH_BITS 5     /* candidates from which a super-scale is chosen: 2 / 31 of a scale apart */
#define FINE_BITS 6      /* candidates of a scale in f16 or f32 */
#define REACH 2.0f       /* candidates go up to so many times the scale */
#define MOST_HALF 65504.0f
#define GREATEST_HALF 0x7bffu /* its bits */

typedef struct block_search {
    qem_context *context;
    const qem_backend *backend;
    const float *x, *weight, *levels;
    uint64_t rows, cols, k;
    qem_affine *a;
    float *super;                 /* [units]: of the search under way */
    float *scale;                 /* [units]: wanted */
    double *before, *after;       /* [units]: errors with the scales that there were, and with new ones */
    uint8_t *q, *old;             /* [units] */
} block_search;

static qem_status take_tables(block_search *s)
{
    void *memory;
    const uint64_t units = s->a->units;
    QEM_TRY(qem_allocate(s->context, units, 2 * sizeof(double) + 2 * sizeof(float) + 2, &memory));
    s->before = memory;
    s->after = s->before + units;
    s->super = (float *)(s->after + units);
    s->scale = s->super + units;
    s->q = (uint8_t *)(s->scale + units);
    s->old = s->q + units;
    return QEM_OK;
}

static qem_status search(const block_search *s, uint32_t bits, uint64_t per_super, const float *supers, double *error)
{
    return s->backend->search_block_scales(s->context, s->x, s->weight, s->rows, s->cols, s->a->block, bits, per_super,
                                           supers, s->levels, s->k, s->q, error);
}

/* Errors of scales as they are, or of 0 where that is better: q tells which. */
static qem_status judge(const block_search *s, const float *scales, double *error)
{
    return search(s, 1, 1, scales, error);
}

/* scale[u]: the best of 2^bits evenly spaced ones from 0 to REACH times what it is now, or to what f16 holds where it must. */
static qem_status want_scales(block_search *s, uint32_t bits)
{
    const qem_affine *a = s->a;
    const float steps = (float)(((uint32_t)1 << bits) - 1);
    for (uint64_t u = 0; u < a->units; u++) {
        const float reach = REACH * a->scale[u];
        s->super[u] = a->params < 32 && reach > MOST_HALF ? MOST_HALF : isfinite(reach) ? reach : a->scale[u];
    }
    QEM_TRY(search(s, bits, 1, s->super, NULL));
    for (uint64_t u = 0; u < a->units; u++) s->scale[u] = (float)s->q[u] * (s->super[u] / steps);
    return QEM_OK;
}

/* A step like the one that is searched, its scales stored from s->scale. */
static qem_status store_wanted(const block_search *s, qem_affine *fresh)
{
    *fresh = qem_affine_make(QEM_AXIS_BLOCK, s->a->block, s->a->params, s->rows, s->cols);
    fresh->has_scale = 1;
    qem_status status = qem_affine_alloc(s->context, fresh);
    if (status == QEM_OK) {
        memcpy(fresh->scale, s->scale, (size_t)fresh->units * sizeof(float));
        status = qem_affine_store(s->context, fresh);
    }
    if (status != QEM_OK) qem_affine_release(s->context, fresh);
    return status;
}

static void replace_scales(block_search *s, qem_affine *fresh)
{
    qem_affine *a = s->a, old = *a;
    a->scale = fresh->scale;
    a->scale_stored = fresh->scale_stored;
    a->scale_super = fresh->scale_super;
    fresh->scale = old.scale;
    fresh->scale_stored = old.scale_stored;
    fresh->scale_super = old.scale_super;
}

/* ---- scales of their own: f16 and f32 ---- */

static qem_status search_single(block_search *s)
{
    qem_affine fresh, *a = s->a;
    QEM_TRY(judge(s, a->scale, s->before));
    memcpy(s->old, s->q, (size_t)a->units);
    QEM_TRY(want_scales(s, FINE_BITS));
    if (a->params == 16)
        for (uint64_t u = 0; u < a->units; u++) s->scale[u] = qem_f16_to_f32(qem_f32_to_f16(s->scale[u]));
    QEM_TRY(judge(s, s->scale, s->after));
    for (uint64_t u = 0; u < a->units; u++) {
        const int better = s->after[u] < s->before[u];
        if (!better) s->scale[u] = a->scale[u];
        if ((better ? s->q : s->old)[u] == 0) s->scale[u] = 0.0f;
    }
    QEM_TRY(store_wanted(s, &fresh));
    replace_scales(s, &fresh);
    qem_affine_release(s->context, &fresh);
    return QEM_OK;
}

/* ---- integers under super-scales ---- */

static void expand_supers(const qem_affine *a, float *supers)
{
    for (uint64_t i = 0; i < a->supers; i++) supers[i] = qem_f16_to_f32(a->scale_super[i]);
}

/* The least f16 not below the largest scale that a block of each group wants. */
static void choose_supers(const block_search *s, uint16_t *supers)
{
    const qem_affine *a = s->a;
    for (uint64_t i = 0; i < a->supers; i++) {
        float largest = 0.0f;
        for (uint64_t u = i * a->per_super; u < a->units && u < (i + 1) * a->per_super; u++)
            largest = s->scale[u] > largest ? s->scale[u] : largest;
        const uint16_t half = qem_f32_to_f16(largest);
        supers[i] = qem_f16_to_f32(half) < largest && half < GREATEST_HALF ? (uint16_t)(half + 1) : half;
    }
}

/* Groups that are no better under their new super-scale go back to the old one and the integers found under it. */
static void keep_better(block_search *s, const uint16_t *supers)
{
    qem_affine *a = s->a;
    for (uint64_t i = 0; i < a->supers; i++) {
        const uint64_t first = i * a->per_super, last = a->units - first < a->per_super ? a->units : first + a->per_super;
        double before = 0.0, after = 0.0;
        for (uint64_t u = first; u < last; u++) before += s->before[u], after += s->after[u];
        if (after < before)
            a->scale_super[i] = supers[i];
        else
            memcpy(s->q + first, s->old + first, (size_t)(last - first));
    }
}

static qem_status search_integers(block_search *s)
{
    qem_affine *a = s->a;
    void *memory;
    expand_supers(a, s->super);
    QEM_TRY(search(s, a->params, a->per_super, s->super, s->before));
    memcpy(s->old, s->q, (size_t)a->units);
    QEM_TRY(qem_allocate(s->context, a->supers, sizeof(uint16_t), &memory));
    uint16_t *supers = memory;
    qem_status status = want_scales(s, ROUGH_BITS);
    if (status == QEM_OK) {
        choose_supers(s, supers);
        for (uint64_t i = 0; i < a->supers; i++) s->super[i] = qem_f16_to_f32(supers[i]);
        status = search(s, a->params, a->per_super, s->super, s->after);
    }
    if (status == QEM_OK) {
        keep_better(s, supers);
        status = qem_affine_set_scale_codes(s->context, a, s->q);
    }
    qem_release(s->context, memory);
    return status;
}

qem_status qem_standardize_search(qem_context *context, const qem_backend *backend, const float *x, const float *weight,
                                  uint64_t rows, uint64_t cols, const float *levels, uint64_t k, qem_affine *a, double *error)
{
    block_search s = { .context = context, .backend = backend, .x = x, .weight = weight, .levels = levels, .a = a };
    s.rows = rows;
    s.cols = cols;
    s.k = k;
    QEM_TRY(take_tables(&s));
    qem_status status = a->params < 16 ? search_integers(&s) : search_single(&s);
    if (status == QEM_OK && error) {
        status = judge(&s, a->scale, s.before);
        *error = 0.0;
        for (uint64_t u = 0; u < a->units; u++) *error += s.before[u];
    }
    qem_release(context, s.before);
    return status;
}
