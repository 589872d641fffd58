#include "src/selection/floor/key_floor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using testing::ElementsAre;

std::vector<int32_t> Fewest(const std::vector<float>& weights, double alpha) {
  std::vector<int32_t> keys;
  FewestKeys(weights, alpha, &keys);
  return keys;
}

TEST(KeyFloorTest, TakesTheHeaviestFirstAndNoMoreThanNeeded) {
  const std::vector<float> weights = {0.125f, 0.5f, 0.0625f, 0.25f, 0.0625f};
  EXPECT_THAT(Fewest(weights, 0.4), ElementsAre(1));
  EXPECT_THAT(Fewest(weights, 0.5), ElementsAre(1));
  EXPECT_THAT(Fewest(weights, 0.51), ElementsAre(1, 3));
  EXPECT_THAT(Fewest(weights, 0.9), ElementsAre(1, 3, 0, 2)) << "the lower index among equals";
  EXPECT_THAT(Fewest(weights, 1.0), ElementsAre(1, 3, 0, 2, 4));
}

TEST(KeyFloorTest, SharesAreOfTheTotal) { EXPECT_THAT(Fewest({8, 4, 4}, 0.75), ElementsAre(0, 1)); }

TEST(KeyFloorTest, WithoutUsableWeightsAllKeys) {
  EXPECT_THAT(Fewest({0, 0}, 0.5), ElementsAre(0, 1));
  EXPECT_THAT(Fewest({1, NAN}, 0.5), ElementsAre(0, 1));
  EXPECT_THAT(Fewest({1, INFINITY}, 0.5), ElementsAre(0, 1));
  EXPECT_TRUE(Fewest({}, 0.5).empty());
}

TEST(KeyFloorTest, IsThePrefixOfTheSortedWeights) {
  std::mt19937 random(3);
  for (int n : {1, 2, 17, 300}) {
    std::vector<float> weights(static_cast<size_t>(n));
    for (float& weight : weights) weight = std::ldexp(1.0f, -static_cast<int>(random() % 9));  // many ties, exact sums
    std::vector<int32_t> order(weights.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, std::greater(), [&](int32_t key) { return weights[static_cast<size_t>(key)]; });
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (const double alpha : {0.1, 0.5, 0.955, 1.0}) {
      std::vector<int32_t> expected;
      double held = 0;
      for (size_t i = 0; i < order.size() && held < alpha * total; ++i) {
        expected.push_back(order[i]);
        held += weights[static_cast<size_t>(order[i])];
      }
      EXPECT_EQ(Fewest(weights, alpha), expected) << n << " " << alpha;
    }
  }
}

}  // namespace
}  // namespace loopserve
