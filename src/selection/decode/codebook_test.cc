#include "src/selection/decode/codebook.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace loopserve {
namespace {

TEST(CodebookTest, BitsFitTheirNibblesAndFillThem) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const int head_dim = 8 * (1 + static_cast<int>(random() % 32));
    std::vector<float> energy(static_cast<size_t>(head_dim));
    std::lognormal_distribution<float> heavy(0, static_cast<float>(round % 5));
    for (float& x : energy) x = heavy(random);
    const std::vector<uint8_t> bits = ShareOutBits(energy, head_dim / 4);
    const int total = std::accumulate(bits.begin(), bits.end(), 0);
    EXPECT_LE(total, head_dim);
    EXPECT_GE(total, head_dim - 1);  // a last single bit may have no element left that takes one
    std::vector<int> used(static_cast<size_t>(head_dim / 4), 0);
    size_t placed = 0;
    uint8_t before = 0;
    for (const KeyCodebook::Place& place : PlaceBits(bits, head_dim / 4)) {
      ASSERT_LT(place.nibble, used.size());
      EXPECT_GE(place.nibble, before);
      EXPECT_EQ(place.bits, bits[place.element]);
      EXPECT_EQ(place.shift, used[place.nibble]);  // no bit is used twice
      used[place.nibble] += place.bits;
      EXPECT_LE(used[place.nibble], 4);
      before = place.nibble;
      ++placed;
    }
    EXPECT_EQ(placed, static_cast<size_t>(std::ranges::count_if(bits, [](uint8_t b) { return b > 0; })));
    for (size_t i = 0; i < energy.size(); ++i) {
      for (size_t j = 0; j < energy.size(); ++j) {
        // A step of two may pass one bit by; more energy never has less by more than that.
        const bool owes_more = energy[i] > energy[j] && bits[i] + 1 < bits[j];
        EXPECT_FALSE(owes_more) << energy[i] << " against " << energy[j];
      }
    }
  }
}

TEST(CodebookTest, EnergyInFewElementsGetsFourBitsEach) {
  std::vector<float> energy(64, 0.0f);
  for (size_t i = 0; i < 16; ++i) energy[i * 4] = 1;
  const std::vector<uint8_t> bits = ShareOutBits(energy, 16);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(bits[i], i % 4 == 0 ? 4 : 0);
  EXPECT_EQ(ShareOutBits(std::vector<float>(64, 1.0f), 16), std::vector<uint8_t>(64, 1));
  EXPECT_EQ(ShareOutBits(std::vector<float>(64, 0.0f), 16), std::vector<uint8_t>(64, 0));
}

/// Mean square error of scores by codes, for queries and keys of given spreads.
double ScoreError(const KeyCodebook& book, const std::vector<float>& keys, const std::vector<float>& spread) {
  const size_t head_dim = spread.size();
  std::vector<uint8_t> codes(CodeGroupBytes(book.head_dim));
  EncodeKeys(book, keys.data(), codes.data());
  std::vector<float> decoded(head_dim);
  double error = 0;
  for (int key = 0; key < kCodeGroupKeys; ++key) {
    DecodeKey(book, codes.data(), key, decoded.data());
    for (size_t i = 0; i < head_dim; ++i) {
      const double off = decoded[i] - keys[static_cast<size_t>(key) * head_dim + i];
      error += spread[i] * off * off / kCodeGroupKeys;
    }
  }
  return error;
}

TEST(CodebookTest, KnowingTheQueriesHelps) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const size_t head_dim = 64;
  std::vector<float> spread(head_dim), even(head_dim, 1.0f);
  for (size_t i = 0; i < head_dim; ++i) spread[i] = i % 8 == 0 ? 10.0f : 0.1f;
  std::vector<float> keys(kCodeGroupKeys * head_dim);
  for (float& x : keys) x = 2 + normal(random);
  KeyCodebook aware, unaware;
  ASSERT_TRUE(FitCodebook(keys, spread, &aware));
  ASSERT_TRUE(FitCodebook(keys, even, &unaware));
  double variance = 0;
  for (const float x : spread) variance += x;
  // One bit each leaves 0.36 of the variance, four bits for what matters much less.
  EXPECT_LT(ScoreError(unaware, keys, spread), 0.5 * variance);
  EXPECT_LT(ScoreError(aware, keys, spread), 0.25 * ScoreError(unaware, keys, spread));
}

TEST(CodebookTest, WhatIsNotFiniteHasNone) {
  std::vector<float> keys(kCodeGroupKeys * 8, 1.0f);
  const std::vector<float> energy(8, 1.0f);
  KeyCodebook book;
  EXPECT_TRUE(FitCodebook(keys, energy, &book));  // no spread at all: still a book
  for (const float x : book.deviation) EXPECT_GT(x, 0);
  keys[5] = NAN;
  EXPECT_FALSE(FitCodebook(keys, energy, &book));
  keys[5] = INFINITY;
  EXPECT_FALSE(FitCodebook(keys, energy, &book));
  keys[5] = 1;
  std::vector<float> bad = energy;
  bad[2] = NAN;
  EXPECT_FALSE(FitCodebook(keys, bad, &book));
}

}  // namespace
}  // namespace loopserve
