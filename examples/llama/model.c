/* The forward pass: embedding, layers of attention and gated MLP with RMS norms before them, the output matrix. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

/* ------------------------------------------------------------------------------------------------- loading ------ */

static weight *layer_matrix(llama_layer *layer, uint32_t number)
{
    weight *all[LAYER_MATRICES] = { &layer->q, &layer->k, &layer->v, &layer->o, &layer->gate, &layer->up, &layer->down };
    return all[number];
}

uint32_t model_matrix_count(const llama_config *c)
{
    return 1 + c->layers * LAYER_MATRICES + (c->tied ? 0 : 1);
}

weight *model_matrix(llama_model *model, uint32_t number, char name[MATRIX_NAME])
{
    static const char *const names[LAYER_MATRICES] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                       "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                       "mlp.down_proj" };
    const uint32_t layer = (number - 1) / LAYER_MATRICES, matrix = (number - 1) % LAYER_MATRICES;
    if (number == 0) {
        snprintf(name, MATRIX_NAME, "model.embed_tokens.weight");
        return &model->embedding;
    }
    if (layer == model->config.layers) {
        snprintf(name, MATRIX_NAME, "lm_head.weight");
        return &model->output;
    }
    snprintf(name, MATRIX_NAME, "model.layers.%u.%s.weight", layer, names[matrix]);
    return layer_matrix(&model->layers[layer], matrix);
}

static bool load_layer(model_files *files, uint32_t number, llama_model *model)
{
    const llama_config *c = &model->config;
    const uint64_t all = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    const uint64_t shapes[LAYER_MATRICES][2] = { { all, c->hidden },      { kv, c->hidden },       { kv, c->hidden },
                                                 { c->hidden, all },      { c->inner, c->hidden }, { c->inner, c->hidden },
                                                 { c->hidden, c->inner } };
    llama_layer *layer = &model->layers[number];
    char name[MATRIX_NAME];
    for (uint32_t i = 0; i < LAYER_MATRICES; i++) {
        weight *matrix = model_matrix(model, 1 + number * LAYER_MATRICES + i, name);
        if (!files_weight(files, name, shapes[i][0], shapes[i][1], matrix)) return false;
    }
    snprintf(name, sizeof name, "model.layers.%u.input_layernorm.weight", number);
    layer->attention_norm = files_vector(files, name, c->hidden);
    snprintf(name, sizeof name, "model.layers.%u.post_attention_layernorm.weight", number);
    layer->mlp_norm = layer->attention_norm ? files_vector(files, name, c->hidden) : NULL;
    return layer->mlp_norm != NULL;
}

static bool load_tensors(model_files *files, llama_model *model)
{
    const llama_config *c = &model->config;
    if (!files_weight(files, "model.embed_tokens.weight", c->vocab, c->hidden, &model->embedding)) return false;
    if (!c->tied && !files_weight(files, "lm_head.weight", c->vocab, c->hidden, &model->output)) return false;
    model->norm = files_vector(files, "model.norm.weight", c->hidden);
    model->layers = model->norm ? allocate(c->layers, sizeof *model->layers) : NULL;
    for (uint32_t i = 0; model->layers && i < c->layers; i++)
        if (!load_layer(files, i, model)) return false;
    return model->layers != NULL;
}

bool model_load(model_files *files, const llama_config *config, llama_model *model)
{
    *model = (llama_model){ .engine = { .context = files->context }, .config = *config };
    if (!load_tensors(files, model)) return false;
    model->quantized = files->quantized, model->decoded = files->decoded, model->dense = files->dense;
    model->elements = files->elements, model->bytes = files->bytes;
    return true;
}

/* Codes stay here too for the embedding alone, whose rows are decoded. */
static bool to_device(llama_device *device, weight *matrix, bool keep, uint32_t *uploaded)
{
    if (!matrix->codes) return true;
    if (!device_upload(device, matrix)) return false;
    if (!keep) qem_artifact_destroy(&matrix->codes);
    ++*uploaded;
    return true;
}

bool model_to_device(llama_model *model)
{
    uint32_t uploaded = 0;
    if (!device_open(model->engine.context, &model->engine.device)) return false;
    llama_device *device = model->engine.device;
    bool done = to_device(device, &model->output, false, &uploaded);
    if (done && model->config.tied) done = to_device(device, &model->embedding, true, &uploaded);
    for (uint32_t i = 0; done && i < model->config.layers; i++) {
        for (uint32_t j = 0; done && j < LAYER_MATRICES; j++)
            done = to_device(device, layer_matrix(&model->layers[i], j), false, &uploaded);
    }
    return done && !uploaded ? fail("--device cuda: no matrix of the model is quantized") : done;
}

