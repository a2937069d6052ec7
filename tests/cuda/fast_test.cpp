// The fast kernels: that they are taken where they should be, and that they give the bits of the general one, which decodes
// the same rows where the output is not aligned; both are compared with the plain definition.
#include <cstdlib>

#include "device.h"

using namespace qem_test;

namespace {

constexpr qem_dtype kTypes[] = { QEM_DTYPE_F32, QEM_DTYPE_F16, QEM_DTYPE_BF16 };

const Context &context()
{
    static const Context one;
    return one;
}

// Rows in one piece, in the middle, with a gap of whole chunks; and not aligned. `ways` by type.
void check(const Layers &layers, const std::vector<qem_cuda_way> &ways)
{
    const qem_artifact *a = layers.get();
    const Matrix expected = decode_definition(a);
    const DeviceArtifact artifact = upload(context(), a);
    for (int i = 0; i < 3; i++) {
        const Place places[] = { { 0, a->rows, kTypes[i] },
                                 { a->rows / 3, a->rows, kTypes[i], 8 },
                                 { a->rows / 2, a->rows / 2 + 1, kTypes[i], 0, 24 } };
        for (const Place &place : places) {
            ASSERT_EQ(way_of(artifact.get(), place), ways[i]) << place;
            ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, place));
        }
        const Place general = { a->rows / 3, a->rows, kTypes[i], 8, 1 };
        ASSERT_EQ(way_of(artifact.get(), general), QEM_CUDA_ANY);
        ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, general));
    }
}

void check(const Layers &layers, qem_cuda_way way)
{
    ASSERT_NO_FATAL_FAILURE(check(layers, { way, way, way }));
}

StageSpec spec_of(qem_codebook_kind kind, uint32_t dim, uint64_t k)
{
    StageSpec spec;
    spec.kind = kind;
    spec.dim = dim;
    spec.k = k;
    return spec;
}

// ---- shared codebooks ----

TEST(CudaFast, CodesOfBytes)
{
    for (uint32_t dim : { 1, 2, 4, 8 })
        for (uint64_t k : { 129, 200, 256 })
            for (uint64_t cols : { 8, 16, 40, 136, 1024 }) {
                SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k) + ", cols " + std::to_string(cols));
                Layers layers(cols > 1000 ? 41 : 23, cols, dim + k + cols);
                StageSpec spec = spec_of(QEM_CODEBOOK_SHARED, dim, k);
                spec.half = k == 200;
                layers.add_layer(spec, {});
                ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_VECTORS));
            }
}

// So many tiles that blocks go on to further ones, of which the last is not whole.
TEST(CudaFast, MoreTilesThanBlocks)
{
    QEM_NEEDS_RUNNER();
    qem_runner::machine().multiprocessors = 1;
    for (uint32_t dim : { 1, 4 })
        for (uint64_t k : { 16, 200, 1000 }) {
            Layers layers(97, 1032, dim + k);
            layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, dim, k), {});
            ASSERT_NO_FATAL_FAILURE(check(layers, k == 16 && dim == 1 ? QEM_CUDA_SCALARS : QEM_CUDA_VECTORS));
            for (uint64_t block : { 8, 344 }) {
                Layers stepped(97, 1032, dim + k);
                stepped.add_layer(spec_of(QEM_CODEBOOK_SHARED, dim, k), { { QEM_AXIS_BLOCK, block } });
                const qem_cuda_way scalars = k < 257 ? QEM_CUDA_SCALARS : QEM_CUDA_ANY;
                ASSERT_NO_FATAL_FAILURE(check(stepped, dim > 1 ? QEM_CUDA_STEPPED : scalars));
            }
        }
    qem_runner::reset();
}

