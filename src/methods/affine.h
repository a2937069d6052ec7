/* Scales and means of one step of de-standardization: stored as params says, and brought back as the decoder has them. */
#ifndef QEM_METHODS_AFFINE_H
#define QEM_METHODS_AFFINE_H

#include "../backend.h"

/* An empty step with its sizes set: axis, block (0 unless the axis is blocks), params 32, 16 or 4 .. 8 (0 = 16). */
qem_affine qem_affine_make(qem_axis axis, uint64_t block, uint32_t params, uint64_t rows, uint64_t cols);

/* Zeroed tables of f32 for values to be stored: a->scale if has_scale, a->mean if has_mean, where they are not there yet. */
qem_status qem_affine_alloc(qem_context *context, qem_affine *a);

/*
 * Going in, a->scale and a->mean hold the values wanted; coming out, what is stored and, in a->scale and a->mean, what
 * decoders make of it. Scales are >= 0. Rounding is to nearest, except that
 *   - a scale in 4..8 bits is at least one step where it is not 0, and its super-scale is the least f16 not below the
 *     largest;
 *   - a scale that f16 would round to 0 (in 4..8 bits: any) becomes 0 where it is below 2^-24 of the largest of the step:
 *     f32 arithmetic would lose it beside that one. Else it is RANGE, as is a value beyond f16, and the mean of a unit with
 *     scale 0 that would round to 0.
 * The text names the value and says that f32 would hold it. A table that is there already (*_stored set) is left alone, so
 * that means may be stored first and scales computed about them. On an error the step holds what it held, for
 * qem_affine_release.
 */
qem_status qem_affine_store(qem_context *context, qem_affine *a);

/* Of a step with scales stored in 4..8 bits: their integers, and other ones under the same super-scales (expanded again). */
void qem_affine_scale_codes(const qem_affine *a, uint8_t *codes);
qem_status qem_affine_set_scale_codes(qem_context *context, qem_affine *a, const uint8_t *codes);

/* Ends a step that no artifact owns. */
void qem_affine_release(qem_context *context, qem_affine *a);

/* A step as the primitives of standardization take it: tables in host memory. */
static inline qem_decode_affine qem_affine_view(const qem_affine *a)
{
    const qem_decode_affine view = { a->axis, a->block, a->has_scale ? a->scale : NULL, a->has_mean ? a->mean : NULL };
    return view;
}

static inline void qem_affine_views(const qem_affine *steps, uint32_t count, qem_decode_affine *views)
{
    for (uint32_t s = 0; s < count; s++) views[s] = qem_affine_view(&steps[s]);
}

#endif
