/* Scales and means of columns, rows and blocks. */
#include "standardize.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define ROUNDS 8             /* of scales of rows and columns in turn, at most */
#define SETTLED 0x1p-10      /* the largest relative change of a row's scale that ends them */
#define MOST_BITS_SAVED 24.0 /* by a mean, for an element: f32 has no more */

/* ---- by shape ---- */

int qem_standardize_may_have_means(const qem_recipe *recipe, qem_axis axis)
{
    const uint32_t both = QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN;
    if (recipe->means == QEM_MEANS_NEVER) return 0;
    return axis == QEM_AXIS_COLUMN || (axis == QEM_AXIS_ROW && (recipe->standardize & both) != both);
}

uint32_t qem_standardize_shape(uint64_t rows, uint64_t cols, const qem_recipe *recipe, qem_affine steps[QEM_MOST_AFFINE])
{
    static const struct {
        uint32_t flag;
        qem_axis axis;
    } order[] = { { QEM_STANDARDIZE_BLOCK, QEM_AXIS_BLOCK },
                  { QEM_STANDARDIZE_ROW, QEM_AXIS_ROW },
                  { QEM_STANDARDIZE_COLUMN, QEM_AXIS_COLUMN } };
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (!(recipe->standardize & order[i].flag)) continue;
        qem_affine *a = &steps[count++];
        *a = qem_affine_make(order[i].axis, recipe->standardize_block, recipe->params, rows, cols);
        a->has_scale = 1;
        a->has_mean = qem_standardize_may_have_means(recipe, a->axis);
    }
    return count;
}

uint64_t qem_standardize_bytes(uint64_t rows, uint64_t cols, const qem_recipe *recipe)
{
    qem_affine steps[QEM_MOST_AFFINE];
    const uint32_t count = qem_standardize_shape(rows, cols, recipe, steps);
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < count; s++) bytes += qem_affine_bytes(&steps[s]);
    return bytes;
}

void qem_standardize_release(qem_context *context, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count)
{
    for (uint32_t s = 0; s < *count; s++) qem_affine_release(context, &steps[s]);
    *count = 0;
}

/* ---- one step ---- */

typedef struct standardizer {
    qem_context *context;
    const qem_backend *backend;
    const float *x;
    uint64_t rows, cols;
    qem_means means;
    qem_affine *steps;
    uint32_t count;
    /* of the step under way, one entry a unit */
    float *least, *greatest;
    double *mean, *square;
} standardizer;

/* Statistics of the units of step s on the matrix as steps first .. count-1 leave it. Any table may be NULL. */
static qem_status stats(const standardizer *z, uint32_t s, uint32_t first, float *least, float *greatest, double *mean,
                        double *square)
{
    qem_decode_affine views[QEM_MOST_AFFINE];
    qem_affine_views(z->steps + first, z->count - first, views);
    return z->backend->standardized_stats(z->context, z->x, z->rows, z->cols, views, z->count - first, z->steps[s].axis,
                                          z->steps[s].block, least, greatest, mean, square);
}

static uint64_t unit_elements(const standardizer *z, const qem_affine *a)
{
    return a->axis == QEM_AXIS_COLUMN ? z->rows : z->cols;
}

/* Bits that the means as stored take off, by `left`, the mean squares about them; z->square holds those about 0. */
static double bits_saved(const standardizer *z, const qem_affine *a, const double *left)
{
    double bits = 0.0;
    for (uint64_t u = 0; u < a->units; u++) {
        if (z->square[u] == 0.0) continue;
        const double saved = left[u] > 0.0 ? 0.5 * log2(z->square[u] / left[u]) : MOST_BITS_SAVED;
        bits += saved < MOST_BITS_SAVED ? saved : MOST_BITS_SAVED;
    }
    return bits * (double)unit_elements(z, a);
}

/* Index of a unit whose values cannot all be told from their mean in f32, or a->units. */
static uint64_t beyond_f32(const standardizer *z, const qem_affine *a)
{
    for (uint64_t u = 0; u < a->units; u++)
        if (!isfinite(z->greatest[u] - a->mean[u]) || !isfinite(z->least[u] - a->mean[u])) return u;
    return a->units;
}

