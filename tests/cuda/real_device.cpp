// Where no GPU can be used, every test is skipped with the reason.
#include "cuda/real_device.h"

namespace {

cudaError_t first_device()
{
    static const cudaError_t error = [] {
        int devices = 0;
        const cudaError_t counted = cudaGetDeviceCount(&devices);
        if (counted != cudaSuccess) return counted;
        return devices ? cudaFree(nullptr) : cudaErrorNoDevice; // which makes the context
    }();
    return error;
}

class SkipsWithoutDevice : public ::testing::EmptyTestEventListener {
    void OnTestStart(const ::testing::TestInfo &) override
    {
        if (first_device() != cudaSuccess) GTEST_SKIP() << "no GPU can be used: " << cudaGetErrorString(first_device());
    }
};
const bool skips = (::testing::UnitTest::GetInstance()->listeners().Append(new SkipsWithoutDevice), true);

} // namespace
