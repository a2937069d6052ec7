/*
 * Codes of sub-vectors with a shared codebook, and the steps of their layer.
 *
 * Bytes an element: code_bits / (8 * dim) and 2 or 4, which is the least; entries, f32 until the steps are done, and the
 * units' parameters come through L1. The codes of a tile are staged in shared memory.
 */
#include "steps.cuh"

/* An entry makes 1 / CODES of a chunk, or 1 << parts_shift chunks (CODES is 1 then). */
struct entries {
    const float *book;
    uint32_t bits, mask, parts_shift;
    uint32_t dim;
    uint32_t vectors; /* of codes that are staged for a tile */
};

/* COUNT (2, 4, 8) floats, aligned to 16 bytes or to their size. */
template <int COUNT> __device__ __forceinline__ void load_floats(const float *from, float *x)
{
    if (COUNT == 2) {
        const float2 v = __ldg((const float2 *)from);
        x[0] = v.x, x[1] = v.y;
    } else {
#pragma unroll
        for (int q = 0; q < COUNT / 4; q++) {
            const float4 v = __ldg((const float4 *)from + q);
            x[4 * q] = v.x, x[4 * q + 1] = v.y, x[4 * q + 2] = v.z, x[4 * q + 3] = v.w;
        }
    }
}

template <qem_dtype TYPE, int CODES, steps_way WAY>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS)
    stepped(qem_cuda_codes from, entries in, chunk_steps steps, qem_cuda_chunks to)
{
    constexpr int elements = chunk_type<TYPE>::elements, count = elements / CODES;
    QEM_DYNAMIC_SHARED(uint4, staged);
    for (uint64_t tile = blockIdx.x; tile * QEM_STEPS_TILE < to.count; tile += gridDim.x) {
        __syncthreads();
        for (uint32_t v = threadIdx.x; v < in.vectors; v += QEM_CHUNK_THREADS) staged[v] = qem_load_codes(from, tile, v);
        __syncthreads();
        make_tile<TYPE, WAY, false>(
            steps, to, tile * QEM_STEPS_TILE, [](size_t) { return 0u; },
            [&](uint32_t local, uint32_t, float(&x)[elements]) {
                const uint32_t part = local & ((1u << in.parts_shift) - 1u);
                const uint32_t begin = from.phase + (local >> in.parts_shift) * CODES * in.bits;
#pragma unroll
                for (int i = 0; i < CODES; i++) {
                    const uint32_t code = qem_staged_code((const uint32_t *)staged, begin + (uint32_t)i * in.bits, in.mask);
                    load_floats<count>(in.book + (size_t)code * in.dim + part * elements, x + i * count);
                }
            });
    }
}

int qem_cuda_takes_stepped(const qem_cuda_host_stage &stage, uint32_t elements)
{
    const qem_cuda_stage &d = stage.on_device;
    uint32_t parts_shift;
    if (d.dim < 2 || d.group_stride || d.group) return 0;
    return qem_cuda_codes_of_chunk(d.dim, elements, &parts_shift) && takes_steps(d, elements);
}

template <qem_dtype TYPE, int CODES>
static cudaError_t launch(const qem_cuda_host_stage &stage, uint64_t row, uint32_t parts_shift, const qem_cuda_chunks &to,
                          const qem_cuda_grid &grid, cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const uint32_t tile_bits = (QEM_STEPS_TILE >> parts_shift) * CODES * d.code_bits;
    const qem_cuda_codes from = qem_cuda_codes_from(d, row - d.row_begin, tile_bits);
    /* the last code may be read with the word after it */
    const entries in = { d.book,      d.code_bits, (1u << d.code_bits) - 1u,
                         parts_shift, d.dim,       (from.phase + tile_bits + 32 + 127) / 128 };
    const uint32_t blocks = qem_cuda_persistent(grid, (to.count - 1) / QEM_STEPS_TILE + 1);
    const chunk_steps steps = steps_of(d, row, chunk_type<TYPE>::elements, to.per_row);
    void (*kernel)(qem_cuda_codes, entries, chunk_steps, qem_cuda_chunks) = stepped<TYPE, CODES, STEPS_ANY>;
    if (way_of(steps, to) == STEPS_SCALE) kernel = stepped<TYPE, CODES, STEPS_SCALE>;
    if (way_of(steps, to) == STEPS_BOTH) kernel = stepped<TYPE, CODES, STEPS_BOTH>;
    return QEM_LAUNCH(kernel, dim3(blocks), dim3(QEM_CHUNK_THREADS), in.vectors * 16, stream, from, in, steps, to);
}

template <qem_dtype TYPE>
static cudaError_t launch_codes(const qem_cuda_host_stage &stage, uint64_t row, const qem_cuda_chunks &to,
                                const qem_cuda_grid &grid, cudaStream_t stream)
{
    constexpr int elements = chunk_type<TYPE>::elements, most = elements / 2;
    uint32_t parts_shift;
    const uint32_t codes = qem_cuda_codes_of_chunk(stage.on_device.dim, elements, &parts_shift);
    if (codes == 1) return launch<TYPE, 1>(stage, row, parts_shift, to, grid, stream);
    if (codes == 2) return launch<TYPE, 2>(stage, row, parts_shift, to, grid, stream);
    return launch<TYPE, most>(stage, row, parts_shift, to, grid, stream); /* dim 2 */
}

cudaError_t qem_cuda_decode_stepped(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    if (dtype == QEM_DTYPE_F32) return launch_codes<QEM_DTYPE_F32>(stage, row, to, grid, stream);
    if (dtype == QEM_DTYPE_F16) return launch_codes<QEM_DTYPE_F16>(stage, row, to, grid, stream);
    return launch_codes<QEM_DTYPE_BF16>(stage, row, to, grid, stream);
}

template <qem_dtype TYPE, int CODES> static cudaError_t load(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(stepped<TYPE, CODES, STEPS_SCALE>),
        QEM_KERNEL(stepped<TYPE, CODES, STEPS_BOTH>),
        QEM_KERNEL(stepped<TYPE, CODES, STEPS_ANY>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

cudaError_t qem_cuda_load_stepped(void)
{
    cudaError_t (*const loads[])(void) = { load<QEM_DTYPE_F32, 1>,  load<QEM_DTYPE_F32, 2>,  load<QEM_DTYPE_F16, 1>,
                                           load<QEM_DTYPE_F16, 2>,  load<QEM_DTYPE_F16, 4>,  load<QEM_DTYPE_BF16, 1>,
                                           load<QEM_DTYPE_BF16, 2>, load<QEM_DTYPE_BF16, 4> };
    for (cudaError_t (*of_type)(void) : loads) {
        const cudaError_t error = of_type();
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
