// The sparse kernels against a masked dense reference, on every SIMD target of this build and CPU.
#include "src/kernels/attention_sparse.h"

#include <set>

#include "src/kernels/every_target.h"
#include "src/kernels/test_attention.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

std::vector<AttentionMath> Maths() {
  if (CpuHasNativeBf16()) return {AttentionMath::kF32, AttentionMath::kBf16};
  return {AttentionMath::kF32};
}

/// The packed buffers of all KV heads.
class PackedHeads {
 public:
  PackedHeads(const TestCache& cache, AttentionMath math) {
    for (const KvHeadView& view : cache.views()) {
      AlignedBytes& buffer = buffers_.emplace_back(PackedKvBytes(view.head_dim, view.n_keys, math));
      PackKv(view, 0, view.n_keys, math, buffer.data());
    }
  }
  const std::byte* Of(const AttentionProblem& problem, int head) {
    return buffers_[static_cast<size_t>(head / (problem.n_heads / problem.n_kv_heads))].data();
  }

 private:
  std::vector<AlignedBytes> buffers_;
};

Shape MakeShape(int n_heads, int n_kv_heads, int head_dim, int64_t n_rows, int64_t first_position,
                KvType type = KvType::kF16) {
  Shape shape;
  shape.n_heads = n_heads;
  shape.n_kv_heads = n_kv_heads;
  shape.head_dim = head_dim;
  shape.n_rows = n_rows;
  shape.first_position = first_position;
  shape.type = type;
  return shape;
}

std::vector<Shape> Shapes() {
  return {MakeShape(3, 1, 64, 100, 0),   MakeShape(2, 2, 64, 97, 700),
          MakeShape(7, 1, 64, 5, 1333),  MakeShape(2, 1, 128, 70, 600),
          MakeShape(1, 1, 256, 50, 411), MakeShape(2, 1, 80, 33, 95),
          MakeShape(1, 1, 8, 20, 40),    MakeShape(2, 1, 64, 96, 512, KvType::kQ8_0)};
}

/// Calls body(block) for all rows of all heads.
template <class Body>
void ForBlocks(const AttentionProblem& problem, const Body& body) {
  for (int head = 0; head < problem.n_heads; ++head) {
    for (int64_t first = 0; first < problem.n_rows; first += kMaxBlockRows) {
      body(RowBlock{head, first, static_cast<int>(std::min<int64_t>(kMaxBlockRows, problem.n_rows - first))});
    }
  }
}

/// Tiles at random that depend on the block, its own among them.
std::vector<int32_t> TilesOf(const AttentionProblem& problem, const RowBlock& block, uint32_t share) {
  std::mt19937 random(static_cast<uint32_t>(block.head * 1000 + block.first_row));
  const int64_t first_position = problem.first_position + block.first_row;
  std::vector<int32_t> tiles;
  for (int64_t t = 0; t < ChoiceTiles(first_position + block.n_rows); ++t) {
    if (t >= first_position / kChoiceTileKeys || random() % 100 < share) tiles.push_back(static_cast<int32_t>(t));
  }
  return tiles;
}

std::vector<float> Tiles(const TestCache& cache, AttentionMath math, uint32_t share) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  PackedHeads packed(cache, math);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  ForBlocks(problem, [&](const RowBlock& block) {
    AttendTiles(problem, math, packed.Of(problem, block.head), block, TilesOf(problem, block, share), scratch.data());
  });
  return out;
}

std::vector<float> TilesReference(const TestCache& cache, uint32_t share) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  MaskedAttentionReference(problem, [&](int head, int64_t row, int64_t key) {
    const int64_t first = row / kMaxBlockRows * kMaxBlockRows;
    const RowBlock block = {head, first, static_cast<int>(std::min<int64_t>(kMaxBlockRows, problem.n_rows - first))};
    const std::vector<int32_t> tiles = TilesOf(problem, block, share);
    return std::binary_search(tiles.begin(), tiles.end(), key / kChoiceTileKeys);
  });
  return out;
}

