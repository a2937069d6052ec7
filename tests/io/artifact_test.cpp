#include <cmath>
#include <cstring>
#include <thread>

#include "io_test.h"

using namespace qem_test;

namespace {

class ArtifactTest : public IoTest {
protected:
    void round_trip(const ArtifactShape &shape)
    {
        SCOPED_TRACE(shape.name + " kind " + std::to_string(shape.kind) + " cols " + std::to_string(shape.cols) +
                     " k " + std::to_string(shape.k) + " levels " + std::to_string(shape.levels));
        qem_artifact *artifact = make(shape);
        ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK) << error();
        qem_artifact *back = nullptr;
        ASSERT_EQ(qem_load(context, path("a.safetensors").c_str(), &back), QEM_OK) << error();
        EXPECT_EQ(fingerprint(back), fingerprint(artifact));
        EXPECT_TRUE(std::isnan(back->quantize_seconds));
        EXPECT_EQ(decode_slowly(back), decode_slowly(artifact));
        for (uint32_t i = 0; i < back->stage_count; i++) {
            const qem_stage &stage = back->stages[i];
            EXPECT_EQ(reinterpret_cast<uintptr_t>(stage.codes) % 64, 0u);
            for (int b = 0; b < QEM_IO_SLACK; b++) EXPECT_EQ(stage.codes[stage.codes_bytes + b], 0);
            EXPECT_EQ(stage.swap_map != nullptr, stage.levels > 0);
            for (int b = 0; stage.swap_map && b < QEM_IO_SLACK; b++)
                EXPECT_EQ(stage.swap_map[stage.swap_map_bytes + b], 0);
        }
        if (shape.intervals > 1) {
            const uint64_t cuts = shape.dim * (shape.intervals - 1) * sizeof(float);
            EXPECT_EQ(memcmp(back->cells.cuts, artifact->cells.cuts, cuts), 0) << "cuts have to come back bit by bit";
        }
        qem_artifact_destroy(&back);
    }
};

TEST_F(ArtifactTest, RoundTripsEveryKind)
{
    for (qem_codebook_kind kind : { QEM_CODEBOOK_SHARED, QEM_CODEBOOK_PER_GROUP, QEM_CODEBOOK_UNIFORM })
        for (uint64_t cols : { 1, 3, 8, 10 })
            for (uint64_t k : { 1, 2, 7, 300 })
                for (uint32_t levels : { 0, 1, 3 })
                    for (qem_dtype codebook : { QEM_DTYPE_F32, QEM_DTYPE_F16 }) {
                        ArtifactShape shape;
                        shape.kind = kind;
                        shape.cols = cols;
                        shape.k = k;
                        shape.levels = levels;
                        shape.codebook = kind == QEM_CODEBOOK_UNIFORM ? QEM_DTYPE_F32 : codebook;
                        shape.dim = kind == QEM_CODEBOOK_UNIFORM ? 1 : 4;
                        round_trip(shape);
                    }
}

TEST_F(ArtifactTest, RoundTripsCellsStagesAndOddNames)
{
    ArtifactShape shape;
    shape.intervals = 3;
    round_trip(shape);
    shape.intervals = 0;
    shape.stages = 3;
    shape.levels = 2;
    round_trip(shape);
    shape.metrics = false;
    shape.name = "model.layers.0.\"\xc3\xa4\".weight \\";
    round_trip(shape);
    shape.name = std::string(255, 'n');
    round_trip(shape);
}

TEST_F(ArtifactTest, RoundTripsEverythingOfFormat2)
{
    int number = 0;
    for (const ArtifactShape &shape : shapes_of_format_2()) {
        SCOPED_TRACE(number++);
        round_trip(shape);
        EXPECT_NE(read_bytes(path("a.safetensors")).find("\"qem.version\":\"2\""), std::string::npos);
    }
    ArtifactShape old;
    old.stages = 2;
    round_trip(old);
    EXPECT_NE(read_bytes(path("a.safetensors")).find("\"qem.version\":\"1\""), std::string::npos) << "nothing new is in it";
}

// Their texts lack the two keys that format 1 got later (assign, refine); nothing else may change.
TEST_F(ArtifactTest, FilesOfFormat1AreWrittenAsTheyWere)
{
    const auto data = [](const std::string &bytes) {
        uint64_t header = 0;
        memcpy(&header, bytes.data(), 8);
        return bytes.substr(8 + header);
    };
    int files = 0;
    for (const std::string &name : list_directory(QEM_TEST_GOLDEN)) {
        if (name.find(".safetensors") == std::string::npos) continue;
        const std::string bytes = read_bytes(QEM_TEST_GOLDEN "/" + name);
        if (bytes.find("\"qem.version\":\"1\"") == std::string::npos) continue;
        qem_artifact *back = nullptr;
        ASSERT_EQ(qem_load(context, (QEM_TEST_GOLDEN "/" + name).c_str(), &back), QEM_OK) << error();
        ASSERT_EQ(qem_save(context, back, path("a.safetensors").c_str()), QEM_OK) << error();
        qem_artifact_destroy(&back);
        const std::string written = read_bytes(path("a.safetensors"));
        EXPECT_EQ(data(written), data(bytes)) << name;
        EXPECT_NE(written.find("\"qem.version\":\"1\""), std::string::npos) << name;
        files++;
    }
    EXPECT_GE(files, 11);
}

