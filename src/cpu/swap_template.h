/* pair_split() and pair_merge() for one instruction set. Values move bit by bit, only the comparison knows them as floats. */
#include "kernels.h"
#include "simd_kernels.h"

/* LANES pairs; returns their bits. */
QEM_INLINE uint64_t split_vector(const float *x, float *small, float *large)
{
    vf left, right;
    vf_unzip(vf_load(x), vf_load(x + LANES), &left, &right);
    const vm smaller = vf_lt(left, right);
    vf_store(small, vf_select(smaller, left, right));
    vf_store(large, vf_select(smaller, right, left));
    return vm_bits(smaller);
}

void QEM_SIMD(pair_split)(const float *x, size_t pairs, float *small, float *large, uint64_t *bits)
{
    for (size_t begin = 0; begin < pairs; begin += 64) {
        const size_t end = pairs - begin < 64 ? pairs : begin + 64;
        size_t j = begin;
        uint64_t word = 0;
        for (; j + LANES <= end; j += LANES) word |= split_vector(x + 2 * j, small + j, large + j) << (j - begin);
        for (; j < end; j++) {
            const int smaller = x[2 * j] < x[2 * j + 1];
            small[j] = x[2 * j + !smaller];
            large[j] = x[2 * j + smaller];
            word |= (uint64_t)smaller << (j - begin);
        }
        bits[begin / 64] = word;
    }
}

QEM_INLINE void merge_vector(const float *small, const float *large, uint32_t bits, float *x)
{
    const vm smaller = vm_from_bits(bits);
    const vf s = vf_load(small), l = vf_load(large);
    vf first, second;
    vf_zip(vf_select(smaller, s, l), vf_select(smaller, l, s), &first, &second);
    vf_store(x, first);
    vf_store(x + LANES, second);
}

void QEM_SIMD(pair_merge)(const float *small, const float *large, const uint64_t *bits, size_t pairs, float *x)
{
    for (size_t begin = 0; begin < pairs; begin += 64) {
        const size_t end = pairs - begin < 64 ? pairs : begin + 64;
        const uint64_t word = bits[begin / 64];
        size_t j = begin;
        for (; j + LANES <= end; j += LANES) merge_vector(small + j, large + j, (uint32_t)(word >> (j - begin)), x + 2 * j);
        for (; j < end; j++) {
            const int smaller = (word >> (j - begin)) & 1;
            x[2 * j + !smaller] = small[j];
            x[2 * j + smaller] = large[j];
        }
    }
}
