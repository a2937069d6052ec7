/* Elements that are kept as they are, written over what was decoded. Bytes: an index and a value, and a sector of the
 * output, for each. */
#include "element.cuh"

static __global__ void __launch_bounds__(256) write_outliers(uint64_t first, uint64_t last, qem_cuda_rows to)
{
    const uint64_t begin = to.row_begin * to.cols, end = begin + to.rows * to.cols;
    for (uint64_t i = first + (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < last;
         i += (uint64_t)gridDim.x * blockDim.x) {
        const uint64_t element = qem_cuda_outlier(to.outliers, i);
        if (element < begin || element >= end) continue;
        const uint64_t row = (element - begin) / to.cols;
        qem_store_element(to, row, element - begin - row * to.cols, __ldg(to.outliers.value + i), false);
    }
}

cudaError_t qem_cuda_write_outliers(uint64_t first, uint64_t last, const qem_cuda_rows &rows, cudaStream_t stream)
{
    const uint64_t blocks = (last - first + 255) / 256;
    if (blocks == 0) return cudaSuccess;
    return QEM_LAUNCH(write_outliers, dim3(blocks < 65536 ? (uint32_t)blocks : 65536), dim3(256), 0, stream, first, last,
                      rows);
}

cudaError_t qem_cuda_load_outliers(void)
{
    cudaFuncAttributes attributes;
    return cudaFuncGetAttributes(&attributes, QEM_KERNEL(write_outliers));
}
