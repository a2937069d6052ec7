/* The QEM_SUM_LANES lanes of a sum (products.h) in the vectors of one instruction set; for the templates of products. */
#ifndef QEM_CPU_PRODUCT_LANES_H
#define QEM_CPU_PRODUCT_LANES_H

#include "products.h"

#define PARTS (QEM_SUM_LANES / LANES)

typedef struct lanes16 {
    vf part[PARTS];
} lanes16;

#define EACH_PART QEM_UNROLL for (int part = 0; part < PARTS; part++)

QEM_INLINE lanes16 lanes16_zero(void)
{
    lanes16 a;
    EACH_PART a.part[part] = vf_set1(0.0f);
    return a;
}
QEM_INLINE lanes16 lanes16_load(const float *p)
{
    lanes16 a;
    EACH_PART a.part[part] = vf_load(p + part * LANES);
    return a;
}
QEM_INLINE void lanes16_store(float *p, lanes16 a)
{
    EACH_PART vf_store(p + part * LANES, a.part[part]);
}
QEM_INLINE lanes16 lanes16_add(lanes16 a, lanes16 b)
{
    EACH_PART a.part[part] = vf_add(a.part[part], b.part[part]);
    return a;
}
QEM_INLINE lanes16 lanes16_fmadd(lanes16 a, lanes16 b, lanes16 c)
{
    EACH_PART c.part[part] = vf_fmadd(a.part[part], b.part[part], c.part[part]);
    return c;
}

/* Of the first n < 16 lanes only: nothing past them is read, and the other lanes of the sum stay as they are. */
QEM_INLINE size_t first_of_part(size_t n, int part)
{
    const size_t before = (size_t)part * LANES;
    return n <= before ? 0 : n - before < LANES ? n - before : LANES;
}
QEM_INLINE lanes16 lanes16_load_first(const float *p, size_t n)
{
    lanes16 a;
    EACH_PART a.part[part] = vf_load_where(vm_first(first_of_part(n, part)), p + part * LANES);
    return a;
}
QEM_INLINE lanes16 lanes16_fmadd_first(lanes16 a, lanes16 b, lanes16 c, size_t n)
{
    EACH_PART c.part[part] = vf_select(vm_first(first_of_part(n, part)), vf_fmadd(a.part[part], b.part[part], c.part[part]),
                                       c.part[part]);
    return c;
}

/* Four sums side by side: halves of 8 and 4 lanes by vf_fold, then l and l+2, then l and l+1 for all four together. */
QEM_INLINE __m128 lanes16_sum4(lanes16 a, lanes16 b, lanes16 c, lanes16 d)
{
    const __m128 qa = vf_fold(a.part), qb = vf_fold(b.part), qc = vf_fold(c.part), qd = vf_fold(d.part);
    const __m128 ab = _mm_add_ps(_mm_movelh_ps(qa, qb), _mm_movehl_ps(qb, qa));
    const __m128 cd = _mm_add_ps(_mm_movelh_ps(qc, qd), _mm_movehl_ps(qd, qc));
    return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xdd));
}

#endif
