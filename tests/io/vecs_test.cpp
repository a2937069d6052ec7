#include "io_test.h"

using namespace qem_test;

namespace {

template <typename T> std::string vecs(const std::vector<std::vector<T>> &rows)
{
    std::string bytes;
    for (const auto &row : rows) {
        int32_t d = static_cast<int32_t>(row.size());
        bytes += std::string(reinterpret_cast<const char *>(&d), 4) + bytes_of(row);
    }
    return bytes;
}

class VecsTest : public IoTest {};

TEST_F(VecsTest, ReadsFvecs)
{
    qem_file *file = open_bytes("base.fvecs", vecs<float>({ { 1, 2, 3 }, { 4, 5, 6 } }));
    ASSERT_NE(file, nullptr) << error();
    EXPECT_EQ(qem_file_get_kind(file), QEM_FILE_FVECS);
    qem_view view = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, "base", &view), QEM_OK);
    EXPECT_EQ(view.dtype, QEM_DTYPE_F32);
    EXPECT_EQ(view.rows, 2u);
    EXPECT_EQ(view.cols, 3u);
    EXPECT_EQ(view.row_pitch_bytes, 16u);
    EXPECT_EQ(element<float>(view, 1, 2), 6.0f);
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    ASSERT_EQ(qem_file_tensor(file, 0, &info), QEM_OK);
    EXPECT_STREQ(info.name, "base");
    EXPECT_EQ(info.data, nullptr);
    EXPECT_EQ(info.bytes, 24u);
    EXPECT_EQ(qem_file_tensor(file, 1, &info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_file_view(context, file, "other", &view), QEM_ERR_NOT_FOUND);
    EXPECT_NE(error().find("'base'"), std::string::npos) << error();
}

TEST_F(VecsTest, ReadsBvecsWhosePitchIsOdd)
{
    qem_file *file = open_bytes("b.bvecs", vecs<uint8_t>({ { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 255 } }));
    ASSERT_NE(file, nullptr) << error();
    qem_view view = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
    EXPECT_EQ(view.dtype, QEM_DTYPE_U8);
    EXPECT_EQ(view.row_pitch_bytes, 7u);
    EXPECT_EQ(element<uint8_t>(view, 2, 2), 255);
    ASSERT_EQ(qem_save_npy(context, &view, path("b.npy").c_str()), QEM_OK);
    qem_file *copy = open("b.npy");
    ASSERT_NE(copy, nullptr);
    ASSERT_EQ(qem_file_view(context, copy, nullptr, &view), QEM_OK);
    EXPECT_EQ(element<uint8_t>(view, 1, 0), 4);
}

TEST_F(VecsTest, RefusesRowsThatDisagreeAndTruncation)
{
    std::string bytes = vecs<float>({ { 1, 2, 3 }, { 4, 5, 6 } });
    std::string other = bytes;
    other[16] = 4;
    EXPECT_EQ(open_bytes("x.fvecs", other), nullptr);
    EXPECT_EQ(status, QEM_ERR_FORMAT);
    EXPECT_NE(error().find("row 1 says it has 4 elements, row 0 has 3"), std::string::npos) << error();
    for (size_t length = 0; length < bytes.size(); length++) {
        if (length == 16) continue; // one whole row: nothing in the format could tell
        EXPECT_EQ(open_bytes("x.fvecs", bytes.substr(0, length)), nullptr) << length;
        EXPECT_EQ(status, QEM_ERR_FORMAT);
    }
    for (int32_t d : { 0, -1, INT32_MIN, INT32_MAX }) {
        other = std::string(reinterpret_cast<const char *>(&d), 4) + bytes.substr(4);
        EXPECT_EQ(open_bytes("x.fvecs", other), nullptr) << d;
    }
}

} // namespace
