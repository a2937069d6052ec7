/*
 * The recipes beside one that did well: the same with one thing changed. A search goes on from its leader with them, as codes,
 * codebooks, scales and outliers share one budget in ways that no list of likely recipes foresees: sub-vectors of 3 elements
 * where 4 leave a tenth of the budget unused, or outliers on top of scales.
 */
#include "search.h"

typedef struct neighbours {
    const qem_recipe *asked, *leader;
    double bits;
    qem_recipe *list;
    uint32_t count;
} neighbours;

static qem_recipe *add(neighbours *n)
{
    qem_recipe *r = &n->list[n->count++];
    *r = *n->leader;
    return r;
}

static void other_dims(neighbours *n)
{
    const uint32_t dim = n->leader->dim;
    if (n->leader->method == QEM_METHOD_LLOYDMAX || n->leader->method == QEM_METHOD_GRID) return;
    if (dim > 2 && qem_search_suits(n->bits, dim - 1)) add(n)->dim = dim - 1;
    if (qem_search_suits(n->bits, dim + 1)) {
        qem_recipe *r = add(n);
        r->dim = dim + 1;
        if (r->codebook_bits == 0) r->codebook_bits = qem_search_codebook_bits(n->bits);
    }
}

static void other_codebooks(neighbours *n)
{
    const uint32_t bits = n->leader->codebook_bits;
    if (!bits && n->leader->method != QEM_METHOD_GRID)
        add(n)->codebook = n->leader->codebook == QEM_DTYPE_F16 ? QEM_DTYPE_F32 : QEM_DTYPE_F16;
    if (bits > 6) add(n)->codebook_bits = bits - 2;
    if (bits && bits < 12) add(n)->codebook_bits = bits + 2;
    if (n->leader->method == QEM_METHOD_PQ || n->leader->method == QEM_METHOD_OPQ)
        add(n)->allocation = n->leader->allocation == QEM_ALLOCATION_COUNT ? QEM_ALLOCATION_VARIANCE : QEM_ALLOCATION_COUNT;
}

static void other_outliers(neighbours *n)
{
    const double now = n->leader->outliers;
    const double fractions[] = { now > 0.0 ? now / 2.0 : 0.0005, now > 0.0 ? now * 2.0 : 0.002, 0.0 };
    for (int i = 0; i < (now > 0.0 ? 3 : 2); i++)
        if (qem_search_affords_outliers(n->bits, fractions[i])) add(n)->outliers = fractions[i];
}

static void other_units(neighbours *n)
{
    const qem_recipe *leader = n->leader;
    if (leader->grid_axis == QEM_AXIS_BLOCK) {
        add(n)->grid_block = leader->grid_block * 2;
        if (leader->grid_block > 8) add(n)->grid_block = leader->grid_block / 2;
    }
    if (n->asked->params) return;
    if (leader->params > 4 && leader->params <= 8) add(n)->params = leader->params - 1;
    if (leader->params < 8) add(n)->params = leader->params + 1;
}

static void other_scales(neighbours *n)
{
    static const uint32_t axes[] = { QEM_STANDARDIZE_NONE, QEM_STANDARDIZE_COLUMN, QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_ROW };
    const qem_recipe *leader = n->leader;
    if (leader->method == QEM_METHOD_GRID) other_units(n);
    if (leader->method != QEM_METHOD_LLOYDMAX && leader->method != QEM_METHOD_VQ) return;
    if (!(leader->standardize & QEM_STANDARDIZE_BLOCK)) {
        for (size_t i = 0; i < sizeof axes / sizeof *axes; i++)
            if (axes[i] != leader->standardize) qem_search_standardize(n->asked, add(n), axes[i]);
        return;
    }
    add(n)->standardize = leader->standardize ^ QEM_STANDARDIZE_COLUMN;
    add(n)->standardize_block = leader->standardize_block * 2;
    if (leader->standardize_block > 4) add(n)->standardize_block = leader->standardize_block / 2;
    if (n->asked->params) return;
    if (leader->params > 4 && leader->params <= 8) add(n)->params = leader->params - 1;
    if (leader->params < 8) add(n)->params = leader->params + 1;
}

uint32_t qem_search_neighbours(const qem_recipe *asked, const qem_recipe *leader, double bits,
                               qem_recipe list[QEM_SEARCH_MOST_NEIGHBOURS])
{
    neighbours n = { .asked = asked, .leader = leader, .bits = bits, .list = list };
    other_dims(&n);
    other_outliers(&n);
    other_codebooks(&n);
    other_scales(&n);
    return n.count;
}
