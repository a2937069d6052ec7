/* Any view -> f32 row-major, with every element checked. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "parallel.h"

#define LOAD_ELEMENTS 65536 /* elements a piece of work */

typedef struct load_job {
    const qem_cpu_kernels *kernels;
    const qem_view *view;
    uint64_t row_step, col_step; /* bytes */
    float *x;                    /* NULL: only check in place */
    _Atomic uint64_t first_bad;  /* least index of a row-major element that is not finite */
} load_job;

static void lower(_Atomic uint64_t *least, uint64_t value)
{
    uint64_t old = atomic_load_explicit(least, memory_order_relaxed);
    while (value < old && !atomic_compare_exchange_weak_explicit(least, &old, value, memory_order_relaxed,
                                                                 memory_order_relaxed)) {
    }
}

/* One element of any type; unaligned. */
static float read_element(const unsigned char *p, qem_dtype dtype, const qem_cpu_kernels *kernels)
{
    uint16_t half;
    float f = 0.0f;
    double d;
    switch (dtype) {
    case QEM_DTYPE_F32: memcpy(&f, p, sizeof f); return f;
    case QEM_DTYPE_F16:
        memcpy(&half, p, sizeof half);
        kernels->f16_to_f32(&half, 1, &f);
        return f;
    case QEM_DTYPE_BF16:
        memcpy(&half, p, sizeof half);
        kernels->bf16_to_f32(&half, 1, &f);
        return f;
    case QEM_DTYPE_F64: memcpy(&d, p, sizeof d); return (float)d; /* beyond f32: infinite, reported as such */
    default: return (float)*p;
    }
}

static void load_row(const load_job *job, const unsigned char *row, float *x)
{
    const uint64_t cols = job->view->cols;
    const size_t element = qem_dtype_size(job->view->dtype);
    const int contiguous = job->col_step == element;
    if (contiguous && job->view->dtype == QEM_DTYPE_F32) {
        memcpy(x, row, (size_t)cols * sizeof(float));
    } else if (contiguous && element == 2 && (uintptr_t)row % 2 == 0) {
        const uint16_t *half = (const uint16_t *)(const void *)row;
        (job->view->dtype == QEM_DTYPE_F16 ? job->kernels->f16_to_f32 : job->kernels->bf16_to_f32)(half, (size_t)cols, x);
    } else {
        for (uint64_t j = 0; j < cols; j++) x[j] = read_element(row + j * job->col_step, job->view->dtype, job->kernels);
    }
}

static void load_rows(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    load_job *job = argument;
    (void)thread;
    const uint64_t cols = job->view->cols;
    for (uint64_t i = begin; i < end; i++) {
        const unsigned char *row = (const unsigned char *)job->view->data + i * job->row_step;
        const float *x = job->x ? job->x + i * cols : (const float *)(const void *)row;
        if (job->x) load_row(job, row, job->x + i * cols);
        const size_t bad = job->kernels->find_nonfinite(x, (size_t)cols);
        if (bad < cols) lower(&job->first_bad, i * cols + bad);
    }
}

qem_status qem_cpu_load(qem_context *context, const qem_view *view, const char *what, qem_matrix *matrix)
{
    const size_t element = qem_dtype_size(view->dtype);
    const uint64_t col_stride = view->col_stride ? view->col_stride : 1;
    const uint64_t row_stride = view->row_stride ? view->row_stride : view->cols;
    load_job job = { .kernels = qem_kernels(context), .view = view, .col_step = col_stride * element, .first_bad = UINT64_MAX };
    job.row_step = view->row_pitch_bytes ? view->row_pitch_bytes : row_stride * element;

    *matrix = (qem_matrix){ NULL, view->rows, view->cols, NULL };
    const int borrowed = view->dtype == QEM_DTYPE_F32 && job.col_step == element &&
                         (job.row_step == view->cols * element || view->rows == 1) &&
                         (uintptr_t)view->data % sizeof(float) == 0;
    if (!borrowed) {
        void *memory;
        QEM_TRY(qem_allocate(context, view->rows * view->cols, sizeof(float), &memory));
        matrix->owned = job.x = memory;
    }
    const uint64_t grain = view->cols >= LOAD_ELEMENTS ? 1 : LOAD_ELEMENTS / view->cols;
    qem_parallel_for(context->threads, view->rows, grain, load_rows, &job);
    if (job.first_bad != UINT64_MAX) {
        const uint64_t row = job.first_bad / view->cols, col = job.first_bad % view->cols;
        qem_release(context, matrix->owned);
        matrix->owned = NULL;
        const unsigned char *p = (const unsigned char *)view->data + row * job.row_step + col * job.col_step;
        const float value = read_element(p, view->dtype, job.kernels);
        return qem_fail(context, QEM_ERR_DATA, "%s: element (%llu, %llu) is %s; every element must be a finite f32", what,
                        (unsigned long long)row, (unsigned long long)col,
                        isnan(value) ? "NaN" : view->dtype == QEM_DTYPE_F64 ? "infinite or beyond the range of f32" : "infinite");
    }
    matrix->x = borrowed ? (const float *)view->data : matrix->owned;
    return QEM_OK;
}
