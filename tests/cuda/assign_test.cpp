// Labels against fixed codebooks, and the refinement of a shared one, on the GPU against those on the CPU.
#include "cuda/kmeans_calls.h"

using namespace qem_test;

namespace {

// A call that wants labels alone; codebooks of values like those of the matrix, some entries twice.
Calls labels_of(const Matrix &m, uint32_t dim)
{
    Calls calls(m, dim);
    calls.only_labels = true;
    return calls;
}

void fill_codebook(Calls &calls, const Matrix &like)
{
    for (size_t i = 0; i < calls.codebook.size(); i++) calls.codebook[i] = like.x[i * 7 % like.x.size()];
}

std::vector<float> element_weights(size_t count, uint64_t seed)
{
    Random random(seed);
    std::vector<float> w(count);
    for (float &value : w) value = random.below(3) ? static_cast<float>(std::ldexp(random.unit(), -static_cast<int>(random.below(40)))) : 0.0f;
    for (size_t i = 0; i < count / 2; i++) w[i] = i % 40 < 20 ? 2.0f : w[i]; // sub-vectors whose weights are all the same
    return w;
}

TEST(CudaAssign, EveryKindAndDimension)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t dim : { 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 70 }) {
            const Matrix m = any_matrix(kind, 70, dim, dim);
            Calls calls = labels_of(m, dim);
            calls.add_all(1 + 9 * (dim % 5));
            fill_codebook(calls, m);
            calls.check("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaAssign, SizesAndTails)
{
    for (uint64_t cols : { 6, 7, 3, 2 })
        for (uint64_t k : { 1, 15, 16, 17, 300 }) {
            const Matrix m = heavy_tails(45, cols, k);
            Calls groups = labels_of(m, 3), shared = labels_of(m, 3);
            groups.add_groups(k);
            shared.add_all(k);
            fill_codebook(groups, m);
            fill_codebook(shared, m);
            groups.check("groups");
            shared.check("shared");
            if (HasFatalFailure()) return;
        }
}

TEST(CudaAssign, ExtremeCodebooks)
{
    const Matrix m = gaussian(60, 4, 1);
    for (float scale : { 0.0f, 1e-44f, 1e-30f, 1e25f, 1e38f }) {
        Calls calls = labels_of(m, 2);
        calls.add_groups(20);
        fill_codebook(calls, m);
        for (float &c : calls.codebook) c *= scale;
        calls.check(std::to_string(scale));
        if (HasFatalFailure()) return;
    }
}

// Problems that search the same codebook share what is made of it, and each is cut into pieces where memory is short.
Calls cells()
{
    const Matrix m = gaussian(300, 8, 6);
    Calls calls = labels_of(m, 3);
    std::vector<std::vector<uint32_t>> lists(6);
    for (uint32_t id = 0; id < calls.labels.size(); id++) lists[id * 7 % 6].push_back(id);
    for (uint32_t i = 0; i < 6; i++) calls.add_list(lists[i], i % 2 ? 40 : 5, 10 * i);
    fill_codebook(calls, m);
    for (uint32_t i : { 3, 5 }) {
        calls.problems[i].codebook_offset = calls.problems[1].codebook_offset;
        calls.problems[i].label_base = calls.problems[1].label_base;
    }
    return calls;
}

TEST(CudaAssign, SharedCodebooksAndBatches)
{
    Calls calls = cells();
    for (uint64_t most_bytes : { QEM_KM_MOST_BYTES, (uint64_t)1, (uint64_t)40000 }) {
        calls.most_bytes = most_bytes;
        calls.check(std::to_string(most_bytes) + " bytes");
        if (HasFatalFailure()) return;
    }
    Calls pieces = labels_of(gaussian(1700, 2, 6), 2);
    pieces.add_all(20);
    fill_codebook(pieces, pieces.m);
    pieces.most_bytes = 1;
    pieces.check("pieces of a problem");
}

TEST(CudaAssign, WeightsOfElements)
{
    for (uint32_t dim : { 1, 2, 3, 4, 5, 9, 40 })
        for (bool groups : { false, true }) {
            const Matrix m = heavy_tails(60, 2 * dim + dim / 2, dim);
            Calls calls = labels_of(m, dim);
            groups ? calls.add_groups(18) : calls.add_all(18);
            fill_codebook(calls, m);
            calls.weigh(Weights::elements, element_weights(m.x.size(), dim));
            calls.check("dim " + std::to_string(dim));
            if (HasFatalFailure()) return;
        }
}

/* ---- refinement ---- */

struct Refined {
    qem_status status = QEM_OK;
    std::string error;
    std::vector<float> codebook;
    std::vector<uint32_t> labels;
};

struct Refinement {
    Refinement(const Matrix &matrix, uint32_t dimension, uint64_t entries, uint64_t seed)
        : m(matrix), dim(dimension), k(entries), cut(qem_cut(m.x.data(), m.rows, m.cols, dim))
    {
        Random random(seed);
        start.labels.resize(m.rows * cut.groups);
        for (uint32_t &label : start.labels) label = static_cast<uint32_t>(random.below(k));
        start.codebook.resize(k * dim + 3, 9.0f);
        for (uint64_t i = 0; i < k * dim; i++) start.codebook[i] = m.x[random.below(m.x.size())];
    }
    qem_refine_args arguments(const float *x, uint32_t *order, const uint64_t *offsets, float *codebook, uint32_t *labels) const
    {
        qem_refine_args args = {};
        args.points = cut;
        args.points.x = x;
        args.order = order;
        args.offsets = offsets;
        args.cells = 2;
        args.k = k;
        args.codebook_dtype = dtype;
        args.passes = passes;
        args.codebook = codebook;
        args.labels = labels;
        return args;
    }
    // Cells: the even ids and the odd ones.
    std::vector<uint32_t> order(uint64_t offsets[3]) const
    {
        std::vector<uint32_t> ids;
        offsets[0] = 0;
        for (uint32_t odd : { 0u, 1u }) {
            for (uint32_t id = odd; id < start.labels.size(); id += 2) ids.push_back(id);
            offsets[odd + 1] = ids.size();
        }
        return ids;
    }
    Refined on_cpu() const
    {
        const Context context;
        Refined out = start;
        uint64_t offsets[3];
        std::vector<uint32_t> ids = order(offsets);
        const qem_refine_args args = arguments(m.x.data(), ids.data(), offsets, out.codebook.data(), out.labels.data());
        out.status = qem_cpu_backend.refine(context, &args);
        if (out.status != QEM_OK) out.error = context.error();
        return out;
    }
    Refined on_gpu() const
    {
        const Context gpu(qem_test::on_gpu());
        Refined out;
        uint64_t offsets[3];
        const OnDevice<float> x(m.x), codebook(start.codebook);
        const OnDevice<uint32_t> ids(order(offsets)), labels(start.labels);
        const qem_refine_args args = arguments(x.get(), ids.get(), offsets, codebook.get(), labels.get());
        out.status = qem_cuda_refine(gpu, &args);
        if (out.status != QEM_OK) out.error = gpu.error();
        must_cuda(cudaDeviceSynchronize());
        out.codebook = codebook.read();
        out.labels = labels.read();
        return out;
    }
    void check(const std::string &what) const
    {
        SCOPED_TRACE(what);
        const Refined wanted = on_cpu(), got = on_gpu();
        ASSERT_EQ(got.status, wanted.status) << got.error;
        ASSERT_EQ(got.error, wanted.error);
        if (wanted.status != QEM_OK) return;
        expect_same(got.labels, wanted.labels, "label");
        expect_same(got.codebook, wanted.codebook, "codebook");
    }

    Matrix m;
    uint32_t dim;
    uint64_t k;
    qem_subvectors cut;
    uint32_t passes = 4;
    qem_dtype dtype = QEM_DTYPE_F32;
    Refined start;
};

TEST(CudaRefine, EveryKindAndDimension)
{
    for (int kind = 0; kind < kKinds; kind++)
        for (uint32_t dim : { 1, 2, 4, 8, 9 }) {
            const Refinement r(any_matrix(kind, 80, 2 * dim, dim), dim, 5 + dim, dim);
            r.check("kind " + std::to_string(kind) + ", dim " + std::to_string(dim));
            if (HasFatalFailure()) return;
        }
}

TEST(CudaRefine, PassesAndTails)
{
    for (uint32_t passes : { 0, 1, 2, 30 })
        for (uint64_t cols : { 6, 7, 2 }) {
            Refinement r(heavy_tails(70, cols, passes), 3, 12, cols);
            r.passes = passes;
            r.check(std::to_string(passes) + " passes, " + std::to_string(cols) + " columns");
            if (HasFatalFailure()) return;
        }
}

// The first pass moves the centroids though no label changes; later ones end the call.
TEST(CudaRefine, LabelsThatAreNearestAlready)
{
    Refinement r(gaussian(60, 4, 3), 2, 7, 1);
    r.passes = 0;
    r.start.labels = r.on_cpu().labels;
    for (uint32_t passes : { 1, 5 }) {
        r.passes = passes;
        r.check(std::to_string(passes) + " passes");
        EXPECT_NE(r.on_gpu().codebook, r.start.codebook);
    }
}

// More centroids than points, or centroids far away: clusters without members in every pass.
TEST(CudaRefine, EmptyClusters)
{
    for (uint64_t cols : { 4, 5 })
        for (uint64_t k : { 30, 70 }) {
            Refinement r(integers(20, cols, k, 3), 2, k, cols);
            for (uint64_t i = r.k; i < r.k * 2; i++) r.start.codebook[i] = 1e9f;
            r.check(std::to_string(cols) + " columns, k " + std::to_string(k));
            if (HasFatalFailure()) return;
        }
}

// Clusters that have tail members alone at first, and no member later.
TEST(CudaRefine, ClustersOfTailPoints)
{
    Refinement r(gaussian(40, 5, 3), 2, 6, 1);
    for (size_t id = 0; id < r.start.labels.size(); id++) r.start.labels[id] = id % 3 == 2 ? 5 : static_cast<uint32_t>(id % 5);
    r.start.codebook[10] = -1e20f;
    for (uint32_t passes : { 1, 3 }) {
        r.passes = passes;
        r.check(std::to_string(passes) + " passes");
    }
}

TEST(CudaRefine, HalfPrecisionCodebooks)
{
    Refinement r(gaussian(60, 4, 3), 2, 9, 1), beyond(gaussian(60, 4, 3, 1e6), 2, 9, 1);
    r.dtype = beyond.dtype = QEM_DTYPE_F16;
    r.check("f16");
    beyond.check("beyond f16");
    EXPECT_EQ(beyond.on_gpu().status, QEM_ERR_RANGE);
}

} // namespace
