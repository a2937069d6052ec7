// A call of k-means or for labels, made on the CPU and on the GPU: the results have to be the same bits.
#ifndef QEM_TESTS_CUDA_KMEANS_CALLS_H
#define QEM_TESTS_CUDA_KMEANS_CALLS_H

#include "cuda/device.h"
#include "cuda/kmeans.cuh"
#include "support/reference.h"

namespace qem_test {

// Device memory that holds a copy of a vector.
template <typename T> class OnDevice {
public:
    explicit OnDevice(const std::vector<T> &values) : memory_(values.size() * sizeof(T)), count_(values.size())
    {
        if (count_) must_cuda(cudaMemcpy(memory_.get(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
    }
    T *get() const { return reinterpret_cast<T *>(memory_.get()); }
    std::vector<T> read() const
    {
        std::vector<T> values(count_);
        if (count_) must_cuda(cudaMemcpy(values.data(), memory_.get(), count_ * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }

private:
    DeviceMemory memory_;
    size_t count_;
};

inline Options on_gpu(Options options = Options())
{
    options.device = QEM_DEVICE_CUDA;
    return options;
}

struct Outcome {
    qem_status status = QEM_OK;
    std::string error;
    std::vector<float> codebook;
    std::vector<uint32_t> labels;
    std::vector<uint64_t> used;
    std::vector<double> objective;
};

template <typename T> void expect_same(const std::vector<T> &got, const std::vector<T> &wanted, const char *what)
{
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); i++)
        ASSERT_EQ(std::memcmp(&got[i], &wanted[i], sizeof(T)), 0)
            << what << " " << i << " is " << got[i] << ", not " << wanted[i];
}

inline void expect_same(const Outcome &got, const Outcome &wanted)
{
    ASSERT_EQ(got.status, wanted.status) << got.error;
    ASSERT_EQ(got.error, wanted.error);
    if (wanted.status != QEM_OK) return;
    expect_same(got.used, wanted.used, "used");
    expect_same(got.labels, wanted.labels, "label");
    expect_same(got.codebook, wanted.codebook, "codebook");
    expect_same(got.objective, wanted.objective, "objective");
}

enum class Weights { none, points, elements };

// Problems over the sub-vectors of a matrix. The codebook and the labels of a call begin as they are here.
struct Calls {
    Calls(const Matrix &matrix, uint32_t dimension)
        : m(matrix), dim(dimension), cut(qem_cut(m.x.data(), m.rows, m.cols, dim))
    {
        labels.assign(m.rows * cut.groups, 777);
    }

    // Every n-th row alone; before any problem is added.
    void take_rows(uint64_t n)
    {
        cut.rows = (cut.rows - 1) / n + 1;
        cut.cols *= n;
        labels.resize(cut.rows * cut.groups);
    }

    // All points in one problem; each column group a problem; lists of ids.
    void add_all(uint64_t k)
    {
        qem_problem p = problem(cut.rows * cut.groups, k, dim);
        p.step = 1;
        problems.push_back(p);
        lists.emplace_back();
    }
    void add_groups(uint64_t k)
    {
        for (uint64_t g = 0; g < cut.groups; g++) {
            qem_problem p = problem(cut.rows, k, g + 1 == cut.groups ? cut.tail_dim : dim);
            p.first = g;
            p.step = cut.groups;
            problems.push_back(p);
            lists.emplace_back();
        }
    }
    void add_list(const std::vector<uint32_t> &ids, uint64_t k, uint32_t label_base = 0)
    {
        qem_problem p = problem(ids.size(), k, dim);
        p.label_base = label_base;
        problems.push_back(p);
        lists.push_back(ids);
    }
    void weigh(Weights kind, const std::vector<float> &values)
    {
        weights = kind;
        weight = values;
    }

    Outcome on_cpu(const Options &options = Options()) const
    {
        const Context context(options);
        Outcome out = begin();
        qem_kmeans_args args = arguments(m.x.data(), weight.data(), out.codebook.data(), out.labels.data(), out);
        std::vector<qem_problem> list = problems;
        for (size_t i = 0; i < list.size(); i++) list[i].ids = lists[i].empty() ? nullptr : lists[i].data();
        args.problems = list.data();
        out.status = only_labels ? qem_cpu_backend.assign(context, &args) : qem_cpu_backend.kmeans(context, &args);
        if (out.status != QEM_OK) out.error = context.error();
        return out;
    }
    Outcome on_gpu(const Options &options = Options()) const
    {
        const Context gpu(qem_test::on_gpu(options));
        Outcome out = begin();
        const OnDevice<float> x(m.x), w(weight), codebook(out.codebook);
        const OnDevice<uint32_t> labels_there(out.labels);
        std::vector<std::unique_ptr<OnDevice<uint32_t>>> ids;
        std::vector<qem_problem> list = problems;
        for (size_t i = 0; i < list.size(); i++) {
            ids.push_back(std::make_unique<OnDevice<uint32_t>>(lists[i]));
            list[i].ids = lists[i].empty() ? nullptr : ids.back()->get();
        }
        qem_kmeans_args args = arguments(x.get(), w.get(), codebook.get(), labels_there.get(), out);
        args.problems = list.data();
        out.status = only_labels ? qem_cuda_assign_within(gpu, &args, most_bytes)
                                 : qem_cuda_kmeans_within(gpu, &args, most_bytes);
        if (out.status != QEM_OK) out.error = gpu.error();
        must_cuda(cudaDeviceSynchronize());
        out.codebook = codebook.read();
        out.labels = labels_there.read();
        return out;
    }
    void check(const std::string &what = "") const
    {
        SCOPED_TRACE(what);
        expect_same(on_gpu(), on_cpu());
    }

    Matrix m;
    uint32_t dim;
    qem_subvectors cut;
    std::vector<qem_problem> problems;
    std::vector<std::vector<uint32_t>> lists;
    std::vector<float> weight;
    Weights weights = Weights::none;
    std::vector<float> codebook; // made by add_...
    std::vector<uint32_t> labels;
    uint32_t iterations = 4, restarts = 1, warm = 0;
    double tolerance = 0.0;
    uint64_t seed = 11;
    qem_dtype dtype = QEM_DTYPE_F32;
    bool only_labels = false, objectives = true;
    uint64_t most_bytes = QEM_KM_MOST_BYTES;

private:
    qem_problem problem(uint64_t count, uint64_t k, uint32_t width)
    {
        qem_problem p = {};
        p.key = 1000 + problems.size();
        p.count = count;
        p.k = k;
        p.width = width;
        p.codebook_offset = codebook.size();
        codebook.insert(codebook.end(), k * width + 3, 9.0f); // three guards
        return p;
    }
    Outcome begin() const
    {
        Outcome out;
        out.codebook = codebook;
        out.labels = labels;
        out.used.assign(problems.size(), 77);
        out.objective.assign(problems.size(), -1.0);
        return out;
    }
    qem_kmeans_args arguments(const float *x, const float *w, float *codebook_at, uint32_t *labels_at, Outcome &out) const
    {
        qem_kmeans_args args = {};
        args.points = cut;
        args.points.x = x;
        args.problem_count = problems.size();
        args.codebook_dtype = dtype;
        args.iterations = iterations;
        args.restarts = restarts;
        args.warm = warm;
        args.tolerance = tolerance;
        args.seed = seed;
        if (weights == Weights::points) args.point_weight = w;
        if (weights == Weights::elements) args.element_weight = w;
        args.codebook = codebook_at;
        args.labels = labels_at;
        args.used = out.used.data();
        args.objective = objectives ? out.objective.data() : nullptr;
        return args;
    }
};

} // namespace qem_test

#endif
