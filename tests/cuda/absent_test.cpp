// The functions of a build without CUDA, under other names beside the real ones.
#include <gtest/gtest.h>

#define qem_artifact_upload absent_artifact_upload
#define qem_device_artifact_size absent_device_artifact_size
#define qem_artifact_upload_to absent_artifact_upload_to
#define qem_device_artifact_destroy absent_device_artifact_destroy
#define qem_device_artifact_query absent_device_artifact_query
#define qem_cuda_dequantize_workspace_size absent_cuda_dequantize_workspace_size
#define qem_cuda_dequantize absent_cuda_dequantize
#define qem_cuda_context_begin absent_cuda_context_begin
#define qem_cuda_context_end absent_cuda_context_end
#define qem_cuda_context_name absent_cuda_context_name
extern "C" {
#include "api/cuda_absent.c"
}

#include "support/context.h"

using namespace qem_test;

namespace {

TEST(CudaAbsent, EveryCallSaysSo)
{
    const Context context;
    const Artifact artifact;
    qem_device_artifact *uploaded = reinterpret_cast<qem_device_artifact *>(1);
    EXPECT_EQ(qem_artifact_upload(context, artifact.get(), 0, nullptr, &uploaded), QEM_ERR_NO_DEVICE);
    EXPECT_EQ(uploaded, nullptr);
    EXPECT_NE(context.error().find("has no CUDA"), std::string::npos);
    uploaded = reinterpret_cast<qem_device_artifact *>(1);
    EXPECT_EQ(qem_artifact_upload_to(context, artifact.get(), 0, nullptr, 0, nullptr, &uploaded), QEM_ERR_NO_DEVICE);
    EXPECT_EQ(uploaded, nullptr);
    EXPECT_EQ(qem_artifact_upload(nullptr, nullptr, 0, nullptr, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_cuda_dequantize(context, nullptr, 0, 0, QEM_DTYPE_F32, nullptr, 0, nullptr, nullptr, 0, nullptr),
              QEM_ERR_NO_DEVICE);
    EXPECT_EQ(qem_cuda_context_begin(context, 0), QEM_ERR_NO_DEVICE);
    qem_cuda_context_end(context);
    EXPECT_EQ(qem_device_artifact_size(artifact.get()), 0u);
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(nullptr, 5), 0u);
    qem_device_artifact_info info = QEM_DEVICE_ARTIFACT_INFO_INIT;
    EXPECT_EQ(qem_device_artifact_query(nullptr, &info), QEM_ERR_ARGUMENT);
    qem_device_artifact_destroy(&uploaded);
    qem_device_artifact_destroy(nullptr);
}

} // namespace
