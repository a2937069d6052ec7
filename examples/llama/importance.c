/*
 * How much each weight matters to what the model says: the diagonal of the Fisher information, that is the mean square of the
 * gradient of the log-probability of a token. Half of it times the squared errors of the weights is, for small errors, the
 * divergence a token of the changed model from the one as it was; so it can be compared over all matrices.
 *
 * Labels are drawn from the model's own distribution at each position. Gradients of different positions are then
 * uncorrelated, and the square of their sum is, in the mean, the sum of their squares: one backward pass does for a text.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

typedef struct squares {
    weight *of;   /* shapes, and dense: the sums */
    uint32_t count;
} squares;

static void add_squares(void *closure, uint32_t number, const float *gradient)
{
    const squares *sums = closure;
    const weight *sum = &sums->of[number];
    for (uint64_t i = 0; i < sum->rows * sum->cols; i++) sum->dense[i] += gradient[i] * gradient[i];
}

static bool squares_create(llama_model *model, squares *sums)
{
    char name[MATRIX_NAME];
    sums->count = model_matrix_count(&model->config);
    sums->of = allocate(sums->count, sizeof *sums->of);
    for (uint32_t i = 0; sums->of && i < sums->count; i++) {
        const weight *matrix = model_matrix(model, i, name);
        sums->of[i] = (weight){ .rows = matrix->rows, .cols = matrix->cols };
        sums->of[i].dense = allocate(matrix->rows * matrix->cols, sizeof(float));
        if (!sums->of[i].dense) return false;
    }
    return sums->of != NULL;
}

static void squares_free(squares *sums)
{
    for (uint32_t i = 0; sums->of && i < sums->count; i++) weight_free(&sums->of[i]);
    free(sums->of);
}

static uint32_t draw_label(const float *probabilities, uint32_t vocab, uint64_t *seed)
{
    double left = draw(seed);
    for (uint32_t i = 0; i < vocab; i++) {
        left -= probabilities[i];
        if (left < 0.0) return i;
    }
    return vocab - 1; /* rounding ate the last share */
}

/* Gradients of -log p(label) by the logits: probabilities, less 1 at the label. */
static void set_labels(const llama_config *c, gradient_pass *pass, const uint32_t *tokens, uint32_t draws, uint64_t *seed)
{
    const uint32_t vocab = c->vocab;
    memcpy(pass->d_logits, pass->logits, (size_t)pass->count * vocab * sizeof *pass->d_logits);
    for (uint32_t n = 0; n < pass->count; n++) {
        float *row = pass->d_logits + (size_t)n * vocab;
        row[draws ? draw_label(row, vocab, seed) : tokens[n + 1]] -= 1.0f;
    }
}

/* The last token of a text is a label only. */
static bool add_text(llama_model *model, gradient_pass *pass, const uint32_t *tokens, uint32_t count,
                     const importance_options *options, uint64_t *seed, squares *sums)
{
    const uint32_t vocab = model->config.vocab, times = options->draws ? options->draws : 1;
    if (!gradient_forward(model, pass, tokens, count - 1)) return false;
    for (uint32_t n = 0; n + 1 < count; n++) {
        float *row = pass->logits + (size_t)n * vocab;
        softmax(row, vocab);
        if (!isfinite(row[0])) return fail("the model's output is not finite; some weights may not be");
    }
    for (uint32_t i = 0; i < times; i++) {
        set_labels(&model->config, pass, tokens, options->draws, seed);
        if (!gradient_backward(model, pass, tokens, add_squares, sums)) return false;
    }
    return true;
}

/* Sums become means, and every element gets its share of the matrix's mean. */
static bool finish(squares *sums, double tokens, double smoothing)
{
    for (uint32_t i = 0; i < sums->count; i++) {
        const uint64_t count = sums->of[i].rows * sums->of[i].cols;
        float *values = sums->of[i].dense;
        double sum = 0.0;
        for (uint64_t j = 0; j < count; j++) sum += values[j];
        const double mean = sum / tokens / (double)count;
        if (!isfinite(mean)) return fail("the gradients are not finite; some weights may not be");
        for (uint64_t j = 0; j < count; j++) values[j] = (float)((1.0 - smoothing) * values[j] / tokens + smoothing * mean);
    }
    return true;
}

static void report(llama_model *model, const squares *sums)
{
    char name[MATRIX_NAME];
    for (uint32_t i = 0; i < sums->count; i++) {
        const uint64_t count = sums->of[i].rows * sums->of[i].cols;
        double sum = 0.0, greatest = 0.0;
        for (uint64_t j = 0; j < count; j++) {
            sum += sums->of[i].dense[j];
            greatest = fmax(greatest, sums->of[i].dense[j]);
        }
        model_matrix(model, i, name);
        printf("%s: mean %.6g, greatest %.6g\n", name, sum / (double)count, greatest);
    }
}

static bool save(llama_model *model, const squares *sums, const char *path)
{
    qem_context *context = model->engine.context;
    qem_writer *writer = NULL;
    char name[MATRIX_NAME];
    qem_status status = qem_writer_create(context, path, &writer);
    for (uint32_t i = 0; status == QEM_OK && i < sums->count; i++) {
        qem_tensor_info tensor = QEM_TENSOR_INFO_INIT;
        model_matrix(model, i, name);
        tensor.name = name;
        tensor.dtype = QEM_DTYPE_F32;
        tensor.rank = 2;
        tensor.shape[0] = sums->of[i].rows;
        tensor.shape[1] = sums->of[i].cols;
        tensor.data = sums->of[i].dense;
        tensor.bytes = sums->of[i].rows * sums->of[i].cols * sizeof(float);
        status = qem_writer_add_tensor(context, writer, &tensor);
    }
    if (status == QEM_OK) status = qem_writer_commit(context, &writer);
    if (status != QEM_OK) fail_library(context, status, path);
    qem_writer_abort(&writer);
    return status == QEM_OK;
}

bool importance_write(llama_model *model, const token_rows *texts, const importance_options *options)
{
    gradient_pass pass = { 0 };
    squares sums = { 0 };
    uint64_t seed = options->seed;
    const uint32_t cols = (uint32_t)texts->cols;
    const double times = options->draws ? options->draws : 1.0;
    bool done = gradient_create(&model->config, cols - 1, &pass) && squares_create(model, &sums);
    for (uint64_t i = 0; done && i < texts->rows; i++)
        done = add_text(model, &pass, texts->tokens + i * cols, cols, options, &seed, &sums);
    done = done && finish(&sums, times * (double)texts->rows * (cols - 1.0), options->smoothing) &&
           save(model, &sums, options->out);
    if (done) report(model, &sums);
    squares_free(&sums);
    gradient_free(&pass);
    return done;
}