TEST(CudaFast, CodesOfBits)
{
    for (uint32_t dim : { 1, 2, 4, 8, 16, 32, 64 })
        for (uint64_t k : { 1, 2, 3, 7, 16, 100, 300, 4096, 5000 }) {
            SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k));
            Layers layers(7, 192, dim + k);
            layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, dim, k), {});
            std::vector<qem_cuda_way> ways(3, dim == 1 && k == 16 ? QEM_CUDA_SCALARS : QEM_CUDA_VECTORS);
            if (dim == 64) ways[0] = QEM_CUDA_ANY; /* 16 chunks an entry */
            ASSERT_NO_FATAL_FAILURE(check(layers, ways));
        }
    for (uint64_t k : { 65536, 1 << 20, 1 << 24 }) {
        Layers layers(33, 64, k);
        layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, k == 65536 ? 8 : 1, k), {});
        ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_VECTORS));
    }
}

// Rows of whole chunks that are no whole sub-vectors.
TEST(CudaFast, TailsAreNotTaken)
{
    for (uint32_t dim : { 8, 16, 32 }) {
        Layers layers(9, dim == 8 ? 108 : 104, dim);
        layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, dim, 200), {});
        ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_ANY));
    }
}

// ---- scalar codes with steps ----

// What fast kernels take, in blocks of whole chunks of each type.
const std::vector<std::vector<AffineSpec>> step_lists = {
    { { QEM_AXIS_TENSOR } },
    { { QEM_AXIS_ROW } },
    { { QEM_AXIS_COLUMN } },
    { { QEM_AXIS_BLOCK, 8, true, false } },
    { { QEM_AXIS_BLOCK, 32 } },
    { { QEM_AXIS_BLOCK, 24, false, true }, { QEM_AXIS_COLUMN, 0, true, false } },
    { { QEM_AXIS_ROW, 0, true, false }, { QEM_AXIS_COLUMN, 0, false, true } },
    { { QEM_AXIS_TENSOR, 0, false, true }, { QEM_AXIS_COLUMN } },
    { { QEM_AXIS_BLOCK, 65528 } },
};

TEST(CudaFast, ScalarsOfEveryWidth)
{
    for (uint32_t bits = 1; bits <= 8; bits++)
        for (size_t i = 0; i < step_lists.size(); i++)
            for (uint64_t cols : { 8, 40, 264 }) {
                SCOPED_TRACE(std::to_string(bits) + " bits, list " + std::to_string(i) + ", cols " + std::to_string(cols));
                const qem_codebook_kind kinds[] = { QEM_CODEBOOK_SHARED, QEM_CODEBOOK_UNIFORM, QEM_CODEBOOK_TABLE };
                const uint64_t most = uint64_t(1) << bits;
                Layers layers(13, cols, bits * 100 + i + cols);
                layers.add_layer(spec_of(kinds[i % 3], 1, i % 2 ? most : most / 2 + 1), step_lists[i]);
                ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_SCALARS));
            }
}

TEST(CudaFast, VectorsWithSteps)
{
    for (uint32_t dim : { 2, 4, 8, 16, 32 })
        for (uint64_t k : { 1, 3, 16, 100, 256, 1000 })
            for (size_t i = 0; i < step_lists.size(); i++) {
                SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k) + ", list " + std::to_string(i));
                StageSpec spec = spec_of(QEM_CODEBOOK_SHARED, dim, k);
                spec.half = i % 2;
                Layers layers(i % 3 ? 17 : 61, i % 3 ? 192 : 64, dim * k + i);
                layers.add_layer(spec, step_lists[i]);
                ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_STEPPED));
            }
}

