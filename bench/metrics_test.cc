#include "bench/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace loopserve::bench {
namespace {

std::vector<float> Logits(const std::vector<double>& probabilities, double shift) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

TEST(LogSumExpTest, DoesNotOverflow) {
  EXPECT_NEAR(LogSumExp(std::vector<float>{1000, 1000}), 1000 + std::log(2.0), 1e-9);
  EXPECT_NEAR(LogSumExp(std::vector<float>{-1000, -1000}), -1000 + std::log(2.0), 1e-9);
}

TEST(NegativeLogLikelihoodTest, IsMinusTheLogProbability) {
  const auto logits = Logits({0.5, 0.25, 0.25}, 7);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 0), std::log(2.0), 1e-6);
  EXPECT_NEAR(NegativeLogLikelihood(logits, 2), std::log(4.0), 1e-6);
}

TEST(KlDivergenceTest, MatchesTheDefinitionByHand) {
  const auto p = Logits({0.5, 0.5}, 0);
  const auto q = Logits({0.75, 0.25}, 3);  // a shift of all logits changes nothing
  EXPECT_NEAR(KlDivergence(p, q), 0.5 * std::log(0.5 / 0.75) + 0.5 * std::log(0.5 / 0.25), 1e-6);
  EXPECT_NEAR(KlDivergence(q, p), 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5), 1e-6);
}

TEST(KlDivergenceTest, IsZeroForEqualDistributionsAndFiniteForImpossibleTokens) {
  const std::vector<float> p = {1, 2, -std::numeric_limits<float>::infinity()};
  EXPECT_EQ(KlDivergence(p, p), 0);
  EXPECT_TRUE(std::isfinite(KlDivergence(p, std::vector<float>{1, 2, -5})));
}

TEST(SameTop1Test, ComparesTheLikeliestToken) {
  EXPECT_TRUE(SameTop1(std::vector<float>{0, 3, 1}, std::vector<float>{-2, 9, 8}));
  EXPECT_FALSE(SameTop1(std::vector<float>{0, 3, 1}, std::vector<float>{4, 3, 1}));
  EXPECT_TRUE(SameTop1(std::vector<float>{3, 3, 1}, std::vector<float>{4, 3, 1})) << "the lowest id wins a tie";
}

TEST(StatisticsTest, MedianAndPercentile) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(Percentile({5, 1, 4, 2, 3}, 1.0), 5);
  EXPECT_EQ(Percentile({5, 1, 4, 2, 3}, 0.4), 2);
  EXPECT_EQ(Percentile({7}, 0.99), 7);
}

}  // namespace
}  // namespace loopserve::bench
