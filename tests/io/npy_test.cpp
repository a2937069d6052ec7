#include <cstring>

#include "io_test.h"

using namespace qem_test;

namespace {

class NpyTest : public IoTest {
protected:
    void expect_bad(const std::string &bytes, const std::string &part, qem_status expected = QEM_ERR_FORMAT)
    {
        EXPECT_EQ(open_bytes("bad.npy", bytes), nullptr) << part;
        EXPECT_EQ(status, expected) << part;
        EXPECT_NE(error().find(part), std::string::npos) << error() << " lacks " << part;
        EXPECT_NE(error().find("bad.npy"), std::string::npos) << error();
    }

    template <typename T> void round_trip(qem_dtype dtype, const char *descr)
    {
        std::vector<T> values(15);
        for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<T>(i * 7 + 1);
        qem_view view = QEM_VIEW_INIT;
        view.dtype = dtype;
        view.data = values.data();
        view.rows = 3;
        view.cols = 5;
        ASSERT_EQ(qem_save_npy(context, &view, path("m.npy").c_str()), QEM_OK) << error();
        std::string bytes = read_bytes(path("m.npy"));
        EXPECT_NE(bytes.find(descr), std::string::npos);
        EXPECT_EQ((bytes.size() - 15 * sizeof(T)) % 64, 0u);
        qem_file *file = open("m.npy");
        ASSERT_NE(file, nullptr) << error();
        qem_view back = QEM_VIEW_INIT;
        ASSERT_EQ(qem_file_view(context, file, "m", &back), QEM_OK) << error();
        EXPECT_EQ(back.dtype, dtype);
        ASSERT_EQ(back.rows, 3u);
        ASSERT_EQ(back.cols, 5u);
        for (uint64_t i = 0; i < 3; i++)
            for (uint64_t j = 0; j < 5; j++) EXPECT_EQ(element<T>(back, i, j), values[i * 5 + j]);
    }
};

TEST_F(NpyTest, RoundTripsEveryType)
{
    round_trip<float>(QEM_DTYPE_F32, "'<f4'");
    round_trip<double>(QEM_DTYPE_F64, "'<f8'");
    round_trip<uint16_t>(QEM_DTYPE_F16, "'<f2'");
    round_trip<uint8_t>(QEM_DTYPE_U8, "'|u1'");
}

TEST_F(NpyTest, WritesTheBytesOfNumpy)
{
    // numpy.save of numpy.array([[1, 2, 3]], 'f4'), written by numpy 2
    std::string expected("\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }", 69);
    expected.resize(127, ' ');
    const std::vector<float> values{ 1, 2, 3 };
    expected += '\n' + bytes_of(values);
    qem_view view = QEM_VIEW_INIT;
    view.data = values.data();
    view.rows = 1;
    view.cols = 3;
    ASSERT_EQ(qem_save_npy(context, &view, path("n.npy").c_str()), QEM_OK);
    EXPECT_EQ(read_bytes(path("n.npy")), expected);
}

TEST_F(NpyTest, ReadsFortranOrder)
{
    const std::vector<float> values{ 0, 10, 1, 11, 2, 12 };
    const char *header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
    qem_file *file = open_bytes("f.npy", npy(header, bytes_of(values)));
    ASSERT_NE(file, nullptr) << error();
    qem_view view = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
    for (uint64_t i = 0; i < 2; i++)
        for (uint64_t j = 0; j < 3; j++) EXPECT_EQ(element<float>(view, i, j), static_cast<float>(10 * i + j));
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    ASSERT_EQ(qem_file_tensor(file, 0, &info), QEM_OK);
    EXPECT_EQ(info.data, nullptr) << "its bytes are not in row-major order";
    ASSERT_EQ(qem_save_npy(context, &view, path("c.npy").c_str()), QEM_OK);
    qem_file *copy = open("c.npy");
    ASSERT_NE(copy, nullptr);
    qem_view back = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, copy, "c", &back), QEM_OK);
    EXPECT_EQ(back.col_stride, 0u);
    EXPECT_EQ(element<float>(back, 1, 2), 12.0f);
    EXPECT_EQ(element<float>(back, 1, 0), 10.0f);
}

TEST_F(NpyTest, ReadsOtherVersionsSpacingsAndOneDimension)
{
    const std::string data = bytes_of(std::vector<float>{ 1, 2, 3 });
    for (int major = 1; major <= 3; major++) {
        const char *header = "{ \"shape\":(3 ,),'fortran_order':True, 'descr' :'<f4'}";
        qem_file *file = open_bytes("v.npy", npy(header, data, major));
        ASSERT_NE(file, nullptr) << error();
        qem_view view = QEM_VIEW_INIT;
        ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
        EXPECT_EQ(view.rows, 1u);
        EXPECT_EQ(view.cols, 3u);
        EXPECT_EQ(element<float>(view, 0, 2), 3.0f);
        EXPECT_EQ(qem_file_get_kind(file), QEM_FILE_NPY);
    }
    const char *python2 = "{'descr':'<f4','fortran_order':False,'shape':(1L,3L)}";
    ASSERT_NE(open_bytes("l.npy", npy(python2, data)), nullptr) << error();
}

