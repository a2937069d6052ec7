#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "io_test.h"

using namespace qem_test;

namespace {

// While it lives no file may grow beyond `bytes`: a full disk that needs no mount.
class SizeLimit {
public:
    explicit SizeLimit(rlim_t bytes)
    {
        old_handler = signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &old);
        rlimit limit = old;
        limit.rlim_cur = bytes;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~SizeLimit()
    {
        setrlimit(RLIMIT_FSIZE, &old);
        signal(SIGXFSZ, old_handler);
    }

private:
    rlimit old;
    void (*old_handler)(int);
};

class AtomicFileTest : public IoTest {
protected:
    qem_view view_of(const std::vector<float> &values, uint64_t rows)
    {
        qem_view view = QEM_VIEW_INIT;
        view.data = values.data();
        view.rows = rows;
        view.cols = values.size() / rows;
        return view;
    }
    std::vector<std::string> names() { return list_directory(directory); }
};

TEST_F(AtomicFileTest, AFullDiskIsAnErrorAndLeavesTheTargetAlone)
{
    std::vector<float> values(100000, 1.0f);
    qem_view view = view_of(values, 10);
    write_bytes(path("out.npy"), "precious");
    for (rlim_t limit : { 0, 100, 200000 }) {
        SizeLimit full(limit);
        EXPECT_EQ(qem_save_npy(context, &view, path("out.npy").c_str()), QEM_ERR_IO);
        EXPECT_NE(error().find("out.npy: cannot be written: "), std::string::npos) << error();
        EXPECT_EQ(qem_save_npy(context, &view, path("new.npy").c_str()), QEM_ERR_IO);
    }
    EXPECT_EQ(read_bytes(path("out.npy")), "precious");
    EXPECT_EQ(names(), std::vector<std::string>{ "out.npy" });
    ASSERT_EQ(qem_save_npy(context, &view, path("out.npy").c_str()), QEM_OK) << error();
    EXPECT_EQ(names(), std::vector<std::string>{ "out.npy" });
}

TEST_F(AtomicFileTest, AFullDiskStopsAnArtifactToo)
{
    ArtifactShape shape;
    shape.rows = 500;
    qem_artifact *artifact = make(shape);
    write_bytes(path("a.safetensors"), "precious");
    {
        SizeLimit full(1000);
        EXPECT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_ERR_IO);
    }
    EXPECT_EQ(read_bytes(path("a.safetensors")), "precious");
    EXPECT_EQ(names().size(), 1u);
}

TEST_F(AtomicFileTest, DevicesAreWrittenInPlace)
{
    std::vector<float> values(6, 1.0f);
    qem_view view = view_of(values, 2);
    struct stat before, after;
    ASSERT_EQ(stat("/dev/null", &before), 0);
    EXPECT_EQ(qem_save_npy(context, &view, "/dev/null"), QEM_OK) << error();
    ASSERT_EQ(stat("/dev/null", &after), 0);
    EXPECT_TRUE(S_ISCHR(after.st_mode));
    EXPECT_EQ(before.st_ino, after.st_ino);
    EXPECT_EQ(qem_save_npy(context, &view, "/dev/full"), QEM_ERR_IO);
    EXPECT_NE(error().find("No space left on device"), std::string::npos) << error();
}

TEST_F(AtomicFileTest, TheInputThatIsMappedMayBeTheOutput)
{
    std::vector<float> values{ 1, 2, 3, 4, 5, 6 };
    qem_view view = view_of(values, 2);
    ASSERT_EQ(qem_save_npy(context, &view, path("m.npy").c_str()), QEM_OK);
    qem_file *file = open("m.npy");
    ASSERT_NE(file, nullptr);
    qem_view mapped = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, nullptr, &mapped), QEM_OK);
    mapped.rows = 1; // the file would shrink under its own mapping if it were written in place
    mapped.cols = 3;
    ASSERT_EQ(qem_save_npy(context, &mapped, path("m.npy").c_str()), QEM_OK) << error();
    EXPECT_EQ(element<float>(mapped, 0, 2), 3.0f);
    mapped.rows = 2;
    EXPECT_EQ(element<float>(mapped, 1, 2), 6.0f);
    qem_file *again = open("m.npy");
    ASSERT_NE(again, nullptr) << error();
    ASSERT_EQ(qem_file_view(context, again, nullptr, &mapped), QEM_OK);
    EXPECT_EQ(mapped.rows, 1u);
}

