/* The toolkit's conversions of 16-bit floats, as the host runs them. */
#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace qem_runner {

uint16_t to_f16(float x);
uint16_t to_bf16(float x);
float from_f16(uint16_t bits);

uint16_t to_f16(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}

uint16_t to_bf16(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

float from_f16(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

} // namespace qem_runner
