/*
 * What the fast kernels share. They make the output in chunks of 16 bytes, one a lane and those of a warp side by side, so
 * that every sector is written whole; a chunk lies within a row. Chunks are counted through the rows, as the codes of
 * shared codebooks are: those of consecutive chunks follow each other in the stream.
 *
 * None of them looks for values beyond f16 or bf16: they are taken only where the artifact's bound says that there are
 * none.
 */
#ifndef QEM_CUDA_CHUNKS_CUH
#define QEM_CUDA_CHUNKS_CUH

#include "artifact.cuh"

#define QEM_CHUNK_THREADS 256

#define QEM_CHUNK_TILE 1024 /* chunks of a tile at most */

/* Where the chunks go. */
struct qem_cuda_chunks {
    unsigned char *out;
    uint64_t count;
    uint64_t reciprocal;      /* of per_row (qem_cuda_reciprocal); count * per_row < 2^64 makes it exact */
    uint64_t pitch;           /* bytes from row to row */
    uint32_t per_row;         /* below 2^31 */
    uint32_t tile_reciprocal; /* for chunks of a tile: 2^31 / per_row rounded up; 0: a tile touches two rows at most */
    uint32_t contiguous;      /* rows follow each other without a gap */
};

/* A tile of chunks; which row its first one is in, and which of that row. */
struct qem_cuda_tile {
    unsigned char *out; /* the first chunk's place, where rows are contiguous */
    uint64_t row;
    uint32_t chunk, left; /* left: chunks of the tile that there are */
};

__device__ __forceinline__ qem_cuda_tile qem_tile_at(const qem_cuda_chunks &to, uint64_t first)
{
    const uint64_t row = to.reciprocal ? __umul64hi(first, to.reciprocal) : first, left = to.count - first;
    const qem_cuda_tile tile = { to.out + first * 16, row, (uint32_t)(first - row * to.per_row),
                                 left < QEM_CHUNK_TILE ? (uint32_t)left : QEM_CHUNK_TILE };
    return tile;
}

/* Chunk `local` of the tile: the rows after the tile's first, and which chunk of that row. */
__device__ __forceinline__ uint2 qem_chunk_place(const qem_cuda_chunks &to, const qem_cuda_tile &tile, uint32_t local)
{
    const uint32_t chunk = tile.chunk + local;
    const uint32_t rows = to.tile_reciprocal ? __umulhi(2 * chunk + 1, to.tile_reciprocal) : chunk >= to.per_row;
    return make_uint2(rows, chunk - rows * to.per_row);
}

__device__ __forceinline__ void qem_store_chunk(const qem_cuda_chunks &to, const qem_cuda_tile &tile, uint32_t local,
                                                uint4 value)
{
    unsigned char *out = tile.out + local * 16u;
    if (!to.contiguous) {
        const uint2 place = qem_chunk_place(to, tile, local);
        out = to.out + (tile.row + place.x) * to.pitch + place.y * 16ull;
    }
    qem_store_once((uint4 *)out, value);
}

/* ---- codes of a tile in shared memory ---- */

/* A stream of codes: those of tile t begin at bit phase + t * tile_vectors * 128 from `codes`. */
struct qem_cuda_codes {
    const uint4 *codes;
    uint64_t vectors; /* of 16 bytes that may be read */
    uint32_t phase;   /* bits, below 128 */
    uint32_t tile_vectors;
};

/* Vector v of tile t, where it is not beyond the stream: then nothing of it is used. */
__device__ __forceinline__ uint4 qem_load_codes(const qem_cuda_codes &from, uint64_t tile, uint32_t v)
{
    const uint64_t at = tile * from.tile_vectors + v;
    return at < from.vectors ? qem_load_once(from.codes + at) : make_uint4(0, 0, 0, 0);
}

/* Code at `bit` of a tile in shared memory, of which the word after it may be read too. */
__device__ __forceinline__ uint32_t qem_staged_code(const uint32_t *staged, uint32_t bit, uint32_t mask)
{
    return __funnelshift_r(staged[bit >> 5], staged[(bit >> 5) + 1], bit & 31u) & mask;
}

/* ---- launches (host) ---- */

struct qem_cuda_grid {
    uint32_t processors, threads_per_processor;
};

