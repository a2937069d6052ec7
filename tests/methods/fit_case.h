// A fit of one scalar method on its own, as the pipeline would set it up.
#ifndef QEM_TESTS_METHODS_FIT_CASE_H
#define QEM_TESTS_METHODS_FIT_CASE_H

#include <cstring>

#include "support/reference.h"

extern "C" {
#include "methods/registry.h"
}

namespace qem_test {

struct ScalarFit {
    ScalarFit(const Context &context, const qem_method_ops &ops_, const Matrix &m, uint64_t k, const float *weight = nullptr,
              const qem_backend *backend = &qem_cpu_backend)
        : ops(ops_), codebook(k), labels(m.x.size(), 999)
    {
        std::memset(&fit, 0, sizeof fit);
        fit.context = context;
        fit.backend = backend;
        fit.recipe = recipe_k(ops.id, k);
        fit.recipe.dim = 1;
        fit.points = qem_cut(m.x.data(), m.rows, m.cols, 1);
        fit.point_count = m.x.size();
        fit.element_weight = weight;
        fit.k = k;
        fit.codebook = codebook.data();
        fit.labels = labels.data();
    }
    ~ScalarFit() { qem_release(fit.context, fit.problems); }
    ScalarFit(const ScalarFit &) = delete;
    ScalarFit &operator=(const ScalarFit &) = delete;

    // Partition and fit; fit.k entries of the codebook are set.
    qem_status run()
    {
        if (ops.partition) {
            const qem_status status = ops.partition(&fit);
            if (status != QEM_OK) return status;
        }
        return ops.fit(&fit);
    }

    const qem_method_ops &ops;
    std::vector<float> codebook;
    std::vector<uint32_t> labels;
    qem_fit fit;
};

} // namespace qem_test

#endif