void model_free(llama_model *model)
{
    for (uint32_t i = 0; model->layers && i < model->config.layers; i++) {
        llama_layer *layer = &model->layers[i];
        for (uint32_t j = 0; j < LAYER_MATRICES; j++) weight_free(layer_matrix(layer, j));
        free(layer->attention_norm);
        free(layer->mlp_norm);
    }
    weight_free(&model->embedding);
    weight_free(&model->output);
    free(model->norm);
    free(model->layers);
    free(model->engine.workspace);
    device_close(&model->engine.device);
    *model = (llama_model){ 0 };
}

/* --------------------------------------------------------------------------------------------------- state ------ */

static void fill_rotations(const llama_config *c, uint32_t positions, llama_state *state)
{
    const uint32_t pairs = c->head_dim / 2;
    for (uint32_t p = 0; p < positions; p++)
        for (uint32_t i = 0; i < pairs; i++) {
            double angle = p * pow(c->rope_theta, -2.0 * i / c->head_dim);
            state->cosine[(size_t)p * pairs + i] = (float)cos(angle);
            state->sine[(size_t)p * pairs + i] = (float)sin(angle);
        }
}

bool state_create(const llama_config *c, uint32_t positions, llama_state *state)
{
    const size_t all = (size_t)c->heads * c->head_dim, kv = (size_t)c->kv_heads * c->head_dim;
    const size_t hidden = c->hidden, inner = c->inner, rotations = (size_t)positions * (c->head_dim / 2);
    *state = (llama_state){ 0 };
    struct {
        float **array;
        size_t count;
    } arrays[] = {
        { &state->x, CHUNK * hidden },   { &state->normed, CHUNK * hidden }, { &state->q, CHUNK * all },
        { &state->k, CHUNK * kv },       { &state->v, CHUNK * kv },          { &state->mixed, CHUNK * all },
        { &state->gate, CHUNK * inner }, { &state->up, CHUNK * inner },      { &state->scores, positions },
        { &state->cosine, rotations },   { &state->sine, rotations },        { &state->logits, CHUNK * (size_t)c->vocab },
    };
    size_t total = 0, used = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) total += arrays[i].count;
    float *memory = allocate(total, sizeof *memory);
    if (!memory) return false;
    state->memory = memory;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        *arrays[i].array = memory + used;
        used += arrays[i].count;
    }
    fill_rotations(c, positions, state);
    return true;
}

void state_free(llama_state *state)
{
    free(state->memory);
    *state = (llama_state){ 0 };
}

/* ------------------------------------------------------------------------------------------------- forward ------ */

void rms_norm(const float *x, const float *scale, float epsilon, uint32_t width, uint32_t count, float *out)
{
    for (uint32_t n = 0; n < count; n++, x += width, out += width) {
        double sum = 0.0;
        for (uint32_t i = 0; i < width; i++) sum += (double)x[i] * x[i];
        const float factor = (float)(1.0 / sqrt(sum / width + epsilon));
        for (uint32_t i = 0; i < width; i++) out[i] = x[i] * factor * scale[i];
    }
}

void rotate(const llama_config *c, const llama_state *state, float direction, uint32_t heads, uint32_t first, uint32_t count,
            float *rows)
{
    const uint32_t pairs = c->head_dim / 2;
    const uint32_t step = c->interleaved ? 2 : 1, apart = c->interleaved ? 1 : pairs;
    for (uint32_t n = 0; n < count; n++) {
        const size_t position = first + n;
        const float *cosine = state->cosine + position * pairs, *sine = state->sine + position * pairs;
        for (uint32_t h = 0; h < heads; h++, rows += c->head_dim)
            for (uint32_t i = 0; i < pairs; i++) {
                const float turn = direction * sine[i];
                float *a = rows + i * step, *b = a + apart, old = *a;
                *a = old * cosine[i] - *b * turn;
                *b = old * turn + *b * cosine[i];
            }
    }
}

