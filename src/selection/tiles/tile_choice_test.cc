#include "src/selection/tiles/tile_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Choose(const std::vector<float>& mass, int64_t first_own, double alpha) {
  std::vector<uint64_t> scratch;
  std::vector<int32_t> tiles;
  ChooseTiles({mass, first_own}, alpha, &scratch, &tiles);
  return tiles;
}

/// The definition: tiles in order of weight, one after another.
std::vector<int32_t> PlainTiles(const std::vector<float>& mass, int64_t first_own, double alpha) {
  const auto n_tiles = static_cast<int64_t>(mass.size());
  std::vector<int32_t> order;
  for (int64_t t = 1; t < first_own; ++t) order.push_back(static_cast<int32_t>(t));
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return mass[static_cast<size_t>(a)] > mass[static_cast<size_t>(b)]; });
  std::vector<int32_t> tiles = {0};
  for (int64_t t = first_own; t < n_tiles; ++t) tiles.push_back(static_cast<int32_t>(t));
  double held = 0;
  for (const int32_t tile : tiles) held += mass[static_cast<size_t>(tile)];
  const double wanted = alpha * std::accumulate(mass.begin(), mass.end(), 0.0);
  for (size_t i = 0; i < order.size() && held < wanted; ++i) {
    tiles.push_back(order[i]);
    held += mass[static_cast<size_t>(order[i])];
  }
  std::sort(tiles.begin(), tiles.end());
  return tiles;
}

TEST(TileChoiceTest, TakesTheHeaviestUntilTheShareIsHeld) {
  const std::vector<float> mass = {0.1f, 0.05f, 0.3f, 0.02f, 0.2f, 0.03f, 0.3f};
  EXPECT_THAT(Choose(mass, 6, 0.4), ElementsAre(0, 6));
  EXPECT_THAT(Choose(mass, 6, 0.45), ElementsAre(0, 2, 6));
  EXPECT_THAT(Choose(mass, 6, 0.85), ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(Choose(mass, 6, 0.94), ElementsAre(0, 1, 2, 4, 6));
  EXPECT_THAT(Choose(mass, 6, 1), ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST(TileChoiceTest, EqualWeightsPreferTheEarlierTile) {
  EXPECT_THAT(Choose({0, 1, 1, 1, 1, 0}, 5, 0.5), ElementsAre(0, 1, 2, 5));
}

TEST(TileChoiceTest, IsTheSmallestChoiceThatHoldsTheShare) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> mass(30);
    for (float& x : mass) x = std::exp(std::normal_distribution<float>(0, 2)(random));
    const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
    const double alpha = std::uniform_real_distribution<double>(0.2, 0.99)(random);
    const std::vector<int32_t> tiles = Choose(mass, 27, alpha);
    double held = 0, lightest = 1e30;
    for (const int32_t tile : tiles) {
      held += mass[static_cast<size_t>(tile)];
      if (tile > 0 && tile < 27) lightest = std::min<double>(lightest, mass[static_cast<size_t>(tile)]);
    }
    EXPECT_GE(held, alpha * total * (1 - 1e-6));
    if (tiles.size() > 4) {
      EXPECT_LT(held - lightest, alpha * total * (1 + 1e-6));
    }
  }
}

// Weights are multiples of 1/8, so that no order of adding them up matters, with many ties and zeros.
TEST(TileChoiceTest, IsTheGreedyOneTileAfterAnother) {
  std::mt19937 random(7);
  for (const size_t n : {2u, 3u, 4u, 9u, 64u, 301u}) {
    for (int trial = 0; trial < 40; ++trial) {
      std::vector<float> mass(n);
      for (float& x : mass) x = static_cast<float>(random() % (trial % 2 == 0 ? 4 : 1000)) / 8.0f;
      const auto first_own = static_cast<int64_t>(2 + random() % (n - 1));
      if (first_own > static_cast<int64_t>(n)) continue;
      for (const double alpha : {0.125, 0.5, 0.875, 0.9375, 0.999}) {
        EXPECT_EQ(Choose(mass, first_own, alpha), PlainTiles(mass, first_own, alpha)) << n << " " << alpha;
      }
    }
  }
}

TEST(TileChoiceTest, WhatIsNotFiniteIsComputedInFull) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Choose({0.1f, nan, 0.2f, 0.1f}, 3, 0.1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Choose({0.1f, INFINITY, 0.2f, 0.1f}, 3, 0.1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Choose({1}, 0, 0.5), ElementsAre(0));
}

}  // namespace
}  // namespace loopserve
