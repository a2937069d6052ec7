/*
 * Whole rows, some at a time: looked up, swapped back or rotated, by the steps of their layer, added up, outliers last. Rows go
 * one by one, so that they stay in the first-level cache, except where many of them share what has to be read: a rotation, or
 * the codebooks of groups with codes of several widths.
 */
#include "decode_rows.h"

#include <string.h>

#define BLOCK_BYTES ((uint64_t)1 << 20)
#define LEAST_BLOCK 24
#define MOST_BLOCK 192

typedef struct row_scratch {
    float *a, *b, *stage; /* blocks of rows: before the swaps or the rotation; rotated, by cells; a layer after the first */
    uint64_t *bits;
    uint32_t *cells, *order, *starts;
} row_scratch;

/* ---- sizes ---- */

static uint64_t whole_lines(uint64_t bytes)
{
    return (bytes + QEM_LINE - 1) / QEM_LINE * QEM_LINE;
}

static uint32_t group_width(const qem_decode_stage *stage, uint64_t cols, uint64_t group)
{
    const uint64_t left = cols - group * stage->dim;
    return left < stage->dim ? (uint32_t)left : stage->dim;
}

/* The runs of a stage to `runs`, or NULL to count them. */
static uint64_t make_runs(const qem_decode_stage *stage, uint64_t cols, qem_row_stage *sums, qem_width_run *runs)
{
    qem_width_run run = { 0 };
    uint64_t count = 0;
    sums->row_bits = sums->cell_floats = 0;
    for (uint64_t g = 0; g < stage->groups; g++) {
        const uint32_t width = group_width(stage, cols, g), bits = stage->group_bits[g];
        if (count == 0 || bits != run.bits || width != run.dim) {
            if (runs && count) runs[count - 1] = run;
            run = (qem_width_run){ g * stage->dim, sums->row_bits, sums->cell_floats, 0, bits, width };
            count++;
        }
        run.groups++;
        sums->row_bits += bits;
        sums->cell_floats += (uint64_t)width << bits;
    }
    if (runs && count) runs[count - 1] = run;
    return count;
}

static uint64_t cell_bytes(const qem_row_decoder *d)
{
    return d->most_cells > 1 ? whole_lines((2 * d->block + d->most_cells + 1) * sizeof(uint32_t)) : 0;
}

void qem_row_decoder_plan(qem_row_decoder *d, uint64_t cols, const qem_decode_stage *stages, uint32_t stage_count,
                          const qem_decode_outliers *outliers)
{
    int many = 0;
    *d = (qem_row_decoder){ .cols = cols, .stage_count = stage_count, .stages = stages, .outliers = *outliers };
    for (uint32_t i = 0; i < stage_count; i++) {
        const qem_decode_stage *s = &stages[i];
        d->stage[i].cell_floats = s->k * cols;
        if (s->levels) d->shared_bytes += whole_lines(sizeof(qem_swap_tree));
        if (s->group_bits) d->stage[i].run_count = make_runs(s, cols, &d->stage[i], NULL);
        d->shared_bytes += whole_lines(d->stage[i].run_count * sizeof(qem_width_run));
        if (s->cells > d->most_cells) d->most_cells = s->cells;
        many |= s->cells > 0 || s->group_bits;
    }
    const uint64_t row = (cols + 15) / 16 * 16, fit = BLOCK_BYTES / (row * sizeof(float));
    d->block = !many ? 1 : fit < LEAST_BLOCK ? LEAST_BLOCK : fit > MOST_BLOCK ? MOST_BLOCK : fit;
    d->pitch = (size_t)(many ? row + 16 : row); /* rows a power of two apart would share a few sets of the caches */
    const uint64_t blocks = 1 + (d->most_cells > 1) + (stage_count > 1);
    d->scratch_bytes = blocks * d->block * d->pitch * sizeof(float) + whole_lines(qem_swap_row_words(cols) * sizeof(uint64_t)) +
                       cell_bytes(d);
}