void softmax(float *scores, uint32_t count)
{
    float greatest = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < count; i++)
        if (scores[i] > greatest) greatest = scores[i];
    for (uint32_t i = 0; i < count; i++) sum += scores[i] = expf(scores[i] - greatest);
    for (uint32_t i = 0; i < count; i++) scores[i] /= sum;
}

void attend(const float *q, const float *keys, const float *values, uint32_t dim, uint32_t width, uint32_t seen,
            float *scores, float *out)
{
    const float factor = 1.0f / sqrtf((float)dim);
    for (uint32_t t = 0; t < seen; t++) {
        const float *key = keys + (size_t)t * width;
        float sum = 0.0f;
        for (uint32_t i = 0; i < dim; i++) sum += q[i] * key[i];
        scores[t] = sum * factor;
    }
    softmax(scores, seen);
    memset(out, 0, dim * sizeof *out);
    for (uint32_t t = 0; t < seen; t++)
        for (uint32_t i = 0; i < dim; i++) out[i] += scores[t] * values[(size_t)t * width + i];
}

static bool attention(llama_model *model, llama_state *state, kv_cache *cache, uint32_t number, uint32_t count)
{
    const llama_config *c = &model->config;
    const llama_layer *layer = &model->layers[number];
    const uint32_t first = cache->length, width = cache->width, shared = c->heads / c->kv_heads;
    if (!weight_apply(&model->engine, &layer->q, state->normed, count, state->q) ||
        !weight_apply(&model->engine, &layer->k, state->normed, count, state->k) ||
        !weight_apply(&model->engine, &layer->v, state->normed, count, state->v))
        return false;
    rotate(c, state, 1.0f, c->heads, first, count, state->q);
    if (!cache_quantized(cache)) rotate(c, state, 1.0f, c->kv_heads, first, count, state->k);
    cache_put(cache, 2 * number, state->k, count);
    cache_put(cache, 2 * number + 1, state->v, count);
    float *keys = cache_rows(cache, 2 * number, count);
    const float *values = keys ? cache_rows(cache, 2 * number + 1, count) : NULL;
    if (!values) return false;
    if (cache_quantized(cache)) rotate(c, state, 1.0f, c->kv_heads, 0, first + count, keys);
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t h = 0; h < c->heads; h++) {
            const size_t at = ((size_t)n * c->heads + h) * c->head_dim, head = (size_t)(h / shared) * c->head_dim;
            attend(state->q + at, keys + head, values + head, c->head_dim, width, first + n + 1, state->scores,
                   state->mixed + at);
        }
    return weight_apply(&model->engine, &layer->o, state->mixed, count, state->normed);
}

static bool gated_mlp(llama_model *model, llama_state *state, const llama_layer *layer, uint32_t count)
{
    if (!weight_apply(&model->engine, &layer->gate, state->normed, count, state->gate) ||
        !weight_apply(&model->engine, &layer->up, state->normed, count, state->up))
        return false;
    for (size_t i = 0; i < (size_t)count * model->config.inner; i++)
        state->gate[i] = state->gate[i] / (1.0f + expf(-state->gate[i])) * state->up[i];
    return weight_apply(&model->engine, &layer->down, state->gate, count, state->normed);
}

static void add(float *x, const float *more, size_t count)
{
    for (size_t i = 0; i < count; i++) x[i] += more[i];
}

bool model_forward(llama_model *model, llama_state *state, kv_cache *cache, const uint32_t *tokens, uint32_t count)
{
    const llama_config *c = &model->config;
    for (uint32_t n = 0; n < count; n++)
        if (!weight_row(&model->engine, &model->embedding, tokens[n], state->x + (size_t)n * c->hidden)) return false;
    for (uint32_t i = 0; i < c->layers; i++) {
        const llama_layer *layer = &model->layers[i];
        rms_norm(state->x, layer->attention_norm, c->epsilon, c->hidden, count, state->normed);
        if (!attention(model, state, cache, i, count)) return false;
        add(state->x, state->normed, (size_t)count * c->hidden);
        rms_norm(state->x, layer->mlp_norm, c->epsilon, c->hidden, count, state->normed);
        if (!gated_mlp(model, state, layer, count)) return false;
        add(state->x, state->normed, (size_t)count * c->hidden);
    }
    rms_norm(state->x, model->norm, c->epsilon, c->hidden, count, state->normed);
    const weight *output = c->tied ? &model->embedding : &model->output;
    return cache_advance(cache, count) && weight_apply(&model->engine, output, state->normed, count, state->logits);
}
