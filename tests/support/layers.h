// Artifacts of layers built by hand, of everything that an artifact can hold, and the plain definition of their decoding.
#ifndef QEM_TESTS_SUPPORT_LAYERS_H
#define QEM_TESTS_SUPPORT_LAYERS_H

#include <deque>

#include "context.h"
#include "matrices.h"
#include "reference.h"

extern "C" {
#include "core/artifact.h"
}

namespace qem_test {

extern "C" uint64_t qem_swap_map_bytes(uint64_t rows, uint64_t cols, uint32_t levels);

struct StageSpec {
    qem_codebook_kind kind = QEM_CODEBOOK_SHARED;
    uint32_t dim = 1, levels = 0, cells = 0;
    uint64_t k = 16;
    bool half = false, mixed = false; // codebook in f16; a width of codes for each group
    bool integers = false;            // the levels of a table are 0, 1, 2, ...
};

struct AffineSpec {
    qem_axis axis = QEM_AXIS_TENSOR;
    uint64_t block = 0;
    bool scale = true, mean = true;
};

// One artifact with the memory that it points to; each vector ends where its contents end.
class Layers {
public:
    Layers(uint64_t rows, uint64_t cols, uint64_t seed) : random_(seed)
    {
        a_.name = const_cast<char *>("layers");
        a_.rows = rows;
        a_.cols = cols;
        a_.layers = layers_;
        a_.stages = stages_;
    }
    Layers(const Layers &) = delete;
    Layers &operator=(const Layers &) = delete;
    const qem_artifact *get() const { return &a_; }
    const qem_artifact *operator->() const { return &a_; }

    // A layer of as many row ranges as there are splits + 1, all of the same making.
    void add_layer(const StageSpec &spec, const std::vector<AffineSpec> &steps, const std::vector<uint64_t> &splits = {})
    {
        qem_layer &layer = layers_[a_.layer_count++];
        layer.stage_first = a_.stage_count;
        layer.stage_count = static_cast<uint32_t>(splits.size()) + 1;
        for (size_t i = 0; i <= splits.size(); i++)
            add_stage(spec, i ? splits[i - 1] : 0, i < splits.size() ? splits[i] : a_.rows);
        for (const AffineSpec &step : steps) add_step(layer.affine[layer.affine_count++], step);
    }

    void add_outliers(const std::vector<uint64_t> &elements, uint32_t index_size, double scale = 3.0)
    {
        a_.outliers.count = elements.size();
        a_.outliers.index_size = index_size;
        std::vector<uint8_t> &index = bytes(elements.size() * index_size);
        for (size_t i = 0; i < elements.size(); i++) std::memcpy(&index[i * index_size], &elements[i], index_size);
        a_.outliers.index = index.data();
        a_.outliers.value = floats(elements.size(), scale);
    }
    float *outlier_values() { return a_.outliers.value; }
    qem_affine &step(uint32_t layer, uint32_t i) { return layers_[layer].affine[i]; }

private:
    std::vector<uint8_t> &bytes(uint64_t n)
    {
        bytes_.emplace_back(n);
        return bytes_.back();
    }
    float *floats(uint64_t n, double scale = 1.0)
    {
        floats_.emplace_back(n);
        for (float &x : floats_.back()) x = static_cast<float>(scale * random_.normal());
        return floats_.back().data();
    }

    void put(std::vector<uint8_t> &stream, uint64_t bit, uint32_t bits, uint64_t code)
    {
        for (uint32_t b = 0; b < bits; b++)
            stream[(bit + b) / 8] = static_cast<uint8_t>(stream[(bit + b) / 8] | (code >> b & 1) << ((bit + b) % 8));
    }

    void add_codebook(qem_stage &s, const StageSpec &spec)
    {
        if (spec.kind == QEM_CODEBOOK_UNIFORM || spec.kind == QEM_CODEBOOK_TABLE) {
            s.scale = 0.25f;
            s.mean = -1.5f;
            s.codebook = floats(spec.k);
            for (uint64_t j = 0; spec.kind == QEM_CODEBOOK_UNIFORM && j < spec.k; j++)
                s.codebook[j] = std::fma(static_cast<float>(j), s.scale, s.mean);
            for (uint64_t j = 0; spec.integers && j < spec.k; j++) s.codebook[j] = static_cast<float>(j);
            return;
        }
        const uint64_t n = qem_stage_codebook_floats(&s, a_.cols);
        s.codebook = floats(n);
        s.codebook_stored = s.codebook;
        if (!spec.half) return;
        std::vector<uint8_t> &stored = bytes(2 * n);
        for (uint64_t i = 0; i < n; i++) {
            const uint16_t half = static_cast<uint16_t>((random_.below(2) << 15) + (random_.below(20) + 2) * 1024 +
                                                        random_.below(1024));
            std::memcpy(&stored[2 * i], &half, 2);
            s.codebook[i] = static_cast<float>(value_of_f16(half));
        }
        s.codebook_stored = stored.data();
        s.codebook_dtype = QEM_DTYPE_F16;
    }

