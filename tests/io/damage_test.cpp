// Damaged artifacts: whatever happens to the bytes, loading gives an error or the same artifact, and never a crash.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "io_test.h"

using namespace qem_test;

namespace {

class DamageTest : public IoTest {
protected:
    std::string saved(const ArtifactShape &shape)
    {
        qem_artifact *artifact = make(shape);
        expected = fingerprint(artifact);
        EXPECT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK) << error();
        return read_bytes(path("a.safetensors"));
    }

    // Loads from a buffer of exactly that size, so that ASan sees any step beyond it.
    qem_status load(const std::string &bytes)
    {
        std::vector<char> exact(bytes.begin(), bytes.end());
        qem_file *file = nullptr;
        qem_artifact *artifact = nullptr;
        qem_status result = qem_file_open_memory(context, "a.safetensors", exact.data(), exact.size(), &file);
        if (result == QEM_OK) result = qem_file_load(context, file, nullptr, &artifact);
        if (result == QEM_OK) {
            EXPECT_EQ(fingerprint(artifact), expected);
        } else {
            EXPECT_NE(error().find("a.safetensors"), std::string::npos) << error();
        }
        EXPECT_EQ(artifact != nullptr, result == QEM_OK);
        qem_artifact_destroy(&artifact);
        qem_file_close(&file);
        return result;
    }

    void flip_every_byte(const ArtifactShape &shape)
    {
        std::string whole = saved(shape);
        ASSERT_EQ(load(whole), QEM_OK) << error();
        uint64_t header = 0;
        memcpy(&header, whole.data(), 8);
        for (size_t at = 0; at < whole.size(); at++)
            for (int flip : { 1, 4, 32, 128, 255 }) {
                std::string bytes = whole;
                bytes[at] = static_cast<char>(bytes[at] ^ flip);
                qem_status result = load(bytes);
                if (at >= 8 + header) {
                    EXPECT_EQ(result, QEM_ERR_CHECKSUM) << at;
                }
            }
    }

    // The header is replaced from the first to the second text, without any correction of checksums.
    std::string edited(std::string bytes, const std::string &from, const std::string &to)
    {
        uint64_t header = 0;
        memcpy(&header, bytes.data(), 8);
        std::string text = bytes.substr(8, header);
        size_t at = text.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        text.replace(at, from.size(), to);
        return safetensors(text, bytes.substr(8 + header));
    }

    // An artifact's text changed, its own checksum made right again: what a forger would do.
    std::string forged(const std::string &bytes, const std::string &from, const std::string &to)
    {
        uint64_t header = 0;
        json_error_t problem;
        memcpy(&header, bytes.data(), 8);
        json_t *root = json_loadb(bytes.data() + 8, header, 0, &problem);
        json_t *metadata = json_object_get(root, "__metadata__");
        std::string text = json_string_value(json_object_get(metadata, "qem.artifact.w"));
        text = "{" + text.substr(QEM_IO_SELF_PREFIX_BYTES + QEM_IO_HEX_BYTES + 2);
        size_t at = text.find(from);
        EXPECT_NE(at, std::string::npos) << from << " in " << text;
        text.replace(at, from.size(), to);
        char hex[QEM_IO_HEX_BYTES + 1];
        qem_checksum(text.data(), text.size(), hex);
        text = std::string(QEM_IO_SELF_PREFIX) + hex + "\"," + text.substr(1);
        json_object_set_new(metadata, "qem.artifact.w", json_string(text.c_str()));
        char *dumped = json_dumps(root, JSON_COMPACT);
        std::string result = safetensors(dumped, bytes.substr(8 + header));
        free(dumped);
        json_decref(root);
        return result;
    }

    void expect_forgery(const std::string &whole, const std::string &from, const std::string &to,
                        const std::string &part)
    {
        EXPECT_EQ(load(forged(whole, from, to)), QEM_ERR_FORMAT) << to;
        EXPECT_NE(error().find(part), std::string::npos) << error() << " lacks " << part;
    }

    void run_out_of_memory(const ArtifactShape &shape);

    std::string expected;
};

TEST_F(DamageTest, EveryFlippedByte)
{
    ArtifactShape shape;
    shape.rows = 3;
    shape.cols = 6;
    shape.k = 3;
    shape.levels = 1;
    flip_every_byte(shape);
    shape.kind = QEM_CODEBOOK_UNIFORM;
    shape.dim = 1;
    flip_every_byte(shape);
}

