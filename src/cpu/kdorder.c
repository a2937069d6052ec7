/*
 * Recursive splits at the middle of the widest dimension, by selection, on records of the components and the number of the
 * point. Results of the search do not depend on this order, only its speed does.
 */
#include "kdorder.h"

#include <string.h>

typedef struct records {
    uint32_t *word; /* [count][size]: components as floats, then the number */
    uint32_t size, dim, leaf;
} records;

static float component(const records *r, size_t i, uint32_t p)
{
    float x;
    memcpy(&x, r->word + i * r->size + p, sizeof x);
    return x;
}

static void swap_records(const records *r, size_t a, size_t b)
{
    uint32_t *x = r->word + a * r->size, *y = r->word + b * r->size;
    for (uint32_t w = 0; w < r->size; w++) {
        const uint32_t swap = x[w];
        x[w] = y[w];
        y[w] = swap;
    }
}

static float median_of_three(float a, float b, float c)
{
    const float low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Places begin .. middle-1 get the smaller, middle .. end-1 the larger values of component p (selection as Hoare and Wirth
 * wrote it: values equal to the pivot are swapped, so many equal ones do no harm). */
static void select_middle(const records *r, size_t begin, size_t end, size_t middle, uint32_t p)
{
    ptrdiff_t left = (ptrdiff_t)begin, right = (ptrdiff_t)end - 1;
    const ptrdiff_t k = (ptrdiff_t)middle;
    while (left < right) {
        const float pivot = median_of_three(component(r, (size_t)left, p), component(r, (size_t)(left + (right - left) / 2), p),
                                            component(r, (size_t)right, p));
        ptrdiff_t i = left, j = right;
        while (i <= j) {
            while (component(r, (size_t)i, p) < pivot) i++;
            while (component(r, (size_t)j, p) > pivot) j--;
            if (i > j) break;
            swap_records(r, (size_t)i++, (size_t)j--);
        }
        if (j < k) left = i;
        if (k < i) right = j;
    }
}

static uint32_t widest(const records *r, size_t begin, size_t end)
{
    uint32_t best = 0;
    float best_width = -1.0f;
    const size_t step = (end - begin) / 1024 + 1; /* a sample will do */
    for (uint32_t p = 0; p < r->dim; p++) {
        float low = component(r, begin, p), high = low;
        for (size_t i = begin; i < end; i += step) {
            const float x = component(r, i, p);
            low = x < low ? x : low;
            high = x > high ? x : high;
        }
        if (high - low > best_width) {
            best_width = high - low;
            best = p;
        }
    }
    return best;
}

static void split(const records *r, size_t begin, size_t end)
{
    while (end - begin > r->leaf) {
        size_t half = r->leaf; /* leaf * 2^i, at least half of the range: runs of that length stay together */
        while (2 * half < end - begin) half *= 2;
        const size_t middle = begin + half;
        select_middle(r, begin, end, middle, widest(r, begin, end));
        split(r, middle, end);
        end = middle;
    }
}

void qem_kd_order(float *x, size_t ld, size_t count, uint32_t dim, uint32_t leaf, uint32_t *order, uint32_t *scratch)
{
    const records r = { scratch, dim + 1, dim, leaf };
    for (size_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < dim; p++) memcpy(scratch + i * r.size + p, x + p * ld + i, sizeof(float));
        scratch[i * r.size + dim] = (uint32_t)i;
    }
    split(&r, 0, count);
    for (size_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < dim; p++) x[p * ld + i] = component(&r, i, p);
        order[i] = scratch[i * r.size + dim];
    }
}
