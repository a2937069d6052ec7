/*
 * Single elements and whole matrices: scatter, gather, subtract; the bit stream of codes; weights of sub-vectors.
 */
#include "backend.cuh"

/* ---- outliers' elements ---- */

/* Bytes: 12 to 16 an element of the list, and a sector of 32 where it lies. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    scatter(float *x, const uint64_t *index, const float *value, uint64_t count)
{
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) x[index[i]] = value[i];
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    gather(const float *x, const uint64_t *index, uint64_t count, float *value)
{
    for (uint64_t i = qem_cuda_first(); i < count; i += qem_cuda_stride()) value[i] = __ldg(x + index[i]);
}

qem_status qem_cuda_scatter(qem_context *context, float *x, const uint64_t *index, const float *value, uint64_t count)
{
    qem_cuda_call call(context);
    uint64_t *indices;
    float *values;
    QEM_TRY(call.status);
    if (count == 0) return QEM_OK;
    QEM_TRY(call.put(index, count, &indices));
    QEM_TRY(call.put(value, count, &values));
    return call.launch(
        QEM_LAUNCH(scatter, call.blocks(count), QEM_CUDA_THREADS, 0, call.stream, x, indices, values, count));
}

qem_status qem_cuda_gather(qem_context *context, const float *x, const uint64_t *index, uint64_t count, float *value)
{
    qem_cuda_call call(context);
    uint64_t *indices;
    float *values;
    QEM_TRY(call.status);
    if (count == 0) return QEM_OK;
    QEM_TRY(call.put(index, count, &indices));
    QEM_TRY(call.take(count, &values));
    QEM_TRY(
        call.launch(QEM_LAUNCH(gather, call.blocks(count), QEM_CUDA_THREADS, 0, call.stream, x, indices, count, values)));
    return call.to_host(value, values, count * sizeof *value);
}

/* Bytes: 8 read and 4 written an element, the minimum; `quads` of them by 16 bytes at once. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    subtract(float *x, const float *y, uint64_t quads, uint64_t count)
{
    for (uint64_t i = qem_cuda_first(); i < quads; i += qem_cuda_stride()) {
        float4 a = ((const float4 *)x)[i];
        const float4 b = __ldg((const float4 *)y + i);
        a.x = a.x - b.x;
        a.y = a.y - b.y;
        a.z = a.z - b.z;
        a.w = a.w - b.w;
        ((float4 *)x)[i] = a;
    }
    for (uint64_t i = 4 * quads + qem_cuda_first(); i < count; i += qem_cuda_stride()) x[i] = x[i] - __ldg(y + i);
}

qem_status qem_cuda_subtract(qem_context *context, float *x, const float *y, uint64_t count)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    if (count == 0) return QEM_OK;
    const uint64_t quads = ((uintptr_t)x | (uintptr_t)y) % 16 ? 0 : count / 4;
    return call.launch(
        QEM_LAUNCH(subtract, call.blocks(quads ? quads : count), QEM_CUDA_THREADS, 0, call.stream, x, y, quads, count));
}

/* ---- bit streams ---- */

/* Word w of the stream: the codes that have a bit in it. */
static __device__ __forceinline__ uint32_t stream_word(const uint32_t *labels, uint64_t count, uint32_t bits, uint64_t w)
{
    const uint64_t first = 32 * w;
    uint64_t i = first / bits, word = 0;
    for (uint64_t bit = i * bits; i < count && bit < first + 32; i++, bit += bits) {
        const uint64_t label = __ldg(labels + i);
        word |= bit < first ? label >> (first - bit) : label << (bit - first);
    }
    return (uint32_t)word;
}

/* A thread makes a word of the stream. Bytes: 4 a label (those of neighbouring words come from L1) and bits / 8 written,
 * the minimum; the last bytes, which fill no word, are stored one by one. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    pack(const uint32_t *labels, uint64_t count, uint32_t bits, uint64_t bytes, uint8_t *stream)
{
    for (uint64_t w = qem_cuda_first(); 4 * w < bytes; w += qem_cuda_stride()) {
        const uint32_t word = stream_word(labels, count, bits, w);
        if (4 * w + 4 <= bytes) {
            ((uint32_t *)stream)[w] = word;
            continue;
        }
        for (uint32_t b = 0; 4 * w + b < bytes; b++) stream[4 * w + b] = (uint8_t)(word >> 8 * b);
    }
}

qem_status qem_cuda_pack(qem_context *context, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    if (bits == 0 || count == 0) return QEM_OK;
    const uint64_t bytes = (count * bits + 7) / 8;
    return call.launch(QEM_LAUNCH(pack, call.blocks((bytes + 3) / 4), QEM_CUDA_THREADS, 0, call.stream, labels, count, bits,
                                  bytes, stream));
}

/* ---- weights of sub-vectors ---- */

/* A thread makes the mean of a sub-vector, in order. Bytes: 4 an element and 4 a sub-vector, the minimum; the threads of a
 * warp read runs that follow each other, whose lines stay in L1 from one position to the next. */
static __global__ void __launch_bounds__(QEM_CUDA_THREADS) pool(qem_subvectors weights, float *pooled)
{
    const uint64_t count = weights.rows * weights.groups;
    for (uint64_t id = qem_cuda_first(); id < count; id += qem_cuda_stride()) {
        const uint64_t row = id / weights.groups, group = id - row * weights.groups;
        const float *w = weights.x + row * weights.cols + group * weights.dim;
        const uint32_t width = group + 1 == weights.groups ? weights.tail_dim : weights.dim;
        double sum = 0.0;
        for (uint32_t p = 0; p < width; p++) sum += (double)__ldg(w + p);
        pooled[id] = (float)(sum / (double)width);
    }
}

qem_status qem_cuda_pool_weights(qem_context *context, qem_subvectors weights, float *pooled)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    return call.launch(
        QEM_LAUNCH(pool, call.blocks(weights.rows * weights.groups), QEM_CUDA_THREADS, 0, call.stream, weights, pooled));
}
