/* Scales and means as they are stored: f32, f16, or integers under f16 super-scales. */
#include "affine.h"

#include <math.h>
#include <string.h>

#include "../core/half.h"

#define NEGLIGIBLE 5.9604644775390625e-8 /* 2^-24: what f32 arithmetic loses beside 1 */

qem_affine qem_affine_make(qem_axis axis, uint64_t block, uint32_t params, uint64_t rows, uint64_t cols)
{
    qem_affine a;
    memset(&a, 0, sizeof a);
    a.axis = axis;
    a.block = axis == QEM_AXIS_BLOCK ? block : 0;
    a.params = params ? params : 16;
    qem_affine_sizes(&a, rows, cols);
    return a;
}

static qem_status alloc_table(qem_context *context, uint64_t units, float **table)
{
    void *memory;
    if (*table) return QEM_OK;
    QEM_TRY(qem_allocate_zero(context, units, sizeof(float), &memory));
    *table = memory;
    return QEM_OK;
}

qem_status qem_affine_alloc(qem_context *context, qem_affine *a)
{
    if (a->has_scale) QEM_TRY(alloc_table(context, a->units, &a->scale));
    return a->has_mean ? alloc_table(context, a->units, &a->mean) : QEM_OK;
}

void qem_affine_release(qem_context *context, qem_affine *a)
{
    if (a->scale != a->scale_stored) qem_release(context, a->scale);
    if (a->mean != a->mean_stored) qem_release(context, a->mean);
    qem_release(context, a->scale_stored);
    qem_release(context, a->mean_stored);
    qem_release(context, a->scale_super);
    qem_release(context, a->mean_super);
    memset(a, 0, sizeof *a);
}

/* ---- errors ---- */

static const char *axis_name(qem_axis axis)
{
    static const char *const names[] = { "tensor", "row", "column", "block" };
    return names[axis];
}

static qem_status out_of_range(qem_context *context, const qem_affine *a, const char *what, uint64_t unit, float value,
                               int large)
{
    return qem_fail(context, QEM_ERR_RANGE,
                    "the %s of %s %llu is %g, too %s for f16; store scales and means as f32 (params f32)",
                    what, axis_name(a->axis), (unsigned long long)unit, (double)value, large ? "large" : "small");
}

/* ---- storing ---- */

/* One of the two tables of a step on its way. */
typedef struct param_table {
    const qem_affine *a;
    const float *value;    /* wanted */
    const float *zero_for; /* of means: the scales, where a 0 makes the mean the only thing that is left; or NULL */
    double largest;        /* magnitude of the step's largest value of this kind */
    int mean;
    void *stored;
    uint16_t *supers;
} param_table;

static const char *name_of(const param_table *t)
{
    return t->mean ? "mean" : "scale";
}

/* Whether a value that would be stored as 0 may be. */
static int may_vanish(const param_table *t, uint64_t unit)
{
    if (t->mean && (!t->zero_for || t->zero_for[unit] != 0.0f)) return 1; /* a scale is there to code the difference */
    return fabs((double)t->value[unit]) <= NEGLIGIBLE * t->largest;
}

static qem_status store_halves(qem_context *context, const param_table *t)
{
    uint16_t *half = t->stored;
    for (uint64_t u = 0; u < t->a->units; u++) {
        half[u] = qem_f32_to_f16(t->value[u]);
        if ((half[u] & 0x7fffu) == 0x7c00u) return out_of_range(context, t->a, name_of(t), u, t->value[u], 1);
        if ((half[u] & 0x7fffu) == 0 && t->value[u] != 0.0f && !may_vanish(t, u))
            return out_of_range(context, t->a, name_of(t), u, t->value[u], 0);
    }
    return QEM_OK;
}

static void put_bits(uint8_t *stream, uint64_t index, uint32_t bits, uint32_t value)
{
    const uint64_t bit = index * bits, byte = bit / 8;
    const uint32_t shifted = value << (bit % 8); /* at most 15 bits; the stream was zero */
    stream[byte] = (uint8_t)(stream[byte] | (shifted & 0xffu));
    stream[byte + 1] = (uint8_t)(stream[byte + 1] | shifted >> 8);
}

/* The least f16 that is not below x >= 0; infinity if there is none. */
static uint16_t half_above(float x)
{
    const uint16_t half = qem_f32_to_f16(x);
    return qem_f16_to_f32(half) < x ? (uint16_t)(half + 1) : half;
}

static uint32_t scale_code(const param_table *t, uint64_t unit, double step)
{
    const uint32_t most = ((uint32_t)1 << t->a->params) - 1;
    const double value = (double)t->value[unit];
    if (value <= NEGLIGIBLE * t->largest || step == 0.0) return 0; /* and 0 itself */
    const double code = floor(value / step + 0.5);
    return code < 1.0 ? 1 : code > (double)most ? most : (uint32_t)code;
}

static uint32_t mean_code(const param_table *t, uint64_t unit, double step)
{
    const int32_t half = (int32_t)1 << (t->a->params - 1);
    int32_t code = step == 0.0 ? 0 : (int32_t)floor((double)t->value[unit] / step + 0.5);
    code = code > half - 1 ? half - 1 : code < 1 - half ? 1 - half : code;
    return (uint32_t)(code + half);
}