TEST_F(DamageTest, EveryFlippedByteWithCellsAndHalfCodebook)
{
    ArtifactShape shape;
    shape.rows = 3;
    shape.intervals = 3;
    shape.codebook = QEM_DTYPE_F16;
    flip_every_byte(shape);
}

TEST_F(DamageTest, FlippedBytesOfFormat2)
{
    std::vector<ArtifactShape> shapes = shapes_of_format_2();
    for (size_t i : { 3, 10, 11 }) { // group widths; cells and integer codebooks; steps, ranges, outliers and residuals
        shapes[i].rows = 4;
        shapes[i].cols = 3;
        shapes[i].dim = 2;
        flip_every_byte(shapes[i]);
    }
}

TEST_F(DamageTest, TruncatedFormat2)
{
    std::string whole = saved(shapes_of_format_2()[11]);
    for (size_t length = 0; length < whole.size(); length += 3) EXPECT_EQ(load(whole.substr(0, length)), QEM_ERR_FORMAT);
}

TEST_F(DamageTest, ForgedNumbersOfFormat2AreRefused)
{
    std::vector<ArtifactShape> shapes = shapes_of_format_2();
    std::string whole = saved(shapes[11]);
    expect_forgery(whole, "\"stage_first\":0", "\"stage_first\":1", "'stage_first' is 1");
    expect_forgery(whole, "\"stage_count\":2", "\"stage_count\":3", "'stage_first' is 2");
    expect_forgery(whole, "\"stage_count\":2", "\"stage_count\":1", "'stage_first' is 2");
    expect_forgery(whole, "\"stage_count\":2", "\"stage_count\":0", "'stage_count' is 0");
    expect_forgery(whole, "\"stage_count\":2", "\"stage_count\":5", "'stage_count' is 5");
    expect_forgery(whole, "\"layers\":[", "\"layers\":[],\"old\":[", "0 layers");
    expect_forgery(whole, "\"layers\":[", "\"layers\":[1,", "layer 0 is no object");
    expect_forgery(whole, "\"layers\":[", "\"old\":[", "it has 27 parts, of which this version of qem knows 11");
    expect_forgery(whole, "\"axis\":\"row\"", "\"axis\":\"tensor\"", "two steps of axis tensor");
    expect_forgery(whole, "\"axis\":\"row\"", "\"axis\":\"diagonal\"", "'axis' is 'diagonal'");
    expect_forgery(whole, "\"axis\":\"row\"", "\"axis\":\"block\"", "lacks the key 'block'");
    expect_forgery(whole, "\"axis\":\"row\"", "\"axis\":\"block\",\"block\":0", "'block' is 0");
    expect_forgery(whole, "\"axis\":\"row\"", "\"axis\":\"block\",\"block\":65536", "'block' is 65536");
    expect_forgery(whole, "\"params\":4", "\"params\":5", "its shape asks for");
    expect_forgery(whole, "\"params\":4", "\"params\":9", "have 9 bits");
    expect_forgery(whole, "\"params\":4", "\"params\":3", "'params' is 3");
    expect_forgery(whole, "\"mean\":false,\"params\":4,\"scale\":true", "\"mean\":false,\"params\":4,\"scale\":false",
                   "neither scale nor mean");
    expect_forgery(whole, "\"mean\":false,\"params\":4", "\"mean\":true,\"params\":4", "'row_mean' is missing");
    expect_forgery(whole, "\"mean\":false,\"params\":4", "\"mean\":1,\"params\":4", "not true or false");
    expect_forgery(whole, "\"steps\":[", "\"steps\":[{},", "more than 3");
    expect_forgery(whole, "\"row_begin\":3", "\"row_begin\":2", "its shape asks for");
    expect_forgery(whole, "\"row_begin\":3", "\"row_begin\":11", "'row_begin' is 11");
    expect_forgery(whole, "\"row_end\":11", "\"row_end\":3", "'row_end' is 3");
    expect_forgery(whole, "\"row_end\":11", "\"row_end\":12", "'row_end' is 12");
    expect_forgery(whole, "\"count\":3,\"value_dtype\"", "\"count\":4,\"value_dtype\"", "its shape asks for");
    expect_forgery(whole, "\"count\":3,\"value_dtype\"", "\"count\":0,\"value_dtype\"", "'count' is 0");
    expect_forgery(whole, "\"count\":3,\"value_dtype\"", "\"count\":18446744073709551615,\"value_dtype\"", "");
    expect_forgery(whole, "\"value_dtype\":\"f32\"", "\"value_dtype\":\"u32\"", "cannot be of type u32");
    expect_forgery(whole, "\"standardize\":\"row\"", "\"standardize\":\"rows\"", "'standardize' is 'rows'");
    expect_forgery(whole, "\"method\":\"nf\"", "\"method\":\"zz\"", "unknown method 'zz'");
    expect_forgery(whole, "\"residual\":{", "\"residual\":7,\"old\":{", "not an object");
    whole = saved(shapes[10]);
    expect_forgery(whole, "\"cells\":3", "\"cells\":4", "its shape asks for");
    expect_forgery(whole, "\"cells\":3", "\"cells\":257", "'cells' is 257");
    expect_forgery(whole, "\"cells\":3", "\"cells\":0", "its shape asks for");
    expect_forgery(whole, "\"codebook_bits\":7", "\"codebook_bits\":8", "its shape asks for");
    expect_forgery(whole, "\"codebook_bits\":7", "\"codebook_bits\":13", "'codebook_bits' is 13");
    expect_forgery(whole, "\"codebook_bits\":7,", "", "cannot be of type u8");
    expect_forgery(whole, "\"codebook\":\"u8\"", "\"codebook\":\"f32\"", "cannot be of type f32");
    expect_forgery(whole, "\"group_bits\":true", "\"group_bits\":2", "not true or false");
    expect_forgery(whole, "\"code_bits\":3", "\"code_bits\":2", "do not fit");
    expect_forgery(whole, "\"cols\":8", "\"cols\":4294967296000", "");
    whole = saved(shapes[8]);
    expect_forgery(whole, "\"table\":\"uniform\"", "\"table\":\"magic\"", "'table' is 'magic'");
    expect_forgery(whole, "\"table\":\"uniform\"", "\"table\":\"nf\"", "no table of 2 levels");
}

