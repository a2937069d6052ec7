/*
 * The recipes that a search tries. Which win where was measured on real matrices: shared vector quantization up to about 3.5
 * bits, scalars or pairs in scaled blocks above; swaps, codebooks of groups, rotations and outliers each win on some.
 */
#include "search.h"

#define WIDE 512            /* columns beyond which rotations take long */
#define MOST_CODE_BITS 14.5 /* longer codes need codebooks too large to search and to store */

typedef struct candidates {
    qem_recipe *list;
    uint32_t count;
    const qem_recipe *asked;
    double bits;
    uint64_t rows, cols;
} candidates;

int qem_search_is_wide(uint64_t cols)
{
    return cols > WIDE;
}

uint32_t qem_search_codebook_bits(double bits)
{
    return bits < 4.0 ? 8 : bits < 6.0 ? 10 : 12;
}

static qem_recipe *add(candidates *c, qem_method method, uint32_t dim)
{
    static const qem_recipe spare = QEM_RECIPE_INIT;
    qem_recipe *r = &c->list[c->count < QEM_MOST_TRIALS ? c->count++ : QEM_MOST_TRIALS - 1];
    *r = spare;
    r->method = method;
    r->ratio = c->asked->ratio;
    r->bits = c->asked->bits;
    r->iterations = c->asked->iterations;
    r->restarts = c->asked->restarts;
    r->tolerance = c->asked->tolerance;
    r->importance = c->asked->importance;
    r->dim = dim;
    r->codebook_bits = dim > 1 ? qem_search_codebook_bits(c->bits) : 0;
    r->mixed = method != QEM_METHOD_OPQ;
    return r;
}

int qem_search_affords_outliers(double bits, double fraction)
{
    return 48.0 * fraction <= 0.3 * bits; /* an index of 32 bits and a value of 16 each, at least */
}

void qem_search_standardize(const qem_recipe *asked, qem_recipe *r, uint32_t axes)
{
    r->standardize = axes;
    r->params = asked->params ? asked->params : axes & QEM_STANDARDIZE_ROW ? 8 : 16;
}

static void scale_blocks(const candidates *c, qem_recipe *r, uint32_t block, int columns)
{
    r->standardize = QEM_STANDARDIZE_BLOCK | (columns ? QEM_STANDARDIZE_COLUMN : 0);
    r->standardize_block = block;
    r->params = c->asked->params ? c->asked->params : 6;
}

int qem_search_suits(double bits, uint32_t dim)
{
    const double code = bits * (double)dim;
    return code >= 3.0 && code <= MOST_CODE_BITS;
}

/* ---- families, the likely winners first ---- */

static void shared_vectors(candidates *c, int all)
{
    static const uint32_t axes[] = { QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN, QEM_STANDARDIZE_NONE, QEM_STANDARDIZE_COLUMN };
    for (uint32_t dim = 2; dim <= 8; dim *= 2)
        for (size_t a = 0; a < (all ? 3 : 2) && qem_search_suits(c->bits, dim); a++)
            qem_search_standardize(c->asked, add(c, QEM_METHOD_VQ, dim), axes[a]);
}

static void block_scalars(candidates *c, int all)
{
    for (int columns = 0; columns < 2; columns++) scale_blocks(c, add(c, QEM_METHOD_LLOYDMAX, 1), 16, columns);
    if (!all) return;
    scale_blocks(c, add(c, QEM_METHOD_LLOYDMAX, 1), 32, 1);
    scale_blocks(c, add(c, QEM_METHOD_LLOYDMAX, 1), 8, 0);
}

/* Where a matrix is small, what codebooks and scales take decides: these have no codebook. */
static void grids(candidates *c)
{
    static const struct {
        qem_axis axis;
        uint32_t block, params;
    } units[] = { { QEM_AXIS_ROW, 0, 8 }, { QEM_AXIS_BLOCK, 32, 6 } };
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        qem_recipe *r = add(c, QEM_METHOD_GRID, 1);
        r->grid_axis = units[u].axis;
        r->grid_block = units[u].block;
        r->params = c->asked->params ? c->asked->params : units[u].params;
    }
}

