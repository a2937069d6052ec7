// Uploading, and every error of the GPU's functions: the text, the status, and that nothing was written, enqueued or
// leaked.
#include <cstdlib>

#include "device.h"

using namespace qem_test;

namespace {

class CudaApi : public ::testing::Test {
protected:
    CudaApi() : layers(20, 16, 1)
    {
        StageSpec spec;
        spec.kind = QEM_CODEBOOK_PER_GROUP;
        spec.dim = 4;
        spec.cells = 2;
        layers.add_layer(spec, { { QEM_AXIS_ROW } });
        spec.kind = QEM_CODEBOOK_SHARED;
        spec.cells = 0;
        spec.levels = 3;
        layers.add_layer(spec, {});
        layers.add_outliers({ 4, 44 }, 4);
    }
    void SetUp() override { qem_runner::reset(); }
    void TearDown() override
    {
        qem_runner::reset();
        EXPECT_EQ(qem_runner::allocated_bytes(), 0u) << "device memory leaked";
    }
    void expect_error(qem_status status, qem_status expected, const std::string &part)
    {
        EXPECT_EQ(status, expected);
        EXPECT_NE(context.error().find(part), std::string::npos) << context.error();
    }
    Layers layers;
    Context context;
};

// ---- uploading ----

TEST_F(CudaApi, SaysWhatItIs)
{
    QEM_NEEDS_RUNNER();
    const uint64_t size = qem_device_artifact_size(layers.get());
    const DeviceArtifact artifact = upload(context, layers.get());
    qem_device_artifact_info info = QEM_DEVICE_ARTIFACT_INFO_INIT;
    ASSERT_EQ(qem_device_artifact_query(artifact.get(), &info), QEM_OK);
    EXPECT_EQ(info.rows, 20u);
    EXPECT_EQ(info.cols, 16u);
    EXPECT_EQ(info.device, 0);
    EXPECT_EQ(info.bytes, size);
    EXPECT_EQ(qem_runner::allocated_bytes(), size);
    cudaPointerAttributes attributes;
    must_cuda(cudaPointerGetAttributes(&attributes, info.memory));
    EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
    EXPECT_EQ(qem_device_artifact_query(nullptr, &info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_device_artifact_query(artifact.get(), nullptr), QEM_ERR_ARGUMENT);
    info.size--;
    EXPECT_EQ(qem_device_artifact_query(artifact.get(), &info), QEM_ERR_ARGUMENT);
    EXPECT_EQ(qem_device_artifact_size(nullptr), 0u);
}

// Little more than the file has: the streams as they are, f32 for what steps and codebooks were made of.
TEST_F(CudaApi, TakesLittleMoreThanIsStored)
{
    Layers large(2000, 256, 1);
    StageSpec spec;
    spec.dim = 4;
    spec.k = 256;
    large.add_layer(spec, {});
    const uint64_t codes = 2000 * 64, book = 256 * 4 * (4 + 2 + 2);
    EXPECT_GE(qem_device_artifact_size(large.get()), codes + book);
    EXPECT_LE(qem_device_artifact_size(large.get()), codes + book + 2048);
    Layers swapped(2000, 256, 1);
    spec.levels = 3;
    swapped.add_layer(spec, {});
    const uint64_t maps = 2000 * 3 * 128 / 8, groups = 64 * 16;
    EXPECT_GE(qem_device_artifact_size(swapped.get()), codes + book + maps);
    EXPECT_LE(qem_device_artifact_size(swapped.get()), codes + book + maps + groups + 4096);
}

TEST_F(CudaApi, IntoMemoryOfTheCaller)
{
    const Matrix expected = decode_definition(layers.get());
    const uint64_t bytes = qem_device_artifact_size(layers.get());
    const DeviceMemory memory(bytes + 512, 0x77);
    const Stream stream;
    qem_device_artifact *uploaded = nullptr;
    context.must(qem_artifact_upload_to(context, layers.get(), 0, memory.get() + 256, bytes, stream, &uploaded));
    const DeviceArtifact artifact(uploaded);
    ASSERT_NO_FATAL_FAILURE(check_place(context, uploaded, expected, { 0, 20, QEM_DTYPE_F32 }));
    const std::vector<unsigned char> now = memory.read();
    for (size_t i = 0; i < 256; i++) {
        ASSERT_EQ(now[i], 0x77);
        ASSERT_EQ(now[256 + bytes + i], 0x77);
    }
}

TEST_F(CudaApi, MemoryOfTheCallerThatDoesNotDo)
{
    QEM_NEEDS_RUNNER();
    const uint64_t bytes = qem_device_artifact_size(layers.get());
    const DeviceMemory memory(bytes + 256);
    std::vector<unsigned char> host(bytes + 256);
    unsigned char *aligned = host.data() + (256 - reinterpret_cast<uintptr_t>(host.data()) % 256) % 256;
    qem_device_artifact *uploaded = reinterpret_cast<qem_device_artifact *>(this);
    expect_error(qem_artifact_upload_to(context, layers.get(), 0, memory.get(), bytes - 1, nullptr, &uploaded),
                 QEM_ERR_ARGUMENT, "the artifact takes");
    EXPECT_EQ(uploaded, nullptr);
    expect_error(qem_artifact_upload_to(context, layers.get(), 0, memory.get() + 128, bytes, nullptr, &uploaded),
                 QEM_ERR_ARGUMENT, "not aligned to 256");
    expect_error(qem_artifact_upload_to(context, layers.get(), 0, aligned, bytes, nullptr, &uploaded), QEM_ERR_ARGUMENT,
                 "host memory");
    expect_error(qem_artifact_upload_to(context, layers.get(), 0, nullptr, bytes, nullptr, &uploaded), QEM_ERR_ARGUMENT,
                 "NULL");
    qem_runner::machine().devices = 2;
    expect_error(qem_artifact_upload_to(context, layers.get(), 1, memory.get(), bytes, nullptr, &uploaded),
                 QEM_ERR_ARGUMENT, "lies on GPU 0");
}

TEST_F(CudaApi, UploadsWithoutADevice)
{
    QEM_NEEDS_RUNNER();
    qem_device_artifact *uploaded;
    EXPECT_EQ(qem_artifact_upload(nullptr, layers.get(), 0, nullptr, &uploaded), QEM_ERR_ARGUMENT);
    expect_error(qem_artifact_upload(context, nullptr, 0, nullptr, &uploaded), QEM_ERR_ARGUMENT, "NULL");
    expect_error(qem_artifact_upload(context, layers.get(), 0, nullptr, nullptr), QEM_ERR_ARGUMENT, "NULL");
    for (int device : { -1, 1 })
        expect_error(qem_artifact_upload(context, layers.get(), device, nullptr, &uploaded), QEM_ERR_NO_DEVICE,
                     "there is no GPU");
    qem_runner::machine().devices = 0;
    expect_error(qem_artifact_upload(context, layers.get(), 0, nullptr, &uploaded), QEM_ERR_NO_DEVICE,
                 "no GPU can be used");
    qem_runner::machine().driver = false;
    uploaded = reinterpret_cast<qem_device_artifact *>(this);
    expect_error(qem_artifact_upload(context, layers.get(), 0, nullptr, &uploaded), QEM_ERR_NO_DEVICE,
                 "no GPU can be used");
    EXPECT_EQ(uploaded, nullptr);
    EXPECT_NE(qem_device_artifact_size(layers.get()), 0u) << "needs no device";
}

TEST_F(CudaApi, UploadsBeyondTheDevicesMemory)
{
    QEM_NEEDS_RUNNER();
    qem_device_artifact *uploaded;
    qem_runner::machine().memory = qem_device_artifact_size(layers.get()) - 1;
    expect_error(qem_artifact_upload(context, layers.get(), 0, nullptr, &uploaded), QEM_ERR_MEMORY, "device memory");
    EXPECT_EQ(uploaded, nullptr);
}

TEST_F(CudaApi, UploadsOnACapturingStream)
{
    const Stream stream;
    cudaGraph_t graph;
    qem_device_artifact *uploaded;
    must_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    expect_error(qem_artifact_upload(context, layers.get(), 0, stream, &uploaded), QEM_ERR_ARGUMENT, "captured");
    must_cuda(cudaStreamEndCapture(stream, &graph));
    must_cuda(cudaGraphDestroy(graph));
}

TEST_F(CudaApi, UploadsWhatNoRecipeMakes)
{
    qem_device_artifact *uploaded;
    layers.step(0, 0).axis = QEM_AXIS_BLOCK;
    layers.step(0, 0).block = 65536;
    expect_error(qem_artifact_upload(context, layers.get(), 0, nullptr, &uploaded), QEM_ERR_UNSUPPORTED,
                 "columns of a block");
}

// An allocator that fails at the n-th call and knows what was not released.
struct Failing {
    int64_t calls_left, live = 0;
    static void *allocate(void *user, size_t bytes)
    {
        Failing *self = static_cast<Failing *>(user);
        if (self->calls_left-- == 0) return nullptr;
        self->live++;
        return std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    }
    static void release(void *user, void *pointer)
    {
        static_cast<Failing *>(user)->live--;
        std::free(pointer);
    }
};

// Uploads with so little memory that each call of the allocator fails in turn; returns how many there are.
int64_t upload_without_memory(const qem_artifact *artifact)
{
    for (int64_t n = 0;; n++) {
        Failing failing = { INT64_MAX };
        bool done = false;
        {
            Options options;
            options.allocator = { Failing::allocate, Failing::release, &failing };
            const Context own(options);
            const int64_t before = failing.live;
            qem_device_artifact *uploaded;
            failing.calls_left = n;
            const qem_status status = qem_artifact_upload(own, artifact, 0, nullptr, &uploaded);
            failing.calls_left = INT64_MAX;
            done = status == QEM_OK;
            if (done) {
                qem_device_artifact_destroy(&uploaded);
                EXPECT_EQ(uploaded, nullptr);
            } else {
                EXPECT_EQ(status, QEM_ERR_MEMORY);
                EXPECT_EQ(uploaded, nullptr);
            }
            EXPECT_EQ(failing.live, before);
            EXPECT_EQ(qem_runner::allocated_bytes(), 0u);
        }
        if (done) return n;
    }
}

TEST_F(CudaApi, OutOfHostMemoryAtEveryCall)
{
    EXPECT_GE(upload_without_memory(layers.get()), 5) << "its tables need so many";
    Layers swapped(20, 64, 1);
    StageSpec spec;
    spec.kind = QEM_CODEBOOK_PER_GROUP;
    spec.dim = 4;
    spec.levels = 3;
    swapped.add_layer(spec, {});
    EXPECT_GE(upload_without_memory(swapped.get()), 7) << "groups, codes and their places, map, two lists of slabs, stages";
}

TEST_F(CudaApi, DestroyIgnoresNothing)
{
    qem_device_artifact_destroy(nullptr);
    qem_device_artifact *none = nullptr;
    qem_device_artifact_destroy(&none);
    DeviceArtifact artifact = upload(context, layers.get());
    qem_device_artifact *raw = artifact.release();
    qem_device_artifact_destroy(&raw);
    EXPECT_EQ(raw, nullptr);
}

TEST_F(CudaApi, LeavesTheCurrentDevice)
{
    QEM_NEEDS_RUNNER();
    qem_runner::machine().devices = 2;
    must_cuda(cudaSetDevice(0));
    qem_device_artifact *uploaded;
    context.must(qem_artifact_upload(context, layers.get(), 1, nullptr, &uploaded));
    int device;
    must_cuda(cudaGetDevice(&device));
    EXPECT_EQ(device, 0);
    qem_device_artifact_info info = QEM_DEVICE_ARTIFACT_INFO_INIT;
    ASSERT_EQ(qem_device_artifact_query(uploaded, &info), QEM_OK);
    EXPECT_EQ(info.device, 1);
    const DeviceMemory here(20 * 16 * 4);
    expect_error(qem_cuda_dequantize(context, uploaded, 0, 20, QEM_DTYPE_F32, here.get(), 0, nullptr, here.get(),
                                     UINT64_MAX, nullptr),
                 QEM_ERR_ARGUMENT, "lies on GPU 0");
    must_cuda(cudaGetDevice(&device));
    EXPECT_EQ(device, 0);
    qem_device_artifact_destroy(&uploaded);
    must_cuda(cudaGetDevice(&device));
    EXPECT_EQ(device, 0);
}

// ---- decoding ----

class CudaDecodeErrors : public CudaApi {
protected:
    void SetUp() override
    {
        CudaApi::SetUp();
        artifact = upload(context, layers.get());
        out = std::make_unique<DeviceMemory>(20 * 32 * 4 + 64, device_fill);
        word = std::make_unique<DeviceMemory>(8, 0);
        bytes = qem_cuda_dequantize_workspace_size(artifact.get(), 20);
        workspace = std::make_unique<DeviceMemory>(bytes + 16, device_fill);
    }
    void TearDown() override
    {
        must_cuda(cudaDeviceSynchronize());
        EXPECT_EQ(out->read(), std::vector<unsigned char>(20 * 32 * 4 + 64, device_fill)) << "the output was written";
        EXPECT_EQ(workspace->read(), std::vector<unsigned char>(bytes + 16, device_fill)) << "the workspace was written";
        EXPECT_EQ(word->read(), std::vector<unsigned char>(8));
        artifact.reset();
        out.reset();
        word.reset();
        workspace.reset();
        CudaApi::TearDown();
    }
    qem_status call(uint64_t begin, uint64_t end, qem_dtype dtype = QEM_DTYPE_F32, uint64_t stride = 0)
    {
        return qem_cuda_dequantize(context, artifact.get(), begin, end, dtype, to ? to : out->get(), stride,
                                   overflow ? overflow : reinterpret_cast<uint32_t *>(word->get()),
                                   scratch ? scratch : workspace->get(), scratch_bytes ? scratch_bytes : bytes, nullptr);
    }
    DeviceArtifact artifact;
    std::unique_ptr<DeviceMemory> out, word, workspace;
    void *to = nullptr, *scratch = nullptr;
    uint32_t *overflow = nullptr;
    uint64_t bytes = 0, scratch_bytes = 0;
};

TEST_F(CudaDecodeErrors, Pointers)
{
    uint32_t host[400] = {};
    EXPECT_EQ(
        qem_cuda_dequantize(nullptr, artifact.get(), 0, 1, QEM_DTYPE_F32, out->get(), 0, nullptr, nullptr, 0, nullptr),
        QEM_ERR_ARGUMENT);
    expect_error(qem_cuda_dequantize(context, nullptr, 0, 1, QEM_DTYPE_F32, out->get(), 0, nullptr, nullptr, 0, nullptr),
                 QEM_ERR_ARGUMENT, "NULL");
    expect_error(
        qem_cuda_dequantize(context, artifact.get(), 0, 1, QEM_DTYPE_F32, nullptr, 0, nullptr, nullptr, 0, nullptr),
        QEM_ERR_ARGUMENT, "NULL");
    to = host;
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "out is host memory");
    to = nullptr;
    overflow = host;
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "overflow is host memory");
    overflow = nullptr;
    scratch = reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(host) + 15) / 16 * 16);
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "workspace is host memory");
}

