/*
 * qem on the GPU: artifacts in device memory, their decoding and products with them in the order of a CUDA stream.
 *
 *     artifact (host) -> qem_artifact_upload -> device artifact (immutable) -> qem_cuda_dequantize, qem_cuda_matmul,
 *                                                                              as often as wanted
 *
 * No CUDA header is needed here: a stream is a `void *` that holds a cudaStream_t, and NULL is the legacy default stream. The
 * runtime API's streams and the driver API's are the same here.
 *
 * Decoded values are those of qem_dequantize to the last bit, for every kind of artifact and every output type. (Only the
 * payload of a NaN may differ, which no artifact decodes to unless its steps overflow f32 on the way.)
 *
 * Conventions beyond those of qem.h:
 *   - Uploading allocates and blocks, and so does making a qem_cuda_blas. Decoding and multiplying only enqueue: they allocate
 *     nothing, synchronize nothing, use no stream but the caller's, and are legal while that stream is captured into a graph.
 *     What they read and write must stay where it is until the stream, or every run of the graph, has passed it.
 *   - Errors are those that are known when the call is made, and then nothing was enqueued; what happens on the device later is
 *     reported by the CUDA runtime at the caller's next synchronization.
 *   - The current device of the calling thread is the same after a call as before it. Where it is not the artifact's, going back
 *     may make the runtime set up a context on it: on machines with several GPUs call with the artifact's device current.
 *   - Any context serves (contexts of QEM_DEVICE_CPU too): it holds the text of the last error and the host's allocator. A
 *     context serves one thread at a time, a device artifact any number of threads and streams, each thread with a context.
 *   - In a build without CUDA, or where there is no driver or no GPU, the calls return QEM_ERR_NO_DEVICE.
 */
#ifndef QEM_CUDA_H
#define QEM_CUDA_H

#include <qem/qem.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An artifact in the memory of one GPU: opaque and immutable. It does not refer to the artifact that it was made from. */
typedef struct qem_device_artifact qem_device_artifact;

/* The alignment in bytes that the memory given to qem_artifact_upload_to needs; what cudaMalloc returns has it. */
#define QEM_CUDA_ALIGNMENT 256

/*
 * Copies an artifact to GPU `device` (0 .. number of devices - 1): codes, maps and codebooks as stored (with up to three levels
 * of swaps, codes and maps of the same size in another order), scales and means as f32, a shared codebook of decoded values
 * also rounded to f16 and bf16. One block of device memory is allocated by
 * cudaMalloc, the copies are enqueued on `stream`, which must belong to that device and not be capturing, and the call returns
 * when they are done. The kernels that decode it are loaded too, so that the first decoding does not load them.
 * On success *uploaded is owned by the caller, who ends it with qem_device_artifact_destroy; on an error it is NULL.
 * Errors: ARGUMENT (NULL, a capturing stream), NO_DEVICE (no CUDA in this build, no driver, no such device, or a device that
 * this build has no code for), MEMORY (host or device), UNSUPPORTED (numbers that no recipe of qem.h leads to),
 * INTERNAL (any other failure of the CUDA runtime; the text names it).
 */
QEM_API qem_status qem_artifact_upload(qem_context *context, const qem_artifact *artifact, int device, void *stream,
                                       qem_device_artifact **uploaded);

/* Bytes of device memory that the artifact takes on a GPU: the least for qem_artifact_upload_to. 0 on NULL. Any thread; needs
 * no device, but returns 0 in builds without CUDA. */
QEM_API uint64_t qem_device_artifact_size(const qem_artifact *artifact);

/*
 * The same into memory of the caller: `memory` is device memory of that device, aligned to QEM_CUDA_ALIGNMENT, of `bytes`
 * bytes, at least qem_device_artifact_size(artifact). It stays the caller's, must not change as long as the device artifact
 * is used, and may be released after qem_device_artifact_destroy and the work that reads it.
 * Errors: as qem_artifact_upload, and ARGUMENT where the memory is too small, not aligned, or not of that device.
 */
QEM_API qem_status qem_artifact_upload_to(qem_context *context, const qem_artifact *artifact, int device, void *memory,
                                          uint64_t bytes, void *stream, qem_device_artifact **uploaded);

/*
 * Ends a device artifact and sets *artifact to NULL; NULL and *NULL are ignored. Memory that qem_artifact_upload allocated is
 * released by cudaFree, which waits for the work enqueued on the device. Not while a stream is captured. Graphs that decode
 * the artifact must not be launched afterwards.
 */
QEM_API void qem_device_artifact_destroy(qem_device_artifact **artifact);

/* What a device artifact is. */
typedef struct qem_device_artifact_info {
    size_t size;
    uint32_t version;
    int32_t device;       /* CUDA's number of the GPU */
    uint64_t rows, cols;
    uint64_t bytes;       /* of device memory */
    const void *memory;   /* device pointer: where they lie */
    uint64_t reserved[8];
} qem_device_artifact_info;
#define QEM_DEVICE_ARTIFACT_INFO_INIT { sizeof(qem_device_artifact_info), 1, 0, 0, 0, 0, NULL, { 0 } }

