/*
 * A LLaMA on qem: what the files of this example share. It knows qem through its public header alone.
 *
 *     util.c    error lines, memory, random numbers, files
 *     json.c    config.json, vocab.json, model.safetensors.index.json
 *     config.c  config.json -> llama_config
 *     weights.c tensors of a model, dense or quantized, and products with them
 *     device.c  quantized matrices and products with them on a GPU (device_absent.c: without CUDA)
 *     cache.c   keys and values of earlier positions, exact or quantized
 *     model.c   the forward pass
 *     gradient.c  the backward pass
 *     importance.c  how much each weight matters: squared gradients
 *     text.c    vocabulary and token files
 *     main.c    the command line
 *
 * Every function that returns bool and can fail prints one line on stderr (fail) before it returns false; its callers print
 * nothing more.
 */
#ifndef QEM_EXAMPLE_LLAMA_H
#define QEM_EXAMPLE_LLAMA_H

#include <qem/cuda.h>
#include <qem/qem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LLAMA_PRINTF __attribute__((format(printf, 1, 2)))
#else
#define LLAMA_PRINTF
#endif

/* Prints "llama: ..." on stderr as one line, whatever control characters the arguments hold; returns false. */
bool fail(const char *format, ...) LLAMA_PRINTF;

/* The same with the library's own sentence behind `what` (unless that begins it already). */
bool fail_library(const qem_context *context, qem_status status, const char *what);

/* malloc of count * size bytes, or one line and NULL. */
void *allocate(size_t count, size_t size);

/* "directory/name" in memory of its own, or NULL. */
char *join_path(const char *directory, const char *name);

/* A uniform number in [0, 1); the seed moves on. */
double draw(uint64_t *seed);

/* The whole file with a 0 byte behind it, in memory of its own, or NULL. */
char *read_file(const char *path, size_t *size);

/* ---------------------------------------------------------------------------------------------------- JSON ------ */

typedef enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

/* Nodes lie in the order of the text; an object's children are key, value, key, value, ... */
typedef struct json_node {
    json_kind kind;
    double number;
    const char *text; /* of a string: UTF-8, a 0 byte behind it */
    size_t length;
    uint32_t count;   /* children: elements, or pairs */
    uint32_t end;     /* index of the first node behind this one and its children */
} json_node;

typedef struct json {
    char *path, *buffer;
    json_node *nodes; /* nodes[0] is the whole */
    uint32_t count, capacity;
} json;

bool json_load(const char *path, json *document);
void json_free(json *document);
/* The value of a key of nodes[object], or NULL. */
const json_node *json_get(const json *document, uint32_t object, const char *key);
uint32_t json_index(const json *document, const json_node *node);

/* -------------------------------------------------------------------------------------------------- config ------ */

enum { MAX_EOS = 8 };

typedef struct llama_config {
    uint32_t hidden, inner, layers, heads, kv_heads, head_dim, vocab, positions;
    float epsilon;
    double rope_theta;
    bool tied;        /* the output matrix is the embedding */
    bool interleaved; /* rotary pairs are (2i, 2i+1), else (i, i + head_dim/2) */
    uint32_t bos, eos[MAX_EOS], eos_count;
} llama_config;

/* config.json of the directory. */
bool config_load(const char *directory, llama_config *config);

/* ------------------------------------------------------------------------------------------------- weights ------ */

/* A matrix of the model: dense, codes, or codes uploaded to a GPU (rows are still decoded from codes, products are made there). */
typedef struct weight {
    uint64_t rows, cols;
    float *dense;
    qem_artifact *codes;
    qem_device_artifact *uploaded;
} weight;

/* The files of a model while it is loaded. */
typedef struct model_files {
    qem_context *context;
    const char *directory;
    json index;       /* model.safetensors.index.json, if the model is in shards */
    bool sharded, dequantize;
    qem_file **files;
    char **paths, **names; /* names: as in the index */
    uint32_t count;
    uint64_t dense, quantized, decoded; /* tensors loaded so far; decoded: quantized ones that are floats now */
    uint64_t elements, bytes;           /* of the quantized ones */
} model_files;

typedef struct llama_device llama_device;

/* What products need beside the weights; workspace grows as needed. */
typedef struct llama_engine {
    qem_context *context;
    llama_device *device; /* NULL: the CPU alone */
    void *workspace;
    uint64_t workspace_bytes;
} llama_engine;

