/* Which fast kernel decodes a layer's rows, if any does. */
#include "chunks.cuh"

/* Whether decoded values can be beyond the type: the least that rounds to infinity is 65520, and 2^128 - 2^119. */
static int may_overflow(double largest, uint32_t dtype)
{
    if (dtype == QEM_DTYPE_F32) return 0;
    return !(largest < (dtype == QEM_DTYPE_F16 ? 65504.0 : 3.38e38));
}

/* The rows as chunks; 0 where they are not made of whole ones at multiples of 16 bytes. */
static int make_chunks(const qem_cuda_rows &rows, qem_cuda_chunks *to)
{
    const uint64_t size = rows.dtype == QEM_DTYPE_F32 ? 4 : 2, elements = 16 / size;
    if ((uintptr_t)rows.out % 16 || rows.cols % elements || rows.row_stride % elements) return 0;
    const uint64_t per_row = rows.cols / elements;
    if (per_row >> 31) return 0;
    to->out = (unsigned char *)rows.out;
    to->per_row = (uint32_t)per_row;
    to->count = rows.rows * per_row;
    to->reciprocal = qem_cuda_reciprocal(per_row);
    /* chunks are multiplied as 2 * chunk + 1, below 4 * QEM_CHUNK_TILE: exact, as 4 * QEM_CHUNK_TILE^2 < 2^31 */
    to->tile_reciprocal = per_row >= QEM_CHUNK_TILE ? 0 : (uint32_t)((0x80000000u + per_row - 1) / per_row);
    to->pitch = rows.row_stride * size;
    to->contiguous = rows.row_stride == rows.cols;
    return to->count <= UINT64_MAX / per_row;
}

qem_cuda_way qem_cuda_way_of(const qem_device_artifact *artifact, const qem_cuda_segment &segment,
                             const qem_cuda_rows &rows)
{
    const qem_cuda_host_stage &stage = *segment.stage[0];
    const qem_cuda_stage &d = stage.on_device;
    const int wide = rows.dtype == QEM_DTYPE_F32;
    qem_cuda_chunks to;
    if (artifact->layer_count > 1 || d.cells || may_overflow(stage.largest, rows.dtype)) return QEM_CUDA_ANY;
    if (!make_chunks(rows, &to)) return QEM_CUDA_ANY;
    if (d.levels) return stage.slabs[wide].count ? QEM_CUDA_SWAPPED : QEM_CUDA_ANY;
    if (d.group_stride || d.group) return stage.slabs[wide].count ? QEM_CUDA_SLABS : QEM_CUDA_ANY;
    /* four-bit levels are looked up in registers, also where nothing follows */
    if ((d.code_bits == 4 || d.step_count) && qem_cuda_takes_scalars(stage, wide ? 4 : 8)) return QEM_CUDA_SCALARS;
    if (rows.cols % d.dim) return QEM_CUDA_ANY; /* a tail would shift the codes of the rows after it */
    if (d.step_count) return qem_cuda_takes_stepped(stage, wide ? 4 : 8) ? QEM_CUDA_STEPPED : QEM_CUDA_ANY;
    return qem_cuda_takes_vectors(stage, wide ? 4 : 8) ? QEM_CUDA_VECTORS : QEM_CUDA_ANY;
}

cudaError_t qem_cuda_decode_fast(const qem_device_artifact *artifact, const qem_cuda_segment &segment,
                                 const qem_cuda_rows &rows, cudaStream_t stream, int *taken)
{
    const qem_cuda_host_stage &stage = *segment.stage[0];
    const qem_cuda_grid grid = { artifact->processors, artifact->threads_per_processor };
    const qem_cuda_way way = qem_cuda_way_of(artifact, segment, rows);
    qem_cuda_chunks to;
    *taken = way != QEM_CUDA_ANY;
    if (!*taken || !make_chunks(rows, &to)) return cudaSuccess;
    if (way == QEM_CUDA_SLABS) return qem_cuda_decode_slabs(stage, rows.row_begin, rows.rows, rows.dtype, to, grid, stream);
    if (way == QEM_CUDA_SWAPPED)
        return qem_cuda_decode_swapped(stage, rows.row_begin, rows.rows, rows.dtype, to, grid, stream);
    if (way == QEM_CUDA_SCALARS) return qem_cuda_decode_scalars(stage, rows.row_begin, rows.dtype, to, grid, stream);
    if (way == QEM_CUDA_STEPPED) return qem_cuda_decode_stepped(stage, rows.row_begin, rows.dtype, to, grid, stream);
    return qem_cuda_decode_vectors(stage, rows.row_begin, rows.dtype, to, grid, stream);
}