static void block_vectors(candidates *c)
{
    for (uint32_t dim = 2; dim <= 4; dim *= 2)
        for (int columns = 0; columns < 2 && qem_search_suits(c->bits - 0.4, dim); columns++)
            scale_blocks(c, add(c, QEM_METHOD_VQ, dim), dim == 2 ? 16 : 32, columns);
}

static void swapped(candidates *c)
{
    for (uint32_t levels = 1; levels <= 2; levels++) {
        const double left = c->bits - 0.5 * levels;
        for (uint32_t dim = 2; dim <= 8; dim *= 2)
            if (qem_search_suits(left, dim) && left * dim >= 6.0) {
                add(c, QEM_METHOD_VQ, dim)->levels = levels;
                qem_recipe *r = add(c, QEM_METHOD_VQ, dim);
                r->levels = levels;
                qem_search_standardize(c->asked, r, QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN);
            }
    }
}

static void own_codebooks(candidates *c)
{
    for (uint32_t dim = 1; dim <= 4; dim *= 2) {
        if (!qem_search_suits(c->bits, dim) && dim > 1) continue;
        for (int allocation = 0; allocation < 2; allocation++) {
            qem_recipe *r = add(c, QEM_METHOD_PQ, dim);
            r->codebook_bits = qem_search_codebook_bits(c->bits);
            r->allocation = (qem_allocation)allocation;
        }
    }
}

static void rotated(candidates *c)
{
    const double cost = 16.0 * (double)c->cols / (double)c->rows; /* bits an element */
    if (cost > 0.6 * c->bits) return;
    for (uint32_t dim = 1; dim <= 4; dim *= 2) {
        if (dim > 1 && !qem_search_suits(c->bits - cost, dim)) continue;
        if (qem_search_is_wide(c->cols) && dim != 2) continue; /* each takes long: one has to do */
        qem_recipe *r = add(c, QEM_METHOD_OPQ, dim);
        r->rotation_start = QEM_ROTATION_PCA;
        r->params = 16; /* of the rotation */
        r->codebook_bits = qem_search_codebook_bits(c->bits);
        r->allocation = dim < 4 ? QEM_ALLOCATION_VARIANCE : QEM_ALLOCATION_COUNT;
    }
}

static void with_outliers(candidates *c)
{
    static const double fractions[] = { 0.0001, 0.0005, 0.002, 0.01 };
    for (size_t f = 0; f < sizeof fractions / sizeof *fractions; f++) {
        if (!qem_search_affords_outliers(c->bits, fractions[f])) continue;
        add(c, QEM_METHOD_LLOYDMAX, 1)->outliers = fractions[f];
        for (uint32_t dim = 2; dim <= 4 && fractions[f] < 0.005; dim *= 2)
            if (qem_search_suits(c->bits, dim)) add(c, QEM_METHOD_VQ, dim)->outliers = fractions[f];
    }
}

uint32_t qem_search_candidates(const qem_recipe *asked, uint64_t rows, uint64_t cols, double bits, qem_recipe list[QEM_MOST_TRIALS])
{
    candidates c = { .list = list, .asked = asked, .bits = bits, .rows = rows, .cols = cols };
    const int all = asked->effort > 0;
    shared_vectors(&c, all);
    block_scalars(&c, all);
    add(&c, QEM_METHOD_LLOYDMAX, 1);
    qem_search_standardize(asked, add(&c, QEM_METHOD_LLOYDMAX, 1), QEM_STANDARDIZE_COLUMN);
    if (!all) return c.count;
    grids(&c);
    block_vectors(&c);
    with_outliers(&c);
    swapped(&c);
    own_codebooks(&c);
    if (!asked->importance) rotated(&c);
    return c.count;
}
