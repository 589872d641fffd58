#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace loopserve::eval {
namespace {

TEST(EstimateMean, IsTheMeanOfAllValuesNotOfDialogues) {
  const std::vector<Cluster> clusters = {{3.0, 3}, {0.0, 1}, {7.0, 0}};
  const Estimate estimate = EstimateMean(clusters);
  EXPECT_DOUBLE_EQ(estimate.mean, 0.75);
  EXPECT_EQ(estimate.n_values, 4);
  EXPECT_EQ(estimate.n_clusters, 2);
  // Two dialogues can only be drawn in three ways: both, or one of them twice.
  EXPECT_DOUBLE_EQ(estimate.low, 0.0);
  EXPECT_DOUBLE_EQ(estimate.high, 1.0);
}

TEST(EstimateMean, OneDialogueOrNoneHasNoInterval) {
  const Estimate one = EstimateMean(std::vector<Cluster>{{2.0, 4}});
  EXPECT_DOUBLE_EQ(one.mean, 0.5);
  EXPECT_DOUBLE_EQ(one.low, 0.5);
  EXPECT_DOUBLE_EQ(one.high, 0.5);
  const Estimate none = EstimateMean({});
  EXPECT_DOUBLE_EQ(none.mean, 0.0);
  EXPECT_EQ(none.n_values, 0);
}

TEST(EstimateMean, IntervalIsThatOfTheNormalDistributionForManyDialogues) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal(0.4, 0.2);
  std::vector<Cluster> clusters;
  double sum = 0, squares = 0;
  constexpr int kN = 400;
  for (int i = 0; i < kN; ++i) {
    const double value = normal(random);
    clusters.push_back({value, 1});
    sum += value;
    squares += value * value;
  }
  const double mean = sum / kN;
  const double half = 1.96 * std::sqrt((squares / kN - mean * mean) / kN);
  const Estimate estimate = EstimateMean(clusters);
  // A quantile of 2,000 draws is off by about 4 % of the half width.
  EXPECT_NEAR(estimate.low, mean - half, 0.15 * half);
  EXPECT_NEAR(estimate.high, mean + half, 0.15 * half);
}

TEST(EstimateMean, AnswersOfOneDialogueDoNotNarrowTheInterval) {
  std::vector<Cluster> single, tripled;
  for (int i = 0; i < 50; ++i) {
    const double value = i % 5 == 0 ? 1.0 : 0.0;
    single.push_back({value, 1});
    tripled.push_back({3 * value, 3});
  }
  EXPECT_DOUBLE_EQ(EstimateMean(single).low, EstimateMean(tripled).low);
  EXPECT_DOUBLE_EQ(EstimateMean(single).high, EstimateMean(tripled).high);
}

TEST(EstimateMedian, IsOfAllValuesAndIgnoresWhatOneDisturbanceDid) {
  const std::vector<std::vector<double>> dialogues = {{2.0, 2.0, 900.0}, {}, {2.0, 1.0}};
  const Estimate estimate = EstimateMedian(dialogues);
  EXPECT_DOUBLE_EQ(estimate.mean, 2.0);
  EXPECT_EQ(estimate.n_values, 5);
  EXPECT_EQ(estimate.n_clusters, 2);
  EXPECT_DOUBLE_EQ(estimate.low, 1.5);  // the second dialogue twice: 1, 1, 2, 2
  EXPECT_DOUBLE_EQ(estimate.high, 2.0);
  EXPECT_DOUBLE_EQ(EstimateMedian(std::vector<std::vector<double>>{{4.0, 1.0, 2.0, 8.0}}).mean, 3.0);
  EXPECT_EQ(EstimateMedian({}).n_values, 0);
}

TEST(EstimateMedian, IntervalIsThatOfTheNormalDistributionForManyDialogues) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal(3.0, 0.5);
  std::vector<std::vector<double>> dialogues(400);
  for (std::vector<double>& values : dialogues) values = {normal(random)};
  const Estimate estimate = EstimateMedian(dialogues);
  // The median's deviation is sqrt(pi / 2) that of the mean.
  const double half = 1.96 * std::sqrt(std::acos(-1.0) / 2) * 0.5 / 20;
  EXPECT_NEAR((estimate.high - estimate.low) / 2, half, 0.35 * half);
  EXPECT_NEAR(estimate.mean, 3.0, 2 * half);
}

}  // namespace
}  // namespace loopserve::eval
