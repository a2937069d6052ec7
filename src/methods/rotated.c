/*
 * Optimized product quantization (Ge, He, Ke, Sun 2013) of one set of rows: the codes of the rotated rows and the rotation are
 * improved in turn. Each step lowers the same error: the codes' by Lloyd passes that go on from those of the round before, the
 * rotation's by the orthogonal matrix that brings the rows closest to what their codes decode to.
 */
#include "rotated.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "../core/half.h"
#include "rotation.h"

#define LEAST_DROP 2e-3      /* of the error in a round: less ends the rounds */
#define LEAST_GAIN 1e-6      /* over pq: less is not worth a rotation, and may be one of rounding */
#define SAMPLE_ROWS 32768    /* rotations are learnt from no more rows than this, */
#define SAMPLE_POINTS 64     /* or so many for each centroid, */
#define SAMPLE_BLOCK 256     /* in runs of so many */
#define CHECK_ELEMENTS ((uint64_t)1 << 20) /* decoded at once to measure the error */

typedef struct rounds {
    qem_fit *fit;
    qem_rotated_rows *part;
    uint64_t cols;
    double *product, *rotation; /* host, [cols][cols] */
    float *rounded;             /* host, [cols][cols] */
    uint8_t *codes;             /* device, packed labels */
    double *objective;          /* host, [groups] */
} rounds;

qem_status qem_rotated_fits(const qem_fit *fit, const float *x, uint64_t rows, double growth, int *fits)
{
    float least, greatest;
    QEM_TRY(fit->backend->extremes(fit->context, x, rows * fit->points.cols, &least, &greatest));
    const double largest = fmax(-(double)least, greatest);
    *fits = growth * largest * 2.0 * sqrt((double)fit->points.cols) < FLT_MAX; /* twice: centroids and roundings */
    return QEM_OK;
}

void qem_rotated_problems(qem_fit *fit, const qem_rotated_rows *part)
{
    const qem_subvectors *v = &fit->points;
    uint64_t offset = 0;
    for (uint64_t g = 0; g < v->groups; g++) {
        fit->problems[g] = (qem_problem){
            .key = part->cell * v->groups + g,
            .first = g,
            .step = v->groups,
            .count = part->rows,
            .k = qem_fit_group_k(fit, g),
            .codebook_offset = offset,
            .width = g + 1 == v->groups ? v->tail_dim : v->dim,
        };
        offset += fit->problems[g].k * fit->problems[g].width;
    }
}

static qem_kmeans_args arguments(const qem_fit *fit, const qem_rotated_rows *part, const float *x)
{
    qem_kmeans_args args = qem_fit_kmeans_args(fit);
    args.points = qem_cut(x, part->rows, fit->points.cols, fit->points.dim);
    args.point_weight = part->weight;
    args.codebook = part->codebook;
    args.labels = part->labels;
    return args;
}

/* Passes over the groups of x, from seeds or from where the last ones ended; *error is what is left. */
static qem_status lloyd(rounds *r, const float *x, uint32_t passes, int warm, double *error)
{
    qem_kmeans_args args = arguments(r->fit, r->part, x);
    args.warm = (uint32_t)warm;
    args.iterations = passes;
    args.objective = r->objective;
    QEM_TRY(r->fit->backend->kmeans(r->fit->context, &args));
    *error = 0.0;
    for (uint64_t g = 0; g < args.problem_count; g++) *error += r->objective[g];
    return QEM_OK;
}

/* ---- what the codes decode to ---- */

static uint64_t codes_bytes(const qem_fit *fit, uint64_t rows)
{
    const qem_stage stage = { .group_bits = fit->group_bits, .groups = fit->points.groups, .code_bits = qem_code_bits(fit->k) };
    return (rows * qem_stage_row_bits(&stage) + 7) / 8;
}

/* Codes of widths that differ by group, on the host. */
static qem_status pack_groups(rounds *r)
{
    const qem_fit *fit = r->fit;
    const uint64_t count = r->part->rows * fit->points.groups, bytes = codes_bytes(fit, r->part->rows);
    void *stream, *labels;
    QEM_TRY(qem_allocate_zero(fit->context, bytes + QEM_STREAM_SLACK, 1, &stream));
    qem_status status = qem_allocate(fit->context, count, sizeof(uint32_t), &labels);
    if (status == QEM_OK) {
        status = fit->backend->to_host(fit->context, labels, r->part->labels, count * sizeof(uint32_t));
        if (status == QEM_OK) qem_pack_groups(labels, count, fit->group_bits, fit->points.groups, 0, stream);
        if (status == QEM_OK) status = fit->backend->to_device(fit->context, r->codes, stream, bytes);
        qem_release(fit->context, labels);
    }
    qem_release(fit->context, stream);
    return status;
}