/* Fills *info. Errors: ARGUMENT. Any thread. */
QEM_API qem_status qem_device_artifact_query(const qem_device_artifact *artifact, qem_device_artifact_info *info);

/*
 * Bytes of device scratch that qem_cuda_dequantize wants for `rows` rows: 0 unless the artifact has rotations (opq, lopq), then
 * 4*rows*cols, twice that where there are several layers; decode fewer rows at once for less. 0 on NULL, UINT64_MAX if
 * the number does not fit. Never less for more rows. Any thread.
 */
QEM_API uint64_t qem_cuda_dequantize_workspace_size(const qem_device_artifact *artifact, uint64_t rows);

/*
 * Decodes rows row_begin .. row_end-1 to `out`, row-major, as F32, F16 or BF16 (rounded to nearest even), in the order of
 * `stream`; returns when that is enqueued. An empty range enqueues nothing.
 *
 * out: device or managed memory of the artifact's device that holds (rows-1)*row_stride + cols elements. It needs the alignment
 * of its element only; where out, the bytes of row_stride and the bytes of a row are multiples of 16, faster kernels work. Gaps
 * between rows are not written.
 * row_stride: the distance of two output rows in elements (0 = cols; otherwise >= cols), at most 2^56 elements in all.
 * overflow: device or managed memory, aligned to 4, of one word that becomes 1 where a decoded finite value is beyond f16 or
 * bf16 (out then holds an infinity there); it is never cleared here. NULL: nobody wants to know.
 * workspace: device memory aligned to 16 of at least qem_cuda_dequantize_workspace_size(artifact, row_end - row_begin) bytes;
 * NULL where that is 0. Its content does not matter. Calls that may run at the same time need one each.
 * out, overflow, workspace and the artifact's memory must not overlap.
 *
 * Errors: ARGUMENT (NULL, rows, type, stride, alignment, workspace too small; pointers that are no device memory of the
 * artifact's device), NO_DEVICE, INTERNAL (the CUDA runtime refused a launch; the text names its reason. Only then a part may
 * have been enqueued).
 */
QEM_API qem_status qem_cuda_dequantize(qem_context *context, const qem_device_artifact *artifact, uint64_t row_begin,
                                       uint64_t row_end, qem_dtype dtype, void *out, uint64_t row_stride, uint32_t *overflow,
                                       void *workspace, uint64_t workspace_bytes, void *stream);

/* ------------------------------------------------------------------------------------------------- products ----- */

/*
 * cuBLAS, for qem_cuda_matmul with many rows of x: a handle, and the functions of the library that it is of. qem is not linked
 * with cuBLAS; this object is what loads it. It serves one thread at a time, and so does the handle in it.
 */
typedef struct qem_cuda_blas qem_cuda_blas;

/*
 * Makes one for GPU `device`. handle NULL: libcublas.so.13 or libcublas.so.12 is loaded, by the names that the dynamic linker
 * goes by (one that the process has already comes first), and a handle is made, which allocates and may synchronize. Otherwise
 * `handle` is a cublasHandle_t of the caller on that device, of the one libcublas.so that the process has loaded (not one that
 * is linked statically); it stays the caller's and must live as long as *blas. The library stays loaded.
 * On success *blas is owned by the caller, who ends it with qem_cuda_blas_destroy; on an error it is NULL.
 * Errors: ARGUMENT (NULL), NO_DEVICE (as qem_artifact_upload, and where cuBLAS finds none), UNSUPPORTED (no such library, one
 * that lacks a function, or with a handle several of them), MEMORY, INTERNAL.
 */
QEM_API qem_status qem_cuda_blas_create(qem_context *context, int device, void *handle, qem_cuda_blas **blas);

/* Ends it, and the handle if it made that, and sets *blas to NULL; NULL and *NULL are ignored. Not while work with it is
 * under way or captured: ending a handle may synchronize. Graphs that were captured with it may be launched afterwards. */
QEM_API void qem_cuda_blas_destroy(qem_cuda_blas **blas);

/*
 * With a qem_cuda_blas, products with so many rows of x or more go through cuBLAS. Own kernels read the codes once for each 8
 * rows of x, and spend about a dozen instructions a weight on that; for cuBLAS every weight is written and read again, 4 bytes
 * in f16 and bf16, which takes about as long as two or three such passes over codes. This is arithmetic: nothing was measured.
 */
#define QEM_CUDA_MATMUL_BLAS_BATCH 17

