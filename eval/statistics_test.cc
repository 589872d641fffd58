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

TEST(EstimateRatio, IsOfSumsAndKeepsDialoguesTogether) {
  const std::vector<Cluster> dense = {{100.0, 2}, {300.0, 2}}, ours = {{50.0, 2}, {150.0, 2}};
  const Estimate estimate = EstimateRatio(dense, ours);
  EXPECT_DOUBLE_EQ(estimate.mean, 2.0);
  EXPECT_DOUBLE_EQ(estimate.low, 2.0);  // twice in each dialogue, so twice in every draw
  EXPECT_DOUBLE_EQ(estimate.high, 2.0);
  EXPECT_DOUBLE_EQ(EstimateRatio(dense, std::vector<Cluster>{{0, 1}, {0, 1}}).mean, 0.0);
}

}  // namespace
}  // namespace loopserve::eval
