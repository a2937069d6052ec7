/*
 * qem: makes a matrix of floats small and brings it back fast.
 *
 * Quantization Error Minimization: given an n x d matrix and a memory budget, store it in at most that many bytes with
 * the least error. The way of the data:
 *
 *     view (borrowed matrix) -> plan (recipe + budget -> k and sizes, or a clear no)
 *                            -> quantize -> artifact (opaque, immutable)
 *                            -> dequantize | evaluate | encode new rows | save
 *
 * Terms, used in this sense everywhere:
 *   sub-vector  `dim` (s) adjacent elements of a row; the last group of a row may be shorter (its tail)
 *   group       column group g holds columns g*s .. g*s+s-1; m = ceil(cols/s) groups
 *   codebook    k centroids of dimension s, one per group ("per group") or one for all groups ("shared")
 *   code        index of a centroid, ceil(log2 k) bits in the artifact
 *   ratio       compression ratio theta against 32 bits per element, whatever the type of the input
 *   bits        stored bits per element = 32 / ratio
 *
 * Accounting is honest: stored_bytes counts everything a decoder needs (codes, codebooks, swap maps, scales, means).
 *
 * Conventions of every function:
 *   - It returns a qem_status: QEM_OK (0) or an error; the values are frozen. qem_last_error(context) then holds one
 *     sentence that names the argument, file or tensor and the limit. On an error nothing is written to the outputs
 *     unless the function says so, and nothing is leaked.
 *   - Parameter structs start with `size` and `version` and are initialised by their _INIT macro; reserved fields are 0.
 *   - A context serves one thread at a time. Different contexts may be used at the same time. Artifacts and open files are
 *     immutable and may be shared between threads, each thread with a context of its own.
 *   - Functions block until their result is there. Work is spread over the threads of the context.
 *   - The library never prints, never exits, and never changes global state of its host (rounding mode, OpenMP thread
 *     count, signals, locale). It expects the default rounding mode (to nearest).
 *   - Same input, recipe and seed give the same bytes for any number of threads and any instruction set.
 */
#ifndef QEM_QEM_H
#define QEM_QEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(QEM_BUILDING) && defined(__GNUC__)
#define QEM_API __attribute__((visibility("default")))
#else
#define QEM_API
#endif

#define QEM_VERSION_MAJOR 0
#define QEM_VERSION_MINOR 1
#define QEM_VERSION_PATCH 0
#define QEM_VERSION_STRING "0.1.0"

/* ------------------------------------------------------------------------------------------------- status ------ */

/* Result of every call. The numbers never change; new ones may be added. */
typedef enum qem_status {
    QEM_OK = 0,
    QEM_ERR_ARGUMENT = 1,    /* an argument is NULL, out of its range, or contradicts another */
    QEM_ERR_MEMORY = 2,      /* the allocator returned NULL, or a size does not fit in size_t */
    QEM_ERR_IO = 3,          /* open, read, write, sync or rename failed; the text holds the system's reason */
    QEM_ERR_FORMAT = 4,      /* a file is malformed: wrong magic, truncated, offsets out of range, ... */
    QEM_ERR_DATA = 5,        /* the matrix holds NaN or infinity; the text names the first such element */
    QEM_ERR_BUDGET = 6,      /* nothing fits in the budget; the text names the largest part and the largest ratio */
    QEM_ERR_RANGE = 7,       /* a value does not fit in the type it is to be stored in (for example f16) */
    QEM_ERR_NO_DEVICE = 8,   /* the device asked for is not there, or this build has no support for it */
    QEM_ERR_ISA = 9,         /* the CPU lacks the instruction set asked for */
    QEM_ERR_UNSUPPORTED = 10,/* a valid request that this version does not carry out */
    QEM_ERR_CHECKSUM = 11,   /* the bytes of a file do not match their checksum */
    QEM_ERR_NOT_FOUND = 12,  /* no tensor of that name */
    QEM_ERR_CLASH = 13,      /* two tensors of one file would have the same name */
    QEM_ERR_CANCELLED = 14,  /* the progress callback asked to stop */
    QEM_ERR_INTERNAL = 15    /* a defect of qem; please report it with the text */
} qem_status;

/* A short constant English text for a status ("out of memory"); never NULL, also for unknown values. Any thread. */
QEM_API const char *qem_status_string(qem_status status);

/* "major.minor.patch" of the library that is loaded. Any thread. */
QEM_API const char *qem_version(void);

/* ------------------------------------------------------------------------------------------------ context ------ */

typedef enum qem_device { QEM_DEVICE_CPU = 0, QEM_DEVICE_CUDA = 1 } qem_device;

/* Instruction sets of the CPU path, ascending. All give the same bytes. */
typedef enum qem_isa {
    QEM_ISA_AUTO = 0,   /* the best that the CPU has */
    QEM_ISA_SCALAR = 1, /* portable C */
    QEM_ISA_AVX2 = 2,   /* AVX2, FMA, F16C, BMI2 */
    QEM_ISA_AVX512 = 3  /* AVX-512 F, BW, DQ, VL */
} qem_isa;

/*
 * Memory for everything the library keeps or needs while it works (the JSON library's small strings apart).
 * `allocate` returns at least `bytes` bytes aligned to 64, or NULL; `release` accepts what it returned, never NULL.
 * Both are called only from the thread that calls qem. An artifact or file keeps a copy of this struct, so the functions
 * must stay valid until it is destroyed. Leave both NULL for the default (aligned_alloc, free).
 */
typedef struct qem_allocator {
    void *(*allocate)(void *user, size_t bytes);
    void (*release)(void *user, void *pointer);
    void *user;
} qem_allocator;

/*
 * Progress of a long call: `fraction` in [0,1] of the current phase, `phase` a short constant text. Called on the calling
 * thread, a few times a second at most. A non-zero return asks the call to stop: it returns QEM_ERR_CANCELLED.
 */
typedef int (*qem_progress)(void *user, const char *phase, double fraction);

