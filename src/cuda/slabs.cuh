/* What the kernels that work by slabs (slabs.cu) share: the slabs' limits, and codebooks in shared memory. */
#ifndef QEM_CUDA_SLABS_CUH
#define QEM_CUDA_SLABS_CUH

#include "chunks.cuh"

#define QEM_CUDA_SLAB_BYTES 32768 /* of codebooks in the type of the output: several blocks a multiprocessor */
#define QEM_CUDA_SLAB_CHUNKS 32   /* threads that work on a row */
#define QEM_CUDA_SHARED_BOOK_BYTES 8192 /* larger shared codebooks are read through L1: their copies would not pay */

/* Codebooks by group, and the codes that go with them. */
struct qem_cuda_books {
    const qem_cuda_group *group; /* NULL: codes of one width, one after the other */
    const float *book;
    const uint16_t *book_half;
    uint64_t group_stride; /* floats of each codebook; 0: of dim << (its width) */
    uint32_t dim, bits, dtype;
};

/* Where group g's codes and codebook begin, and the width of its codes. */
struct qem_cuda_group_place {
    uint64_t bit, entry;
    uint32_t bits;
};

__device__ __forceinline__ qem_cuda_group_place qem_group_place(const qem_cuda_books &in, uint64_t g)
{
    qem_cuda_group_place place;
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
__device__ __forceinline__ void qem_fill_table(const qem_cuda_books &in, uint64_t first, uint32_t floats,
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
__device__ __forceinline__ uint32_t qem_fill_groups(const qem_cuda_books &in, uint64_t first, uint32_t groups,
                                                    unsigned char *table)
{
    const uint64_t base = qem_group_place(in, first).entry;
    const qem_cuda_group_place last = qem_group_place(in, first + groups - 1);
    const uint32_t of_last = in.group_stride ? (uint32_t)in.group_stride : in.dim << last.bits;
    const uint32_t floats = (uint32_t)(last.entry - base) + of_last;
    qem_fill_table(in, base, floats, table);
    return floats;
}

static inline qem_cuda_books qem_cuda_books_of(const qem_cuda_host_stage &stage, uint32_t dtype)
{
    const qem_cuda_stage &d = stage.on_device;
    const qem_cuda_books books = { d.group, d.book,      d.book_half, stage.mixed ? 0 : d.group_stride,
                                   d.dim,   d.code_bits, dtype };
    return books;
}

/* Blocks enough for the device, each with rows enough to pay for its codebooks. */
static inline uint64_t qem_cuda_rows_of_block(uint64_t rows, uint32_t slabs, uint32_t processors)
{
    const uint64_t blocks = ((uint64_t)processors * 4 + slabs - 1) / slabs, least = 64;
    const uint64_t share = (rows + blocks - 1) / blocks, most = (rows + 65534) / 65535; /* a grid is 65535 high at most */
    return share > least ? (share > most ? share : most) : least > most ? least : most;
}

#endif
