// Values at the limit of f32, and artifacts whose parts contradict each other.
#include <gtest/gtest.h>

#include <cfloat>

#include "support/reference.h"

extern "C" {
#include "core/artifact.h"
}

using namespace qem_test;

namespace {

// The mean of the two values near -FLT_MAX rounds, in f32, beyond FLT_MAX when the large one is put back.
TEST(Limits, CentroidsStayWithinF32)
{
    const Context context;
    const float below = -std::nextafter(FLT_MAX, 0.0f);
    Matrix m(3, 1);
    m.x = { FLT_MAX, below, below };
    for (qem_method method : { QEM_METHOD_VQ, QEM_METHOD_PQ }) {
        qem_recipe recipe = recipe_k(method, 2);
        recipe.dim = 1;
        for (float x : decode(context, quantize(context, m.view(), recipe))) EXPECT_TRUE(std::isfinite(x));
    }
}

// A file can claim a recipe that is not the one of its codes; encoding must not mix the two.
TEST(Limits, EncodeRefusesARecipeThatIsNotThatOfTheCodes)
{
    const Context context;
    const Matrix m = gaussian(64, 24, 1);
    const Artifact base = quantize(context, m.view(), recipe_k(QEM_METHOD_PQ, 8));
    const qem_recipe good = base->recipe;
    const auto refused = [&](qem_recipe claimed) {
        qem_artifact *more = nullptr;
        const qem_view view = m.view();
        base->recipe = claimed;
        EXPECT_EQ(qem_encode(context, base.get(), &view, "more", &more), QEM_ERR_FORMAT);
        EXPECT_EQ(more, nullptr);
        base->recipe = good;
    };
    qem_recipe claimed = good;
    claimed.method = QEM_METHOD_VQ;
    refused(claimed);
    claimed = good;
    claimed.dim = 8;
    refused(claimed);
    claimed = good;
    claimed.levels = 1;
    refused(claimed);
    claimed = good;
    claimed.codebook = QEM_DTYPE_F16;
    refused(claimed);
    EXPECT_NE(encode(context, base, m.view()).get(), nullptr);
}

// More levels than the data fill: the empty ones split wide intervals, those at the edges too, and none is left over.
TEST(Limits, LloydmaxFillsEmptyLevels)
{
    const Context context;
    const Matrix m = heavy_tails(300, 40, 3);
    qem_recipe recipe = recipe_k(QEM_METHOD_LLOYDMAX, 2000);
    recipe.iterations = 40;
    const double many = query(quantize(context, m.view(), recipe)).metrics.mse;
    recipe.k = 1000;
    EXPECT_LT(many, 0.5 * query(quantize(context, m.view(), recipe)).metrics.mse);
}

} // namespace
