/*
 * The backward pass: from gradients by the logits of a text to those by its weight matrices. A text is gone through as a
 * whole. The way forward keeps the input of every layer; the way back makes the rest of a layer again when it gets there, so
 * that memory is a layer's. Norms are constants here.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

/* -------------------------------------------------------------------------------------------------- memory ------ */

bool gradient_create(const llama_config *c, uint32_t positions, gradient_pass *pass)
{
    const size_t n = positions, hidden = c->hidden, inner = c->inner, all = (size_t)c->heads * c->head_dim;
    const size_t kv = (size_t)c->kv_heads * c->head_dim, vocab = c->vocab, wide = all > inner ? all : inner;
    const size_t output = c->tied ? 1 : vocab; /* a matrix of its own is handed on like those of layers */
    *pass = (gradient_pass){ 0 };
    struct {
        float **array;
        size_t count;
    } arrays[] = {
        { &pass->inputs, (c->layers + (size_t)1) * n * hidden },
        { &pass->attention_in, n * hidden }, { &pass->q, n * all },           { &pass->k, n * kv },
        { &pass->v, n * kv },                { &pass->mixed, n * all },       { &pass->between, n * hidden },
        { &pass->mlp_in, n * hidden },       { &pass->gate, n * inner },      { &pass->up, n * inner },
        { &pass->product, n * inner },       { &pass->normed, n * hidden },   { &pass->d_x, n * hidden },
        { &pass->d_in, n * hidden },         { &pass->d_q, n * all },         { &pass->d_k, n * kv },
        { &pass->d_v, n * kv },              { &pass->d_mixed, n * all },     { &pass->d_gate, n * inner },
        { &pass->d_up, n * inner },          { &pass->d_product, n * inner }, { &pass->scores, n },
        { &pass->d_scores, n },              { &pass->logits, n * vocab },    { &pass->d_logits, n * vocab },
        { &pass->gradient, (output > wide ? output : wide) * hidden },        { &pass->d_embedding, vocab * hidden },
    };
    size_t total = 0, used = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) total += arrays[i].count;
    float *memory = allocate(total, sizeof *memory);
    if (!memory) return false;
    pass->memory = memory;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        *arrays[i].array = memory + used;
        used += arrays[i].count;
    }
    return state_create(c, positions, &pass->state);
}

void gradient_free(gradient_pass *pass)
{
    state_free(&pass->state);
    free(pass->memory);
    *pass = (gradient_pass){ 0 };
}

/* ------------------------------------------------------------------------------------------------- forward ------ */

static void add(float *x, const float *more, size_t count)
{
    for (size_t i = 0; i < count; i++) x[i] += more[i];
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static void attend_all(const llama_config *c, gradient_pass *pass, uint32_t n, uint32_t h)
{
    const uint32_t width = c->kv_heads * c->head_dim, head = h / (c->heads / c->kv_heads) * c->head_dim;
    const size_t at = ((size_t)n * c->heads + h) * c->head_dim;
    attend(pass->q + at, pass->k + head, pass->v + head, c->head_dim, width, n + 1, pass->scores, pass->mixed + at);
}

static bool attention(llama_model *model, gradient_pass *pass, const llama_layer *layer)
{
    const llama_config *c = &model->config;
    llama_engine *engine = &model->engine;
    const uint32_t count = pass->count;
    if (!weight_apply(engine, &layer->q, pass->attention_in, count, pass->q) ||
        !weight_apply(engine, &layer->k, pass->attention_in, count, pass->k) ||
        !weight_apply(engine, &layer->v, pass->attention_in, count, pass->v))
        return false;
    rotate(c, &pass->state, 1.0f, c->heads, 0, count, pass->q);
    rotate(c, &pass->state, 1.0f, c->kv_heads, 0, count, pass->k);
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t h = 0; h < c->heads; h++) attend_all(c, pass, n, h);
    return weight_apply(engine, &layer->o, pass->mixed, count, pass->between);
}

/* All that the layer computes up to the last product, from its input. */
static bool enter_layer(llama_model *model, gradient_pass *pass, uint32_t number)
{
    const llama_config *c = &model->config;
    const llama_layer *layer = &model->layers[number];
    const uint32_t count = pass->count;
    const float *x = pass->inputs + (size_t)number * count * c->hidden;
    rms_norm(x, layer->attention_norm, c->epsilon, c->hidden, count, pass->attention_in);
    if (!attention(model, pass, layer)) return false;
    add(pass->between, x, (size_t)count * c->hidden);
    rms_norm(pass->between, layer->mlp_norm, c->epsilon, c->hidden, count, pass->mlp_in);
    if (!weight_apply(&model->engine, &layer->gate, pass->mlp_in, count, pass->gate) ||
        !weight_apply(&model->engine, &layer->up, pass->mlp_in, count, pass->up))
        return false;
    for (size_t i = 0; i < (size_t)count * c->inner; i++)
        pass->product[i] = pass->gate[i] * sigmoid(pass->gate[i]) * pass->up[i];
    return true;
}

