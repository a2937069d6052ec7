// Memory that runs out, callers who cancel, contexts in several threads: one clear status, no leak, no harm.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <set>
#include <thread>

#include "support/reference.h"

using namespace qem_test;

namespace {

// Counts what is alive; the allocation number `fail_at` (from 1) and all later ones fail.
struct Counter {
    std::set<void *> alive;
    uint64_t calls = 0, fail_at = UINT64_MAX;
    std::thread::id thread = std::this_thread::get_id();
    bool foreign_thread = false;

    qem_allocator allocator()
    {
        return { [](void *user, size_t bytes) -> void * {
                    Counter *c = static_cast<Counter *>(user);
                    c->foreign_thread |= std::this_thread::get_id() != c->thread;
                    if (++c->calls >= c->fail_at) return nullptr;
                    void *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
                    std::memset(memory, 0xa5, std::min<size_t>(bytes, 65536)); // nobody may count on zeros
                    c->alive.insert(memory);
                    return memory;
                },
                 [](void *user, void *memory) {
                     Counter *c = static_cast<Counter *>(user);
                     c->foreign_thread |= std::this_thread::get_id() != c->thread;
                     EXPECT_EQ(c->alive.erase(memory), 1u) << "released twice or never allocated";
                     std::free(memory);
                 },
                 this };
    }
};

Options counted(Counter &counter, uint32_t threads)
{
    Options options = with_threads(threads);
    options.allocator = counter.allocator();
    return options;
}

// Runs `call` with allocation 1, 2, 3, ... failing until it succeeds.
void exhaust(const std::function<qem_status(const Context &)> &call, bool allocates = true, uint64_t most = 500)
{
    for (uint32_t threads : { 1, 3 }) {
        Counter counter;
        {
            const Context context(counted(counter, threads));
            const size_t before = counter.alive.size();
            uint64_t failures = 0;
            for (;; failures++) {
                counter.calls = 0;
                counter.fail_at = failures + 1;
                const qem_status status = call(context);
                ASSERT_EQ(counter.alive.size(), before) << "leak when allocation " << failures + 1 << " fails";
                if (status == QEM_OK) break;
                ASSERT_EQ(status, QEM_ERR_MEMORY) << context.error();
                ASSERT_NE(context.error().find("memory"), std::string::npos) << context.error();
                ASSERT_LT(failures, most);
            }
            if (allocates) {
                EXPECT_GT(failures, 0u);
            }
            EXPECT_LT(counter.calls, counter.fail_at) << "it succeeded although an allocation failed";
        }
        EXPECT_TRUE(counter.alive.empty());
        EXPECT_FALSE(counter.foreign_thread) << "the allocator is called on the caller's thread alone";
    }
}

std::vector<qem_recipe> all_recipes()
{
    std::vector<qem_recipe> recipes;
    for (qem_method method : kMethods) {
        qem_recipe recipe = recipe_k(method, 16);
        recipe.levels = recipes.size() % 2 ? 2 : QEM_LEVELS_DEFAULT;
        recipes.push_back(recipe);
    }
    for (uint32_t intervals : { 1, 2 }) {
        qem_recipe recipe = recipe_k(QEM_METHOD_HYPERCHR, 32);
        recipe.intervals = intervals;
        recipe.codebook = QEM_DTYPE_F16;
        recipe.restarts = 2;
        recipes.push_back(recipe);
    }
    recipes.push_back(recipe_ratio(QEM_METHOD_HYPERCHR, 1.2)); // the default grids are tried
    qem_recipe refined = recipe_k(QEM_METHOD_HYPERCHR, 32);
    refined.intervals = 2;
    refined.iterations = 0;
    refined.refine = 2;
    recipes.push_back(refined);
    return recipes;
}

// A recipe and what it points to.
struct Chain {
    explicit Chain(const char *title, const qem_recipe &r) : name(title), first(r) {}
    std::string name;
    qem_recipe first, second = QEM_RECIPE_INIT;
    Matrix weights;
    qem_view importance = QEM_VIEW_INIT;

