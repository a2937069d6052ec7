/*
 * Lookups in codebooks by group. A block has the codebooks of a slab of groups in shared memory, in the type of the output,
 * and makes that slab's columns of many rows; each thread the same chunk of every so-many-th row, so that what its codes
 * look like is worked out once, also where their widths differ by group.
 *
 * Bytes an element: code_bits / (8 * dim) and 2 or 4, which is the least but for the codebooks, which are read once by
 * every block of a slab. The codes of a row's slab are fewer bytes than a sector; neighbouring slabs find the rest in L2.
 */
#include "slabs.cuh"

/* Rows of a stage by slabs. */
struct slab_rows {
    qem_cuda_books books;
    const uint32_t *codes;
    const qem_cuda_slab *slab;
    uint64_t first_bit, row_bits; /* of the first row, of each row */
    uint64_t rows, rows_of_block;
    uint32_t narrow; /* the codes of a chunk have 32 bits at most */
    uint32_t parts;  /* chunks of an entry, where it makes more than one */
};

/* What the codes of a thread's chunk look like, the same in every row. */
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
    const uint64_t entry = qem_group_place(in.books, base).entry;
    places.bit = in.first_bit + qem_group_place(in.books, group).bit;
#pragma unroll
    for (int i = 0; i < CODES; i++) {
        const qem_cuda_group_place place = qem_group_place(in.books, group + i);
        places.shift[i] = (uint32_t)(in.first_bit + place.bit - places.bit);
        places.mask[i] = (1u << place.bits) - 1u;
        places.entry[i] = (uint32_t)(place.entry - entry) * size + part;
    }
}

/* A chunk from CODES entries. */
template <int CODES>
static __device__ __forceinline__ uint4 look_up(const slab_rows &in, const code_places<CODES> &places, uint64_t row,
                                                const unsigned char *table, uint32_t stride)
{
    constexpr int BYTES = 16 / CODES; /* of an entry */
    const uint64_t bit = places.bit + row * in.row_bits;
    const uint32_t *const words = in.codes + (bit >> 5);
    const uint32_t phase = (uint32_t)bit & 31u;
    uint32_t code[CODES], out[4];
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
            out[i / 2 % 4] = i % 2 ? out[i / 2 % 4] | half << 16 : half;
        } else if (BYTES == 4) {
            out[i % 4] = *(const uint32_t *)at;
        } else if (BYTES == 8) {
            const uint2 entry = *(const uint2 *)at;
            out[2 * i % 4] = entry.x;
            out[(2 * i + 1) % 4] = entry.y;
        } else {
            const uint4 entry = *(const uint4 *)at;
            out[0] = entry.x, out[1] = entry.y, out[2] = entry.z, out[3] = entry.w;
        }
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

template <int CODES>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS, 2) decode_slab(slab_rows in, qem_cuda_chunks to)
{
    QEM_DYNAMIC_SHARED(uint4, shared);
    unsigned char *const table = (unsigned char *)shared;
    const uint32_t size = in.books.dtype == QEM_DTYPE_F32 ? 4 : 2, t = threadIdx.x, stride = in.books.dim * size;
    const uint32_t first = __ldg(&in.slab[blockIdx.x].first), groups = __ldg(&in.slab[blockIdx.x].groups);
    const uint32_t chunks = CODES > 1 ? groups / CODES : groups * in.parts, rows_at_once = QEM_CHUNK_THREADS / chunks;
    (void)qem_fill_groups(in.books, first, groups, table);
    __syncthreads();

    const uint32_t chunk = t % chunks, part = CODES > 1 ? 0 : chunk % in.parts * 16;
    const uint64_t group = first + (CODES > 1 ? chunk * CODES : chunk / in.parts);
    const uint64_t chunk_of_row = (uint64_t)first * stride / 16 + chunk;
    code_places<CODES> places;
    find_codes(in, group, first, size, part, places);
    if (t / chunks >= rows_at_once) return; /* what is left over when rows are dealt out */
    const uint64_t begin = blockIdx.y * in.rows_of_block;
    const uint64_t end = in.rows - begin < in.rows_of_block ? in.rows : begin + in.rows_of_block;
    unsigned char *const out = to.out + chunk_of_row * 16;
#pragma unroll 2
    for (uint64_t row = begin + t / chunks; row < end; row += rows_at_once)
        qem_store_once((uint4 *)(out + row * to.pitch), look_up(in, places, row, table, stride));
}

template <int CODES>
static cudaError_t launch(const slab_rows &in, const qem_cuda_chunks &to, dim3 grid, uint32_t shared, cudaStream_t stream)
{
    return QEM_LAUNCH(decode_slab<CODES>, grid, dim3(QEM_CHUNK_THREADS), shared, stream, in, to);
}

cudaError_t qem_cuda_decode_slabs(const qem_cuda_host_stage &stage, uint64_t row, uint64_t rows, uint32_t dtype,
                                  const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    const qem_cuda_stage &d = stage.on_device;
    const int wide = dtype == QEM_DTYPE_F32;
    const uint32_t size = wide ? 4 : 2, elements = 16 / size, codes = d.dim < elements ? elements / d.dim : 1;
    slab_rows in = slab_rows();
    in.books = qem_cuda_books_of(stage, dtype);
    in.codes = d.codes;
    in.slab = stage.slab[wide];
    in.first_bit = (row - d.row_begin) * d.row_bits;
    in.row_bits = d.row_bits;
    in.rows = rows;
    in.rows_of_block = qem_cuda_rows_of_block(rows, stage.slabs[wide].count, grid.processors);
    in.narrow = codes * d.code_bits <= 32;
    in.parts = d.dim < elements ? 1 : d.dim / elements;
    const dim3 blocks(stage.slabs[wide].count, (uint32_t)((rows - 1) / in.rows_of_block + 1));
    const uint32_t shared = (stage.slabs[wide].floats * size + 15) / 16 * 16;
    switch (codes) {
    case 1: return launch<1>(in, to, blocks, shared, stream);
    case 2: return launch<2>(in, to, blocks, shared, stream);
    case 4: return launch<4>(in, to, blocks, shared, stream);
    default: return launch<8>(in, to, blocks, shared, stream);
    }
}

cudaError_t qem_cuda_load_slabs(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(decode_slab<1>),
        QEM_KERNEL(decode_slab<2>),
        QEM_KERNEL(decode_slab<4>),
        QEM_KERNEL(decode_slab<8>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