static qem_status pack(rounds *r)
{
    const qem_fit *fit = r->fit;
    const uint32_t bits = qem_code_bits(fit->k);
    if (fit->group_bits) return pack_groups(r);
    return bits ? fit->backend->pack(fit->context, r->part->labels, r->part->rows * fit->points.groups, bits, r->codes) : QEM_OK;
}

static qem_status decode(rounds *r, uint64_t begin, uint64_t end, float *out)
{
    const qem_fit *fit = r->fit;
    const uint32_t bits = qem_code_bits(fit->k);
    int overflow;
    const qem_decode_stage stage = {
        .kind = QEM_CODEBOOK_PER_GROUP,
        .dim = fit->points.dim,
        .code_bits = bits,
        .groups = fit->points.groups,
        .k = fit->k,
        .row_end = r->part->rows,
        .codes = r->codes,
        .codes_bytes = codes_bytes(fit, r->part->rows),
        .group_bits = fit->group_bits,
        .codebook = r->part->codebook,
    };
    const qem_decode_args args = {
        .rows = r->part->rows,
        .cols = r->cols,
        .row_begin = begin,
        .row_end = end,
        .stage_count = 1,
        .stages = &stage,
        .dtype = QEM_DTYPE_F32,
        .out = out,
        .row_stride = r->cols,
        .overflow = &overflow,
    };
    return fit->backend->decode(fit->context, &args);
}

/* ---- rotations ---- */

static float as_stored(const qem_fit *fit, double value)
{
    return qem_recipe_halves_rotation(&fit->recipe) ? qem_f16_to_f32(qem_f32_to_f16((float)value)) : (float)value;
}

static qem_status upload(rounds *r)
{
    const qem_backend *backend = r->fit->backend;
    const uint64_t n = r->cols, bytes = n * n * sizeof(float);
    for (uint64_t i = 0; i < n * n; i++) r->rounded[i] = as_stored(r->fit, r->rotation[i]);
    QEM_TRY(backend->to_device(r->fit->context, r->part->encoder, r->rounded, bytes));
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = 0; j < n; j++) r->rounded[j * n + i] = as_stored(r->fit, r->rotation[i * n + j]);
    return backend->to_device(r->fit->context, r->part->decoder, r->rounded, bytes);
}

static qem_status rotate(rounds *r)
{
    return r->fit->backend->rotate(r->fit->context, r->part->x, r->part->rows, r->cols, r->part->encoder, NULL, NULL, r->part->y);
}

static qem_status set_identity(rounds *r)
{
    memset(r->rotation, 0, (size_t)(r->cols * r->cols) * sizeof *r->rotation);
    for (uint64_t i = 0; i < r->cols; i++) r->rotation[i * r->cols + i] = 1.0;
    return upload(r);
}

/* The rotation for the codes of now; *found 0: there is none. */
static qem_status next_rotation(rounds *r, int *found)
{
    const qem_fit *fit = r->fit;
    QEM_TRY(pack(r));
    QEM_TRY(decode(r, 0, r->part->rows, r->part->y));
    QEM_TRY(fit->backend->cross_product(fit->context, r->part->x, r->part->y, r->part->rows, r->cols, r->cols, r->product));
    QEM_TRY(qem_rotation_procrustes(fit->context, r->cols, r->product, r->rotation, found));
    return *found ? upload(r) : QEM_OK;
}

/* Sums of the columns: x^T 1. */
static qem_status column_sums(const qem_fit *fit, const float *x, uint64_t rows, double *sums)
{
    void *host, *device;
    QEM_TRY(qem_allocate(fit->context, rows, sizeof(float), &host));
    for (uint64_t i = 0; i < rows; i++) ((float *)host)[i] = 1.0f;
    qem_status status = fit->backend->alloc(fit->context, rows, sizeof(float), &device);
    if (status == QEM_OK) {
        status = fit->backend->to_device(fit->context, device, host, rows * sizeof(float));
        if (status == QEM_OK) status = fit->backend->cross_product(fit->context, x, device, rows, fit->points.cols, 1, sums);
        fit->backend->release(fit->context, device);
    }
    qem_release(fit->context, host);
    return status;
}

