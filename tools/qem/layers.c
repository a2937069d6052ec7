/* Layers and stages of an artifact, as the metadata of its file list them. */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 100000000u /* safetensors allows no longer one */

/* The header of a .safetensors file, which the library has opened and checked before. NULL when it cannot be read. */
static json_t *read_header(const char *path)
{
    unsigned char start[8];
    uint64_t length = 0;
    json_t *header = NULL;
    FILE *file = fopen(path, "rb");

    if (file == NULL) return NULL;
    if (fread(start, 1, sizeof(start), file) == sizeof(start)) {
        for (int i = 7; i >= 0; i--) length = length << 8 | start[i];
        char *text = length <= HEADER_MAX ? malloc(length + 1) : NULL;
        if (text != NULL && fread(text, 1, length, file) == length) header = json_loadb(text, length, 0, NULL);
        free(text);
    }
    fclose(file);
    return header;
}

/* Format 1 lists no layers: each stage is one. */
static json_t *layers_of(const json_t *text)
{
    json_t *layers = json_object_get(text, "layers");

    if (layers != NULL) return json_incref(layers);
    layers = json_array();
    for (size_t i = 0; i < json_array_size(json_object_get(text, "stages")); i++) {
        json_array_append_new(layers, json_pack("{s:I,s:i}", "stage_first", (json_int_t)i, "stage_count", 1));
    }
    return layers;
}

json_t *cli_layers(const char *path, const char *artifact)
{
    json_t *header = read_header(path), *result = NULL;
    char key[300];

    snprintf(key, sizeof(key), "qem.artifact.%s", artifact);
    const char *text = json_string_value(json_object_get(json_object_get(header, "__metadata__"), key));
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    if (root != NULL) {
        result = json_object();
        json_object_set(result, "stages", json_object_get(root, "stages"));
        json_object_set_new(result, "layers", layers_of(root));
        if (json_object_get(root, "outliers") != NULL) json_object_set(result, "outliers", json_object_get(root, "outliers"));
    }
    json_decref(root);
    json_decref(header);
    return result;
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "?";
}

static void print_step(const json_t *step)
{
    json_int_t params = number(step, "params");
    bool scale = json_is_true(json_object_get(step, "scale")), mean = json_is_true(json_object_get(step, "mean"));

    printf("%s", word(step, "axis"));
    if (number(step, "block") > 0) printf(" %" JSON_INTEGER_FORMAT, number(step, "block"));
    printf(" %s%s%s %c%" JSON_INTEGER_FORMAT, scale ? "scale" : "", scale && mean ? "+" : "", mean ? "mean" : "",
           params >= 16 ? 'f' : 'u', params);
}

static void print_stage(size_t index, const json_t *stage)
{
    printf("  stage %zu  %s", index, word(stage, "kind"));
    if (json_object_get(stage, "table") != NULL) printf(" %s", word(stage, "table"));
    printf(": dim %" JSON_INTEGER_FORMAT ", k %" JSON_INTEGER_FORMAT, number(stage, "dim"), number(stage, "k"));
    if (json_is_true(json_object_get(stage, "group_bits"))) printf(", widths of each group");
    if (number(stage, "codebook_bits") > 0) printf(", codebook u%" JSON_INTEGER_FORMAT, number(stage, "codebook_bits"));
    if (number(stage, "levels") > 0) printf(", swap levels %" JSON_INTEGER_FORMAT, number(stage, "levels"));
    if (number(stage, "cells") > 0) printf(", rotations %" JSON_INTEGER_FORMAT, number(stage, "cells"));
    if (json_object_get(stage, "row_end") != NULL) {
        printf(", rows %" JSON_INTEGER_FORMAT ":%" JSON_INTEGER_FORMAT, number(stage, "row_begin"), number(stage, "row_end"));
    }
    putchar('\n');
}

void cli_print_layers(const json_t *listing)
{
    const json_t *layers = json_object_get(listing, "layers"), *stages = json_object_get(listing, "stages");

    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *layer = json_array_get(layers, i), *steps = json_object_get(layer, "steps");
        size_t first = (size_t)number(layer, "stage_first"), count = (size_t)number(layer, "stage_count");
        printf("  layer %zu  %zu stage%s", i, count, count == 1 ? "" : "s");
        for (size_t s = 0; s < json_array_size(steps); s++) {
            fputs(s == 0 ? ", steps: " : ", ", stdout);
            print_step(json_array_get(steps, s));
        }
        putchar('\n');
        for (size_t s = first; s < first + count && s < json_array_size(stages); s++) print_stage(s, json_array_get(stages, s));
    }
    const json_t *outliers = json_object_get(listing, "outliers");
    if (outliers != NULL) {
        printf("  outliers %" JSON_INTEGER_FORMAT " of type %s\n", number(outliers, "count"), word(outliers, "value_dtype"));
    }
}
