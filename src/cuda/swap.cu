/*
 * QET's pair swap and its inverse, all levels in one pass: a block takes some rows into shared memory and goes from level
 * to level there. Rows that do not fit are swapped level by level in device memory, by the same code.
 *
 * Bytes: 4 read and 4 written an element and a bit of the map for each pair, the minimum; in device memory 8 an element for
 * each level.
 */
#include "backend.cuh"

#define MOST_LEVELS   8
#define MOST_NODES    (1u << MOST_LEVELS)
#define ROWS_ELEMENTS 2048 /* that a block takes at least, if the matrix has them */
#define WARPS         (QEM_CUDA_THREADS / 32)
#define ALL_LANES     0xffffffffu

/* One matrix that a level splits: where it lies in the row, and where its map begins. Level i (from 0) has the nodes 2^i -
 * 1 .. 2^(i+1) - 2, in the order of their leaves. */
struct swap_node {
    uint64_t offset, width; /* columns */
    uint64_t first_bit;     /* row i's bits begin at first_bit + i * (width / 2) */
};

enum swap_kind { SWAP_FORWARD, SWAP_BY_MAP, SWAP_INVERSE };

struct swap_job {
    const swap_node *nodes;
    uint64_t rows, cols;
    uint32_t levels, rows_at_once;
    const float *in;
    float *out;
    const uint8_t *map;  /* read */
    uint32_t *map_words; /* SWAP_FORWARD: set bits, of words that are zero */
};

/* Rows in shared or in device memory; row 0 is row `first` of the matrix. */
struct swap_rows {
    const float *from;
    float *to;
    uint64_t first, count;
};

static __device__ __forceinline__ uint32_t map_bit(const uint8_t *map, uint64_t bit)
{
    return (uint32_t)(__ldg(map + (bit >> 3)) >> (bit & 7)) & 1u;
}

/* The bits of 32 pairs, of which some are there, as every thread of a warp holds them. */
static __device__ __forceinline__ void set_bits(uint32_t *words, uint64_t bit, uint32_t bits)
{
    if (threadIdx.x % 32 != 0 || bits == 0) return;
    uint32_t *const word = words + (bit >> 5);
    const uint32_t shift = (uint32_t)bit & 31u;
    atomicOr(word, bits << shift);
    if (shift && bits >> (32 - shift)) atomicOr(word + 1, bits >> (32 - shift));
}

/* Pair j of a node: its two columns in the order before the level, and the places of the smaller and the larger one after
 * it. */
template <swap_kind KIND> static __device__ __forceinline__ void swap_pair(const swap_job &job, const float *from,
                                                                           float *to, uint64_t small, uint64_t j,
                                                                           uint64_t bit, bool is_there)
{
    if (KIND == SWAP_INVERSE) {
        if (!is_there) return;
        const bool left_is_smaller = map_bit(job.map, bit + j) != 0;
        const float s = from[j], l = from[small + j];
        to[2 * j] = left_is_smaller ? s : l;
        to[2 * j + 1] = left_is_smaller ? l : s;
        return;
    }
    const float left = is_there ? from[2 * j] : 0.0f, right = is_there ? from[2 * j + 1] : 0.0f;
    const bool left_is_smaller = KIND == SWAP_FORWARD ? left < right : is_there && map_bit(job.map, bit + j) != 0;
    if (KIND == SWAP_FORWARD) /* all threads of the warp are here */
        set_bits(job.map_words, bit + (j & ~(uint64_t)31), __ballot_sync(ALL_LANES, is_there && left_is_smaller));
    if (!is_there) return;
    to[j] = left_is_smaller ? left : right;
    to[small + j] = left_is_smaller ? right : left;
}

