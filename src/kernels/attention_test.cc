// Every fast path against AttentionReference, on every SIMD target of this build and CPU.
#include "src/kernels/attention.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "src/kernels/every_target.h"
#include "src/kernels/test_attention.h"
#include "src/kernels/test_cache.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

enum class Order { kForward, kBackward, kShuffled };

std::vector<float> Prefill(const TestCache& cache, AttentionMath math, Order order = Order::kForward) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  const size_t bytes = PackedKvBytes(problem.head_dim, cache.n_keys(), math);
  std::vector<AlignedBytes> buffers;
  std::vector<const std::byte*> packed;
  for (int head = 0; head < problem.n_kv_heads; ++head) {
    AlignedBytes& buffer = buffers.emplace_back(bytes);
    std::fill_n(buffer.data(), bytes, std::byte{0xFF});  // NaN, lest the padding goes unwritten
    for (int64_t key = 0; key < cache.n_keys(); key += 3 * kPackGroupKeys) {
      PackKv(problem.kv[head], key, std::min(cache.n_keys(), key + 3 * kPackGroupKeys), math, buffer.data());
    }
  }
  for (AlignedBytes& buffer : buffers) packed.push_back(buffer.data());
  AlignedBytes scratch(PrefillScratchBytes(problem.head_dim, math));
  std::vector<int64_t> items(static_cast<size_t>(PrefillItemCount(problem)));
  std::iota(items.begin(), items.end(), 0);
  if (order == Order::kBackward) std::reverse(items.begin(), items.end());
  if (order == Order::kShuffled) std::shuffle(items.begin(), items.end(), std::mt19937(3));
  for (const int64_t item : items) PrefillAttentionItem(problem, math, packed.data(), item, scratch.data());
  return out;
}

std::vector<float> Decode(const TestCache& cache, int n_parts) {
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  AlignedBytes partials(DecodePartialBytes(problem, n_parts));
  for (int part = n_parts - 1; part >= 0; --part) DecodeAttentionPartial(problem, part, n_parts, partials.data());
  for (int head = 0; head < problem.n_heads; ++head) {
    DecodeAttentionMerge(problem, n_parts, head, head + 1, partials.data());
  }
  return out;
}

std::vector<float> Reference(const TestCache& cache) {
  std::vector<float> out;
  AttentionReference(cache.Problem(out));
  return out;
}

// bf16: rounding is u = 2^-9 relative. Q and K being rounded, the error of a score is a sum of head_dim independent
// terms of standard deviation u * sqrt(2 / 3) * |q_i k_i| * scale, about u * score / sqrt(head_dim) for random vectors;
// six sigmas of it. V and the weights add u each, the exponential 9e-5.
double Bf16Tolerance(const TestCache& cache, int head_dim) {
  constexpr double kRounding = 1.0 / 512;
  const Norms norms = NormsOf(cache);
  return norms.value * (2 * kRounding + 9e-5 + 6 * kRounding * norms.score / std::sqrt(static_cast<double>(head_dim))) +
         F32Tolerance(cache, head_dim);
}

Shape MakeShape(int n_heads, int n_kv_heads, int head_dim, int64_t n_rows, int64_t first_position, int64_t window = 0,
                KvType type = KvType::kF16) {
  Shape shape;
  shape.n_heads = n_heads;
  shape.n_kv_heads = n_kv_heads;
  shape.head_dim = head_dim;
  shape.n_rows = n_rows;
  shape.first_position = first_position;
  shape.window = window;
  shape.type = type;
  return shape;
}

const std::vector<Shape>& PrefillShapes() {
  static const std::vector<Shape> shapes = {
      MakeShape(1, 1, 64, 1, 0),
      MakeShape(1, 1, 64, 5, 0),
      MakeShape(3, 1, 64, 300, 0),
      MakeShape(9, 3, 64, 77, 450),
      MakeShape(7, 1, 64, 101, 13),
      MakeShape(14, 2, 64, 23, 300),
      MakeShape(4, 1, 256, 67, 200),
      MakeShape(8, 1, 128, 45, 500),
      MakeShape(8, 2, 32, 130, 1),
      MakeShape(3, 3, 80, 71, 255),
      MakeShape(4, 4, 96, 66, 256),
      MakeShape(3, 1, 112, 33, 700),
      MakeShape(2, 1, 40, 50, 90),
      MakeShape(2, 1, 72, 50, 90),
      MakeShape(30, 1, 64, 9, 70),
      MakeShape(1, 1, 512, 20, 50),
      MakeShape(4, 1, 256, 150, 400, 64),
      MakeShape(3, 1, 64, 290, 0, 100),
      MakeShape(9, 3, 64, 40, 900, 513),
      MakeShape(2, 2, 32, 40, 300, 1),
      MakeShape(3, 1, 64, 90, 40, 0, KvType::kQ8_0),
      MakeShape(4, 2, 96, 31, 300, 50, KvType::kQ8_0),
  };
  return shapes;
}

