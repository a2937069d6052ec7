#include "io_test.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace qem_test {

std::string read_bytes(const std::string &path)
{
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

void write_bytes(const std::string &path, const std::string &bytes)
{
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::vector<std::string> list_directory(const std::string &path)
{
    std::vector<std::string> names;
    DIR *directory = opendir(path.c_str());
    if (!directory) return names;
    while (dirent *entry = readdir(directory)) {
        std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    closedir(directory);
    std::sort(names.begin(), names.end());
    return names;
}

std::string safetensors(const std::string &header, const std::string &data)
{
    uint64_t length = header.size();
    return std::string(reinterpret_cast<const char *>(&length), 8) + header + data;
}

std::string npy(const std::string &dictionary, const std::string &data, int major)
{
    uint32_t length = static_cast<uint32_t>(dictionary.size());
    std::string start("\x93NUMPY", 6);
    start += static_cast<char>(major);
    start += '\0';
    start += std::string(reinterpret_cast<const char *>(&length), major == 1 ? 2 : 4);
    return start + dictionary + data;
}

void IoTest::SetUp()
{
    char name[] = "/tmp/qem-io-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory = name;
    ASSERT_EQ(qem_context_create(nullptr, &context), QEM_OK);
}

void IoTest::TearDown()
{
    for (qem_file *file : files) qem_file_close(&file);
    for (qem_artifact *artifact : artifacts) qem_artifact_destroy(&artifact);
    qem_context_destroy(&context);
    for (const std::string &name : list_directory(directory)) std::remove(path(name).c_str());
    rmdir(directory.c_str());
}

qem_file *IoTest::open(const std::string &name)
{
    qem_file *file = nullptr;
    status = qem_file_open(context, path(name).c_str(), &file);
    EXPECT_EQ(file != nullptr, status == QEM_OK);
    if (file) files.push_back(file);
    return file;
}

qem_file *IoTest::open_bytes(const std::string &name, const std::string &bytes)
{
    write_bytes(path(name), bytes);
    return open(name);
}

uint32_t IoTest::random()
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

void *IoTest::memory(uint64_t bytes, uint64_t slack)
{
    void *pointer = nullptr;
    EXPECT_EQ(qem_allocate_zero(context, bytes + slack, 1, &pointer), QEM_OK);
    return pointer;
}

static void put_bits(uint8_t *stream, uint64_t at, uint32_t bits, uint32_t value)
{
    for (uint32_t b = 0; b < bits; b++)
        if (value >> b & 1) stream[(at + b) / 8] |= static_cast<uint8_t>(1u << (at + b) % 8);
}

static uint32_t get_bits(const uint8_t *stream, uint64_t at, uint32_t bits)
{
    uint32_t value = 0;
    for (uint32_t b = 0; b < bits; b++) value |= static_cast<uint32_t>(stream[(at + b) / 8] >> (at + b) % 8 & 1) << b;
    return value;
}

void IoTest::set_stage(const ArtifactShape &shape, qem_artifact *artifact, uint32_t index)
{
    qem_stage &stage = artifact->stages[index];
    const bool second = shape.split && index % 2 == 1;
    stage.kind = shape.kind;
    stage.dim = shape.dim;
    stage.k = second ? (shape.k + 1) / 2 : shape.k;
    stage.code_bits = qem_code_bits(stage.k);
    stage.levels = index == 0 ? shape.levels : 0;
    stage.groups = (shape.cols + shape.dim - 1) / shape.dim;
    stage.codebook_dtype = shape.codebook;
    stage.codebook_bits = shape.codebook_bits;
    stage.cells = shape.cells;
    stage.table = shape.table;
    if (shape.split) {
        stage.row_begin = second ? shape.rows / 3 : 0;
        stage.row_end = second ? shape.rows : shape.rows / 3;
    }
    if (shape.group_bits) {
        stage.group_bits = static_cast<uint8_t *>(memory(stage.groups, QEM_IO_SLACK));
        for (uint64_t g = 0; g < stage.groups; g++) stage.group_bits[g] = static_cast<uint8_t>(random() % (stage.code_bits + 1));
        stage.group_bits[stage.groups / 2] = static_cast<uint8_t>(stage.code_bits);
    }
    qem_stage_sizes(&stage, shape.cols);
}

void IoTest::set_layers(const ArtifactShape &shape, qem_artifact *artifact)
{
    for (uint32_t i = 0; i < artifact->layer_count; i++) {
        qem_layer &layer = artifact->layers[i];
        layer.stage_count = shape.split ? 2 : 1;
        layer.stage_first = i * layer.stage_count;
        for (const StepShape &step : shape.steps) {
            qem_affine &a = layer.affine[layer.affine_count++];
            a.axis = step.axis;
            a.block = step.block;
            a.params = step.params;
            a.has_scale = step.scale;
            a.has_mean = step.mean;
            qem_affine_sizes(&a, shape.rows, shape.cols);
        }
    }
    artifact->outliers.count = shape.outliers;
    artifact->outliers.value_dtype = shape.outlier_dtype;
    artifact->outliers.index_size = shape.rows * shape.cols >> 32 ? 8 : 4;
}

void IoTest::fill_codes(const qem_stage &stage, uint8_t *codes)
{
    uint64_t at = 0;
    for (uint64_t i = stage.row_begin; i < stage.row_end; i++)
        for (uint64_t g = 0; g < stage.groups; g++) {
            const uint32_t bits = stage.group_bits ? stage.group_bits[g] : stage.code_bits;
            const uint64_t k = stage.group_bits ? uint64_t{ 1 } << bits : stage.k;
            put_bits(codes, at, bits, random() % static_cast<uint32_t>(k));
            at += bits;
        }
}

// Moderate numbers of both signs, so that no chain of products overflows; codes and indices within their limits.
void IoTest::fill_blob(const ArtifactShape &shape, const qem_artifact *artifact, uint32_t index, const qem_blob &blob)
{
    const qem_stage &stage = artifact->stages[index];
    const std::string name = blob.name;
    const uint64_t count = blob.bytes / qem_dtype_size(blob.dtype), elements = shape.rows * shape.cols;
    void *data = *blob.slot = memory(blob.bytes, blob.slack);
    if (name == "codes") {
        fill_codes(stage, static_cast<uint8_t *>(data));
    } else if (name == "row_cells") {
        const uint32_t bits = qem_code_bits(stage.cells);
        for (uint64_t i = 0; i < stage.row_end - stage.row_begin; i++)
            put_bits(static_cast<uint8_t *>(data), i * bits, bits, random() % stage.cells);
    } else if (name == "outlier_index") {
        for (uint64_t i = 0; i < count; i++) { // the first and the last element are among them
            const uint64_t at = i + 1 == count ? elements - 1 : i * (elements / count);
            if (blob.dtype == QEM_DTYPE_U64) static_cast<uint64_t *>(data)[i] = at;
            else static_cast<uint32_t *>(data)[i] = static_cast<uint32_t>(at);
        }
    } else if (blob.dtype == QEM_DTYPE_F32) {
        for (uint64_t i = 0; i < count; i++) static_cast<float *>(data)[i] = static_cast<float>(random()) / 1e6f - 8.0f;
    } else if (blob.dtype == QEM_DTYPE_F16) {
        for (uint64_t i = 0; i < count; i++)
            static_cast<uint16_t *>(data)[i] = static_cast<uint16_t>(random() % 0x4c00 | (random() % 2) << 15);
    } else {
        for (uint64_t i = 0; i < blob.bytes; i++) static_cast<uint8_t *>(data)[i] = static_cast<uint8_t>(random());
    }
}

void IoTest::fill_stage(const ArtifactShape &shape, qem_artifact *artifact, uint32_t index)
{
    qem_stage &stage = artifact->stages[index];
    qem_blob blobs[QEM_MOST_BLOBS];
    const uint32_t count = qem_artifact_blobs(artifact, index, blobs);
    for (uint32_t i = 0; i < count; i++)
        if (blobs[i].slot && !*blobs[i].slot) fill_blob(shape, artifact, index, blobs[i]);
    if (!stage.codes) stage.codes = static_cast<uint8_t *>(memory(0, QEM_IO_SLACK));
    stage.scale = stage.kind == QEM_CODEBOOK_UNIFORM ? 0.1f : 0.0f;
    stage.mean = stage.kind == QEM_CODEBOOK_UNIFORM ? -0.33333334f : 0.0f;
    EXPECT_EQ(qem_stage_expand_codebook(context, &stage, shape.cols), QEM_OK);
}

static void set_every_field(qem_artifact *artifact)
{
    qem_recipe recipe = QEM_RECIPE_INIT, second = QEM_RECIPE_INIT, third = QEM_RECIPE_INIT;
    recipe.method = QEM_METHOD_LOPQ;
    recipe.bits = 3.5;
    recipe.codebook_bits = 5;
    recipe.standardize = QEM_STANDARDIZE_COLUMN | QEM_STANDARDIZE_BLOCK;
    recipe.standardize_block = 65535;
    recipe.params = 7;
    recipe.means = QEM_MEANS_NEVER;
    recipe.outliers = 0.1;
    recipe.outlier_sigma = 1.0 / 3.0;
    recipe.grid_axis = QEM_AXIS_BLOCK;
    recipe.grid_block = 32;
    recipe.rotation_start = QEM_ROTATION_PCA;
    recipe.cells = 256;
    recipe.allocation = QEM_ALLOCATION_VARIANCE;
    recipe.mixed = 1;
    recipe.effort = 0;
    recipe.share = 0.6;
    recipe.residual = &second;
    second.method = QEM_METHOD_NF;
    second.standardize = QEM_STANDARDIZE_ROW;
    second.share = 0.9;
    second.residual = &third;
    third.method = QEM_METHOD_RTN;
    third.iterations = 3;
    qem_artifact_set_recipe(artifact, &recipe);
}

void IoTest::fill_cells(const ArtifactShape &shape, qem_artifact *artifact)
{
    qem_cells &cells = artifact->cells;
    cells.intervals = shape.intervals;
    cells.count = 3;
    uint32_t cuts = shape.intervals - 1;
    cells.cuts = static_cast<float *>(memory(shape.dim * cuts * sizeof(float)));
    // Values whose shortest decimal form is long, and a denormal: all have to come back bit by bit.
    for (uint32_t i = 0; i < shape.dim * cuts; i++)
        cells.cuts[i] = i % cuts == 0 ? -1.0f / 3.0f - static_cast<float>(i) : i == 1 ? 1e-45f : static_cast<float>(i);
    cells.id = static_cast<uint32_t *>(memory(3 * sizeof(uint32_t)));
    cells.first = static_cast<uint32_t *>(memory(4 * sizeof(uint32_t)));
    const uint32_t id[] = { 0, 3, 7 };
    const uint32_t first[] = { 0, 1, 4, static_cast<uint32_t>(shape.k) };
    memcpy(cells.id, id, sizeof id);
    memcpy(cells.first, first, sizeof first);
}

qem_artifact *IoTest::make(const ArtifactShape &shape)
{
    qem_artifact *artifact = nullptr;
    EXPECT_EQ(qem_artifact_new(context, shape.name.c_str(), shape.rows, shape.cols, shape.stages * (shape.split ? 2 : 1),
                               shape.stages, &artifact), QEM_OK);
    artifact->source_dtype = QEM_DTYPE_BF16;
    artifact->recipe = QEM_RECIPE_INIT;
    artifact->recipe.method = QEM_METHOD_PQ;
    artifact->recipe.ratio = 8.1;
    artifact->recipe.codebook = shape.codebook == QEM_DTYPE_U8 ? QEM_DTYPE_F32 : shape.codebook;
    artifact->recipe.accounting = QEM_ACCOUNTING_PAPER;
    artifact->seed = 0xfedcba9876543210u;
    artifact->budget_bytes = 123;
    if (shape.recipe) set_every_field(artifact);
    for (uint32_t i = 0; i < artifact->stage_count; i++) set_stage(shape, artifact, i);
    set_layers(shape, artifact);
    for (uint32_t i = 0; i < artifact->stage_count; i++) fill_stage(shape, artifact, i);
    for (uint32_t i = 0; i < artifact->layer_count; i++)
        for (uint32_t a = 0; a < artifact->layers[i].affine_count; a++)
            EXPECT_EQ(qem_affine_expand(context, &artifact->layers[i].affine[a]), QEM_OK);
    if (shape.outliers) {
        EXPECT_EQ(qem_outliers_expand(context, &artifact->outliers), QEM_OK);
    }
    if (shape.intervals > 1) fill_cells(shape, artifact);
    if (shape.metrics) {
        artifact->has_metrics = 1;
        artifact->metrics.size = sizeof artifact->metrics;
        artifact->metrics.version = 1;
        artifact->metrics.mae = 0.1;
        artifact->metrics.mse = 1e-300;
        artifact->metrics.mre = NAN;
        artifact->metrics.nmse = 1.0 / 3.0;
        artifact->metrics.max_error = 2;
        artifact->metrics.zeros = 1;
        artifact->metrics.count = shape.rows * shape.cols;
    }
    EXPECT_EQ(qem_artifact_check(context, artifact, "a hand-made artifact"), QEM_OK) << error();
    artifacts.push_back(artifact);
    return artifact;
}

std::string IoTest::fingerprint(const qem_artifact *artifact)
{
    char *text = nullptr;
    int version = 0;
    EXPECT_EQ(qem_artifact_text(context, artifact, &text, &version), QEM_OK);
    std::string all = text ? text : "";
    qem_release(context, text);
    for (uint32_t i = 0; i < qem_artifact_part_count(artifact); i++) {
        qem_part part = QEM_PART_INIT;
        EXPECT_EQ(qem_artifact_part(artifact, i, &part), QEM_OK);
        all += part.name;
        if (part.bytes) all.append(static_cast<const char *>(part.data), part.bytes);
    }
    return all;
}

static void decode_leaf(std::vector<float> &y, uint64_t rows, uint64_t cols, const uint8_t *map, uint64_t bit, uint64_t at,
                        uint64_t width)
{
    uint64_t pairs = width / 2;
    for (uint64_t i = 0; i < rows; i++) {
        float *row = &y[i * cols + at];
        std::vector<float> leaf(row, row + width);
        for (uint64_t j = 0; j < pairs; j++) {
            float small = leaf[j], large = leaf[width - pairs + j];
            bool left_smaller = get_bits(map, bit + i * pairs + j, 1) != 0;
            row[2 * j] = left_smaller ? small : large;
            row[2 * j + 1] = left_smaller ? large : small;
        }
        if (width % 2) row[width - 1] = leaf[pairs];
    }
}

static void unswap(std::vector<float> &y, uint64_t rows, uint64_t cols, const qem_stage &stage)
{
    std::vector<std::vector<uint64_t>> widths{ { cols } };
    for (uint32_t l = 0; l < stage.levels; l++) {
        widths.emplace_back();
        for (uint64_t width : widths[l]) {
            widths[l + 1].push_back(width - width / 2);
            widths[l + 1].push_back(width / 2);
        }
    }
    for (uint32_t l = stage.levels; l-- > 0;) {
        uint64_t bit = 0, at = 0;
        for (uint32_t above = 0; above < l; above++)
            for (uint64_t width : widths[above]) bit += rows * (width / 2);
        for (uint64_t width : widths[l]) {
            decode_leaf(y, rows, cols, stage.swap_map, bit, at, width);
            bit += rows * (width / 2);
            at += width;
        }
    }
}

static void rotate(std::vector<float> &y, uint64_t rows, uint64_t cols, const qem_stage &stage)
{
    for (uint64_t i = 0; stage.cells && i < rows; i++) {
        const uint32_t bits = qem_code_bits(stage.cells);
        const uint64_t c = stage.cells > 1 ? get_bits(stage.row_cells, i * bits, bits) : 0;
        const std::vector<float> row(&y[i * cols], &y[i * cols] + cols);
        for (uint64_t j = 0; j < cols; j++) {
            float sum = stage.coarse ? stage.coarse[c * cols + j] : 0.0f;
            for (uint64_t p = 0; p < cols; p++) sum = std::fmaf(row[p], stage.rotation[(c * cols + p) * cols + j], sum);
            y[i * cols + j] = sum;
        }
    }
}

// The rows of one stage, before the steps of its layer.
static std::vector<float> decode_stage(const qem_stage &stage, uint64_t cols)
{
    const uint64_t rows = stage.row_end - stage.row_begin;
    std::vector<float> y(rows * cols);
    uint64_t bit = 0;
    for (uint64_t i = 0; i < rows; i++) {
        const uint32_t cell_bits = stage.cells > 1 ? qem_code_bits(stage.cells) : 0;
        const uint64_t cell = cell_bits ? get_bits(stage.row_cells, i * cell_bits, cell_bits) : 0;
        uint64_t base = cell * qem_stage_codebook_floats(&stage, cols) / (stage.cells > 1 ? stage.cells : 1);
        for (uint64_t g = 0; g < stage.groups; g++) {
            const uint32_t bits = stage.group_bits ? stage.group_bits[g] : stage.code_bits;
            const uint64_t width = std::min<uint64_t>(stage.dim, cols - g * stage.dim), code = get_bits(stage.codes, bit, bits);
            const uint64_t entry = stage.kind == QEM_CODEBOOK_PER_GROUP ? base + code * width : code * stage.dim;
            for (uint64_t p = 0; p < width; p++) y[i * cols + g * stage.dim + p] = stage.codebook[entry + p];
            base += width * (stage.group_bits ? uint64_t{ 1 } << bits : stage.k);
            bit += bits;
        }
    }
    if (stage.levels) unswap(y, rows, cols, stage);
    rotate(y, rows, cols, stage);
    return y;
}

static void take_step(std::vector<float> &y, uint64_t rows, uint64_t cols, const qem_affine &step)
{
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = 0; j < cols; j++) {
            uint64_t unit = 0;
            if (step.axis == QEM_AXIS_ROW) unit = i;
            if (step.axis == QEM_AXIS_COLUMN) unit = j;
            if (step.axis == QEM_AXIS_BLOCK) unit = i * ((cols + step.block - 1) / step.block) + j / step.block;
            float &x = y[i * cols + j];
            x = std::fmaf(x, step.scale ? step.scale[unit] : 1.0f, step.mean ? step.mean[unit] : 0.0f);
        }
}

std::vector<float> decode_slowly(const qem_artifact *artifact)
{
    std::vector<float> total;
    for (uint32_t index = 0; index < artifact->layer_count; index++) {
        const qem_layer &layer = artifact->layers[index];
        std::vector<float> y;
        for (uint32_t s = 0; s < layer.stage_count; s++) {
            const std::vector<float> part = decode_stage(artifact->stages[layer.stage_first + s], artifact->cols);
            y.insert(y.end(), part.begin(), part.end());
        }
        for (uint32_t a = 0; a < layer.affine_count; a++) take_step(y, artifact->rows, artifact->cols, layer.affine[a]);
        if (index == 0) total = y;
        else for (size_t e = 0; e < y.size(); e++) total[e] += y[e];
    }
    for (uint64_t i = 0; i < artifact->outliers.count; i++)
        total[qem_outlier_index(&artifact->outliers, i)] = artifact->outliers.value[i];
    return total;
}

// One shape for each new thing of format 2, and some with many of them.
std::vector<ArtifactShape> shapes_of_format_2()
{
    std::vector<ArtifactShape> shapes(14);
    for (size_t i = 0; i < shapes.size(); i++) shapes[i].rows = 11, shapes[i].cols = i % 2 ? 10 : 8;
    shapes[0].split = true;
    shapes[1].codebook = QEM_DTYPE_U8, shapes[1].codebook_bits = 4;
    shapes[2].kind = QEM_CODEBOOK_PER_GROUP, shapes[2].codebook = QEM_DTYPE_U8, shapes[2].codebook_bits = 12;
    shapes[3].kind = QEM_CODEBOOK_PER_GROUP, shapes[3].k = 16, shapes[3].group_bits = true, shapes[3].levels = 2;
    shapes[4].kind = QEM_CODEBOOK_PER_GROUP, shapes[4].cells = 1;
    shapes[5].kind = QEM_CODEBOOK_PER_GROUP, shapes[5].cells = 3, shapes[5].codebook = QEM_DTYPE_F16;
    shapes[6].outliers = 5;
    shapes[7].outliers = 88, shapes[7].outlier_dtype = QEM_DTYPE_F16;
    shapes[8].kind = QEM_CODEBOOK_TABLE, shapes[8].dim = 1, shapes[8].k = 2;
    shapes[8].steps = { { QEM_AXIS_BLOCK, 3, 16, true, true } };
    shapes[9].recipe = true;
    shapes[10].kind = QEM_CODEBOOK_PER_GROUP, shapes[10].codebook = QEM_DTYPE_U8, shapes[10].codebook_bits = 7;
    shapes[10].cells = 3, shapes[10].k = 8, shapes[10].group_bits = true;
    shapes[11].steps = { { QEM_AXIS_TENSOR, 0, 32, true, true }, { QEM_AXIS_ROW, 0, 4, true, false }, { QEM_AXIS_COLUMN, 0, 8, true, true } };
    shapes[11].stages = 2, shapes[11].split = true, shapes[11].outliers = 3, shapes[11].recipe = true, shapes[11].levels = 1;
    shapes[12].rows = 300, shapes[12].cols = 7, shapes[12].kind = QEM_CODEBOOK_PER_GROUP, shapes[12].k = 4;
    shapes[12].steps = { { QEM_AXIS_BLOCK, 2, 5, true, true }, { QEM_AXIS_COLUMN, 0, 16, false, true } };
    shapes[12].group_bits = shapes[12].split = true, shapes[12].stages = 3, shapes[12].outlier_dtype = QEM_DTYPE_F16, shapes[12].outliers = 50;
    shapes[13].rows = 600, shapes[13].cols = 3, shapes[13].steps = { { QEM_AXIS_ROW, 0, 6, false, true }, { QEM_AXIS_BLOCK, 300, 7, true, false } };
    return shapes;
}

} // namespace qem_test