    void add_codes(qem_stage &s)
    {
        const uint64_t rows = s.row_end - s.row_begin, row_bits = qem_stage_row_bits(&s);
        s.codes_bytes = (rows * row_bits + 7) / 8;
        std::vector<uint8_t> &codes = bytes(s.codes_bytes + QEM_STREAM_SLACK);
        uint64_t bit = 0;
        for (uint64_t i = 0; i < rows; i++)
            for (uint64_t g = 0; g < s.groups; g++) {
                const uint32_t width = s.group_bits ? s.group_bits[g] : s.code_bits;
                put(codes, bit, width, random_.below(s.group_bits ? uint64_t(1) << width : s.k));
                bit += width;
            }
        s.codes = codes.data();
    }

    void add_stage(const StageSpec &spec, uint64_t row_begin, uint64_t row_end)
    {
        qem_stage &s = stages_[a_.stage_count++];
        s.kind = spec.kind;
        s.row_begin = row_begin;
        s.row_end = row_end;
        s.dim = spec.dim;
        s.k = spec.k;
        s.code_bits = qem_code_bits(spec.k);
        s.levels = spec.levels;
        s.cells = spec.cells;
        s.groups = (a_.cols + s.dim - 1) / s.dim;
        s.codebook_dtype = QEM_DTYPE_F32;
        if (spec.mixed) {
            std::vector<uint8_t> &widths = bytes(s.groups);
            for (uint64_t g = 0; g < s.groups; g++)
                widths[g] = g && random_.below(2) ? widths[g - 1] : static_cast<uint8_t>(random_.below(s.code_bits + 1));
            s.group_bits = widths.data();
        }
        add_codebook(s, spec);
        add_codes(s);
        const uint64_t rows = row_end - row_begin, cols = a_.cols;
        if (s.levels) {
            s.swap_map_bytes = qem_swap_map_bytes(rows, cols, s.levels);
            std::vector<uint8_t> &map = bytes(s.swap_map_bytes + QEM_STREAM_SLACK);
            for (uint64_t i = 0; i < s.swap_map_bytes; i++) map[i] = static_cast<uint8_t>(random_.below(256));
            s.swap_map = map.data();
        }
        if (s.cells) s.rotation = floats(s.cells * cols * cols, 0.3);
        if (s.cells > 1) {
            const uint32_t bits = qem_code_bits(s.cells);
            s.coarse = floats(s.cells * cols);
            std::vector<uint8_t> &cells = bytes((rows * bits + 7) / 8 + QEM_STREAM_SLACK);
            for (uint64_t i = 0; i < rows; i++) put(cells, i * bits, bits, random_.below(s.cells));
            s.row_cells = cells.data();
        }
    }

    void add_step(qem_affine &step, const AffineSpec &spec)
    {
        step.axis = spec.axis;
        step.block = spec.block;
        step.params = 32;
        step.has_scale = spec.scale;
        step.has_mean = spec.mean;
        qem_affine_sizes(&step, a_.rows, a_.cols);
        if (spec.scale) step.scale = floats(step.units);
        if (spec.mean) step.mean = floats(step.units);
    }

