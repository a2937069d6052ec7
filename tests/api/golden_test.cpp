// Artifacts written by earlier versions decode to the bytes they decoded to then.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "support/reference.h"

using namespace qem_test;

namespace {

struct File {
    File(const Context &context, const std::string &path) { context.must(qem_file_open(context, path.c_str(), &file)); }
    ~File() { qem_file_close(&file); }
    qem_file *file = nullptr;
};

void expect_same_decode(qem_isa isa, const std::filesystem::path &artifact_path)
{
    const Context context(with_threads(2, isa));
    qem_artifact *loaded = nullptr;
    context.must(qem_load(context, artifact_path.c_str(), &loaded));
    const Artifact artifact(loaded);
    const File expected(context, std::filesystem::path(artifact_path).replace_extension(".npy").string());
    qem_view view = QEM_VIEW_INIT;
    context.must(qem_file_view(context, expected.file, nullptr, &view));
    const std::vector<float> decoded = decode(context, artifact);
    ASSERT_EQ(decoded.size(), view.rows * view.cols);
    EXPECT_EQ(std::memcmp(decoded.data(), view.data, decoded.size() * sizeof(float)), 0);
}

TEST(Golden, DecodesAsEver)
{
    int files = 0;
    for (const auto &entry : std::filesystem::directory_iterator(QEM_GOLDEN)) {
        if (entry.path().extension() != ".safetensors") continue;
        files++;
        for (qem_isa isa : available_isas()) {
            SCOPED_TRACE(entry.path().filename().string() + " " + qem_isa_name(isa));
            expect_same_decode(isa, entry.path());
        }
    }
    EXPECT_GE(files, 24);
}

} // namespace