    const qem_recipe &recipe()
    {
        if (second.method != QEM_METHOD_NONE) first.residual = &second;
        if (!weights.x.empty()) {
            importance = weights.view();
            first.importance = &importance;
        }
        return first;
    }
};

// Every block of the pipeline at least once, for matrices of `cols` columns.
std::vector<Chain> every_block(uint64_t cols)
{
    std::vector<Chain> chains;
    chains.reserve(16); // references to them stay
    const auto add = [&](const char *name, qem_method method, double bits) -> Chain & {
        chains.emplace_back(name, recipe_of(method));
        chains.back().first.bits = bits;
        chains.back().first.iterations = 2;
        return chains.back();
    };
    qem_recipe *r = &add("rows and columns in 8 bits, f16 codebook, swaps", QEM_METHOD_VQ, 10.0).first;
    r->standardize = QEM_STANDARDIZE_ROW | QEM_STANDARDIZE_COLUMN;
    r->params = 8;
    r->codebook = QEM_DTYPE_F16;
    r->levels = 1;
    r = &add("scalars in searched blocks and columns", QEM_METHOD_LLOYDMAX, 9.0).first;
    r->standardize = QEM_STANDARDIZE_BLOCK | QEM_STANDARDIZE_COLUMN;
    r->standardize_block = 4;
    r->params = 6;
    r = &add("vectors in blocks by least squares, outliers", QEM_METHOD_VQ, 12.0).first;
    r->dim = 2;
    r->standardize = QEM_STANDARDIZE_BLOCK;
    r->standardize_block = 5;
    r->outliers = 0.02;
    r->codebook_bits = 8;
    Chain &residual = add("a residual of grids of blocks, weighted", QEM_METHOD_VQ, 24.0);
    residual.second = recipe_of(QEM_METHOD_GRID);
    residual.second.grid_axis = QEM_AXIS_BLOCK;
    residual.second.grid_block = 6;
    residual.second.params = 4;
    residual.first.outlier_sigma = 2.0;
    residual.weights = Matrix(1, cols);
    for (uint64_t j = 0; j < cols; j++) residual.weights.x[j] = 0.5f + static_cast<float>(j % 3);
    r = &add("mixed rates of swapped halves", QEM_METHOD_QET, 14.3).first;
    r->dim = 1;
    r->mixed = 1;
    r = &add("a rotation, integers", QEM_METHOD_OPQ, 24.0).first;
    r->dim = 2;
    r->codebook_bits = 6;
    r->allocation = QEM_ALLOCATION_VARIANCE;
    r = &add("rotations of cells, rows standardized", QEM_METHOD_LOPQ, 40.0).first;
    r->standardize = QEM_STANDARDIZE_ROW;
    r->codebook_bits = 8;
    r = &add("widths by group", QEM_METHOD_PQ, 9.0).first;
    r->dim = 1;
    r->allocation = QEM_ALLOCATION_VARIANCE;
    r->codebook_bits = 5;
    Chain &cells = add("cells by variance, weighted", QEM_METHOD_HYPERCHR, 12.0);
    cells.first.dim = 2;
    cells.first.intervals = 2;
    cells.first.allocation = QEM_ALLOCATION_VARIANCE;
    cells.first.refine = 2;
    cells.weights = residual.weights;
    add("normal floats of rows", QEM_METHOD_NF, 8.0).first.grid_axis = QEM_AXIS_ROW;
    return chains;
}

// A matrix that has to be copied, so that loading allocates too.
qem_view strided(const Matrix &m)
{
    qem_view view = m.view();
    view.cols -= 2;
    view.row_stride = m.cols;
    return view;
}

TEST(OutOfMemory, QuantizeAndPlan)
{
    const Matrix m = gaussian(80, 13, 1);
    for (const qem_recipe &recipe : all_recipes())
        for (const qem_view &view : { m.view(), strided(m) }) {
            SCOPED_TRACE(qem_method_name(recipe.method));
            exhaust([&](const Context &context) {
                qem_artifact *artifact = nullptr;
                const qem_status status = qem_quantize(context, &view, nullptr, &recipe, &artifact);
                EXPECT_EQ(artifact != nullptr, status == QEM_OK);
                qem_artifact_destroy(&artifact);
                return status;
            });
            if (recipe.method == QEM_METHOD_RTN) continue; // of a borrowed matrix it plans without memory
            exhaust([&](const Context &context) {
                qem_plan plan = QEM_PLAN_INIT;
                const qem_status status = qem_make_plan(context, &view, &recipe, &plan);
                EXPECT_EQ(plan.k != 0, status == QEM_OK);
                return status;
            });
        }
}

TEST(OutOfMemory, EveryBlock)
{
    const Matrix m = gaussian(40, 12, 8), more = gaussian(7, 12, 9);
    const qem_view view = m.view(), new_rows = more.view();
    for (Chain &chain : every_block(12)) {
        SCOPED_TRACE(chain.name);
        const qem_recipe &recipe = chain.recipe();
        exhaust([&](const Context &context) {
            qem_artifact *artifact = nullptr;
            const qem_status status = qem_quantize(context, &view, nullptr, &recipe, &artifact);
            EXPECT_EQ(artifact != nullptr, status == QEM_OK);
            qem_artifact_destroy(&artifact);
            return status;
        });
        exhaust([&](const Context &context) {
            qem_plan plan = QEM_PLAN_INIT;
            const qem_status status = qem_make_plan(context, &view, &recipe, &plan);
            EXPECT_EQ(plan.k != 0, status == QEM_OK);
            return status;
        }, chain.first.method != QEM_METHOD_NF);
        const Context maker;
        const Artifact base = quantize(maker, view, recipe);
        ASSERT_TRUE(base.get());
        exhaust([&](const Context &context) {
            qem_artifact *artifact = nullptr;
            const qem_status status = qem_encode(context, base.get(), &new_rows, nullptr, &artifact);
            EXPECT_EQ(artifact != nullptr, status == QEM_OK);
            qem_artifact_destroy(&artifact);
            return status;
        });
        exhaust([&](const Context &context) {
            std::vector<float> x(3 * 12, 1.0f), y(3 * 40, 7.0f);
            const qem_status status = qem_matmul(context, base.get(), 3, QEM_DTYPE_F32, x.data(), 0, QEM_DTYPE_F32, y.data(), 0,
                                                 nullptr, 0);
            if (status != QEM_OK) {
                EXPECT_EQ(y, std::vector<float>(y.size(), 7.0f));
            }
            return status;
        });
    }
}

TEST(OutOfMemory, Auto)
{
    const Matrix m = gaussian(12, 8, 8);
    const qem_view view = m.view();
    qem_recipe recipe = recipe_of(QEM_METHOD_AUTO);
    recipe.bits = 12.0;
    recipe.effort = 0;
    recipe.iterations = 1;
    exhaust([&](const Context &context) {
        qem_artifact *artifact = nullptr;
        const qem_status status = qem_quantize(context, &view, nullptr, &recipe, &artifact);
        EXPECT_EQ(artifact != nullptr, status == QEM_OK);
        qem_artifact_destroy(&artifact);
        return status;
    }, true, 2000);
}

TEST(OutOfMemory, EncodeDecodeAndEvaluate)
{
    const Matrix m = gaussian(80, 13, 2), more = gaussian(9, 13, 3);
    const Context maker;
    const qem_view view = more.view(), original = m.view();
    for (const qem_recipe &recipe : all_recipes()) {
        SCOPED_TRACE(qem_method_name(recipe.method));
        const Artifact base = quantize(maker, m.view(), recipe);
        exhaust([&](const Context &context) {
            qem_artifact *artifact = nullptr;
            const qem_status status = qem_encode(context, base.get(), &view, nullptr, &artifact);
            EXPECT_EQ(artifact != nullptr, status == QEM_OK);
            qem_artifact_destroy(&artifact);
            return status;
        });
        exhaust([&](const Context &context) {
            std::vector<uint16_t> out(m.x.size());
            return qem_dequantize(context, base.get(), 0, m.rows, QEM_DTYPE_F16, out.data(), 0);
        });
        exhaust([&](const Context &context) {
            qem_metrics metrics = QEM_METRICS_INIT;
            return qem_evaluate(context, &original, base.get(), &metrics);
        });
    }
}

TEST(OutOfMemory, Blocks)
{
    const Matrix m = gaussian(80, 13, 4);
    for (const qem_view &view : { m.view(), strided(m) }) {
        exhaust([&](const Context &context) {
            std::vector<float> centroids(5 * 13);
            std::vector<uint32_t> labels(80);
            return qem_kmeans(context, &view, 5, nullptr, centroids.data(), labels.data(), nullptr, nullptr);
        });
        exhaust([&](const Context &context) {
            std::vector<float> cuts(4 * 2);
            return qem_quantiles(context, &view, 4, 3, cuts.data());
        });
        exhaust([&](const Context &context) {
            std::vector<float> ordered(m.x.size());
            std::vector<uint8_t> map(m.x.size());
            const qem_status status = qem_swap_forward(context, &view, 2, ordered.data(), map.data());
            if (status != QEM_OK) return status;
            return qem_swap_inverse(context, ordered.data(), map.data(), view.rows, view.cols, 2, ordered.data());
        });
        exhaust([&](const Context &context) {
            qem_metrics metrics = QEM_METRICS_INIT;
            return qem_evaluate_matrix(context, &view, &view, &metrics);
        });
    }
    exhaust([&](const Context &context) {
        std::vector<float> out(200);
        return qem_generate_synthetic(context, 10, 20, 0.1, out.data());
    });
}

// An artifact keeps its allocator and outlives its context.
TEST(OutOfMemory, ArtifactsOutliveTheirContext)
{
    Counter counter;
    const Matrix m = gaussian(30, 9, 5);
    std::vector<float> expected;
    Artifact artifact;
    {
        const Context context(counted(counter, 1));
        artifact = quantize(context, m.view(), recipe_k(QEM_METHOD_QET, 4));
        expected = decode(context, artifact);
    }
    EXPECT_FALSE(counter.alive.empty());
    const Context other;
    EXPECT_EQ(decode(other, artifact), expected);
    artifact.reset();
    EXPECT_TRUE(counter.alive.empty());
}

// ---- cancelling ----

struct Canceller {
    int calls = 0, cancel_at = 0;
    double last = 0.0;
    bool sane = true;
    std::thread::id thread = std::this_thread::get_id();

