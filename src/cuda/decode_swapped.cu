/*
 * Lookups and inverse swaps of one to three levels at once, for codebooks by group and shared ones; codes and maps lie as
 * swapped.cuh has it.
 *
 * A thread has 8 bytes of the same columns of all leaves, two words each, and makes 8 << LEVELS neighbouring bytes of the
 * output of them, in registers; then it does so for every so-many-th row of the block, so that what its codes look like is
 * worked out once. A block has the codebooks of a slab of groups in shared memory, or a shared codebook, or reads a large
 * one through L1.
 *
 * Bytes an element: code_bits / (8 * dim), half a bit a level, and 2 or 4, which is the least but for codebooks by group,
 * which are read once by every block of a slab. From the second level on neighbouring threads exchange halves of what they
 * made, so that each store of a warp fills whole sectors of 32 bytes.
 */
#include "slabs.cuh"
#include "swapped.cuh"

/* Rows of a stage by slabs. */
struct swapped_rows {
    qem_cuda_books books;
    const uint4 *shared_book; /* a shared codebook in the type of the output, or NULL */
    uint32_t book_vectors;    /* of it, for a copy in shared memory; 0: it is read where it is */
    uint32_t parts;           /* threads that an entry of each leaf makes work for, where it is more than one */
    const uint32_t *codes;
    const uint16_t *map;
    const qem_cuda_slab *slab;
    uint64_t first_bit, row_bits; /* of the codes: of the first row, of each row */
    uint64_t leaf;                /* groups */
    uint64_t rows, rows_of_block;
    uint32_t map_row_words;
};

/* What a thread's COUNT codes look like, the same in every row: of the first group of all leaves, of the second, ... */
template <int COUNT> struct swapped_places {
    uint64_t bit;                       /* of a row's first code */
    uint32_t shift[COUNT], mask[COUNT]; /* bits from that on */
    uint32_t entry[COUNT];              /* bytes of the table */
};

/* The codebooks of the slab, group by group and leaf by leaf. Where the table lies, and the bytes of each leaf's part. */
template <int LEVELS, int SIZE>
static __device__ __forceinline__ const unsigned char *fill(const swapped_rows &in, uint64_t first, uint32_t groups,
                                                            unsigned char *table, uint32_t (&begin)[1 << LEVELS])
{
#pragma unroll
    for (int leaf = 0; leaf < 1 << LEVELS; leaf++) begin[leaf] = 0;
    if (in.shared_book) {
        if (in.book_vectors == 0) return (const unsigned char *)in.shared_book;
        for (uint32_t v = threadIdx.x; v < in.book_vectors; v += QEM_CHUNK_THREADS)
            ((uint4 *)table)[v] = __ldg(in.shared_book + v);
        return table;
    }
    uint32_t bytes = 0;
#pragma unroll
    for (int leaf = 0; leaf < 1 << LEVELS; leaf++) {
        begin[leaf] = bytes;
        bytes += qem_fill_groups(in.books, leaf * in.leaf + first, groups, table + bytes) * SIZE;
    }
    return table;
}

/* `first`: of the slab; `group`: the first of the thread's, in each leaf; `part`: bytes of an entry before those wanted. */
template <int LEVELS, int SIZE, int CODES>
static __device__ __forceinline__ void find_codes(const swapped_rows &in, uint64_t first, uint64_t group, uint32_t part,
                                                  const uint32_t (&begin)[1 << LEVELS],
                                                  swapped_places<CODES << LEVELS> &places)
{
    places.bit = in.first_bit + qem_group_place(in.books, group).bit;
#pragma unroll
    for (int leaf = 0; leaf < 1 << LEVELS; leaf++) {
        const uint64_t base = qem_group_place(in.books, leaf * in.leaf + first).entry;
#pragma unroll
        for (int i = 0; i < CODES; i++) {
            const qem_cuda_group_place place = qem_group_place(in.books, leaf * in.leaf + group + i);
            places.shift[i << LEVELS | leaf] = (uint32_t)(in.first_bit + place.bit - places.bit);
            places.mask[i << LEVELS | leaf] = (1u << place.bits) - 1u;
            places.entry[i << LEVELS | leaf] = begin[leaf] + (uint32_t)(place.entry - base) * SIZE + part;
        }
    }
}

/* The thread's codes of a row; WIDE: they may have more than 64 bits together. */
template <int COUNT, bool WIDE>
static __device__ __forceinline__ void load_codes(const uint32_t *codes, uint64_t bit, const swapped_places<COUNT> &places,
                                                  uint32_t (&code)[COUNT])
{
    const uint32_t *const words = codes + (bit >> 5);
    const uint32_t phase = (uint32_t)bit & 31u;
    if (WIDE) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const uint32_t at = phase + places.shift[i];
            code[i] = __funnelshift_r(__ldg(words + (at >> 5)), __ldg(words + (at >> 5) + 1), at & 31u) & places.mask[i];
        }
        return;
    }
    const uint32_t middle = __ldg(words + 1);
    const uint64_t all = (uint64_t)__funnelshift_r(middle, __ldg(words + 2), phase) << 32 |
                         __funnelshift_r(__ldg(words), middle, phase);
