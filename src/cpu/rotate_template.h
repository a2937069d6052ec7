/*
 * rotate_rows() for one instruction set. The includer sets, by the number of its registers, the tile of one step:
 * ROTATE_ROWS x ROTATE_PARTS vectors of outputs, each with a sum of its own. The columns of the rotation are taken in panels as
 * wide as a tile, and a panel in blocks of DEPTH of its rows, copied side by side: in place they are as far apart as the
 * rotation is wide, which for powers of two would be the same few sets of the caches. Between two blocks the sums lie in the
 * output, so every output stays one chain.
 */
#include "kernels.h"
#include "simd_kernels.h"

#define PANEL (ROTATE_PARTS * LANES)
#define DEPTH 128
#define EDGE_ROWS 48 /* a multiple of both tiles */

/* Rows p .. p + depth - 1 of a panel of the rotation, and the places of x and out that go with them. */
typedef struct rotate_block {
    const float *panel;
    size_t panel_stride, depth;
    const float *x;
    size_t ldx;
    float *out;
    size_t ldo;
} rotate_block;

QEM_INLINE void rotate_tile(const rotate_block *block, size_t row, const int rows)
{
    const float *x = block->x + row * block->ldx, *b = block->panel;
    float *out = block->out + row * block->ldo;
    const size_t depth = block->depth, ldx = block->ldx;
    vf acc[ROTATE_ROWS][ROTATE_PARTS];
    QEM_UNROLL
    for (int r = 0; r < rows; r++) {
        QEM_UNROLL
        for (int v = 0; v < ROTATE_PARTS; v++) acc[r][v] = vf_load(out + (size_t)r * block->ldo + v * LANES);
    }
    for (size_t p = 0; p < depth; p++, b += block->panel_stride) {
        vf column[ROTATE_PARTS];
        QEM_UNROLL
        for (int v = 0; v < ROTATE_PARTS; v++) column[v] = vf_load(b + v * LANES);
        QEM_UNROLL
        for (int r = 0; r < rows; r++) {
            const vf y = vf_set1(x[(size_t)r * ldx + p]);
            QEM_UNROLL
            for (int v = 0; v < ROTATE_PARTS; v++) acc[r][v] = vf_fmadd(y, column[v], acc[r][v]);
        }
    }
    QEM_UNROLL
    for (int r = 0; r < rows; r++) {
        QEM_UNROLL
        for (int v = 0; v < ROTATE_PARTS; v++) vf_store(out + (size_t)r * block->ldo + v * LANES, acc[r][v]);
    }
}

static void rotate_block_rows(const rotate_block *block, size_t rows)
{
    size_t row = 0;
    for (; row + ROTATE_ROWS <= rows; row += ROTATE_ROWS) rotate_tile(block, row, ROTATE_ROWS);
    switch (rows - row) {
    case 5: rotate_tile(block, row, 5); break;
    case 4: rotate_tile(block, row, 4); break;
    case 3: rotate_tile(block, row, 3); break;
    case 2: rotate_tile(block, row, 2); break;
    case 1: rotate_tile(block, row, 1); break;
    default: break;
    }
}

/* Rows p .. of a panel side by side; columns past the last one are 0. */
static void copy_panel(const float *rotation, size_t cols, size_t depth, size_t width, float *panel)
{
    for (size_t p = 0; p < depth; p++, rotation += cols, panel += PANEL) {
        if (width == PANEL) {
            QEM_UNROLL
            for (int v = 0; v < ROTATE_PARTS; v++) vf_store(panel + v * LANES, vf_load(rotation + v * LANES));
            continue;
        }
        memcpy(panel, rotation, width * sizeof *panel);
        memset(panel + width, 0, (PANEL - width) * sizeof *panel);
    }
}

/* Columns first .. first + PANEL - 1 of the rotation and of the output, which holds what the chains begin with. */
static void rotate_panel(const float *x, size_t ldx, size_t rows, size_t cols, const float *rotation, size_t width, float *out,
                         size_t ldo)
{
    float copy[DEPTH * PANEL] __attribute__((aligned(64)));
    const int in_place = rows <= ROTATE_ROWS && width == PANEL; /* read once: a copy would not pay */
    for (size_t p = 0; p < cols; p += DEPTH) {
        const size_t depth = cols - p < DEPTH ? cols - p : DEPTH;
        rotate_block block = { copy, PANEL, depth, x + p, ldx, out, ldo };
        if (in_place) {
            block.panel = rotation + p * cols;
            block.panel_stride = cols;
        } else {
            copy_panel(rotation + p * cols, cols, depth, width, copy);
        }
        rotate_block_rows(&block, rows);
    }
}

/* What the chains of a panel begin with. */
static void begin_rows(const float *after, size_t rows, size_t width, float *out, size_t ldo)
{
    for (size_t r = 0; r < rows; r++) {
        if (after)
            memcpy(out + r * ldo, after, width * sizeof *out);
        else
            memset(out + r * ldo, 0, width * sizeof *out);
    }
}

void QEM_SIMD(rotate_rows)(const float *x, size_t ldx, size_t rows, size_t cols, const float *rotation, const float *after,
                           float *out, size_t ldo)
{
    size_t first = 0;
    for (; first + PANEL <= cols; first += PANEL) {
        begin_rows(after ? after + first : NULL, rows, PANEL, out + first, ldo);
        rotate_panel(x, ldx, rows, cols, rotation + first, PANEL, out + first, ldo);
    }
    if (first == cols) return;
    const size_t width = cols - first; /* the last panel goes past the rows of the output, so by a tile of its own */
    for (size_t row = 0; row < rows; row += EDGE_ROWS) {
        const size_t count = rows - row < EDGE_ROWS ? rows - row : EDGE_ROWS;
        float edge[EDGE_ROWS * PANEL] __attribute__((aligned(64))) = { 0 };
        begin_rows(after ? after + first : NULL, count, width, edge, PANEL);
        rotate_panel(x + row * ldx, ldx, count, cols, rotation + first, width, edge, PANEL);
        for (size_t r = 0; r < count; r++)
            memcpy(out + (row + r) * ldo + first, edge + r * PANEL, width * sizeof *out);
    }
}