TEST_F(CudaDecodeErrors, Alignment)
{
    to = out->get() + 2;
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "out is not aligned to 4");
    to = out->get() + 1;
    expect_error(call(0, 1, QEM_DTYPE_F16), QEM_ERR_ARGUMENT, "out is not aligned to 2");
    to = nullptr;
    overflow = reinterpret_cast<uint32_t *>(word->get() + 2);
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "overflow is not aligned");
    overflow = nullptr;
    scratch = workspace->get() + 8;
    expect_error(call(0, 1), QEM_ERR_ARGUMENT, "workspace is not aligned to 16");
}

TEST_F(CudaDecodeErrors, NumbersAndTypes)
{
    expect_error(call(3, 2), QEM_ERR_ARGUMENT, "rows 3 .. 2");
    expect_error(call(0, 21), QEM_ERR_ARGUMENT, "rows 0 .. 21 lie outside 0 .. 20");
    for (qem_dtype dtype : { QEM_DTYPE_NONE, QEM_DTYPE_F64, QEM_DTYPE_U8, QEM_DTYPE_F8_E5M2 })
        expect_error(call(0, 1, dtype), QEM_ERR_ARGUMENT, "output type");
    expect_error(call(0, 1, QEM_DTYPE_F32, 15), QEM_ERR_ARGUMENT, "row stride 15");
    expect_error(call(0, 2, QEM_DTYPE_F32, (uint64_t(1) << 55) + 1), QEM_ERR_ARGUMENT, "2^56");
    scratch_bytes = bytes - 1;
    expect_error(call(0, 20), QEM_ERR_ARGUMENT, "these rows need " + std::to_string(bytes));
    expect_error(
        qem_cuda_dequantize(context, artifact.get(), 0, 1, QEM_DTYPE_F32, out->get(), 0, nullptr, nullptr, bytes, nullptr),
        QEM_ERR_ARGUMENT, "workspace of 0");
}