// Tiles that are whole and a last one that is not; units smaller than what a thread skips, larger, larger than a tile.
TEST(CudaFast, StepsOfWholeTiles)
{
    for (uint64_t unit : { 8, 32, 256, 4096, 8192, 16384, 0, 1, 24 })
        for (int variant = 0; variant < 6; variant++) {
            const bool scale = variant % 3 != 2, mean = variant % 3 != 1;
            SCOPED_TRACE("unit " + std::to_string(unit) + ", variant " + std::to_string(variant));
            AffineSpec step = { QEM_AXIS_BLOCK, unit, scale, mean };
            if (unit < 2) step = { unit ? QEM_AXIS_ROW : QEM_AXIS_TENSOR, 0, scale, mean };
            Layers layers(4, unit == 24 ? 12312 : 16384, unit + variant);
            layers.add_layer(variant < 3 ? spec_of(QEM_CODEBOOK_SHARED, 1, unit == 32 ? 7 : 16)
                                         : spec_of(QEM_CODEBOOK_SHARED, unit == 8 ? 2 : unit == 256 ? 8 : 4, 200),
                             { step });
            ASSERT_NO_FATAL_FAILURE(check(layers, variant < 3 ? QEM_CUDA_SCALARS : QEM_CUDA_STEPPED));
            const Matrix expected = decode_definition(layers.get());
            const DeviceArtifact artifact = upload(context(), layers.get());
            for (qem_dtype dtype : kTypes)
                ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, { 1, 4, dtype }));
        }
}

// Minus zero stays what it is where there is no step, and a step without a mean makes it plus zero or not as fma has it.
TEST(CudaFast, MinusZero)
{
    for (bool step : { false, true })
        for (uint64_t k : { 16, 8 }) {
            Layers layers(4, 64, k);
            layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, 1, k),
                             step ? std::vector<AffineSpec>{ { QEM_AXIS_ROW } } : std::vector<AffineSpec>());
            float *book = layers->stages[0].codebook;
            for (uint64_t j = 0; j < k; j += 2) book[j] = -0.0f;
            ASSERT_NO_FATAL_FAILURE(check(layers, step || k == 16 ? QEM_CUDA_SCALARS : QEM_CUDA_VECTORS));
        }
}

// Three steps, or blocks that chunks do not fit in, are left to the general kernel.
TEST(CudaFast, StepsThatAreNotTaken)
{
    const std::vector<std::vector<AffineSpec>> lists = {
        { { QEM_AXIS_TENSOR }, { QEM_AXIS_ROW }, { QEM_AXIS_COLUMN } },
        { { QEM_AXIS_COLUMN }, { QEM_AXIS_ROW } },
        { { QEM_AXIS_BLOCK, 7 } },
    };
    for (const std::vector<AffineSpec> &steps : lists) {
        Layers layers(5, 64, 1);
        layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, 1, 16), steps);
        ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_ANY));
    }
    Layers layers(5, 64, 1);
    layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, 1, 16), { { QEM_AXIS_BLOCK, 4 } });
    ASSERT_NO_FATAL_FAILURE(check(layers, { QEM_CUDA_SCALARS, QEM_CUDA_ANY, QEM_CUDA_ANY }));
}

// ---- codebooks by group ----

TEST(CudaFast, Slabs)
{
    for (uint32_t dim : { 1, 2, 4, 8, 16, 32 })
        for (uint64_t k : { 1, 3, 16, 100, 256 })
            for (uint64_t cols : { 64, 192 })
                for (int variant = 0; variant < 4; variant++) {
                    SCOPED_TRACE("dim " + std::to_string(dim) + ", k " + std::to_string(k) + ", cols " +
                                 std::to_string(cols) + ", variant " + std::to_string(variant));
                    StageSpec spec = spec_of(QEM_CODEBOOK_PER_GROUP, dim, k);
                    spec.half = variant & 1;
                    spec.mixed = variant & 2 && (k & (k - 1)) == 0;
                    Layers layers(70, cols, dim * k + cols);
                    layers.add_layer(spec, {});
                    ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_SLABS));
                }
}

// ---- swaps ----

// What fast kernels take of a stage with swaps, by its sub-vectors, levels and columns.
qem_cuda_way swapped_way(uint32_t dim, uint32_t levels, uint64_t cols, qem_dtype dtype)
{
    const uint32_t piece = (dtype == QEM_DTYPE_F32 ? 2 : 4) * (levels > 1 ? 2 : 1), unit = levels > 1 ? 8 : 4;
    const bool whole =
        (piece % dim == 0 || dim % piece == 0) && cols % (dim << levels) == 0 && cols % (unit << levels) == 0;
    return whole && (dim > 1 || levels == 1) ? QEM_CUDA_SWAPPED : QEM_CUDA_ANY;
}

