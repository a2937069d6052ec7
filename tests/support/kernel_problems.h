// Points and centroids as the kernels of k-means want them: structure of arrays, padded; for pruning in k-d order, with boxes.
#ifndef QEM_TESTS_SUPPORT_KERNEL_PROBLEMS_H
#define QEM_TESTS_SUPPORT_KERNEL_PROBLEMS_H

#include <algorithm>
#include <cmath>

#include "kernel_cases.h"

extern "C" {
#include "cpu/kdorder.h"
}

namespace qem_test {

struct NearestProblem {
    NearestCase shape;
    size_t ld, ldc;
    Aligned<float> x, c, h;

    NearestProblem(Random &random, NearestCase shape_, Pattern points, Pattern centroids)
        : shape(shape_), ld(shape.points + 64 * below(random, 2)), ldc(shape.count + 32 * below(random, 2)), x(ld * shape.dim),
          c(ldc * shape.dim), h(ldc)
    {
        fill(random, points, x.data(), x.size());
        fill(random, centroids, c.data(), c.size());
        for (size_t j = 0; j < shape.count; j++) set_h(j);
    }
    void set_h(size_t j)
    {
        float sum = 0.0f;
        for (uint32_t p = 0; p < shape.dim; p++) sum = std::fmaf(c[p * ldc + j], c[p * ldc + j], sum);
        h[j] = 0.5f * sum;
    }
    void copy_centroid(size_t from, size_t to)
    {
        for (uint32_t p = 0; p < shape.dim; p++) c[p * ldc + to] = c[p * ldc + from];
        h[to] = h[from];
    }
};

struct Boxes {
    Boxes(size_t count, uint32_t dim, uint32_t lanes)
    {
        qem_arena arena = { nullptr, 0 };
        qem_boxes_layout(&box, count, dim, lanes, &arena);
        memory.resize(arena.used);
        arena = { memory.data(), 0 };
        qem_boxes_layout(&box, count, dim, lanes, &arena);
    }
    qem_boxes box{};
    Aligned<unsigned char> memory;
};

// Points in k-d order with their boxes.
struct Points {
    Points(const qem_cpu_kernels *kernels, Random &random, Pattern pattern, size_t count_, uint32_t dim_)
        : count(count_), padded((count_ + 63) / 64 * 64), dim(dim_), lanes(kernels->lanes), x(padded * dim_), order(count_),
          boxes(count_, dim_, kernels->lanes), most(boxes.box.ld), super_most(boxes.box.super_ld), square(boxes.box.ld)
    {
        Aligned<uint32_t> scratch(qem_kd_scratch_words(count));
        for (uint32_t p = 0; p < dim; p++) fill(random, pattern, x.data() + p * padded, count);
        scale();
        qem_kd_order(kernels, 2, x.data(), padded, count, dim, order.data(), scratch.data());
        tiles.box = boxes.box;
        tiles.most = most.data(), tiles.super_most = super_most.data(), tiles.square = square.data();
        qem_boxes_fit(&tiles.box, x.data(), padded, count, dim, lanes);
        qem_tiles_squares(&tiles, x.data(), padded, count, dim, lanes);
    }
    // Points of a problem are scaled so that the largest magnitude is below 2.
    void scale()
    {
        float largest = 0.0f;
        for (float v : x) largest = std::max(largest, std::fabs(v));
        for (float &v : x)
            if (largest > 1.0f) v /= largest;
    }
    size_t count, padded;
    uint32_t dim, lanes;
    Aligned<float> x;
    Aligned<uint32_t> order;
    Boxes boxes;
    Aligned<float> most, super_most, square;
    qem_tiles tiles{};
};

// Centroids in k-d order beside their own order.
struct Centroids {
    Centroids(const qem_cpu_kernels *kernels, Random &random, const Points &points, size_t count_)
        : count(count_), ldc((count_ + 31) / 32 * 32), c(ldc * points.dim), h(ldc, INFINITY),
          boxes(count_, points.dim, points.lanes)
    {
        const uint32_t dim = points.dim;
        for (size_t j = 0; j < count; j++) {
            // points themselves, near them, and copies of other centroids: ties and near ties
            const size_t i = below(random, points.count), copied = below(random, j + 1);
            const float shift = below(random, 2) ? 0.0f : std::ldexp(1.0f, -12) * static_cast<float>(below(random, 64));
            for (uint32_t p = 0; p < dim; p++)
                c[p * ldc + j] = j % 5 == 4 ? c[p * ldc + copied] : points.x[p * points.padded + i] + shift;
            double sum = 0.0;
            for (uint32_t p = 0; p < dim; p++) sum = std::fma(static_cast<double>(c[p * ldc + j]), c[p * ldc + j], sum);
            h[j] = static_cast<float>(0.5 * sum);
        }
        tree.box = boxes.box;
        tree.ld = tree.box.ld * points.lanes;
        tree_c.resize(tree.ld * dim);
        tree_h.assign(tree.ld, INFINITY);
        index.resize(tree.ld);
        Aligned<uint32_t> scratch(qem_kd_scratch_words(count));
        for (uint32_t p = 0; p < dim; p++) std::copy_n(c.data() + p * ldc, count, tree_c.data() + p * tree.ld);
        qem_kd_order(kernels, 1, tree_c.data(), tree.ld, count, dim, index.data(), scratch.data());
        for (uint32_t p = 0; p < dim; p++)
            std::fill(tree_c.begin() + p * tree.ld + count, tree_c.begin() + (p + 1) * tree.ld, INFINITY);
        for (size_t i = 0; i < count; i++) tree_h[i] = h[index[i]];
        tree.c = tree_c.data(), tree.h = tree_h.data(), tree.index = index.data();
        qem_boxes_fit(&tree.box, tree.c, tree.ld, count, dim, points.lanes);
    }
    size_t count, ldc;
    Aligned<float> c, h;
    Boxes boxes;
    Aligned<float> tree_c, tree_h;
    Aligned<uint32_t> index;
    qem_centroid_tree tree{};
};

} // namespace qem_test

#endif
