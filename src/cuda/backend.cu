/* The table of primitives, the state of a context on a GPU, and memory. */
#include "backend.cuh"

#include <stdio.h>
#include <string.h>

#define LEAST_BLOCK ((uint64_t)1 << 17)
#define MOST_KEPT   ((uint64_t)64 << 20) /* bytes of scratch that a context keeps between calls */

/* ---- the table ---- */

static constexpr qem_backend make_table()
{
    qem_backend b = {};
    b.name = "cuda";
    b.alloc = qem_cuda_alloc;
    b.release = qem_cuda_release;
    b.to_device = qem_cuda_to_device;
    b.to_host = qem_cuda_to_host;
    b.copy = qem_cuda_copy;
    b.zero = qem_cuda_zero;
    b.load = qem_cuda_load;
    b.extremes = qem_cuda_extremes;
    b.mean = qem_cuda_mean;
    b.scalar_histogram = qem_cuda_scalar_histogram;
    b.scalar_step = qem_cuda_scalar_step;
    b.scalar_weighted_histogram = qem_cuda_scalar_weighted_histogram;
    b.scalar_weighted_step = qem_cuda_scalar_weighted_step;
    b.weighted_moments = qem_cuda_weighted_moments;
    b.scalar_assign = qem_cuda_scalar_assign;
    b.quantiles = qem_cuda_quantiles;
    b.cell_ids = qem_cuda_cell_ids;
    b.group_by_key = qem_cuda_group_by_key;
    b.count_distinct = qem_cuda_count_distinct;
    b.distinct_values = qem_cuda_distinct_values;
    b.kmeans = qem_cuda_kmeans;
    b.assign = qem_cuda_assign;
    b.refine = qem_cuda_refine;
    b.swap_forward = qem_cuda_swap_forward;
    b.swap_inverse = qem_cuda_swap_inverse;
    b.swap_by_map = qem_cuda_swap_by_map;
    b.unit_stats = qem_cuda_unit_stats;
    b.standardized_stats = qem_cuda_standardized_stats;
    b.standardize = qem_cuda_standardize;
    b.element_weights = qem_cuda_element_weights;
    b.search_block_scales = qem_cuda_search_block_scales;
    b.pool_weights = qem_cuda_pool_weights;
    b.fit_block_scales = qem_cuda_fit_block_scales;
    b.select_outliers = qem_cuda_select_outliers;
    b.scatter = qem_cuda_scatter;
    b.gather = qem_cuda_gather;
    b.subtract = qem_cuda_subtract;
    b.rotate = qem_cuda_rotate;
    b.cross_product = qem_cuda_cross_product;
    b.pack = qem_cuda_pack;
    b.decode = qem_cuda_decode;
    b.open_artifact = qem_cuda_open_artifact;
    b.decode_artifact = qem_cuda_decode_artifact;
    b.close_artifact = qem_cuda_close_artifact;
    b.error_sums = qem_cuda_error_sums;
    b.sum = qem_cuda_sum;
    return b; /* without products on codes: matmul stays NULL */
}

extern "C" const qem_backend qem_cuda_backend = make_table();

/* ---- contexts ---- */

static qem_status attributes(qem_context *context, qem_cuda_state *state)
{
    const struct {
        cudaDeviceAttr attribute;
        uint32_t *to;
    } wanted[] = { { cudaDevAttrMultiProcessorCount, &state->processors },
                   { cudaDevAttrMaxThreadsPerMultiProcessor, &state->threads_per_processor },
                   { cudaDevAttrMaxSharedMemoryPerBlockOptin, &state->most_shared } };
    for (uint32_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        int value = 0;
        QEM_CUDA_TRY(context, cudaDeviceGetAttribute(&value, wanted[i].attribute, state->device), "attributes of the GPU");
        *wanted[i].to = value > 0 ? (uint32_t)value : 1;
    }
    return QEM_OK;
}

static qem_status begin(qem_context *context, qem_cuda_state *state)
{
    QEM_TRY(attributes(context, state));
    QEM_CUDA_TRY(context, cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking), "a stream of the GPU");
    return QEM_OK;
}

