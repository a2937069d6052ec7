/* The command line: llama perplexity, llama generate, llama importance. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

static const char usage[] =
    "llama - runs a LLaMA whose weights may be quantized by qem\n"
    "\n"
    "Usage: llama perplexity DIR --tokens FILE.npy [OPTION...]\n"
    "       llama generate DIR [--prompt TEXT] [--length N] [--temperature T] [--seed S] [OPTION...]\n"
    "       llama generate DIR --tokens-out FILE.npy [--texts N] [--length N] [--temperature T] [--seed S] [OPTION...]\n"
    "       llama importance DIR --tokens FILE.npy -o FILE.safetensors [OPTION...]\n"
    "\n"
    "DIR holds config.json and model.safetensors, or its shards with model.safetensors.index.json; generate also reads\n"
    "vocab.json. Tensors are f32, f16, bf16, or what qem quantize has made of them.\n"
    "\n"
    "      --tokens FILE.npy   texts of tokens, one a row\n"
    "      --prompt TEXT       what the text begins with (default: nothing)\n"
    "      --length N          most tokens to generate (default 200)\n"
    "      --temperature T     0 takes the likeliest token (default), 1 draws from the model's distribution\n"
    "      --seed S            of the draws (default 0)\n"
    "      --tokens-out FILE   write texts of exactly N tokens, ends included, instead of printing one\n"
    "      --texts N           of them (default 16)\n"
    "  -o, --output FILE       the mean squared gradient of the log-probability of a token, by every weight\n"
    "      --draws N           labels drawn for each position (default 8); 0: the tokens that follow in the texts\n"
    "      --smoothing S       share of its matrix's mean that every element gets (default 0.1)\n"
    "      --weights FILE      this file instead of DIR's tensors\n"
    "      --dequantize        decode all weights first and multiply by dense matrices\n"
    "      --device NAME       cpu (default), or cuda: products with quantized matrices on a GPU\n"
    "      --rope PAIRS        interleaved or half (default: rope_interleaved of config.json, else half)\n"
    "      --kv-bits B         quantize keys and values with codes of B bits an element\n"
    "      --kv-method M       rtn, grid, nf, lloydmax (default), vq, pq, ...\n"
    "      --kv-dim S          elements of a sub-vector (default 1; vq, pq and others: 2)\n"
    "      --kv-block N        positions that are quantized together (default 64)\n"
    "      --threads N         default: all cores\n"
    "  -h, --help              this text\n";

typedef struct options {
    const char *command, *directory, *tokens, *tokens_out, *prompt, *weights, *rope, *device;
    uint32_t length, texts, threads;
    uint64_t seed;
    double temperature;
    bool dequantize;
    cache_options cache;
    importance_options importance;
} options;

static bool is_command(const options *o, const char *name)
{
    return strcmp(o->command, name) == 0;
}

/* ------------------------------------------------------------------------------------------------- options ------ */

static bool parse_number(const char *name, const char *text, double least, double most, double *value)
{
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(*value >= least && *value <= most))
        return fail("%s: '%s' is not a number from %g to %g", name, text, least, most);
    return true;
}

static bool parse_count(const char *name, const char *text, double least, uint32_t *value)
{
    double number;
    if (!parse_number(name, text, least, 1e9, &number)) return false;
    if (number != floor(number)) return fail("%s: '%s' is not a whole number", name, text);
    *value = (uint32_t)number;
    return true;
}

static bool parse_method(const char *text, qem_method *method)
{
    *method = qem_method_from_name(text);
    if (*method != QEM_METHOD_NONE && *method != QEM_METHOD_AUTO) return true;
    return fail("--kv-method: '%s' is not a method that can be used here", text);
}

/* 1 if the option was taken, 0 if there is none of that name, -1 on an error. */
static int parse_cache_option(const char *name, const char *value, cache_options *cache)
{
    bool done;
    if (strcmp(name, "--kv-bits") == 0)
        done = parse_number(name, value, 0.5, 16, &cache->bits);
    else if (strcmp(name, "--kv-method") == 0)
        done = parse_method(value, &cache->method);
    else if (strcmp(name, "--kv-dim") == 0)
        done = parse_count(name, value, 1, &cache->dim);
    else if (strcmp(name, "--kv-block") == 0)
        done = parse_count(name, value, 2, &cache->block);
    else
        return 0;
    return done ? 1 : -1;
}