std::vector<Shape> DecodeShapes() {
  std::vector<Shape> shapes;
  for (const int64_t n_rows : {1, 3, 8}) {
    for (const int64_t window : {0, 37}) {
      for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
        shapes.push_back(MakeShape(9, 3, 64, n_rows, 400, window, type));
        shapes.push_back(MakeShape(7, 1, 64, n_rows, 133, window, type));
        shapes.push_back(MakeShape(4, 1, 256, n_rows, 70, window, type));
        shapes.push_back(MakeShape(8, 1, 128, n_rows, 95, window, type));
        shapes.push_back(MakeShape(2, 2, 32, n_rows, 0, window, type));
        shapes.push_back(MakeShape(5, 1, 96, n_rows, 63, window, type));
      }
      shapes.push_back(MakeShape(3, 3, 80, n_rows, 200, window));
      shapes.push_back(MakeShape(6, 1, 40, n_rows, 64, window));
      shapes.push_back(MakeShape(4, 2, 112, n_rows, 129, window));
    }
  }
  return shapes;
}

TEST(Prefill, F32IsTheReferenceOnEveryTarget) {
  for (const Shape& shape : PrefillShapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    const std::vector<float> expected = Reference(cache);
    const double tolerance = F32Tolerance(cache, shape.head_dim);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      ExpectNear(Prefill(cache, AttentionMath::kF32), expected, tolerance);
    });
  }
}

TEST(Prefill, Bf16IsTheReferenceWithinItsRounding) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (const Shape& shape : PrefillShapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    ExpectNear(Prefill(cache, AttentionMath::kBf16), Reference(cache), Bf16Tolerance(cache, shape.head_dim));
  }
}

TEST(Prefill, Bf16IsExactWhereNothingRounds) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  for (Shape shape : PrefillShapes()) {
    if (shape.type != KvType::kF16) continue;
    SCOPED_TRACE(Name(shape));
    const TestCache cache = LatticeCache(shape);
    ExpectNear(Prefill(cache, AttentionMath::kBf16), Reference(cache), F32Tolerance(cache, shape.head_dim));
  }
}

// Qwen2's keys share a vector many times as large as their differences. Rounding the whole would move a score by
// about 2^-9 * 400 * 8 * scale = 0.8; rounding the differences moves it as in the case without a shared vector.
TEST(Prefill, Bf16KeepsWhatTellsKeysApart) {
  if (!CpuHasNativeBf16()) GTEST_SKIP() << "this CPU has no AVX512_BF16";
  const Shape shape = MakeShape(2, 1, 64, 40, 200);
  const auto make = [&](float shared) {
    auto random = std::make_shared<std::mt19937>(11);
    return TestCache(shape, 0.125f, [random, shared](char kind, int, int64_t, int lane) {
      const float x = std::normal_distribution<float>()(*random);
      return kind == 'k' ? x + (lane % 2 == 0 ? shared : -shared) : x;
    });
  };
  const double tolerance = Bf16Tolerance(make(0), shape.head_dim);
  const TestCache cache = make(400);
  ExpectNear(Prefill(cache, AttentionMath::kBf16), Reference(cache), tolerance);
}

TEST(Prefill, KeysBeyondTheRowsAreNotRead) {
  Shape shape = MakeShape(3, 1, 64, 50, 100);
  shape.extra_keys = 30;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const TestCache cache(
      shape, 0.125f, [&](char, int, int64_t t, int) { return t >= 150 ? 1000.0f * normal(random) : normal(random); });
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ExpectNear(Prefill(cache, AttentionMath::kF32), Reference(cache), 1e-4);
  });
  if (CpuHasNativeBf16()) ExpectNear(Prefill(cache, AttentionMath::kBf16), Reference(cache), 0.06);
}

std::vector<AttentionMath> Maths() {
  if (CpuHasNativeBf16()) return {AttentionMath::kF32, AttentionMath::kBf16};
  return {AttentionMath::kF32};
}

TEST(Prefill, OrderOfItemsDoesNotChangeABit) {
  for (const Shape& shape : {MakeShape(9, 3, 64, 300, 37), MakeShape(4, 1, 256, 150, 400, 64)}) {
    const TestCache cache = RandomCache(shape);
    for (const AttentionMath math : Maths()) {
      const std::vector<float> forward = Prefill(cache, math);
      EXPECT_EQ(forward, Prefill(cache, math, Order::kBackward));
      EXPECT_EQ(forward, Prefill(cache, math, Order::kShuffled));
    }
  }
}

// A prompt computed in two turns gives each row the bits that one turn gives it.
TEST(Prefill, RowsComputedTogetherDoNotChangeABit) {
  for (const int64_t window : {0, 70}) {
    const Shape whole = MakeShape(9, 3, 64, 400, 0, window);
    Shape tail = MakeShape(9, 3, 64, 33, 367, window);
    const auto fill = [](char kind, int head, int64_t t, int lane) {
      return std::sin(static_cast<float>((kind * 31 + head) * 977 + t * 131 + lane * 7));
    };
    const TestCache whole_cache(whole, 0.5f, fill);
    const TestCache tail_cache(tail, 0.5f, [&](char kind, int head, int64_t t, int lane) {
      return fill(kind, head, kind == 'q' ? t + 367 : t, lane);
    });
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      for (const AttentionMath math : Maths()) {
        const std::vector<float> all = Prefill(whole_cache, math);
        const std::vector<float> last = Prefill(tail_cache, math);
        EXPECT_TRUE(std::equal(last.begin(), last.end(), all.end() - static_cast<ptrdiff_t>(last.size())));
      }
    });
  }
}

