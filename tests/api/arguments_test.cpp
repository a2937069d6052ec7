// Every argument that is out of its range: one table. An error has its status, a sentence, and leaves the outputs
// alone.
#include <gtest/gtest.h>

#include "support/context.h"
#include "support/matrices.h"

using namespace qem_test;

namespace {

// What the cases start from, all of it valid.
struct Start {
    Context context;
    Matrix m = gaussian(12, 9, 1);
    qem_view view = m.view();
    qem_recipe recipe = recipe_k(QEM_METHOD_PQ, 4);
    qem_plan plan = QEM_PLAN_INIT;
    qem_metrics metrics = QEM_METRICS_INIT;
    qem_kmeans_params kmeans = QEM_KMEANS_PARAMS_INIT;
    std::vector<float> out = std::vector<float>(1000, 7.0f);
    std::vector<uint8_t> map = std::vector<uint8_t>(1000, 7);
    Artifact base = quantize(context, view, recipe);

    qem_status quantize_it(const char *name = nullptr)
    {
        qem_artifact *artifact = base.get();
        const qem_status status = qem_quantize(context, &view, name, &recipe, &artifact);
        EXPECT_EQ(artifact, nullptr) << "on an error *artifact is NULL";
        return status;
    }
    qem_status plan_it() { return qem_make_plan(context, &view, &recipe, &plan); }
    qem_status encode_it()
    {
        qem_artifact *artifact = base.get();
        const qem_status status = qem_encode(context, base.get(), &view, nullptr, &artifact);
        EXPECT_EQ(artifact, nullptr);
        return status;
    }
    qem_status decode_it(uint64_t begin, uint64_t end, qem_dtype dtype, uint64_t stride)
    {
        return qem_dequantize(context, base.get(), begin, end, dtype, out.data(), stride);
    }
    qem_status kmeans_it(uint64_t k)
    {
        return qem_kmeans(context, &view, k, &kmeans, out.data(), nullptr, nullptr, nullptr);
    }
    qem_status quantiles_it(uint32_t dim, uint32_t intervals)
    {
        return qem_quantiles(context, &view, dim, intervals, out.data());
    }
};

struct Case {
    const char *what;
    qem_status (*call)(Start &);
    qem_status expected = QEM_ERR_ARGUMENT;
    const char *text = ""; // a word that the sentence must hold
};

#define RECIPE(change) [](Start &s) { s.recipe.change; return s.quantize_it(); }
#define VIEW(change) [](Start &s) { s.view.change; return s.quantize_it(); }

const Case kCases[] = {
    // recipe
    { "no budget", RECIPE(k = 0), QEM_ERR_ARGUMENT, "exactly one" },
    { "two budgets", RECIPE(ratio = 4.0), QEM_ERR_ARGUMENT, "exactly one" },
    { "ratio and bits",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.ratio = 4;
          s.recipe.bits = 2;
          return s.quantize_it();
      } },
    { "negative ratio",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.ratio = -4.0;
          return s.quantize_it();
      } },
    { "infinite ratio",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.ratio = INFINITY;
          return s.quantize_it();
      } },
    { "NaN ratio",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.ratio = NAN;
          return s.quantize_it();
      } },
    { "negative bits",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.bits = -1.0;
          return s.quantize_it();
      } },
    { "NaN bits",
      [](Start &s) {
          s.recipe.k = 0;
          s.recipe.bits = NAN;
          return s.quantize_it();
      } },
    { "k above the rows of a group", RECIPE(k = 13), QEM_ERR_ARGUMENT, "12" },
    { "k above all sub-vectors",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_VQ, 37);
          return s.quantize_it();
      } },
    { "k above 2^24",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_VQ, (1u << 24) + 1);
          return s.quantize_it();
      } },
    { "rtn with k no power of two",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_RTN, 3);
          return s.quantize_it();
      } },
    { "rtn with k above 65536",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_RTN, 1u << 17);
          return s.quantize_it();
      } },
    { "rtn with dim 2",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_RTN, 4);
          s.recipe.dim = 2;
          return s.quantize_it();
      } },
    { "lloydmax with dim 4",
      [](Start &s) {
          s.recipe = recipe_k(QEM_METHOD_LLOYDMAX, 4);
          s.recipe.dim = 4;
          return s.quantize_it();
      } },
    { "dim above 65535", RECIPE(dim = 65536) },
    { "method none", RECIPE(method = QEM_METHOD_NONE) },
    { "unknown method", RECIPE(method = static_cast<qem_method>(77)) },
    { "intervals for pq", RECIPE(intervals = 2), QEM_ERR_ARGUMENT, "intervals" },
    { "levels 9", RECIPE(levels = 9), QEM_ERR_ARGUMENT, "8" },
    { "codebook bf16", RECIPE(codebook = QEM_DTYPE_BF16) },
    { "restarts 0", RECIPE(restarts = 0) },
    { "restarts 1001", RECIPE(restarts = 1001) },
    { "tolerance 1", RECIPE(tolerance = 1.0) },
    { "tolerance negative", RECIPE(tolerance = -0.1) },
    { "tolerance NaN", RECIPE(tolerance = NAN) },
    { "unknown accounting", RECIPE(accounting = static_cast<qem_accounting>(2)) },
    { "paper accounting with f16",
      [](Start &s) {
          s.recipe.accounting = QEM_ACCOUNTING_PAPER;
          s.recipe.codebook = QEM_DTYPE_F16;
          return s.quantize_it();
      } },
    { "reserved field", RECIPE(reserved[11] = 1), QEM_ERR_ARGUMENT, "reserved" },
    { "reserved32", RECIPE(reserved32 = 1), QEM_ERR_ARGUMENT, "reserved" },
    { "recipe size", RECIPE(size = 8), QEM_ERR_ARGUMENT, "qem_recipe" },
    { "recipe version", RECIPE(version = 0), QEM_ERR_ARGUMENT, "qem_recipe" },
    { "NULL recipe",
      [](Start &s) {
          qem_artifact *a;
          return qem_quantize(s.context, &s.view, nullptr, nullptr, &a);
      } },
    // view
    { "no rows", VIEW(rows = 0), QEM_ERR_ARGUMENT, "empty" },
    { "no columns", VIEW(cols = 0), QEM_ERR_ARGUMENT, "empty" },
    { "2^48 elements",
      [](Start &s) {
          s.view.rows = s.view.cols = 1u << 24;
          return s.quantize_it();
      } },
    { "2^64 elements and some",
      [](Start &s) {
          s.view.rows = s.view.cols = uint64_t(1) << 33;
          return s.quantize_it();
      } },
    { "2^32 sub-vectors",
      [](Start &s) {
          s.view.rows = uint64_t(1) << 31;
          s.view.cols = 8;
          return s.plan_it();
      } },
    { "NULL data", VIEW(data = nullptr), QEM_ERR_ARGUMENT, "NULL" },
    { "i8 elements", VIEW(dtype = QEM_DTYPE_I8), QEM_ERR_ARGUMENT, "i8" },
    { "no element type", VIEW(dtype = QEM_DTYPE_NONE) },
    { "view size", VIEW(size = 0), QEM_ERR_ARGUMENT, "qem_view" },
    { "view version", VIEW(version = 9), QEM_ERR_ARGUMENT, "qem_view" },
    { "NULL view",
      [](Start &s) {
          qem_artifact *a;
          return qem_quantize(s.context, nullptr, nullptr, &s.recipe, &a);
      } },
    // names
    { "empty name", [](Start &s) { return s.quantize_it(""); } },
    { "name of 256 bytes", [](Start &s) { return s.quantize_it(std::string(256, 'x').c_str()); }, QEM_ERR_ARGUMENT,
      "255" },
    { "NULL artifact out", [](Start &s) { return qem_quantize(s.context, &s.view, nullptr, &s.recipe, nullptr); } },
    { "NULL artifact out of encode",
      [](Start &s) { return qem_encode(s.context, s.base.get(), &s.view, nullptr, nullptr); } },
    // plan
    { "plan size",
      [](Start &s) {
          s.plan.size = 1;
          return s.plan_it();
      },
      QEM_ERR_ARGUMENT, "qem_plan" },
    { "NULL plan", [](Start &s) { return qem_make_plan(s.context, &s.view, &s.recipe, nullptr); } },
    { "plan of a bad recipe by shape",
      [](Start &s) {
          s.view.data = nullptr;
          s.recipe.k = 13;
          return s.plan_it();
      } },
    // encode
    { "encode fewer columns",
      [](Start &s) {
          s.view.cols = 8;
          s.view.row_stride = 9;
          return s.encode_it();
      } },
    { "encode against NULL",
      [](Start &s) {
          s.base.reset();
          return s.encode_it();
      } },
    { "encode no rows",
      [](Start &s) {
          s.view.rows = 0;
          return s.encode_it();
      } },
    // dequantize
    { "rows backwards", [](Start &s) { return s.decode_it(5, 4, QEM_DTYPE_F32, 0); }, QEM_ERR_ARGUMENT, "rows" },
    { "rows beyond the end", [](Start &s) { return s.decode_it(0, 13, QEM_DTYPE_F32, 0); }, QEM_ERR_ARGUMENT, "12" },
    { "output in f64", [](Start &s) { return s.decode_it(0, 1, QEM_DTYPE_F64, 0); }, QEM_ERR_ARGUMENT, "f64" },
    { "output stride below the columns", [](Start &s) { return s.decode_it(0, 1, QEM_DTYPE_F32, 8); } },
    { "NULL out", [](Start &s) { return qem_dequantize(s.context, s.base.get(), 0, 1, QEM_DTYPE_F32, nullptr, 0); } },
    { "NULL artifact",
      [](Start &s) {
          s.base.reset();
          return s.decode_it(0, 1, QEM_DTYPE_F32, 0);
      } },
    { "out not aligned",
      [](Start &s) {
          return qem_dequantize(s.context, s.base.get(), 0, 1, QEM_DTYPE_F16,
                                reinterpret_cast<char *>(s.out.data()) + 1, 0);
      },
      QEM_ERR_ARGUMENT, "aligned" },
    // metrics
    { "evaluate another shape",
      [](Start &s) {
          s.view.rows = 11;
          return qem_evaluate(s.context, &s.view, s.base.get(), &s.metrics);
      } },
    { "evaluate NULL", [](Start &s) { return qem_evaluate(s.context, &s.view, nullptr, &s.metrics); } },
    { "NULL metrics", [](Start &s) { return qem_evaluate(s.context, &s.view, s.base.get(), nullptr); } },
    { "metrics version",
      [](Start &s) {
          s.metrics.version = 2;
          return qem_evaluate(s.context, &s.view, s.base.get(), &s.metrics);
      } },
    { "evaluate matrices of two shapes",
      [](Start &s) {
          qem_view other = s.view;
          other.cols = 3;
          return qem_evaluate_matrix(s.context, &s.view, &other, &s.metrics);
      } },
    { "evaluate a NULL matrix", [](Start &s) { return qem_evaluate_matrix(s.context, &s.view, nullptr, &s.metrics); } },
    // blocks
    { "kmeans k 0", [](Start &s) { return s.kmeans_it(0); } },
    { "kmeans k above the points", [](Start &s) { return s.kmeans_it(13); } },
    { "kmeans restarts 0",
      [](Start &s) {
          s.kmeans.restarts = 0;
          return s.kmeans_it(2);
      } },
    { "kmeans tolerance",
      [](Start &s) {
          s.kmeans.tolerance = 2.0;
          return s.kmeans_it(2);
      } },
    { "kmeans params",
      [](Start &s) {
          s.kmeans.size = 3;
          return s.kmeans_it(2);
      },
      QEM_ERR_ARGUMENT, "qem_kmeans_params" },
    { "kmeans NULL centroids",
      [](Start &s) { return qem_kmeans(s.context, &s.view, 2, nullptr, nullptr, nullptr, nullptr, nullptr); } },
    { "kmeans points too wide",
      [](Start &s) {
          s.view.cols = 65536;
          s.view.row_stride = 1;
          return s.kmeans_it(2);
      } },
    { "quantiles dim 0", [](Start &s) { return s.quantiles_it(0, 3); } },
    { "quantiles dim above the columns", [](Start &s) { return s.quantiles_it(10, 3); } },
    { "quantiles of one interval", [](Start &s) { return s.quantiles_it(2, 1); } },
    { "quantiles of 256 intervals", [](Start &s) { return s.quantiles_it(2, 256); } },
    { "quantiles to NULL", [](Start &s) { return qem_quantiles(s.context, &s.view, 2, 3, nullptr); } },
    { "floats to NULL", [](Start &s) { return qem_to_f32(s.context, &s.view, nullptr); } },
    { "floats of no rows",
      [](Start &s) {
          s.view.rows = 0;
          return qem_to_f32(s.context, &s.view, s.out.data());
      } },
    { "swap 0 levels", [](Start &s) { return qem_swap_forward(s.context, &s.view, 0, s.out.data(), s.map.data()); } },
    { "swap 9 levels", [](Start &s) { return qem_swap_forward(s.context, &s.view, 9, s.out.data(), s.map.data()); } },
    { "swap to NULL", [](Start &s) { return qem_swap_forward(s.context, &s.view, 1, nullptr, s.map.data()); } },
    { "swap map NULL", [](Start &s) { return qem_swap_forward(s.context, &s.view, 1, s.out.data(), nullptr); } },
    { "inverse of NULL",
      [](Start &s) { return qem_swap_inverse(s.context, nullptr, s.map.data(), 2, 2, 1, s.out.data()); } },
    { "inverse 0 levels",
      [](Start &s) { return qem_swap_inverse(s.context, s.m.x.data(), s.map.data(), 2, 2, 0, s.out.data()); } },
    { "inverse no rows",
      [](Start &s) { return qem_swap_inverse(s.context, s.m.x.data(), s.map.data(), 0, 2, 1, s.out.data()); } },
    { "synthetic no rows", [](Start &s) { return qem_generate_synthetic(s.context, 0, 2, 0.0, s.out.data()); } },
    { "synthetic too large",
      [](Start &s) {
          return qem_generate_synthetic(s.context, uint64_t(1) << 40, uint64_t(1) << 40, 0.0, s.out.data());
      } },
    { "synthetic rate 2", [](Start &s) { return qem_generate_synthetic(s.context, 2, 2, 2.0, s.out.data()); } },
    { "synthetic rate NaN", [](Start &s) { return qem_generate_synthetic(s.context, 2, 2, NAN, s.out.data()); } },
    { "synthetic NULL", [](Start &s) { return qem_generate_synthetic(s.context, 2, 2, 0.0, nullptr); } },
};