TEST_F(CudaDecodeErrors, NoDevice)
{
    QEM_NEEDS_RUNNER();
    qem_runner::machine().driver = false;
    expect_error(call(0, 20), QEM_ERR_NO_DEVICE, "no GPU can be used");
    qem_runner::machine().driver = true;
}

TEST_F(CudaDecodeErrors, EmptyRangesEnqueueNothing)
{
    for (uint64_t row : { 0, 7, 20 }) context.must(call(row, row));
    for (uint64_t row : { 0, 7, 20 }) // nor do they need a workspace
        context.must(qem_cuda_dequantize(context, artifact.get(), row, row, QEM_DTYPE_F32, out->get(), 0, nullptr, nullptr, 0,
                                         nullptr));
}

TEST_F(CudaDecodeErrors, LeaveNoErrorBehind)
{
    qem_device_artifact *none;
    EXPECT_EQ(qem_artifact_upload(context, layers.get(), 99, nullptr, &none), QEM_ERR_NO_DEVICE);
    scratch = reinterpret_cast<void *>(16); // no memory of anything
    EXPECT_NE(call(0, 1), QEM_OK);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(CudaApi, Workspace)
{
    const DeviceArtifact artifact = upload(context, layers.get());
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(artifact.get(), 20), 2u * 20 * 16 * 4);
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(artifact.get(), 0), 0u);
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(artifact.get(), UINT64_MAX / 8), UINT64_MAX);
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(nullptr, 20), 0u);
    Layers plain(4, 4, 1);
    plain.add_layer({}, {});
    EXPECT_EQ(qem_cuda_dequantize_workspace_size(upload(context, plain.get()).get(), 20), 0u);
}

// One artifact, several streams and threads, each with a context of its own.
TEST_F(CudaApi, SharedBetweenStreamsAndContexts)
{
    const Matrix expected = decode_definition(layers.get());
    const DeviceArtifact artifact = upload(context, layers.get());
    const Stream streams[2];
    const Context contexts[2];
    const DeviceMemory outs[2] = { DeviceMemory(20 * 16 * 4), DeviceMemory(20 * 16 * 4) };
    const uint64_t bytes = qem_cuda_dequantize_workspace_size(artifact.get(), 20);
    const DeviceMemory workspaces[2] = { DeviceMemory(bytes), DeviceMemory(bytes) };
    for (int i = 0; i < 2; i++)
        contexts[i].must(qem_cuda_dequantize(contexts[i], artifact.get(), 0, 20, QEM_DTYPE_F32, outs[i].get(), 0, nullptr,
                                             workspaces[i].get(), bytes, streams[i]));
    for (int i = 0; i < 2; i++) {
        streams[i].wait();
        EXPECT_EQ(std::memcmp(outs[i].read().data(), expected.x.data(), 20 * 16 * 4), 0);
    }
}

} // namespace