extern "C" qem_status qem_cuda_context_begin(qem_context *context, int device)
{
    int before;
    void *memory;
    QEM_TRY(qem_cuda_enter(context, device, &before));
    qem_status status = qem_allocate_zero(context, 1, sizeof(qem_cuda_state), &memory);
    if (status == QEM_OK) {
        qem_cuda_state *const state = (qem_cuda_state *)memory;
        state->device = device;
        status = begin(context, state);
        if (status != QEM_OK) qem_release(context, state);
    }
    if (status == QEM_OK) {
        context->device_state = memory;
        context->backend = &qem_cuda_backend;
    }
    qem_cuda_leave(device, before);
    return status;
}

extern "C" void qem_cuda_context_end(qem_context *context)
{
    qem_cuda_state *const state = (qem_cuda_state *)context->device_state;
    int before;
    if (!state) return;
    if (qem_cuda_enter(context, state->device, &before) == QEM_OK) { /* else the driver has ended, and freed all */
        for (uint32_t i = 0; i < state->block_count; i++) (void)cudaFree(state->block[i].memory);
        (void)cudaStreamDestroy(state->stream);
        qem_cuda_leave(state->device, before);
    }
    qem_release(context, state);
    context->device_state = nullptr;
}

extern "C" void qem_cuda_context_name(const qem_context *context, char *name, size_t size)
{
    const qem_cuda_state *const state = (const qem_cuda_state *)context->device_state;
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, state->device) == cudaSuccess)
        snprintf(name, size, "%s", properties.name);
    else
        snprintf(name, size, "unknown GPU");
}

/* ---- a call ---- */

qem_cuda_call::qem_cuda_call(qem_context *c)
    : context(c), state((qem_cuda_state *)c->device_state), stream(state->stream), device_before_(state->device),
      count_before_(state->block_count)
{
    used_before_ = count_before_ ? state->block[count_before_ - 1].used : 0;
    status = qem_cuda_enter(c, state->device, &device_before_);
    if (status == QEM_OK) state->depth++;
}

static void free_blocks(qem_cuda_state *state, uint32_t down_to)
{
    while (state->block_count > down_to) (void)cudaFree(state->block[--state->block_count].memory);
}

/* Ends the blocks that were made since. The outermost call keeps one, if that was enough, or lets the next one make one
 * that is. */
qem_cuda_call::~qem_cuda_call()
{
    uint64_t bytes = 0;
    if (status != QEM_OK) return;
    for (uint32_t i = 0; i < state->block_count; i++) bytes += state->block[i].bytes;
    if (--state->depth > 0) {
        free_blocks(state, count_before_);
        if (count_before_) state->block[count_before_ - 1].used = used_before_;
    } else if (state->block_count > 1 || bytes > MOST_KEPT) {
        free_blocks(state, 0);
        state->wanted = bytes < MOST_KEPT ? bytes : MOST_KEPT;
    } else if (state->block_count) {
        state->block[0].used = 0;
    }
    qem_cuda_leave(state->device, device_before_);
}

static qem_status add_block(qem_context *context, qem_cuda_state *state, uint64_t bytes)
{
    qem_cuda_block block = { nullptr, bytes, 0 };
    void *memory;
    if (state->block_count == QEM_CUDA_MOST_BLOCKS)
        return qem_fail(context, QEM_ERR_INTERNAL, "too many blocks of scratch");
    const uint64_t least = state->block_count ? 2 * state->block[state->block_count - 1].bytes : state->wanted;
    if (block.bytes < LEAST_BLOCK) block.bytes = LEAST_BLOCK;
    if (block.bytes < least) block.bytes = least < MOST_KEPT ? least : MOST_KEPT;
    if (block.bytes < bytes) block.bytes = bytes;
    QEM_CUDA_TRY(context, cudaMalloc(&memory, block.bytes), "scratch on the GPU");
    block.memory = (unsigned char *)memory;
    state->block[state->block_count++] = block;
    return QEM_OK;
}

qem_status qem_cuda_call::take_bytes(uint64_t count, uint64_t size, void **memory)
{
    *memory = nullptr;
    if (count > (UINT64_MAX / 4) / size)
        return qem_fail(context, QEM_ERR_MEMORY, "%llu x %llu bytes of scratch do not fit on the GPU",
                        (unsigned long long)count, (unsigned long long)size);
    const uint64_t asked = count > 0 && size > 0 ? count * size : 1;
    const uint64_t bytes = (asked + QEM_CUDA_ALIGNMENT - 1) / QEM_CUDA_ALIGNMENT * QEM_CUDA_ALIGNMENT;
    const qem_cuda_block *last = state->block_count ? &state->block[state->block_count - 1] : nullptr;
    if (!last || last->bytes - last->used < bytes) QEM_TRY(add_block(context, state, bytes));
    qem_cuda_block *const from = &state->block[state->block_count - 1];
    *memory = from->memory + from->used;
    from->used += bytes;
    return QEM_OK;
}

