#include "rotation.h"

#include <math.h>
#include <string.h>

#define LEAST_VARIANCE 1e-12 /* of the largest: axes below it count alike */

/* LAPACK and BLAS by their Fortran names: matrices by columns; the lengths of the texts follow the arguments. */
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u, const int *ldu,
             double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info, size_t jobz_length);
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length);
void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c, const int *ldc,
            size_t transa_length, size_t transb_length);

static qem_status check_size(qem_context *context, uint64_t n)
{
    if (n <= QEM_MOST_ROTATED_COLS) return QEM_OK;
    return qem_fail(context, QEM_ERR_UNSUPPORTED, "a rotation of %llu columns; at most %d are rotated", (unsigned long long)n,
                    QEM_MOST_ROTATED_COLS);
}

/* product = U S V^T in rows is V S U^T in columns: what LAPACK calls U is V, its V^T is U^T, and V U^T in columns is U V^T, the
 * rotation, in rows. */
qem_status qem_rotation_procrustes(qem_context *context, uint64_t n, double *product, double *rotation, int *found)
{
    QEM_TRY(check_size(context, n));
    const int size = (int)n, query = -1;
    const double one = 1.0, zero = 0.0;
    double length = 0.0;
    int info = 0, unused = 0;
    dgesdd_("A", &size, &size, product, &size, &length, &length, &size, &length, &size, &length, &query, &unused, &info, 1);
    const int words = (int)length;
    void *memory;
    QEM_TRY(qem_allocate(context, 2 * n * n + n + (uint64_t)words + 4 * n, sizeof(double), &memory));
    double *v = memory, *ut = v + n * n, *values = ut + n * n, *work = values + n;
    dgesdd_("A", &size, &size, product, &size, values, v, &size, ut, &size, work, &words, (int *)(work + words), &info, 1);
    *found = info == 0;
    if (*found) dgemm_("N", "N", &size, &size, &size, &one, v, &size, ut, &size, &zero, rotation, &size, 1, 1);
    qem_release(context, memory);
    return QEM_OK;
}

/* ---- principal axes ---- */

static uint64_t group_size(uint64_t n, uint32_t dim, uint64_t group)
{
    return n - group * dim < dim ? n - group * dim : dim;
}

/* column[a] = column of R for axis a, axes in ascending order of variance. The logarithms count from the least one, so that
 * every axis adds to its group's. taken, product: [groups] */
static void deal_axes(uint64_t n, uint32_t dim, const double *variance, uint64_t *column, uint64_t *taken, double *product)
{
    const uint64_t groups = (n + dim - 1) / dim;
    const double least = variance[n - 1] * LEAST_VARIANCE;
    for (uint64_t axis = n; axis-- > 0;) {
        uint64_t best = groups;
        for (uint64_t g = 0; g < groups; g++)
            if (taken[g] < group_size(n, dim, g) && (best == groups || product[g] < product[best])) best = g;
        column[axis] = best * dim + taken[best]++;
        product[best] += variance[axis] > least ? log(variance[axis] / least) : 0.0;
    }
}

static qem_status place_axes(qem_context *context, uint64_t n, uint32_t dim, const double *axes, const double *variance,
                             double *rotation)
{
    void *memory;
    QEM_TRY(qem_allocate_zero(context, 3 * n, sizeof(double), &memory));
    uint64_t *column = memory, *taken = column + n;
    for (uint64_t a = 0; a < n; a++) column[a] = n - 1 - a;
    if (dim) deal_axes(n, dim, variance, column, taken, (double *)(taken + n));
    for (uint64_t a = 0; a < n; a++)
        for (uint64_t i = 0; i < n; i++) rotation[i * n + column[a]] = axes[a * n + i];
    qem_release(context, memory);
    return QEM_OK;
}

/* Eigenvalues to `values`, ascending; with axes the eigenvectors take the place of the matrix. */
static qem_status eigen(qem_context *context, uint64_t n, int axes, double *matrix, double *values, int *found)
{
    const char *const job = axes ? "V" : "N";
    const int size = (int)n, query = -1;
    double length = 0.0;
    int info = 0, int_words = 0;
    dsyevd_(job, "L", &size, matrix, &size, values, &length, &query, &int_words, &query, &info, 1, 1);
    const int words = (int)length;
    void *memory;
    QEM_TRY(qem_allocate(context, (uint64_t)words + (uint64_t)int_words, sizeof(double), &memory));
    double *work = memory;
    dsyevd_(job, "L", &size, matrix, &size, values, work, &words, (int *)(work + words), &int_words, &info, 1, 1);
    *found = info == 0;
    qem_release(context, memory);
    return QEM_OK;
}

qem_status qem_rotation_principal(qem_context *context, uint64_t n, uint32_t dim, double *covariance, double *rotation,
                                  int *found)
{
    void *memory;
    QEM_TRY(check_size(context, n));
    QEM_TRY(qem_allocate(context, n, sizeof(double), &memory));
    qem_status status = eigen(context, n, 1, covariance, memory, found);
    if (status == QEM_OK && *found) status = place_axes(context, n, dim, covariance, memory, rotation);
    qem_release(context, memory);
    return status;
}

qem_status qem_rotation_variances(qem_context *context, uint64_t n, double *covariance, double *variance, int *found)
{
    QEM_TRY(check_size(context, n));
    return eigen(context, n, 0, covariance, variance, found);
}
