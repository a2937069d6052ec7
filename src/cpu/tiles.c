#include "tiles.h"

#include <math.h>

void qem_boxes_layout(qem_boxes *box, uint64_t count, uint32_t dim, uint32_t lanes, qem_arena *arena)
{
    box->ld = qem_round_up((count + lanes - 1) / lanes, lanes);
    box->super_ld = qem_round_up(box->ld / lanes, lanes); /* those in the padding have no boxes, and are never within reach */
    box->low = qem_take(arena, (uint64_t)box->ld * dim, sizeof(float));
    box->high = qem_take(arena, (uint64_t)box->ld * dim, sizeof(float));
    box->super_low = qem_take(arena, (uint64_t)box->super_ld * dim, sizeof(float));
    box->super_high = qem_take(arena, (uint64_t)box->super_ld * dim, sizeof(float));
}

void qem_tree_layout(qem_centroid_tree *tree, uint64_t k, uint32_t dim, uint32_t lanes, qem_arena *arena)
{
    qem_boxes_layout(&tree->box, k, dim, lanes, arena);
    tree->ld = tree->box.ld * lanes; /* the boxes in the padding have places too */
    tree->c = qem_take(arena, (uint64_t)tree->ld * dim, sizeof(float));
    tree->h = qem_take(arena, tree->ld, sizeof(float));
    tree->index = qem_take(arena, tree->ld, sizeof(uint32_t));
}

/* Box number b from the extremes of from[first .. last-1]. */
static void fit_box(const float *from_low, const float *from_high, size_t first, size_t last, float *low, float *high)
{
    float lo = INFINITY, hi = -INFINITY;
    for (size_t i = first; i < last; i++) {
        lo = from_low[i] < lo ? from_low[i] : lo;
        hi = from_high[i] > hi ? from_high[i] : hi;
    }
    *low = lo;
    *high = hi;
}

void qem_boxes_fit(qem_boxes *box, const float *x, size_t ld, size_t count, uint32_t dim, uint32_t lanes)
{
    for (uint32_t p = 0; p < dim; p++) {
        float *low = box->low + p * box->ld, *high = box->high + p * box->ld;
        float *super_low = box->super_low + p * box->super_ld, *super_high = box->super_high + p * box->super_ld;
        for (size_t b = 0; b < box->ld; b++) {
            const size_t first = b * lanes, last = first + lanes < count ? first + lanes : count;
            fit_box(x + p * ld, x + p * ld, first, last, &low[b], &high[b]);
        }
        for (size_t s = 0; s < box->super_ld; s++) {
            const size_t first = s * lanes, last = first + lanes < box->ld ? first + lanes : box->ld;
            fit_box(low, high, first, last, &super_low[s], &super_high[s]);
        }
    }
}

void qem_tiles_squares(qem_tiles *tiles, const float *x, size_t ld, size_t count, uint32_t dim, uint32_t lanes)
{
    for (size_t b = 0; b < tiles->box.ld; b++) {
        float most = 0.0f;
        for (size_t i = b * lanes; i < (b + 1) * lanes && i < count; i++) {
            float s = 0.0f;
            for (uint32_t p = 0; p < dim; p++) s += x[p * ld + i] * x[p * ld + i];
            most = s > most ? s : most;
        }
        tiles->square[b] = most * 1.00001f;
    }
}
