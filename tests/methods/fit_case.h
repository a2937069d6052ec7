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
    }
    ~ScalarFit()
    {
        qem_release(fit.context, fit.problems);
        qem_release(fit.context, fit.thresholds);
    }
    ScalarFit(const ScalarFit &) = delete;
    ScalarFit &operator=(const ScalarFit &) = delete;

    // Partition, fit and labels; fit.k entries of the codebook are set.
    qem_status run()
    {
        if (ops.partition) {
            const qem_status status = ops.partition(&fit);
            if (status != QEM_OK) return status;
        }
        const qem_status status = ops.fit(&fit);
        return status == QEM_OK ? label() : status;
    }

    // Labels by the thresholds, as they are made when codes are packed.
    qem_status label()
    {
        return fit.backend->scalar_assign(fit.context, fit.points.x, fit.point_count, fit.thresholds, fit.k, labels.data());
    }

    const qem_method_ops &ops;
    std::vector<float> codebook;
    std::vector<uint32_t> labels;
    qem_fit fit;
};

} // namespace qem_test

#endif
