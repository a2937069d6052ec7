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
    if (job->bits == 8) { /* the usual one: a plain narrowing */
        for (uint64_t i = begin; i < end; i++) *out++ = (uint8_t)job->labels[i];
        return;
    }
    for (uint64_t i = begin; i < end; i++) {
        word |= (uint64_t)job->labels[i] << filled;
        filled += job->bits;
        if (filled < 32) continue;
        for (uint32_t b = 0; b < 4; b++) out[b] = (uint8_t)(word >> 8 * b); /* one store */
        out += 4;
        word >>= 32;
        filled -= 32;
    }
    for (; filled > 0; filled -= filled < 8 ? filled : 8, word >>= 8) *out++ = (uint8_t)word;
}

qem_status qem_cpu_pack(qem_context *context, const uint32_t *labels, uint64_t count, uint32_t bits, uint8_t *stream)
{
    pack_job job = { labels, count, bits, stream };
    if (bits) qem_parallel_for(context->threads, count, PIECE, pack_piece, &job);
    return QEM_OK;
}
