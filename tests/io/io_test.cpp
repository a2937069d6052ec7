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

void IoTest::fill_stage(const ArtifactShape &shape, qem_artifact *artifact, uint32_t index)
{
    qem_stage &stage = artifact->stages[index];
    stage.kind = shape.kind;
    stage.dim = shape.dim;
    stage.k = shape.k;
    stage.code_bits = qem_code_bits(shape.k);
    stage.levels = index == 0 ? shape.levels : 0;
    stage.groups = (shape.cols + shape.dim - 1) / shape.dim;
    stage.codebook_dtype = shape.codebook;
    uint64_t count = shape.rows * stage.groups;
    stage.codes_bytes = qem_bit_stream_bytes(count, stage.code_bits);
    stage.codes = static_cast<uint8_t *>(memory(stage.codes_bytes, QEM_IO_SLACK));
    for (uint64_t i = 0; i < count; i++)
        put_bits(stage.codes, i * stage.code_bits, stage.code_bits, random() % static_cast<uint32_t>(shape.k));
    if (stage.levels > 0) {
        stage.swap_map_bytes = qem_swap_map_bytes(shape.rows, shape.cols, stage.levels);
        stage.swap_map = static_cast<uint8_t *>(memory(stage.swap_map_bytes, QEM_IO_SLACK));
        for (uint64_t i = 0; i < stage.swap_map_bytes; i++) stage.swap_map[i] = static_cast<uint8_t>(random());
    }
    if (shape.kind == QEM_CODEBOOK_UNIFORM) {
        stage.scale = 0.1f;
        stage.mean = -0.33333334f;
    } else {
        uint64_t floats = qem_codebook_floats(stage.kind, shape.cols, stage.dim, stage.k);
        stage.codebook_bytes = floats * qem_dtype_size(shape.codebook);
        stage.codebook_stored = memory(stage.codebook_bytes);
        for (uint64_t i = 0; i < floats; i++) {
            if (shape.codebook == QEM_DTYPE_F16)
                static_cast<uint16_t *>(stage.codebook_stored)[i] = static_cast<uint16_t>(random() % 0x7bff);
            else
                static_cast<float *>(stage.codebook_stored)[i] = static_cast<float>(random()) / 1e6f - 8.0f;
        }
    }
    EXPECT_EQ(qem_stage_expand_codebook(context, &stage, shape.cols), QEM_OK);
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
    EXPECT_EQ(qem_artifact_new(context, shape.name.c_str(), shape.rows, shape.cols, shape.stages, shape.stages, &artifact), QEM_OK);
    artifact->source_dtype = QEM_DTYPE_BF16;
    artifact->recipe = QEM_RECIPE_INIT;
    artifact->recipe.method = QEM_METHOD_PQ;
    artifact->recipe.ratio = 8.1;
    artifact->recipe.codebook = shape.codebook;
    artifact->recipe.accounting = QEM_ACCOUNTING_PAPER;
    artifact->seed = 0xfedcba9876543210u;
    artifact->budget_bytes = 123;
    for (uint32_t i = 0; i < shape.stages; i++) fill_stage(shape, artifact, i);
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
    for (uint32_t i = 0; i < artifact->stage_count; i++) {
        const qem_stage &stage = artifact->stages[i];
        all.append(reinterpret_cast<const char *>(stage.codes), stage.codes_bytes);
        if (stage.codebook_stored) all.append(static_cast<const char *>(stage.codebook_stored), stage.codebook_bytes);
        if (stage.swap_map) all.append(reinterpret_cast<const char *>(stage.swap_map), stage.swap_map_bytes);
        all.append(reinterpret_cast<const char *>(&stage.scale), sizeof stage.scale);
        all.append(reinterpret_cast<const char *>(&stage.mean), sizeof stage.mean);
    }
    return all;
}

static void decode_leaf(std::vector<float> &y, const qem_artifact *artifact, const uint8_t *map, uint64_t bit,
                        uint64_t at, uint64_t width)
{
    uint64_t pairs = width / 2;
    for (uint64_t i = 0; i < artifact->rows; i++) {
        float *row = &y[i * artifact->cols + at];
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

static void unswap(std::vector<float> &y, const qem_artifact *artifact, const qem_stage &stage)
{
    std::vector<std::vector<uint64_t>> widths{ { artifact->cols } };
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
            for (uint64_t width : widths[above]) bit += artifact->rows * (width / 2);
        for (uint64_t width : widths[l]) {
            decode_leaf(y, artifact, stage.swap_map, bit, at, width);
            bit += artifact->rows * (width / 2);
            at += width;
        }
    }
}

std::vector<float> decode_slowly(const qem_artifact *artifact)
{
    std::vector<float> total;
    for (uint32_t index = 0; index < artifact->stage_count; index++) {
        const qem_stage &stage = artifact->stages[index];
        std::vector<float> y(artifact->rows * artifact->cols);
        for (uint64_t i = 0; i < artifact->rows; i++)
            for (uint64_t j = 0; j < artifact->cols; j++) {
                uint64_t g = j / stage.dim, width = std::min<uint64_t>(stage.dim, artifact->cols - g * stage.dim);
                uint64_t code = get_bits(stage.codes, (i * stage.groups + g) * stage.code_bits, stage.code_bits);
                uint64_t place = stage.kind == QEM_CODEBOOK_PER_GROUP ? g * stage.k * stage.dim + code * width
                                                                      : code * stage.dim;
                y[i * artifact->cols + j] = stage.codebook[place + j % stage.dim];
            }
        unswap(y, artifact, stage);
        if (index == 0) total = y;
        else for (size_t e = 0; e < y.size(); e++) total[e] += y[e];
    }
    return total;
}

} // namespace qem_test