/* sums: [cols], scratch */
static qem_status covariance_of(const qem_fit *fit, const float *x, uint64_t rows, double *sums, double *covariance)
{
    const uint64_t cols = fit->points.cols;
    const double count = (double)rows;
    QEM_TRY(column_sums(fit, x, rows, sums));
    QEM_TRY(fit->backend->cross_product(fit->context, x, x, rows, cols, cols, covariance));
    for (uint64_t i = 0; i < cols; i++)
        for (uint64_t j = 0; j < cols; j++) {
            double *c = &covariance[i * cols + j];
            *c = (*c - sums[i] / count * sums[j]) / count;
        }
    return QEM_OK;
}

static qem_status principal_start(rounds *r, int *found)
{
    const qem_fit *fit = r->fit;
    const uint32_t dim = fit->group_bits ? 0 : fit->points.dim; /* groups of their own widths need not balance */
    QEM_TRY(covariance_of(fit, r->part->x, r->part->rows, r->rotation, r->product)); /* the rotation is yet to come */
    QEM_TRY(qem_rotation_principal(fit->context, r->cols, dim, r->product, r->rotation, found));
    return *found ? upload(r) : QEM_OK;
}

qem_status qem_rotated_variances(const qem_fit *fit, double *variance, int *found)
{
    const uint64_t cols = fit->points.cols;
    void *memory;
    if (cols > QEM_MOST_ROTATED_COLS) { /* the fit will say so */
        *found = 0;
        return QEM_OK;
    }
    QEM_TRY(qem_allocate(fit->context, cols * cols, sizeof(double), &memory));
    qem_status status = covariance_of(fit, fit->points.x, fit->points.rows, variance, memory);
    if (status == QEM_OK) status = qem_rotation_variances(fit->context, cols, memory, variance, found);
    qem_release(fit->context, memory);
    for (uint64_t i = 0, j = cols - 1; status == QEM_OK && i < j; i++, j--) {
        const double swap = variance[i];
        variance[i] = variance[j];
        variance[j] = swap;
    }
    for (uint64_t i = 0; status == QEM_OK && i < cols; i++) variance[i] = fmax(variance[i], 0.0);
    return status;
}

/* ---- the error that counts: of the rows as they will be decoded ---- */

static qem_status measure(rounds *r, int rotated, double *error)
{
    const qem_fit *fit = r->fit;
    const uint64_t rows = r->part->rows, at_once = r->cols >= CHECK_ELEMENTS ? 1 : CHECK_ELEMENTS / r->cols;
    const uint64_t most = rows < at_once ? rows : at_once;
    void *device;
    QEM_TRY(pack(r));
    QEM_TRY(fit->backend->alloc(fit->context, 2 * most * r->cols, sizeof(float), &device));
    float *coded = device, *back = coded + most * r->cols;
    qem_status status = QEM_OK;
    *error = 0.0;
    for (uint64_t row = 0; status == QEM_OK && row < rows; row += most) {
        const uint64_t n = rows - row < most ? rows - row : most;
        qem_error_sums sums;
        status = decode(r, row, row + n, coded);
        if (status == QEM_OK && rotated)
            status = fit->backend->rotate(fit->context, coded, n, r->cols, r->part->decoder, NULL, NULL, back);
        if (status == QEM_OK)
            status = fit->backend->error_sums(fit->context, r->part->x + row * r->cols, rotated ? back : coded, n * r->cols, &sums);
        if (status == QEM_OK) *error += sums.squared_error;
    }
    fit->backend->release(fit->context, device);
    return status;
}

/* ---- the fit ---- */

static qem_status begin(qem_fit *fit, qem_rotated_rows *part, rounds *r)
{
    const uint64_t square = fit->points.cols * fit->points.cols;
    void *memory;
    memset(r, 0, sizeof *r);
    r->fit = fit;
    r->part = part;
    r->cols = fit->points.cols;
    QEM_TRY(qem_allocate(fit->context, 2 * square + fit->points.groups + (square + 1) / 2, sizeof(double), &memory));
    r->product = memory;
    r->rotation = r->product + square;
    r->objective = r->rotation + square;
    r->rounded = (float *)(r->objective + fit->points.groups);
    const qem_status status =
        fit->backend->alloc(fit->context, codes_bytes(fit, part->rows) + QEM_STREAM_SLACK, 1, &memory);
    if (status == QEM_OK) r->codes = memory;
    return status;
}

