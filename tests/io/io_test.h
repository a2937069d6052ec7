// What the tests of src/io share: a directory of their own, files from bytes, artifacts made by hand.
#ifndef QEM_TESTS_IO_TEST_H
#define QEM_TESTS_IO_TEST_H

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "core/artifact.h"
#include "core/context.h"
#include "io/io.h"
}

namespace qem_test {

std::string read_bytes(const std::string &path);
void write_bytes(const std::string &path, const std::string &bytes);
std::vector<std::string> list_directory(const std::string &path);

// 8 bytes of length, the header as given, the data.
std::string safetensors(const std::string &header, const std::string &data);
// A complete .npy file of version `major`; the header is not padded.
std::string npy(const std::string &dictionary, const std::string &data, int major = 1);

template <typename T> std::string bytes_of(const std::vector<T> &values)
{
    return std::string(reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T));
}

// The element (i,j) of a view, found as the header of the library defines it.
template <typename T> T element(const qem_view &view, uint64_t i, uint64_t j)
{
    T value;
    uint64_t row = (view.row_stride ? view.row_stride : view.cols) * sizeof(T);
    if (view.row_pitch_bytes) row = view.row_pitch_bytes;
    uint64_t col = (view.col_stride ? view.col_stride : 1) * sizeof(T);
    memcpy(&value, static_cast<const char *>(view.data) + i * row + j * col, sizeof value);
    return value;
}

struct StepShape {
    qem_axis axis = QEM_AXIS_ROW;
    uint64_t block = 0;
    uint32_t params = 16;
    bool scale = true, mean = true;
};

struct ArtifactShape {
    std::string name = "w";
    uint64_t rows = 5, cols = 10;
    qem_codebook_kind kind = QEM_CODEBOOK_SHARED;
    uint32_t dim = 4;
    uint64_t k = 7;
    qem_dtype codebook = QEM_DTYPE_F32;
    uint32_t levels = 0;
    uint32_t intervals = 0;
    uint32_t stages = 1; // layers, in fact
    bool metrics = true;
    bool split = false;      // every layer has two ranges of rows, of different k
    bool group_bits = false; // PER_GROUP with k a power of two
    uint32_t codebook_bits = 0;
    uint32_t cells = 0;
    uint32_t table = 0;
    std::vector<StepShape> steps;
    uint64_t outliers = 0;
    qem_dtype outlier_dtype = QEM_DTYPE_F32;
    bool recipe = false; // every field of the recipe is set, and it has residuals
};

class IoTest : public ::testing::Test {
protected:
    void SetUp() override;
    void TearDown() override;

    std::string path(const std::string &name) const { return directory + "/" + name; }
    std::string error() const { return qem_last_error(context); }
    // A file of these bytes; nullptr (and the status in `status`) when it cannot be opened. Closed by TearDown.
    qem_file *open_bytes(const std::string &name, const std::string &bytes);
    qem_file *open(const std::string &name);
    // Random codes and codebooks, reproducible; destroyed by TearDown.
    qem_artifact *make(const ArtifactShape &shape);
    // Everything that is stored, as one string, for comparisons.
    std::string fingerprint(const qem_artifact *artifact);

    std::string directory;
    qem_context *context = nullptr;
    qem_status status = QEM_OK;

private:
    void set_stage(const ArtifactShape &shape, qem_artifact *artifact, uint32_t index);
    void set_layers(const ArtifactShape &shape, qem_artifact *artifact);
    void fill_stage(const ArtifactShape &shape, qem_artifact *artifact, uint32_t index);
    void fill_blob(const ArtifactShape &shape, const qem_artifact *artifact, uint32_t index, const qem_blob &blob);
    void fill_codes(const qem_stage &stage, uint8_t *codes);
    void fill_cells(const ArtifactShape &shape, qem_artifact *artifact);
    void *memory(uint64_t bytes, uint64_t slack = 0);
    uint32_t random();

    std::vector<qem_file *> files;
    std::vector<qem_artifact *> artifacts;
    uint32_t state = 12345;
};

// The matrix that an artifact stands for, by the definition and with no regard to speed.
std::vector<float> decode_slowly(const qem_artifact *artifact);

std::vector<ArtifactShape> shapes_of_format_2();

} // namespace qem_test

#endif
