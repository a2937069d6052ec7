/* In place of device.c where there is no CUDA to build it with. */
#include "llama.h"

bool device_open(qem_context *context, llama_device **opened)
{
    (void)context;
    *opened = NULL;
    return fail("--device cuda: this llama was built without CUDA");
}

void device_close(llama_device **opened)
{
    *opened = NULL;
}

bool device_upload(llama_device *d, weight *matrix)
{
    (void)d, (void)matrix;
    return false;
}

bool device_apply(llama_device *d, const weight *matrix, const float *x, uint64_t batch, float *y)
{
    (void)d, (void)matrix, (void)x, (void)batch, (void)y;
    return false;
}
