/* Tensors of a model: found in one file or in shards, kept as codes where qem has quantized them, as floats otherwise. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

/* --------------------------------------------------------------------------------------------------- files ------ */

/* `name`: as in the index. */
static bool open_file(model_files *files, const char *name, const char *path)
{
    const uint32_t i = files->count++;
    files->names[i] = join_path(NULL, name);
    files->paths[i] = join_path(NULL, path);
    if (!files->names[i] || !files->paths[i]) return false;
    qem_status status = qem_file_open(files->context, path, &files->files[i]);
    if (status != QEM_OK) return fail_library(files->context, status, path);
    return qem_file_get_kind(files->files[i]) == QEM_FILE_SAFETENSORS ? true : fail("%s: is not a safetensors file", path);
}

static bool make_room(model_files *files, uint32_t count)
{
    files->files = allocate(count, sizeof *files->files);
    files->paths = files->files ? allocate(count, sizeof *files->paths) : NULL;
    files->names = files->paths ? allocate(count, sizeof *files->names) : NULL;
    return files->names != NULL;
}

/* The shard of that name, opened if it is not yet; UINT32_MAX on an error. */
static uint32_t open_shard(model_files *files, const char *name)
{
    for (uint32_t i = 0; i < files->count; i++)
        if (strcmp(files->names[i], name) == 0) return i;
    char *path = join_path(files->directory, name);
    bool done = path && open_file(files, name, path);
    free(path);
    return done ? files->count - 1 : UINT32_MAX;
}

static bool open_index(model_files *files)
{
    char *path = join_path(files->directory, "model.safetensors.index.json");
    bool loaded = path && json_load(path, &files->index);
    free(path);
    if (!loaded) return false;
    files->sharded = true; /* a map of quantized tensors names no shard that the other does not */
    const json_node *map = json_get(&files->index, 0, "weight_map");
    if (!map || map->kind != JSON_OBJECT || map->count == 0)
        return fail("%s: 'weight_map' is not there, or not an object with entries", files->index.path);
    for (const json_node *node = map + 1; node < files->index.nodes + map->end; node = files->index.nodes + node[1].end) {
        if (node[1].kind != JSON_STRING || node[1].length == 0 || strlen(node[1].text) != node[1].length ||
            strchr(node[1].text, '/'))
            return fail("%s: tensor '%s': its file is not named by a plain name", files->index.path, node->text);
    }
    return make_room(files, map->count);
}

bool files_open(qem_context *context, const char *directory, const char *weights, bool dequantize, model_files *files)
{
    *files = (model_files){ .context = context, .directory = directory, .dequantize = dequantize };
    if (weights) return make_room(files, 1) && open_file(files, weights, weights);
    char *path = join_path(directory, "model.safetensors");
    FILE *stream = path ? fopen(path, "rb") : NULL;
    if (stream) fclose(stream);
    bool done = path && (stream ? make_room(files, 1) && open_file(files, path, path) : open_index(files));
    free(path);
    return done;
}

void files_close(model_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        qem_file_close(&files->files[i]);
        free(files->paths[i]);
        free(files->names[i]);
    }
    free(files->files);
    free(files->paths);
    free(files->names);
    json_free(&files->index);
    *files = (model_files){ 0 };
}

/* -------------------------------------------------------------------------------------------------- tensors ------ */

