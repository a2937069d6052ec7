// What executes the kernels under these tests: the kernel host runner, or with QEM_TEST_REAL_DEVICE a GPU.
#ifndef QEM_TESTS_CUDA_RUNNER_H
#define QEM_TESTS_CUDA_RUNNER_H

#ifdef QEM_TEST_REAL_DEVICE
#include "cuda/real_device.h"
#else
#include "cuda_host/runner.h"
#endif

#endif
