#include "arena.cuh"

#include <string.h>

/* In front of each block that was made, as large as the alignment of what the allocator returns. */
union made_header {
    union made_header *next;
    unsigned char bytes[64];
};

void *qem_cuda_make(qem_cuda_arena *arena, uint64_t bytes)
{
    void *memory;
    if (!arena->context || arena->status != QEM_OK) return nullptr;
    if (bytes > UINT64_MAX - sizeof(made_header)) {
        arena->status = qem_fail(arena->context, QEM_ERR_MEMORY, "a table of the artifact does not fit in memory");
        return nullptr;
    }
    arena->status = qem_allocate_zero(arena->context, bytes + sizeof(made_header), 1, &memory);
    if (arena->status != QEM_OK) return nullptr;
    made_header *header = (made_header *)memory;
    header->next = (made_header *)arena->made;
    arena->made = header;
    return header + 1;
}

const void *qem_cuda_put_with_room(qem_cuda_arena *arena, const void *host, uint64_t bytes, uint64_t room)
{
    const uint64_t at = arena->used;
    /* every part begins at 256 bytes: its loads of 16 are aligned, and no two parts share a line */
    arena->used += (room + QEM_CUDA_ALIGNMENT - 1) / QEM_CUDA_ALIGNMENT * QEM_CUDA_ALIGNMENT;
    if (!arena->context || arena->status != QEM_OK) return nullptr;
    if (arena->used > arena->bytes) {
        arena->status =
            qem_fail(arena->context, QEM_ERR_INTERNAL, "the artifact needs more device memory than was counted");
        return nullptr;
    }
    unsigned char *const to = arena->memory + at;
    if (bytes == 0) return to;
    const cudaError_t error = cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, arena->stream);
    if (error == cudaSuccess) return to;
    arena->status = qem_cuda_fail(arena->context, error, "copying to the GPU");
    return nullptr;
}

void qem_cuda_arena_end(qem_cuda_arena *arena)
{
    while (arena->made) {
        made_header *header = (made_header *)arena->made;
        arena->made = header->next;
        qem_release(arena->context, header);
    }
}
