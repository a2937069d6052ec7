/* Models: the shards of a checkpoint, its tensors, and which of them are weights to quantize. */
#ifndef QEM_TOOLS_MODEL_H
#define QEM_TOOLS_MODEL_H

#include "cli.h"

#define CLI_INDEX_SUFFIX ".index.json"
#define CLI_MANIFEST "qem.json"

typedef struct cli_model_tensor {
    char *name;
    uint32_t shard;
    bool is_artifact;
    bool matrix;         /* 2-D and floating, or the matrix of a file that holds one */
    bool chosen;
    uint64_t rows, cols; /* of matrices and artifacts */
    qem_dtype dtype;     /* of artifacts: of what they were made from */
    double bits;         /* the budget; 0: the recipe's own */
} cli_model_tensor;

typedef struct cli_shard {
    char *name;          /* in its directory */
    char *path;
    uint64_t bytes;
    int64_t seconds, nanoseconds; /* when it was last changed */
} cli_shard;

/* A file alone (directory NULL), or a directory of shards with what else lies there. */
typedef struct cli_model {
    const char *path;    /* as the user named it */
    char *directory;
    char *index;         /* name of the index file, NULL where there is none */
    uint32_t shard_count;
    cli_shard *shards;
    uint32_t tensor_count;
    cli_model_tensor *tensors; /* shard by shard, artifacts first */
    uint32_t extra_count;
    char **extras;       /* names of the files that are no weights: configuration, tokenizer */
} cli_model;

/* Is it a directory or an index? Then commands read and write directories. */
bool cli_is_model_path(const char *path);
/* Finds the shards and lists their tensors; nothing stays open. Every shard and tensor of an index must be there. */
int cli_model_open(qem_context *context, const char *path, cli_model *model);
void cli_model_free(cli_model *model);
/* "DIRECTORY/NAME", malloc'ed; NULL when out of memory. */
char *cli_join(const char *directory, const char *name);

/*
 * Marks the tensors to quantize: the one of --tensor; those that --include names; else of a directory the linear weights, of a
 * file all matrices. --exclude takes away. Of a directory *left_out counts the matrices that are not chosen.
 */
int cli_model_choose(const cli_options *options, cli_model *model, uint32_t *chosen);

/* Weights of the squared error for one tensor, or those of --importance FILE.npy for all; *view is NULL without the option. */
int cli_importance_for(qem_context *context, const cli_options *options, const char *name, qem_view *storage,
                       const qem_view **view);

/* Which file it is and when it changed, for the manifest; null for NULL. */
json_t *cli_file_identity(const char *path);

/* The plan that shares one budget of `bits` a weight out over the chosen tensors by what errors cost: sets their bits. */
int cli_spread(qem_context *context, const cli_options *options, const qem_recipe *recipe, double bits, cli_model *model);

/* ------------------------------------------------------------------------------------------------ output directory */

/* A directory that a run fills shard by shard; its manifest says what the run is and which shards are finished. */
typedef struct cli_output {
    const char *path;
    int lock;            /* descriptor of the directory, locked against a second run */
    bool made;           /* by this run */
    json_t *manifest;
} cli_output;

/* Makes or takes up the directory: one that holds something else, or another run, is an error. `run` (taken over) describes the
 * run: a manifest of the same description is gone on with. *resumed: there was one. */
int cli_output_open(const char *path, const cli_model *model, json_t *run, cli_output *output, bool *resumed);
/* The plan of the run before, into the tensors; then that of this run into the manifest. */
int cli_output_plan(cli_output *output, bool resumed, cli_model *model);
bool cli_output_has(const cli_output *output, const char *shard);
int cli_output_finished(cli_output *output, const char *shard);
/* A shard is made again: it is not finished until it is. */
int cli_output_unfinished(cli_output *output, const char *shard);
/* What is left when all shards are there: the other files, the index, the manifest's last word. */
int cli_output_complete(qem_context *context, cli_output *output, const cli_model *model);
/* After an error: takes the directory away again if no shard was finished. */
void cli_output_discard(const cli_output *output);
void cli_output_close(cli_output *output);

/* A directory that is made, or there and empty; *lock keeps others out until it is closed (-1: none). */
int cli_new_directory(const char *path, int *lock);
/* Can they be read? So that an error shows before any long work. */
int cli_check_extras(const cli_model *model);
/* Where the model came from, for the manifest. */
json_t *cli_model_json(const cli_model *model);
/* Writes the index of the shards in `directory`, listing what their files really hold. */
int cli_write_index(qem_context *context, const char *directory, const cli_model *model);
/* Copies the model's other files. */
int cli_copy_extras(const cli_model *model, const char *directory);

#endif