static void drop_means(const standardizer *z, qem_affine *a)
{
    if (a->mean != a->mean_stored) qem_release(z->context, a->mean);
    qem_release(z->context, a->mean_stored);
    qem_release(z->context, a->mean_super);
    a->mean = NULL;
    a->mean_stored = NULL;
    a->mean_super = NULL;
    a->has_mean = 0;
}

/* Whether means that are stored now stay; z->square becomes that about them if so. */
static qem_status judge_means(standardizer *z, uint32_t s)
{
    qem_affine *a = &z->steps[s];
    qem_affine own = *a;
    void *memory;
    const uint64_t far = beyond_f32(z, a);
    if (far < a->units && z->means == QEM_MEANS_ALWAYS)
        return qem_fail(z->context, QEM_ERR_RANGE,
                        "%s %llu has values further from its mean than f32 reaches; leave the means out",
                        a->axis == QEM_AXIS_ROW ? "row" : "column", (unsigned long long)far);
    QEM_TRY(qem_allocate(z->context, a->units, sizeof(double), &memory));
    double *left = memory;
    const qem_status status = stats(z, s, s, NULL, NULL, NULL, left); /* with step s as it is: means and no scales */
    own.has_scale = 0;
    const double cost = 8.0 * (double)qem_affine_bytes(&own);
    if (status == QEM_OK && z->means == QEM_MEANS_AUTO && (far < a->units || bits_saved(z, a, left) <= cost))
        drop_means(z, a);
    else if (status == QEM_OK)
        memcpy(z->square, left, (size_t)a->units * sizeof(double));
    qem_release(z->context, memory);
    return status;
}

/* Means of step s where they are wanted and pay. The step's has_scale waits until they are stored. */
static qem_status fit_means(standardizer *z, uint32_t s)
{
    qem_affine *a = &z->steps[s];
    if (!a->has_mean) return QEM_OK;
    a->has_scale = 0;
    qem_status status = qem_affine_alloc(z->context, a);
    for (uint64_t u = 0; status == QEM_OK && u < a->units; u++) a->mean[u] = (float)z->mean[u];
    if (status == QEM_OK) status = qem_affine_store(z->context, a);
    a->has_scale = 1;
    return status == QEM_OK ? judge_means(z, s) : status;
}

/* A unit that is constant needs no scale where its mean says it all. */
static int said_by_mean(const standardizer *z, const qem_affine *a, uint64_t unit)
{
    if (!a->has_mean || z->least[unit] != z->greatest[unit]) return 0;
    return a->mean[unit] == z->least[unit] || (a->params >= 16 && a->mean[unit] != 0.0f);
}

static qem_status store_scales(standardizer *z, uint32_t s, const double *scale)
{
    qem_affine *a = &z->steps[s];
    QEM_TRY(qem_affine_alloc(z->context, a));
    for (uint64_t u = 0; u < a->units; u++) {
        a->scale[u] = said_by_mean(z, a, u) ? 0.0f : (float)scale[u];
        if (!isfinite(a->scale[u]))
            return qem_fail(z->context, QEM_ERR_RANGE, "a scale is %g, beyond f32; standardize by rows or by columns alone",
                            scale[u]);
    }
    return qem_affine_store(z->context, a);
}

static qem_status take_tables(standardizer *z, uint64_t units)
{
    void *memory;
    QEM_TRY(qem_allocate(z->context, units, 2 * sizeof(double) + 2 * sizeof(float), &memory));
    z->mean = memory;
    z->square = z->mean + units;
    z->least = (float *)(z->square + units);
    z->greatest = z->least + units;
    return QEM_OK;
}

static void give_tables(standardizer *z)
{
    qem_release(z->context, z->mean);
    z->mean = NULL;
}

/* ---- rows and columns in turn ---- */

/* scale[u] = sqrt(square[u]), rounded to f32 in *table; returns their mean square. */
static double take_roots(const double *square, uint64_t units, float *table)
{
    double sum = 0.0;
    for (uint64_t u = 0; u < units; u++) {
        table[u] = (float)sqrt(square[u]);
        sum += (double)table[u] * (double)table[u];
    }
    return sum / (double)units;
}

typedef struct alternation {
    standardizer *z;
    const qem_affine *column_step; /* its means are stored */
    float *row, *column, *before;
    double *square;                 /* room for the larger of both */
} alternation;

