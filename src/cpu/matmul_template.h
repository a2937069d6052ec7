/*
 * The dot products of products.h for one instruction set. The includer sets, by the number of its registers, the tile of one
 * step: DOT_ROWS x DOT_BATCH outputs, each with QEM_SUM_LANES lanes of its own, so that rows and x are read along their
 * columns and nothing has to be packed. Rows past the end repeat the last one; their sums are not stored.
 */
#include "product_lanes.h"

typedef struct tile {
    size_t rows, n;       /* rows that count, 1 .. DOT_ROWS; columns */
    const float *x;
    size_t ldx;
    float *totals;
    size_t ldt;
} tile;

QEM_INLINE void store_totals(const tile *t, const lanes16 (*acc)[DOT_BATCH], const int batch)
{
    for (int b = 0; b < batch; b++) {
        float *totals = t->totals + (size_t)b * t->ldt, sums[4];
        _mm_storeu_ps(sums, lanes16_sum4(acc[0][b], acc[1][b], acc[DOT_ROWS > 2 ? 2 : 0][b], acc[DOT_ROWS > 2 ? 3 : 1][b]));
        for (size_t r = 0; r < t->rows; r++) totals[r] += sums[r];
    }
}

QEM_INLINE void clear(lanes16 (*acc)[DOT_BATCH], const int batch)
{
    QEM_UNROLL
    for (int r = 0; r < DOT_ROWS; r++) {
        QEM_UNROLL
        for (int b = 0; b < batch; b++) acc[r][b] = lanes16_zero();
    }
}

/* ---- rows of floats ---- */

QEM_INLINE void dot_tile(const tile *t, const float *const w[DOT_ROWS], const int batch)
{
    lanes16 acc[DOT_ROWS][DOT_BATCH];
    size_t j = 0;
    clear(acc, batch);
    for (; j + QEM_SUM_LANES <= t->n; j += QEM_SUM_LANES) {
        lanes16 x[DOT_BATCH];
        QEM_UNROLL
        for (int b = 0; b < batch; b++) x[b] = lanes16_load(t->x + (size_t)b * t->ldx + j);
        QEM_UNROLL
        for (int r = 0; r < DOT_ROWS; r++) {
            const lanes16 weights = lanes16_load(w[r] + j);
            QEM_UNROLL
            for (int b = 0; b < batch; b++) acc[r][b] = lanes16_fmadd(weights, x[b], acc[r][b]);
        }
    }
    if (j < t->n)
        for (int r = 0; r < DOT_ROWS; r++) {
            const lanes16 weights = lanes16_load_first(w[r] + j, t->n - j);
            for (int b = 0; b < batch; b++)
                acc[r][b] = lanes16_fmadd_first(weights, lanes16_load_first(t->x + (size_t)b * t->ldx + j, t->n - j),
                                                acc[r][b], t->n - j);
        }
    store_totals(t, acc, batch);
}

static void dot_rows(const tile *t, const float *const w[DOT_ROWS], size_t batch)
{
    switch (batch) {
    case 1: dot_tile(t, w, 1); break;
    case 2: dot_tile(t, w, 2); break;
#if DOT_BATCH > 2
    case 3: dot_tile(t, w, 3); break;
    case 4: dot_tile(t, w, 4); break;
#endif
    default: break;
    }
}

static void QEM_SIMD(dot)(const float *w, size_t ldw, size_t rows, const float *x, size_t ldx, size_t batch, size_t n,
                   float *totals, size_t ldt)
{
    for (size_t b = 0; b < batch; b += DOT_BATCH)
        for (size_t r = 0; r < rows; r += DOT_ROWS) {
            const float *row[DOT_ROWS];
            const tile t = { rows - r < DOT_ROWS ? rows - r : DOT_ROWS, n, x + b * ldx, ldx, totals + b * ldt + r, ldt };
            for (size_t i = 0; i < DOT_ROWS; i++) row[i] = w + (r + (i < t.rows ? i : t.rows - 1)) * ldw;
            dot_rows(&t, row, batch - b < DOT_BATCH ? batch - b : DOT_BATCH);
        }
}

/* ---- rows of codes ---- */

typedef struct decoder {
    const qem_coded *w;
    vtable16 table;
    vi shift; /* of each lane's code in its dword, see vi_spread */
    vf scale, mean;
} decoder;

QEM_INLINE decoder decoder_make(const qem_coded *w)
{
    uint32_t shift[LANES];
    decoder d;
    d.w = w;
    d.scale = vf_set1(w->scale);
    d.mean = vf_set1(w->mean);
    for (uint32_t lane = 0; lane < LANES; lane++) shift[lane] = lane % 8 * w->bits;
    d.shift = vi_load(shift);
    d.table = vtable16_load(w->table);
    return d;
}

/* Weights of 16 columns. */
QEM_INLINE lanes16 decode16(const decoder *d, const uint8_t *codes, size_t j, const qem_coded_kind kind)
{
    lanes16 weights;
    QEM_UNROLL
    for (int part = 0; part < PARTS; part++) {
        const size_t first = j + (size_t)part * LANES;
        if (kind == QEM_CODED_TABLE) {
            const vi code = vi_shift_right_each(vi_spread(codes + first / 8 * d->w->bits, d->w->bits), d->shift);
            weights.part[part] = vtable16_lookup(d->table, code);
        } else if (kind == QEM_CODED_TABLE8) {
            weights.part[part] = vf_gather(d->w->table, vi_load_u8(codes + first));
        } else if (kind == QEM_CODED_UNIFORM8) {
            weights.part[part] = vf_fmadd(vi_to_float(vi_load_u8(codes + first)), d->scale, d->mean);
        } else {
            size_t offset[LANES / 4];
            for (size_t i = 0; i < LANES / 4; i++) {
                uint32_t code;
                memcpy(&code, codes + first + 4 * i, sizeof code);
                offset[i] = (size_t)code * 16;
            }
            weights.part[part] = vi_float(vi_load_quarters((const uint8_t *)d->w->table, offset));
        }
    }
    return weights;
}

