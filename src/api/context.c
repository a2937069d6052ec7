/* Contexts: device, threads, instruction set, allocator. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cpu/dispatch.h"
#include "api.h"

#define MOST_THREADS 1024

static void *default_allocate(void *user, size_t bytes)
{
    (void)user;
    return bytes > SIZE_MAX - 63 ? NULL : aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void default_release(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

static uint32_t core_count(void)
{
    long count = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
#endif
    if (count < 1) count = sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1) return 1;
    return count > MOST_THREADS ? MOST_THREADS : (uint32_t)count;
}

/* Fills a context from checked parameters; the reason of a failure goes into its error text. */
static qem_status set_up(qem_context *c, const qem_context_params *p)
{
    if (p->size != sizeof *p || p->version != 1) return QEM_ERR_ARGUMENT;
    if (p->device != QEM_DEVICE_CPU && p->device != QEM_DEVICE_CUDA) return QEM_ERR_ARGUMENT;
    if (p->threads > MOST_THREADS || p->isa < QEM_ISA_AUTO || p->isa > QEM_ISA_AVX512) return QEM_ERR_ARGUMENT;
    if (!p->allocator.allocate != !p->allocator.release) return QEM_ERR_ARGUMENT;
    if (!qem_isa_available(p->isa)) return QEM_ERR_ISA;
    c->device = p->device;
    c->isa = p->isa == QEM_ISA_AUTO ? qem_isa_best() : p->isa;
    c->threads = p->threads ? p->threads : core_count();
    c->seed = p->seed;
    c->allocator = p->allocator;
    if (!c->allocator.allocate) c->allocator = (qem_allocator){ default_allocate, default_release, NULL };
    c->progress = p->progress;
    c->progress_user = p->progress_user;
    c->backend = &qem_cpu_backend;
    c->kernels = qem_cpu_kernels_for(c->isa);
    return p->device == QEM_DEVICE_CUDA ? qem_cuda_context_begin(c, 0) : QEM_OK;
}

qem_status qem_context_create(const qem_context_params *params, qem_context **context)
{
    const qem_context_params defaults = QEM_CONTEXT_PARAMS_INIT;
    qem_context made;
    if (!context) return QEM_ERR_ARGUMENT;
    *context = NULL;
    memset(&made, 0, sizeof made);
    const qem_status status = set_up(&made, params ? params : &defaults);
    if (status != QEM_OK) return status;
    void *memory = made.allocator.allocate(made.allocator.user, sizeof made);
    if (!memory) {
        qem_cuda_context_end(&made);
        return QEM_ERR_MEMORY;
    }
    memcpy(memory, &made, sizeof made);
    *context = memory;
    return QEM_OK;
}

void qem_context_destroy(qem_context **context)
{
    if (!context || !*context) return;
    qem_cuda_context_end(*context);
    const qem_allocator allocator = (*context)->allocator;
    allocator.release(allocator.user, *context);
    *context = NULL;
}

const char *qem_last_error(const qem_context *context)
{
    return context ? context->error : "";
}

/* The CPU's name as the system tells it. */
static void cpu_name(char *name, size_t size)
{
    snprintf(name, size, "unknown CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        value += strspn(value, ": \t");
        snprintf(name, size, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    fclose(file);
}

qem_status qem_context_query(const qem_context *context, qem_context_info *info)
{
    if (!context || !info || info->size != sizeof *info || info->version != 1) return QEM_ERR_ARGUMENT;
    info->device = context->device;
    info->isa = context->isa;
    info->threads = context->threads;
    info->seed = context->seed;
    if (context->device == QEM_DEVICE_CUDA)
        qem_cuda_context_name(context, info->device_name, sizeof info->device_name);
    else
        cpu_name(info->device_name, sizeof info->device_name);
    return QEM_OK;
}

const char *qem_isa_name(qem_isa isa)
{
    static const char *const names[] = { "auto", "scalar", "avx2", "avx512" };
    return (size_t)isa < sizeof names / sizeof names[0] ? names[isa] : "?";
}

const char *qem_version(void)
{
    return QEM_VERSION_STRING;
}

const char *qem_status_string(qem_status status)
{
    switch (status) {
    case QEM_OK: return "ok";
    case QEM_ERR_ARGUMENT: return "an argument is not valid";
    case QEM_ERR_MEMORY: return "out of memory";
    case QEM_ERR_IO: return "a file could not be read or written";
    case QEM_ERR_FORMAT: return "a file is malformed";
    case QEM_ERR_DATA: return "the matrix holds NaN or infinity";
    case QEM_ERR_BUDGET: return "nothing fits in the budget";
    case QEM_ERR_RANGE: return "a value is beyond the range of the type it is stored in";
    case QEM_ERR_NO_DEVICE: return "the device is not there or not part of this build";
    case QEM_ERR_ISA: return "the CPU lacks the instruction set";
    case QEM_ERR_UNSUPPORTED: return "this version cannot do that";
    case QEM_ERR_CHECKSUM: return "bytes do not match their checksum";
    case QEM_ERR_NOT_FOUND: return "no tensor of that name";
    case QEM_ERR_CLASH: return "two tensors have the same name";
    case QEM_ERR_CANCELLED: return "stopped by the caller";
    case QEM_ERR_INTERNAL: return "internal error";
    }
    return "unknown status";
}

size_t qem_dtype_size(qem_dtype dtype)
{
    switch (dtype) {
    case QEM_DTYPE_NONE: return 0;
    case QEM_DTYPE_F64:
    case QEM_DTYPE_I64:
    case QEM_DTYPE_U64: return 8;
    case QEM_DTYPE_F32:
    case QEM_DTYPE_I32:
    case QEM_DTYPE_U32: return 4;
    case QEM_DTYPE_F16:
    case QEM_DTYPE_BF16:
    case QEM_DTYPE_I16:
    case QEM_DTYPE_U16: return 2;
    case QEM_DTYPE_U8:
    case QEM_DTYPE_BOOL:
    case QEM_DTYPE_I8:
    case QEM_DTYPE_F8_E4M3:
    case QEM_DTYPE_F8_E5M2: return 1;
    }
    return 0;
}

const char *qem_dtype_name(qem_dtype dtype)
{
    static const char *const names[] = { "?",   "f32", "f16", "bf16", "f64", "u8",  "bool",   "i8",
                                         "i16", "u16", "i32", "u32",  "i64", "u64", "f8_e4m3", "f8_e5m2" };
    return (size_t)dtype < sizeof names / sizeof names[0] ? names[dtype] : "?";
}