static void end(rounds *r)
{
    if (!r->fit) return;
    r->fit->backend->release(r->fit->context, r->codes);
    qem_release(r->fit->context, r->product);
}

/* Rotations and single passes in turn, from codes whose error is `error`, which becomes that of the last passes. */
static qem_status improve(rounds *r, double *error)
{
    const uint32_t passes = r->fit->recipe.iterations;
    for (uint32_t round = 0; round < passes && *error > 0.0; round++) {
        const double before = *error;
        int found;
        QEM_TRY(next_rotation(r, &found));
        QEM_TRY(rotate(r));
        if (!found) break;
        QEM_TRY(lloyd(r, r->part->y, 1, 1, error));
        if (before - *error < LEAST_DROP * before) break;
    }
    return lloyd(r, r->part->y, passes, 1, error);
}

/* pq of the rows as they are. */
static qem_status plain(rounds *r, double *error)
{
    QEM_TRY(lloyd(r, r->part->x, r->fit->recipe.iterations, 0, error));
    return set_identity(r);
}

/* pq in principal axes; *found 0: there are none, the rotation is what it was. */
static qem_status principal(rounds *r, double *error, int *found)
{
    QEM_TRY(principal_start(r, found));
    if (!*found) return QEM_OK;
    QEM_TRY(rotate(r));
    return lloyd(r, r->part->y, r->fit->recipe.iterations, 0, error);
}

/* Improves the better of two starts: pq, whose codes are there and have the error *error, and, if wanted, principal axes. */
static qem_status improve_best(rounds *r, int try_axes, double *error)
{
    const double by_plain = *error;
    int axes = 0;
    if (try_axes) QEM_TRY(principal(r, error, &axes));
    if (axes && !(*error < by_plain)) QEM_TRY(plain(r, error));
    return improve(r, error);
}

static qem_status improve_axes(rounds *r, double *error)
{
    int found;
    QEM_TRY(principal(r, error, &found));
    if (!found) QEM_TRY(plain(r, error));
    return improve(r, error);
}

/* ---- many rows: the rotation is that of a sample ---- */

static uint64_t sample_rows(const rounds *r)
{
    const uint64_t wanted = r->fit->k * SAMPLE_POINTS > SAMPLE_ROWS ? r->fit->k * SAMPLE_POINTS : SAMPLE_ROWS;
    return r->part->rows / 2 > wanted ? wanted / SAMPLE_BLOCK * SAMPLE_BLOCK : 0;
}

/* Copies runs of rows that lie evenly among all. */
static qem_status take_sample(const rounds *r, const void *from, uint64_t bytes, uint64_t count, void *to)
{
    const qem_fit *fit = r->fit;
    const uint64_t blocks = count / SAMPLE_BLOCK, run = SAMPLE_BLOCK * bytes;
    void *host;
    QEM_TRY(qem_allocate(fit->context, SAMPLE_BLOCK, bytes, &host));
    qem_status status = QEM_OK;
    for (uint64_t b = 0; b < blocks && status == QEM_OK; b++) {
        const uint64_t row = r->part->rows * b / blocks;
        status = fit->backend->to_host(fit->context, host, (const unsigned char *)from + row * bytes, run);
        if (status == QEM_OK) status = fit->backend->to_device(fit->context, (unsigned char *)to + b * run, host, run);
    }
    qem_release(fit->context, host);
    return status;
}

static qem_status improve_sample(rounds *r, int start)
{
    double error;
    if (start == QEM_ROTATION_PCA) return improve_axes(r, &error);
    QEM_TRY(plain(r, &error));
    return improve_best(r, start == QEM_ROTATION_BEST, &error);
}

/* Rotation and codebook from `count` rows of the part. memory: device, for x, y, weights and labels of the sample. */
static qem_status learn_from(rounds *all, uint64_t count, float *memory)
{
    const uint64_t groups = all->fit->points.groups;
    qem_rotated_rows part = *all->part;
    rounds r;
    part.rows = count;
    part.x = memory;
    part.y = memory + count * all->cols;
    part.labels = (uint32_t *)(part.y + count * all->cols);
    float *weight = (float *)(part.labels + count * groups);
    QEM_TRY(take_sample(all, all->part->x, all->cols * sizeof(float), count, memory));
    if (part.weight) {
        QEM_TRY(take_sample(all, all->part->weight, groups * sizeof(float), count, weight));
        part.weight = weight;
    }
    qem_rotated_problems(all->fit, &part);
    qem_status status = begin(all->fit, &part, &r);
    if (status == QEM_OK) status = improve_sample(&r, all->fit->recipe.rotation_start);
    end(&r);
    qem_rotated_problems(all->fit, all->part);
    return status;
}