#pragma unroll
    for (int i = 0; i < COUNT; i++) code[i] = (uint32_t)(all >> places.shift[i]) & places.mask[i];
}

/* Two words of each leaf. */
template <int LEVELS, int CODES>
static __device__ __forceinline__ void look_up(const unsigned char *table, uint32_t stride,
                                               const uint32_t (&code)[CODES << LEVELS],
                                               const swapped_places<CODES << LEVELS> &places, uint32_t (&x)[2 << LEVELS])
{
#pragma unroll
    for (int i = 0; i < CODES << LEVELS; i++) {
        const int leaf = i & ((1 << LEVELS) - 1), word = 2 * leaf + (i >> LEVELS) * 2 / CODES;
        const unsigned char *const at = table + (code[i] * stride + places.entry[i]);
        if (CODES == 1) {
            const uint2 entry = *(const uint2 *)at;
            x[word] = entry.x, x[(word + 1) % (2 << LEVELS)] = entry.y;
        } else if (CODES == 2) {
            x[word] = *(const uint32_t *)at;
        } else {
            const uint32_t half = *(const uint16_t *)at;
            x[word] = i >> LEVELS & 1 ? x[word] | half << 16 : half;
        }
    }
}

/* ---- swaps ---- */

/* A word of each half of a node into two of the node's. slot: of their two bits, counted from the one on top; which: of
 * those bits, where a word is a single element. */
template <int SIZE>
static __device__ __forceinline__ void merge_words(uint32_t small, uint32_t large, uint32_t bits, int slot, int which,
                                                   uint32_t &left, uint32_t &right)
{
    if (SIZE == 4) {
        const uint32_t mask = qem_prmt(bits << slot, 0, which ? 0x9999u : 0x8888u);
        left = qem_select(mask, small, large);
        right = qem_select(mask, large, small);
        return;
    }
    const uint32_t mask = qem_prmt(bits << slot, 0, 0x9988u);
    const uint32_t lefts = qem_select(mask, small, large), rights = qem_select(mask, large, small);
    left = qem_prmt(lefts, rights, 0x5410u);
    right = qem_prmt(lefts, rights, 0x7632u);
}

/* Undoes the level with BELOW levels below it: x has the words of its nodes' halves, smaller ones first, y gets those of
 * the nodes. bits: the map's words of the unit, the thread's first slot of each level on top. */
template <int LEVELS, int SIZE, int BELOW>
static __device__ __forceinline__ void merge_level(const uint32_t (&x)[2 << LEVELS], const uint32_t (&bits)[LEVELS],
                                                   uint32_t (&y)[2 << LEVELS])
{
    constexpr int words = 2 << BELOW; /* of a half */
#pragma unroll
    for (int node = 0; node < 1 << (LEVELS - 1 - BELOW); node++)
#pragma unroll
        for (int w = 0; w < words; w++) {
            const uint32_t slot = qem_swapped_slot(LEVELS, BELOW, node, SIZE == 4 ? w / 2 : w);
            merge_words<SIZE>(x[2 * node * words + w], x[(2 * node + 1) * words + w], bits[slot / 8], slot % 8, w % 2,
                              y[2 * (node * words + w)], y[2 * (node * words + w) + 1]);
        }
}

template <int LEVELS, int SIZE>
static __device__ __forceinline__ void undo_swaps(const uint16_t *map, uint32_t shift, uint32_t (&x)[2 << LEVELS])
{
    uint32_t bits[LEVELS], y[2 << LEVELS];
#pragma unroll
    for (int i = 0; i < LEVELS; i++)
        if (i * 8 < (int)QEM_SWAPPED_SLOTS(LEVELS)) bits[i] = (uint32_t)__ldg(map + i) << shift;
    merge_level<LEVELS, SIZE, 0>(x, bits, y);
    if (LEVELS > 1) merge_level<LEVELS, SIZE, LEVELS == 1 ? 0 : 1>(y, bits, x);
    if (LEVELS > 2) merge_level<LEVELS, SIZE, LEVELS == 3 ? 2 : 0>(x, bits, y);
#pragma unroll
    for (int w = 0; w < 2 << LEVELS; w++) x[w] = LEVELS % 2 ? y[w] : x[w];
}

/* ---- stores ---- */

static __device__ __forceinline__ uint4 choose(bool first, uint4 a, uint4 b)
{
    return make_uint4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w);
}