    Random random_;
    qem_artifact a_ = {};
    qem_layer layers_[QEM_MOST_STAGES] = {};
    qem_stage stages_[2 * QEM_MOST_STAGES] = {};
    std::deque<std::vector<uint8_t>> bytes_;
    std::deque<std::vector<float>> floats_;
};

// ---- the definition ----

inline uint32_t bits_at(const uint8_t *stream, uint64_t bit, uint32_t bits)
{
    uint32_t code = 0;
    for (uint32_t b = 0; b < bits; b++) code |= static_cast<uint32_t>(stream[(bit + b) / 8] >> ((bit + b) % 8) & 1) << b;
    return code;
}

// Rows of a stage before its swaps or rotations are undone.
inline Matrix look_up_stage(const qem_stage &s, uint64_t cols)
{
    Matrix m(s.row_end - s.row_begin, cols);
    uint64_t cell_floats = 0, bit = 0;
    for (uint64_t g = 0; g < s.groups; g++)
        cell_floats += std::min<uint64_t>(s.dim, cols - g * s.dim) * (s.group_bits ? uint64_t(1) << s.group_bits[g] : s.k);
    for (uint64_t i = 0; i < m.rows; i++) {
        const uint64_t cell = s.cells > 1 ? bits_at(s.row_cells, i * qem_code_bits(s.cells), qem_code_bits(s.cells)) : 0;
        const float *book = s.codebook + cell * cell_floats;
        for (uint64_t g = 0; g < s.groups; g++) {
            const uint32_t bits = s.group_bits ? s.group_bits[g] : s.code_bits;
            const uint64_t width = std::min<uint64_t>(s.dim, cols - g * s.dim), code = bits_at(s.codes, bit, bits);
            bit += bits;
            const uint64_t entry = s.kind == QEM_CODEBOOK_PER_GROUP ? code * width : code * s.dim;
            for (uint64_t p = 0; p < width; p++) m.at(i, g * s.dim + p) = book[entry + p];
            if (s.kind == QEM_CODEBOOK_PER_GROUP) book += width * (s.group_bits ? uint64_t(1) << bits : s.k);
        }
    }
    return m;
}

inline Matrix rotate_back(const qem_stage &s, const Matrix &y)
{
    Matrix m(y.rows, y.cols);
    for (uint64_t i = 0; i < y.rows; i++) {
        const uint64_t cell = s.cells > 1 ? bits_at(s.row_cells, i * qem_code_bits(s.cells), qem_code_bits(s.cells)) : 0;
        for (uint64_t j = 0; j < y.cols; j++) {
            float sum = s.coarse ? s.coarse[cell * y.cols + j] : 0.0f;
            for (uint64_t p = 0; p < y.cols; p++)
                sum = std::fma(y.at(i, p), s.rotation[(cell * y.cols + p) * y.cols + j], sum);
            m.at(i, j) = sum;
        }
    }
    return m;
}

inline void apply_step(const qem_affine &step, Matrix &m)
{
    for (uint64_t i = 0; i < m.rows; i++)
        for (uint64_t j = 0; j < m.cols; j++) {
            const uint64_t blocks = step.block ? (m.cols + step.block - 1) / step.block : 0;
            const uint64_t unit = step.axis == QEM_AXIS_TENSOR   ? 0
                                  : step.axis == QEM_AXIS_ROW    ? i
                                  : step.axis == QEM_AXIS_COLUMN ? j
                                                                 : i * blocks + j / step.block;
            m.at(i, j) = std::fma(m.at(i, j), step.scale ? step.scale[unit] : 1.0f, step.mean ? step.mean[unit] : 0.0f);
        }
}

inline Matrix decode_definition(const qem_artifact *a)
{
    Matrix sum(a->rows, a->cols);
    for (uint32_t l = 0; l < a->layer_count; l++) {
        const qem_layer &layer = a->layers[l];
        Matrix m(a->rows, a->cols);
        for (uint32_t i = 0; i < layer.stage_count; i++) {
            const qem_stage &s = a->stages[layer.stage_first + i];
            Matrix rows = look_up_stage(s, a->cols);
            if (s.levels)
                rows = unswap_reference(rows, std::vector<uint8_t>(s.swap_map, s.swap_map + s.swap_map_bytes), s.levels);
            if (s.cells) rows = rotate_back(s, rows);
            std::copy(rows.x.begin(), rows.x.end(), m.x.begin() + static_cast<long>(s.row_begin * a->cols));
        }
        for (uint32_t i = 0; i < layer.affine_count; i++) apply_step(layer.affine[i], m);
        for (size_t e = 0; e < m.x.size(); e++) sum.x[e] = l ? sum.x[e] + m.x[e] : m.x[e];
    }
    const qem_outliers &o = a->outliers;
    for (uint64_t i = 0; i < o.count; i++) sum.x[qem_outlier_index(&o, i)] = o.value[i];
    return sum;
}

} // namespace qem_test

#endif