/* Level `level` of some rows, by `warps` warps of which this is number `warp`: each takes 32 pairs of a node at once. */
template <swap_kind KIND> static __device__ __forceinline__ void swap_level(const swap_job &job, uint32_t level,
                                                                            const swap_rows &rows, uint64_t warp,
                                                                            uint64_t warps)
{
    const swap_node *const nodes = job.nodes + ((1u << level) - 1);
    const uint64_t stripes = nodes->width / 2 / 32 + 1; /* of the widest node, and one for an odd last column */
    const uint64_t items = (rows.count << level) * stripes;
    for (uint64_t item = warp; item < items; item += warps) {
        const uint64_t part = item / stripes, j = item % stripes * 32 + threadIdx.x % 32, row = part >> level;
        const swap_node &node = nodes[part & ((1u << level) - 1)];
        const uint64_t width = node.width, pairs = width / 2, small = width - pairs;
        const float *const from = rows.from + row * job.cols + node.offset;
        float *const to = rows.to + row * job.cols + node.offset;
        swap_pair<KIND>(job, from, to, small, j, node.first_bit + (rows.first + row) * pairs, j < pairs);
        if (j != pairs || width % 2 == 0) continue; /* the odd last column goes unpaired to the end of the smaller half */
        if (KIND == SWAP_INVERSE)
            to[width - 1] = from[small - 1];
        else
            to[small - 1] = from[width - 1];
    }
}

/* Dynamic shared memory: the block's rows, twice. */
template <swap_kind KIND> static __global__ void __launch_bounds__(QEM_CUDA_THREADS) swap_in_shared(swap_job job)
{
    QEM_DYNAMIC_SHARED(float, staged);
    for (uint64_t first = (uint64_t)blockIdx.x * job.rows_at_once; first < job.rows;
         first += (uint64_t)gridDim.x * job.rows_at_once) {
        const uint64_t left = job.rows - first, count = left < job.rows_at_once ? left : job.rows_at_once;
        const uint64_t elements = count * job.cols;
        float *from = staged, *to = staged + (uint64_t)job.rows_at_once * job.cols;
        for (uint64_t i = threadIdx.x; i < elements; i += blockDim.x) from[i] = job.in[first * job.cols + i];
        __syncthreads();
        for (uint32_t i = 0; i < job.levels; i++) {
            const swap_rows rows = { from, to, first, count };
            swap_level<KIND>(job, KIND == SWAP_INVERSE ? job.levels - 1 - i : i, rows, threadIdx.x / 32, WARPS);
            __syncthreads();
            float *const swap = from;
            from = to;
            to = swap;
        }
        for (uint64_t i = threadIdx.x; i < elements; i += blockDim.x) job.out[first * job.cols + i] = from[i];
        __syncthreads();
    }
}

template <swap_kind KIND> static __global__ void __launch_bounds__(QEM_CUDA_THREADS)
    swap_one_level(swap_job job, uint32_t level)
{
    const swap_rows rows = { job.in, job.out, 0, job.rows };
    swap_level<KIND>(job, level, rows, qem_cuda_first() / 32, qem_cuda_stride() / 32);
}

/* ---- host ---- */

/* Bits of the whole map. */
static uint64_t make_tree(uint64_t rows, uint64_t cols, uint32_t levels, swap_node *node)
{
    uint64_t bit = 0;
    node[0].offset = 0;
    node[0].width = cols;
    for (uint32_t n = 0; n < (1u << levels) - 1; n++) {
        const uint64_t large = node[n].width / 2, small = node[n].width - large;
        node[n].first_bit = bit;
        bit += rows * large;
        if (2 * n + 2 >= MOST_NODES - 1) continue;
        node[2 * n + 1].offset = node[n].offset;
        node[2 * n + 1].width = small;
        node[2 * n + 2].offset = node[n].offset + small;
        node[2 * n + 2].width = large;
    }
    return bit;
}