TEST_F(AtomicFileTest, SymbolicLinksStayAndTheirTargetIsReplaced)
{
    std::vector<float> values(4, 2.0f);
    qem_view view = view_of(values, 2);
    write_bytes(path("real.npy"), "old");
    ASSERT_EQ(symlink("real.npy", path("link.npy").c_str()), 0);
    ASSERT_EQ(qem_save_npy(context, &view, path("link.npy").c_str()), QEM_OK) << error();
    struct stat info;
    ASSERT_EQ(lstat(path("link.npy").c_str(), &info), 0);
    EXPECT_TRUE(S_ISLNK(info.st_mode));
    EXPECT_GT(read_bytes(path("real.npy")).size(), 16u);
    ASSERT_EQ(symlink("nowhere.npy", path("dangling.npy").c_str()), 0);
    EXPECT_EQ(qem_save_npy(context, &view, path("dangling.npy").c_str()), QEM_ERR_IO);
    EXPECT_EQ(names().size(), 3u);
}

TEST_F(AtomicFileTest, PermissionsFollowTheFileThatIsReplaced)
{
    std::vector<float> values(4, 2.0f);
    qem_view view = view_of(values, 2);
    write_bytes(path("p.npy"), "old");
    ASSERT_EQ(chmod(path("p.npy").c_str(), 0600), 0);
    ASSERT_EQ(qem_save_npy(context, &view, path("p.npy").c_str()), QEM_OK);
    struct stat info;
    ASSERT_EQ(stat(path("p.npy").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

TEST_F(AtomicFileTest, PlacesThatCannotBeWritten)
{
    std::vector<float> values(4, 2.0f);
    qem_view view = view_of(values, 2);
    qem_writer *writer = nullptr;
    write_bytes(path("file"), "x");
    for (const std::string &bad : { path("missing/out.npy"), path("file/out.npy"), directory, directory + "/",
                                    std::string(), path(std::string(300, 'n')) }) {
        EXPECT_EQ(qem_save_npy(context, &view, bad.c_str()), QEM_ERR_IO) << bad;
        EXPECT_FALSE(error().empty());
    }
    EXPECT_EQ(qem_writer_create(context, path("missing/out.safetensors").c_str(), &writer), QEM_ERR_IO)
        << "told before any work is done";
    EXPECT_EQ(writer, nullptr);
    EXPECT_EQ(names(), std::vector<std::string>{ "file" });
    if (geteuid() == 0) return; // root may write everywhere
    ASSERT_EQ(chmod(directory.c_str(), 0555), 0);
    EXPECT_EQ(qem_save_npy(context, &view, path("out.npy").c_str()), QEM_ERR_IO);
    ASSERT_EQ(chmod(directory.c_str(), 0755), 0);
}

TEST_F(AtomicFileTest, OpeningWhatIsNoFile)
{
    EXPECT_EQ(open("missing.npy"), nullptr);
    EXPECT_EQ(status, QEM_ERR_IO);
    EXPECT_NE(error().find("missing.npy: cannot be opened: No such file"), std::string::npos) << error();
    EXPECT_EQ(open("."), nullptr);
    EXPECT_NE(error().find("a directory"), std::string::npos) << error();
    ASSERT_EQ(mkfifo(path("pipe.npy").c_str(), 0600), 0);
    EXPECT_EQ(open("pipe.npy"), nullptr) << "and it must not wait for a writer";
    EXPECT_EQ(status, QEM_ERR_IO);
}

} // namespace
