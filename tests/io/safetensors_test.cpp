#include <cstring>

#include "io_test.h"

using namespace qem_test;

namespace {

class SafetensorsTest : public IoTest {
protected:
    void expect_bad(const std::string &header, const std::string &data, const std::string &part)
    {
        EXPECT_EQ(open_bytes("bad.safetensors", safetensors(header, data)), nullptr) << header;
        EXPECT_EQ(status, QEM_ERR_FORMAT) << header;
        EXPECT_NE(error().find(part), std::string::npos) << error() << " lacks " << part;
        EXPECT_NE(error().find("bad.safetensors"), std::string::npos) << error();
        EXPECT_EQ(error().find('\n'), std::string::npos) << error();
    }
};

std::string entry(const std::string &name, const std::string &type, const std::string &shape, int begin, int end)
{
    return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
}

TEST_F(SafetensorsTest, ListsAndViews)
{
    std::string header = "{" + entry("z", "F32", "2,2", 0, 16) + "," + entry("a", "BF16", "3", 16, 22) + "," +
                         entry("scalar", "I64", "", 22, 30) + "," + entry("none", "U8", "0,7", 30, 30) + "}   ";
    std::string data = bytes_of(std::vector<float>{ 1, 2, 3, 4 }) + std::string(14, '\0');
    qem_file *file = open_bytes("m.safetensors", safetensors(header, data));
    ASSERT_NE(file, nullptr) << error();
    EXPECT_EQ(qem_file_get_kind(file), QEM_FILE_SAFETENSORS);
    ASSERT_EQ(qem_file_tensor_count(file), 4u);
    EXPECT_EQ(qem_file_artifact_count(file), 0u);
    EXPECT_EQ(qem_file_artifact_name(file, 0), nullptr);
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    ASSERT_EQ(qem_file_tensor(file, 2, &info), QEM_OK);
    EXPECT_STREQ(info.name, "scalar");
    EXPECT_EQ(info.rank, 0u);
    EXPECT_EQ(info.bytes, 8u);
    EXPECT_EQ(info.dtype, QEM_DTYPE_I64);
    qem_view view = QEM_VIEW_INIT;
    EXPECT_EQ(qem_file_view(context, file, "a", &view), QEM_ERR_FORMAT);
    EXPECT_EQ(qem_file_view(context, file, "none", &view), QEM_ERR_FORMAT);
    ASSERT_EQ(qem_file_view(context, file, "z", &view), QEM_OK) << error();
    EXPECT_EQ(element<float>(view, 1, 0), 3.0f);
    EXPECT_EQ(qem_file_view(context, file, "b", &view), QEM_ERR_NOT_FOUND);
    EXPECT_NE(error().find("'z', 'a', 'scalar', 'none'"), std::string::npos) << error();
    qem_artifact *artifact = nullptr;
    EXPECT_EQ(qem_file_load(context, file, nullptr, &artifact), QEM_ERR_NOT_FOUND);
}

TEST_F(SafetensorsTest, NullNameMeansTheOnlyMatrix)
{
    std::string header = "{" + entry("w", "F16", "1,2", 0, 4) + "," + entry("b", "F16", "2", 4, 8) + "}";
    qem_view view = QEM_VIEW_INIT;
    qem_file *file = open_bytes("one.safetensors", safetensors(header, std::string(8, 0)));
    ASSERT_NE(file, nullptr) << error();
    ASSERT_EQ(qem_file_view(context, file, nullptr, &view), QEM_OK) << error();
    EXPECT_EQ(view.dtype, QEM_DTYPE_F16);

    header = "{";
    for (int i = 0; i < 8; i++) header += (i ? "," : "") + entry("w" + std::to_string(i), "U8", "1,1", i, i + 1);
    file = open_bytes("many.safetensors", safetensors(header + "}", std::string(8, 0)));
    ASSERT_NE(file, nullptr) << error();
    EXPECT_EQ(qem_file_view(context, file, nullptr, &view), QEM_ERR_NOT_FOUND);
    EXPECT_NE(error().find("8 matrices, name one of them: 'w0', 'w1', 'w2', 'w3', 'w4' and 3 more"), std::string::npos)
        << error();
}

TEST_F(SafetensorsTest, RefusesAbsurdHeaders)
{
    const std::string data(16, '\0');
    expect_bad("{" + entry("w", "F32", "2,2", 0, 8192) + "}", data,
               "tensor 'w': data_offsets [0,8192] lie outside the 16 data bytes");
    expect_bad("{" + entry("w", "F32", "2,2", 16, 0) + "}", data, "lie outside");
    expect_bad("{" + entry("w", "F32", "2,2", -16, 0) + "}", data, "lie outside");
    expect_bad("{" + entry("w", "F32", "2,3", 0, 16) + "}", data, "need 24 bytes, data_offsets give 16");
    expect_bad("{" + entry("w", "F4", "2,2", 0, 16) + "}", data, "unknown dtype 'F4'");
    expect_bad("{" + entry("w", "F32", "1,1,1,1,1,1,1,2,2", 0, 16) + "}", data, "9 dimensions");
    expect_bad("{" + entry("w", "F32", "4611686018427387904,4", 0, 16) + "}", data, "overflows");
    expect_bad("{" + entry("w", "F32", "99999999999999999999", 0, 16) + "}", data, "not valid JSON");
    expect_bad("{" + entry("w", "F32", "-4,-1", 0, 16) + "}", data, "no length");
    expect_bad("{" + entry("w", "F32", "2.0,2", 0, 16) + "}", data, "no length");
    expect_bad("{" + entry("a", "F32", "2", 0, 8) + "," + entry("b", "F32", "3", 4, 16) + "}", data, "overlap");
    expect_bad("{" + entry("a", "F32", "1", 0, 4) + "," + entry("b", "F32", "2", 8, 16) + "}", data,
               "tensor 'b': 4 bytes before its data belong to no tensor");
    expect_bad("{" + entry("a", "F32", "3", 0, 12) + "}", data, "4 bytes at the end belong to no tensor");
    expect_bad("{" + entry("a", "F32", "2", 0, 8) + "," + entry("a", "F32", "2", 8, 16) + "}", data, "duplicate");
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"shape\":[4]}}", data, "data_offsets is missing");
    expect_bad("{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", data, "shape is missing");
    expect_bad("{\"w\":{\"shape\":[4],\"data_offsets\":[0,16]}}", data, "dtype is missing");
    expect_bad("{\"w\":7}", data, "no object");
    expect_bad("{\"__metadata__\":{\"a\":1}}", "", "the value of 'a' is no string");
    expect_bad("{\"__metadata__\":[]}", "", "__metadata__ is no object");
    expect_bad("{\"w\n\":7}", data, "not valid JSON");
    expect_bad("{\"w\\n\":7}", data, "tensor 'w?'");
    expect_bad("{} x", "", "not valid JSON");
    expect_bad("{" + std::string(5000, '['), "", "not valid JSON");
    std::string deep = "{\"w\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
    expect_bad(deep, "", "not valid JSON");
}