typedef struct qem_context_params {
    size_t size;
    uint32_t version;
    qem_device device;       /* default CPU; a device that is not there is QEM_ERR_NO_DEVICE, never a fall back */
    uint32_t threads;        /* 0 = all cores the process may use; at most 1024 */
    qem_isa isa;             /* QEM_ISA_AUTO, or a level to force; one the CPU lacks is QEM_ERR_ISA */
    uint64_t seed;           /* key of all random draws; default 0 */
    qem_allocator allocator; /* default {NULL, NULL, NULL} */
    qem_progress progress;   /* NULL: none */
    void *progress_user;
    uint64_t reserved[8];
} qem_context_params;
#define QEM_CONTEXT_PARAMS_INIT \
    { sizeof(qem_context_params), 1, QEM_DEVICE_CPU, 0, QEM_ISA_AUTO, 0, { NULL, NULL, NULL }, NULL, NULL, { 0 } }

/* Device, threads, instruction set, seed, allocator and the text of the last error. */
typedef struct qem_context qem_context;

/*
 * Makes a context. `params` may be NULL for the defaults. On success *context is owned by the caller, who ends it with
 * qem_context_destroy. Errors: ARGUMENT, MEMORY, NO_DEVICE, ISA; *context is then NULL, and qem_status_string is the text.
 * QEM_DEVICE_CUDA: the functions that take the context compute on GPU 0, on a stream of the context's own, with the same results
 * to the last bit, and return when these are there; all outputs lie in host memory, artifacts too. qem_matmul is
 * UNSUPPORTED there. Memory of the device that cannot be had is MEMORY, another failure of the CUDA runtime INTERNAL. The
 * current device of the calling thread is the same after a call as before it.
 */
QEM_API qem_status qem_context_create(const qem_context_params *params, qem_context **context);

/* Ends a context and sets *context to NULL. Artifacts and files made with it stay valid. NULL and *NULL are ignored. */
QEM_API void qem_context_destroy(qem_context **context);

/* The sentence that explains the last error of this context; "" if there was none. Valid until its next call. */
QEM_API const char *qem_last_error(const qem_context *context);

/* What a context really uses. */
typedef struct qem_context_info {
    size_t size;
    uint32_t version;
    qem_device device;
    qem_isa isa;          /* never QEM_ISA_AUTO */
    uint32_t threads;     /* never 0 */
    uint64_t seed;
    char device_name[96]; /* the CPU's or GPU's own name */
    uint64_t reserved[8];
} qem_context_info;
#define QEM_CONTEXT_INFO_INIT { sizeof(qem_context_info), 1, QEM_DEVICE_CPU, QEM_ISA_AUTO, 0, 0, { 0 }, { 0 } }

/* Fills *info. Errors: ARGUMENT. */
QEM_API qem_status qem_context_query(const qem_context *context, qem_context_info *info);

/* 1 if this CPU can run `isa` (QEM_ISA_AUTO and QEM_ISA_SCALAR always), else 0. Any thread. */
QEM_API int qem_isa_available(qem_isa isa);

/* "auto", "scalar", "avx2", "avx512"; "?" for unknown values. Any thread. */
QEM_API const char *qem_isa_name(qem_isa isa);

/* ---------------------------------------------------------------------------------------- element types, views -- */

typedef enum qem_dtype {
    QEM_DTYPE_NONE = 0,
    QEM_DTYPE_F32 = 1,
    QEM_DTYPE_F16 = 2,
    QEM_DTYPE_BF16 = 3,
    QEM_DTYPE_F64 = 4,
    QEM_DTYPE_U8 = 5,
    /* the rest is known to the file functions (tensors that pass through unchanged), not to matrix views */
    QEM_DTYPE_BOOL = 6,
    QEM_DTYPE_I8 = 7,
    QEM_DTYPE_I16 = 8,
    QEM_DTYPE_U16 = 9,
    QEM_DTYPE_I32 = 10,
    QEM_DTYPE_U32 = 11,
    QEM_DTYPE_I64 = 12,
    QEM_DTYPE_U64 = 13,
    QEM_DTYPE_F8_E4M3 = 14,
    QEM_DTYPE_F8_E5M2 = 15
} qem_dtype;

/* Bytes of one element, 0 for unknown values. Any thread. */
QEM_API size_t qem_dtype_size(qem_dtype dtype);

/* "f32", "f16", "bf16", ...; "?" for unknown values. Any thread. */
QEM_API const char *qem_dtype_name(qem_dtype dtype);

/*
 * A matrix that belongs to the caller and is only read. Element (i,j) lies at
 * (char *)data + (i*row_stride + j*col_stride) * qem_dtype_size(dtype), except for files whose row pitch is no multiple of
 * the element (bvecs): then row_pitch_bytes, when not 0, replaces row_stride. data needs no alignment.
 * With a context of QEM_DEVICE_CUDA the matrix may also lie in device memory of its GPU, aligned to its element and
 * complete before the call, which waits for no other stream.
 * dtype: F32, F16, BF16, F64 or U8. Computation is in f32; an F64 value beyond the range of f32 is QEM_ERR_DATA.
 * rows, cols >= 1; rows*cols < 2^48; rows*ceil(cols/dim) < 2^32 for every recipe applied to it.
 */
typedef struct qem_view {
    size_t size;
    uint32_t version;
    qem_dtype dtype;
    const void *data;
    uint64_t rows;
    uint64_t cols;
    uint64_t row_stride;      /* elements; 0 = cols (contiguous rows) */
    uint64_t col_stride;      /* elements; 0 = 1. Fortran order: row_stride 1, col_stride rows */
    uint64_t row_pitch_bytes; /* 0, or the distance of two rows in bytes, instead of row_stride */
    const struct qem_file *file; /* borrowed; the file that the data lie in, as qem_file_view sets it, or NULL: calls that go
                                 through the matrix more than once give its pages back between (qem_file_discard). Who
                                 points data to memory of his own sets file to NULL, too */
    uint64_t reserved[3];
} qem_view;
#define QEM_VIEW_INIT { sizeof(qem_view), 1, QEM_DTYPE_F32, NULL, 0, 0, 0, 0, 0, NULL, { 0 } }

/* ------------------------------------------------------------------------------------------- recipe and plan ---- */

