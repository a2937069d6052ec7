/*
 * Lookups in a shared codebook whose entries are the decoded values, in the type of the output.
 *
 * Bytes an element: code_bits / (8 * dim) read and 2 or 4 written, which is the least; the codebook comes from L1, L2 or
 * shared memory. codes_of_bytes(): codes of 8 bits, dim 1, 2, 4, 8; blocks stay and read the codes of their next tile, 16
 * bytes a lane, while they write the present one. codes_of_bits(): codes of any width and codebooks of any size, which are
 * read through L1.
 */
#include "chunks.cuh"

/* Chunks that a block of codes_of_bits() makes at once: their codes are whole vectors, whatever the width. */
#define TILE QEM_CHUNK_TILE

/* ---- entries ---- */

/* What one entry gives to a chunk, 4, 8 or 16 bytes. */
template <int WORDS> struct entry_words {
    uint32_t word[WORDS];
};

template <int WORDS> __device__ __forceinline__ entry_words<WORDS> load_entry(const unsigned char *at)
{
    entry_words<WORDS> entry;
    if (WORDS == 4) {
        const uint4 v = *(const uint4 *)at;
        entry.word[0] = v.x, entry.word[1 % WORDS] = v.y, entry.word[2 % WORDS] = v.z, entry.word[3 % WORDS] = v.w;
    } else if (WORDS == 2) {
        const uint2 v = *(const uint2 *)at;
        entry.word[0] = v.x, entry.word[1 % WORDS] = v.y;
    } else {
        entry.word[0] = *(const uint32_t *)at;
    }
    return entry;
}

template <int WORDS> __device__ __forceinline__ entry_words<WORDS> fetch_entry(const unsigned char *at)
{
    entry_words<WORDS> entry;
    if (WORDS == 4) {
        const uint4 v = __ldg((const uint4 *)at);
        entry.word[0] = v.x, entry.word[1 % WORDS] = v.y, entry.word[2 % WORDS] = v.z, entry.word[3 % WORDS] = v.w;
    } else if (WORDS == 2) {
        const uint2 v = __ldg((const uint2 *)at);
        entry.word[0] = v.x, entry.word[1 % WORDS] = v.y;
    } else {
        entry.word[0] = __ldg((const uint32_t *)at);
    }
    return entry;
}

/* A chunk of CODES entries of BYTES bytes each (2, 4, 8, 16); offset(i) is where the i-th lies in the codebook. */
template <int CODES, int BYTES, bool SHARED, typename Offset>
__device__ __forceinline__ uint4 chunk_of(const unsigned char *book, Offset offset)
{
    constexpr int words = BYTES < 4 ? 1 : BYTES / 4;
    uint32_t chunk[4];
#pragma unroll
    for (int i = 0; i < CODES; i++) {
        const unsigned char *at = book + offset(i);
        if (BYTES == 2) {
            const uint32_t half = SHARED ? *(const uint16_t *)at : __ldg((const uint16_t *)at);
            if (i % 2)
                chunk[i / 2 % 4] |= half << 16;
            else
                chunk[i / 2 % 4] = half;
        } else {
            const entry_words<words> entry = SHARED ? load_entry<words>(at) : fetch_entry<words>(at);
#pragma unroll
            for (int w = 0; w < words; w++) chunk[(i * words + w) % 4] = entry.word[w];
        }
    }
    return make_uint4(chunk[0], chunk[1], chunk[2], chunk[3]);
}

/* ---- codes of 8 bits ---- */

/* The codes of a chunk, CODES bytes, aligned as such. */
template <int CODES> struct chunk_codes {
    uint32_t low, high;
    __device__ __forceinline__ explicit chunk_codes(const unsigned char *at) : low(0), high(0)
    {
        if (CODES == 1) low = *at;
        if (CODES == 2) low = *(const uint16_t *)at;
        if (CODES == 4) low = *(const uint32_t *)at;
        if (CODES == 8) {
            const uint2 both = *(const uint2 *)at;
            low = both.x, high = both.y;
        }
    }
    /* Of the i-th code's entry in a table of entries of 1 << SHIFT bytes. */
    template <int SHIFT> __device__ __forceinline__ uint32_t offset(int i) const
    {
        const uint32_t word = i < 4 ? low : high;
        const int bit = 8 * (i % 4);
        return (bit < SHIFT ? word << ((SHIFT - bit) & 31) : word >> ((bit - SHIFT) & 31)) & (255u << SHIFT);
    }
};

