/*
 * Lookups in codebooks by group. A block has the codebooks of a slab of groups in shared memory, in the type of the output,
 * and makes that slab's columns of many rows; each thread the same chunk of every so-many-th row, so that what its codes
 * look like is worked out once, also where their widths differ by group.
 *
 * With a level of swaps a chunk is made of 8 bytes from the smaller half of the row and 8 from the larger one, whose pairs
 * the map's bits order; a slab then has groups of both halves.
 *
 * Bytes an element: code_bits / (8 * dim) and 2 or 4, with swaps half a bit more, which is the least but for the codebooks,
 * which are read once by every block of a slab. The codes of a row's slab are fewer bytes than a sector; neighbouring slabs
 * find the rest in L2.
 */
#include "chunks.cuh"
#include "slabs.cuh"

/* Rows of a stage by slabs. */
struct slab_rows {
    const uint32_t *codes;
    const qem_cuda_group *group;
    const float *book;
    const uint16_t *book_half;
    const qem_cuda_slab *slab;
    uint64_t first_bit, row_bits; /* of the first row, of each row */
    uint64_t rows, rows_of_block;
    uint64_t group_stride;
    uint32_t dim, bits, dtype;
    uint32_t narrow;         /* the codes of a chunk have 32 bits at most */
    uint32_t parts;          /* chunks of an entry, where it makes more than one */
    const uint32_t *map;     /* one level of swaps */
    uint64_t map_bit, pairs; /* the first row's first bit; bits of a row */
    uint64_t larger;         /* groups of the smaller half */
};

/* Where group g's codes and codebook begin, and the width of its codes. */
struct group_place {
    uint64_t bit, entry;
    uint32_t bits;
};

static __device__ __forceinline__ group_place place_of(const slab_rows &in, uint64_t g)
{
    group_place place;
    if (in.group) {
        const uint64_t entry = __ldg((const unsigned long long *)&in.group[g].entry);
        place.bit = __ldg((const unsigned long long *)&in.group[g].bit);
        place.entry = entry & QEM_CUDA_ENTRY_MASK;
        place.bits = (uint32_t)(entry >> 56);
    } else {
        place.bit = g * in.bits;
        place.entry = g * in.group_stride;
        place.bits = in.bits;
    }
    return place;
}

/* Floats from `first` on, rounded to the type of the output as decoded values would be. */
static __device__ __forceinline__ void fill_table(const slab_rows &in, uint64_t first, uint32_t floats,
                                                  unsigned char *table)
{
    for (uint32_t i = threadIdx.x; i < floats; i += QEM_CHUNK_THREADS) {
        const uint16_t half = in.book_half ? __ldg(in.book_half + first + i) : 0;
        if (in.book_half && in.dtype == QEM_DTYPE_F16) {
            ((uint16_t *)table)[i] = half;
            continue;
        }
        const float x = in.book_half ? qem_f16_value(half) : __ldg(in.book + first + i);
        if (in.dtype == QEM_DTYPE_F32)
            ((float *)table)[i] = x;
        else
            ((uint16_t *)table)[i] = in.dtype == QEM_DTYPE_F16 ? qem_f16_bits(x) : qem_bf16_bits(x);
    }
}

/* Groups first .. first + groups - 1; returns the floats. */
static __device__ __forceinline__ uint32_t fill_groups(const slab_rows &in, uint64_t first, uint32_t groups,
                                                       unsigned char *table)
{
    const uint64_t base = place_of(in, first).entry;
    const group_place last = place_of(in, first + groups - 1);
    const uint32_t floats = (uint32_t)(last.entry - base) + (in.group ? in.dim << last.bits : (uint32_t)in.group_stride);
    fill_table(in, base, floats, table);
    return floats;
}

/* What a thread's codes look like, the same in every row: of a chunk, or of its part from a half. */
template <int CODES> struct code_places {
    uint64_t bit;                       /* of a row's first code */
    uint32_t shift[CODES], mask[CODES]; /* bits from that on */
    uint32_t entry[CODES];              /* bytes of the table */
};

/* `group` is the first of the codes', `base` the first of the table, `part` the bytes of an entry before those wanted. */
template <int CODES>
static __device__ __forceinline__ void find_codes(const slab_rows &in, uint64_t group, uint64_t base, uint32_t size,
                                                  uint32_t part, code_places<CODES> &places)
{
    const uint64_t entry = place_of(in, base).entry;
    places.bit = in.first_bit + place_of(in, group).bit;
#pragma unroll
    for (int i = 0; i < CODES; i++) {
        const group_place place = place_of(in, group + i);
        places.shift[i] = (uint32_t)(in.first_bit + place.bit - places.bit);
        places.mask[i] = (1u << place.bits) - 1u;
        places.entry[i] = (uint32_t)(place.entry - entry) * size + part;
    }
}

