/*
 * Any bytes as a file: opened, listed, viewed, loaded and decoded. An error is fine, a read out of bounds is not.
 *
 * With libFuzzer (cmake -DQEM_FUZZ=ON, CC=clang):  bin/fuzz_file -max_len=4096 CORPUS
 * As an ordinary test (QEM_FUZZ_DRIVER):           fuzz_file_driver CORPUS
 *     every file of the folder as it is, cut short, and with bytes changed: the same every time.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qem/qem.h>

#include "io/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void touch(const void *data, uint64_t bytes)
{
    const uint8_t *byte = data;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum += byte[i];
    sink += sum;
}

static void touch_view(const qem_view *view)
{
    const uint64_t size = qem_dtype_size(view->dtype);
    const uint64_t row = view->row_pitch_bytes ? view->row_pitch_bytes
                                               : (view->row_stride ? view->row_stride : view->cols) * size;
    const uint64_t col = (view->col_stride ? view->col_stride : 1) * size;
    for (uint64_t i = 0; i < view->rows; i++)
        for (uint64_t j = 0; j < view->cols; j++) touch((const uint8_t *)view->data + i * row + j * col, size);
}

static void decode(qem_context *context, const qem_artifact *artifact)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    if (qem_artifact_query(artifact, &info) != QEM_OK) abort();
    /* One centroid needs no codes, so a few bytes may stand for any number of elements. */
    if (info.cols > 65536) return;
    uint64_t rows = info.rows < 16 ? info.rows : 16;
    float *out = malloc(rows * info.cols * sizeof(float));
    if (!out) return;
    if (qem_dequantize(context, artifact, 0, rows, QEM_DTYPE_F32, out, 0) != QEM_OK) abort();
    if (qem_dequantize(context, artifact, info.rows - rows, info.rows, QEM_DTYPE_F32, out, 0) != QEM_OK) abort();
    touch(out, rows * info.cols * sizeof(float));
    free(out);
}

static void use(qem_context *context, const qem_file *file)
{
    for (uint32_t i = 0; i < qem_file_tensor_count(file); i++) {
        qem_tensor_info info = QEM_TENSOR_INFO_INIT;
        qem_view view = QEM_VIEW_INIT;
        if (qem_file_tensor(file, i, &info) != QEM_OK) abort();
        if (info.data) touch(info.data, info.bytes);
        if (qem_file_view(context, file, info.name, &view) == QEM_OK) touch_view(&view);
    }
    qem_view only = QEM_VIEW_INIT;
    if (qem_file_view(context, file, NULL, &only) == QEM_OK) touch_view(&only);
    for (uint32_t i = 0; i < qem_file_artifact_count(file); i++) {
        qem_artifact *artifact = NULL;
        const char *name = qem_file_artifact_name(file, i);
        if (qem_file_load(context, file, name, &artifact) == QEM_OK) decode(context, artifact);
        qem_artifact_destroy(&artifact);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "fuzz.bin", "fuzz.fvecs", "fuzz.bvecs" };
    static qem_context *context;
    if (!context) {
        qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
        params.threads = 1;
        if (qem_context_create(&params, &context) != QEM_OK) abort();
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qem_file *file = NULL;
        if (qem_file_open_memory(context, names[i], data, size, &file) == QEM_OK) use(context, file);
        else if (!*qem_last_error(context)) abort();
        qem_file_close(&file);
    }
    return 0;
}

#ifdef QEM_FUZZ_DRIVER

/* A buffer of exactly the size, so that a sanitizer sees the first byte too far. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) abort();
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Cuts, single changed bytes, and several at once. */
static void run_mutations(uint8_t *data, size_t size)
{
    uint32_t state = 1;
    for (unsigned round = 0; round < 3000 && size > 0; round++) {
        uint8_t old[4];
        size_t place[4];
        unsigned changes = round % 4 + 1;
        for (unsigned c = 0; c < changes; c++) {
            place[c] = next(&state) % size;
            old[c] = data[place[c]];
            data[place[c]] = round % 3 ? (uint8_t)(old[c] ^ (1u << next(&state) % 8)) : (uint8_t)next(&state);
        }
        run(data, round % 5 ? size : next(&state) % size);
        while (changes-- > 0) data[place[changes]] = old[changes];
    }
}

static int run_file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file) return 0;
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    run(data, size);
    run_mutations(data, size);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: %s CORPUS\n", argv[0]), 2;
    DIR *folder = opendir(argv[1]);
    if (!folder) return fprintf(stderr, "%s: cannot be opened\n", argv[1]), 2;
    int files = 0;
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        char path[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        files += run_file(path);
    }
    closedir(folder);
    printf("%d files\n", files);
    return files > 0 ? 0 : 1;
}

#endif