/* Named recipes. */
typedef enum qem_method {
    QEM_METHOD_NONE = 0,
    QEM_METHOD_RTN = 1,      /* round to nearest: uniform grid between the tensor's minimum and maximum, k = 2^b levels */
    QEM_METHOD_LLOYDMAX = 2, /* optimal scalar codebook of the tensor (Lloyd 1982, Max 1960) */
    QEM_METHOD_VQ = 3,       /* vector quantization, one shared codebook (hyperchr with one interval); of very many sub-vectors
                                it is trained on a part, see qem_quantize */
    QEM_METHOD_PQ = 4,       /* product quantization, one codebook per group (Jegou et al. 2011) */
    QEM_METHOD_HYPERCHR = 5, /* quantile cells, k-means in each cell, one shared codebook (HyperChr paper) */
    QEM_METHOD_QET = 6,      /* swap levels, then pq on the ordered halves (QET paper, also HERA/HETA) */
    QEM_METHOD_GRID = 7,     /* uniform grid between the minimum and maximum of each tensor, row, column or block */
    QEM_METHOD_NF = 8,       /* NormalFloat levels scaled by the largest magnitude of each tensor, row, column or block
                                (Dettmers et al. 2023); k is a power of two, 4 .. 256 */
    QEM_METHOD_OPQ = 9,      /* an orthogonal rotation of the columns, then pq (Ge et al. 2013) */
    QEM_METHOD_LOPQ = 10,    /* coarse cells of rows, in each a rotation and pq of its own (Kalantidis and Avrithis 2014) */
    QEM_METHOD_AUTO = 11     /* the recipe of least error for the budget, found by trials: see qem_search */
} qem_method;

/* "rtn", "lloydmax", ... ; "?" for unknown values. Any thread. */
QEM_API const char *qem_method_name(qem_method method);

/* The method of that name, or QEM_METHOD_NONE. Any thread. */
QEM_API qem_method qem_method_from_name(const char *name);

typedef enum qem_accounting {
    QEM_ACCOUNTING_HONEST = 0, /* everything counted, as stored */
    QEM_ACCOUNTING_PAPER = 1   /* fractional log2(k) bits per code, f32 codebooks: only to redo the papers' tables.
                                  The planner alone differs; what is stored and reported stays what it is. */
} qem_accounting;

/* Which centroids of a shared codebook a sub-vector may take. */
typedef enum qem_assignment {
    QEM_ASSIGN_CELL = 0,     /* those of its own cell (the HyperChr paper) */
    QEM_ASSIGN_GLOBAL = 1    /* any: the nearest of all */
} qem_assignment;

/* How the centroids of a budget are shared out. */
typedef enum qem_allocation {
    QEM_ALLOCATION_COUNT = 0,   /* hyperchr: to cells in proportion to their sub-vectors (the paper); others: evenly */
    QEM_ALLOCATION_VARIANCE = 1 /* hyperchr: by (count * variance)^(dim/(dim+2)), variance being told from the error that seeds by
                                   count leave, so that outliers do not decide it. pq, opq, qet: groups of more variance get codes
                                   of more bits, 0 .. 16, as the budget allows (no `mixed`); opq: of sorted axes (best: pca) */
} qem_allocation;

/* Of what a scale or a mean is. */
typedef enum qem_axis {
    QEM_AXIS_TENSOR = 0,
    QEM_AXIS_ROW = 1,
    QEM_AXIS_COLUMN = 2,
    QEM_AXIS_BLOCK = 3       /* some columns of a row */
} qem_axis;

/* What is divided out before the method sees the matrix; a set of these. */
typedef enum qem_standardize {
    QEM_STANDARDIZE_NONE = 0,
    QEM_STANDARDIZE_COLUMN = 1, /* mean and standard deviation of each column */
    QEM_STANDARDIZE_ROW = 2,    /* mean and standard deviation of each row; with COLUMN: column means, and scales of rows and
                                   columns found in turn */
    QEM_STANDARDIZE_BLOCK = 4   /* a scale of each block of a row, searched for the least error; not with ROW */
} qem_standardize;

typedef enum qem_means {
    QEM_MEANS_AUTO = 0,      /* stored where they save more bits than they take: half the log2 of what they take off the
                                variance, for each element, against their own bits */
    QEM_MEANS_ALWAYS = 1,
    QEM_MEANS_NEVER = 2
} qem_means;

/* Where opq's and lopq's rotations start. */
typedef enum qem_rotation_start {
    QEM_ROTATION_BEST = 0,     /* whichever of both has the less error before it is improved; never worse than pq */
    QEM_ROTATION_IDENTITY = 1, /* never worse than pq */
    QEM_ROTATION_PCA = 2       /* principal axes, dealt out to the groups so that their variances balance */
} qem_rotation_start;

#define QEM_LEVELS_DEFAULT UINT32_MAX
#define QEM_EFFORT_DEFAULT 1

/*
 * What to do with a matrix. Exactly one of ratio, bits, k is set (non-zero): it is the budget.
 * A field left at its default takes the method's default, given in parentheses.
 */