/*
 * Bytes of device scratch that qem_cuda_matmul wants for that artifact, batch and types; blas is what will be passed there, or
 * NULL.
 *   0 for codes of one codebook (of 256 scalars at most, or of sub-vectors of 2, 4 or 8) and columns in whole fours, without
 *   swaps, outliers or further layers;
 *   for codebooks by group (of sub-vectors of 2, 4 or 8), without these and without scales, a sum for each 64 columns, row and
 *   row of x (8 at once), some 16 MiB at most;
 *   for everything else 16 MiB of decoded rows, or 32 rows, and what qem_cuda_dequantize wants for them;
 *   with blas and a batch that goes to it some 32 MiB of decoded rows, as much for sums if y is not f32, what
 *   qem_cuda_dequantize wants, and cuBLAS's own 4 MiB (32 from compute capability 9.0 on).
 * Never less for a larger batch. 0 on NULL, batch 0 or beyond 2^32 - 1. Any thread.
 */
QEM_API uint64_t qem_cuda_matmul_workspace_size(const qem_device_artifact *artifact, const qem_cuda_blas *blas, uint64_t batch,
                                                qem_dtype x_dtype, qem_dtype y_dtype);

/*
 * y = x * W^T, W the decoded artifact, in the order of `stream`: y[b][i] = sum over j of x[b][j] * W[i][j]. Returns when that
 * is enqueued. batch 0 enqueues nothing.
 *
 * x: batch rows of artifact.cols elements, y: batch rows of artifact.rows elements, each F32, F16 or BF16 on its own; device or
 * managed memory of the artifact's device. x_stride and y_stride are distances of two rows in elements (0 = contiguous;
 * otherwise at least the row's width; gaps are neither read nor written). Pointers need the alignment of their element only;
 * x is read faster where rows are multiples of four elements apart and aligned to that. batch 0 .. 2^32 - 1, at most 2^56
 * elements from the first to the last.
 * blas: for products of QEM_CUDA_MATMUL_BLAS_BATCH rows of x or more; of the artifact's device. NULL: kernels of qem's own
 * for every batch, 8 rows of x at once; correct, but slower the larger the batch is.
 * overflow: as in qem_cuda_dequantize, of one word that becomes 1 where a finite sum is beyond f16 or bf16 (y then holds an
 * infinity there); with cuBLAS also where an element of W is beyond the type of x. NULL: nobody wants to know.
 * workspace: device memory aligned to QEM_CUDA_ALIGNMENT of at least qem_cuda_matmul_workspace_size(...) bytes; NULL where that
 * is 0. Its content does not matter. Calls that may run at the same time need one each.
 * y must overlap neither x, overflow, workspace nor the artifact's memory.
 *
 * Own kernels: W has the bits of qem_cuda_dequantize to f32, x is converted to f32, sums are in f32 and in one order whatever
 * the artifact, the batch and the device are: columns in runs of 64, each a chain of fma with j ascending from +0; the sums
 * s0 .. s7 of 8 runs are added as ((s0+s1)+(s2+s3))+((s4+s5)+(s6+s7)), a run beyond the last column being +0; those sums are
 * added to +0 in ascending order. So |error| <= about n * 2^-24 * sum |x[b][j] * W[i][j]| with n = 68 + cols/512, and a row of
 * y depends on its row of x alone, not on the batch around it. NaN and infinities of x go through as IEEE 754 arithmetic has
 * it, every NaN of y is the same positive quiet one, subnormal numbers are kept, and y is rounded to nearest even from the f32
 * sum, all as in qem_matmul; the bits are others than qem_matmul's, whose order is another one.
 *
 * cuBLAS: W is decoded to the type of x (rounded to nearest even; an f32 x multiplies W in f32, without TF32) and multiplied by
 * cublasGemmEx with f32 accumulation (CUBLAS_COMPUTE_32F, no reduced-precision reduction, no atomics, cuBLAS's workspace inside
 * the caller's), so that results are the same in every run with one version of cuBLAS on one kind of GPU. Which NaN a NaN in an
 * f32 y is, and signs of zero, are cuBLAS's affair; y of another type is rounded from f32 as above. A caller's handle gets its
 * stream and modes back, but not the workspace that was set for it: cuBLAS drops that whenever a stream is set. cuBLAS may load
 * its kernels on the first product of a shape: run that once before it is captured.
 *
 * Errors: ARGUMENT (NULL, batch, types, strides, alignment, workspace too small, blas of another device; pointers that are no
 * device memory of the artifact's device), NO_DEVICE, INTERNAL (the CUDA runtime or cuBLAS refused; the text names the reason.
 * Only then a part may have been enqueued).
 */
QEM_API qem_status qem_cuda_matmul(qem_context *context, const qem_device_artifact *artifact, qem_cuda_blas *blas,
                                   uint64_t batch, qem_dtype x_dtype, const void *x, uint64_t x_stride, qem_dtype y_dtype,
                                   void *y, uint64_t y_stride, uint32_t *overflow, void *workspace, uint64_t workspace_bytes,
                                   void *stream);

#ifdef __cplusplus
}
#endif

#endif