template <int CODES> struct bytes_shape {
    static constexpr int per_thread = CODES == 8 ? 2 : 4; /* chunks of a tile */
    static constexpr uint32_t chunks = per_thread * QEM_CHUNK_THREADS;
    static constexpr uint32_t vectors = chunks * CODES / 16; /* of codes, at most one a thread */
};

template <int CODES, int BYTES>
__device__ __forceinline__ uint4 chunk_of_bytes(const unsigned char *table, const unsigned char *at)
{
    constexpr int shift = BYTES == 16 ? 4 : BYTES == 8 ? 3 : BYTES == 4 ? 2 : 1;
    const chunk_codes<CODES> codes(at);
    return chunk_of<CODES, BYTES, true>(table, [&](int i) { return codes.template offset<shift>(i); });
}

template <int CODES, int BYTES>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS)
    codes_of_bytes(qem_cuda_codes from, const uint4 *book, uint32_t book_vectors, qem_cuda_chunks to)
{
    using shape = bytes_shape<CODES>;
    static_assert(shape::vectors <= QEM_CHUNK_THREADS, "a thread loads at most one vector of a tile");
    QEM_DYNAMIC_SHARED(uint4, shared); /* 256 entries, then the vectors of a tile and one more */
    uint4 *const staged = shared + 256 * BYTES / 16;
    const uint32_t t = threadIdx.x;
    const unsigned char *const table = (const unsigned char *)shared;
    const unsigned char *const codes =
        (const unsigned char *)staged + from.phase / 8 + t * CODES; /* of the thread's first chunk */
    uint64_t tile = blockIdx.x;
    for (uint32_t v = t; v < book_vectors; v += QEM_CHUNK_THREADS) shared[v] = __ldg(book + v);
    uint4 next = make_uint4(0, 0, 0, 0), last = next; /* where rows begin within a vector, a tile takes one more */
    if (t < shape::vectors) next = qem_load_codes(from, tile, t);
    if (t == 0 && from.phase) last = qem_load_codes(from, tile, shape::vectors);
    for (; tile * shape::chunks < to.count; tile += gridDim.x) {
        __syncthreads(); /* the tile before has been read */
        if (t < shape::vectors) staged[t] = next;
        if (t == 0) staged[shape::vectors] = last;
        __syncthreads();
        if (t < shape::vectors) next = qem_load_codes(from, tile + gridDim.x, t);
        if (t == 0 && from.phase) last = qem_load_codes(from, tile + gridDim.x, shape::vectors);
        if (to.contiguous && (tile + 1) * shape::chunks <= to.count) { /* most tiles: nothing to ask for each chunk */
            uint4 *const out = (uint4 *)to.out + tile * shape::chunks + t;
#pragma unroll
            for (int j = 0; j < shape::per_thread; j++)
                qem_store_once(out + j * QEM_CHUNK_THREADS,
                               chunk_of_bytes<CODES, BYTES>(table, codes + j * QEM_CHUNK_THREADS * CODES));
        } else {
            const qem_cuda_tile at = qem_tile_at(to, tile * shape::chunks);
#pragma unroll 1
            for (uint32_t local = t; local < at.left && local < shape::chunks; local += QEM_CHUNK_THREADS)
                qem_store_chunk(to, at, local, chunk_of_bytes<CODES, BYTES>(table, codes + (local - t) * CODES));
        }
    }
}

/* ---- codes of any width ---- */

/* An entry makes 1 / CODES of a chunk, or 1 << parts_shift chunks (CODES is 1 then, and BYTES 16). */
struct bits_shape {
    uint32_t bits, mask, parts_shift;
    uint32_t stride;  /* bytes from entry to entry */
    uint32_t vectors; /* that are staged for a tile */
};

template <int CODES, int BYTES>
static __global__ void __launch_bounds__(QEM_CHUNK_THREADS)
    codes_of_bits(qem_cuda_codes from, const unsigned char *book, bits_shape shape, qem_cuda_chunks to)
{
    QEM_DYNAMIC_SHARED(uint4, staged);
    const uint32_t *const words = (const uint32_t *)staged;
    for (uint64_t tile = blockIdx.x; tile * TILE < to.count; tile += gridDim.x) {
        __syncthreads();
        for (uint32_t v = threadIdx.x; v < shape.vectors; v += QEM_CHUNK_THREADS) staged[v] = qem_load_codes(from, tile, v);
        __syncthreads();
        const qem_cuda_tile at = qem_tile_at(to, tile * TILE);
#pragma unroll
        for (int j = 0; j < TILE / QEM_CHUNK_THREADS; j++) {
            const uint32_t local = j * QEM_CHUNK_THREADS + threadIdx.x, part = local & ((1u << shape.parts_shift) - 1u);
            const uint32_t first = from.phase + (local >> shape.parts_shift) * CODES * shape.bits;
            if (local >= at.left) break;
            qem_store_chunk(to, at, local, chunk_of<CODES, BYTES, false>(book, [&](int i) {
                                const uint32_t code = qem_staged_code(words, first + (uint32_t)i * shape.bits, shape.mask);
                                return (size_t)code * shape.stride + part * 16;
                            }));
        }
    }
}