static bool parse_option(const char *name, const char *value, options *o)
{
    const struct {
        const char *name;
        const char **text;
    } texts[] = {
        { "--tokens", &o->tokens }, { "--prompt", &o->prompt }, { "--weights", &o->weights }, { "--rope", &o->rope },
        { "--device", &o->device },
        { "--tokens-out", &o->tokens_out }, { "--output", &o->importance.out }, { "-o", &o->importance.out },
    };
    double seed;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return true;
        }
    if (strcmp(name, "--length") == 0) return parse_count(name, value, 1, &o->length);
    if (strcmp(name, "--texts") == 0) return parse_count(name, value, 1, &o->texts);
    if (strcmp(name, "--draws") == 0) return parse_count(name, value, 0, &o->importance.draws);
    if (strcmp(name, "--smoothing") == 0) return parse_number(name, value, 0, 1, &o->importance.smoothing);
    if (strcmp(name, "--threads") == 0) return parse_count(name, value, 1, &o->threads);
    if (strcmp(name, "--temperature") == 0) return parse_number(name, value, 0, 100, &o->temperature);
    if (strcmp(name, "--seed") == 0) {
        if (!parse_number(name, value, 0, 9e15, &seed)) return false;
        o->seed = (uint64_t)seed;
        return true;
    }
    int taken = parse_cache_option(name, value, &o->cache);
    return taken ? taken > 0 : fail("unknown option '%s'; llama --help tells all", name);
}

static bool check_options(options *o)
{
    if (!o->directory) return fail("the model's directory is missing; llama --help tells more");
    if (!is_command(o, "perplexity") && !is_command(o, "generate") && !is_command(o, "importance"))
        return fail("unknown command '%s'; llama --help", o->command);
    if (!is_command(o, "generate") && !o->tokens) return fail("%s: --tokens is missing", o->command);
    if (is_command(o, "importance") && !o->importance.out) return fail("importance: -o is missing");
    if (o->tokens_out && *o->prompt) return fail("--tokens-out: its texts have no --prompt");
    if (o->rope && strcmp(o->rope, "interleaved") != 0 && strcmp(o->rope, "half") != 0)
        return fail("--rope: '%s' is neither interleaved nor half", o->rope);
    if (o->device && strcmp(o->device, "cpu") != 0 && strcmp(o->device, "cuda") != 0)
        return fail("--device: '%s' is neither cpu nor cuda", o->device);
    const qem_method m = o->cache.method;
    const bool scalar = m == QEM_METHOD_RTN || m == QEM_METHOD_GRID || m == QEM_METHOD_NF || m == QEM_METHOD_LLOYDMAX;
    if (o->cache.dim == 0) o->cache.dim = scalar ? 1 : 2;
    if (o->cache.bits * o->cache.dim > 24) return fail("--kv-bits times --kv-dim is more than 24");
    return true;
}

static bool parse_options(int argc, char **argv, options *o)
{
    *o = (options){ .prompt = "", .length = 200, .texts = 16, .cache = { .method = QEM_METHOD_LLOYDMAX, .block = 64 },
                    .importance = { .draws = 8, .smoothing = 0.1 } };
    o->command = argv[1];
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--dequantize") == 0) {
            o->dequantize = true;
        } else if (argv[i][0] == '-') {
            if (i + 1 == argc) return fail("option '%s' has no value, or is unknown", argv[i]);
            if (!parse_option(argv[i], argv[i + 1], o)) return false;
            i++;
        } else if (o->directory) {
            return fail("'%s' is one argument too many", argv[i]);
        } else {
            o->directory = argv[i];
        }
    }
    return check_options(o);
}

/* ---------------------------------------------------------------------------------------------- perplexity ------ */