/* WORDS words from CODES entries. */
template <int CODES, int WORDS>
static __device__ __forceinline__ void look_up(const slab_rows &in, const code_places<CODES> &places, uint64_t row,
                                               const unsigned char *table, uint32_t stride, uint32_t (&out)[WORDS])
{
    constexpr int BYTES = 4 * WORDS / CODES; /* of an entry */
    const uint64_t bit = places.bit + row * in.row_bits;
    const uint32_t *const words = in.codes + (bit >> 5);
    const uint32_t phase = (uint32_t)bit & 31u;
    uint32_t code[CODES];
    if (in.narrow) {
        const uint32_t all = __funnelshift_r(__ldg(words), __ldg(words + 1), phase);
#pragma unroll
        for (int i = 0; i < CODES; i++) code[i] = all >> places.shift[i] & places.mask[i];
    } else {
#pragma unroll
        for (int i = 0; i < CODES; i++) {
            const uint32_t at = phase + places.shift[i];
            code[i] = __funnelshift_r(__ldg(words + (at >> 5)), __ldg(words + (at >> 5) + 1), at & 31u) & places.mask[i];
        }
    }
#pragma unroll
    for (int i = 0; i < CODES; i++) {
        const unsigned char *const at = table + places.entry[i] + code[i] * stride;
        if (BYTES == 2) {
            const uint32_t half = *(const uint16_t *)at;
            out[i / 2 % WORDS] = i % 2 ? out[i / 2 % WORDS] | half << 16 : half;
        } else if (BYTES == 4) {
            out[i % WORDS] = *(const uint32_t *)at;
        } else if (BYTES == 8) {
            const uint2 entry = *(const uint2 *)at;
            out[2 * i % WORDS] = entry.x;
            out[(2 * i + 1) % WORDS] = entry.y;
        } else {
            const uint4 entry = *(const uint4 *)at;
            out[0] = entry.x, out[1 % WORDS] = entry.y, out[2 % WORDS] = entry.z, out[3 % WORDS] = entry.w;
        }
    }
}

/* Pairs of the halves' elements, of 2 or 4 bytes; a set bit: the smaller one stood left. */
static __device__ __forceinline__ uint4 merge(const uint32_t (&small)[2], const uint32_t (&large)[2], uint32_t bits,
                                              uint32_t size)
{
    if (size == 4) {
        const bool a = bits & 1u, b = bits & 2u;
        return make_uint4(a ? small[0] : large[0], a ? large[0] : small[0], b ? small[1] : large[1],
                          b ? large[1] : small[1]);
    }
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++) { /* bytes of small: 0 .. 3, of large: 4 .. 7; the lower halves make the first pair */
        const uint32_t left_is_smaller = bits >> i & 1u, upper = i % 2 ? 0x2222u : 0u;
        pair[i] = qem_prmt(small[i / 2], large[i / 2], left_is_smaller * (0x5410u - 0x1054u) + (0x1054u + upper));
    }
    return make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

/* CODES: of a chunk, or of each half's part of it. */
template <int CODES, int LEVELS>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS, 2) decode_slab(slab_rows in, qem_cuda_chunks to)
{
    constexpr int WORDS = LEVELS ? 2 : 4;
    QEM_DYNAMIC_SHARED(uint4, shared);
    unsigned char *const table = (unsigned char *)shared;
    const uint32_t size = in.dtype == QEM_DTYPE_F32 ? 4 : 2, t = threadIdx.x, stride = in.dim * size;
    const uint32_t first = __ldg(&in.slab[blockIdx.x].first), groups = __ldg(&in.slab[blockIdx.x].groups);
    const uint32_t chunks = CODES > 1 ? groups / CODES : groups * in.parts, rows_at_once = QEM_CHUNK_THREADS / chunks;
    const uint32_t smaller_bytes = fill_groups(in, first, groups, table) * size;
    if (LEVELS) (void)fill_groups(in, in.larger + first, groups, table + smaller_bytes);
    __syncthreads();

    const uint32_t chunk = t % chunks, part = CODES > 1 ? 0 : chunk % in.parts * (4 * WORDS);
    const uint64_t group = first + (CODES > 1 ? chunk * CODES : chunk / in.parts);
    const uint64_t chunk_of_row = (uint64_t)first * in.dim * size / (4 * WORDS) + chunk;
    code_places<CODES> places, larger;
    find_codes(in, group, first, size, part, places);
    if (LEVELS) find_codes(in, in.larger + group, in.larger + first, size, part + smaller_bytes, larger);
    if (t / chunks >= rows_at_once) return; /* what is left over when rows are dealt out */
    const uint64_t begin = blockIdx.y * in.rows_of_block;
    const uint64_t end = in.rows - begin < in.rows_of_block ? in.rows : begin + in.rows_of_block;
    unsigned char *const out = to.out + chunk_of_row * 16;
#pragma unroll 2
    for (uint64_t row = begin + t / chunks; row < end; row += rows_at_once) {
        uint32_t words[WORDS];
        look_up(in, places, row, table, stride, words);
        uint4 made;
        if (LEVELS) {
            uint32_t others[2], small[2] = { words[0], words[1] };
            look_up(in, larger, row, table, stride, others);
            const uint64_t bit = in.map_bit + row * in.pairs + chunk_of_row * (8 / size);
            const uint32_t *const map = in.map + (bit >> 5);
            made = merge(small, others, __funnelshift_r(__ldg(map), __ldg(map + 1), (uint32_t)bit & 31u), size);
        } else {
            made = make_uint4(words[0], words[1], words[2 % WORDS], words[3 % WORDS]);
        }
        qem_store_once((uint4 *)(out + row * to.pitch), made);
    }
}