TEST(SparseTiles, AreTheMaskedReferenceOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    for (const uint32_t share : {0u, 35u, 100u}) {
      const std::vector<float> expected = TilesReference(cache, share);
      ForEveryTarget([&](const char* target) {
        SCOPED_TRACE(target);
        ExpectNear(Tiles(cache, AttentionMath::kF32, share), expected, F32Tolerance(cache, shape.head_dim));
      });
    }
  }
}

// On numbers that bf16 holds exactly the fast path must be as exact as f32: a key too many or too few shows.
TEST(SparseTiles, InBf16AreTheMaskedReferenceWhereNothingRounds) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : Shapes()) {
    if (shape.type != KvType::kF16) continue;
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    ExpectNear(Tiles(cache, AttentionMath::kBf16, 35), TilesReference(cache, 35), F32Tolerance(cache, shape.head_dim));
  }
}

TEST(SparseTiles, RowWeightsAreTheSoftmax) {
  for (const Shape& shape : Shapes()) {
    if (shape.n_rows < 20) continue;
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    const std::vector<int64_t> rows = {0, 3, 9, shape.n_rows - 1};
    const int head = shape.n_heads - 1;
    const int64_t n_keys = shape.first_position + shape.n_rows;
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      PackedHeads packed(cache, AttentionMath::kF32);
      AlignedBytes scratch(SparseScratchBytes(shape.head_dim, cache.n_keys(), AttentionMath::kF32));
      const int64_t stride = (n_keys + 63) / 64 * 64;
      std::vector<float> weights(rows.size() * static_cast<size_t>(stride));
      RowWeights(problem, AttentionMath::kF32, packed.Of(problem, head), head, rows, weights.data(), stride,
                 scratch.data());
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::vector<double> exact = SoftmaxReference(problem, head, rows[i]);
        for (size_t t = 0; t < exact.size(); ++t) {
          EXPECT_NEAR(weights[i * static_cast<size_t>(stride) + t], exact[t], 2e-5 * exact[t] + 1e-9);
        }
      }
    });
  }
}

std::vector<float> SinksAndWindow(const TestCache& cache, AttentionMath math, int64_t sinks, int64_t window) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  PackedHeads packed(cache, math);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  ForBlocks(problem, [&](const RowBlock& block) {
    AttendSinksAndWindow(problem, math, packed.Of(problem, block.head), block, sinks, window, scratch.data());
  });
  return out;
}

std::vector<float> SinksAndWindowReference(const TestCache& cache, int64_t sinks, int64_t window) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  MaskedAttentionReference(problem, [&](int, int64_t row, int64_t key) {
    return key < sinks || problem.first_position + row - key < window;
  });
  return out;
}

constexpr std::pair<int64_t, int64_t> kSinksAndWindows[] = {{0, 1},  {1, 1},    {4, 20},    {128, 33},
                                                            {5, 64}, {600, 90}, {17, 1000}, {2000, 5}};

TEST(SinksAndWindow, IsTheMaskedReferenceOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    for (const auto& [sinks, window] : kSinksAndWindows) {
      SCOPED_TRACE(std::to_string(sinks) + " " + std::to_string(window));
      const std::vector<float> expected = SinksAndWindowReference(cache, sinks, window);
      ForEveryTarget([&](const char* target) {
        SCOPED_TRACE(target);
        ExpectNear(SinksAndWindow(cache, AttentionMath::kF32, sinks, window), expected,
                   F32Tolerance(cache, shape.head_dim));
      });
    }
  }
}

TEST(SinksAndWindow, InBf16IsTheMaskedReferenceWhereNothingRounds) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : Shapes()) {
    if (shape.type != KvType::kF16) continue;
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    for (const auto& [sinks, window] : kSinksAndWindows) {
      ExpectNear(SinksAndWindow(cache, AttentionMath::kBf16, sinks, window),
                 SinksAndWindowReference(cache, sinks, window), F32Tolerance(cache, shape.head_dim));
    }
  }
}