// Shapes whose sizes wrap round in 64 bits, to just as many bytes as the file has.
TEST_F(DamageTest, SizesThatOverflowAreRefused)
{
    ArtifactShape shape;
    shape.rows = 1;
    shape.cols = 2;
    shape.dim = 2;
    shape.k = 1;
    shape.kind = QEM_CODEBOOK_PER_GROUP;
    shape.cells = 1;
    std::string whole = saved(shape);
    expect_forgery(whole, "\"cols\":2", "\"cols\":140737488355328", "overflows 64 bits");
    shape.cells = 2;
    whole = saved(shape);
    expect_forgery(forged(whole, "\"k\":1,\"kind\"", "\"k\":16777216,\"kind\""), "\"code_bits\":0", "\"code_bits\":24", "");
    std::string wide = forged(whole, "\"cols\":2", "\"cols\":68719476736");
    wide = forged(wide, "\"k\":1,\"kind\"", "\"k\":16777216,\"kind\"");
    expect_forgery(wide, "\"code_bits\":0", "\"code_bits\":24", "overflows 64 bits");
}

TEST_F(DamageTest, ContentsOfFormat2AreChecked)
{
    std::vector<ArtifactShape> shapes = shapes_of_format_2();
    qem_artifact *artifact = make(shapes[6]);
    static_cast<uint32_t *>(artifact->outliers.index)[1] = 0;
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    EXPECT_EQ(load(read_bytes(path("a.safetensors"))), QEM_ERR_FORMAT) << "indices that do not ascend";
    artifact = make(shapes[3]);
    artifact->stages[0].group_bits[1] = 5;
    EXPECT_EQ(qem_artifact_check(context, artifact, "a"), QEM_ERR_FORMAT);
    artifact = make(shapes[5]);
    artifact->stages[0].row_cells[0] |= 3;
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    EXPECT_EQ(load(read_bytes(path("a.safetensors"))), QEM_ERR_FORMAT) << "cell 3 of 0 .. 2";
    artifact = make(shapes[4]);
    artifact->stages[0].rotation[7] = NAN;
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    EXPECT_EQ(load(read_bytes(path("a.safetensors"))), QEM_ERR_FORMAT) << "a rotation that is not finite";
}

TEST_F(DamageTest, EveryTruncation)
{
    ArtifactShape shape;
    shape.stages = 2;
    std::string whole = saved(shape);
    for (size_t length = 0; length < whole.size(); length++) EXPECT_EQ(load(whole.substr(0, length)), QEM_ERR_FORMAT);
    EXPECT_EQ(load(whole + "x"), QEM_ERR_FORMAT);
}