template <swap_kind KIND> static qem_status launch_shared(qem_cuda_call &call, swap_job &job)
{
    const uint64_t wanted = ROWS_ELEMENTS / job.cols, bytes = 2 * sizeof(float) * job.cols;
    job.rows_at_once = wanted < 1 ? 1 : wanted < job.rows ? (uint32_t)wanted : (uint32_t)job.rows;
    const uint32_t shared = (uint32_t)(bytes * job.rows_at_once);
    QEM_TRY(call.launch(cudaFuncSetAttribute(QEM_KERNEL(swap_in_shared<KIND>), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)call.state->most_shared)));
    const uint64_t pieces = (job.rows - 1) / job.rows_at_once + 1, most = (uint64_t)call.state->processors * 8;
    return call.launch(QEM_LAUNCH(swap_in_shared<KIND>, (uint32_t)(pieces < most ? pieces : most), QEM_CUDA_THREADS, shared,
                                  call.stream, job));
}

/* Level by level, between the output and scratch, so that the last one ends in the output, which may be the input. */
template <swap_kind KIND> static qem_status launch_levels(qem_cuda_call &call, const swap_job &job)
{
    const uint64_t count = job.rows * job.cols;
    swap_job one = job;
    float *scratch;
    QEM_TRY(call.take(count, &scratch));
    if (job.levels % 2 && job.in == job.out) {
        QEM_TRY(call.copy(scratch, job.in, count * sizeof(float)));
        one.in = scratch;
    }
    for (uint32_t i = 0; i < job.levels; i++) {
        one.out = (job.levels - i) % 2 ? job.out : scratch;
        if (i > 0) one.in = one.out == scratch ? job.out : scratch;
        QEM_TRY(call.launch(QEM_LAUNCH(swap_one_level<KIND>, call.blocks(count, 2 * QEM_CUDA_THREADS), QEM_CUDA_THREADS, 0,
                                       call.stream, one, KIND == SWAP_INVERSE ? job.levels - 1 - i : i)));
    }
    return QEM_OK;
}

template <swap_kind KIND> static qem_status run(qem_cuda_call &call, swap_job &job, const swap_node *tree)
{
    swap_node *nodes;
    if (job.rows == 0 || job.cols == 0) return QEM_OK;
    QEM_TRY(call.put(tree, (1u << job.levels) - 1, &nodes));
    job.nodes = nodes;
    const bool fits = job.cols <= call.state->most_shared / (2 * sizeof(float));
    return fits ? launch_shared<KIND>(call, job) : launch_levels<KIND>(call, job);
}

qem_status qem_cuda_swap_forward(qem_context *context, const float *x, uint64_t rows, uint64_t cols, uint32_t levels,
                                 float *ordered, uint8_t *map)
{
    qem_cuda_call call(context);
    swap_node tree[MOST_NODES];
    swap_job job = { nullptr, rows, cols, levels, 0, x, ordered, nullptr, nullptr };
    QEM_TRY(call.status);
    const uint64_t bytes = (make_tree(rows, cols, levels, tree) + 7) / 8;
    QEM_TRY(call.take_zero(bytes / 4 + 1, &job.map_words)); /* the map may end within a word */
    QEM_TRY(run<SWAP_FORWARD>(call, job, tree));
    return call.copy(map, job.map_words, bytes);
}

qem_status qem_cuda_swap_by_map(qem_context *context, const float *x, const uint8_t *map, uint64_t rows, uint64_t cols,
                                uint32_t levels, float *ordered)
{
    qem_cuda_call call(context);
    swap_node tree[MOST_NODES];
    swap_job job = { nullptr, rows, cols, levels, 0, x, ordered, map, nullptr };
    QEM_TRY(call.status);
    (void)make_tree(rows, cols, levels, tree);
    return run<SWAP_BY_MAP>(call, job, tree);
}

qem_status qem_cuda_swap_inverse(qem_context *context, const float *ordered, const uint8_t *map, uint64_t rows,
                                 uint64_t cols, uint32_t levels, float *restored)
{
    qem_cuda_call call(context);
    swap_node tree[MOST_NODES];
    swap_job job = { nullptr, rows, cols, levels, 0, ordered, restored, map, nullptr };
    QEM_TRY(call.status);
    (void)make_tree(rows, cols, levels, tree);
    return run<SWAP_INVERSE>(call, job, tree);
}