// Rows that attend everything (the last ones of a Tri-shape) have the sums of dense attention, to the bit.
TEST(SinksAndWindow, AWindowOfEverythingIsDenseToTheBit) {
  for (const AttentionMath math : Maths()) {
    for (const Shape& shape : Shapes()) {
      SCOPED_TRACE(Name(shape));
      const TestCache cache = RandomCache(shape);
      std::vector<float> dense;
      const AttentionProblem problem = cache.Problem(dense);
      PackedHeads packed(cache, math);
      std::vector<const std::byte*> heads;
      for (int head = 0; head < problem.n_heads; head += problem.n_heads / problem.n_kv_heads) {
        heads.push_back(packed.Of(problem, head));
      }
      AlignedBytes scratch(PrefillScratchBytes(problem.head_dim, math));
      for (int64_t item = 0; item < PrefillItemCount(problem); ++item) {
        PrefillAttentionItem(problem, math, heads.data(), item, scratch.data());
      }
      EXPECT_EQ(SinksAndWindow(cache, math, 3, cache.n_keys()), dense);
    }
  }
}

struct Lines {
  std::vector<int32_t> columns, slashes;
};

/// Lines at random: some columns, a wide band, a narrow one and lone slashes.
Lines LinesOf(int64_t n_keys, int head) {
  std::mt19937 random(static_cast<uint32_t>(head + 7));
  std::set<int32_t> columns, slashes;
  for (int i = 0; i < n_keys / 20; ++i) columns.insert(static_cast<int32_t>(random() % n_keys));
  if (head % 2 == 0) {
    for (int32_t s = 0; s < std::min<int64_t>(n_keys, 23); ++s) slashes.insert(s);
  }
  for (int32_t s = 100; s < std::min<int64_t>(n_keys, 105); ++s) slashes.insert(s);
  for (int32_t s = 150; s < std::min<int64_t>(n_keys, 150 + kMinBandSlashes); ++s) slashes.insert(s);
  for (int i = 0; i < n_keys / 40; ++i) slashes.insert(static_cast<int32_t>(random() % n_keys));
  return {{columns.begin(), columns.end()}, {slashes.begin(), slashes.end()}};
}

bool OnLines(const Lines& lines, int64_t position, int64_t key) {
  return std::binary_search(lines.columns.begin(), lines.columns.end(), key) ||
         std::binary_search(lines.slashes.begin(), lines.slashes.end(), position - key);
}

std::vector<float> RunLines(const TestCache& cache, AttentionMath math) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  PackedHeads packed(cache, math);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  ForBlocks(problem, [&](const RowBlock& block) {
    const Lines lines = LinesOf(cache.n_keys(), block.head);
    const PackedLines ready(cache.views()[static_cast<size_t>(block.head / (problem.n_heads / problem.n_kv_heads))],
                            lines.columns, lines.slashes, math);
    AttendLines(problem, math, packed.Of(problem, block.head), block, ready, scratch.data());
  });
  return out;
}

std::vector<float> LinesReference(const TestCache& cache) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  MaskedAttentionReference(problem, [&](int head, int64_t row, int64_t key) {
    const Lines lines = LinesOf(cache.n_keys(), head);
    const int64_t position = problem.first_position + row;
    if (OnLines(lines, position, key)) return true;
    if (key != position) return false;
    for (int64_t t = 0; t <= position; ++t) {
      if (OnLines(lines, position, t)) return false;
    }
    return true;  // no line meets the row: its own key
  });
  return out;
}

TEST(SparseLines, AreTheMaskedReferenceOnEveryTarget) {
  for (const Shape& shape : {MakeShape(2, 1, 64, 100, 0), MakeShape(2, 2, 64, 40, 300), MakeShape(2, 1, 128, 30, 200),
                             MakeShape(1, 1, 8, 30, 0), MakeShape(2, 1, 64, 40, 200, KvType::kQ8_0)}) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    const std::vector<float> expected = LinesReference(cache);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      ExpectNear(RunLines(cache, AttentionMath::kF32), expected, F32Tolerance(cache, shape.head_dim));
    });
  }
}

TEST(SparseLines, InBf16AreTheMaskedReferenceWhereNothingRounds) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : {MakeShape(2, 1, 64, 100, 0), MakeShape(2, 2, 64, 40, 300)}) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    ExpectNear(RunLines(cache, AttentionMath::kBf16), LinesReference(cache), F32Tolerance(cache, shape.head_dim));
  }
}