/* Fewer than 16 columns: exactly their codes are looked up, because a gather past the table must not happen. */
static void decode_rest(const qem_coded *w, const uint8_t *codes, size_t j, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++, j++) {
        uint32_t code;
        if (w->kind == QEM_CODED_QUADS) {
            memcpy(&code, codes + j / 4 * 4, sizeof code);
            out[i] = w->table[(size_t)code * 4 + j % 4];
        } else if (w->kind == QEM_CODED_TABLE) {
            const size_t bit = j * w->bits;
            out[i] = w->table[(((uint32_t)codes[bit / 8] | (uint32_t)codes[bit / 8 + 1] << 8) >> (bit % 8)) & 15u];
        } else {
            out[i] = w->kind == QEM_CODED_TABLE8 ? w->table[codes[j]] : fmaf((float)codes[j], w->scale, w->mean);
        }
    }
}

QEM_INLINE void coded_tile(const tile *t, const decoder *d, const uint8_t *const codes[DOT_ROWS], const qem_coded_kind kind,
                           const int batch)
{
    lanes16 acc[DOT_ROWS][DOT_BATCH];
    size_t j = 0;
    clear(acc, batch);
    for (; j + QEM_SUM_LANES <= t->n; j += QEM_SUM_LANES) {
        lanes16 x[DOT_BATCH];
        QEM_UNROLL
        for (int b = 0; b < batch; b++) x[b] = lanes16_load(t->x + (size_t)b * t->ldx + j);
        QEM_UNROLL
        for (int r = 0; r < DOT_ROWS; r++) {
            const lanes16 weights = decode16(d, codes[r], j, kind);
            QEM_UNROLL
            for (int b = 0; b < batch; b++) acc[r][b] = lanes16_fmadd(weights, x[b], acc[r][b]);
        }
    }
    if (j < t->n)
        for (int r = 0; r < DOT_ROWS; r++) {
            float rest[QEM_SUM_LANES];
            decode_rest(d->w, codes[r], j, t->n - j, rest);
            const lanes16 weights = lanes16_load_first(rest, t->n - j);
            for (int b = 0; b < batch; b++)
                acc[r][b] = lanes16_fmadd_first(weights, lanes16_load_first(t->x + (size_t)b * t->ldx + j, t->n - j),
                                                acc[r][b], t->n - j);
        }
    store_totals(t, acc, batch);
}

#define CODED_ROWS(name, kind)                                                                                            \
    static void name(const tile *t, const decoder *d, const uint8_t *const codes[DOT_ROWS], size_t batch)                 \
    {                                                                                                                     \
        switch (batch) {                                                                                                  \
        case 1: coded_tile(t, d, codes, kind, 1); break;                                                                  \
        case 2: coded_tile(t, d, codes, kind, 2); break;                                                                  \
        CODED_WIDE(kind)                                                                                                  \
        default: break;                                                                                                   \
        }                                                                                                                 \
    }
#if DOT_BATCH > 2
#define CODED_WIDE(kind)                                                                                                  \
        case 3: coded_tile(t, d, codes, kind, 3); break;                                                                  \
        case 4: coded_tile(t, d, codes, kind, 4); break;
#else
#define CODED_WIDE(kind)
#endif
CODED_ROWS(table_rows, QEM_CODED_TABLE)
CODED_ROWS(table8_rows, QEM_CODED_TABLE8)
CODED_ROWS(uniform8_rows, QEM_CODED_UNIFORM8)
CODED_ROWS(quad_rows, QEM_CODED_QUADS)

static void QEM_SIMD(dot_coded)(const qem_coded *w, size_t rows, const float *x, size_t ldx, size_t batch, size_t n,
                         float *totals, size_t ldt)
{
    static const float no_table[16];
    qem_coded from = *w;
    if (w->kind != QEM_CODED_TABLE) from.table = no_table; /* only that one is held in registers */
    decoder d = decoder_make(&from);
    d.w = w;
    for (size_t b = 0; b < batch; b += DOT_BATCH)
        for (size_t r = 0; r < rows; r += DOT_ROWS) {
            const uint8_t *codes[DOT_ROWS];
            const tile t = { rows - r < DOT_ROWS ? rows - r : DOT_ROWS, n, x + b * ldx, ldx, totals + b * ldt + r, ldt };
            const size_t width = batch - b < DOT_BATCH ? batch - b : DOT_BATCH;
            for (size_t i = 0; i < DOT_ROWS; i++) codes[i] = w->codes + (r + (i < t.rows ? i : t.rows - 1)) * w->row_bytes;
            switch (w->kind) {
            case QEM_CODED_TABLE: table_rows(&t, &d, codes, width); break;
            case QEM_CODED_TABLE8: table8_rows(&t, &d, codes, width); break;
            case QEM_CODED_UNIFORM8: uniform8_rows(&t, &d, codes, width); break;
            case QEM_CODED_QUADS: quad_rows(&t, &d, codes, width); break;
            case QEM_CODED_NONE: break;
            }
        }
}
