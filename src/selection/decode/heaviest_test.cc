#include "src/selection/decode/heaviest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

namespace loopserve {
namespace {

/// What is kept of all weights, cut into runs of `run` weights.
std::vector<int32_t> Keep(const std::vector<float>& weights, int64_t wanted, size_t run) {
  std::vector<uint32_t> counts(WeightBins::kBins, 0);
  CountWeights(weights, counts);
  const WeightCut cut = FindWeightCut(counts, wanted);
  std::vector<int32_t> kept;
  for (size_t begin = 0; begin < weights.size(); begin += run) {
    const std::span<const float> part = std::span(weights).subspan(begin, std::min(run, weights.size() - begin));
    std::vector<int32_t> numbers;
    std::vector<float> totals;
    for (size_t t = 0; t < part.size(); ++t) {
      if (!(part[t] >= WeightBins::LeastOf(std::max(0, cut.bin - 3)))) continue;  // what is lighter is dropped
      numbers.push_back(static_cast<int32_t>(t));
      totals.push_back(part[t]);
    }
    const auto n = static_cast<int64_t>(numbers.size());
    numbers.resize((numbers.size() + 15) / 16 * 16);
    totals.resize(numbers.size());
    std::vector<int32_t> of_run(numbers.size() + 16);
    of_run.resize(static_cast<size_t>(
        KeepHeaviest(numbers.data(), totals.data(), n, cut, static_cast<int32_t>(begin), of_run.data())));
    kept.insert(kept.end(), of_run.begin(), of_run.end());
  }
  return kept;
}

TEST(HeaviestTest, BinsAreOrderedAndBounded) {
  EXPECT_EQ(WeightBins::Of(0), -1);
  EXPECT_EQ(WeightBins::Of(-1), -1);
  EXPECT_EQ(WeightBins::Of(NAN), -1);
  EXPECT_EQ(WeightBins::Of(std::exp2(static_cast<float>(WeightBins::kLeastExponent)) * 0.999f), -1);
  EXPECT_EQ(WeightBins::Of(std::exp2(static_cast<float>(WeightBins::kLeastExponent))), 0);
  EXPECT_EQ(WeightBins::Of(INFINITY), WeightBins::kBins - 1);
  EXPECT_EQ(WeightBins::Of(1e30f), WeightBins::kBins - 1);
  for (int bin = 0; bin < WeightBins::kBins; ++bin) {
    EXPECT_EQ(WeightBins::Of(WeightBins::LeastOf(bin)), bin);
    EXPECT_EQ(WeightBins::Of(std::nextafter(WeightBins::LeastOf(bin), 0.0f)), bin - 1);
  }
}

TEST(HeaviestTest, KeepsTheHeaviestUpToTheWidthOfABin) {
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    std::lognormal_distribution<float> heavy(-6, 1.0f + static_cast<float>(round % 4));
    std::vector<float> weights(50 + random() % 1000);
    for (float& x : weights) x = heavy(random);
    const auto wanted = static_cast<int64_t>(random() % weights.size());
    const size_t run = 64;
    const std::vector<int32_t> kept = Keep(weights, wanted, run);
    const size_t n_runs = (weights.size() + run - 1) / run;
    EXPECT_LE(kept.size(), static_cast<size_t>(wanted));
    std::vector<float> sorted = weights;
    std::ranges::sort(sorted, std::greater<>());
    const auto countable =
        static_cast<size_t>(std::ranges::count_if(weights, [](float x) { return WeightBins::Of(x) >= 0; }));
    EXPECT_GE(kept.size() + n_runs, std::min(static_cast<size_t>(wanted), countable));  // each run rounds down
    std::vector<uint8_t> is_kept(weights.size(), 0);
    for (const int32_t t : kept) is_kept[static_cast<size_t>(t)] = 1;
    float least_kept = INFINITY, most_dropped = 0;
    for (size_t t = 0; t < weights.size(); ++t) {
      if (is_kept[t] != 0) least_kept = std::min(least_kept, weights[t]);
      if (is_kept[t] == 0) most_dropped = std::max(most_dropped, weights[t]);
    }
    if (kept.empty() || kept.size() == countable) continue;
    EXPECT_GE(least_kept * (1 + 1.0f / 32), most_dropped);
  }
}

TEST(HeaviestTest, EqualWeightsShareTheBudgetOverRuns) {
  const std::vector<float> weights(640, 0.01f);
  const std::vector<int32_t> kept = Keep(weights, 100, 64);
  EXPECT_EQ(kept.size(), 100u);
  for (size_t run = 0; run < 10; ++run) {
    EXPECT_EQ(std::ranges::count_if(kept, [&](int32_t t) { return static_cast<size_t>(t) / 64 == run; }), 10);
  }
  EXPECT_EQ(kept.front(), 54);  // of a run the last
  EXPECT_EQ(Keep(weights, 0, 64).size(), 0u);
  EXPECT_EQ(Keep(weights, 10000, 64).size(), 640u);
  EXPECT_EQ(Keep(std::vector<float>(64, NAN), 10, 64).size(), 0u);
  EXPECT_EQ(Keep(std::vector<float>(64, 1e-9f), 10, 64).size(), 0u);  // lighter than counts
}

}  // namespace
}  // namespace loopserve