TEST_F(ArtifactTest, IndicesOfOutliersGrowWithTheMatrix)
{
    ArtifactShape shape; // one centroid needs no codes: 2^33 elements in a few bytes
    shape.rows = uint64_t{ 1 } << 30;
    shape.cols = 8;
    shape.k = 1;
    shape.outliers = 3;
    qem_artifact *artifact = make(shape);
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK) << error();
    qem_artifact *back = nullptr;
    ASSERT_EQ(qem_load(context, path("a.safetensors").c_str(), &back), QEM_OK) << error();
    EXPECT_EQ(fingerprint(back), fingerprint(artifact));
    EXPECT_EQ(back->outliers.index_size, 8u);
    EXPECT_EQ(qem_outlier_index(&back->outliers, 2), (uint64_t{ 1 } << 33) - 1);
    qem_artifact_destroy(&back);
    qem_file *file = open("a.safetensors");
    ASSERT_NE(file, nullptr);
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    ASSERT_EQ(qem_file_tensor(file, 0, &info), QEM_OK);
    EXPECT_STREQ(info.name, "w.outlier_index");
    EXPECT_EQ(info.dtype, QEM_DTYPE_U64);
}

TEST_F(ArtifactTest, EveryFieldOfARecipeComesBack)
{
    ArtifactShape shape;
    shape.recipe = true;
    qem_artifact *artifact = make(shape), *back = nullptr;
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK) << error();
    ASSERT_EQ(qem_load(context, path("a.safetensors").c_str(), &back), QEM_OK) << error();
    const qem_recipe *a = &artifact->recipe, *b = &back->recipe;
    for (int layer = 0; layer < 3; layer++, a = a->residual, b = b->residual) {
        ASSERT_NE(a, nullptr);
        ASSERT_NE(b, nullptr);
        qem_recipe left = *a, right = *b;
        EXPECT_EQ(left.residual == nullptr, right.residual == nullptr);
        left.residual = right.residual = nullptr;
        EXPECT_EQ(memcmp(&left, &right, sizeof left), 0) << "layer " << layer;
    }
    EXPECT_EQ(b, nullptr);
    qem_artifact_destroy(&back);
}

TEST_F(ArtifactTest, SameArtifactSameBytes)
{
    ArtifactShape shape;
    shape.intervals = 2;
    shape.levels = 1;
    qem_artifact *artifact = make(shape);
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    artifact->quantize_seconds = 77; // times are not part of the bytes
    ASSERT_EQ(qem_save(context, artifact, path("b.safetensors").c_str()), QEM_OK);
    std::string bytes = read_bytes(path("a.safetensors"));
    EXPECT_EQ(bytes, read_bytes(path("b.safetensors")));
    qem_artifact *back = nullptr;
    ASSERT_EQ(qem_load(context, path("a.safetensors").c_str(), &back), QEM_OK) << error();
    ASSERT_EQ(qem_save(context, back, path("b.safetensors").c_str()), QEM_OK);
    qem_artifact_destroy(&back);
    EXPECT_EQ(bytes, read_bytes(path("b.safetensors"))) << "loading and saving changes nothing";
}

TEST_F(ArtifactTest, FileBytesAreTheStoredBytes)
{
    ArtifactShape shape;
    shape.kind = QEM_CODEBOOK_PER_GROUP;
    shape.levels = 1;
    qem_artifact *artifact = make(shape);
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    qem_parts parts;
    uint64_t stored = 0, found = 0, header = 0;
    qem_artifact_parts(artifact, &parts, &stored);
    std::string bytes = read_bytes(path("a.safetensors"));
    memcpy(&header, bytes.data(), 8);
    EXPECT_EQ((8 + header) % 64, 0u);
    EXPECT_EQ(bytes.size() - 8 - header, stored);
    qem_file *file = open("a.safetensors");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(qem_file_tensor_count(file), 3u);
    const char *names[] = { "w.codebook", "w.codes", "w.swap_map" };
    for (uint32_t i = 0; i < 3; i++) {
        qem_tensor_info info = QEM_TENSOR_INFO_INIT;
        ASSERT_EQ(qem_file_tensor(file, i, &info), QEM_OK);
        EXPECT_STREQ(info.name, names[i]);
        EXPECT_EQ(info.of_artifact, 1);
        found += info.bytes;
    }
    EXPECT_EQ(found, stored);
    qem_view view = QEM_VIEW_INIT;
    EXPECT_EQ(qem_file_view(context, file, nullptr, &view), QEM_ERR_NOT_FOUND) << "a codebook is not the file's matrix";
}