TEST_F(SafetensorsTest, RefusesAbsurdLengths)
{
    for (uint64_t length : { uint64_t(3), uint64_t(100), uint64_t(100000001), uint64_t(INT64_MAX), UINT64_MAX }) {
        std::string bytes = std::string(reinterpret_cast<const char *>(&length), 8) + "{}";
        EXPECT_EQ(open_bytes("l.safetensors", bytes), nullptr) << length;
        EXPECT_EQ(status, QEM_ERR_FORMAT);
    }
    EXPECT_EQ(open_bytes("l.safetensors", std::string(8, 0)), nullptr);
    EXPECT_NE(error().find("no header that begins with '{'"), std::string::npos) << error();
    EXPECT_EQ(open_bytes("l.bin", "what is this"), nullptr);
    EXPECT_NE(error().find("neither its content nor its extension"), std::string::npos) << error();
}

TEST_F(SafetensorsTest, TruncationAtEveryByteIsAnError)
{
    std::string whole = safetensors("{" + entry("w", "F32", "2,2", 0, 16) + "} ", std::string(16, 'x'));
    for (size_t length = 0; length < whole.size(); length++) {
        std::vector<char> bytes(whole.begin(), whole.begin() + static_cast<long>(length));
        qem_file *file = nullptr;
        EXPECT_EQ(qem_file_open_memory(context, "t.safetensors", bytes.data(), bytes.size(), &file), QEM_ERR_FORMAT);
        EXPECT_EQ(file, nullptr);
    }
}