typedef struct qem_recipe {
    size_t size;
    uint32_t version;
    qem_method method;
    double ratio;             /* theta: at most rows*cols*4/ratio bytes; > 0 */
    double bits;              /* stored bits per element: at most rows*cols*bits/8 bytes; > 0 */
    uint64_t k;               /* centroids per codebook (levels of a scalar grid); 1 .. 2^24, at most the sub-vectors */
    uint32_t dim;             /* s, 0 = default (4; rtn, grid, nf, lloydmax: 1, the only value they take); 1 .. 65535 */
    uint32_t intervals;       /* hyperchr: l per position, 0 = default (the largest l <= 3 with k >= 8 * non-empty cells,
                                 else 1); at most 255, l^s <= 2^24; other methods: 0 */
    uint32_t levels;          /* swap levels before any codebook, 0 .. 8; QEM_LEVELS_DEFAULT (qet 1, others 0); opq, lopq: 0 */
    qem_dtype codebook;       /* QEM_DTYPE_F32 (default) or QEM_DTYPE_F16: the type in which codebooks are stored */
    uint32_t iterations;      /* most Lloyd passes; default 20; 0 keeps the seeds */
    uint32_t restarts;        /* k-means runs from different seeds, the best is kept; default 1, at most 1000 */
    double tolerance;         /* stop when the relative drop of the error of a pass is below it; default 0 */
    qem_accounting accounting;
    qem_assignment assign;    /* hyperchr: default QEM_ASSIGN_CELL */
    uint32_t refine;          /* hyperchr: exact Lloyd passes over all cells together, after which the assignment is global
                                 whatever `assign` says (with one interval: so many iterations more); default 0 */
    uint32_t codebook_bits;   /* 4 .. 12: codebooks stored as integers of so many bits on a uniform grid between the extremes of
                                 each component, whatever `codebook` says; 0 = as `codebook` says. Codes are assigned against the
                                 codebook as stored (QET paper: CQO) */
    uint32_t standardize;     /* a set of qem_standardize; codebooks are then fitted with the weight scale^2, so that the error
                                 that counts is that of the matrix (opq, lopq: by rows alone) */
    uint32_t standardize_block; /* columns of a block, 2 .. 65535, with QEM_STANDARDIZE_BLOCK; else 0 */
    uint32_t params;          /* how scales and means are stored: 16 = f16 (0, the default), 32 = f32, 4 .. 8 = integers of so
                                 many bits under an f16 super-scale for each 256 of them (blocks: for each 256 elements). 16, but not
                                 0, also stores rotations and lopq's coarse centroids as f16 instead of f32 */
    qem_means means;          /* of columns and rows */
    double outliers;          /* 0 .. 0.5: round(outliers*rows*cols) elements of the largest |x - column mean| / column standard
                                 deviation (ties: the lowest index) are kept as they are. Their values are f32 (f16 where the
                                 matrix is f16, or where params is 16) */
    double outlier_sigma;     /* instead: all elements beyond so many standard deviations; 0 = none. Planning needs the data */
    qem_axis grid_axis;       /* grid, nf: the units of their ranges; not one that is standardized */
    uint32_t grid_block;      /* columns of a block with QEM_AXIS_BLOCK, 2 .. 65535, else 0 */
    qem_rotation_start rotation_start; /* opq, lopq; default QEM_ROTATION_BEST */
    uint32_t cells;           /* lopq: coarse cells, 0 = default (2); 2 .. 256; others: 0 */
    qem_allocation allocation;
    uint32_t mixed;           /* 1: where the budget leaves bits over, the first rows take codes of one bit more, with a codebook
                                 of their own, as far as the bits go and if it is expected to pay; rotations: no. 0 = off */
    uint32_t effort;          /* auto: 0 .. 3, how much is tried (see qem_search); default 1; others ignore it */
    uint32_t reserved32;
    const struct qem_recipe *residual; /* borrowed; a further layer for what this one leaves over (QET paper: RO), with ratio,
                                 bits and outliers 0, and k 0 unless this recipe's budget is a k. Chains of up to 8. NULL: none */
    double share;             /* with a residual: this layer's part of the budget, (0, 1); 0 = default (0.7) */
    const qem_view *importance; /* borrowed; weights of the squared error, >= 0, with a positive sum: 1 x cols or rows x cols.
                                 Not with opq, lopq. Not stored. NULL: none */
    uint64_t reserved[12];
} qem_recipe;
#define QEM_RECIPE_INIT \
    { sizeof(qem_recipe), 1, QEM_METHOD_NONE, 0.0, 0.0, 0, 0, 0, QEM_LEVELS_DEFAULT, QEM_DTYPE_F32, 20, 1, 0.0, \
      QEM_ACCOUNTING_HONEST, QEM_ASSIGN_CELL, 0, 0, QEM_STANDARDIZE_NONE, 0, 0, QEM_MEANS_AUTO, 0.0, 0.0, QEM_AXIS_TENSOR, 0, \
      QEM_ROTATION_BEST, 0, QEM_ALLOCATION_COUNT, 0, QEM_EFFORT_DEFAULT, 0, NULL, 0.0, NULL, { 0 } }

/* Bytes by part. stored_bytes is their sum; the artifact's file holds exactly these tensor bytes. */
typedef struct qem_parts {
    uint64_t codes;
    uint64_t codebook;
    uint64_t codebook_scale;
    uint64_t swap_map;
    uint64_t scale;
    uint64_t mean;
    uint64_t rotation;
    uint64_t coarse;
    uint64_t outlier_index;
    uint64_t outlier_value;
    uint64_t group_bits;
    uint64_t reserved[5];
} qem_parts;

/* What a recipe costs and chooses. */
typedef struct qem_plan {
    size_t size;
    uint32_t version;
    qem_method method;
    uint64_t rows, cols;
    uint64_t k;               /* centroids per codebook, the largest that fits; of the first stage */
    uint32_t dim;
    uint32_t code_bits;       /* ceil(log2 k) */
    uint64_t groups;          /* m */
    uint32_t intervals;       /* hyperchr: l (0 while it is open: default l without data); other methods 0 or 1 */
    uint32_t levels;
    qem_dtype codebook;
    uint32_t stages;          /* residual layers and mixed rates have more than one: k, dim, ... are those of the first */
    uint64_t cells;           /* hyperchr with data: non-empty cells, else 0 */
    qem_parts parts;
    uint64_t stored_bytes;
    uint64_t budget_bytes;    /* floor of the budget in bytes; with an explicit k = stored_bytes */
    double bits_per_element;
    double ratio;
    uint64_t reserved[8];
} qem_plan;
#define QEM_PARTS_INIT { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 } }
#define QEM_PLAN_INIT \
    { sizeof(qem_plan), 1, QEM_METHOD_NONE, 0, 0, 0, 0, 0, 0, 0, 0, QEM_DTYPE_NONE, 0, 0, QEM_PARTS_INIT, 0, 0, 0.0, 0.0, \
      { 0 } }