TEST_F(ArtifactTest, SeveralArtifactsAndPlainTensorsInOneFile)
{
    ArtifactShape shape;
    qem_artifact *first = make(shape);
    shape.name = "v";
    shape.kind = QEM_CODEBOOK_PER_GROUP;
    qem_artifact *second = make(shape);
    const float bias[2] = { 1, 2 };
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    info.name = "bias";
    info.dtype = QEM_DTYPE_F32;
    info.rank = 1;
    info.shape[0] = 2;
    info.data = bias;
    info.bytes = sizeof bias;
    qem_writer *writer = nullptr;
    ASSERT_EQ(qem_writer_create(context, path("m.safetensors").c_str(), &writer), QEM_OK);
    ASSERT_EQ(qem_writer_add_artifact(context, writer, first), QEM_OK);
    ASSERT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_OK);
    ASSERT_EQ(qem_writer_add_artifact(context, writer, second), QEM_OK);
    ASSERT_EQ(qem_writer_commit(context, &writer), QEM_OK) << error();
    qem_file *file = open("m.safetensors");
    ASSERT_NE(file, nullptr) << error();
    EXPECT_EQ(qem_file_artifact_count(file), 2u);
    EXPECT_STREQ(qem_file_artifact_name(file, 0), "w");
    EXPECT_STREQ(qem_file_artifact_name(file, 1), "v");
    qem_artifact *back = nullptr;
    EXPECT_EQ(qem_file_load(context, file, nullptr, &back), QEM_ERR_NOT_FOUND);
    EXPECT_EQ(qem_file_load(context, file, "u", &back), QEM_ERR_NOT_FOUND);
    ASSERT_EQ(qem_file_load(context, file, "v", &back), QEM_OK) << error();
    EXPECT_EQ(fingerprint(back), fingerprint(second));
    qem_artifact_destroy(&back);
}

TEST_F(ArtifactTest, ClashesAreErrorsAndLeaveTheWriterAsItWas)
{
    ArtifactShape shape;
    qem_artifact *artifact = make(shape);
    shape.name = "w.1";
    qem_artifact *dotted = make(shape);
    shape.name = "w";
    shape.stages = 2;
    qem_artifact *stages = make(shape);
    const uint8_t byte = 1;
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    info.dtype = QEM_DTYPE_U8;
    info.data = &byte;
    info.bytes = 1;
    qem_writer *writer = nullptr;
    ASSERT_EQ(qem_writer_create(context, path("c.safetensors").c_str(), &writer), QEM_OK);
    info.name = "w.codebook";
    ASSERT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_OK);
    EXPECT_EQ(qem_writer_add_artifact(context, writer, artifact), QEM_ERR_CLASH);
    EXPECT_NE(error().find("'w.codebook'"), std::string::npos) << error();
    qem_writer_abort(&writer);
    ASSERT_EQ(qem_writer_create(context, path("c.safetensors").c_str(), &writer), QEM_OK);
    ASSERT_EQ(qem_writer_add_artifact(context, writer, dotted), QEM_OK);
    EXPECT_EQ(qem_writer_add_artifact(context, writer, stages), QEM_ERR_CLASH); // both have w.1.codes
    EXPECT_EQ(qem_writer_add_artifact(context, writer, artifact), QEM_OK) << error();
    EXPECT_EQ(qem_writer_add_artifact(context, writer, artifact), QEM_ERR_CLASH);
    info.name = "w";
    EXPECT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_ERR_CLASH);
    ASSERT_EQ(qem_writer_commit(context, &writer), QEM_OK) << error();
    qem_file *file = open("c.safetensors");
    ASSERT_NE(file, nullptr) << error();
    EXPECT_EQ(qem_file_artifact_count(file), 2u);
    EXPECT_EQ(qem_file_tensor_count(file), 4u);
}

TEST_F(ArtifactTest, OneOpenFileServesSeveralThreads)
{
    ArtifactShape shape;
    shape.intervals = 3;
    qem_artifact *artifact = make(shape);
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    qem_file *file = open("a.safetensors");
    ASSERT_NE(file, nullptr);
    int good[4] = { 0, 0, 0, 0 };
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            qem_context *own = nullptr;
            if (qem_context_create(nullptr, &own) != QEM_OK) return;
            for (int i = 0; i < 20; i++) {
                qem_artifact *back = nullptr;
                good[t] += qem_file_load(own, file, "w", &back) == QEM_OK;
                qem_artifact_destroy(&back);
            }
            qem_context_destroy(&own);
        });
    for (std::thread &thread : threads) thread.join();
    for (int count : good) EXPECT_EQ(count, 20);
}

TEST_F(ArtifactTest, NullArgumentsAreErrors)
{
    qem_file *file = nullptr;
    qem_artifact *artifact = nullptr;
    qem_writer *writer = nullptr;
    qem_view view = QEM_VIEW_INIT;
    EXPECT_EQ(qem_file_open(nullptr, "x", &file), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_open(context, nullptr, &file), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_open(context, "x", nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_load(context, nullptr, nullptr, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_view(context, nullptr, nullptr, &view), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_load(context, nullptr, &artifact), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_save(context, nullptr, path("x").c_str()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_writer_create(context, nullptr, &writer), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_writer_commit(context, &writer), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_tensor_count(nullptr), 0u);
    EXPECT_EQ(qem_file_artifact_count(nullptr), 0u);
    qem_file_close(nullptr);
    qem_file_close(&file);
    qem_writer_abort(&writer);
}

} // namespace
