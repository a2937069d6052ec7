/* What an artifact is made of. Filled by the methods, read by the decoder, io and api. */
#ifndef QEM_CORE_ARTIFACT_H
#define QEM_CORE_ARTIFACT_H

#include <qem/qem.h>

typedef enum qem_codebook_kind {
    QEM_CODEBOOK_SHARED = 0,    /* [k, dim], one for all groups */
    QEM_CODEBOOK_PER_GROUP = 1, /* group g's k entries start at float g*k*dim; a tail group's entries have cols % dim floats */
    QEM_CODEBOOK_UNIFORM = 2    /* dim 1, level j = fmaf(j, scale, mean): not stored, only scale and mean are */
} qem_codebook_kind;

#define QEM_MOST_STAGES 8 /* what qem_artifact_part has names for */

/* One stage: codes, their codebook, and optional swap maps. All memory is host memory owned by the artifact. */
typedef struct qem_stage {
    qem_codebook_kind kind;
    uint32_t dim;
    uint32_t code_bits;       /* 0 .. 24; 0 = no codes are stored, every code is 0 */
    uint32_t levels;          /* swap levels, 0 .. 8 */
    uint64_t groups;          /* ceil(cols / dim) */
    uint64_t k;
    qem_dtype codebook_dtype; /* F32 or F16, as stored (UNIFORM: F32) */
    /* 16 zero bytes of slack follow codes and swap_map: decoders read whole words */
    uint8_t *codes;           /* bit stream, code (i,g) at bit (i*groups + g) * code_bits, least significant bit first */
    uint64_t codes_bytes;
    void *codebook_stored;    /* as in the file; NULL for UNIFORM */
    uint64_t codebook_bytes;
    float *codebook;          /* the same as f32 for the decoder; may be == codebook_stored. UNIFORM: the k levels */
    uint8_t *swap_map;        /* NULL when levels == 0 */
    uint64_t swap_map_bytes;
    float scale, mean;        /* UNIFORM only */
} qem_stage;

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
    qem_recipe recipe;        /* as asked */
    uint64_t seed;
    uint64_t budget_bytes;
    uint32_t stage_count;
    qem_stage *stages;
    qem_cells cells;
    int has_metrics;
    qem_metrics metrics;
    double quantize_seconds;  /* NaN when loaded */
};

/* An empty artifact with a copy of the context's allocator and of the name, zeroed stages. */
qem_status qem_artifact_new(qem_context *context, const char *name, uint64_t rows, uint64_t cols, uint32_t stage_count,
                            qem_artifact **artifact);
/* Memory that belongs to the artifact: released by qem_artifact_destroy through the fields above. */

/* Bytes of the artifact by part, and their sum. */
void qem_artifact_parts(const qem_artifact *artifact, qem_parts *parts, uint64_t *stored_bytes);

/* Sizes that follow from the shape: ceil(log2 k); bytes of a bit stream; floats of a codebook as stored. */
uint32_t qem_code_bits(uint64_t k);
uint64_t qem_bit_stream_bytes(uint64_t count, uint32_t bits);
uint64_t qem_codebook_floats(qem_codebook_kind kind, uint64_t cols, uint32_t dim, uint64_t k);

/* What a one-stage recipe (resolved) stores for k centroids per codebook: codes, codebook, swap map or grid parameters. */
uint64_t qem_recipe_bytes(qem_codebook_kind kind, uint64_t rows, uint64_t cols, const qem_recipe *recipe, uint64_t k);

/* Makes stage->codebook from codebook_stored or scale and mean (alias when it is f32 already). */
qem_status qem_stage_expand_codebook(qem_context *context, qem_stage *stage, uint64_t cols);

/* Sanity of an artifact that came from a file: shapes, sizes, every code < k, finite codebooks. FORMAT names `what`. */
qem_status qem_artifact_check(qem_context *context, const qem_artifact *artifact, const char *what);

#endif
