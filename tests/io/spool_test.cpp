// Writers with a spool: the same file, nothing borrowed, nothing left behind. And the pages of a file given back.
#include <signal.h>
#include <sys/resource.h>

#include "io_test.h"

using namespace qem_test;

namespace {

class SpoolTest : public IoTest {
protected:
    // Two artifacts, a tensor and an empty one; with a spool their memory changes as soon as they are added.
    void write(const std::string &name, bool spooled, qem_artifact *first, const qem_artifact *second)
    {
        std::vector<uint16_t> values = { 1, 2, 3 };
        qem_tensor_info info = QEM_TENSOR_INFO_INIT, empty = QEM_TENSOR_INFO_INIT;
        info.name = "bias";
        info.dtype = QEM_DTYPE_F16;
        info.rank = 1;
        info.shape[0] = values.size();
        info.data = values.data();
        info.bytes = 2 * values.size();
        empty.name = "none";
        empty.dtype = QEM_DTYPE_F32;
        empty.rank = 1;
        qem_writer *writer = nullptr;
        ASSERT_EQ(qem_writer_create(context, path(name).c_str(), &writer), QEM_OK);
        if (spooled) {
            ASSERT_EQ(qem_writer_spool(context, writer), QEM_OK) << error();
        }
        ASSERT_EQ(qem_writer_add_artifact(context, writer, first), QEM_OK);
        ASSERT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_OK);
        ASSERT_EQ(qem_writer_add_tensor(context, writer, &empty), QEM_OK);
        EXPECT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_ERR_CLASH);
        ASSERT_EQ(qem_writer_add_artifact(context, writer, second), QEM_OK);
        if (spooled) values.assign(3, 0xffff);
        if (spooled) memset(const_cast<uint8_t *>(first->stages[0].codes), 0, first->stages[0].codes_bytes);
        EXPECT_EQ(list_directory(directory).size(), before) << "the spool has a name";
        ASSERT_EQ(qem_writer_commit(context, &writer), QEM_OK) << error();
    }
    size_t before = 0;
};

TEST_F(SpoolTest, TheFileIsTheSame)
{
    ArtifactShape shape;
    qem_artifact *first = make(shape);
    shape.name = "v";
    shape.kind = QEM_CODEBOOK_PER_GROUP;
    shape.codebook = QEM_DTYPE_F16;
    qem_artifact *second = make(shape);
    write("borrowed.safetensors", false, first, second);
    before = 1;
    write("spooled.safetensors", true, first, second);
    EXPECT_TRUE(read_bytes(path("spooled.safetensors")) == read_bytes(path("borrowed.safetensors")));
    EXPECT_EQ(list_directory(directory).size(), 2u);
}

TEST_F(SpoolTest, ComesOnceAndFirst)
{
    qem_writer *writer = nullptr;
    EXPECT_EQ(qem_writer_spool(context, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_writer_spool(nullptr, nullptr), QEM_ERR_ARGUMENT);
    ASSERT_EQ(qem_writer_create(context, path("a.safetensors").c_str(), &writer), QEM_OK);
    ASSERT_EQ(qem_writer_spool(context, writer), QEM_OK);
    EXPECT_EQ(qem_writer_spool(context, writer), QEM_ERR_ARGUMENT);
    qem_writer_abort(&writer);
    ASSERT_EQ(qem_writer_create(context, path("a.safetensors").c_str(), &writer), QEM_OK);
    ASSERT_EQ(qem_writer_add_artifact(context, writer, make(ArtifactShape())), QEM_OK);
    EXPECT_EQ(qem_writer_spool(context, writer), QEM_ERR_ARGUMENT);
    EXPECT_NE(error().find("before anything"), std::string::npos) << error();
    qem_writer_abort(&writer);
    EXPECT_TRUE(list_directory(directory).empty());
}

TEST_F(SpoolTest, AFullDiskIsAnErrorOfTheAdd)
{
    rlimit old;
    qem_writer *writer = nullptr;
    auto handler = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    rlimit limit = { 16, old.rlim_max };
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT_EQ(qem_writer_create(context, path("a.safetensors").c_str(), &writer), QEM_OK);
    EXPECT_EQ(qem_writer_spool(context, writer), QEM_OK);
    EXPECT_EQ(qem_writer_add_artifact(context, writer, make(ArtifactShape())), QEM_ERR_IO);
    EXPECT_NE(error().find("a.safetensors"), std::string::npos) << error();
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    // The failed add left nothing: the same artifact can be added now.
    EXPECT_EQ(qem_writer_add_artifact(context, writer, make(ArtifactShape())), QEM_OK) << error();
    EXPECT_EQ(qem_writer_commit(context, &writer), QEM_OK) << error();
    EXPECT_EQ(list_directory(directory), std::vector<std::string>{ "a.safetensors" });
    qem_artifact *back = nullptr;
    EXPECT_EQ(qem_load(context, path("a.safetensors").c_str(), &back), QEM_OK) << error();
    qem_artifact_destroy(&back);
}

TEST_F(SpoolTest, DiscardedPagesAreReadAgain)
{
    std::vector<float> values(300000);
    for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<float>(i);
    write_bytes(path("x.npy"), npy("{'descr': '<f4', 'fortran_order': False, 'shape': (300, 1000), }", bytes_of(values)));
    qem_file *file = open("x.npy");
    qem_view view = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t i = 0; i < 300; i += 7) ASSERT_EQ(element<float>(view, i, 999), static_cast<float>(i * 1000 + 999));
        qem_file_discard(file);
    }
    qem_file_discard(nullptr);
}

} // namespace