void check_swapped(const StageSpec &spec, uint64_t rows, uint64_t cols, const std::vector<uint64_t> &splits = {})
{
    std::vector<qem_cuda_way> ways;
    SCOPED_TRACE("levels " + std::to_string(spec.levels) + ", dim " + std::to_string(spec.dim) + ", k " +
                 std::to_string(spec.k) + ", cols " + std::to_string(cols) + (spec.half ? ", halves" : "") +
                 (spec.mixed ? ", mixed" : ""));
    for (qem_dtype dtype : kTypes) ways.push_back(swapped_way(spec.dim, spec.levels, cols, dtype));
    Layers layers(rows, cols, spec.dim * spec.k + cols + spec.levels);
    layers.add_layer(spec, {}, splits);
    ASSERT_NO_FATAL_FAILURE(check(layers, ways));
}

TEST(CudaFast, SwapsOfCodebooksByGroup)
{
    for (uint32_t levels : { 1, 2, 3 })
        for (uint32_t dim : { 1, 2, 4, 8, 16 })
            for (uint64_t k : { 1, 5, 16, 64 })
                for (int variant = 0; variant < 4; variant++) {
                    StageSpec spec = spec_of(QEM_CODEBOOK_PER_GROUP, dim, k);
                    spec.levels = levels;
                    spec.half = variant & 1;
                    spec.mixed = variant & 2 && (k & (k - 1)) == 0;
                    const uint64_t unit = uint64_t(dim > 8 ? dim : 8) << levels, cols = unit * (variant == 3 ? 3 : 1);
                    ASSERT_NO_FATAL_FAILURE(check_swapped(
                        spec, 70, cols, variant ? std::vector<uint64_t>() : std::vector<uint64_t>{ 33 }));
                }
}

TEST(CudaFast, SwapsOfSharedCodebooks)
{
    for (uint32_t levels : { 1, 2, 3 })
        for (uint32_t dim : { 1, 2, 4, 8, 16, 32 })
            for (uint64_t k : { 1, 3, 16, 200, 256, 4096 })
                for (uint64_t times : { 1, 5, 9 }) {
                    if (times > 1 && dim > 8) continue;
                    StageSpec spec = spec_of(QEM_CODEBOOK_SHARED, dim, k);
                    spec.levels = levels;
                    spec.half = k == 200;
                    const uint64_t cols = times * ((dim > 8 ? dim : 8) << levels);
                    ASSERT_NO_FATAL_FAILURE(check_swapped(
                        spec, times == 1 ? 90 : 19, cols, k == 3 ? std::vector<uint64_t>{ 7 } : std::vector<uint64_t>()));
                }
}

// Many slabs and many rows, so that blocks go on to further ones; codes whose words do not fit in 64 bits.
TEST(CudaFast, SwapsOfLargeMatrices)
{
    for (uint32_t levels : { 1, 2, 3 }) {
        StageSpec spec = spec_of(QEM_CODEBOOK_PER_GROUP, 4, 256);
        spec.levels = levels;
        ASSERT_NO_FATAL_FAILURE(check_swapped(spec, 150, 192));
        spec = spec_of(QEM_CODEBOOK_SHARED, 4, 5000);
        spec.levels = levels;
        ASSERT_NO_FATAL_FAILURE(check_swapped(spec, 261, 832));
        spec = spec_of(QEM_CODEBOOK_SHARED, 1, 1 << 20);
        spec.levels = levels;
        ASSERT_NO_FATAL_FAILURE(check_swapped(spec, 20, 128));
        spec = spec_of(QEM_CODEBOOK_UNIFORM, 1, 16);
        spec.levels = levels;
        ASSERT_NO_FATAL_FAILURE(check_swapped(spec, 11, 64));
    }
}