TEST(Decode, IsTheReferenceOnEveryTargetInAnyNumberOfParts) {
  for (const Shape& shape : DecodeShapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    const std::vector<float> expected = Reference(cache);
    const double tolerance = F32Tolerance(cache, shape.head_dim);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      for (const int n_parts : {1, 2, 3, 5}) {
        SCOPED_TRACE(n_parts);
        ExpectNear(Decode(cache, n_parts), expected, tolerance);
      }
    });
  }
}

TEST(Decode, MorePartsThanKeys) {
  for (const int64_t first_position : {0, 2, 40}) {
    const TestCache cache = RandomCache(MakeShape(4, 2, 64, 2, first_position));
    ExpectNear(Decode(cache, 100), Reference(cache), F32Tolerance(cache, 64));
  }
}

// Scores of 1e4 and more: nothing overflows, and all the weight falls on the largest.
TEST(Extremes, HugeScores) {
  const Shape shape = MakeShape(3, 1, 64, 40, 300);
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (const float scale : {1e3f, -1e3f, 1e30f}) {
    const TestCache cache(shape, scale, [&](char, int, int64_t, int) { return normal(random); });
    const std::vector<float> expected = Reference(cache);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      ExpectNear(Prefill(cache, AttentionMath::kF32), expected, scale == 1e30f ? 1e-5 : 1e-1);
      ExpectNear(Decode(cache, 3), expected, scale == 1e30f ? 1e-5 : 1e-1);
    });
    if (!CpuHasNativeBf16()) continue;
    for (const float x : Prefill(cache, AttentionMath::kBf16)) EXPECT_TRUE(std::isfinite(x));
  }
}

// Lets the rows of query head 0 be `bad` in one lane; the other heads' rows must not notice, and nothing may crash.
void ExpectOthersUntouched(float bad, bool is_nan) {
  const Shape shape = MakeShape(3, 1, 64, 30, 300);
  const auto fill = [](char kind, int head, int64_t t, int lane) {
    if (kind == 'k' && lane == 0) return 1.0f;
    return std::sin(static_cast<float>((kind * 31 + head) * 977 + t * 131 + lane * 7));
  };
  const TestCache clean(shape, 0.125f, fill);
  const TestCache dirty(shape, 0.125f, [&](char kind, int head, int64_t t, int lane) {
    return kind == 'q' && head == 0 && lane == 0 ? bad : fill(kind, head, t, lane);
  });
  const auto check = [&](const std::vector<float>& expected, const std::vector<float>& actual) {
    for (int64_t row = 0; row < shape.n_rows; ++row) {
      const auto begin = static_cast<ptrdiff_t>(row * clean.OutStride());
      EXPECT_TRUE(
          std::equal(expected.begin() + begin + 64, expected.begin() + begin + 3 * 64, actual.begin() + begin + 64));
      EXPECT_TRUE(!is_nan || std::isnan(actual[static_cast<size_t>(begin)]));
    }
  };
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const AttentionMath math : Maths()) check(Prefill(clean, math), Prefill(dirty, math));
    check(Decode(clean, 2), Decode(dirty, 2));
  });
}

TEST(Extremes, NanQueryStaysInItsRows) { ExpectOthersUntouched(std::nanf(""), true); }
TEST(Extremes, RowOfMinusInfinity) { ExpectOthersUntouched(-HUGE_VALF, false); }
TEST(Extremes, RowOfPlusInfinity) { ExpectOthersUntouched(HUGE_VALF, true); }

TEST(Items, LongestRowsComeFirstAndEveryShapeHasSome) {
  for (const Shape& shape : PrefillShapes()) {
    const TestCache cache = RandomCache(shape);
    std::vector<float> out;
    EXPECT_GE(PrefillItemCount(cache.Problem(out)), 1);
  }
  const TestCache cache = RandomCache(MakeShape(1, 1, 8, 200, 0));
  std::vector<float> out;
  const AttentionProblem problem = cache.Problem(out);
  AlignedBytes buffer(PackedKvBytes(8, 200, AttentionMath::kF32));
  PackKv(problem.kv[0], 0, 200, AttentionMath::kF32, buffer.data());
  const std::byte* packed = buffer.data();
  AlignedBytes scratch(PrefillScratchBytes(8, AttentionMath::kF32));
  PrefillAttentionItem(problem, AttentionMath::kF32, &packed, 0, scratch.data());
  EXPECT_NE(out[static_cast<size_t>(199 * cache.OutStride())], TestCache::kUntouched);
  EXPECT_EQ(out[0], TestCache::kUntouched);
}

}  // namespace
}  // namespace loopserve
