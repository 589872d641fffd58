#include "src/kernels/key_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "src/kernels/every_target.h"

namespace loopserve {
namespace {

/// Bits in turn over the elements: every width at every place that it can have.
KeyCodebook MixedBook(int head_dim, std::mt19937& random) {
  std::normal_distribution<float> normal;
  KeyCodebook book;
  book.head_dim = head_dim;
  book.mean.resize(static_cast<size_t>(head_dim));
  book.deviation.resize(static_cast<size_t>(head_dim));
  for (float& x : book.mean) x = 3 * normal(random);
  for (float& x : book.deviation) x = 0.2f + std::abs(normal(random));
  const std::vector<std::vector<int>> fillings = {{4},       {3, 1},       {1, 3}, {2, 2}, {2, 1, 1},
                                                  {1, 2, 1}, {1, 1, 1, 1}, {3},    {}};
  uint16_t element = 0;
  for (int nibble = 0; nibble < book.n_nibbles(); ++nibble) {
    uint8_t shift = 0;
    for (const int bits : fillings[static_cast<size_t>(nibble) % fillings.size()]) {
      if (element == head_dim) break;
      book.places.push_back({element++, static_cast<uint8_t>(nibble), shift, static_cast<uint8_t>(bits)});
      shift = static_cast<uint8_t>(shift + bits);
    }
  }
  return book;
}

std::vector<float> KeysOf(const KeyCodebook& book, int n_groups, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> keys(static_cast<size_t>(n_groups * kCodeGroupKeys * book.head_dim));
  for (size_t i = 0; i < keys.size(); ++i) {
    const size_t element = i % static_cast<size_t>(book.head_dim);
    keys[i] = book.mean[element] + book.deviation[element] * normal(random);
  }
  return keys;
}

std::vector<uint8_t> Encode(const KeyCodebook& book, const std::vector<float>& keys, int n_groups) {
  std::vector<uint8_t> codes(static_cast<size_t>(n_groups) * CodeGroupBytes(book.head_dim));
  for (int g = 0; g < n_groups; ++g) {
    EncodeKeys(book, keys.data() + static_cast<size_t>(g * kCodeGroupKeys * book.head_dim),
               codes.data() + static_cast<size_t>(g) * CodeGroupBytes(book.head_dim));
  }
  return codes;
}

TEST(KeyCodesTest, EveryElementIsTheNearestOfItsLevels) {
  std::mt19937 random(1);
  const KeyCodebook book = MixedBook(64, random);
  const std::vector<float> keys = KeysOf(book, 1, random);
  const std::vector<uint8_t> codes = Encode(book, keys, 1);
  std::vector<float> decoded(64);
  // What single keys decode to are the levels: none of them is nearer to any key than its own.
  std::vector<std::vector<float>> levels(64);
  for (int key = 0; key < kCodeGroupKeys; ++key) {
    DecodeKey(book, codes.data(), key, decoded.data());
    for (size_t i = 0; i < 64; ++i) levels[i].push_back(decoded[i]);
  }
  for (int key = 0; key < kCodeGroupKeys; ++key) {
    DecodeKey(book, codes.data(), key, decoded.data());
    for (size_t i = 0; i < 64; ++i) {
      const float x = keys[static_cast<size_t>(key) * 64 + i];
      for (const float level : levels[i]) EXPECT_LE(std::abs(decoded[i] - x), std::abs(level - x) + 1e-5f);
    }
  }
  for (const KeyCodebook::Place& place : book.places) {
    std::vector<float>& all = levels[place.element];
    std::ranges::sort(all);
    const auto n = std::ranges::distance(all.begin(), std::ranges::unique(all).begin());
    EXPECT_LE(n, 1 << place.bits);
    EXPECT_GT(n, 1);
  }
}

TEST(KeyCodesTest, ScoresAreThoseOfDecodedKeysOnEveryTarget) {
  for (const int head_dim : {8, 64, 80, 128, 256, 512}) {
    for (const int n_queries : {1, 2, 3, 4, 7, 8}) {
      std::mt19937 random(static_cast<uint32_t>(head_dim + n_queries));
      std::normal_distribution<float> normal;
      const int n_groups = 3;
      const KeyCodebook book = MixedBook(head_dim, random);
      const std::vector<uint8_t> codes = Encode(book, KeysOf(book, n_groups, random), n_groups);
      std::vector<float> q(static_cast<size_t>(head_dim * n_queries));
      for (float& x : q) x = normal(random);
      std::vector<float> key(static_cast<size_t>(head_dim));
      ForEveryTarget([&](const char* target) {
        SCOPED_TRACE(::testing::Message() << target << ", head_dim " << head_dim << ", queries " << n_queries);
        std::vector<uint8_t> rows(CodeTableBytes(head_dim) * static_cast<size_t>(n_queries));
        std::vector<CodeTables> tables;
        for (int i = 0; i < n_queries; ++i) {
          tables.push_back(MakeCodeTables(book, q.data() + i * head_dim, 0.3f,
                                          rows.data() + static_cast<size_t>(i) * CodeTableBytes(head_dim)));
        }
        const int64_t stride = n_groups * kCodeGroupKeys + 5;
        std::vector<float> scores(static_cast<size_t>(stride * n_queries));
        ScoreCodes(codes.data(), n_groups, head_dim, tables.data(), n_queries, scores.data(), stride);
        for (int t = 0; t < n_groups * kCodeGroupKeys; ++t) {
          DecodeKey(book, codes.data() + static_cast<size_t>(t / kCodeGroupKeys) * CodeGroupBytes(head_dim),
                    t % kCodeGroupKeys, key.data());
          for (int i = 0; i < n_queries; ++i) {
            const double exact = 0.3 * std::inner_product(key.begin(), key.end(), q.begin() + i * head_dim, 0.0);
            // Each entry is rounded to the nearest step; then there is f32's own rounding of some hundred terms.
            const double bound = book.n_nibbles() * tables[static_cast<size_t>(i)].step * 0.5 + 1e-5 * head_dim;
            EXPECT_NEAR(scores[static_cast<size_t>(i * stride + t)], exact, bound);
          }
        }
      });
    }
  }
}

TEST(KeyCodesTest, AQueryThatIsNotFiniteScoresNaN) {
  std::mt19937 random(2);
  const KeyCodebook book = MixedBook(64, random);
  const std::vector<uint8_t> codes = Encode(book, KeysOf(book, 1, random), 1);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const float bad : {NAN, INFINITY}) {
      std::vector<float> q(64, 1.0f);
      q[17] = bad;
      std::vector<uint8_t> rows(CodeTableBytes(64));
      const CodeTables tables = MakeCodeTables(book, q.data(), 1.0f, rows.data());
      std::vector<float> scores(kCodeGroupKeys);
      ScoreCodes(codes.data(), 1, 64, &tables, 1, scores.data(), kCodeGroupKeys);
      float sum = 0;
      EXPECT_TRUE(std::isnan(ExpGroups(scores.data(), 1, &sum)));
      EXPECT_TRUE(std::isnan(sum));
    }
  });
}

