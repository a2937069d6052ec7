/* Labels -> continuous bit stream. */
#include <string.h>

#include "cpu.h"
#include "parallel.h"

#define PIECE 8192 /* codes: a multiple of 8, so pieces begin at whole bytes and threads share none */

typedef struct pack_job {
    const uint32_t *labels;
    uint64_t count;
    uint32_t bits;
    uint8_t *stream;
} pack_job;

static void pack_piece(void *argument, uint64_t begin, uint64_t end, uint32_t thread)
{
    const pack_job *job = argument;
    uint8_t *out = job->stream + begin / 8 * job->bits;
    uint64_t word = 0;
    uint32_t filled = 0;
    (void)thread;
    for (uint64_t i = begin; i < end; i++) {
        word |= (uint64_t)job->labels[i] << filled;
        filled += job->bits;
        while (filled >= 8) {
            *out++ = (uint8_t)word;
            word >>= 8;
            filled -= 8;
        }
    }
    if (filled) *out = (uint8_t)word;
}

qem_status qem_cpu_pack(qem_context *context, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream)
{
    pack_job job = { labels, count, bits, stream };
    if (bits) qem_parallel_for(context->threads, count, PIECE, pack_piece, &job);
    return QEM_OK;
}
