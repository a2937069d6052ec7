/* qem device: what this machine and this build can compute with. */
#include "cli.h"

static const qem_isa levels[] = { QEM_ISA_SCALAR, QEM_ISA_AVX2, QEM_ISA_AVX512 };

enum { LEVEL_COUNT = sizeof(levels) / sizeof(levels[0]) };

static int print_json(const qem_context_info *info)
{
    json_t *object = json_object(), *list = json_array();

    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (qem_isa_available(levels[i])) json_array_append_new(list, json_string(cli_isa_name(levels[i])));
    }
    json_object_set_new(object, "version", json_string(qem_version()));
    json_object_set_new(object, "device", json_string(cli_device_name(info->device)));
    json_object_set_new(object, "device_name", cli_json_text(info->device_name));
    json_object_set_new(object, "threads", json_integer(info->threads));
    json_object_set_new(object, "isa", json_string(cli_isa_name(info->isa)));
    json_object_set_new(object, "isa_levels", list);
    json_object_set_new(object, "gpus", json_array());
    return cli_json_print(object);
}

static void print_text(const qem_context_info *info)
{
    printf("cpu      %s\n", info->device_name);
    printf("threads  %u\n", info->threads);
    printf("isa     ");
    for (int i = 0; i < LEVEL_COUNT; i++) {
        if (!qem_isa_available(levels[i])) continue;
        printf(" %s%s", cli_isa_name(levels[i]), levels[i] == info->isa ? " (used)" : "");
    }
    printf("\ngpu      none: this build has no CUDA support\n");
}

int cli_device(cli_options *options)
{
    qem_context_info info = QEM_CONTEXT_INFO_INIT;
    qem_context *context = NULL;
    int result = cli_start(options, &context);

    if (result != CLI_OK) return result;
    qem_status status = qem_context_query(context, &info);
    if (status != QEM_OK) result = cli_library_error(context, status, NULL);
    else if (options->json) result = print_json(&info);
    else print_text(&info);
    qem_context_destroy(&context);
    return result;
}