/* `weights`: one file that replaces model.safetensors or its shards, or NULL. */
bool files_open(qem_context *context, const char *directory, const char *weights, bool dequantize, model_files *files);
void files_close(model_files *files);
bool files_weight(model_files *files, const char *name, uint64_t rows, uint64_t cols, weight *matrix);
/* A vector of `length` floats in memory of its own, or NULL. */
float *files_vector(model_files *files, const char *name, uint64_t length);
void weight_free(weight *matrix);
/* y = x * W^T for `batch` rows of x. */
bool weight_apply(llama_engine *engine, const weight *matrix, const float *x, uint64_t batch, float *y);
/* One row of the matrix. */
bool weight_row(llama_engine *engine, const weight *matrix, uint64_t row, float *out);

/* -------------------------------------------------------------------------------------------------- device ------ */

/* GPU 0 and a stream on it. *opened is to be closed after an error too. */
bool device_open(qem_context *context, llama_device **opened);
void device_close(llama_device **opened);
/* Uploads the codes; weight_free ends what they are there. */
bool device_upload(llama_device *device, weight *matrix);
/* weight_apply of a matrix that is there; x and y are host memory. */
bool device_apply(llama_device *device, const weight *matrix, const float *x, uint64_t batch, float *y);

/* ------------------------------------------------------------------------------------------------ KV cache ------ */

typedef struct cache_options {
    double bits;       /* of codes, for each element; 0: nothing is quantized */
    qem_method method;
    uint32_t dim;      /* 0: the method's least */
    uint32_t block;    /* positions that are quantized together */
} cache_options;

/* What a stream (the keys or the values of one layer) has stored. */
typedef struct cache_stream {
    float *rows;            /* exact positions: all, or those behind the last finished block */
    qem_artifact *base;     /* fitted on the first finished block ever; stays over cache_restart */
    qem_artifact **blocks;  /* finished blocks of this text, encoded against base */
} cache_stream;

typedef struct kv_cache {
    qem_context *context;
    cache_options options;
    uint32_t layers, width, capacity; /* width: floats of one position of a stream */
    uint32_t length;                  /* positions of this text */
    cache_stream *streams;            /* 2 * layer: keys, 2 * layer + 1: values */
    float *scratch[2];                /* decoded keys and values of one layer */
    uint64_t fitted_bytes;            /* codebooks, scales, means of all streams, stored once */
    uint64_t code_bytes, code_positions; /* over all texts */
} kv_cache;

bool cache_create(qem_context *context, const llama_config *config, const cache_options *options, uint32_t capacity,
                  kv_cache *cache);
void cache_free(kv_cache *cache);
/* Keys are then put before, and come back without, their rotary embedding. */
bool cache_quantized(const kv_cache *cache);
/* Forgets all positions, for the next text. */
void cache_restart(kv_cache *cache);
/* Most positions that may be put before cache_advance. */
uint32_t cache_room(const kv_cache *cache);
/* Puts `count` rows behind the last position of a stream. */
void cache_put(kv_cache *cache, uint32_t stream, const float *rows, uint32_t count);
/* All rows of a stream with the `count` last put, or NULL; valid until the next call for keys (or values). Those of a
 * quantized cache are a copy that may be changed. */
float *cache_rows(kv_cache *cache, uint32_t stream, uint32_t count);
/* The rows put last belong to the text now; a block that is full is quantized. */
bool cache_advance(kv_cache *cache, uint32_t count);

/* --------------------------------------------------------------------------------------------------- model ------ */

enum { CHUNK = 64 }; /* most positions of one forward pass */
enum { LAYER_MATRICES = 7, MATRIX_NAME = 96 };

typedef struct llama_layer {
    float *attention_norm, *mlp_norm;
    weight q, k, v, o, gate, up, down;
} llama_layer;

typedef struct llama_model {
    llama_engine engine;
    llama_config config;
    weight embedding, output; /* output: not there if tied */
    float *norm;
    llama_layer *layers;
    uint64_t quantized, decoded, dense, elements, bytes; /* as in model_files */
} llama_model;

/* Activations of up to CHUNK positions, and the rotations of all. */
typedef struct llama_state {
    float *x, *normed, *q, *k, *v, *mixed, *gate, *up, *scores, *cosine, *sine;
    float *logits; /* CHUNK * vocab, out */
    void *memory;
} llama_state;

bool model_load(model_files *files, const llama_config *config, llama_model *model);
/* Products with quantized matrices are made on a GPU from now on. */
bool model_to_device(llama_model *model);
void model_free(llama_model *model);
bool state_create(const llama_config *config, uint32_t positions, llama_state *state);
void state_free(llama_state *state);
/* Runs count <= cache_room tokens behind those in the cache; state->logits holds a row for each. */
bool model_forward(llama_model *model, llama_state *state, kv_cache *cache, const uint32_t *tokens, uint32_t count);

