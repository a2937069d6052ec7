/* What nearly every command starts with: a context, and the list of what a file holds. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

const char *cli_isa_name(qem_isa isa)
{
    switch (isa) {
    case QEM_ISA_AUTO: return "auto";
    case QEM_ISA_SCALAR: return "scalar";
    case QEM_ISA_AVX2: return "avx2";
    case QEM_ISA_AVX512: return "avx512";
    }
    return "?";
}

const char *cli_device_name(qem_device device)
{
    return device == QEM_DEVICE_CUDA ? "cuda" : "cpu";
}

/* There is no context yet that could hold the library's text. */
static int start_error(const cli_options *options, qem_status status)
{
    if (status == QEM_ERR_NO_DEVICE) {
        return cli_fail("--device %s: %s (see qem device)", cli_device_name(options->device),
                        qem_status_string(status));
    }
    if (status == QEM_ERR_ISA) {
        return cli_fail("--isa %s: %s (see qem device)", cli_isa_name(options->isa), qem_status_string(status));
    }
    return cli_fail("cannot start: %s", qem_status_string(status));
}

int cli_start(const cli_options *options, qem_context **context)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;

    params.device = options->device;
    params.threads = options->threads;
    params.isa = options->isa;
    params.seed = options->seed;
    params.progress = cli_progress;
    qem_status status = qem_context_create(&params, context);
    return status == QEM_OK ? CLI_OK : start_error(options, status);
}

int cli_list(const qem_file *file, cli_listing *listing)
{
    uint32_t artifacts = qem_file_artifact_count(file), tensors = qem_file_tensor_count(file);

    listing->count = 0;
    listing->entries = calloc((size_t)artifacts + tensors + 1, sizeof(cli_entry));
    if (listing->entries == NULL) return cli_fail("out of memory");
    for (uint32_t i = 0; i < artifacts; i++) {
        cli_entry *entry = &listing->entries[listing->count++];
        entry->is_artifact = true;
        entry->name = qem_file_artifact_name(file, i);
    }
    for (uint32_t i = 0; i < tensors; i++) {
        qem_tensor_info info = QEM_TENSOR_INFO_INIT;
        if (qem_file_tensor(file, i, &info) != QEM_OK || info.of_artifact) continue;
        cli_entry *entry = &listing->entries[listing->count++];
        entry->name = info.name;
        entry->tensor = info;
    }
    return CLI_OK;
}

void cli_list_free(cli_listing *listing)
{
    free(listing->entries);
    listing->entries = NULL;
    listing->count = 0;
}

bool cli_is_matrix(const cli_entry *entry)
{
    if (entry->is_artifact || entry->tensor.rank != 2) return false;
    if (entry->tensor.shape[0] == 0 || entry->tensor.shape[1] == 0) return false;
    switch (entry->tensor.dtype) {
    case QEM_DTYPE_F32:
    case QEM_DTYPE_F16:
    case QEM_DTYPE_BF16:
    case QEM_DTYPE_F64: return true;
    default: return false;
    }
}