/* The units that share super-scale s. */
static qem_status store_group(qem_context *context, const param_table *t, uint64_t s)
{
    const uint64_t first = s * t->a->per_super;
    const uint64_t last = t->a->units - first < t->a->per_super ? t->a->units : first + t->a->per_super;
    uint64_t at = first;
    for (uint64_t u = first + 1; u < last; u++)
        if (fabsf(t->value[u]) > fabsf(t->value[at])) at = u;
    const float largest = fabsf(t->value[at]);
    t->supers[s] = may_vanish(t, at) && qem_f32_to_f16(largest) == 0 ? 0 : half_above(largest);
    if (t->supers[s] == 0x7c00u) return out_of_range(context, t->a, name_of(t), at, t->value[at], 1);
    if (largest > 0.0f && qem_f32_to_f16(largest) == 0 && !may_vanish(t, at))
        return out_of_range(context, t->a, name_of(t), at, t->value[at], 0);
    const uint32_t steps = t->mean ? ((uint32_t)1 << (t->a->params - 1)) - 1 : ((uint32_t)1 << t->a->params) - 1;
    const double step = (double)(qem_f16_to_f32(t->supers[s]) / (float)steps); /* as the decoder has it */
    for (uint64_t u = first; u < last; u++)
        put_bits(t->stored, u, t->a->params, t->mean ? mean_code(t, u, step) : scale_code(t, u, step));
    return QEM_OK;
}

static qem_status store_integers(qem_context *context, const param_table *t)
{
    for (uint64_t s = 0; s < t->a->supers; s++) QEM_TRY(store_group(context, t, s));
    return QEM_OK;
}

static double largest_of(const float *value, uint64_t units)
{
    float largest = 0.0f;
    for (uint64_t u = 0; u < units; u++) largest = fabsf(value[u]) > largest ? fabsf(value[u]) : largest;
    return (double)largest;
}

/* *value goes in as wanted; stored, supers are made, and *value is given up for what qem_affine_expand makes later. */
static qem_status store_table(qem_context *context, param_table *t, float **value, void **stored, uint16_t **supers)
{
    void *memory;
    const qem_affine *a = t->a;
    if (*stored) return QEM_OK;
    if (a->params == 32) {
        *stored = *value;
        return QEM_OK;
    }
    t->value = *value;
    t->largest = largest_of(*value, a->units);
    const uint64_t bytes = a->params == 16 ? a->units * sizeof(uint16_t) : qem_bit_stream_bytes(a->units, a->params);
    QEM_TRY(qem_allocate_zero(context, bytes + QEM_STREAM_SLACK, 1, stored));
    t->stored = *stored;
    if (a->params < 16) {
        QEM_TRY(qem_allocate_zero(context, a->supers, sizeof(uint16_t), &memory));
        *supers = t->supers = memory;
    }
    return a->params == 16 ? store_halves(context, t) : store_integers(context, t);
}

/* The tables as the decoder makes them, from the artifact's own formulas. */
static qem_status expand(qem_context *context, qem_affine *a, int scales, int means)
{
    qem_affine part = *a;
    part.has_scale = scales;
    part.has_mean = means;
    part.scale = part.mean = NULL;
    const qem_status status = qem_affine_expand(context, &part);
    if (status != QEM_OK) {
        if (part.scale != part.scale_stored) qem_release(context, part.scale);
        return status;
    }
    if (scales && a->scale != a->scale_stored) qem_release(context, a->scale);
    if (means && a->mean != a->mean_stored) qem_release(context, a->mean);
    if (scales) a->scale = part.scale;
    if (means) a->mean = part.mean;
    return QEM_OK;
}

qem_status qem_affine_store(qem_context *context, qem_affine *a)
{
    const int scales = a->has_scale && !a->scale_stored, means = a->has_mean && !a->mean_stored;
    param_table scale = { .a = a }, mean = { .a = a, .mean = 1, .zero_for = scales ? a->scale : NULL };
    if (means) QEM_TRY(store_table(context, &mean, &a->mean, &a->mean_stored, &a->mean_super));
    if (scales) QEM_TRY(store_table(context, &scale, &a->scale, &a->scale_stored, &a->scale_super));
    return a->params == 32 ? QEM_OK : expand(context, a, scales, means);
}

/* ---- the integers themselves ---- */

static uint32_t get_bits(const uint8_t *stream, uint64_t index, uint32_t bits)
{
    const uint64_t bit = index * bits, byte = bit / 8;
    const uint32_t word = (uint32_t)stream[byte] | (uint32_t)stream[byte + 1] << 8; /* at most 15 bits; slack follows */
    return word >> (bit % 8) & (((uint32_t)1 << bits) - 1);
}

void qem_affine_scale_codes(const qem_affine *a, uint8_t *codes)
{
    for (uint64_t u = 0; u < a->units; u++) codes[u] = (uint8_t)get_bits(a->scale_stored, u, a->params);
}

qem_status qem_affine_set_scale_codes(qem_context *context, qem_affine *a, const uint8_t *codes)
{
    memset(a->scale_stored, 0, (size_t)qem_bit_stream_bytes(a->units, a->params));
    for (uint64_t u = 0; u < a->units; u++) put_bits(a->scale_stored, u, a->params, codes[u]);
    return expand(context, a, 1, 0);
}
