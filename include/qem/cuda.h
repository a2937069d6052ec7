/*
 * qem on the GPU: artifacts in device memory, and their decoding in the order of a CUDA stream.
 *
 *     artifact (host) -> qem_artifact_upload -> device artifact (immutable) -> qem_cuda_dequantize, as often as wanted
 *
 * No CUDA header is needed here: a stream is a `void *` that holds a cudaStream_t, and NULL is the legacy default stream. The
 * runtime API's streams and the driver API's are the same here.
 *
 * Decoded values are those of qem_dequantize to the last bit, for every kind of artifact and every output type. (Only the
 * payload of a NaN may differ, which no artifact decodes to unless its steps overflow f32 on the way.)
 *
 * Conventions beyond those of qem.h:
 *   - Uploading allocates and blocks. Decoding only enqueues: it allocates nothing, synchronizes nothing, uses no stream but the
 *     caller's, and is legal while that stream is captured into a graph. What it reads and writes must stay where it is until
 *     the stream, or every run of the graph, has passed it.
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
 * Copies an artifact to GPU `device` (0 .. number of devices - 1): codes, maps and codebooks as stored, scales and means as
 * f32, a shared codebook of decoded values also rounded to f16 and bf16. One block of device memory is allocated by
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

#ifdef __cplusplus
}
#endif

#endif
