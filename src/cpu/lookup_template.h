/* lookup() for one instruction set. */
#include "kernels.h"
#include "simd_kernels.h"

/* The indices of the gathers are 32 bits wide and signed, in floats from the entry of the vector's first code. */
#define GATHER_STRIDE_LIMIT ((size_t)1 << 26)

/* Entries of 1 or 2 floats by gathers; returns how many codes were done. */
QEM_INLINE size_t gather_entries(const float *codebook, size_t group_stride, uint32_t dim, const uint32_t *codes, size_t n,
                                 float *out)
{
    uint32_t offset[LANES];
    size_t i = 0;
    if (group_stride >= GATHER_STRIDE_LIMIT) return 0;
    for (uint32_t lane = 0; lane < LANES; lane++) offset[lane] = lane * (uint32_t)group_stride;
    const vi lanes = vi_load(offset);
    for (; i + LANES <= n; i += LANES) {
        const float *base = codebook + i * group_stride;
        const vi index = vi_add(lanes, vi_shift_left(vi_load(codes + i), dim == 2));
        vf first, second;
        if (dim == 2) {
            vf_gather_pairs(base, index, &first, &second);
            vf_store(out + 2 * i, first);
            vf_store(out + 2 * i + LANES, second);
        } else {
            vf_store(out + i, vf_gather(base, index));
        }
    }
    return i;
}

QEM_INLINE void copy_floats(const float *from, uint32_t dim, float *to)
{
    if (dim <= 8) { /* a constant: some moves */
        memcpy(to, from, dim * sizeof *to);
        return;
    }
    for (uint32_t p = 0; p + 8 < dim; p += 8) _mm256_storeu_ps(to + p, _mm256_loadu_ps(from + p));
    _mm256_storeu_ps(to + dim - 8, _mm256_loadu_ps(from + dim - 8)); /* overlaps the one before */
}

QEM_INLINE void copy_entries(const float *codebook, size_t group_stride, uint32_t dim, const uint32_t *codes, size_t n,
                             float *out)
{
    for (size_t i = 0; i < n; i++) copy_floats(codebook + i * group_stride + (size_t)codes[i] * dim, dim, out + i * dim);
}

void QEM_SIMD(lookup)(const float *codebook, size_t group_stride, uint32_t dim, const uint32_t *codes, size_t n, float *out)
{
    size_t i = 0;
    if (n == 0) return; /* the pointers may be NULL then */
    switch (dim) {
    case 1:
        i = gather_entries(codebook, group_stride, 1, codes, n, out);
        copy_entries(codebook + i * group_stride, group_stride, 1, codes + i, n - i, out + i);
        break;
    case 2:
        i = gather_entries(codebook, group_stride, 2, codes, n, out);
        copy_entries(codebook + i * group_stride, group_stride, 2, codes + i, n - i, out + 2 * i);
        break;
    case 3: copy_entries(codebook, group_stride, 3, codes, n, out); break;
    case 4: copy_entries(codebook, group_stride, 4, codes, n, out); break;
    case 5: copy_entries(codebook, group_stride, 5, codes, n, out); break;
    case 6: copy_entries(codebook, group_stride, 6, codes, n, out); break;
    case 7: copy_entries(codebook, group_stride, 7, codes, n, out); break;
    case 8: copy_entries(codebook, group_stride, 8, codes, n, out); break;
    case 16: copy_entries(codebook, group_stride, 16, codes, n, out); break;
    default: copy_entries(codebook, group_stride, dim, codes, n, out); break;
    }
}
