// Antidiagonal estimates against the definition written out, on every SIMD target of this build and CPU.
#include "src/kernels/antidiagonal.h"

#include "src/kernels/every_target.h"
#include "src/kernels/test_attention.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

/// The softmax over key groups up to its own of one row group's antidiagonal means, in f64.
std::vector<double> PlainWeights(const AttentionProblem& problem, int stride, int head, int64_t group) {
  const KvHeadView& kv = problem.kv[head / (problem.n_heads / problem.n_kv_heads)];
  std::vector<float> key(static_cast<size_t>(problem.head_dim));
  std::vector<double> weights;
  for (int64_t g = 0; g <= group; ++g) {
    double sum = 0;
    for (int i = 0; i < stride; ++i) {
      const int64_t row = group * stride + stride - 1 - i - problem.first_position;
      const int64_t t = g * stride + i;
      if (row < 0 || row >= problem.n_rows || t >= kv.n_keys) continue;
      LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
      sum += std::inner_product(key.begin(), key.end(),
                                problem.q + row * problem.q_row_stride + int64_t{head} * problem.head_dim, 0.0);
    }
    weights.push_back(sum * problem.scale / stride);
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - max);
  for (double& weight : weights) weight /= sum;
  return weights;
}

/// Holds every row group of every head to the definition; `relative` of a weight.
void ExpectGroupWeights(const TestCache& cache, AttentionMath math, int stride, double relative) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  AlignedBytes scratch(SparseScratchBytes(problem.head_dim, cache.n_keys(), math));
  for (int head = 0; head < problem.n_heads; ++head) {
    const GroupedKeys keys(problem.kv[head / (problem.n_heads / problem.n_kv_heads)], stride, math);
    ASSERT_EQ(keys.n_groups(), (cache.n_keys() + stride - 1) / stride);
    const int64_t weights_stride = (keys.n_groups() + 63) / 64 * 64;
    for (int64_t first = problem.first_position / stride; first < keys.n_groups(); first += kMaxSampledRows) {
      const int n = static_cast<int>(std::min<int64_t>(kMaxSampledRows, keys.n_groups() - first));
      std::vector<float> weights(static_cast<size_t>(n * weights_stride), NAN);
      GroupWeights(problem, math, keys, head, first, n, weights.data(), weights_stride, scratch.data());
      for (int i = 0; i < n; ++i) {
        const std::vector<double> expected = PlainWeights(problem, stride, head, first + i);
        const float* actual = weights.data() + i * weights_stride;
        for (size_t g = 0; g < expected.size(); ++g) {
          ASSERT_NEAR(actual[g], expected[g], relative * expected[g]) << "head " << head << " group " << first + i;
        }
        const int64_t padded = (first + n + 63) / 64 * 64;
        for (auto g = static_cast<int64_t>(expected.size()); g < padded; ++g) ASSERT_EQ(actual[g], 0.0f);
      }
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
  add(4, 2, 64, 97, 701, KvType::kF16);   // a turn that begins and ends within groups
  add(1, 1, 128, 70, 600, KvType::kF16);  // groups in parts
  add(1, 1, 80, 33, 95, KvType::kF16);
  add(1, 1, 8, 5, 0, KvType::kF16);       // fewer rows than a group
  add(2, 1, 64, 96, 5000, KvType::kF16);  // several steps of keys
  add(2, 1, 64, 90, 512, KvType::kQ8_0);
  return shapes;
}

TEST(AntidiagonalTest, AreTheDefinitionOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    for (const int stride : {4, 8, 16}) {
      SCOPED_TRACE(stride);
      // An antidiagonal sums head_dim * stride products (the mean's scale undoes the stride), a weight's relative error
      // is twice that of a score (its own and the sum's), and exp2 adds 2.5e-7 to both.
      const double tolerance = 2 * ((shape.head_dim * stride + 3) * (FLT_EPSILON / 2) * NormsOf(cache).score + 2.5e-7) +
                               static_cast<double>(cache.n_keys()) * FLT_EPSILON / 2;
      ForEveryTarget([&](const char* target) {
        SCOPED_TRACE(target);
        ExpectGroupWeights(cache, AttentionMath::kF32, stride, tolerance);
      });
    }
  }
}

// Products are exact in bf16 here but for what the packing takes out of all keys: of few groups, by chance, something.
// Then a score errs by a bf16 rounding (2^-9) of each factor of its products, and a weight by twice that.
TEST(AntidiagonalTest, InBf16AreTheDefinitionUpToTheRoundingOfKeys) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : Shapes()) {
    if (shape.type != KvType::kF16) continue;
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    const bool is_exact = cache.n_keys() > 4000;
    for (const int stride : {8, 16}) {
      ExpectGroupWeights(cache, AttentionMath::kBf16, stride,
                         is_exact ? 1e-5 : 2 * NormsOf(cache).score * std::ldexp(1.0, -8));
    }
  }
}

}  // namespace
}  // namespace loopserve