TEST(CudaFast, SwappedRowsBeginAnywhereInTheStreams)
{
    for (uint32_t levels : { 1, 2, 3 })
        for (qem_codebook_kind kind : { QEM_CODEBOOK_SHARED, QEM_CODEBOOK_PER_GROUP }) {
            StageSpec spec = spec_of(kind, 4, 5);
            spec.levels = levels;
            Layers layers(40, 8 << levels, levels);
            layers.add_layer(spec, {}, { 17 });
            layers.add_outliers({ 5, 77, 240 }, 4);
            const Matrix expected = decode_definition(layers.get());
            const DeviceArtifact artifact = upload(context(), layers.get());
            for (uint64_t begin = 0; begin < 40; begin++)
                for (qem_dtype dtype : kTypes) {
                    const Place place = { begin, std::min<uint64_t>(40, begin + 1 + begin % 9), dtype, 8 * (begin % 2) };
                    ASSERT_EQ(way_of(artifact.get(), place), QEM_CUDA_SWAPPED);
                    ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, place));
                }
        }
}

// Shapes that do not divide evenly, a fourth level, steps, codebooks of a group that are too large, and sums.
TEST(CudaFast, SwapsThatAreNotTaken)
{
    for (int variant = 0; variant < 7; variant++) {
        SCOPED_TRACE("variant " + std::to_string(variant));
        const uint64_t cols[] = { 72, 24, 96, 256, 64, 64, 64 };
        const uint32_t levels[] = { 1, 2, 3, 4, 3, 2, 1 };
        StageSpec spec = spec_of(variant % 2 ? QEM_CODEBOOK_SHARED : QEM_CODEBOOK_PER_GROUP, variant ? 4 : 8,
                                 variant == 4 ? 2000 : 16);
        spec.levels = levels[variant];
        Layers layers(9, cols[variant], 5);
        layers.add_layer(spec, variant == 5 ? std::vector<AffineSpec>{ { QEM_AXIS_ROW } } : std::vector<AffineSpec>());
        if (variant == 6) layers.add_layer(spec, {});
        ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_ANY));
    }
}

// ---- codebooks by group again ----

// Rows by blocks: more than one of each slab; widths of which the codes of a chunk take more than a word.
TEST(CudaFast, SlabsOfManyRowsAndWideCodes)
{
    Layers many(900, 40, 1);
    many.add_layer(spec_of(QEM_CODEBOOK_PER_GROUP, 4, 32), {});
    ASSERT_NO_FATAL_FAILURE(check(many, QEM_CUDA_SLABS));
    Layers wide(100, 64, 2);
    StageSpec spec = spec_of(QEM_CODEBOOK_PER_GROUP, 1, 2048);
    spec.mixed = true;
    wide.add_layer(spec, {});
    ASSERT_NO_FATAL_FAILURE(check(wide, { QEM_CUDA_SLABS, QEM_CUDA_SLABS, QEM_CUDA_SLABS }));
}

// Codebooks that do not fit in shared memory, and groups that do not make whole chunks.
TEST(CudaFast, SlabsThatAreNotTaken)
{
    for (uint32_t dim : { 3, 4, 5 }) {
        Layers layers(6, 120, 2);
        layers.add_layer(spec_of(QEM_CODEBOOK_PER_GROUP, dim, dim == 4 ? 5000 : 4), {});
        ASSERT_NO_FATAL_FAILURE(check(layers, QEM_CUDA_ANY));
    }
}

// ---- what is left to the general kernel ----