qem_status qem_cuda_call::launch(cudaError_t error)
{
    QEM_CUDA_TRY(context, error, "a kernel could not be launched");
    return QEM_OK;
}

uint32_t qem_cuda_call::blocks(uint64_t items, uint64_t per_block) const
{
    const uint64_t at_once = (uint64_t)state->processors * (state->threads_per_processor / QEM_CUDA_THREADS + 1);
    const uint64_t needed = items ? (items - 1) / per_block + 1 : 1;
    return (uint32_t)(needed < at_once ? needed : at_once);
}

/* Pageable host memory is read before the call of the runtime returns, so that the caller may change it then; pinned
 * memory, as the context's allocator may give it, is read later. */
qem_status qem_cuda_call::to_device(void *device, const void *host, uint64_t bytes)
{
    cudaPointerAttributes attributes;
    if (bytes == 0) return QEM_OK;
    QEM_CUDA_TRY(context, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "copying to the GPU");
    QEM_CUDA_TRY(context, cudaPointerGetAttributes(&attributes, host), "copying to the GPU");
    return attributes.type == cudaMemoryTypeUnregistered ? QEM_OK : wait();
}

qem_status qem_cuda_call::to_host(void *host, const void *device, uint64_t bytes)
{
    if (bytes)
        QEM_CUDA_TRY(context, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "copying from the GPU");
    return wait();
}

qem_status qem_cuda_call::copy(void *device, const void *other_device, uint64_t bytes)
{
    if (bytes)
        QEM_CUDA_TRY(context, cudaMemcpyAsync(device, other_device, bytes, cudaMemcpyDeviceToDevice, stream),
                     "copying on the GPU");
    return QEM_OK;
}

qem_status qem_cuda_call::zero(void *device, uint64_t bytes)
{
    if (bytes) QEM_CUDA_TRY(context, cudaMemsetAsync(device, 0, bytes, stream), "clearing memory of the GPU");
    return QEM_OK;
}

qem_status qem_cuda_call::wait()
{
    QEM_CUDA_TRY(context, cudaStreamSynchronize(stream), "waiting for the GPU");
    return QEM_OK;
}

/* ---- memory ---- */

qem_status qem_cuda_alloc(qem_context *context, uint64_t count, uint64_t size, void **device)
{
    qem_cuda_call call(context);
    *device = nullptr;
    QEM_TRY(call.status);
    if (size != 0 && count > (UINT64_MAX / 4) / size)
        return qem_fail(context, QEM_ERR_MEMORY, "%llu x %llu bytes do not fit on the GPU", (unsigned long long)count,
                        (unsigned long long)size);
    const cudaError_t error = cudaMalloc(device, count > 0 && size > 0 ? count * size : 1);
    if (error == cudaSuccess) return QEM_OK;
    *device = nullptr;
    char what[96];
    snprintf(what, sizeof what, "%llu bytes of device memory", (unsigned long long)(count * size));
    return qem_cuda_fail(context, error, what);
}

/* cudaFree waits for the work that may still use the memory. */
void qem_cuda_release(qem_context *context, void *device)
{
    if (!device) return;
    qem_cuda_call call(context);
    if (call.status == QEM_OK) (void)cudaFree(device);
}

qem_status qem_cuda_to_device(qem_context *context, void *device, const void *host, uint64_t bytes)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    return call.to_device(device, host, bytes);
}

qem_status qem_cuda_to_host(qem_context *context, void *host, const void *device, uint64_t bytes)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    return call.to_host(host, device, bytes);
}

qem_status qem_cuda_copy(qem_context *context, void *device, const void *other_device, uint64_t bytes)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    return call.copy(device, other_device, bytes);
}

qem_status qem_cuda_zero(qem_context *context, void *device, uint64_t bytes)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    return call.zero(device, bytes);
}
