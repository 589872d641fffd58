#include "src/kernels/key_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "src/kernels/every_target.h"
#include "src/kernels/test_attention.h"

namespace loopserve {
namespace {

using namespace loopserve::testing;

Shape MakeShape(int n_heads, int head_dim, int64_t first_position, KvType type = KvType::kF16) {
  Shape shape;
  shape.n_heads = n_heads;
  shape.head_dim = head_dim;
  shape.first_position = first_position;
  shape.type = type;
  return shape;
}

TEST(KeyListTest, PartsOfAListForSeveralQueriesMergeToTheMaskedReference) {
  for (const Shape& shape : {MakeShape(7, 64, 700), MakeShape(9, 64, 333), MakeShape(3, 80, 130),
                             MakeShape(2, 64, 150, KvType::kQ8_0), MakeShape(4, 256, 200)}) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    std::vector<int32_t> keys;
    for (int32_t t = 3; t < cache.n_keys(); t += t % 5 + 1) keys.push_back(t);
    std::vector<float> expected;
    const AttentionProblem reference = cache.Problem(expected);
    MaskedAttentionReference(
        reference, [&](int, int64_t, int64_t key) { return std::binary_search(keys.begin(), keys.end(), key); });
    const size_t partial_floats = KeyListPartialFloats(shape.head_dim) * static_cast<size_t>(shape.n_heads);
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      std::vector<float> out;
      const AttentionProblem problem = cache.Problem(out);
      // Two calls into the first partial, the rest into the second, nothing into the third.
      std::vector<float> partials(3 * partial_floats);
      const auto n = static_cast<int64_t>(keys.size());
      for (size_t part = 0; part < 3; ++part)
        ClearPartials(shape.head_dim, shape.n_heads, partials.data() + part * partial_floats);
      const auto add = [&](int64_t begin, int64_t end, size_t part) {
        AddKeyList(cache.views()[0], problem.q, shape.n_heads, problem.scale, keys.data() + begin, end - begin,
                   partials.data() + part * partial_floats);
      };
      add(0, 1, 0);
      add(1, n / 2, 0);
      add(n / 2, n, 1);
      add(n, n, 2);
      DecodeAttentionMerge(problem, 3, 0, shape.n_heads, reinterpret_cast<const std::byte*>(partials.data()));
      ExpectNear(out, expected, F32Tolerance(cache, shape.head_dim));
    });
  }
}

TEST(KeyListTest, WeightedRowsAddUpInAnyOrderOfMagnitude) {
  const int head_dim = 24;
  const std::vector<float> maxima = {-3.0f, 4.0f, 1.5f};
  std::vector<float> rows(5 * head_dim);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 17) - 8;
  const std::vector<float> weights = {1.0f, 0.0f, 0.25f, 0.5f, 0.125f};
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<float> partial(KeyListPartialFloats(head_dim));
    ClearPartials(head_dim, 1, partial.data());
    std::vector<double> expected(head_dim, 0.0);
    double sum = 0;
    for (const float max : maxima) {
      AddWeightedRows(rows.data(), 5, head_dim, weights.data(), max, partial.data());
      for (size_t r = 0; r < 5; ++r) {
        const double weight = weights[r] * std::exp2(max);
        sum += weight;
        for (size_t i = 0; i < head_dim; ++i) expected[i] += weight * rows[r * head_dim + i];
      }
    }
    const std::vector<float> none(5, 0.0f);
    AddWeightedRows(rows.data(), 5, head_dim, none.data(), 100.0f, partial.data());  // nothing, however large its scale
    EXPECT_EQ(partial[0], 4.0f);
    const double scale = std::exp2(partial[0]);
    EXPECT_NEAR(partial[1] * scale, sum, 1e-5 * sum);
    for (size_t i = 0; i < head_dim; ++i) EXPECT_NEAR(partial[kKeyListHeader + i] * scale, expected[i], 1e-4 * sum);
  });
}

TEST(KeyListTest, ScoresAreTheProductsOnEveryTarget) {
  for (const Shape& shape :
       {MakeShape(4, 64, 200), MakeShape(3, 80, 130), MakeShape(1, 8, 5), MakeShape(2, 64, 70, KvType::kQ8_0)}) {
    SCOPED_TRACE(Name(shape));
    const TestCache cache = RandomCache(shape);
    std::vector<float> unused;
    const AttentionProblem problem = cache.Problem(unused);
    const int64_t n_keys = cache.n_keys() - 1;
    const int64_t stride = (n_keys + 3) / 4 * 4;
    std::vector<float> row(static_cast<size_t>(shape.head_dim));
    ForEveryTarget([&](const char* target) {
      SCOPED_TRACE(target);
      std::vector<const float*> queries;
      for (int head = 0; head < shape.n_heads; ++head) queries.push_back(problem.q + head * shape.head_dim);
      std::vector<float> scores(static_cast<size_t>(stride * shape.n_heads));
      ScoreKeys(cache.views()[0], queries.data(), shape.n_heads, problem.scale, n_keys, scores.data(), stride);
      for (int head = 0; head < shape.n_heads; ++head) {
        for (int64_t t = 0; t < n_keys; ++t) {
          LoadKvRow(shape.type, cache.views()[0].Key(t), shape.head_dim, row.data());
          const double exact = std::inner_product(row.begin(), row.end(), queries[static_cast<size_t>(head)], 0.0) *
                               problem.scale * std::numbers::log2e;
          EXPECT_NEAR(scores[static_cast<size_t>(head * stride + t)], exact, 1e-4);
        }
      }
    });
  }
}

}  // namespace
}  // namespace loopserve
