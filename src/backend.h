/*
 * The table of primitives that a device fills. Methods are written once against it: they never touch the elements of a
 * matrix themselves, so every pointer marked "device" may be memory of another device. Host pointers are marked "host".
 * All functions run in the context's order, block or enqueue as the device likes, and return only when host outputs are
 * there. Every primitive is deterministic: integer and fixed-point sums, ties to the lowest index, fixed fma chains.
 */
#ifndef QEM_BACKEND_H
#define QEM_BACKEND_H

#include <qem/qem.h>

#include "core/artifact.h"
#include "core/context.h"

/* A row-major f32 matrix in device memory, all elements finite. */
typedef struct qem_matrix {
    const float *x;   /* device */
    uint64_t rows, cols;
    float *owned;     /* device; NULL when x is borrowed from the view */
} qem_matrix;

/* The matrix cut into sub-vectors: id = row * groups + group; the last group may have tail_dim < dim positions. k-means takes
 * every n-th row of a matrix too: rows is then their number, cols n times that of the matrix. */
typedef struct qem_subvectors {
    const float *x;   /* device */
    uint64_t rows, cols; /* cols: from row to row */
    uint64_t groups;
    uint32_t dim;
    uint32_t tail_dim; /* cols % dim, or dim when that is 0 */
} qem_subvectors;

static inline qem_subvectors qem_cut(const float *x, uint64_t rows, uint64_t cols, uint32_t dim)
{
    qem_subvectors v;
    v.x = x;
    v.rows = rows;
    v.cols = cols;
    v.groups = (cols + dim - 1) / dim;
    v.dim = dim;
    v.tail_dim = cols % dim ? (uint32_t)(cols % dim) : dim;
    return v;
}

/* Does sub-vector id begin at x + id * dim? Not where rows have tails or gaps. */
#ifdef __CUDACC__
__host__ __device__
#endif
static inline int qem_are_dense(const qem_subvectors *v)
{
    return v->cols == v->groups * v->dim;
}

/*
 * One k-means or assignment problem: a set of sub-vectors and the codebook entries that are theirs. The points are the ids
 * first, first + step, ... or, when ids is set, ids[0 .. count-1] (ascending). Order of the points for draws and ties: the
 * full sub-vectors in ascending id, then the tail ones.
 */
typedef struct qem_problem {
    uint64_t key;             /* key of the draws, beside the seed */
    uint64_t first, step;
    const uint32_t *ids;      /* device, or NULL */
    uint64_t count;
    uint64_t k;               /* entries; on return of kmeans those really set are in used[] */
    uint64_t codebook_offset; /* of entry 0, in floats */
    uint32_t width;           /* floats from entry to entry: dim, or tail_dim for a tail group's own codebook */
    uint32_t label_base;      /* label = label_base + index of the entry */
} qem_problem;

typedef struct qem_kmeans_args {
    qem_subvectors points;
    const qem_problem *problems; /* host */
    uint64_t problem_count;
    qem_dtype codebook_dtype;    /* F32 or F16: codes are assigned against centroids rounded to it */
    uint32_t iterations, restarts;
    uint32_t warm;               /* 1: no seeds: the passes go on from what codebook and labels hold (restarts then counts as 1) */
    double tolerance;
    uint64_t seed;
    /* Importance of the squared error, or NULL for 1: of each element, in the places of points.x (the error of an element
     * is weight * (x - c)^2, so the search is weighted too), or of each sub-vector, by id (the search is not). One of both. */
    const float *element_weight, *point_weight; /* device; finite, >= 0 */
    float *codebook;             /* device out (warm: in and out); entries not used repeat entry 0, so that no search picks them */
    uint32_t *labels;            /* device out (warm: in and out), indexed by sub-vector id */
    uint64_t *used;              /* host out, one a problem; may be NULL */
    double *objective;           /* host out, one a problem: sum of squared distances; may be NULL */
} qem_kmeans_args;

