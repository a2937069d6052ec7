// What tests of the library share: contexts and artifacts that end themselves, and calls that must succeed.
#ifndef QEM_TESTS_SUPPORT_CONTEXT_H
#define QEM_TESTS_SUPPORT_CONTEXT_H

#include <qem/qem.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace qem_test {

struct Options {
    uint32_t threads = 1; // small problems: more threads only cost time where the number does not matter
    qem_isa isa = QEM_ISA_AUTO;
    uint64_t seed = 0;
    qem_allocator allocator = { nullptr, nullptr, nullptr };
    qem_progress progress = nullptr;
    void *progress_user = nullptr;
    qem_device device = QEM_DEVICE_CPU;
};

inline Options with_seed(uint64_t seed)
{
    Options options;
    options.seed = seed;
    return options;
}

inline Options on_device(qem_device device, uint64_t seed = 0)
{
    Options options;
    options.device = device;
    options.seed = seed;
    return options;
}

inline Options with_threads(uint32_t threads, qem_isa isa = QEM_ISA_AUTO)
{
    Options options;
    options.threads = threads;
    options.isa = isa;
    return options;
}

// The numbers of threads to try. The thread sanitizer looks for races, which one thread cannot have: there it is left out
// where the results of one thread are compared by the other stages and others are tried beside it.
inline std::vector<uint32_t> thread_counts(std::vector<uint32_t> counts)
{
#if defined(__SANITIZE_THREAD__)
    counts.erase(std::remove(counts.begin(), counts.end(), 1u), counts.end());
#endif
    return counts;
}

class Context {
public:
    explicit Context(const Options &options = Options())
    {
        qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
        params.device = options.device;
        params.threads = options.threads;
        params.isa = options.isa;
        params.seed = options.seed;
        params.allocator = options.allocator;
        params.progress = options.progress;
        params.progress_user = options.progress_user;
        const qem_status status = qem_context_create(&params, &context_);
        if (status != QEM_OK) throw std::runtime_error(qem_status_string(status));
    }
    ~Context() { qem_context_destroy(&context_); }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
    operator qem_context *() const { return context_; }
    std::string error() const { return qem_last_error(context_); }

    // A call that has to succeed: GoogleTest reports the exception with the library's sentence.
    void must(qem_status status) const
    {
        if (status != QEM_OK) throw std::runtime_error(std::string(qem_status_string(status)) + ": " + error());
    }

private:
    qem_context *context_ = nullptr;
};

struct ArtifactEnd {
    void operator()(qem_artifact *artifact) const { qem_artifact_destroy(&artifact); }
};
using Artifact = std::unique_ptr<qem_artifact, ArtifactEnd>;

inline qem_recipe recipe_of(qem_method method)
{
    qem_recipe recipe = QEM_RECIPE_INIT;
    recipe.method = method;
    return recipe;
}

inline qem_recipe recipe_ratio(qem_method method, double ratio)
{
    qem_recipe recipe = recipe_of(method);
    recipe.ratio = ratio;
    return recipe;
}

inline qem_recipe recipe_k(qem_method method, uint64_t k)
{
    qem_recipe recipe = recipe_of(method);
    recipe.k = k;
    return recipe;
}

inline Artifact quantize(const Context &context, const qem_view &view, const qem_recipe &recipe)
{
    qem_artifact *artifact = nullptr;
    context.must(qem_quantize(context, &view, "w", &recipe, &artifact));
    return Artifact(artifact);
}

inline Artifact encode(const Context &context, const Artifact &base, const qem_view &view)
{
    qem_artifact *artifact = nullptr;
    context.must(qem_encode(context, base.get(), &view, "more", &artifact));
    return Artifact(artifact);
}

inline qem_artifact_info query(const Artifact &artifact)
{
    qem_artifact_info info = QEM_ARTIFACT_INFO_INIT;
    if (qem_artifact_query(artifact.get(), &info) != QEM_OK) throw std::runtime_error("qem_artifact_query failed");
    return info;
}

inline std::vector<float> decode(const Context &context, const Artifact &artifact)
{
    const qem_artifact_info info = query(artifact);
    std::vector<float> out(info.rows * info.cols);
    context.must(qem_dequantize(context, artifact.get(), 0, info.rows, QEM_DTYPE_F32, out.data(), 0));
    return out;
}

// All stored tensors by name; two artifacts are the same bytes when these are equal.
inline std::map<std::string, std::vector<uint8_t>> parts_of(const Artifact &artifact)
{
    std::map<std::string, std::vector<uint8_t>> parts;
    for (uint32_t i = 0; i < qem_artifact_part_count(artifact.get()); i++) {
        qem_part part = QEM_PART_INIT;
        if (qem_artifact_part(artifact.get(), i, &part) != QEM_OK) throw std::runtime_error("qem_artifact_part failed");
        const uint8_t *bytes = static_cast<const uint8_t *>(part.data);
        parts[part.name] = std::vector<uint8_t>(bytes, bytes + part.bytes);
    }
    return parts;
}

inline std::vector<qem_isa> available_isas()
{
    std::vector<qem_isa> isas;
    for (qem_isa isa : { QEM_ISA_SCALAR, QEM_ISA_AVX2, QEM_ISA_AVX512 })
        if (qem_isa_available(isa)) isas.push_back(isa);
    return isas;
}

constexpr qem_method kMethods[] = { QEM_METHOD_RTN, QEM_METHOD_LLOYDMAX, QEM_METHOD_VQ,
                                    QEM_METHOD_PQ,  QEM_METHOD_HYPERCHR, QEM_METHOD_QET };

inline bool is_scalar(qem_method method)
{
    return method == QEM_METHOD_RTN || method == QEM_METHOD_LLOYDMAX;
}

inline bool is_per_group(qem_method method)
{
    return method == QEM_METHOD_PQ || method == QEM_METHOD_QET;
}

} // namespace qem_test

#endif