/* -log of the probability of `token`; NaN or infinite logits give NaN or infinity. */
static double surprise(const float *logits, uint32_t vocab, uint32_t token)
{
    double greatest = logits[0], sum = 0.0;
    for (uint32_t i = 1; i < vocab; i++) greatest = fmax(greatest, logits[i]);
    for (uint32_t i = 0; i < vocab; i++) sum += exp(logits[i] - greatest);
    return log(sum) + greatest - logits[token];
}

/* Adds what one text costs: every token but its first. */
static bool score_text(llama_model *model, llama_state *state, kv_cache *cache, const uint32_t *tokens, uint32_t count,
                       double *sum)
{
    cache_restart(cache);
    for (uint32_t at = 0; at + 1 < count;) {
        uint32_t step = cache_room(cache);
        if (step > count - 1 - at) step = count - 1 - at;
        if (!model_forward(model, state, cache, tokens + at, step)) return false;
        for (uint32_t n = 0; n < step; n++)
            *sum += surprise(state->logits + (size_t)n * model->config.vocab, model->config.vocab, tokens[at + n + 1]);
        at += step;
    }
    return true;
}

static bool score(llama_model *model, llama_state *state, kv_cache *cache, const token_rows *texts, double *nll)
{
    double sum = 0.0;
    for (uint64_t i = 0; i < texts->rows; i++)
        if (!score_text(model, state, cache, texts->tokens + i * texts->cols, (uint32_t)texts->cols, &sum)) return false;
    *nll = sum / ((double)texts->rows * (double)(texts->cols - 1));
    return isfinite(*nll) ? true : fail("the model's output is not finite; some weights may not be");
}

static void report_weights(const llama_model *model)
{
    printf("weights: %llu tensors dense", (unsigned long long)model->dense);
    if (model->quantized)
        printf(", %llu quantized: %llu bytes, %.4f bits an element", (unsigned long long)model->quantized,
               (unsigned long long)model->bytes, 8.0 * (double)model->bytes / (double)model->elements);
    if (model->decoded) printf(", %llu decoded", (unsigned long long)model->decoded);
    putchar('\n');
}

static void report_cache(const options *o, const kv_cache *cache, double exact, double nll)
{
    const double plain = 2.0 * cache->layers * cache->width * sizeof(float);
    if (cache->code_positions == 0) {
        printf("kv-cache: no block of %u positions was full, nothing was quantized\n", o->cache.block);
        return;
    }
    const double bytes = (double)cache->code_bytes / (double)cache->code_positions;
    printf("kv-cache: %s, %g bits, blocks of %u: ", qem_method_name(o->cache.method), o->cache.bits, o->cache.block);
    printf("%.1f bytes a token instead of %.0f (%.2f x smaller), and %llu bytes once\n", bytes, plain, plain / bytes,
           (unsigned long long)cache->fitted_bytes);
    printf("nll with exact cache: %.6f  change: %+.6f\n", exact, nll - exact);
}

static bool score_with(llama_model *model, llama_state *state, const options *o, bool quantize, const token_rows *texts,
                       double exact, double *nll)
{
    kv_cache cache;
    cache_options kind = o->cache;
    if (!quantize) kind.bits = 0.0;
    bool done = cache_create(model->engine.context, &model->config, &kind, (uint32_t)texts->cols, &cache) &&
                score(model, state, &cache, texts, nll);
    if (done && quantize == (o->cache.bits > 0.0)) {
        report_weights(model);
        printf("tokens: %llu predicted in %llu texts\n", (unsigned long long)(texts->rows * (texts->cols - 1)),
               (unsigned long long)texts->rows);
        printf("nll: %.6f  perplexity: %.5f\n", *nll, exp(*nll));
        if (quantize) report_cache(o, &cache, exact, *nll);
    }
    cache_free(&cache);
    return done;
}

static bool load_texts(const llama_config *config, const char *path, token_rows *texts)
{
    if (!tokens_load(path, config->vocab, texts)) return false;
    if (texts->cols >= 2 && texts->cols <= config->positions) return true;
    return fail("%s: texts of %llu tokens; they must have 2 to max_position_embeddings = %u", path,
                (unsigned long long)texts->cols, config->positions);
}