static qem_status squares(const alternation *t, qem_axis axis)
{
    const standardizer *z = t->z;
    const int rows = axis == QEM_AXIS_ROW;
    const qem_decode_affine steps[2] = { { QEM_AXIS_ROW, 0, rows ? NULL : t->row, NULL },
                                         { QEM_AXIS_COLUMN, 0, rows ? t->column : NULL, t->column_step->mean } };
    return z->backend->standardized_stats(z->context, z->x, z->rows, z->cols, steps, 2, axis, 0, NULL, NULL, NULL,
                                          t->square);
}

static qem_status alternate(alternation *t)
{
    const standardizer *z = t->z;
    for (uint64_t i = 0; i < z->rows; i++) t->row[i] = 1.0f;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        double change = 0.0;
        QEM_TRY(squares(t, QEM_AXIS_COLUMN));
        take_roots(t->square, z->cols, t->column);
        memcpy(t->before, t->row, (size_t)z->rows * sizeof(float));
        QEM_TRY(squares(t, QEM_AXIS_ROW));
        const double mean_square = take_roots(t->square, z->rows, t->row);
        if (mean_square == 0.0) return QEM_OK; /* a matrix of zeros */
        for (uint64_t i = 0; i < z->rows; i++) {
            t->row[i] = (float)((double)t->row[i] / sqrt(mean_square));
            const double step = fabs((double)t->row[i] - (double)t->before[i]);
            if (step > change * (double)t->before[i]) change = step / ((double)t->before[i] + DBL_MIN);
        }
        if (change < SETTLED) break;
    }
    QEM_TRY(squares(t, QEM_AXIS_COLUMN)); /* the columns that go with the last rows */
    return QEM_OK;
}

/* Stores the columns' scales; the rows' are then those that the stored ones leave. */
static qem_status fit_both(standardizer *z, uint32_t column_step)
{
    const uint64_t larger = z->rows > z->cols ? z->rows : z->cols;
    void *memory;
    QEM_TRY(qem_allocate(z->context, larger, sizeof(double) + 3 * sizeof(float), &memory));
    alternation t = { .z = z, .column_step = &z->steps[column_step], .square = memory };
    t.row = (float *)(t.square + larger);
    t.column = t.row + larger;
    t.before = t.column + larger;
    qem_status status = alternate(&t);
    for (uint64_t j = 0; j < z->cols; j++) t.square[j] = sqrt(t.square[j]);
    if (status == QEM_OK) status = store_scales(z, column_step, t.square);
    qem_release(z->context, memory);
    return status;
}

/* ---- all steps ---- */

static qem_status fit_step(standardizer *z, uint32_t s)
{
    qem_affine *a = &z->steps[s];
    const int both = s > 0 && a->axis == QEM_AXIS_COLUMN && z->steps[s - 1].axis == QEM_AXIS_ROW;
    QEM_TRY(stats(z, s, s + 1, z->least, z->greatest, z->mean, z->square));
    QEM_TRY(fit_means(z, s));
    if (both) return fit_both(z, s);
    for (uint64_t u = 0; u < a->units; u++)
        z->square[u] = a->axis == QEM_AXIS_BLOCK ? fmax(-(double)z->least[u], (double)z->greatest[u]) : sqrt(z->square[u]);
    return store_scales(z, s, z->square);
}

qem_status qem_standardize_begin(qem_context *context, const qem_backend *backend, const float *x, uint64_t rows,
                                 uint64_t cols, const qem_recipe *recipe, qem_affine steps[QEM_MOST_AFFINE], uint32_t *count)
{
    standardizer z = { .context = context, .backend = backend, .x = x, .rows = rows, .cols = cols, .means = recipe->means };
    z.steps = steps;
    z.count = *count = qem_standardize_shape(rows, cols, recipe, steps);
    qem_status status = QEM_OK;
    for (uint32_t s = z.count; status == QEM_OK && s-- > 0;) {
        status = take_tables(&z, steps[s].units);
        if (status == QEM_OK) status = fit_step(&z, s);
        give_tables(&z);
    }
    if (status != QEM_OK) qem_standardize_release(context, steps, count);
    return status;
}