TEST_F(NpyTest, RefusesWhatItCannotRead)
{
    const std::string data(24, '\0');
    expect_bad(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", data), "big-endian");
    expect_bad(npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }", data), "'<i4' is not one of");
    expect_bad(npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", data), "'|O' is not one of");
    expect_bad(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", data), "structured");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", data), "0 dimensions");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }", data), "3 dimensions");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", ""), "empty");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }", data), "truncated: 2 x 4 elements");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", data), "bytes follow the array");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", data), "2^48");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", data), "overflows");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", data), "tuple of numbers");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': 6}", data), "not a tuple");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': maybe, 'shape': (2, 3), }", data), "neither True nor False");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, }", data), "is missing");
    expect_bad(npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", data), "twice");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", data), "unknown key 'x'");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } + 1", data), "text follows");
    expect_bad(npy("{'descr': '<f4", data), "does not end");
    expect_bad(npy("(1, 2)", data), "not a dictionary");
    expect_bad(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", data, 4), "npy format 4.0");
    expect_bad(std::string("\x93NUMPY\x02\x00\xff\xff\xff\x7f", 12) + data, "longer than the limit");
    expect_bad(std::string("\x93NUMPY\x01\x00\xff\xff", 10) + data, "truncated");
    expect_bad("\x93NUMPY", "truncated");
    expect_bad("hello, world", "does not begin with");
    expect_bad("", "empty");
}

TEST_F(NpyTest, SurvivesTruncationAtEveryByte)
{
    std::string whole = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", std::string(24, 'x'));
    for (size_t length = 0; length < whole.size(); length++) {
        EXPECT_EQ(open_bytes("t.npy", whole.substr(0, length)), nullptr) << length;
        EXPECT_FALSE(error().empty());
    }
}

TEST_F(NpyTest, SurvivesAnyFlippedByteInMemory)
{
    std::string whole = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", std::string(24, 'x'));
    for (size_t at = 0; at < whole.size(); at++)
        for (int flip : { 1, 2, 16, 128, 255 }) {
            std::vector<char> bytes(whole.begin(), whole.end()); // exact size, so that ASan sees every step too far
            bytes[at] = static_cast<char>(bytes[at] ^ flip);
            qem_file *file = nullptr;
            if (qem_file_open_memory(context, "m.npy", bytes.data(), bytes.size(), &file) != QEM_OK) continue;
            qem_view view = QEM_VIEW_INIT;
            EXPECT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK);
            EXPECT_LE(view.rows * view.cols * qem_dtype_size(view.dtype), 24u);
            qem_file_close(&file);
        }
}

TEST_F(NpyTest, SavesStridedViewsLargerThanOnePiece)
{
    const uint64_t rows = 300, cols = 1500;
    std::vector<float> values(rows * cols * 2);
    for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<float>(i);
    qem_view view = QEM_VIEW_INIT;
    view.data = values.data();
    for (int form = 0; form < 3; form++) {
        view.rows = form == 2 ? 1 : rows;
        view.cols = form == 2 ? rows * cols : cols;
        view.row_stride = form == 0 ? 2 * cols : form == 1 ? 1 : 0;
        view.col_stride = form == 0 ? 0 : form == 1 ? rows : 2;
        ASSERT_EQ(qem_save_npy(context, &view, path("s.npy").c_str()), QEM_OK);
        qem_file *file = open("s.npy");
        ASSERT_NE(file, nullptr);
        qem_view back = QEM_VIEW_INIT;
        ASSERT_EQ(qem_file_view(context, file, nullptr, &back), QEM_OK);
        uint64_t wrong = 0;
        for (uint64_t i = 0; i < view.rows; i++)
            for (uint64_t j = 0; j < view.cols; j++) wrong += element<float>(back, i, j) != element<float>(view, i, j);
        EXPECT_EQ(wrong, 0u);
    }
}

TEST_F(NpyTest, RefusesBadViews)
{
    float value = 1;
    qem_view view = QEM_VIEW_INIT;
    view.data = &value;
    EXPECT_EQ(qem_save_npy(context, &view, path("x.npy").c_str()), QEM_ERR_ARGUMENT);
    view.rows = view.cols = 1;
    EXPECT_EQ(qem_save_npy(context, nullptr, path("x.npy").c_str()), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_save_npy(context, &view, nullptr), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_save_npy(nullptr, &view, "x"), QEM_ERR_ARGUMENT);
    view.dtype = QEM_DTYPE_BF16;
    EXPECT_EQ(qem_save_npy(context, &view, path("x.npy").c_str()), QEM_ERR_UNSUPPORTED);
    EXPECT_TRUE(list_directory(directory).empty());
}

} // namespace
