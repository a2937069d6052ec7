/* An output .safetensors file in the making, and the memory that must live until it is written. */
#include "cli.h"

#include <stdlib.h>

int cli_bundle_open(qem_context *context, const char *path, bool spool, cli_bundle *bundle)
{
    *bundle = (cli_bundle){ .spooled = spool };
    qem_status status = qem_writer_create(context, path, &bundle->writer);
    if (status == QEM_OK && spool) status = qem_writer_spool(context, bundle->writer);
    return status == QEM_OK ? CLI_OK : cli_library_error(context, status, path);
}

/* Room for one more of each kind. */
static bool reserve(cli_bundle *bundle)
{
    if (bundle->count < bundle->capacity) return true;
    uint32_t capacity = bundle->capacity == 0 ? 16 : 2 * bundle->capacity;
    qem_artifact **artifacts = realloc(bundle->artifacts, capacity * sizeof(*artifacts));
    if (artifacts != NULL) bundle->artifacts = artifacts;
    void **buffers = realloc(bundle->buffers, capacity * sizeof(*buffers));
    if (buffers != NULL) bundle->buffers = buffers;
    if (artifacts == NULL || buffers == NULL) return false;
    bundle->capacity = capacity;
    return true;
}

static int keep(cli_bundle *bundle, qem_artifact *artifact, void *buffer)
{
    if (!reserve(bundle)) {
        qem_artifact_destroy(&artifact);
        free(buffer);
        return cli_fail("out of memory");
    }
    bundle->artifacts[bundle->count] = artifact;
    bundle->buffers[bundle->count++] = buffer;
    return CLI_OK;
}

int cli_bundle_artifact(qem_context *context, cli_bundle *bundle, qem_artifact *artifact)
{
    int result = bundle->spooled ? CLI_OK : keep(bundle, artifact, NULL);

    if (result != CLI_OK) return result;
    qem_status status = qem_writer_add_artifact(context, bundle->writer, artifact);
    if (bundle->spooled) qem_artifact_destroy(&artifact);
    return status == QEM_OK ? CLI_OK : cli_library_error(context, status, NULL);
}

int cli_bundle_tensor(qem_context *context, cli_bundle *bundle, const qem_tensor_info *tensor, void *buffer)
{
    int result = buffer == NULL || bundle->spooled ? CLI_OK : keep(bundle, NULL, buffer);

    if (result != CLI_OK) return result;
    qem_status status = qem_writer_add_tensor(context, bundle->writer, tensor);
    if (bundle->spooled) free(buffer);
    return status == QEM_OK ? CLI_OK : cli_library_error(context, status, NULL);
}

int cli_bundle_entry(qem_context *context, cli_bundle *bundle, const qem_file *file, const cli_entry *entry)
{
    qem_artifact *artifact = NULL;

    if (!entry->is_artifact) return cli_bundle_tensor(context, bundle, &entry->tensor, NULL);
    qem_status status = qem_file_load(context, file, entry->name, &artifact);
    if (status != QEM_OK) return cli_library_error(context, status, entry->name);
    return cli_bundle_artifact(context, bundle, artifact);
}

int cli_bundle_commit(qem_context *context, cli_bundle *bundle)
{
    qem_status status = qem_writer_commit(context, &bundle->writer);

    return status == QEM_OK ? CLI_OK : cli_library_error(context, status, NULL);
}

void cli_bundle_free(cli_bundle *bundle)
{
    if (bundle->writer != NULL) qem_writer_abort(&bundle->writer);
    for (uint32_t i = 0; i < bundle->count; i++) {
        qem_artifact_destroy(&bundle->artifacts[i]);
        free(bundle->buffers[i]);
    }
    free(bundle->artifacts);
    free(bundle->buffers);
    *bundle = (cli_bundle){ 0 };
}
