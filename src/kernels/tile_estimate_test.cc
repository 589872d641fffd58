// Tile estimates against the definition written out, on every SIMD target of this build and CPU.
#include "src/kernels/tile_estimate.h"

#include "src/kernels/every_target.h"
#include "src/kernels/test_attention.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

/// The estimate by its definition, in f64; and the largest sum of |products| of any score, in units of the softmax.
struct Plain {
  std::vector<double> mass;
  double magnitude = 0;
};

Plain PlainEstimate(const AttentionProblem& problem, int head, std::span<const int64_t> rows) {
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  const auto dim = static_cast<size_t>(problem.head_dim);
  Plain plain;
  for (const int64_t row : rows) {
    const float* q = problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim;
    std::vector<double> scores;
    for (int64_t first = 0; first <= problem.first_position + row; first += kChoiceTileKeys) {
      const int64_t last = std::min(kv.n_keys, first + kChoiceTileKeys);
      std::vector<double> mean(dim, 0.0), low(dim, HUGE_VAL), high(dim, -HUGE_VAL);
      std::vector<float> key(dim);
      for (int64_t t = first; t < last; ++t) {
        LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
        for (size_t i = 0; i < dim; ++i) {
          mean[i] += double{key[i]} / static_cast<double>(last - first);
          low[i] = std::min<double>(low[i], key[i]);
          high[i] = std::max<double>(high[i], key[i]);
        }
      }
      double of_mean = 0, bound = 0, magnitude = 0;
      for (size_t i = 0; i < dim; ++i) {
        of_mean += q[i] * mean[i];
        bound += std::max(q[i] * low[i], q[i] * high[i]);
        magnitude += std::abs(q[i]) * (std::max(std::abs(low[i]), std::abs(high[i])) + high[i] - low[i]);
      }
      scores.push_back(problem.scale * (of_mean + kTileReach * (bound - of_mean)));
      plain.magnitude = std::max(plain.magnitude, problem.scale * magnitude);
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const double score : scores) sum += std::exp(score - max);
    plain.mass.resize(scores.size(), 0.0);
    for (size_t t = 0; t < scores.size(); ++t) plain.mass[t] += std::exp(scores[t] - max) / sum;
  }
  return plain;
}

/// `relative` of a score's magnitude is what a score may err by; a weight by twice that.
void ExpectEstimate(const TestCache& cache, AttentionMath math, double relative) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  std::vector<int64_t> rows;  // more than a register tile, ascending
  for (int64_t row = 0; row < problem.n_rows; row += 1 + problem.n_rows / 8) rows.push_back(row);
  for (int head = 0; head < problem.n_heads; ++head) {
    TileSummaries tiles(problem.kv[head / (problem.n_heads / problem.n_kv_heads)], math);
    ASSERT_EQ(tiles.n_tiles(), ChoiceTiles(cache.n_keys()));
    const int64_t middle = tiles.n_tiles() / 2;
    tiles.Summarize(middle, tiles.n_tiles());
    tiles.Summarize(0, middle);
    const int64_t groups = middle / kPackGroupKeys * kPackGroupKeys;
    tiles.Pack(groups, tiles.n_tiles());
    tiles.Pack(0, groups);
    const Plain expected = PlainEstimate(problem, head, rows);
    std::vector<float> mass(expected.mass.size(), NAN);
    TileEstimate(problem, math, tiles, head, rows, mass.data(), scratch.data());
    const double tolerance = std::expm1(2 * (relative * expected.magnitude + 2.5e-7)) + 1e-5;  // 1e-5: the sums' own
    for (size_t t = 0; t < mass.size(); ++t) {
      ASSERT_NEAR(mass[t], expected.mass[t], tolerance * expected.mass[t]) << "head " << head << " tile " << t;
    }
  }
}

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  const auto add = [&](int n_heads, int n_kv_heads, int head_dim, int64_t n_rows, int64_t first, KvType type) {
    Shape shape;
    shape.n_heads = n_heads;
    shape.n_kv_heads = n_kv_heads;
    shape.head_dim = head_dim;
    shape.n_rows = n_rows;
    shape.first_position = first;
    shape.type = type;
    shapes.push_back(shape);
  };
  add(3, 1, 64, 100, 0, KvType::kF16);    // several query heads of one KV head
  add(4, 2, 64, 97, 701, KvType::kF16);   // rows that begin and end within tiles
  add(2, 1, 64, 96, 5000, KvType::kF16);  // several steps of tiles
  add(1, 1, 80, 33, 95, KvType::kF16);
  add(1, 1, 8, 5, 0, KvType::kF16);       // less than a tile
  add(1, 1, 256, 20, 411, KvType::kF16);  // as long as one part may be
  add(1, 1, 512, 20, 300, KvType::kF16);  // in two parts
  add(2, 1, 64, 90, 512, KvType::kQ8_0);
  return shapes;
}

// Summaries are kept in f16 (2^-11), the rest is a sum of 2 head_dim products.
TEST(TileEstimateTest, IsTheDefinitionOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      ExpectEstimate(cache, AttentionMath::kF32, std::ldexp(1.0, -11) + (2 * shape.head_dim + 3) * FLT_EPSILON / 2);
    });
  }
}

// Both factors of a product are rounded to bf16 (2^-9 each), summaries after they lost what all have in common, which
// at most doubles them.
TEST(TileEstimateTest, InBf16IsTheDefinitionUpToItsRounding) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    ExpectEstimate(RandomCache(shape), AttentionMath::kBf16, 3 * std::ldexp(1.0, -9) + std::ldexp(1.0, -11));
  }
}

// What is not a number in a key shows in the estimate, so that the choice can fall back on everything.
TEST(TileEstimateTest, NaNIsNotHidden) {
  Shape shape = Shapes()[1];
  for (const AttentionMath math : {AttentionMath::kF32, AttentionMath::kBf16}) {
    if (math == AttentionMath::kBf16 && !CpuHasNativeBf16()) continue;
    for (const float bad : {NAN, HUGE_VALF}) {
      const TestCache cache(shape, 0.125f, [&](char kind, int, int64_t token, int lane) {
        return kind == 'k' && token == 333 && lane == 5 ? bad : static_cast<float>(lane % 3) - 1.0f;
      });
      std::vector<float> out;
      const AttentionProblem problem = cache.Problem(out);
      TileSummaries tiles(problem.kv[0], math);
      tiles.Summarize(0, tiles.n_tiles());
      tiles.Pack(0, tiles.n_tiles());
      AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
      const std::vector<int64_t> rows = {10};
      std::vector<float> mass(static_cast<size_t>(ChoiceTiles(problem.first_position + 11)));
      TileEstimate(problem, math, tiles, 0, rows, mass.data(), scratch.data());
      EXPECT_FALSE(std::isfinite(std::accumulate(mass.begin(), mass.end(), 0.0)));
    }
  }
}

}  // namespace
}  // namespace loopserve
