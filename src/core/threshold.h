/* Where the codes of two neighbouring scalar levels meet. */
#ifndef QEM_CORE_THRESHOLD_H
#define QEM_CORE_THRESHOLD_H

#include <math.h>

/* The least float that is not below `middle`: comparing a float x with it is comparing x with middle itself, so that levels
 * which are neighbouring floats are kept apart. */
static inline float qem_threshold(double middle)
{
    const float t = (float)middle;
    return (double)t < middle ? nextafterf(t, INFINITY) : t;
}

#endif
