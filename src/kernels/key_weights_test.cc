#include "src/kernels/key_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "src/kernels/every_target.h"

namespace loopserve {
namespace {

constexpr int kGroups = 3;

std::vector<uint16_t> RandomSums(int most, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> uniform(0, most);
  std::vector<uint16_t> sums(kGroups * kCodeGroupKeys);
  for (uint16_t& sum : sums) sum = static_cast<uint16_t>(uniform(random));
  return sums;
}

TEST(KeyWeightsTest, WeightsAreRelativeToTheHeaviest) {
  ForEveryTarget([&](const char* target) {
    // 16,256 is the largest sum that there is: 127 for each of 128 nibbles. A step of 200 octaves leaves one key.
    for (const int most : {0, 1, 40, 2032, 16256}) {
      for (const float step : {1e-30f, 1e-4f, 0.003f, 0.0625f, 0.11f, 1.0f, 17.3f, 200.0f, 1e37f}) {
        SCOPED_TRACE(::testing::Message() << target << ", sums to " << most << ", step " << step);
        const std::vector<uint16_t> sums = RandomSums(most, static_cast<uint32_t>(most));
        const uint16_t largest = *std::ranges::max_element(sums);
        std::vector<uint16_t> weights(sums.size());
        std::vector<float> group_sums(kGroups);
        const float heaviest = WeighSums(sums.data(), kGroups, -3.0f, step, weights.data(), group_sums.data());
        EXPECT_FLOAT_EQ(heaviest, -3.0f + step * largest);
        std::vector<double> expected(kGroups, 0.0);
        for (size_t t = 0; t < sums.size(); ++t) {
          const double weight = std::exp2(static_cast<double>(step) * (sums[t] - largest));
          EXPECT_NEAR(WeightOf(weights[t]), weight, 0.012 * weight + 1e-37) << "sum " << sums[t] << " of " << largest;
          expected[t / kCodeGroupKeys] += WeightOf(weights[t]);
        }
        for (size_t g = 0; g < kGroups; ++g) EXPECT_NEAR(group_sums[g], expected[g], 1e-5 * expected[g]);
      }
    }
  });
}

TEST(KeyWeightsTest, WeightsAreRightOnAverage) {
  const std::vector<uint16_t> sums = RandomSums(2032, 5);
  const float step = 0.002f;
  std::vector<uint16_t> weights(sums.size());
  std::vector<float> group_sums(kGroups);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    WeighSums(sums.data(), kGroups, 0, step, weights.data(), group_sums.data());
    double ratio = 0;
    const uint16_t largest = *std::ranges::max_element(sums);
    for (size_t t = 0; t < sums.size(); ++t) ratio += WeightOf(weights[t]) / std::exp2(step * (sums[t] - largest));
    EXPECT_NEAR(ratio / static_cast<double>(sums.size()), 1, 0.003);
  });
}

TEST(KeyWeightsTest, ABaseThatIsNaNGivesNaN) {
  const std::vector<uint16_t> sums = RandomSums(100, 6);
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    std::vector<uint16_t> weights(sums.size());
    std::vector<float> group_sums(kGroups);
    EXPECT_TRUE(std::isnan(WeighSums(sums.data(), kGroups, NAN, 0, weights.data(), group_sums.data())));
    for (const uint16_t weight : weights) EXPECT_TRUE(std::isnan(WeightOf(weight)));
    for (const float sum : group_sums) EXPECT_TRUE(std::isnan(sum));
  });
}

TEST(KeyWeightsTest, FindsWhatIsHeavyOverAllQueries) {
  std::mt19937 random(4);
  std::uniform_int_distribution<uint16_t> uniform(0x3000, 0x3F80);  // 4.7e-10 to 1
  const size_t n = 160, stride = 200;
  std::vector<uint16_t> weights(3 * stride);
  for (uint16_t& x : weights) x = uniform(random);
  weights[7] = 0x7FC0;
  const std::vector<float> factor = {0.5f, 2.0f, 0.25f};
  ForEveryTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const float least : {0.0f, 0.1f, 5.0f}) {
      std::vector<int32_t> numbers(n + 16), again(n + 16);
      std::vector<float> totals(n + 16), all(n), found_totals(n + 16);
      const int64_t count =
          FindHeavy(weights.data(), stride, factor.data(), 3, n, least, numbers.data(), totals.data());
      size_t found = 0;
      for (size_t t = 0; t < n; ++t) {
        all[t] =
            0.5f * WeightOf(weights[t]) + 2 * WeightOf(weights[t + stride]) + 0.25f * WeightOf(weights[t + 2 * stride]);
        if (!(all[t] >= least)) continue;
        ASSERT_LT(found, static_cast<size_t>(count));
        EXPECT_EQ(numbers[found], static_cast<int32_t>(t));
        EXPECT_NEAR(totals[found], all[t], 1e-5);
        ++found;
      }
      EXPECT_EQ(found, static_cast<size_t>(count));
      EXPECT_EQ(FindHeavyTotals(all.data(), n, least, again.data(), found_totals.data()), count);
      EXPECT_TRUE(std::equal(numbers.begin(), numbers.begin() + count, again.begin()));
    }
  });
}

}  // namespace
}  // namespace loopserve
