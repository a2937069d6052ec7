/*
 * Rotations: out = sum + steps(coarse + y * rotation) for rows that were looked up. A block makes a tile of outputs, a
 * thread PER x PER of them; every output is one chain of fma with p ascending, as on the CPU. With lopq's cells a tile's
 * rows are of one cell: they follow each other in the stage's list of rows by cells.
 *
 * Bytes: y once for each TILE columns and the rotation once for each TILE rows (both mostly from L2), 2 * cols fma an
 * output.
 */
#include "element.cuh"

#define TILE 64
#define DEPTH 16
#define PER 4
#define SIDE (TILE / PER) /* threads along a side of the tile */
#define THREADS (SIDE * SIDE)
#define MOST_CELLS 256

static_assert(THREADS >= MOST_CELLS, "a thread for every cell");
static_assert(THREADS * PER == TILE * DEPTH, "a thread loads PER floats of each operand");

/* The rows of a tile: the stage's rows begin .. begin + count - 1, or those places of its list by cells. */
struct tile_rows {
    uint64_t begin;
    uint32_t count, cell;
};

static __device__ uint32_t first_at_or_after(const uint32_t *rows, uint32_t low, uint32_t high, uint64_t row)
{
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (__ldg(rows + middle) < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Tile blockIdx.y of those that all cells have in rows first .. last - 1 of the stage; a count of 0: there are not so many.
 * A thread finds the rows of a cell, one adds up their tiles. */
static __device__ tile_rows tile_of_cells(const qem_cuda_stage &stage, uint64_t first, uint64_t last)
{
    QEM_SHARED(uint32_t, low, [MOST_CELLS]);
    QEM_SHARED(uint32_t, count, [MOST_CELLS]);
    QEM_SHARED(uint32_t, found, [3]);
    const uint32_t t = threadIdx.x;
    if (t < stage.cells) {
        const uint32_t begin = __ldg(stage.cell_starts + t), end = __ldg(stage.cell_starts + t + 1);
        low[t] = first_at_or_after(stage.cell_rows, begin, end, first);
        count[t] = first_at_or_after(stage.cell_rows, low[t], end, last) - low[t];
    }
    __syncthreads();
    if (t == 0) {
        uint32_t cell = 0, tile = blockIdx.y;
        while (cell < stage.cells && tile >= (count[cell] + TILE - 1) / TILE) tile -= (count[cell++] + TILE - 1) / TILE;
        const bool is_there = cell < stage.cells;
        found[0] = is_there ? low[cell] + tile * TILE : 0;
        found[1] = is_there ? count[cell] - tile * TILE : 0;
        found[2] = is_there ? cell : 0;
    }
    __syncthreads();
    const tile_rows rows = { found[0], found[1] < TILE ? found[1] : TILE, found[2] };
    return rows;
}

/* DEPTH columns of the tile's rows of y, transposed, and the rows of the rotation that go with them. */
struct operands {
    float y[DEPTH][TILE + 4]; /* padded: the threads of a warp that store a column of it do so to different banks */
    float rotation[DEPTH][TILE];
};

static __device__ __forceinline__ void multiply(const operands &o, uint32_t p, uint32_t down, uint32_t across,
                                                float (&sum)[PER][PER])
{
    const float4 y = *(const float4 *)&o.y[p][down], r = *(const float4 *)&o.rotation[p][across];
    const float ys[PER] = { y.x, y.y, y.z, y.w }, rs[PER] = { r.x, r.y, r.z, r.w };
#pragma unroll
    for (int i = 0; i < PER; i++) {
#pragma unroll
        for (int j = 0; j < PER; j++) sum[i][j] = fmaf(ys[i], rs[j], sum[i][j]);
    }
}

/* The rows of y that this thread loads a column of are row and row + SIDE, ...; row_of[i] < 0: none. */
static __global__ void __launch_bounds__(THREADS, 2)
    rotate(const qem_cuda_stage *on_device, const float *y, qem_cuda_rows to)
{
    QEM_SHARED(operands, shared, [1]);
    operands &o = shared[0];
    const qem_cuda_stage &stage = *on_device;
    const uint64_t cols = to.cols, first = to.row_begin - stage.row_begin; /* of the stage's rows */
    const uint32_t t = threadIdx.x, down = t / SIDE * PER, across = t % SIDE * PER;
    tile_rows rows;
    if (stage.cell_rows) {
        rows = tile_of_cells(stage, first, first + to.rows);
        if (rows.count == 0) return; /* the whole block */
    } else {
        rows.begin = (uint64_t)blockIdx.y * TILE;
        rows.cell = 0;
        rows.count = to.rows - rows.begin < TILE ? (uint32_t)(to.rows - rows.begin) : TILE;
    }
    const uint32_t *list = stage.cell_rows ? stage.cell_rows + rows.begin : nullptr;
    const uint64_t left = (uint64_t)blockIdx.x * TILE;
    const float *rotation = stage.rotation + rows.cell * cols * cols + left;
    const uint32_t y_column = t % DEPTH, r_column = t % TILE;
    float sum[PER][PER];
#pragma unroll
    for (int j = 0; j < PER; j++) {
        const uint64_t col = left + across + j;
        const float start = stage.coarse && col < cols ? __ldg(stage.coarse + rows.cell * cols + col) : 0.0f;
#pragma unroll
        for (int i = 0; i < PER; i++) sum[i][j] = start;
    }
    const float *y_row[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
        const uint32_t r = t / DEPTH + i * (THREADS / DEPTH);
        y_row[i] = r < rows.count ? y + (list ? __ldg(list + r) - first : rows.begin + r) * cols : nullptr;
    }
    for (uint64_t p = 0; p < cols; p += DEPTH) {
#pragma unroll
        for (int i = 0; i < PER; i++) {
            const uint32_t q = t / TILE + i * (THREADS / TILE);
            o.y[y_column][t / DEPTH + i * (THREADS / DEPTH)] =
                y_row[i] && p + y_column < cols ? __ldg(y_row[i] + p + y_column) : 0;
            o.rotation[q][r_column] =
                p + q < cols && left + r_column < cols ? __ldg(rotation + (p + q) * cols + r_column) : 0;
        }
        __syncthreads();
        if (cols - p >= DEPTH) {
#pragma unroll
            for (uint32_t q = 0; q < DEPTH; q++) multiply(o, q, down, across, sum);
        } else { /* no more than there are: even + 0 * 0 could turn a -0 */
            for (uint32_t q = 0; q < cols - p; q++) multiply(o, q, down, across, sum);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
        if (down + i >= rows.count) continue;
        const uint64_t row = list ? __ldg(list + down + i) - first : rows.begin + down + i;
#pragma unroll
        for (int j = 0; j < PER; j++) {
            const uint64_t col = left + across + j;
            if (col >= cols) continue;
            const float x = qem_apply_steps(stage, to.row_begin + row, col, sum[i][j]);
            qem_store_element(to, row, col, to.sum ? to.sum[row * cols + col] + x : x, true);
        }
    }
}

/* In pieces of the rows, where the grid would be too high; a piece's cells end with tiles that are not full. */
cudaError_t qem_cuda_decode_rotated(const qem_cuda_host_stage &stage, const qem_cuda_stage *on_device, const float *y,
                            const qem_cuda_rows &rows, cudaStream_t stream)
{
    const uint64_t most = (uint64_t)32768 * TILE;
    const uint64_t across = (rows.cols - 1) / TILE + 1;
    if (across > 0x7fffffff) return cudaErrorInvalidValue; /* a rotation of 2^74 floats */
    for (uint64_t row = 0; row < rows.rows; row += most) {
        qem_cuda_rows piece = rows;
        piece.row_begin += row;
        piece.rows = rows.rows - row < most ? rows.rows - row : most;
        piece.out = (char *)rows.out + row * rows.row_stride * qem_dtype_size((qem_dtype)rows.dtype);
        piece.sum = rows.sum ? rows.sum + row * rows.cols : nullptr;
        const uint64_t tiles = (piece.rows - 1) / TILE + 1 + (stage.on_device.cells > 1 ? stage.on_device.cells : 0);
        const cudaError_t error = QEM_LAUNCH(rotate, dim3((uint32_t)across, (uint32_t)tiles), dim3(THREADS), 0, stream,
                                             on_device, y + row * rows.cols, piece);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

cudaError_t qem_cuda_load_rotate(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, QEM_KERNEL(rotate));
}