TEST(KeyCodesTest, WeightsAreRelativeToTheLargestScore) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 20);
  std::vector<float> original(3 * kCodeGroupKeys);
  for (float& x : original) x = normal(random);
  std::fill_n(original.begin(), 16, -INFINITY);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<float> scores = original;
    std::vector<float> sums(3);
    const float largest = ExpGroups(scores.data(), 3, sums.data());
    EXPECT_EQ(largest, *std::ranges::max_element(original));
    std::vector<double> expected(3, 0.0);
    for (size_t t = 0; t < scores.size(); ++t) {
      const double weight = std::exp2(static_cast<double>(original[t]) - largest);
      EXPECT_NEAR(scores[t], weight, 1e-5 * weight + 1e-30);
      expected[t / kCodeGroupKeys] += weight;
    }
    for (size_t g = 0; g < 3; ++g) EXPECT_NEAR(sums[g], expected[g], 1e-5 * expected[g]);
  });
}

TEST(KeyCodesTest, FindsWhatIsHeavyOverAllQueries) {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> uniform;
  const size_t n = 160, stride = 200;
  std::vector<float> weights(3 * stride);
  for (float& x : weights) x = uniform(random);
  weights[7] = NAN;
  const std::vector<float> factor = {0.5f, 2.0f, 0.25f};
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const float least : {0.0f, 1.4f, 5.0f}) {
      std::vector<int32_t> numbers(n + 16);
      std::vector<float> totals(n + 16);
      const int64_t count =
          FindHeavy(weights.data(), stride, factor.data(), 3, n, least, numbers.data(), totals.data());
      size_t found = 0;
      for (size_t t = 0; t < n; ++t) {
        const float total = 0.5f * weights[t] + 2 * weights[t + stride] + 0.25f * weights[t + 2 * stride];
        if (!(total >= least)) continue;
        ASSERT_LT(found, static_cast<size_t>(count));
        EXPECT_EQ(numbers[found], static_cast<int32_t>(t));
        EXPECT_NEAR(totals[found], total, 1e-5);
        ++found;
      }
      EXPECT_EQ(found, static_cast<size_t>(count));
    }
  });
}

}  // namespace
}  // namespace loopserve
