/* Unpacking of whole vectors of codes from a bit stream, for one instruction set. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Four codes of at most 24 bits, wherever they start in a byte, lie in 13 bytes: each 16-byte quarter of a vector is loaded
 * from the byte of its first code, a byte shuffle brings the 4 bytes of each code to its lane, and shifts do the rest. LANES
 * codes are a whole number of bytes, so shuffle and shifts are the same for every vector. A quarter starts at a byte of the
 * stream and so reads at most 15 bytes past the end.
 */
typedef struct unpack_plan {
    size_t quarter[LANES / 4];
    int whole_bytes; /* codes of 8 bits at a byte: widening is all there is to do */
    vi shuffle, shift, mask;
} unpack_plan;

static inline void plan_unpack(unpack_plan *plan, uint32_t first_bit, uint32_t bits)
{
    uint8_t shuffle[LANES * 4];
    uint32_t shift[LANES];
    for (uint32_t i = 0; i < LANES; i++) {
        const uint32_t bit = first_bit + i * bits;
        if (i % 4 == 0) plan->quarter[i / 4] = bit / 8;
        for (uint32_t b = 0; b < 4; b++) shuffle[i * 4 + b] = (uint8_t)(bit / 8 - plan->quarter[i / 4] + b);
        shift[i] = bit % 8;
    }
    plan->whole_bytes = bits == 8 && first_bit == 0;
    plan->shuffle = vi_load(shuffle);
    plan->shift = vi_load(shift);
    plan->mask = vi_set1((1u << bits) - 1u);
}

QEM_INLINE vi unpack_quarters(const unpack_plan *plan, const uint8_t *from, const size_t *quarter)
{
    const vi bytes = vi_shuffle_bytes(vi_load_quarters(from, quarter), plan->shuffle);
    return vi_and(vi_shift_right_each(bytes, plan->shift), plan->mask);
}

/* LANES codes, the first of which lies in the byte at `from`. */
QEM_INLINE vi unpack_vector(const unpack_plan *plan, const uint8_t *from)
{
    return plan->whole_bytes ? vi_load_u8(from) : unpack_quarters(plan, from, plan->quarter);
}

/* The same where the stream has `count` <= LANES more codes; the other lanes hold anything. */
QEM_INLINE vi unpack_first(const unpack_plan *plan, const uint8_t *from, size_t count)
{
    size_t quarter[LANES / 4];
    if (plan->whole_bytes) return vi_load_u8(from);
    QEM_UNROLL
    for (size_t q = 0; q < LANES / 4; q++) quarter[q] = 4 * q < count ? plan->quarter[q] : 0;
    return unpack_quarters(plan, from, quarter);
}