/* ---- which of them ---- */

int qem_cuda_takes_vectors(const qem_cuda_host_stage &stage, uint32_t elements)
{
    uint32_t parts_shift;
    return stage.rounded[0] && qem_cuda_codes_of_chunk(stage.on_device.dim, elements, &parts_shift);
}

/* A launch, but for the instance. */
struct vectors_job {
    const qem_cuda_host_stage &stage;
    uint64_t row; /* of the stage */
    const void *book;
    uint32_t element_bytes, parts_shift;
    const qem_cuda_chunks &to;
    const qem_cuda_grid &grid;
    cudaStream_t stream;
};

template <int CODES, int BYTES> static cudaError_t launch_bytes(const vectors_job &job)
{
    using shape = bytes_shape<CODES>;
    const qem_cuda_codes from = qem_cuda_codes_from(job.stage.on_device, job.row, shape::vectors * 128);
    const uint32_t blocks = qem_cuda_persistent(job.grid, (job.to.count - 1) / shape::chunks + 1);
    return QEM_LAUNCH((codes_of_bytes<CODES, BYTES>), dim3(blocks), dim3(QEM_CHUNK_THREADS),
                      256 * BYTES + (shape::vectors + 1) * 16, job.stream, from, (const uint4 *)job.book,
                      (uint32_t)((job.stage.k * BYTES + 15) / 16), job.to);
}

template <int CODES, int BYTES> static cudaError_t launch_bits(const vectors_job &job)
{
    const uint32_t bits = job.stage.on_device.code_bits, tile_bits = (TILE >> job.parts_shift) * CODES * bits;
    const qem_cuda_codes from = qem_cuda_codes_from(job.stage.on_device, job.row, tile_bits);
    /* the last code may be read with the word after it */
    const bits_shape shape = { bits, (1u << bits) - 1u, job.parts_shift, job.stage.on_device.dim * job.element_bytes,
                               (from.phase + tile_bits + 32 + 127) / 128 };
    const uint32_t blocks = qem_cuda_persistent(job.grid, (job.to.count - 1) / TILE + 1);
    return QEM_LAUNCH((codes_of_bits<CODES, BYTES>), dim3(blocks), dim3(QEM_CHUNK_THREADS), shape.vectors * 16, job.stream,
                      from, (const unsigned char *)job.book, shape, job.to);
}

cudaError_t qem_cuda_decode_vectors(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream)
{
    const uint32_t size = dtype == QEM_DTYPE_F32 ? 4 : 2;
    const void *book = dtype == QEM_DTYPE_F32 ? (const void *)stage.on_device.book : stage.rounded[dtype == QEM_DTYPE_BF16];
    uint32_t parts_shift;
    const uint32_t codes = qem_cuda_codes_of_chunk(stage.on_device.dim, 16 / size, &parts_shift);
    const vectors_job job = { stage, row - stage.on_device.row_begin, book, size, parts_shift, to, grid, stream };
    const int whole_bytes = stage.on_device.code_bits == 8 && parts_shift == 0;
    switch (codes) {
    case 1: return whole_bytes ? launch_bytes<1, 16>(job) : launch_bits<1, 16>(job);
    case 2: return whole_bytes ? launch_bytes<2, 8>(job) : launch_bits<2, 8>(job);
    case 4: return whole_bytes ? launch_bytes<4, 4>(job) : launch_bits<4, 4>(job);
    default: return whole_bytes ? launch_bytes<8, 2>(job) : launch_bits<8, 2>(job);
    }
}

cudaError_t qem_cuda_load_vectors(void)
{
    const void *const kernels[] = {
        QEM_KERNEL(codes_of_bytes<1, 16>), QEM_KERNEL(codes_of_bytes<2, 8>), QEM_KERNEL(codes_of_bytes<4, 4>),
        QEM_KERNEL(codes_of_bytes<8, 2>),  QEM_KERNEL(codes_of_bits<1, 16>), QEM_KERNEL(codes_of_bits<2, 8>),
        QEM_KERNEL(codes_of_bits<4, 4>),   QEM_KERNEL(codes_of_bits<8, 2>),
    };
    cudaFuncAttributes attributes;
    for (const void *kernel : kernels) {
        const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
