// qem_save and qem_load give the artifact back as it was.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "support/reference.h"

using namespace qem_test;

namespace {

class Save : public ::testing::Test {
protected:
    void TearDown() override { std::remove(path.c_str()); }
    Artifact round_trip(const Artifact &artifact)
    {
        context.must(qem_save(context, artifact.get(), path.c_str()));
        qem_artifact *loaded = nullptr;
        context.must(qem_load(context, path.c_str(), &loaded));
        return Artifact(loaded);
    }
    const Context context;
    const std::string path = ::testing::TempDir() + "qem_api_save_" + std::to_string(getpid()) + ".safetensors";
};

TEST_F(Save, EveryMethodComesBackAsItWas)
{
    for (qem_method method : kMethods)
        for (uint32_t levels : { 0, 3 })
            for (qem_dtype stored : { QEM_DTYPE_F32, QEM_DTYPE_F16 })
                for (uint64_t k : { 1, 16 })
                    for (uint64_t cols : { 1, 14, 16 }) {
                        if (method == QEM_METHOD_RTN && stored == QEM_DTYPE_F16) continue;
                        SCOPED_TRACE(std::string(qem_method_name(method)) + ", levels " + std::to_string(levels) +
                                     ", cols " + std::to_string(cols));
                        const Matrix m = gaussian(50, cols, 1);
                        qem_recipe recipe = recipe_k(method, k);
                        recipe.levels = levels;
                        recipe.codebook = stored;
                        const Artifact artifact = quantize(context, m.view(), recipe), loaded = round_trip(artifact);
                        EXPECT_EQ(parts_of(loaded), parts_of(artifact));
                        EXPECT_EQ(decode(context, loaded), decode(context, artifact));
                        const qem_artifact_info a = query(artifact), b = query(loaded);
                        EXPECT_STREQ(b.name, "w");
                        EXPECT_EQ(b.method, a.method);
                        EXPECT_EQ(b.k, a.k);
                        EXPECT_EQ(b.dim, a.dim);
                        EXPECT_EQ(b.levels, a.levels);
                        EXPECT_EQ(b.intervals, a.intervals);
                        EXPECT_EQ(b.cells, a.cells);
                        EXPECT_EQ(b.codebook, a.codebook);
                        EXPECT_EQ(b.source_dtype, a.source_dtype);
                        EXPECT_EQ(b.stored_bytes, a.stored_bytes);
                        EXPECT_EQ(b.budget_bytes, a.budget_bytes);
                        EXPECT_EQ(b.seed, a.seed);
                        EXPECT_EQ(b.has_metrics, 1);
                        EXPECT_EQ(b.metrics.mse, a.metrics.mse);
                        EXPECT_EQ(b.metrics.max_error, a.metrics.max_error);
                        EXPECT_TRUE(std::isnan(b.quantize_seconds));
                        // a loaded artifact encodes like the one that was saved
                        const Matrix more = gaussian(6, cols, 2);
                        EXPECT_EQ(parts_of(encode(context, loaded, more.view())),
                                  parts_of(encode(context, artifact, more.view())));
                    }
}

TEST_F(Save, AskedForRecipeIsKept)
{
    const Matrix m = gaussian(100, 16, 1);
    qem_recipe recipe = recipe_ratio(QEM_METHOD_HYPERCHR, 3.3);
    recipe.intervals = 2;
    recipe.restarts = 2;
    recipe.iterations = 7;
    recipe.tolerance = 0.001;
    const Artifact loaded = round_trip(quantize(context, m.view(), recipe));
    const qem_recipe back = query(loaded).recipe;
    EXPECT_EQ(std::memcmp(&back, &recipe, sizeof back), 0);
}

TEST_F(Save, FilesThatCannotBe)
{
    qem_artifact *artifact = reinterpret_cast<qem_artifact *>(&artifact);
    EXPECT_EQ(qem_load(context, "/nonexistent/qem.safetensors", &artifact), QEM_ERR_IO);
    EXPECT_EQ(artifact, nullptr);
    EXPECT_NE(context.error().find("/nonexistent/qem.safetensors"), std::string::npos);
    const Matrix m = gaussian(4, 4, 1);
    const Artifact made = quantize(context, m.view(), recipe_k(QEM_METHOD_PQ, 2));
    EXPECT_EQ(qem_save(context, made.get(), "/nonexistent/qem.safetensors"), QEM_ERR_IO);
    EXPECT_FALSE(context.error().empty());
}

} // namespace
