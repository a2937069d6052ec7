/*
 * Scalar codes of 1 .. 8 bits, one codebook of levels, and the steps of their layer: a scale and a mean of the tensor, of
 * the row or of a block of columns, then of the column. Levels are f32; what is stored is rounded once, after the steps.
 *
 * Bytes an element: code_bits / 8 and 2 or 4, and the units' parameters, each read once for its chunks from L1; that is the
 * least. scalars_of_four(): codes of 4 bits, the 16 levels in the registers of a warp, looked up by shuffles.
 * scalars_of_bits(): the levels in shared memory, the codes of a tile staged there too.
 */
#include "steps.cuh"

/* ---- codes of 4 bits ---- */

/* `before`: chunks of the stream before the first one. All threads of a warp stay together: a level lies in one of them. */
template <qem_dtype TYPE, steps_way WAY>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS)
    scalars_of_four(const uint32_t *codes, uint64_t before, const float *levels, uint32_t k, chunk_steps steps,
                    qem_cuda_chunks to)
{
    constexpr int elements = chunk_type<TYPE>::elements;
    const uint32_t lane = threadIdx.x % 16;
    const float level = lane < k ? __ldg(levels + lane) : 0.0f;
    for (uint64_t tile = blockIdx.x; tile * QEM_STEPS_TILE < to.count; tile += gridDim.x) {
        const uint64_t first = tile * QEM_STEPS_TILE;
        make_tile<TYPE, WAY, true>(
            steps, to, first,
            [&](size_t local) {
                const uint64_t chunk = first + local + before;
                return elements == 8 ? qem_load_once(codes + chunk) : __ldg(codes + chunk / 2) >> (chunk % 2 * 16);
            },
            [&](uint32_t, uint32_t word, float(&x)[elements]) {
#pragma unroll
                for (int e = 0; e < elements; e++) x[e] = __shfl_sync(0xffffffffu, level, (int)(word >> (4 * e)), 16);
            });
    }
}

/* ---- codes of other widths ---- */

template <qem_dtype TYPE, steps_way WAY>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS)
    scalars_of_bits(qem_cuda_codes from, uint32_t vectors, uint32_t bits, const float *levels, uint32_t k,
                    chunk_steps steps, qem_cuda_chunks to)
{
    constexpr int elements = chunk_type<TYPE>::elements;
    QEM_DYNAMIC_SHARED(uint4, shared); /* 256 levels, then the codes of a tile */
    float *const table = (float *)shared;
    uint4 *const staged = shared + 256 / 4;
    const uint32_t mask = (1u << bits) - 1u;
    if (threadIdx.x < k) table[threadIdx.x] = __ldg(levels + threadIdx.x);
    for (uint64_t tile = blockIdx.x; tile * QEM_STEPS_TILE < to.count; tile += gridDim.x) {
        __syncthreads();
        for (uint32_t v = threadIdx.x; v < vectors; v += QEM_CHUNK_THREADS) staged[v] = qem_load_codes(from, tile, v);
        __syncthreads();
        make_tile<TYPE, WAY, false>(
            steps, to, tile * QEM_STEPS_TILE, [](size_t) { return 0u; },
            [&](uint32_t local, uint32_t, float(&x)[elements]) {
                const uint32_t begin = from.phase + local * elements * bits;
#pragma unroll
                for (int e = 0; e < elements; e++)
                    x[e] = table[qem_staged_code((const uint32_t *)staged, begin + (uint32_t)e * bits, mask)];
            });
    }
}

/* ---- which of them ---- */

int qem_cuda_takes_scalars(const qem_cuda_host_stage &stage, uint32_t elements)
{
    const qem_cuda_stage &d = stage.on_device;
    if (d.dim != 1 || d.group_stride || d.group || d.code_bits < 1 || d.code_bits > 8) return 0;
    return takes_steps(d, elements);
}

/* A launch, but for the instance. */
struct scalars_job {
    const qem_cuda_host_stage &stage;
    uint64_t row; /* of the stage */
    const chunk_steps &steps;
    const qem_cuda_chunks &to;
    dim3 grid;
    cudaStream_t stream;
};