TEST_F(DamageTest, VersionsAndMissingKeys)
{
    std::string whole = saved(ArtifactShape());
    EXPECT_EQ(load(edited(whole, "\"qem.version\":\"1\"", "\"qem.version\":\"3\"")), QEM_ERR_FORMAT);
    EXPECT_NE(error().find("written in qem format 3"), std::string::npos) << error();
    EXPECT_EQ(load(edited(whole, "\"qem.version\":\"1\"", "\"qem.version\":\"x\"")), QEM_ERR_FORMAT);
    EXPECT_EQ(load(edited(whole, "\"qem.version\":\"1\",", "")), QEM_ERR_FORMAT);
    EXPECT_NE(error().find("lacks the key 'qem.version'"), std::string::npos) << error();
    EXPECT_EQ(load(edited(whole, "qem.artifact.w", "qem.artifact.x")), QEM_ERR_FORMAT);
    EXPECT_EQ(load(edited(whole, "qem.artifact.w", "other.thing.w")), QEM_ERR_NOT_FOUND);
    EXPECT_EQ(load(edited(whole, "\"w.codes\"", "\"x.codes\"")), QEM_ERR_FORMAT);
    EXPECT_NE(error().find("its tensor 'codes' is missing"), std::string::npos) << error();
    for (const char *key : { "rows", "cols", "stages", "cells", "recipe", "seed", "method", "metrics", "name", "kind",
                             "code_bits", "intervals", "source_dtype", "budget_bytes", "tolerance", "mse" }) {
        std::string from = std::string("\"") + key + "\":";
        expect_forgery(whole, from, std::string("\"no_") + key + "\":", std::string("lacks the key '") + key + "'");
    }
}

TEST_F(DamageTest, UnknownKeysAreIgnored)
{
    std::string whole = saved(ArtifactShape());
    EXPECT_EQ(load(forged(whole, "\"rows\":5", "\"a_new_key\":[1,{\"x\":null}],\"rows\":5")), QEM_OK) << error();
    EXPECT_EQ(load(edited(whole, "\"qem.version\":\"1\"", "\"qem.version\":\"1\",\"format\":\"pt\"")), QEM_OK);
}

TEST_F(DamageTest, ForgedNumbersAreRefused)
{
    ArtifactShape shape;
    shape.intervals = 3;
    std::string whole = saved(shape);
    expect_forgery(whole, "\"rows\":5", "\"rows\":0", "'rows' is 0");
    expect_forgery(whole, "\"rows\":5", "\"rows\":6", "its shape asks for");
    expect_forgery(whole, "\"rows\":5", "\"rows\":281474976710655", "2^48");
    expect_forgery(whole, "\"rows\":5", "\"rows\":-5", "not a whole number");
    expect_forgery(whole, "\"rows\":5", "\"rows\":\"18446744073709551616\"", "not a whole number");
    expect_forgery(whole, "\"rows\":5", "\"rows\":5.0", "not a whole number");
    expect_forgery(whole, "\"cols\":10", "\"cols\":12345678", "its shape asks for");
    expect_forgery(whole, "\"k\":7,\"kind\"", "\"k\":8,\"kind\"", "its shape asks for");
    expect_forgery(whole, "\"k\":7,\"kind\"", "\"k\":5,\"kind\"", "its shape asks for");
    expect_forgery(whole, "\"k\":7,\"kind\"", "\"k\":9,\"kind\"", "codes of 3 bits do not fit");
    expect_forgery(whole, "\"k\":7,\"kind\"", "\"k\":16777217,\"kind\"", "'k' is 16777217");
    expect_forgery(whole, "\"dim\":4,\"k\":7", "\"dim\":65535,\"k\":7", "its shape asks for");
    expect_forgery(whole, "\"kind\":\"shared\"", "\"kind\":\"per_group\"", "its shape asks for");
    expect_forgery(whole, "\"kind\":\"shared\"", "\"kind\":\"magic\"", "unknown kind of codebook 'magic'");
    expect_forgery(whole, "\"shared\",\"levels\":0", "\"shared\",\"levels\":1", "'swap_map' is missing");
    expect_forgery(whole, "\"method\":\"pq\"", "\"method\":\"zz\"", "unknown method 'zz'");
    expect_forgery(whole, "\"name\":\"w\"", "\"name\":\"v\"", "its metadata are those of 'v'");
    expect_forgery(whole, "\"stages\":[", "\"stages\":[],\"old\":[", "0 stages");
    expect_forgery(whole, "\"first\":[0,1,4,7]", "\"first\":[0,1,4,6]", "do not cover");
    expect_forgery(whole, "\"first\":[0,1,4,7]", "\"first\":[0,4,1,7]", "does not ascend");
    expect_forgery(whole, "\"first\":[0,1,4,7]", "\"first\":[0,1,7]", "has 3 numbers, not 4");
    expect_forgery(whole, "\"ids\":[0,3,7]", "\"ids\":[0,3,81]", "do not cover");
    expect_forgery(whole, "\"ids\":[0,3,7]", "\"ids\":[0,3,16777217]", "up to 2^24");
    expect_forgery(whole, "\"cuts\":[", "\"cuts\":[1e300,", "cuts are there");
    expect_forgery(whole, "\"intervals\":3", "\"intervals\":255", "do not fit the codebook");
    EXPECT_EQ(load(forged(whole, "\"codes\":\"", "\"codes\":\"0")), QEM_ERR_CHECKSUM);
    expect_forgery(whole, "\"xxh3\":{", "\"xxh3\":{\"rotation\":\"0123456789abcdef\",",
                   "its tensor 'rotation' is missing");
}

