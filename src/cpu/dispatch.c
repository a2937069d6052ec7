/* One table of kernels a level: scalar first, then overwritten upward as far as the level goes. */
#include "dispatch.h"

#include <pthread.h>

static qem_cpu_kernels tables[QEM_ISA_AVX512 + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(QEM_HAVE_X86_SIMD)
#include <cpuid.h>

/* F16C by its own bit, for compilers whose __builtin_cpu_supports does not know the name. */
static int cpu_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

static int cpu_has(qem_isa isa)
{
    __builtin_cpu_init();
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                     cpu_has_f16c();
    if (isa == QEM_ISA_AVX2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Beside the levels: lookups of bytes, which the first CPUs with AVX-512 lack. */
static int cpu_has_vbmi(void)
{
    return cpu_has(QEM_ISA_AVX512) && __builtin_cpu_supports("avx512vbmi");
}
#else
static int cpu_has(qem_isa isa)
{
    (void)isa;
    return 0;
}
#endif

int qem_isa_available(qem_isa isa)
{
    switch (isa) {
    case QEM_ISA_AUTO:
    case QEM_ISA_SCALAR: return 1;
    case QEM_ISA_AVX2:
    case QEM_ISA_AVX512: return cpu_has(isa);
    }
    return 0;
}

qem_isa qem_isa_best(void)
{
    if (qem_isa_available(QEM_ISA_AVX512)) return QEM_ISA_AVX512;
    return qem_isa_available(QEM_ISA_AVX2) ? QEM_ISA_AVX2 : QEM_ISA_SCALAR;
}

static void fill_tables(void)
{
    for (int isa = QEM_ISA_SCALAR; isa <= QEM_ISA_AVX512; isa++) {
        qem_kernels_scalar(&tables[isa]);
#if defined(QEM_HAVE_X86_SIMD)
        if (isa >= QEM_ISA_AVX2) qem_kernels_avx2(&tables[isa]);
        if (isa >= QEM_ISA_AVX512) qem_kernels_avx512(&tables[isa]);
        if (isa >= QEM_ISA_AVX512 && cpu_has_vbmi()) qem_product_kernels_vbmi_avx512(&tables[isa].product);
#endif
    }
}

const qem_cpu_kernels *qem_cpu_kernels_for(qem_isa isa)
{
    pthread_once(&once, fill_tables);
    return &tables[isa];
}
