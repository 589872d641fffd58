#include "src/kernels/page_bounds.h"

#include <cfloat>
#include <numbers>

#include "src/kernels/every_target.h"
#include "src/kernels/key_list.h"
#include "src/kernels/test_attention.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

Shape MakeShape(int n_heads, int head_dim, int64_t n_keys, KvType type = KvType::kF16) {
  Shape shape;
  shape.n_heads = n_heads;
  shape.head_dim = head_dim;
  shape.first_position = n_keys - 1;
  shape.type = type;
  return shape;
}

std::vector<Shape> Shapes() {
  return {MakeShape(1, 64, 700),
          MakeShape(4, 64, 333),
          MakeShape(3, 80, 130),
          MakeShape(2, 8, 16),
          MakeShape(4, 256, 200),
          MakeShape(1, 512, 40),
          MakeShape(2, 64, 150, KvType::kQ8_0)};
}

std::vector<std::byte> BoundsOf(const KvHeadView& kv) {
  const size_t bytes = PageBoundsBytes(kv.head_dim);
  std::vector<std::byte> bounds(static_cast<size_t>(kv.n_keys / kPageKeys) * bytes);
  for (int64_t page = 0; page < kv.n_keys / kPageKeys; ++page) {
    StorePageBounds(kv, page, bounds.data() + static_cast<size_t>(page) * bytes);
  }
  return bounds;
}

// The published formula, element by element in f64, and the sum of magnitudes that bounds its rounding in f32.
struct PlainBound {
  double bound = 0, magnitude = 0;
};
PlainBound PlainBoundOf(const KvHeadView& kv, const float* q, float scale, int64_t page) {
  std::vector<float> key(static_cast<size_t>(kv.head_dim)), low(key.size(), FLT_MAX), high(key.size(), -FLT_MAX);
  for (int64_t t = page * kPageKeys; t < (page + 1) * kPageKeys; ++t) {
    LoadKvRow(kv.type, kv.Key(t), kv.head_dim, key.data());
    for (size_t i = 0; i < key.size(); ++i) {
      low[i] = std::min(low[i], key[i]);
      high[i] = std::max(high[i], key[i]);
    }
  }
  PlainBound plain;
  for (size_t i = 0; i < key.size(); ++i) {
    const double most = std::max(double{q[i]} * low[i], double{q[i]} * high[i]);
    plain.bound += most * scale * std::numbers::log2e;
    plain.magnitude += std::abs(most * scale * std::numbers::log2e);
  }
  return plain;
}

TEST(PageBoundsTest, AreThePublishedFormulaOnEveryTarget) {
  for (const Shape& shape : Shapes()) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    const KvHeadView& kv = cache.views()[0];
    const std::vector<std::byte> bounds = BoundsOf(kv);
    const int64_t n_pages = kv.n_keys / kPageKeys;
    const int64_t stride = (n_pages + 3) / 4 * 4 + 4;
    std::vector<std::vector<float>> split(static_cast<size_t>(shape.n_heads));
    std::vector<const float*> queries;
    for (int head = 0; head < shape.n_heads; ++head) {
      std::vector<float>& target = split[static_cast<size_t>(head)];
      target.resize(2 * static_cast<size_t>(shape.head_dim));
      SplitQuery(problem.q + int64_t{head} * shape.head_dim, shape.head_dim, target.data());
      queries.push_back(target.data());
    }
    // A sum of n products errs by at most n eps of their magnitudes (n: half of the 2 head_dim products are zero, but
    // their additions are not free of it), plus 2 eps of the folded scale; bounds of q8_0 keys by 2^-11 of f16.
    const double relative =
        (2 * shape.head_dim + 2) * FLT_EPSILON / 2 + (shape.type == KvType::kF16 ? 0.0 : std::exp2(-11));
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      std::vector<float> scores(static_cast<size_t>(stride * shape.n_heads), TestCache::kUntouched);
      ScorePages(bounds.data(), shape.head_dim, n_pages, queries.data(), shape.n_heads, problem.scale, scores.data(),
                 stride);
      for (int head = 0; head < shape.n_heads; ++head) {
        for (int64_t page = 0; page < n_pages; ++page) {
          const PlainBound plain = PlainBoundOf(kv, problem.q + int64_t{head} * shape.head_dim, problem.scale, page);
          EXPECT_NEAR(scores[static_cast<size_t>(head * stride + page)], plain.bound, relative * plain.magnitude)
              << head << " " << page;
        }
      }
    });
  }
}

TEST(PageBoundsTest, NoKeyOfAPageScoresHigher) {
  const Shape shape = MakeShape(3, 64, 640);
  const TestCache cache = RandomCache(shape);
  std::vector<float> unused;
  const AttentionProblem problem = cache.Problem(unused);
  const std::vector<std::byte> bounds = BoundsOf(cache.views()[0]);
  for (int head = 0; head < shape.n_heads; ++head) {
    const float* q = problem.q + int64_t{head} * shape.head_dim;
    std::vector<float> split(128), of_pages(40), of_keys(640);
    SplitQuery(q, 64, split.data());
    const float* split_q = split.data();
    ScorePages(bounds.data(), 64, 40, &split_q, 1, problem.scale, of_pages.data(), 40);
    ScoreKeys(cache.views()[0], &q, 1, problem.scale, 640, of_keys.data(), 640);
    for (size_t t = 0; t < 640; ++t) EXPECT_LE(of_keys[t], of_pages[t / kPageKeys] + 1e-4) << t;
  }
}

// What is not a number must not hide in a page that is never read.
TEST(PageBoundsTest, NanShowsInTheBound) {
  for (const int64_t bad : {0, 7, 15}) {
    const TestCache cache(MakeShape(1, 8, 32), 1.0f, [&](char kind, int, int64_t token, int lane) {
      return kind == 'k' && token == bad && lane == 3 ? NAN : 1.0f;
    });
    const std::vector<std::byte> bounds = BoundsOf(cache.views()[0]);
    float split[16], scores[4];
    SplitQuery(cache.q().data(), 8, split);
    const float* q = split;
    ScorePages(bounds.data(), 8, 2, &q, 1, 1.0f, scores, 4);
    EXPECT_TRUE(std::isnan(scores[0]));
    EXPECT_NEAR(scores[1], 8 * std::numbers::log2e, 1e-5);
  }
}

}  // namespace
}  // namespace loopserve
