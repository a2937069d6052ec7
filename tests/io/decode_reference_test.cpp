// Files written here, decoded by numpy from the format's definition alone: the format is what the specification says.
#include <cstdlib>
#include <cstring>

#include "io_test.h"

using namespace qem_test;

namespace {

class DecodeReferenceTest : public IoTest {
protected:
    void SetUp() override
    {
        IoTest::SetUp();
        if (std::string(QEM_TEST_PYTHON).empty() || std::system(QEM_TEST_PYTHON " -c 'import numpy' 2> /dev/null") != 0)
            GTEST_SKIP() << "no python3 with numpy";
    }

    void decode(const ArtifactShape &shape)
    {
        qem_artifact *artifact = make(shape);
        ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK) << error();
        std::string command = QEM_TEST_PYTHON " " QEM_TEST_DECODER " ";
        command += path("a.safetensors") + " " + path("d.npy");
        ASSERT_EQ(std::system(command.c_str()), 0);
        qem_file *file = open("d.npy");
        ASSERT_NE(file, nullptr) << error();
        qem_view view = QEM_VIEW_INIT;
        ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
        ASSERT_EQ(view.dtype, QEM_DTYPE_F32);
        ASSERT_EQ(view.rows, shape.rows);
        ASSERT_EQ(view.cols, shape.cols);
        std::vector<float> expected = decode_slowly(artifact);
        EXPECT_EQ(memcmp(view.data, expected.data(), expected.size() * sizeof(float)), 0);
    }
};

TEST_F(DecodeReferenceTest, Uniform)
{
    ArtifactShape shape;
    shape.kind = QEM_CODEBOOK_UNIFORM;
    shape.dim = 1;
    shape.rows = 200;
    shape.cols = 25;
    for (uint64_t k : { 1, 8, 65536 }) {
        shape.k = k;
        decode(shape);
    }
}

TEST_F(DecodeReferenceTest, Tables)
{
    ArtifactShape shape;
    shape.kind = QEM_CODEBOOK_TABLE;
    shape.dim = 1;
    shape.rows = 200;
    shape.cols = 25;
    shape.steps = { { QEM_AXIS_BLOCK, 16, 16, true, true } };
    for (qem_table table : { QEM_TABLE_UNIFORM, QEM_TABLE_NF })
        for (uint64_t k : { 1, 2, 4, 8, 16, 32, 64, 128, 256, 4096 }) {
            if (table == QEM_TABLE_NF && (k < 4 || k > 256)) continue; // there is no such table
            SCOPED_TRACE("table " + std::to_string(table) + ", k " + std::to_string(k));
            shape.table = table;
            shape.k = k;
            decode(shape);
        }
}

TEST_F(DecodeReferenceTest, SharedAndPerGroupWithTails)
{
    ArtifactShape shape;
    for (qem_codebook_kind kind : { QEM_CODEBOOK_SHARED, QEM_CODEBOOK_PER_GROUP })
        for (uint64_t cols : { 3, 8, 11 }) {
            shape.kind = kind;
            shape.cols = cols;
            shape.k = cols == 8 ? 1 : 7;
            shape.codebook = cols == 11 ? QEM_DTYPE_F16 : QEM_DTYPE_F32;
            decode(shape);
        }
}

TEST_F(DecodeReferenceTest, SwapsAndStages)
{
    ArtifactShape shape;
    shape.kind = QEM_CODEBOOK_PER_GROUP;
    for (uint32_t levels : { 1, 2, 4 })
        for (uint64_t cols : { 1, 9, 16 }) {
            shape.levels = levels;
            shape.cols = cols;
            shape.stages = levels == 2 ? 2 : 1;
            decode(shape);
        }
}

TEST_F(DecodeReferenceTest, EverythingOfFormat2)
{
    int number = 0;
    for (const ArtifactShape &shape : shapes_of_format_2()) {
        SCOPED_TRACE(number++);
        decode(shape);
    }
}

} // namespace
