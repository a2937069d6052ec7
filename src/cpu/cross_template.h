/* cross_tile() for one instruction set, as many columns at once as its registers hold. */
#include "cross.h"
#include "simd_kernels.h"

QEM_INLINE void cross_block(const double *a, const double *b, size_t n, double *sums)
{
    vd8 sum[CROSS_ROWS][CROSS_VECTORS];
    QEM_UNROLL for (int i = 0; i < CROSS_ROWS; i++)
        QEM_UNROLL for (int v = 0; v < CROSS_VECTORS; v++) sum[i][v] = vd8_load(sums + i * QEM_CROSS_B + v * 8);
    for (size_t r = 0; r < n; r++) {
        vd8 column[CROSS_VECTORS];
        QEM_UNROLL for (int v = 0; v < CROSS_VECTORS; v++) column[v] = vd8_load(b + r * QEM_CROSS_B + v * 8);
        QEM_UNROLL for (int i = 0; i < CROSS_ROWS; i++) {
            const vd8 factor = vd8_set1(a[r * QEM_CROSS_A + (size_t)i]);
            QEM_UNROLL for (int v = 0; v < CROSS_VECTORS; v++) sum[i][v] = vd8_fmadd(factor, column[v], sum[i][v]);
        }
    }
    QEM_UNROLL for (int i = 0; i < CROSS_ROWS; i++)
        QEM_UNROLL for (int v = 0; v < CROSS_VECTORS; v++) vd8_store(sums + i * QEM_CROSS_B + v * 8, sum[i][v]);
}

void QEM_SIMD(cross_tile)(const double *a, const double *b, size_t n, double *sums)
{
    for (size_t i = 0; i < QEM_CROSS_A; i += CROSS_ROWS)
        for (size_t j = 0; j < QEM_CROSS_B; j += 8 * CROSS_VECTORS) cross_block(a + i, b + j, n, sums + i * QEM_CROSS_B + j);
}
