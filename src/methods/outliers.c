/* Which elements are outliers, what is stored of them, and what stands in their place while codebooks are fitted. */
#include "outliers.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../core/half.h"

uint64_t qem_outliers_count(uint64_t rows, uint64_t cols, double fraction)
{
    return (uint64_t)floor(fraction * (double)(rows * cols) + 0.5);
}

qem_outliers qem_outliers_shape(uint64_t rows, uint64_t cols, uint64_t count, const qem_recipe *recipe,
                                qem_dtype source_dtype)
{
    qem_outliers o;
    memset(&o, 0, sizeof o);
    o.count = count;
    o.index_size = rows * cols < (uint64_t)1 << 32 ? 4 : 8;
    o.value_dtype = source_dtype == QEM_DTYPE_F16 || recipe->params == 16 ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
    return o;
}

uint64_t qem_outliers_bytes(const qem_outliers *outliers)
{
    return outliers->count * (outliers->index_size + qem_dtype_size(outliers->value_dtype));
}

void qem_outliers_release(qem_context *context, qem_outliers *o)
{
    if (o->value != o->value_stored) qem_release(context, o->value);
    qem_release(context, o->value_stored);
    qem_release(context, o->index);
    memset(o, 0, sizeof *o);
}

/* ---- which ---- */

typedef struct selection {
    qem_context *context;
    const qem_backend *backend;
    const float *x;
    uint64_t rows, cols;
    float *mean, *inverse; /* of columns: mean, and 1 / deviation, 0 where it is constant */
    uint64_t *index;
    float *value;
    uint64_t count;
} selection;

static void end_selection(selection *s)
{
    qem_release(s->context, s->mean);
    qem_release(s->context, s->index);
    qem_release(s->context, s->value);
}

/* The deviation is taken about the mean as f32, so that an offset of many deviations costs no digits. */
static qem_status column_scores(selection *s)
{
    void *memory;
    QEM_TRY(qem_allocate(s->context, s->cols, 2 * sizeof(float), &memory));
    s->mean = memory;
    s->inverse = s->mean + s->cols;
    QEM_TRY(qem_allocate(s->context, s->cols, 2 * sizeof(double) + 2 * sizeof(float), &memory));
    double *mean = memory, *square = mean + s->cols;
    float *least = (float *)(square + s->cols), *greatest = least + s->cols;
    qem_status status = s->backend->unit_stats(s->context, s->x, s->rows, s->cols, QEM_AXIS_COLUMN, 0, least, greatest,
                                               mean, NULL);
    for (uint64_t j = 0; status == QEM_OK && j < s->cols; j++) s->mean[j] = (float)mean[j];
    const qem_decode_affine about = { QEM_AXIS_COLUMN, 0, NULL, s->mean };
    if (status == QEM_OK)
        status = s->backend->standardized_stats(s->context, s->x, s->rows, s->cols, &about, 1, QEM_AXIS_COLUMN, 0, NULL,
                                                NULL, mean, square);
    for (uint64_t j = 0; status == QEM_OK && j < s->cols; j++) {
        const double variance = square[j] - mean[j] * mean[j];
        const double inverse = least[j] == greatest[j] || variance <= 0.0 ? 0.0 : 1.0 / sqrt(variance);
        s->inverse[j] = inverse > (double)FLT_MAX ? FLT_MAX : (float)inverse;
    }
    qem_release(s->context, memory);
    return status;
}

static qem_status select_by(const selection *s, uint64_t count, double sigma, uint64_t *index, uint64_t *found)
{
    const float threshold = sigma < (double)FLT_MAX ? (float)sigma : FLT_MAX;
    return s->backend->select_outliers(s->context, s->x, s->rows, s->cols, s->mean, s->inverse, count, threshold, index,
                                       found);
}

static int by_sigma(const qem_recipe *recipe)
{
    return recipe->outlier_sigma > 0.0;
}

/* Their number; the columns' scores are there if it can be above 0. */
static qem_status count_outliers(selection *s, const qem_recipe *recipe)
{
    s->count = by_sigma(recipe) ? UINT64_MAX : qem_outliers_count(s->rows, s->cols, recipe->outliers);
    if (s->count == 0) return QEM_OK;
    QEM_TRY(column_scores(s));
    return by_sigma(recipe) ? select_by(s, UINT64_MAX, recipe->outlier_sigma, NULL, &s->count) : QEM_OK;
}

qem_status qem_outliers_expected(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows,
                                 uint64_t cols, const qem_recipe *recipe, uint64_t *count)
{
    selection s = { .context = context, .backend = backend, .x = x, .rows = rows, .cols = cols };
    qem_status status = QEM_OK;
    if (by_sigma(recipe))
        status = count_outliers(&s, recipe);
    else
        s.count = qem_outliers_count(rows, cols, recipe->outliers);
    end_selection(&s);
    if (status == QEM_OK) *count = s.count;
    return status;
}