/* The thread's bytes at `out`; those of the odd thread follow those of the even one before it. All threads of a warp come
 * here together. is_there: of both, whether there is such a row. */
template <int LEVELS>
static __device__ __forceinline__ void store(unsigned char *out, bool odd, bool is_there, const uint32_t (&x)[2 << LEVELS])
{
    constexpr int words = 2 << LEVELS;
    if (LEVELS == 1) {
        qem_store_once((uint4 *)out, make_uint4(x[0], x[1], x[2], x[3]));
        return;
    }
    unsigned char *const even_sectors = odd ? out - (8 << LEVELS) + 16 : out; /* of the even thread, then of the odd one */
#pragma unroll
    for (int w = 0; w < words; w += 8) {
        const uint4 a = make_uint4(x[w], x[w + 1], x[w + 2], x[w + 3]),
                    b = make_uint4(x[(w + 4) % words], x[(w + 5) % words], x[(w + 6) % words], x[(w + 7) % words]);
        const uint4 given = choose(odd, a, b);
        uint4 got;
        got.x = __shfl_xor_sync(0xffffffffu, given.x, 1);
        got.y = __shfl_xor_sync(0xffffffffu, given.y, 1);
        got.z = __shfl_xor_sync(0xffffffffu, given.z, 1);
        got.w = __shfl_xor_sync(0xffffffffu, given.w, 1);
        if (!is_there) continue;
        qem_store_once((uint4 *)(even_sectors + 4 * w), choose(odd, got, a));
        qem_store_once((uint4 *)(even_sectors + (8 << LEVELS) + 4 * w), choose(odd, b, got));
    }
}

/* ---- the kernel ---- */

/* SIZE: bytes of an element; CODES: of a leaf's 8 bytes. */
template <int LEVELS, int SIZE, int CODES, bool WIDE>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS, 2) decode_swapped(swapped_rows in, qem_cuda_chunks to)
{
    constexpr int COUNT = CODES << LEVELS;
    QEM_DYNAMIC_SHARED(uint4, shared);
    const uint32_t t = threadIdx.x, stride = in.books.dim * SIZE;
    const uint32_t first = __ldg(&in.slab[blockIdx.x].first), groups = __ldg(&in.slab[blockIdx.x].groups);
    const uint32_t pieces = CODES > 1 ? groups / CODES : groups * in.parts, rows_at_once = QEM_CHUNK_THREADS / pieces;
    uint32_t begin[1 << LEVELS];
    const unsigned char *const table = fill<LEVELS, SIZE>(in, first, groups, (unsigned char *)shared, begin);
    __syncthreads();

    const uint32_t piece = t % pieces, part = CODES > 1 ? 0 : piece % in.parts * 8;
    const uint64_t piece_of_row = (uint64_t)first * stride / 8 + piece;
    swapped_places<COUNT> places;
    find_codes<LEVELS, SIZE, CODES>(in, first, first + (CODES > 1 ? piece * CODES : piece / in.parts), part, begin, places);
    const uint64_t slot = (SIZE == 2 ? piece_of_row : piece_of_row / 2) * QEM_SWAPPED_SLOTS(LEVELS);
    const uint32_t half = SIZE == 2 ? 0 : (uint32_t)piece_of_row % 2;
    const uint32_t shift = (LEVELS == 1 ? (uint32_t)slot % 8 : 0) + (half << (LEVELS - 1));
    const uint64_t top = blockIdx.y * in.rows_of_block;
    const uint64_t end = in.rows - top < in.rows_of_block ? in.rows : top + in.rows_of_block;
    unsigned char *const out = to.out + piece_of_row * (8 << LEVELS);
    const uint16_t *const map = in.map + slot / 8;
    /* Where threads exchange, those left over when rows are dealt out and those beyond the last row make that one again. */
    const uint32_t after = t / pieces < rows_at_once ? t / pieces : 0xffffffffu;
#pragma unroll 1
    for (uint64_t before = top; before < end; before += rows_at_once) {
        const bool is_there = before + after < end;
        const uint64_t row = LEVELS == 1 || is_there ? before + after : end - 1;
        if (LEVELS == 1 && !is_there) return;
        uint32_t code[COUNT], x[2 << LEVELS];
        load_codes<COUNT, WIDE>(in.codes, places.bit + row * in.row_bits, places, code);
        look_up<LEVELS, CODES>(table, stride, code, places, x);
        undo_swaps<LEVELS, SIZE>(map + row * in.map_row_words, shift, x);
        store<LEVELS>(out + row * to.pitch, t % 2, is_there, x);
    }
}

/* ---- launches ---- */

/* A launch, but for the instance. */
struct swapped_job {
    const swapped_rows &in;
    const qem_cuda_chunks &to;
    dim3 grid;
    uint32_t shared;
    cudaStream_t stream;
};

