/* qem device: what this machine and this build can compute with. */
#include "cli.h"

static const qem_isa levels[] = { QEM_ISA_SCALAR, QEM_ISA_AVX2, QEM_ISA_AVX512 };

enum { LEVEL_COUNT = sizeof(levels) / sizeof(levels[0]) };

/* The GPU that --device cuda takes: its name, or why there is none. */
static qem_status find_gpu(qem_context_info *gpu)
{
    qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
    qem_context *context = NULL;

    params.device = QEM_DEVICE_CUDA;
    qem_status status = qem_context_create(&params, &context);
    if (status == QEM_OK) status = qem_context_query(context, gpu);
    qem_context_destroy(&context);
    return status;
}

static int print_json(const qem_context_info *info, const qem_context_info *gpu)
{
    json_t *object = json_object(), *list = json_array(), *gpus = json_array();

    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (qem_isa_available(levels[i])) json_array_append_new(list, json_string(cli_isa_name(levels[i])));
    }
    json_object_set_new(object, "version", json_string(qem_version()));
    json_object_set_new(object, "device", json_string(cli_device_name(info->device)));
    json_object_set_new(object, "device_name", cli_json_text(info->device_name));
    json_object_set_new(object, "threads", json_integer(info->threads));
    json_object_set_new(object, "isa", json_string(cli_isa_name(info->isa)));
    json_object_set_new(object, "isa_levels", list);
    if (gpu) json_array_append_new(gpus, cli_json_text(gpu->device_name));
    json_object_set_new(object, "gpus", gpus);
    return cli_json_print(object);
}

static void print_text(const qem_context_info *info, const qem_context_info *gpu, qem_status status)
{
    if (info->device == QEM_DEVICE_CPU) printf("cpu      %s\n", info->device_name);
    printf("threads  %u\n", info->threads);
    printf("isa     ");
    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (!qem_isa_available(levels[i])) continue;
        printf(" %s%s", cli_isa_name(levels[i]), levels[i] == info->isa ? " (used)" : "");
    }
    if (gpu) printf("\ngpu      %s\n", gpu->device_name);
    else printf("\ngpu      none: %s\n", qem_status_string(status));
}

int cli_device(cli_options *options)
{
    qem_context_info info = QEM_CONTEXT_INFO_INIT, gpu = QEM_CONTEXT_INFO_INIT;
    qem_context *context = NULL;
    int result = cli_start(options, &context);

    if (result != CLI_OK) return result;
    qem_status status = qem_context_query(context, &info);
    if (status != QEM_OK) result = cli_library_error(context, status, NULL);
    else {
        const qem_status found = find_gpu(&gpu);
        if (options->json) result = print_json(&info, found == QEM_OK ? &gpu : NULL);
        else print_text(&info, found == QEM_OK ? &gpu : NULL, found);
    }
    qem_context_destroy(&context);
    return result;
}
