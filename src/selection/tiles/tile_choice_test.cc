#include "src/selection/tiles/tile_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Choose(const std::vector<float>& mass, int64_t first_own, double alpha, double hint = 0,
                            const std::vector<float>& before = {}, int64_t shift = 0) {
  TileProblem problem;
  problem.mass = mass;
  problem.mass_before = before;
  problem.shift_tiles = shift;
  problem.first_own_tile = first_own;
  std::vector<float> scratch;
  std::vector<int32_t> tiles;
  ChooseTiles(problem, alpha, hint, &scratch, &tiles);
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

TEST(TileChoiceTest, HintBringsWhatTheBlockBeforeMet) {
  // The sample sees tile 1; the block before met tile 2 (a column) and, shifted by 2, tile 3 (a slash at tile 1).
  const std::vector<float> mass = {0.1f, 0.5f, 0, 0, 0, 0.4f};
  const std::vector<float> before = {0, 1, 1, 0};
  EXPECT_THAT(Choose(mass, 5, 0.99), ElementsAre(0, 1, 5));
  const std::vector<int32_t> hinted = Choose(mass, 5, 0.99, 1.0, before, 2);
  EXPECT_THAT(hinted, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(TileChoiceTest, WhatIsNotFiniteIsComputedInFull) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Choose({0.1f, nan, 0.2f, 0.1f}, 3, 0.1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Choose({0.1f, INFINITY, 0.2f, 0.1f}, 3, 0.1), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Choose({1}, 0, 0.5), ElementsAre(0));
}

}  // namespace
}  // namespace loopserve