/* The sample's rotation for all rows, whose codes go on from its codebook. */
static qem_status improve_by_sample(rounds *r, uint64_t count, double *error)
{
    const qem_fit *fit = r->fit;
    const uint64_t width = 2 * r->cols + (r->part->weight ? 2 : 1) * fit->points.groups;
    void *memory;
    QEM_TRY(fit->backend->alloc(fit->context, count * width, sizeof(float), &memory));
    const qem_status status = learn_from(r, count, memory);
    fit->backend->release(fit->context, memory);
    if (status != QEM_OK) return status;
    QEM_TRY(rotate(r));
    const qem_kmeans_args args = arguments(fit, r->part, r->part->y);
    QEM_TRY(fit->backend->assign(fit->context, &args));
    return lloyd(r, r->part->y, fit->recipe.iterations, 1, error);
}

/* Keeps what a rotation makes of the rows where it is better than pq: by the errors as decoded, or by those of the passes where
 * rows have weights. */
static qem_status from_plain(rounds *r, int try_axes)
{
    const int weighted = r->part->weight != NULL;
    const uint64_t sample = sample_rows(r);
    double first, last;
    QEM_TRY(plain(r, &first));
    if (!(first > 0.0) || r->fit->recipe.iterations == 0) return rotate(r);
    last = first;
    if (!weighted) QEM_TRY(measure(r, 0, &first));
    QEM_TRY(sample ? improve_by_sample(r, sample, &last) : improve_best(r, try_axes, &last));
    if (!weighted) QEM_TRY(measure(r, 1, &last));
    if (last < first * (1.0 - LEAST_GAIN)) return QEM_OK;
    QEM_TRY(plain(r, &last));
    return rotate(r);
}

static qem_status run(rounds *r)
{
    const int start = r->fit->recipe.rotation_start;
    const uint64_t sample = sample_rows(r);
    int can;
    double error;
    QEM_TRY(qem_rotated_fits(r->fit, r->part->x, r->part->rows, 1.0, &can));
    if (can && start != QEM_ROTATION_PCA) return from_plain(r, start == QEM_ROTATION_BEST);
    if (can) return sample ? improve_by_sample(r, sample, &error) : improve_axes(r, &error);
    QEM_TRY(plain(r, &error));
    return rotate(r); /* by the identity: exact */
}

/* A cell without rows: a codebook that no code points to. */
static qem_status no_rows(rounds *r)
{
    const qem_fit *fit = r->fit;
    QEM_TRY(fit->backend->zero(fit->context, r->part->codebook, fit->k * r->cols * sizeof(float)));
    return set_identity(r);
}

qem_status qem_rotated_fit(qem_fit *fit, qem_rotated_rows *part)
{
    rounds r;
    qem_rotated_problems(fit, part);
    qem_status status = begin(fit, part, &r);
    if (status == QEM_OK) status = part->rows ? run(&r) : no_rows(&r);
    end(&r);
    return status;
}

qem_status qem_rotated_assign(qem_fit *fit, const qem_rotated_rows *part)
{
    if (part->rows == 0) return QEM_OK;
    qem_rotated_problems(fit, part);
    const qem_kmeans_args args = arguments(fit, part, part->y);
    return fit->backend->assign(fit->context, &args);
}

qem_status qem_rotated_encode(qem_fit *fit, const qem_rotated_rows *part, const float *decoder, const float *before)
{
    const uint64_t cols = fit->points.cols;
    void *memory;
    if (part->rows == 0) return QEM_OK;
    QEM_TRY(qem_allocate(fit->context, cols * cols, sizeof(float), &memory));
    float *encoder = memory;
    for (uint64_t i = 0; i < cols; i++)
        for (uint64_t j = 0; j < cols; j++) encoder[j * cols + i] = decoder[i * cols + j];
    qem_status status = fit->backend->to_device(fit->context, part->encoder, encoder, cols * cols * sizeof(float));
    qem_release(fit->context, memory);
    if (status == QEM_OK)
        status = fit->backend->rotate(fit->context, part->x, part->rows, cols, part->encoder, before, NULL, part->y);
    return status == QEM_OK ? qem_rotated_assign(fit, part) : status;
}
