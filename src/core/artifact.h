/* What an artifact is made of. Filled by the methods, read by the decoder, io and api. */
#ifndef QEM_CORE_ARTIFACT_H
#define QEM_CORE_ARTIFACT_H

#include <qem/qem.h>

/* Fixed tables of levels (core/tables.c). */
typedef enum qem_table {
    QEM_TABLE_UNIFORM = 0, /* j / (k-1): the affine steps of the layer make a grid of it; k = 1: 0 */
    QEM_TABLE_NF = 1        /* NormalFloat of log2 k bits */
} qem_table;

typedef enum qem_codebook_kind {
    QEM_CODEBOOK_SHARED = 0,    /* [k, dim], one for all groups */
    QEM_CODEBOOK_PER_GROUP = 1, /* group g's k entries start at float g*k*dim; a tail group's entries have cols % dim floats.
                                   With group_bits, group g has 2^group_bits[g] entries, group after group. With lopq's cells,
                                   cell after cell */
    QEM_CODEBOOK_UNIFORM = 2,   /* dim 1, level j = fmaf(j, scale, mean): not stored, only scale and mean are */
    QEM_CODEBOOK_TABLE = 3      /* dim 1, the levels of a fixed table (core/tables.h): nothing is stored */
} qem_codebook_kind;

#define QEM_MOST_STAGES 8 /* what qem_artifact_part has names for */
#define QEM_MOST_AFFINE 3 /* steps of a layer: the grid's own units, then rows or blocks, then columns */
#define QEM_STREAM_SLACK 16 /* zero bytes after a bit stream: decoders read whole words */

/*
 * One step of de-standardization: x = fmaf(z, scale[u], mean[u]), u the unit that the element belongs to. Blocks are `block`
 * columns of one row, the last of a row may be shorter; unit = row * ceil(cols / block) + col / block.
 *
 * Stored as f32, f16, or `params` bits (4..8) under an f16 super-scale for each `per_super` units in their order:
 * scale = super * q / (2^bits - 1), mean = super * (q - h) / (h - 1) with h = 2^(bits-1), each computed as
 * (float)q * (super / (float)...) in f32.
 */
typedef struct qem_affine {
    qem_axis axis;
    uint64_t block;           /* QEM_AXIS_BLOCK only, else 0 */
    uint32_t params;          /* 32, 16, or 4..8 */
    int has_scale, has_mean;  /* at least one */
    uint64_t units, per_super, supers; /* supers = ceil(units / per_super) for 4..8 bits, else 0 */
    void *scale_stored, *mean_stored;
    uint16_t *scale_super, *mean_super;
    float *scale, *mean;      /* as the decoder computes them, [units]; NULL where there are none; may be == *_stored */
} qem_affine;

/*
 * One stage: codes and their codebook for rows row_begin .. row_end-1, and optional swap maps or rotations. All memory is
 * host memory owned by the artifact. A row decodes so: look up its codes, undo the swaps or y -> coarse[c] + rotation[c] * y
 * with c the row's cell; then the steps of its layer in order; layers are added in order; outliers are written last.
 */
