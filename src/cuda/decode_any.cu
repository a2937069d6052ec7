/*
 * Decodes whatever an artifact holds, rotations apart: a thread makes an element, by going from its place back to its code.
 * The faster kernels of other files take the commonest artifacts; this one takes the rest, and is what they are tested
 * against.
 *
 * Bytes: the output, and for each layer a code, an entry and a bit for each level of swaps; neighbours share the words of
 * their codes and bits in L1. Nothing is staged, and a 16-bit output is stored two bytes a thread (64 a warp).
 */
#include "element.cuh"
#include "swapped.cuh"

/* The column, in the order of the codes, whose value the swaps of row `row` of the stage move to column `col`. */
static __device__ __forceinline__ uint64_t source_column(const qem_cuda_stage &stage, uint64_t row, uint64_t col,
                                                         uint64_t cols)
{
    uint64_t width = cols, offset = 0;
    uint32_t node = 0;
    for (uint32_t level = 0; level < stage.levels; level++) {
        const uint64_t pairs = width / 2, small = width - pairs, pair = col / 2;
        uint32_t large = 0; /* an odd last column, whose pair would be one too many, goes to the end of the smaller half */
        if (pair < pairs) {
            const uint64_t bit =
                stage.node_bit ? __ldg((const unsigned long long *)stage.node_bit + node) + row * pairs + pair
                               : row * stage.map_row_bits +
                                     qem_swapped_bit(stage.levels, level, node + 1 - (1u << level), pair);
            const uint32_t left_is_smaller = __ldg(stage.map + (bit >> 5)) >> (bit & 31) & 1u;
            large = left_is_smaller == ((uint32_t)col & 1u);
        }
        node = 2 * node + 1 + large;
        offset += large ? small : 0;
        width = large ? pairs : small;
        col = pair;
    }
    return offset + col;
}

/* Row `row` of the stage, before steps. */
static __device__ __forceinline__ float look_up(const qem_cuda_stage &stage, uint64_t row, uint64_t col, uint64_t cols)
{
    const uint64_t group = qem_column_quotient(col, stage.dim_reciprocal), position = col - group * stage.dim;
    uint64_t bit = row * stage.row_bits, entry;
    uint32_t bits = stage.code_bits, width = stage.dim;
    if (stage.group) {
        bit += __ldg((const unsigned long long *)&stage.group[group].bit);
        entry = __ldg((const unsigned long long *)&stage.group[group].entry);
        bits = (uint32_t)(entry >> 56);
        entry &= QEM_CUDA_ENTRY_MASK;
    } else {
        bit += group * bits;
        entry = group * stage.group_stride;
    }
    /* a tail group's own codebook has entries of as many floats as it has columns; a shared one is read in part */
    if ((stage.group || stage.group_stride) && cols - group * stage.dim < width)
        width = (uint32_t)(cols - group * stage.dim);
    if (stage.row_cells) entry += stage.cell_floats * qem_bits_at(stage.row_cells, row * stage.cell_bits, stage.cell_bits);
    entry += (uint64_t)qem_bits_at(stage.codes, bit, bits) * width + position;
    return stage.book_half ? qem_f16_value(__ldg(stage.book_half + entry)) : __ldg(stage.book + entry);
}

static __device__ __forceinline__ float decode_element(const qem_cuda_stage *stages, uint32_t first, uint32_t last, int raw,
                                                       const qem_cuda_rows &to, uint64_t row, uint64_t col)
{
    const uint64_t here = to.row_begin + row;
    float sum = to.sum ? to.sum[row * to.cols + col] : 0.0f;
    for (uint32_t i = first; i < last; i++) {
        const qem_cuda_stage &stage = stages[i];
        const uint64_t stage_row = here - stage.row_begin;
        float x = look_up(stage, stage_row, raw ? col : source_column(stage, stage_row, col, to.cols), to.cols);
        if (!raw) x = qem_apply_steps(stage, here, col, x);
        sum = i > first || to.sum ? sum + x : x;
    }
    return sum;
}

/* Blocks of blockDim.x columns and blockDim.y rows. */
static __global__ void __launch_bounds__(256, 4)
    decode_any(const qem_cuda_stage *stages, uint32_t first, uint32_t last, int raw, qem_cuda_rows to)
{
    const uint64_t across = (uint64_t)gridDim.x * blockDim.x, down = (uint64_t)gridDim.y * blockDim.y;
    const uint64_t left = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x,
                   top = (uint64_t)blockIdx.y * blockDim.y + threadIdx.y;
    for (uint64_t row = top; row < to.rows; row += down)
        for (uint64_t col = left; col < to.cols; col += across)
            qem_store_element(to, row, col, decode_element(stages, first, last, raw, to, row, col), true);
}

cudaError_t qem_cuda_decode_any(const qem_cuda_stage *stages, uint32_t first, uint32_t last, int raw,
                                const qem_cuda_rows &rows, cudaStream_t stream)
{
    const uint32_t x = qem_cuda_power(rows.cols, 256), y = 256 / x;
    const uint64_t across = (rows.cols - 1) / x + 1, down = (rows.rows - 1) / y + 1;
    const dim3 grid(across < 65536 ? (uint32_t)across : 65536, down < 65535 ? (uint32_t)down : 65535);
    return QEM_LAUNCH(decode_any, grid, dim3(x, y), 0, stream, stages, first, last, raw, rows);
}

cudaError_t qem_cuda_load_any(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, QEM_KERNEL(decode_any));
}
