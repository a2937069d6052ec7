/*
 * Rotations of rows as the fit needs them: out[i][j] = the fma chain over p ascending of (x[i][p] - before[p]) *
 * rotation[p][j], from after[j]. A block makes a tile of outputs, a thread PER x PER of them; each output is one chain, as
 * on the CPU.
 *
 * Bytes: x once for each TILE columns and the rotation once for each TILE rows (both mostly from L2), 4 written an output;
 * cols fma an output.
 */
#include "backend.cuh"

#define TILE      64
#define DEPTH     16
#define PER       4
#define SIDE      (TILE / PER) /* threads along a side of the tile */
#define THREADS   (SIDE * SIDE)
#define MOST_DOWN ((uint64_t)32768)

static_assert(THREADS * PER == TILE * DEPTH, "a thread loads PER floats of each operand");

struct rotate_job {
    const float *x, *rotation, *before, *after;
    uint64_t rows, cols;
    float *out;
};

/* DEPTH columns of the tile's rows of x, transposed, and the rows of the rotation that go with them. */
struct operands {
    float x[DEPTH][TILE + 4]; /* padded: the threads of a warp that store a column of it do so to different banks */
    float rotation[DEPTH][TILE];
};

/* Columns p .. p + DEPTH - 1 of x, and those rows of the rotation. */
static __device__ __forceinline__ void load(const rotate_job &job, uint64_t top, uint64_t left, uint64_t p, operands &o)
{
    const uint32_t t = threadIdx.x;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const uint32_t depth = t % DEPTH, down = t / DEPTH + i * (THREADS / DEPTH);
        const uint64_t row = top + down, col = p + depth;
        float value = row < job.rows && col < job.cols ? __ldg(job.x + row * job.cols + col) : 0.0f;
        if (job.before && col < job.cols) value = value - __ldg(job.before + col);
        o.x[depth][down] = value;
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const uint32_t across = t % TILE, depth = t / TILE + i * (THREADS / TILE);
        const uint64_t row = p + depth, col = left + across;
        o.rotation[depth][across] = row < job.cols && col < job.cols ? __ldg(job.rotation + row * job.cols + col) : 0.0f;
    }
}

static __device__ __forceinline__ void multiply(const operands &o, uint32_t p, uint32_t down, uint32_t across,
                                                float (&sum)[PER][PER])
{
    const float4 x = *(const float4 *)&o.x[p][down], r = *(const float4 *)&o.rotation[p][across];
    const float xs[PER] = { x.x, x.y, x.z, x.w }, rs[PER] = { r.x, r.y, r.z, r.w };
#pragma unroll
    for (int i = 0; i < PER; i++) {
#pragma unroll
        for (int j = 0; j < PER; j++) sum[i][j] = fmaf(xs[i], rs[j], sum[i][j]);
    }
}

static __global__ void __launch_bounds__(THREADS, 2) rotate(rotate_job job)
{
    QEM_SHARED(operands, shared, [1]);
    operands &o = shared[0];
    const uint32_t down = threadIdx.x / SIDE * PER, across = threadIdx.x % SIDE * PER;
    const uint64_t top = (uint64_t)blockIdx.y * TILE, left = (uint64_t)blockIdx.x * TILE;
    float sum[PER][PER];
#pragma unroll
    for (int j = 0; j < PER; j++) {
        const uint64_t col = left + across + j;
        const float first = job.after && col < job.cols ? __ldg(job.after + col) : 0.0f;
#pragma unroll
        for (int i = 0; i < PER; i++) sum[i][j] = first;
    }
    for (uint64_t p = 0; p < job.cols; p += DEPTH) {
        const uint32_t depth = job.cols - p < DEPTH ? (uint32_t)(job.cols - p) : DEPTH;
        load(job, top, left, p, o);
        __syncthreads();
        if (depth == DEPTH) {
#pragma unroll
            for (uint32_t d = 0; d < DEPTH; d++) multiply(o, d, down, across, sum);
        } else { /* no more terms than there are */
            for (uint32_t d = 0; d < depth; d++) multiply(o, d, down, across, sum);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const uint64_t row = top + down + i, col = left + across + j;
            if (row < job.rows && col < job.cols) job.out[row * job.cols + col] = sum[i][j];
        }
    }
}

qem_status qem_cuda_rotate(qem_context *context, const float *x, uint64_t rows, uint64_t cols, const float *rotation,
                           const float *before, const float *after, float *out)
{
    qem_cuda_call call(context);
    QEM_TRY(call.status);
    for (uint64_t row = 0; row < rows; row += MOST_DOWN * TILE) { /* a grid is only so high */
        rotate_job job = { x + row * cols, rotation, before, after, rows - row, cols, out + row * cols };
        if (job.rows > MOST_DOWN * TILE) job.rows = MOST_DOWN * TILE;
        const dim3 grid((uint32_t)((cols - 1) / TILE + 1), (uint32_t)((job.rows - 1) / TILE + 1));
        QEM_TRY(call.launch(QEM_LAUNCH(rotate, grid, dim3(THREADS), 0, call.stream, job)));
    }
    return QEM_OK;
}