/*
 * Says what `recipe` costs for a matrix of the shape of `view`, without fitting. With view->data NULL only the shape is
 * used (means that are stored only where they pay are counted as stored); with data the caps are found too (k never exceeds
 * the distinct sub-vectors of the largest group or of all cells; hyperchr's cells and default intervals), and the result is
 * what qem_quantize stores. Residual layers are planned by their shape in both cases.
 * With QEM_METHOD_AUTO, which needs the data, the plan is that of the recipe that qem_search finds.
 * Errors: ARGUMENT (k above the number of sub-vectors, ...), BUDGET (nothing fits: the text names the largest part and the
 * largest ratio that the shape allows for all layers), DATA, MEMORY, with AUTO also CANCELLED.
 */
QEM_API qem_status qem_make_plan(qem_context *context, const qem_view *view, const qem_recipe *recipe, qem_plan *plan);

/* ------------------------------------------------------------------------------------------------- artifact ----- */

/* A quantized matrix: opaque, immutable, shareable between threads. */
typedef struct qem_artifact qem_artifact;

/* Errors of a decoded matrix against the original, accumulated in double (spec: MAE, MSE, MRE, NMSE). */
typedef struct qem_metrics {
    size_t size;
    uint32_t version;
    uint32_t reserved32;
    double mae;          /* mean |x - x'| */
    double mse;          /* mean (x - x')^2 */
    double mre;          /* mean |x - x'| / |x| over x != 0; NaN if all are 0 */
    double nmse;         /* mse / variance of x about its global mean; NaN if that is 0 */
    double max_error;    /* max |x - x'| */
    uint64_t zeros;      /* elements with x == 0, left out of mre */
    uint64_t count;      /* rows*cols */
    uint64_t reserved[8];
} qem_metrics;
#define QEM_METRICS_INIT { sizeof(qem_metrics), 1, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, { 0 } }

/*
 * Quantizes the matrix. `name` is the tensor's name in files (UTF-8, 1..255 bytes; NULL = "tensor"). `artifact` is owned
 * by the caller, who ends it with qem_artifact_destroy; it holds no reference to the view or the context. Its metrics are
 * computed against `view` on the way. With QEM_METHOD_AUTO the artifact's recipe is the one of least error among those that
 * qem_search ranks first, fitted on the whole matrix: one, or more where the next ones promise clearly less than was reached.
 * Memory beyond input and artifact, in copies of the input as f32: one for standardization, a grid of rows, columns or blocks,
 * outliers, or an input that is not contiguous f32, together (the converted matrix becomes the standardized one); one each for
 * swap levels, a rotation, all residual layers; one for weights of elements (column scales, importance), or 1/dim for weights
 * of sub-vectors (scales of rows and blocks); of vectors 1/dim for labels, another 2/dim for hyperchr's cells; half of what the
 * codes take; and the points under way, dim + 5 words of 4 bytes each (2 * dim + 5 with weights of elements): those of a cell
 * or group a thread, or, where all sub-vectors share one codebook, 160 MiB at most, or 64 points for each centroid: of more it
 * is trained on every n-th row (n no multiple of 2 or 3), and all are coded. Refining passes take about three more codebooks,
 * and sums of k * (dim + 1) words of 8 bytes for each thread as long as those of all threads are no larger than the input,
 * else once. A view with a `file` is read piece by piece where it is only copied, so most of it need not stay in memory.
 * Errors: as qem_make_plan, and RANGE (a centroid overflows f16, in whichever restart), CANCELLED; *artifact is then NULL.
 * Source: spec section 3 and 4; HyperChr paper section 3, QET paper section 3.
 */
QEM_API qem_status qem_quantize(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                                qem_artifact **artifact);

/*
 * Encodes new rows against the codebooks of `base` as they were fitted (grids, cells and codebooks unchanged; a sub-vector
 * that falls into a cell which was empty may take any centroid, and so may all if base's assignment is global; what is scaled
 * by rows or blocks gets scales of its own; of mixed rates the longer codes serve all). view->cols must equal the base's columns;
 * any number of rows. The result is an artifact of its own, with a copy of the codebooks. Errors: ARGUMENT, DATA, FORMAT (the
 * base's recipe is not that of its codes), MEMORY, RANGE.
 */
QEM_API qem_status qem_encode(qem_context *context, const qem_artifact *base, const qem_view *view, const char *name,
                              qem_artifact **artifact);

/* One recipe that a search has tried. */
typedef struct qem_trial {
    size_t size;
    uint32_t version;
    qem_status status;       /* QEM_OK, or why it is out: BUDGET, RANGE, UNSUPPORTED (the sample is too small for its k), ... */
    qem_recipe recipe;       /* with the budget as asked */
    double mse;              /* on the sample, carried over to the whole matrix; weighted by importance; NaN without status OK */
    double final_mse;        /* of the whole matrix where it was fitted on all of it, else NaN */
    double seconds;          /* of all its fits in the search */
    uint64_t reserved[8];
} qem_trial;
#define QEM_TRIAL_INIT { sizeof(qem_trial), 1, QEM_OK, QEM_RECIPE_INIT, 0.0, 0.0, 0.0, { 0 } }
#define QEM_MOST_TRIALS 96

/*
 * Finds the recipe of least mean squared error for a budget: what qem_quantize does with QEM_METHOD_AUTO. `recipe` gives the
 * budget (ratio or bits, not a k), iterations, restarts, tolerance, importance, params if set, and effort: 0 tries the few
 * recipes that win most often on a small sample, 1 (default) all blocks on up to 2^18 elements, 2 on 2^20, 3 on all. The other
 * fields must be at their defaults; the method may be any. Then the recipes beside the best one, with one thing changed, are
 * tried as long as one of them is better (effort 1: twice, 2: four times, 3: six). The best trial is then fitted on the whole
 * matrix (effort 2: the three best, 3: four), and the next ones too as long as they promise clearly less error than was
 * reached. Samples are spread rows (columns, where each group has a codebook), the same for every thread count; so is the
 * result. With importance the fits and what is compared are weighted: the mse of trials is then sum(weight * error^2) /
 * sum(weight). Residual layers and lopq are not tried.
 * best: the recipe found, its importance borrowed as before. trials: room for QEM_MOST_TRIALS, or NULL; *trial_count (NULL only
 * without trials) of them are filled: those with a final_mse by that, the others by mse, those that are out last.
 * artifact: NULL, or out: the matrix quantized by the best recipe, as by qem_quantize with that `name`.
 * Errors: ARGUMENT, BUDGET (nothing fits), DATA, MEMORY, CANCELLED; outputs are then not written, *artifact is NULL.
 */