template <int LEVELS, int SIZE, int CODES> static cudaError_t launch(const swapped_job &job)
{
    if ((CODES << LEVELS) * job.in.books.bits > 64)
        return QEM_LAUNCH((decode_swapped<LEVELS, SIZE, CODES, true>), job.grid, dim3(QEM_CHUNK_THREADS), job.shared,
                          job.stream, job.in, job.to);
    return QEM_LAUNCH((decode_swapped<LEVELS, SIZE, CODES, false>), job.grid, dim3(QEM_CHUNK_THREADS), job.shared,
                      job.stream, job.in, job.to);
}

/* The combinations that qem_cuda_cut_slabs lets through. */
template <int LEVELS> static cudaError_t launch_codes(uint32_t codes, int wide, const swapped_job &job)
{
    constexpr int most = LEVELS == 1 ? 2 : 1; /* codes of single columns: of 32-bit and, twice that, of 16-bit outputs */
    if (wide) return codes == 1 ? launch<LEVELS, 4, 1>(job) : launch<LEVELS, 4, most>(job);
    if (codes == 1) return launch<LEVELS, 2, 1>(job);
    return codes == 2 ? launch<LEVELS, 2, 2>(job) : launch<LEVELS, 2, 2 * most>(job);
}

cudaError_t qem_cuda_decode_swapped(const qem_cuda_host_stage &stage, uint64_t row, uint64_t rows, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const int wide = dtype == QEM_DTYPE_F32;
    const uint32_t size = wide ? 4 : 2, elements = 8 / size, codes = d.dim < elements ? elements / d.dim : 1;
    const uint32_t book_bytes = stage.slabs[wide].floats * size, vectors = (book_bytes + 15) / 16;
    swapped_rows in = swapped_rows();
    in.books = qem_cuda_books_of(stage, dtype);
    if (!d.group_stride) {
        in.shared_book = (const uint4 *)(wide ? (const void *)d.book : stage.rounded[dtype == QEM_DTYPE_BF16]);
        in.book_vectors = vectors;
    }
    in.parts = d.dim < elements ? 1 : d.dim / elements;
    in.codes = d.codes;
    in.map_row_words = (uint32_t)(d.map_row_bits / 16);
    in.map = (const uint16_t *)d.map + (row - d.row_begin) * in.map_row_words;
    in.slab = stage.slab[wide];
    in.first_bit = (row - d.row_begin) * d.row_bits;
    in.row_bits = d.row_bits;
    in.leaf = d.groups >> d.levels;
    in.rows = rows;
    in.rows_of_block = qem_cuda_rows_of_block(rows, stage.slabs[wide].count, grid.processors);
    const swapped_job job = { in, to, dim3(stage.slabs[wide].count, (uint32_t)((rows - 1) / in.rows_of_block + 1)),
                              vectors * 16, stream };
    switch (d.levels) {
    case 1: return launch_codes<1>(codes, wide, job);
    case 2: return launch_codes<2>(codes, wide, job);
    default: return launch_codes<3>(codes, wide, job);
    }
}

cudaError_t qem_cuda_load_swapped(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(decode_swapped<1, 2, 1, false>), QEM_KERNEL(decode_swapped<1, 2, 1, true>),
        QEM_KERNEL(decode_swapped<1, 2, 2, false>), QEM_KERNEL(decode_swapped<1, 2, 2, true>),
        QEM_KERNEL(decode_swapped<1, 2, 4, false>), QEM_KERNEL(decode_swapped<1, 2, 4, true>),
        QEM_KERNEL(decode_swapped<1, 4, 1, false>), QEM_KERNEL(decode_swapped<1, 4, 1, true>),
        QEM_KERNEL(decode_swapped<1, 4, 2, false>), QEM_KERNEL(decode_swapped<1, 4, 2, true>),
        QEM_KERNEL(decode_swapped<2, 2, 1, false>), QEM_KERNEL(decode_swapped<2, 2, 1, true>),
        QEM_KERNEL(decode_swapped<2, 2, 2, false>), QEM_KERNEL(decode_swapped<2, 2, 2, true>),
        QEM_KERNEL(decode_swapped<2, 4, 1, false>), QEM_KERNEL(decode_swapped<2, 4, 1, true>),
        QEM_KERNEL(decode_swapped<3, 2, 1, false>), QEM_KERNEL(decode_swapped<3, 2, 1, true>),
        QEM_KERNEL(decode_swapped<3, 2, 2, false>), QEM_KERNEL(decode_swapped<3, 2, 2, true>),
        QEM_KERNEL(decode_swapped<3, 4, 1, false>), QEM_KERNEL(decode_swapped<3, 4, 1, true>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