typedef struct qem_stage {
    qem_codebook_kind kind;
    uint64_t row_begin, row_end;
    uint32_t dim;
    uint32_t code_bits;       /* 0 .. 24; 0 = no codes are stored, every code is 0. With group_bits: of the widest group */
    uint32_t levels;          /* swap levels, 0 .. 8 */
    uint64_t groups;          /* ceil(cols / dim) */
    uint64_t k;               /* with group_bits: of the widest group */
    qem_dtype codebook_dtype; /* F32, F16, or U8 = codes of codebook_bits bits (UNIFORM, TABLE: F32) */
    uint32_t codebook_bits;   /* 4 .. 12 with U8, else 0 */
    uint32_t table;           /* TABLE: qem_table */
    /* QEM_STREAM_SLACK zero bytes follow codes, swap_map and row_cells: decoders read whole words */
    uint8_t *codes;           /* bit stream, least significant bit first: code (i,g) at bit (i - row_begin) * row_bits + sum of
                                 the widths of the groups before g, row_bits = the sum of all */
    uint64_t codes_bytes;
    uint8_t *group_bits;      /* [groups], 0 .. 16: width of each group's codes; NULL: all code_bits. PER_GROUP only */
    void *codebook_stored;    /* as in the file; NULL for UNIFORM and TABLE */
    uint64_t codebook_bytes;
    float *codebook_scale;    /* U8: [components][2], step and least value: entry = fmaf(q, step, least). A component is a
                                 position of the sub-vector, of each group (and cell) where groups have codebooks of their own */
    float *codebook;          /* the same as f32 for the decoder; may be == codebook_stored. UNIFORM, TABLE: the k levels */
    uint8_t *swap_map;        /* NULL when levels == 0; of the stage's rows alone */
    uint64_t swap_map_bytes;
    float scale, mean;        /* UNIFORM only */
    uint32_t cells;           /* 0: no rotation; 1: opq; more: lopq */
    float *rotation;          /* [cells][cols][cols], column j of the output = sum over p of y[p] * rotation[c][p][j], an fma
                                 chain from coarse[c][j] (or 0) with p ascending */
    float *coarse;            /* [cells][cols], or NULL */
    uint32_t half_rotation;   /* 1: both are stored as f16, and these are what is stored; else NULL */
    uint16_t *rotation_half, *coarse_half;
    uint8_t *row_cells;       /* bit stream of ceil(log2 cells) bits a row; NULL when cells <= 1 */
} qem_stage;

/* A layer: one stage, or two stages of adjoining row ranges, and the steps of de-standardization over all rows. */
typedef struct qem_layer {
    uint32_t stage_first, stage_count;
    uint32_t affine_count;
    qem_affine affine[QEM_MOST_AFFINE]; /* in the order of decoding */
} qem_layer;

/* Elements kept as they are, written over what the layers decode to. */
typedef struct qem_outliers {
    uint64_t count;
    uint32_t index_size;      /* 4 below 2^32 elements, else 8 */
    void *index;              /* row-major, strictly ascending */
    qem_dtype value_dtype;    /* F32 or F16 */
    void *value_stored;
    float *value;             /* may be == value_stored */
} qem_outliers;

static inline uint64_t qem_outlier_index(const qem_outliers *o, uint64_t i)
{
    return o->index_size == 8 ? ((const uint64_t *)o->index)[i] : ((const uint32_t *)o->index)[i];
}

/* The cells of a shared codebook as fitted, for encoding new rows (not needed to decode, so not among the parts). */
typedef struct qem_cells {
    uint32_t intervals;       /* l; <= 1: no cells */
    uint64_t count;           /* non-empty cells */
    float *cuts;              /* [dim][l-1], ascending in each row */
    uint32_t *id;             /* [count] ascending cell ids (sum idx_p * l^p) */
    uint32_t *first;          /* [count + 1] first centroid of each cell; first[count] = k */
} qem_cells;

struct qem_artifact {
    qem_allocator allocator;
    char *name;
    uint64_t rows, cols;
    qem_dtype source_dtype;
    qem_recipe recipe;        /* as asked, the recipes of further layers in `residuals` */
    qem_recipe residuals[QEM_MOST_STAGES]; /* recipe.residual points here */
    uint64_t seed;
    uint64_t budget_bytes;
    uint32_t stage_count;
    qem_stage *stages;        /* layer by layer, in each by rows */
    uint32_t layer_count;
    qem_layer *layers;
    qem_outliers outliers;
    qem_cells cells;          /* of stage 0 */
    int has_metrics;
    qem_metrics metrics;
    double quantize_seconds;  /* NaN when loaded */
};

/* An empty artifact with a copy of the context's allocator and of the name, zeroed stages and layers; layer i has stage i
 * until the caller says otherwise, stages cover all rows. */
qem_status qem_artifact_new(qem_context *context, const char *name, uint64_t rows, uint64_t cols, uint32_t stage_count,
                            uint32_t layer_count, qem_artifact **artifact);
/* Memory that belongs to the artifact: released by qem_artifact_destroy through the fields above. */

/* Copies a chain of recipes into the artifact, without its borrowed importance. */
void qem_artifact_set_recipe(qem_artifact *artifact, const qem_recipe *recipe);