static float from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023, bits;
    float value;
    if (exponent == 0) { /* zero and subnormal numbers: fraction * 2^-24 */
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static float from_brain(uint16_t brain)
{
    uint32_t bits = (uint32_t)brain << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Tensors lie in files at any alignment. */
static void convert(const qem_tensor_info *tensor, uint64_t count, float *out)
{
    if (tensor->dtype == QEM_DTYPE_F32) {
        memcpy(out, tensor->data, count * sizeof *out);
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, (const char *)tensor->data + 2 * i, sizeof bits);
        out[i] = tensor->dtype == QEM_DTYPE_F16 ? from_half(bits) : from_brain(bits);
    }
}

static const json_node *find_in(const json *index, const char *map, const char *name)
{
    const json_node *object = json_get(index, 0, map);
    return object && object->kind == JSON_OBJECT ? json_get(index, json_index(index, object), name) : NULL;
}

/* The file that should hold a tensor; UINT32_MAX on an error. Quantized ones have a map of their own, for in their files they go by
 * the names of their parts. */
static uint32_t file_of(model_files *files, const char *name)
{
    if (!files->sharded) return 0;
    const json *index = &files->index;
    const json_node *shard = find_in(index, "quantized_map", name);
    if (!shard) shard = find_in(index, "weight_map", name);
    if (shard && shard->kind == JSON_STRING && !strchr(shard->text, '/')) return open_shard(files, shard->text);
    fail("%s: no tensor '%s' in 'weight_map'", index->path, name);
    return UINT32_MAX;
}

/* A plain tensor as floats; rows 0: a vector. */
static float *load_dense(model_files *files, uint32_t file, const char *name, uint64_t rows, uint64_t cols)
{
    const char *path = files->paths[file];
    qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;
    uint32_t count = qem_file_tensor_count(files->files[file]), i = 0;
    for (; i < count; i++) {
        qem_status status = qem_file_tensor(files->files[file], i, &tensor);
        if (status == QEM_OK && !tensor.of_artifact && strcmp(tensor.name, name) == 0) break;
    }
    if (i == count) {
        fail("%s: no tensor '%s'", path, name);
        return NULL;
    }
    if (tensor.dtype != QEM_DTYPE_F32 && tensor.dtype != QEM_DTYPE_F16 && tensor.dtype != QEM_DTYPE_BF16) {
        fail("%s: tensor '%s' is %s, not f32, f16 or bf16", path, name, qem_dtype_name(tensor.dtype));
        return NULL;
    }
    bool fits = rows ? tensor.rank == 2 && tensor.shape[0] == rows && tensor.shape[1] == cols :
                       tensor.rank == 1 && tensor.shape[0] == cols;
    if (!fits) {
        char wanted[32] = "";
        if (rows) snprintf(wanted, sizeof wanted, "%llu x ", (unsigned long long)rows);
        fail("%s: tensor '%s' has rank %u, first dimensions %llu, %llu; config.json makes it %s%llu", path, name,
             tensor.rank, (unsigned long long)tensor.shape[0], (unsigned long long)tensor.shape[1], wanted,
             (unsigned long long)cols);
        return NULL;
    }
    float *out = allocate((rows ? rows : 1) * cols, sizeof *out);
    if (out) convert(&tensor, (rows ? rows : 1) * cols, out);
    return out;
}

float *files_vector(model_files *files, const char *name, uint64_t length)
{
    uint32_t file = file_of(files, name);
    if (file == UINT32_MAX) return NULL;
    files->dense++;
    return load_dense(files, file, name, 0, length);
}

static bool decode(model_files *files, weight *matrix, const char *where)
{
    matrix->dense = allocate(matrix->rows * matrix->cols, sizeof *matrix->dense);
    if (!matrix->dense) return false;
    qem_status status = qem_dequantize(files->context, matrix->codes, 0, matrix->rows, QEM_DTYPE_F32, matrix->dense, 0);
    qem_artifact_destroy(&matrix->codes);
    files->decoded++;
    return status == QEM_OK ? true : fail_library(files->context, status, where);
}

static bool load_codes(model_files *files, uint32_t file, const char *name, weight *matrix)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    char where[512];
    snprintf(where, sizeof where, "%s: tensor '%s'", files->paths[file], name);
    qem_status status = qem_file_load(files->context, files->files[file], name, &matrix->codes);
    if (status == QEM_OK) status = qem_artifact_query(matrix->codes, &info);
    if (status != QEM_OK) return fail_library(files->context, status, where);
    if (info.rows != matrix->rows || info.cols != matrix->cols)
        return fail("%s is %llu x %llu; config.json makes it %llu x %llu", where, (unsigned long long)info.rows,
                    (unsigned long long)info.cols, (unsigned long long)matrix->rows, (unsigned long long)matrix->cols);
    files->quantized++;
    files->elements += info.rows * info.cols;
    files->bytes += info.stored_bytes;
    return files->dequantize ? decode(files, matrix, where) : true;
}

bool files_weight(model_files *files, const char *name, uint64_t rows, uint64_t cols, weight *matrix)
{
    uint32_t file = file_of(files, name);
    *matrix = (weight){ .rows = rows, .cols = cols };
    if (file == UINT32_MAX) return false;
    for (uint32_t i = 0; i < qem_file_artifact_count(files->files[file]); i++)
        if (strcmp(qem_file_artifact_name(files->files[file], i), name) == 0) return load_codes(files, file, name, matrix);
    matrix->dense = load_dense(files, file, name, rows, cols);
    files->dense++;
    return matrix->dense != NULL;
}

void weight_free(weight *matrix)
{
    free(matrix->dense);
    qem_artifact_destroy(&matrix->codes);
    *matrix = (weight){ 0 };
}

/* ------------------------------------------------------------------------------------------------- products ------ */

static float dot(const float *a, const float *b, uint64_t count)
{
    float lanes[8] = { 0 }, sum = 0.0f;
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (int j = 0; j < 8; j++) lanes[j] += a[i + j] * b[i + j];
    for (; i < count; i++) sum += a[i] * b[i];
    for (int j = 0; j < 8; j++) sum += lanes[j];
    return sum;
}

/* The next call may use the same workspace, so one of the greatest size asked for serves all. */
static bool grow_workspace(llama_engine *engine, uint64_t bytes)
{
    if (bytes <= engine->workspace_bytes) return true;
    free(engine->workspace);
    engine->workspace_bytes = 0;
    engine->workspace = allocate(bytes, 1);
    if (!engine->workspace) return false;
    engine->workspace_bytes = bytes;
    return true;
}

bool weight_apply(llama_engine *engine, const weight *matrix, const float *x, uint64_t batch, float *y)
{
    if (matrix->codes) {
        if (!grow_workspace(engine, qem_matmul_workspace_size(engine->context, matrix->codes, batch))) return false;
        qem_status status = qem_matmul(engine->context, matrix->codes, batch, QEM_DTYPE_F32, x, 0, QEM_DTYPE_F32, y, 0,
                                       engine->workspace, engine->workspace_bytes);
        return status == QEM_OK ? true : fail_library(engine->context, status, "product");
    }
    for (uint64_t row = 0; row < matrix->rows; row++)
        for (uint64_t b = 0; b < batch; b++)
            y[b * matrix->rows + row] = dot(matrix->dense + row * matrix->cols, x + b * matrix->cols, matrix->cols);
    return true;
}

bool weight_row(llama_engine *engine, const weight *matrix, uint64_t row, float *out)
{
    if (!matrix->codes) {
        memcpy(out, matrix->dense + row * matrix->cols, matrix->cols * sizeof *out);
        return true;
    }
    qem_status status = qem_dequantize(engine->context, matrix->codes, row, row + 1, QEM_DTYPE_F32, out, 0);
    return status == QEM_OK ? true : fail_library(engine->context, status, "embedding");
}
