/* Quantizes a matrix in memory, saves and loads it, and decodes some of its rows. */
#include <qem/qem.h>

#include <math.h>
#include <stdio.h>

enum { ROWS = 256, COLS = 64, SOME = 4 };

static float matrix[ROWS * COLS], decoded[SOME * COLS];

static int failed(const qem_context *context, const char *step, qem_status status)
{
    fprintf(stderr, "%s: %s (%s)\n", step, qem_status_string(status), context != NULL ? qem_last_error(context) : "");
    return 1;
}

static int quantize_and_save(qem_context *context, const char *path)
{
    qem_view view = QEM_VIEW_INIT; /* borrowed: the library reads the matrix where it lies */
    qem_recipe recipe = QEM_RECIPE_INIT;
    qem_artifact *artifact = NULL;

    view.data = matrix;
    view.rows = ROWS;
    view.cols = COLS;
    recipe.method = QEM_METHOD_PQ;
    recipe.ratio = 8; /* at most an eighth of the bytes of 32-bit floats, codebooks counted */
    qem_status status = qem_quantize(context, &view, "weights", &recipe, &artifact);
    if (status == QEM_OK) status = qem_save(context, artifact, path);
    qem_artifact_destroy(&artifact);
    return status == QEM_OK ? 0 : failed(context, "quantize", status);
}

static int load_and_decode(qem_context *context, const char *path)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_artifact *artifact = NULL;
    qem_status status = qem_load(context, path, &artifact);

    if (status == QEM_OK) status = qem_artifact_query(artifact, &info);
    if (status == QEM_OK) status = qem_dequantize(context, artifact, 0, SOME, QEM_DTYPE_F32, decoded, 0);
    if (status == QEM_OK) {
        printf("%s: %llu bytes, %.3f bits per element, MSE %.4g\n", info.name, (unsigned long long)info.stored_bytes,
               info.bits_per_element, info.metrics.mse);
        printf("first element %.4f, decoded %.4f\n", (double)matrix[0], (double)decoded[0]);
    }
    qem_artifact_destroy(&artifact);
    return status == QEM_OK ? 0 : failed(context, "decode", status);
}

int main(void)
{
    const char *path = "embed_cpu.safetensors";
    qem_context *context = NULL;
    qem_status status = qem_context_create(NULL, &context);
    int result;

    if (status != QEM_OK) return failed(NULL, "context", status);
    for (int i = 0; i < ROWS * COLS; i++) matrix[i] = sinf(0.37f * (float)i) + 0.1f * cosf(0.011f * (float)(i % 977));
    result = quantize_and_save(context, path);
    if (result == 0) result = load_and_decode(context, path);
    remove(path);
    qem_context_destroy(&context);
    return result;
}
