#include "hyperchr_allocate.h"

#include <stdlib.h>

typedef struct claim {
    int64_t deficit; /* quota less share, in units of 1/points; 0 at a bound */
    uint64_t cell;
} claim;

static int larger_deficit(const void *left, const void *right)
{
    const claim *a = left, *b = right;
    if (a->deficit != b->deficit) return a->deficit > b->deficit ? -1 : 1;
    return a->cell < b->cell ? -1 : 1;
}

static double clamped(double share, uint64_t most)
{
    return share < 1.0 ? 1.0 : share > (double)most ? (double)most : share;
}

/* The factor f for which the shares clamp(f * count, 1, most) add up to `total`: found by halving, which is near enough to
 * tell the cells that are at a bound from the others. */
static double find_factor(uint64_t total, uint64_t cells, const uint64_t *counts, const uint64_t *most)
{
    double low = 0.0, high = (double)total;
    for (int step = 0; step < 200 && low < high; step++) {
        const double middle = low + 0.5 * (high - low);
        double sum = 0.0;
        for (uint64_t c = 0; c < cells; c++) sum += clamped(middle * (double)counts[c], most[c]);
        if (middle <= low || middle >= high) break;
        if (sum < (double)total)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* Sets the shares of the cells at a bound; *total and *points keep what is left to the others. */
static void give_bounds(uint64_t cells, const uint64_t *counts, const uint64_t *most, uint64_t *share, uint64_t *total,
                        uint64_t *points)
{
    const uint64_t all = *total, all_points = *points;
    int bound = 0;
    for (uint64_t c = 0; c < cells && !bound; c++)
        bound = all * counts[c] < all_points || (most[c] < all && all * counts[c] > most[c] * all_points);
    if (!bound) return; /* the plain quotas will do */
    const double factor = find_factor(all, cells, counts, most);
    for (uint64_t c = 0; c < cells; c++) {
        const double quota = factor * (double)counts[c];
        if (quota > 1.0 && quota < (double)most[c]) continue;
        share[c] = quota <= 1.0 ? 1 : most[c];
        *total -= share[c];
        *points -= counts[c];
    }
}

/* Moves the sum of the shares to `total`, one centroid a claim, in the order of the claims. */
static void settle(const claim *claims, uint64_t cells, uint64_t sum, uint64_t total, const uint64_t *most, uint64_t *share)
{
    while (sum < total) {
        const uint64_t before = sum;
        for (uint64_t i = 0; i < cells && sum < total; i++)
            if (share[claims[i].cell] < most[claims[i].cell]) {
                share[claims[i].cell]++;
                sum++;
            }
        if (sum == before) return;
    }
    while (sum > total) {
        const uint64_t before = sum;
        for (uint64_t i = cells; i-- > 0 && sum > total;)
            if (share[claims[i].cell] > 1) {
                share[claims[i].cell]--;
                sum--;
            }
        if (sum == before) return;
    }
}

qem_status qem_allocate_centroids(qem_context *context, uint64_t total, uint64_t cells, const uint64_t *counts,
                                  const uint64_t *most, uint64_t *share)
{
    uint64_t points = 0, all = 0, left = total, sum = 0;
    for (uint64_t c = 0; c < cells; c++) {
        points += counts[c];
        all += most[c];
        share[c] = 0;
    }
    if (all <= total) {
        for (uint64_t c = 0; c < cells; c++) share[c] = most[c];
        return QEM_OK;
    }
    give_bounds(cells, counts, most, share, &left, &points);
    void *memory;
    QEM_TRY(qem_allocate(context, cells, sizeof(claim), &memory));
    claim *claims = memory;
    for (uint64_t c = 0; c < cells; c++) {
        claims[c].cell = c;
        claims[c].deficit = 0;
        if (!share[c]) {
            const uint64_t quota = left * counts[c] / points;
            share[c] = quota > 1 ? quota : 1;
            claims[c].deficit = (int64_t)(left * counts[c]) - (int64_t)(share[c] * points);
        }
        sum += share[c];
    }
    qsort(claims, cells, sizeof *claims, larger_deficit);
    settle(claims, cells, sum, total, most, share);
    qem_release(context, memory);
    return QEM_OK;
}