static qem_status find_outliers(selection *s, const qem_recipe *recipe)
{
    void *memory;
    QEM_TRY(count_outliers(s, recipe));
    if (s->count == 0) return QEM_OK;
    QEM_TRY(qem_allocate(s->context, s->count, sizeof(uint64_t), &memory));
    s->index = memory;
    QEM_TRY(qem_allocate(s->context, s->count, sizeof(float), &memory));
    s->value = memory;
    QEM_TRY(select_by(s, by_sigma(recipe) ? UINT64_MAX : s->count, recipe->outlier_sigma, s->index, &s->count));
    return s->backend->gather(s->context, s->x, s->index, s->count, s->value);
}

/* ---- what is stored ---- */

static qem_status store_indices(const selection *s, qem_outliers *out)
{
    QEM_TRY(qem_allocate(s->context, s->count, out->index_size, &out->index));
    if (out->index_size == 8)
        memcpy(out->index, s->index, (size_t)s->count * sizeof(uint64_t));
    else
        for (uint64_t i = 0; i < s->count; i++) ((uint32_t *)out->index)[i] = (uint32_t)s->index[i];
    return QEM_OK;
}

static qem_status store_values(const selection *s, qem_outliers *out)
{
    QEM_TRY(qem_allocate(s->context, s->count, qem_dtype_size(out->value_dtype), &out->value_stored));
    if (out->value_dtype == QEM_DTYPE_F32) {
        memcpy(out->value_stored, s->value, (size_t)s->count * sizeof(float));
        return QEM_OK;
    }
    for (uint64_t i = 0; i < s->count; i++) {
        const uint16_t half = qem_f32_to_f16(s->value[i]);
        if ((half & 0x7fffu) == 0x7c00u)
            return qem_fail(s->context, QEM_ERR_RANGE,
                            "outlier (%llu, %llu) is %g, too large for f16; store parameters and outliers as f32 (params f32)",
                            (unsigned long long)(s->index[i] / s->cols), (unsigned long long)(s->index[i] % s->cols),
                            (double)s->value[i]);
        ((uint16_t *)out->value_stored)[i] = half;
    }
    return QEM_OK;
}

/* ---- what stands in their place ---- */

/* Means of the columns' other elements: of the matrix with zeros in the outliers' places, so that nothing cancels. */
static qem_status replace(selection *s, float *cleaned)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(s->context, s->cols, sizeof(double) + sizeof(uint64_t), &memory));
    double *mean = memory;
    uint64_t *taken = (uint64_t *)(mean + s->cols);
    memset(s->value, 0, (size_t)s->count * sizeof(float));
    qem_status status = s->backend->scatter(s->context, cleaned, s->index, s->value, s->count);
    if (status == QEM_OK)
        status = s->backend->unit_stats(s->context, cleaned, s->rows, s->cols, QEM_AXIS_COLUMN, 0, NULL, NULL, mean, NULL);
    for (uint64_t i = 0; i < s->count; i++) taken[s->index[i] % s->cols]++;
    for (uint64_t j = 0; status == QEM_OK && j < s->cols; j++)
        if (taken[j] && taken[j] < s->rows) s->mean[j] = (float)(mean[j] * ((double)s->rows / (double)(s->rows - taken[j])));
    for (uint64_t i = 0; i < s->count; i++) s->value[i] = s->mean[s->index[i] % s->cols];
    if (status == QEM_OK) status = s->backend->scatter(s->context, cleaned, s->index, s->value, s->count);
    qem_release(s->context, memory);
    return status;
}

static qem_status take(selection *s, const qem_recipe *recipe, qem_dtype source_dtype, float *cleaned, float *replaced,
                       qem_outliers *out)
{
    QEM_TRY(find_outliers(s, recipe));
    if (s->count == 0) return QEM_OK;
    *out = qem_outliers_shape(s->rows, s->cols, s->count, recipe, source_dtype);
    QEM_TRY(store_indices(s, out));
    QEM_TRY(store_values(s, out));
    QEM_TRY(qem_outliers_expand(s->context, out));
    QEM_TRY(replace(s, cleaned));
    memcpy(replaced, s->mean, (size_t)s->cols * sizeof *replaced);
    return QEM_OK;
}

qem_status qem_outliers_take(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows, uint64_t cols,
                             const qem_recipe *recipe, qem_dtype source_dtype, float *cleaned, float *replaced, qem_outliers *out)
{
    selection s = { .context = context, .backend = backend, .x = x, .rows = rows, .cols = cols };
    memset(out, 0, sizeof *out);
    const qem_status status = take(&s, recipe, source_dtype, cleaned, replaced, out);
    end_selection(&s);
    if (status != QEM_OK) qem_outliers_release(context, out);
    return status;
}