void qem_row_decoder_prepare(qem_row_decoder *d, const qem_cpu_kernels *kernels, void *shared)
{
    unsigned char *at = shared;
    d->kernels = kernels;
    for (uint32_t i = 0; i < d->stage_count; i++) {
        const qem_decode_stage *s = &d->stages[i];
        if (s->levels) {
            d->stage[i].tree = (qem_swap_tree *)at;
            qem_swap_tree_make(d->stage[i].tree, s->row_end - s->row_begin, d->cols, s->levels);
            at += whole_lines(sizeof(qem_swap_tree));
        }
        if (s->group_bits) {
            d->stage[i].runs = (qem_width_run *)at;
            make_runs(s, d->cols, &d->stage[i], d->stage[i].runs);
            at += whole_lines(d->stage[i].run_count * sizeof(qem_width_run));
        }
    }
}

static row_scratch place(const qem_row_decoder *d, void *scratch)
{
    const uint64_t block = d->block * d->pitch;
    row_scratch s = { 0 };
    float *at = scratch;
    s.a = at;
    at += block;
    s.b = at;
    at += d->most_cells > 1 ? block : 0;
    s.stage = at;
    at += d->stage_count > 1 ? block : 0;
    s.bits = (uint64_t *)at;
    s.cells = (uint32_t *)((unsigned char *)at + whole_lines(qem_swap_row_words(d->cols) * sizeof(uint64_t)));
    s.order = s.cells + d->block;
    s.starts = s.order + d->block;
    return s;
}

/* ---- one stage ---- */

static void look_up_runs(const qem_row_decoder *d, uint32_t index, uint64_t row, uint64_t rows, uint64_t cell, float *out,
                         size_t ld)
{
    const qem_decode_stage *stage = &d->stages[index];
    const qem_row_stage *plan = &d->stage[index];
    qem_code_tile tile = { 0 };
    tile.stream = stage->codes;
    tile.row_bits = plan->row_bits;
    tile.rows = (size_t)rows;
    tile.row_stride = ld;
    for (uint64_t i = 0; i < plan->run_count; i++) {
        const qem_width_run *run = &plan->runs[i];
        const uint64_t entry = cell * plan->cell_floats + run->entry;
        tile.first_bit = (row - stage->row_begin) * plan->row_bits + run->first_bit;
        tile.bits = run->bits;
        tile.dim = run->dim;
        tile.k = (uint64_t)1 << run->bits;
        tile.group_stride = (size_t)tile.k * run->dim;
        tile.groups = run->groups;
        tile.codebook = stage->codebook + entry;
        tile.half = stage->codebook_half && run->dim > 1 ? stage->codebook_half + entry : NULL;
        tile.out = out + run->column;
        d->kernels->decode_tile(&tile);
    }
}

static void look_up(const qem_row_decoder *d, uint32_t index, uint64_t row, uint64_t rows, uint64_t cell, float *out, size_t ld)
{
    qem_decode_stage stage = d->stages[index];
    if (stage.group_bits) {
        look_up_runs(d, index, row, rows, cell, out, ld);
        return;
    }
    const uint64_t offset = cell * d->stage[index].cell_floats;
    stage.codebook += offset;
    if (stage.codebook_half) stage.codebook_half += offset;
    qem_look_up(d->kernels, &stage, d->cols, row, rows, 0, stage.groups, out, ld);
}

/* Swaps take rows from one buffer to another and back, level by level: so that they end in `out`, they begin there or not. */
static void swapped_rows(const qem_row_decoder *d, uint32_t index, uint64_t row, uint64_t rows, const row_scratch *s, float *out,
                         size_t ld)
{
    const qem_decode_stage *stage = &d->stages[index];
    const int odd = stage->levels % 2;
    look_up(d, index, row, rows, 0, odd ? s->a : out, odd ? d->pitch : ld);
    for (uint64_t r = 0; r < rows; r++) {
        float *to = out + r * ld, *other = odd ? s->a + r * d->pitch : s->a;
        qem_swap_restore_row(d->kernels, d->stage[index].tree, stage->swap_map, row + r - stage->row_begin, odd ? other : to,
                             odd ? to : other, s->bits);
    }
}

