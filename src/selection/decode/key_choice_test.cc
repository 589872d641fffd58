#include "src/selection/decode/key_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using ::testing::ElementsAre;

std::vector<uint8_t> Choose(const std::vector<float>& weight, int64_t first_kept, int64_t budget) {
  std::vector<float> scratch;
  std::vector<uint8_t> chosen;
  ChooseKeys(weight, first_kept, budget, &scratch, &chosen);
  return chosen;
}

TEST(KeyChoiceTest, TakesTheHeaviestAndTheNewest) {
  EXPECT_THAT(Choose({5, 1, 4, 2, 0, 0}, 5, 3), ElementsAre(1, 0, 1, 0, 0, 1));
  EXPECT_THAT(Choose({5, 1, 4, 2, 0, 0}, 6, 3), ElementsAre(1, 0, 1, 1, 0, 0));
  EXPECT_THAT(Choose({5, 1, 4, 2, 0, 0}, 0, 2), ElementsAre(0, 0, 0, 0, 1, 1)) << "more newest keys than budget";
  EXPECT_THAT(Choose({5, 1, 4}, 3, 9), ElementsAre(1, 1, 1));
  EXPECT_THAT(Choose({}, 0, 4), ElementsAre());
}

TEST(KeyChoiceTest, EqualWeightsPreferTheLaterKey) {
  EXPECT_THAT(Choose({1, 1, 1, 1}, 4, 2), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(Choose({0, 0, 3, 0}, 4, 2), ElementsAre(0, 0, 1, 1));
}

TEST(KeyChoiceTest, NanIsNoWeight) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Choose({nan, 2, nan, 1}, 4, 2), ElementsAre(0, 1, 0, 1));
}

TEST(KeyChoiceTest, IsExactlyTheBudgetAndTheHeaviest) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t n = 2 + static_cast<int64_t>(random() % 60);
    const int64_t budget = 1 + static_cast<int64_t>(random() % n);
    const int64_t kept = static_cast<int64_t>(random() % (n + 1));
    std::vector<float> weight(static_cast<size_t>(n));
    for (float& x : weight) x = static_cast<float>(random() % 8);  // many ties
    const std::vector<uint8_t> chosen = Choose(weight, kept, budget);
    EXPECT_EQ(std::accumulate(chosen.begin(), chosen.end(), int64_t{0}), budget);
    const int64_t first_kept = std::max(kept, n - budget);
    for (int64_t t = first_kept; t < n; ++t) EXPECT_EQ(chosen[static_cast<size_t>(t)], 1);
    float lightest_in = 1e9f, heaviest_out = -1;
    for (int64_t t = 0; t < first_kept; ++t) {
      const float x = weight[static_cast<size_t>(t)];
      chosen[static_cast<size_t>(t)] ? lightest_in = std::min(lightest_in, x)
                                     : heaviest_out = std::max(heaviest_out, x);
    }
    EXPECT_GE(lightest_in, heaviest_out);
  }
}

}  // namespace
}  // namespace loopserve