template <int CODES, int LEVELS>
static cudaError_t launch(const slab_rows &in, const qem_cuda_chunks &to, dim3 grid, uint32_t shared, cudaStream_t stream)
{
    return QEM_LAUNCH((decode_slab<CODES, LEVELS>), grid, dim3(QEM_CHUNK_THREADS), shared, stream, in, to);
}

/* Blocks enough for the device, each with rows enough to pay for its codebooks. */
static uint64_t rows_of_block(uint64_t rows, uint32_t slabs, uint32_t processors)
{
    const uint64_t blocks = ((uint64_t)processors * 4 + slabs - 1) / slabs, least = 64;
    const uint64_t share = (rows + blocks - 1) / blocks, most = (rows + 65534) / 65535; /* a grid is 65535 high at most */
    return share > least ? (share > most ? share : most) : least > most ? least : most;
}

cudaError_t qem_cuda_decode_slabs(const qem_cuda_host_stage &stage, uint64_t row, uint64_t rows, uint32_t dtype,
                                  const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const int wide = dtype == QEM_DTYPE_F32;
    const uint32_t size = wide ? 4 : 2, elements = (16 / size) >> d.levels, codes = d.dim < elements ? elements / d.dim : 1;
    slab_rows in = slab_rows();
    in.codes = d.codes;
    in.group = d.group;
    in.book = d.book;
    in.book_half = d.book_half;
    in.slab = stage.slab[wide];
    in.first_bit = (row - d.row_begin) * d.row_bits;
    in.row_bits = d.row_bits;
    in.rows = rows;
    in.rows_of_block = rows_of_block(rows, stage.slabs[wide].count, grid.processors);
    in.group_stride = d.group_stride;
    in.dim = d.dim;
    in.bits = d.code_bits;
    in.dtype = dtype;
    in.narrow = codes * d.code_bits <= 32;
    in.parts = d.dim < elements ? 1 : d.dim / elements;
    if (d.levels) { /* one level: its map begins at the first row's first pair */
        in.map = d.map;
        in.pairs = d.groups * d.dim / 2;
        in.map_bit = (row - d.row_begin) * in.pairs;
        in.larger = d.groups / 2;
    }
    const dim3 blocks(stage.slabs[wide].count, (uint32_t)((rows - 1) / in.rows_of_block + 1));
    const uint32_t shared = (stage.slabs[wide].floats * size + 15) / 16 * 16;
    switch (codes) {
    case 1: return d.levels ? launch<1, 1>(in, to, blocks, shared, stream) : launch<1, 0>(in, to, blocks, shared, stream);
    case 2: return d.levels ? launch<2, 1>(in, to, blocks, shared, stream) : launch<2, 0>(in, to, blocks, shared, stream);
    case 4: return d.levels ? launch<4, 1>(in, to, blocks, shared, stream) : launch<4, 0>(in, to, blocks, shared, stream);
    default: return launch<8, 0>(in, to, blocks, shared, stream);
    }
}

cudaError_t qem_cuda_load_slabs(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(decode_slab<1, 0>), QEM_KERNEL(decode_slab<2, 0>), QEM_KERNEL(decode_slab<4, 0>),
        QEM_KERNEL(decode_slab<8, 0>), QEM_KERNEL(decode_slab<1, 1>), QEM_KERNEL(decode_slab<2, 1>),
        QEM_KERNEL(decode_slab<4, 1>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
