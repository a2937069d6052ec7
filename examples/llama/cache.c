/*
 * Keys and values of earlier positions. Exact: one array a stream. Quantized: positions are put into blocks; the first
 * block that is ever full is quantized (qem_quantize, columns standardized), which fits scales and codebook; every later
 * one is encoded against them (qem_encode), also in later texts. The block that is not full yet stays exact.
 *
 * Quantized keys are those before the rotary embedding, and are turned after decoding: what a column holds then does not
 * depend on the position, so scales that fit the first block fit the later ones.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

bool cache_quantized(const kv_cache *cache)
{
    return cache->options.bits > 0.0;
}

static uint32_t finished(const kv_cache *cache)
{
    return cache_quantized(cache) ? cache->length / cache->options.block : 0;
}

static uint32_t exact_rows(const kv_cache *cache)
{
    return cache->length - finished(cache) * cache->options.block;
}

static bool create_streams(kv_cache *cache)
{
    const uint32_t block = cache->options.block;
    const size_t rows = cache_quantized(cache) && block < cache->capacity ? block : cache->capacity;
    cache->streams = allocate(2 * (size_t)cache->layers, sizeof *cache->streams);
    for (uint32_t i = 0; cache->streams && i < 2 * cache->layers; i++) {
        cache_stream *stream = &cache->streams[i];
        stream->rows = allocate(rows * cache->width, sizeof *stream->rows);
        stream->blocks = allocate(cache->capacity / block + 1, sizeof *stream->blocks);
        if (!stream->rows || !stream->blocks) return false;
    }
    for (int i = 0; i < 2 && cache_quantized(cache); i++) {
        cache->scratch[i] = allocate((size_t)cache->capacity * cache->width, sizeof *cache->scratch[i]);
        if (!cache->scratch[i]) return false;
    }
    return cache->streams != NULL;
}

bool cache_create(qem_context *context, const llama_config *config, const cache_options *options, uint32_t capacity,
                  kv_cache *cache)
{
    *cache = (kv_cache){ .context = context, .options = *options, .layers = config->layers, .capacity = capacity };
    cache->width = config->kv_heads * config->head_dim;
    return create_streams(cache);
}

void cache_restart(kv_cache *cache)
{
    for (uint32_t i = 0; cache->streams && i < 2 * cache->layers; i++)
        for (uint32_t b = 0; b < finished(cache); b++) qem_artifact_destroy(&cache->streams[i].blocks[b]);
    cache->length = 0;
}

void cache_free(kv_cache *cache)
{
    for (uint32_t i = 0; cache->streams && i < 2 * cache->layers; i++) {
        cache_stream *stream = &cache->streams[i];
        for (uint32_t b = 0; stream->blocks && b <= cache->capacity / cache->options.block; b++)
            qem_artifact_destroy(&stream->blocks[b]);
        qem_artifact_destroy(&stream->base);
        free(stream->blocks);
        free(stream->rows);
    }
    free(cache->streams);
    free(cache->scratch[0]);
    free(cache->scratch[1]);
    *cache = (kv_cache){ 0 };
}

uint32_t cache_room(const kv_cache *cache)
{
    uint32_t left = cache->capacity - cache->length;
    uint32_t block = cache_quantized(cache) ? cache->options.block - exact_rows(cache) : CHUNK;
    if (block > CHUNK) block = CHUNK;
    return left < block ? left : block;
}

void cache_put(kv_cache *cache, uint32_t stream, const float *rows, uint32_t count)
{
    memcpy(cache->streams[stream].rows + (size_t)exact_rows(cache) * cache->width, rows,
           (size_t)count * cache->width * sizeof *rows);
}

float *cache_rows(kv_cache *cache, uint32_t stream, uint32_t count)
{
    const cache_stream *source = &cache->streams[stream];
    const size_t block = (size_t)cache->options.block * cache->width;
    if (!cache_quantized(cache)) return source->rows;
    float *out = cache->scratch[stream % 2];
    for (uint32_t b = 0; b < finished(cache); b++) {
        qem_status status = qem_dequantize(cache->context, source->blocks[b], 0, cache->options.block, QEM_DTYPE_F32,
                                           out + b * block, 0);
        if (status != QEM_OK) {
            fail_library(cache->context, status, "KV cache");
            return NULL;
        }
    }
    memcpy(out + finished(cache) * block, source->rows, (size_t)(exact_rows(cache) + count) * cache->width * sizeof *out);
    return out;
}

/* Bytes that belong to the positions of a block; the rest of an artifact is the same in all blocks of a stream. */
static uint64_t bytes_of_rows(const qem_artifact_info *info)
{
    return info->parts.codes + info->parts.swap_map;
}

static qem_recipe recipe_of(const cache_options *options)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.method = options->method;
    recipe.k = (uint64_t)llround(exp2(options->bits * options->dim));
    recipe.dim = options->dim;
    recipe.standardize = QEM_STANDARDIZE_COLUMN;
    return recipe;
}

static qem_status fit(kv_cache *cache, cache_stream *stream, const qem_view *view, qem_artifact **block)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_recipe recipe = recipe_of(&cache->options);
    qem_status status = qem_quantize(cache->context, view, "kv", &recipe, &stream->base);
    if (status == QEM_OK) status = qem_artifact_query(stream->base, &info);
    if (status == QEM_OK) status = qem_encode(cache->context, stream->base, view, "kv", block);
    if (status == QEM_OK) cache->fitted_bytes += info.stored_bytes - bytes_of_rows(&info);
    return status;
}

static bool finish_block(kv_cache *cache, cache_stream *stream, uint32_t index)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_view view = QEM_VIEW_INIT;
    qem_artifact **block = &stream->blocks[index];
    view.data = stream->rows, view.rows = cache->options.block, view.cols = cache->width;
    qem_status status = stream->base ? qem_encode(cache->context, stream->base, &view, "kv", block) :
                                       fit(cache, stream, &view, block);
    if (status == QEM_OK) status = qem_artifact_query(*block, &info);
    if (status != QEM_OK) return fail_library(cache->context, status, "KV cache");
    cache->code_bytes += bytes_of_rows(&info);
    return true;
}

bool cache_advance(kv_cache *cache, uint32_t count)
{
    const uint32_t before = finished(cache);
    cache->length += count;
    if (finished(cache) == before) return true;
    for (uint32_t i = 0; i < 2 * cache->layers; i++)
        if (!finish_block(cache, &cache->streams[i], before)) return false;
    cache->code_positions += cache->options.block;
    return true;
}