TEST(Arguments, EachIsRefusedWithASentence)
{
    for (const Case &c : kCases) {
        SCOPED_TRACE(c.what);
        Start start;
        EXPECT_EQ(c.call(start), c.expected);
        const std::string text = start.context.error();
        EXPECT_FALSE(text.empty());
        EXPECT_EQ(text.find('\n'), std::string::npos) << text;
        EXPECT_NE(text.find(c.text), std::string::npos) << text;
        EXPECT_EQ(start.out, std::vector<float>(1000, 7.0f)) << "nothing is written on an error";
        EXPECT_EQ(start.map, std::vector<uint8_t>(1000, 7));
        EXPECT_EQ(start.metrics.count, 0u);
        EXPECT_EQ(start.plan.k, 0u);
    }
}

TEST(Arguments, WithoutAContextThereIsAStatusAlone)
{
    Start s;
    qem_artifact *artifact = nullptr;
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    qem_part part = QEM_PART_INIT;
    qem_context_info context_info = QEM_CONTEXT_INFO_INIT;
    EXPECT_EQ(qem_quantize(nullptr, &s.view, nullptr, &s.recipe, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_make_plan(nullptr, &s.view, &s.recipe, &s.plan), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_encode(nullptr, s.base.get(), &s.view, nullptr, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_dequantize(nullptr, s.base.get(), 0, 1, QEM_DTYPE_F32, s.out.data(), 0), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_evaluate(nullptr, &s.view, s.base.get(), &s.metrics), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_evaluate_matrix(nullptr, &s.view, &s.view, &s.metrics), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_kmeans(nullptr, &s.view, 2, nullptr, s.out.data(), nullptr, nullptr, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_quantiles(nullptr, &s.view, 2, 2, s.out.data()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_to_f32(nullptr, &s.view, s.out.data()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_swap_forward(nullptr, &s.view, 1, s.out.data(), s.map.data()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_swap_inverse(nullptr, s.m.x.data(), s.map.data(), 2, 2, 1, s.out.data()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_generate_synthetic(nullptr, 2, 2, 0.0, s.out.data()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_context_query(nullptr, &context_info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_context_query(s.context, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_STREQ(qem_last_error(nullptr), "");
    // queries have no context
    EXPECT_EQ(qem_artifact_query(nullptr, &info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_artifact_query(s.base.get(), nullptr), QEM_ERR_ARGUMENT);
    info.size = 5;
    EXPECT_EQ(qem_artifact_query(s.base.get(), &info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_artifact_part(s.base.get(), 2, &part), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_artifact_part(s.base.get(), UINT32_MAX, &part), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_artifact_part(nullptr, 0, &part), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_artifact_part_count(nullptr), 0u);
    qem_artifact_destroy(nullptr);
    qem_artifact_destroy(&artifact);
}

} // namespace
