/* config.json: what of it the forward pass follows, and a clear no to what it does not know. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

/* A whole number from least to most; `missing` if the key is not there or null, which 0 forbids. */
static bool get_count(const json *document, const char *key, uint32_t missing, uint32_t least, uint32_t most,
                      uint32_t *value)
{
    const json_node *node = json_get(document, 0, key);
    if (!node || node->kind == JSON_NULL) {
        *value = missing;
        return missing ? true : fail("%s: '%s' is missing", document->path, key);
    }
    const double number = node->number;
    if (node->kind != JSON_NUMBER || !(number >= least && number <= most) || number != floor(number))
        return fail("%s: '%s' is not a whole number from %u to %u", document->path, key, least, most);
    *value = (uint32_t)number;
    return true;
}

static bool get_positive(const json *document, const char *key, double missing, double *value)
{
    const json_node *node = json_get(document, 0, key);
    *value = missing;
    if (!node || node->kind == JSON_NULL) return true;
    if (node->kind != JSON_NUMBER || !(node->number > 0.0 && node->number < 1e30))
        return fail("%s: '%s' is not a positive number", document->path, key);
    *value = node->number;
    return true;
}

static bool get_bool(const json *document, const char *key, bool *value)
{
    const json_node *node = json_get(document, 0, key);
    *value = node && node->kind == JSON_TRUE;
    if (!node || node->kind == JSON_NULL || node->kind == JSON_TRUE || node->kind == JSON_FALSE) return true;
    return fail("%s: '%s' is neither true nor false", document->path, key);
}

/* A key that must be missing, null or that text. */
static bool check_text(const json *document, const char *key, const char *only)
{
    const json_node *node = json_get(document, 0, key);
    if (!node || node->kind == JSON_NULL) return true;
    if (node->kind == JSON_ARRAY && node->count == 1) node++; /* architectures: a list of one */
    if (node->kind == JSON_STRING && strcmp(node->text, only) == 0) return true;
    return fail("%s: '%s' is '%s'; this program knows '%s' alone", document->path, key,
                node->kind == JSON_STRING ? node->text : "not a text", only);
}

/* What would change the forward pass in a way it does not follow. */
static bool check_known(const json *document)
{
    bool biased = false, mlp_biased = false;
    const json_node *scaling = json_get(document, 0, "rope_scaling");
    if (!check_text(document, "architectures", "LlamaForCausalLM") || !check_text(document, "model_type", "llama") ||
        !check_text(document, "hidden_act", "silu"))
        return false;
    if (!get_bool(document, "attention_bias", &biased) || !get_bool(document, "mlp_bias", &mlp_biased)) return false;
    if (biased || mlp_biased)
        return fail("%s: '%s' is true; biases are not supported", document->path, biased ? "attention_bias" : "mlp_bias");
    if (scaling && scaling->kind != JSON_NULL) return fail("%s: 'rope_scaling' is not supported", document->path);
    return true;
}

/* One number or a list of them. */
static bool get_eos(const json *document, llama_config *config)
{
    const json_node *node = json_get(document, 0, "eos_token_id");
    config->eos_count = 1;
    config->eos[0] = 2;
    if (!node || node->kind == JSON_NULL) return true;
    config->eos_count = node->kind == JSON_ARRAY ? node->count : 1;
    if (config->eos_count > MAX_EOS) return fail("%s: more than %d in 'eos_token_id'", document->path, MAX_EOS);
    if (node->kind == JSON_ARRAY) node++;
    for (uint32_t i = 0; i < config->eos_count; i++, node++) {
        if (node->kind != JSON_NUMBER || !(node->number >= 0 && node->number < 4294967296.0))
            return fail("%s: 'eos_token_id' is not a token", document->path);
        config->eos[i] = (uint32_t)node->number;
    }
    return true;
}

static bool get_heads(const json *document, llama_config *config)
{
    if (!get_count(document, "num_attention_heads", 0, 1, 1 << 16, &config->heads)) return false;
    if (!get_count(document, "num_key_value_heads", config->heads, 1, 1 << 16, &config->kv_heads)) return false;
    if (config->heads % config->kv_heads != 0)
        return fail("%s: 'num_attention_heads' %u is no multiple of 'num_key_value_heads' %u", document->path,
                    config->heads, config->kv_heads);
    uint32_t even_share = config->hidden % config->heads == 0 ? config->hidden / config->heads : 0;
    if (!get_count(document, "head_dim", even_share, 2, 1 << 16, &config->head_dim)) return false;
    if (config->head_dim % 2 != 0 || (uint64_t)config->head_dim * config->heads > 1 << 20)
        return fail("%s: %u heads of %u columns: 'head_dim' must be even, and all heads at most 2^20 columns",
                    document->path, config->heads, config->head_dim);
    return true;
}

static bool read_config(const json *document, llama_config *config)
{
    double epsilon;
    if (document->nodes[0].kind != JSON_OBJECT) return fail("%s: is not a JSON object", document->path);
    if (!check_known(document)) return false;
    if (!get_count(document, "hidden_size", 0, 1, 1 << 20, &config->hidden) ||
        !get_count(document, "intermediate_size", 0, 1, 1 << 20, &config->inner) ||
        !get_count(document, "num_hidden_layers", 0, 1, 1024, &config->layers) ||
        !get_count(document, "vocab_size", 0, 1, 1 << 22, &config->vocab) ||
        !get_count(document, "max_position_embeddings", 2048, 1, 1 << 22, &config->positions) ||
        !get_count(document, "bos_token_id", 1, 0, UINT32_MAX, &config->bos) || !get_heads(document, config))
        return false;
    if (config->bos >= config->vocab)
        return fail("%s: 'bos_token_id' %u is beyond the vocabulary", document->path, config->bos);
    if (!get_positive(document, "rms_norm_eps", 1e-6, &epsilon) ||
        !get_positive(document, "rope_theta", 10000.0, &config->rope_theta))
        return false;
    config->epsilon = (float)epsilon;
    return get_bool(document, "tie_word_embeddings", &config->tied) &&
           get_bool(document, "rope_interleaved", &config->interleaved) && get_eos(document, config);
}

bool config_load(const char *directory, llama_config *config)
{
    json document = { 0 };
    char *path = join_path(directory, "config.json");
    *config = (llama_config){ 0 };
    bool done = path && json_load(path, &document) && read_config(&document, config);
    json_free(&document);
    free(path);
    return done;
}