/* Global assignment and refinement of a shared codebook that was fitted cell by cell. */
typedef struct qem_refine_args {
    qem_subvectors points;
    uint32_t *order;             /* device: the ids of all sub-vectors, cell by cell; the ids of a cell may change places */
    const uint64_t *offsets;     /* host, [cells + 1]: where each cell begins in order */
    uint64_t cells;
    uint64_t k;
    qem_dtype codebook_dtype;
    uint32_t passes;             /* exact Lloyd passes over all sub-vectors; 0: labels alone */
    float *codebook;             /* device in and out, [k, dim] */
    uint32_t *labels;            /* device in and out; going in those of the cells */
} qem_refine_args;

/* One step of de-standardization: x = fmaf(z, scale[u], mean[u]); qem_affine says which unit is u. A missing scale is 1, a
 * missing mean 0 (still by fmaf: z * scale + 0, z * 1 + mean). Units are those of the whole artifact. */
typedef struct qem_decode_affine {
    qem_axis axis;
    uint64_t block;
    const float *scale, *mean; /* device; either may be NULL */
} qem_decode_affine;

/*
 * The stage of one layer that decodes the rows asked for, with the steps of its layer; the same fields as qem_stage, in
 * device memory. Codes, maps and row cells begin with row row_begin of the artifact.
 */
typedef struct qem_decode_stage {
    qem_codebook_kind kind;
    uint32_t dim, code_bits, levels;
    uint64_t groups, k;
    uint64_t row_begin, row_end;
    const uint8_t *codes;
    uint64_t codes_bytes;
    const uint8_t *group_bits;     /* or NULL */
    const float *codebook;
    const uint16_t *codebook_half; /* the same codebook as f16 if it is stored so, or NULL */
    const uint8_t *swap_map;
    uint64_t swap_map_bytes;
    float scale, mean; /* QEM_CODEBOOK_UNIFORM: codebook[j] = fmaf(j, scale, mean) */
    uint32_t cells;
    const float *rotation, *coarse;
    const uint8_t *row_cells;
    uint32_t affine_count;
    qem_decode_affine affine[QEM_MOST_AFFINE];
} qem_decode_stage;

/* Elements that are written over the decoded ones: index in row-major order of the whole artifact, ascending. */
typedef struct qem_decode_outliers {
    uint64_t count;
    uint32_t index_size;
    const void *index;
    const float *value;
} qem_decode_outliers;

/* The sum of the stages (each one layer's), in order: out = 0-th, then + 1st, ...; then the outliers. */
typedef struct qem_decode_args {
    uint64_t rows, cols;           /* of the whole artifact */
    uint64_t row_begin, row_end;   /* within the rows of every stage */
    uint32_t stage_count;
    const qem_decode_stage *stages; /* host array */
    qem_decode_outliers outliers;
    qem_dtype dtype;               /* F32, F16, BF16 */
    void *out;                     /* device; row row_begin first */
    uint64_t row_stride;           /* elements */
    int *overflow;                 /* host out: 1 if a finite value became infinite */
} qem_decode_args;

/* y[b][i] = sum over j of x[b][j] * W[i][j], W the decoded artifact; qem_matmul says how the sums are made. */
typedef struct qem_matmul_args {
    uint64_t rows, cols; /* of the whole artifact */
    uint64_t row_begin, row_end; /* rows of the artifact = columns of y that are made, within the rows of every stage */
    uint32_t stage_count;
    const qem_decode_stage *stages; /* host array */
    qem_decode_outliers outliers;
    uint64_t batch;
    qem_dtype x_dtype, y_dtype; /* F32, F16, BF16 */
    const void *x;              /* device */
    void *y;                    /* device; column row_begin first */
    uint64_t x_stride, y_stride; /* elements */
    void *workspace;            /* device, aligned to 64, of matmul_workspace bytes */
    int *overflow;              /* host out: 1 if a finite value became infinite as it was stored */
} qem_matmul_args;

/*
 * Sums for the metrics, bit equal for every thread count and instruction set: element i of the matrix adds, in index order,
 * to lane i % 8 of its chunk of QEM_ERROR_CHUNK elements; the 8 lanes are added in the order ((0+1)+(2+3))+((4+5)+(6+7)), the
 * chunks in ascending order. e = (double)x - (double)y; sums of |e|, e*e (rounded product, then add), |e|/|x| over x != 0.
 * The variance is two-pass: sum of x first, then of (x - mean)^2, by the same lanes and chunks.
 */