/* The matrices by number: the embedding, then q, k, v, o, gate, up, down of each layer, then the output matrix if it is one of
 * its own. `name`: as in the model's files. */
uint32_t model_matrix_count(const llama_config *config);
weight *model_matrix(llama_model *model, uint32_t number, char name[MATRIX_NAME]);

/* Steps of the forward pass that the backward pass takes again. */
void rms_norm(const float *x, const float *scale, float epsilon, uint32_t width, uint32_t count, float *out);
/* Turns the pairs of every head of `count` positions from `first` on; direction -1 turns back. */
void rotate(const llama_config *config, const llama_state *state, float direction, uint32_t heads, uint32_t first,
            uint32_t count, float *rows);
void softmax(float *scores, uint32_t count);
/* One head of one position against the `seen` positions up to itself; `scores` is left holding the weights of their values. */
void attend(const float *q, const float *keys, const float *values, uint32_t dim, uint32_t width, uint32_t seen,
            float *scores, float *out);

/* ---------------------------------------------------------------------------------------------------- text ------ */

typedef struct vocabulary_entry {
    const char *text;
    size_t length;
    uint32_t id;
} vocabulary_entry;

typedef struct vocabulary {
    json document;
    uint32_t size;
    size_t longest;
    vocabulary_entry *pieces; /* by id; text NULL where an id has none */
    vocabulary_entry *sorted; /* `sorted_count` of them, by text */
    uint32_t sorted_count;
} vocabulary;

/* vocab.json of the directory: a list of pieces, or an object of piece: id. */
bool vocabulary_load(const char *directory, uint32_t size, vocabulary *words);
void vocabulary_free(vocabulary *words);
/* Tokens of `text` behind a space, in memory of its own; at most `most`. */
bool vocabulary_encode(const vocabulary *words, const char *text, uint32_t most, uint32_t **tokens, uint32_t *count);
/* The bytes of a token; `buffer` holds that of a byte token. */
const char *vocabulary_decode(const vocabulary *words, uint32_t token, char *buffer, size_t *length);

/* Texts of tokens: rows x cols, in memory of its own. */
typedef struct token_rows {
    uint32_t *tokens;
    uint64_t rows, cols;
} token_rows;

/* A .npy file of whole numbers below `vocab`, one or two dimensions. */
bool tokens_load(const char *path, uint32_t vocab, token_rows *rows);
/* Writes a .npy file of i4. */
bool tokens_save(const char *path, const token_rows *rows);

/* ----------------------------------------------------------------------------------------------- gradients ------ */

/* What a text leaves for its backward passes: the inputs of all layers, and room for all else of one layer, which is gone
 * through again on the way back. `d_...` is the gradient by the thing. */
typedef struct gradient_pass {
    llama_state state;  /* its rotations */
    uint32_t count;     /* positions of the text */
    float *inputs;      /* (layers + 1) * count * hidden */
    float *attention_in, *q, *k, *v, *mixed, *between, *mlp_in, *gate, *up, *product, *normed;
    float *d_x, *d_in, *d_q, *d_k, *d_v, *d_mixed, *d_gate, *d_up, *d_product;
    float *scores, *d_scores;
    float *logits;      /* count * vocab, out */
    float *d_logits;    /* count * vocab, in */
    float *gradient, *d_embedding;
    void *memory;
} gradient_pass;

/* Takes the gradient by matrix `number`, of its shape. */
typedef void gradient_sink(void *closure, uint32_t number, const float *gradient);

/* For texts of up to `positions` tokens. */
bool gradient_create(const llama_config *config, uint32_t positions, gradient_pass *pass);
void gradient_free(gradient_pass *pass);
/* Fills pass->logits. All weights of the model must be dense. */
bool gradient_forward(llama_model *model, gradient_pass *pass, const uint32_t *tokens, uint32_t count);
/* From pass->d_logits back through that text; may be repeated with other d_logits. */
bool gradient_backward(llama_model *model, gradient_pass *pass, const uint32_t *tokens, gradient_sink *sink, void *closure);

typedef struct importance_options {
    const char *out;
    uint32_t draws;  /* of labels for each text; 0: the labels are the text's own next tokens */
    double smoothing; /* share of its matrix's mean that each element gets */
    uint64_t seed;
} importance_options;

/* Writes the mean squared gradient of the log-probability of a token by each weight. */
bool importance_write(llama_model *model, const token_rows *texts, const importance_options *options);

#endif