static bool perplexity(llama_model *model, const options *o)
{
    token_rows texts = { 0 };
    llama_state state = { 0 };
    double exact = 0.0, nll = 0.0;
    bool done = load_texts(&model->config, o->tokens, &texts) &&
                state_create(&model->config, (uint32_t)texts.cols, &state) &&
           score_with(model, &state, o, false, &texts, 0.0, &exact);
    if (done && o->cache.bits > 0.0) done = score_with(model, &state, o, true, &texts, exact, &nll);
    free(texts.tokens);
    state_free(&state);
    return done;
}

/* ------------------------------------------------------------------------------------------------ generate ------ */

static bool sample(const float *logits, uint32_t vocab, double temperature, uint64_t *seed, uint32_t *token)
{
    uint32_t best = 0;
    double sum = 0.0;
    for (uint32_t i = 0; i < vocab; i++) {
        if (!isfinite(logits[i])) return fail("the model's output is not finite; some weights may not be");
        if (logits[i] > logits[best]) best = i;
    }
    *token = best;
    if (temperature == 0.0) return true;
    for (uint32_t i = 0; i < vocab; i++) sum += exp((logits[i] - logits[best]) / temperature);
    double left = draw(seed) * sum;
    for (uint32_t i = 0; i < vocab; i++) {
        left -= exp((logits[i] - logits[best]) / temperature);
        if (left >= 0.0) continue;
        *token = i;
        return true;
    }
    return true; /* rounding ate the last share */
}

static bool is_end(const llama_config *config, uint32_t token)
{
    for (uint32_t i = 0; i < config->eos_count; i++)
        if (config->eos[i] == token) return true;
    return token == config->bos;
}

/* Prints a token; the first one loses the space that stands before every text. */
static void print_token(const vocabulary *words, uint32_t token, bool first)
{
    char buffer[1];
    size_t length;
    const char *text = vocabulary_decode(words, token, buffer, &length);
    const size_t skip = first && length > 0 && *text == ' ';
    if (length > skip) fwrite(text + skip, 1, length - skip, stdout);
    fflush(stdout);
}

/* Runs tokens[0 .. count-1] and leaves the logits behind the last one in *logits. */
static bool feed(llama_model *model, llama_state *state, kv_cache *cache, const uint32_t *tokens, uint32_t count,
                 const float **logits)
{
    for (uint32_t at = 0; at < count;) {
        uint32_t step = cache_room(cache);
        if (step > count - at) step = count - at;
        if (!model_forward(model, state, cache, tokens + at, step)) return false;
        *logits = state->logits + (size_t)(step - 1) * model->config.vocab;
        at += step;
    }
    return true;
}

static bool write_text(llama_model *model, llama_state *state, kv_cache *cache, const vocabulary *words,
                       const uint32_t *prompt, uint32_t count, const options *o)
{
    const float *logits = NULL;
    uint64_t seed = o->seed;
    uint32_t token;
    if (!feed(model, state, cache, &model->config.bos, 1, &logits) || !feed(model, state, cache, prompt, count, &logits))
        return false;
    for (uint32_t i = 0; i < count; i++) print_token(words, prompt[i], i == 0);
    for (uint32_t i = 0; i < o->length; i++) {
        if (!sample(logits, model->config.vocab, o->temperature, &seed, &token)) return false;
        if (is_end(&model->config, token)) break;
        print_token(words, token, count == 0 && i == 0);
        if (cache->length == cache->capacity) break; /* the context is full */
        if (!feed(model, state, cache, &token, 1, &logits)) return false;
    }
    putchar('\n');
    return true;
}