template <qem_dtype TYPE, steps_way WAY> static cudaError_t launch_four(const scalars_job &job)
{
    const qem_cuda_stage &d = job.stage.on_device;
    return QEM_LAUNCH((scalars_of_four<TYPE, WAY>), job.grid, dim3(QEM_CHUNK_THREADS), 0, job.stream, d.codes,
                      job.row * job.to.per_row, d.book, (uint32_t)job.stage.k, job.steps, job.to);
}

template <qem_dtype TYPE, steps_way WAY> static cudaError_t launch_bits(const scalars_job &job)
{
    const qem_cuda_stage &d = job.stage.on_device;
    const uint32_t tile_bits = QEM_STEPS_TILE * chunk_type<TYPE>::elements * d.code_bits;
    const qem_cuda_codes from = qem_cuda_codes_from(d, job.row, tile_bits);
    /* the last code may be read with the word after it */
    const uint32_t vectors = (from.phase + tile_bits + 32 + 127) / 128;
    return QEM_LAUNCH((scalars_of_bits<TYPE, WAY>), job.grid, dim3(QEM_CHUNK_THREADS), 256 * sizeof(float) + vectors * 16,
                      job.stream, from, vectors, d.code_bits, d.book, (uint32_t)job.stage.k, job.steps, job.to);
}

template <qem_dtype TYPE>
static cudaError_t launch(const qem_cuda_host_stage &stage, uint64_t row, const qem_cuda_chunks &to,
                          const qem_cuda_grid &grid, cudaStream_t stream)
{
    const chunk_steps steps = steps_of(stage.on_device, row, chunk_type<TYPE>::elements, to.per_row);
    const uint32_t blocks = qem_cuda_persistent(grid, (to.count - 1) / QEM_STEPS_TILE + 1);
    const scalars_job job = { stage, row - stage.on_device.row_begin, steps, to, dim3(blocks), stream };
    const int four = stage.on_device.code_bits == 4;
    switch (way_of(steps, to)) {
    case STEPS_SCALE: return four ? launch_four<TYPE, STEPS_SCALE>(job) : launch_bits<TYPE, STEPS_SCALE>(job);
    case STEPS_BOTH: return four ? launch_four<TYPE, STEPS_BOTH>(job) : launch_bits<TYPE, STEPS_BOTH>(job);
    case STEPS_NONE: /* codes of other widths without steps are vectors */
        if (four) return launch_four<TYPE, STEPS_NONE>(job);
        return launch_bits<TYPE, STEPS_ANY>(job);
    default: return four ? launch_four<TYPE, STEPS_ANY>(job) : launch_bits<TYPE, STEPS_ANY>(job);
    }
}

cudaError_t qem_cuda_decode_scalars(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    if (dtype == QEM_DTYPE_F32) return launch<QEM_DTYPE_F32>(stage, row, to, grid, stream);
    if (dtype == QEM_DTYPE_F16) return launch<QEM_DTYPE_F16>(stage, row, to, grid, stream);
    return launch<QEM_DTYPE_BF16>(stage, row, to, grid, stream);
}

template <qem_dtype TYPE> static cudaError_t load(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(scalars_of_four<TYPE, STEPS_NONE>), QEM_KERNEL(scalars_of_four<TYPE, STEPS_SCALE>),
        QEM_KERNEL(scalars_of_four<TYPE, STEPS_BOTH>), QEM_KERNEL(scalars_of_four<TYPE, STEPS_ANY>),
        QEM_KERNEL(scalars_of_bits<TYPE, STEPS_SCALE>), QEM_KERNEL(scalars_of_bits<TYPE, STEPS_BOTH>),
        QEM_KERNEL(scalars_of_bits<TYPE, STEPS_ANY>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

cudaError_t qem_cuda_load_scalars(void)
{
    cudaError_t error = load<QEM_DTYPE_F32>();
    if (error == cudaSuccess) error = load<QEM_DTYPE_F16>();
    return error == cudaSuccess ? load<QEM_DTYPE_BF16>() : error;
}