/* order[] = the rows of the block by cells, starts[c] where cell c's end in it. */
static void sort_by_cells(const qem_decode_stage *stage, const qem_cpu_kernels *kernels, uint64_t row, uint64_t rows,
                          const row_scratch *s)
{
    const uint32_t bits = qem_code_bits(stage->cells);
    kernels->unpack(stage->row_cells, (row - stage->row_begin) * bits, (size_t)rows, bits, s->cells);
    memset(s->starts, 0, (stage->cells + 1) * sizeof *s->starts);
    for (uint64_t r = 0; r < rows; r++) s->starts[s->cells[r] + 1]++;
    for (uint32_t c = 0; c < stage->cells; c++) s->starts[c + 1] += s->starts[c];
    for (uint64_t r = 0; r < rows; r++) s->order[s->starts[s->cells[r]]++] = (uint32_t)r;
}

/* Each row by its own cell's codebooks and rotation: the rows of a cell side by side. */
static void rotated_by_cells(const qem_row_decoder *d, uint32_t index, uint64_t row, uint64_t rows, const row_scratch *s,
                             float *out, size_t ld)
{
    const qem_decode_stage *stage = &d->stages[index];
    const size_t cols = (size_t)d->cols;
    sort_by_cells(stage, d->kernels, row, rows, s);
    for (uint64_t i = 0, end; i < rows; i = end) {
        const uint64_t cell = s->cells[s->order[i]];
        end = s->starts[cell];
        for (uint64_t r = i; r < end; r++) look_up(d, index, row + s->order[r], 1, cell, s->a + r * d->pitch, d->pitch);
        d->kernels->rotate_rows(s->a + i * d->pitch, d->pitch, (size_t)(end - i), cols, stage->rotation + cell * cols * cols,
                                stage->coarse ? stage->coarse + cell * cols : NULL, s->b + i * d->pitch, d->pitch);
    }
    for (uint64_t i = 0; i < rows; i++) memcpy(out + s->order[i] * ld, s->b + i * d->pitch, cols * sizeof *out);
}

static void stage_rows(const qem_row_decoder *d, uint32_t index, uint64_t row, uint64_t rows, const row_scratch *s, float *out,
                       size_t ld)
{
    const qem_decode_stage *stage = &d->stages[index];
    if (stage->cells > 1) {
        rotated_by_cells(d, index, row, rows, s, out, ld);
    } else if (stage->cells == 1) {
        look_up(d, index, row, rows, 0, s->a, d->pitch);
        d->kernels->rotate_rows(s->a, d->pitch, (size_t)rows, (size_t)d->cols, stage->rotation, stage->coarse, out, ld);
    } else if (stage->levels) {
        swapped_rows(d, index, row, rows, s, out, ld);
    } else {
        look_up(d, index, row, rows, 0, out, ld);
    }
    qem_apply_steps(d->kernels, stage, d->cols, row, rows, 0, d->cols, out, ld);
}

void qem_row_decoder_run(const qem_row_decoder *d, uint64_t row, uint64_t rows, void *scratch, float *out, size_t ld,
                         uint64_t *outlier)
{
    const row_scratch s = place(d, scratch);
    stage_rows(d, 0, row, rows, &s, out, ld);
    for (uint32_t i = 1; i < d->stage_count; i++) {
        stage_rows(d, i, row, rows, &s, s.stage, d->pitch);
        for (uint64_t r = 0; r < rows; r++) d->kernels->add(s.stage + r * d->pitch, (size_t)d->cols, out + r * ld);
    }
    for (uint64_t r = 0; r < rows; r++)
        qem_write_outliers(&d->outliers, (row + r) * d->cols, d->cols, out + r * ld, outlier);
}