/* As many blocks as the device runs at once, or fewer tiles. */
static inline uint32_t qem_cuda_persistent(const qem_cuda_grid &grid, uint64_t tiles)
{
    const uint32_t at_once = grid.threads_per_processor / QEM_CHUNK_THREADS;
    const uint64_t blocks = (uint64_t)grid.processors * (at_once ? at_once : 1);
    return (uint32_t)(tiles < blocks ? tiles : blocks);
}

/* The stream from a row's first code on. bits: of the codes of the chunks of a tile, a multiple of 128. */
static inline qem_cuda_codes qem_cuda_codes_from(const qem_cuda_stage &stage, uint64_t row, uint32_t bits)
{
    const uint64_t first = row * stage.row_bits;
    const uint64_t all = ((stage.row_end - stage.row_begin) * stage.row_bits + 7) / 8 + QEM_STREAM_SLACK;
    const qem_cuda_codes codes = { (const uint4 *)stage.codes + first / 128, (all + 15) / 16 - first / 128,
                                   (uint32_t)(first % 128), bits / 128 };
    return codes;
}

/* Codes that make a chunk of so many elements; 0 where they do not make whole ones. Or 1, and an entry makes
 * 1 << *parts_shift chunks, 8 at most. */
static inline uint32_t qem_cuda_codes_of_chunk(uint32_t dim, uint32_t elements, uint32_t *parts_shift)
{
    *parts_shift = 0;
    if (dim <= elements) return elements % dim ? 0 : elements / dim;
    while (dim > elements << *parts_shift) ++*parts_shift;
    return dim == elements << *parts_shift && *parts_shift <= 3 ? 1 : 0;
}

/* What each of the ways below takes, for chunks of so many elements; `row` counts from the artifact's first. */

/* Codes of a shared codebook that are nothing but looked up. */
int qem_cuda_takes_vectors(const qem_cuda_host_stage &stage, uint32_t elements);
cudaError_t qem_cuda_decode_vectors(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream);
cudaError_t qem_cuda_load_vectors(void);

/* Scalar codes of 1 .. 8 bits with one codebook and the steps of their layer: one of the tensor, of rows or of blocks, or
 * none, then one of columns or none. */
int qem_cuda_takes_scalars(const qem_cuda_host_stage &stage, uint32_t elements);
cudaError_t qem_cuda_decode_scalars(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream);
cudaError_t qem_cuda_load_scalars(void);

/* The same for codes of sub-vectors with a shared codebook. */
int qem_cuda_takes_stepped(const qem_cuda_host_stage &stage, uint32_t elements);
cudaError_t qem_cuda_decode_stepped(const qem_cuda_host_stage &stage, uint64_t row, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream);
cudaError_t qem_cuda_load_stepped(void);

/* Codebooks by group, in slabs. */
cudaError_t qem_cuda_decode_slabs(const qem_cuda_host_stage &stage, uint64_t row, uint64_t rows, uint32_t dtype,
                                  const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream);
cudaError_t qem_cuda_load_slabs(void);

/* Those and shared ones with levels of swaps that are laid out as swapped.cuh has it. */
cudaError_t qem_cuda_decode_swapped(const qem_cuda_host_stage &stage, uint64_t row, uint64_t rows, uint32_t dtype,
                                    const qem_cuda_chunks &to, const qem_cuda_grid &grid, cudaStream_t stream);
cudaError_t qem_cuda_load_swapped(void);

/* fast.cu: which way decodes a segment's rows, and that; *taken = 0: it is none of these, and nothing was enqueued. */
enum qem_cuda_way { QEM_CUDA_ANY, QEM_CUDA_VECTORS, QEM_CUDA_SCALARS, QEM_CUDA_STEPPED, QEM_CUDA_SLABS, QEM_CUDA_SWAPPED };
qem_cuda_way qem_cuda_way_of(const qem_device_artifact *artifact, const qem_cuda_segment &segment,
                             const qem_cuda_rows &rows);
cudaError_t qem_cuda_decode_fast(const qem_device_artifact *artifact, const qem_cuda_segment &segment,
                                 const qem_cuda_rows &rows, cudaStream_t stream, int *taken);

#endif