QEM_API qem_status qem_search(qem_context *context, const qem_view *view, const char *name, const qem_recipe *recipe,
                              qem_recipe *best, qem_trial *trials, uint32_t *trial_count, qem_artifact **artifact);

/* Ends an artifact and sets *artifact to NULL. NULL and *NULL are ignored. */
QEM_API void qem_artifact_destroy(qem_artifact **artifact);

typedef struct qem_artifact_info {
    size_t size;
    uint32_t version;
    qem_method method;
    const char *name;           /* valid as long as the artifact */
    uint64_t rows, cols;
    qem_dtype source_dtype;
    uint32_t dim;
    uint64_t groups;
    uint64_t k;
    uint32_t code_bits;
    uint32_t levels;
    uint32_t intervals;
    qem_dtype codebook;
    uint64_t cells;
    qem_parts parts;
    uint64_t stored_bytes;
    uint64_t budget_bytes;
    double bits_per_element;
    double ratio;
    qem_recipe recipe;          /* as asked, defaults not filled in */
    uint64_t seed;
    int has_metrics;            /* 1 if `metrics` is known */
    uint32_t stages;            /* 1; residual layers and mixed rates have more: dim, k, ... are those of the first */
    qem_metrics metrics;        /* against the original, at quantization */
    double quantize_seconds;    /* of the call that made it; NaN after loading (times are not part of the bytes) */
    uint64_t reserved[8];
} qem_artifact_info;
#define QEM_ARTIFACT_INFO_INIT \
    { sizeof(qem_artifact_info), 1, QEM_METHOD_NONE, NULL, 0, 0, QEM_DTYPE_NONE, 0, 0, 0, 0, 0, 0, QEM_DTYPE_NONE, 0, \
      QEM_PARTS_INIT, 0, 0, 0.0, 0.0, QEM_RECIPE_INIT, 0, 0, 0, QEM_METRICS_INIT, 0.0, { 0 } }

/* Fills *info. Errors: ARGUMENT. */
QEM_API qem_status qem_artifact_query(const qem_artifact *artifact, qem_artifact_info *info);

/* One stored tensor of an artifact, for engines that bring their own decoder. Pointers are valid as long as the artifact. */
typedef struct qem_part {
    size_t size;
    uint32_t version;
    qem_dtype dtype;       /* U8 for bit streams */
    const char *name;      /* "codes", "codebook", "swap_map", "scale", "mean", ...; later stages "1.codes", ... */
    const void *data;
    uint64_t bytes;
    uint32_t rank;
    uint32_t reserved32;
    uint64_t shape[4];
    uint64_t reserved[4];
} qem_part;
#define QEM_PART_INIT { sizeof(qem_part), 1, QEM_DTYPE_NONE, NULL, NULL, 0, 0, 0, { 0 }, { 0 } }

/* Number of stored tensors. */
QEM_API uint32_t qem_artifact_part_count(const qem_artifact *artifact);

/* Fills *part with tensor number `index`. Errors: ARGUMENT. */
QEM_API qem_status qem_artifact_part(const qem_artifact *artifact, uint32_t index, qem_part *part);

/*
 * Decodes rows row_begin .. row_end-1 to `out`, row-major, as F32, F16 or BF16 (rounded to nearest even). `row_stride` is
 * the distance of two output rows in elements (0 = cols; otherwise >= cols; gaps are not written). `out` needs the
 * alignment of its element only and must not overlap the artifact. A value beyond f16 or bf16 becomes an error RANGE after
 * the whole output was written (it then holds infinities there). Errors: ARGUMENT, RANGE, MEMORY.
 */
QEM_API qem_status qem_dequantize(qem_context *context, const qem_artifact *artifact, uint64_t row_begin,
                                  uint64_t row_end, qem_dtype dtype, void *out, uint64_t row_stride);

/* Errors of the decoded artifact against `original` (same shape). Errors: ARGUMENT, DATA, MEMORY. */
QEM_API qem_status qem_evaluate(qem_context *context, const qem_view *original, const qem_artifact *artifact,
                                qem_metrics *metrics);

/* Errors of `decoded` against `original` (same shape). Errors: ARGUMENT, DATA, MEMORY. */
QEM_API qem_status qem_evaluate_matrix(qem_context *context, const qem_view *original, const qem_view *decoded,
                                       qem_metrics *metrics);

/* ------------------------------------------------------------------------------------------------- products ----- */

/*
 * Bytes of scratch that qem_matmul wants for that artifact, batch and context, whatever the types of x and y: at most 256 rows
 * of x as f32, some hundred KiB up to some MiB for each thread (with rows that have to be decoded whole, also some rows), and
 * for codebooks of each group and a batch of 1 or 2 the tables, about k*ceil(cols/dim) floats a row of x (k then counts as the
 * least of 64, 128 and 256 that holds it, where the CPU has VBMI). 0 on NULL arguments, batch 0 or a batch beyond 2^32 - 1.
 */
QEM_API uint64_t qem_matmul_workspace_size(const qem_context *context, const qem_artifact *artifact, uint64_t batch);

