/*
 * Decoding for the backend: artifacts in host memory are uploaded once and decoded by the kernels of qem_cuda_dequantize;
 * stages that a fit has in device memory go to the kernel that decodes anything.
 */
#include "backend.cuh"

/* ---- artifacts ---- */

qem_status qem_cuda_open_artifact(qem_context *context, const qem_artifact *artifact, void **opened)
{
    qem_cuda_call call(context);
    qem_device_artifact *uploaded;
    *opened = nullptr;
    QEM_TRY(call.status);
    QEM_TRY(qem_artifact_upload(context, artifact, call.state->device, call.stream, &uploaded));
    *opened = uploaded;
    return QEM_OK;
}

qem_status qem_cuda_decode_artifact(qem_context *context, void *opened, uint64_t row_begin, uint64_t row_end,
                                    qem_dtype dtype, void *out, uint64_t row_stride, int *overflow)
{
    qem_cuda_call call(context);
    const qem_device_artifact *const artifact = (const qem_device_artifact *)opened;
    const uint64_t bytes = qem_cuda_dequantize_workspace_size(artifact, row_end - row_begin);
    uint32_t *flag, found;
    unsigned char *workspace = nullptr;
    QEM_TRY(call.status);
    QEM_TRY(call.take_zero(1, &flag));
    if (bytes) QEM_TRY(call.take(bytes, &workspace));
    QEM_TRY(qem_cuda_dequantize(context, artifact, row_begin, row_end, dtype, out, row_stride, flag, workspace, bytes,
                                call.stream));
    QEM_TRY(call.to_host(&found, flag, sizeof found));
    *overflow = found != 0;
    return QEM_OK;
}

void qem_cuda_close_artifact(qem_context *context, void *opened)
{
    qem_device_artifact *artifact = (qem_device_artifact *)opened;
    (void)context;
    qem_device_artifact_destroy(&artifact); /* waits for the work that reads it */
}

/* ---- stages ---- */

static uint64_t group_width(const qem_decode_stage &stage, uint64_t cols, uint64_t group)
{
    return group + 1 == stage.groups && cols % stage.dim ? cols % stage.dim : stage.dim;
}

/* Where the groups' codes and entries lie, for codes whose width differs by group. */
static qem_status put_groups(qem_cuda_call &call, const qem_decode_stage &stage, uint64_t cols, qem_cuda_stage *to)
{
    void *memory;
    qem_cuda_group *on_device;
    uint64_t bit = 0, entry = 0;
    QEM_TRY(qem_allocate(call.context, stage.groups, sizeof(qem_cuda_group), &memory));
    qem_cuda_group *const groups = (qem_cuda_group *)memory;
    for (uint64_t g = 0; g < stage.groups; g++) {
        groups[g].bit = bit;
        groups[g].entry = entry | (uint64_t)stage.group_bits[g] << 56;
        bit += stage.group_bits[g];
        entry += group_width(stage, cols, g) << stage.group_bits[g];
    }
    const qem_status status = call.put(groups, stage.groups, &on_device);
    to->group = on_device;
    to->row_bits = bit;
    qem_release(call.context, memory);
    return status;
}

static void set_steps(const qem_decode_stage &stage, uint64_t cols, qem_cuda_stage *to)
{
    to->step_count = stage.affine_count;
    for (uint32_t i = 0; i < stage.affine_count; i++) {
        const qem_decode_affine &step = stage.affine[i];
        to->step[i].scale = step.scale;
        to->step[i].mean = step.mean;
        to->step[i].axis = (uint32_t)step.axis;
        if (step.axis != QEM_AXIS_BLOCK) continue;
        to->step[i].block = (uint32_t)step.block;
        to->step[i].block_reciprocal = qem_cuda_reciprocal(step.block);
        to->step[i].units_per_row = (cols - 1) / step.block + 1;
    }
}

static qem_status set_stage(qem_cuda_call &call, const qem_decode_stage &stage, uint64_t cols, qem_cuda_stage *to)
{
    const int by_group = stage.kind == QEM_CODEBOOK_PER_GROUP;
    *to = qem_cuda_stage();
    if (stage.levels || stage.cells || (!by_group && stage.kind != QEM_CODEBOOK_SHARED))
        return qem_fail(call.context, QEM_ERR_UNSUPPORTED,
                        "a stage of this kind is decoded on a GPU as part of an artifact only");
    to->codes = (const uint32_t *)stage.codes;
    to->book = stage.codebook;
    to->row_begin = stage.row_begin;
    to->row_end = stage.row_end;
    to->row_bits = stage.groups * stage.code_bits;
    to->groups = stage.groups;
    to->group_stride = by_group ? stage.k * stage.dim : 0;
    to->dim_reciprocal = qem_cuda_reciprocal(stage.dim);
    to->dim = stage.dim;
    to->code_bits = stage.code_bits;
    set_steps(stage, cols, to);
    return stage.group_bits ? put_groups(call, stage, cols, to) : QEM_OK;
}

qem_status qem_cuda_decode(qem_context *context, const qem_decode_args *args)
{
    qem_cuda_call call(context);
    qem_cuda_stage stages[QEM_MOST_STAGES], *on_device;
    qem_cuda_rows rows = qem_cuda_rows();
    uint32_t found;
    QEM_TRY(call.status);
    if (args->stage_count > QEM_MOST_STAGES || args->outliers.count)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "outliers are decoded on a GPU as part of an artifact only");
    for (uint32_t i = 0; i < args->stage_count; i++) QEM_TRY(set_stage(call, args->stages[i], args->cols, &stages[i]));
    QEM_TRY(call.put(stages, args->stage_count, &on_device));
    QEM_TRY(call.take_zero(1, &rows.overflow));
    rows.cols = args->cols;
    rows.row_begin = args->row_begin;
    rows.rows = args->row_end - args->row_begin;
    rows.out = args->out;
    rows.row_stride = args->row_stride;
    rows.dtype = (uint32_t)args->dtype;
    if (rows.rows > 0) QEM_TRY(call.launch(qem_cuda_decode_any(on_device, 0, args->stage_count, 0, rows, call.stream)));
    QEM_TRY(call.to_host(&found, rows.overflow, sizeof found));
    *args->overflow = found != 0;
    return QEM_OK;
}