#define QEM_ERROR_CHUNK 4096
typedef struct qem_error_sums {
    double abs_error, squared_error, relative_error, max_error;
    uint64_t zeros;
} qem_error_sums;

typedef struct qem_backend {
    const char *name;

    /* memory */
    qem_status (*alloc)(qem_context *, uint64_t count, uint64_t size, void **device);
    void (*release)(qem_context *, void *device);
    qem_status (*to_device)(qem_context *, void *device, const void *host, uint64_t bytes);
    qem_status (*to_host)(qem_context *, void *host, const void *device, uint64_t bytes);
    qem_status (*copy)(qem_context *, void *device, const void *other_device, uint64_t bytes);
    qem_status (*zero)(qem_context *, void *device, uint64_t bytes);

    /* any view -> f32 matrix (borrowed when it is one already); DATA names the first element that is not finite. `what`
     * names the matrix in the message. */
    qem_status (*load)(qem_context *, const qem_view *view, const char *what, qem_matrix *matrix);

    /* scalar codebooks: extremes; 65536 bins by the top 16 bits of the ordered key of x - center (count and sum of
     * x - center each); one Lloyd step by ascending thresholds (code = number of thresholds <= x): count and sum of
     * x - center of each code; codes alone. Sums are exact integers in units of 2^-shift. All tables are host memory. */
    qem_status (*extremes)(qem_context *, const float *x, uint64_t count, float *min, float *max);
    qem_status (*mean)(qem_context *, const float *x, uint64_t count, double *mean);
    qem_status (*scalar_histogram)(qem_context *, const float *x, uint64_t count, double center, uint64_t *counts);
    qem_status (*scalar_step)(qem_context *, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                              double center, int shift, uint64_t *counts, int64_t *sums);
    /* The same with a weight for each element: sums of w in units of 2^-weight_shift, of w * (x - center) of 2^-shift; each term
     * is rounded to that unit (to nearest even). The moments: sums of w, w * d, (w * d) * d with d = x - center, in double, by
     * chunks of QEM_ERROR_CHUNK elements, each in index order, then the chunks in order. */
    qem_status (*scalar_weighted_histogram)(qem_context *, const float *x, const float *weight, uint64_t count, double center,
                                            int weight_shift, uint64_t *weights);
    qem_status (*scalar_weighted_step)(qem_context *, const float *x, const float *weight, uint64_t count,
                                       const float *thresholds, uint64_t k, double center, int weight_shift, int shift,
                                       uint64_t *weights, int64_t *sums);
    qem_status (*weighted_moments)(qem_context *, const float *x, const float *weight, uint64_t count, double center,
                                   double moments[3] /* host */);
    qem_status (*scalar_assign)(qem_context *, const float *x, uint64_t count, const float *thresholds, uint64_t k,
                                uint32_t *labels /* device */);

    /* cells: cut points [dim][intervals-1] (host); cell id of every sub-vector; stable grouping of 0..count-1 by key with
     * offsets[key_count+1] (host) */
    qem_status (*quantiles)(qem_context *, qem_subvectors points, uint32_t intervals, float *cuts /* host */);
    qem_status (*cell_ids)(qem_context *, qem_subvectors points, uint32_t intervals, const float *cuts /* host */,
                           uint32_t *ids /* device */);
    qem_status (*group_by_key)(qem_context *, const uint32_t *keys, uint64_t count, uint64_t key_count,
                               uint32_t *order /* device */, uint64_t *offsets /* host */);

    /* number of distinct sub-vectors of each problem (-0 == +0; tail ones compare by their own positions), counting stops
     * at the problem's k */
    qem_status (*count_distinct)(qem_context *, qem_subvectors points, const qem_problem *problems, uint64_t problem_count,
                                 uint64_t *distinct /* host */);

    /* the distinct values, ascending (-0 is +0), and how often each occurs, if there are at most `limit` of them; *found =
     * limit + 1 if there are more, the tables (host, limit entries) are then undefined */
    qem_status (*distinct_values)(qem_context *, const float *x, uint64_t count, uint64_t limit, float *values,
                                  uint64_t *counts, uint64_t *found);

    qem_status (*kmeans)(qem_context *, const qem_kmeans_args *args);
    /* labels against fixed codebooks; reads points, problems, codebook, labels of the arguments */
    qem_status (*assign)(qem_context *, const qem_kmeans_args *args);
    qem_status (*refine)(qem_context *, const qem_refine_args *args);

    /* QET swap; map bytes are written whole */
    qem_status (*swap_forward)(qem_context *, const float *x, uint64_t rows, uint64_t cols, uint32_t levels, float *ordered,
                               uint8_t *map);
    qem_status (*swap_inverse)(qem_context *, const float *ordered, const uint8_t *map, uint64_t rows, uint64_t cols,
                               uint32_t levels, float *restored);

    /* The columns of a second matrix in the order that swap_forward gave the first one, told by its map. */
    qem_status (*swap_by_map)(qem_context *, const float *x, const uint8_t *map, uint64_t rows, uint64_t cols, uint32_t levels,
                              float *ordered);

    /* ---- standardization ---- */

    /* Least and greatest element, mean and mean square (both double, of elements x - 0) of each unit along an axis; host
     * tables of as many entries as there are units, each may be NULL. Sums in a fixed order. */
    qem_status (*unit_stats)(qem_context *, const float *x, uint64_t rows, uint64_t cols, qem_axis axis, uint64_t block,
                             float *least, float *greatest, double *mean, double *square);
    /* The same of the matrix standardized by the steps, in double: (x - mean[u]) * (1 / scale[u]), 0 where a scale is 0; from the
     * last to the first. Extremes beyond f32 are the largest floats. The steps' tables are host memory. */
    qem_status (*standardized_stats)(qem_context *, const float *x, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                                     uint32_t count, qem_axis axis, uint64_t block, float *least, float *greatest, double *mean,
                                     double *square);
    /* z = (x - mean[u]) / scale[u] by the steps from the last to the first, each operation rounded once; +0 where a scale is 0.
     * z may be x; without steps it is a copy. The steps' tables are host memory here. */
    qem_status (*standardize)(qem_context *, const float *x, uint64_t rows, uint64_t cols, const qem_decode_affine *steps,
                              uint32_t count, float *z);
    /* weight = importance * product of all scale[u]^2 * a power of two that keeps all of them up to 1 (weights count only
     * against each other), in double, rounded once; importance: NULL, [cols] or [rows, cols] (importance_rows 0, 1, rows). */
    qem_status (*element_weights)(qem_context *, uint64_t rows, uint64_t cols, const qem_decode_affine *steps, uint32_t count,
                                  const float *importance, uint64_t importance_rows, float *weight);
    /* For each block: the integer q of 0 .. 2^bits - 1 with the least sum of weight * (x - level * scale)^2 over its elements, each
     * at the nearest of k ascending levels to x / scale (with scale 0 the error is x itself), scale = q * (super[block / per_super]
     * / (2^bits - 1)); x is the matrix before the block step. Ties: the lowest q, so 0 for a block of zeros. weight may be NULL: 1;
     * where a block's are all 0, q is as if they were 1. error (may be NULL): those sums. bits 1 .. 8; with bits 1 and per_super
     * 1 the supers themselves are judged. levels, supers, q, error: host. */
    qem_status (*search_block_scales)(qem_context *, const float *x, const float *weight, uint64_t rows, uint64_t cols,
                                      uint64_t block, uint32_t bits, uint64_t per_super, const float *supers,
                                      const float *levels, uint64_t k, uint8_t *q, double *error);

    /* The mean weight of the elements of each sub-vector; weights.x holds those of elements. pooled: device, by id. */
    qem_status (*pool_weights)(qem_context *, qem_subvectors weights, float *pooled);
    /* For each block the scale >= 0 of the least sum of weight * (x - coded * scale)^2 over its elements, in double; 0 where coded
     * is 0 or points the other way. weight: device, or NULL; scale: host. */
    qem_status (*fit_block_scales)(qem_context *, const float *x, const float *coded, const float *weight, uint64_t rows,
                                   uint64_t cols, uint64_t block, float *scale);

    /* ---- outliers ---- */

    /* The `count` elements of the largest |x - mean[column]| * inverse[column] (a difference and a product of f32; NaN is 0; ties
     * to the lowest index), or, with count UINT64_MAX, all with a score above `threshold`. index: host, row-major, ascending,
     * *found of them; with NULL they are only counted. mean, inverse: host. */
    qem_status (*select_outliers)(qem_context *, const float *x, uint64_t rows, uint64_t cols, const float *mean,
                                  const float *inverse, uint64_t count, float threshold, uint64_t *index, uint64_t *found);
    /* x[index[i]] = value[i]; gather: value[i] = x[index[i]]. index and value are host memory. */
    qem_status (*scatter)(qem_context *, float *x, const uint64_t *index, const float *value, uint64_t count);
    qem_status (*gather)(qem_context *, const float *x, const uint64_t *index, uint64_t count, float *value);
    /* x -= y */
    qem_status (*subtract)(qem_context *, float *x, const float *y, uint64_t count);

    /* ---- rotation ---- */

    /* out[i][j] = fma chain over p ascending of (x[i][p] - before[p]) * rotation[p][j], from after[j]; rotation: [cols][cols]; before
     * and after may be NULL: nothing is subtracted, the chain begins with x * rotation + 0. out must not be x. */
    qem_status (*rotate)(qem_context *, const float *x, uint64_t rows, uint64_t cols, const float *rotation, const float *before,
                         const float *after, float *out);
    /* a^T * b in double, [cols_a, cols_b], host out: sums over rows in fixed chunks, in f64. */
    qem_status (*cross_product)(qem_context *, const float *a, const float *b, uint64_t rows, uint64_t cols_a, uint64_t cols_b,
                                double *product);

    /* labels -> bit stream of qem_bit_stream_bytes(count, bits) bytes */
    qem_status (*pack)(qem_context *, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream);

    /* fused: unpack, look up, inverse swaps, add stages, convert, store */
    qem_status (*decode)(qem_context *, const qem_decode_args *args);

    /* An artifact, which lies in host memory, made ready to be decoded as often as wanted: rows to `out`, device memory, row
     * row_begin first. Ended by close_artifact. All NULL where host memory is the device's: decode then reads it in place. */
    qem_status (*open_artifact)(qem_context *, const qem_artifact *artifact, void **opened);
    qem_status (*decode_artifact)(qem_context *, void *opened, uint64_t row_begin, uint64_t row_end, qem_dtype dtype, void *out,
                                  uint64_t row_stride, int *overflow /* host */);
    void (*close_artifact)(qem_context *, void *opened);

    /* products on codes, both NULL where there are none; the workspace's bytes depend on the stages, the shape, batch, x_dtype and the context's threads */
    uint64_t (*matmul_workspace)(const qem_context *, const qem_matmul_args *args);
    void (*matmul)(qem_context *, const qem_matmul_args *args);

    /* metrics */
    qem_status (*error_sums)(qem_context *, const float *x, const float *y, uint64_t count, qem_error_sums *sums);
    qem_status (*sum)(qem_context *, const float *x, uint64_t count, double center, double *sum, double *squared);
} qem_backend;

/* The CPU's table; the kernels for context->isa are chosen by qem_cpu_kernels_for (cpu/kernels.h). */
extern const qem_backend qem_cpu_backend;

/* Makes a context that is otherwise set up one of GPU `device`: its backend, and a stream of its own. NO_DEVICE where there is no
 * driver or no such GPU, and in builds without CUDA (api/cuda_absent.c). */
qem_status qem_cuda_context_begin(qem_context *context, int device);
/* Ends what a context has on a GPU; nothing on the CPU. */
void qem_cuda_context_end(qem_context *context);
/* The GPU's own name. */
void qem_cuda_context_name(const qem_context *context, char *name, size_t size);

#endif