/*
 * y = x * W^T, W the decoded artifact: y[b][i] = sum over j of x[b][j] * W[i][j], without ever holding W as floats.
 *
 * x: batch rows of artifact.cols elements, y: batch rows of artifact.rows elements, each F32, F16 or BF16 on its own; sums are
 * in f32. x_stride and y_stride are distances of two rows in elements (0 = contiguous; otherwise at least the row's width;
 * gaps are neither read nor written). Pointers need the alignment of their element only. batch 0 .. 2^32 - 1, at most 2^56
 * elements from the first to the last; batch 0 writes nothing. y must overlap neither x nor the workspace.
 *
 * workspace: any alignment, qem_matmul_workspace_size bytes or more; its content does not matter, and it may be used for the
 * next call at once. NULL with workspace_bytes 0: allocated by the context's allocator and released before the call returns.
 * With a workspace the call allocates nothing.
 *
 * x may hold NaN and infinities; they go through as IEEE 754 arithmetic has it (0 * infinity is NaN), and every NaN of y is
 * the same positive quiet one. Sums of terms near the limit of f32 may become infinite on the way. Subnormal numbers are
 * kept. y is rounded to nearest even from the f32 sum; where a finite sum
 * is beyond f16 or bf16, y holds an infinity and the call returns RANGE after all of y was written.
 *
 * The result is the same to the bit for every number of threads and every instruction set. Columns are summed in 16 lanes and
 * blocks of 1024: |error| <= about n * 2^-24 * sum |x[b][j] * W[i][j]| with n = 69 + cols/1024, which grows with the lane, not
 * the row. With a codebook for each group, and where decoding is nothing but lookups, the terms may be sub-vectors, n = dim +
 * 12 + cols/(32*dim); the shape of the rows that share codebooks and the batch decide that. Scales, means, swaps, rotations,
 * further layers and outliers are applied to W before it is multiplied, with the bits of qem_dequantize to f32. Apart from
 * this choice a row of y depends on its row of x alone, not on the batch around it. No BLAS is used: one could promise neither
 * these bits nor the context's number of threads.
 *
 * Blocks; work is spread over the threads of the context, but below 2^18 multiplications only the caller's thread works.
 * The artifact is only read and may be in use by other contexts.
 * Errors: ARGUMENT (a NULL pointer, a type, stride, alignment, batch or workspace as above), MEMORY, RANGE.
 */
QEM_API qem_status qem_matmul(qem_context *context, const qem_artifact *artifact, uint64_t batch, qem_dtype x_dtype,
                              const void *x, uint64_t x_stride, qem_dtype y_dtype, void *y, uint64_t y_stride,
                              void *workspace, uint64_t workspace_bytes);

/* ---------------------------------------------------------------------------------------------------- files ----- */

typedef enum qem_file_kind {
    QEM_FILE_NPY = 1,         /* .npy, 2-D, u1/f2/f4/f8, C or Fortran order (1-D is read as one row) */
    QEM_FILE_FVECS = 2,       /* .fvecs: rows of int32 d and d little-endian f32 */
    QEM_FILE_BVECS = 3,       /* .bvecs: rows of int32 d and d bytes */
    QEM_FILE_SAFETENSORS = 4  /* .safetensors: plain tensors, qem artifacts, or both */
} qem_file_kind;

/* An open file, mapped read-only: immutable, shareable between threads. */
typedef struct qem_file qem_file;

/*
 * Opens a file and checks its structure; the kind is told by its content, and by its extension for fvecs and bvecs. Files
 * must not change while they are open. *file is owned by the caller (qem_file_close). Errors: IO, FORMAT, MEMORY.
 */
QEM_API qem_status qem_file_open(qem_context *context, const char *path, qem_file **file);

/* Closes and sets *file to NULL; views into it become invalid, artifacts read from it stay valid. */
QEM_API void qem_file_close(qem_file **file);

/*
 * Gives back the memory of the pages of the file that were read so far; what is read again comes from the disk again. Views
 * and pointers into the file stay valid. For programs that go through files larger than the memory they may take.
 */
QEM_API void qem_file_discard(const qem_file *file);

QEM_API qem_file_kind qem_file_get_kind(const qem_file *file);

/* Tensors as the file stores them (an artifact's parts are listed one by one). */
QEM_API uint32_t qem_file_tensor_count(const qem_file *file);

typedef struct qem_tensor_info {
    size_t size;
    uint32_t version;
    qem_dtype dtype;
    const char *name;     /* of an .npy, .fvecs, .bvecs: the file's stem. Valid until the file is closed */
    uint32_t rank;        /* 0 .. 8 */
    int of_artifact;      /* 1 if it is a part of an artifact */
    uint64_t shape[8];
    const void *data;     /* mapped bytes in C order; NULL where they are not contiguous so: fvecs, bvecs, Fortran-order npy
                             (qem_file_view has them) */
    uint64_t bytes;
    uint64_t reserved[4];
} qem_tensor_info;
#define QEM_TENSOR_INFO_INIT { sizeof(qem_tensor_info), 1, QEM_DTYPE_NONE, NULL, 0, 0, { 0 }, NULL, 0, { 0 } }

/* Fills *info for tensor number `index`. Errors: ARGUMENT. */
QEM_API qem_status qem_file_tensor(const qem_file *file, uint32_t index, qem_tensor_info *info);

/*
 * A view of a 2-D floating (or u8) tensor by name; NULL name = the only matrix of the file. The view borrows the mapped
 * file. Errors: NOT_FOUND (the text lists what there is), FORMAT (not 2-D, or a type views do not know), ARGUMENT.
 */
QEM_API qem_status qem_file_view(qem_context *context, const qem_file *file, const char *name, qem_view *view);

/* Number of artifacts in a safetensors file, and the name of each. NULL if index is out of range. */
QEM_API uint32_t qem_file_artifact_count(const qem_file *file);
QEM_API const char *qem_file_artifact_name(const qem_file *file, uint32_t index);

/*
 * Reads artifact `name` (NULL = the only one), with every checksum verified and every size and code checked, so that no
 * file can make a decoder read out of bounds. Errors: NOT_FOUND, FORMAT, CHECKSUM, MEMORY.
 */
QEM_API qem_status qem_file_load(qem_context *context, const qem_file *file, const char *name, qem_artifact **artifact);

/*
 * Writes a .safetensors file: artifacts, and tensors passed through unchanged. The file appears under its final name only
 * in qem_writer_commit: written to a temporary name in the same directory, synced, renamed. What is added is borrowed
 * and must stay valid until commit or abort, unless the writer has a spool.
 */
