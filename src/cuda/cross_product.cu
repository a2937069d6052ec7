/*
 * a^T b in double: the matrix that decides a rotation. An element is the sum of the parts' sums in ascending order, a part
 * being a range of rows that depends on the shape alone (as in cpu/cross_product.c), and a part's sum is one fma chain over
 * its rows in ascending order. A block makes a tile of a part's elements, a thread PER x PER of them.
 *
 * Bytes: a once for each TILE columns of b and b once for each TILE columns of a, 4 an element; 8 written an element and
 * part.
 */
#include "backend.cuh"

#define TILE       32
#define DEPTH      16
#define PER        2
#define SIDE       (TILE / PER)
#define THREADS    (SIDE * SIDE)
#define BLOCK      128  /* parts are made as the CPU makes them: by blocks of so many columns, */
#define PART_ROWS  4096 /* with at least so many rows each, */
#define MOST_TASKS 32   /* and parts and blocks together are so many */

static_assert(THREADS * 2 == TILE * DEPTH, "a thread loads two floats of each operand");

struct cross_job {
    const float *a, *b;
    uint64_t rows, cols_a, cols_b, parts;
    double *product; /* [parts][cols_a][cols_b] */
};

struct operands {
    double a[DEPTH][TILE], b[DEPTH][TILE];
};

static __device__ __forceinline__ void load(const float *x, uint64_t cols, uint64_t row, uint64_t last, uint64_t left,
                                            double (&to)[DEPTH][TILE])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t across = threadIdx.x % TILE, depth = threadIdx.x / TILE + i * (THREADS / TILE);
        const bool is_there = row + depth < last && left + across < cols;
        to[depth][across] = is_there ? (double)__ldg(x + (row + depth) * cols + left + across) : 0.0;
    }
}

static __global__ void __launch_bounds__(THREADS, 2) multiply(cross_job job)
{
    QEM_SHARED(operands, shared, [1]);
    operands &o = shared[0];
    const uint32_t down = threadIdx.x / SIDE * PER, across = threadIdx.x % SIDE * PER;
    const uint64_t i0 = (uint64_t)blockIdx.y * TILE, j0 = (uint64_t)blockIdx.x * TILE, part = blockIdx.z;
    const uint64_t last = (part + 1) * job.rows / job.parts;
    double sum[PER][PER] = { { 0.0, 0.0 }, { 0.0, 0.0 } };
    for (uint64_t row = part * job.rows / job.parts; row < last; row += DEPTH) {
        const uint32_t depth = last - row < DEPTH ? (uint32_t)(last - row) : DEPTH;
        load(job.a, job.cols_a, row, last, i0, o.a);
        load(job.b, job.cols_b, row, last, j0, o.b);
        __syncthreads();
        for (uint32_t d = 0; d < depth; d++) {
#pragma unroll
            for (int i = 0; i < PER; i++) {
#pragma unroll
                for (int j = 0; j < PER; j++) sum[i][j] = fma(o.a[d][down + i], o.b[d][across + j], sum[i][j]);
            }
        }
        __syncthreads();
    }
    double *const product = job.product + part * job.cols_a * job.cols_b;
#pragma unroll
    for (int i = 0; i < PER; i++) {
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const uint64_t row = i0 + down + i, col = j0 + across + j;
            if (row < job.cols_a && col < job.cols_b) product[row * job.cols_b + col] = sum[i][j];
        }
    }
}

static __global__ void __launch_bounds__(QEM_CUDA_THREADS) add_parts(double *product, uint64_t parts, uint64_t size)
{
    for (uint64_t i = qem_cuda_first(); i < size; i += qem_cuda_stride()) {
        double sum = product[i];
        for (uint64_t p = 1; p < parts; p++) sum += product[p * size + i];
        product[i] = sum;
    }
}

static uint64_t parts_of(uint64_t rows, uint64_t cols_a, uint64_t cols_b)
{
    const uint64_t blocks = ((cols_a + BLOCK - 1) / BLOCK) * ((cols_b + BLOCK - 1) / BLOCK);
    const uint64_t by_rows = rows / PART_ROWS, by_tasks = MOST_TASKS / blocks;
    const uint64_t parts = by_rows < by_tasks ? by_rows : by_tasks;
    return parts ? parts : 1;
}

qem_status qem_cuda_cross_product(qem_context *context, const float *a, const float *b, uint64_t rows, uint64_t cols_a,
                                  uint64_t cols_b, double *product)
{
    qem_cuda_call call(context);
    const uint64_t size = cols_a * cols_b;
    cross_job job = { a, b, rows, cols_a, cols_b, parts_of(rows, cols_a, cols_b), nullptr };
    QEM_TRY(call.status);
    if ((cols_a - 1) / TILE >= 65535)
        return qem_fail(context, QEM_ERR_UNSUPPORTED, "the product of %llu columns is beyond what a GPU's grid takes",
                        (unsigned long long)cols_a);
    QEM_TRY(call.take(job.parts * size, &job.product));
    const dim3 grid((uint32_t)((cols_b - 1) / TILE + 1), (uint32_t)((cols_a - 1) / TILE + 1), (uint32_t)job.parts);
    QEM_TRY(call.launch(QEM_LAUNCH(multiply, grid, dim3(THREADS), 0, call.stream, job)));
    if (job.parts > 1)
        QEM_TRY(call.launch(
            QEM_LAUNCH(add_parts, call.blocks(size), QEM_CUDA_THREADS, 0, call.stream, job.product, job.parts, size)));
    return call.to_host(product, job.product, size * sizeof *product);
}
