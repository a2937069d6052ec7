// Damaged artifacts: whatever happens to the bytes, loading gives an error or the same artifact, and never a crash.
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

TEST_F(DamageTest, OutOfMemoryAtEveryAllocation)
{
    ArtifactShape shape;
    shape.intervals = 3;
    shape.codebook = QEM_DTYPE_F16;
    shape.levels = 1;
    saved(shape);
    bool done = false;
    for (int limit = 0; limit < 200 && !done; limit++) {
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

} // namespace