// Keys with a large common part: bf16 tiles hold them without it, lone slashes read them with it, and both must agree.
TEST(SparseLines, CommonPartOfTheKeysIsTheSameForTilesAndLoneSlashes) {
  const Shape shape = MakeShape(2, 1, 64, 60, 240);
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const TestCache cache(shape, 0.125f, [&](char kind, int, int64_t, int lane) {
    return normal(random) + (kind == 'k' && lane % 2 == 0 ? 30.0f : 0.0f);
  });
  const std::vector<float> expected = LinesReference(cache);
  for (const AttentionMath math : Maths()) {
    // bf16: scores of about 1 to 3 err by 2^-9 of it, weights as much, values another 2^-9 of at most 4.
    ExpectNear(RunLines(cache, math), expected, math == AttentionMath::kBf16 ? 0.1 : 2e-3);
  }
}

TEST(SparseLines, CoverageIsTheWeightOnThem) {
  const Shape shape = MakeShape(1, 1, 64, 10, 300);
  const TestCache cache = RandomCache(shape);
  const Lines lines = LinesOf(310, 0);
  const PackedLines ready(cache.views()[0], lines.columns, lines.slashes, AttentionMath::kF32);
  std::vector<float> weights(310);
  for (size_t t = 0; t < weights.size(); ++t) weights[t] = static_cast<float>(t % 7);
  double expected = 0;
  for (int64_t t = 0; t <= 305; ++t) expected += OnLines(lines, 305, t) ? weights[static_cast<size_t>(t)] : 0;
  EXPECT_FLOAT_EQ(ready.Coverage(weights.data(), 305), static_cast<float>(expected));
}

std::vector<float> ColumnsAndTiles(const TestCache& cache, AttentionMath math, uint32_t share) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  PackedHeads packed(cache, math);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  ForBlocks(problem, [&](const RowBlock& block) {
    const PackedLines lines(cache.views()[static_cast<size_t>(block.head / (problem.n_heads / problem.n_kv_heads))],
                            LinesOf(cache.n_keys(), block.head).columns, {}, math);
    AttendColumnsAndTiles(problem, math, packed.Of(problem, block.head), block, lines, TilesOf(problem, block, share),
                          scratch.data());
  });
  return out;
}

std::vector<float> ColumnsAndTilesReference(const TestCache& cache, uint32_t share) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  MaskedAttentionReference(problem, [&](int head, int64_t row, int64_t key) {
    const std::vector<int32_t> columns = LinesOf(cache.n_keys(), head).columns;
    if (std::binary_search(columns.begin(), columns.end(), key)) return true;
    const int64_t first = row / kMaxBlockRows * kMaxBlockRows;
    const RowBlock block = {head, first, static_cast<int>(std::min<int64_t>(kMaxBlockRows, problem.n_rows - first))};
    const std::vector<int32_t> tiles = TilesOf(problem, block, share);
    return std::binary_search(tiles.begin(), tiles.end(), key / kChoiceTileKeys);
  });
  return out;
}

TEST(SparseColumnsAndTiles, AreTheMaskedReferenceOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    for (const uint32_t share : {0u, 35u, 100u}) {
      const std::vector<float> expected = ColumnsAndTilesReference(cache, share);
      ForEveryTarget([&](const char* target) {
        SCOPED_TRACE(target);
        ExpectNear(ColumnsAndTiles(cache, AttentionMath::kF32, share), expected, F32Tolerance(cache, shape.head_dim));
      });
    }
  }
}

TEST(SparseColumnsAndTiles, InBf16AreTheMaskedReferenceWhereNothingRounds) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : {MakeShape(2, 1, 64, 100, 0), MakeShape(2, 2, 64, 97, 700)}) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    ExpectNear(ColumnsAndTiles(cache, AttentionMath::kBf16, 35), ColumnsAndTilesReference(cache, 35),
               F32Tolerance(cache, shape.head_dim));
  }
}

}  // namespace
}  // namespace loopserve
