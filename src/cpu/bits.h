/* Runs of bits at any bit position of a stream, least significant bit first. */
#ifndef QEM_CPU_BITS_H
#define QEM_CPU_BITS_H

#include <stdint.h>

/* words = the `count` bits from `first_bit` on; the rest of the last word is 0. Reads only bytes that hold such bits. */
static inline void qem_bits_read(const uint8_t *stream, uint64_t first_bit, uint64_t count, uint64_t *words)
{
    const uint8_t *s = stream + first_bit / 8;
    const uint32_t shift = (uint32_t)(first_bit % 8);
    for (uint64_t done = 0; done < count; done += 64, s += 8) {
        const uint32_t n = count - done < 64 ? (uint32_t)(count - done) : 64;
        const uint32_t bytes = (shift + n + 7) / 8; /* 1 .. 9 */
        uint64_t word = 0;
        for (uint32_t b = 0; b < bytes && b < 8; b++) word |= (uint64_t)s[b] << (8 * b);
        word >>= shift;
        if (bytes == 9) word |= (uint64_t)s[8] << (64 - shift);
        words[done / 64] = n == 64 ? word : word & (((uint64_t)1 << n) - 1);
    }
}

/* Sets the bits (the stream holds zeros there). Bytes are set by atomic or, because a neighbour's run, written by another
 * thread, may share the first and the last one. */
static inline void qem_bits_write(uint8_t *stream, uint64_t first_bit, const uint64_t *words, uint64_t count)
{
    const uint32_t shift = (uint32_t)(first_bit % 8);
    uint8_t *s = stream + first_bit / 8;
    uint32_t carry = 0; /* bits of the byte begun */
    for (uint64_t done = 0; done < count; done += 64) {
        const uint32_t n = count - done < 64 ? (uint32_t)(count - done) : 64;
        uint64_t word = words[done / 64];
        const int last = done + 64 >= count;
        const uint32_t bytes = last ? (shift + n + 7) / 8 : 8;
        for (uint32_t b = 0; b < bytes; b++) {
            const uint32_t here = carry | (b < 8 ? (uint32_t)((word & 0xff) << shift) : 0);
            if (here & 0xff) __atomic_fetch_or(s, (uint8_t)here, __ATOMIC_RELAXED);
            carry = here >> 8;
            word >>= 8;
            s++;
        }
    }
}

#endif
