/*
 * Products with rows that were decoded to f32 (product.cuh has the order), and sums that were made elsewhere stored as y.
 *
 * Bytes a weight: 4 from L2 or device memory for each 8 rows of x, beside what decoding moves; a lane reads whole sectors of
 * 32 bytes.
 */
#include "product.cuh"

struct float_rows {
    struct source {
        const float *w;
        uint64_t stride, first; /* first: of the artifact, that w begins with */
    };
    const float *row, *at;

    static size_t table_bytes(const source &) { return 0; }
    __device__ static void fill(const source &, void *) {}
    __device__ float_rows(const source &from, const void *, uint64_t row_here)
        : row(from.w + (row_here - from.first) * from.stride), at(row)
    {
    }
    __device__ __forceinline__ void begin(uint64_t column) { at = row + column; }
    template <typename Use> __device__ __forceinline__ void each(uint32_t left, Use use)
    {
        uint32_t j = 0;
#pragma unroll 1
        for (; 4 * j + 8 <= left; j += 2) {
            const float4 a = __ldg((const float4 *)at + j), b = __ldg((const float4 *)at + j + 1);
            const float first[4] = { a.x, a.y, a.z, a.w }, second[4] = { b.x, b.y, b.z, b.w };
            use(j, first, 4);
            use(j + 1, second, 4);
        }
#pragma unroll 1
        for (; 4 * j < left; j++) { /* rows are as long as a multiple of 4 */
            const float4 v = __ldg((const float4 *)at + j);
            const float w[4] = { v.x, v.y, v.z, v.w };
            use(j, w, left - 4 * j < 4 ? (int)(left - 4 * j) : 4);
        }
    }
};

static __global__ void __launch_bounds__(256) store_sums(const float *sums, qem_cuda_product p)
{
    for (uint64_t row = (uint64_t)blockIdx.x * 256 + threadIdx.x; row < p.rows; row += (uint64_t)gridDim.x * 256)
        for (uint64_t b = blockIdx.y; b < p.batch; b += gridDim.y)
            qem_store_y(p, (uint32_t)b, row, __ldg(sums + b * p.rows + row));
}

/* ---- launches ---- */

cudaError_t qem_cuda_multiply_floats(const float *w, const qem_cuda_product &p, uint32_t processors, cudaStream_t stream)
{
    const float_rows::source from = { w, qem_cuda_float_stride(p.cols), p.row };
    return qem_multiply<float_rows>(from, p, processors, stream);
}

cudaError_t qem_cuda_store_sums(const float *sums, const qem_cuda_product &p, cudaStream_t stream)
{
    const uint64_t across = (p.rows - 1) / 256 + 1;
    return QEM_LAUNCH(store_sums, dim3((uint32_t)across, p.batch < 65535 ? p.batch : 65535), dim3(256), 0, stream, sums, p);
}

cudaError_t qem_cuda_load_float_products(void)
{
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, QEM_KERNEL(store_sums));
    return error == cudaSuccess ? qem_load_products<float_rows>() : error;
}