static bool generate(llama_model *model, const options *o)
{
    vocabulary words = { 0 };
    llama_state state = { 0 };
    kv_cache cache = { 0 };
    uint32_t *prompt = NULL, count = 0, capacity = model->config.positions;
    bool done = vocabulary_load(o->directory, model->config.vocab, &words);
    if (done && *o->prompt) done = vocabulary_encode(&words, o->prompt, model->config.positions - 1, &prompt, &count);
    if (o->length < capacity - 1 - count) capacity = 1 + count + o->length;
    done = done && state_create(&model->config, capacity, &state) &&
           cache_create(model->engine.context, &model->config, &o->cache, capacity, &cache) &&
           write_text(model, &state, &cache, &words, prompt, count, o);
    cache_free(&cache);
    state_free(&state);
    free(prompt);
    vocabulary_free(&words);
    return done;
}

/* Texts of o->length tokens that begin with the first one of all texts; what follows an end belongs to them too. */
static bool draw_texts(llama_model *model, llama_state *state, kv_cache *cache, const options *o, token_rows *texts)
{
    const float *logits = NULL;
    uint64_t seed = o->seed;
    for (uint64_t i = 0; i < texts->rows; i++) {
        uint32_t *text = texts->tokens + i * texts->cols;
        cache_restart(cache);
        text[0] = model->config.bos;
        for (uint64_t n = 1; n < texts->cols; n++)
            if (!feed(model, state, cache, text + n - 1, 1, &logits) ||
                !sample(logits, model->config.vocab, o->temperature, &seed, text + n))
                return false;
    }
    return tokens_save(o->tokens_out, texts);
}

static bool generate_texts(llama_model *model, const options *o)
{
    token_rows texts = { .rows = o->texts, .cols = o->length };
    llama_state state = { 0 };
    kv_cache cache = { 0 };
    if (o->length < 2 || o->length > model->config.positions)
        return fail("--length: texts of %u tokens; they must have 2 to max_position_embeddings = %u", o->length,
                    model->config.positions);
    texts.tokens = allocate(texts.rows * texts.cols, sizeof *texts.tokens);
    bool done = texts.tokens && state_create(&model->config, o->length, &state) &&
                cache_create(model->engine.context, &model->config, &o->cache, o->length, &cache) &&
                draw_texts(model, &state, &cache, o, &texts);
    cache_free(&cache);
    state_free(&state);
    free(texts.tokens);
    return done;
}

/* ---------------------------------------------------------------------------------------------- importance ------ */

static bool importance(llama_model *model, const options *o)
{
    token_rows texts = { 0 };
    importance_options with = o->importance;
    with.seed = o->seed;
    bool done = load_texts(&model->config, o->tokens, &texts) && importance_write(model, &texts, &with);
    free(texts.tokens);
    return done;
}

/* ---------------------------------------------------------------------------------------------------- main ------ */

static bool load(qem_context *context, const options *o, llama_model *model)
{
    model_files files = { 0 };
    llama_config config;
    bool done = config_load(o->directory, &config);
    if (done && o->rope) config.interleaved = strcmp(o->rope, "interleaved") == 0;
    const bool dense = o->dequantize || is_command(o, "importance");
    done = done && files_open(context, o->directory, o->weights, dense, &files) &&
           model_load(&files, &config, model);
    files_close(&files);
    return done;
}

static bool carry_out(llama_model *model, const options *o)
{
    if (is_command(o, "perplexity")) return perplexity(model, o);
    if (is_command(o, "importance")) return importance(model, o);
    return o->tokens_out ? generate_texts(model, o) : generate(model, o);
}

static bool run(const options *o)
{
    qem_context *context = NULL;
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    llama_model model = { 0 };
    params.threads = o->threads;
    qem_status status = qem_context_create(&params, &context);
    if (status != QEM_OK) return fail_library(NULL, status, "context");
    bool done = load(context, o, &model);
    if (done && o->device && strcmp(o->device, "cuda") == 0) done = model_to_device(&model);
    if (done) done = carry_out(&model, o);
    model_free(&model);
    qem_context_destroy(&context);
    return done;
}

int main(int argc, char **argv)
{
    options o;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return fputs(usage, stdout) < 0;
    if (argc < 2) return fputs(usage, stderr), 2;
    if (!parse_options(argc, argv, &o)) return 2;
    bool done = run(&o);
    if (fflush(stdout) != 0 || ferror(stdout)) done = fail("stdout: could not be written");
    return done ? 0 : 1;
}