TEST_F(SafetensorsTest, PassesTensorsThroughUnchanged)
{
    const double f64 = 3.5;
    const uint8_t u8[3] = { 1, 2, 3 };
    const float f32[6] = { 1, 2, 3, 4, 5, 6 };
    qem_writer *writer = nullptr;
    ASSERT_EQ(qem_writer_create(context, path("p.safetensors").c_str(), &writer), QEM_OK) << error();
    qem_tensor_info info = QEM_TENSOR_INFO_INIT;
    auto add = [&](const char *name, qem_dtype dtype, std::vector<uint64_t> shape, const void *data, uint64_t bytes) {
        info.name = name;
        info.dtype = dtype;
        info.rank = static_cast<uint32_t>(shape.size());
        for (size_t i = 0; i < shape.size(); i++) info.shape[i] = shape[i];
        info.data = data;
        info.bytes = bytes;
        return qem_writer_add_tensor(context, writer, &info);
    };
    ASSERT_EQ(add("bytes", QEM_DTYPE_U8, { 3 }, u8, 3), QEM_OK);
    ASSERT_EQ(add("\xc3\xa4 \"quoted\"", QEM_DTYPE_F32, { 2, 3 }, f32, 24), QEM_OK);
    ASSERT_EQ(add("scalar", QEM_DTYPE_F64, {}, &f64, 8), QEM_OK);
    ASSERT_EQ(add("nothing", QEM_DTYPE_F16, { 0, 5 }, nullptr, 0), QEM_OK);
    EXPECT_EQ(add("bytes", QEM_DTYPE_U8, { 3 }, u8, 3), QEM_ERR_CLASH);
    EXPECT_EQ(add("__metadata__", QEM_DTYPE_U8, { 3 }, u8, 3), QEM_ERR_CLASH);
    EXPECT_EQ(add("wrong", QEM_DTYPE_U8, { 4 }, u8, 3), QEM_ERR_ARGUMENT);
    EXPECT_EQ(add("wrong", QEM_DTYPE_U8, { UINT64_MAX, 2 }, u8, 3), QEM_ERR_ARGUMENT);
    EXPECT_EQ(add("wrong", QEM_DTYPE_U8, { 3 }, nullptr, 3), QEM_ERR_ARGUMENT);
    EXPECT_EQ(add("wrong", QEM_DTYPE_NONE, { 3 }, u8, 3), QEM_ERR_ARGUMENT);
    EXPECT_EQ(add("", QEM_DTYPE_U8, { 3 }, u8, 3), QEM_ERR_ARGUMENT);
    EXPECT_EQ(add("\xff\xfe", QEM_DTYPE_U8, { 3 }, u8, 3), QEM_ERR_ARGUMENT);
    EXPECT_FALSE(list_directory(directory).size()) << "nothing is written before commit";
    ASSERT_EQ(qem_writer_commit(context, &writer), QEM_OK) << error();
    EXPECT_EQ(writer, nullptr);

    qem_file *file = open("p.safetensors");
    ASSERT_NE(file, nullptr) << error();
    ASSERT_EQ(qem_file_tensor_count(file), 4u);
    const char *order[] = { "scalar", "\xc3\xa4 \"quoted\"", "nothing", "bytes" };
    const void *values[] = { &f64, f32, nullptr, u8 };
    const char *base = nullptr;
    for (uint32_t i = 0; i < 4; i++) {
        qem_tensor_info back = QEM_TENSOR_INFO_INIT;
        ASSERT_EQ(qem_file_tensor(file, i, &back), QEM_OK);
        EXPECT_STREQ(back.name, order[i]);
        EXPECT_EQ(back.of_artifact, 0);
        if (back.bytes) {
            EXPECT_EQ(memcmp(back.data, values[i], back.bytes), 0);
        }
        if (i == 0) base = static_cast<const char *>(back.data);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(back.data) % qem_dtype_size(back.dtype), 0u);
    }
    EXPECT_EQ(reinterpret_cast<uintptr_t>(base) % 64, 0u) << "the mapping is page-aligned, the data begin at 64";
}

TEST_F(SafetensorsTest, ManyTensorsGrowTheWriter)
{
    std::vector<float> values(2000);
    qem_writer *writer = nullptr;
    ASSERT_EQ(qem_writer_create(context, path("g.safetensors").c_str(), &writer), QEM_OK);
    for (int i = 0; i < 2000; i++) {
        std::string name = "t" + std::to_string(i);
        values[i] = static_cast<float>(i);
        qem_tensor_info info = QEM_TENSOR_INFO_INIT;
        info.name = name.c_str(); // gone before commit: the writer keeps its own copy
        info.dtype = QEM_DTYPE_F32;
        info.rank = 2;
        info.shape[0] = info.shape[1] = 1;
        info.data = &values[i];
        info.bytes = 4;
        ASSERT_EQ(qem_writer_add_tensor(context, writer, &info), QEM_OK);
    }
    ASSERT_EQ(qem_writer_commit(context, &writer), QEM_OK);
    qem_file *file = open("g.safetensors");
    ASSERT_NE(file, nullptr);
    qem_view view = QEM_VIEW_INIT;
    ASSERT_EQ(qem_file_view(context, file, "t1234", &view), QEM_OK);
    EXPECT_EQ(element<float>(view, 0, 0), 1234.0f);
}

} // namespace