typedef struct qem_writer qem_writer;
QEM_API qem_status qem_writer_create(qem_context *context, const char *path, qem_writer **writer);
/*
 * From now on the bytes of what is added are copied at once to a file without a name in the directory of `path`, and nothing
 * is borrowed any more: for files larger than memory. The file written is the same to the byte. Before the first add.
 * Errors: ARGUMENT, IO.
 */
QEM_API qem_status qem_writer_spool(qem_context *context, qem_writer *writer);
QEM_API qem_status qem_writer_add_artifact(qem_context *context, qem_writer *writer, const qem_artifact *artifact);
/* `tensor`: name, dtype, rank, shape, data, bytes are used. Errors: CLASH when a name is there already, ARGUMENT, MEMORY. */
QEM_API qem_status qem_writer_add_tensor(qem_context *context, qem_writer *writer, const qem_tensor_info *tensor);
/* Writes all and ends the writer, also on an error: then the final name is what it was before, unless only the last sync of
 * the directory failed, which the text says. Errors: IO, MEMORY. */
QEM_API qem_status qem_writer_commit(qem_context *context, qem_writer **writer);
/* Ends the writer without writing. */
QEM_API void qem_writer_abort(qem_writer **writer);

/* Saves one artifact: writer_create + add + commit. */
QEM_API qem_status qem_save(qem_context *context, const qem_artifact *artifact, const char *path);

/* Opens `path`, loads its only artifact, closes it. */
QEM_API qem_status qem_load(qem_context *context, const char *path, qem_artifact **artifact);

/*
 * Writes a matrix as 2-D .npy (f4, f2; u1, f8) in C order, atomically as above. `view`: F32, F16, F64 or U8, any strides
 * (bf16 has no .npy type: UNSUPPORTED; use a safetensors writer). Errors: ARGUMENT, IO.
 */
QEM_API qem_status qem_save_npy(qem_context *context, const qem_view *view, const char *path);

/* ------------------------------------------------------------------------------------------- building blocks ---- */

typedef struct qem_kmeans_params {
    size_t size;
    uint32_t version;
    uint32_t iterations;      /* default 20 */
    uint32_t restarts;        /* default 1 */
    uint32_t reserved32;
    double tolerance;         /* default 0 */
    uint64_t problem;         /* key of the draws beside the context's seed; default 0 */
    uint64_t reserved[4];
} qem_kmeans_params;
#define QEM_KMEANS_PARAMS_INIT { sizeof(qem_kmeans_params), 1, 20, 1, 0, 0.0, 0, { 0 } }

/*
 * k-means++ and exact Lloyd on the rows of `points` (n x s, n < 2^32, s < 65536), 1 <= k <= min(n, 2^24).
 * centroids: k x s floats out, row-major. labels: n out (may be NULL). *used: centroids really set (fewer than k when there
 * are fewer distinct points; the rest repeats the first); objective: sum of squared distances (may be NULL).
 * Errors: ARGUMENT, DATA, MEMORY. Source: spec section 4; Arthur and Vassilvitskii 2007.
 */
QEM_API qem_status qem_kmeans(qem_context *context, const qem_view *points, uint64_t k, const qem_kmeans_params *params,
                              float *centroids, uint32_t *labels, uint64_t *used, double *objective);

/*
 * The nearest of k fixed centroids for each row of `points` (n x s, n < 2^32, s < 65536), 1 <= k <= 2^24: the search that
 * qem_encode uses, exact up to f32 scores under the centre and scale of the centroids, ties to the lowest index.
 * centroids: k x s finite floats, row-major. labels: n out. Errors: ARGUMENT, DATA, MEMORY. Source: spec section 4.
 */
QEM_API qem_status qem_nearest(qem_context *context, const qem_view *points, uint64_t k, const float *centroids,
                               uint32_t *labels);

/*
 * Exact l-quantiles for position p = 0 .. dim-1: columns p, p+dim, p+2*dim, ... pooled. cuts: dim x (intervals-1) floats
 * out, ascending in each row; linear interpolation between order statistics (numpy's default). intervals 2 .. 255.
 * Errors: ARGUMENT, DATA, MEMORY. Source: HyperChr paper, partition step.
 */
QEM_API qem_status qem_quantiles(qem_context *context, const qem_view *view, uint32_t dim, uint32_t intervals,
                                 float *cuts);

/*
 * A view of any type and strides as floats: out, rows x cols, row-major, of no overlap with the view. F64 is rounded to nearest
 * even. Errors: ARGUMENT, DATA (an element is not finite, or beyond f32), MEMORY.
 */
QEM_API qem_status qem_to_f32(qem_context *context, const qem_view *view, float *out);

/* Bytes of the swap maps of a rows x cols matrix with `levels` levels; 0 for levels 0. */
QEM_API uint64_t qem_swap_map_bytes(uint64_t rows, uint64_t cols, uint32_t levels);

/*
 * QET's pair swap, levels 1 .. 8. ordered: rows x cols floats out, the leaves in depth-first order (SS, SL, LS, LL);
 * map: qem_swap_map_bytes out, level by level, leaf by leaf, row-major, least significant bit first.
 * Errors: ARGUMENT, DATA, MEMORY. Source: QET paper section 3; spec section 3 block 3.
 */
QEM_API qem_status qem_swap_forward(qem_context *context, const qem_view *view, uint32_t levels, float *ordered,
                                    uint8_t *map);

/* The inverse: restored = the matrix that qem_swap_forward got (f32). `ordered` and `restored` may be the same memory. */
QEM_API qem_status qem_swap_inverse(qem_context *context, const float *ordered, const uint8_t *map, uint64_t rows,
                                    uint64_t cols, uint32_t levels, float *restored);

/*
 * The papers' synthetic data: normal(0.5, 0.16) truncated to [0,1], round(rows*cols*outlier_rate) distinct elements
 * replaced by uniform(-100, 100). out: rows x cols floats, row-major. outlier_rate 0 .. 1. The same numbers on every
 * machine for the same context seed. Errors: ARGUMENT, MEMORY.
 */
QEM_API qem_status qem_generate_synthetic(qem_context *context, uint64_t rows, uint64_t cols, double outlier_rate,
                                          float *out);

#ifdef __cplusplus
}
#endif

#endif