TEST(CudaFast, NotWhereValuesMayOverflow)
{
    Layers layers(4, 64, 1);
    layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, 4, 16), {});
    layers->stages[0].codebook[5] = 1e6f;
    ASSERT_NO_FATAL_FAILURE(check(layers, { QEM_CUDA_VECTORS, QEM_CUDA_ANY, QEM_CUDA_VECTORS }));
    layers->stages[0].codebook[5] = -3.39e38f;
    ASSERT_NO_FATAL_FAILURE(check(layers, { QEM_CUDA_VECTORS, QEM_CUDA_ANY, QEM_CUDA_ANY }));
    Layers steps(4, 64, 1);
    steps.add_layer(spec_of(QEM_CODEBOOK_TABLE, 1, 16), { { QEM_AXIS_ROW }, { QEM_AXIS_COLUMN } });
    steps.step(0, 0).scale[1] = 3000.0f;
    steps.step(0, 1).mean[3] = -65000.0f;
    ASSERT_NO_FATAL_FAILURE(check(steps, { QEM_CUDA_SCALARS, QEM_CUDA_ANY, QEM_CUDA_SCALARS }));
}

TEST(CudaFast, RangesOfRowsBeginAnywhereInTheStream)
{
    for (uint32_t dim : { 1, 2, 4, 8 })
        for (uint64_t k : { 8, 16, 32, 256 }) {
            Layers layers(40, 24, dim + k);
            layers.add_layer(spec_of(QEM_CODEBOOK_SHARED, dim, k), {}, { 17 });
            const Matrix expected = decode_definition(layers.get());
            const DeviceArtifact artifact = upload(context(), layers.get());
            for (uint64_t begin = 0; begin < 40; begin++)
                for (qem_dtype dtype : kTypes) {
                    const Place place = { begin, std::min<uint64_t>(40, begin + 1 + begin % 9), dtype };
                    ASSERT_NE(way_of(artifact.get(), place), QEM_CUDA_ANY);
                    ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, place));
                }
        }
}

// Random shapes of what the fast kernels take.
TEST(CudaFast, Random)
{
    const char *given = std::getenv("QEM_TEST_SEED");
    const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : 20260102;
    for (uint64_t i = 0; i < 150; i++) {
        SCOPED_TRACE("QEM_TEST_SEED=" + std::to_string(seed) + ", artifact " + std::to_string(i));
        Random random(seed + i);
        const uint32_t dim = 1u << random.below(5), bits = static_cast<uint32_t>(random.below(dim > 4 ? 9 : 12));
        const int by_group = random.below(2);
        StageSpec spec = spec_of(by_group ? QEM_CODEBOOK_PER_GROUP : QEM_CODEBOOK_SHARED, dim, uint64_t(1) << bits);
        spec.mixed = by_group && random.below(2);
        spec.half = random.below(2);
        spec.levels = random.below(2) ? static_cast<uint32_t>(random.below(4)) : 0;
        if (!spec.mixed && bits) spec.k -= random.below(spec.k / 2);
        const uint64_t step = (dim > 8 ? dim : 8) << (random.below(2) ? spec.levels : 0), rows = 1 + random.below(300),
                       cols = step * (1 + random.below(20));
        std::vector<AffineSpec> steps;
        if (!by_group && !spec.levels && random.below(2)) {
            steps.push_back({ static_cast<qem_axis>(random.below(4)), 8 * (1 + random.below(6)) });
            if (steps[0].axis != QEM_AXIS_BLOCK) steps[0].block = 0;
        }
        Layers layers(rows, cols, seed + i);
        layers.add_layer(spec, steps,
                         random.below(3) || rows < 2 ? std::vector<uint64_t>()
                                                     : std::vector<uint64_t>{ 1 + random.below(rows - 1) });
        if (random.below(3) == 0) layers.add_outliers({ random.below(rows * cols) }, 4);
        const Matrix expected = decode_definition(layers.get());
        const DeviceArtifact artifact = upload(context(), layers.get());
        for (qem_dtype dtype : kTypes) {
            const uint64_t begin = random.below(rows), end = begin + 1 + random.below(rows - begin);
            const Place place = { begin, end, dtype, 8 * random.below(3), 8 * random.below(3) },
                        general = { begin, end, dtype, 0, 1 };
            ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, place));
            ASSERT_NO_FATAL_FAILURE(check_place(context(), artifact.get(), expected, general));
        }
    }
}

} // namespace
