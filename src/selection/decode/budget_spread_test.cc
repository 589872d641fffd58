#include "src/selection/decode/budget_spread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace loopserve {
namespace {

using ::testing::ElementsAre;

TEST(BudgetSpreadTest, HistogramCountsByShare) {
  // Shares 1/2, 1/4, 1/4 and nothing.
  const WeightHistogram histogram(std::vector<float>{2, 1, 1, 0, std::numeric_limits<float>::quiet_NaN()});
  EXPECT_EQ(histogram.CountTo(7), 0);
  EXPECT_EQ(histogram.CountTo(8), 1);
  EXPECT_EQ(histogram.CountTo(15), 1);
  EXPECT_EQ(histogram.CountTo(16), 3);
  EXPECT_EQ(histogram.CountTo(255), 3);
  EXPECT_EQ(histogram.CountTo(256), 5);
}

TEST(BudgetSpreadTest, NeedyHeadsGetMore) {
  std::vector<float> sharp(1000, 1e-9f), flat(1000, 1.0f);
  sharp[3] = 1;
  const std::vector<WeightHistogram> heads = {WeightHistogram(sharp), WeightHistogram(flat)};
  EXPECT_THAT(SpreadBudgets(heads, 100, 10, 190), ElementsAre(10, 190));
  EXPECT_THAT(SpreadBudgets(heads, 100, 100, 100), ElementsAre(100, 100));
}

TEST(BudgetSpreadTest, EqualHeadsGetTheSame) {
  const WeightHistogram flat(std::vector<float>(500, 1.0f));
  EXPECT_THAT(SpreadBudgets(std::vector<WeightHistogram>(3, flat), 100, 10, 200), ElementsAre(100, 100, 100));
}

TEST(BudgetSpreadTest, TheTotalIsKept) {
  std::mt19937 random(6);
  for (int trial = 0; trial < 100; ++trial) {
    std::vector<WeightHistogram> heads;
    for (int head = 0; head < 12; ++head) {
      const float spread = static_cast<float>(random() % 6);
      std::vector<float> weight(2000);
      for (float& x : weight) x = std::exp(spread * std::normal_distribution<float>()(random));
      heads.emplace_back(weight);
    }
    const std::vector<int64_t> budgets = SpreadBudgets(heads, 300, 40, 600);
    const int64_t sum = std::accumulate(budgets.begin(), budgets.end(), int64_t{0});
    EXPECT_LE(sum, 12 * 300);
    EXPECT_GT(sum, 12 * 300 - 13);
    for (const int64_t budget : budgets) {
      EXPECT_GE(budget, 40);
      EXPECT_LE(budget, 600);
    }
  }
}

}  // namespace
}  // namespace loopserve
