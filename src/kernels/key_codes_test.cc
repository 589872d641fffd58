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
    for (const int n_queries : {1, 2, 3, 4, 5, 6, 7, 8}) {
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
        std::vector<uint16_t> sums(static_cast<size_t>(stride * n_queries));
        SumCodes(codes.data(), n_groups, head_dim, tables.data(), n_queries, sums.data(), stride);
        for (int t = 0; t < n_groups * kCodeGroupKeys; ++t) {
          DecodeKey(book, codes.data() + static_cast<size_t>(t / kCodeGroupKeys) * CodeGroupBytes(head_dim),
                    t % kCodeGroupKeys, key.data());
          for (int i = 0; i < n_queries; ++i) {
            const double exact = 0.3 * std::inner_product(key.begin(), key.end(), q.begin() + i * head_dim, 0.0);
            // Each entry is rounded to the nearest step; then there is f32's own rounding of some hundred terms.
            const CodeTables& table = tables[static_cast<size_t>(i)];
            const double bound = book.n_nibbles() * table.step * 0.5 + 1e-5 * head_dim;
            EXPECT_NEAR(table.base + table.step * sums[static_cast<size_t>(i * stride + t)], exact, bound);
          }
        }
      });
    }
  }
}

TEST(KeyCodesTest, AQueryThatIsNotFiniteHasNoBase) {
  std::mt19937 random(2);
  const KeyCodebook book = MixedBook(64, random);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const float bad : {NAN, INFINITY}) {
      std::vector<float> q(64, 1.0f);
      q[17] = bad;
      std::vector<uint8_t> rows(CodeTableBytes(64), 1);
      EXPECT_TRUE(std::isnan(MakeCodeTables(book, q.data(), 1.0f, rows.data()).base));
      EXPECT_EQ(rows, std::vector<uint8_t>(CodeTableBytes(64), 0));
    }
  });
}

}  // namespace
}  // namespace loopserve