TEST_F(DamageTest, ChecksumErrorsNameFileAndTensor)
{
    std::string whole = saved(ArtifactShape());
    whole.back() = static_cast<char>(whole.back() ^ 1);
    EXPECT_EQ(load(whole), QEM_ERR_CHECKSUM);
    EXPECT_EQ(error(), "a.safetensors: artifact 'w': the bytes of its tensor 'codes' do not match their checksum");
}

TEST_F(DamageTest, CodesBeyondTheCodebookAreRefused)
{
    ArtifactShape shape;
    qem_artifact *artifact = make(shape);
    artifact->stages[0].codes[0] |= 7; // code 7 of 0 .. 6
    ASSERT_EQ(qem_save(context, artifact, path("a.safetensors").c_str()), QEM_OK);
    EXPECT_EQ(load(read_bytes(path("a.safetensors"))), QEM_ERR_FORMAT);
}

struct Failing {
    int left;
    int live;
};

void *failing_allocate(void *user, size_t bytes)
{
    Failing *failing = static_cast<Failing *>(user);
    if (failing->left-- <= 0) return nullptr;
    failing->live++;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

void failing_release(void *user, void *pointer)
{
    static_cast<Failing *>(user)->live--;
    free(pointer);
}

void DamageTest::run_out_of_memory(const ArtifactShape &shape)
{
    saved(shape);
    bool done = false;
    for (int limit = 0; limit < 400 && !done; limit++) {
        Failing failing = { 1000, 0 };
        qem_context_params params = QEM_CONTEXT_PARAMS_INIT;
        params.threads = 1;
        params.allocator = { failing_allocate, failing_release, &failing };
        qem_context *poor = nullptr;
        ASSERT_EQ(qem_context_create(&params, &poor), QEM_OK);
        int before = failing.live;
        failing.left = limit;
        qem_artifact *artifact = nullptr;
        qem_status result = qem_load(poor, path("a.safetensors").c_str(), &artifact);
        if (result == QEM_OK) result = qem_save(poor, artifact, path("b.safetensors").c_str());
        done = result == QEM_OK;
        if (!done) {
            EXPECT_EQ(result, QEM_ERR_MEMORY) << qem_last_error(poor);
        }
        qem_artifact_destroy(&artifact);
        EXPECT_EQ(failing.live, before) << "a leak when allocation " << limit << " fails";
        failing.left = 1000;
        qem_context_destroy(&poor);
        EXPECT_EQ(list_directory(directory).size(), done ? 2u : 1u);
    }
    EXPECT_TRUE(done);
}

TEST_F(DamageTest, OutOfMemoryAtEveryAllocation)
{
    ArtifactShape shape;
    shape.intervals = 3;
    shape.codebook = QEM_DTYPE_F16;
    shape.levels = 1;
    run_out_of_memory(shape);
}

TEST_F(DamageTest, OutOfMemoryAtEveryAllocationOfFormat2)
{
    for (size_t i : { 10, 12 }) {
        run_out_of_memory(shapes_of_format_2()[i]);
        std::remove(path("b.safetensors").c_str());
    }
}

} // namespace
