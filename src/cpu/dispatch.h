/* Which instruction sets the CPU has. */
#ifndef QEM_CPU_DISPATCH_H
#define QEM_CPU_DISPATCH_H

#include "kernels.h"

/* The highest level this CPU can run. */
qem_isa qem_isa_best(void);

#endif