bool gradient_forward(llama_model *model, gradient_pass *pass, const uint32_t *tokens, uint32_t count)
{
    const llama_config *c = &model->config;
    const size_t step = (size_t)count * c->hidden;
    pass->count = count;
    for (uint32_t n = 0; n < count; n++)
        if (!weight_row(&model->engine, &model->embedding, tokens[n], pass->inputs + (size_t)n * c->hidden)) return false;
    float *x = pass->inputs;
    for (uint32_t i = 0; i < c->layers; i++, x += step) {
        if (!enter_layer(model, pass, i) ||
            !weight_apply(&model->engine, &model->layers[i].down, pass->product, count, x + step))
            return false;
        add(x + step, pass->between, step);
    }
    rms_norm(x, model->norm, c->epsilon, c->hidden, count, pass->normed);
    return weight_apply(&model->engine, c->tied ? &model->embedding : &model->output, pass->normed, count, pass->logits);
}

/* ------------------------------------------------------------------------------------------------ backward ------ */

/* Of y = x * W^T: adds the gradient by x to d_x. */
static void back_product(const weight *matrix, const float *d_y, uint32_t count, float *d_x)
{
    for (uint32_t n = 0; n < count; n++, d_y += matrix->rows, d_x += matrix->cols)
        for (uint64_t r = 0; r < matrix->rows; r++) {
            const float *row = matrix->dense + r * matrix->cols, factor = d_y[r];
            for (uint64_t i = 0; i < matrix->cols; i++) d_x[i] += factor * row[i];
        }
}

/* Of y = x * W^T: the gradient by W. */
static void by_matrix(const weight *matrix, const float *d_y, const float *x, uint32_t count, float *gradient)
{
    memset(gradient, 0, matrix->rows * matrix->cols * sizeof *gradient);
    for (uint64_t r = 0; r < matrix->rows; r++) {
        float *row = gradient + r * matrix->cols;
        for (uint32_t n = 0; n < count; n++) {
            const float *input = x + n * matrix->cols, factor = d_y[n * matrix->rows + r];
            for (uint64_t i = 0; i < matrix->cols; i++) row[i] += factor * input[i];
        }
    }
}

/* Adds the gradient by the norm's input x to d_x. */
static void back_norm(const float *x, const float *scale, float epsilon, uint32_t width, uint32_t count, const float *d_y,
                      float *d_x)
{
    for (uint32_t n = 0; n < count; n++, x += width, d_y += width, d_x += width) {
        double squares = 0.0, along = 0.0;
        for (uint32_t i = 0; i < width; i++) {
            squares += (double)x[i] * x[i];
            along += (double)d_y[i] * scale[i] * x[i];
        }
        const double factor = 1.0 / sqrt(squares / width + epsilon), back = factor * factor * along / width;
        for (uint32_t i = 0; i < width; i++) d_x[i] += (float)(factor * ((double)d_y[i] * scale[i] - back * x[i]));
    }
}

/* One head of one position: adds to the gradients by its query and by all keys and values that it saw. */
static void back_attend(const llama_config *c, gradient_pass *pass, uint32_t n, uint32_t h)
{
    const uint32_t dim = c->head_dim, width = c->kv_heads * dim, head = h / (c->heads / c->kv_heads) * dim;
    const size_t at = ((size_t)n * c->heads + h) * dim;
    const float *q = pass->q + at, *d_mixed = pass->d_mixed + at, factor = 1.0f / sqrtf((float)dim);
    float *d_q = pass->d_q + at, *scores = pass->scores, *d_scores = pass->d_scores, mean = 0.0f;
    attend_all(c, pass, n, h);
    for (uint32_t t = 0; t <= n; t++) {
        const float *value = pass->v + (size_t)t * width + head;
        float *d_value = pass->d_v + (size_t)t * width + head, sum = 0.0f;
        for (uint32_t i = 0; i < dim; i++) {
            sum += d_mixed[i] * value[i];
            d_value[i] += scores[t] * d_mixed[i];
        }
        d_scores[t] = sum;
        mean += scores[t] * sum;
    }
    for (uint32_t t = 0; t <= n; t++) {
        const float *key = pass->k + (size_t)t * width + head, slope = scores[t] * (d_scores[t] - mean) * factor;
        float *d_key = pass->d_k + (size_t)t * width + head;
        for (uint32_t i = 0; i < dim; i++) {
            d_q[i] += slope * key[i];
            d_key[i] += slope * q[i];
        }
    }
}

static float *cleared(float *array, size_t count)
{
    return memset(array, 0, count * sizeof *array);
}

