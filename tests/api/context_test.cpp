// Contexts, and the small tables of names and sizes.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "support/context.h"
#include "support/matrices.h"

using namespace qem_test;

namespace {

qem_status create(const qem_context_params &params)
{
    qem_context *context = reinterpret_cast<qem_context *>(&context); // must be overwritten
    const qem_status status = qem_context_create(&params, &context);
    EXPECT_EQ(context != nullptr, status == QEM_OK);
    qem_context_destroy(&context);
    EXPECT_EQ(context, nullptr);
    return status;
}

TEST(ContextCreate, Defaults)
{
    qem_context *context = nullptr;
    ASSERT_EQ(qem_context_create(nullptr, &context), QEM_OK);
    EXPECT_STREQ(qem_last_error(context), "");
    qem_context_info info = QEM_CONTEXT_INFO_INIT;
    ASSERT_EQ(qem_context_query(context, &info), QEM_OK);
    EXPECT_EQ(info.device, QEM_DEVICE_CPU);
    EXPECT_NE(info.isa, QEM_ISA_AUTO);
    EXPECT_TRUE(qem_isa_available(info.isa));
    EXPECT_GE(info.threads, 1u);
    EXPECT_EQ(info.seed, 0u);
    EXPECT_GT(strnlen(info.device_name, sizeof info.device_name), 0u);
    EXPECT_LT(strnlen(info.device_name, sizeof info.device_name), sizeof info.device_name);
    qem_context_destroy(&context);
    EXPECT_EQ(context, nullptr);
    qem_context_destroy(&context);
    qem_context_destroy(nullptr);
}

TEST(ContextCreate, KeepsWhatIsAskedFor)
{
    for (qem_isa isa : available_isas()) {
        Options options = with_threads(3, isa);
        options.seed = 0xfedcba9876543210u;
        const Context context(options);
        qem_context_info info = QEM_CONTEXT_INFO_INIT;
        ASSERT_EQ(qem_context_query(context, &info), QEM_OK);
        EXPECT_EQ(info.isa, isa);
        EXPECT_EQ(info.threads, 3u);
        EXPECT_EQ(info.seed, 0xfedcba9876543210u);
    }
}

TEST(ContextCreate, RefusesWhatIsWrong)
{
    const qem_context_params good = QEM_CONTEXT_PARAMS_INIT;
    EXPECT_EQ(create(good), QEM_OK);
    EXPECT_EQ(qem_context_create(&good, nullptr), QEM_ERR_ARGUMENT);
    qem_context_params bad = good;
    bad.size--;
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.version = 2;
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.device = QEM_DEVICE_CUDA;
    const qem_status on_gpu = create(bad); // this machine and this build may have one
    EXPECT_TRUE(on_gpu == QEM_ERR_NO_DEVICE || on_gpu == QEM_OK) << qem_status_string(on_gpu);
    bad.device = static_cast<qem_device>(7);
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.threads = 1025;
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.isa = static_cast<qem_isa>(4);
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.allocator.release = [](void *, void *) {};
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad = good;
    bad.allocator.allocate = [](void *, size_t) -> void * { return nullptr; };
    EXPECT_EQ(create(bad), QEM_ERR_ARGUMENT);
    bad.allocator.release = [](void *, void *) {};
    EXPECT_EQ(create(bad), QEM_ERR_MEMORY);
}

TEST(ContextCreate, InstructionSetsThatTheCpuLacksAreRefused)
{
    for (qem_isa isa : { QEM_ISA_SCALAR, QEM_ISA_AVX2, QEM_ISA_AVX512 }) {
        qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
        params.isa = isa;
        EXPECT_EQ(create(params), qem_isa_available(isa) ? QEM_OK : QEM_ERR_ISA);
    }
    EXPECT_EQ(qem_isa_available(QEM_ISA_AUTO), 1);
    EXPECT_EQ(qem_isa_available(QEM_ISA_SCALAR), 1);
    EXPECT_EQ(qem_isa_available(static_cast<qem_isa>(99)), 0);
    EXPECT_EQ(qem_isa_available(static_cast<qem_isa>(-1)), 0);
}

TEST(Names, StatusStringsAreThereAndDiffer)
{
    std::set<std::string> texts;
    for (int status = QEM_OK; status <= QEM_ERR_INTERNAL; status++)
        texts.insert(qem_status_string(static_cast<qem_status>(status)));
    EXPECT_EQ(texts.size(), static_cast<size_t>(QEM_ERR_INTERNAL) + 1);
    for (int status : { -1, 16, 1000 }) {
        ASSERT_NE(qem_status_string(static_cast<qem_status>(status)), nullptr);
        EXPECT_EQ(texts.count(qem_status_string(static_cast<qem_status>(status))), 0u);
    }
}

TEST(Names, ElementTypes)
{
    const size_t sizes[] = { 0, 4, 2, 2, 8, 1, 1, 1, 2, 2, 4, 4, 8, 8, 1, 1 };
    std::set<std::string> names;
    for (int dtype = 0; dtype < 16; dtype++) {
        EXPECT_EQ(qem_dtype_size(static_cast<qem_dtype>(dtype)), sizes[dtype]) << dtype;
        names.insert(qem_dtype_name(static_cast<qem_dtype>(dtype)));
    }
    EXPECT_EQ(names.size(), 16u);
    EXPECT_STREQ(qem_dtype_name(QEM_DTYPE_BF16), "bf16");
    for (int unknown : { -1, 16, 99 }) {
        EXPECT_EQ(qem_dtype_size(static_cast<qem_dtype>(unknown)), 0u);
        EXPECT_STREQ(qem_dtype_name(static_cast<qem_dtype>(unknown)), "?");
    }
}

TEST(Names, MethodsAndInstructionSets)
{
    for (qem_method method : kMethods) EXPECT_EQ(qem_method_from_name(qem_method_name(method)), method);
    EXPECT_STREQ(qem_method_name(QEM_METHOD_HYPERCHR), "hyperchr");
    for (qem_method method : { QEM_METHOD_GRID, QEM_METHOD_NF, QEM_METHOD_OPQ, QEM_METHOD_LOPQ, QEM_METHOD_AUTO })
        EXPECT_EQ(qem_method_from_name(qem_method_name(method)), method);
    for (int unknown : { -1, 0, 12, 999 }) EXPECT_STREQ(qem_method_name(static_cast<qem_method>(unknown)), "?");
    for (const char *unknown : { "", "?", "PQ", "pq ", "p", "opqs" })
        EXPECT_EQ(qem_method_from_name(unknown), QEM_METHOD_NONE) << unknown;
    EXPECT_EQ(qem_method_from_name(nullptr), QEM_METHOD_NONE);
    EXPECT_STREQ(qem_isa_name(QEM_ISA_AUTO), "auto");
    EXPECT_STREQ(qem_isa_name(QEM_ISA_SCALAR), "scalar");
    EXPECT_STREQ(qem_isa_name(QEM_ISA_AVX2), "avx2");
    EXPECT_STREQ(qem_isa_name(QEM_ISA_AVX512), "avx512");
    EXPECT_STREQ(qem_isa_name(static_cast<qem_isa>(4)), "?");
    EXPECT_STREQ(qem_isa_name(static_cast<qem_isa>(-1)), "?");
    EXPECT_STREQ(qem_version(), QEM_VERSION_STRING);
}

} // namespace