/* ---- parts (artifact_parts.c): the one list that sizes, files, checks and queries go by ---- */

typedef struct qem_blob {
    const char *name;         /* within its stage: "codes", ... */
    qem_dtype dtype;
    uint64_t bytes;
    uint32_t rank;
    uint64_t shape[4];
    void **slot;              /* the artifact's field that holds the memory, or NULL */
    void *inlined;            /* where the bytes lie when slot is NULL */
    uint64_t slack;           /* zero bytes that follow in memory */
    size_t counter;           /* offset of its counter in qem_parts */
} qem_blob;

#define QEM_MOST_BLOBS 24

/* The parts of stage `index`, with those of its layer if it is the layer's first, and the outliers with stage 0. Sizes follow
 * from the numbers of stage and layer alone, so that a reader can ask before there is any memory. Returns their number. */
uint32_t qem_artifact_blobs(qem_artifact *artifact, uint32_t index, qem_blob blobs[QEM_MOST_BLOBS]);
/* Name of a blob as the file has it: "codes", "1.codes", ... Lives as long as the program. */
const char *qem_blob_name(uint32_t stage, const char *name);

/* Bytes of the artifact by part, and their sum. */
void qem_artifact_parts(const qem_artifact *artifact, qem_parts *parts, uint64_t *stored_bytes);
uint64_t qem_parts_sum(const qem_parts *parts);

/* ---- sizes that follow from the shape ---- */

uint32_t qem_code_bits(uint64_t k);
uint64_t qem_bit_stream_bytes(uint64_t count, uint32_t bits);
uint64_t qem_codebook_floats(qem_codebook_kind kind, uint64_t cols, uint32_t dim, uint64_t k);

/* Of a stage, group_bits and cells included: floats of its codebook, components that codebook_scale has, bits of a row. */
uint64_t qem_stage_codebook_floats(const qem_stage *stage, uint64_t cols);
uint64_t qem_stage_components(const qem_stage *stage, uint64_t cols);
uint64_t qem_stage_row_bits(const qem_stage *stage);
/* Are rotations, and the centroids of lopq's cells, stored as f16? Only where params is 16 and not left at its default. */
uint32_t qem_recipe_halves_rotation(const qem_recipe *recipe);
/* The numbers of a stage that a recipe (resolved) makes, its rows and sizes yet to be set. */
qem_stage qem_recipe_stage(qem_codebook_kind kind, uint64_t cols, const qem_recipe *recipe, uint64_t k);
/* What one stage of a recipe (resolved) stores for k centroids per codebook, the steps of its layer apart. */
uint64_t qem_recipe_bytes(qem_codebook_kind kind, uint64_t rows, uint64_t cols, const qem_recipe *recipe, uint64_t k);
/* Sets codes_bytes, codebook_bytes and swap_map_bytes from the other numbers. */
void qem_stage_sizes(qem_stage *stage, uint64_t cols);
/* Sets units, per_super and supers from axis, block and params. */
void qem_affine_sizes(qem_affine *affine, uint64_t rows, uint64_t cols);
/* Stored bytes of a step. */
uint64_t qem_affine_bytes(const qem_affine *affine);

/* Level `code` of a fixed table of k levels. */
float qem_table_level(qem_table table, uint64_t k, uint32_t code);

/* ---- from what is stored to what decoders read ---- */

/* Makes stage->codebook from what is stored (alias when it is f32 already). */
qem_status qem_stage_expand_codebook(qem_context *context, qem_stage *stage, uint64_t cols);
/* Makes rotation and coarse where they are stored as f16. */
qem_status qem_stage_expand_rotation(qem_context *context, qem_stage *stage, uint64_t cols);
/* Makes scale and mean of a step, and the outliers' values, in the same way. */
qem_status qem_affine_expand(qem_context *context, qem_affine *affine);
qem_status qem_outliers_expand(qem_context *context, qem_outliers *outliers);

/* Sanity of an artifact that came from a file: shapes, sizes, every code < k, finite codebooks. FORMAT names `what`. */
qem_status qem_artifact_check(qem_context *context, const qem_artifact *artifact, const char *what);

#endif