/* Where a matrix's gradient goes. */
typedef struct receiver {
    gradient_sink *sink;
    void *closure;
    float *gradient;
    uint32_t count, first; /* positions; number of the layer's first matrix */
} receiver;

/* `number`: in the layer. */
static void hand_on(const receiver *to, uint32_t number, const weight *matrix, const float *d_y, const float *x)
{
    by_matrix(matrix, d_y, x, to->count, to->gradient);
    to->sink(to->closure, to->first + number, to->gradient);
}

static void back_mlp(const llama_model *model, gradient_pass *pass, const llama_layer *layer, const receiver *to)
{
    const llama_config *c = &model->config;
    const uint32_t count = pass->count;
    hand_on(to, 6, &layer->down, pass->d_x, pass->product);
    back_product(&layer->down, pass->d_x, count, cleared(pass->d_product, (size_t)count * c->inner));
    for (size_t i = 0; i < (size_t)count * c->inner; i++) {
        const float g = pass->gate[i], s = sigmoid(g);
        pass->d_gate[i] = pass->d_product[i] * pass->up[i] * s * (1.0f + g * (1.0f - s));
        pass->d_up[i] = pass->d_product[i] * g * s;
    }
    hand_on(to, 4, &layer->gate, pass->d_gate, pass->mlp_in);
    hand_on(to, 5, &layer->up, pass->d_up, pass->mlp_in);
    back_product(&layer->gate, pass->d_gate, count, cleared(pass->d_in, (size_t)count * c->hidden));
    back_product(&layer->up, pass->d_up, count, pass->d_in);
    back_norm(pass->between, layer->mlp_norm, c->epsilon, c->hidden, count, pass->d_in, pass->d_x);
}

static void back_attention(const llama_model *model, gradient_pass *pass, const llama_layer *layer, const float *x,
                           const receiver *to)
{
    const llama_config *c = &model->config;
    const uint32_t count = pass->count;
    const size_t all = (size_t)count * c->heads * c->head_dim, kv = (size_t)count * c->kv_heads * c->head_dim;
    hand_on(to, 3, &layer->o, pass->d_x, pass->mixed);
    back_product(&layer->o, pass->d_x, count, cleared(pass->d_mixed, all));
    cleared(pass->d_q, all);
    cleared(pass->d_k, kv);
    cleared(pass->d_v, kv);
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t h = 0; h < c->heads; h++) back_attend(c, pass, n, h);
    rotate(c, &pass->state, -1.0f, c->heads, 0, count, pass->d_q);
    rotate(c, &pass->state, -1.0f, c->kv_heads, 0, count, pass->d_k);
    hand_on(to, 0, &layer->q, pass->d_q, pass->attention_in);
    hand_on(to, 1, &layer->k, pass->d_k, pass->attention_in);
    hand_on(to, 2, &layer->v, pass->d_v, pass->attention_in);
    back_product(&layer->q, pass->d_q, count, cleared(pass->d_in, (size_t)count * c->hidden));
    back_product(&layer->k, pass->d_k, count, pass->d_in);
    back_product(&layer->v, pass->d_v, count, pass->d_in);
    back_norm(x, layer->attention_norm, c->epsilon, c->hidden, count, pass->d_in, pass->d_x);
}

bool gradient_backward(llama_model *model, gradient_pass *pass, const uint32_t *tokens, gradient_sink *sink, void *closure)
{
    const llama_config *c = &model->config;
    const uint32_t count = pass->count;
    const size_t step = (size_t)count * c->hidden;
    const weight *output = c->tied ? &model->embedding : &model->output;
    receiver to = { sink, closure, pass->gradient, count, 0 };
    if (c->tied) { /* both of its uses count: the second one is the first layer's input */
        by_matrix(output, pass->d_logits, pass->normed, count, pass->d_embedding);
    } else {
        cleared(pass->d_embedding, (size_t)c->vocab * c->hidden);
        hand_on(&to, model_matrix_count(c) - 1, output, pass->d_logits, pass->normed);
    }
    back_product(output, pass->d_logits, count, cleared(pass->d_in, step));
    back_norm(pass->inputs + c->layers * step, model->norm, c->epsilon, c->hidden, count, pass->d_in,
              cleared(pass->d_x, step));
    for (uint32_t i = c->layers; i-- > 0;) {
        to.first = 1 + i * LAYER_MATRICES;
        if (!enter_layer(model, pass, i)) return false;
        back_mlp(model, pass, &model->layers[i], &to);
        back_attention(model, pass, &model->layers[i], pass->inputs + i * step, &to);
    }
    for (uint32_t n = 0; n < count; n++)
        add(pass->d_embedding + (size_t)tokens[n] * c->hidden, pass->d_x + (size_t)n * c->hidden, c->hidden);
    sink(closure, 0, pass->d_embedding);
    return true;
}