    static int report(void *user, const char *phase, double fraction)
    {
        Canceller *c = static_cast<Canceller *>(user);
        c->sane &= phase && *phase && fraction >= 0.0 && fraction <= 1.0 && std::this_thread::get_id() == c->thread;
        return ++c->calls == c->cancel_at;
    }
};

TEST(Cancel, StopsWithItsStatusAndNoLeak)
{
    const Matrix m = gaussian(400, 12, 6);
    for (qem_method method : { QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ, QEM_METHOD_PQ, QEM_METHOD_HYPERCHR, QEM_METHOD_QET })
        for (uint32_t threads : { 1, 2 }) {
            Counter counter;
            Canceller canceller;
            Options options = counted(counter, threads);
            options.progress = Canceller::report;
            options.progress_user = &canceller;
            const Context context(options);
            const size_t before = counter.alive.size();
            const qem_recipe recipe = recipe_k(method, 32);
            const qem_view view = m.view();
            qem_artifact *artifact = nullptr;
            ASSERT_EQ(qem_quantize(context, &view, nullptr, &recipe, &artifact), QEM_OK);
            qem_artifact_destroy(&artifact);
            const int calls = canceller.calls;
            EXPECT_GE(calls, 2) << qem_method_name(method) << ": at least the beginning and the end are reported";
            EXPECT_TRUE(canceller.sane);
            for (int at : { 1, 2 }) { // how many come between depends on the threads
                canceller.calls = 0;
                canceller.cancel_at = at;
                EXPECT_EQ(qem_quantize(context, &view, nullptr, &recipe, &artifact), QEM_ERR_CANCELLED)
                    << qem_method_name(method);
                EXPECT_EQ(artifact, nullptr);
                EXPECT_FALSE(context.error().empty());
                EXPECT_EQ(counter.alive.size(), before);
            }
        }
}

// Cancelled at the first, second, ... report until none is left to cancel at.
TEST(Cancel, EveryBlockStopsAnywhere)
{
    const Matrix m = gaussian(120, 12, 6);
    const qem_view view = m.view();
    std::vector<Chain> chains = every_block(12);
    chains.emplace_back("auto", recipe_of(QEM_METHOD_AUTO));
    chains.back().first.bits = 6.0;
    chains.back().first.effort = 0;
    for (Chain &chain : chains) {
        SCOPED_TRACE(chain.name);
        const qem_recipe &recipe = chain.recipe();
        Counter counter;
        Canceller canceller;
        Options options = counted(counter, 1);
        options.progress = Canceller::report;
        options.progress_user = &canceller;
        const Context context(options);
        const size_t before = counter.alive.size();
        for (canceller.cancel_at = 1; canceller.cancel_at < 1000; canceller.cancel_at++) {
            canceller.calls = 0;
            qem_artifact *artifact = nullptr;
            const qem_status status = qem_quantize(context, &view, nullptr, &recipe, &artifact);
            qem_artifact_destroy(&artifact);
            ASSERT_EQ(counter.alive.size(), before);
            if (status == QEM_OK) break;
            ASSERT_EQ(status, QEM_ERR_CANCELLED) << context.error();
            ASSERT_EQ(canceller.calls, canceller.cancel_at) << "nothing is reported after the caller has cancelled";
        }
        EXPECT_LT(canceller.calls, canceller.cancel_at) << "it went on although it was cancelled";
        EXPECT_TRUE(canceller.sane);
    }
}

TEST(Cancel, KmeansLeavesItsOutputsAlone)
{
    const Matrix m = gaussian(400, 4, 7);
    for (int at : { 1, 2 }) {
        Canceller canceller;
        canceller.cancel_at = at;
        Options options;
        options.progress = Canceller::report;
        options.progress_user = &canceller;
        const Context context(options);
        const qem_view view = m.view();
        std::vector<float> centroids(32, 7.0f);
        std::vector<uint32_t> labels(400, 7);
        uint64_t used = 7;
        double objective = 7.0;
        EXPECT_EQ(qem_kmeans(context, &view, 8, nullptr, centroids.data(), labels.data(), &used, &objective),
                  QEM_ERR_CANCELLED);
        EXPECT_EQ(centroids, std::vector<float>(32, 7.0f));
        EXPECT_EQ(labels, std::vector<uint32_t>(400, 7));
        EXPECT_EQ(used, 7u);
        EXPECT_EQ(objective, 7.0);
    }
}

// ---- threads of the caller ----

TEST(Sharing, TwoContextsUseOneArtifactAtTheSameTime)
{
    const Matrix m = gaussian(300, 21, 8), more = gaussian(40, 21, 9);
    const Context maker;
    for (qem_method method : { QEM_METHOD_HYPERCHR, QEM_METHOD_QET }) {
        const Artifact artifact = quantize(maker, m.view(), recipe_k(method, 32));
        const std::vector<float> expected = decode(maker, artifact);
        const auto encoded = parts_of(encode(maker, artifact, more.view()));
        std::atomic<int> wrong{ 0 };
        const auto work = [&] {
            const Context context(with_threads(2));
            for (int round = 0; round < 20; round++) {
                if (decode(context, artifact) != expected) wrong++;
                if (parts_of(encode(context, artifact, more.view())) != encoded) wrong++;
                qem_metrics metrics = QEM_METRICS_INIT;
                const qem_view view = m.view();
                if (qem_evaluate(context, &view, artifact.get(), &metrics) != QEM_OK) wrong++;
                if (metrics.mse != query(artifact).metrics.mse) wrong++;
            }
        };
        std::thread one(work), two(work);
        one.join();
        two.join();
        EXPECT_EQ(wrong, 0);
    }
}

TEST(Sharing, ErrorsStayInTheirOwnContext)
{
    const Context a, b;
    const qem_recipe recipe = recipe_ratio(QEM_METHOD_PQ, 2.0);
    EXPECT_EQ(qem_make_plan(a, nullptr, &recipe, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_FALSE(a.error().empty());
    EXPECT_TRUE(b.error().empty());
}

} // namespace
