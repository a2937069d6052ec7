/* Kernels that the gates of the build must refuse: one keeps an array in local memory, one spills when it is given few registers. */
extern "C" __global__ void local_array(const unsigned *in, unsigned *out)
{
    unsigned counts[16] = {};
    for (unsigned i = 0; i < 64; i++) counts[in[i] & 15]++;
    out[threadIdx.x] = counts[in[threadIdx.x] & 15];
}

#ifdef SPILL
extern "C" __global__ void __launch_bounds__(1024, 2) too_many_registers(const float *in, float *out)
{
    float a[64];
#pragma unroll
    for (int i = 0; i < 64; i++) a[i] = in[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; i++) out[i * 1024 + threadIdx.x] = a[i] * a[63 - i];
}
#endif
