#include "kernels_test.h"

#include <cstdlib>

namespace qem_test {

void KernelTest::SetUp()
{
    if (!qem_isa_available(GetParam())) GTEST_SKIP() << "this CPU lacks " << qem_isa_name(GetParam());
    const char *text = std::getenv("QEM_TEST_SEED");
    seed = text ? std::strtoull(text, nullptr, 0) : 20240917u;
    random.seed(seed);
    scalar = qem_cpu_kernels_for(QEM_ISA_SCALAR);
    simd = qem_cpu_kernels_for(GetParam());
}

void KernelTest::TearDown()
{
    if (HasFailure()) std::fprintf(stderr, "QEM_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
}

} // namespace qem_test
